//! Processes whose disk is full: they may write to no file.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use crate::harness::{Running, hub, members, run, run_limited, until, worker};

/// The process's files take so many bytes, or as many as there are.
fn limit_files(process: &Running, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(process.pid()).unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[test]
fn a_worker_whose_disk_is_full_says_so_refuses_writes_answers_reads_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let state = dir.path().join("state");
    let args = ["worker", "--listen", "127.0.0.1:0", "--json", "--exit-with-stdin", "--state"];
    let worker = Running::start_limited(&[&args, &[state.to_str().unwrap()][..]].concat(), Some(&hub.ticket));
    let key = worker.event("ready")["key"].as_str().unwrap().to_owned();
    let state_command = |args: &[&str]| run(&[&["state"], args].concat(), Some(&hub.ticket), b"");
    state_command(&["incr", "visits", "4"]).succeeded();
    // Not even over bytes that are there.
    limit_files(&worker, Some(0));
    let refused = until("a refusal", || {
        let ended = state_command(&["incr", "visits"]);
        (ended.code == Some(8)).then_some(ended)
    });
    refused.failed(8, &["disk"]);
    let failed = worker.event("store_failed");
    assert!(failed["reason"].as_str().unwrap().contains("nurl.redb"), "{failed}");
    assert!(worker.stderr().contains("takes no writes"), "{}", worker.stderr());
    assert_eq!(state_command(&["get", "visits"]).succeeded().text(), "4\n", "what was confirmed");
    let roles =
        |members: &[Value]| members.iter().find(|member| member["key"] == key).unwrap()["roles"].clone();
    assert!(roles(&members(&hub.ticket)).to_string().contains("disk-fails"));
    let status = run(&["status"], Some(&hub.ticket), b"").succeeded();
    assert!(status.text().contains("takes no writes"), "{}", status.text());

    limit_files(&worker, None);
    worker.event("store_works");
    state_command(&["incr", "visits"]).succeeded();
    assert_eq!(state_command(&["get", "visits"]).succeeded().text(), "5\n");
}

#[test]
fn a_worker_that_finds_no_room_for_its_store_names_it_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let state = dir.path().join("state");
    let args = ["--state", state.to_str().unwrap()];
    worker(&hub.ticket, &args).process.kill();
    let args = ["worker", "--listen", "127.0.0.1:0", args[0], args[1]];
    run_limited(&args, Some(&hub.ticket), 0).failed(8, &["nurl.redb", "free space"]);
}

#[test]
fn a_lease_is_neither_admitted_nor_completed_without_room_and_both_when_there_is_some() {
    const TOKEN: &str = "00000000000000050101010101010101010101010101010101010101010101010101010101010101";
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("leases");
    let lease = |verb, task| {
        ["lease", verb, "--store", store.to_str().unwrap(), "--key", "k", "--token", TOKEN, "--task", task]
    };
    let [first, second] = ["000102030405060708090a0b0c0d0e0f", "ff0102030405060708090a0b0c0d0e0f"];
    run(&lease("admit", first), None, b"").succeeded();
    run_limited(&lease("admit", second), None, 0).failed(8, &["leases", "make room"]);
    run_limited(&lease("complete", first), None, 0).failed(8, &["leases", "make room"]);
    run(&lease("admit", second), None, b"").succeeded();
    run(&lease("complete", first), None, b"").succeeded();
}

#[test]
fn a_map_that_finds_no_room_for_a_result_names_the_file_and_goes_on_when_it_is_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let _worker = worker(&hub.ticket, &["--handler", "up=tr a-z A-Z"]);
    let [small, large, out] = ["small.txt", "large.txt", "out"].map(|name| dir.path().join(name));
    let content = "content ".repeat(16 << 10);
    fs::write(&small, "content").unwrap();
    fs::write(&large, &content).unwrap();
    let paths = [&small, &large].map(|path| path.to_str().unwrap());
    let args = [&["map", "--kind", "up", "--out", out.to_str().unwrap(), "-j", "1"], &paths[..]].concat();
    let ended = run_limited(&args, Some(&hub.ticket), 16);
    let named = ended.stderr.contains("large.txt: ") && ended.stderr.contains("make room, and run it again");
    assert!(ended.code == Some(8) && named, "{}", ended.stderr);
    assert_eq!(fs::read_to_string(out.join("small.txt")).unwrap(), "CONTENT");
    assert!(!out.join("large.txt").exists(), "no part of a result");
    let again = run(&args, Some(&hub.ticket), b"").succeeded();
    assert!(again.stderr.contains("1 skipped"), "{}", again.stderr);
    assert_eq!(fs::read_to_string(out.join("large.txt")).unwrap(), content.to_uppercase());
}

#[test]
fn a_hub_that_finds_no_room_for_its_files_names_one_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub(dir.path());
    hub.process.kill();
    let state = dir.path().join("hub");
    let args = ["hub", "--listen", "127.0.0.1:0", "--state", state.to_str().unwrap()];
    run_limited(&args, None, 0).failed(8, &["issued", "free space"]);
}
