//! The assembled stack: one [`Node`] per process that takes part in a mesh.
//!
//! A node runs on three planes ([`crate::rt::task::Plane`]): sessions, paths and failure detector on the
//! network plane, ring, jobs and replicated state on the state plane, handlers on a pool. The handle is
//! cheap to clone; when the last clone is dropped, or after [`Node::shutdown`], the threads end.
//!
//! Every call is bounded in memory: it waits while a queue is full, or fails with a typed [`Error`].

mod builder;
mod command;
mod ending;
mod event;
mod levels;
mod log;
mod net_plane;
mod state;
mod state_plane;
mod task;
#[cfg(all(test, not(feature = "sim")))]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::command::{NetCommand, StateCommand};
use crate::compute::job::{Drained, SubmitOptions, TaskId};
use crate::error::{Error, HubFailure, RefusedBy};
use crate::key::PublicKey;
use crate::membership::join::Obstacle;
use crate::membership::{Roles, State};
use crate::net::hub_client::DownReason;
use crate::replication::crdt::Digest;
use crate::rt::sync::{Mutex, mpsc, oneshot};
use crate::rt::task::Planes;
use crate::rt::time;
use crate::transport::core::Datagram;
use crate::transport::{self, PathInfo};

pub use builder::Builder;
pub use command::{Departure, Pong, StateStats};
pub use event::{Events, NodeEvent};
pub use state::{Counter, Register, Set};
pub use task::{Task, TaskEvent};

/// What a node is in its mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Owns keys, holds state and runs jobs; gossips and is probed.
    Worker,
    /// Gossips and is probed, owns nothing: a client that stays for long.
    Member,
    /// Looks and submits; nobody gossips about it or probes it: a client that goes soon.
    Observer,
}

/// A member as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberInfo {
    /// Who.
    pub key: PublicKey,
    /// Its state.
    pub state: State,
    /// The incarnation that the state belongs to.
    pub incarnation: u64,
    /// Its process.
    pub boot: u64,
    /// What it does for the mesh.
    pub roles: Roles,
    /// The kinds of jobs that it runs.
    pub kinds: Vec<String>,
    /// Its share of the keys.
    pub weight: u16,
    /// Its failure zone.
    pub zone: String,
    /// The version of its software.
    pub version: String,
    /// How it is reached.
    pub path: PathInfo,
}

/// A hub as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubInfo {
    /// Its key.
    pub key: PublicKey,
    /// `host:port` from the ticket.
    pub addr: String,
    /// Whether we are registered there.
    pub up: bool,
    /// The last PING's round trip.
    pub rtt: Option<Duration>,
    /// Our addresses as it sees them, one of each family at most.
    pub reflexive: Vec<SocketAddr>,
    /// Why it is down; `None` while it is up, and before a first attempt has failed.
    pub down: Option<DownReason>,
}

impl HubInfo {
    /// The hub as one that can't be used; `None` while it is up. A first attempt that goes on still hasn't reached
    /// anybody.
    pub(crate) fn failure(&self) -> Option<HubFailure> {
        let reason = self.down.unwrap_or(DownReason::Unreachable);
        (!self.up).then(|| HubFailure { addr: self.addr.clone(), reason })
    }
}

/// What the network plane counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetStats {
    /// Datagrams of the application that could not be sent.
    pub refused_datagrams: u64,
    /// Datagrams, messages and group bodies that the application didn't take in time.
    pub application_dropped: u64,
    /// Inputs that the state plane didn't take in time.
    pub state_dropped: u64,
    /// Messages given up because too many were waiting.
    pub messages_given_up: u64,
}

/// Everything that `nurl status` shows.
#[derive(Debug, Clone)]
pub struct Status {
    /// Who we are.
    pub key: PublicKey,
    /// Our process.
    pub boot: u64,
    /// The hubs of the ticket.
    pub hubs: Vec<HubInfo>,
    /// The other members, by key.
    pub members: Vec<MemberInfo>,
    /// The network plane's counters.
    pub net: NetStats,
    /// The seam's counters.
    pub transport: transport::Stats,
    /// How full the seam is now.
    pub transport_now: transport::Gauges,
    /// What keeps this node out of the mesh, as long as it hasn't joined.
    pub obstacle: Obstacle,
}

/// Datagrams on their way to the application.
struct Datagrams {
    batches: mpsc::Receiver<Vec<Datagram>>,
    /// The rest of a batch of which [`Node::recv`] has taken the first.
    begun: VecDeque<Datagram>,
}

/// A handle on a running node. Cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    key: PublicKey,
    local_addrs: Vec<SocketAddr>,
    net: mpsc::Sender<NetCommand>,
    state: mpsc::Sender<StateCommand>,
    ending: ending::Ending,
    bus: event::Bus,
    datagrams: Mutex<Datagrams>,
    messages: Mutex<mpsc::Receiver<(PublicKey, Bytes)>>,
    groups: Mutex<mpsc::Receiver<(String, PublicKey, Bytes)>>,
    waiting: command::Waiting,
    // Last, so that the threads end after everything that talks to them.
    _planes: Planes,
}

impl Node {
    /// Begins to build a node of the mesh that `ticket` names.
    pub fn builder(ticket: crate::mesh::Ticket) -> Builder {
        Builder::new(ticket)
    }

    /// Who this node is.
    pub fn key(&self) -> PublicKey {
        self.0.key
    }

    /// The UDP addresses bound.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.0.local_addrs
    }

    /// Waits until a hub has accepted us and a first view of the mesh is here, for jobs and state too.
    ///
    /// # Errors
    /// [`Error::HubRefused`] as soon as every hub, having proved its key, has said no; [`Error::HubUnreachable`]
    /// [`Error::Refused`] or [`Error::Busy`] after `limit`. The node goes on trying by itself.
    pub async fn joined(&self, limit: Duration) -> Result<(), Error> {
        let joined = async {
            self.ask(|reply| NetCommand::Joined { reply }).await??;
            self.ask_state(|reply| StateCommand::Joined { reply }).await
        };
        match time::timeout(limit, joined).await {
            Ok(answer) => answer,
            Err(_) => Err(self.kept_out(&self.status().await?)),
        }
    }

    /// The error for what keeps this node out of the mesh: one for each cause, by what was seen and no more.
    fn kept_out(&self, status: &Status) -> Error {
        let hubs = status.hubs.iter();
        match status.obstacle {
            Obstacle::NoHub => Error::HubUnreachable { hubs: hubs.filter_map(HubInfo::failure).collect() },
            Obstacle::HubSilent => {
                let silent =
                    |hub: &HubInfo| HubFailure { addr: hub.addr.clone(), reason: DownReason::Silent };
                Error::HubUnreachable {
                    hubs: hubs.map(|hub| hub.failure().unwrap_or_else(|| silent(hub))).collect(),
                }
            }
            Obstacle::NoAnswer => RefusedBy::Members.into(),
            Obstacle::NoTable => Error::Busy("members answer, but none has told us the mesh's table in time"),
        }
    }

    /// The other members, by key, and how each is reached.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn members(&self) -> Result<Vec<MemberInfo>, Error> {
        self.ask(|reply| NetCommand::Members { reply }).await
    }

    /// Everything that `nurl status` shows.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn status(&self) -> Result<Status, Error> {
        self.ask(|reply| NetCommand::Status { reply }).await
    }

    /// What the state plane counts.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn state_stats(&self) -> Result<StateStats, Error> {
        self.ask_state(|reply| StateCommand::Stats { reply }).await
    }

    /// Subscribes to what happens from now on.
    pub fn events(&self) -> Events {
        self.0.bus.subscribe()
    }

    // ---- Jobs.

    /// Gives a task to the owner of `key` for `kind`. The key decides who runs it; equal keys go to one
    /// worker as long as the members are the same.
    ///
    /// # Errors
    /// [`Error::Submit`] when it is not taken: too large, too many under way.
    pub async fn submit(
        &self,
        kind: &str,
        key: &[u8],
        payload: Bytes,
        options: SubmitOptions,
    ) -> Result<Task, Error> {
        let (course, events) = mpsc::channel(task::COURSE);
        let (kind, key) = (kind.to_owned(), Bytes::copy_from_slice(key));
        let id = self
            .ask_state(|reply| StateCommand::Submit { kind, key, payload, options, course, reply })
            .await??;
        Ok(Task { id, course: events })
    }

    /// Cancels a task of ours: its handle ends with `Cancelled`. Says whether it was still open.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn cancel(&self, task: TaskId) -> Result<bool, Error> {
        self.ask_state(|reply| StateCommand::Cancel { task, reply }).await
    }

    // ---- State.

    /// A replicated counter.
    pub fn counter(&self, key: &str) -> Counter {
        Counter::new(self, key)
    }

    /// A replicated register: the last writer wins.
    pub fn register(&self, key: &str) -> Register {
        Register::new(self, key)
    }

    /// A replicated set: an add wins over a concurrent remove.
    pub fn set(&self, key: &str) -> Set {
        Set::new(self, key)
    }

    /// The digest of this node's own copy of a key, if it holds one: equal digests are equal bytes. It asks
    /// nobody, so the owners' copies can be compared.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn held_digest(&self, key: &str) -> Result<Option<Digest>, Error> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.ask_state(|reply| StateCommand::Digest { key, reply }).await
    }

    // ---- The seam.

    /// Sends a datagram of at most [`transport::MAX_DATAGRAM_BYTES`]; it may be lost. Waits while the
    /// network plane has too much to send.
    ///
    /// # Errors
    /// [`Error::Send`] when it is too large; [`Error::Closed`].
    pub async fn send(&self, to: PublicKey, body: Bytes) -> Result<(), Error> {
        self.send_many(to, vec![body]).await
    }

    /// Sends many datagrams at once: the way to a high rate.
    ///
    /// # Errors
    /// As [`send`](Node::send); none is sent then.
    pub async fn send_many(&self, to: PublicKey, bodies: Vec<Bytes>) -> Result<(), Error> {
        if let Some(large) = bodies.iter().find(|body| body.len() > transport::MAX_DATAGRAM_BYTES) {
            return Err(transport::SendError::TooLarge(large.len()).into());
        }
        self.tell(NetCommand::Datagrams { to, bodies }).await
    }

    /// The next datagram; `None` after shutdown. One caller at a time gets each.
    pub async fn recv(&self) -> Option<Datagram> {
        let mut datagrams = self.0.datagrams.lock().await;
        if datagrams.begun.is_empty() {
            datagrams.begun = datagrams.batches.recv().await?.into();
        }
        let datagram = datagrams.begun.pop_front()?;
        self.0.waiting.datagrams.give(command::datagram_bytes(std::slice::from_ref(&datagram)));
        Some(datagram)
    }

    /// The datagrams that came, in batches, none of them empty: the way to a high rate. `None` after shutdown. One caller
    /// at a time gets each batch.
    pub async fn recv_many(&self) -> Option<Vec<Datagram>> {
        let mut datagrams = self.0.datagrams.lock().await;
        let batch = match std::mem::take(&mut datagrams.begun) {
            begun if begun.is_empty() => datagrams.batches.recv().await?,
            begun => begun.into(),
        };
        self.0.waiting.datagrams.give(command::datagram_bytes(&batch));
        Some(batch)
    }

    /// Sends a reliable message of at most 16 MiB, and waits until the peer's node has it. An application
    /// there that lets 64 MiB of messages wait loses the next ones; its node counts them.
    ///
    /// # Errors
    /// [`Error::Message`] or [`Error::Send`] when it was not taken, [`Error::MessageLost`] when the peer's process ended before
    /// it acknowledged, or when a peer that is no member could not be reached.
    pub async fn send_message(&self, to: PublicKey, body: Bytes) -> Result<(), Error> {
        self.ask(|reply| NetCommand::ApplicationMessage { to, body, reply }).await?
    }

    /// The next reliable message; `None` after shutdown.
    pub async fn recv_message(&self) -> Option<(PublicKey, Bytes)> {
        let (from, body) = self.0.messages.lock().await.recv().await?;
        self.0.waiting.messages.give(body.len());
        Some((from, body))
    }

    /// Joins a group, so that [`recv_group`](Node::recv_group) gets what is broadcast to it.
    ///
    /// # Errors
    /// [`Error::Group`] when we are in too many.
    pub async fn join_group(&self, group: &str) -> Result<(), Error> {
        let group = group.to_owned();
        self.ask(|reply| NetCommand::JoinGroup { group, reply }).await?
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn leave_group(&self, group: &str) -> Result<(), Error> {
        self.tell(NetCommand::LeaveGroup { group: group.to_owned() }).await
    }

    /// Sends a body of at most a datagram's size to every member of a group that we joined: one uplink, the
    /// hub fans it out without being able to read it. It may be lost.
    ///
    /// # Errors
    /// [`Error::Group`].
    pub async fn broadcast(&self, group: &str, body: Bytes) -> Result<(), Error> {
        let group = group.to_owned();
        self.ask(|reply| NetCommand::Broadcast { group, body, reply }).await?
    }

    /// The next body broadcast to one of our groups: its name, who claims to have sent it, the body.
    pub async fn recv_group(&self) -> Option<(String, PublicKey, Bytes)> {
        self.0.groups.lock().await.recv().await
    }

    /// Begins a session with a peer, so that the first datagram doesn't wait for a handshake.
    ///
    /// # Errors
    /// [`Error::Send`] when the peer may have none.
    pub async fn connect(&self, peer: PublicKey) -> Result<(), Error> {
        self.ask(|reply| NetCommand::Connect { peer, reply }).await?
    }

    /// Measures the way to a peer.
    ///
    /// # Errors
    /// [`Error::Deadline`] when no answer came within `limit`, [`Error::Send`] when the peer may have no
    /// session, [`Error::Busy`].
    pub async fn ping(&self, peer: PublicKey, limit: Duration) -> Result<Pong, Error> {
        match time::timeout(limit, self.ask(|reply| NetCommand::Ping { peer, reply })).await {
            Ok(answer) => answer?,
            Err(_) => Err(Error::Deadline(limit)),
        }
    }

    /// Takes no more work from now on. What waits here for its turn starts elsewhere at once; what runs may come to
    /// its end within `limit`, and is ended and starts elsewhere after it. The answer comes when nothing is left,
    /// at most [`DRAIN_GRACE`](crate::compute::job::options::DRAIN_GRACE) after the limit; a
    /// [`shutdown`](Node::shutdown) follows it. The node goes on with everything else: it owns keys, holds state and
    /// can submit. There is no way back.
    ///
    /// # Errors
    /// [`Error::Busy`] while another call waits, [`Error::Closed`].
    pub async fn drain(&self, limit: Duration) -> Result<Drained, Error> {
        self.ask_state(|reply| StateCommand::Drain { limit, reply }).await?
    }

    /// Leaves the mesh, tells it so, and ends the node's threads. What runs here is ended and given back: other
    /// workers take it over at once. What only this node has is handed to other owners first, for 2 s at most: the
    /// answer says what nobody took.
    pub async fn shutdown(&self) -> Departure {
        // Either plane may have ended already; then there is nothing to wait for.
        let departure = self.call_state(|reply| StateCommand::Shutdown { reply }).await.unwrap_or_default();
        let _ = self.call(|reply| NetCommand::Shutdown { reply }).await;
        departure
    }

    async fn tell(&self, command: NetCommand) -> Result<(), Error> {
        match self.0.ending.cause() {
            Some(error) => Err(error),
            None if self.0.net.send(command).await.is_ok() => Ok(()),
            None => Err(self.0.ending.of_net().await),
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> NetCommand) -> Result<T, Error> {
        if let Some(error) = self.0.ending.cause() {
            return Err(error);
        }
        match self.call(command).await {
            Some(answer) => Ok(answer),
            None => Err(self.0.ending.of_net().await),
        }
    }

    async fn ask_state<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> StateCommand,
    ) -> Result<T, Error> {
        if let Some(error) = self.0.ending.cause() {
            return Err(error);
        }
        match self.call_state(command).await {
            Some(answer) => Ok(answer),
            None => Err(self.0.ending.of_state().await),
        }
    }

    async fn call<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> NetCommand) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.0.net.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    async fn call_state<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> StateCommand) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.0.state.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}
