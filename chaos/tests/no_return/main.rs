//! The moment of no return of failures whose moment is known.
#![cfg(madsim)]
#![allow(clippy::disallowed_methods, reason = "tests of the world behind the door")]

mod toys;

use chaos::no_return::{NoReturn, RUNS, Seeker};
use chaos::scenario::{Options, Report, Scenario};
use std::time::Duration;
use toys::{COIN, COPIES, FRAGILE, MISCOUNTS, ONLY_COPY, SAID_ONCE};

/// The first failing run of a toy under a plan: only the coin has seeds of which some hold.
fn failing(toy: Scenario, plan: &str) -> Report {
    let run = |seed| toy.run(&Options { plan: Some(plan.parse().unwrap()), ..Options::seed(seed) });
    let failing = (7..20).map(run).find(|report| report.verdict.is_err());
    failing.unwrap_or_else(|| panic!("{} holds with {plan}", toy.name))
}

fn sought(toy: Scenario, plan: &str) -> NoReturn {
    let found = Seeker::new(toy).seek(&failing(toy, plan), &mut |_| {}).unwrap();
    println!("{found}");
    assert!(!found.gave_up && found.runs <= RUNS, "{found}");
    found
}

/// The moment is a record with this text, and from the event before it all continuations hold. Both are within an instant of
/// `at_ms` on the run's clock.
fn is_at(found: &NoReturn, at_ms: u64, text: &str) {
    let (saved, lost) = (found.saved.as_ref().unwrap(), found.lost.as_ref().unwrap());
    let at = Duration::from_millis(at_ms);
    assert!(lost.at >= at && lost.at < at + Duration::from_millis(2), "at {:?}: {found}", lost.at);
    assert!(lost.text.contains(text), "{found}");
    assert_eq!(saved.event + 1, lost.event, "{found}");
    assert_eq!((saved.held, saved.tried, lost.held, lost.tried), (8, 8, 0, 24), "{found}");
    assert!(found.around.contains(&lost.text), "{found}");
}

#[test]
fn of_two_crashes_the_second_one_is_the_moment() {
    // The first and third crash do no harm: the other copy is there.
    let plan =
        "2s crash h0 for=100ms\n8s crash h0 for=900ms\n8500ms crash h1 for=100ms\n20s crash h1 for=1s\n";
    let found = sought(COPIES, plan);
    is_at(&found, 8_500, "fault 3: 8.5s crash h1");
    assert!(found.failed_at > Duration::from_secs(34));
}

#[test]
fn the_crash_that_takes_the_only_copy_is_the_moment() {
    let plan = "3s pause h0 for=2s\n12345ms crash h0 for=1s\n20s crash h0 for=1s\n";
    is_at(&sought(ONLY_COPY, plan), 12_345, "fault 2: 12.345s crash h0");
}

#[test]
fn the_loss_of_a_word_that_is_said_once_is_the_moment_of_a_liveness_failure() {
    // It is said at 9 s, and the deadline is a minute after that.
    let found = sought(SAID_ONCE, "1s loss * udp=100 tcp=0 for=29s\n");
    is_at(&found, 9_000, "10.0.0.1:7000         > 10.0.0.2:7000");
    // A link decides on a packet's fate when it is sent: the record of that is the next one.
    let dropped = found.around.iter().skip_while(|line| **line != found.lost.as_ref().unwrap().text).nth(1);
    assert!(dropped.unwrap().contains("(Loss)"), "{found}");
    assert!(found.to_string().contains("the failure was seen 51"), "{found}");
}

#[test]
fn a_run_that_fails_without_faults_could_never_be_saved() {
    let found = sought(MISCOUNTS, "1s crash h0 for=1s\n");
    assert_eq!((found.saved.as_ref(), found.runs), (None, 24), "{found}");
    assert!(found.to_string().contains("none of 24 continuations from the beginning"), "{found}");
}

#[test]
fn a_fault_that_breaks_a_property_by_itself_is_the_moment_and_is_seen_at_once() {
    let found = sought(FRAGILE, "1s pause h0 for=1s\n5s crash h0\n");
    is_at(&found, 5_000, "fault 2: 5s crash h0");
    assert!(found.to_string().contains("; the failure was seen at once"), "{found}");
}

#[test]
fn what_is_decided_after_the_last_event_could_be_saved_until_then() {
    let found = sought(COIN, "1s pause h0 for=1s\n");
    let last = found.saved.as_ref().unwrap();
    assert_eq!((last.event, found.lost.as_ref()), (found.events, None), "{found}");
    assert!(last.held > 0 && last.held < last.tried, "{found}");
    assert!(found.to_string().contains("it could be saved until its last event, event "), "{found}");
    assert!(found.around.last().unwrap().contains("resume"), "{found}");
}

#[test]
fn the_threads_and_the_limit_change_nothing() {
    let failing = failing(ONLY_COPY, "12345ms crash h0 for=1s\n");
    let sought = |jobs, runs| {
        let mut steps = Vec::new();
        let seeker = Seeker { jobs, runs, ..Seeker::new(ONLY_COPY) };
        let found = seeker.seek(&failing, &mut |step| steps.push(step.to_owned())).unwrap();
        (found, steps)
    };
    let alone = sought(1, RUNS);
    assert!(!alone.0.gave_up && alone.0.runs > 30, "{}", alone.0);
    assert!(alone.1.last().unwrap().starts_with("saved at event "), "{:?}", alone.1);
    for jobs in [2, 3, 16] {
        assert_eq!(sought(jobs, RUNS), alone, "{jobs} threads");
    }
    let short = sought(1, 20);
    assert!(short.0.gave_up && short.0.runs == 20 && short.0.to_string().contains("in 20 runs (the limit)"));
    assert_eq!(sought(16, 20), short);
}

#[test]
fn a_run_that_held_has_no_such_moment() {
    let held = ONLY_COPY.run(&Options { plan: Some("".parse().unwrap()), ..Options::seed(7) });
    assert_eq!(Seeker::new(ONLY_COPY).seek(&held, &mut |_| {}), None);
}
