//! What the planes of a node say to each other.
//!
//! Every channel is bounded. The network plane never waits for another: what it can't hand up is dropped and
//! counted, and the protocols above recover by their own timers. An API call waits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::{MemberInfo, Status};
use crate::Error;
use crate::compute::job::{Drained, MemberChange, SubmitOptions, TaskId};
use crate::key::PublicKey;
use crate::replication::crdt::Digest;
use crate::ring::RingMember;
use crate::rt::sync::{mpsc, oneshot};
use crate::transport::Priority;
use crate::transport::core::Datagram;

/// Commands that wait for the network plane. It takes hundreds at a turn; more would only add delay.
pub(super) const NET_QUEUE: usize = 1_024;

/// Messages from peers that wait for the state plane. Over it they are dropped and counted: jobs and state
/// repeat what matters.
pub(super) const STATE_QUEUE: usize = 4_096;

/// Application datagram batches, messages and group bodies that wait for the application.
pub(super) const APPLICATION_QUEUE: usize = 1_024;

/// Bytes of datagrams that wait for the application: two seconds at 64 Mbit/s. More of them are dropped.
pub(super) const WAITING_DATAGRAM_BYTES: usize = 16 << 20;

/// Bytes of messages that wait for the application: four of the largest. More of them are dropped, though
/// their senders were told that they arrived: holding back here would hold back jobs and state too.
pub(super) const WAITING_MESSAGE_BYTES: usize = 64 << 20;

/// What waits for the application, in bytes: the queues alone would bound only how many there are.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) datagrams: Bytewise,
    pub(super) messages: Bytewise,
}

impl Waiting {
    pub(super) fn new() -> Waiting {
        Waiting {
            datagrams: Bytewise::new(WAITING_DATAGRAM_BYTES),
            messages: Bytewise::new(WAITING_MESSAGE_BYTES),
        }
    }
}

/// A bound in bytes, shared by the one who fills a queue and the one who empties it.
#[derive(Debug, Clone)]
pub(super) struct Bytewise {
    waiting: Arc<AtomicUsize>,
    limit: usize,
}

impl Bytewise {
    pub(super) fn new(limit: usize) -> Bytewise {
        Bytewise { waiting: Arc::default(), limit }
    }

    /// Takes room for so many bytes, if there is any. There is one taker.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let fits = self.waiting.load(Ordering::Relaxed).saturating_add(bytes) <= self.limit;
        if fits {
            self.waiting.fetch_add(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Gives room back.
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

/// To the network plane.
pub(super) enum NetCommand {
    /// Application datagrams to one peer.
    Datagrams { to: PublicKey, bodies: Vec<Bytes> },
    /// A reliable message of the state plane.
    Message { to: PublicKey, priority: Priority, kind: u8, body: Bytes },
    /// A reliable message of the application; the answer comes when the peer has it.
    ApplicationMessage { to: PublicKey, body: Bytes, reply: Reply<Result<(), Error>> },
    /// Something for every member of a group.
    Broadcast { group: String, body: Bytes, reply: Reply<Result<(), Error>> },
    /// Joins a group.
    JoinGroup { group: String, reply: Reply<Result<(), Error>> },
    /// Leaves a group.
    LeaveGroup { group: String },
    /// Begins a session.
    Connect { peer: PublicKey, reply: Reply<Result<(), Error>> },
    /// Sends an echo request.
    Ping { peer: PublicKey, reply: Reply<Result<Pong, Error>> },
    /// The members and the ways to them.
    Members { reply: Reply<Vec<MemberInfo>> },
    /// Everything that `status` shows.
    Status { reply: Reply<Status> },
    /// Answers when a hub accepted us and a first view of the mesh is here.
    Joined { reply: Reply<Result<(), Error>> },
    /// An epoch counter that the state plane took.
    NoteEpoch(u64),
    /// Panics, as a defect would.
    #[cfg(all(test, not(feature = "sim")))]
    Panic,
    /// Leaves the mesh; the answer comes when that is told.
    Shutdown { reply: Reply<()> },
}

/// An answered ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// The round trip.
    pub rtt: Duration,
    /// Whether the way was direct when the answer came.
    pub direct: bool,
    /// The peer's address, if direct.
    pub addr: Option<SocketAddr>,
}

/// What the network plane knows of the mesh, for the state plane.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    pub(super) members: Vec<RingMember>,
    /// Whether a push-pull with another member has completed.
    pub(super) complete: bool,
    /// The highest epoch counter seen.
    pub(super) epoch: u64,
}

/// From the network plane to the state plane.
pub(super) enum StateInput {
    /// A reliable message of kind job or state.
    Message { from: PublicKey, kind: u8, body: Bytes },
    /// A message to a peer was given up.
    SendFailed { peer: PublicKey },
    /// A verdict on a member.
    Member { peer: PublicKey, change: MemberChange },
}

/// How a task's submitter follows its course.
pub(super) type Course = mpsc::Sender<super::task::TaskEvent>;

/// From the API to the state plane.
pub(super) enum StateCommand {
    /// Takes a task.
    Submit {
        kind: String,
        key: Bytes,
        payload: Bytes,
        options: SubmitOptions,
        course: Course,
        reply: Reply<Result<TaskId, Error>>,
    },
    /// Ends a task.
    Cancel { task: TaskId, reply: Reply<bool> },
    /// Changes replicated state.
    Update { key: Bytes, op: crate::replication::replicator::Op, reply: Reply<Result<(), Error>> },
    /// Reads replicated state.
    Read { key: Bytes, reply: Reply<Result<Option<crate::replication::crdt::Value>, Error>> },
    /// What the state plane counts.
    Stats { reply: Reply<StateStats> },
    /// The digest of this node's own copy of a key.
    Digest { key: Bytes, reply: Reply<Option<Digest>> },
    /// Takes no more work, and gives back what doesn't end in time; the answer comes when nothing is left.
    Drain { limit: Duration, reply: Reply<Result<Drained, Error>> },
    /// Answers when a first view of the mesh is here.
    Joined { reply: Reply<()> },
    /// Stops taking work; the answer comes when what runs has ended or been given up, and what only this node has was
    /// handed over, or nobody took it.
    Shutdown { reply: Reply<Departure> },
    /// Panics, as a defect would.
    #[cfg(all(test, not(feature = "sim")))]
    Panic,
}

/// What a node that left the mesh took with it; see [`Node::shutdown`](super::Node::shutdown).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Departure {
    /// Keys whose newest writes neither another node has nor this node's store: they are lost.
    pub lost: usize,
    /// Keys whose newest writes only this node's store has: the mesh sees them when the node is back.
    pub stored: usize,
}

/// What the state plane counts.
#[derive(Debug, Clone, Default)]
pub struct StateStats {
    /// The jobs' counters.
    pub jobs: crate::compute::job::Stats,
    /// What is in the jobs' tables now.
    pub jobs_now: crate::compute::job::Gauges,
    /// The replicator's counters.
    pub replication: crate::replication::replicator::Stats,
    /// Keys whose writes no owner has acknowledged yet.
    pub unacknowledged: usize,
}
