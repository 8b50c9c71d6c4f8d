//! The addresses on which hubs and workers listen, and those in a ticket, without an address on the command line.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;

use nurl::Ticket;

use crate::harness::{Hub, Running, hub_at, members, run, worker};

/// Whether this host has IPv6 at all.
fn has_v6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

/// A hub with the default options, except for its port.
fn everywhere(dir: &Path) -> Hub {
    hub_at(dir, "0")
}

fn port(hub: &Hub) -> u16 {
    hub.addr.parse::<SocketAddr>().expect("an address of this host").port()
}

#[test]
fn a_mesh_works_in_either_family_without_an_option() {
    let dir = tempfile::tempdir().unwrap();
    let hub = everywhere(dir.path());
    let mut loopbacks = vec!["127.0.0.1"];
    if has_v6() {
        loopbacks.push("[::1]");
    }
    for ip in loopbacks {
        let addr = format!("{ip}:{}", port(&hub));
        TcpStream::connect(&addr).expect("the hub accepts in this family");
        let mut ticket: Ticket = hub.ticket.parse().unwrap();
        ticket.hubs[0].addr = addr;
        let text = ticket.to_text().unwrap();
        let worker = Running::start(&["worker", "--json", "--exit-with-stdin"], Some(&text));
        let key = worker.event("ready")["key"].clone();
        assert!(members(&text).iter().any(|member| member["key"] == key));
        assert_eq!(run(&["submit", "--kind", "echo"], Some(&text), b"hello").succeeded().text(), "hello");
    }
}

#[test]
fn a_ticket_names_the_source_of_the_default_route() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("hub");
    let args = ["hub", "--listen", "0", "--state", state.to_str().unwrap(), "--json", "--exit-with-stdin"];
    let ready = Running::start(&args, None).event("ready");
    let addr: SocketAddr = ready["addr"].as_str().unwrap().parse().unwrap();
    let routed = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("198.41.0.4:9")?;
        socket.local_addr()
    });
    match routed {
        Ok(routed) => {
            assert_eq!((addr.ip(), ready["addr_from"].as_str()), (routed.ip(), Some("default-route")));
        }
        // Without a default route, `addr_from` names the source of another address.
        Err(_) => assert_ne!(ready["addr_from"], "default-route"),
    }
    for (listen, advertise, from) in
        [("127.0.0.1:0", None, "listen"), ("0", Some("hub.example:4242"), "option")]
    {
        let mut args = vec!["hub", "--listen", listen, "--state", state.to_str().unwrap(), "--json"];
        args.extend(advertise.map(|addr| ["--advertise", addr]).into_iter().flatten());
        assert_eq!(Running::start(&args, None).event("ready")["addr_from"], from);
    }
}

#[test]
fn a_person_is_told_why_the_ticket_says_this_address() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("hub");
    // The command ends with its standard input, which is empty.
    let args = ["hub", "--listen", "0", "--state", state.to_str().unwrap(), "--exit-with-stdin"];
    let ended = run(&args, None, b"").succeeded();
    assert!(ended.stderr.starts_with("The ticket says "), "{}", ended.stderr);
    assert!(ended.stderr.contains("--advertise HOST:PORT says otherwise"), "{}", ended.stderr);
    assert_eq!(ended.stderr.trim_end().lines().count(), 1);
}

#[test]
fn a_port_alone_and_localhost_are_places_to_listen() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub_at(dir.path(), "localhost:0");
    assert_eq!(hub.addr.parse::<SocketAddr>().unwrap().ip(), IpAddr::from([127, 0, 0, 1]));
    for listen in [&["0"][..], &[":0"], &["localhost:0"], &["127.0.0.1:0"]] {
        let worker = worker_at(&hub.ticket, listen);
        assert!(members(&hub.ticket).iter().any(|member| member["key"] == worker.1.as_str()), "{listen:?}");
    }
    if has_v6() {
        worker_at(&hub.ticket, &["127.0.0.1:0", "[::1]:0"]);
    }
    for (listen, word) in [
        (&["hub.example:4242"][..], "expected a port"),
        (&["localhost"], "expected a port"),
        (&["192.0.2.7"], "expected a port"),
        (&["127.0.0.1:0", "127.0.0.2:0"], "one address of each family"),
        (&["0", "127.0.0.1:0"], "one address of each family"),
    ] {
        for command in ["hub", "worker"] {
            let mut args = vec![command];
            args.extend(listen.iter().flat_map(|addr| ["--listen", addr]));
            let ended = run(&args, Some(&hub.ticket), b"");
            assert_eq!(ended.code, Some(2), "{listen:?}");
            assert!(ended.stderr.contains(word), "{listen:?}: {}", ended.stderr);
        }
    }
}

fn worker_at(ticket: &str, listen: &[&str]) -> (Running, String) {
    let mut args = vec!["worker", "--json", "--exit-with-stdin"];
    args.extend(listen.iter().flat_map(|addr| ["--listen", addr]));
    let process = Running::start(&args, Some(ticket));
    let key = process.event("ready")["key"].as_str().expect("a key").to_owned();
    (process, key)
}

#[test]
fn a_port_that_is_taken_in_one_family_is_an_error_in_both() {
    let dir = tempfile::tempdir().unwrap();
    let hub = everywhere(dir.path());
    let state = dir.path().join("other");
    let port = port(&hub).to_string();
    let args = ["hub", "--listen", &port, "--state", state.to_str().unwrap()];
    run(&args, None, b"").failed(8, &[&port, "in use", "another"]);
    run(&["worker", "--listen", &port], Some(&hub.ticket), b"").failed(8, &[&port, "in use", "--listen"]);
    // A worker that listens on loopback only is in the same mesh.
    worker(&hub.ticket, &[]);
}
