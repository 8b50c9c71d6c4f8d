//! Limits, timings and options.

use std::time::Duration;

use super::task::Priority;

/// The longest payload and the longest result: a reliable message (16 MiB) less the space of the job header.
pub const MAX_PAYLOAD_LEN: usize = 16 * 1024 * 1024 - MAX_HEADER_LEN - 3;
/// The longest CBOR header of a message. A kind, a key, an error text and some keys are under 4 KiB; a batch
/// of [`MAX_BEATS`] beats is 15 KiB.
pub const MAX_HEADER_LEN: usize = 32 * 1024;
/// The longest name of a job kind; every member's metadata contains it too.
pub const MAX_KIND_LEN: usize = 64;
/// The longest job key: enough for a path or a URL; keys are kept with each outcome for hours.
pub const MAX_KEY_LEN: usize = crate::ring::MAX_TENURE_KEY_BYTES;
/// The longest text of an error on the wire.
pub const MAX_ERROR_TEXT_LEN: usize = 1024;
/// The longest progress note; at most one is sent with each beat.
pub const MAX_PROGRESS_LEN: usize = 256;
/// The most beats in one message; further beats go into further messages.
pub const MAX_BEATS: usize = 512;
/// The longest life of a task: outcomes are kept for that long.
pub const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long an outcome is kept after the task's life, so that late copies of a submit find it and aren't run.
pub const HORIZON: Duration = Duration::from_secs(600);

/// Submitter: limit on the tasks that wait for their outcome.
pub const MAX_SUBMISSIONS: usize = 16_384;
/// Submitter: limit on the payload bytes of those tasks. They are kept for re-submission.
pub const MAX_SUBMISSION_BYTES: usize = 256 * 1024 * 1024;
/// Submitter: resolved ids that are remembered, so that a late outcome is acknowledged and counted. The oldest are
/// forgotten first; a forgotten id costs its executor a few beats without an answer.
pub const MAX_RESOLVED: usize = 65_536;
/// Submitter: nodes that are remembered per task as addressed or as having accepted.
pub const MAX_HEARD_PER_TASK: usize = 64;
/// Submitter: executors that are asked for one task though their policies refuse it. A mesh's workers seldom differ in more
/// than a few policies, and each is sent the payload.
pub const MAX_NOT_ALLOWED: usize = 256;
/// Submitter: processes that are remembered per task as having had it; the oldest are forgotten first.
pub const MAX_HOLDERS: usize = 64;
/// Submitter: a task that may have been lost with `n` workers waits for a random time of up to `n - 1` times this
/// before the next attempt. If one of several tasks kills their worker, they all move on at the same moment, often to
/// the same next worker. Without this delay they would be lost together until all of them are dead letters. The first
/// loss adds no delay, because a single loss is the common case.
pub const LOSS_SPREAD: Duration = Duration::from_secs(5);
/// Submitter: how long a draining node is passed over. As a rule it has ended before that; if it hasn't, it is asked
/// once more.
pub const DRAINING_FOR: Duration = Duration::from_secs(60);
/// Submitter: how long a node that fell silent over one task is passed over by other tasks, unless it is heard again.
/// So when many nodes die at once, each node costs one silence, not one for each task. By then the failure detector
/// knows of a death, and a node that isn't dead is tried again.
pub const SILENT_FOR: Duration = Duration::from_secs(10);
/// Submitter: nodes that one round over the list remembers as tried. If the list changes faster than the round
/// proceeds, a new round begins at this limit.
pub const MAX_TRIED: usize = 4096;

/// Executor: limit on the tasks for which it asks, or which are queued or running.
pub const MAX_EXECUTIONS: usize = 4096;
/// Executor: limit on the payload bytes of those tasks; over it, `Busy`.
pub const MAX_EXECUTION_BYTES: usize = 256 * 1024 * 1024;
/// Executor: limit on the registered kinds.
pub const MAX_KINDS: usize = 64;
/// Executor: limit on the submitters that wait for one task (an application may retry through another node).
pub const MAX_WAITERS: usize = 4;
/// Executor: limit on the owners and executors that are asked before a re-submitted task is run.
pub const MAX_ASKED: usize = 8;
/// Executor: a submitter whom a message hasn't reached gets no beat for this long, and each further time for twice as long,
/// until it is heard. Calls to clients that are gone would fill the transport's table at each tick.
pub const UNREACHED_FOR: Duration = Duration::from_secs(2);
/// Executor: one of this many beats asks the submitter for an answer. With fewer questions, less time would remain
/// between the first missing answer and [`QUIET_AFTER`].
pub const BEATS_PER_QUESTION: u32 = 3;
/// Executor: a submitter that hasn't answered for this long (three questions) gets beats at growing intervals. A
/// submitter that is still alive has noticed the missing beats by then, and submitted again.
pub const QUIET_AFTER: Duration = Duration::from_secs(10);
/// Executor: a submitter that hasn't answered for this long gets no more beats, and its outcomes are no longer owed
/// to it. A client that comes back, for example a phone after a tunnel, asks by itself.
pub const DEAF_AFTER: Duration = Duration::from_secs(300);
/// Executor: how long after a drain's limit it waits for acknowledgements, and for handlers that were told to end: a
/// round trip over a busy relay, plus the pool's grace for a handler.
pub const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// Executor: how often a fenced attempt is restarted here before it is given back to the submitter.
pub const MAX_FENCED_RESTARTS: u8 = 3;

/// Executor: a tenure ends when it was idle for between this long and twice this long, within the horizon of its last
/// task, like the outcome. If it ended sooner, each task of a key would take a new counter, which has to be made
/// durable.
pub const TENURES_AGE: Duration = Duration::from_secs(300);

/// Replica: limit on the outcomes. A full table drops the oldest of the pass that pays, for one of a pass or an
/// invitation that has fewer, and refuses any other, at the risk of a second run.
pub const MAX_RECORDS: usize = 65_536;
/// Replica: limit on the bytes of unacknowledged outcomes, shared likewise.
pub const MAX_RECORD_BYTES: usize = 256 * 1024 * 1024;
/// Replica: acknowledgements that came before their outcome. A forgotten one costs the bytes of an outcome until its
/// horizon. The list is short because it is searched for each new outcome.
pub const MAX_EARLY_ACKS: usize = 256;
/// Replica: outcomes sent to new replicas in one tick, so that a placement change causes no burst.
pub const RESYNC_BATCH: usize = 64;
/// Replica: records examined in one tick; each costs a look-up in the ring.
pub const RESYNC_SCAN: usize = 1024;
/// Replica: the interval between two such ticks.
pub const RESYNC_TICK: Duration = Duration::from_millis(200);
/// Replica: an undelivered copy is sent again after this time, so that an unreachable member isn't flooded.
pub const REDELIVER_AFTER: Duration = Duration::from_secs(5);

/// Limit on the messages that wait for `poll_transmit`. Over it a message is dropped and counted; every exchange
/// recovers from a lost message by its timer.
pub const MAX_OUTBOX: usize = 65_536;
/// Limit on the events that wait for `poll_event`. Over it only notices are dropped and counted, never a `Done`.
pub const MAX_EVENTS: usize = 65_536;
/// Executor: the payload bytes that only an invitation without a task here may use: one payload.
pub const NEWCOMER_BYTES: usize = MAX_PAYLOAD_LEN;
/// How often a submit may be forwarded. Nodes with different views can forward it in circles; four hops are more than
/// two changes of view within one round trip need.
pub const MAX_HOPS: u8 = 4;
/// How often a submitter stays with an executor that answers `Busy` before it tries the next one.
pub const MAX_BUSY_STAYS: u8 = 3;

/// Timings and sizes of one node. The defaults are the design's values; tests and small machines change them.
#[derive(Debug, Clone)]
pub struct Config {
    /// Replicas of an outcome: the first R of the key's placement list.
    pub replicas: usize,
    /// The time from submit to `Accepted`. The executor answers at once, so this is a round trip over a busy relay. A
    /// late `Accepted` is still adopted.
    pub accept_timeout: Duration,
    /// Upload speed in bytes per second below which a large payload counts as silence.
    pub upload_floor: u64,
    /// The interval between two beats of a task.
    pub beat_interval: Duration,
    /// Silence after which an accepted task is submitted to the next executor: three beats and a grace.
    pub silence: Duration,
    /// How long the executor of a re-submitted task waits for the other nodes' answers.
    pub ask_timeout: Duration,
    /// Without a live member of the kind for this long, after a completed push-pull: the task is `Infeasible` if no
    /// member has the kind, otherwise an event says that it waits.
    pub infeasible_after: Duration,
    /// The upper limit of the first random back-off; it doubles with each retry.
    pub backoff_base: Duration,
    /// The upper limit of the back-off.
    pub backoff_cap: Duration,
    /// If `finished` beats come for this long without the result, the submitter asks for it again.
    pub fetch_after: Duration,
    /// The most handlers that run at once, of all kinds.
    pub concurrency: usize,
    /// The highest counter that an earlier process of this node persisted.
    pub initial_epoch: u64,
}

impl Config {
    /// The config with positive times: a timer of zero would always be due, and time would never advance.
    pub(super) fn sane(mut self) -> Config {
        let times = [
            &mut self.accept_timeout,
            &mut self.beat_interval,
            &mut self.silence,
            &mut self.ask_timeout,
            &mut self.infeasible_after,
            &mut self.fetch_after,
        ];
        for time in times {
            *time = (*time).max(Duration::from_millis(1));
        }
        self
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            replicas: 3,
            accept_timeout: Duration::from_millis(1000),
            upload_floor: 1024 * 1024,
            beat_interval: Duration::from_millis(1000),
            silence: Duration::from_millis(3500),
            ask_timeout: Duration::from_millis(1000),
            infeasible_after: Duration::from_millis(3000),
            backoff_base: Duration::from_millis(200),
            backoff_cap: Duration::from_millis(10_000),
            fetch_after: Duration::from_millis(3000),
            concurrency: 64,
            initial_epoch: 0,
        }
    }
}

/// The options of a task.
#[derive(Debug, Clone)]
pub struct SubmitOptions {
    /// The longest time until the handle resolves; at most [`MAX_LIFE`].
    pub life: Duration,
    /// The task's place among those of the same pass in the executor's queue.
    pub priority: Priority,
    /// Retriably failed attempts after which the task is a dead letter. Silence doesn't count.
    pub max_failures: u32,
    /// Workers that may be lost with the task before it is a dead letter ([`JobError::Lost`]). A worker is lost if it
    /// died or was replaced by another process after it had accepted the task and before it gave the task back.
    /// Silence and a hand-back don't count. 0 counts as 1; above [`MAX_HOLDERS`] there is no such limit.
    ///
    /// [`JobError::Lost`]: super::JobError::Lost
    pub max_losses: u32,
    /// Whether any worker with the kind may run it, and not only the key's owner and its successors. Such a task goes
    /// to the worker that is expected to end it first, so a slow one holds up none. If the handlers are
    /// [pure](KindLimits::pure), the last tasks may be run twice.
    pub anywhere: bool,
    /// Whether payload and result are in envelopes, and may be files of more than 16 MiB.
    /// A node's call `submit_large` sets it, and `submit` clears it.
    pub large: bool,
}

impl Default for SubmitOptions {
    fn default() -> SubmitOptions {
        SubmitOptions {
            life: Duration::from_secs(300),
            priority: Priority::Normal,
            max_failures: 8,
            max_losses: 3,
            anywhere: false,
            large: false,
        }
    }
}

/// The limits of one kind on this node.
#[derive(Debug, Clone)]
pub struct KindLimits {
    /// Limit on the handlers of this kind that run at once.
    pub concurrency: usize,
    /// Limit on the tasks of this kind that wait in the queue; over it, `Busy`.
    pub queue: usize,
    /// The time limit of one attempt.
    pub time_limit: Option<Duration>,
    /// Whether the handler has no effect but its result, so that a second run at the same time on another node does no
    /// harm. Submitters may run tasks that take long a second time.
    pub pure: bool,
}

impl Default for KindLimits {
    fn default() -> KindLimits {
        KindLimits { concurrency: 4, queue: 256, time_limit: None, pure: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_zero_becomes_a_millisecond_and_others_stay() {
        let zero =
            Config { accept_timeout: Duration::ZERO, fetch_after: Duration::ZERO, ..Config::default() };
        let sane = zero.sane();
        let least = Duration::from_millis(1);
        assert_eq!((sane.accept_timeout, sane.fetch_after), (least, least));
        assert_eq!(Config { silence: least, ..Config::default() }.sane().silence, least);
        assert_eq!(sane.silence, Config::default().silence);
    }
}
