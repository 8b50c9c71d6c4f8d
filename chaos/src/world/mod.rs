//! The scenario's handle on its world: the [`World`], which gives access to its [`Host`]s and networks.

mod agenda;
mod clock;
pub(crate) mod handle;
pub(crate) mod host;
mod hosts;
pub(crate) mod logs;
mod map;
pub(crate) mod net;
pub(crate) mod panics;
pub(crate) mod process;
pub mod property;
mod record;
pub(crate) mod sim;
pub(crate) mod sleep;
pub mod stats;
pub(crate) mod task;
mod trace;
pub(crate) mod traffic;
pub(crate) mod watch;

pub use handle::World;
pub use host::Host;
