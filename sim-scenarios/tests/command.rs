//! The `chaos` command from outside: from a planted bug to its bundle and back, exit codes, usage.
#![cfg(feature = "sim")]
#![allow(clippy::disallowed_methods, reason = "a test of a program has files and processes")]

use std::path::Path;
use std::process::{Command, Output};

/// The canary's bug shows within this many seeds.
const SEEDS: u64 = 100;

fn chaos(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chaos")).args(args).output().unwrap()
}

fn code(args: &[&str]) -> i32 {
    chaos(args).status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_planted_bug_goes_from_a_seed_to_a_bundle_that_replays_anywhere() {
    let out = tempfile::tempdir().unwrap();
    let out = text(out.path());
    let fails = |seed: &u64| code(&["run", "canary", "--seed", &seed.to_string(), "--out", out]) == 1;
    let seed = (1..=SEEDS).find(fails).expect("the planted bug shows").to_string();
    let shrunk = chaos(&["shrink", "canary", "--seed", &seed, "--out", out]);
    assert_eq!(shrunk.status.code(), Some(1), "{}", stderr(&shrunk));
    assert!(stdout(&shrunk).contains(" faults → "), "{}", stdout(&shrunk));
    for part in ["replay: cargo chaos replay", "same on rerun: yes", "drawn  ", " events of "] {
        assert!(stderr(&shrunk).contains(part), "{part} is missing in\n{}", stderr(&shrunk));
    }
    // Another machine has nothing but the bundle.
    let bundle = Path::new(out).join(format!("canary-{seed}"));
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::copy(bundle.join("bundle.json"), elsewhere.path().join("bundle.json")).unwrap();
    let replayed = chaos(&["replay", text(elsewhere.path()), "--out", out]);
    assert_eq!(replayed.status.code(), Some(1));
    for part in ["broken as in the bundle: yes", "digest as in the bundle: yes", "same on rerun: yes"] {
        assert!(stderr(&replayed).contains(part), "{part} is missing in\n{}", stderr(&replayed));
    }
    // A plan without faults breaks nothing.
    let empty = elsewhere.path().join("empty.txt");
    std::fs::write(&empty, "# nothing goes wrong\n").unwrap();
    assert_eq!(code(&["run", "canary", "--seed", &seed, "--plan", text(&empty), "--out", out]), 0);
}

#[test]
fn a_sweep_says_what_it_did_and_finds_the_canary() {
    let out = tempfile::tempdir().unwrap();
    let swept =
        chaos(&["sweep", "lease", "--seeds", "4", "--jobs", "2", "--json", "--out", text(out.path())]);
    assert_eq!(swept.status.code(), Some(0), "{}{}", stdout(&swept), stderr(&swept));
    let lines = stdout(&swept);
    assert!(lines.contains(r#""event":"tally","scenario":"lease","runs":4,"failures":0"#), "{lines}");
    assert!(lines.contains(r#""event":"canary","scenario":"canary","found_in_run":"#), "{lines}");
    assert!(
        lines.contains(r#""event":"sweep","runs":4,"skipped":0,"failures":0,"vacuous":false"#),
        "{lines}"
    );
}

/// A bundle of a scenario that this program doesn't have.
const BUNDLE: &str = r#"{"format":2,"version":"0","scenario":"theirs","seed":1,"scheduler_seed":1,"knobs":{},
"plan":null,"kind":"safety","property":"p","seen":"s","digest":"d","events":1,"reproducible":true,"shrunk":null}"#;

#[test]
fn a_run_is_kept_by_one_command_and_replays_from_its_file() {
    let out = tempfile::tempdir().unwrap();
    let into = text(out.path());
    let keep =
        ["keep", "canary", "--seed", "3", "--into", into, "--found", "a reason", "--red-with", "mutant"];
    assert_eq!(code(&keep), 0);
    let file = out.path().join("canary-3.json");
    let kept = std::fs::read_to_string(&file).unwrap();
    for part in ["\"found\": \"a reason\"", "\"red_with\": [\n    \"mutant\"\n", "\"plan\": [\n    \""] {
        assert!(kept.contains(part), "{part} is missing in\n{kept}");
    }
    let digest = |args: &[&str]| {
        let said = stdout(&chaos(args));
        let rest = said.split("\"digest\":\"").nth(1).unwrap_or_else(|| panic!("no digest in {said}"));
        rest.split('"').next().map(str::to_owned)
    };
    let drawn = digest(&["run", "canary", "--seed", "3", "--json", "--out", into]);
    assert_eq!(digest(&["replay", text(&file), "--json", "--out", into]), drawn);
    // What is kept stays what it is.
    assert_eq!(code(&keep), 2);
}

#[test]
fn a_sweep_of_too_few_runs_is_vacuous_and_says_what_it_left_out() {
    let swept = chaos(&["sweep", "lease", "fence", "--seeds", "1"]);
    assert_eq!(swept.status.code(), Some(6), "{}", stdout(&swept));
    assert!(stdout(&swept).contains("NOT RUN: fence\n"), "{}", stdout(&swept));
}

#[test]
fn a_run_prints_the_plan_and_the_map_that_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan");
    std::fs::write(&plan, "1s loss * udp=1 tcp=0 for=1s\n2s crash nobody\n").unwrap();
    let run = chaos(&["run", "canary", "--plan", text(&plan), "--map"]);
    let said = stdout(&run);
    let parts = [
        "internet\n  ",
        "1 of 2 faults have begun, let loose at ",
        ":\n1s loss * udp=1 tcp=0 for=1s\n2s crash nobody\n# fault 2 (2s crash nobody) was skipped: there is no host nobody\n",
    ];
    for part in parts {
        assert!(said.contains(part), "{part} is missing in\n{said}{}", stderr(&run));
    }
}

#[test]
fn two_traces_of_a_seed_are_the_same_and_those_of_two_seeds_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| text(&folder.path().join(name)).to_owned();
    for (name, seed) in [("a", "1"), ("b", "1"), ("c", "2")] {
        let (trace, pcap) = (path(name), path("pcap"));
        let empty = path("plan");
        std::fs::write(&empty, "").unwrap();
        let run = ["run", "canary", "--seed", seed, "--plan", &empty, "--trace", &trace, "--pcap", &pcap];
        assert_eq!(code(&run), 0);
    }
    assert_eq!(code(&["diff", &path("a"), &path("b")]), 0);
    let differ = chaos(&["diff", &path("a"), &path("c")]);
    assert_eq!(differ.status.code(), Some(5));
    assert!(stdout(&differ).contains("the traces differ from line "), "{}", stdout(&differ));
    assert!(std::fs::metadata(path("pcap")).unwrap().len() > 1_000);
}

#[test]
fn what_is_asked_for_wrongly_is_usage() {
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan");
    std::fs::write(&plan, "1s explode a\n").unwrap();
    let plan = text(&plan);
    let (empty, bundle) = (folder.path().join("empty"), folder.path().join("bundle.json"));
    std::fs::write(&empty, "").unwrap();
    std::fs::write(&bundle, BUNDLE).unwrap();
    let (empty, bundle) = (text(&empty), text(&bundle));
    let wrong: &[&[&str]] = &[
        &["run", "nothing"],
        &["run", "canary", "--plan", plan],
        &["run", "canary", "--plan", "/nowhere"],
        &["run", "canary", "--set", "legs=3"],
        &["run", "canary", "--set", "legs"],
        &["replay", plan],
        &["sweep"],
        &["sweep", "--all", "--shard", "3/2"],
        &["sweep", "--all", "--seeds", "0"],
        &["sweep", "--all", "--minutes", "0"],
        &["sweep", "--all", "--jobs", "0"],
        &["sweep", "--all", "--patience", "0"],
        &["sweep", "--all", "--resume", "/nowhere"],
        &["sweep", "--all", "--resume", plan],
        &["sweep", "--all", "--ledger", plan],
        &["merge"],
        &["merge", plan],
        &["run", "canary", "--trace", "/proc/nowhere/a"],
        &["run", "canary", "--pcap", "/proc/nowhere/a"],
        &["replay", "canary", "--trace", "/proc/nowhere/a"],
        &["run", "lease", "--plan", empty],
        &["shrink", "lease", "--plan", empty],
        &["shrink", "canary", "--trace", "a"],
        &["replay", bundle],
        &["diff", plan, "/nowhere"],
        &["fly"],
    ];
    for args in wrong {
        let output = chaos(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty(), "{args:?}");
    }
    let said = stderr(&chaos(&["run", "canary", "--plan", plan]));
    assert!(said.contains("line 1: expected a kind of fault (loss, burst, latency, "), "{said}");
    let said = stderr(&chaos(&["replay", bundle]));
    assert!(said.contains("is of the scenario theirs, which isn't here"), "{said}");
    let said = stderr(&chaos(&["run", "canary", "--pcap", "/proc/nowhere/a"]));
    assert!(said.contains("can't write the capture or the trace: /proc/nowhere/a: "), "{said}");
    let help = stdout(&chaos(&["--help"]));
    assert!(help.contains("Exit codes:") && help.contains("cargo chaos sweep --all"), "{help}");
}
