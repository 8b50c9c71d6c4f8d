//! A hub in the course of time: it is told to stop, dies, remembers whom it let in, hands requests on, and sends away.
//!
//! **Told to stop.** Two workers behind symmetric NATs talk through one of two hubs. Each hub in turn is told to stop: its
//! clients are told, what it relayed goes on through the other at once, and when it is back all register again.
//!
//! **Remembers.** A hub with a file issues passes of two meshes; an invitation has two. Its power fails at a drawn operation of
//! its disk while it signs the second, and again right after it has taken a revocation and a rotation. What it said once holds
//! after each: the same key gets the same pass, though it has one of another mesh too; the invitation has no third place;
//! the revoked one is out, its invitation closed; and whoever comes gets the mesh's present secret.
//!
//! **Hands on.** A hub without the authority's key has clients that issue. One is busy, one leaves when it is asked, a member
//! only says that it issues; the next one is asked each time. A pass that is due is renewed through the hub, and a refusal
//! leaves a registered client where it is.
//!
//! **Sends away.** One of another mesh, of another version, with another's or an old pass is told why, each in its words, and
//! takes no place. Who may only look publishes nothing.
//!
//! Negative control: a hub without a file lets the third in after its restart.

mod requests;

use std::sync::Arc;
use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::SecretKey;
use nurl::internals::authority::credential::Credential;
use nurl::internals::authority::invitation::Invitation;
use nurl::internals::authority::key::AuthorityKey;
use nurl::internals::authority::level::Level;
use nurl::internals::authority::revocation::Subject;
use nurl::internals::net::reach::hub::{HubLimits, ServedMesh};
use nurl::internals::net::reach::hub_client::{DownReason, HubEvent, Joining};
use nurl::internals::net::reach::relay::CloseReason;
use nurl::rt::{Rng, time};
use rand_core::Rng as _;

use crate::cluster::{Cluster, Deadline, Traffic, soon};
use crate::models::guest::{Guest, Mesh, Policy, machine, seconds};
use crate::models::nat_box::presets;
use crate::models::sim_hub::{Service, SimHub};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a hub's power failed while it signed a pass"),
        Mark::new("a hub's power failed before it signed a pass"),
        Mark::new("a hub that had been told to stop relayed what two nodes said"),
    ],
    ..Scenario::new(
        "doorkeeper",
        "a hub stops, dies and remembers, hands requests on and sends away: what it said once holds",
        |trial| Box::pin(run(trial)),
    )
};

const MEET: Duration = Duration::from_secs(30);

/// From a client's start to the hub's answer: a name, TCP, two round trips of the handshake, a request for a pass, which an
/// issuer may answer, and REGISTER; 40 ms each.
const AT_ONCE: Duration = Duration::from_millis(350);

/// A hub's answer to a request.
const ANSWERED: Duration = Duration::from_millis(100);

/// A client tries again within two seconds if no hub is up, and within ten otherwise. Where its port was used just before,
/// it dials from another one after two seconds.
const BACK_SOON: Duration = Duration::from_millis(4_350);
const BACK: Duration = Duration::from_millis(12_350);

/// A hub that was told to stop waits for its clients for two seconds at most. These read at once.
const STOPPED: Duration = Duration::from_millis(200);

/// What two nodes say each 50 ms goes another way after this: the hub's word, and what was in flight.
const EVERY: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(300);

/// Keys that the invitation admits.
const KEYS: u16 = 2;

/// A power loss hits one of so many of the disk's operations: a commit has fewer.
const DISK_OPS: u64 = 8;

const TOLD: &str = "a hub that is told to stop tells its clients, and stops when they know";
const OTHER: &str = "what a stopped hub relayed goes on through the other hub at once";
const RETURNS: &str = "who lost a hub registers again when it is back";
const SAME: &str = "a hub that remembers gives the same key the same pass after any end";
const COUNTED: &str = "a hub that remembers admits no more keys after its restart than before";
const FORGETS: &str = "a hub without a file counts its places anew";
const OUT: &str = "a revocation that a hub took before its end counts after it";
const SECRET: &str = "a hub that heard of a rotation before its end hands out the secret after it";

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let mut rng = world.rng("guests");
    let stops = stops(world).await?;
    let (mesh, other) = (Mesh::generate(&mut rng), Mesh::generate(&mut rng));
    let mut bench = Bench { world, rng, mesh, other };
    remembers(&mut bench).await?;
    forgets(&mut bench).await?;
    requests::hands_on(&mut bench).await?;
    requests::sends_away(&mut bench).await?;
    Ok(Passed { state: stops + "what the hubs had said held\n", notes: String::new() })
}

async fn stops(world: World) -> Result<String, Violation> {
    let mut stage = Stage::new(world).links(link_ms(15, 5)).hub("left").hub("right").workers(1);
    for name in ["home 1", "home 2"] {
        stage = stage.behind_nat(name, presets::symmetric()).worker(&format!("in {name}"));
    }
    let cluster = stage.meet(MEET).await?;
    let (a, b) = (cluster.peers[1].clone(), cluster.peers[2].clone());
    let traffic = Traffic::start(world, &cluster, EVERY).await;
    world.sleep(Duration::from_secs(8)).await;
    for hub in &cluster.hubs {
        let relayed = hub.stats().relay.forwarded;
        world.sleep(Duration::from_secs(1)).await;
        let relays = hub.stats().relay.forwarded > relayed + 10;
        sometimes!(relays, "a hub that had been told to stop relayed what two nodes said");
        let begun = world.elapsed();
        hub.shut_down().await;
        let took = world.elapsed() - begun;
        if took > STOPPED {
            return Err(Violation::liveness(TOLD, format!("it took {took:?}")));
        }
        let untold = untold(&cluster, hub).await;
        if !untold.is_empty() {
            return Err(Violation::safety(TOLD, untold.join(", ")));
        }
        world.sleep(Duration::from_secs(2)).await;
        hub.restart();
        let deadline = Deadline::new(world, RETURNS, BACK);
        while deadline.still_missing(cluster.unregistered(hub).await).await? {}
        for (from, to) in [(&a, &b), (&b, &a)] {
            let pause = traffic.longest_pause(from.key, to.key, begun, world.elapsed());
            if pause > PAUSE {
                let seen = format!("{} heard nothing of {} for {pause:?}", to.name, from.name);
                return Err(Violation::liveness(OTHER, seen));
            }
        }
        world.sleep(Duration::from_secs(6)).await;
    }
    traffic.stop();
    cluster.no_false_deaths("nobody healthy is held dead", &[])?;
    let views = cluster.views().await;
    cluster.peers.iter().for_each(|peer| peer.host.crash());
    cluster.hubs.iter().for_each(|hub| hub.host.crash());
    Ok(views)
}

/// The nodes that don't say that this hub was told to stop.
async fn untold(cluster: &Cluster, hub: &SimHub) -> Vec<String> {
    let mut untold = Vec::new();
    for peer in &cluster.peers {
        let status = peer.node(&cluster.world()).await.status().await;
        let info = status.ok().and_then(|status| status.hubs.into_iter().find(|info| info.key == hub.key));
        let down = info.and_then(|info| info.down);
        if down != Some(DownReason::Closed(CloseReason::Shutdown)) {
            untold.push(format!("{} says {down:?}", peer.name));
        }
    }
    untold
}

/// What the other parts have in common.
struct Bench {
    world: World,
    rng: Rng,
    mesh: Mesh,
    /// Another one at the same hubs.
    other: Mesh,
}

impl Bench {
    fn hub(&mut self, name: &str, meshes: Vec<ServedMesh>, remembers: bool) -> SimHub {
        let host = self.world.host(name).addr(&format!("192.0.3.{}", self.world.hosts().len() + 1));
        let key = SecretKey::generate(&mut self.rng);
        let service = Service { meshes, limits: HubLimits::default(), remembers };
        SimHub::start(self.world, host, key, service)
    }

    fn issuing(&mut self, name: &str, remembers: bool) -> SimHub {
        let meshes = [&self.mesh, &self.other].map(|mesh| ServedMesh::issued_by(mesh.authority.clone()));
        self.hub(name, meshes.to_vec(), remembers)
    }

    fn blind(&mut self, name: &str) -> SimHub {
        let mesh = ServedMesh::of(self.mesh.id());
        self.hub(name, vec![mesh], false)
    }

    fn key(&mut self) -> SecretKey {
        SecretKey::generate(&mut self.rng)
    }

    fn invitation(&mut self) -> Invitation {
        Invitation::for_keys(KEYS, &self.mesh.authority, time::unix_now(), &mut self.rng)
    }

    fn guest(&self, name: &str, hub: &SimHub, key: &SecretKey, joining: Joining) -> Guest {
        Guest::start((self.world, machine(self.world, name)), name, hub, key, joining)
    }

    fn invited(&self, name: &str, hub: &SimHub, key: &SecretKey, invitation: &Invitation) -> Guest {
        self.guest(name, hub, key, self.mesh.by(invitation.clone()))
    }

    /// One with a pass that was issued so long ago.
    fn with_pass(&mut self, name: &str, hub: &SimHub, level: Level, ago: Duration) -> Guest {
        let key = self.key();
        let pass = self.mesh.pass(&key.public(), level, None, ago);
        self.guest(name, hub, &key, self.mesh.with(pass))
    }

    /// An issuer at a hub. It answers by this.
    fn issuer(&mut self, name: &str, hub: &SimHub, policy: Policy) -> Guest {
        let key = self.key();
        let pass = self.mesh.pass(&key.public(), Level::Issuer, None, Duration::ZERO);
        let host = machine(self.world, name);
        Guest::start_issuer((self.world, host), name, hub, (&key, self.mesh.with(pass)), policy)
    }
}

/// The pass that a guest was issued last.
fn issued(guest: &Guest) -> Option<Credential> {
    guest.heard(Duration::ZERO).into_iter().rev().find_map(|(_, event)| match event {
        HubEvent::Issued { credential, .. } => Some(credential),
        _ => None,
    })
}

async fn remembers(bench: &mut Bench) -> Result<(), Violation> {
    let world = bench.world;
    let hub = bench.issuing("remembers", true);
    let invitation = bench.invitation();
    let keys = [bench.key(), bench.key(), bench.key()];
    let first = bench.invited("first", &hub, &keys[0], &invitation);
    first.is_in(SAME, AT_ONCE).await?;
    let own = issued(&first);
    // The same key belongs to another mesh, too.
    let now = time::unix_now();
    let elsewhere = Invitation::for_keys(KEYS, &bench.other.authority, now, &mut bench.rng);
    let stranger = bench.guest("first, elsewhere", &hub, &keys[0], bench.other.by(elsewhere));
    stranger.is_in(SAME, AT_ONCE).await?;

    // Its power fails while the second comes.
    hub.host.power_loss_at_disk_op(1 + bench.rng.next_u64() % DISK_OPS);
    let second = bench.invited("second", &hub, &keys[1], &invitation);
    world.sleep(AT_ONCE).await;
    let before = issued(&second);
    sometimes!(!hub.host.is_running(), "a hub's power failed while it signed a pass");
    sometimes!(hub.host.is_running(), "a hub's power failed before it signed a pass");
    hub.power_loss();
    world.sleep(Duration::from_millis(500)).await;
    hub.restart();
    // A connection to a machine without power is noticed as one that is silent: 15 s, and 5 s.
    second.is_in(SAME, Duration::from_secs(20) + BACK_SOON).await?;
    first.is_in(SAME, Duration::from_secs(20) + BACK_SOON).await?;
    let after = issued(&second);
    if before.is_some() && before != after {
        return Err(Violation::safety(SAME, "the second has another pass".to_owned()));
    }
    // The same keys come again, without their passes.
    for (number, (key, had)) in keys.iter().zip([own, after]).enumerate() {
        let again = bench.invited(&format!("again {number}"), &hub, key, &invitation);
        again.is_in(SAME, AT_ONCE).await?;
        if issued(&again) != had {
            return Err(Violation::safety(SAME, format!("{} has another pass", again.name)));
        }
    }
    let third = bench.invited("third", &hub, &keys[2], &invitation);
    let used_up = DownReason::Closed(CloseReason::UsedUp);
    third.is_told(COUNTED, AT_ONCE, used_up).await?;

    // The authority revokes the first, and rotates the secret; the hub dies when it has said that it knows.
    let teller = bench.with_pass("teller", &hub, Level::Member, Duration::ZERO);
    teller.is_in(OUT, AT_ONCE).await?;
    let now = seconds(time::unix_now());
    let authority: &Arc<AuthorityKey> = &bench.mesh.authority;
    let entries = [
        authority.revoke(Subject::Key(keys[0].public()), now).encode(),
        authority.rotate(1, now).entry.encode(),
    ];
    let known = || teller.count(|event| matches!(event, HubEvent::Knows(_)));
    let before = known();
    teller.give(move |hub, _| hub.revoke(&entries.concat())).await;
    soon(world, OUT, ANSWERED, || (known() > before).then_some(()).ok_or("not taken".to_owned())).await?;
    hub.power_loss();
    // None of them tells the hub again.
    for guest in [&first, &second, &third, &teller] {
        guest.host.crash();
    }
    world.sleep(Duration::from_secs(1)).await;
    hub.restart();
    world.sleep(ANSWERED).await;
    let revoked = DownReason::Closed(CloseReason::Revoked);
    let pass = issued(&first).expect("it was in");
    let back = bench.guest("first, back", &hub, &keys[0], bench.mesh.with(pass));
    back.is_told(OUT, AT_ONCE, revoked).await?;
    let told = back.count(|event| matches!(event, HubEvent::Revocations(entries) if !entries.is_empty()));
    if told == 0 {
        return Err(Violation::safety(OUT, "the hub doesn't say by which entry".to_owned()));
    }
    let anew = bench.invited("first, anew", &hub, &keys[0], &invitation);
    anew.is_told(OUT, AT_ONCE, revoked).await?;
    let fourth = bench.invited("third, again", &hub, &keys[2], &invitation);
    fourth.is_told(OUT, AT_ONCE, revoked).await?;
    let pass = issued(&second).expect("it was in");
    let stays = bench.guest("second, back", &hub, &keys[1], bench.mesh.with(pass));
    stays.is_in(SECRET, AT_ONCE).await?;
    let handed = stays.heard(Duration::ZERO).into_iter().map(|(_, event)| event);
    let handed: Vec<HubEvent> =
        handed.filter(|event| matches!(event, HubEvent::Secret { .. } | HubEvent::Up { .. })).collect();
    let is_first = |event: &HubEvent| match event {
        HubEvent::Secret { secret, sealed } => {
            secret.generation == 1 && secret.is_of(&bench.mesh.id()) && !sealed
        }
        _ => false,
    };
    if !handed.first().is_some_and(is_first) {
        return Err(Violation::safety(SECRET, format!("it got {} others first", handed.len())));
    }
    let own = hub.secret(&bench.mesh.id()).map(|secret| secret.generation);
    if own != Some(1) {
        return Err(Violation::safety(SECRET, format!("for its tickets it has generation {own:?}")));
    }
    Ok(())
}

/// The negative control.
async fn forgets(bench: &mut Bench) -> Result<(), Violation> {
    let hub = bench.issuing("forgets", false);
    let invitation = bench.invitation();
    for number in 0..KEYS {
        let key = bench.key();
        bench.invited(&format!("early {number}"), &hub, &key, &invitation).is_in(FORGETS, AT_ONCE).await?;
    }
    let key = bench.key();
    let late = bench.invited("late", &hub, &key, &invitation);
    late.is_told(COUNTED, AT_ONCE, DownReason::Closed(CloseReason::UsedUp)).await?;
    hub.kill();
    hub.restart();
    late.is_in(FORGETS, BACK).await
}
