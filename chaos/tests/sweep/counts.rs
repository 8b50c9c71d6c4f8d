//! What a sweep counts, and when it is vacuous.

use crate::toy::{BLOCKED, CANARY, SOUND, TOY, sweep, swept};
use chaos::property::{PropertyKind, Violation};
use chaos::scenario::{Passed, Purpose, Scenario};
use chaos::sweep::{Sweep, SweepReport};
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
fn a_sweep_counts_every_scenario_and_mark_the_same_with_any_number_of_threads() {
    let both = [SOUND, TOY];
    let one = swept(&Sweep { jobs: 1, ..sweep(&both, 20) });
    let three = swept(&Sweep { jobs: 3, ..sweep(&both, 20) });
    let counts = |swept: &SweepReport| -> Vec<_> {
        swept
            .tallies
            .iter()
            .map(|(name, tally)| (*name, tally.runs, tally.failures, tally.marks.clone()))
            .collect()
    };
    assert_eq!(counts(&one), counts(&three));
    assert_eq!(one.tallies["sound"].runs, 10);
    assert_eq!(one.tallies["sound"].failures, 0);
    assert!(one.tallies["sound"].marks["a request is sent again"] > 0);
    let seeds = |swept: &SweepReport| swept.found.iter().map(|found| found.first.seed).collect::<Vec<_>>();
    assert_eq!(seeds(&one), seeds(&three));
    let mut parts = BTreeMap::new();
    for shard in 1..=3 {
        let part = swept(&Sweep { shard: (shard, 3), ..sweep(&both, 20) });
        assert_eq!(part.tallies.len(), 2);
        for (name, tally) in part.tallies {
            assert!(tally.runs > 0, "shard {shard} has no run of {name}");
            *parts.entry(name).or_insert(0) += tally.runs;
        }
    }
    assert_eq!(parts, BTreeMap::from([("sound", 10), ("toy", 10)]));
}

#[test]
fn a_sweep_without_its_marks_or_its_canary_is_vacuous() {
    let quiet = Scenario { faults: &[], ..SOUND };
    let few = swept(&sweep(&[quiet], 5));
    assert!(!few.is_vacuous() && few.missing.is_empty());
    assert_eq!(few.unsure, [("sound", "a request is sent again", 5)]);
    let enough = swept(&sweep(&[quiet], 20));
    assert!(enough.is_vacuous());
    assert_eq!(enough.missing, [("sound", "a request is sent again", 20)]);

    let watched = swept(&sweep(&[CANARY, SOUND], 5));
    assert!(watched.canaries[0].found_in.is_some());
    assert!(!watched.is_vacuous() && watched.gravest().is_none());
    assert_eq!(watched.runs(), 5);
    let blind =
        Scenario { faults: &[], knobs: &[], body: |_| Box::pin(async { Ok(Passed::default()) }), ..CANARY };
    assert!(swept(&sweep(&[blind, SOUND], 5)).is_vacuous());
}

#[test]
fn a_sweep_whose_time_is_over_says_what_it_left_out() {
    let swept = swept(&Sweep { limit: Some(Duration::ZERO), ..sweep(&[SOUND], 50) });
    assert_eq!((swept.runs(), swept.skipped), (0, 50));
    assert!(swept.is_vacuous());
}

#[test]
fn a_sweep_with_a_scenario_that_had_no_run_is_vacuous() {
    let (many, one) = (swept(&sweep(&[SOUND, BLOCKED], 1)), swept(&sweep(&[SOUND], 1)));
    assert_eq!(many.unrun, ["blocked"]);
    assert!(many.is_vacuous() && !one.is_vacuous());
    let part = |shard| swept(&Sweep { shard: (shard, 2), ..sweep(&[SOUND], 1) });
    assert!(!part(1).is_vacuous());
    assert!(part(2).is_vacuous(), "no run at all");
    assert!(swept(&sweep(&[SOUND], 0)).is_vacuous());
}

#[test]
fn of_an_observation_only_its_end_is_not_asserted() {
    const OBSERVED: Scenario = Scenario { purpose: Purpose::Observation, marks: &[], ..BLOCKED };
    let late = Scenario {
        body: |_| Box::pin(async { Err(Violation::liveness("it ends", "it didn't")) }),
        ..OBSERVED
    };
    let wrong = Scenario {
        body: |_| Box::pin(async { Err(Violation::safety("all is well", "it isn't")) }),
        ..OBSERVED
    };
    let dies = Scenario { body: |_| Box::pin(async { panic!("on purpose") }), ..OBSERVED };
    let gravest = |scenario| swept(&sweep(&[scenario], 2)).gravest();
    assert_eq!(
        [late, wrong, dies].map(gravest),
        [None, Some(PropertyKind::Safety), Some(PropertyKind::Panic)]
    );
}
