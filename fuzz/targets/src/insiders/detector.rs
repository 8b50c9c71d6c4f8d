//! Membership: three honest members, and a fourth that lies about everybody.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use nurl::PublicKey;
use nurl::internals::authority::level::Level;
use nurl::internals::authority::pass::Pass;
use nurl::internals::membership::message::{MAX_CHUNK_BYTES, MAX_DATAGRAM_BYTES};
use nurl::internals::membership::message::{MembershipMessage, MessageBody, TableChunk, UserEvent};
use nurl::internals::membership::profile::MemberProfile;
use nurl::internals::membership::suspicion::MAX_ACCUSERS;
use nurl::internals::membership::table::{Fact, MAX_INCARNATION, MemberRecord};
use nurl::internals::membership::{
    Detector, DetectorConfig, MembershipEvent, Meta, Notary, Roles, State, Transmit, Via,
};
use nurl::internals::net::reach::rendezvous::Contact;

use super::MAX_STEPS;
use crate::draw::Draw;
use crate::ground::{UNIX, UNIX_S, authority, millis, now, rng, secret, secs};

const HONEST: [u8; 3] = [1, 2, 3];
const INSIDER: u8 = 4;

/// Peers that are spoken of; those after the insider are nobody, and have passes all the same.
const NAMED: u8 = 10;

/// Their passes.
static PASSES: LazyLock<Vec<Pass>> = LazyLock::new(|| {
    let mint = |n| authority().mint(secret(n).public(), Level::Worker, UNIX_S);
    (0..NAMED).map(|n| mint(n).pass().clone()).collect()
});

fn pass(n: u8) -> &'static Pass {
    &PASSES[usize::from(n)]
}

fn key(n: u8) -> PublicKey {
    pass(n).grant().key
}

/// The members; a message takes 10 ms.
struct Mesh {
    now: Instant,
    started: Instant,
    nodes: BTreeMap<PublicKey, Detector>,
    wire: BTreeMap<(Instant, u64), (PublicKey, Transmit)>,
    sequence: u64,
    /// What the insider received: from whom, and what.
    told: Vec<(PublicKey, MembershipMessage)>,
}

fn meta() -> Meta {
    Meta::new(Roles::WORKER, vec!["work".into()], 1, "1".into()).expect("short names")
}

impl Mesh {
    fn new() -> Mesh {
        let now = now();
        let node = |n: u8| {
            let config = DetectorConfig::default();
            let notary = Notary::new(authority().mesh(), secret(n), Some(pass(n).clone()));
            let mut detector = Detector::new(config, notary, n.into(), meta(), false, now, rng(n.into()));
            detector.set_unix_now(UNIX);
            (key(n), detector)
        };
        let nodes = HONEST.map(node).into();
        let mut mesh =
            Mesh { now, started: now, nodes, wire: BTreeMap::new(), sequence: 0, told: Vec::new() };
        for n in &HONEST[1..] {
            let contacts = [Contact { key: key(HONEST[0]), opened: true }];
            let node = mesh.nodes.get_mut(&key(*n)).expect("it is a node");
            node.join(now);
            node.on_contacts(now, None, &contacts);
        }
        mesh.run(secs(5));
        mesh.say(HONEST[0], Via::Datagram, &gossip(vec![fact(INSIDER, State::Alive, 1, Some((1, 4)))]));
        mesh.run(secs(1));
        assert!(mesh.all_alive(), "the mesh forms");
        mesh
    }

    fn all_alive(&self) -> bool {
        let alive = |node: &Detector, n: &u8| node.member(&key(*n)).is_some_and(|m| m.state == State::Alive);
        self.nodes.values().all(|node| HONEST.iter().all(|n| alive(node, n)))
    }

    /// A message of the insider.
    fn say(&mut self, to: u8, via: Via, message: &MembershipMessage) {
        let now = self.now;
        let node = self.nodes.get_mut(&key(to)).expect("it is a node");
        node.handle_message(now, key(INSIDER), via, &message.encode());
        self.drain();
    }

    fn drain(&mut self) {
        let mut announcing = Vec::new();
        for (from, node) in &mut self.nodes {
            while let Some(sent) = node.poll_transmit() {
                let Transmit { to, via, body } = &sent;
                let limit = if *via == Via::Datagram { MAX_DATAGRAM_BYTES } else { MAX_CHUNK_BYTES };
                assert!(body.len() <= limit, "{} bytes via {via:?}", body.len());
                if *to == key(INSIDER) {
                    self.told.extend(MembershipMessage::decode(body).ok().map(|message| (*from, message)));
                }
                self.sequence += 1;
                self.wire.insert((self.now + millis(10), self.sequence), (*from, sent));
            }
            while let Some(event) = node.poll_event() {
                if event == MembershipEvent::AnnounceDue {
                    announcing.push((*from, node.announce()));
                }
            }
        }
        for (from, body) in announcing {
            for (_, node) in self.nodes.iter_mut().filter(|(to, _)| **to != from) {
                node.handle_announcement(self.now, from, &body);
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < 200_000, "the mesh spins");
            self.drain();
            let timer = self.nodes.values().filter_map(Detector::poll_timeout).min();
            let arrival = self.wire.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = timer.into_iter().chain(arrival).min().filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            let now = self.now;
            while let Some(entry) = self.wire.first_entry()
                && entry.key().0 <= now
            {
                let (from, Transmit { to, via, body }) = entry.remove();
                if let Some(node) = self.nodes.get_mut(&to) {
                    node.handle_message(now, from, via, &body);
                }
            }
            for node in self.nodes.values_mut() {
                node.set_unix_now(UNIX + (now - self.started));
                if node.poll_timeout().is_some_and(|at| at <= now) {
                    node.handle_timeout(now);
                }
            }
            self.check();
        }
    }

    fn check(&self) {
        for (at, node) in &self.nodes {
            for n in HONEST {
                let state = node.member(&key(n)).map(|member| member.state);
                let live = state.is_none_or(State::is_live);
                assert!(live, "{at:?} holds the reachable {n} for {state:?}: {:?}", node.stats());
            }
        }
    }
}

fn gossip(facts: Vec<Fact>) -> MembershipMessage {
    MembershipMessage { epoch: 0, observer: false, body: MessageBody::Gossip, facts, events: Vec::new() }
}

/// A fact of the insider, with a profile that it has signed, if so: its own, or one in another's name.
fn fact(n: u8, state: State, incarnation: u64, said: Option<(u64, u64)>) -> Fact {
    let profile = said.map(|(at, boot)| {
        let said = MemberProfile {
            incarnation: at,
            left: state == State::Left,
            boot,
            meta: meta(),
            pass: pass(n).hash(),
        };
        said.sign(&secret(INSIDER), &authority().mesh(), pass(n))
    });
    Fact { key: key(n), record: MemberRecord { incarnation, state, profile }, age_s: 0, accusers: Vec::new() }
}

pub(super) fn programs() -> Vec<Vec<u8>> {
    super::plain_programs()
}

pub(super) fn run(bytes: &[u8]) -> bool {
    let mut draw = Draw::new(bytes);
    let mut mesh = Mesh::new();
    for _ in 0..MAX_STEPS {
        if !draw.more() {
            break;
        }
        let to = draw.of(&HONEST);
        let via = if draw.flag() { Via::Datagram } else { Via::Reliable };
        match draw.u8() % 8 {
            0 => mesh.run(millis(draw.below(5_000) as u64)),
            1 => {
                // It answers what it was asked, so that it is held alive, and adds what it likes.
                for (asker, message) in std::mem::take(&mut mesh.told) {
                    if let MessageBody::Ping { seq } = message.body {
                        let facts = facts(&mut draw);
                        let answer = MembershipMessage { body: MessageBody::Ack { seq }, ..gossip(facts) };
                        if let Some(to) = HONEST.into_iter().find(|n| key(*n) == asker) {
                            mesh.say(to, Via::Datagram, &answer);
                        }
                    }
                }
            }
            2 if !mesh.told.is_empty() => {
                // What it was told goes to somebody else, in its own name.
                let (_, message) = draw.of(&mesh.told);
                mesh.say(to, via, &message);
            }
            3 => {
                let body = draw.bytes(200);
                let now = mesh.now;
                let node = mesh.nodes.get_mut(&key(to)).expect("it is a node");
                if draw.flag() {
                    node.handle_announcement(now, key(INSIDER), &body);
                } else {
                    node.handle_message_of_observer(now, key(INSIDER), via, &body);
                }
            }
            _ => {
                let message = message(&mut draw);
                mesh.say(to, via, &message);
            }
        }
        mesh.check();
        for node in mesh.nodes.values() {
            let limit = (UNIX.as_millis() as u64 + 3 * 86_400_000) << 16;
            assert!(node.highest_epoch() <= limit);
        }
    }
    mesh.run(secs(40));
    assert!(mesh.all_alive(), "honest members hold each other alive");
    true
}

fn message(draw: &mut Draw<'_>) -> MembershipMessage {
    let seq = if draw.flag() { u64::from(draw.u8()) } else { draw.u64() };
    let chunk = TableChunk {
        id: seq,
        index: u32::from(draw.u8() % 3),
        total: if draw.flag() { 1 } else { draw.u32() % 4 },
        revocations: [draw.u8() % 2; 32],
    };
    let body = match draw.u8() % 8 {
        0 => MessageBody::Ping { seq },
        1 => MessageBody::Ack { seq },
        2 => MessageBody::PingReq { seq, target: key(draw.u8() % 8), timeout_ms: draw.u32() },
        3 => MessageBody::Nack { seq },
        4 => MessageBody::PushPull(chunk),
        5 => MessageBody::PushPullAck(chunk),
        6 => MessageBody::Announce { nonce: seq },
        _ => MessageBody::Gossip,
    };
    let event = |draw: &mut Draw<'_>| UserEvent {
        origin: key(draw.u8() % 8),
        id: draw.u64(),
        body: draw.bytes(20).to_vec(),
    };
    let events = (0..draw.below(3)).map(|_| event(draw)).collect();
    MembershipMessage { epoch: draw.u64(), observer: draw.one_in(8), body, facts: facts(draw), events }
}

fn facts(draw: &mut Draw<'_>) -> Vec<Fact> {
    let one = |draw: &mut Draw<'_>| {
        let n = draw.u8() % NAMED;
        let state = draw.of(&[State::Alive, State::Suspect, State::Dead, State::Left]);
        let mut incarnation = if draw.flag() { u64::from(draw.u8() % 8) } else { draw.u64() };
        let mut said = draw.flag().then(|| (if draw.flag() { incarnation } else { draw.u64() }, draw.u64()));
        let mut accusers: Vec<PublicKey> = (0..draw.below(4)).map(|_| key(draw.u8() % NAMED)).collect();
        let age_s = if draw.flag() { 0 } else { draw.u32() };
        // One unsound fact has its whole message refused, so there are few.
        if !draw.one_in(16) {
            incarnation = incarnation.min(MAX_INCARNATION);
            accusers.truncate(MAX_ACCUSERS);
            said = match (state, said) {
                (State::Alive | State::Left, said) => Some((incarnation, said.map_or(1, |said| said.1))),
                (_, said) => said.map(|(at, boot)| (at.min(incarnation), boot)),
            };
            if state == State::Alive {
                accusers.clear();
            }
        }
        Fact { age_s, accusers, ..fact(n, state, incarnation, said) }
    };
    (0..draw.below(8)).map(|_| one(draw)).collect()
}
