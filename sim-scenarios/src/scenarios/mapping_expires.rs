//! A mapping expires under an idle path.
//!
//! Three pairs of clients (observers, which aren't probed), each client behind a NAT, have direct paths and no
//! traffic. Their boxes treat idle mappings differently: the first pair's keep them for longer than the keepalive
//! interval, the second pair's for less, and the third pair's end them after a while even under traffic, as
//! carriers do. After a long silence one client of each pair sends, and the other doesn't answer: its datagrams
//! arrive within 2 s. Then both send: no pause is longer than 2 s, and soon each path is direct again.
//!
//! At last the two boxes of one pair end their mappings, the second one a drawn time after the first. Both
//! clients may just have asked for their new addresses, and the address in the answer may be stale already. The
//! path still becomes direct again.
//!
//! Negative control: where the boxes keep a mapping for long enough, the path never stops being direct and the
//! first datagram arrives at once; where a mapping ends under traffic, the boxes must have refused packets.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chaos::middlebox::{self, Middlebox, Packet, Passage, Refusal};
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use rand_core::Rng as _;

use crate::cluster::{Cluster, Deadline, Peer, Traffic};
use crate::models::nat_box::{Lifetime, NatBox, NatConfig, presets};
use crate::stage::{Stage, link_ms, network_behind};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a carrier's lifetime ended a path in use"),
        Mark::new("an idle mapping ended before its keepalive"),
        Mark::new("a path was given up, and direct again later"),
    ],
    ..Scenario::new(
        "mapping-expires",
        "NATs end the mapping under an idle path, and under a busy one, or keep it: 2 s at most are lost",
        |trial| Box::pin(run(trial)),
    )
};

const MEET: Duration = Duration::from_secs(30);

/// No client sends for this long.
const IDLE: Duration = Duration::from_secs(100);

/// Datagrams pass again within this.
const RESUMES: Duration = Duration::from_secs(2);

/// One side sends alone for this long.
const ALONE: Duration = Duration::from_secs(5);

/// Then there is steady traffic for this long: a carrier's lifetime ends at least once.
const BUSY: Duration = Duration::from_secs(100);
const EVERY: Duration = Duration::from_millis(200);

/// A lost path is direct again within this: the new address is asked for as soon as the loss is seen, and again
/// with each round of punches.
const DIRECT_AGAIN: Duration = Duration::from_secs(10);

/// The shortest and the longest delay, in milliseconds, between the ends of two mappings: the second one ends
/// while the loss of the first is being detected and repaired.
const APART_MS: (u64, u64) = (300, 2_500);

const DIRECT: &str = "two clients behind endpoint-independent NATs have a direct path";
const HELD: &str = "a path is kept by keepalives that are more frequent than its mapping's timeout";
const RESUMED: &str = "who speaks alone after a long silence is heard within 2 s";
const STEADY: &str = "under steady traffic a mapping's end costs 2 s at most";
const EXPIRED: &str = "boxes that end mappings refuse what comes for them";

/// How long the boxes keep mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MappingLife {
    /// Longer than the keepalive interval.
    Long,
    /// Shorter than the keepalive interval.
    Short,
    /// For a limited time, even under traffic.
    ForAWhile,
}

impl MappingLife {
    const ALL: [MappingLife; 3] = [MappingLife::Long, MappingLife::Short, MappingLife::ForAWhile];

    fn config(self) -> NatConfig {
        let timeout = match self {
            MappingLife::Long | MappingLife::ForAWhile => Duration::from_secs(30),
            MappingLife::Short => Duration::from_secs(8),
        };
        let life = Lifetime { least: Duration::from_secs(48), most: Duration::from_secs(75) };
        NatConfig {
            udp_timeout: timeout,
            udp_stream_timeout: timeout,
            udp_lifetime: (self == MappingLife::ForAWhile).then_some(life),
            // Random ports, so that a new mapping doesn't get the port of the expired one.
            ports: crate::models::nat_box::Ports::Random,
            ..presets::port_restricted()
        }
    }
}

/// A NAT box that counts the packets that it refuses for lack of a mapping or by its filter.
struct CountingNat {
    nat: NatBox,
    refused: Arc<AtomicU64>,
    /// Its UDP mappings end with the next packet.
    forgets: Arc<AtomicBool>,
}

impl CountingNat {
    fn nat(&mut self) -> &mut NatBox {
        if self.forgets.swap(false, Ordering::Relaxed) {
            self.nat.forget_udp();
        }
        &mut self.nat
    }
}

impl Middlebox for CountingNat {
    fn outbound(&mut self, passage: &mut Passage<'_>, packet: &mut Packet) -> middlebox::BoxVerdict {
        self.nat().outbound(passage, packet)
    }

    fn inbound(&mut self, passage: &mut Passage<'_>, packet: &mut Packet) -> middlebox::BoxVerdict {
        let verdict = self.nat().inbound(passage, packet);
        if let middlebox::BoxVerdict::Refuse(Refusal::NoMapping | Refusal::Filtered) = verdict {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        verdict
    }

    fn translates(&self, ip: IpAddr) -> bool {
        self.nat.translates(ip)
    }

    fn reboot(&mut self) {
        self.nat.reboot();
    }

    fn describe(&self) -> String {
        self.nat.describe()
    }
}

/// Two clients behind boxes of one kind; `a` sends first.
struct Pair {
    life: MappingLife,
    a: Peer,
    b: Peer,
    /// Flags that end the mappings of each client's box.
    forgets: [Arc<AtomicBool>; 2],
    refused: Arc<AtomicU64>,
}

impl Pair {
    fn both(&self) -> [(&Peer, &Peer); 2] {
        [(&self.a, &self.b), (&self.b, &self.a)]
    }

    /// Packets that both boxes have refused so far.
    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How often the two clients have given up the direct path so far.
    fn given_up(&self, cluster: &Cluster) -> u32 {
        self.both().iter().map(|(from, to)| cluster.witness.demotions(from, to)).sum()
    }
}

/// The state of a pair after the silence.
struct AfterSilence {
    refused_before: u64,
    given_up: u32,
}

/// Silence, one side alone, and then steady traffic.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let (cluster, pairs) = start(world);
    cluster.converge(MEET).await?;
    for pair in &pairs {
        let begun = pair.a.node(&world).await.connect(pair.b.key).await;
        begun.map_err(|error| Violation::safety(DIRECT, error.to_string()))?;
    }
    wait_until_direct(world, &cluster, &pairs, MEET).await?;

    let refused_before: Vec<_> = pairs.iter().map(Pair::refused).collect();
    world.sleep(IDLE).await;
    let mut silences = Vec::new();
    for (pair, refused_before) in pairs.iter().zip(refused_before) {
        let (expired, given_up) = (pair.refused() - refused_before, pair.given_up(&cluster));
        sometimes!(
            pair.life == MappingLife::Short && expired > 0,
            "an idle mapping ended before its keepalive"
        );
        if pair.life == MappingLife::Long && given_up > 0 {
            return Err(Violation::safety(
                HELD,
                format!("it was given up {given_up} times in {IDLE:?} of silence"),
            ));
        }
        silences.push(AfterSilence { refused_before, given_up });
    }

    let traffic = Traffic::default();
    for peer in pairs.iter().flat_map(|pair| [&pair.a, &pair.b]) {
        traffic.hear(world, peer).await;
    }
    let took = speak_alone(world, &traffic, &pairs).await?;
    for pair in &pairs {
        traffic.speak(world, &pair.b, vec![pair.a.key], EVERY).await;
    }
    let since = world.elapsed();
    world.sleep(BUSY).await;
    for (from, to) in pairs.iter().flat_map(Pair::both) {
        let pause = traffic.longest_pause(from.key, to.key, since, world.elapsed());
        if pause > RESUMES {
            let seen = format!("{pause:?} without a datagram from {} to {}", from.name, to.name);
            return Err(Violation::liveness(STEADY, seen));
        }
    }
    wait_until_direct(world, &cluster, &pairs, DIRECT_AGAIN).await?;
    let ended: Vec<_> = pairs.iter().map(|pair| pair.given_up(&cluster)).collect();
    let apart = end_two_mappings(world, &pairs[0]).await;
    // Until the loss is detected, the path counts as direct.
    world.sleep(DIRECT_AGAIN).await;
    wait_until_direct(world, &cluster, &pairs[..1], EVERY).await?;
    traffic.stop();

    let (mut state, mut notes) = (String::new(), format!("two mappings ended {apart:?} apart\n"));
    for (((pair, silence), took), ended) in pairs.iter().zip(silences).zip(took).zip(ended) {
        let (life, refused) = (pair.life, pair.refused() - silence.refused_before);
        if life == MappingLife::ForAWhile && refused == 0 {
            return Err(Violation::safety(EXPIRED, "nothing was refused"));
        }
        let ended = ended - silence.given_up;
        if life == MappingLife::Long && ended > 0 {
            return Err(Violation::safety(
                HELD,
                format!("it was given up {ended} times once they spoke again"),
            ));
        }
        sometimes!(life == MappingLife::ForAWhile && ended > 0, "a carrier's lifetime ended a path in use");
        let is = |times| if times > 0 { "given up" } else { "held" };
        state += &format!(
            "{life:?}: {} in silence, {} once they spoke, direct in the end\n",
            is(silence.given_up),
            is(ended)
        );
        notes += &format!(
            "{life:?}: heard after {took:?}, given up {} times in silence and {ended} times once they spoke, \
             {refused} packets refused\n",
            silence.given_up
        );
    }
    Ok(Passed { state, notes })
}

/// A pair of clients for each kind of box, and a server, since a mesh needs a member.
fn start(world: World) -> (Cluster, Vec<Pair>) {
    let mut stage = Stage::new(world).links(link_ms(15, 5)).hub("hub").worker("server");
    let mut counters = Vec::new();
    for life in MappingLife::ALL {
        let refused = Arc::new(AtomicU64::new(0));
        let forgets = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        for (side, forgets) in ["a", "b"].into_iter().zip(&forgets) {
            let name = format!("{life:?} {side}");
            let counting = CountingNat {
                nat: NatBox::new(life.config()),
                refused: refused.clone(),
                forgets: forgets.clone(),
            };
            let net = network_behind(world, world.internet(), &format!("home of {name}"), counting);
            stage = stage.behind(net).observer(&name);
        }
        counters.push((life, forgets, refused));
    }
    let cluster = stage.start();
    let clients = cluster.peers[1..].chunks_exact(2);
    let pairs = counters.into_iter().zip(clients).map(|((life, forgets, refused), pair)| {
        let (a, b) = (pair[0].clone(), pair[1].clone());
        Pair { life, a, b, forgets, refused }
    });
    let pairs = pairs.collect();
    (cluster, pairs)
}

/// One client of each pair sends after the silence. Returns how long the first datagram of each took to arrive.
async fn speak_alone(world: World, traffic: &Traffic, pairs: &[Pair]) -> Result<Vec<Duration>, Violation> {
    let since = world.elapsed();
    for pair in pairs {
        traffic.speak(world, &pair.a, vec![pair.b.key], EVERY).await;
    }
    let first = |pair: &Pair| traffic.first(pair.a.key, pair.b.key, since);
    let deadline = Deadline::new(world, RESUMED, RESUMES);
    let speaking = || pairs.iter().map(|pair| (&pair.a, &pair.b));
    while deadline.still_missing(traffic.silent(speaking(), since)).await? {}
    let mut took = Vec::new();
    for pair in pairs {
        let waited = first(pair).map_or(RESUMES, |first| first - since);
        if pair.life == MappingLife::Long && waited > EVERY {
            return Err(Violation::safety(HELD, format!("the first datagram took {waited:?}")));
        }
        took.push(waited);
    }
    let resumed = world.elapsed();
    world.sleep(ALONE).await;
    for pair in pairs {
        let pause = traffic.longest_pause(pair.a.key, pair.b.key, resumed, world.elapsed());
        if pause > RESUMES {
            let seen = format!("{pause:?} without a datagram from {}, who speaks alone", pair.a.name);
            return Err(Violation::liveness(RESUMED, seen));
        }
    }
    Ok(took)
}

/// Ends the mappings of a pair's first box, and after a drawn time those of the second one. Returns that time.
async fn end_two_mappings(world: World, pair: &Pair) -> Duration {
    let [first, second] = &pair.forgets;
    let span = APART_MS.1 - APART_MS.0;
    let apart = Duration::from_millis(APART_MS.0 + world.rng("apart").next_u64() % span);
    first.store(true, Ordering::Relaxed);
    world.sleep(apart).await;
    second.store(true, Ordering::Relaxed);
    apart
}

/// Waits until the clients of each pair have a direct path to each other.
async fn wait_until_direct(
    world: World,
    cluster: &Cluster,
    pairs: &[Pair],
    limit: Duration,
) -> Result<(), Violation> {
    let deadline = Deadline::new(world, DIRECT, limit);
    loop {
        let ways = pairs.iter().flat_map(Pair::both);
        let not_yet = ways.filter(|(from, to)| !cluster.witness.is_direct(from, to));
        let missing =
            not_yet.map(|(from, to)| format!("{} to {} is not direct", from.name, to.name)).collect();
        if !deadline.still_missing(missing).await? {
            return Ok(());
        }
    }
}
