//! Secrets on a machine with other users: files that they can read, directories that they can write to, links that they
//! have planted.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::harness::{Running, hub, run, worker, write_private};

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_key_or_ticket_that_others_can_read_or_change_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let (key, ticket) = (dir.path().join("key"), dir.path().join("ticket"));
    let (key_name, ticket_name) = (key.to_str().unwrap(), ticket.to_str().unwrap());
    run(&["key", "new", key_name], None, b"").succeeded();
    write_private(&ticket, hub.ticket.as_bytes());
    for open in [0o644, 0o640, 0o660, 0o602] {
        chmod(&key, open);
        chmod(&ticket, open);
        let wanted = format!("{open:04o}");
        run(&["key", "show", key_name], None, b"").failed(8, &[key_name, &wanted, "chmod 600"]);
        run(&["worker", "--key", key_name], Some(&hub.ticket), b"").failed(8, &[key_name, "chmod 600"]);
        run(&["status", "--mesh", ticket_name], None, b"").failed(8, &[ticket_name, &wanted, "chmod 600"]);
    }
    for private in [0o600, 0o400] {
        chmod(&key, private);
        chmod(&ticket, private);
        run(&["key", "show", key_name], None, b"").succeeded();
        run(&["status", "--mesh", ticket_name], None, b"").succeeded();
    }
    // A pipe is nobody's file.
    run(&["status", "--mesh", "/dev/stdin"], None, hub.ticket.as_bytes()).succeeded();
}

#[test]
fn a_state_directory_that_others_can_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    let name = state.to_str().unwrap();
    let as_hub = ["hub", "--listen", "127.0.0.1:0", "--state", name];
    let hub = hub(dir.path());
    for open in [0o777, 0o1777, 0o775] {
        chmod(&state, open);
        let remedy = [name, "chmod go-w"];
        run(&as_hub, None, b"").failed(8, &remedy);
        run(&["worker", "--state", name], Some(&hub.ticket), b"").failed(8, &remedy);
    }
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "nothing was made there");
    chmod(&state, 0o755);
    worker(&hub.ticket, &["--state", name]);
}

#[test]
fn what_is_made_is_private_whatever_the_umask() {
    let dir = tempfile::tempdir().unwrap();
    let [state, key] = ["a/state", "key"].map(|name| dir.path().join(name));
    let script = format!(
        "umask 000 && '{nurl}' key new '{key}' && exec '{nurl}' hub --listen 127.0.0.1:0 --state '{state}' \
         --exit-with-stdin",
        nurl = env!("CARGO_BIN_EXE_nurl"),
        key = key.display(),
        state = state.display(),
    );
    let done =
        std::process::Command::new("sh").args(["-c", &script]).stdin(std::process::Stdio::null()).status();
    assert!(done.unwrap().success());
    for (path, wanted) in [
        (key, 0o600),
        (dir.path().join("a"), 0o700),
        (state.clone(), 0o700),
        (state.join("key"), 0o600),
        (state.join("mesh"), 0o600),
    ] {
        assert_eq!(mode(&path), wanted, "{}", path.display());
    }
}

#[test]
fn a_planted_link_is_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (state, theirs) = (dir.path().join("hub"), dir.path().join("theirs"));
    fs::create_dir(&state).unwrap();
    chmod(&state, 0o755);
    fs::write(&theirs, "theirs").unwrap();
    symlink(&theirs, state.join("mesh.new")).unwrap();
    let args =
        ["hub", "--listen", "127.0.0.1:0", "--state", state.to_str().unwrap(), "--json", "--exit-with-stdin"];
    Running::start(&args, None).event("ready");
    assert_eq!(fs::read(&theirs).unwrap(), b"theirs");
    assert!(fs::symlink_metadata(state.join("mesh")).unwrap().is_file());
    assert_eq!(mode(&state.join("mesh")), 0o600);
    let nowhere = dir.path().join("nowhere");
    let link = dir.path().join("link");
    symlink(&nowhere, &link).unwrap();
    run(&["key", "new", link.to_str().unwrap()], None, b"").failed(8, &["never overwritten"]);
    assert!(!nowhere.exists());
}
