//! The JSON lines of `--json`: one object per line on stdout, distinguished by `event`. `nurl/docs/cli.md` documents
//! them; an event never changes its meaning.

use std::collections::BTreeMap;

use serde::Serialize;

/// A value of the replicated state.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shown {
    /// The sum of a counter.
    Sum(i128),
    /// The elements of a set, or the values of a multi-value register.
    Values(Vec<Word>),
    /// The value of a register.
    #[serde(untagged)]
    Word(Word),
}

/// Bytes: as text if they are, else in hexadecimal.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// Text.
    Text(String),
    /// Hexadecimal digits.
    Hex(String),
}

impl Word {
    fn new((text, hex): (Option<String>, Option<String>)) -> Word {
        text.map_or_else(|| Word::Hex(hex.unwrap_or_default()), Word::Text)
    }

    /// For a terminal, which no character of it controls.
    fn human(&self) -> String {
        match self {
            Word::Text(text) => text.escape_debug().to_string(),
            Word::Hex(hex) => hex.clone(),
        }
    }
}

impl Shown {
    /// A register's value.
    pub(crate) fn word(word: (Option<String>, Option<String>)) -> Shown {
        Shown::Word(Word::new(word))
    }

    /// Several values.
    pub(crate) fn list(words: Vec<(Option<String>, Option<String>)>) -> Shown {
        Shown::Values(words.into_iter().map(Word::new).collect())
    }

    /// A line for each value.
    pub(crate) fn human(&self) -> Vec<String> {
        match self {
            Shown::Sum(sum) => vec![sum.to_string()],
            Shown::Word(word) => vec![word.human()],
            Shown::Values(words) => words.iter().map(Word::human).collect(),
        }
    }
}

/// A detached job. Times are in milliseconds since 1970.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TaskLine {
    pub(crate) task: String,
    /// open, cancelling, done, failed, given-up, cancelled, deadline.
    pub(crate) state: &'static str,
    pub(crate) kind: String,
    pub(crate) key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_hex: Option<String>,
    /// The key of the pass that submitted it.
    pub(crate) from: String,
    pub(crate) made_ms: u64,
    pub(crate) until_ms: u64,
    /// How long its outcome is kept after its end, in seconds.
    pub(crate) keep_s: u32,
    pub(crate) parent: Option<String>,
    pub(crate) ended_ms: Option<u64>,
    pub(crate) by: Option<String>,
    pub(crate) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) progress: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) progress_hex: Option<String>,
}

/// A line of a detached job's history.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NoteLine {
    pub(crate) task: String,
    /// In milliseconds since 1970, by the keeper's clock.
    pub(crate) at_ms: u64,
    /// deposited, taken, accepted, moved, waits, cancel-asked, ended.
    pub(crate) step: &'static str,
    /// The worker that noted it.
    pub(crate) keeper: String,
    /// The worker that it is about.
    pub(crate) worker: Option<String>,
    pub(crate) text: String,
}

/// One line.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Line {
    /// The public key of a key file.
    Key { key: String },
    /// This node has a pass.
    Pass {
        name: String,
        level: &'static str,
        /// The last second for which it counts, since 1970.
        until: u32,
    },
    /// A ticket was made.
    Ticket {
        mesh: String,
        ticket: String,
        /// The level of its invitation; `null`: it has none.
        level: Option<&'static str>,
        /// How many keys it enrols.
        keys: u16,
        /// The last second at which it enrols, since 1970.
        until: u32,
    },
    /// The mesh knows of a revocation: of a key's passes, an invitation's, or everybody's.
    Revocation {
        key: Option<String>,
        invitation: Option<String>,
        /// Passes issued at this second since 1970 or earlier are out.
        up_to: u32,
    },
    /// The mesh has its next secret.
    Rotation {
        /// Its number.
        generation: u32,
        /// The last second for which the secret before is accepted, since 1970.
        until: u32,
        /// Whether a hub that issues passes hands it out.
        by_hub: bool,
        /// Members that got it from here, and that didn't, if no hub does.
        members: usize,
        missed: usize,
    },
    /// A pass: signed, issued, or held here.
    Admitted {
        key: String,
        name: String,
        level: &'static str,
        weight: u8,
        zone: String,
        /// The invitation by which it came; `null`: admitted by hand.
        invitation: Option<String>,
        /// The last second for which it counts, since 1970.
        until: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        pass: Option<String>,
    },
    /// A hub or worker serves.
    Ready {
        key: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        addr: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        addr_from: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ticket: Option<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        meshes: Vec<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        kinds: Vec<String>,
    },
    /// The authority's key has a passphrase from now on, or none.
    Authority { mesh: String, sealed: bool },
    /// The connection to a hub came up or went down.
    Hub { hub: String, up: bool, reason: Option<&'static str> },
    /// A peer's pass was revoked.
    Revoked { peer: String },
    /// A peer speaks no version that this worker speaks.
    Incompatible { peer: String, theirs: String, ours: String },
    /// This worker has the mesh's next secret.
    Rotated { generation: u32 },
    /// A member's state changed.
    Member { peer: String, state: &'static str, incarnation: u64 },
    /// A member's process was restarted.
    Restarted { peer: String },
    /// The path to a peer changed.
    Path { peer: String, path: &'static str, addr: Option<String>, reason: &'static str },
    /// This worker began or ended a task.
    Job { task: String, kind: String, state: &'static str, error: Option<String> },
    /// This worker became isolated, or no longer is.
    Isolated { isolated: bool },
    /// An application's gossip arrived; any member could have made it up.
    Gossip {
        claimed: String,
        /// What was said, if it is valid text.
        text: Option<String>,
        /// What was said in hexadecimal, if it isn't text.
        #[serde(skip_serializing_if = "Option::is_none")]
        hex: Option<String>,
    },
    /// A damaged store was set aside, at `path` if there was a file; the worker began a new one.
    StoreSetAside { path: Option<String>, reason: String },
    /// The worker's store failed: it takes no writes, and what it learns isn't durable, until the store works again.
    StoreFailed { reason: String },
    /// The worker's store works again.
    StoreWorks {},
    /// The reader was too slow: this many lines are missing here.
    Lagged { lost: u64 },
    /// A worker accepted a task.
    Accepted { task: String, by: String },
    /// A task waits for a worker, for longer than a moment.
    Waiting { task: String, reason: &'static str },
    /// The result of a task is a file that is on its way here.
    Fetching { task: String, bytes: u64, of: u64 },
    /// A task is finished.
    Result {
        /// None if the input of the task couldn't be read.
        task: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        index: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        /// The file of the result, in the directory of the results.
        #[serde(skip_serializing_if = "Option::is_none")]
        file: Option<String>,
        by: Option<String>,
        attempts: u32,
        /// The result, if it is valid text.
        text: Option<String>,
        /// The result in hexadecimal, if it isn't text.
        #[serde(skip_serializing_if = "Option::is_none")]
        hex: Option<String>,
        error: Option<String>,
    },
    /// The mesh as this client sees it.
    Status {
        #[serde(rename = "self")]
        me: StatusSelf,
        hubs: Vec<StatusHub>,
        members: Vec<StatusMember>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        incompatible: Vec<StatusIncompatible>,
    },
    /// The counters and gauges of this process's node.
    Metrics { values: BTreeMap<&'static str, u64> },
    /// A peer answered a ping.
    Pong { seq: u32, path: &'static str, rtt_ms: f64, addr: Option<String> },
    /// A peer didn't answer a ping in time.
    Lost { seq: u32 },
    /// Something was said in a group.
    Said {
        peer: String,
        /// What was said, if it is valid text.
        text: Option<String>,
        /// What was said in hexadecimal, if it isn't text.
        #[serde(skip_serializing_if = "Option::is_none")]
        hex: Option<String>,
    },
    /// What is under a key of the replicated state, or in a field of a map there.
    Value {
        key: String,
        kind: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<String>,
        #[serde(flatten)]
        value: Shown,
        /// Whether confirmed writes may be missing.
        partial: bool,
    },
    /// There is an object of this name in the replicated state.
    Name { name: String, kind: &'static str },
    /// A job was handed over to the mesh, which keeps it.
    Detached {
        task: String,
        /// The job that it tries again.
        #[serde(skip_serializing_if = "Option::is_none")]
        parent: Option<String>,
    },
    /// A detached job.
    Task(TaskLine),
    /// What happened to a detached job.
    TaskNote(NoteLine),
    /// All detached jobs are told.
    TasksListed {
        tasks: usize,
        /// The workers whose answer is missing.
        silent: Vec<String>,
    },
    /// All names are told.
    Listed {
        names: usize,
        /// Those whose answer is missing.
        silent: Vec<String>,
        /// Whether these are so many that names may be missing.
        partial: bool,
    },
    /// What a watched object of the replicated state shows, which is nothing if there are no values.
    Watched {
        key: String,
        kind: &'static str,
        values: Vec<WatchedValue>,
        /// Whether confirmed writes may be missing.
        partial: bool,
    },
    /// The replicated state was changed.
    Written {
        key: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<String>,
    },
    /// The answer of a leased resource.
    Lease {
        state: &'static str,
        /// The token of the holder that has fenced the caller out.
        #[serde(skip_serializing_if = "Option::is_none")]
        current: Option<String>,
        /// The recorded outcome.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        hex: Option<String>,
    },
    /// The progress of long work.
    Progress { done: usize, total: usize },
    /// A worker process was killed on purpose.
    Killed { worker: String, holding: usize },
    /// A word's count, most frequent first.
    Word { word: String, count: u64 },
    /// The tasks that a worker ran.
    Worker { worker: String, tasks: usize, path: &'static str, killed: bool },
    /// Work on many tasks is finished.
    Done(Box<Done>),
    /// The command failed.
    Error {
        code: u8,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
        message: String,
    },
}

/// The value of an object, or of a field of a map.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct WatchedValue {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) field: Option<String>,
    #[serde(flatten)]
    pub(crate) value: Shown,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct StatusSelf {
    pub(crate) key: String,
    pub(crate) boot: String,
    /// The last second for which its pass counts, since 1970.
    pub(crate) pass_until: Option<u32>,
    /// By how much this machine's clock is ahead at least, if it shuts itself out by that.
    pub(crate) clock_ahead_s: Option<u64>,
    pub(crate) generation: u32,
    /// The last issuer reached.
    pub(crate) issuer: Option<StatusIssuer>,
    /// The versions of the protocol that it speaks.
    pub(crate) versions: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct StatusIssuer {
    /// Its key: the hub's, or that of an issuer which the hub asked.
    pub(crate) key: String,
    pub(crate) hub: String,
    /// When, in seconds since 1970.
    pub(crate) at: u64,
}

/// A peer that speaks none of this node's versions.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StatusIncompatible {
    pub(crate) peer: String,
    pub(crate) versions: String,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct StatusHub {
    pub(crate) key: String,
    pub(crate) addr: String,
    pub(crate) up: bool,
    pub(crate) reason: Option<&'static str>,
    pub(crate) rtt_ms: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct StatusMember {
    pub(crate) key: String,
    pub(crate) state: &'static str,
    pub(crate) incarnation: u64,
    pub(crate) roles: Vec<&'static str>,
    pub(crate) kinds: Vec<String>,
    pub(crate) zone: String,
    pub(crate) version: String,
    pub(crate) path: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) addr: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Done {
    pub(crate) tasks: usize,
    pub(crate) failed: usize,
    /// Inputs whose results an earlier run has left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) skipped: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) killed: Option<usize>,
    pub(crate) reassigned: usize,
    pub(crate) duplicates: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) files: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) words: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) distinct: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) matches_local: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) direct_paths: Option<usize>,
    pub(crate) seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_documented() {
        let lines = [
            Line::Ready {
                key: "nurl1k".into(),
                addr: Some("127.0.0.1:4242".into()),
                addr_from: Some("listen"),
                ticket: Some("nurlmesh1t".into()),
                meshes: vec![],
                kinds: vec![],
            },
            Line::Key { key: "nurl1k".into() },
            Line::Authority { mesh: "6d2f".into(), sealed: true },
            Line::Hub { hub: "nurl1h".into(), up: false, reason: Some("not-a-hub") },
            Line::Restarted { peer: "nurl1p".into() },
            Line::Revoked { peer: "nurl1p".into() },
            Line::Rotated { generation: 2 },
            Line::Incompatible { peer: "nurl1o".into(), theirs: "3 to 3".into(), ours: "2 to 2".into() },
            Line::Rotation { generation: 2, until: 7, by_hub: true, members: 0, missed: 0 },
            Line::Isolated { isolated: true },
            Line::Gossip { claimed: "nurl1p".into(), text: None, hex: Some("ff".into()) },
            Line::Lagged { lost: 7 },
            Line::Accepted { task: "0a".into(), by: "nurl1p".into() },
            Line::Waiting { task: "0a".into(), reason: "away" },
            Line::Fetching { task: "0a".into(), bytes: 1, of: 2 },
            Line::Result {
                task: Some("0a".into()),
                index: Some(3),
                source: Some("line 4".into()),
                file: None,
                by: Some("nurl1p".into()),
                attempts: 2,
                text: Some("reply".into()),
                hex: None,
                error: None,
            },
            Line::Lost { seq: 2 },
            Line::Said { peer: "nurl1p".into(), text: Some("la".into()), hex: None },
            Line::Value {
                key: "visits".into(),
                kind: "counter",
                field: None,
                value: Shown::Sum(3),
                partial: false,
            },
            Line::Value {
                key: "user 7".into(),
                kind: "map",
                field: Some("mails".into()),
                value: Shown::list(vec![(Some("a".into()), None), (None, Some("ff".into()))]),
                partial: true,
            },
            Line::Detached { task: "0a".into(), parent: Some("0b".into()) },
            Line::Task(TaskLine {
                task: "0a".into(),
                state: "failed",
                kind: "render".into(),
                key: Some("scene".into()),
                key_hex: None,
                from: "nurl1p".into(),
                made_ms: 1_000,
                until_ms: 9_000,
                keep_s: 60,
                parent: None,
                ended_ms: Some(5_000),
                by: Some("nurl1w".into()),
                error: Some("the handler failed: no scene".into()),
                progress: None,
                progress_hex: None,
            }),
            Line::TaskNote(NoteLine {
                task: "0a".into(),
                at_ms: 2_000,
                step: "accepted",
                keeper: "nurl1k".into(),
                worker: Some("nurl1w".into()),
                text: String::new(),
            }),
            Line::TasksListed { tasks: 1, silent: vec!["nurl1p".into()] },
            Line::Name { name: "visits".into(), kind: "counter" },
            Line::Listed { names: 1, silent: vec!["nurl1p".into()], partial: false },
            Line::Watched { key: "visits".into(), kind: "counter", values: Vec::new(), partial: true },
            Line::Watched {
                key: "user 7".into(),
                kind: "map",
                values: vec![WatchedValue { field: Some("mails".into()), value: Shown::Sum(3) }],
                partial: false,
            },
            Line::Written { key: "visits".into(), field: None },
            Line::Lease { state: "admitted", current: None, text: None, hex: None },
            Line::Lease { state: "fenced", current: Some("00".into()), text: None, hex: None },
            Line::Lease { state: "done", current: None, text: Some("noted".into()), hex: None },
            Line::Progress { done: 5, total: 9 },
            Line::Killed { worker: "nurl1p".into(), holding: 4 },
            Line::Word { word: "the".into(), count: 12 },
            Line::Worker { worker: "nurl1p".into(), tasks: 6, path: "direct", killed: true },
            Line::Member { peer: "nurl1p".into(), state: "alive", incarnation: 3 },
            Line::Path {
                peer: "nurl1p".into(),
                path: "direct",
                addr: Some("1.2.3.4:5".into()),
                reason: "promoted",
            },
            Line::Job { task: "0a".into(), kind: "echo".into(), state: "started", error: None },
            Line::Pong { seq: 1, path: "direct", rtt_ms: 0.25, addr: None },
            Line::Status {
                me: StatusSelf {
                    key: "nurl1m".into(),
                    boot: "00".into(),
                    pass_until: Some(9),
                    clock_ahead_s: None,
                    generation: 2,
                    issuer: Some(StatusIssuer { key: "nurl1i".into(), hub: "nurl1h".into(), at: 8 }),
                    versions: "2 to 2".into(),
                },
                hubs: vec![StatusHub {
                    key: "nurl1h".into(),
                    addr: "h:1".into(),
                    up: true,
                    reason: None,
                    rtt_ms: Some(1.5),
                }],
                members: vec![StatusMember {
                    key: "nurl1p".into(),
                    state: "alive",
                    incarnation: 0,
                    roles: vec!["worker"],
                    kinds: vec!["echo".into()],
                    zone: String::new(),
                    version: "0.1.0".into(),
                    path: "relayed",
                    reason: "checking",
                    rtt_ms: None,
                    addr: None,
                }],
                incompatible: vec![StatusIncompatible { peer: "nurl1o".into(), versions: "3 to 3".into() }],
            },
            Line::Metrics { values: [("session.established", 3), ("hub.dials", 1)].into() },
            Line::Done(Box::new(Done {
                tasks: 9,
                workers: Some(4),
                killed: Some(1),
                reassigned: 2,
                words: Some(100),
                distinct: Some(7),
                matches_local: Some(true),
                seconds: 1.5,
                ..Done::default()
            })),
            Line::Error { code: 3, reason: Some("unreachable"), message: "no hub can be used".into() },
            Line::Error { code: 5, reason: None, message: "no answer within 3s".into() },
        ];
        let text: Vec<_> = lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
        insta::assert_snapshot!(text.join("\n"));
    }
}
