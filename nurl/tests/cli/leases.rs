//! `nurl lease`: effects of shell programs, on real processes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::harness::{Ended, Running, hub, run, until, worker};

const OLD: &str = "00000000000000050101010101010101010101010101010101010101010101010101010101010101";
const NEW: &str = "00000000000000060101010101010101010101010101010101010101010101010101010101010101";
const TASK: &str = "000102030405060708090a0b0c0d0e0f";
const OTHER: &str = "ff0102030405060708090a0b0c0d0e0f";

#[track_caller]
fn lease(store: &Path, verb: &str, task: &str, token: &str, more: &[&str]) -> Ended {
    let store = store.to_str().unwrap();
    let mut args = vec!["lease", verb, "--store", store, "--key", "k", "--task", task, "--token", token];
    args.extend(more);
    run(&args, None, b"")
}

#[test]
fn a_task_is_admitted_once_and_then_has_its_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let admitted = lease(&store, "admit", TASK, OLD, &[]).succeeded();
    assert_eq!(admitted.text(), "", "a handler's output is its result");
    lease(&store, "admit", TASK, OLD, &[]).failed(13, &["in progress"]);
    assert_eq!(lease(&store, "complete", TASK, OLD, &["--outcome", "one line"]).succeeded().text(), "");
    lease(&store, "complete", TASK, OLD, &[]).failed(16, &["not in progress"]);
    // Whatever the token.
    for token in [OLD, NEW] {
        let done = lease(&store, "admit", TASK, token, &[]);
        done.failed(11, &["done before"]);
        assert_eq!(done.text(), "one line");
    }
    let done = lease(&store, "admit", TASK, OLD, &["--json"]).events();
    assert_eq!(done[0]["event"], "lease");
    assert_eq!((&done[0]["state"], &done[0]["text"]), (&"done".into(), &"one line".into()));
    assert_eq!((&done[1]["event"], &done[1]["code"]), (&"error".into(), &11.into()));
}

#[test]
fn an_older_token_is_refused_and_a_late_outcome_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    lease(&store, "admit", TASK, OLD, &[]).succeeded();
    lease(&store, "admit", OTHER, NEW, &[]).succeeded();
    let third = "aa0102030405060708090a0b0c0d0e0f";
    lease(&store, "admit", third, OLD, &[]).failed(12, &["fenced", NEW]);
    let fenced = lease(&store, "admit", third, OLD, &["--json"]);
    assert_eq!(
        (&fenced.events()[0]["state"], &fenced.events()[0]["current"]),
        (&"fenced".into(), &NEW.into())
    );
    lease(&store, "complete", TASK, OLD, &["--outcome", "x"]).failed(15, &["late", NEW]);
    lease(&store, "admit", TASK, NEW, &[]).failed(11, &[]);
    // A task that was given back belongs to its next holder.
    lease(&store, "release", OTHER, NEW, &[]).succeeded();
    lease(&store, "admit", OTHER, NEW, &[]).succeeded();
    lease(&store, "release", OTHER, OLD, &[]).failed(12, &["fenced"]);
}

#[test]
fn what_is_no_task_or_token_is_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    assert_eq!(lease(&store, "admit", "7", OLD, &[]).code, Some(2));
    assert_eq!(lease(&store, "admit", TASK, "7", &[]).code, Some(2));
    lease(&store, "admit", TASK, &"f".repeat(80), &[]).failed(2, &["too far ahead"]);
    lease(&store, "admit", TASK, OLD, &["--life", "25h"]).failed(2, &["a life"]);
    lease(&store, "admit", TASK, OLD, &[]).succeeded();
}

#[test]
fn commands_wait_for_each_other_and_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    lease(&store, "admit", TASK, OLD, &[]).succeeded();
    // The lock of a store in use, as another process holds it.
    let held = fs::File::options().read(true).write(true).open(store.join("lease.redb")).unwrap();
    held.try_lock().unwrap();
    lease(&store, "admit", TASK, OLD, &["--wait", "100ms"]).failed(5, &["100ms"]);
    let folder = store.to_str().unwrap();
    let waiting = [
        "lease", "complete", "--store", folder, "--key", "k", "--task", TASK, "--token", OLD, "--wait",
        "60s", "--json",
    ];
    let mut waiting = Running::start(&waiting, None);
    drop(held);
    assert_eq!(waiting.event("lease")["state"], "recorded");
    assert!(waiting.ended().success());
}

/// Each of many at once, of one task: one is admitted.
#[test]
fn of_many_commands_at_once_one_is_admitted() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let codes: Vec<_> = std::thread::scope(|scope| {
        let commands: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| lease(&store, "admit", TASK, OLD, &["--wait", "60s"]).code))
            .collect();
        commands.into_iter().map(|command| command.join().unwrap()).collect()
    });
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == Some(13)).count(), 5, "{codes:?}");
}

/// The help's example: a handler that appends its payload to a file, once for each task.
fn script(dir: &Path, then: &str) -> String {
    let (nurl, notes) = (env!("CARGO_BIN_EXE_nurl"), dir.display());
    let path = dir.join("note");
    let text = format!(
        "#!/bin/sh
{nurl} lease admit --store {notes}/lease --wait 60s
case $? in
  0) ;;
  11) exit 0 ;;
  13) exit 75 ;;
  *) exit 1 ;;
esac
cat >> {notes}/log || exit 1
{nurl} lease complete --store {notes}/lease --wait 60s --outcome noted && {then} echo noted
"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path.display().to_string()
}

#[test]
fn a_shell_program_of_a_worker_makes_its_effect_once_though_it_runs_twice() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    // The first run dies when its outcome is recorded, before the worker has it: the next worker runs it again.
    let died = dir.path().join("died");
    let dies_once = format!("{{ test -e {0} || {{ touch {0}; kill -KILL $$; }}; }} &&", died.display());
    let handler = format!("note={}", script(dir.path(), &dies_once));
    let _workers =
        [worker(&hub.ticket, &["--handler", &handler]), worker(&hub.ticket, &["--handler", &handler])];
    let args = ["submit", "--kind", "note", "--json"];
    let result = run(&args, Some(&hub.ticket), b"once\n").succeeded().events().pop().unwrap();
    assert!(died.exists());
    assert_eq!((&result["text"], &result["attempts"]), (&"noted".into(), &2.into()));
    assert_eq!(fs::read_to_string(dir.path().join("log")).unwrap(), "once\n");
}

#[test]
fn a_task_whose_program_died_before_its_outcome_can_be_settled_by_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let (nurl, store) = (env!("CARGO_BIN_EXE_nurl"), dir.path().join("store"));
    // It is admitted, and killed with its worker before its effect.
    let task = dir.path().join("task");
    let hangs = format!(
        "hangs=sh -c '{nurl} lease admit --store {} && echo $NURL_TASK $NURL_KEY > {1}.new && mv {1}.new {1}; sleep 600'",
        store.display(),
        task.display(),
    );
    let mut dies = worker(&hub.ticket, &["--handler", &hangs]);
    let submit = ["submit", "--kind", "hangs", "--key", "k", "--payload", "/dev/null"];
    let _submit = Running::start(&submit, Some(&hub.ticket));
    let told = until("the admission", || fs::read_to_string(&task).ok());
    dies.process.kill();
    let (id, key) = told.trim().split_once(' ').unwrap();
    assert_eq!(key, "k");
    let newer = "0000ffffffffffff0101010101010101010101010101010101010101010101010101010101010101";
    lease(&store, "admit", id, newer, &[]).failed(13, &["in progress"]);
    lease(&store, "release", id, newer, &[]).succeeded();
    lease(&store, "admit", id, newer, &[]).succeeded();
}
