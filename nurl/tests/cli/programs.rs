//! Handlers that are programs: their environment, the meaning of their exit codes, and that they leave nothing
//! behind.

use std::path::Path;

use crate::harness::{LIMIT, Running, gone, hub, run, until, worker};

/// A command that writes the id of its own child to a file, and hangs together with the child.
pub(crate) fn hangs_with_a_child(file: &Path) -> String {
    let file = file.display();
    format!("sh -c 'sleep 600 & echo $! > {file}.new; mv {file}.new {file}; wait'")
}

/// The child's id, once the file exists.
#[track_caller]
pub(crate) fn child_in(file: &Path) -> u32 {
    until("the program", || std::fs::read_to_string(file).ok()?.trim().parse().ok())
}

#[test]
fn the_exit_of_a_program_ends_its_task_and_what_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    // The child keeps the program's output open.
    let _worker = worker(&hub.ticket, &["--handler", "leaves=sh -c 'sleep 600 & echo $!'"]);
    let ended = run(&["submit", "--kind", "leaves"], Some(&hub.ticket), b"").succeeded();
    assert!(ended.took < LIMIT / 2, "{:?}", ended.took);
    gone(ended.text().trim().parse().unwrap());
}

#[test]
fn what_a_program_started_ends_at_the_time_limit() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let file = dir.path().join("child");
    let handler = format!("hangs={}", hangs_with_a_child(&file));
    let _worker = worker(&hub.ticket, &["--handler-timeout", "500ms", "--handler", &handler]);
    run(&["submit", "--kind", "hangs"], Some(&hub.ticket), b"").failed(6, &["killed"]);
    gone(child_in(&file));
}

#[test]
fn what_a_program_started_ends_with_a_worker_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let file = dir.path().join("child");
    let handler = format!("hangs={}", hangs_with_a_child(&file));
    let mut worker = worker(&hub.ticket, &["--handler", &handler]);
    let _submit = Running::start(&["submit", "--kind", "hangs", "--payload", "/dev/null"], Some(&hub.ticket));
    let child = child_in(&file);
    worker.process.kill();
    gone(child);
}

#[test]
fn a_program_is_told_of_its_task_and_not_of_the_mesh() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let _worker = worker(&hub.ticket, &["--handler", "tells=env"]);
    let told = |key: &str| {
        let args = ["submit", "--kind", "tells", "--key", key, "--json"];
        let result = run(&args, Some(&hub.ticket), b"").succeeded().events().pop().unwrap();
        let mut ours: Vec<_> = result["text"]
            .as_str()
            .unwrap()
            .lines()
            .filter(|line| line.starts_with("NURL_"))
            .map(String::from)
            .collect();
        ours.sort();
        (ours, result["task"].as_str().unwrap().to_owned())
    };
    // The first command comes with the pass that it gets; the later ones with slips of it.
    run(&["submit", "--kind", "echo"], Some(&hub.ticket), b"").succeeded();
    let (ours, task) = told("photos/1");
    let expected = ["NURL_ATTEMPT=0", "NURL_KEY=photos/1", "NURL_KIND=tells", &format!("NURL_TASK={task}")];
    assert_eq!([0, 1, 2, 8].map(|at| ours[at].as_str()), expected);
    let submitter = ours[3].strip_prefix("NURL_SUBMITTER=").unwrap();
    assert!(submitter.parse::<nurl::PublicKey>().is_ok(), "{submitter}");
    // By a slip of the person's pass, which came by the ticket's invitation.
    let holder = ours[4].strip_prefix("NURL_SUBMITTER_HOLDER=").unwrap();
    assert!(holder.parse::<nurl::PublicKey>().is_ok() && holder != submitter, "{holder}");
    assert_eq!(ours[5].strip_prefix("NURL_SUBMITTER_INVITATION=").map(str::len), Some(16), "{ours:?}");
    assert_eq!(ours[6], "NURL_SUBMITTER_LEVEL=submit");
    assert!(ours[7].starts_with("NURL_SUBMITTER_NAME="), "{ours:?}");
    let token = ours[9].strip_prefix("NURL_TOKEN=").unwrap();
    assert!(
        ours.len() == 10 && token.len() == 80 && token.chars().all(|c| c.is_ascii_hexdigit()),
        "{ours:?}"
    );
    assert_eq!(told("two\nlines").0[1], "NURL_KEY=74776f0a6c696e6573");
}

#[test]
fn a_program_may_say_that_another_worker_is_to_try() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    for (kind, exit) in [("not-here", "exit 75"), ("killed", "kill -KILL $$")] {
        let first = dir.path().join(kind);
        let first = first.display();
        // The first worker to run the task records its name and fails.
        let worker = |name: &str| {
            let handler =
                format!("{kind}=sh -c 'mkdir {first} && echo {name} > {first}/by && {exit}; echo {name}'");
            worker(&hub.ticket, &["--handler", &handler])
        };
        let (_one, _two) = (worker("one"), worker("two"));
        let args = ["submit", "--kind", kind, "--json"];
        let result = run(&args, Some(&hub.ticket), b"").succeeded().events().pop().unwrap();
        assert_eq!(result["attempts"], 2, "{result}");
        let failed_at = std::fs::read_to_string(dir.path().join(kind).join("by")).unwrap();
        assert_ne!(result["text"], failed_at.as_str());
    }
}

#[test]
fn no_terminal_obeys_what_a_program_or_a_kind_says() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let says = r#"says=sh -c 'printf "\033[2Jwiped\302\233" >&2; exit 1'"#;
    let _worker = worker(&hub.ticket, &["--handler", says, "--handler", "\u{1b}[31mred=cat"]);
    let raw = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().any(|c| c.is_control() && c != '\n');
    let ended = run(&["submit", "--kind", "says"], Some(&hub.ticket), b"");
    ended.failed(6, &["u{1b}[2Jwiped"]);
    assert!(!raw(ended.stderr.as_bytes()), "{:?}", ended.stderr);
    let mapped = run(&["map", "--kind", "says"], Some(&hub.ticket), b"x\n");
    assert!(mapped.code == Some(6) && !raw(mapped.stderr.as_bytes()), "{:?}", mapped.stderr);
    let json = run(&["submit", "--kind", "says", "--json"], Some(&hub.ticket), b"");
    assert!(!raw(&json.stdout), "{:?}", json.text());
    assert!(json.events().pop().unwrap()["message"].as_str().unwrap().contains("\u{1b}[2Jwiped\u{9b}"));
    let status = run(&["status"], Some(&hub.ticket), b"").succeeded();
    assert!(status.text().contains("[31mred") && !raw(&status.stdout), "{:?}", status.text());
}
