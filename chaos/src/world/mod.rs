//! The scenario's handle on its world: the [`World`], which gives access to its [`Host`]s and networks.

pub(crate) mod handle;
pub(crate) mod host;
pub(crate) mod logs;
pub(crate) mod map;
pub mod property;
pub(crate) mod sim;
pub mod stats;
pub(crate) mod trace;
pub(crate) mod watch;

pub use handle::World;
pub use host::Host;
