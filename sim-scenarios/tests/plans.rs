//! Fault plans from a second generator: proptest makes plans of its own, runs whole nodes under them, and shrinks
//! a failing plan in its own way. Its failures are kept in `plans.proptest` beside this file and tried first.
//! They stay valid only as long as these strategies don't change. For good, the shrunk plan, which the failure
//! prints, is kept among the regressions: `cargo chaos keep SCENARIO --seed N --plan FILE …`.
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
use sim_scenarios::scenarios::find;

/// Faults of a plan before the kinds that the scenario doesn't support are removed.
const FAULTS: usize = 10;

/// Plans in an ordinary test run: a run of churn takes about a second, one of the swarm a few.
const CHURN_PLANS: u32 = 8;
const SWARM_PLANS: u32 = 3;

/// Where proptest keeps the seeds of failures; cargo runs tests in their package's folder.
const FAILURES: &str = "tests/plans.proptest";

/// Knobs that are turned down, so that a run is short.
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

/// Plans whose targets are a scenario's hosts and boxes.
fn plans(names: &[&str]) -> impl Strategy<Value = Plan> + use<> {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    support::short_plan(prop::sample::select(names), FAULTS, Duration::from_secs(20))
}

/// Runs a scenario under the faults of a plan that it supports. An error names the broken property and the plan.
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
