//! The scenario's handle on its world: the [`World`], which gives access to its [`Host`]s and networks.
//!
//! Inside, this floor joins the kernels of hosts with the wire between them:
//!
//! | module | concept |
//! | --- | --- |
//! | `sim` | the state of the running world, and the access to it |
//! | `traffic` | packets between kernels and wire |
//! | `hosts`, `agenda`, `clock` | parts of the world: its hosts, its future events, its time |
//! | `record`, `trace`, `watch`, `stats`, `logs` | what is recorded: the digest, events as text, counters, log lines |
//! | `timeline` | when each record of a watched run was made, and the text of a few |
//! | `history` | all that a watched run showed, for its picture |
//! | `findings`, `property` | what a run looks for and has found; the calls that report it |
//! | `rng` | the random streams that programs hold, and their positions |
//! | `process`, `task`, `sleep`, `panics` | processes, their tasks and waits, and their panics |
//! | `cpu` | the time that computation takes |
//! | `dns` | names: answers of a name server, and the addresses of a name |
//! | `pulse` | whether the tasks get on: their polls, counted |
//! | `handle`, `host`, `net`, `map` | the scenario's handles, and the map as text |

mod agenda;
mod clock;
pub(crate) mod cpu;
pub(crate) mod dns;
mod findings;
pub(crate) mod handle;
pub mod history;
pub(crate) mod host;
mod hosts;
pub(crate) mod labels;
pub(crate) mod logs;
mod map;
pub(crate) mod names;
pub(crate) mod net;
pub(crate) mod novelty;
mod packets;
pub(crate) mod panics;
pub(crate) mod process;
pub mod property;
pub(crate) mod pulse;
pub(crate) mod recipe;
mod record;
pub(crate) mod rng;
pub mod sighting;
pub(crate) mod sim;
pub(crate) mod sleep;
pub mod stats;
pub(crate) mod task;
pub(crate) mod timeline;
mod trace;
pub(crate) mod traffic;
pub(crate) mod watch;

pub use crate::kernel::disk::DiskOutage;
pub use handle::World;
pub use host::Host;
