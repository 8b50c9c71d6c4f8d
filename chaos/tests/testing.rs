//! The attribute `chaos::test`: what holds passes, what fails is told with the line that replays it.
#![cfg(madsim)]
#![expect(clippy::disallowed_methods, reason = "reads files that a run leaves on the machine")]

use chaos::rt::{task, time};
use chaos::{Targets, Trial, Violation, World};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

#[chaos::test(seeds = 3)]
async fn each_seed_has_a_world_of_its_own(world: World) {
    assert!((1..=3).contains(&world.seed()));
    assert_eq!(world.hosts(), []);
    world.host("a").addr("10.0.0.1");
}

#[chaos::test(seeds = 2, start = 40, time_limit = "2h")]
async fn an_hour_passes_at_once_on_the_only_host_of_a_world() -> Result<(), String> {
    let began = time::now();
    time::sleep(Duration::from_secs(3600)).await;
    let passed = time::now() - began;
    if passed < Duration::from_secs(3600) { Err(format!("{passed:?}")) } else { Ok(()) }
}

#[chaos::test(seeds = 3, faults = [Crash, Loss])]
async fn a_trial_has_the_faults_of_the_attribute(trial: Trial) {
    let hosts = ["10.0.0.1", "10.0.0.2"].map(|ip| trial.world.host(ip).addr(ip));
    trial.start_faults(&Targets { hosts: hosts.to_vec(), ..Targets::default() }, Duration::from_secs(30));
    trial.world.sleep(Duration::from_secs(30)).await;
    trial.heal().await;
    let kinds: Vec<_> = trial.plan().faults().iter().map(|planned| planned.fault.kind().as_str()).collect();
    assert!(kinds.iter().all(|kind| ["crash", "loss"].contains(kind)), "{kinds:?}");
    assert!(hosts.iter().all(|host| host.is_running()));
}

/// Tests that fail, run by the others as programs of their own.
mod failing {
    use super::*;

    #[chaos::test(seeds = 50)]
    #[ignore = "fails on purpose; the tests below run it"]
    async fn with_seed_seven(world: World) -> Result<(), Violation> {
        world.host("node 1").addr("10.0.0.1");
        match world.seed() {
            7 => Err(Violation::safety("no seed is seven", "node 1 saw it")),
            _ => Ok(()),
        }
    }

    /// Run by one test only, which reads its files: two runs at a time would write the same ones.
    #[chaos::test]
    #[ignore = "fails on purpose; the tests below run it"]
    async fn with_every_seed(world: World) -> Result<(), Violation> {
        world.host("node 1").addr("10.0.0.1");
        Err(Violation::safety("nothing is right", "node 1 saw it"))
    }

    #[chaos::test]
    #[ignore = "fails on purpose; the tests below run it"]
    async fn with_a_panic_on_a_host() {
        task::yield_now().await;
        panic!("on purpose");
    }

    #[chaos::test]
    #[ignore = "fails on purpose; the tests below run it"]
    async fn with_another_run_of_the_seed(world: World) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static RUNS: AtomicU32 = AtomicU32::new(0);
        world.note(&format!("run {}", RUNS.fetch_add(1, Ordering::Relaxed)));
    }

    #[chaos::test(time_limit = 5)]
    #[ignore = "fails on purpose; the tests below run it"]
    async fn with_no_end(_world: World) {
        std::future::pending::<()>().await;
    }

    #[chaos::test]
    #[ignore = "fails on purpose; the tests below run it"]
    async fn with_the_real_tokio() {
        // As `::tokio::spawn` does.
        panic!("there is no reactor running, must be called from the context of a Tokio 1.x runtime");
    }

    #[chaos::test(faults = [Crash, Loss, Latency, Duplicate])]
    #[ignore = "fails on purpose; the tests below run it"]
    async fn with_a_fault_that_matters(trial: Trial) {
        let host = trial.world.host("node 1").addr("10.0.0.1").spawn(std::future::pending);
        trial.start_faults(&Targets { hosts: vec![host], ..Targets::default() }, Duration::from_secs(60));
        for _ in 0..60 {
            trial.world.sleep(Duration::from_secs(1)).await;
            assert!(host.is_running(), "node 1 is down");
        }
    }
}

/// Tests that prove nothing.
mod vacuous {
    use super::*;

    #[chaos::test(seeds = 3, faults = [Crash])]
    #[ignore = "fails on purpose; the tests below run it"]
    async fn never_started(trial: Trial) {
        trial.world.host("node 1").addr("10.0.0.1");
    }

    #[chaos::test(seeds = 3, faults = [Crash])]
    #[ignore = "fails on purpose; the tests below run it"]
    async fn without_a_target(trial: Trial) {
        trial.start_faults(&Targets::default(), Duration::from_secs(60));
    }
}

/// Runs a test of this program, with variables; returns whether it passed, and what it printed.
fn outcome(path: &str, variables: &[(&str, &str)]) -> (bool, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([path, "--exact", "--include-ignored", "--nocapture"])
        .env_remove("CHAOS_SEED")
        .env_remove("CHAOS_SEEDS")
        .env_remove("CHAOS_BUNDLE")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.success(), text)
}

fn fails(name: &str, variables: &[(&str, &str)], with: &[&str]) -> String {
    let path = if name.contains("::") { name.to_owned() } else { format!("failing::{name}") };
    let (passed, text) = outcome(&path, variables);
    assert!(!passed, "{text}");
    for part in with {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    text
}

#[test]
fn a_failure_is_told_with_the_line_that_replays_it() {
    let text =
        fails("with_seed_seven", &[], &["with_seed_seven with seed 7: safety is broken: no seed is seven"]);
    assert!(text.contains("replay: CHAOS_SEED=7 cargo test failing::with_seed_seven -- --exact\n"), "{text}");
    fails("with_a_panic_on_a_host", &[], &["panicked: on purpose, at chaos/tests/testing.rs:", "host one"]);
    fails("with_no_end", &[], &["a run comes to its end"]);
}

#[test]
fn the_environment_says_which_seeds_are_run() {
    let (passed, text) = outcome("failing::with_seed_seven", &[("CHAOS_SEEDS", "6")]);
    assert!(passed, "{text}");
    let (passed, text) = outcome("failing::with_seed_seven", &[("CHAOS_SEED", "8")]);
    assert!(passed && text.contains("with_seed_seven holds with seed 8"), "{text}");
    let trace = text.lines().find_map(|line| line.strip_prefix("its whole trace: ")).unwrap();
    assert!(trace.ends_with("with_seed_seven-8.whole.trace"), "{trace}");
    assert!(std::fs::read_to_string(trace).unwrap().contains("node 1"), "{trace}");
    fails("with_seed_seven", &[("CHAOS_SEED", "x")], &["CHAOS_SEED=x is not a number"]);
}

#[test]
fn a_seed_that_gives_another_run_fails_and_the_difference_is_told() {
    let told = ["a seed gives the same run again", "the first difference is an event", "same on rerun: no"];
    fails("with_another_run_of_the_seed", &[], &told);
    fails("with_another_run_of_the_seed", &[("CHAOS_SEED", "1")], &told);
}

/// The folder in a story's line about its files.
fn folder_of(text: &str) -> PathBuf {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("files  ")).unwrap();
    line.trim().split_once(": ").unwrap().0.into()
}

#[test]
fn a_plan_is_shrunk_to_the_fault_that_matters_and_replayed_as_it_is() {
    let text = fails("with_a_fault_that_matters", &[], &["shrunk", "fault 1: "]);
    let has_one_fault = |text: &str| text.split("plan  ").nth(1).unwrap().starts_with("      1 fault,");
    assert!(has_one_fault(&text), "{text}");
    // Of all runs only the first one prints its panic, which the story repeats twice.
    assert_eq!(text.matches("node 1 is down").count(), 3, "{text}");
    let folder = folder_of(&text);
    let bundle = folder.display().to_string();
    let replay = format!("CHAOS_BUNDLE={bundle}");
    assert!(text.contains(&format!("replay: {replay} cargo test failing::")), "{text}");
    // The same run again, with all of its files.
    let again = fails("with_a_fault_that_matters", &[("CHAOS_BUNDLE", &bundle)], &[&replay, "whole.trace"]);
    assert!(has_one_fault(&again) && !again.contains("shrunk  "), "{again}");
    let digest = |text: &str| text.split("digest  ").nth(1).unwrap().lines().next().unwrap().to_owned();
    assert_eq!(digest(&again), digest(&text));
    let replayed = folder_of(&again);
    assert!(replayed.parent().unwrap().ends_with("replayed"), "{again}");
    let trace = std::fs::read_to_string(replayed.join("whole.trace")).unwrap();
    let faults = trace.lines().filter(|line| line.contains(" note ") && line.contains(": ")).count();
    assert_eq!(faults, 1, "{trace}");
    assert!(replayed.join("packets.pcapng").is_file());
    fails(
        "with_seed_seven",
        &[("CHAOS_BUNDLE", &bundle)],
        &["a run of with_a_fault_that_matters, and this is"],
    );
}

#[test]
fn a_seed_alone_leaves_the_files_of_the_run_that_is_told() {
    let text = fails(
        "with_every_seed",
        &[("CHAOS_SEED", "7")],
        &["events.txt, whole.trace, packets.pcapng; all of"],
    );
    let folder = folder_of(&text);
    assert!(folder.ends_with("with_every_seed-7"), "{text}");
    let trace = std::fs::read_to_string(folder.join("whole.trace")).unwrap();
    assert!(trace.contains("node 1"), "{trace}");
}

#[test]
fn a_test_that_names_faults_and_never_has_any_fails() {
    fails("vacuous::never_started", &[], &["none was ever started: call `trial.start_faults`"]);
    fails("vacuous::without_a_target", &[], &["no target can have them"]);
    let (passed, text) = outcome("a_trial_has_the_faults_of_the_attribute", &[]);
    assert!(passed && text.contains("a_trial_has_the_faults_of_the_attribute: 3 seeds, "), "{text}");
    assert!(!text.contains(" 0 faults begun"), "{text}");
}

#[test]
fn a_call_of_the_real_tokio_is_told_with_a_hint() {
    fails(
        "with_the_real_tokio",
        &[],
        &["hint        the program calls the real tokio here: import chaos::tokio"],
    );
}
