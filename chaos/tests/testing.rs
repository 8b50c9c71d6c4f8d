//! The attribute `chaos::test`: what holds passes, what fails is told with the line that replays it.
#![cfg(madsim)]
#![expect(clippy::disallowed_methods, reason = "reads files that a run leaves on the machine")]

use chaos::rt::{task, time};
use chaos::{Targets, Trial, Violation, World};
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

/// Runs one of the failing tests, with variables; returns whether it passed, and what it printed.
fn outcome(name: &str, variables: &[(&str, &str)]) -> (bool, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&format!("failing::{name}"), "--exact", "--ignored", "--nocapture"])
        .env_remove("CHAOS_SEED")
        .env_remove("CHAOS_SEEDS")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.success(), text)
}

fn fails(name: &str, variables: &[(&str, &str)], with: &[&str]) -> String {
    let (passed, text) = outcome(name, variables);
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
    let (passed, text) = outcome("with_seed_seven", &[("CHAOS_SEEDS", "6")]);
    assert!(passed, "{text}");
    let (passed, text) = outcome("with_seed_seven", &[("CHAOS_SEED", "8")]);
    assert!(passed && text.contains("with_seed_seven holds with seed 8"), "{text}");
    let text = fails("with_seed_seven", &[("CHAOS_SEED", "7")], &["its whole trace: ", "its packets: "]);
    let trace = text.lines().find_map(|line| line.strip_prefix("its whole trace: ")).unwrap();
    let trace = std::fs::read_to_string(trace).unwrap();
    assert!(trace.contains("node 1"), "{trace}");
    fails("with_seed_seven", &[("CHAOS_SEED", "x")], &["CHAOS_SEED=x is not a number"]);
}

#[test]
fn a_seed_that_gives_another_run_fails_and_the_difference_is_told() {
    let told = ["a seed gives the same run again", "the first difference is an event", "same on rerun: no"];
    fails("with_another_run_of_the_seed", &[], &told);
    fails("with_another_run_of_the_seed", &[("CHAOS_SEED", "1")], &told);
}

#[test]
fn a_plan_is_shrunk_to_the_fault_that_matters() {
    let text = fails("with_a_fault_that_matters", &[], &["shrunk"]);
    let plan = text.split("plan  ").nth(1).unwrap().lines().next().unwrap();
    assert!(plan.contains(" 1 fault,"), "{text}");
}
