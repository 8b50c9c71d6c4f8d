//! Guided exploration: it finds a bug behind two rare steps in fewer runs than blind seeds do, and what it finds replays.
#![cfg(madsim)]
#![allow(clippy::disallowed_methods, reason = "tests of the world behind the door")]

mod planted;

use chaos::Novelty;
use chaos::bundle::Bundle;
use chaos::explore::{Exploration, ExploreEvent, Explorer};
use chaos::scenario::{Mark, Options, Report, Scenario};
use chaos::shrink::Shrinker;
use chaos::story::{Teller, explain};
use planted::{BUGS, FORGETFUL, NO_ANSWER};
use std::sync::atomic::Ordering;

/// Repetitions of each way to look for the bug.
const REPETITIONS: u64 = 9;

/// The most runs of a repetition.
const MOST_RUNS: u64 = 2_000;

/// The number of the first blind run that fails, from this seed on.
fn blind(bug: Scenario, start: u64) -> u64 {
    let fails = |number: &u64| bug.run(&Options::seed(start + number)).verdict.is_err();
    (0..MOST_RUNS).find(fails).unwrap_or(MOST_RUNS) + 1
}

/// An exploration that ends with its first failure.
fn explored(bug: Scenario, start: u64) -> Exploration {
    let explorer = Explorer { start, ..Explorer::new(bug, MOST_RUNS) };
    explorer.run(&mut |event| {
        if let ExploreEvent::Run { times: Some(_), .. } = event {
            explorer.stop.store(true, Ordering::Relaxed);
        }
    })
}

/// The first run that fails, and its number.
fn found(explored: &Exploration) -> (&Report, u64) {
    let found = explored.found.first().expect("the bug is found");
    (&found.first, found.number)
}

/// Runs until a bug is found, blind and guided, in the median of the repetitions. Both begin with the same seeds.
fn medians(bug: Scenario) -> [u64; 2] {
    let starts = || (0..REPETITIONS).map(|n| n * 10_000);
    let ways: [Vec<u64>; 2] = [
        starts().map(|start| blind(bug, start)).collect(),
        starts().map(|start| found(&explored(bug, start)).1).collect(),
    ];
    let [blind, guided] = ways.map(|mut runs| {
        runs.sort_unstable();
        runs[runs.len() / 2]
    });
    println!("{}: blind {blind}, guided {guided}", bug.name);
    [blind, guided]
}

#[test]
fn a_bug_behind_two_rare_steps_is_found_in_a_third_of_the_runs() {
    let [blind, guided] = medians(FORGETFUL);
    assert!((100..=400).contains(&blind) && guided * 3 <= blind, "medians: blind {blind}, guided {guided}");
}

#[test]
fn a_bug_that_is_decided_at_the_beginning_takes_few_more_runs() {
    let collision = BUGS.iter().find(|bug| bug.name == "collision").unwrap();
    let [blind, guided] = medians(*collision);
    assert!(
        (10..=100).contains(&blind) && guided * 2 <= blind * 3,
        "medians: blind {blind}, guided {guided}"
    );
}

#[test]
fn a_failing_recipe_is_a_bundle_that_breaks_again_with_the_same_digest_and_shrinks() {
    // The first exploration whose failure is a branch; a blind run may have luck.
    let report = (1..20)
        .map(|start| found(&explored(FORGETFUL, start)).0.clone())
        .find(|report| !report.options.recipe.is_empty());
    let report = report.expect("most failures are branches");
    let folder = tempfile::tempdir().unwrap();
    let story = explain(&Teller::new(folder.path()), &FORGETFUL, &report, None).unwrap();
    assert!(story.reproducible, "{}", story.text);
    assert!(story.text.starts_with(&format!("forgetful with {}: safety is broken", report.options.named())));
    let bundle = Bundle::load(&story.bundle).unwrap();
    assert_eq!(bundle.options().unwrap().recipe, report.options.recipe);
    let again = FORGETFUL.run(&bundle.options().unwrap());
    assert!(bundle.is_reproduced_by(&again));
    assert_eq!((&again.digest, again.events), (&report.digest, report.events));
    // Without its recipe it is another run.
    assert!(
        FORGETFUL
            .run(&Options { recipe: chaos::Recipe::default(), ..report.options.clone() })
            .verdict
            .is_ok()
    );

    // A branch of no use, behind the end, is shrunk away.
    let useless = report.options.recipe.branched(chaos::Branch { event: 1_000_000, seed: 1 });
    let longer = FORGETFUL.run(&Options { recipe: useless, ..report.options.clone() });
    assert_eq!(longer.digest, report.digest);
    let small = Shrinker::new(FORGETFUL, 400).shrink(&longer, &mut |_| {});
    assert!(small.report.options.recipe.branches().len() <= report.options.recipe.branches().len());
    assert_eq!(small.report.verdict.unwrap_err().property, "a question is answered");
}

#[test]
fn what_is_explored_follows_from_the_start_alone() {
    let explored = |start, jobs| {
        let logs: &[&str] = &["explore"];
        let explorer = Explorer { start, jobs, logs, ..Explorer::new(FORGETFUL, 40) };
        let mut seen = Vec::new();
        let result = explorer.run(&mut |event| {
            if let ExploreEvent::Run { report, new, .. } = event {
                seen.push((report.options.clone(), report.digest.clone(), new.to_vec()));
            }
        });
        (seen, result.history, result.reached)
    };
    let (seen, history, reached) = explored(1, 1);
    assert_eq!((seen.clone(), history.clone(), reached.clone()), explored(1, 3));
    assert_ne!(seen, explored(2, 1).0);
    assert!(history.is_sorted() && history.last().is_some_and(|(_, all)| *all == reached.len()));
    assert!(seen.iter().any(|(options, ..)| !options.recipe.is_empty()));
    // An exploration only looks: each run is the run of its inputs.
    for (options, digest, _) in &seen {
        assert_eq!(FORGETFUL.run(options).digest, *digest);
    }
    // Events in a row, marks and watermarks have been reached.
    let is_pair = |what: &Novelty| matches!(what, Novelty::Pair(first, then) if first.contains("retries.rs") && first != then);
    assert!(reached.keys().any(is_pair), "{reached:?}");
    assert!(reached.contains_key(&Novelty::Mark(NO_ANSWER)));
    assert!(reached.contains_key(&Novelty::Watermark("lost", 1)));
}

#[test]
fn an_unreached_mark_is_told_once_the_runs_suffice() {
    const NEVER: Scenario = Scenario { marks: &[Mark::within("never", 10)], ..FORGETFUL };
    assert!(Explorer::new(NEVER, 9).run(&mut |_| {}).missing.is_empty());
    assert_eq!(Explorer::new(NEVER, 10).run(&mut |_| {}).missing, ["never"]);
}
