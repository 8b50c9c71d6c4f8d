//! The simulated world: hosts with clocks, disks, interfaces and processes, and the paths between them.
//!
//! A run is a function of its seed. madsim provides the executor, the virtual clock and the interception of ambient
//! time and entropy. The network is chaos's own: it carries real IP packets with UDP and, through smoltcp, TCP.
//! [`run`](fn@run) makes a world, passes it to a scenario, and returns an [`RunOutcome`] with the digest of all events.
//! Code on a host calls [`rt`], which has the same names and signatures as the module `rt` over the operating
//! system.
//!
//! A scenario builds its world as a map: networks behind boxes, hosts in networks, links between them.
//!
//! ```
//! # #[cfg(madsim)]
//! # {
//! use chaos::link::Bandwidth;
//! use chaos::middlebox::Modem;
//! use chaos::{LinkConfig, Rate};
//! use std::time::Duration;
//!
//! let outcome = chaos::run(7, |world| async move {
//!     world.link_default(LinkConfig { latency: Duration::from_millis(20), ..LinkConfig::default() });
//!     let server = world.internet().host("server", "198.51.100.7").addr("2001:db8::7");
//!     // A home behind a line of 1 MB/s up. Its box translates nothing; a NAT box stands in the same place.
//!     let line = world.internet().nat("line", &[], Modem);
//!     let home = line.nat("home", &["203.0.113.1"], Modem);
//!     let up = Bandwidth { bytes_per_second: 1_000_000, queue_bytes: 64 << 10 };
//!     world.set_link(home, line, LinkConfig { bandwidth: Some(up), ..LinkConfig::ideal() });
//!     // A laptop on a bad wifi, and with a second way out.
//!     let laptop = home.host("laptop", "203.0.113.2");
//!     laptop.attach("cell0", world.internet(), &["203.0.113.77"]);
//!     world.set_link_both(laptop, home, &LinkConfig { udp_loss: Rate::percent(3), ..LinkConfig::ideal() });
//!     // What happens to it.
//!     world.partition(&[laptop], &[server]);
//!     laptop.attach("eth0", world.internet(), &["203.0.113.3"]);
//!     home.set_power(false);
//!     world.heal();
//!     world.map()
//! });
//! assert_eq!(
//!     outcome.result.unwrap(),
//!     "internet
//!   server: eth0 198.51.100.7 2001:db8::7
//!   laptop: eth0 203.0.113.3, cell0 203.0.113.77
//!   line, behind a modem
//!     home, behind a modem (off) at 203.0.113.1
//! "
//! );
//! # }
//! ```
//!
//! Inside, the floors from the top. An import points to the same floor's folder or down, and `kernel` and `wire`, which
//! stand beside each other, don't know each other; `ci/layers` holds this.
//!
//! | floor | concept |
//! | --- | --- |
//! | `cli` | the command that runs scenarios (feature `cli`) |
//! | [`rt`] | the runtime that code on a host calls |
//! | `lab`: [`run`](mod@run), [`scenario`], [`plan`], [`sweep`], [`explore`], [`shrink`], [`story`], [`bundle`], [`diff`], [`picture`] | runs, scenarios, faults; many runs, blind or guided; a failure shrunk, explained, saved, compared, drawn |
//! | [`world`], [`net`], [`property`], [`sighting`], [`history`], [`stats`] | the running world: kernels and wire joined, the scenario's handles, the digest, what must hold, what a reader sees |
//! | `kernel`: [`clock`] | a host: process, clocks, disk, interfaces, sockets |
//! | `wire`: [`link`], [`middlebox`] | between hosts: packets, links, boxes, networks |
//! | `ids`, [`seed`] | the names of hosts, networks and ends; random streams |
#![cfg(madsim)]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the world behind the door")]

#[cfg(feature = "cli")]
pub mod cli;
mod ids;
mod kernel;
mod lab;
pub mod rt;
pub mod seed;
mod wire;
pub mod world;

/// Networks, and the ends of links.
pub mod net {
    pub use crate::ids::{End, NetId};
    pub use crate::world::net::Net;
}

pub use ids::HostId;
pub use kernel::clock;
pub use lab::plan::{FaultKind, Plan, Targets};
pub use lab::points::Point;
pub use lab::run::{Failure, Run, RunOutcome, run};
pub use lab::scenario::{Passed, RunResult, Scenario, Trial};
pub use lab::{bundle, diff, explore, picture, plan, run, scenario, shrink, story, sweep};
pub use net::Net;
pub use wire::link::{DropCause, LinkConfig, Rate};
pub use wire::middlebox::Middlebox;
pub use wire::{link, middlebox};
pub use world::labels::Labels;
pub use world::novelty::{FirstReach, Novelties, Novelty};
pub use world::property::{PropertyKind, Violation};
pub use world::recipe::{Branch, Recipe, RecipeError};
pub use world::stats::WorldStats;
pub use world::watch::{Decoder, RecordingOptions, Recordings};
pub use world::{Host, World, history, property, sighting, stats};
