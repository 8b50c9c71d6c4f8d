//! The ends of a process: told to stop, told so twice, interrupted, or with a reader that hangs.

use std::io::{PipeReader, PipeWriter, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{LIMIT, Running, gone, hub, signal, worker};
use crate::programs::{child_in, hangs_with_a_child};

/// A pipe that is full, and that nobody reads.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    // It writes on when there is room, until the reader is dropped.
    std::thread::spawn(move || while filler.write_all(&[b'\n'; 4_096]).is_ok() {});
    (reader, writer)
}

fn started(args: &[&str], ticket: &str, stdout: PipeWriter) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nurl"));
    command.args(args).env("NURL_MESH", ticket).stdin(Stdio::null()).stdout(stdout);
    command.spawn().unwrap()
}

#[track_caller]
fn ended(mut child: std::process::Child) -> Option<i32> {
    let limit = std::time::Instant::now() + LIMIT / 2;
    while std::time::Instant::now() < limit {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    panic!("it didn't end");
}

#[test]
fn a_worker_whose_reader_hangs_can_be_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let witness = worker(&hub.ticket, &[]);
    for form in [&["--json"][..], &[]] {
        let (_reader, stdout) = full_pipe();
        let args = [&["worker", "--listen", "127.0.0.1:0"], form].concat();
        let stuck = started(&args, &hub.ticket, stdout);
        let state = |state: &'static str| {
            witness.process.wait_for(state, |line| line["event"] == "member" && line["state"] == state);
        };
        state("alive");
        signal(stuck.id(), "TERM");
        assert_eq!(ended(stuck), Some(0));
        state("left");
    }
}

#[test]
fn a_client_whose_reader_hangs_can_be_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let worker = worker(&hub.ticket, &[]);
    for form in [&["--json"][..], &[]] {
        let (_reader, stdout) = full_pipe();
        let args = [&["submit", "--kind", "echo", "--payload", "/dev/null"], form].concat();
        let stuck = started(&args, &hub.ticket, stdout);
        worker.process.wait_for("end", |line| line["event"] == "job" && line["state"] == "finished");
        signal(stuck.id(), "INT");
        assert_eq!(ended(stuck), Some(130));
    }
}

#[test]
fn an_interrupted_command_cancels_its_tasks_down_to_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let text = dir.path().join("text");
    std::fs::write(&text, "some words").unwrap();
    let text = text.to_str().unwrap();
    let file = dir.path().join("child");
    // `wordcount` has no option for its kind.
    let handler = format!("wordcount={}", hangs_with_a_child(&file));
    let worker = worker(&hub.ticket, &["--handler", &handler]);
    for command in [
        &["submit", "--kind", "wordcount", "--payload", text][..],
        &["map", "--kind", "wordcount", text],
        &["wordcount", text],
    ] {
        let mut client = Running::start(&[command, &["--json"]].concat(), Some(&hub.ticket));
        let child = child_in(&file);
        client.signal("INT");
        assert_eq!(client.ended().code(), Some(130), "{command:?}: {}", client.stderr());
        worker.process.wait_for("cancellation", |line| {
            line["event"] == "job" && line["state"] == "failed" && line["error"] == "cancelled"
        });
        gone(child);
        std::fs::remove_file(&file).unwrap();
    }
}
