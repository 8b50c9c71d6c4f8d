//! A second opinion on fault plans: proptest makes plans of its own, has whole nodes bear them, and shrinks a plan that
//! breaks something in its own way. What it once found is kept in `proptest-regressions` and tried first.
//! `PROPTEST_CASES` sets another number of plans.
#![cfg(feature = "sim")]

#[path = "../../chaos/tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use chaos::plan::Plan;
use chaos::scenario::Options;
use proptest::prelude::*;
use sim_scenarios::scenario::find;

/// Faults of a plan before those are taken out that the scenario doesn't bear.
const FAULTS: usize = 10;

/// Plans in an ordinary run of the tests: a run takes about a second.
const PLANS: u32 = 8;

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(PLANS)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn replicas_agree_whatever_plan_they_bear(
        seed in 0..1_000u64,
        plan in support::short_plan(
            prop::sample::select(["node 0", "node 1", "node 2", "hub", "observer"].map(str::to_owned).to_vec()),
            FAULTS,
            Duration::from_secs(20),
        ),
    ) {
        let scenario = find("churn").unwrap();
        let bears = |planned: &&chaos::plan::Planned| scenario.faults.contains(&planned.fault.kind());
        let plan = Plan::new(plan.faults().iter().filter(bears).cloned().collect());
        let knobs = [("members", 3), ("writes", 8), ("losses", 0)].map(|(name, value)| (name.to_owned(), value));
        let options = Options { knobs: BTreeMap::from(knobs), plan: Some(plan.clone()), ..Options::seed(seed) };
        let report = scenario.run(&options);
        prop_assert!(report.verdict.is_ok(), "{}with the plan\n{}", report.story(), plan);
    }
}
