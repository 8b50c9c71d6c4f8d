//! A second opinion on fault plans: proptest makes plans of its own, has whole nodes bear them, and shrinks a plan that
//! breaks something in its own way. What it finds is kept in `plans.proptest` beside this file and tried first. That
//! holds as long as these strategies stay what they are; the shrunk plan, which the failure prints, is kept for good as
//! text among the regressions of `scenarios.rs`.
//! `PROPTEST_CASES` sets another number of plans.
#![cfg(feature = "sim")]

#[path = "../../chaos/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use chaos::plan::Plan;
use chaos::scenario::Options;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use sim_scenarios::scenario::find;

/// Faults of a plan before those are taken out that the scenario doesn't bear.
const FAULTS: usize = 10;

/// Plans in an ordinary run of the tests: a run of churn takes about a second, one of the swarm a few.
const CHURN_PLANS: u32 = 8;
const SWARM_PLANS: u32 = 3;

/// Where proptest keeps the seeds of what fails; cargo runs tests in their package's folder.
const FAILURES: &str = "tests/plans.proptest";

/// What is turned down, so that a run is short.
const CHURN: [(&str, u64); 3] = [("members", 3), ("writes", 8), ("losses", 0)];
const SWARM: [(&str, u64); 2] = [("steps", 8), ("seconds", 20)];

fn config(plans: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(plans);
    let failures = FileFailurePersistence::Direct(FAILURES);
    ProptestConfig {
        cases,
        max_shrink_iters: 200,
        failure_persistence: Some(Box::new(failures)),
        ..ProptestConfig::default()
    }
}

/// Plans on the things of a scenario.
fn plans(names: &[&str]) -> impl Strategy<Value = Plan> + use<> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    support::short_plan(prop::sample::select(names), FAULTS, Duration::from_secs(20))
}

/// Has a scenario bear of a plan what it bears at all. Says what broke, and under which plan.
fn bear(name: &str, knobs: &[(&str, u64)], seed: u64, plan: &Plan) -> Result<(), String> {
    let scenario = find(name).unwrap();
    let bears = |planned: &&chaos::plan::Planned| scenario.faults.contains(&planned.fault.kind());
    let plan = Plan::new(plan.faults().iter().filter(bears).cloned().collect());
    let knobs: BTreeMap<_, _> = knobs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let report = scenario.run(&Options { knobs, plan: Some(plan.clone()), ..Options::seed(seed) });
    if report.verdict.is_ok() { Ok(()) } else { Err(format!("{}with the plan\n{plan}", report.story())) }
}

proptest! {
    #![proptest_config(config(CHURN_PLANS))]

    #[test]
    fn replicas_agree_whatever_plan_they_bear(
        seed in 0..1_000u64,
        plan in plans(&["node 0", "node 1", "node 2", "hub", "observer"]),
    ) {
        let borne = bear("churn", &CHURN, seed, &plan);
        prop_assert!(borne.is_ok(), "{}", borne.unwrap_err());
    }
}

proptest! {
    #![proptest_config(config(SWARM_PLANS))]

    #[test]
    fn the_swarm_is_well_again_whatever_plan_it_bears(
        seed in 0..1_000u64,
        plan in plans(&["node 0", "node 1", "node 2", "node 3", "phone", "observer", "hub 1", "hub 2", "flat", "house"]),
    ) {
        let borne = bear("swarm", &SWARM, seed, &plan);
        prop_assert!(borne.is_ok(), "{}", borne.unwrap_err());
    }
}
