//! Limits, timings and options.

use std::time::Duration;

use super::task::Priority;

/// The longest payload and the longest result: a reliable message (16 MiB) less the room of our header.
pub const MAX_PAYLOAD_LEN: usize = 16 * 1024 * 1024 - MAX_HEADER_LEN - 3;
/// The longest CBOR header of a message. A kind, a key, an error text and some keys are under 4 KiB; a batch
/// of [`MAX_BEATS`] beats is 15 KiB.
pub const MAX_HEADER_LEN: usize = 32 * 1024;
/// The longest name of a job kind; it travels in every member's metadata too.
pub const MAX_KIND_LEN: usize = 64;
/// The longest job key: enough for a path or a URL; keys are kept with each outcome for hours.
pub const MAX_KEY_LEN: usize = crate::ring::MAX_TENURE_KEY_BYTES;
/// The longest text of an error on the wire.
pub const MAX_ERROR_TEXT_LEN: usize = 1024;
/// The longest progress note; it is sent at most once a beat.
pub const MAX_PROGRESS_LEN: usize = 256;
/// The most beats of one message; more go into further messages.
pub const MAX_BEATS: usize = 512;
/// The longest life of a task: outcomes are kept for that long.
pub const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long after a task's life its outcome is kept: late copies of a submit find the outcome, not a worker.
pub const HORIZON: Duration = Duration::from_secs(600);

/// Submitter: tasks that wait for their outcome.
pub const MAX_SUBMISSIONS: usize = 16_384;
/// Submitter: payload bytes of those tasks. They are kept for re-submission.
pub const MAX_SUBMISSION_BYTES: usize = 256 * 1024 * 1024;
/// Submitter: resolved ids that are remembered, so that a late outcome is acknowledged and counted. The oldest
/// go first; a forgotten one costs an executor a few beats that nobody answers.
pub const MAX_RESOLVED: usize = 65_536;
/// Submitter: nodes that are remembered per task as addressed or as having accepted.
pub const MAX_HEARD_PER_TASK: usize = 64;
/// Submitter: processes that are remembered per task as having had it; the oldest go first.
pub const MAX_HOLDERS: usize = 64;
/// Submitter: a task that may have been lost with `n` workers waits for a time from zero to `n - 1` times this before
/// the next has it. Tasks that were on one worker when one of them killed it all go on at that moment, often to one
/// worker again: without this they would be lost together until all of them are dead letters. The first loss costs
/// nothing, since it is the common one.
pub const LOSS_SPREAD: Duration = Duration::from_secs(5);
/// Submitter: how long a node that says that it drains is passed over. It is gone before that, as a rule; if it
/// isn't, it is asked once more.
pub const DRAINING_FOR: Duration = Duration::from_secs(60);
/// Submitter: how long a node that fell silent over one task is passed over by the others, unless it is heard again. When
/// many die at once, each costs one silence, not one for each task. A death is known by then; one that isn't dead has
/// another chance.
pub const SILENT_FOR: Duration = Duration::from_secs(10);
/// Submitter: nodes that one round over the list remembers as tried. In a list that churns faster than it is
/// walked, a new round begins here.
pub const MAX_TRIED: usize = 4096;
/// Submitter: dead letters kept for a retry; the oldest go first.
pub const MAX_DEAD_LETTERS: usize = 256;
/// Submitter: payload bytes of dead letters.
pub const MAX_DEAD_LETTER_BYTES: usize = 64 * 1024 * 1024;

/// Executor: tasks that are asked about, queued or running.
pub const MAX_EXECUTIONS: usize = 4096;
/// Executor: payload bytes of those tasks; over it, `Busy`.
pub const MAX_EXECUTION_BYTES: usize = 256 * 1024 * 1024;
/// Executor: registered kinds.
pub const MAX_KINDS: usize = 64;
/// Executor: submitters that wait for one task at once (an application that retries through another node).
pub const MAX_WAITERS: usize = 4;
/// Executor: owners and executors that are asked before a re-submitted task is run.
pub const MAX_ASKED: usize = 8;
/// Executor: every so many beats one asks the submitter for an answer. Fewer answers would leave less time between the
/// first that is missing and [`QUIET_AFTER`].
pub const BEATS_PER_QUESTION: u32 = 3;
/// Executor: a submitter that hasn't answered for so long (three questions) is beaten to ever more seldom. One that is
/// there has counted the beats that it missed, and submitted again.
pub const QUIET_AFTER: Duration = Duration::from_secs(10);
/// Executor: a submitter that hasn't answered for so long is beaten to no more, and no outcome is owed to it: a phone
/// that is back from a tunnel asks by itself.
pub const DEAF_AFTER: Duration = Duration::from_secs(300);
/// Executor: how long after a drain's limit acknowledgements are waited for, and handlers that were told to end: a
/// round trip over a busy relay, and what the pool gives a handler to notice.
pub const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// Executor: how often a fenced attempt starts again here before it is given back to the submitter.
pub const MAX_FENCED_RESTARTS: u8 = 3;

/// Executor: a tenure that was idle for this long, or twice this, ends: within the horizon of its last task, like the
/// outcome. Sooner, and tasks that share a key would take a new counter each, which has to be made durable.
pub const TENURES_AGE: Duration = Duration::from_secs(300);

/// Keeper: outcomes. A full table refuses new ones and evicts nothing: the price is a possible second run.
pub const MAX_RECORDS: usize = 65_536;
/// Keeper: bytes of unacknowledged outcomes; over it a record keeps its hash only.
pub const MAX_RECORD_BYTES: usize = 256 * 1024 * 1024;
/// Keeper: acknowledgements that came before their outcome. A forgotten one costs the bytes of an outcome until
/// its horizon; the list is searched for each new outcome, so it is short.
pub const MAX_EARLY_ACKS: usize = 256;
/// Keeper: outcomes sent to new replicas in one tick, so that a placement change is no storm.
pub const RESYNC_BATCH: usize = 64;
/// Keeper: records looked at in one tick; each costs a look-up in the ring.
pub const RESYNC_SCAN: usize = 1024;
/// Keeper: the tick of that.
pub const RESYNC_TICK: Duration = Duration::from_millis(200);
/// Keeper: an undelivered copy is sent again after this; sooner would hammer a member that can't be reached.
pub const REDELIVER_AFTER: Duration = Duration::from_secs(5);

/// Messages that wait for `poll_transmit`. Over it a message is dropped and counted; every exchange recovers
/// from a lost message by its timer.
pub const MAX_OUTBOX: usize = 65_536;
/// Events that wait for `poll_event`. Over it only notices are dropped and counted, never a `Done`.
pub const MAX_EVENTS: usize = 65_536;
/// A submit is forwarded at most this often. Views that differ send it in circles; four hops are more than
/// two changes of view within one round trip.
pub const MAX_HOPS: u8 = 4;
/// How often a submitter stays with an executor that says `Busy` before it tries the next one.
pub const MAX_BUSY_STAYS: u8 = 3;

/// Timings and sizes of one node. The defaults are the design's; tests and small machines change them.
#[derive(Debug, Clone)]
pub struct Config {
    /// Replicas of an outcome: the first R of the key's placement list.
    pub replicas: usize,
    /// From submit to `Accepted`: the executor answers at once, so this is a round trip with a busy relay in
    /// it. A late `Accepted` is still adopted.
    pub accept_timeout: Duration,
    /// Upload speed in bytes per second below which a large payload counts as silence.
    pub upload_floor: u64,
    /// Between two beats of a task.
    pub beat_interval: Duration,
    /// Silence after which an accepted task is submitted to the next executor: three beats and a grace.
    pub silence: Duration,
    /// How long an owner new to a re-submitted task waits for the others' answers.
    pub ask_timeout: Duration,
    /// Without any live member of the kind for this long, after a completed push-pull: `Infeasible`.
    pub infeasible_after: Duration,
    /// The first back-off is drawn from zero to this; it doubles with each retry.
    pub backoff_base: Duration,
    /// The longest back-off.
    pub backoff_cap: Duration,
    /// After `finished` beats for this long without the result, the submitter asks for it again.
    pub fetch_after: Duration,
    /// The most handlers that run at once, of all kinds.
    pub concurrency: usize,
    /// The highest counter that a former process of this node persisted.
    pub initial_epoch: u64,
}

impl Config {
    /// The same with times that can't stop the clock: a timer of zero would be due for ever.
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

/// What a task may ask for.
#[derive(Debug, Clone)]
pub struct SubmitOptions {
    /// From now until the handle resolves at the latest; at most [`MAX_LIFE`].
    pub life: Duration,
    /// Its place in the executor's queue.
    pub priority: Priority,
    /// Retriably failed attempts after which the task is a dead letter. Silence doesn't count.
    pub max_failures: u32,
    /// Workers that may be lost with the task before it is a dead letter ([`JobError::Lost`]): that died, or came
    /// back as another process, after they had accepted it and before they gave it back. Silence and a hand-back
    /// don't count. 0 counts as 1; over [`MAX_HOLDERS`] there is no such limit.
    ///
    /// [`JobError::Lost`]: super::JobError::Lost
    pub max_losses: u32,
}

impl Default for SubmitOptions {
    fn default() -> SubmitOptions {
        SubmitOptions {
            life: Duration::from_secs(300),
            priority: Priority::Normal,
            max_failures: 8,
            max_losses: 3,
        }
    }
}

/// What one kind may use of this node.
#[derive(Debug, Clone)]
pub struct KindLimits {
    /// Handlers of this kind that run at once.
    pub concurrency: usize,
    /// Tasks of this kind that may wait for a place; over it, `Busy`.
    pub queue: usize,
    /// The longest run of one attempt.
    pub time_limit: Option<Duration>,
}

impl Default for KindLimits {
    fn default() -> KindLimits {
        KindLimits { concurrency: 4, queue: 256, time_limit: None }
    }
}
