//! One open task at its submitter: its phase, its next executor, and the nodes whose messages about it are accepted.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;

use super::event::Moved;
use super::holders::Holders;
use super::options::{MAX_HEARD_PER_TASK, MAX_TRIED, SubmitOptions};
use super::shared::SharedContext;
use super::task::TaskId;
use crate::key::PublicKey;
use crate::ring::Epoch;

/// What a task waits for.
#[derive(Debug)]
pub(super) enum SubmissionPhase {
    /// No executor takes the task. `told` is set once the event for its wait was sent.
    Placing { since: Instant, told: bool },
    /// Sent, and not yet accepted.
    Waiting { target: PublicKey, until: Instant },
    /// An executor has accepted it, and sends beats.
    Accepted { by: PublicKey, boot: u64, heard: Instant, fetch: Option<Instant> },
    /// The next attempt follows at `until`, at the executor `stay` if that is given.
    BackOff { until: Instant, stay: Option<PublicKey> },
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
    /// The number of attempts sent out; the latest attempt's number is one less.
    pub(super) attempts: u32,
    pub(super) failures: u32,
    /// Attempts that ended without an outcome since the last sign of life: the exponent of the back-off.
    pub(super) retries: u32,
    pub(super) busy_stays: u8,
    pub(super) fetches: u8,
    /// The result's length according to the executor that finished.
    pub(super) result_len: u64,
    /// Whether other nodes may know the id already at the first attempt.
    pub(super) known: bool,
    /// Whether to ignore answers that another node runs the task: that node was already asked.
    pub(super) force: bool,
    /// The nodes that this round over the list has tried.
    pub(super) tried: BTreeSet<PublicKey>,
    /// The nodes that have no handler of the kind.
    pub(super) without_kind: BTreeSet<PublicKey>,
    /// All nodes that were addressed or have accepted: their outcomes count.
    pub(super) heard: BTreeSet<PublicKey>,
    /// The processes that have had the task.
    pub(super) holders: Holders,
    /// Whether the event for the wait for verdicts on the holders was sent.
    pub(super) waits_told: bool,
    pub(super) last: Option<(PublicKey, Moved)>,
    pub(super) token: Option<Epoch>,
    pub(super) phase: SubmissionPhase,
}

/// The next executor: `stay` while it is on the list, otherwise the first of the list that this round hasn't tried.
/// That is the n-th at attempt n, and still the right one after dead nodes have left the list. After all were tried a
/// new round begins, but not with the last executor if there is another.
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

/// The maximum number of workers that may be lost with the task.
pub(super) fn max_losses(task: &Submission) -> usize {
    usize::try_from(task.options.max_losses.max(1)).unwrap_or(usize::MAX)
}

pub(super) fn hear(task: &mut Submission, peer: PublicKey) {
    if task.heard.len() < MAX_HEARD_PER_TASK {
        task.heard.insert(peer);
    }
}

/// Whether this node's messages about the task are accepted: it was addressed, has accepted, or is on the lists.
pub(super) fn may_speak(shared: &SharedContext, task: &Submission, from: PublicKey) -> bool {
    task.heard.contains(&from)
        || shared.executors(&task.kind, &task.key).contains(&from)
        || shared.owners(&task.key).contains(&from)
}
