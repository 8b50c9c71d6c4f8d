//! Models of the equipment between nodes in the world.
//!
//! | module | contents |
//! | --- | --- |
//! | `guest` | a hub's client without a node, and the mesh whose passes it has (feature `sim`) |
//! | `impostor` | services that answer on a hub's port without being the hub |
//! | `nat_box` | NAT boxes and firewalls: configurable, with presets of common devices |
//! | `oracle` | which pairs of boxes let two peers end with a direct path |
//! | `sim_hub` | a hub, and the faults that can be injected into it (feature `sim`) |

#[cfg(feature = "sim")]
pub mod guest;
pub mod impostor;
pub mod nat_box;
pub mod oracle;
#[cfg(feature = "sim")]
pub mod sim_hub;
