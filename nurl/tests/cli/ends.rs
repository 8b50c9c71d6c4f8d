//! The ends of a process: told to stop once or twice, interrupted, or with a reader that hangs.

use std::io::{PipeReader, PipeWriter, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{HOME, LIMIT, Running, Worker, gone, hub, run, signal, until, worker};
use crate::programs::{child_in, hangs_with_a_child};

/// A full pipe without a reader.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    // The thread writes whenever there is room, until the reader is dropped.
    std::thread::spawn(move || while filler.write_all(&[b'\n'; 4_096]).is_ok() {});
    (reader, writer)
}

fn started(args: &[&str], ticket: Option<&str>, stdout: PipeWriter) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nurl"));
    command
        .args(args)
        .env("NURL_HOME", HOME)
        .env_remove("NURL_MESH")
        .envs(ticket.map(|ticket| ("NURL_MESH", ticket)));
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
    command.spawn().unwrap()
}

#[track_caller]
fn ended(mut child: std::process::Child) -> Option<i32> {
    let limit = Instant::now() + LIMIT / 2;
    while Instant::now() < limit {
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
    for (number, form) in [&["--json"][..], &[]].into_iter().enumerate() {
        let (_reader, stdout) = full_pipe();
        // Another member each time: one that comes back and leaves at once may not be seen alive between.
        let key = dir.path().join(format!("key-{number}"));
        let key = key.to_str().unwrap();
        let worker = ["worker", "--listen", "127.0.0.1:0", "--handler", "only=cat", "--key", key];
        let args = [&worker, form].concat();
        let stuck = started(&args, Some(&hub.ticket), stdout);
        // The worker has joined and works.
        let work = ["submit", "--kind", "only"];
        assert_eq!(run(&work, Some(&hub.ticket), b"x").succeeded().text(), "x");
        signal(stuck.id(), "TERM");
        assert_eq!(ended(stuck), Some(0));
        witness.process.wait_for("leave", |line| line["event"] == "member" && line["state"] == "left");
    }
}

#[test]
fn a_hub_whose_reader_hangs_can_be_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (_reader, stdout) = full_pipe();
    let args = ["hub", "--listen", "127.0.0.1:0", "--state", dir.path().to_str().unwrap()];
    let stuck = started(&args, None, stdout);
    until("the ticket", || dir.path().join("mesh").exists().then_some(()));
    signal(stuck.id(), "TERM");
    assert_eq!(ended(stuck), Some(0));
}

#[test]
fn a_client_whose_reader_hangs_can_be_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let worker = worker(&hub.ticket, &[]);
    let text = dir.path().join("text");
    std::fs::write(&text, "some words").unwrap();
    for form in [&["--json"][..], &[]] {
        let (_reader, stdout) = full_pipe();
        let args = [&["submit", "--kind", "echo", "--payload", text.to_str().unwrap()], form].concat();
        let stuck = started(&args, Some(&hub.ticket), stdout);
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
    // The client command `wordcount` has no option for its kind.
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

/// A worker whose handler `kind` runs this script, and which goes on for `drain` after it is told to stop.
fn draining(ticket: &str, script: &str, drain: &str) -> Worker {
    worker(ticket, &["--drain", drain, "--handler", &format!("kind=sh -c '{script}'")])
}

const SUBMIT: [&str; 6] = ["submit", "--kind", "kind", "--payload", "/dev/null", "--json"];

#[test]
fn a_worker_that_is_told_to_stop_ends_its_task_and_takes_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let go = dir.path().join("go");
    let script = format!("until [ -e {} ]; do sleep 0.02; done; echo done", go.display());
    let mut worker = draining(&hub.ticket, &script, "50s");
    let submit = Running::start(&SUBMIT, Some(&hub.ticket));
    worker.process.event("job");
    worker.process.signal("TERM");
    // The next task has to wait, because there is no other worker.
    let next = Running::start(&SUBMIT, Some(&hub.ticket));
    next.event("waiting");
    std::fs::write(&go, "").unwrap();
    let result = submit.event("result");
    assert_eq!((&result["text"], &result["attempts"]), (&"done\n".into(), &1.into()), "{result}");
    assert_eq!(worker.process.ended().code(), Some(0), "{}", worker.process.stderr());
}

#[test]
fn a_task_that_a_leaving_worker_cannot_end_starts_elsewhere_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let first = dir.path().join("first");
    let script = format!("mkdir {} && exec sleep 600; echo moved", first.display());
    let mut workers = [(); 2].map(|()| draining(&hub.ticket, &script, "100ms"));
    let submit = Running::start(&SUBMIT, Some(&hub.ticket));
    let by = submit.event("accepted")["by"].clone();
    until("the program", || first.exists().then_some(()));
    let leaver = workers.iter_mut().find(|worker| worker.key == by).unwrap();
    let told = Instant::now();
    leaver.process.signal("TERM");
    let result = submit.event("result");
    assert_eq!((&result["text"], &result["attempts"]), (&"moved\n".into(), &2.into()), "{result}");
    // Detection by silence would take three seconds.
    assert!(told.elapsed() < Duration::from_millis(2_500), "{:?}", told.elapsed());
    assert_eq!(leaver.process.ended().code(), Some(0));
}

#[test]
fn a_worker_that_is_told_twice_ends_at_once_and_its_programs_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let file = dir.path().join("child");
    let handler = format!("kind={}", hangs_with_a_child(&file));
    let patient = ["--drain", "10m", "--handler-timeout", "10m", "--handler", &handler];
    let mut worker = worker(&hub.ticket, &patient);
    let _submit = Running::start(&SUBMIT, Some(&hub.ticket));
    let child = child_in(&file);
    for name in ["INT", "TERM"] {
        worker.process.signal(name);
    }
    assert_eq!(worker.process.ended().code(), Some(0), "{}", worker.process.stderr());
    gone(child);
}
