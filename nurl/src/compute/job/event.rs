//! What the driver sees: runs to start, events to pass on, counters.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::error::JobError;
use super::task::TaskId;
use crate::key::PublicKey;
use crate::ring::Epoch;

/// Names one start of a handler. Never used twice by one [`Jobs`](super::Jobs).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// A handler to start.
#[derive(Debug, Clone)]
pub struct Run {
    /// To be given back to [`finished`](super::Jobs::finished).
    pub id: RunId,
    /// The task.
    pub task: TaskId,
    /// The submitter's count of attempts.
    pub attempt: u32,
    /// Which handler.
    pub kind: String,
    /// The job key.
    pub key: Bytes,
    /// Its input.
    pub payload: Bytes,
    /// The dead letter of which the task is a retry.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: a chain of tasks, shown by the command")
    )]
    pub parent: Option<TaskId>,
    /// The fencing token for every effect of this run.
    pub token: Epoch,
    /// When to end it: the task's life and the kind's limit, whichever is first.
    pub deadline: Instant,
    /// The kind's limit is what `deadline` is: running over it is [`JobError::TimedOut`].
    pub limited: bool,
}

/// What a member's change means to jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// It is back, or new.
    Alive,
    /// Held dead.
    Dead,
    /// It said goodbye.
    Left,
    /// It runs under a new boot id: everything that it had accepted is lost.
    Restarted,
}

/// Why an attempt moved on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// No `Accepted`, or three missed beats, or the message didn't get through.
    Silent,
    /// The executor is dead, has left or has restarted.
    Gone,
    /// It was busy for too long.
    Busy,
    /// It has no handler of the kind, or doesn't hold itself responsible.
    Refused,
    /// It is draining, and has given the task back.
    HandedBack,
    /// It failed retriably.
    Failed(JobError),
}

/// Why a task waits, though its submitter would send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitReason {
    /// Members have its kind, but none of them is live and takes work: it goes to the first that comes back.
    Away,
    /// As many workers as the task may be lost with have fallen silent while they had it. It goes on when enough
    /// of them are known to live.
    Verdict,
}

impl WaitReason {
    /// The reason as one word, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            WaitReason::Away => "away",
            WaitReason::Verdict => "verdict",
        }
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WaitReason::Away => "every worker that has the kind is away",
            WaitReason::Verdict => "workers fell silent while they had the task: are they dead?",
        })
    }
}

/// What came of a node's tasks while it drained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Runs that came to their ends within the limit.
    pub finished: u64,
    /// Tasks that were given back to their submitters, queued or half-way.
    pub handed_back: u64,
}

/// Something to tell the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Submitter: an executor has the task.
    Accepted {
        /// The task.
        task: TaskId,
        /// Who.
        by: PublicKey,
        /// Under which tenure.
        token: Epoch,
    },
    /// Submitter: a note of the handler.
    Progress {
        /// The task.
        task: TaskId,
        /// Who runs it.
        by: PublicKey,
        /// What it said.
        note: Bytes,
    },
    /// Submitter: the task waits, for longer than a moment. Once for each time that it does.
    Waiting {
        /// The task.
        task: TaskId,
        /// Why.
        why: WaitReason,
    },
    /// Submitter: the task goes to another executor.
    Reassigned {
        /// The task.
        task: TaskId,
        /// Who had it.
        from: PublicKey,
        /// Who gets it.
        to: PublicKey,
        /// Why.
        why: Moved,
    },
    /// Submitter: the outcome. Once for each task, and never changed.
    Done {
        /// The task.
        task: TaskId,
        /// Its result or its error.
        outcome: Result<Bytes, JobError>,
        /// Who produced it; none when it ended here (deadline, cancelled, infeasible, dead letter).
        by: Option<PublicKey>,
        /// How many attempts were sent out.
        attempts: u32,
    },
    /// Executor: a handler has ended.
    Ran {
        /// The task.
        task: TaskId,
        /// The submitter's count of attempts.
        attempt: u32,
        /// Which handler.
        kind: String,
        /// Whether it gave a result.
        ok: bool,
        /// From start to end.
        took: Duration,
    },
    /// A second execution of a task came to light: at the submitter a second outcome, at a replica a second
    /// record.
    Duplicate {
        /// The task.
        task: TaskId,
        /// Who ran it too.
        by: PublicKey,
    },
    /// Executor: a resource has admitted a higher token than ours. The driver does a push-pull with the
    /// members; the attempt starts again under a higher tenure if this node still acts for the key.
    Fenced {
        /// The task.
        task: TaskId,
        /// What the resource holds.
        current: Epoch,
    },
    /// Executor: what was asked of [`drain`](super::Jobs::drain) is done.
    Drained(Drained),
}

/// Counters of one node since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Submitter: tasks taken.
    pub submitted: u64,
    /// Submitter: handles resolved with a result.
    pub results: u64,
    /// Submitter: handles resolved with an error.
    pub errors: u64,
    /// Submitter: attempts sent out.
    pub attempts: u64,
    /// Submitter: attempts given up because of silence, a failed send, a death or a restart.
    pub silences: u64,
    /// Submitter: `Busy` answers.
    pub busy_seen: u64,
    /// Submitter: results that came after the handle was resolved, from another run.
    pub duplicate_results: u64,
    /// Submitter: outcomes from nodes that were neither on the task's list nor had accepted it.
    pub forged_outcomes: u64,
    /// Submitter: runs that were withdrawn because another node was at it.
    pub withdrawn: u64,
    /// Submitter: finished tasks whose result had to be asked for again.
    pub fetched: u64,
    /// Submitter: tasks that a draining executor refused or gave back.
    pub hand_backs: u64,
    /// Submitter: dead letters dropped because there were too many.
    pub dead_letters_dropped: u64,
    /// Submitter: submits refused locally because too many were open.
    pub refused_submits: u64,
    /// Executor: handlers started.
    pub runs: u64,
    /// Executor: submits of a task that was here already.
    pub duplicate_submits: u64,
    /// Executor: submits passed on.
    pub forwarded: u64,
    /// Executor: submits that nobody within the hop limit took.
    pub misrouted: u64,
    /// Executor: `Busy` answers.
    pub busy: u64,
    /// Executor: submits of a kind without a handler.
    pub unknown_kind: u64,
    /// Executor: submits whose submitter was not their sender.
    pub spoofed: u64,
    /// Executor: re-submitted tasks for which an owner had the outcome.
    pub recalled: u64,
    /// Executor: re-submitted tasks that another node was running.
    pub elsewhere: u64,
    /// Executor: runs that a resource fenced.
    pub fenced: u64,
    /// Executor: outcomes that are owed no more to a submitter that has long given no answer.
    pub outcomes_unheard: u64,
    /// Executor: tasks given back, or refused, while this node drained.
    pub handed_back: u64,
    /// Executor: a task id used for two payloads.
    pub conflicts: u64,
    /// Keeper: records that showed a second run of a task.
    pub duplicate_runs: u64,
    /// Keeper: records from nodes that may not make them.
    pub forged_records: u64,
    /// Keeper: outcomes not kept because the table, or its bytes, were full.
    pub records_refused: u64,
    /// Messages from a node that had no business with the task.
    pub unexpected: u64,
    /// Messages that didn't parse.
    pub malformed: u64,
    /// Messages of a type that this version doesn't know.
    pub unknown_type: u64,
    /// Epoch counters too far ahead to be believed.
    pub epoch_refused: u64,
    /// Messages dropped because the outbox was full.
    pub outbox_dropped: u64,
    /// Notices dropped because nobody fetched them.
    pub events_dropped: u64,
}

/// What is in the tables now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Submitter: tasks without an outcome.
    pub open: usize,
    /// Executor: tasks asked about, queued or running.
    pub executing: usize,
    /// Executor: handlers running.
    pub running: usize,
    /// Keeper: outcomes and hashes.
    pub records: usize,
    /// Keeper: bytes of outcomes.
    pub record_bytes: usize,
    /// Executor: tenures held.
    pub tenures: usize,
    /// What finished tasks have left in all tables, in bytes: acknowledged outcomes, tenures, and the ids that the
    /// submitter remembers. At most 512 of them a task with a key of up to 16 bytes, without what the allocator and the
    /// trees add, and gone when the horizon of the task is over.
    pub left_behind_bytes: usize,
}
