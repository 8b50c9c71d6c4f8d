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
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::net::reach::hub::HubLimits;
use nurl::internals::net::reach::hub_client::dial::dial;
use nurl::internals::node::Role;
use nurl::rt::{task, time};
use rand_core::Rng as _;
use tokio::io::AsyncReadExt;

use crate::cluster::{Cluster, Deadline, Peer};
use crate::lock::lock;
use crate::models::impostor::Impostor;
use crate::models::nat_box::presets;
use crate::models::sim_hub::{HUB_PORT, SimHub};
use crate::stage::{Stage, link_ms, nat};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a captive portal answered in a hub's place"),
        Mark::new("a proxy was up before its hub"),
        Mark::new("what answered in a hub's place said nothing"),
        Mark::new("a hub took nobody at first"),
        Mark::new("a hub ended an idle connection for a newer one"),
    ],
    ..Scenario::new(
        "portal",
        "something else answers on the hub's port, and the hub comes late: no refusal, all join",
        |trial| Box::pin(run(trial)),
    )
};

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
enum StandIn {
    Impostor(Impostor),
    /// The hub itself, with room for no client.
    Full,
}

impl StandIn {
    const ALL: [StandIn; 4] = [
        StandIn::Impostor(Impostor::Portal),
        StandIn::Impostor(Impostor::Proxy),
        StandIn::Impostor(Impostor::Mute),
        StandIn::Full,
    ];

    /// Replaces the hub, or makes it refuse clients.
    fn begin(self, hub: &SimHub) {
        hub.kill();
        match self {
            StandIn::Impostor(impostor) => hub.set_impostor(Some(impostor)),
            StandIn::Full => hub.limit(HubLimits { clients: 0, ..limits() }),
        }
        hub.restart();
    }

    /// Starts the hub with its proper configuration.
    fn end(hub: &SimHub) {
        hub.kill();
        hub.set_impostor(None);
        hub.limit(limits());
        hub.restart();
    }

    /// The reason that its clients report.
    fn reason(self) -> &'static str {
        match self {
            StandIn::Impostor(Impostor::Portal | Impostor::Proxy) => "not-a-hub",
            StandIn::Impostor(Impostor::Mute) => "silent",
            StandIn::Full => "overloaded",
        }
    }

    fn registered_within(self) -> Duration {
        match self {
            StandIn::Impostor(_) => SOON,
            StandIn::Full => LATER,
        }
    }

    /// Some run meets each variant.
    fn mark(self) {
        match self {
            StandIn::Impostor(Impostor::Portal) => sometimes!("a captive portal answered in a hub's place"),
            StandIn::Impostor(Impostor::Proxy) => sometimes!("a proxy was up before its hub"),
            StandIn::Impostor(Impostor::Mute) => sometimes!("what answered in a hub's place said nothing"),
            StandIn::Full => sometimes!("a hub took nobody at first"),
        }
    }
}

fn limits() -> HubLimits {
    HubLimits { half_open_per_address: HALF_OPEN, ..HubLimits::default() }
}

/// Lets four nodes join too early.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let mut cluster = Stage::new(world).links(link_ms(15, 5)).hub("hub").start();
    let hub = cluster.hubs[0].clone();
    let mut rng = world.rng("before the hub");
    let stand_in = StandIn::ALL[(rng.next_u64() % StandIn::ALL.len() as u64) as usize];
    let late = LATE.0 + Duration::from_millis(rng.next_u64() % LATE.1);
    stand_in.begin(&hub);
    let (internet, family) = (world.internet(), nat(world, "family", presets::symmetric()));
    for (name, net, role) in [
        ("worker", internet, Role::Worker),
        ("member", internet, Role::Member),
        ("in a home", family, Role::Worker),
        ("client", internet, Role::Observer),
    ] {
        cluster.add(name, net, role);
    }
    let answers = ask_to_join(world, &cluster).await;
    world.sleep(late).await;
    check_before_the_hub(world, &cluster, stand_in, &answers).await?;
    stand_in.mark();

    StandIn::end(&hub);
    let neighbour = world.host("neighbour");
    neighbour.attach("eth0", family, &["192.168.1.200"]);
    neighbour.spawn(idle_connections);
    let deadline = Deadline::new(world, BACK, stand_in.registered_within());
    while deadline.still_missing(cluster.unregistered(&hub).await).await? {}
    let registered = deadline.waited();
    sometimes!(hub.stats().hub.evicted_half_open > 0, "a hub ended an idle connection for a newer one");
    cluster.converge(MET).await?;
    let deadline = Deadline::new(world, JOINED, MET);
    while deadline.still_missing(without_answer(&cluster, &answers)).await? {}
    for (name, answer) in answers.all() {
        if let Err(error) = answer {
            return Err(Violation::safety(NO_REFUSAL, format!("{name} is told: {error}")));
        }
    }
    let notes = format!("{stand_in:?} for {late:?}, all registered {registered:?} after the hub came\n");
    Ok(Passed { state: cluster.views().await, notes })
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
        lock(&self.0).clone()
    }
}

/// Lets every node join with a timeout, as a command does.
async fn ask_to_join(world: World, cluster: &Cluster) -> Answers {
    let answers = Answers::default();
    for peer in &cluster.peers {
        let (node, name, told) = (peer.node(&world).await, peer.name.clone(), answers.clone());
        peer.host.run(async move {
            let answer = node.joined(PATIENCE).await.map_err(|error| error.to_string());
            lock(&told.0).insert(name, answer);
        });
    }
    answers
}

/// The nodes whose attempt to join has no result yet.
fn without_answer(cluster: &Cluster, answers: &Answers) -> Vec<String> {
    let all = answers.all();
    let names = cluster.peers.iter().map(|peer| &peer.name);
    names.filter(|name| !all.contains_key(*name)).map(|name| format!("{name} waits")).collect()
}

/// Checks all nodes before the hub is up.
async fn check_before_the_hub(
    world: World,
    cluster: &Cluster,
    stand_in: StandIn,
    answers: &Answers,
) -> Result<(), Violation> {
    if let Some((name, answer)) = answers.all().into_iter().next() {
        let seen = format!("{name} is told, while {stand_in:?} answers: {answer:?}");
        return Err(Violation::safety(if answer.is_ok() { NEEDED } else { NO_REFUSAL }, seen));
    }
    for peer in &cluster.peers {
        let met = cluster.view(peer).await.len();
        if met > 0 {
            return Err(Violation::safety(NEEDED, format!("{} has met {met}", peer.name)));
        }
        let reason = reported_reason(world, peer).await;
        if reason != Some(stand_in.reason()) {
            return Err(Violation::safety(TOLD, format!("{} says {reason:?} of {stand_in:?}", peer.name)));
        }
    }
    Ok(())
}

/// The reason that a node reports for its hub being down.
async fn reported_reason(world: World, peer: &Peer) -> Option<&'static str> {
    let status = peer.node(&world).await.status().await.ok()?;
    status.hubs[0].down.map(|reason| reason.as_str())
}
