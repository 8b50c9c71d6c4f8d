//! The assembled stack: one [`Node`] per process that takes part in a mesh.
//!
//! A node runs on four planes ([`crate::rt::task::Plane`]): sessions, paths and failure detector on the network
//! plane, ring, jobs and replicated state on the work plane, commits of the store on the disk's, handlers on a pool.
//! The handle is cheap to clone; when the last clone is dropped, or after [`Node::shutdown`], the threads end.
//!
//! Every call is bounded in memory: it waits while a queue is full, or fails with a typed [`Error`].

mod builder;
mod command;
mod detached;
mod ending;
mod event;
mod large;
mod log;
mod metrics;
mod names;
mod net;
mod own_pass;
mod own_revocations;
mod own_secret;
mod shown;
mod signed_passes;
mod state;
mod task;
#[cfg(all(test, not(feature = "sim")))]
mod tests;
mod watch;
mod work;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::command::{NetCommand, WorkCommand};
use crate::authority::level::Level;
use crate::authority::pass::Pass;
use crate::authority::revocation::Revocation;
use crate::authority::rotation::Rotation;
use crate::compute::blob::Envelope;
use crate::compute::blob::desk::Desk;
use crate::compute::job::custody::Content;
#[cfg(feature = "internals")]
use crate::compute::job::custody::Mark;
use crate::compute::job::warrant::Detached;
use crate::compute::job::{Drained, SubmitOptions, TaskId};
use crate::error::{Error, HubFailure, RevokeError};
use crate::key::{AllowList, PublicKey};
use crate::membership::join::Obstacle;
use crate::membership::{Roles, State};
use crate::mesh::MeshId;
use crate::net::reach::hub_client::DownReason;
use crate::net::secure::version::Versions;
use crate::replication::crdt::Kind;
use crate::rt::sync::{Mutex, mpsc, oneshot};
use crate::rt::task::Planes;
use crate::rt::time;
use crate::transport::core::Datagram;
use crate::transport::{self, PathInfo};

pub use builder::Builder;
pub use command::{Departure, DiskStats, HandedOver, Pong, WorkStats};
pub use detached::{DetachedTask, DetachedTasks};
pub use event::{Events, NodeEvent};
pub use large::LargeStats;
pub use metrics::{Metric, MetricKind, Metrics};
pub use names::{Names, NamesAfter};
pub use state::{Counter, FieldValue, Map, MultiRegister, Reading, Register, Set};
pub use task::{Payload, Task, TaskEvent};
pub use watch::Watch;

/// A node's role in its mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Owns keys, holds state and runs jobs; gossips and is probed.
    Worker,
    /// Gossips and is probed, but owns no keys: for a long-lived client.
    Member,
    /// Reads and submits, but is neither gossiped about nor probed: for a short-lived client.
    Observer,
}

impl Role {
    /// The least level of pass with which the others grant it.
    pub(crate) fn needs(self) -> Level {
        match self {
            Role::Worker => Level::Worker,
            Role::Member => Level::Member,
            Role::Observer => Level::Look,
        }
    }
}

/// A member as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its public key.
    pub key: PublicKey,
    /// Its state.
    pub state: State,
    /// The incarnation that the state belongs to.
    pub incarnation: u64,
    /// The boot id of its process.
    pub boot: u64,
    /// Its roles in the mesh.
    pub roles: Roles,
    /// The kinds of jobs that it runs.
    pub kinds: Vec<String>,
    /// Its share of the keys: what it claims, as far as its pass permits.
    pub weight: u16,
    /// Its failure zone, as its pass says; replicas are spread over zones.
    pub zone: String,
    /// What its places on the ring follow from, as its pass says.
    pub ring_seed: [u8; 8],
    /// The version of its software.
    pub version: String,
    /// The path to it.
    pub path: PathInfo,
}

/// A hub as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubInfo {
    /// Its key.
    pub key: PublicKey,
    /// `host:port` from the ticket.
    pub addr: String,
    /// Whether this node is registered there.
    pub up: bool,
    /// The last PING's round trip.
    pub rtt: Option<Duration>,
    /// This node's reflexive addresses as the hub sees them, one of each family at most.
    pub reflexive: Vec<SocketAddr>,
    /// Why it is down; `None` while it is up, and until the first attempt has failed.
    pub down: Option<DownReason>,
}

impl HubInfo {
    /// The reason why the hub can't be used; `None` while it is up. A first attempt still under way counts as
    /// unreachable.
    pub(crate) fn failure(&self) -> Option<HubFailure> {
        let reason = self.down.unwrap_or(DownReason::Unreachable);
        (!self.up).then(|| HubFailure { addr: self.addr.clone(), reason })
    }
}

/// Counters of the network plane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetStats {
    /// Application datagrams that could not be sent.
    pub refused_datagrams: u64,
    /// Messages of jobs and state refused: the sender's pass permits only to look.
    pub beyond_level: u64,
    /// Datagrams, messages and group bodies that the application didn't take in time.
    pub application_dropped: u64,
    /// Inputs that the work plane didn't take in time.
    pub work_dropped: u64,
    /// Messages given up because too many were queued.
    pub messages_given_up: u64,
    /// Revocations taken.
    pub revocations: u64,
    /// Messages about revocations refused: malformed, false, not asked for, or beyond a limit.
    pub revocations_refused: u64,
    /// Secrets of the mesh taken.
    pub secrets: u64,
    /// Secrets refused: malformed, not the authority's, or from somebody who lied before.
    pub secrets_refused: u64,
    /// Passes issued for others, as hubs asked.
    pub issued: u64,
    /// Hubs' requests for passes refused.
    pub not_issued: u64,
    /// Hubs' requests for passes dropped: malformed, or beyond a hub's rate.
    pub asks_dropped: u64,
}

/// Where a node's latest pass came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReachedIssuer {
    /// The issuer's key: a hub's, or that of another issuer which the hub asked.
    pub key: PublicKey,
    /// The hub through which it was reached.
    pub hub: PublicKey,
    /// When, since 1970, by this machine's clock.
    pub at: Duration,
}

/// Everything that `nurl status` shows.
#[derive(Debug, Clone)]
pub struct Status {
    /// This node's public key.
    pub key: PublicKey,
    /// The boot id of this process.
    pub boot: u64,
    /// This node's pass; `None`: it has none yet.
    pub pass: Option<Pass>,
    /// The issuer that this process reached last.
    pub issuer: Option<ReachedIssuer>,
    /// By how much this machine's clock is ahead of the authority's at least, if by more than a day: then everybody's
    /// pass has ended by it, and nobody is let in.
    pub clock_ahead: Option<Duration>,
    /// The number of the mesh's secret that this node has: one more with each rotation.
    pub generation: u32,
    /// The number of the secret that the authority announced last, as far as this node knows; 0: none.
    pub announced: u32,
    /// Why this node's store fails, if it does: then the node takes no writes, and what it learns isn't durable.
    pub disk_fails: Option<String>,
    /// The versions of the protocol that this node speaks.
    pub versions: Versions,
    /// The peers that it met in the last ten minutes and that speak none of these, and what they speak.
    pub incompatible: Vec<(PublicKey, Versions)>,
    /// The hubs of the ticket.
    pub hubs: Vec<HubInfo>,
    /// The other members, by key.
    pub members: Vec<MemberInfo>,
    /// The transport's counters, with types: for the checks of the simulated world.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub transport: transport::TransportStats,
    /// The transport's fill levels, likewise.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub transport_now: transport::Gauges,
    /// The digest of all revocations that this node knows.
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub revocations: crate::authority::revocation::RevocationsDigest,
    /// The reason why this node hasn't joined; meaningful only until it has.
    pub obstacle: Obstacle,
}

/// Datagrams queued for the application.
struct Datagrams {
    batches: mpsc::Receiver<Vec<Datagram>>,
    /// The rest of a batch from which [`Node::recv`] has already taken datagrams.
    begun: VecDeque<Datagram>,
}

/// A handle on a running node. Cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    key: PublicKey,
    mesh: MeshId,
    local_addrs: Vec<SocketAddr>,
    net: mpsc::Sender<NetCommand>,
    work: mpsc::Sender<WorkCommand>,
    desk: Desk,
    ending: ending::Ending,
    bus: event::Bus,
    datagrams: Mutex<Datagrams>,
    messages: Mutex<mpsc::Receiver<(PublicKey, Bytes)>>,
    groups: Mutex<mpsc::Receiver<(String, PublicKey, Bytes)>>,
    waiting: command::Waiting,
    // Last, so that the threads end after every sender to them.
    _planes: Planes,
}

impl Node {
    /// A builder for a node of the mesh that `ticket` names.
    pub fn builder(ticket: crate::mesh::Ticket) -> Builder {
        Builder::new(ticket)
    }

    /// This node's public key.
    pub fn key(&self) -> PublicKey {
        self.0.key
    }

    /// The mesh.
    pub fn mesh(&self) -> MeshId {
        self.0.mesh
    }

    /// The UDP addresses bound.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.0.local_addrs
    }

    /// Waits until a hub has accepted this node and a first view of the mesh has arrived, for jobs and state too.
    ///
    /// # Errors
    /// [`Error::HubRefused`] as soon as every hub has proved its key and refused this node;
    /// [`Error::Refused`] if its pass permits less than its role; [`Error::HubUnreachable`], [`Error::Refused`] or [`Error::Busy`] after `limit`, and [`Error::Busy`] at once if a
    /// thousand others wait. The node itself goes on trying.
    pub async fn joined(&self, limit: Duration) -> Result<(), Error> {
        let joined = async {
            self.ask(|reply| NetCommand::Joined { reply }).await??;
            self.ask_work(|reply| WorkCommand::Joined { reply }).await?
        };
        match time::timeout(limit, joined).await {
            Ok(answer) => answer,
            Err(_) => {
                let status = self.status().await?;
                Err(net::kept_out(status.obstacle, &status.hubs, status.clock_ahead))
            }
        }
    }

    /// The other members, by key, and the path to each.
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

    /// Every counter and gauge of this node, by name.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn metrics(&self) -> Result<Metrics, Error> {
        let mut metrics = self.ask(|reply| NetCommand::Metrics { reply }).await?;
        let work = self.ask_work(|reply| WorkCommand::Stats { reply }).await?;
        metrics.add_work(&work);
        Ok(metrics)
    }

    /// The counters of the work plane alone, with types: for the checks of the simulated world.
    ///
    /// # Errors
    /// [`Error::Closed`].
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub async fn work_stats(&self) -> Result<WorkStats, Error> {
        self.ask_work(|reply| WorkCommand::Stats { reply }).await
    }

    /// Subscribes to all later events.
    pub fn events(&self) -> Events {
        self.0.bus.subscribe()
    }

    // ---- Who belongs.

    /// Tells the mesh what its authority has revoked. At once it acts here: sessions and tasks of whom it concerns end, and
    /// they are no members any more; within seconds it acts everywhere that can be reached. The call returns when a hub has
    /// taken the entry; if none can be reached, when a member has.
    ///
    /// ```no_run
    /// # async fn lost(node: nurl::Node, phone: nurl::PublicKey) -> Result<(), Box<dyn std::error::Error>> {
    /// use nurl::pass::{AuthorityKey, Subject};
    ///
    /// let authority = AuthorityKey::load("authority.key".as_ref())?;
    /// let now = nurl::rt::time::unix_now().as_secs() as u32;
    /// node.revoke(authority.revoke(Subject::Key(phone), now)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Revoke`]: the entry is another mesh's, or nobody has acknowledged it within 10 s. In the latter case it
    /// holds here, and this node passes it on when it reaches somebody.
    pub async fn revoke(&self, entry: Revocation) -> Result<(), Error> {
        if !entry.is_of(&self.0.mesh) {
            return Err(RevokeError::AnotherMesh.into());
        }
        self.ask(|reply| NetCommand::Revoke { entry, reply }).await?
    }

    /// Gives the mesh its next secret. The one before is accepted for 7 days more. Who holds a pass gets the next one from a
    /// hub that issues passes, at once or when it registers there again; nobody who was revoked does. If no hub issues, this
    /// node hands it to the members that are alive now, and whoever is away needs another ticket.
    ///
    /// ```no_run
    /// # async fn monthly(node: nurl::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// use nurl::pass::AuthorityKey;
    ///
    /// let authority = AuthorityKey::load("authority.key".as_ref())?;
    /// let now = nurl::rt::time::unix_now().as_secs() as u32;
    /// let status = node.status().await?;
    /// let next = status.generation.max(status.announced) + 1;
    /// node.rotate(authority.rotate(next, now)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`revoke`](Node::revoke); [`Error::Busy`] during another rotation of this node's.
    pub async fn rotate(&self, rotation: Rotation) -> Result<HandedOver, Error> {
        let Rotation { entry, secret } = rotation;
        if !secret.is_of(&self.0.mesh) {
            return Err(RevokeError::AnotherMesh.into());
        }
        self.revoke(entry).await?;
        self.ask(|reply| NetCommand::HandOver { secret: Box::new(secret), reply }).await?
    }

    // ---- Jobs.

    /// Gives a task to the owner of `key` for `kind`. The key decides which worker runs it; equal keys go to one
    /// worker as long as the membership is unchanged.
    ///
    /// # Errors
    /// [`Error::Submit`] when the task is refused: too large, or too many under way.
    pub async fn submit(
        &self,
        kind: &str,
        key: &[u8],
        payload: Bytes,
        options: SubmitOptions,
    ) -> Result<Task, Error> {
        // A payload in an envelope has a call of its own.
        let options = SubmitOptions { large: false, ..options };
        let (course, events) = mpsc::channel(task::COURSE);
        let (kind, key) = (kind.to_owned(), Bytes::copy_from_slice(key));
        let id = self
            .ask_work(|reply| WorkCommand::Submit { kind, key, payload, file: None, options, course, reply })
            .await??;
        Ok(Task { id, course: events })
    }

    /// As [`submit`](Node::submit), for a payload or a result of up to 4 GiB. A payload that is a file is read once now,
    /// and again as a worker fetches it, in chunks that the worker checks; the handler has a file, too
    /// ([`Builder::large_handler`]). The result's file, if it is one, is in this node's
    /// [folder](Builder::large_files) at the task's end; see [`Task::content`].
    ///
    /// # Errors
    /// As [`submit`](Node::submit), and [`Error::LargeFile`].
    pub async fn submit_large(
        &self,
        kind: &str,
        key: &[u8],
        payload: Payload,
        options: SubmitOptions,
    ) -> Result<Task, Error> {
        let (payload, file) = match payload {
            Payload::Bytes(bytes) => (Envelope::Inline(bytes), None),
            Payload::File(path) => {
                let read = self.0.desk.read(path.clone()).await;
                let (source, manifest) = read.map_err(|error| Error::LargeFile { path, error })?;
                (Envelope::File(manifest.clone()), Some((source, manifest)))
            }
        };
        let (course, events) = mpsc::channel(task::COURSE);
        let (kind, key, payload) = (kind.to_owned(), Bytes::copy_from_slice(key), payload.encode());
        let options = SubmitOptions { large: true, ..options };
        let id = self
            .ask_work(|reply| WorkCommand::Submit { kind, key, payload, file, options, course, reply })
            .await??;
        Ok(Task { id, course: events })
    }

    /// Deposits a task with the workers that keep it, and returns when it is safe there: on the disk of one, or with two
    /// that live. From then on it is run, and its outcome kept for `keep` after its end (7 days at most), whether this node
    /// goes on or not. Policies judge it as a slip's: by the name, key and invitation of this node's pass, at most at
    /// level `submit`.
    ///
    /// With a `name` the task's id follows from it and from this node's secret key: to submit it again with the same
    /// content is safe, and nobody else can guess the id. Without a name the id is random.
    ///
    /// ```no_run
    /// # async fn nightly(node: nurl::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use nurl::job::SubmitOptions;
    ///
    /// let options = SubmitOptions { life: Duration::from_secs(3_600), ..SubmitOptions::default() };
    /// let keep = Duration::from_secs(24 * 3_600);
    /// let task = node.submit_detached(Some("report 7"), "report", b"7", bytes::Bytes::new(), options, keep).await?;
    /// println!("{}", task.id());
    /// let outcome = task.outcome().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Detached`]. After [`CustodyError::Unconfirmed`](crate::compute::job::custody::CustodyError::Unconfirmed) the task may run or not; with the same name it can be
    /// submitted again.
    pub async fn submit_detached(
        &self,
        name: Option<&str>,
        kind: &str,
        key: &[u8],
        payload: Bytes,
        options: SubmitOptions,
        keep: Duration,
    ) -> Result<DetachedTask, Error> {
        let (kind, key) = (kind.to_owned(), Bytes::copy_from_slice(key));
        let job = Detached { options, keep, parent: None };
        detached::submit(self, name, Content { kind, key, payload, job }).await
    }

    /// The detached task of this id, whoever submitted it. It asks nobody.
    pub fn detached(&self, id: TaskId) -> DetachedTask {
        detached::task(self, id)
    }

    /// The detached tasks that the holder of this node's pass submitted, as all live workers tell.
    ///
    /// # Errors
    /// [`Error::Detached`] if no worker is known.
    pub async fn detached_tasks(&self) -> Result<DetachedTasks, Error> {
        detached::list(self).await
    }

    /// This node's own copies of detached tasks: the mark of each task's state, and whether it has ended. It asks nobody.
    ///
    /// # Errors
    /// [`Error::Closed`].
    #[cfg(feature = "internals")]
    #[doc(hidden)]
    pub async fn held_tasks(&self) -> Result<Vec<(TaskId, Mark, bool)>, Error> {
        self.ask_work(|reply| WorkCommand::HeldTasks { reply }).await
    }

    /// Cancels a task of this node: its handle ends with `Cancelled`. Returns whether the task was still open.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn cancel(&self, task: TaskId) -> Result<bool, Error> {
        self.ask_work(|reply| WorkCommand::Cancel { task, reply }).await
    }

    // ---- State.

    /// A replicated counter. An object of another kind under the same key has nothing to do with it.
    pub fn counter(&self, key: &str) -> Counter {
        Counter::new(self, key)
    }

    /// A replicated register: the last writer wins.
    pub fn register(&self, key: &str) -> Register {
        Register::new(self, key)
    }

    /// A replicated register that shows concurrent writes side by side.
    pub fn multi(&self, key: &str) -> MultiRegister {
        MultiRegister::new(self, key)
    }

    /// A replicated set: an add wins over a concurrent remove.
    pub fn set(&self, key: &str) -> Set {
        Set::new(self, key)
    }

    /// A replicated map of one level: its fields are counters, registers, multi-value registers and sets. Removing a field
    /// removes what was observed of it.
    pub fn map(&self, key: &str) -> Map {
        Map::new(self, key)
    }

    /// Lists the names that begin with `prefix`, of the objects of one kind or of all: at most 10,000 at once, in the order
    /// of kinds and names, behind the end of an earlier page if one is given. What was deleted isn't listed, once an owner that
    /// answers knows of it and no other lags; nor is a register, set or map that shows nothing.
    ///
    /// It asks all members, for 1 s at most if one is silent, and for 5 s if so many are that objects may be missing.
    ///
    /// # Errors
    /// [`Error::State`] when the prefix is too long, too many lists are under way, or there is nobody to ask;
    /// [`Error::Closed`].
    pub async fn names(
        &self,
        kind: Option<Kind>,
        prefix: &str,
        after: Option<NamesAfter>,
    ) -> Result<Names, Error> {
        names::list(self, kind, prefix, after).await
    }

    // ---- Transport.

    /// Sends a datagram of at most [`transport::MAX_DATAGRAM_BYTES`]; it may be lost. Waits while the network plane's
    /// send queues are full.
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

    /// The next datagram; `None` after shutdown. Concurrent callers get different datagrams.
    pub async fn recv(&self) -> Option<Datagram> {
        let mut datagrams = self.0.datagrams.lock().await;
        if datagrams.begun.is_empty() {
            datagrams.begun = datagrams.batches.recv().await?.into();
        }
        let datagram = datagrams.begun.pop_front()?;
        self.0.waiting.datagrams.give(command::datagram_bytes(std::slice::from_ref(&datagram)));
        Some(datagram)
    }

    /// The received datagrams in non-empty batches: the way to a high rate. `None` after shutdown. Concurrent callers
    /// get different batches.
    pub async fn recv_many(&self) -> Option<Vec<Datagram>> {
        let mut datagrams = self.0.datagrams.lock().await;
        let batch = match std::mem::take(&mut datagrams.begun) {
            begun if begun.is_empty() => datagrams.batches.recv().await?,
            begun => begun.into(),
        };
        self.0.waiting.datagrams.give(command::datagram_bytes(&batch));
        Some(batch)
    }

    /// Sends a reliable message of at most 16 MiB, and waits until the peer's node has it. The peer's application may
    /// leave at most 64 MiB of messages waiting; its node drops and counts the next ones.
    ///
    /// # Errors
    /// [`Error::Message`] or [`Error::Send`] when the message was refused. [`Error::MessageLost`] when the peer's
    /// process ended before it acknowledged, or when a peer that is no member could not be reached.
    pub async fn send_message(&self, to: PublicKey, body: Bytes) -> Result<(), Error> {
        self.ask(|reply| NetCommand::ApplicationMessage { to, body, reply }).await?
    }

    /// The next reliable message; `None` after shutdown.
    pub async fn recv_message(&self) -> Option<(PublicKey, Bytes)> {
        let (from, body) = self.0.messages.lock().await.recv().await?;
        self.0.waiting.messages.give(body.len());
        Some((from, body))
    }

    /// Joins a group, so that [`recv_group`](Node::recv_group) receives its broadcasts.
    ///
    /// Only peers that `allow` names can read what this node says in the group, and only theirs is heard here. With
    /// [`AllowList::Anyone`] that is every live member; an observer, which needs no more than a ticket, can't read it.
    /// Joining again replaces the list: this node's key changes within a minute if the list lost somebody.
    ///
    /// # Errors
    /// [`Error::Group`] when this node is in too many groups.
    pub async fn join_group(&self, group: &str, allow: AllowList) -> Result<(), Error> {
        let group = group.to_owned();
        self.ask(|reply| NetCommand::JoinGroup { group, allow, reply }).await?
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn leave_group(&self, group: &str) -> Result<(), Error> {
        self.tell(NetCommand::LeaveGroup { group: group.to_owned() }).await
    }

    /// Sends a body of at most a datagram's size to every member of a group that this node joined: one uplink, the
    /// hub fans it out without being able to read it. It may be lost.
    ///
    /// # Errors
    /// [`Error::Group`].
    pub async fn broadcast(&self, group: &str, body: Bytes) -> Result<(), Error> {
        let group = group.to_owned();
        self.ask(|reply| NetCommand::Broadcast { group, body, reply }).await?
    }

    /// Tells every member a body of at most 256 bytes, from one to the next, behind what membership has to say: it arrives
    /// within seconds at nearly all that are connected in any way, once at most, as [`NodeEvent::Gossip`]. Observers neither
    /// send nor receive it. Whoever passes it on can change it: for what counts use
    /// [`send_message`](Node::send_message), or a group with a list.
    ///
    /// # Errors
    /// [`Error::Membership`] when the body is too large, when the node is no member, or when too much waits.
    pub async fn gossip(&self, body: Bytes) -> Result<(), Error> {
        self.ask(|reply| NetCommand::Gossip { body, reply }).await?
    }

    /// The next body broadcast to one of this node's groups: the group's name, the claimed sender, the body.
    pub async fn recv_group(&self) -> Option<(String, PublicKey, Bytes)> {
        self.0.groups.lock().await.recv().await
    }

    /// Begins a session with a peer, so that the first datagram doesn't wait for a handshake.
    ///
    /// # Errors
    /// [`Error::Send`] when a session with the peer isn't allowed.
    pub async fn connect(&self, peer: PublicKey) -> Result<(), Error> {
        self.ask(|reply| NetCommand::Connect { peer, reply }).await?
    }

    /// Measures the round trip to a peer.
    ///
    /// # Errors
    /// [`Error::Deadline`] when no answer came within `limit`, [`Error::Send`] when a session with the peer isn't
    /// allowed, [`Error::Busy`].
    pub async fn ping(&self, peer: PublicKey, limit: Duration) -> Result<Pong, Error> {
        match time::timeout(limit, self.ask(|reply| NetCommand::Ping { peer, reply })).await {
            Ok(answer) => answer?,
            Err(_) => Err(Error::Deadline(limit)),
        }
    }

    /// Stops taking work. Queued tasks are given back and start elsewhere at once. Running tasks may finish within
    /// `limit`; after it they are ended and start elsewhere. The call returns when no task is left, at most
    /// [`DRAIN_GRACE`](crate::compute::job::options::DRAIN_GRACE) after the limit; a [`shutdown`](Node::shutdown)
    /// should follow. The node still owns keys, holds state and can submit. A drain can't be undone.
    ///
    /// # Errors
    /// [`Error::Busy`] while another call waits, [`Error::Closed`].
    pub async fn drain(&self, limit: Duration) -> Result<Drained, Error> {
        self.ask_work(|reply| WorkCommand::Drain { limit, reply }).await?
    }

    /// Leaves the mesh gracefully, and ends the node's threads. Running tasks are ended and given back: other workers
    /// take them over at once. Writes that only this node has are handed to other owners first, for 2 s at most: the
    /// answer counts the keys that no owner took.
    pub async fn shutdown(&self) -> Departure {
        // Either plane may have ended already; then there is no answer to wait for.
        let departure = self.call_work(|reply| WorkCommand::Shutdown { reply }).await.unwrap_or_default();
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

    async fn ask_work<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> WorkCommand) -> Result<T, Error> {
        if let Some(error) = self.0.ending.cause() {
            return Err(error);
        }
        match self.call_work(command).await {
            Some(answer) => Ok(answer),
            None => Err(self.0.ending.of_work().await),
        }
    }

    async fn call<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> NetCommand) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.0.net.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    async fn call_work<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> WorkCommand) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.0.work.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}
