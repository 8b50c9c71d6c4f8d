//! Ledgers: a sweep that is interrupted and resumed, and shards that are merged.

use crate::toy::{CANARY, SOUND, TOY, sweep, swept};
use chaos::sweep::{
    Ledger, LedgerError, LedgerHeader, LedgerLine, LedgerWriter, MergeError, Sweep, SweepEvent, SweepReport,
    merge,
};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Sweeps with a ledger, and stops after some runs.
fn recorded(sweep: &Sweep, path: &Path, stop_after: Option<u64>) -> SweepReport {
    let header = LedgerHeader::of(sweep.arguments()).unwrap();
    let mut writer = match Ledger::load(path) {
        Ok(ledger) => LedgerWriter::resume(path, &ledger).unwrap(),
        Err(_) => LedgerWriter::create(path, &header).unwrap(),
    };
    let mut made = 0;
    let report = sweep.run(&mut |event| match event {
        SweepEvent::Run { entry, .. } => {
            writer.append(&LedgerLine::Run(entry.clone())).unwrap();
            made += 1;
            if Some(made) == stop_after {
                sweep.stop.store(true, Ordering::Relaxed);
            }
        }
        SweepEvent::Stuck(stuck) => writer.append(&LedgerLine::Stuck(stuck.clone())).unwrap(),
        SweepEvent::Canary(canary) => writer.append(&LedgerLine::Canary(canary.clone())).unwrap(),
        SweepEvent::Progress(_) => {}
    });
    if !report.interrupted {
        writer.append(&LedgerLine::End { skipped: report.skipped }).unwrap();
    }
    report
}

/// What a report says, without real time.
fn said(report: &SweepReport) -> String {
    let found: Vec<_> = report
        .found
        .iter()
        .map(|found| {
            (found.scenario.name, found.first.place, found.first.broken.clone(), &found.seeds, found.times)
        })
        .collect();
    format!(
        "{:?}\n{found:?}\n{:?}\n{:?} {:?} {:?} {:?}",
        report.tallies,
        report.canaries,
        report.missing,
        report.unsure,
        report.skipped,
        report.gravest()
    )
}

#[test]
fn a_sweep_that_is_interrupted_and_resumed_reports_what_an_uninterrupted_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let scenarios = [TOY, SOUND, CANARY];
    let whole = swept(&sweep(&scenarios, 60));
    assert!(!whole.found.is_empty());
    let first = recorded(&sweep(&scenarios, 60), &path, Some(9));
    assert!(first.interrupted && first.skipped > 0);
    assert!(first.runs() < 20, "no run begins after the stop: {}", first.runs());
    // A process that was killed leaves a torn line.
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"event\":\"run\",\"pla").unwrap();
    let resume = |stop_after| {
        let ledger = Ledger::load(&path).unwrap();
        assert!(!ledger.ended);
        let resumed = Sweep { known: Arc::new(ledger.known), ..sweep(&scenarios, 60) };
        recorded(&resumed, &path, stop_after)
    };
    // Once more, with the second part of the runs under way.
    let second = resume(Some(45));
    assert_eq!(second.resumed.0, first.runs());
    let third = resume(None);
    assert_eq!((third.runs(), third.resumed.0), (60, second.runs()));
    assert_eq!(said(&third), said(&whole));
    assert!(Ledger::load(&path).unwrap().ended);
    // A failure that only the ledger knows can still be made again.
    let (again, known) = (third.found[0].report(), whole.found[0].report());
    assert_eq!((again.digest, again.verdict), (known.digest, known.verdict));
}

#[test]
fn a_ledger_of_another_build_or_another_sweep_is_refused_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let ours = sweep(&[SOUND], 2);
    let header = LedgerHeader::of(ours.arguments()).unwrap();
    drop(LedgerWriter::create(&path, &header).unwrap());
    let refused = LedgerWriter::create(&path, &header).unwrap_err();
    assert!(matches!(refused, LedgerError::Exists) && refused.to_string().contains("--resume"), "{refused}");
    let ledger = Ledger::load(&path).unwrap();
    ledger.check(&header).unwrap();
    let build = LedgerHeader { build: "0".repeat(64), ..header.clone() };
    let refused = ledger.check(&build).unwrap_err();
    assert!(matches!(refused, LedgerError::Build { .. }), "{refused}");
    assert!(refused.to_string().contains("begin anew with `--ledger`"), "{refused}");
    let other = LedgerHeader::of(Sweep { start: 7, ..ours }.arguments()).unwrap();
    let refused = ledger.check(&other).unwrap_err().to_string();
    assert!(refused.contains("sound --seeds 2 --start 1 --shard 1/1"), "{refused}");
    std::fs::write(&path, "{}\n").unwrap();
    assert!(matches!(Ledger::load(&path), Err(LedgerError::NoHeader)));
}

#[test]
fn the_ledgers_of_all_shards_make_one_report() {
    let folder = tempfile::tempdir().unwrap();
    let scenarios = [TOY, SOUND, CANARY];
    let part = |shard: u64| {
        let path = folder.path().join(shard.to_string());
        let report = recorded(&Sweep { shard: (shard, 3), ..sweep(&scenarios, 50) }, &path, None);
        (Ledger::load(&path).unwrap(), report)
    };
    let ((one, first), (two, second), (three, third)) = (part(1), part(2), part(3));
    let parts = [&first, &second, &third];
    let (merged_sweep, merged) = merge(&scenarios, &[three.clone(), one.clone(), two.clone()]).unwrap();
    assert_eq!((merged_sweep.start, merged.runs(), merged.skipped), (1, 50, 0));
    for (name, tally) in &merged.tallies {
        let sum = |count: &dyn Fn(&SweepReport) -> u64| parts.iter().map(|part| count(part)).sum::<u64>();
        assert_eq!(tally.runs, sum(&|part| part.tallies[name].runs));
        assert_eq!(tally.failures, sum(&|part| part.tallies[name].failures));
        for (mark, runs) in &tally.marks {
            assert_eq!(*runs, sum(&|part| part.tallies[name].marks[mark]));
        }
    }
    assert_eq!(merged.found.len(), 1, "the same property of all shards is one");
    let first_place = parts.iter().flat_map(|part| &part.found).map(|found| found.first.place).min();
    assert_eq!(Some(merged.found[0].first.place), first_place);
    assert!(!merged.interrupted && merged.canaries.len() == 1 && !merged.is_vacuous());

    let with = |ledger: &Ledger, header: LedgerHeader| Ledger { header, ..ledger.clone() };
    let merged = |ledgers: &[&Ledger]| {
        let ledgers: Vec<Ledger> = ledgers.iter().map(|ledger| (*ledger).clone()).collect();
        merge(&scenarios, &ledgers).map(|(_, report)| report)
    };
    assert_eq!(merged(&[&one, &three]).unwrap_err(), MergeError::Missing("2/3".to_owned()));
    assert_eq!(merged(&[&one, &two, &one]).unwrap_err(), MergeError::Overlap(1, 3, "1/3".to_owned()));
    let other_build = with(&two, LedgerHeader { build: "other".to_owned(), ..two.header.clone() });
    assert_eq!(merged(&[&one, &other_build, &three]).unwrap_err(), MergeError::Builds(2));
    let mut other_start = two.header.clone();
    other_start.sweep.start = 2;
    assert!(matches!(merged(&[&one, &with(&two, other_start), &three]), Err(MergeError::Sweeps(2, _))));
    assert_eq!(merged(&[]).unwrap_err(), MergeError::Nothing);
    let torn = Ledger { ended: false, ..two.clone() };
    assert!(merged(&[&one, &torn, &three]).unwrap().interrupted);
}
