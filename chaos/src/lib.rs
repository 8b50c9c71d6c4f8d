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
//! | [`tokio`](mod@tokio) | tokio's names for programs that know nothing of this crate |
//! | [`testing`] | scenarios as ordinary tests: [`test`](macro@test) |
//! | [`rt`] | the runtime that code on a host calls |
//! | `lab`: [`run`](mod@run), [`scenario`], [`plan`], [`sweep`], [`explore`], [`shrink`], [`no_return`], [`story`], [`bundle`], [`diff`], [`picture`] | runs, scenarios, faults; many runs, blind or guided; a failure shrunk, dated, explained, saved, compared, drawn |
//! | [`world`], [`net`], [`property`], [`sighting`], [`history`], [`stats`] | the running world: kernels and wire joined, the scenario's handles, the digest, what must hold, what a reader sees |
//! | `kernel`: [`clock`] | a host: process, clocks, disk, interfaces, sockets |
//! | `wire`: [`link`], [`middlebox`] | between hosts: packets, links, boxes, networks |
//! | `ids`, [`seed`] | the names of hosts, networks and ends; random streams |
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the world behind the door")]

#[cfg(all(madsim, feature = "cli"))]
pub mod cli;
#[cfg(madsim)]
mod ids;
#[cfg(madsim)]
mod kernel;
#[cfg(madsim)]
mod lab;
#[cfg(madsim)]
pub mod rt;
#[cfg(madsim)]
pub mod seed;
#[cfg(madsim)]
pub mod testing;
#[cfg(madsim)]
pub mod tokio;
#[cfg(madsim)]
mod wire;
#[cfg(madsim)]
pub mod world;

/// Networks, and the ends of links.
#[cfg(madsim)]
pub mod net {
    pub use crate::ids::{End, NetId};
    pub use crate::world::net::Net;
}

/// Makes an ordinary `#[test]` of an `async fn` that runs in simulated worlds, one world for each seed.
///
/// ```no_run
/// use chaos::{Trial, World};
///
/// /// The world is empty at first: the test makes its hosts.
/// #[chaos::test(seeds = 20)]
/// async fn a_host_has_an_address(world: World) {
///     let server = world.host("server").addr("10.0.0.1");
///     assert_eq!(server.ip().to_string(), "10.0.0.1");
/// }
///
/// /// A plain test runs on the only host of a world, as on a machine without a network.
/// #[chaos::test]
/// async fn an_hour_is_over_at_once() {
///     chaos::rt::time::sleep(std::time::Duration::from_secs(3600)).await;
/// }
///
/// /// A trial is a world with faults, which each seed draws from these kinds.
/// #[chaos::test(seeds = 100, start = 1000, time_limit = "20min", faults = [Crash, Loss])]
/// async fn it_survives(trial: Trial) -> Result<(), String> {
///     let server = trial.world.host("server").addr("10.0.0.1");
///     let targets = chaos::Targets { hosts: vec![server], ..chaos::Targets::default() };
///     trial.start_faults(&targets, std::time::Duration::from_secs(30));
///     trial.heal().await;
///     Ok(())
/// }
/// ```
///
/// | option | meaning | default |
/// | --- | --- | --- |
/// | `seeds = 20` | how many seeds are run | 20 |
/// | `start = 1` | the first seed | 1 |
/// | `time_limit = "10min"` | virtual time after which a run has failed: `"500ms"`, `"90s"`, `"10min"`, `"2h"`, or a number of seconds | ten minutes |
/// | `faults = [Crash, Loss]` | [kinds of fault](FaultKind) that each seed draws from, once the test calls [`Trial::start_faults`] | none |
/// | `logs = ["mine"]` | targets of [`tracing`] lines that a failure's story tells, or their beginnings | the package's, and the test's crate's |
///
/// The function takes nothing, a [`World`] or a [`Trial`]. It returns nothing, or a `Result<(), E>` where `E` has `Debug`;
/// a [`Violation`] says more than other errors: which property, on which host. Other attributes, such as `#[ignore]` and
/// `#[should_panic]`, stay.
///
/// The first seed that fails ends the test. The test panics with the failure's [story], which ends with the line
/// that replays it:
///
/// ```text
/// replay: CHAOS_SEED=7 cargo test register::a_write_is_kept -- --exact
/// ```
///
/// | variable | meaning |
/// | --- | --- |
/// | `CHAOS_SEED=7` | runs this seed alone, and also writes its whole trace and its packets (`packets.pcapng`) |
/// | `CHAOS_BUNDLE=target/chaos/…` | runs what a story was told of, with the shrunk faults, and writes the same files |
/// | `CHAOS_SEEDS=500` | runs another number of seeds |
///
/// The first seed is run twice: if the second run isn't the same, the test fails and says what differed. A test that names
/// faults fails if no run ever had one: it proves nothing. A test that holds says what it has done, which
/// `cargo test -- --nocapture` shows: `20 seeds, 31 faults begun, 4012 packets`.
///
/// What isn't `async`, or takes other arguments, doesn't compile:
///
/// ```compile_fail
/// #[chaos::test]
/// fn not_async(world: chaos::World) {}
/// ```
///
/// ```compile_fail
/// #[chaos::test]
/// async fn two_worlds(one: chaos::World, two: chaos::World) {}
/// ```
///
/// ```compile_fail
/// #[chaos::test(sedes = 20)]
/// async fn an_unknown_option(world: chaos::World) {}
/// ```
///
/// ```compile_fail
/// #[chaos::test(faults = [Crash])]
/// async fn faults_without_a_trial() {}
/// ```
///
/// ```compile_fail
/// #[chaos::test(faults = [Crash])]
/// async fn faults_in_a_world(world: chaos::World) {}
/// ```
#[doc(inline)]
#[cfg(madsim)]
pub use chaos_macros::test;
#[cfg(not(madsim))]
pub use chaos_macros::test_without_the_flag as test;
#[cfg(madsim)]
pub use ids::HostId;
#[cfg(madsim)]
pub use kernel::clock;
#[cfg(madsim)]
pub use lab::plan::{FaultKind, Plan, Targets};
#[cfg(madsim)]
pub use lab::points::Point;
#[cfg(madsim)]
pub use lab::run::{Failure, Run, RunOutcome, run};
#[cfg(madsim)]
pub use lab::scenario::{Passed, RunResult, Scenario, Trial};
#[cfg(madsim)]
pub use lab::{bundle, diff, explore, no_return, picture, plan, run, scenario, shrink, story, sweep};
#[cfg(madsim)]
pub use net::Net;
#[cfg(madsim)]
pub use wire::link::{DropCause, LinkConfig, Rate};
#[cfg(madsim)]
pub use wire::middlebox::Middlebox;
#[cfg(madsim)]
pub use wire::{link, middlebox};
#[cfg(madsim)]
pub use world::labels::Labels;
#[cfg(madsim)]
pub use world::novelty::{FirstReach, Novelties, Novelty};
#[cfg(madsim)]
pub use world::property::{PropertyKind, Violation};
#[cfg(madsim)]
pub use world::recipe::{Branch, Recipe, RecipeError};
#[cfg(madsim)]
pub use world::stats::WorldStats;
#[cfg(madsim)]
pub use world::timeline::Timeline;
#[cfg(madsim)]
pub use world::watch::{Decoder, RecordingOptions, Recordings};
#[cfg(madsim)]
pub use world::{Host, World, history, property, sighting, stats};
