//! The demo: its claims hold, and it leaves no processes behind, however it ends.

use std::path::Path;

use crate::harness::{Running, run, signal};
#[cfg(target_os = "linux")]
use crate::harness::{children, gone};

fn some_text(folder: &Path) {
    for name in ["a", "b", "c"] {
        let text: String = (0..9_000).map(|n| format!("{name} word{} ", n % 31)).collect();
        std::fs::write(folder.join(name), text).unwrap();
    }
}

#[test]
fn the_demo_loses_a_worker_and_counts_right() {
    let dir = tempfile::tempdir().unwrap();
    some_text(dir.path());
    let args = ["demo", "--json", "--workers", "3", dir.path().to_str().unwrap()];
    let events = run(&args, None, b"").succeeded().events();
    let done = events.last().unwrap();
    assert_eq!((&done["event"], &done["matches_local"]), (&"done".into(), &true.into()), "{done}");
    assert_eq!((&done["killed"], &done["workers"]), (&1.into(), &3.into()), "{done}");
    assert_eq!((&done["words"], &done["distinct"]), (&54_000.into(), &34.into()), "{done}");
    assert!(done["reassigned"].as_u64() >= Some(1), "{done}");
    assert_eq!(done["duplicates"], 0);
    let killed = events.iter().find(|event| event["event"] == "killed").expect("a kill");
    assert!(killed["holding"].as_u64() >= Some(1));
    let tasks: u64 = events.iter().filter_map(|event| event["tasks"].as_u64()).sum();
    assert_eq!(tasks, 2 * done["tasks"].as_u64().unwrap(), "the workers' tasks add up to all");
}

#[test]
fn the_demo_without_a_kill_reassigns_nothing() {
    let dir = tempfile::tempdir().unwrap();
    some_text(dir.path());
    let args = ["demo", "--json", "--no-kill", "--workers", "2", dir.path().to_str().unwrap()];
    let events = run(&args, None, b"").succeeded().events();
    let done = events.last().unwrap();
    assert_eq!((&done["killed"], &done["matches_local"]), (&0.into(), &true.into()), "{done}");
}

#[test]
fn the_demo_needs_text() {
    let dir = tempfile::tempdir().unwrap();
    run(&["demo", dir.path().to_str().unwrap()], None, b"").failed(2, &["no text"]);
    run(&["demo", "/no/such"], None, b"").failed(8, &["/no/such"]);
}

#[test]
#[cfg(target_os = "linux")]
fn the_demo_leaves_no_process_behind_however_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    some_text(dir.path());
    for (how, code) in [("KILL", None), ("INT", Some(130)), ("TERM", Some(130))] {
        let args = ["demo", "--json", "--workers", "3", dir.path().to_str().unwrap()];
        let mut demo = Running::start(&args, None);
        demo.event("progress");
        let children = children(demo.pid());
        assert!(children.len() >= 3, "{how}: {children:?}");
        signal(demo.pid(), how);
        assert_eq!(demo.ended().code(), code, "{how}");
        children.into_iter().for_each(gone);
    }
}
