//! The simulated world: hosts with clocks, disks, interfaces and processes, and the paths between them.
//!
//! A run is a function of its seed. madsim gives the executor, the virtual clock and the interception of
//! ambient time and entropy; the network is our own and carries real IP packets, UDP and, by smoltcp, TCP.
//! [`run`](fn@run) makes a world, hands it to a scenario, and returns an [`Outcome`] with the digest of
//! everything that happened. What a host's code calls is in [`rt`], the twin of the real door of the same name.
//!
//! | module | concept |
//! | --- | --- |
//! | [`run`](mod@run) | a run, its self-check, its end |
//! | [`world`] | the scenario's handles |
//! | [`rt`] | what code on a host calls |
//! | `sim` | the state of the running world |
//! | `timer`, `slab` | the queue of events; keys that go stale |
//! | `host`, `process` | a kernel; the tasks of a boot |
//! | [`net`], [`middlebox`] | the map: networks, and what stands between them |
//! | `forward`, [`link`], `packet` | the way of a packet |
//! | [`scenario`], [`property`] | what is run, what must hold, what must happen |
//! | [`plan`] | what goes wrong, as data: drawn, given, let loose, healed |
//! | `udp`, `tcp`, `disk`, [`clock`] | parts of a kernel |
//! | [`seed`], `trace`, `pcap`, [`stats`] | random streams; the digest; a capture; counters |
#![cfg(madsim)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the world behind the door")]

pub mod clock;
mod disk;
mod forward;
mod host;
pub mod link;
pub mod middlebox;
pub mod net;
mod packet;
mod pcap;
pub mod plan;
mod process;
pub mod property;
pub mod rt;
pub mod run;
pub mod scenario;
pub mod seed;
mod sim;
mod slab;
pub mod stats;
mod tcp;
mod timer;
mod trace;
mod udp;
pub mod world;

pub use host::HostId;
pub use link::{DropCause, LinkConfig, Rate};
pub use middlebox::Middlebox;
pub use net::Net;
pub use plan::{FaultKind, Plan, Targets};
pub use property::{Broken, Kind};
pub use run::{Failure, Outcome, Run, run};
pub use scenario::{Held, Scenario, Trial, Verdict};
pub use stats::Stats;
pub use world::{Host, World};
