//! A relay gets into trouble, and another one carries on.
//!
//! Two nodes behind symmetric NATs talk through a hub; a second hub is farther away; two more nodes are open. The
//! nearer hub suffers several of these in a drawn order: its process is killed, its machine loses its power, it
//! stalls with its connections open, its network loses everything or a good part, it moves to another address, it
//! comes back full and takes nobody, it becomes slow. Each time the other hub carries all that the two say within
//! 2 s (8 s where nobody can say that the nearer one is dead), and goes on without a pause; when the trouble is over,
//! everybody is registered at the nearer one again, and it carries again, alone.
//! Nobody is held dead.
//!
//! So that it can fail: at first both hubs are gone for a while, and nothing passes between the two. What they say
//! last waits for a way, and goes out when one hub is back.

use std::time::Duration;

use chaos::link::{LinkConfig, Rate};
use chaos::property::Broken;
use chaos::scenario::{Held, Trial, Verdict};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::net::hub::HubLimits;
use rand_core::Rng as _;

use crate::cluster::{Map, Peer, Place, Traffic, Within, home};
use crate::models::nat_box::{NatBox, presets};
use crate::models::relay::Relay;

const MEET: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_millis(100);

/// The farther hub's links are longer by this: the nearer one is everybody's home.
const FARTHER: Duration = Duration::from_millis(40);

/// Troubles of one run, of the eight.
const TROUBLES: usize = 3;

/// What a slow hub sends to each client: less than the two have to say.
const SLOW: u64 = 1_000;

/// What a lossy hub loses: TCP stalls for seconds at a time.
const LOSSY: Rate = Rate::percent(40);

/// The other hub has taken over.
const TAKEN_OVER: Duration = Duration::from_secs(2);

/// What a hub carries is counted over this. Each of the two sends ten a second; probes and the like are far fewer.
const SPAN: Duration = Duration::from_millis(500);

/// All of it, but for what is at the edges of a span.
const FULL: u64 = 8;

/// Nothing of it, but for probes.
const STRAY: u64 = 2;

/// Then it carries all for this long, with no longer pause than this.
const CARRIES: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(400);

/// Of a hub that is slow or loses much nobody can say that it is dead: it goes on to answer, now and then in time.
/// The other one takes over later (6.5 s were seen), carries one of eight at least, since one of the two may go back
/// for a while, and what passes meanwhile waits for TCP (1.9 s were seen).
const IN_DOUBT: Duration = Duration::from_secs(8);
const DOUBTED_SHARE: u64 = 8;
const DOUBTED_PAUSE: Duration = Duration::from_millis(2_500);

/// Everybody is registered again: a half-open connection is noticed after 25 s, and tried again within 12 s.
const BACK: Duration = Duration::from_secs(40);

/// It carries again: a slow check found that it answers, and three round trips have shown that it is nearer.
const CARRIES_AGAIN: Duration = Duration::from_secs(60);

/// Both hubs are away for this long: shorter than a datagram waits for a way.
const BOTH_AWAY: Duration = Duration::from_secs(4);

/// What is sent this long before the two meet again arrives, in one direction at least: who has a way before the
/// other speaks into the void.
const WAITS: Duration = Duration::from_millis(500);

const STANDBY: &str = "another hub takes over in time and carries without a pause";
const REGISTERED: &str = "everybody registers again at a hub whose trouble is over";
const NEARER: &str = "the nearer hub carries again";
const NEEDED: &str = "without a hub nothing is relayed";
const WAITED: &str = "what was sent when there was no way goes out when a hub is back";
const HEALTHY: &str = "nobody healthy is held dead";

/// What a relay may suffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Killed,
    PowerLoss,
    Stalled,
    Unreachable,
    Moved,
    Full,
    Slow,
    Lossy,
}

impl Trouble {
    const ALL: [Trouble; 8] = [
        Trouble::Killed,
        Trouble::PowerLoss,
        Trouble::Stalled,
        Trouble::Unreachable,
        Trouble::Moved,
        Trouble::Full,
        Trouble::Slow,
        Trouble::Lossy,
    ];

    /// The bounds for the take-over and for a pause after it, and the share of a [`SPAN`] that is carried at least.
    fn bounds(self) -> (Duration, Duration, u64) {
        match self {
            Trouble::Slow | Trouble::Lossy => (IN_DOUBT, DOUBTED_PAUSE, FULL / DOUBTED_SHARE),
            _ => (TAKEN_OVER, PAUSE, FULL),
        }
    }

    /// Each is met by some run.
    fn mark(self) {
        match self {
            Trouble::Killed => sometimes!("a hub's process was killed"),
            Trouble::PowerLoss => sometimes!("a hub's machine lost its power"),
            Trouble::Stalled => sometimes!("a stalled hub's standby took over"),
            Trouble::Unreachable => sometimes!("a hub's network lost everything"),
            Trouble::Moved => sometimes!("a hub that moved was found by its name"),
            Trouble::Full => sometimes!("a hub came back full"),
            Trouble::Slow => sometimes!("a hub became slow"),
            Trouble::Lossy => sometimes!("a hub's network lost a good part"),
        }
    }

    fn begin(self, hub: &Relay) {
        match self {
            Trouble::Killed => hub.kill(),
            Trouble::PowerLoss => hub.power_loss(),
            Trouble::Stalled => hub.stall(),
            Trouble::Unreachable => hub.drop_fraction(Rate::ALWAYS),
            Trouble::Moved => hub.move_to("192.0.2.99"),
            Trouble::Slow => hub.throttle(Some(SLOW)),
            Trouble::Lossy => hub.drop_fraction(LOSSY),
            Trouble::Full => {
                hub.limit(HubLimits { clients: 0, ..HubLimits::default() });
                hub.restart();
            }
        }
    }

    fn end(self, hub: &Relay) {
        match self {
            Trouble::Killed | Trouble::PowerLoss => hub.restart(),
            Trouble::Stalled => hub.go_on(),
            Trouble::Slow => hub.throttle(None),
            Trouble::Unreachable | Trouble::Lossy => hub.drop_fraction(Rate::NEVER),
            Trouble::Moved => {}
            Trouble::Full => {
                hub.limit(HubLimits::default());
                hub.restart();
            }
        }
    }
}

/// Both hubs away, then troubles in a drawn order.
pub async fn run(trial: Trial) -> Verdict {
    let world = trial.world;
    world.link_default(LinkConfig {
        latency: Duration::from_millis(10),
        jitter: Duration::from_millis(4),
        ..LinkConfig::default()
    });
    let mut map = Map::new(world).hub("near").hub("far").nodes(2, Place::Open);
    for name in ["office 1", "office 2"] {
        let net = home(world, world.internet(), name, NatBox::new(presets::symmetric()));
        map = map.node(&format!("in {name}"), Place::In(net));
    }
    let cluster = map.start();
    let (near, far) = (&cluster.hubs[0], &cluster.hubs[1]);
    far.delay(FARTHER);
    cluster.converge(MEET).await?;
    let pair = (&cluster.peers[2], &cluster.peers[3]);
    let traffic = Traffic::start(world, &cluster, EVERY).await;
    let both = [near, far];
    carries_again(world, both).await?;

    both.iter().for_each(|hub| hub.kill());
    let gone = world.elapsed() + Duration::from_millis(500);
    world.sleep(BOTH_AWAY).await;
    let passed = traffic.count(pair.0.key, pair.1.key, gone);
    if passed > 0 {
        return Err(Broken::safety(NEEDED, format!("{passed} datagrams passed without a hub")));
    }
    // One alone: with two, each of the pair may speak into the void at another one.
    near.restart();
    let met = meet_again(world, pair).await;
    let within = Within::new(world, REGISTERED, BACK);
    while within.lacks(cluster.unregistered(near).await).await? {}
    world.sleep(TAKEN_OVER).await;
    let sent = [(pair.0, pair.1), (pair.1, pair.0)];
    let sent = sent.map(|(from, to)| traffic.first_sent(from.key, to.key, gone).unwrap_or(met));
    if sent.iter().all(|sent| *sent + WAITS > met) {
        let seen = format!("they met at {met:?}, the first that arrived were sent at {sent:?}");
        return Err(Broken::liveness(WAITED, seen));
    }
    far.restart();
    let within = Within::new(world, REGISTERED, BACK);
    while within.lacks(cluster.unregistered(far).await).await? {}
    carries_again(world, both).await?;

    let mut left = Trouble::ALL.to_vec();
    let mut draws = world.rng("troubles");
    let (mut state, mut notes) = (String::new(), String::new());
    for _ in 0..TROUBLES {
        let trouble = left.remove((draws.next_u64() % left.len() as u64) as usize);
        let begun = world.elapsed();
        trouble.begin(near);
        let (took, pause) = taken_over(world, &traffic, pair, far, begun, trouble).await?;
        notes += &format!(
            "{trouble:?}: the other hub took over after {took:?}, the longest pause was {pause:?}\n"
        );
        trouble.end(near);
        let within = Within::new(world, REGISTERED, BACK);
        while within.lacks(cluster.unregistered(near).await).await? {}
        carries_again(world, both).await?;
        trouble.mark();
        state += &format!("{trouble:?}: the farther hub took over, then the nearer one carried again\n");
    }
    traffic.stop();
    cluster.converge(MEET).await?;
    if let Some((by, about)) = cluster.witness.held_dead().first() {
        return Err(Broken::safety(HEALTHY, format!("{by} held {} dead", cluster.name_of(about))));
    }
    Ok(Held { state: state + &cluster.views().await, notes })
}

/// When the two are registered at one hub again, a hundredth of a second sharp.
async fn meet_again(world: World, (a, b): (&Peer, &Peer)) -> Duration {
    let hubs = async |peer: &Peer| {
        let status = peer.node(&world).await.status().await;
        let hubs = status.map(|status| status.hubs).unwrap_or_default();
        hubs.into_iter().filter(|hub| hub.up).map(|hub| hub.key).collect::<Vec<_>>()
    };
    loop {
        let (at_a, at_b) = (hubs(a).await, hubs(b).await);
        if at_a.iter().any(|hub| at_b.contains(hub)) {
            return world.elapsed();
        }
        world.sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until this hub carries all that the pair says, and then for a while whether it stays so. How long it took,
/// and the longest pause from the trouble's beginning on.
async fn taken_over(
    world: World,
    traffic: &Traffic,
    (a, b): (&Peer, &Peer),
    far: &Relay,
    begun: Duration,
    trouble: Trouble,
) -> Result<(Duration, Duration), Broken> {
    let (limit, longest, least) = trouble.bounds();
    let within = Within::new(world, STANDBY, limit);
    loop {
        let carried = carried(world, far).await;
        let missing =
            (carried < FULL).then(|| format!("it carried {carried} datagrams in {SPAN:?} ({trouble:?})"));
        if !within.lacks(missing.into_iter().collect()).await? {
            break;
        }
    }
    let (taken, before) = (world.elapsed(), far.stats().relay.forwarded);
    world.sleep(CARRIES).await;
    let spans = (CARRIES.as_millis() / SPAN.as_millis()) as u64;
    let carried = far.stats().relay.forwarded - before;
    if carried < least * spans {
        let seen = format!("then it carried {carried} datagrams in {CARRIES:?} ({trouble:?})");
        return Err(Broken::liveness(STANDBY, seen));
    }
    let mut worst = Duration::ZERO;
    for (from, to) in [(a, b), (b, a)] {
        worst = worst.max(traffic.longest_pause(from.key, to.key, begun, world.elapsed()));
        let pause = traffic.longest_pause(from.key, to.key, taken, world.elapsed());
        if pause > longest {
            let seen =
                format!("{pause:?} without a datagram from {} to {} ({trouble:?})", from.name, to.name);
            return Err(Broken::liveness(STANDBY, seen));
        }
    }
    Ok((taken - begun, worst))
}

/// Waits until what the pair says goes through the nearer hub, and no longer through the other one as well.
async fn carries_again(world: World, [near, far]: [&Relay; 2]) -> Result<(), Broken> {
    let within = Within::new(world, NEARER, CARRIES_AGAIN);
    loop {
        let before = far.stats().relay.forwarded;
        let carried = carried(world, near).await;
        let too = far.stats().relay.forwarded.saturating_sub(before);
        let missing = (carried < FULL || too > STRAY)
            .then(|| format!("it carried {carried} datagrams in {SPAN:?}, the other one {too}"));
        if !within.lacks(missing.into_iter().collect()).await? {
            return Ok(());
        }
    }
}

/// What a hub carries in a [`SPAN`].
async fn carried(world: World, hub: &Relay) -> u64 {
    let before = hub.stats().relay.forwarded;
    world.sleep(SPAN).await;
    hub.stats().relay.forwarded.saturating_sub(before)
}
