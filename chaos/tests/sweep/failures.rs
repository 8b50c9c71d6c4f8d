//! A failure from a sweep to its bundle and back.

use crate::support;
use crate::toy::{PORT, SOUND, TOY, send, shrunk, sweep, swept};
use chaos::RecordingOptions;
use chaos::bundle::Bundle;
use chaos::diff::diff;
use chaos::plan::Plan;
use chaos::property::PropertyKind;
use chaos::rt::net::UdpSocket;
use chaos::rt::time;
use chaos::scenario::{Options, Passed, Scenario};
use chaos::sighting::Seen;
use chaos::story::{Teller, explain, save};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[test]
fn a_planted_bug_is_found_made_small_and_replayed_from_its_bundle() {
    let found = swept(&sweep(&[TOY], 40));
    assert_eq!(found.runs(), 40);
    assert_eq!(found.gravest(), Some(PropertyKind::Safety), "{:?}", found.tallies);
    let small = shrunk(&found);
    assert!(small.faults_before >= 2, "{small}");
    // The server restarts between a request and its acknowledgement, or its answer is late: two faults at most.
    assert!(
        (1..=2).contains(&small.faults_after()),
        "{small}\n{}",
        small.report.options.plan.clone().unwrap()
    );
    assert_eq!(small.knobs.first().map(|(name, _, after)| (*name, *after)), Some(("clients", 1)), "{small}");
    assert!(small.to_string().contains(&format!("in {} runs", small.runs)));

    let folder = tempfile::tempdir().unwrap();
    let teller = Teller { decoder: Some(|_, bytes, _| format!("{bytes:?}")), ..Teller::new(folder.path()) };
    let story = explain(&teller, &TOY, &found.found[0].report(), Some(&small)).unwrap();
    assert!(story.reproducible, "{}", story.text);
    let expected = [
        "every number is counted once (safety)",
        "was counted 2 times",
        "chaos/tests/sweep/toy.rs:",
        "drawn       ",
        " faults → ",
        " crash server",
        " events of ",
        "UDP 5 B, delivered after ",
        "same on rerun: yes",
        "replay: cargo chaos replay ",
    ];
    for part in expected {
        assert!(story.text.contains(part), "{part} is missing in\n{}", story.text);
    }
    let picture = PathBuf::from(format!("{}.html", story.bundle.display()));
    let page = std::fs::read_to_string(&picture).unwrap();
    assert!(
        page.contains("was counted 2 times") && page.contains("\"client 0\""),
        "a picture is beside the bundle"
    );
    // What the programs log comes first, if it is asked for, and changes nothing.
    let logs: [(&'static [&'static str], _); 2] = [(&["sweep"], true), (&["sweeper"], false)];
    for (logs, told) in logs {
        let elsewhere = tempfile::tempdir().unwrap();
        let teller = Teller { logs, ..Teller::new(elsewhere.path()) };
        let logged = explain(&teller, &TOY, &found.found[0].report(), Some(&small)).unwrap();
        assert!(logged.reproducible, "{}", logged.text);
        let parts = ["event   server     a number is counted client=0 number="];
        for part in parts {
            assert_eq!(logged.text.contains(part), told, "{part} in\n{}", logged.text);
        }
        assert!(!logged.text.contains("too much"));
        let digest = |text: &str| text.lines().find(|line| line.contains("digest  ")).map(str::to_owned);
        assert_eq!(digest(&logged.text), digest(&story.text));
    }
    for file in ["story.txt", "plan.txt", "plan.drawn.txt", "events.txt"] {
        assert!(story.bundle.join(file).exists(), "{file}");
    }
    // Another machine has only `bundle.json`.
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("bundle.json");
    std::fs::copy(story.bundle.join("bundle.json"), &moved).unwrap();
    let bundle = Bundle::load(elsewhere.path()).unwrap();
    assert_eq!(bundle, Bundle::load(&moved).unwrap());
    let again = TOY.run(&bundle.options().unwrap());
    assert!(bundle.is_reproduced_by(&again));
    assert_eq!(bundle.trace.as_ref().map(|trace| &trace.digest), Some(&again.digest));
    let plan: Plan = std::fs::read_to_string(story.bundle.join("plan.txt")).unwrap().parse().unwrap();
    assert_eq!(bundle.options().unwrap().plan, Some(plan));
}

/// Stands for entropy that isn't intercepted: a process-wide counter.
static AMBIENT: AtomicU64 = AtomicU64::new(0);

/// A scenario with one such draw, at 1 s, which determines the content of a datagram.
const AMBIENT_DRAW: Scenario = Scenario {
    name: "ambient",
    knobs: &[],
    marks: &[],
    faults: &[],
    body: |trial| {
        Box::pin(async move {
            let a = trial.world.host("a").addr("10.0.0.1");
            let b = trial.world.host("b").addr("10.0.0.2");
            let to = SocketAddr::new(b.ip(), PORT);
            let sent = a.run(async move {
                let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], PORT))).await.unwrap();
                for n in 0..20u8 {
                    let body = if n == 10 { AMBIENT.fetch_add(1, Ordering::Relaxed) } else { u64::from(n) };
                    send(&socket, to, &body.to_le_bytes());
                    time::sleep(Duration::from_millis(100)).await;
                }
            });
            sent.await.unwrap();
            Ok(Passed::default())
        })
    },
    ..TOY
};

#[test]
fn a_draw_from_ambient_entropy_is_caught_and_located() {
    let folder = tempfile::tempdir().unwrap();
    let traces = ["first", "second"].map(|name| {
        let path = folder.path().join(name);
        let watching = RecordingOptions { trace: Some(path.clone()), ..RecordingOptions::default() };
        let (report, _) = AMBIENT_DRAW.run_watched(&Options::seed(1), &watching).unwrap();
        (path, report.digest)
    });
    assert_ne!(traces[0].1, traces[1].1);
    let difference = diff(&traces[0].0, &traces[1].0).unwrap().unwrap();
    for side in [&difference.left, &difference.right] {
        assert!(side[0].contains(" sent      a ") && side[0].contains(" #11 "), "{difference}");
    }
    let found = swept(&sweep(&[AMBIENT_DRAW], 3));
    assert_eq!(found.gravest(), Some(PropertyKind::Reproducibility));
    let teller = Teller::new(folder.path());
    let story = explain(&teller, &AMBIENT_DRAW, &found.found[0].report(), None).unwrap();
    assert!(!story.reproducible);
    assert!(story.text.contains("same on rerun: no"), "{}", story.text);
    assert!(story.text.contains("the traces differ from line "), "{}", story.text);
    // A scenario without such a draw has one trace.
    let sound = ["first", "second"].map(|name| {
        let path = folder.path().join(name);
        let watching = RecordingOptions { trace: Some(path.clone()), ..RecordingOptions::default() };
        SOUND.run_watched(&Options::seed(1), &watching).unwrap();
        path
    });
    assert_eq!(diff(&sound[0], &sound[1]).unwrap(), None);
}

#[test]
fn a_watched_run_is_the_run_that_nobody_watches() {
    let folder = tempfile::tempdir().unwrap();
    let watching = RecordingOptions {
        last: 10,
        decoder: None,
        trace: Some(folder.path().join("deep/in/a.trace")),
        capture: Some(folder.path().join("deep/in/a.pcap")),
        history: true,
        timeline: Some(0..u64::MAX),
        map: true,
        logs: &["sweep"],
        novelties: true,
    };
    let (watched, seen) = TOY.run_watched(&Options::seed(3), &watching).unwrap();
    assert_eq!(watched, TOY.run(&Options::seed(3)));
    assert_eq!(seen.last.len(), 10);
    let events = seen.sightings.iter().filter(|sighting| matches!(sighting.what, Seen::Event(_)));
    assert!(events.count() >= 10);
    assert!(seen.map.unwrap().contains("\n  server: eth0 10.0.0.1\n"));
    let trace = std::fs::read_to_string(watching.trace.unwrap()).unwrap();
    // Draws are told in a whole trace only, and are no records.
    let (drawn, records): (Vec<_>, Vec<_>) = trace.lines().partition(|line| line.contains(" drawn "));
    assert!(!drawn.is_empty());
    assert_eq!(records.len() as u64, watched.events);
    let timeline = seen.timeline.unwrap();
    let (logs, told): (Vec<_>, Vec<_>) = timeline.lines.iter().partition(|(_, line)| line.contains(" log "));
    assert!(!logs.is_empty());
    // The head of each record is the same, and its number is its place.
    for (number, record) in (1..).zip(&records) {
        let (told_number, line) = told[number as usize - 1];
        assert_eq!((*told_number, &line[..40]), (number, &record[..40]));
        let seconds: f64 = record[..16].trim().parse().unwrap();
        assert!((timeline.at(number).as_secs_f64() - seconds).abs() < 1e-8, "{record}");
    }
    assert_eq!(told.len(), records.len());
    assert!(std::fs::metadata(watching.capture.unwrap()).unwrap().len() > 1_000);
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_and_no_failure_of_the_run() {
    let nowhere = std::path::PathBuf::from("/proc/nowhere/a");
    for watching in [
        RecordingOptions { trace: Some(nowhere.clone()), ..RecordingOptions::default() },
        RecordingOptions { capture: Some(nowhere.clone()), ..RecordingOptions::default() },
    ] {
        let error = SOUND.run_watched(&Options::seed(1), &watching).unwrap_err().to_string();
        assert!(error.contains("can't write the capture or the trace: /proc/nowhere/a: "), "{error}");
    }
}

#[test]
fn a_bundle_leaves_what_is_somebodys_alone() {
    let failing = swept(&sweep(&[TOY], 10)).found[0].report();
    let folder = tempfile::tempdir().unwrap();
    let teller = Teller::new(folder.path().join("my runs"));
    let first = explain(&teller, &TOY, &failing, None).unwrap();
    let line = format!("replay: cargo chaos replay '{}'\n", first.bundle.display());
    assert!(first.text.ends_with(&line), "{}", first.text);
    let (plan, notes) = (first.bundle.join("plan.txt"), first.bundle.join("notes.txt"));
    let drawn = std::fs::read_to_string(&plan).unwrap();
    let edited = format!("# mine\n{drawn}");
    std::fs::write(&plan, &edited).unwrap();
    std::fs::write(&notes, "mine too").unwrap();
    let teller = Teller { invocation: "./bench".to_owned(), keep: Some(plan.clone()), ..teller };
    let second = explain(&teller, &TOY, &failing, None).unwrap();
    assert!(second.text.contains("replay: ./bench replay '"), "{}", second.text);
    assert_ne!(second.bundle, first.bundle);
    assert_eq!(std::fs::read_to_string(&plan).unwrap(), edited);
    let third = explain(&Teller { keep: None, ..teller }, &TOY, &failing, None).unwrap();
    assert_eq!(third.bundle, first.bundle);
    assert_eq!(std::fs::read_to_string(&plan).unwrap(), drawn);
    assert!(notes.exists());
}

/// A cross-check: proptest generates plans itself and shrinks them with its own method.
#[test]
fn proptest_finds_the_planted_bug_too_and_shrinks_its_plan() {
    let names = prop::sample::select(vec!["server".to_owned(), "client 0".to_owned()]);
    let config = Config { cases: 400, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let outcome = runner.run(&support::short_plan(names, 8, Duration::from_secs(6)), |plan| {
        let knobs = BTreeMap::from([("clients".to_owned(), 1)]);
        let options = Options { plan: Some(plan), knobs, ..Options::seed(1) };
        TOY.run(&options).verdict.map(|_| ()).map_err(|broken| TestCaseError::fail(broken.property))
    });
    let Err(proptest::test_runner::TestError::Fail(why, plan)) = outcome else {
        panic!("the bug was not found: {outcome:?}")
    };
    assert_eq!(why.message(), "every number is counted once", "{plan}");
    // proptest doesn't vary the scheduler's seed: a third fault may be left that only changes the order of tasks.
    assert!(plan.len() <= 3, "{plan}");
}

#[test]
fn a_small_bundle_is_written_without_another_run() {
    let failing = swept(&sweep(&[TOY], 10)).found[0].report();
    let folder = tempfile::tempdir().unwrap();
    let teller = Teller::new(folder.path());
    let small = save(&teller, &failing).unwrap().unwrap();
    assert_eq!(small.file_name().unwrap().to_str().unwrap(), format!("toy-{}", failing.options.seed));
    let bundle = Bundle::load(&small).unwrap();
    assert_eq!(bundle.trace.as_ref().unwrap().reproducible, None);
    let plan: Plan = std::fs::read_to_string(small.join("plan.txt")).unwrap().parse().unwrap();
    assert_eq!(bundle.options().unwrap().plan, Some(plan));
    let picture = PathBuf::from(format!("{}.html", small.display()));
    assert!(!small.join("story.txt").exists() && !picture.exists());
    // The story takes its place.
    let story = explain(&teller, &TOY, &failing, None).unwrap();
    assert_eq!(story.bundle, small);
    assert_eq!(Bundle::load(&small).unwrap().trace.unwrap().reproducible, Some(true));
    assert!(picture.exists());
    // A later failure of this seed has another picture, or none.
    save(&teller, &failing).unwrap();
    assert!(!picture.exists());
    assert_eq!(save(&teller, &SOUND.run(&Options::seed(1))).unwrap(), None);
}
