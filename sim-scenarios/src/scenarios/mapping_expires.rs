//! A mapping expires under an idle path.
//!
//! Two clients that nobody probes, each behind a NAT, have a direct path and nothing to say. What their boxes do to
//! idle mappings is drawn: they keep them for longer than a keepalive takes, or for less, or they end them after a
//! while whatever passes, as carriers do. After a long silence one of them speaks: within 2 s its datagrams arrive,
//! and soon the path is direct again. Under steady traffic no pause is longer than 2 s either.
//!
//! So that it can fail: where the box keeps a mapping for long enough, the path never stops to be direct and the
//! first datagram arrives at once; where a mapping ends whatever passes, the boxes must have refused something.

use std::time::Duration;

use chaos::link::{DropCause, LinkConfig};
use chaos::property::Broken;
use chaos::scenario::{Held, Trial, Verdict};
use chaos::sometimes;
use chaos::world::World;
use nurl::rt::time;
use rand_core::Rng as _;

use crate::cluster::{Cluster, Map, Peer, Place, Traffic, Within, home, secret};
use crate::models::nat_box::{Lifetime, NatBox, NatConfig, presets};

const MEET: Duration = Duration::from_secs(30);

/// Nobody says anything for this long.
const IDLE: Duration = Duration::from_secs(100);

/// Datagrams pass again.
const RESUMES: Duration = Duration::from_secs(2);

/// Then there is steady traffic for this long: a carrier's lifetime ends at least once.
const BUSY: Duration = Duration::from_secs(100);
const EVERY: Duration = Duration::from_millis(200);

/// A path that was lost is direct again: what is new is asked for once the loss is seen, but not twice within 5 s.
const DIRECT_AGAIN: Duration = Duration::from_secs(10);

const DIRECT: &str = "two clients behind endpoint-independent NATs have a direct path";
const HELD: &str = "a path is kept by keepalives that are more frequent than its mapping's timeout";
const RESUMED: &str = "after a long silence datagrams pass within 2 s";
const STEADY: &str = "under steady traffic a mapping's end costs 2 s at most";
const EXPIRED: &str = "boxes that end mappings refuse what comes for them";

/// What the boxes do to mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeps {
    /// Longer than a keepalive takes.
    Long,
    /// Shorter.
    Short,
    /// For a while, whatever passes.
    ForAWhile,
}

impl Keeps {
    const ALL: [Keeps; 3] = [Keeps::Long, Keeps::Short, Keeps::ForAWhile];

    fn config(self) -> NatConfig {
        let timeout = match self {
            Keeps::Long | Keeps::ForAWhile => Duration::from_secs(30),
            Keeps::Short => Duration::from_secs(8),
        };
        let life = Lifetime { least: Duration::from_secs(48), most: Duration::from_secs(75) };
        NatConfig {
            udp_timeout: timeout,
            udp_stream_timeout: timeout,
            udp_lifetime: (self == Keeps::ForAWhile).then_some(life),
            // Another port each time: a mapping that ended is not the one that comes after it.
            ports: crate::models::nat_box::Ports::Random,
            ..presets::port_restricted()
        }
    }
}

/// Silence, a word, and then steady traffic.
pub async fn run(trial: Trial) -> Verdict {
    let world = trial.world;
    world.link_default(LinkConfig {
        latency: Duration::from_millis(15),
        jitter: Duration::from_millis(5),
        ..LinkConfig::default()
    });
    let keeps = Keeps::ALL[(world.rng("boxes").next_u64() % 3) as usize];
    let mut map = Map::new(world).hub("hub").node("server", Place::Open);
    for name in ["a", "b"] {
        let net = home(world, world.internet(), &format!("home of {name}"), NatBox::new(keeps.config()));
        map = map.client(name, Place::In(net));
    }
    let cluster = map.start();
    cluster.converge(MEET).await?;
    let (a, b) = (&cluster.peers[1], &cluster.peers[2]);
    let begun = a.node(&world).await.connect(b.key).await;
    begun.map_err(|error| Broken::safety(DIRECT, error.to_string()))?;
    direct(world, &cluster, (a, b), MEET).await?;

    let refused = refused(world);
    world.sleep(IDLE).await;
    let expired = self::refused(world) - refused;
    sometimes!(keeps == Keeps::Short && expired > 0, "an idle mapping ended before its keepalive");
    let lost = cluster.witness.demotions(a, b) + cluster.witness.demotions(b, a);
    if keeps == Keeps::Long && lost > 0 {
        return Err(Broken::safety(HELD, format!("it was given up {lost} times in {IDLE:?} of silence")));
    }
    let word = word(world, a, b).await;
    if keeps == Keeps::Long && word.is_none_or(|took| took > EVERY) {
        let seen = format!("one datagram, from one side alone, took {word:?}");
        return Err(Broken::safety(HELD, seen));
    }
    let traffic = Traffic::start(world, &cluster, EVERY).await;
    let since = world.elapsed();
    let within = Within::new(world, RESUMED, RESUMES);
    while within.lacks(silent(&traffic, (a, b), since)).await? {}
    let resumed = world.elapsed();
    let took = [(a, b), (b, a)].map(|(from, to)| {
        let first = traffic.first(from.key, to.key, since);
        first.map_or(RESUMES, |first| first - since)
    });
    let slowest = took[0].max(took[1]);
    if keeps == Keeps::Long && slowest > EVERY {
        let seen = format!("the first datagram took {slowest:?}");
        return Err(Broken::safety(HELD, seen));
    }
    world.sleep(BUSY).await;
    for (from, to) in [(a, b), (b, a)] {
        let pause = traffic.longest_pause(from.key, to.key, resumed, world.elapsed());
        if pause > RESUMES {
            let seen = format!("{pause:?} without a datagram from {} to {} ({keeps:?})", from.name, to.name);
            return Err(Broken::liveness(STEADY, seen));
        }
    }
    direct(world, &cluster, (a, b), DIRECT_AGAIN).await?;
    traffic.stop();
    let refused = self::refused(world) - refused;
    if keeps == Keeps::ForAWhile && refused == 0 {
        return Err(Broken::safety(EXPIRED, "nothing was refused"));
    }
    let ended = cluster.witness.demotions(a, b) + cluster.witness.demotions(b, a) - lost;
    if keeps == Keeps::Long && ended > 0 {
        return Err(Broken::safety(HELD, format!("it was given up {ended} times once they spoke again")));
    }
    sometimes!(keeps == Keeps::ForAWhile && ended > 0, "a carrier's lifetime ended a path in use");
    let state =
        format!("boxes keep mappings {keeps:?}; after {IDLE:?} of silence and {BUSY:?} of traffic: direct\n");
    let notes = format!(
        "resumed after {slowest:?}, given up {lost} times while idle and {ended} times under traffic, boxes refused {refused} packets\n"
    );
    Ok(Held { state, notes })
}

/// One datagram into the silence, and how long it took. Where both sides speak at once, each opens its own box.
async fn word(world: World, from: &Peer, to: &Peer) -> Option<Duration> {
    let (sender, receiver, key) = (from.node(&world).await, to.node(&world).await, to.key);
    let since = world.elapsed();
    let listens = to.host.run(async move { time::timeout(RESUMES, receiver.recv_many()).await.is_ok() });
    let body = secret(&since.as_nanos().to_string());
    let spoken = from.host.run(async move { sender.send(key, body).await.is_ok() });
    let heard = listens.await.unwrap_or(false) && spoken.await.unwrap_or(false);
    heard.then(|| world.elapsed() - since)
}

/// Waits until both clients have a direct path to each other.
async fn direct(
    world: World,
    cluster: &Cluster,
    (a, b): (&Peer, &Peer),
    limit: Duration,
) -> Result<(), Broken> {
    let within = Within::new(world, DIRECT, limit);
    loop {
        let not_yet = [(a, b), (b, a)].into_iter().filter(|(from, to)| !cluster.witness.is_direct(from, to));
        let missing =
            not_yet.map(|(from, to)| format!("{} to {} is not direct", from.name, to.name)).collect();
        if !within.lacks(missing).await? {
            return Ok(());
        }
    }
}

/// Directions that have carried nothing sent since then.
fn silent(traffic: &Traffic, (a, b): (&Peer, &Peer), since: Duration) -> Vec<String> {
    let mute = [(a, b), (b, a)].into_iter();
    let mute = mute.filter(|(from, to)| traffic.first(from.key, to.key, since).is_none());
    mute.map(|(from, to)| format!("{} to {}", from.name, to.name)).collect()
}

/// Packets that a box has refused because it knew no mapping for them, or not for their sender.
fn refused(world: World) -> u64 {
    let stats = world.stats();
    stats.dropped(DropCause::NoMapping) + stats.dropped(DropCause::Filtered)
}
