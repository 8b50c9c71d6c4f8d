//! Hubs: restarts, a second hub, a hub that never has the ticket.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nurl::Ticket;

use crate::harness::{LIMIT, Running, hub, hub_at, members, run, worker};

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_killed_hub_comes_back_with_its_ticket_and_nobody_else_must_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = hub(dir.path());
    let up = ["--handler", "up=tr a-z A-Z"];
    let (one, _two) = (worker(&first.ticket, &up), worker(&first.ticket, &up));
    for file in ["key", "mesh"] {
        assert_eq!(mode(&dir.path().join("hub").join(file)), 0o600, "{file}");
    }
    // This command talks to a worker during the whole restart.
    let args = ["ping", &one.key, "-c", "1000000", "--interval", "20ms", "--json"];
    let talk = Running::start(&args, Some(&first.ticket));
    let direct = |line: &serde_json::Value| line["event"] == "pong" && line["path"] == "direct";
    let before = talk.wait_for("direct pong", direct);

    first.process.kill();
    one.process.wait_for("hub down", |line| line["event"] == "hub" && line["up"] == false);
    let after = before["seq"].as_u64().unwrap() + 50;
    talk.wait_for("pong without a hub", |line| direct(line) && line["seq"].as_u64() > Some(after));

    let second = hub_at(dir.path(), &first.addr);
    assert_eq!(second.ticket, first.ticket);
    let args = ["submit", "--kind", "up", "--join", "50s"];
    assert_eq!(run(&args, Some(&first.ticket), b"again").succeeded().text(), "AGAIN");
    one.process.wait_for("hub up", |line| line["event"] == "hub" && line["up"] == true);
    talk.wait_for("pong after the restart", direct);
}

#[test]
fn a_second_hub_serves_when_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = hub(dir.path());
    let state = dir.path().join("second");
    let args = ["hub", "--listen", "127.0.0.1:0", "--state", state.to_str().unwrap(), "--json"];
    let second = Running::start(&args, Some(&first.ticket));
    let ready = second.event("ready");
    let both = ready["ticket"].as_str().unwrap();
    let ticket: Ticket = both.parse().unwrap();
    assert_eq!(ticket.hubs.len(), 2);
    assert_eq!(ticket.hubs[1].addr, ready["addr"].as_str().unwrap());
    let worker = worker(both, &[]);
    // The status goes through the first hub, whose ticket doesn't name the second.
    assert_eq!(members(&first.ticket)[0]["key"], worker.key.as_str());
    first.process.kill();
    let args = ["submit", "--kind", "echo", "--join", "50s"];
    assert_eq!(run(&args, Some(both), b"still here").succeeded().text(), "still here");
    assert_eq!(members(both)[0]["key"], worker.key.as_str());
}

#[test]
fn a_hub_can_serve_a_mesh_whose_ticket_it_never_had() {
    let dir = tempfile::tempdir().unwrap();
    let first = hub(dir.path());
    let ticket: Ticket = first.ticket.parse().unwrap();
    let id = ticket.mesh.to_string();
    let state = dir.path().join("blind");
    let args =
        ["hub", "--listen", "127.0.0.1:0", "--mesh-id", &id, "--state", state.to_str().unwrap(), "--json"];
    let blind = Running::start(&args, None);
    let ready = blind.event("ready");
    assert!(ready.get("ticket").is_none() && !state.join("mesh").exists());
    assert_eq!(ready["meshes"], serde_json::json!([id]));
    // A machine that has its passes from the first hub gets in by a ticket that names only the second.
    let mut known = worker(&first.ticket, &[]);
    assert_eq!(members(&first.ticket).len(), 1);
    known.process.signal("TERM");
    assert_eq!(known.process.ended().code(), Some(0));
    let mut other = ticket.clone();
    other.hubs[0].key = ready["key"].as_str().unwrap().parse().unwrap();
    other.hubs[0].addr = ready["addr"].as_str().unwrap().to_owned();
    let text = other.to_text().unwrap();
    let worker = worker(&text, &[]);
    assert_eq!(members(&text)[0]["key"], worker.key.as_str());
}

#[test]
fn the_traces_of_killed_workers_keep_no_newcomer_out() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let mut killed = worker(&hub.ticket, &[]);
    killed.process.kill();
    let newcomer = worker(&hub.ticket, &["--join", "50s"]);
    let args = ["submit", "--kind", "echo", "--join", "50s"];
    assert_eq!(run(&args, Some(&hub.ticket), b"anybody?").succeeded().text(), "anybody?");
    assert!(members(&hub.ticket).iter().any(|member| member["key"] == newcomer.key.as_str()));
}

/// A server on `addr` that isn't a hub; it answers until it is dropped.
struct Impostor {
    served: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Impostor {
    fn start(addr: &str, serve: fn(TcpStream)) -> Impostor {
        let listener = TcpListener::bind(addr).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (served, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped) = (served.clone(), stop.clone());
        let accept = move || {
            while !stopped.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        serve(stream);
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        };
        Impostor { served, stop, thread: Some(std::thread::spawn(accept)) }
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Answers like a captive portal: every connection gets a page, whatever it sent.
fn portal(mut stream: TcpStream) {
    let mut request = [0; 256];
    // The request needn't be complete.
    let _ = stream.read(&mut request);
    let _ = stream
        .write_all(b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn what_answers_before_the_hub_is_up_is_no_refusal_and_the_hub_is_found_when_it_is() {
    // The second impostor is a proxy whose hub isn't up yet: it accepts and closes.
    for (what, serve) in [("portal", portal as fn(TcpStream)), ("proxy", drop)] {
        let dir = tempfile::tempdir().unwrap();
        let mut hub = hub(dir.path());
        hub.process.kill();
        let impostor = Impostor::start(&hub.addr, serve);
        let ended = run(&["status", "--join", "1s", "--json"], Some(&hub.ticket), b"");
        ended.failed(3, &["not-a-hub", &hub.addr, "captive portal", "proxy"]);
        let error = ended.events().remove(0);
        assert_eq!((&error["code"], &error["reason"]), (&3.into(), &"not-a-hub".into()), "{what}");

        let worker = Running::start(
            &["worker", "--listen", "127.0.0.1:0", "--json", "--exit-with-stdin", "--join", "50s"],
            Some(&hub.ticket),
        );
        let before = impostor.served();
        let begun = Instant::now();
        while impostor.served() < before + 4 {
            assert!(begun.elapsed() < LIMIT, "{what}: the worker doesn't try again: {}", worker.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(impostor);
        let _hub = hub_at(dir.path(), &hub.addr);
        worker.event("ready");
    }
}

#[test]
fn seventy_idle_connections_of_a_neighbour_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let _idle: Vec<_> = (0..70).map(|_| TcpStream::connect(&hub.addr).unwrap()).collect();
    let ended = run(&["status", "--json"], Some(&hub.ticket), b"").succeeded();
    // The hub drops silent connections after 5 s. The status must succeed before that, not because of it.
    assert!(ended.took < Duration::from_secs(4), "{:?}", ended.took);
    worker(&hub.ticket, &[]);
}

#[test]
fn a_hub_that_is_told_to_stop_exits_with_0() {
    let dir = tempfile::tempdir().unwrap();
    for how in ["INT", "TERM", "end of standard input"] {
        let mut hub = hub(dir.path());
        match how {
            "INT" | "TERM" => hub.process.signal(how),
            _ => hub.process.close_stdin(),
        }
        assert_eq!(hub.process.ended().code(), Some(0), "{how}");
    }
}
