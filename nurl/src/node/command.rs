//! The messages between a node's planes and its API.
//!
//! Every channel is bounded. The network plane never waits for another plane: if a queue is full, it drops and counts
//! the input, and the protocols above recover by their own timers. An API call waits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::{MemberInfo, Metrics, Status, large};
use crate::Error;
use crate::authority::pass::Pass;
use crate::authority::revocation::Revocation;
use crate::authority::rotation::SignedSecret;
use crate::compute::blob::desk::Offered;
use crate::compute::job::custody::{Mark, Told};
use crate::compute::job::warrant::Detached;
use crate::compute::job::{Drained, MemberChange, SubmitOptions, Submitter, TaskId};
use crate::key::{AllowList, PublicKey};
use crate::replication::crdt::{Kind, Value};
use crate::replication::replicator::{Confirm, NamePage, NameQuery, Op};
use crate::ring::RingMember;
use crate::rt::sync::{mpsc, oneshot, watch};
use crate::transport::Priority;
use crate::transport::core::Datagram;

/// What a read found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The merged state; none if nobody who answered has one.
    pub(super) value: Option<Value>,
    /// Whether confirmed writes may be missing, because too few owners answered.
    pub(super) partial: bool,
}

/// Commands queued for a plane. The network plane takes up to 64 in one turn; a longer queue would only add delay.
pub(super) const NET_QUEUE: usize = 1_024;

/// Callers of [`Node::joined`](super::Node::joined) that wait in one plane; a further one is told so.
pub(super) const MAX_JOINING: usize = 1_024;

/// The answer to a caller above [`MAX_JOINING`].
pub(super) const TOO_MANY_JOINING: Error = Error::Busy("too many callers wait for this node to join");

/// Peer messages queued for the work plane. Above the limit they are dropped and counted: the job and state
/// protocols repeat the important ones.
pub(super) const WORK_QUEUE: usize = 4_096;

/// Application datagram batches, messages and group bodies queued for the application.
pub(super) const APPLICATION_QUEUE: usize = 1_024;

/// Bytes of datagrams queued for the application: two seconds at 64 Mbit/s. More of them are dropped.
pub(super) const WAITING_DATAGRAM_BYTES: usize = 16 << 20;

/// Bytes of messages queued for the application: four of the largest. More of them are dropped, though their senders
/// were told that they arrived: backpressure here would hold back jobs and state too.
pub(super) const WAITING_MESSAGE_BYTES: usize = 64 << 20;

/// Byte limits of the application's queues, which themselves limit only the number of items.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) datagrams: Bytewise,
    pub(super) messages: Bytewise,
    pub(super) large: Bytewise,
}

impl Waiting {
    pub(super) fn new() -> Waiting {
        Waiting {
            datagrams: Bytewise::new(WAITING_DATAGRAM_BYTES),
            messages: Bytewise::new(WAITING_MESSAGE_BYTES),
            large: Bytewise::new(large::WAITING_BYTES),
        }
    }
}

/// A limit in bytes, shared by the producer and the consumer of a queue.
#[derive(Debug, Clone)]
pub(super) struct Bytewise {
    waiting: Arc<AtomicUsize>,
    limit: usize,
}

impl Bytewise {
    pub(super) fn new(limit: usize) -> Bytewise {
        Bytewise { waiting: Arc::default(), limit }
    }

    /// Reserves `bytes`, if they fit. There must be only one caller.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let fits = self.waiting.load(Ordering::Relaxed).saturating_add(bytes) <= self.limit;
        if fits {
            self.waiting.fetch_add(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Releases reserved bytes.
    pub(super) fn give(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The bytes of a batch.
pub(super) fn datagram_bytes(batch: &[Datagram]) -> usize {
    batch.iter().map(|datagram| datagram.body.len()).sum()
}

/// An answer to an API call.
pub(super) type Reply<T> = oneshot::Sender<T>;

/// Who got the mesh's next secret from the node that rotated it; see [`Node::rotate`](super::Node::rotate).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HandedOver {
    /// A hub that issues passes has it: it hands it to everybody who registers there.
    pub by_hub: bool,
    /// Members that have acknowledged it, if no hub issues.
    pub members: usize,
    /// Members that haven't.
    pub missed: usize,
}

/// A command to the network plane.
pub(super) enum NetCommand {
    /// Application datagrams to one peer.
    Datagrams { to: PublicKey, bodies: Vec<Bytes> },
    /// A reliable message of the work plane.
    Message { to: PublicKey, priority: Priority, kind: u8, body: Bytes },
    /// A reliable message of the application; the reply comes when the peer has acknowledged it.
    ApplicationMessage { to: PublicKey, body: Bytes, reply: Reply<Result<(), Error>> },
    /// A message about a large file; the reply comes when the peer has acknowledged it.
    LargeFile { to: PublicKey, priority: Priority, body: Bytes, reply: Reply<Result<(), Error>> },
    /// A body for every member of a group.
    Broadcast { group: String, body: Bytes, reply: Reply<Result<(), Error>> },
    /// A small body for every member of the mesh, by gossip.
    Gossip { body: Bytes, reply: Reply<Result<(), Error>> },
    /// Joins a group of the peers on a list.
    JoinGroup { group: String, allow: AllowList, reply: Reply<Result<(), Error>> },
    /// Leaves a group.
    LeaveGroup { group: String },
    /// Begins a session.
    Connect { peer: PublicKey, reply: Reply<Result<(), Error>> },
    /// Sends an echo request.
    Ping { peer: PublicKey, reply: Reply<Result<Pong, Error>> },
    /// The members and the paths to them.
    Members { reply: Reply<Vec<MemberInfo>> },
    /// Hands out the mesh's next secret.
    HandOver { secret: Box<SignedSecret>, reply: Reply<Result<HandedOver, Error>> },
    /// Everything that `status` shows.
    Status { reply: Reply<Status> },
    /// The counters and gauges of this plane.
    Metrics { reply: Reply<Metrics> },
    /// Replies when a hub has accepted this node and a first view of the mesh has arrived.
    Joined { reply: Reply<Result<(), Error>> },
    /// An entry of the authority; the reply comes when a hub or a member has it.
    Revoke { entry: Revocation, reply: Reply<Result<(), Error>> },
    /// An epoch counter that the work plane took.
    NoteEpoch(u64),
    /// Why the node's store fails; none: it works again.
    DiskFails(Option<Arc<str>>),
    /// Panics, as a defect would.
    #[cfg(all(test, not(feature = "sim")))]
    Panic,
    /// Leaves the mesh; the reply comes when the leave was announced.
    Shutdown { reply: Reply<()> },
}

/// An answered ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// The round trip.
    pub rtt: Duration,
    /// Whether the path was direct when the answer came.
    pub direct: bool,
    /// The peer's address, if direct.
    pub addr: Option<SocketAddr>,
}

/// The network plane's knowledge of the mesh, for the work plane.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    pub(super) members: Vec<RingMember>,
    /// Whether a push-pull with another member has completed.
    pub(super) complete: bool,
    /// The highest epoch counter seen.
    pub(super) epoch: u64,
}

/// An input from the network plane to the work plane.
pub(super) enum WorkInput {
    /// A reliable message of kind job or state.
    Message { from: Submitter, kind: u8, body: Bytes },
    /// A message to a peer failed.
    SendFailed { peer: PublicKey },
    /// This node has a new pass.
    Issued(Pass),
    /// This node has signed a pass for another one.
    Signed(Pass),
    /// The authority revoked something.
    Revoked(Vec<Revocation>),
    /// The mesh has a new secret: what a node with a store keeps of it.
    Rotated(Zeroizing<Vec<u8>>),
    /// A verdict on a member.
    Member { peer: PublicKey, change: MemberChange },
}

/// What a watch has found last; nothing at first.
pub(super) type Watched = watch::Receiver<Option<Found>>;

/// The channel by which a submitter follows its task.
pub(super) type Course = mpsc::Sender<super::task::TaskEvent>;

/// What the keepers of detached tasks are asked.
pub(super) enum DetachedCall {
    /// Take a task.
    Deposit { task: TaskId, kind: String, key: Bytes, payload: Bytes, job: Detached },
    /// Tell its status when it isn't `seen`, and its outcome once there is one.
    Ask { task: TaskId, seen: Option<Mark>, wait: Duration, outcome: bool },
    /// Tell what is to be done in it.
    Content { task: TaskId },
    /// End it.
    Cancel { task: TaskId },
    /// Tell all that are this node's own.
    List,
}

/// A command from the API to the work plane.
pub(super) enum WorkCommand {
    /// Takes a task.
    Submit {
        kind: String,
        key: Bytes,
        payload: Bytes,
        /// The file of which the payload is the manifest.
        file: Option<Offered>,
        options: SubmitOptions,
        course: Course,
        reply: Reply<Result<TaskId, Error>>,
    },
    /// Ends a task.
    Cancel { task: TaskId, reply: Reply<bool> },
    /// Asks the keepers of detached tasks.
    Detached { call: DetachedCall, reply: Reply<Result<Told, Error>> },
    /// This node's own copies of detached tasks.
    #[cfg_attr(
        not(feature = "internals"),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    HeldTasks { reply: Reply<Vec<(TaskId, Mark, bool)>> },
    /// The id of a task of this name.
    NamedTask { name: String, reply: Reply<TaskId> },
    /// Changes replicated state.
    Update { name: Bytes, op: Op, confirm: Confirm, reply: Reply<Result<(), Error>> },
    /// Reads replicated state.
    Read { kind: Kind, name: Bytes, reply: Reply<Result<Found, Error>> },
    /// Lists names of replicated state.
    List { query: NameQuery, reply: Reply<Result<NamePage, Error>> },
    /// Watches replicated state, as long as somebody reads what is found.
    Watch { kind: Kind, name: Bytes, reply: Reply<Result<Watched, Error>> },
    /// The work plane's counters.
    Stats { reply: Reply<WorkStats> },
    /// This node's own copy of a key.
    #[cfg_attr(
        not(feature = "internals"),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    Held { key: Vec<u8>, reply: Reply<Option<Value>> },
    /// Stops taking work and gives back tasks that don't end in time; the reply comes when no task is left.
    Drain { limit: Duration, reply: Reply<Result<Drained, Error>> },
    /// Replies when a first view of the mesh has arrived.
    Joined { reply: Reply<Result<(), Error>> },
    /// Stops taking work. The reply comes when running tasks have ended or been given up, and writes that only this
    /// node has were handed over, or no owner took them.
    Shutdown { reply: Reply<Departure> },
    /// Panics, as a defect would.
    #[cfg(all(test, not(feature = "sim")))]
    Panic,
}

/// The unreplicated writes of a node that left the mesh; see [`Node::shutdown`](super::Node::shutdown).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Departure {
    /// Keys whose newest writes are neither on another node nor in this node's store: they are lost.
    pub lost: usize,
    /// Keys whose newest writes are only in this node's store: the mesh sees them when the node is back.
    pub stored: usize,
}

/// The failures of a node's store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Commits that failed.
    pub failures: u64,
    /// 1 while the store fails, and the node takes no writes.
    pub failing: u64,
}

/// The work plane's counters.
#[derive(Debug, Clone, Default)]
pub struct WorkStats {
    /// The jobs' counters.
    pub jobs: crate::compute::job::JobStats,
    /// The current fill levels of the jobs' tables.
    pub jobs_now: crate::compute::job::Gauges,
    /// The counters of the log of detached tasks.
    pub custody: crate::compute::job::custody::CustodyStats,
    /// Its current fill levels.
    pub custody_now: crate::compute::job::custody::CustodyGauges,
    /// The replicator's counters.
    pub replication: crate::replication::replicator::ReplicationStats,
    /// The store's failures.
    pub disk: DiskStats,
    /// Keys with writes that no owner has acknowledged yet.
    pub unacknowledged: usize,
    /// The tenures' counters.
    pub tenures: crate::ring::TenureCounters,
    /// The pool's counters.
    pub pool: Arc<crate::compute::pool::PoolStats>,
    /// Handlers that were started and whose end isn't noted yet.
    pub pool_running: usize,
    /// The counters of large files.
    pub large: Arc<super::large::LargeStats>,
}
