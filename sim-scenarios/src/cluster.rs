//! A hub and nodes on hosts of a world.
//!
//! What runs on a host is what a deployment runs: [`nurl::net::hub::serve`] and [`nurl::Node`]. A scenario
//! reaches into a node only through its public handle; [`Peer::node`] waits until the host's present process
//! has one, so it works across crashes and restarts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chaos::world::{Host, World};
use nurl::compute::job::JobError;
use nurl::compute::pool::JobContext;
use nurl::membership::State;
use nurl::mesh::{Hub, Ticket};
use nurl::net::hub::{self, HubConfig};
use nurl::node::{NodeEvent, Role};
use nurl::rt::time;
use nurl::{Node, PublicKey, SecretKey};

/// Where the hub listens.
const HUB_PORT: u16 = 4242;

/// What one handler did with one task: who ran it, and when.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ran {
    /// The payload, which names the job.
    pub job: String,
    /// The host's name.
    pub by: String,
}

/// What the whole cluster has witnessed, in the order in which it happened.
#[derive(Debug, Clone, Default)]
pub struct Witness(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    ran: Vec<Ran>,
    /// (who says, about whom, state) in order.
    verdicts: Vec<(String, PublicKey, State)>,
}

impl Witness {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every completed run of a handler.
    pub fn ran(&self) -> Vec<Ran> {
        self.seen().ran.clone()
    }

    /// Who ever held whom dead.
    pub fn held_dead(&self) -> Vec<(String, PublicKey)> {
        let seen = self.seen();
        let dead = seen.verdicts.iter().filter(|(_, _, state)| *state == State::Dead);
        dead.map(|(by, about, _)| (by.clone(), *about)).collect()
    }

    /// How often each job was run to its end.
    pub fn runs_per_job(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for ran in self.seen().ran.iter() {
            *count.entry(ran.job.clone()).or_default() += 1;
        }
        count
    }
}

/// A node of the cluster.
#[derive(Clone)]
pub struct Peer {
    /// Its name, as in "node 3".
    pub name: String,
    /// Its key, the same after a restart.
    pub key: PublicKey,
    /// Its host.
    pub host: Host,
    slot: Arc<Mutex<Option<(u32, Node)>>>,
}

impl Peer {
    /// The node of the host's present process, once it has joined.
    pub async fn node(&self, world: &World) -> Node {
        loop {
            let boot = self.host.boot();
            if let Some((of, node)) = &*self.slot.lock().unwrap_or_else(PoisonError::into_inner)
                && *of == boot
            {
                return node.clone();
            }
            world.sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A mesh with one hub.
pub struct Cluster {
    world: World,
    ticket: Ticket,
    /// The hub's host.
    pub hub: Host,
    /// The nodes, in the order of their numbers.
    pub peers: Vec<Peer>,
    /// What happened.
    pub witness: Witness,
}

impl Cluster {
    /// A hub and `nodes` workers, each on a host of its own, started now.
    pub fn start(world: World, nodes: usize) -> Cluster {
        let mut rng = world.rng("cluster keys");
        let hub_key = SecretKey::generate(&mut rng);
        let hub = world.host("hub").addr("10.0.0.1");
        let addr = SocketAddr::new(hub.ip(), HUB_PORT);
        let ticket = Ticket::generate(Hub { key: hub_key.public(), addr: addr.to_string() }, &mut rng);
        let namespace = ticket.mesh.namespace();
        hub.spawn(move || {
            let key = hub_key.clone();
            async move {
                let listen = SocketAddr::new([0, 0, 0, 0].into(), HUB_PORT);
                let serving = hub::serve(HubConfig::new(listen, key, vec![namespace])).await;
                let _serving = serving.expect("the hub's port is free on its own host");
                std::future::pending::<()>().await;
            }
        });
        let mut cluster = Cluster { world, ticket, hub, peers: Vec::new(), witness: Witness::default() };
        for number in 0..nodes {
            let key = SecretKey::generate(&mut rng);
            let peer = cluster.start_node(number, key);
            cluster.peers.push(peer);
        }
        cluster
    }

    fn start_node(&self, number: usize, key: SecretKey) -> Peer {
        let name = format!("node {number}");
        let host = self.world.host(&name).addr(&format!("10.0.1.{}", number + 1));
        let slot = Arc::new(Mutex::new(None));
        let peer = Peer { name: name.clone(), key: key.public(), host, slot: slot.clone() };
        let (ticket, witness) = (self.ticket.clone(), self.witness.clone());
        host.spawn(move || {
            let boot = host.boot();
            let (key, ticket, name) = (key.clone(), ticket.clone(), name.clone());
            let (witness, slot) = (witness.clone(), slot.clone());
            async move {
                let (by, ran) = (name.clone(), witness.clone());
                let handler =
                    move |_: JobContext, payload: Bytes| slow_echo(by.clone(), ran.clone(), payload);
                let node = Node::builder(ticket).key(key).role(Role::Worker).handler("slow", handler);
                let node = node.spawn().await.expect("a node starts on a fresh host");
                let mut events = node.events();
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some((boot, node));
                while let Some(event) = events.next().await {
                    if let NodeEvent::Member { peer, state, .. } = event {
                        witness.seen().verdicts.push((name.clone(), peer, state));
                    }
                }
            }
        });
        peer
    }

    /// Waits until every running node sees exactly the running nodes alive.
    ///
    /// # Errors
    /// What is still missing when `limit` of virtual time is over.
    pub async fn converge(&self, limit: Duration) -> Result<(), String> {
        let deadline = self.world.elapsed() + limit;
        loop {
            let missing = self.missing().await;
            if missing.is_empty() {
                return Ok(());
            }
            if self.world.elapsed() >= deadline {
                return Err(format!("after {limit:?} still missing: {}", missing.join("; ")));
            }
            self.world.sleep(Duration::from_millis(250)).await;
        }
    }

    async fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for peer in self.running() {
            let view = self.view(peer).await;
            for other in self.peers.iter().filter(|other| other.key != peer.key) {
                let state = view.get(&other.key).copied();
                let wrong = match state {
                    Some(State::Alive) => !other.host.is_running(),
                    Some(State::Suspect) => true,
                    _ => other.host.is_running(),
                };
                if wrong {
                    let state = state.map_or("unknown", State::as_str);
                    missing.push(format!("{} sees {} {state}", peer.name, other.name));
                }
            }
        }
        missing
    }

    /// The members as `peer` sees them.
    pub async fn view(&self, peer: &Peer) -> BTreeMap<PublicKey, State> {
        let node = peer.node(&self.world).await;
        // A node that shuts down while it is asked has no view.
        let members = node.members().await.unwrap_or_default();
        members.into_iter().map(|member| (member.key, member.state)).collect()
    }

    /// The nodes whose process runs.
    pub fn running(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(|peer| peer.host.is_running())
    }

    /// The name of a node's key.
    pub fn name_of(&self, key: &PublicKey) -> &str {
        self.peers.iter().find(|peer| peer.key == *key).map_or("nobody", |peer| &peer.name)
    }

    /// Every view, one line per node: the end state of membership without times.
    pub async fn views(&self) -> String {
        let mut text = String::new();
        for peer in self.running() {
            let view = self.view(peer).await;
            let mut line: Vec<_> =
                view.iter().map(|(key, state)| format!("{} {}", self.name_of(key), state.as_str())).collect();
            line.sort();
            text += &format!("{} sees: {}\n", peer.name, line.join(", "));
        }
        text
    }
}

/// A handler that takes a second of virtual time, so that a fault can meet it half-way.
async fn slow_echo(by: String, witness: Witness, payload: Bytes) -> Result<Bytes, JobError> {
    time::sleep(Duration::from_secs(1)).await;
    let job = String::from_utf8_lossy(&payload).into_owned();
    witness.seen().ran.push(Ran { job, by });
    Ok(payload)
}
