//! How small a shrink makes failures, and in how many runs: toys with planted bugs, under drawn plans of many faults.
#![cfg(madsim)]
#![allow(clippy::disallowed_methods, reason = "tests of the world behind the door")]

mod toys;

use chaos::scenario::{Options, Report, Scenario};
use chaos::shrink::{Shrinker, Shrunk};
use toys::TOYS;

/// Failing runs of each toy.
const FAILURES: usize = 5;

/// The most faults that are left in the median.
const MOST_FAULTS: u32 = 3;

/// The most runs that it takes in the median.
const MOST_RUNS: u32 = 120;

fn toy(name: &str) -> Scenario {
    *TOYS.iter().find(|toy| toy.name == name).unwrap()
}

/// Failing runs whose plans have 10 to 20 faults.
fn failing(toy: Scenario) -> impl Iterator<Item = Report> {
    let has_many = |report: &Report| {
        let faults = report.plan.as_ref().map_or(0, |started| started.plan.len());
        report.verdict.is_err() && (10..=20).contains(&faults)
    };
    (1..5_000).map(move |seed| toy.run(&Options::seed(seed))).filter(has_many)
}

fn median(numbers: impl Iterator<Item = u32>) -> u32 {
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    numbers[numbers.len() / 2]
}

/// Shrinks failures of a toy, prints them, and keeps the promise in the median.
fn is_made_small(name: &str) {
    let toy = toy(name);
    let failing: Vec<Report> = failing(toy).take(FAILURES).collect();
    assert_eq!(failing.len(), FAILURES, "{name} fails too rarely");
    let shrinker = Shrinker::new(toy, 400);
    let small: Vec<Shrunk> = failing.iter().map(|report| shrinker.shrink(report, &mut |_| {})).collect();
    let of = |what: fn(&Shrunk) -> u32| median(small.iter().map(what));
    let before = of(|small| small.faults_before as u32);
    let (after, runs) = (of(|small| small.faults_after() as u32), of(|small| small.runs));
    println!("{name}: {before} faults → {after}, in {runs} runs, in the median");
    for (small, report) in small.iter().zip(&failing) {
        let plan = small.report.options.plan.as_ref().unwrap().to_string();
        println!("  seed {}: {small}: {}", report.options.seed, plan.trim_end().replace('\n', "; "));
        let of = |report: &Report| report.verdict.clone().unwrap_err().property;
        assert_eq!(of(&small.report), of(report), "another failure");
        assert_eq!(toy.run(&small.report.options), small.report, "its options make the run again");
    }
    assert!(after <= MOST_FAULTS && runs <= MOST_RUNS, "{name}: {after} faults left, {runs} runs");
}

#[test]
fn a_crash_within_a_partition_is_made_small() {
    is_made_small("accepted");
}

#[test]
fn a_burst_of_loss_is_made_small() {
    is_made_small("gap");
}

#[test]
fn a_failure_that_takes_luck_with_the_schedule_is_made_small() {
    is_made_small("order");
}

#[test]
fn three_faults_in_order_are_made_small() {
    is_made_small("terms");
}

#[test]
fn a_small_window_is_made_small() {
    is_made_small("window");
}

#[test]
fn a_failure_that_takes_work_is_made_small() {
    is_made_small("work");
}

#[test]
fn a_failure_of_one_host_of_many_is_made_small() {
    is_made_small("stubborn");
}

#[test]
fn the_threads_change_nothing() {
    for name in ["accepted", "work"] {
        let failing = failing(toy(name)).next().unwrap();
        let shrunk = |jobs, runs| {
            let mut steps = Vec::new();
            let shrinker = Shrinker { jobs, ..Shrinker::new(toy(name), runs) };
            let small = shrinker.shrink(&failing, &mut |step| steps.push(step.to_owned()));
            (small, steps)
        };
        let alone = shrunk(1, 400);
        assert!(!alone.0.gave_up && alone.0.runs > 10, "{}", alone.0);
        for jobs in [2, 3, 16] {
            assert_eq!(shrunk(jobs, 400), alone, "{jobs} threads");
        }
        // The limit is the same, too: no thread makes more of it.
        let short = shrunk(1, 7);
        assert!(
            short.0.gave_up && short.0.runs == 7 && short.0.to_string().ends_with("in 7 runs (the limit)")
        );
        assert_eq!(shrunk(16, 7), short);
        assert!(!shrunk(1, alone.0.runs).0.gave_up, "it had just enough");
    }
}
