//! `nurl group`: who hears what is said.

use std::collections::BTreeSet;

use crate::harness::{Running, hub, run};

/// How often something is said, since a broadcast may be lost.
const TRIES: usize = 20;

/// A command that listens in a group.
struct Listener {
    process: Running,
    key: String,
    heard: BTreeSet<String>,
}

impl Listener {
    fn start(ticket: &str, allow: &[&str]) -> Listener {
        let allow: Vec<&str> = allow.iter().flat_map(|key| ["--allow", key]).collect();
        let process = Running::start(&[&["group", "choir", "--json"], &allow[..]].concat(), Some(ticket));
        let key = process.event("ready")["key"].as_str().unwrap().to_owned();
        Listener { process, key, heard: BTreeSet::new() }
    }

    fn heard(&mut self, text: &str) -> bool {
        let said = self.process.so_far().into_iter().filter(|line| line["event"] == "said");
        self.heard.extend(said.map(|line| line["text"].as_str().unwrap().to_owned()));
        self.heard.contains(text)
    }
}

#[test]
fn only_those_on_a_speakers_list_hear_it_and_they_hear_only_those_on_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let mut listed = Listener::start(&hub.ticket, &[]);
    let mut unlisted = Listener::start(&hub.ticket, &[]);
    let mut strict = Listener::start(&hub.ticket, &[&unlisted.key]);
    let say = |text: &str, allow: &[&str]| {
        let allow: Vec<&str> = allow.iter().flat_map(|key| ["--allow", key]).collect();
        let args = [&["group", "choir", "--say", text], &allow[..]].concat();
        run(&args, Some(&hub.ticket), b"").succeeded();
    };
    let to = listed.key.clone();
    assert!((0..TRIES).any(|_| {
        say("to one", &[&to]);
        listed.heard("to one")
    }));
    assert!((0..TRIES).any(|_| {
        say("to all", &[]);
        listed.heard("to all") & unlisted.heard("to all")
    }));
    assert!(!unlisted.heard("to one"));
    assert!(!strict.heard("to all") && strict.heard.is_empty());
}
