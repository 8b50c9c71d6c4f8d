//! A holder of a ticket lies to everybody: the mesh goes on.
//!
//! Three workers with stores, or twelve (by the seed), a member and an observer that submit jobs, a hub, and an
//! [insider](crate::insider): its word about others and its numbers are false, its sessions are real.
//!
//! **State.** Before anybody else the insider writes to a counter, a register and a set, each time a value of another kind
//! than the key says. All nodes then use all three as if nothing had been said. Its own write of the right kind counts.
//!
//! **Slander.** Twenty times a second the insider tells each node that everybody has left, then that everybody is
//! dead. Nobody is held so: a node asks the subject itself. All jobs of that time are done.
//!
//! **Lift.** The insider tells one worker alone that it is suspect at an incarnation 2^20 above its own, and then at the
//! highest that is believed. The worker outbids that each time. Then the insider accuses it before all others, at the
//! incarnation that they know. They don't hold it dead, and take its refutation, however far above their own knowledge
//! it is.
//!
//! **Ghosts.** The insider tells of members that nobody admitted: by the smallest keys, alive, dead and gone, signed by
//! those keys, with the insider's own pass or with one of another mesh. And it claims more weight than its pass permits.
//! No table and no ring knows any of them, and its share is what its pass says.
//!
//! **A true death** is then found as soon as ever. It is the negative control: these nodes can hold a node dead.
//!
//! **Epochs.** The insider tells ever higher epochs, as an observer, in the mesh group, and as a member: 2^32, twice
//! that, the highest that a node believes, and nearly the highest number. Later submitters get their results, also after
//! all workers have restarted from their stores.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use chaos::scenario::{Knob, KnobKind, Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::authority::key::AuthorityKey;
use nurl::internals::authority::level::Level;
use nurl::internals::authority::pass::MAX_WEIGHT;
use nurl::internals::membership::message::{MembershipMessage, MessageBody};
use nurl::internals::membership::table::Fact;
use nurl::internals::membership::{Roles, State};
use nurl::internals::node::Role;
use nurl::internals::replication::crdt::{Clock, Kind, LwwRegister, OrSet, PnCounter, Value};
use nurl::internals::replication::identity::ReplicaId;
use nurl::internals::replication::replicator::state_key;
use nurl::internals::transport::{channel, group, kind};
use nurl::rt::time;
use nurl::{PublicKey, SecretKey};
use rand_core::Rng as _;

use crate::cluster::{Cluster, Deadline, Jobs, Peer, copies, secret};
use crate::insider::mischief::believed;
use crate::insider::{Insider, wire};
use crate::stage::{Stage, link_ms, with_store};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    knobs: &[Knob {
        name: "acts",
        about: "the lies, added up: 1 slander, 2 lift, 4 epochs, 8 ghosts, 16 state",
        default: SLANDER + LIFT + EPOCHS + GHOSTS + STATE,
        least: 1,
        turns: KnobKind::Work,
    }],
    marks: &[
        Mark::new("slander among three"),
        Mark::new("slander among twelve"),
        Mark::new("a subject refuted a lift that the others hadn't heard of"),
        Mark::new("a member that claims more has the share that its pass permits"),
    ],
    time_limit: Duration::from_secs(15 * 60),
    ..Scenario::new(
        "insiders",
        "a holder of a ticket lies about members and numbers: nobody reachable is held dead, all jobs are done",
        |trial| Box::pin(run(trial)),
    )
};

/// The bits of the knob.
const SLANDER: u64 = 1;
const LIFT: u64 = 2;
const EPOCHS: u64 = 4;
const GHOSTS: u64 = 8;
const STATE: u64 = 16;

const ALIVE: &str = "nobody reachable is held dead or gone, whatever an insider says";
const LIFTED: &str = "a member's own word is taken, however far its incarnation was lifted";
const AGREE: &str = "members see each other while an insider lies";
const UNADMITTED: &str = "nobody is a member, or has a share of the keys, beyond a pass";
const KINDS: &str = "no key takes a value of another kind";
const FOUND: &str = "after all lies a true death is found";

const MEET: Duration = Duration::from_secs(60);

/// The time between two slanders, and for how long each kind of them goes on: longer than the longest suspicion.
const SLANDER_EVERY: Duration = Duration::from_millis(50);
const SLANDERS: u32 = 600;

/// Jobs of each submitter while the insider lies, and the time in which they are done. Each takes a second; an executor
/// that is taken for dead would cost 3.5 s.
const JOBS: u32 = 4;
const DONE: Duration = Duration::from_secs(60);

/// What its pass permits.
const PERMITTED: u16 = MAX_WEIGHT as u16;

/// Made-up members, and how often they are told: more than a full table would hold.
const MADE_UP: u16 = 128;
const TOLD: usize = 11;

/// The weight that the insider claims; its pass permits less.
const CLAIMED: u16 = 64;

/// The second after the slander, in which a node's refutations may be used up.
const BREATHER: Duration = Duration::from_secs(2);

/// The time between a lift and the accusation: the victim has outbid it, and told the others.
const LIFT_TO_ACCUSATION: Duration = Duration::from_secs(3);

/// The longest suspicion among fifteen is 28 s: if an accusation was believed, its subject is dead by then.
const DOUBT: Duration = Duration::from_secs(40);

/// A death is known everywhere within this.
const LEARN: Duration = Duration::from_secs(60);

/// How long a power loss lasts.
const DOWN: Duration = Duration::from_secs(2);

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let mut draws = world.rng("insiders");
    let workers = if world.seed().is_multiple_of(2) { 12 } else { 3 };
    let stage = Stage::new(world).links(link_ms(15, 10)).hub("hub");
    let stage = stage.workers(workers).member("submitter").observer("watcher");
    let stage = stage.configure(|builder, setup| match setup.role {
        Role::Worker => with_store(builder, "/node"),
        Role::Member | Role::Observer => builder,
    });
    let mut cluster = stage.meet(MEET).await?;
    let eve = Insider::start(world, &cluster, "eve");
    eve.meet(&cluster, MEET).await?;
    let mut ears = Ears::default();
    introduce(&cluster, &eve);
    world.sleep(Duration::from_secs(5)).await;

    let acts = trial.knob("acts");
    let first = if draws.next_u32().is_multiple_of(2) { State::Left } else { State::Dead };
    let second = if first == State::Left { State::Dead } else { State::Left };
    // First, since the insider owns no key yet.
    if acts & STATE != 0 {
        state_act(world, &cluster, &eve).await?;
    }
    if acts & SLANDER != 0 {
        for state in [first, second] {
            slander_act(world, &cluster, &eve, &mut ears, state).await?;
        }
        sometimes!(workers == 3, "slander among three");
        sometimes!(workers == 12, "slander among twelve");
    }
    if acts & GHOSTS != 0 {
        ghosts_act(world, &cluster, &eve).await?;
    }
    let victim = draws.next_u32() as usize % workers;
    if acts & LIFT != 0 {
        for to in [1 << 20, believed()] {
            lift_act(world, &cluster, &eve, &mut ears, &cluster.peers[victim], to).await?;
        }
        sometimes!(true, "a subject refuted a lift that the others hadn't heard of");
    }

    let killed = draws.next_u32() as usize % workers;
    cluster.peers[killed].host.power_loss();
    let deadline = Deadline::new(world, FOUND, LEARN);
    while deadline.still_missing(missing(&cluster).await).await? {}
    let found = deadline.waited();
    cluster.peers[killed].host.restart();
    agree(&cluster).await?;

    if acts & EPOCHS != 0 {
        epochs_act(world, &mut cluster, &eve).await?;
    }
    cluster.inspect().await?;
    let state =
        format!("{workers} workers: no lie was believed, all jobs are done, all members see each other\n");
    Ok(Passed { state, notes: format!("a true death was found after {found:?}\n") })
}

/// The insider is a member from now on: it has a fact about itself, and answers pings.
fn introduce(cluster: &Cluster, eve: &Insider) {
    let message = wire::gossip(0, vec![eve.alive(1, Roles::NONE, 1)]);
    eve.answer_pings(Some(message.clone()));
    for peer in cluster.running() {
        eve.send(peer.key, channel::MEMBERSHIP, message.encode());
    }
}

/// What the insider has heard: the highest incarnation of each member.
#[derive(Default)]
struct Ears(BTreeMap<PublicKey, u64>);

impl Ears {
    /// Reads what the insider has received.
    fn listen(&mut self, eve: &Insider) {
        for received in eve.take_received() {
            let Ok(message) = MembershipMessage::decode(&received.body) else { continue };
            for Fact { key, record, .. } in message.facts {
                let known = self.0.entry(key).or_default();
                *known = record.incarnation.max(*known);
            }
        }
    }

    /// The highest incarnation of a member that the insider has heard of; nearly all members begin at 0.
    fn incarnation(&self, of: &Peer) -> u64 {
        self.0.get(&of.key).copied().unwrap_or_default()
    }
}

/// What members don't see as it is. An observer asks one member in 30 s, and the insider answers nothing.
async fn missing(cluster: &Cluster) -> Vec<String> {
    let observers: Vec<_> = cluster.peers.iter().filter(|peer| peer.role == Role::Observer).collect();
    let by_observer = |line: &String| observers.iter().any(|peer| line.starts_with(&peer.name));
    cluster.missing().await.into_iter().filter(|line| !by_observer(line)).collect()
}

/// Waits until all members see each other.
async fn agree(cluster: &Cluster) -> Result<(), Violation> {
    let deadline = Deadline::new(cluster.world(), AGREE, MEET);
    while deadline.still_missing(missing(cluster).await).await? {}
    Ok(())
}

/// The nodes that some node has held dead or gone.
fn gone(cluster: &Cluster) -> Option<String> {
    let fallen = |peer: &&Peer| cluster.witness.verdicts_on(peer).any(|state| !state.is_live());
    cluster.peers.iter().find(fallen).map(|peer| format!("{} was held dead or gone", peer.name))
}

fn all_alive(cluster: &Cluster, during: &str) -> Result<(), Violation> {
    match gone(cluster) {
        None => Ok(()),
        Some(seen) => Err(Violation::safety(ALIVE, format!("{during}: {seen}"))),
    }
}

async fn submit_all(cluster: &Cluster, jobs: &mut Jobs<'_>, about: &str) -> Result<(), Violation> {
    for from in cluster.peers.iter().filter(|peer| peer.role != Role::Worker) {
        for number in 0..JOBS {
            jobs.submit(from, "slow", &format!("{} {about} {number}", from.name)).await?;
        }
    }
    Ok(())
}

/// Everybody is told again and again that everybody is in this state.
async fn slander_act(
    world: World,
    cluster: &Cluster,
    eve: &Insider,
    ears: &mut Ears,
    state: State,
) -> Result<(), Violation> {
    let mut jobs = Jobs::new(cluster);
    for number in 0..SLANDERS {
        if number % (SLANDERS / 3) == 10 {
            submit_all(cluster, &mut jobs, &format!("all {} {number}", state.as_str())).await?;
        }
        ears.listen(eve);
        let members = cluster.peers.iter().filter(|peer| peer.role != Role::Observer);
        let lies = members.map(|peer| match state {
            // A goodbye is signed: the insider has but its own key, and the pass that the member shows everybody.
            State::Left => {
                let (roles, said) = (Roles::WORKER, ears.incarnation(peer));
                let credential = cluster.credential(&peer.key, peer.role);
                let by = wire::Signer { pass: credential.pass(), ..eve.signer() };
                wire::said(peer.key, &by, said, true, (roles, 1))
            }
            _ => wire::claim(peer.key, ears.incarnation(peer), state, Vec::new()),
        });
        let lies: Vec<Fact> = lies.collect();
        // A datagram holds about 20 claims, and 3 signed words.
        let (most, mut bodies) = (if state == State::Left { 3 } else { 20 }, Vec::new());
        for lies in lies.chunks(most) {
            bodies.push(Bytes::from(wire::gossip(0, lies.to_vec()).encode()));
        }
        for (peer, body) in cluster.peers.iter().flat_map(|peer| bodies.iter().map(move |body| (peer, body)))
        {
            eve.send(peer.key, channel::MEMBERSHIP, body.clone());
        }
        world.sleep(SLANDER_EVERY).await;
        all_alive(cluster, state.as_str())?;
    }
    jobs.settle(DONE).await?;
    agree(cluster).await?;
    all_alive(cluster, state.as_str())
}

/// The insider is the first to write to a counter, a register and a set, with values of the other kinds.
async fn state_act(world: World, cluster: &Cluster, eve: &Insider) -> Result<(), Violation> {
    const NAME: &str = "written by an insider first";
    const OWN: u64 = 100;
    let author = ReplicaId { key: eve.key, incarnation: 1 };
    let mut register = LwwRegister::default();
    register.set(author, &mut Clock::default(), time::unix_now(), &secret("false")).expect("it is short");
    let element = OrSet::default().adding(author, &secret("false"), 0).expect("there is room");
    let values =
        [Value::Counter(PnCounter::of(author, OWN, 0)), Value::Register(register), Value::Set(element)];
    let mut wrong = 0;
    for of in [Kind::Counter, Kind::Register, Kind::Set] {
        let key = state_key(of, NAME.as_bytes());
        for value in values.iter().filter(|value| value.kind() != of || of == Kind::Counter) {
            wrong += u64::from(value.kind() != of);
            for peer in cluster.running() {
                for id in [None, Some(1)] {
                    eve.send_message(peer.key, kind::STATE, wire::delta(&key, id, &value.encode()));
                }
            }
        }
    }
    world.sleep(Duration::from_secs(5)).await;
    for peer in cluster.peers.iter().filter(|peer| peer.role == Role::Worker) {
        let refused = cluster.metric(peer, "state.malformed").await;
        if refused < 2 * wrong {
            return Err(Violation::safety(
                KINDS,
                format!("{} refused {refused} of {}", peer.name, 2 * wrong),
            ));
        }
    }
    let failed =
        |peer: &Peer, error: nurl::Error| Violation::safety(KINDS, format!("{}: {error}", peer.name));
    for peer in &cluster.peers {
        let node = peer.node(&world).await;
        node.counter(NAME).add(1).await.map_err(|error| failed(peer, error))?;
        node.register(NAME).set(&secret("true")).await.map_err(|error| failed(peer, error))?;
        node.set(NAME).insert(&secret(&peer.name)).await.map_err(|error| failed(peer, error))?;
    }
    let names: BTreeSet<Vec<u8>> = cluster.peers.iter().map(|peer| secret(&peer.name).to_vec()).collect();
    let sum = i128::from(OWN) + cluster.peers.len() as i128;
    let all: Vec<_> = cluster.running().collect();
    let objects = [Kind::Counter, Kind::Register, Kind::Set].map(|kind| (kind, NAME));
    let held = cluster.agreed(KINDS, MEET, &objects, &all).await?;
    let (counted, text) = (copies::sum(held[0].as_ref()), copies::content(held[1].as_ref()));
    let members = copies::elements(held[2].as_ref());
    if (counted, &text, &members) != (sum, &Some(secret("true").to_vec()), &names) {
        return Err(Violation::safety(KINDS, format!("the owners hold {counted}, {text:?}, {members:?}")));
    }
    let deadline = Deadline::new(world, KINDS, MEET);
    loop {
        let mut missing = Vec::new();
        for peer in &cluster.peers {
            let node = peer.node(&world).await;
            let counted = node.counter(NAME).get().await;
            let text = node.register(NAME).get().await;
            let members = node.set(NAME).members().await;
            let members = members.map(|members| members.into_iter().collect::<BTreeSet<_>>());
            let agrees = matches!(&counted, Ok(counted) if *counted == sum)
                && matches!(&text, Ok(Some(text)) if *text == secret("true"))
                && matches!(&members, Ok(members) if *members == names);
            if !agrees {
                missing.push(format!("{} reads {counted:?}, {text:?}, {members:?}", peer.name));
            }
        }
        if !deadline.still_missing(missing).await? {
            return Ok(());
        }
    }
}

/// Members are made up before everybody, and the insider claims more than it may.
async fn ghosts_act(world: World, cluster: &Cluster, eve: &Insider) -> Result<(), Violation> {
    let known = known(cluster).await;
    let (foreign, mut keys) = (AuthorityKey::from_seed(&[7; 32]), world.rng("ghosts"));
    let mut ghosts: Vec<SecretKey> = (0..MADE_UP).map(|_| SecretKey::generate(&mut keys)).collect();
    ghosts.sort_by_key(SecretKey::public);
    let store = (Roles::WORKER.with(Roles::STORE), CLAIMED);
    let mut facts = Vec::new();
    for (number, ghost) in ghosts.iter().enumerate() {
        let elsewhere = foreign.mint(ghost.public(), Level::Worker, 0);
        let pass = if number.is_multiple_of(2) { elsewhere.pass() } else { eve.signer().pass };
        let by = wire::Signer { secret: ghost, mesh: eve.signer().mesh, pass };
        facts.push(wire::said(ghost.public(), &by, 1, number.is_multiple_of(3), store));
        let mut dead = wire::said(ghost.public(), &by, 1, false, store);
        dead.record.state = State::Dead;
        facts.push(dead);
    }
    let greedy = wire::gossip(0, vec![eve.alive(2, Roles::WORKER, CLAIMED)]);
    eve.answer_pings(Some(greedy.clone()));
    for peer in &cluster.peers {
        eve.send(peer.key, channel::MEMBERSHIP, greedy.encode());
        for facts in std::iter::repeat_n(&facts, TOLD).flat_map(|facts| facts.chunks(3)) {
            eve.send(peer.key, channel::MEMBERSHIP, wire::gossip(0, facts.to_vec()).encode());
        }
    }
    world.sleep(Duration::from_secs(5)).await;
    for peer in cluster.peers.iter().filter(|peer| peer.role != Role::Observer) {
        for member in cluster.members(peer).await {
            if !known.contains(&member.key) {
                let seen = format!("{} holds {} {:?}", peer.name, member.key.short(), member.state);
                return Err(Violation::safety(UNADMITTED, seen));
            }
            if member.weight > PERMITTED {
                let seen = format!("{} gives {} the weight {}", peer.name, member.key.short(), member.weight);
                return Err(Violation::safety(UNADMITTED, seen));
            }
        }
    }
    let views = cluster.members(&cluster.peers[0]).await;
    let claimed = views.iter().any(|member| member.key == eve.key && member.weight == PERMITTED);
    sometimes!(claimed, "a member that claims more has the share that its pass permits");
    eve.answer_pings(Some(wire::gossip(0, vec![eve.alive(3, Roles::NONE, 1)])));
    for peer in &cluster.peers {
        let modest = wire::gossip(0, vec![eve.alive(3, Roles::NONE, 1)]);
        eve.send(peer.key, channel::MEMBERSHIP, modest.encode());
    }
    world.sleep(Duration::from_secs(5)).await;
    agree(cluster).await
}

/// The keys of all members that any node knows.
async fn known(cluster: &Cluster) -> BTreeSet<PublicKey> {
    let mut known = BTreeSet::new();
    for peer in &cluster.peers {
        known.extend(cluster.members(peer).await.into_iter().map(|member| member.key));
    }
    known
}

/// A worker outbids a lift to an incarnation that only it has heard of, and is accused before the others.
async fn lift_act(
    world: World,
    cluster: &Cluster,
    eve: &Insider,
    ears: &mut Ears,
    victim: &Peer,
    to: u64,
) -> Result<(), Violation> {
    // A node refutes eight times a second at most, and the slander before may have used that up.
    world.sleep(BREATHER).await;
    ears.listen(eve);
    let others: Vec<&Peer> = cluster.peers.iter().filter(|peer| peer.key != victim.key).collect();
    let before = ears.incarnation(victim);
    // The accusers are forged: with three of them a suspicion is shortest.
    let accusers: Vec<PublicKey> = others.iter().take(4).map(|peer| peer.key).collect();
    let lift = wire::claim(victim.key, to, State::Suspect, accusers.clone());
    eve.send(victim.key, channel::MEMBERSHIP, wire::gossip(0, vec![lift]).encode());
    world.sleep(LIFT_TO_ACCUSATION).await;
    for state in [State::Suspect, State::Dead] {
        let accusers = if state == State::Suspect { accusers.clone() } else { Vec::new() };
        for incarnation in [before, before + 1] {
            let accusation = wire::claim(victim.key, incarnation, state, accusers.clone());
            let body = Bytes::from(wire::gossip(0, vec![accusation]).encode());
            others.iter().for_each(|peer| eve.send(peer.key, channel::MEMBERSHIP, body.clone()));
        }
    }
    let mut jobs = Jobs::new(cluster);
    submit_all(cluster, &mut jobs, "lifted").await?;
    world.sleep(DOUBT).await;
    jobs.settle(DONE).await?;
    all_alive(cluster, "a lift")?;
    let deadline = Deadline::new(world, LIFTED, LEARN);
    loop {
        let mut missing = missing(cluster).await;
        for peer in others.iter().filter(|peer| peer.role != Role::Observer) {
            let members = cluster.members(peer).await;
            let known = members.iter().find(|member| member.key == victim.key);
            if known.is_none_or(|member| member.incarnation <= to) {
                missing.push(format!("the refutation of {} at {}", victim.name, peer.name));
            }
        }
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    Ok(())
}

/// Ever higher epochs, told in every way.
async fn epochs_act(world: World, cluster: &mut Cluster, eve: &Insider) -> Result<(), Violation> {
    for epoch in [1 << 32, 2 << 32, believed(), u64::MAX - 1] {
        for observer in [true, false] {
            let ping = MembershipMessage {
                observer,
                body: MessageBody::Ping { seq: 1 },
                ..wire::gossip(epoch, Vec::new())
            };
            for peer in cluster.running() {
                eve.send(peer.key, channel::MEMBERSHIP, ping.encode());
            }
            let announce = MembershipMessage { body: MessageBody::Announce { nonce: 1 }, ..ping };
            eve.broadcast(group::MESH_GROUP, announce.encode());
        }
        world.sleep(Duration::from_secs(1)).await;
    }
    later_submitter(world, cluster, "late").await?;
    let workers: Vec<Peer> = cluster.peers.iter().filter(|peer| peer.role == Role::Worker).cloned().collect();
    workers.iter().for_each(|worker| worker.host.power_loss());
    world.sleep(DOWN).await;
    workers.iter().for_each(|worker| worker.host.restart());
    agree(cluster).await?;
    later_submitter(world, cluster, "later").await
}

/// A submitter that has just come gets its results.
async fn later_submitter(world: World, cluster: &mut Cluster, name: &str) -> Result<(), Violation> {
    let net = world.internet();
    let late = [Role::Member, Role::Observer].map(|role| cluster.add(&format!("{name} {role:?}"), net, role));
    agree(cluster).await?;
    let mut jobs = Jobs::new(cluster);
    for from in &late {
        for number in 0..JOBS {
            jobs.submit(from, "slow", &format!("{} {number}", from.name)).await?;
        }
    }
    jobs.settle(DONE).await.map(drop)
}
