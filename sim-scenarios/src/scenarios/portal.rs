//! Another service answers on the hub's port, and the hub comes late.
//!
//! A worker and a member on the internet, a worker in a home and a client want to join. Meanwhile a captive
//! portal, a proxy without its hub or a process that hangs accepts their connections at the hub's address, or the
//! hub itself refuses all clients. No node takes that for a refusal: each reports the cause, and keeps trying.
//! When the hub is up, all register within moments and every node meets every other, although a neighbour in that
//! home has more idle connections to the hub than one address may have.
//!
//! Negative control: until then no node is registered and none meets another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chaos::link::LinkConfig;
use chaos::property::Broken;
use chaos::scenario::{Held, Trial, Verdict};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::net::reach::hub::HubLimits;
use nurl::internals::net::reach::hub_client::dial::dial;
use nurl::internals::node::Role;
use nurl::rt::{task, time};
use rand_core::Rng as _;
use tokio::io::AsyncReadExt;

use crate::cluster::{Cluster, Map, Peer, Place, Within, home};
use crate::models::impostor::Impostor;
use crate::models::nat_box::{NatBox, presets};
use crate::models::relay::{HUB_PORT, Relay};

/// The hub is late by at least the first (a mute service is recognised after 5 s), plus less than the second, in
/// ms.
const LATE: (Duration, u64) = (Duration::from_secs(8), 40_000);

/// Unregistered connections of one address: the hub's limit, and the neighbour's number.
const HALF_OPEN: usize = 4;
const IDLE: usize = 8;

/// The neighbour reconnects this long after the hub has closed a connection, and this long after a failed
/// connect.
const REOPENED: Duration = Duration::from_secs(5);
const REFUSED: Duration = Duration::from_millis(100);

/// How long a joining node waits: longer than the whole scenario takes.
const PATIENCE: Duration = Duration::from_secs(90);

/// All nodes are registered this long after the hub's start: tries are 2 s apart at most, a name is looked up,
/// and a handshake takes two round trips.
const SOON: Duration = Duration::from_secs(3);

/// The same after a hub that refused all clients: an overloaded hub is tried less often.
const LATER: Duration = Duration::from_secs(11);

/// Every node has met every other this long after the last registration.
const MET: Duration = Duration::from_secs(10);

const NO_REFUSAL: &str = "what answers in a hub's place is no refusal";
const TOLD: &str = "a node says what answers in its hub's place";
const BACK: &str = "everybody registers at a hub that comes late";
const JOINED: &str = "everybody who waits for a late hub joins";
const NEEDED: &str = "without its hub nobody meets anybody";

/// The service that answers until the hub is up.
#[derive(Debug, Clone, Copy)]
enum Before {
    Impostor(Impostor),
    /// The hub itself, with room for no client.
    Full,
}

impl Before {
    const ALL: [Before; 4] = [
        Before::Impostor(Impostor::Portal),
        Before::Impostor(Impostor::Proxy),
        Before::Impostor(Impostor::Mute),
        Before::Full,
    ];

    /// Replaces the hub, or makes it refuse clients.
    fn begin(self, hub: &Relay) {
        hub.kill();
        match self {
            Before::Impostor(impostor) => hub.pose(Some(impostor)),
            Before::Full => hub.limit(HubLimits { clients: 0, ..limits() }),
        }
        hub.restart();
    }

    /// Starts the hub with its proper configuration.
    fn end(hub: &Relay) {
        hub.kill();
        hub.pose(None);
        hub.limit(limits());
        hub.restart();
    }

    /// The reason that its clients report.
    fn reason(self) -> &'static str {
        match self {
            Before::Impostor(Impostor::Portal | Impostor::Proxy) => "not-a-hub",
            Before::Impostor(Impostor::Mute) => "silent",
            Before::Full => "overloaded",
        }
    }

    fn registered_within(self) -> Duration {
        match self {
            Before::Impostor(_) => SOON,
            Before::Full => LATER,
        }
    }

    /// Some run meets each variant.
    fn mark(self) {
        match self {
            Before::Impostor(Impostor::Portal) => sometimes!("a captive portal answered in a hub's place"),
            Before::Impostor(Impostor::Proxy) => sometimes!("a proxy was up before its hub"),
            Before::Impostor(Impostor::Mute) => sometimes!("what answered in a hub's place said nothing"),
            Before::Full => sometimes!("a hub took nobody at first"),
        }
    }
}

fn limits() -> HubLimits {
    HubLimits { half_open_per_address: HALF_OPEN, ..HubLimits::default() }
}

/// Lets four nodes join too early.
pub async fn run(trial: Trial) -> Verdict {
    let world = trial.world;
    world.link_default(LinkConfig {
        latency: Duration::from_millis(15),
        jitter: Duration::from_millis(5),
        ..LinkConfig::default()
    });
    let mut cluster = Map::new(world).hub("hub").start();
    let hub = cluster.hubs[0].clone();
    let mut rng = world.rng("before the hub");
    let before = Before::ALL[(rng.next_u64() % Before::ALL.len() as u64) as usize];
    let late = LATE.0 + Duration::from_millis(rng.next_u64() % LATE.1);
    before.begin(&hub);
    let family = home(world, world.internet(), "family", NatBox::new(presets::symmetric()));
    for (name, place, role) in [
        ("worker", Place::Open, Role::Worker),
        ("member", Place::Open, Role::Member),
        ("in a home", Place::In(family), Role::Worker),
        ("client", Place::Open, Role::Observer),
    ] {
        cluster.add(name, place, role);
    }
    let answers = ask_to_join(world, &cluster).await;
    world.sleep(late).await;
    too_early(world, &cluster, before, &answers).await?;
    before.mark();

    Before::end(&hub);
    let neighbour = world.host("neighbour");
    neighbour.attach("eth0", family, &["192.168.1.200"]);
    neighbour.spawn(idle_connections);
    let within = Within::new(world, BACK, before.registered_within());
    while within.lacks(cluster.unregistered(&hub).await).await? {}
    let registered = within.waited();
    sometimes!(hub.stats().hub.evicted_half_open > 0, "a hub ended an idle connection for a newer one");
    cluster.converge(MET).await?;
    let within = Within::new(world, JOINED, MET);
    while within.lacks(waiting(&cluster, &answers)).await? {}
    for (name, answer) in answers.all() {
        if let Err(error) = answer {
            return Err(Broken::safety(NO_REFUSAL, format!("{name} is told: {error}")));
        }
    }
    let notes = format!("{before:?} for {late:?}, all registered {registered:?} after the hub came\n");
    Ok(Held { state: cluster.views().await, notes })
}

/// Holds idle connections to the hub, which never send.
async fn idle_connections() {
    let hold = async || {
        loop {
            let pause = match dial(&format!("hub:{HUB_PORT}")).await {
                Ok(mut stream) => {
                    let mut heard = [0; 64];
                    while matches!(stream.read(&mut heard).await, Ok(n) if n > 0) {}
                    REOPENED
                }
                Err(_) => REFUSED,
            };
            time::sleep(pause).await;
        }
    };
    for _ in 1..IDLE {
        task::spawn(hold());
    }
    hold().await;
}

/// The results of the nodes' attempts to join, by name.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<BTreeMap<String, Result<(), String>>>>);

impl Answers {
    fn all(&self) -> BTreeMap<String, Result<(), String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Lets every node join with a timeout, as a command does.
async fn ask_to_join(world: World, cluster: &Cluster) -> Answers {
    let answers = Answers::default();
    for peer in &cluster.peers {
        let (node, name, told) = (peer.node(&world).await, peer.name.clone(), answers.clone());
        peer.host.run(async move {
            let answer = node.joined(PATIENCE).await.map_err(|error| error.to_string());
            told.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, answer);
        });
    }
    answers
}

/// The nodes whose attempt to join has no result yet.
fn waiting(cluster: &Cluster, answers: &Answers) -> Vec<String> {
    let all = answers.all();
    let names = cluster.peers.iter().map(|peer| &peer.name);
    names.filter(|name| !all.contains_key(*name)).map(|name| format!("{name} waits")).collect()
}

/// Checks all nodes before the hub is up.
async fn too_early(world: World, cluster: &Cluster, before: Before, answers: &Answers) -> Result<(), Broken> {
    if let Some((name, answer)) = answers.all().into_iter().next() {
        let seen = format!("{name} is told, while {before:?} answers: {answer:?}");
        return Err(Broken::safety(if answer.is_ok() { NEEDED } else { NO_REFUSAL }, seen));
    }
    for peer in &cluster.peers {
        let met = cluster.view(peer).await.len();
        if met > 0 {
            return Err(Broken::safety(NEEDED, format!("{} has met {met}", peer.name)));
        }
        let reason = reason(world, peer).await;
        if reason != Some(before.reason()) {
            return Err(Broken::safety(TOLD, format!("{} says {reason:?} of {before:?}", peer.name)));
        }
    }
    Ok(())
}

/// The reason that a node reports for its hub being down.
async fn reason(world: World, peer: &Peer) -> Option<&'static str> {
    let status = peer.node(&world).await.status().await.ok()?;
    status.hubs[0].down.map(|reason| reason.as_str())
}
