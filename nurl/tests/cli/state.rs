//! `nurl state`: values that workers keep, changed and read by commands.

use serde_json::{Value, json};

use crate::harness::{Ended, hub, members, run, until, worker};

/// What a command printed of a value, without the event's name.
fn shown(ended: &Ended) -> Vec<Value> {
    let lines = ended.events().into_iter().filter(|line| line["event"] == "value");
    lines
        .map(|line| {
            [&line["kind"], &line["field"], &line["sum"], &line["text"], &line["values"]]
                .into_iter()
                .cloned()
                .collect()
        })
        .collect()
}

#[test]
fn a_counter_a_register_a_set_and_a_map_are_changed_and_read_and_outlive_a_worker() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let mut workers: Vec<_> = (0..3).map(|_| worker(&hub.ticket, &[])).collect();
    until("three workers", || (members(&hub.ticket).len() >= 3).then_some(()));
    let state = |args: &[&str]| run(&[&["state"], args].concat(), Some(&hub.ticket), b"");
    let nothing = state(&["get", "visits"]);
    nothing.failed(1, &["nothing under", "visits"]);
    assert_eq!(state(&["get", "visits", "--type", "counter"]).succeeded().text(), "0\n");
    for args in [
        &["incr", "visits"][..],
        &["incr", "visits", "5", "--confirm", "2"],
        &["incr", "visits", "-2", "--confirm", "all"],
        &["set", "motto", "festina lente"],
        &["set", "plan", "a", "--multi"],
        &["add", "guests", "ada", "grace"],
        &["remove", "guests", "ada"],
        &["incr", "stock", "12", "--field", "apples"],
        &["add", "stock", "red", "green", "--field", "colours"],
        &["set", "stock", "nobody", "--field", "owner"],
        &["clear", "stock", "--field", "owner"],
    ] {
        state(args).succeeded();
    }
    assert_eq!(state(&["get", "visits"]).succeeded().text(), "4\n");
    assert_eq!(state(&["get", "motto", "--type", "register"]).succeeded().text(), "festina lente\n");
    assert_eq!(state(&["get", "guests"]).succeeded().text(), "grace\n");
    assert_eq!(state(&["get", "stock"]).succeeded().text(), "apples: 12\ncolours: green\ncolours: red\n");
    // What is deleted, or whose time is up, is gone; the others of its name stay.
    state(&["add", "visits", "of ada"]).succeeded();
    state(&["delete", "visits", "--type", "counter"]).succeeded();
    assert_eq!(state(&["get", "visits"]).succeeded().text(), "of ada\n");
    state(&["expire", "visits", "1s"]).succeeded();
    until("its end", || (state(&["get", "visits"]).text().is_empty()).then_some(()));
    state(&["get", "visits"]).failed(1, &["nothing under", "visits"]);
    state(&["expire", "motto", "1s"]).succeeded();
    state(&["expire", "motto", "never"]).succeeded();
    state(&["delete", "plan"]).succeeded();
    state(&["get", "plan"]).failed(1, &["nothing under"]);
    // One goes, with what it had in memory: two had each write.
    workers.remove(0).process.kill();
    let read = until("enough owners", || {
        let read = state(&["get", "stock", "--json"]);
        (read.events().iter().any(|line| line["event"] == "value")).then_some(read)
    });
    let words = |list: &[&str]| json!(list.iter().map(|text| json!({"text": text})).collect::<Vec<_>>());
    assert_eq!(
        shown(&read),
        [
            json!(["map", "apples", 12, null, null]),
            json!(["map", "colours", null, null, words(&["green", "red"])]),
        ]
    );
    let plan = state(&["get", "plan", "--json"]).succeeded();
    assert_eq!(shown(&plan), [json!(["multi", null, null, null, words(&["a"])])]);
}

#[test]
fn a_command_without_a_worker_or_with_a_wrong_word_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let state = |args: &[&str]| run(&[&["state"], args].concat(), Some(&hub.ticket), b"");
    for (args, said) in [
        (&["incr", "visits", "--confirm", "none"][..], "a number from 1 on, or all"),
        (&["clear", "stock"], "--field"),
    ] {
        let misused = state(args);
        assert!(misused.code == Some(2) && misused.stderr.contains(said), "{}", misused.stderr);
    }
    state(&["incr", "visits"]).failed(6, &["no worker is in the mesh", "nurl worker"]);
}
