//! Models of what stands between nodes in the world.
//!
//! | module | what |
//! | --- | --- |
//! | `nat_box` | NAT boxes and firewalls, configurable and as people have them |
//! | `oracle` | which pairs of boxes let two peers end with a direct path |

pub mod nat_box;
pub mod oracle;
