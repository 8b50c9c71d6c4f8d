//! A toy protocol with a planted bug, through all steps: a sweep finds it, a shrink reduces it, its bundle replays
//! it.
#![cfg(madsim)]
#![allow(clippy::disallowed_methods, reason = "tests of the world behind the door")]

mod support;

use chaos::bundle::Bundle;
use chaos::diff::diff;
use chaos::plan::{FaultKind, Plan};
use chaos::property::{PropertyKind, Violation};
use chaos::rt::net::{RecvMeta, Transmit, UdpSocket};
use chaos::rt::time;
use chaos::scenario::{Knob, KnobKind, Mark, Options, Passed, Purpose, RunResult, Scenario, Trial};
use chaos::shrink::{Shrunk, shrink};
use chaos::sighting::Seen;
use chaos::story::{Teller, explain};
use chaos::sweep::{Sweep, SweepReport};
use chaos::{RecordingOptions, Targets, sometimes};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often the server counted each number of each client.
type Counted = Arc<Mutex<BTreeMap<(u8, u32), u32>>>;

const PORT: u16 = 7000;

async fn receive(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; 64];
    let mut meta = [RecvMeta::default()];
    socket.recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta).await.ok()?;
    Some((buffer[..meta[0].len].to_vec(), meta[0].addr))
}

fn send(socket: &UdpSocket, destination: SocketAddr, contents: &[u8]) {
    let _ = socket.try_send(&Transmit { destination, contents, segment_size: None, src_ip: None });
}

/// Counts requests and acknowledges them. The planted bug: after a restart it has lost its list of counted requests,
/// and counts a repeated request once more.
async fn server(counted: Counted) {
    let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], PORT))).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while let Some((request, from)) = receive(&socket).await {
        let &[client, a, b, c, d] = request.as_slice() else { continue };
        let key = (client, u32::from_le_bytes([a, b, c, d]));
        if seen.insert(key) {
            tracing::debug!(client, number = key.1, "a number is counted");
            tracing::trace!("this is too much for a story");
            *counted.lock().unwrap().entry(key).or_default() += 1;
        }
        send(&socket, from, &request);
    }
}

/// Sends numbers, repeating each until it is acknowledged.
async fn client(me: u8, server: SocketAddr, numbers: u32) {
    let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], PORT))).await.unwrap();
    for number in 0..numbers {
        let mut request = vec![me];
        request.extend(number.to_le_bytes());
        let mut sent = 0;
        loop {
            send(&socket, server, &request);
            sent += 1;
            let answer = time::timeout(Duration::from_millis(200), receive(&socket)).await;
            if answer.is_ok_and(|answer| answer.is_some_and(|(answer, _)| answer == request)) {
                break;
            }
        }
        sometimes!(sent > 1, "a request is sent again");
        time::sleep(Duration::from_millis(100)).await;
    }
}

const TOY: Scenario = Scenario {
    name: "toy",
    about: "every number is counted once; it isn't",
    purpose: Purpose::Proof,
    knobs: &[
        Knob { name: "clients", about: "hosts that count", default: 4, least: 1, turns: KnobKind::Hosts },
        Knob { name: "numbers", about: "counted by each", default: 60, least: 1, turns: KnobKind::Work },
    ],
    faults: &[
        FaultKind::Loss,
        FaultKind::Latency,
        FaultKind::Duplicate,
        FaultKind::Partition,
        FaultKind::Crash,
        FaultKind::Pause,
    ],
    marks: &[Mark::within("a request is sent again", 20)],
    time_limit: Duration::from_secs(600),
    body: |trial| Box::pin(toy(trial)),
};

async fn toy(trial: Trial) -> RunResult {
    let (world, numbers) = (trial.world, trial.knob("numbers") as u32);
    let counted = Counted::default();
    let counting = counted.clone();
    let hub = world.host("server").addr("10.0.0.1").spawn(move || server(counting.clone()));
    let address = SocketAddr::new(hub.ip(), PORT);
    let mut clients = Vec::new();
    for n in 0..trial.knob("clients") as u8 {
        clients.push(world.host(&format!("client {n}")).addr(&format!("10.0.1.{n}")));
    }
    let spared = clients.clone();
    trial.start_faults(&Targets { hosts: vec![hub], spared, ..Targets::default() }, Duration::from_secs(10));
    let done: Vec<_> = (0u8..).zip(&clients).map(|(n, host)| host.run(client(n, address, numbers))).collect();
    let checked = counted.clone();
    world.always("every number is counted once", move || {
        match checked.lock().unwrap().iter().find(|(_, times)| **times > 1) {
            Some((key, times)) => Err(format!("{key:?} was counted {times} times")),
            None => Ok(()),
        }
    });
    world.sleep(Duration::from_secs(10)).await;
    trial.heal().await;
    for task in done {
        if time::timeout(Duration::from_secs(60), task).await.is_err() {
            return Err(Violation::liveness("every client comes to its end", "one did not in a minute"));
        }
    }
    Ok(Passed { state: format!("{} numbers", counted.lock().unwrap().len()), notes: String::new() })
}

/// The same bug as a canary, which every sweep must find.
const CANARY: Scenario = Scenario { name: "canary", purpose: Purpose::Canary, ..TOY };

/// The same scenario without the fault that uncovers the bug.
const SOUND: Scenario = Scenario { name: "sound", faults: &[FaultKind::Loss, FaultKind::Latency], ..TOY };

fn sweep(scenarios: &[Scenario], runs: u64) -> Sweep {
    Sweep {
        scenarios: scenarios.to_vec(),
        runs: Some(runs),
        start: 1,
        jobs: 2,
        shard: (1, 1),
        limit: None,
        patience: Duration::from_secs(600),
        knobs: BTreeMap::new(),
    }
}

fn swept(sweep: &Sweep) -> SweepReport {
    sweep.run(&mut |_| {})
}

fn shrunk(swept: &SweepReport) -> Shrunk {
    shrink(&TOY, &swept.found[0].report, 400, &mut |_| {})
}

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
    let story = explain(&teller, &TOY, &found.found[0].report, Some(&small)).unwrap();
    assert!(story.reproducible, "{}", story.text);
    let expected = [
        "every number is counted once (safety)",
        "was counted 2 times",
        "chaos/tests/sweep.rs:",
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
    // What the programs log comes first, if it is asked for, and changes nothing.
    let logs: [(&'static [&'static str], _); 2] = [(&["sweep"], true), (&["sweeper"], false)];
    for (logs, told) in logs {
        let elsewhere = tempfile::tempdir().unwrap();
        let teller = Teller { logs, ..Teller::new(elsewhere.path()) };
        let logged = explain(&teller, &TOY, &found.found[0].report, Some(&small)).unwrap();
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
    assert_eq!(again.digest, bundle.digest);
    let plan: Plan = std::fs::read_to_string(story.bundle.join("plan.txt")).unwrap().parse().unwrap();
    assert_eq!(bundle.options().unwrap().plan, Some(plan));
}

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
    let seeds =
        |swept: &SweepReport| swept.found.iter().map(|found| found.report.options.seed).collect::<Vec<_>>();
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

/// A scenario that blocks on an event that never comes, so that virtual time stalls.
const BLOCKED: Scenario = Scenario {
    name: "blocked",
    knobs: &[],
    marks: &[],
    faults: &[],
    body: |trial| {
        Box::pin(async move {
            if trial.world.seed() == 2 {
                let (_sender, receiver) = std::sync::mpsc::channel::<()>();
                let _ = receiver.recv();
            }
            Ok(Passed::default())
        })
    },
    ..TOY
};

#[test]
fn a_run_that_stands_still_does_not_silence_a_sweep() {
    let swept = swept(&Sweep { patience: Duration::from_secs(3), jobs: 1, ..sweep(&[BLOCKED], 4) });
    assert_eq!((swept.runs(), swept.skipped), (3, 0));
    assert_eq!(
        swept.stuck.iter().map(|stuck| (stuck.name, stuck.seed)).collect::<Vec<_>>(),
        [("blocked", 2)]
    );
    assert_eq!(swept.gravest(), Some(PropertyKind::Liveness));
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
    let story = explain(&teller, &AMBIENT_DRAW, &found.found[0].report, None).unwrap();
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
        map: true,
        logs: &["sweep"],
    };
    let (watched, seen) = TOY.run_watched(&Options::seed(3), &watching).unwrap();
    assert_eq!(watched, TOY.run(&Options::seed(3)));
    assert_eq!(seen.last.len(), 10);
    let events = seen.sightings.iter().filter(|sighting| matches!(sighting.what, Seen::Event(_)));
    assert!(events.count() >= 10);
    assert!(seen.map.unwrap().contains("\n  server: eth0 10.0.0.1\n"));
    let lines = std::fs::read_to_string(watching.trace.unwrap()).unwrap().lines().count();
    assert_eq!(lines as u64, watched.events);
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
    let failing = swept(&sweep(&[TOY], 10)).found[0].report.clone();
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
