//! A program whose scenarios hold, fail, and stand still, for those who want to see what the command makes of it.
#![allow(clippy::disallowed_methods, reason = "it blocks on purpose")]

use chaos::property::Violation;
use chaos::rt::time;
use chaos::scenario::{Passed, Scenario};
use chaos::{FaultKind, Targets};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
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

const FORGETS: Scenario = Scenario {
    faults: &[FaultKind::Crash],
    ..Scenario::new("forgets", "a host starts once in half a minute", |trial| {
        Box::pin(async move {
            let starts = Arc::new(AtomicU32::new(0));
            let counted = starts.clone();
            let host = trial.world.host("a").addr("10.0.0.1").spawn(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                std::future::pending()
            });
            let span = Duration::from_secs(30);
            trial.start_faults(&Targets { hosts: vec![host], ..Targets::default() }, span);
            trial.world.sleep(span).await;
            trial.heal().await;
            match starts.load(Ordering::Relaxed) {
                1 => Ok(Passed::default()),
                more => Err(Violation::safety("a host starts once", format!("it started {more} times"))),
            }
        })
    })
};

fn main() -> ExitCode {
    chaos::cli::main(&[HOLDS, FAILS, BLOCKS, FORGETS])
}
