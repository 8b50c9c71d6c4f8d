//! Bad input: one line with the remedy, the documented exit code, no lost data, never a panic.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nurl::hub::MeshSecret;
use nurl::{PublicKey, Ticket};

use crate::harness::{HOME, Running, hub, run, worker, write_private};

#[test]
fn a_text_that_is_no_ticket_is_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let mut mistyped = hub.ticket.clone();
    let last = mistyped.pop().unwrap();
    mistyped.push(if last == 'q' { 'p' } else { 'q' });
    run(&["status", "--mesh", "nurlmesh1"], None, b"").failed(2, &["not a ticket"]);
    run(&["status", "--mesh", &mistyped], None, b"").failed(2, &["mistyped", "nurl hub"]);
    run(&["status", "--mesh", &hub.ticket[..60]], None, b"").failed(2, &["mistyped"]);
    run(&["status", "--mesh", "/no/such/file"], None, b"").failed(8, &["/no/such/file", "nurlmesh1"]);
    let file = dir.path().join("file");
    write_private(&file, b"\xff\xfe");
    run(&["status", "--mesh", file.to_str().unwrap()], None, b"").failed(2, &["not a ticket"]);
    // clap reports a missing ticket.
    assert_eq!(run(&["status"], None, b"").code, Some(2));
}

#[test]
fn a_ticket_of_the_first_version_is_refused_in_one_line_that_says_what_to_do() {
    let old = "nurlmesh1qyqqzqsrqszsvpcgpy9qkrqdpc83qygjzv2p29shrqv35xcur50p7gppyg3jgffxyu5zj23t9skjutesxyerxdp4xcmnswf68v7r603lgpq5ys6yg4rywjzfff95cn2wfag9z5jn2324v46ct9d9khzate0kqp7ygaq";
    for args in [
        &["status", "--mesh", old][..],
        &["worker", "--mesh", old],
        &["submit", "--mesh", old, "--kind", "echo"],
    ] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_nurl")).args(args).env("NURL_HOME", HOME).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("version 1") && said.contains("make a new mesh and take its ticket"), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
}

#[test]
fn a_log_filter_that_says_nothing_is_a_usage_error() {
    let program = |filter: &str| {
        let args = ["status", "--mesh", "nurlmesh1"];
        Command::new(env!("CARGO_BIN_EXE_nurl"))
            .args(args)
            .env("NURL_HOME", HOME)
            .env("NURL_LOG", filter)
            .output()
            .unwrap()
    };
    let refused = program("nurl=loud");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(said.contains("NURL_LOG") && said.contains("nurl=debug"), "{said}");
    // A valid filter passes, so the command ends because of the ticket.
    let said = String::from_utf8(program("nurl=debug").stderr).unwrap();
    assert!(said.contains("not a ticket"), "{said}");
}

#[test]
fn a_ticket_is_taken_in_capitals_and_never_shown_whole() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let worker = worker(&hub.ticket, &[]);
    // Capitals, as in a QR code.
    let capitals = hub.ticket.to_uppercase();
    run(&["status", "--mesh", &capitals], None, b"").succeeded();
    let ping = ["ping", &worker.key.to_uppercase(), "--mesh", &capitals, "-c", "1"];
    run(&ping, None, b"").succeeded();

    let mixed = capitals.replacen("NURL", "nurl", 1);
    run(&["status", "--mesh", &mixed], None, b"").failed(2, &["capital and small letters"]);
    let headless = &hub.ticket["nurlmesh1".len()..];
    let quoted = format!("\"{}\"", hub.ticket);
    let secret = nurl::SecretKey::from_bytes([7; 32]).to_text();
    let shown = |args: &[&str], mesh: Option<&str>, code: i32| {
        let ended = run(args, mesh, b"");
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        for given in args.iter().copied().chain(mesh).filter(|given| given.len() > 50) {
            let lower = ended.stderr.to_lowercase();
            let middle = given[given.len() / 2..][..12].to_lowercase();
            assert!(!lower.contains(&middle), "a secret is shown: {}", ended.stderr);
        }
    };
    for text in [headless, &quoted, &mixed, &hub.ticket[..60], &capitals[..60]] {
        let code = if text.to_lowercase().starts_with("nurlmesh1") { 2 } else { 8 };
        shown(&["status", "--mesh", text], None, code);
        shown(&["status"], Some(text), code);
    }
    // A ticket as an argument of another kind.
    shown(&["status", &hub.ticket], None, 2);
    shown(&["worker", "--listen", &hub.ticket], Some(&hub.ticket), 2);
    shown(&["hub", "--advertise", &hub.ticket], None, 2);
    shown(&["hub", "--mesh-id", &hub.ticket], None, 2);
    shown(&["ping", &hub.ticket], Some(&hub.ticket), 2);
    shown(&["key", "show", &secret], None, 8);
    shown(&["map", "--kind", "echo", &hub.ticket], Some(&hub.ticket), 8);
}

#[test]
fn an_empty_ticket_is_a_usage_error_that_says_so() {
    for args in [&["status"][..], &["worker"], &["hub"], &["submit", "--kind", "echo"]] {
        run(args, Some(""), b"").failed(2, &["empty", "NURL_MESH"]);
    }
    run(&["status", "--mesh", " "], None, b"").failed(2, &["empty"]);
}

#[test]
fn a_hub_without_the_key_of_its_mesh_does_not_make_another() {
    let dir = tempfile::tempdir().unwrap();
    let old = hub(dir.path());
    let state = dir.path().join("hub");
    let (key, mesh) = (state.join("key"), state.join("mesh"));
    drop(old);
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let args = ["hub", "--listen", "127.0.0.1:0", "--state", state.to_str().unwrap()];
    let (key_name, mesh_name) = (key.to_str().unwrap(), mesh.to_str().unwrap());
    run(&args, None, b"").failed(8, &[key_name, "is gone", mesh_name, "put that key back", "--state"]);
    assert!(!key.exists(), "a key was made");
    run(&["key", "new", key_name], None, b"").succeeded();
    run(&args, None, b"").failed(8, &[key_name, "is another key", mesh_name]);
    // The remedies that the error names work.
    let further = [&args[..], &["--mesh", mesh_name, "--json", "--exit-with-stdin"]].concat();
    let ready = Running::start(&further, None).event("ready");
    let hubs = ready["ticket"].as_str().unwrap().parse::<Ticket>().unwrap().hubs;
    assert_eq!(hubs.len(), 2);
    std::fs::write(&key, kept).unwrap();
    hub(dir.path());
}

#[test]
fn a_mesh_that_the_hub_does_not_serve_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, other) = (hub(&dir.path().join("one")), hub(&dir.path().join("two")));
    let mut ticket: Ticket = other.ticket.parse().unwrap();
    ticket.hubs = hub.ticket.parse::<Ticket>().unwrap().hubs;
    let text = ticket.to_text().unwrap();
    for command in [&["status"][..], &["submit", "--kind", "echo"], &["worker"]] {
        let ended = run(command, Some(&text), b"");
        ended.failed(4, &["unknown-namespace", &hub.addr]);
        assert!(ended.took < Duration::from_secs(8), "{:?}", ended.took);
    }
}

#[test]
fn another_hub_key_than_the_tickets_may_be_anything_that_answers_there() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let mut ticket: Ticket = hub.ticket.parse().unwrap();
    ticket.hubs[0].key = PublicKey::from_bytes([9; 32]);
    let ended = run(&["status", "--join", "1s"], Some(&ticket.to_text().unwrap()), b"");
    ended.failed(3, &["not-a-hub", &hub.addr, "captive portal", "proxy", "lost its key"]);
    assert!(!ended.stderr.contains("mesh's secret"), "{}", ended.stderr);
}

#[test]
fn a_secret_that_is_no_longer_accepted_is_refused_within_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let worker = worker(&hub.ticket, &[]);
    let mut ticket: Ticket = hub.ticket.parse().unwrap();
    ticket.current = MeshSecret::from_bytes([7; 32]);
    let text = ticket.to_text().unwrap();
    for command in [&["status", "--join", "2s"][..], &["submit", "--kind", "echo", "--join", "2s"]] {
        let ended = run(command, Some(&text), b"");
        ended.failed(4, &["no member accepts us", "secret"]);
        assert!(ended.took < Duration::from_secs(10), "{:?}", ended.took);
    }
    // The mesh is unaffected.
    assert_eq!(run(&["submit", "--kind", "echo"], Some(&hub.ticket), b"x").succeeded().text(), "x");
    drop(worker);
}

#[test]
fn a_hub_that_is_down_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub(dir.path());
    hub.process.kill();
    for command in [&["status", "--join", "1s"][..], &["worker", "--join", "1s"]] {
        run(command, Some(&hub.ticket), b"").failed(3, &["no hub can be used", "unreachable", &hub.addr]);
    }
    let json = run(&["status", "--join", "1s", "--json"], Some(&hub.ticket), b"").events();
    assert_eq!((&json[0]["event"], &json[0]["code"]), (&"error".into(), &3.into()));
    assert_eq!(json[0]["reason"], "unreachable");
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let state = dir.path().join("other");
    let args = ["hub", "--listen", &hub.addr, "--state", state.to_str().unwrap()];
    run(&args, None, b"").failed(8, &[&hub.addr, "in use", "another"]);
    let args = ["worker", "--listen", &hub.addr];
    run(&args, Some(&hub.ticket), b"").failed(8, &[&hub.addr, "in use", "--listen"]);
}

#[test]
fn files_that_cannot_be_read_are_named_and_nothing_is_submitted() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let large = dir.path().join("large");
    std::fs::File::create(&large).unwrap().set_len((4 << 30) + 1).unwrap();
    let large = large.to_str().unwrap();
    // There is no hub: a file is checked before the connection.
    let (_, ticket) = nurl::Ticket::new_mesh(
        nurl::hub::Hub { key: PublicKey::from_bytes([9; 32]), addr: "127.0.0.1:1".into() },
        nurl::rt::time::unix_now(),
        &mut nurl::rt::rng("test"),
    );
    let text = ticket.to_text().unwrap();
    let run = |args: &[&str]| run(args, Some(&text), b"");
    run(&["submit", "--kind", "echo", "--payload", "/no/such"]).failed(8, &["/no/such", "No such file"]);
    run(&["submit", "--kind", "echo", "--payload", folder]).failed(8, &[folder, "directory"]);
    run(&["submit", "--kind", "echo", "--payload", large])
        .failed(2, &[large, "4294967297 bytes", "several tasks"]);
    run(&["map", "--kind", "echo", "/no/such"]).failed(8, &["/no/such"]);
    run(&["wordcount", "/no/such"]).failed(8, &["/no/such"]);
    run(&["worker", "--key", "/no/such/key"]).failed(8, &["/no/such/key"]);
    run(&["worker", "--state", "/proc/no"]).failed(8, &["/proc/no", "--state"]);
    let hub = ["hub", "--listen", "127.0.0.1:0", "--state", "/proc/no"];
    run(&hub).failed(8, &["/proc/no", "--state"]);
}

#[test]
fn a_payload_from_a_pipe_is_bounded_too() {
    let (_, ticket) = nurl::Ticket::new_mesh(
        nurl::hub::Hub { key: PublicKey::from_bytes([9; 32]), addr: "127.0.0.1:1".into() },
        nurl::rt::time::unix_now(),
        &mut nurl::rt::rng("test"),
    );
    let text = ticket.to_text().unwrap();
    let large = vec![0; 17 << 20];
    run(&["submit", "--kind", "echo"], Some(&text), &large).failed(2, &["16744444 bytes", "--payload"]);
    run(&["map", "--kind", "echo"], Some(&text), &large).failed(2, &["line 1"]);
}

#[test]
fn a_key_file_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    let made = run(&["key", "new", good], None, b"").succeeded();
    let bytes = std::fs::read(good).unwrap();
    run(&["key", "new", good], None, b"").failed(8, &[good, "never overwritten"]);
    assert_eq!(std::fs::read(good).unwrap(), bytes);
    let shown = run(&["key", "show", good, "--json"], None, b"").succeeded().events();
    assert_eq!(shown[0]["key"], made.text().trim());

    write_private(Path::new(bad), b"my diary\n");
    run(&["key", "show", bad], None, b"").failed(8, &[bad, "not a key"]);
    let hub = hub(dir.path());
    run(&["worker", "--key", bad], Some(&hub.ticket), b"").failed(8, &[bad, "not a key"]);
    assert_eq!(std::fs::read(bad).unwrap(), b"my diary\n");
    // The same holds for a hub's key file: a hub with a new key would be another hub.
    drop(hub);
    std::fs::write(dir.path().join("hub/key"), "my diary\n").unwrap();
    let state = dir.path().join("hub");
    let args = ["hub", "--listen", "127.0.0.1:0", "--state", state.to_str().unwrap()];
    run(&args, None, b"").failed(8, &["hub/key", "not a key"]);
    assert_eq!(std::fs::read(state.join("key")).unwrap(), b"my diary\n");
}

#[test]
fn arguments_that_make_no_sense_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let mesh = Some(hub.ticket.as_str());
    let _worker = worker(&hub.ticket, &[]);
    run(&["worker", "--handler", "no-command"], mesh, b"").failed(2, &["KIND=COMMAND"]);
    run(&["worker", "--handler", "k='open"], mesh, b"").failed(2, &["quote"]);
    run(&["submit", "--kind", ""], mesh, b"").failed(2, &["kind"]);
    run(&["submit", "--kind", "echo", "--timeout", "0"], mesh, b"").failed(2, &["life"]);
    run(&["hub", "--mesh-id", "abc"], None, b"").failed(2, &["--mesh-id"]);
    for args in [&["frobnicate"][..], &["hub", "--advertise", "no-port"], &["demo", "--workers", "1"]] {
        assert_eq!(run(args, None, b"").code, Some(2), "{args:?}");
    }
}

#[test]
fn streams_that_are_closed_end_a_command_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let _worker = worker(&hub.ticket, &[]);
    let exe = env!("CARGO_BIN_EXE_nurl");
    let shell = |script: &str| {
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("set -o pipefail; {script}")])
            .env("NURL_MESH", &hub.ticket)
            .env("NURL_HOME", HOME);
        command.stdin(Stdio::null()).output().unwrap()
    };
    let headed = shell(&format!("seq 1 5000 | {exe} map --kind echo | head -n 1"));
    assert_eq!(String::from_utf8_lossy(&headed.stdout), "1\n");
    assert_eq!(String::from_utf8_lossy(&headed.stderr), "");
    assert!(shell(&format!("{exe} submit --kind echo <&-")).status.success());
    assert!(shell(&format!("{exe} map --kind echo <&-")).status.success());
    assert!(shell(&format!("{exe} submit --kind echo --payload /dev/null >&-")).status.success());
    let full = shell(&format!("echo lost | {exe} submit --kind echo > /dev/full"));
    assert_eq!(full.status.code(), Some(8));
    assert!(String::from_utf8_lossy(&full.stderr).contains("incomplete"));
}

#[test]
fn help_shows_examples_and_exit_codes() {
    let help = run(&["--help"], None, b"").succeeded();
    for code in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "130"] {
        let documented = |line: &str| line.trim_start().starts_with(&format!("{code}  "));
        assert!(help.text().lines().any(documented), "exit code {code} isn't in --help");
    }
    for command in ["hub", "worker", "submit", "map", "wordcount", "status", "ping", "demo"] {
        let help = run(&[command, "--help"], None, b"").succeeded();
        assert!(help.text().contains("Example"), "{command}");
    }
}
