//! The simulated side of the runtime shim: sockets, time, tasks, disk and randomness of a host of the world.
//!
//! Names and signatures are those of the shim over the operating system, so the same code runs on both. Every call
//! acts for the host, and the boot, of the calling task. The scenario's own code, which runs on no host, may use
//! [`time`], [`task`] and [`rng`]. Outside of any run, in a plain test of a pure core, only the clocks and [`rng`]
//! work.

mod bounds;
pub mod disk;
mod dns;
mod label;
pub mod net;
mod points;
pub mod task;
mod tcp;
pub mod time;

use crate::world::sim;

pub use crate::world::property::{exposed, reached};
pub use crate::world::rng::Rng;
pub use bounds::bound;
pub use label::{is_read, known_as, label, labelled, labelled_within};
pub use points::buggify;

/// The next random stream of this label for the calling host. It derives from the seed, the host, the label and the
/// count of the host's requests for the label, restarts included, so that no two calls get the same bytes.
pub fn rng(label: &str) -> Rng {
    if !sim::is_running() {
        // A plain test of a pure core gets a fixed stream.
        return Rng::new(crate::seed::stream(0, label), None);
    }
    let place = sim::place();
    sim::with(|sim| sim.open_stream(place.map(|place| place.host), label))
}

/// Runs `future` on the only host of a world: for tests of code that knows only the shim.
///
/// # Panics
/// If the future panics, or the world ends before it.
pub fn run_on_one_host<F>(seed: u64, future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let outcome = crate::lab::run::run(seed, move |world| async move {
        let host = world.host("one").addr("10.0.0.1").addr("fd00::1");
        if let Err(error) = host.run(future).await {
            panic!("{error}");
        }
    });
    if let Err(failure) = outcome.result {
        panic!("{failure}");
    }
}
