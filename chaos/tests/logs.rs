//! The log lines of a watched run, while others run beside it. One test in a process of its own: whether a line is
//! looked at at all is decided once for the whole process.
#![cfg(madsim)]
#![allow(clippy::disallowed_methods, reason = "a test of runs on threads of their own")]

use std::sync::{Barrier, LazyLock};
use std::thread;

use chaos::RecordingOptions;
use chaos::scenario::{Options, Passed, Scenario, Trial};

/// Where the two runs meet: when the watched one has begun, and when the other one has said its line.
static BESIDE: LazyLock<Barrier> = LazyLock::new(|| Barrier::new(2));

fn say() {
    tracing::debug!("a line that both runs say");
}

fn says(_: Trial) -> Passed {
    say();
    Passed { state: String::new(), notes: String::new() }
}

fn says_after_another(trial: Trial) -> Passed {
    BESIDE.wait();
    BESIDE.wait();
    says(trial)
}

const UNWATCHED: Scenario =
    Scenario::new("unwatched", "says a line first", |trial| Box::pin(async { Ok(says(trial)) }));
const WATCHED: Scenario =
    Scenario::new("watched", "says the line, too", |trial| Box::pin(async { Ok(says_after_another(trial)) }));

#[test]
fn a_line_is_kept_though_a_run_without_a_watcher_said_it_first() {
    let watched = thread::spawn(|| {
        let watching = RecordingOptions { last: 10, logs: &["logs"], ..RecordingOptions::default() };
        WATCHED.run_watched(&Options::seed(1), &watching).unwrap().1.sightings.len()
    });
    BESIDE.wait();
    UNWATCHED.run(&Options::seed(1));
    BESIDE.wait();
    assert_eq!(watched.join().unwrap(), 1);
}
