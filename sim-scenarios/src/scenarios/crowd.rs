//! Newcomers join a mesh most of whose nodes have just gone, or whose hub lists made-up members.
//!
//! Two workers stay. A crowd of workers and clients ends in one moment, by kill or by power loss, while a
//! newcomer joins. The hub has listed all of them until now, perhaps to the newcomer too; yet the newcomer joins
//! at once, and the hub lists none of the killed any more. Then a stranger that knows only the namespace
//! registers keys by the dozen, with made-up records: the next newcomer joins nearly as soon. A newcomer with
//! another secret is told so. The hub drops the records of the gone nodes. When the last nodes have gone too, the
//! next newcomer knows that it is alone.
//!
//! Negative control: with another secret no node joins, and the hub has the made-up keys' records throughout.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::{Host, World};
use nurl::internals::mesh::{MeshSecret, Ticket};
use nurl::internals::net::reach::hub::HubStats;
use nurl::internals::net::reach::hub_client::{HubClientConfig, HubEvent, LoneClient};
use nurl::internals::node::Role;
use nurl::{Error, Node, RefusedBy, SecretKey};
use rand_core::Rng as _;

use crate::cluster::{Cluster, Deadline, Peer};
use crate::lock::lock;
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a crowd was killed, and a newcomer came"),
        Mark::new("a crowd lost its power, and a newcomer came"),
        Mark::new("a newcomer was named nobody but strangers, and tried them"),
    ],
    ..Scenario::new(
        "crowd",
        "newcomers come when most have just gone, and among made-up records: they are in at once",
        |trial| Box::pin(run(trial)),
    )
};

/// Workers that stay.
const STAY: usize = 2;

/// Workers and clients that go.
const WORKERS: usize = 12;
const CLIENTS: usize = 8;

/// Keys of the stranger that knows only the namespace.
const STRANGERS: usize = 60;

/// The crowd ends less than this many milliseconds after the newcomer's start: before it has asked the hub for
/// contacts, or right after.
const JUST_BEFORE: u64 = 300;

const MEET: Duration = Duration::from_secs(60);

/// Time for a newcomer to join if the hub denies contacts: dial, handshake, LIST, a denial for each three of the
/// crowd, and a table, at 40 ms a round trip.
const DENIED: Duration = Duration::from_millis(1_500);

/// The same when the crowd lost its power, which the hub doesn't notice for a minute. Of fourteen contacts three
/// are asked each second, and two of them answer.
const SILENT: Duration = Duration::from_secs(6);

/// Time for a newcomer to meet a member among made-up records: with probability 0.42 a list of 16 contains
/// neither worker, and four lists come each second.
const AMONG_STRANGERS: Duration = Duration::from_secs(5);

/// Number of lists to ask for: each has at most 16 of 20 keys.
const LISTS: usize = 3;

/// Time for a hub to close a silent client: a minute, plus the check interval of half a second.
const UNHEARD: Duration = Duration::from_secs(62);

/// Time for a hub to drop a record that isn't refreshed.
const UNREFRESHED: Duration = Duration::from_secs(122);

/// Time for a newcomer to know that it is alone.
const ALONE: Duration = Duration::from_secs(1);

const IN_AFTER_DEATHS: &str = "a newcomer is in, however many others have just gone";
const IN_AMONG_STRANGERS: &str = "made-up records keep nobody out";
const ALONE_AT_ONCE: &str = "a newcomer to whom every hub denies everybody begins alone";
const KEPT_OUT: &str = "whoever has another secret is kept out, and told why";
const NAMES_THE_CONNECTED: &str = "a hub names only those who are connected to it";
const REAPED: &str = "a hub forgets those who have gone";
const THERE: &str = "the made-up keys are there";

/// The life of such a mesh.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let mut stage = Stage::new(world).links(link_ms(20, 0)).hub("hub").workers(STAY + WORKERS);
    for number in 0..CLIENTS {
        stage = stage.observer(&format!("client {number}"));
    }
    let mut cluster = stage.meet(MEET).await?;
    let mut notes = String::new();

    let power = world.rng("how they go").next_u64().is_multiple_of(2);
    let bound = if power { SILENT } else { DENIED };
    sometimes!(!power, "a crowd was killed, and a newcomer came");
    sometimes!(power, "a crowd lost its power, and a newcomer came");
    let crowd: Vec<Peer> = cluster.peers[STAY..].to_vec();
    let begun = world.elapsed();
    let newcomer = cluster.add("after the deaths", world.internet(), Role::Worker);
    world.sleep(Duration::from_millis(world.rng("when they go").next_u64() % JUST_BEFORE)).await;
    for peer in &crowd {
        if power { peer.host.power_loss() } else { peer.host.crash() }
    }
    let took = wait_until_joined(world, &newcomer, begun, bound, IN_AFTER_DEATHS).await?;
    if !power {
        check_hub_names_none_of(world, &cluster, &crowd).await?;
    }
    notes += &format!("in {took:?} after {} had gone\n", WORKERS + CLIENTS);
    cluster.converge(2 * MEET).await?;

    // A hub takes a minute to notice a client's power loss.
    let deadline = Deadline::new(world, REAPED, UNHEARD);
    while deadline.still_missing(more_than_running(&cluster, |stats| stats.clients)).await? {}

    let strangers = Strangers::register(world, &cluster).await?;
    let took =
        add_and_join(world, &mut cluster, "among strangers", AMONG_STRANGERS, IN_AMONG_STRANGERS).await?;
    notes += &format!("in {took:?} among {STRANGERS} made-up records\n");
    sometimes!(strangers.heard() > 0, "a newcomer was named nobody but strangers, and tried them");
    let named = cluster.hubs[0].stats().records;
    if named < STRANGERS {
        return Err(Violation::safety(THERE, format!("the hub has {named} records")));
    }
    strangers.host.crash();
    let refused = join_with_another_secret(world, &cluster).await;
    if !matches!(&refused, Err(Error::Refused(RefusedBy::Members))) {
        return Err(Violation::safety(KEPT_OUT, format!("{refused:?}")));
    }
    cluster.converge(MEET).await?;
    let views = cluster.views().await;

    let deadline = Deadline::new(world, REAPED, UNREFRESHED);
    while deadline.still_missing(more_than_running(&cluster, |stats| stats.records)).await? {}
    for peer in cluster.running() {
        peer.host.crash();
    }
    let took = add_and_join(world, &mut cluster, "the last", ALONE, ALONE_AT_ONCE).await?;
    notes += &format!("alone after {took:?}\n");
    Ok(Passed { state: views, notes })
}

/// Adds a worker now. Returns how long it took to join.
async fn add_and_join(
    world: World,
    cluster: &mut Cluster,
    name: &str,
    bound: Duration,
    property: &'static str,
) -> Result<Duration, Violation> {
    let begun = world.elapsed();
    let peer: Peer = cluster.add(name, world.internet(), Role::Worker);
    wait_until_joined(world, &peer, begun, bound, property).await
}

/// Waits until a worker that started at `begun` has joined. Returns how long it took.
async fn wait_until_joined(
    world: World,
    peer: &Peer,
    begun: Duration,
    bound: Duration,
    property: &'static str,
) -> Result<Duration, Violation> {
    let node = peer.node(&world).await;
    let left = (begun + bound).saturating_sub(world.elapsed());
    let joined = node.joined(left).await;
    joined.map_err(|error| {
        Violation::liveness(property, format!("{}: not within {bound:?}: {error}", peer.name))
    })?;
    Ok(world.elapsed() - begun)
}

/// Asks the hub for contacts several times, as a newcomer does: no list may have a killed node.
async fn check_hub_names_none_of(world: World, cluster: &Cluster, killed: &[Peer]) -> Result<(), Violation> {
    let host = world.host("asker").addr("198.51.100.3");
    host.spawn(std::future::pending::<()>);
    let key = SecretKey::generate(&mut world.rng("asker"));
    let joining = cluster.joining(&key.public());
    let config = HubClientConfig { hub: cluster.ticket.hubs[0].clone(), key, boot: 1, joining };
    let asking = host.run(async move {
        let mut client = LoneClient::spawn(config);
        let (mut named, mut lists) = (Vec::new(), 0);
        while lists < LISTS
            && let Some(event) = client.next_event().await
        {
            match event {
                HubEvent::Records(records) => {
                    lists += 1;
                    named.extend(records.iter().map(|record| record.key));
                }
                HubEvent::Up { .. } => {}
                _ => continue,
            }
            client.give(|hub, _| hub.list(16)).await;
        }
        named
    });
    let named = asking.await.expect("nobody ends it");
    host.crash();
    match killed.iter().find(|peer| named.contains(&peer.key)) {
        None => Ok(()),
        Some(peer) => Err(Violation::safety(NAMES_THE_CONNECTED, format!("it named {}", peer.name))),
    }
}

/// Says if the hub's count exceeds the number of running nodes.
fn more_than_running(cluster: &Cluster, count: impl Fn(&HubStats) -> usize) -> Vec<String> {
    let (held, running) = (count(&cluster.hubs[0].stats()), cluster.running().count());
    (held > running).then(|| format!("{held} of {running}")).into_iter().collect()
}

/// The outcome of joining with another secret and an otherwise right ticket.
async fn join_with_another_secret(world: World, cluster: &Cluster) -> Result<(), Error> {
    let host = world.host("another secret").addr("198.51.100.2");
    host.spawn(std::future::pending::<()>);
    let secret = MeshSecret::generate(&mut world.rng("another secret"));
    let ticket = Ticket { current: secret, previous: None, ..cluster.ticket.clone() };
    let joining = host.run(async move {
        let node = Node::builder(ticket).spawn().await?;
        let joined = node.joined(Duration::from_secs(5)).await;
        node.shutdown().await;
        joined
    });
    joining.await.expect("nobody ends it")
}

/// Many registered keys whose records weren't sealed by the mesh.
struct Strangers {
    host: Host,
    heard: Arc<Mutex<usize>>,
}

impl Strangers {
    async fn register(world: World, cluster: &Cluster) -> Result<Strangers, Violation> {
        let host = world.host("strangers").addr("198.51.100.1");
        host.spawn(std::future::pending::<()>);
        let strangers = Strangers { host, heard: Arc::default() };
        let mut rng = world.rng("strangers");
        for _ in 0..STRANGERS {
            let key = SecretKey::generate(&mut rng);
            let joining = cluster.joining(&key.public());
            let (hub, boot) = (cluster.ticket.hubs[0].clone(), rng.next_u64());
            let config = HubClientConfig { hub, key, boot, joining };
            let (heard, sealed) = (strangers.heard.clone(), Bytes::from(vec![7; 200]));
            host.run(async move {
                let mut client = LoneClient::spawn(config);
                // The open connection keeps the record registered.
                client.give(move |hub, now| hub.publish(now, 1, sealed)).await;
                while let Some(event) = client.next_event().await {
                    let is_datagram = matches!(event, HubEvent::Datagram { .. });
                    *lock(&heard) += usize::from(is_datagram);
                }
            });
        }
        let deadline = Deadline::new(world, THERE, MEET);
        let there = || cluster.hubs[0].stats().records >= STRANGERS;
        while deadline
            .still_missing((!there()).then(|| "not all are registered".to_owned()).into_iter().collect())
            .await?
        {}
        Ok(strangers)
    }

    /// Datagrams that reached any of the strangers.
    fn heard(&self) -> usize {
        *lock(&self.heard)
    }
}
