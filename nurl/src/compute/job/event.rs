//! The driver's view: runs to start, events to pass on, counters.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::error::JobError;
use super::standing::Submitter;
use super::task::TaskId;
use crate::key::PublicKey;
use crate::ring::Epoch;

/// The id of one start of a handler. One [`Jobs`](super::Jobs) never uses it twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// A handler to start.
#[derive(Debug, Clone)]
pub struct Run {
    /// The id to return to [`finished`](super::Jobs::finished).
    pub id: RunId,
    /// The task.
    pub task: TaskId,
    /// The submitter's count of attempts.
    pub attempt: u32,
    /// The kind of the handler.
    pub kind: String,
    /// The job key.
    pub key: Bytes,
    /// Its input.
    pub payload: Bytes,
    /// The peer that submitted it, over its own session.
    pub submitter: Submitter,
    /// The dead letter that the task retries.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "door: a chain of tasks, shown by the command")
    )]
    pub parent: Option<TaskId>,
    /// The fencing token for every effect of this run.
    pub token: Epoch,
    /// Whether the payload is in an envelope, and the result is to be ([`blob`](crate::compute::blob)).
    pub large: bool,
    /// When the task's life ends, and the run with it.
    pub life: Instant,
    /// How long the handler may run. To fetch its payload takes no part of it.
    pub time_limit: Option<Duration>,
}

impl Run {
    /// When a handler that begins now must end, and whether that is the kind's limit: exceeding it is
    /// [`JobError::TimedOut`].
    pub fn deadline(&self, now: Instant) -> (Instant, bool) {
        let limit = self.time_limit.map(|limit| now + limit).filter(|limit| *limit < self.life);
        (limit.unwrap_or(self.life), limit.is_some())
    }
}

/// A member's change, in the sense of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// The member is back, or new.
    Alive,
    /// The failure detector declared the member dead.
    Dead,
    /// The member left the mesh.
    Left,
    /// The member's pass was revoked: nothing runs for it, and nothing of it counts.
    Revoked,
    /// The member runs under a new boot id: all tasks that it had accepted are lost.
    Restarted,
}

/// Why a task moved on from an executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// No `Accepted`, or three missed beats, or a message that was not delivered.
    Silent,
    /// The executor is dead, has left or has restarted.
    Gone,
    /// The executor was busy for too long.
    Busy,
    /// The executor has no handler of the kind, isn't responsible in its own view, or doesn't know the task.
    Refused,
    /// The executor's policy doesn't permit this submitter.
    NotAllowed,
    /// The executor is draining, and has given the task back.
    HandedBack,
    /// The attempt failed retriably.
    Failed(JobError),
}

impl Moved {
    /// The reason as one word, for programs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Moved::Silent => "silent",
            Moved::Gone => "gone",
            Moved::Busy => "busy",
            Moved::Refused => "refused",
            Moved::NotAllowed => "not-allowed",
            Moved::HandedBack => "handed-back",
            Moved::Failed(_) => "failed",
        }
    }
}

/// Why a task waits instead of being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitReason {
    /// Members have the task's kind, but none of them is live and takes work. The task goes to the first one that
    /// returns.
    Away,
    /// As many workers as the task may be lost with fell silent while they had it. The task continues when enough of
    /// them are known to be alive.
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

/// The results of a node's drain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Runs that ended within the limit.
    pub finished: u64,
    /// Tasks that were given back to their submitters, queued or running.
    pub handed_back: u64,
}

/// An event for the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// Submitter: an executor has the task.
    Accepted {
        /// The task.
        task: TaskId,
        /// The executor.
        by: PublicKey,
        /// The token of the executor's tenure.
        token: Epoch,
    },
    /// Submitter: a note of the handler.
    Progress {
        /// The task.
        task: TaskId,
        /// The executor.
        by: PublicKey,
        /// The note.
        note: Bytes,
    },
    /// Submitter: the task has to wait longer than usual. The event comes once for each such wait.
    Waiting {
        /// The task.
        task: TaskId,
        /// The reason.
        why: WaitReason,
    },
    /// Submitter: a task that may be [large](super::SubmitOptions::large) is given to a node, which may fetch its payload.
    Given {
        /// The task.
        task: TaskId,
        /// The node.
        to: PublicKey,
    },
    /// Submitter: the task goes to another executor.
    Reassigned {
        /// The task.
        task: TaskId,
        /// The executor that had the task.
        from: PublicKey,
        /// The executor that gets the task.
        to: PublicKey,
        /// The reason.
        why: Moved,
    },
    /// Submitter: the outcome. It comes once for each task, and never changes.
    Done {
        /// The task.
        task: TaskId,
        /// Its result or its error.
        outcome: Result<Bytes, JobError>,
        /// The node that produced it; none when the task ended here (deadline, cancelled, infeasible, dead letter).
        by: Option<PublicKey>,
        /// The number of attempts sent out.
        attempts: u32,
    },
    /// Executor: a task has a place here.
    Admitted {
        /// The task.
        task: TaskId,
        /// The kind of the handler.
        kind: String,
        /// The peer that submitted it.
        by: Submitter,
    },
    /// Executor: the custodian of a detached task that this node executes is gone. It comes every few seconds until another
    /// one asks for the task.
    Orphaned {
        /// The task.
        task: TaskId,
    },
    /// Executor: a policy refused a task. It comes once for a task that is sent again and again.
    NotAllowed {
        /// The task.
        task: TaskId,
        /// The kind of the handler.
        kind: String,
        /// The peer that submitted it.
        by: Submitter,
    },
    /// Executor: a handler has ended.
    Ran {
        /// The task.
        task: TaskId,
        /// The submitter's count of attempts.
        attempt: u32,
        /// The kind of the handler.
        kind: String,
        /// Whether it gave a result.
        ok: bool,
        /// The time from start to end.
        took: Duration,
    },
    /// A second execution of a task was detected: by a second outcome at the submitter, or a second record at a
    /// replica.
    Duplicate {
        /// The task.
        task: TaskId,
        /// The node of the other run.
        by: PublicKey,
    },
    /// Executor: a resource has admitted a higher token than this node's. The driver does a push-pull with the
    /// members. The attempt starts again under a higher tenure if this node still acts for the key.
    Fenced {
        /// The task.
        task: TaskId,
        /// The token that the resource holds.
        current: Epoch,
    },
    /// Executor: the [`drain`](super::Jobs::drain) is complete.
    Drained(Drained),
}

/// Counters of one node since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobStats {
    /// Submitter: tasks taken.
    pub submitted: u64,
    /// Submitter: handles resolved with a result.
    pub results: u64,
    /// Submitter: handles resolved with an error.
    pub errors: u64,
    /// Submitter: attempts sent out.
    pub attempts: u64,
    /// Submitter: attempts given up because of silence, a failed send, a death, a leave or a restart.
    pub silences: u64,
    /// Submitter: `Busy` answers.
    pub busy_seen: u64,
    /// Submitter: results that came after the handle was resolved, from another run.
    pub duplicate_results: u64,
    /// Submitter: outcomes from nodes that were neither on the task's list nor had accepted it.
    pub forged_outcomes: u64,
    /// Submitter: runs that were withdrawn because another node runs the task or the task has ended.
    pub withdrawn: u64,
    /// Submitter: tasks that were run a second time beside a run that took long.
    pub run_once_more: u64,
    /// Submitter: times that the result of a finished task was asked for again.
    pub fetched: u64,
    /// Submitter: tasks that a draining executor refused or gave back.
    pub hand_backs: u64,
    /// Submitter: executors whose policy didn't permit this node's task.
    pub not_allowed_seen: u64,
    /// Submitter: submits refused locally because too many were open.
    pub refused_submits: u64,
    /// Executor: handlers started.
    pub runs: u64,
    /// Executor: submits of a task that was here already.
    pub duplicate_submits: u64,
    /// Executor: submits forwarded.
    pub forwarded: u64,
    /// Executor: submits that no node within the hop limit took.
    pub misrouted: u64,
    /// Executor: `Busy` answers.
    pub busy: u64,
    /// Executor: submits of a kind without a handler.
    pub unknown_kind: u64,
    /// Executor: submits that a policy refused.
    pub not_allowed: u64,
    /// Executor: submits for another refused: the word of whose task it is doesn't count.
    pub bad_warrants: u64,
    /// Executor: submits whose submitter was not their sender, and forwarded ones that weren't what their submitter
    /// claims.
    pub spoofed: u64,
    /// Executor: forwarded tasks dropped because their submitter didn't claim them, or because too many waited.
    pub unclaimed: u64,
    /// Executor: queued tasks that gave way to those of submitters with fewer.
    pub gave_way: u64,
    /// Executor: re-submitted tasks for which an owner had the outcome.
    pub recalled: u64,
    /// Executor: re-submitted tasks that another node was running.
    pub elsewhere: u64,
    /// Executor: runs that a resource fenced.
    pub fenced: u64,
    /// Executor: outcomes no longer sent to a submitter that hasn't answered for a long time.
    pub outcomes_unheard: u64,
    /// Executor: tasks given back, or refused, while this node drained.
    pub handed_back: u64,
    /// Executor: a task id used for two payloads.
    pub conflicts: u64,
    /// Replica: records that showed a second run of a task.
    pub duplicate_runs: u64,
    /// Replica: records from nodes that aren't allowed to make them.
    pub forged_records: u64,
    /// Replica: outcomes not kept because the table or its byte limit was full.
    pub records_refused: u64,
    /// Replica: outcomes dropped before their time, for one of a peer that has fewer.
    pub records_evicted: u64,
    /// Messages from a node that has no part in the task.
    pub unexpected: u64,
    /// Messages that didn't parse.
    pub malformed: u64,
    /// Messages of a type that this version doesn't know.
    pub unknown_type: u64,
    /// Epoch counters too far ahead to be believed.
    pub epoch_refused: u64,
    /// Messages dropped because the outbox was full.
    pub outbox_dropped: u64,
    /// Notices dropped because the driver didn't fetch them.
    pub events_dropped: u64,
}

/// The present sizes of the tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Submitter: tasks without an outcome.
    pub open: usize,
    /// Executor: tasks asked about, queued or running.
    pub executing: usize,
    /// Executor: handlers running.
    pub running: usize,
    /// Replica: outcomes and hashes.
    pub records: usize,
    /// Replica: bytes of outcomes.
    pub record_bytes: usize,
    /// Executor: tenures held.
    pub tenures: usize,
    /// The bytes that finished tasks occupy in all tables: acknowledged outcomes, tenures, and the ids that the
    /// submitter remembers. It is at most 512 bytes for a task with a key of up to 16 bytes, without the overhead of
    /// the allocator and the trees. It is freed after the task's horizon.
    pub left_behind_bytes: usize,
}
