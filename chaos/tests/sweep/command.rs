//! The command from outside, over scenarios that fail or stand still: the program of `examples/still.rs`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// The program, which cargo builds with the tests.
fn program() -> Command {
    let tests = std::env::current_exe().unwrap();
    let built: PathBuf = tests.parent().unwrap().parent().unwrap().join("examples/still");
    assert!(built.exists(), "build it first: cargo build -p chaos --features cli --examples");
    Command::new(built)
}

fn ran(args: &[&str]) -> (Option<i32>, String, String) {
    ended(program().args(args).output().unwrap())
}

fn ended(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Waits until a ledger has a run, and then sends a signal.
fn signal_in_the_middle(child: &Child, ledger: &Path, signal: &str) {
    let has_run = || std::fs::read_to_string(ledger).is_ok_and(|text| text.contains(r#""event":"run""#));
    while !has_run() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn a_signal_ends_a_sweep_with_the_report_so_far() {
    let folder = tempfile::tempdir().unwrap();
    for signal in ["-INT", "-TERM"] {
        let ledger = folder.path().join(signal);
        let mut sweep = program();
        sweep.args(["sweep", "holds", "--seeds", "1000000", "--jobs", "2", "--ledger", text(&ledger)]);
        let child = sweep.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        signal_in_the_middle(&child, &ledger, signal);
        let (code, out, err) = ended(child.wait_with_output().unwrap());
        assert_eq!(code, Some(7), "{out}{err}");
        assert!(out.contains("interrupted after ") && out.contains(" of 1000000 runs\n"), "{out}");
        // The ledger has all runs of the report, and none is begun after the signal.
        let recorded = std::fs::read_to_string(&ledger).unwrap().matches(r#""event":"run""#).count();
        assert!(out.contains(&format!("interrupted after {recorded} of")), "{recorded} in\n{out}");
    }
}

#[test]
fn a_second_signal_ends_a_sweep_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger");
    // A run that stands still is given some seconds after the first signal; the second one comes into these.
    let mut sweep = program();
    sweep.args(["sweep", "holds", "blocks", "--jobs", "1", "--ledger", text(&ledger)]);
    let child = sweep.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Of another kind, since two of one kind are one while nobody has taken the first.
    signal_in_the_middle(&child, &ledger, "-TERM");
    signal_in_the_middle(&child, &ledger, "-INT");
    let (code, out, _) = ended(child.wait_with_output().unwrap());
    assert!(matches!(code, Some(130 | 143)) && out.is_empty(), "{code:?}\n{out}");
}

#[test]
fn a_failure_is_told_at_once_and_all_its_seeds_at_the_end() {
    let out = tempfile::tempdir().unwrap();
    let args = ["--seeds", "60", "--jobs", "1", "--shrink-runs", "1", "--out", text(out.path())];
    let (code, said, err) = ran(&[&["sweep", "fails"], args.as_slice()].concat());
    assert_eq!(code, Some(1), "{said}{err}");
    // Before the story of the first one: a line for each.
    let story = err.find("  property    all is well (safety)").unwrap();
    assert_eq!(err[..story].matches("\nFAILED fails with seed ").count() + 1, 30, "{err}");
    assert!(err.starts_with("FAILED fails with seed 1: "), "{err}");
    let odd: Vec<String> = (0..20).map(|n| (2 * n + 1).to_string()).collect();
    assert!(said.contains("FAILED 30 times: fails: "), "{said}");
    assert!(said.contains(&format!("  with seeds {} and 10 more\n", odd.join(", "))), "{said}");
    // Small bundles of the listed seeds, the whole one of the first.
    assert!(out.path().join("fails-1/story.txt").exists());
    assert!(
        out.path().join("fails-39/bundle.json").exists() && !out.path().join("fails-39/story.txt").exists()
    );
    assert!(!out.path().join("fails-41").exists());

    let (code, said, _) = ran(&[&["sweep", "fails", "--json"], args.as_slice()].concat());
    assert_eq!(code, Some(1));
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with(r#"{"event":"failed","scenario":"fails","seed":1,"held":false,"#), "{said}");
    let found = lines.iter().find(|line| line.contains(r#""event":"found""#)).unwrap();
    for part in [r#""times":30,"seeds":[1,3,5,"#, r#","more":10}"#] {
        assert!(found.contains(part), "{found}");
    }
}

#[test]
fn a_run_that_stands_still_ends_each_command_with_the_code_of_liveness() {
    let out = tempfile::tempdir().unwrap();
    for command in ["run", "replay", "shrink"] {
        let (code, _, err) = ran(&[command, "blocks", "--patience", "1", "--out", text(out.path())]);
        assert_eq!(code, Some(3), "{command}: {err}");
        let parts = [
            "the run of seed 1 stands still (virtual time moves on): no poll has returned for ",
            "a task of host a, spawned at chaos/examples/still.rs:",
        ];
        for part in parts {
            assert!(err.contains(part), "{part} is missing in\n{err}");
        }
    }
    let (code, said, _) = ran(&["run", "blocks", "--patience", "1", "--json"]);
    assert_eq!(code, Some(3));
    assert!(
        said.starts_with(r#"{"event":"stuck","seed":1,"kind":"liveness","property":"virtual time moves on""#)
    );
    let (code, said, _) = ran(&["sweep", "blocks", "--seeds", "1", "--patience", "1"]);
    assert_eq!(code, Some(3));
    assert!(said.contains("GIVEN UP: blocks with seed 1: no poll has returned for "), "{said}");
}

#[test]
fn a_sweep_is_resumed_and_its_shards_are_merged() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| text(&folder.path().join(name)).to_owned();
    let (one, two, out) = (path("1"), path("2"), path("out"));
    let swept = |shard: &str, option: &str, ledger: &str, seeds: &str| {
        let args = ["sweep", "holds", "--seeds", seeds, "--shard", shard, option, ledger, "--out", &out];
        ran(&args)
    };
    assert_eq!(swept("1/2", "--ledger", &one, "10").0, Some(0));
    let (code, _, err) = ran(&["merge", &one]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("shards are missing: 2/2"), "{err}");
    assert_eq!(swept("2/2", "--ledger", &two, "10").0, Some(0));
    let (code, said, err) = ran(&["merge", &one, &two]);
    assert_eq!(code, Some(0), "{err}");
    assert!(said.contains("10 runs of 2 ledgers from seed 1 on"), "{said}");
    let (code, said, _) = swept("1/2", "--resume", &one, "10");
    assert_eq!(code, Some(0));
    assert!(said.contains("5 of the runs are of the ledger"), "{said}");
    let (code, _, err) = swept("1/2", "--resume", &one, "12");
    assert_eq!(code, Some(2));
    assert!(
        err.contains("resume it with its own arguments, holds --seeds 10 --start 1 --shard 1/2"),
        "{err}"
    );
}

#[test]
fn an_exploration_tells_its_failures_as_a_sweep_does() {
    let out = tempfile::tempdir().unwrap();
    let args = ["--runs", "20", "--shrink-runs", "1", "--out", text(out.path())];
    let (code, said, err) = ran(&[&["explore", "fails"], args.as_slice()].concat());
    assert_eq!(code, Some(1), "{said}{err}");
    assert!(err.starts_with("FAILED fails in run 1, with seed 1: safety is broken: all is well"), "{err}");
    assert!(err.contains("  property    all is well (safety)"), "{err}");
    assert!(said.contains(" times, first in run 1: fails: "), "{said}");
    assert!(out.path().join("fails-1/story.txt").exists());

    let (code, said, _) = ran(&["explore", "holds", "--runs", "20", "--json"]);
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with(r#"{"event":"new","run":1,"seed":1,"new":["#), "{said}");
    let last = lines.last().unwrap();
    assert!(last.starts_with(r#"{"event":"exploration","scenario":"holds","runs":20,"branched":"#), "{said}");

    let (code, _, err) = ran(&["explore", "blocks", "--runs", "1", "--patience", "1"]);
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains("GIVEN UP: seed 1: no poll has returned for "), "{err}");
}

#[test]
fn a_recipe_is_taken_from_the_command_line() {
    let digest = |recipe: &[&str]| {
        let (code, said, err) = ran(&[&["run", "holds", "--seed", "7", "--json"], recipe].concat());
        assert_eq!(code, Some(0), "{err}");
        said.split(r#""digest":""#).nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let branched = digest(&["--recipe", "1:5"]);
    assert_eq!(branched, digest(&["--recipe", "1:5"]));
    assert_ne!(branched, digest(&[]));
    let (code, _, err) = ran(&["run", "holds", "--recipe", "5"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("5 is no branch: expected EVENT:SEED,EVENT:SEED"), "{err}");

    let out = tempfile::tempdir().unwrap();
    let args = ["--seed", "1", "--recipe", "1:5,2:6", "--out", text(out.path())];
    let (code, _, err) = ran(&[&["run", "fails"], args.as_slice()].concat());
    assert_eq!(code, Some(1));
    assert!(err.starts_with("fails with seed 1 and recipe 1:5,2:6: "), "{err}");
    let folder = out.path().join("fails-1-1.5-2.6");
    let (code, _, err) = ran(&["replay", text(&folder), "--out", text(out.path())]);
    assert_eq!(code, Some(1));
    assert!(
        err.contains("broken as in the bundle: yes") && err.contains("digest as in the bundle: yes"),
        "{err}"
    );
    let (code, said, err) = ran(&["shrink", text(&folder), "--out", text(out.path())]);
    assert_eq!(code, Some(1));
    assert!(!err.contains("fails with seed 1 and recipe"), "its branches are shrunk away: {said}{err}");
}

#[test]
fn the_moment_of_no_return_is_told_with_a_failure_and_kept_in_its_story() {
    let out = tempfile::tempdir().unwrap();
    let plan = out.path().join("faults");
    std::fs::write(&plan, "2s pause a for=1s\n5s crash a for=1s\n20s crash a for=1s\n").unwrap();
    let told = |command: &[&str], jobs: &str| {
        let args = ["--no-return", "4", "--jobs", jobs, "--out", text(out.path())];
        let (code, said, err) = ran(&[command, args.as_slice()].concat());
        assert_eq!(code, Some(1), "{err}");
        (said, err)
    };
    let run = ["run", "forgets", "--plan", text(&plan)];
    let (_, err) = told(&run, "1");
    for part in [
        "\nsaved at the beginning after 1 runs\n",
        "\n  no return   event ",
        " at 5s; the failure was seen 25",
        "of 4 continuations from the event before, 4 held;",
        "from this one on none did, of 12\n",
        "  >      5.000000",
        " fault 2: 5s crash a for=1s\n",
    ] {
        assert!(format!("\n{err}").contains(part), "{part} is missing in\n{err}");
    }
    let story = std::fs::read_to_string(out.path().join("forgets-1/story.txt")).unwrap();
    assert!(err.contains(&story) && story.lines().last().unwrap().starts_with("replay: "), "{story}");
    assert_eq!(told(&run, "3").1, err);

    let (said, _) = told(&["replay", text(&out.path().join("forgets-1")), "--json"], "2");
    let parts = [
        r#""no_return":{"saved":{"event":"#,
        r#""tried":4,"held":4},"lost":{"event":"#,
        r#"fault 2: 5s crash a for=1s","tried":12,"held":0},"#,
        r#""gave_up":false}"#,
    ];
    for part in parts {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
    let (_, err) = told(&["run", "fails"], "1");
    assert!(err.contains("  no return   nothing could ever save it: none of 12 continuations"), "{err}");
    let (code, said, err) = ran(&["run", "holds", "--no-return"]);
    assert!(code == Some(0) && !said.contains("no return") && err.is_empty(), "{said}{err}");
    let (_, said, err) = ran(&["run", "fails", "--out", text(out.path())]);
    assert!(!(said + &err).contains("no return"), "it is told only if asked for");
}
