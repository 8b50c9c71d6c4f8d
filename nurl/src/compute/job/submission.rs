//! One open task at its submitter: its phase, and what is counted and remembered until it ends.

use std::time::{Duration, Instant};

use super::holders::Holders;
use super::message::Submit;
use super::nodes::TaskNodes;
use super::options::SubmitOptions;
use super::shared::SharedContext;
use super::spec::TaskSpec;
use super::submitter::free::FreeRuns;
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

/// How often a task was tried.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// The number of attempts sent out; the latest attempt's number is one less.
    pub(super) attempts: u32,
    /// Attempts that failed retriably.
    pub(super) failures: u32,
    /// Attempts that ended without an outcome since the last sign of life: the exponent of the back-off.
    pub(super) retries: u32,
    /// `Busy` answers of the present executor.
    pub(super) busy_stays: u8,
    /// How often the latest attempt was forwarded.
    pub(super) forwards: u8,
    /// The node to which it was forwarded last.
    pub(super) runner: Option<PublicKey>,
}

/// A result that an executor has, and that hasn't arrived.
#[derive(Debug, Default)]
pub(super) struct AwaitedResult {
    /// Its length according to the executor.
    pub(super) len: u64,
    /// How often it was asked for.
    pub(super) fetches: u8,
}

#[derive(Debug)]
pub(super) struct Submission {
    pub(super) spec: TaskSpec,
    pub(super) options: SubmitOptions,
    pub(super) deadline: Instant,
    /// Whether other nodes may know the id already at the first attempt.
    pub(super) known: bool,
    /// Whether to ignore answers that another node runs the task: that node was already asked.
    pub(super) force: bool,
    pub(super) tries: Tries,
    pub(super) nodes: TaskNodes,
    /// The processes that have had the task.
    pub(super) holders: Holders,
    /// Whether the event for the wait for verdicts on the holders was sent.
    pub(super) waits_told: bool,
    pub(super) awaited: AwaitedResult,
    /// The highest token under which an executor has accepted the task.
    pub(super) token: Option<Epoch>,
    pub(super) phase: SubmissionPhase,
    /// Where it runs, if it is free.
    pub(super) free: FreeRuns,
}

impl Submission {
    /// The maximum number of workers that may be lost with the task.
    pub(super) fn max_losses(&self) -> usize {
        usize::try_from(self.options.max_losses.max(1)).unwrap_or(usize::MAX)
    }

    /// The message of an attempt.
    pub(super) fn submit(
        &self,
        shared: &SharedContext,
        now: Instant,
        task: TaskId,
        attempt: u32,
        reach: usize,
    ) -> Submit {
        Submit {
            task,
            attempt,
            reach: u16::try_from(reach).unwrap_or(u16::MAX),
            hops: 0,
            submitter: shared.local,
            kind: self.spec.kind.clone(),
            key: self.spec.key.clone(),
            priority: self.options.priority,
            // Rounded up, so that a life that isn't over never arrives as zero.
            life: self.deadline.saturating_duration_since(now) + Duration::from_millis(1),
            ask: self.known || attempt > 0,
            force: self.force,
            parent: self.spec.parent,
            anywhere: self.options.anywhere,
            warrant: self.spec.warrant.clone(),
            large: self.spec.large,
            payload: self.spec.payload.clone(),
        }
    }

    /// Whether it waits for its first attempt until a worker has room.
    pub(super) fn waits_for_room(&self) -> bool {
        self.options.anywhere && self.tries.attempts == 0
    }

    /// Whether the latest attempt is with this node, and not yet accepted.
    pub(super) fn has_asked(&self, peer: PublicKey) -> bool {
        let waits_for = |target: PublicKey| target == peer || self.tries.runner == Some(peer);
        matches!(self.phase, SubmissionPhase::Waiting { target, .. } if waits_for(target))
    }

    /// Whether this node's messages about the task are accepted: it was addressed, has accepted, or is on the lists.
    pub(super) fn may_speak(&self, shared: &SharedContext, from: PublicKey) -> bool {
        let TaskSpec { kind, key, .. } = &self.spec;
        self.nodes.has_heard(&from)
            || shared.executors(kind, key).contains(&from)
            || shared.owners(key).contains(&from)
    }
}
