//! Runs that are kept for good, as files with all of their inputs.

use crate::toy::TOY;
use chaos::bundle::Bundle;
use chaos::plan::FaultKind;
use chaos::scenario::{Options, Scenario};
use std::collections::BTreeMap;

#[test]
fn a_kept_run_has_every_knob_and_the_whole_plan_and_is_the_run_that_was_drawn() {
    let drawn = TOY.run(&Options::seed(7));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("toy-7.json");
    Bundle::kept(&TOY, &drawn, "a repeated request is counted twice").save(&file).unwrap();
    let kept = Bundle::load(&file).unwrap();
    assert_eq!(kept.found.as_deref(), Some("a repeated request is counted twice"));
    let knobs: Vec<_> = kept.knobs.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(knobs, [("clients", 4), ("numbers", 60)]);
    // Neither another default nor another kind of fault makes another run of it.
    let later = Scenario { faults: &[FaultKind::Pause], ..TOY };
    let again = later.run(&kept.options().unwrap());
    assert_eq!((&again.digest, &again.verdict), (&drawn.digest, &drawn.verdict));
    assert_ne!(later.run(&Options::seed(7)).digest, drawn.digest);
    let (plan, found) = (&drawn.plan.unwrap().plan, again.plan.unwrap());
    assert_eq!((&found.plan, &found.unknown), (plan, &Vec::new()));

    assert_eq!(kept.incomplete(&TOY), None);
    let less = Scenario { knobs: &TOY.knobs[..1], ..TOY };
    assert_eq!(kept.incomplete(&less).unwrap(), "toy has no knob numbers");
    let before = Bundle { knobs: BTreeMap::from([("clients".to_owned(), 4)]), ..kept };
    assert_eq!(before.incomplete(&TOY).unwrap(), "the knob numbers has no value (its default is 60)");
}

#[test]
fn a_plan_that_names_a_host_that_is_not_there_says_so() {
    let plan = Some("1s crash nobody".parse().unwrap());
    let started = TOY.run(&Options { plan, ..Options::seed(1) }).plan.unwrap();
    assert_eq!(started.unknown, ["fault 1: there is no host nobody"]);
}
