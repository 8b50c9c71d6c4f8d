//! The speed of the world at 50 hosts, in one process and in CPU time: datagrams, with the trace on, against
//! madsim's own network with the same payload, latency and pattern; the same with a NAT box in front of every host;
//! and TCP segments. `cargo bench -p chaos --bench world -- ours` runs one part alone, for a profiler.
//!
//! The process fails, with a message, if a ratio falls below [`LEAST`] or [`LEAST_WITH_BOXES`].
#![allow(clippy::disallowed_methods, reason = "madsim's side needs a thread of its own")]

#[cfg(madsim)]
mod madsims;
#[cfg(madsim)]
mod nat;
#[cfg(madsim)]
mod ours;

#[cfg(madsim)]
mod bench {
    use super::{madsims, ours};
    use std::process::ExitCode;
    use std::time::Duration;

    pub(crate) const HOSTS: usize = 50;
    pub(crate) const PAYLOAD_BYTES: usize = 100;
    /// Datagrams that each host sends to its neighbour, a burst at a time.
    pub(crate) const BURSTS: usize = 1000;
    pub(crate) const BURST: usize = 20;
    pub(crate) const GAP: Duration = Duration::from_millis(5);
    pub(crate) const LATENCY_MS: (u64, u64) = (10, 20);
    pub(crate) const PORT: u16 = 4000;
    const ROUNDS: usize = 7;

    /// The ratio of the world with its trace to the better of two ways to use madsim's network.
    const LEAST: f64 = 1.5;
    /// The same with two boxes on each path.
    const LEAST_WITH_BOXES: f64 = 1.0;

    pub(crate) fn ip(host: usize) -> String {
        format!("10.0.{}.{}", host / 250, host % 250 + 1)
    }

    /// CPU time of this process so far, which a busy machine doesn't stretch: user and system ticks of a
    /// hundredth of a second, the 14th and 15th field of Linux's `/proc/self/stat`.
    pub(crate) fn cpu() -> Duration {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let (_, behind_name) = stat.rsplit_once(')').unwrap();
        let ticks = |field| behind_name.split_whitespace().nth(field).unwrap().parse::<u64>().unwrap();
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    pub(crate) fn rate(count: u64, began: Duration) -> f64 {
        count as f64 / (cpu() - began).as_secs_f64()
    }

    /// One part, by its name on the command line.
    fn part(name: &str) -> Option<fn() -> f64> {
        Some(match name {
            "ours" => || ours::datagrams(false).0,
            "boxes" => || ours::datagrams(true).0,
            "tcp" => ours::segments,
            "madsim" => madsims::side_by_side,
            "madsim-plain" => madsims::one_by_one,
            _ => return None,
        })
    }

    pub(super) fn main() -> ExitCode {
        if let Some(part) = std::env::args().nth(1).as_deref().and_then(part) {
            println!("{:.0} per second of CPU time", part());
            return ExitCode::SUCCESS;
        }
        let parts = ["ours", "boxes", "tcp", "madsim", "madsim-plain"];
        let mut best = [0f64; 5];
        // The parts take turns, so that changes of the machine's load affect all of them.
        for _ in 0..ROUNDS {
            for (name, best) in parts.iter().zip(&mut best) {
                *best = best.max(part(name).expect("a part's name")());
            }
        }
        let [ours, boxes, tcp, side_by_side, one_by_one] = best;
        let theirs = side_by_side.max(one_by_one);
        println!("{HOSTS} hosts, {PAYLOAD_BYTES} bytes a datagram, CPU time, best of {ROUNDS} rounds");
        println!("the world, trace on                 {ours:>12.0} datagrams/s");
        println!("the world, a NAT before each host   {boxes:>12.0} datagrams/s");
        println!("the world, TCP                      {tcp:>12.0} segments/s");
        println!("madsim::net, side by side           {side_by_side:>12.0} datagrams/s");
        println!("madsim::net, one by one             {one_by_one:>12.0} datagrams/s");
        println!("ratio to its better                 {:>12.2} (at least {LEAST})", ours / theirs);
        println!(
            "with boxes                          {:>12.2} (at least {LEAST_WITH_BOXES})",
            boxes / theirs
        );
        println!(
            "digests                             {} {}",
            ours::datagrams(false).1,
            ours::datagrams(true).1
        );
        if ours / theirs < LEAST || boxes / theirs < LEAST_WITH_BOXES {
            println!("too slow");
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }
}

fn main() -> std::process::ExitCode {
    #[cfg(madsim)]
    return bench::main();
    #[cfg(not(madsim))]
    std::process::ExitCode::SUCCESS
}
