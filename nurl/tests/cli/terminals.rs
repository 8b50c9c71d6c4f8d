//! The README's example with three terminals.

use std::time::{Duration, Instant};

use crate::harness::{HOME, LIMIT, hub, members, run, worker};

#[test]
fn three_terminals_give_an_upper_cased_reply_over_a_direct_path() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let worker = worker(&hub.ticket, &["--handler", "up=tr a-z A-Z"]);
    let reply = run(&["submit", "--kind", "up"], Some(&hub.ticket), b"hello").succeeded();
    assert_eq!(reply.text(), "HELLO");

    let members = members(&hub.ticket);
    assert_eq!(members.len(), 1, "{members:?}");
    let member = &members[0];
    assert_eq!(member["key"], worker.key.as_str());
    assert_eq!((&member["state"], &member["path"]), (&"alive".into(), &"direct".into()), "{member}");
    assert_eq!(member["roles"], serde_json::json!(["worker"]));
    assert!(member["rtt_ms"].as_f64().is_some_and(|ms| ms < 1_000.0), "{member}");

    let table = run(&["status"], Some(&hub.ticket), b"").succeeded();
    assert!(table.text().contains("direct") && table.text().contains("up"), "{}", table.text());
}

#[test]
fn workers_and_a_status_write_their_metrics_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let worker = worker(&hub.ticket, &["--metrics", "100ms"]);
    run(&["submit", "--kind", "echo"], Some(&hub.ticket), b"hello").succeeded();
    let line = worker.process.wait_for("metrics", |line| line["values"]["job.runs"] == 1);
    assert_eq!(
        (&line["values"]["hub.ups"], &line["values"]["session.forged"]),
        (&1.into(), &0.into()),
        "{line}"
    );

    let lines = run(&["status", "--metrics", "--json"], Some(&hub.ticket), b"").succeeded().events();
    assert_eq!((&lines[0]["event"], &lines[1]["event"]), (&"status".into(), &"metrics".into()));
    assert!(lines[1]["values"]["session.established"].as_u64() > Some(0), "{}", lines[1]);
    let table = run(&["status", "--metrics"], Some(&hub.ticket), b"").succeeded();
    assert!(table.text().contains("Attempts to connect to a hub."), "{}", table.text());
}

#[test]
fn status_settles_on_direct_paths_within_its_two_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let workers: Vec<_> = (0..3).map(|_| worker(&hub.ticket, &[])).collect();
    // Once the first worker reports the third, the view that a status gets is complete.
    workers[0].process.wait_for("member", |line| {
        line["event"] == "member" && line["peer"] == workers[2].key.as_str() && line["state"] == "alive"
    });
    let members = members(&hub.ticket);
    assert!(members.len() >= 2 && members.iter().all(|member| member["path"] == "direct"), "{members:?}");
}

#[test]
fn ping_shows_the_way_and_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let worker = worker(&hub.ticket, &[]);
    // A worker is named by its whole key or by the key's first characters, with and without the prefix.
    for name in [&worker.key[..], &worker.key[..16], &worker.key[5..13]] {
        let args = ["ping", name, "-c", "3", "--interval", "10ms", "--json"];
        let pongs = run(&args, Some(&hub.ticket), b"").succeeded().events();
        assert_eq!(pongs.len(), 3);
        for (pong, seq) in pongs.iter().zip(1..) {
            assert_eq!((&pong["event"], &pong["seq"]), (&"pong".into(), &seq.into()));
            assert!(pong["rtt_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{pong}");
        }
    }
    run(&["ping", "zzzz"], Some(&hub.ticket), b"").failed(2, &["zzzz", "nurl1"]);
}

#[test]
fn a_worker_that_is_told_to_stop_leaves_and_exits_with_0() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let witness = worker(&hub.ticket, &[]);
    for (number, how) in ["INT", "TERM", "end of standard input"].into_iter().enumerate() {
        // Another member each time: one that comes back and leaves at once may not be seen alive between.
        let key = dir.path().join(format!("key-{number}"));
        let mut leaver = worker(&hub.ticket, &["--key", key.to_str().unwrap()]);
        match how {
            "INT" | "TERM" => leaver.process.signal(how),
            _ => leaver.process.close_stdin(),
        }
        assert_eq!(leaver.process.ended().code(), Some(0), "{how}: {}", leaver.process.stderr());
        witness.process.wait_for("leave", |line| {
            line["event"] == "member" && line["peer"] == leaver.key.as_str() && line["state"] == "left"
        });
    }
}

#[test]
fn a_key_file_makes_a_worker_the_same_peer_again() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let file = dir.path().join("key");
    let file = file.to_str().unwrap();
    let first = worker(&hub.ticket, &["--key", file]).key;
    assert_eq!(worker(&hub.ticket, &["--key", file]).key, first);
    let shown = run(&["key", "show", file], None, b"").succeeded();
    assert_eq!(shown.text().trim(), first);
}

#[test]
fn a_ticket_is_taken_from_a_file_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let _worker = worker(&hub.ticket, &[]);
    let file = dir.path().join("hub/mesh");
    let args = ["submit", "--mesh", file.to_str().unwrap(), "--kind", "echo", "--payload", "-"];
    assert_eq!(run(&args, None, b"as it was").succeeded().text(), "as it was");
}

#[test]
fn a_worker_whose_reader_is_gone_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let witness = worker(&hub.ticket, &[]);
    let exe = env!("CARGO_BIN_EXE_nurl");
    let read = dir.path().join("read");
    let script = format!("{exe} worker --listen 127.0.0.1:0 --json | head -n 1 > {}", read.display());
    let mut shell = std::process::Command::new("sh");
    let mut shell = shell.args(["-c", &script]).env("NURL_MESH", &hub.ticket).env("NURL_HOME", HOME);
    shell = shell.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let mut shell = shell.spawn().unwrap();
    // The reader has its line and is gone. The worker's next line would report another member.
    let until = Instant::now() + LIMIT;
    while std::fs::metadata(&read).map_or(true, |file| file.len() == 0) {
        assert!(Instant::now() < until, "no line from the worker");
        std::thread::sleep(Duration::from_millis(5));
    }
    let gone = |line: &serde_json::Value| line["event"] == "member" && line["state"] == "left";
    let _next = worker(&hub.ticket, &[]);
    witness.process.wait_for("leave", gone);
    assert!(shell.wait().unwrap().success());
}
