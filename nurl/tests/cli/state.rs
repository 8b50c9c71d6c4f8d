//! `nurl state`: values that workers keep, changed and read by commands.

use serde_json::{Value, json};

use crate::harness::{Ended, Running, hub, hub_at, members, run, until, worker};

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
    state(&["get", "plan"]).failed(1, &["nothing under"]);
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

#[test]
fn names_are_listed_and_a_watch_goes_on_through_a_killed_worker_and_a_new_hub() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub(dir.path());
    let ticket = hub.ticket.clone();
    let mut workers: Vec<_> = (0..4).map(|_| worker(&ticket, &[])).collect();
    until("four workers", || (members(&ticket).len() >= 4).then_some(()));
    let state = |args: &[&str]| run(&[&["state"], args].concat(), Some(&ticket), b"");
    assert_eq!(state(&["list"]).succeeded().text(), "");
    for args in [
        &["incr", "visits"][..],
        &["incr", "visitors", "7"],
        &["add", "visits", "ada"],
        &["set", "motto", "x"],
    ] {
        state(args).succeeded();
    }
    let all = "counter visitors\ncounter visits\nregister motto\nset visits\n";
    assert_eq!(state(&["list"]).succeeded().text(), all);
    assert_eq!(state(&["list", "visits"]).succeeded().text(), "counter visits\nset visits\n");
    assert_eq!(state(&["list", "v", "--type", "set"]).succeeded().text(), "set visits\n");
    state(&["delete", "motto"]).succeeded();
    let listed = state(&["list", "m", "--json"]).succeeded();
    assert_eq!(listed.events(), [json!({"event": "listed", "names": 0, "silent": [], "partial": false})]);

    let args = ["state", "watch", "visits", "--type", "counter", "--json", "--count", "4"];
    let mut watch = Running::start(&args, Some(&ticket));
    let sum = |line: &Value| line["values"][0]["sum"].as_u64();
    let first = watch.event("watched");
    let value = json!([{"sum": 1}]);
    assert_eq!(
        first,
        json!({"event": "watched", "key": "visits", "kind": "counter", "values": value, "partial": false})
    );
    state(&["incr", "visits"]).succeeded();
    watch.wait_for("the change", |line| sum(line) == Some(2));
    // A worker goes with what it had in memory; then the hub is another one.
    workers.remove(0).process.kill();
    state(&["incr", "visits"]).succeeded();
    watch.wait_for("the change without a worker", |line| sum(line) >= Some(3));
    hub.process.kill();
    let hub = hub_at(dir.path(), &hub.addr);
    until("a write by the new hub", || {
        let written = state(&["incr", "visits", "10"]);
        (written.code == Some(0)).then_some(())
    });
    watch.wait_for("the change by the new hub", |line| sum(line) >= Some(13));
    state(&["incr", "visits", "100"]).succeeded();
    watch.wait_for("another change", |line| sum(line) >= Some(113));
    assert!(watch.ended().success());
    assert_eq!(hub.ticket, ticket);

    // A write that goes to a worker which isn't known to be dead waits for it.
    until("the death is known", || {
        members(&ticket).iter().any(|member| member["state"] == "dead").then_some(())
    });
    // For people, of all kinds: what there is, and then the change.
    let watched = std::thread::scope(|scope| {
        let watched = scope.spawn(|| state(&["watch", "visits", "--count", "1"]).succeeded());
        while !watched.is_finished() {
            state(&["add", "visits", "grace"]).succeeded();
            state(&["remove", "visits", "grace"]).succeeded();
        }
        watched.join().unwrap()
    });
    let shown: Vec<&str> = watched.text().lines().collect();
    assert!(shown.iter().any(|line| line.starts_with("counter ")), "{shown:?}");
    assert!(shown.iter().any(|line| line.starts_with("set ada")), "{shown:?}");
}
