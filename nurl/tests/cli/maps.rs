//! `nurl map` with result files: whole results though workers are lost, only the rest in a second run, and its ends.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::harness::{Ended, LIMIT, Running, gone, hub, run, worker};
use crate::programs::child_in;

/// Makes input files, and returns their names.
fn inputs(folder: &Path, count: usize) -> Vec<String> {
    std::fs::create_dir_all(folder).unwrap();
    let name = |n: usize| folder.join(format!("{n:02}.txt"));
    (0..count)
        .map(|n| {
            std::fs::write(name(n), format!("content {n}")).unwrap();
            name(n).to_str().unwrap().to_owned()
        })
        .collect()
}

fn args<'a>(kind: &'a str, out: &'a Path, more: &[&'a str], paths: &'a [String]) -> Vec<&'a str> {
    let mut args = vec!["map", "--kind", kind, "--out", out.to_str().unwrap()];
    args.extend(more);
    args.extend(paths.iter().map(String::as_str));
    args
}

/// Asserts that the directory has the results of these inputs, and nothing else but the log.
#[track_caller]
fn holds(out: &Path, count: usize, expected: impl Fn(usize) -> String) {
    for n in 0..count {
        let result = std::fs::read_to_string(out.join(format!("{n:02}.txt"))).unwrap();
        assert_eq!(result, expected(n));
    }
    let names: Vec<_> = std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), count + 1, "{names:?}");
}

/// The sources of the results that the events tell of.
fn told(ended: &Ended) -> BTreeSet<String> {
    let events = ended.events();
    let results = events.iter().filter(|event| event["event"] == "result");
    results.map(|event| event["source"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_result_is_right_and_whole_though_a_worker_is_killed_and_another_is_slow() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let handler = |pause: &str| format!("up=sh -c 'sleep {pause}; tr a-z A-Z'");
    let _slow = worker(&hub.ticket, &["--handler", &handler("1")]);
    let _fast = worker(&hub.ticket, &["--handler", &handler("0.05")]);
    let mut killed = worker(&hub.ticket, &["--handler", &handler("0.05")]);
    let (paths, out) = (inputs(&dir.path().join("in"), 60), dir.path().join("out"));
    let mut map = Running::start(&args("up", &out, &["--json", "-j", "12"], &paths), Some(&hub.ticket));
    for _ in 0..20 {
        map.event("result");
    }
    killed.process.kill();
    let done = map.event("done");
    assert!(map.ended().success());
    let counts = ["tasks", "failed", "skipped"].map(|field| done[field].as_u64());
    assert_eq!(counts, [Some(60), Some(0), Some(0)], "{done}");
    holds(&out, 60, |n| format!("CONTENT {n}"));
}

#[test]
fn an_interrupted_map_goes_on_with_the_rest_and_only_that() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    // The inputs from 10 on wait until the test lets them go on.
    let (gate, runs) = (dir.path().join("gate"), dir.path().join("runs"));
    let script = format!(
        "read line; echo $line >> {}; n=${{line#content }}; [ $n -lt 10 ] || until [ -e {} ]; do sleep 0.05; done; echo $n",
        runs.display(),
        gate.display()
    );
    let handler = format!("waits=sh -c '{script}'");
    let _worker = worker(&hub.ticket, &["--handler", &handler]);
    let (paths, out) = (inputs(&dir.path().join("in"), 14), dir.path().join("out"));
    // `read` wants the end of the line.
    for path in &paths {
        std::fs::write(path, std::fs::read_to_string(path).unwrap() + "\n").unwrap();
    }
    let mut map = Running::start(&args("waits", &out, &["--json"], &paths), Some(&hub.ticket));
    for _ in 0..10 {
        map.event("result");
    }
    map.signal("INT");
    assert_eq!(map.ended().code(), Some(130));
    assert!(map.stderr().contains("the same command again"), "{}", map.stderr());
    std::fs::write(&gate, "").unwrap();
    std::fs::remove_file(&runs).unwrap();
    let second = run(&args("waits", &out, &["--json"], &paths), Some(&hub.ticket), b"").succeeded();
    assert_eq!(told(&second), paths[10..].iter().cloned().collect());
    let done = second.events().pop().unwrap();
    assert_eq!((&done["tasks"], &done["skipped"]), (&4.into(), &10.into()), "{done}");
    assert_eq!(std::fs::read_to_string(&runs).unwrap().lines().count(), 4);
    holds(&out, 14, |n| format!("{n}\n"));

    // Nothing is left: there is no need of a mesh. A removed result and a changed input are made again.
    std::fs::remove_file(out.join("03.txt")).unwrap();
    std::fs::write(&paths[5], "content 7\n").unwrap();
    let third = run(&args("waits", &out, &[], &paths), Some(&hub.ticket), b"").succeeded();
    assert!(third.stderr.contains("2 results in") && third.stderr.contains("12 skipped"), "{}", third.stderr);
    let fourth = run(&args("waits", &out, &[], &paths), Some("/no/such/ticket"), b"").succeeded();
    assert!(fourth.stderr.contains("14 skipped"), "{}", fourth.stderr);
    assert_eq!(std::fs::read_to_string(out.join("05.txt")).unwrap(), "7\n");
}

#[test]
fn inputs_of_the_same_base_name_have_results_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let _worker = worker(&hub.ticket, &[]);
    let mut paths = inputs(&dir.path().join("a"), 1);
    paths.extend(inputs(&dir.path().join("b"), 1));
    std::fs::write(&paths[1], "other").unwrap();
    let out = dir.path().join("out");
    // As a list, and ended by NUL bytes.
    let list = paths.join("\0");
    let more = ["--json", "--files-from", "-", "--null"];
    let events =
        run(&args("echo", &out, &more, &[]), Some(&hub.ticket), list.as_bytes()).succeeded().events();
    let content = |source: &str| {
        let event = events.iter().find(|event| event["source"] == source).unwrap();
        (event["file"].clone(), std::fs::read_to_string(out.join(event["file"].as_str().unwrap())).unwrap())
    };
    assert_eq!(content(&paths[0]), ("00.txt".into(), "content 0".to_owned()));
    let (file, text) = content(&paths[1]);
    assert!(text == "other" && file != "00.txt", "{file} {text}");
    // Lines are numbered.
    let out = dir.path().join("lines");
    run(&args("echo", &out, &[], &[]), Some(&hub.ticket), b"x\ny\n").succeeded();
    assert_eq!(std::fs::read_to_string(out.join("000002")).unwrap(), "y");
}

#[test]
fn failures_are_named_and_halt_a_map_that_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let handler =
        "some=sh -c 'read line; [ \"$line\" = bad ] && { echo the reason >&2; exit 3; }; echo \"$line\"'";
    let _worker = worker(&hub.ticket, &["--handler", handler]);
    let lines = format!("one\nbad\n{}", "more\n".repeat(50));
    let out = dir.path().join("out");
    let log = |out: &Path| std::fs::read_to_string(out.join(".nurl-map.log")).unwrap();
    let halted =
        run(&args("some", &out, &["-j", "1", "--halt", "soon"], &[]), Some(&hub.ticket), lines.as_bytes());
    assert_eq!(halted.code, Some(6), "{}", halted.stderr);
    for part in ["line 2: ", "the reason", "1 of 2 tasks failed", "halted", "the same command again"] {
        assert!(halted.stderr.contains(part), "{part}: {}", halted.stderr);
    }
    assert_eq!(log(&out).lines().count(), 2);
    assert!(log(&out).contains("the reason"), "{}", log(&out));

    // The rest of it, and what failed once more.
    let again = run(&args("some", &out, &["-j", "8"], &[]), Some(&hub.ticket), lines.as_bytes());
    assert_eq!(again.code, Some(6));
    assert!(again.stderr.contains("1 of 51 tasks failed"), "{}", again.stderr);
    assert!(again.stderr.contains("50 results in") && again.stderr.contains("1 skipped"), "{}", again.stderr);

    // A file that isn't there fails alone, if it comes from a list.
    let listed = ["--files-from", "-", "--halt", "now,fail=2"];
    let out: PathBuf = dir.path().join("listed");
    let missing =
        run(&args("some", &out, &listed, &[]), Some(&hub.ticket), b"/no/such\n/nor/this\n/nor/that\n");
    assert_eq!(missing.code, Some(8), "{}", missing.stderr);
    assert!(
        missing.stderr.contains("/nor/this: ") && !missing.stderr.contains("/nor/that"),
        "{}",
        missing.stderr
    );
}

#[test]
fn a_halt_now_cancels_what_runs() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let file = dir.path().join("child");
    let hangs = "sleep 600 & echo $! > F.new; mv F.new F; wait";
    let script =
        format!("read line; [ $line = bad ] || {{ {hangs}; }}; until [ -e F ]; do sleep 0.05; done; exit 3");
    let handler = format!("hangs=sh -c '{}'", script.replace('F', file.to_str().unwrap()));
    let _worker = worker(&hub.ticket, &["--handler", &handler]);
    let out = dir.path().join("out");
    let ended = run(&args("hangs", &out, &["--halt", "now"], &[]), Some(&hub.ticket), b"one\nbad\n");
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(ended.took < LIMIT / 2, "{:?}", ended.took);
    gone(child_in(&file));
}
