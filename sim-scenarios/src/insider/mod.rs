//! An insider: a program that holds a ticket and a key, and says whatever bytes it likes to any peer.
//!
//! It has what an attacker with a ticket has: sessions by real Noise handshakes, a registration at the hubs, paths,
//! reliable messages and groups, all by nurl's own transport. It has none of nurl's layers above, so nothing checks
//! what it sends, and it answers nothing by itself, except pings if it is told to
//! ([`answer_pings`](Insider::answer_pings)). The parts of a node that it plays are written as bytes: the encoder of
//! membership messages is nurl's, those of jobs and of state are in [`wire`].
//!
//! ```
//! # #[cfg(madsim)]
//! # {
//! use std::time::Duration;
//!
//! use nurl::internals::transport::channel;
//! use sim_scenarios::insider::{Insider, wire};
//! use sim_scenarios::stage::Stage;
//!
//! let outcome = chaos::run(1, |world| async move {
//!     let cluster = Stage::new(world).hub("hub").workers(2).meet(Duration::from_secs(30)).await?;
//!     let insider = Insider::start(world, &cluster, "eve");
//!     insider.meet(&cluster, Duration::from_secs(10)).await?;
//!     insider.send(cluster.peers[0].key, channel::MEMBERSHIP, wire::ping(7, 1 << 20));
//!     world.sleep(Duration::from_secs(1)).await;
//!     Ok::<_, chaos::Violation>(insider.received().len())
//! });
//! assert_eq!(outcome.result.unwrap().unwrap(), 1, "its ping is answered");
//! # }
//! ```
//!
//! Its host is no [`Peer`](crate::cluster::Peer) of the cluster: no check asks it for anything, and
//! [`Cluster::converge`] doesn't wait for it.

pub mod mischief;
pub mod wire;

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use chaos::world::{Host, World};
use nurl::internals::authority::credential::Credential;
use nurl::internals::key::AllowList;
use nurl::internals::membership::Roles;
use nurl::internals::membership::message::{MembershipMessage, MessageBody};
use nurl::internals::membership::table::Fact;
use nurl::internals::mesh::{MeshId, Ticket};
use nurl::internals::net::reach::listen::Listen;
use nurl::internals::net::secure::version::Versions;
use nurl::internals::node::Role;
use nurl::internals::transport::driver::{Driver, Until};
use nurl::internals::transport::reliable::ReliableEvent;
use nurl::internals::transport::{
    Limits, Priority, Transport, TransportConfig, TransportEvent, channel, group,
};
use nurl::rt::net::Interface;
use nurl::rt::sync::Notify;
use nurl::rt::{self, time};
use nurl::{PublicKey, SecretKey};
use rand_core::Rng as _;

use crate::cluster::{Cluster, Deadline};
use crate::lock::lock;

/// Messages that are kept for [`Insider::received`]; later ones are dropped.
const MAX_RECEIVED: usize = 1 << 16;

/// The property that [`Insider::meet`] waits for.
const MET: &str = "an insider has a session with each node";

/// Where a message arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inlet {
    /// On a [channel](nurl::internals::transport::channel) of the session: membership or application.
    Channel(u8),
    /// As a reliable message of this [kind](nurl::internals::transport::kind).
    Message(u8),
    /// In this group.
    Group(String),
}

/// A message that an insider received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The peer that sealed it, or that a group frame claims as its sender.
    pub from: PublicKey,
    /// Where it arrived.
    pub by: Inlet,
    /// Its body.
    pub body: Bytes,
}

/// Something that the insider's process is told to do.
enum Order {
    Connect(PublicKey),
    Send(PublicKey, u8, Bytes),
    Message(PublicKey, u8, Bytes),
    Broadcast(String, Bytes),
    Claim(Vec<IpAddr>),
}

/// What the scenario and the insider's process share.
#[derive(Default)]
struct Desk {
    orders: VecDeque<Order>,
    received: Vec<Received>,
    /// The peers with a session.
    met: BTreeSet<PublicKey>,
    /// The message with which pings are answered; its body is set for each.
    pong: Option<MembershipMessage>,
}

#[derive(Default)]
struct Office {
    desk: Mutex<Desk>,
    /// There are orders.
    ordered: Notify,
}

/// An insider on its host. A clone controls the same one.
#[derive(Clone)]
pub struct Insider {
    /// Its key, the same after a restart of its host.
    pub key: PublicKey,
    /// Its host, on the internet.
    pub host: Host,
    secret: SecretKey,
    credential: Credential,
    mesh: MeshId,
    office: Arc<Office>,
}

impl Insider {
    /// Starts an insider with a new key and the cluster's ticket. It registers at the cluster's hubs, and leaves no
    /// record in rendezvous.
    pub fn start(world: World, cluster: &Cluster, name: &str) -> Insider {
        let key = SecretKey::generate(&mut world.rng(&format!("insider {name}")));
        Insider::with_key(world, cluster, name, key, &cluster.ticket)
    }

    /// The same with this key, which may be a node's own, and this ticket, which may lack hubs.
    pub fn with_key(world: World, cluster: &Cluster, name: &str, key: SecretKey, ticket: &Ticket) -> Insider {
        let credential = cluster.credential(&key.public(), Role::Worker);
        Insider::with_credential(world, cluster, name, (key, credential), ticket)
    }

    /// The same with this standing.
    pub fn with_credential(
        world: World,
        cluster: &Cluster,
        name: &str,
        (key, credential): (SecretKey, Credential),
        ticket: &Ticket,
    ) -> Insider {
        // The stage assigns no address in this network, and no two hosts have one number.
        let number = world.hosts().len();
        let host = world.host(name).addr(&format!("198.51.{}.{}", 100 + number / 250, number % 250 + 1));
        let insider = Insider {
            key: key.public(),
            host,
            secret: key.clone(),
            credential: credential.clone(),
            mesh: ticket.mesh,
            office: Arc::default(),
        };
        assert!(cluster.peers.iter().all(|peer| peer.host != host), "an insider is no node of the cluster");
        let (office, ticket) = (insider.office.clone(), ticket.clone());
        host.spawn(move || {
            let (office, key, ticket) = (office.clone(), key.clone(), ticket.clone());
            let credential = credential.clone();
            async move {
                rt::known_as(&key.public().short());
                rt::known_as(&key.public().to_string());
                let config = TransportConfig {
                    key,
                    ticket,
                    credential: Some(credential),
                    name: String::new(),
                    allow: AllowList::Anyone,
                    boot: rt::rng("boot id").next_u64(),
                    listed: false,
                    listen: Listen::default(),
                    limits: Limits::default(),
                    versions: Versions::SPOKEN,
                };
                Process::open(config, office).await.run().await;
            }
        });
        insider
    }

    /// What it signs with: its own key and pass.
    pub fn signer(&self) -> wire::Signer<'_> {
        wire::Signer { secret: &self.secret, mesh: &self.mesh, pass: self.credential.pass() }
    }

    /// Its fact about itself, as a member's that is alive.
    pub fn alive(&self, incarnation: u64, roles: Roles, weight: u16) -> Fact {
        wire::said(self.key, &self.signer(), incarnation, false, (roles, weight))
    }

    /// Opens a session with a peer, and keeps it open.
    pub fn connect(&self, peer: PublicKey) {
        self.order(Order::Connect(peer));
    }

    /// Opens a session with each node of the cluster that runs.
    ///
    /// # Errors
    /// If one has none within `limit`.
    pub async fn meet(&self, cluster: &Cluster, limit: Duration) -> Result<(), Violation> {
        cluster.running().for_each(|peer| self.connect(peer.key));
        let deadline = Deadline::new(cluster.world(), MET, limit);
        let strange = || {
            let desk = lock(&self.office.desk);
            let strangers = cluster.running().filter(|peer| !desk.met.contains(&peer.key));
            strangers.map(|peer| peer.name.clone()).collect()
        };
        while deadline.still_missing(strange()).await? {}
        Ok(())
    }

    /// Sends a datagram on a channel of the session with `to`; the session is opened first if there is none. All
    /// [channels](nurl::internals::transport::channel) but that of the paths.
    pub fn send(&self, to: PublicKey, channel: u8, body: impl Into<Bytes>) {
        self.order(Order::Send(to, channel, body.into()));
    }

    /// Sends a reliable message of a [kind](nurl::internals::transport::kind): membership, jobs, state, application.
    pub fn send_message(&self, to: PublicKey, kind: u8, body: impl Into<Bytes>) {
        self.order(Order::Message(to, kind, body.into()));
    }

    /// Broadcasts to a group; the empty name is the mesh group's. Another group is joined first.
    pub fn broadcast(&self, group: &str, body: impl Into<Bytes>) {
        self.order(Order::Broadcast(group.to_owned(), body.into()));
    }

    /// Claims to be at these addresses, each with the port of its socket: its peers and rendezvous hear them as its
    /// candidates.
    pub fn claim_addresses(&self, addrs: Vec<IpAddr>) {
        self.order(Order::Claim(addrs));
    }

    /// From now on each ping is answered by an ack with the epoch, the observer's flag and the facts of `like`, so that
    /// its probers hold this insider alive. `None`: pings are ignored.
    pub fn answer_pings(&self, like: Option<MembershipMessage>) {
        lock(&self.office.desk).pong = like;
    }

    /// Everything that it received and that nobody took, in order.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.office.desk).received.clone()
    }

    /// Everything that it received since the last call.
    pub fn take_received(&self) -> Vec<Received> {
        std::mem::take(&mut lock(&self.office.desk).received)
    }

    fn order(&self, order: Order) {
        lock(&self.office.desk).orders.push_back(order);
        self.office.ordered.notify_one();
    }
}

/// The insider's process.
struct Process {
    transport: Transport,
    driver: Driver,
    office: Arc<Office>,
}

impl Process {
    async fn open(config: TransportConfig, office: Arc<Office>) -> Process {
        let mut transport = Transport::new(&config, time::now(), time::unix_now(), rt::rng);
        let driver = Driver::open(&config, &mut transport).await.expect("the host has no other sockets");
        lock(&office.desk).met.clear();
        Process { transport, driver, office }
    }

    async fn run(mut self) {
        let office = self.office.clone();
        loop {
            let now = time::now();
            let mut more = self.driver.turn(&mut self.transport, now);
            while let Some(order) = self.next_order() {
                self.obey(order);
            }
            self.read();
            self.driver.flush(&mut self.transport, now);
            self.read();
            let deadline = self.transport.poll_timeout();
            more |= self.driver.has_sent() && deadline.is_some_and(|at| at <= time::now());
            let until = match deadline {
                _ if more => Until::Now,
                Some(deadline) => Until::Deadline(deadline),
                None => Until::Woken,
            };
            rt::select! {
                () = office.ordered.notified() => {}
                () = self.driver.wait(until) => {}
            }
        }
    }

    /// The next order, if the transport has room for what it sends.
    fn next_order(&self) -> Option<Order> {
        if self.transport.is_full() { None } else { lock(&self.office.desk).orders.pop_front() }
    }

    /// Does what the scenario says. A refusal is the scenario's mistake, or a full queue; a lost datagram looks alike.
    fn obey(&mut self, order: Order) {
        let now = time::now();
        match order {
            Order::Connect(peer) => {
                // As a member, it is asked for the keys of groups, and gives them.
                self.transport.know(now, peer);
                let _ = self.transport.connect(now, peer);
            }
            Order::Send(to, channel, body) => {
                let _ = self.transport.send(now, to, channel, &body);
            }
            Order::Message(to, kind, body) => {
                let _ = self.transport.send_message(now, to, Priority::Job, kind, body);
            }
            Order::Broadcast(name, body) => {
                if name != group::MESH_GROUP {
                    let _ = self.transport.join_group(&name, AllowList::Anyone);
                }
                let _ = self.transport.broadcast(now, &name, &body);
            }
            Order::Claim(addrs) => {
                let interfaces = addrs.iter().map(|addr| Interface { name: "eth0".to_owned(), addr: *addr });
                self.transport.set_interfaces(now, interfaces.collect(), |_| None);
            }
        }
    }

    /// Takes what has arrived.
    fn read(&mut self) {
        while let Some(event) = self.transport.poll_event() {
            match event {
                TransportEvent::Established { peer, .. } => {
                    lock(&self.office.desk).met.insert(peer);
                }
                TransportEvent::Forgotten { peer } => {
                    lock(&self.office.desk).met.remove(&peer);
                }
                TransportEvent::Membership { peer, body } => {
                    self.answer(peer, &body);
                    self.keep(peer, Inlet::Channel(channel::MEMBERSHIP), body);
                }
                TransportEvent::Reliable(ReliableEvent::Message { peer, kind, body }) => {
                    self.keep(peer, Inlet::Message(kind), body);
                }
                TransportEvent::Group { group, sender, body } => self.keep(sender, Inlet::Group(group), body),
                _ => {}
            }
        }
        for datagram in self.transport.take_datagrams() {
            self.keep(datagram.peer, Inlet::Channel(channel::APPLICATION), datagram.body);
        }
        self.transport.pump(time::now());
    }

    /// Answers a ping, if it is to.
    fn answer(&mut self, from: PublicKey, body: &[u8]) {
        let Some(mut pong) = lock(&self.office.desk).pong.clone() else { return };
        if let Ok(MembershipMessage { body: MessageBody::Ping { seq }, .. }) = MembershipMessage::decode(body)
        {
            pong.body = MessageBody::Ack { seq };
            let _ = self.transport.send(time::now(), from, channel::MEMBERSHIP, &pong.encode());
        }
    }

    fn keep(&self, from: PublicKey, by: Inlet, body: Bytes) {
        let received = &mut lock(&self.office.desk).received;
        if received.len() < MAX_RECEIVED {
            received.push(Received { from, by, body });
        }
    }
}

#[cfg(test)]
mod tests {
    use nurl::internals::membership::State;
    use nurl::internals::replication::crdt::{OrSet, Value};
    use nurl::internals::replication::identity::ReplicaId;
    use nurl::internals::transport::kind;

    use super::*;
    use crate::cluster::secret;
    use crate::stage::Stage;

    const LIMIT: Duration = Duration::from_secs(30);

    /// The negative control of every scenario with an insider: its bytes arrive, and where a peer's word is good they
    /// are believed. A scenario that nothing happens in proves nothing else.
    #[test]
    fn an_insiders_bytes_arrive_on_every_way_and_are_believed_where_they_should_be() {
        let outcome = chaos::run(1, |world| async move {
            let cluster = Stage::new(world).hub("hub").workers(2).meet(LIMIT).await?;
            let insider = Insider::start(world, &cluster, "eve");
            insider.meet(&cluster, LIMIT).await?;
            let (to, node) = (cluster.peers[0].key, cluster.peers[0].node(&world).await);
            node.join_group("group", AllowList::Anyone).await.expect("there is room");

            let alive = wire::gossip(0, vec![insider.alive(1, Roles::NONE, 1)]);
            insider.answer_pings(Some(alive.clone()));
            insider.send(to, channel::MEMBERSHIP, alive.encode());
            insider.send(to, channel::APPLICATION, secret("datagram"));
            insider.send_message(to, kind::APPLICATION, secret("message"));
            let (task, payload) = ([7; 16], secret("payload"));
            insider.send_message(to, kind::JOB, wire::submit(task, insider.key, 0, "slow", b"key", &payload));
            // Of its own, as everybody's writes must be.
            let author = ReplicaId { key: insider.key, incarnation: 1 };
            let own =
                Value::Set(OrSet::default().adding(author, b"element", 0).expect("there is room")).encode();
            insider.send_message(to, kind::STATE, wire::delta(b"\x03key", Some(1), &own));
            assert_eq!(node.recv().await.expect("it runs").body, secret("datagram"));
            assert_eq!(node.recv_message().await, Some((insider.key, secret("message"))));
            // The first frame asks for the key, and its answer is past it.
            for _ in 0..2 {
                insider.broadcast("group", secret("frame"));
                world.sleep(Duration::from_secs(5)).await;
            }
            assert_eq!(node.recv_group().await, Some(("group".to_owned(), insider.key, secret("frame"))));
            world.sleep(LIMIT).await;
            let held = cluster.view(&cluster.peers[1]).await.get(&insider.key).copied();
            Ok::<_, Violation>((held, insider.take_received()))
        });
        let (held, received) = outcome.result.unwrap().unwrap();
        assert_eq!(held, Some(State::Alive), "a member that answers pings is alive in all views");
        let by = |inlet: Inlet| received.iter().filter(move |of| of.by == inlet).map(|of| of.body.clone());
        assert!(by(Inlet::Channel(channel::MEMBERSHIP)).count() > 1, "it is probed and gossiped to");
        assert!(by(Inlet::Message(kind::JOB)).any(|body| body.ends_with(&secret("payload"))), "its task ran");
        assert!(by(Inlet::Message(kind::STATE)).count() > 0, "its write was answered");
    }
}
