//! A worker whose store is damaged.

use std::fs;

use crate::harness::{Running, hub, run, worker};

#[test]
fn a_damaged_store_is_set_aside_with_a_warning_and_refused_with_store_strict() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let state = dir.path().join("state");
    let args = ["--state", state.to_str().unwrap()];
    worker(&hub.ticket, &args).process.kill();
    let path = state.join("nurl.redb");
    let mut bytes = fs::read(&path).unwrap();
    bytes[..9].fill(0);
    fs::write(&path, &bytes).unwrap();

    let strict = ["worker", "--listen", "127.0.0.1:0", "--store-strict", args[0], args[1]];
    run(&strict, Some(&hub.ticket), b"").failed(8, &["nurl.redb", "damaged", "zeros"]);
    assert_eq!(fs::read(&path).unwrap(), bytes, "it is left as it was");

    let mut tolerant = Running::start(
        &["worker", "--listen", "127.0.0.1:0", "--json", "--exit-with-stdin", args[0], args[1]],
        Some(&hub.ticket),
    );
    let event = tolerant.event("store_set_aside");
    let aside = event["path"].as_str().unwrap();
    assert_eq!(fs::read(aside).unwrap(), bytes);
    assert!(event["reason"].as_str().unwrap().contains("zeros"), "{event}");
    tolerant.close_stdin();
    assert!(tolerant.ended().success());
    assert!(tolerant.stderr().contains(aside), "a person sees it, too: {}", tolerant.stderr());
}
