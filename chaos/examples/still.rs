//! A program whose scenarios hold, fail, and stand still, for those who want to see what the command makes of it.
#![allow(clippy::disallowed_methods, reason = "it blocks on purpose")]

use chaos::property::Violation;
use chaos::rt::time;
use chaos::scenario::{Passed, Scenario};
use std::process::ExitCode;
use std::time::Duration;

const HOLDS: Scenario = Scenario::new("holds", "a host sleeps for a second", |trial| {
    Box::pin(async move {
        let host = trial.world.host("a").addr("10.0.0.1");
        let slept = host.run(time::sleep(Duration::from_secs(1))).await;
        slept.map_err(|error| Violation::liveness("a host sleeps for a second", error.to_string()))?;
        Ok(Passed::default())
    })
});

const FAILS: Scenario = Scenario::new("fails", "an odd seed breaks it", |trial| {
    Box::pin(async move {
        match trial.world.seed() % 2 {
            1 => Err(Violation::safety("all is well", "the seed is odd")),
            _ => Ok(Passed::default()),
        }
    })
});

const BLOCKS: Scenario = Scenario::new("blocks", "a task of a host waits for what never comes", |trial| {
    Box::pin(async move {
        let host = trial.world.host("a").addr("10.0.0.1");
        let blocked = host.run(async {
            let (_sender, receiver) = std::sync::mpsc::channel::<()>();
            let _ = receiver.recv();
        });
        let _ = blocked.await;
        Ok(Passed::default())
    })
});

fn main() -> ExitCode {
    chaos::cli::main(&[HOLDS, FAILS, BLOCKS])
}
