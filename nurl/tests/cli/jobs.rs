//! Jobs: submit, map, wordcount, and handlers that are programs.

use std::collections::BTreeMap;

use crate::harness::{HOME, Running, hub, run, worker};

#[test]
fn map_gives_the_results_in_order_of_lines_and_of_files() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let (_one, _two) = (worker(&hub.ticket, &[]), worker(&hub.ticket, &[]));
    let lines: String = (0..100).map(|n| format!("line {n}\n")).collect();
    let mapped = run(&["map", "--kind", "echo"], Some(&hub.ticket), lines.as_bytes()).succeeded();
    assert_eq!(mapped.text(), lines);

    let names: Vec<_> = (0..5).map(|n| dir.path().join(format!("file{n}"))).collect();
    for (n, name) in names.iter().enumerate() {
        std::fs::write(name, format!("content {n}")).unwrap();
    }
    let mut args = vec!["map", "--kind", "blake3", "--json"];
    args.extend(names.iter().map(|name| name.to_str().unwrap()));
    let events = run(&args, Some(&hub.ticket), b"").succeeded().events();
    assert_eq!(events.len(), 6);
    for (n, event) in events[..5].iter().enumerate() {
        assert_eq!((&event["event"], &event["index"]), (&"result".into(), &n.into()), "{event}");
        let digest = blake3::hash(format!("content {n}").as_bytes()).to_hex().to_string();
        assert_eq!(event["text"], digest);
    }
    assert_eq!((&events[5]["event"], &events[5]["tasks"]), (&"done".into(), &5.into()));
}

#[test]
fn wordcount_counts_as_one_thread_would() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..20_000).map(|n| format!("Word{} and, ", n % 13)).collect();
    std::fs::create_dir(dir.path().join("texts")).unwrap();
    std::fs::write(dir.path().join("texts/book"), &text).unwrap();
    let hub = hub(dir.path());
    let (_one, _two) = (worker(&hub.ticket, &[]), worker(&hub.ticket, &[]));
    let folder = dir.path().join("texts");
    let args = ["wordcount", folder.to_str().unwrap(), "--top", "14", "--json"];
    let events = run(&args, Some(&hub.ticket), b"").succeeded().events();
    let counts: BTreeMap<_, _> = events
        .iter()
        .filter(|event| event["event"] == "word")
        .map(|event| (event["word"].as_str().unwrap().to_owned(), event["count"].as_u64().unwrap()))
        .collect();
    let mut expected = BTreeMap::from([("and".to_owned(), 20_000)]);
    for n in 0..20_000 {
        *expected.entry(format!("word{}", n % 13)).or_default() += 1;
    }
    assert_eq!(counts, expected);
    let done = events.last().unwrap();
    assert_eq!((&done["event"], &done["words"]), (&"done".into(), &40_000.into()));
    assert_eq!((&done["files"], &done["distinct"]), (&1.into(), &14.into()));
}

#[test]
fn eight_commands_at_once_on_one_machine_each_have_their_result_and_take_nobodys_place() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let worker = worker(&hub.ticket, &[]);
    // The first one enrols, and the others wait for its pass.
    let submit = |n: usize| {
        let input = format!("job {n}");
        let ended = run(&["submit", "--kind", "echo"], Some(&hub.ticket), input.as_bytes()).succeeded();
        assert_eq!((ended.text(), ended.stderr.as_str()), (input.as_str(), ""));
    };
    std::thread::scope(|scope| (0..8).for_each(|n| drop(scope.spawn(move || submit(n)))));
    // A key that two of them used would look restarted at the worker, and be replaced at the hub.
    let seen = worker.process.so_far();
    assert!(!seen.iter().any(|line| line["event"] == "restarted"), "{seen:?}");
    assert!(!hub.process.stderr().contains("replaced"), "{}", hub.process.stderr());
}

#[test]
fn handlers_that_fail_hang_or_are_missing_cost_their_own_task_only() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let handlers = [
        "--handler-timeout",
        "1s",
        "--handler",
        "fails=sh -c 'echo the reason >&2; exit 3'",
        "--handler",
        "hangs=sleep 600",
        "--handler",
        "missing=/no/such/program",
        "--handler",
        "floods=yes",
    ];
    let worker = worker(&hub.ticket, &handlers);
    let submit = |kind: &str| run(&["submit", "--kind", kind], Some(&hub.ticket), b"x");
    submit("fails").failed(6, &["the reason", "exit status: 3"]);
    submit("hangs").failed(6, &["sleep", "killed"]);
    submit("missing").failed(6, &["/no/such/program"]);
    submit("floods").failed(6, &["yes"]);
    submit("unheard-of").failed(6, &["unheard-of"]);
    assert_eq!(submit("echo").succeeded().text(), "x");
    worker.process.wait_for("failure", |line| line["event"] == "job" && line["state"] == "failed");

    // If some of the tasks fail, the others still succeed.
    let script = "some=sh -c 'read line; [ $line != 2 ] && echo $line'";
    let _some = crate::harness::worker(&hub.ticket, &["--handler", script]);
    let mapped = run(&["map", "--kind", "some"], Some(&hub.ticket), b"1\n2\n3\n");
    assert_eq!(mapped.code, Some(6));
    assert_eq!(mapped.text(), "1\n3\n");
    assert!(mapped.stderr.contains("line 2") && mapped.stderr.contains("1 of 3"), "{}", mapped.stderr);
}

#[test]
fn a_handler_has_limits_on_memory_time_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let file = dir.path().join("large");
    let large = format!("large=dd if=/dev/zero of={} bs=1M count=8", file.display());
    let limits = ["--handler-memory", "64", "--handler-cpu", "1", "--handler-file", "4"];
    let handlers = [
        "--handler",
        // It holds the end of its input in memory.
        "eats=sh -c 'head -c 200000000 /dev/zero | tail -c 150000000 >/dev/null'",
        "--handler",
        "spins=sh -c 'while :; do :; done'",
        "--handler",
        &large,
        "--handler",
        "modest=tr a-z A-Z",
    ];
    let _worker = worker(&hub.ticket, &[&limits[..], &handlers].concat());
    let submit = |kind: &str| run(&["submit", "--kind", kind], Some(&hub.ticket), b"x");
    assert_eq!(submit("modest").succeeded().text(), "X");
    submit("eats").failed(6, &["sh", "memory"]);
    submit("spins").failed(6, &["--handler-cpu"]);
    submit("large").failed(6, &["dd"]);
    assert!(std::fs::metadata(&file).unwrap().len() <= 4 << 20, "the file is cut at its limit");
}

#[test]
fn a_deadline_that_passes_is_told_by_its_own_code() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let _worker = worker(&hub.ticket, &["--handler", "hangs=sleep 600"]);
    let args = ["submit", "--kind", "hangs", "--timeout", "300ms"];
    run(&args, Some(&hub.ticket), b"").failed(5, &["life ended"]);
}

#[test]
fn an_interrupted_submit_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let worker = worker(&hub.ticket, &["--handler", "hangs=sleep 600"]);
    let args = ["submit", "--kind", "hangs", "--payload", "/dev/null", "--json"];
    let mut submit = Running::start(&args, Some(&hub.ticket));
    worker.process.event("job");
    submit.signal("INT");
    assert_eq!(submit.ended().code(), Some(130));
    assert_eq!(submit.event("error")["code"], 130);
}

#[test]
fn json_shows_who_ran_a_task_and_bytes_that_are_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let worker = worker(&hub.ticket, &[]);
    let args = ["submit", "--kind", "echo", "--json"];
    let events = run(&args, Some(&hub.ticket), b"\xff\x00").succeeded().events();
    let result = events.last().unwrap();
    assert_eq!((&result["event"], &result["hex"]), (&"result".into(), &"ff00".into()), "{result}");
    assert_eq!((&result["by"], &result["attempts"]), (&worker.key.as_str().into(), &1.into()));
    // Without --json the bytes are written unchanged.
    let args = ["submit", "--kind", "echo"];
    assert_eq!(run(&args, Some(&hub.ticket), b"\xff\x00").succeeded().stdout, b"\xff\x00");
}

#[test]
fn a_log_tells_decisions_and_neither_payload_nor_ticket() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let _worker = worker(&hub.ticket, &[]);
    let payload = dir.path().join("payload");
    std::fs::write(&payload, "a word for nobody else").unwrap();
    let submit = |filter: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nurl"));
        command.args(["submit", "--kind", "echo"]).stdin(std::fs::File::open(&payload).unwrap());
        let done = command
            .env("NURL_HOME", HOME)
            .env("NURL_MESH", &hub.ticket)
            .env("NURL_LOG", filter)
            .output()
            .unwrap();
        assert_eq!(done.stdout, b"a word for nobody else", "{done:?}");
        String::from_utf8(done.stderr).unwrap()
    };
    let said = submit("nurl=debug");
    for part in [
        "joined the mesh alone=false",
        "a session is up peer=",
        "an executor took a task task=",
        "node{node=",
    ] {
        assert!(said.contains(part), "{part} is missing in\n{said}");
    }
    assert!(!said.contains("a word for") && !said.contains(&hub.ticket[..30]), "{said}");
    let paths = submit("nurl::path=debug");
    assert!(paths.contains("the path to a peer changed") && !paths.contains("joined"), "{paths}");
}
