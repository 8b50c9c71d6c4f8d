//! One open task at its submitter: its state, whom it goes to next, whose words about it count.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;

use super::event::Moved;
use super::holders::Holders;
use super::options::{MAX_HEARD_PER_TASK, MAX_TRIED, SubmitOptions};
use super::shared::Shared;
use super::task::TaskId;
use crate::key::PublicKey;
use crate::ring::Epoch;

#[derive(Debug)]
pub(super) enum State {
    /// Nobody takes it. `told` when it was said that it waits.
    Placing {
        since: Instant,
        told: bool,
    },
    Waiting {
        target: PublicKey,
        until: Instant,
    },
    Held {
        by: PublicKey,
        boot: u64,
        heard: Instant,
        fetch: Option<Instant>,
    },
    BackOff {
        until: Instant,
        stay: Option<PublicKey>,
    },
}

#[derive(Debug)]
pub(super) struct Submission {
    pub(super) kind: String,
    pub(super) key: Bytes,
    pub(super) payload: Bytes,
    pub(super) digest: [u8; 32],
    pub(super) options: SubmitOptions,
    pub(super) parent: Option<TaskId>,
    pub(super) deadline: Instant,
    /// Attempts sent out; the latest has this number less one.
    pub(super) attempts: u32,
    pub(super) failures: u32,
    /// Ends without an outcome since the last sign of life: the exponent of the back-off.
    pub(super) retries: u32,
    pub(super) busy_stays: u8,
    pub(super) fetches: u8,
    /// What a finished executor says of its result.
    pub(super) result_len: u64,
    /// The id may be known elsewhere from the first attempt on.
    pub(super) known: bool,
    /// Ignore a node that says another one is at it: that was tried.
    pub(super) force: bool,
    /// Whom this round over the list has tried.
    pub(super) tried: BTreeSet<PublicKey>,
    /// Who said that it has no such handler.
    pub(super) without_kind: BTreeSet<PublicKey>,
    /// Everyone addressed and everyone who accepted: their outcomes count.
    pub(super) heard: BTreeSet<PublicKey>,
    /// Who has had it.
    pub(super) holders: Holders,
    /// It was said that it waits for verdicts on them.
    pub(super) waits_told: bool,
    pub(super) last: Option<(PublicKey, Moved)>,
    pub(super) token: Option<Epoch>,
    pub(super) state: State,
}

/// The next executor: `stay` while it is on the list; else the first of the list that this round hasn't tried:
/// the n-th at attempt n, and still the natural heir when the dead have left the list. When all were tried a
/// new round begins, but not with the last one if there is another.
pub(super) fn choose(
    task: &mut Submission,
    list: &[PublicKey],
    stay: Option<PublicKey>,
) -> Option<PublicKey> {
    if list.is_empty() {
        return None;
    }
    if let Some(stay) = stay.filter(|stay| list.contains(stay)) {
        return Some(stay);
    }
    if task.tried.len() >= MAX_TRIED || list.iter().all(|member| task.tried.contains(member)) {
        task.tried.clear();
        if let Some((last, _)) = &task.last
            && list.len() > 1
        {
            task.tried.insert(*last);
        }
    }
    list.iter().find(|member| !task.tried.contains(*member)).copied()
}

/// How many workers may be lost with the task.
pub(super) fn max_losses(task: &Submission) -> usize {
    usize::try_from(task.options.max_losses.max(1)).unwrap_or(usize::MAX)
}

pub(super) fn hear(task: &mut Submission, peer: PublicKey) {
    if task.heard.len() < MAX_HEARD_PER_TASK {
        task.heard.insert(peer);
    }
}

/// Whether this node's words about the task count: it was addressed, it has accepted, or it is on the lists.
pub(super) fn may_speak(sh: &Shared, task: &Submission, from: PublicKey) -> bool {
    task.heard.contains(&from)
        || sh.executors(&task.kind, &task.key).contains(&from)
        || sh.owners(&task.key).contains(&from)
}
