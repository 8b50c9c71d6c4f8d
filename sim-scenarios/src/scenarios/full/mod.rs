//! A hub is full of clients, of records, of waiting bytes: who has most makes room, and nobody else.
//!
//! Small hubs, each with one limit that is reached, and clients of a crowd: most of them came by one invitation.
//!
//! **Places.** A crowd has all places but those of two, who talk through the hub all the time. Another slip of the pass that
//! has most is refused and tries again; another pass of the crowd's invitation, others' invitations and another mesh find a
//! place, at the cost of who has most each time. A client that moves has its place in the full hub. When some go, by a goodbye,
//! a kill or a power loss, the waiting ones are in at once.
//!
//! **One address** has so many places, which are shared likewise, and the hub has room for others.
//!
//! **Records.** So with the records: the crowd's next one is refused, another's is taken, and when one is withdrawn, the
//! next refresh takes its place.
//!
//! **Bytes.** Two clients don't read. When all queues are full, the one for which most waits pays. **Requests** and
//! **groups** beyond the limit are one pass's and one client's affair.
//!
//! Negative control: each hub is full before anybody is refused or pays.

mod tables;

use std::time::Duration;

use chaos::link::LinkConfig;
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::{Host, World};
use nurl::SecretKey;
use nurl::internals::authority::credential::Credential;
use nurl::internals::authority::invitation::InvitationId;
use nurl::internals::authority::level::Level;
use nurl::internals::net::reach::hub::{HubLimits, ServedMesh};
use nurl::internals::net::reach::hub_client::{DownReason, HubEvent};
use nurl::internals::net::reach::relay::CloseReason;
use nurl::rt::{Rng, time};
use rand_core::Rng as _;

use crate::cluster::soon;
use crate::models::guest::{Guest, Mesh, machine, none_went};
use crate::models::sim_hub::{Service, SimHub};
use crate::stage::link_ms;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("places came free by a goodbye"),
        Mark::new("places came free by a kill"),
        Mark::new("places came free by a power loss"),
        Mark::new("a client moved in a full hub"),
    ],
    ..Scenario::new(
        "full",
        "a hub is full of clients, records and bytes: the largest holder makes room, the others go on",
        |trial| Box::pin(run(trial)),
    )
};

const LINK: fn() -> LinkConfig = || link_ms(15, 5);

/// From a client's start to the hub's answer: a name, TCP, two round trips of the handshake, REGISTER; 40 ms each.
const AT_ONCE: Duration = Duration::from_millis(250);

/// A hub's answer to a request.
const ANSWERED: Duration = Duration::from_millis(60);

/// The same on a machine that has just had other connections: for a port that was used, nobody answers, and a dial begins
/// again beside it after two seconds.
const SAME_MACHINE: Duration = Duration::from_millis(2_250);

/// A refused client tries again within ten seconds, and is in as soon as another one of its machine.
const TRIED_AGAIN: Duration = Duration::from_millis(12_250);

/// A hub closes a client that was silent for a minute, and looks each half second.
const UNHEARD: Duration = Duration::from_millis(60_500);

/// The pair that was there before everybody talks so often, and hears each other within twice that and a link's jitter.
const TALKS: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(250);

/// What one is told for which there is no place.
const TAKEN: DownReason = DownReason::Closed(CloseReason::Full);

const PLACES: usize = 8;
const PLACES_OF_ONE_ADDRESS: usize = 4;

const FULL: &str = "the table is full";
const IN: &str = "who comes by another pass than the one that has most is in at once, however full a hub is";
const LARGEST: &str = "only the pass that has most makes room, of the mesh and the invitation that have most";
const REFUSED: &str = "one more of the pass that has most is refused, is told so, and tries again";
const MOVED: &str = "a client that moves has its place in a full hub, at nobody's cost";
const SERVED: &str = "who waits is in twelve seconds after there is room at the latest";
const UNDISTURBED: &str = "who was in before hears no pause while others fill a hub";
const SHARED: &str = "the places of one address are shared, and others have theirs";

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    world.link_default(LINK());
    let mut rng = world.rng("guests");
    let meshes = [Mesh::generate(&mut rng), Mesh::generate(&mut rng)];
    let mut bench = Bench { world, rng, meshes, invitation: InvitationId([7; 8]) };
    let mut state = places(&mut bench).await?;
    one_address(&mut bench).await?;
    tables::records(&mut bench).await?;
    tables::bytes(&mut bench).await?;
    tables::requests_and_groups(&mut bench).await?;
    state += "records, bytes, requests and groups found their bounds\n";
    Ok(Passed { state, notes: String::new() })
}

/// What all parts have in common.
struct Bench {
    world: World,
    rng: Rng,
    meshes: [Mesh; 2],
    /// That of the crowd.
    invitation: InvitationId,
}

impl Bench {
    fn hub(&mut self, name: &str, limits: HubLimits) -> SimHub {
        let host = self.world.host(name).addr(&format!("192.0.2.{}", self.world.hosts().len() + 1));
        let meshes = self.meshes.iter().map(|mesh| ServedMesh::of(mesh.id())).collect();
        let key = SecretKey::generate(&mut self.rng);
        SimHub::start(self.world, host, key, Service { meshes, limits, remembers: false })
    }

    fn pass(&mut self, mesh: usize, invitation: Option<InvitationId>) -> (SecretKey, Credential) {
        let key = SecretKey::generate(&mut self.rng);
        let pass = self.meshes[mesh].pass(&key.public(), Level::Worker, invitation, Duration::ZERO);
        (key, pass)
    }

    /// A guest on a machine of its own.
    fn guest(&self, name: &str, hub: &SimHub, of: &(SecretKey, Credential), mesh: usize) -> Guest {
        let host = machine(self.world, name);
        self.guest_on(host, name, hub, of, mesh)
    }

    fn guest_on(
        &self,
        host: Host,
        name: &str,
        hub: &SimHub,
        (key, shown): &(SecretKey, Credential),
        mesh: usize,
    ) -> Guest {
        Guest::start((self.world, host), name, hub, key, self.meshes[mesh].with(shown.clone()))
    }

    /// One of the crowd with a pass of its own.
    fn of_the_crowd(&mut self, name: &str, hub: &SimHub) -> Guest {
        let pass = self.pass(0, Some(self.invitation));
        self.guest(name, hub, &pass, 0)
    }

    /// One that was admitted by hand.
    fn by_hand(&mut self, name: &str, hub: &SimHub) -> Guest {
        let pass = self.pass(0, None);
        self.guest(name, hub, &pass, 0)
    }

    /// A slip of a pass.
    fn slip(&mut self, (holder, pass): &(SecretKey, Credential)) -> (SecretKey, Credential) {
        let key = SecretKey::generate(&mut self.rng);
        let slip = self.meshes[0].slip(holder, pass, key.public());
        (key, slip)
    }
}

/// Number of times that a guest was told that the hub is full.
fn refusals(guest: &Guest) -> usize {
    guest.downs().iter().filter(|reason| **reason == TAKEN).count()
}

/// Fails unless the number of those that were told so is what it has to be.
fn exactly(property: &str, what: &str, found: usize, wanted: usize) -> Result<(), Violation> {
    if found == wanted {
        return Ok(());
    }
    Err(Violation::safety(property, format!("{found} {what}, not {wanted}")))
}

async fn places(bench: &mut Bench) -> Result<String, Violation> {
    let world = bench.world;
    let hub = bench.hub("places", HubLimits { clients: PLACES, ..HubLimits::default() });
    let pair = [bench.by_hand("one", &hub), bench.by_hand("other", &hub)];
    for guest in &pair {
        guest.is_in(IN, AT_ONCE).await?;
    }
    talk(&pair);
    // The crowd: three places by one pass, and three passes more.
    let pass = bench.pass(0, Some(bench.invitation));
    let mut most = vec![bench.guest("holder", &hub, &pass, 0)];
    for number in 0..2 {
        let slip = bench.slip(&pass);
        most.push(bench.guest(&format!("slip {number}"), &hub, &slip, 0));
    }
    let crowd: Vec<Guest> = (0..3).map(|n| bench.of_the_crowd(&format!("crowd {n}"), &hub)).collect();
    for guest in most.iter().chain(&crowd) {
        guest.is_in(IN, AT_ONCE).await?;
    }
    exactly(FULL, "clients", hub.stats().clients, PLACES)?;

    let slip = bench.slip(&pass);
    let refused = bench.guest("slip 2", &hub, &slip, 0);
    refused.is_told(REFUSED, AT_ONCE, TAKEN).await?;
    if refused.is_up() || DownReason::is_refusal(refused.downs()[0]) {
        return Err(Violation::safety(REFUSED, format!("{:?}", refused.downs())));
    }
    none_went(LARGEST, most.iter().chain(&crowd).chain(&pair))?;

    // Another pass of the crowd, and then one that came by another invitation.
    let next = bench.of_the_crowd("crowd 3", &hub);
    next.is_in(IN, AT_ONCE).await?;
    let others = bench.pass(0, Some(InvitationId([8; 8])));
    let newcomer = bench.guest("newcomer", &hub, &others, 0);
    newcomer.is_in(IN, AT_ONCE).await?;
    // Whom the hub closed knows it a moment later.
    world.sleep(ANSWERED).await;
    none_went(LARGEST, crowd.iter().chain([&next]).chain(&pair))?;
    let gone = most.iter().filter(|guest| refusals(guest) > 0).count();
    exactly(LARGEST, "of the pass with most places had to go", gone, 2)?;

    let evicted = hub.stats().hub.evicted_clients;
    let moved = bench.guest("newcomer elsewhere", &hub, &others, 0);
    moved.is_in(MOVED, AT_ONCE).await?;
    sometimes!("a client moved in a full hub");
    world.sleep(ANSWERED).await;
    if newcomer.downs() != [DownReason::Closed(CloseReason::Replaced)] {
        return Err(Violation::safety(MOVED, format!("its old connection: {:?}", newcomer.downs())));
    }
    exactly(MOVED, "evicted", usize_of(hub.stats().hub.evicted_clients), usize_of(evicted))?;
    drop(newcomer);

    // Another mesh has its half of the places.
    let mut strangers = Vec::new();
    for number in 0..PLACES / 2 {
        let pass = bench.pass(1, Some(bench.invitation));
        let guest = bench.guest(&format!("stranger {number}"), &hub, &pass, 1);
        guest.is_in(IN, AT_ONCE).await?;
        strangers.push(guest);
    }
    let pass = bench.pass(1, Some(bench.invitation));
    let fifth = bench.guest("stranger 4", &hub, &pass, 1);
    fifth.is_told(REFUSED, AT_ONCE, TAKEN).await?;
    none_went(LARGEST, strangers.iter().chain([&moved]).chain(&pair))?;
    let waiting: Vec<Guest> = most.into_iter().chain(crowd).chain([next, refused]).collect();
    let in_before = waiting.iter().filter(|guest| guest.is_up()).count();
    exactly(LARGEST, "of the crowd's invitation kept a place", in_before, 1)?;

    // Those that wait try again, and there is room for some of them.
    let within = leave(bench, strangers);
    drop(fifth);
    soon(bench.world, SERVED, within, || {
        let now = waiting.iter().filter(|guest| guest.is_up()).count();
        let enough = now == PLACES - pair.len() - 1;
        enough.then_some(()).ok_or_else(|| format!("{now} of {} that wait are in", waiting.len()))
    })
    .await?;
    let tries = waiting.iter().map(refusals).sum::<usize>();
    none_went(UNDISTURBED, pair.iter().chain([&moved]))?;
    for guest in &pair {
        let heard = guest.heard(Duration::ZERO).into_iter();
        let heard = heard.filter(|(_, event)| matches!(event, HubEvent::Datagram { .. })).map(|(at, _)| at);
        let times: Vec<Duration> = heard.chain([world.elapsed()]).collect();
        let pause = times.windows(2).map(|two| two[1] - two[0]).max().unwrap_or(Duration::MAX);
        if pause > PAUSE {
            return Err(Violation::liveness(
                UNDISTURBED,
                format!("{} heard nothing for {pause:?}", guest.name),
            ));
        }
    }
    exactly(FULL, "clients", hub.stats().clients, PLACES)?;
    if tries < waiting.len() {
        return Err(Violation::safety(REFUSED, format!("{tries} refusals of {}", waiting.len())));
    }
    Ok(format!("{PLACES} places had one more each time, and {in_before} of the crowd kept one\n"))
}

/// They say something to each other, as long as both are there.
fn talk([one, other]: &[Guest; 2]) {
    for (from, to) in [(one, other), (other, one)] {
        let (orders, to) = (from.orders(), to.key);
        from.host.run(async move {
            loop {
                orders.give(move |hub, _| hub.forward(&to, b"still here")).await;
                time::sleep(TALKS).await;
            }
        });
    }
}

/// They go, in a drawn way. Returns within which time others that wait are in.
fn leave(bench: &mut Bench, guests: Vec<Guest>) -> Duration {
    let way = bench.rng.next_u64() % 3;
    match way {
        0 => sometimes!("places came free by a goodbye"),
        1 => {
            sometimes!("places came free by a kill");
            guests.iter().for_each(|guest| guest.host.crash());
        }
        _ => {
            sometimes!("places came free by a power loss");
            guests.iter().for_each(|guest| guest.host.power_loss());
        }
    }
    if way == 2 { UNHEARD + TRIED_AGAIN } else { TRIED_AGAIN }
}

fn usize_of(count: u64) -> usize {
    usize::try_from(count).expect("a small number")
}

async fn one_address(bench: &mut Bench) -> Result<(), Violation> {
    let limits = HubLimits { clients_per_address: PLACES_OF_ONE_ADDRESS, ..HubLimits::default() };
    let hub = bench.hub("address", limits);
    let lab = machine(bench.world, "lab");
    let pass = bench.pass(0, Some(bench.invitation));
    let slips = [bench.slip(&pass), bench.slip(&pass), bench.slip(&pass)];
    let (hand, next) = (bench.pass(0, None), bench.pass(0, None));
    let first = bench.guest_on(lab, "first in the lab", &hub, &hand, 0);
    first.is_in(SHARED, SAME_MACHINE).await?;
    let mut most = Vec::new();
    for (number, shown) in [&pass, &slips[0], &slips[1]].into_iter().enumerate() {
        let guest = bench.guest_on(lab, &format!("most {number}"), &hub, shown, 0);
        guest.is_in(SHARED, SAME_MACHINE).await?;
        most.push(guest);
        // Who was silent longest pays first.
        bench.world.sleep(Duration::from_millis(300)).await;
    }
    exactly(FULL, "clients", hub.stats().clients, PLACES_OF_ONE_ADDRESS)?;
    let refused = bench.guest_on(lab, "most 3", &hub, &slips[2], 0);
    refused.is_told(SHARED, SAME_MACHINE, TAKEN).await?;
    none_went(SHARED, most.iter().chain([&first]))?;
    let second = bench.guest_on(lab, "second in the lab", &hub, &next, 0);
    second.is_in(SHARED, SAME_MACHINE).await?;
    bench.world.sleep(ANSWERED).await;
    none_went(SHARED, most[1..].iter().chain([&first]))?;
    exactly(SHARED, "times the one silent longest was closed", refusals(&most[0]), 1)?;
    // They are of one address: elsewhere there is room.
    let elsewhere = bench.by_hand("elsewhere", &hub);
    elsewhere.is_in(SHARED, AT_ONCE).await?;
    exactly(SHARED, "clients", hub.stats().clients, PLACES_OF_ONE_ADDRESS + 1)
}
