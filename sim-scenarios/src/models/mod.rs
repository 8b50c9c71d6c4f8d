//! Models of what stands between nodes in the world.
//!
//! | module | what |
//! | --- | --- |
//! | `impostor` | what answers on a hub's port without being the hub |
//! | `nat_box` | NAT boxes and firewalls, configurable and as people have them |
//! | `oracle` | which pairs of boxes let two peers end with a direct path |
//! | `relay` | a hub, and everything that may befall it |

pub mod impostor;
pub mod nat_box;
pub mod oracle;
pub mod relay;
