//! Guided exploration: it finds a bug behind two rare steps in fewer runs than blind seeds do, and what it finds replays.
#![cfg(madsim)]
#![allow(clippy::disallowed_methods, reason = "tests of the world behind the door")]

use chaos::bundle::Bundle;
use chaos::explore::{Exploration, ExploreEvent, Explorer};
use chaos::property::Violation;
use chaos::rt::net::{RecvMeta, Transmit, UdpSocket};
use chaos::rt::time;
use chaos::scenario::{Mark, Options, Passed, Report, Scenario, Trial};
use chaos::shrink::Shrinker;
use chaos::story::{Teller, explain};
use chaos::{LinkConfig, Novelty, Rate, RunResult, sometimes};
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

const PORT: u16 = 7000;

async fn receive(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; 64];
    let mut meta = [RecvMeta::default()];
    socket.recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta).await.ok()?;
    Some((buffer[..meta[0].len].to_vec(), meta[0].addr))
}

async fn echo() {
    let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], PORT))).await.unwrap();
    while let Some((contents, destination)) = receive(&socket).await {
        let _ =
            socket.try_send(&Transmit { destination, contents: &contents, segment_size: None, src_ip: None });
    }
}

/// Asks three times; whether there is an answer.
async fn is_answered(socket: &UdpSocket, server: SocketAddr) -> bool {
    for _ in 0..3 {
        let _ = socket.try_send(&Transmit {
            destination: server,
            contents: b"are you there?",
            segment_size: None,
            src_ip: None,
        });
        if time::timeout(Duration::from_millis(100), receive(socket)).await.is_ok() {
            return true;
        }
    }
    false
}

/// A client asks a server, and its deputy if there is no answer. The planted bug: nobody is left to ask if the deputy's
/// answer is missing too. Each costs three lost packets of three, at 40 % loss.
async fn forgetful(trial: Trial) -> RunResult {
    let world = trial.world;
    let client = world.host("client").addr("10.0.0.1");
    let lossy = LinkConfig { udp_loss: Rate::percent(40), ..LinkConfig::ideal() };
    let servers = [("server", "10.0.0.2"), ("deputy", "10.0.0.3")].map(|(name, ip)| {
        let host = world.host(name).addr(ip);
        world.set_link(client, host, lossy.clone());
        drop(host.run(echo()));
        SocketAddr::new(host.ip(), PORT)
    });
    let asked = client.run(async move {
        let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await.unwrap();
        for server in servers {
            if is_answered(&socket, server).await {
                tracing::debug!("there is an answer");
                return true;
            }
            tracing::debug!("there is no answer");
            sometimes!("a server gave no answer");
        }
        false
    });
    match asked.await {
        Ok(true) => Ok(Passed::default()),
        _ => Err(Violation::safety("a question is answered", "nobody is left to ask")),
    }
}

const FORGETFUL: Scenario = Scenario {
    marks: &[Mark::within("a server gave no answer", 100)],
    ..Scenario::new("forgetful", "a question is answered; it isn't", |trial| Box::pin(forgetful(trial)))
};

/// Repetitions of each way to look for the bug.
const REPETITIONS: u64 = 9;

/// The most runs of a repetition.
const MOST_RUNS: u64 = 2_000;

/// The number of the first blind run that fails, from this seed on.
fn blind(start: u64) -> u64 {
    let fails = |number: &u64| FORGETFUL.run(&Options::seed(start + number)).verdict.is_err();
    (0..MOST_RUNS).find(fails).unwrap_or(MOST_RUNS) + 1
}

/// An exploration that ends with its first failure.
fn explored(start: u64) -> Exploration {
    let explorer = Explorer { start, ..Explorer::new(FORGETFUL, MOST_RUNS) };
    explorer.run(&mut |event| {
        if let ExploreEvent::Run { times: Some(_), .. } = event {
            explorer.stop.store(true, Ordering::Relaxed);
        }
    })
}

fn found(explored: &Exploration) -> &Report {
    &explored.found.first().expect("the bug is found").first
}

#[test]
fn a_bug_behind_two_rare_steps_is_found_in_a_third_of_the_runs() {
    let mut blind_runs: Vec<u64> = (0..REPETITIONS).map(|n| blind(n * 10_000)).collect();
    let mut guided_runs: Vec<u64> = (0..REPETITIONS).map(|n| explored(n * 10_000).found[0].number).collect();
    blind_runs.sort_unstable();
    guided_runs.sort_unstable();
    println!("runs until the bug is found, {REPETITIONS} repetitions, sorted");
    println!("blind  {blind_runs:?}\nguided {guided_runs:?}");
    let middle = REPETITIONS as usize / 2;
    let (blind, guided) = (blind_runs[middle], guided_runs[middle]);
    assert!((100..=400).contains(&blind) && guided * 3 <= blind, "medians: blind {blind}, guided {guided}");
}

#[test]
fn a_failing_recipe_is_a_bundle_that_breaks_again_with_the_same_digest_and_shrinks() {
    // The first exploration whose failure is a branch; a blind run may have luck.
    let report =
        (1..20).map(|start| found(&explored(start)).clone()).find(|report| !report.options.recipe.is_empty());
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
    let is_pair = |what: &Novelty| matches!(what, Novelty::Pair(first, then) if first.contains("explore.rs") && first != then);
    assert!(reached.keys().any(is_pair), "{reached:?}");
    assert!(reached.contains_key(&Novelty::Mark("a server gave no answer")));
    assert!(reached.contains_key(&Novelty::Watermark("lost", 1)));
}

#[test]
fn an_unreached_mark_is_told_once_the_runs_suffice() {
    const NEVER: Scenario = Scenario { marks: &[Mark::within("never", 10)], ..FORGETFUL };
    assert!(Explorer::new(NEVER, 9).run(&mut |_| {}).missing.is_empty());
    assert_eq!(Explorer::new(NEVER, 10).run(&mut |_| {}).missing, ["never"]);
}
