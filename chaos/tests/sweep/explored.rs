//! Explorations of a scenario with faults.

use crate::toy::TOY;
use chaos::RecordingOptions;
use chaos::explore::{ExploreEvent, Explorer};
use chaos::scenario::Options;
use std::path::Path;

/// The records of a run.
fn records(options: &Options, folder: &Path) -> Vec<String> {
    let path = folder.join("trace");
    let watching = RecordingOptions { trace: Some(path.clone()), ..RecordingOptions::default() };
    TOY.run_watched(options, &watching).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter(|line| !line.contains(" drawn ")).map(str::to_owned).collect()
}

#[test]
fn a_branch_is_the_run_that_it_leaves_up_to_its_event_also_with_other_faults_from_there_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut branches: Vec<Options> = Vec::new();
    Explorer::new(TOY, 240).run(&mut |event| {
        if let ExploreEvent::Run { report, .. } = event
            && report.options.recipe.branches().len() == 1
        {
            branches.push(report.options.clone());
        }
    });
    let crossed = branches.iter().filter(|options| options.plan.is_some()).count();
    assert!(crossed >= 5 && branches.len() - crossed >= 5, "{crossed} of {}", branches.len());
    let mut others = 0;
    for branch in branches {
        let left = Options { knobs: branch.knobs.clone(), ..Options::seed(branch.seed) };
        let (left, taken) = (records(&left, folder.path()), records(&branch, folder.path()));
        let same = left.iter().zip(&taken).take_while(|(left, taken)| left == taken).count() as u64;
        let event = branch.recipe.branches()[0].event;
        assert!(same >= event.min(left.len() as u64), "{same} records of {event}, with {branch:?}");
        others += u64::from(same < left.len() as u64);
    }
    assert!(others >= 10, "{others}");
}
