//! Every kind of NAT against every other.
//!
//! One mesh with two nodes of each kind: open, full cone, restricted, port-restricted, symmetric, carrier-grade, UDP
//! blocked; each behind a box of its own, so that every pair of kinds meets. Beside them two homes of one carrier that
//! turns packets around (a hairpin), two of one that doesn't, and two offices whose NATs are symmetric, with IPv6
//! behind firewalls. Each pair ends direct exactly where the [oracle](crate::models::oracle) says that it must, and
//! relayed elsewhere, as both ends see it; every path says that it is settled, none is left connecting; and datagrams
//! flow between all, in both directions.
//!
//! So that it can fail: what direct pairs send adds nothing to what the hub carries, and what relayed pairs send adds
//! all of it.

use std::time::Duration;

use chaos::link::{LinkConfig, Rate};
use chaos::property::Broken;
use chaos::scenario::{Held, Trial, Verdict};
use chaos::sometimes;
use chaos::world::World;
use rand_core::Rng as _;

use crate::cluster::{Cluster, Map, Peer, Place, Traffic, Within, home};
use crate::models::nat_box::{Family, NatBox, NatConfig, presets};
use crate::models::oracle::{self, Nature};
use crate::models::relay::HUB_PORT;

/// Nodes of each kind: two, so that a kind meets itself.
const EACH: usize = 2;

const MEET: Duration = Duration::from_secs(40);

/// All pairs have found the way that they'll have: two rounds of quick checks and a first slow one.
const SETTLES: Duration = Duration::from_secs(40);

const EVERY: Duration = Duration::from_millis(500);

/// Within this each direction of each pair has carried a datagram: a few, should one be lost while a path changes.
const FLOWS: Duration = Duration::from_secs(2);

/// Each half of the pairs speaks for this long, and all are silent for as long.
const SPEAKS: Duration = Duration::from_secs(3);

/// One of so many datagrams of direct pairs may pass the hub: a path that has lost several in a row sends copies
/// there until it has proved itself. At 5 % loss one in five was seen.
const STRAY: u64 = 2;

/// The most of a hundred datagrams that a link loses.
const WORST_LOSS: u64 = 5;

const ORACLE: &str = "each pair is direct exactly where the oracle says so";
const SETTLED: &str = "no pair is left connecting";
const LEG: &str = "what direct pairs say passes no hub, what others say does";
const FLOW: &str = "datagrams flow between all pairs";

/// A kind of node: what stands before its home, and its home's box. `None` is nothing.
struct Kind {
    name: &'static str,
    carrier: Option<NatConfig>,
    home: Option<NatConfig>,
}

fn kinds() -> Vec<Kind> {
    let boxes = [
        presets::full_cone(),
        presets::restricted(),
        presets::port_restricted(),
        presets::symmetric(),
        presets::carrier_grade(),
        presets::hotel(&[HUB_PORT]),
        NatConfig { name: "dual-stack", v6: Family::Firewalled, ..presets::symmetric() },
    ];
    let open = Kind { name: "open", carrier: None, home: None };
    let homes = boxes.into_iter().map(|home| Kind { name: home.name, carrier: None, home: Some(home) });
    let stacked = [("hairpin", true), ("no hairpin", false)].map(|(name, hairpin)| Kind {
        name,
        carrier: Some(NatConfig { hairpin, ..presets::carrier_grade() }),
        home: Some(presets::home_router()),
    });
    [open].into_iter().chain(homes).chain(stacked).collect()
}

/// What stands before a node, as the oracle reads it: a node of this kind is behind the same carrier as another.
#[derive(Clone, Copy)]
struct Before {
    kind: &'static str,
    /// The carrier, and whether it turns packets around.
    carrier: Option<(Nature, bool)>,
    home: Nature,
    /// With IPv6, what stands before that.
    v6: Option<Nature>,
}

impl Before {
    fn of(kind: &Kind) -> Before {
        let home = kind.home.as_ref();
        Before {
            kind: kind.name,
            carrier: kind.carrier.as_ref().map(|config| (Nature::v4(config), config.hairpin)),
            home: home.map_or(Nature::OPEN, Nature::v4),
            v6: home.filter(|config| has_v6(config, &kind.carrier)).map(Nature::v6),
        }
    }

    /// Everything up to the internet.
    fn v4(self) -> Nature {
        self.carrier.map_or(self.home, |(carrier, _)| self.home.behind(carrier))
    }

    /// Whether the oracle says that two nodes end with a direct path.
    fn is_direct_to(self, other: Before) -> bool {
        let v6 = self.v6.zip(other.v6).is_some_and(|(a, b)| oracle::direct(a, b));
        let v4 = match self.carrier.filter(|_| self.kind == other.kind) {
            Some((carrier, hairpin)) => {
                oracle::direct_behind(carrier, hairpin, Some(self.home), Some(other.home))
            }
            None => oracle::direct(self.v4(), other.v4()),
        };
        v4 || v6
    }
}

/// Whether hosts of a home have addresses of IPv6: where its box lets them out, and no carrier stands before it.
fn has_v6(home: &NatConfig, carrier: &Option<NatConfig>) -> bool {
    home.v6 != Family::Blocked && carrier.is_none()
}

/// All pairs in one mesh.
pub async fn run(trial: Trial) -> Verdict {
    let world = trial.world;
    let loss = world.rng("loss").next_u64() % (WORST_LOSS + 1);
    world.link_default(LinkConfig {
        latency: Duration::from_millis(15),
        jitter: Duration::from_millis(10),
        udp_loss: Rate::percent(loss as u32),
        ..LinkConfig::default()
    });
    let (cluster, before) = start(world);
    cluster.converge(MEET).await?;
    let met = world.elapsed();
    settled(world, &cluster, &before).await?;
    let took = world.elapsed() - met;
    let [direct, relayed] = flow(world, &cluster, &before).await?;
    // Traffic puts a path to the test: it is what it was, and says so.
    settled(world, &cluster, &before).await?;
    sometimes!(relayed > 0, "a relay carried what could not go straight");
    let punched = |peer: &&Peer| peer.name.starts_with("port-restricted");
    let punched: Vec<_> = cluster.peers.iter().filter(punched).collect();
    sometimes!(
        cluster.witness.is_direct(punched[0], punched[1]),
        "a punch succeeded through port-restricted NATs"
    );
    let notes = format!(
        "{loss} % lost; all found their way {took:?} after they had met; the hub carried {direct} datagrams more \
         while direct pairs spoke, and {relayed} while relayed ones did\n"
    );
    Ok(Held { state: matrix(&cluster).await, notes })
}

/// Everybody at home, and what stands before each.
fn start(world: World) -> (Cluster, Vec<Before>) {
    let mut map = Map::new(world).hub("hub");
    let (mut before, mut dual) = (Vec::new(), Vec::new());
    for kind in kinds() {
        let carrier = kind.carrier.clone();
        let carrier = carrier.map(|config| {
            home(world, world.internet(), &format!("carrier, {}", kind.name), NatBox::new(config))
        });
        for number in 1..=EACH {
            let name = format!("{} {number}", kind.name);
            let place = match &kind.home {
                None => Place::Open,
                Some(config) => {
                    let outside = carrier.unwrap_or(world.internet());
                    Place::In(home(world, outside, &format!("home of {name}"), NatBox::new(config.clone())))
                }
            };
            if kind.home.as_ref().is_some_and(|home| has_v6(home, &kind.carrier)) {
                dual.push(before.len());
            }
            map = map.node(&name, place);
            before.push(Before::of(&kind));
        }
    }
    let cluster = map.start();
    for at in dual {
        let host = cluster.peers[at].host;
        host.set_addrs("eth0", &[&host.ip().to_string(), &format!("2001:db8:{at}::10")]);
    }
    (cluster, before)
}

/// Lets the direct pairs speak, then the relayed ones; what the hub carried more than it does when nobody speaks.
async fn flow(world: World, cluster: &Cluster, before: &[Before]) -> Result<[u64; 2], Broken> {
    let forwarded = || cluster.hubs[0].stats().relay.forwarded;
    let heard = Traffic::default();
    for peer in &cluster.peers {
        heard.hear(world, peer).await;
    }
    let carried = forwarded();
    world.sleep(SPEAKS).await;
    let idle = forwarded() - carried;
    let mut more = [0; 2];
    for (more, direct) in more.iter_mut().zip([true, false]) {
        let pairs = pairs(cluster, before, direct);
        let (speaking, since, carried) = (Traffic::default(), world.elapsed(), forwarded());
        for from in &cluster.peers {
            let to = pairs.iter().filter(|(speaker, _)| speaker.key == from.key).map(|(_, to)| to.key);
            speaking.speak(world, from, to.collect(), EVERY).await;
        }
        let within = Within::new(world, FLOW, FLOWS);
        while within.lacks(silent(&heard, &pairs, since)).await? {}
        world.sleep((since + SPEAKS).saturating_sub(world.elapsed())).await;
        speaking.stop();
        let arrived: usize = pairs.iter().map(|(from, to)| heard.count(from.key, to.key, since)).sum();
        *more = forwarded() - carried;
        // What is direct may go both ways for a moment, should several in a row be lost.
        let (arrived, beyond) = (arrived as u64, more.saturating_sub(idle));
        if if direct { beyond > arrived / STRAY } else { *more < arrived } {
            let legs = if direct { "direct" } else { "relayed" };
            let seen = format!(
                "{arrived} datagrams of {legs} pairs arrived, the hub carried {more}, {idle} when all were silent"
            );
            return Err(Broken::safety(LEG, seen));
        }
        *more = beyond;
    }
    Ok(more)
}

/// The pairs, in both directions, that the oracle holds direct, or the others.
fn pairs<'a>(cluster: &'a Cluster, before: &[Before], direct: bool) -> Vec<(&'a Peer, &'a Peer)> {
    let mut pairs = Vec::new();
    for (from, a) in cluster.peers.iter().zip(before) {
        let others = cluster.peers.iter().zip(before).filter(|(to, _)| to.key != from.key);
        pairs.extend(others.filter(|(_, b)| a.is_direct_to(**b) == direct).map(|(to, _)| (from, to)));
    }
    pairs
}

/// Waits until every pair is what the oracle says, settled, as both ends see it.
async fn settled(world: World, cluster: &Cluster, before: &[Before]) -> Result<(), Broken> {
    let direct = Within::new(world, ORACLE, SETTLES);
    let connecting = Within::new(world, SETTLED, SETTLES);
    loop {
        let (mut wrong, mut open) = (Vec::new(), Vec::new());
        for (from, a) in cluster.peers.iter().zip(before) {
            let members = cluster.members(from).await;
            for (to, b) in cluster.peers.iter().zip(before).filter(|(to, _)| to.key != from.key) {
                let pair = format!("{} to {}", from.name, to.name);
                let Some(member) = members.iter().find(|member| member.key == to.key) else {
                    wrong.push(format!("{pair} is unknown"));
                    continue;
                };
                let should = a.is_direct_to(*b);
                if member.path.direct != should {
                    wrong.push(format!("{pair} is {}, direct should be {should}", member.path.reason));
                }
                if !member.path.settled {
                    open.push(format!("{pair} is {}", member.path.reason));
                }
            }
        }
        if !direct.lacks(wrong).await? && !connecting.lacks(open).await? {
            return Ok(());
        }
    }
}

/// Pairs between which nothing sent since then has arrived.
fn silent(traffic: &Traffic, pairs: &[(&Peer, &Peer)], since: Duration) -> Vec<String> {
    let mute = pairs.iter().filter(|(from, to)| traffic.first(from.key, to.key, since).is_none());
    mute.map(|(from, to)| format!("{} to {}", from.name, to.name)).collect()
}

/// One line for each kind: how it reaches each kind.
async fn matrix(cluster: &Cluster) -> String {
    let mut text = String::new();
    let kinds = kinds();
    for (row, kind) in kinds.iter().enumerate() {
        let mut line = Vec::new();
        for (column, other) in kinds.iter().enumerate() {
            // Of a kind with itself, the first meets the second.
            let to = &cluster.peers[column * EACH + usize::from(row == column)];
            let path = cluster.path(&cluster.peers[row * EACH], to).await;
            let leg = if path.is_some_and(|path| path.direct) { "direct" } else { "relayed" };
            line.push(format!("{} {leg}", other.name));
        }
        text += &format!("{}: {}\n", kind.name, line.join(", "));
    }
    text
}
