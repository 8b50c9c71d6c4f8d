//! A host's kernel: its interfaces, clocks, disk, ports and sockets, and the process that uses them.
//!
//! A part owns its state. It sends nothing by itself: a call returns what is to be sent, and the world carries it. So a
//! kernel knows neither the wire nor the world.
//!
//! | module | concept |
//! | --- | --- |
//! | `host` | a host, of all these parts |
//! | `process`, `processor` | the boot of a process, and what stops it; on what it runs |
//! | `clock`, `disk`, `nics`, `ports` | the parts of a kernel |
//! | `udp`, `tcp` | its sockets |
//! | `names` | what goes wrong with names |
//! | `points` | the points of its program that are on |
//! | `timer`, `slab` | the queue of future events; tables with generational keys |

pub mod clock;
pub(crate) mod disk;
pub(crate) mod host;
pub(crate) mod names;
pub(crate) mod nics;
pub(crate) mod points;
mod ports;
pub(crate) mod process;
pub(crate) mod processor;
pub(crate) mod slab;
pub(crate) mod tcp;
pub(crate) mod timer;
pub(crate) mod udp;
