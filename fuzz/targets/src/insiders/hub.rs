//! A hub: two honest clients, and an insider with several keys that have passes, connections from several addresses,
//! and a ticket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nurl::internals::authority::invitation::Invitation;
use nurl::internals::authority::issuer::EnrolRequest;
use nurl::internals::authority::level::Level;
use nurl::internals::authority::revocation::{Revocation, Subject};
use nurl::internals::kit::wall_clock::WallClock;
use nurl::internals::net::reach::control::frames::{frame, split};
use nurl::internals::net::reach::hub::core::Hub;
use nurl::internals::net::reach::hub::{HubLimits, Output, ServedMesh};
use nurl::internals::net::reach::relay::frame::VERSION;
use nurl::internals::net::reach::relay::{ClientId, Frame, Roles};
use nurl::internals::net::reach::rendezvous::Frame as Rendezvous;
use nurl::internals::net::secure::version::Versions;

use super::MAX_STEPS;
use crate::draw::Draw;
use crate::ground::{UNIX, UNIX_S, authority, key, millis, now, rng};

const A: u8 = 1;
const B: u8 = 2;
/// The honest client that comes at the end.
const NEWCOMER: u8 = 3;

struct Bench {
    hub: Hub,
    now: Instant,
    /// What each honest client heard: kinds and bodies of frames.
    heard: BTreeMap<u8, Vec<(u8, Vec<u8>)>>,
    honest: BTreeMap<u8, ClientId>,
}

fn register(n: u8, level: Level) -> Vec<u8> {
    let shown = authority().mint(key(n), level, UNIX_S).show();
    Frame::Register {
        version: VERSION,
        namespace: authority().mesh().namespace(),
        boot: 0,
        shown: &shown,
        versions: Versions::SPOKEN,
    }
    .to_vec()
}

impl Bench {
    fn new() -> Bench {
        let now = now();
        let meshes = [ServedMesh::issued_by(Arc::new(authority()))];
        let clock = (now, WallClock::new(now, UNIX));
        let hub = Hub::new(meshes, Roles::ALL, HubLimits::default(), clock, rng(1));
        let mut bench = Bench { hub, now, heard: BTreeMap::new(), honest: BTreeMap::new() };
        bench.join(A);
        bench.join(B);
        bench
    }

    /// An honest client comes.
    fn join(&mut self, n: u8) {
        let id = self.hub.handle_accept(self.now, ([192, 0, 2, n], 1_000).into()).expect("there is room");
        self.hub.handle_handshake(id, key(n));
        self.honest.insert(n, id);
        self.say(n, &register(n, Level::Member));
        assert!(self.heard[&n].iter().any(|(kind, _)| *kind == 0x02), "an honest client is registered");
    }

    /// An honest client says something, and reads what there is.
    fn say(&mut self, n: u8, plaintext: &[u8]) {
        let id = self.honest[&n];
        self.hub.handle_message(self.now, id, plaintext);
        self.listen();
    }

    fn listen(&mut self) {
        let mut plaintext = Vec::new();
        for (n, id) in &self.honest {
            let heard = self.heard.entry(*n).or_default();
            loop {
                match self.hub.poll_output(*id, &mut plaintext) {
                    Output::Idle => break,
                    Output::Plaintext => heard.extend(split(&plaintext).map(|frame| {
                        let (kind, body) = frame.expect("the hub writes whole frames");
                        (kind, body.to_vec())
                    })),
                    Output::Close | Output::Gone => panic!("an honest client is closed: {:?}", heard.last()),
                }
            }
        }
        while self.hub.poll_wake().is_some() {}
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = (self.now + Duration::from_secs(10)).min(end);
            self.hub.handle_timeout(self.now);
            for n in self.honest.keys().copied().collect::<Vec<_>>() {
                self.say(n, &Frame::Ping { nonce: 1 }.to_vec());
            }
        }
        let taken: Vec<_> = std::iter::from_fn(|| self.hub.poll_revocation()).collect();
        assert!(taken.is_empty(), "the insider signs nothing");
        while self.hub.poll_issued().is_some() {}
    }
}

pub(super) fn programs() -> Vec<Vec<u8>> {
    super::plain_programs()
}

pub(super) fn run(bytes: &[u8]) -> bool {
    let mut draw = Draw::new(bytes);
    let mut bench = Bench::new();
    let invitation = Invitation::standard(&authority(), UNIX, &mut rng(2));
    // The insider's connections, and the keys that they proved.
    let mut hostile: Vec<(ClientId, u8)> = Vec::new();
    for _ in 0..MAX_STEPS {
        if !draw.more() {
            break;
        }
        match draw.u8() % 8 {
            0 => bench.pass(millis(draw.below(60_000) as u64)),
            1 | 2 => {
                let n = 10 + draw.u8() % 6;
                let remote = ([198, 51, 100, draw.u8() % 4], draw.u16()).into();
                let Ok(id) = bench.hub.handle_accept(bench.now, remote) else { continue };
                hostile.push((id, n));
                if !draw.one_in(8) {
                    bench.hub.handle_handshake(id, key(n));
                }
                if !draw.one_in(4) {
                    let level = draw.of(&Level::ALL);
                    bench.hub.handle_message(bench.now, id, &register(n, level));
                }
            }
            3 if !hostile.is_empty() => {
                let (id, _) = hostile.swap_remove(draw.below(hostile.len()));
                bench.hub.handle_disconnect(id);
            }
            4 if !hostile.is_empty() => {
                let (id, _) = draw.of(&hostile);
                let mut plaintext = Vec::new();
                for _ in 0..draw.below(8) {
                    bench.hub.poll_output(id, &mut plaintext);
                }
            }
            _ if !hostile.is_empty() => {
                let (id, n) = draw.of(&hostile);
                let mut plaintext = Vec::new();
                for _ in 0..=draw.below(4) {
                    speak(&mut draw, n, &invitation, &mut plaintext);
                }
                let times = draw.of(&[1, 1, 1, 200]);
                for _ in 0..times {
                    bench.hub.handle_message(bench.now, id, &plaintext);
                }
            }
            _ => {}
        }
        bench.listen();
        let (stats, limits) = (bench.hub.stats(), HubLimits::default());
        assert!(stats.fullest_queue_bytes <= limits.relay.queue_bytes, "{stats:?}");
        assert!(stats.fullest_control_bytes <= limits.relay.control_bytes, "{stats:?}");
        assert!(stats.connections <= hostile.len() + 2 && stats.clients <= stats.connections);
    }
    bench.pass(millis(1_000));
    bench.heard.values_mut().for_each(Vec::clear);

    let payload = &b"an honest datagram"[..];
    bench.say(A, &Frame::Forward { dst: key(B), payload }.to_vec());
    let delivered = Frame::Deliver { src: key(A), payload }.to_vec();
    let has = |heard: &[(u8, Vec<u8>)], wanted: &[u8]| {
        heard.iter().any(|(kind, body)| {
            let mut again = Vec::new();
            frame(&mut again, *kind, |out| out.extend_from_slice(body));
            again == wanted
        })
    };
    assert!(has(&bench.heard[&B], &delivered), "an honest datagram is delivered: {:?}", bench.hub.stats());

    bench.say(
        A,
        &Rendezvous::Publish { seq: 1 << 40, ttl: Duration::from_secs(60), sealed: b"sealed" }.to_vec(),
    );
    bench.say(B, &Rendezvous::Lookup { peer: key(A) }.to_vec());
    let found = |(kind, body): &(u8, Vec<u8>)| match Rendezvous::decode(*kind, body) {
        Ok(Some(Rendezvous::Record(record))) => {
            record.key == key(A) && record.sealed == Bytes::from_static(b"sealed")
        }
        _ => false,
    };
    assert!(bench.heard[&B].iter().any(found), "an honest record is found: {:?}", bench.hub.stats());

    let group = [7; 16];
    bench.say(B, &Frame::GroupJoin { tag: group }.to_vec());
    bench.say(A, &Frame::GroupSend { tag: group, payload }.to_vec());
    let delivered = Frame::GroupDeliver { src: key(A), tag: group, payload }.to_vec();
    assert!(has(&bench.heard[&B], &delivered), "a group's datagram is delivered");
    bench.join(NEWCOMER);
    true
}

/// Appends one frame of the insider, whose connection proved key `n`.
fn speak(draw: &mut Draw<'_>, n: u8, invitation: &Invitation, out: &mut Vec<u8>) {
    let (mesh, dst) = (authority().mesh(), key(draw.u8() % 18));
    let payload = draw.bytes(2_000);
    match draw.u8() % 20 {
        0 => out.extend_from_slice(&register(n, draw.of(&Level::ALL))),
        1 => Frame::Ping { nonce: draw.u64() }.encode(out),
        2 => Frame::Enrol { version: VERSION, namespace: mesh.namespace(), request: &payload }.encode(out),
        3 => {
            let request = EnrolRequest::new(invitation, &key(n), "eve").encode();
            Frame::Enrol { version: VERSION, namespace: mesh.namespace(), request: &request }.encode(out);
        }
        4 => {
            let pass = authority().mint(key(n), Level::Worker, UNIX_S - draw.u32() % UNIX_S);
            let pass = pass.pass().as_bytes();
            Frame::Renew { version: VERSION, namespace: mesh.namespace(), pass }.encode(out);
        }
        5 => {
            // Entries that the authority never signed.
            let mut entries = Vec::new();
            for _ in 0..draw.below(4) {
                let forger = nurl::internals::authority::key::AuthorityKey::from_seed(&[9; 32]);
                let subject =
                    draw.of(&[Subject::All, Subject::Key(key(A)), Subject::Invitation(invitation.terms.id)]);
                entries.extend(Revocation::sign(&forger, subject, UNIX_S, UNIX_S).encode());
            }
            Frame::Revoked { entries: &entries }.encode(out);
        }
        6 => Frame::Knows { digest: [draw.u8(); 32] }.encode(out),
        7 | 8 => Frame::Forward { dst, payload: &payload }.encode(out),
        9 => Frame::GroupJoin { tag: [draw.u8() % 80; 16] }.encode(out),
        10 => Frame::GroupLeave { tag: [draw.u8() % 80; 16] }.encode(out),
        11 => Frame::GroupSend { tag: [draw.u8() % 80; 16], payload: &payload }.encode(out),
        12 | 13 => {
            let ttl = Duration::from_secs(draw.u16().into());
            Rendezvous::Publish { seq: draw.u64(), ttl, sealed: &payload[..payload.len().min(600)] }
                .encode(out);
        }
        14 => Rendezvous::Lookup { peer: dst }.encode(out),
        15 => Rendezvous::List { max: draw.u16() }.encode(out),
        16 => Rendezvous::Withdraw.encode(out),
        17 => Frame::Deliver { src: dst, payload: &payload }.encode(out),
        _ => {
            let kind = draw.u8();
            frame(out, kind, |body| body.extend_from_slice(&payload[..payload.len().min(100)]));
        }
    }
}
