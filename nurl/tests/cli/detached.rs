//! Jobs that outlive the command that submitted them.

use crate::harness::{Running, children, gone, hub, run, until, worker};
use crate::programs::{child_in, hangs_with_a_child};

#[test]
fn a_detached_job_survives_its_worker_and_another_home_has_its_result() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (state, key) = (path("state"), path("worker.key"));
    // The first run never ends: the job has a result only if it is run again after the restart.
    let handler = format!("once=sh -c 'mkdir {} 2>&- && sleep 1000; tr a-z A-Z'", path("ran"));
    let args = ["--state", &state, "--key", &key, "--handler", &handler];
    let mut first = worker(&hub.ticket, &args);
    let detach =
        ["submit", "--kind", "once", "--detach", "--id", "nightly", "--payload", "-", "--timeout", "2m"];
    let id = run(&detach, Some(&hub.ticket), b"hello").succeeded().text().trim().to_owned();
    until("the job's first run", || std::fs::exists(path("ran")).unwrap().then_some(()));
    first.process.kill();

    let _second = worker(&hub.ticket, &args);
    let home = path("another-home");
    let wait = ["jobs", "await", &id, "--home", &home];
    assert_eq!(run(&wait, Some(&hub.ticket), b"").succeeded().text(), "HELLO");

    // Under the same name it is the same job, with another payload none.
    assert_eq!(run(&detach, Some(&hub.ticket), b"hello").succeeded().text().trim(), id);
    run(&detach, Some(&hub.ticket), b"another").failed(2, &["already used"]);
    let list = |more: &[&str]| {
        run(&[&["jobs", "list", "--json"], more].concat(), Some(&hub.ticket), b"").succeeded().events()
    };
    let ours = list(&[]);
    assert!(ours.iter().any(|line| line["task"] == *id && line["state"] == "done"), "{ours:?}");
    assert!(!list(&["--home", &home]).iter().any(|line| line["event"] == "task"), "others see none of it");
    let logs = run(&["jobs", "logs", &id, "--json"], Some(&hub.ticket), b"").succeeded().events();
    let steps: Vec<_> = logs.iter().filter_map(|line| line["step"].as_str()).collect();
    assert_eq!(steps.iter().filter(|step| **step == "taken").count(), 2, "{steps:?}");
    assert_eq!(steps.last(), Some(&"ended"));
}

#[test]
fn only_its_submitter_cancels_a_detached_job_and_its_programs_process_group_is_gone_then() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let pid = path("pid");
    let handler = format!("hangs={}", hangs_with_a_child(pid.as_ref()));
    let worker = worker(&hub.ticket, &["--handler", &handler]);
    let detach = ["submit", "--kind", "hangs", "--detach", "--payload", "/dev/null"];
    let id = run(&detach, Some(&hub.ticket), b"").succeeded().text().trim().to_owned();
    let child = child_in(pid.as_ref());
    let programs = children(worker.process.pid());
    let waiting = Running::start(&["jobs", "await", &id, "--json"], Some(&hub.ticket));

    let home = path("another-home");
    run(&["jobs", "cancel", &id, "--home", &home], Some(&hub.ticket), b"").failed(9, &["submitter"]);
    let cancelled = run(&["jobs", "cancel", &id, "--json"], Some(&hub.ticket), b"").succeeded().events();
    assert_eq!(cancelled[0]["state"], "cancelled", "{cancelled:?}");
    gone(child);
    let left = children(worker.process.pid());
    assert!(left.len() < programs.len(), "{programs:?} {left:?}");
    assert_eq!(waiting.event("error")["code"], 6);

    // What failed is tried again, by its submitter, as a job that names it.
    std::fs::remove_file(&pid).unwrap();
    let again = run(&["jobs", "retry", &id, "--json"], Some(&hub.ticket), b"").succeeded().events();
    assert_eq!(again[0]["parent"], *id);
    let child = child_in(pid.as_ref());
    let next = again[0]["task"].as_str().unwrap();
    run(&["jobs", "cancel", next], Some(&hub.ticket), b"").succeeded();
    gone(child);
}

#[test]
fn of_ones_own_waiting_jobs_the_urgent_one_is_first() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (log, go) = (path("log"), path("go"));
    let handler = format!("notes=sh -c 'cat >> {log}; while [ ! -e {go} ]; do sleep 0.05; done'");
    let _worker = worker(&hub.ticket, &["--handler-jobs", "1", "--handler", &handler]);
    let detach = |priority: &str| {
        let args = ["submit", "--kind", "notes", "--detach", "--payload", "-", "--priority", priority];
        let payload = format!("{priority}\n");
        let id = run(&args, Some(&hub.ticket), payload.as_bytes()).succeeded().text().trim().to_owned();
        until("a worker to have it", || {
            let logs = run(&["jobs", "logs", &id, "--json"], Some(&hub.ticket), b"").succeeded().events();
            logs.iter().any(|line| line["step"] == "accepted").then_some(())
        });
        id
    };
    let written = || std::fs::read_to_string(&log).unwrap_or_default();
    detach("normal");
    until("the first one to run", || (written() == "normal\n").then_some(()));
    let [low, high] = ["low", "high"].map(detach);
    std::fs::write(&go, "").unwrap();
    for id in [low, high] {
        run(&["jobs", "await", &id], Some(&hub.ticket), b"").succeeded();
    }
    assert_eq!(written(), "normal\nhigh\nlow\n");
}
