//! Payloads and results of more than 16 MiB, by the command alone.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Hub, LIMIT, Running, hub, run, until, worker};

const MIB: usize = 1 << 20;

/// A file of random bytes, and their BLAKE3 hash.
fn file(path: &Path, len: usize) -> String {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(path.as_os_str().as_encoded_bytes()).finalize_xof().fill(&mut bytes);
    std::fs::write(path, &bytes).unwrap();
    blake3::hash(&bytes).to_hex().to_string()
}

/// The most memory that a process has had.
fn peak_mib(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() >> 10
}

/// The last value of a worker's metric.
fn metric(lines: &[Value], name: &str) -> u64 {
    let last = lines.iter().rfind(|line| line["event"] == "metrics");
    last.and_then(|line| line["values"][name].as_u64()).unwrap_or_default()
}

fn submit(hub: &Hub, args: &[&str]) -> Running {
    Running::start(&[&["submit", "--json", "--timeout", "5m"], args].concat(), Some(&hub.ticket))
}

#[test]
fn a_large_file_goes_through_a_program_and_the_workers_memory_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let (there, back) = (dir.path().join("payload"), dir.path().join("result"));
    let hash = file(&there, 96 * MIB);
    let handler = "both=sh -c 'cat; cat \"$NURL_PAYLOAD_FILE\"'";
    let worker = worker(&hub.ticket, &["--handler", handler]);
    let (there, out) = (there.to_str().unwrap(), back.to_str().unwrap());
    run(&["submit", "--kind", "both", "--payload", there, "--out", out], Some(&hub.ticket), b"").succeeded();
    let result = std::fs::read(&back).unwrap();
    let (first, second) = result.split_at(96 * MIB);
    assert_eq!([first, second].map(|half| blake3::hash(half).to_hex().to_string()), [hash.clone(), hash]);
    let peak = peak_mib(worker.process.pid());
    assert!(peak < 100, "the worker had {peak} MiB");
    // The folder of the result went with its command.
    let left = std::fs::read_dir(dir.path()).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name != "hub").collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_worker_that_is_killed_and_restarted_goes_on_with_what_it_has_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let (there, state, key) = (dir.path().join("payload"), dir.path().join("state"), dir.path().join("key"));
    let len = 128 * MIB;
    let hash = file(&there, len);
    let (state_arg, key_arg) = (state.to_str().unwrap(), key.to_str().unwrap());
    let more = ["--state", state_arg, "--key", key_arg, "--metrics", "100ms"];
    let mut first = worker(&hub.ticket, &more);
    let mut submit = submit(&hub, &["--kind", "blake3", "--payload", there.to_str().unwrap()]);
    let part = until("half of the file", || {
        let entries = std::fs::read_dir(state.join("large")).ok()?.flatten();
        let mut parts = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "part"));
        let part = parts.next()?.path();
        (std::fs::metadata(&part).ok()?.len() > len as u64 / 3).then_some(part)
    });
    first.process.kill();
    let found = std::fs::metadata(&part).unwrap().len();
    assert!(found < len as u64, "it was there before it was killed");
    let second = worker(&hub.ticket, &more);
    let result = submit.event("result");
    assert_eq!(result["text"], hash.as_str(), "{result}");
    assert!(submit.ended().success());
    let mut lines = Vec::new();
    until("the metrics after the end", || {
        (metric(&second.process.so_far(), "large.received_bytes") > 0).then_some(())
    });
    lines.extend(second.process.so_far());
    lines.push(second.process.event("metrics"));
    let (received, had) = (metric(&lines, "large.received_bytes"), metric(&lines, "large.found_bytes"));
    assert!(had > len as u64 / 4, "it found {had} bytes of {found}");
    // A chunk may come twice if its write and the kill met; nothing else may.
    assert!(received + had <= (len + 4 * MIB) as u64, "{received} bytes came beside {had}");
}

#[test]
fn a_large_payload_is_refused_where_it_has_no_place() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let there = dir.path().join("payload");
    file(&there, 17 * MIB);
    let there = there.to_str().unwrap();
    let _worker = worker(&hub.ticket, &["--payload-space", "16"]);
    let args = ["submit", "--kind", "echo", "--payload", there];
    run(&[&args[..], &["--detach"]].concat(), Some(&hub.ticket), b"")
        .failed(2, &["detached", "leave out --detach"]);
    run(&args, Some(&hub.ticket), b"").failed(6, &["no room for", "given up after"]);
    run(&["submit", "--kind", "echo", "--payload", "-"], Some(&hub.ticket), &vec![b'x'; 17 * MIB])
        .failed(2, &["standard input", "--payload"]);
    let long = dir.path().join("long");
    std::fs::File::create(&long).unwrap().set_len((4 << 30) + 1).unwrap();
    let refused =
        run(&["submit", "--kind", "echo", "--payload", long.to_str().unwrap()], Some(&hub.ticket), b"");
    refused.failed(2, &["4294967297", "4294967296"]);
    assert!(refused.took < LIMIT / 10, "it was read whole: {:?}", refused.took);
}
