//! Tests of the hub's rules with a simulated clock and hand-made frames.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_core::SeedableRng;

use crate::authority::credential::{Credential, SHOWN_BYTES};
use crate::authority::invitation::{Invitation, InvitationId};
use crate::authority::issuer::EnrolRequest;
use crate::authority::key::AuthorityKey;
use crate::authority::level::Level;
use crate::authority::pass::Grant;
use crate::authority::revocation::Subject;
use crate::authority::slip::Slip;
use crate::key::{PublicKey, SecretKey};
use crate::kit::wall_clock::WallClock;
use crate::net::reach::control::frames::{frame, split};
use crate::net::reach::hub::ServedMesh;
use crate::net::reach::hub::core::{CLOSE_LINGER, Hub, Output, Refusal, TICK};
use crate::net::reach::hub::limits::HubLimits;
use crate::net::reach::relay::frame::VERSION;
use crate::net::reach::relay::{ClientId, CloseReason, Frame, Roles};
use crate::net::reach::rendezvous;
use crate::net::secure::version::Versions;
use crate::rt::Rng;

/// The seeds of three meshes' authorities; the hub serves the first two.
const HOME: u8 = 1;
const ELSEWHERE: u8 = 2;
const UNKNOWN: u8 = 3;

const UNIX: Duration = Duration::from_secs(1_800_000_000);

fn authority(mesh: u8) -> AuthorityKey {
    AuthorityKey::from_seed(&[mesh; 32])
}

fn key(n: u8) -> PublicKey {
    PublicKey::from_bytes([n; 32])
}

struct Bench {
    hub: Hub,
    now: Instant,
}

/// The REGISTER of client `n` in a mesh.
fn register(n: u8, mesh: u8) -> Vec<u8> {
    register_as(n, mesh, Level::Member)
}

fn register_as(n: u8, mesh: u8, level: Level) -> Vec<u8> {
    let authority = authority(mesh);
    let shown = authority.mint(key(n), level, UNIX.as_secs() as u32).show();
    Frame::Register {
        version: VERSION,
        namespace: authority.mesh().namespace(),
        boot: 0,
        shown: &shown,
        versions: Versions::SPOKEN,
    }
    .to_vec()
}

/// The REGISTER of slip `n` of the pass of holder `pass`, which came by an invitation.
fn register_slip(n: u8, pass: u8, invitation: u8) -> Vec<u8> {
    let (authority, now) = (authority(HOME), UNIX.as_secs() as u32);
    let holder = SecretKey::generate(&mut Rng::from_seed([pass; 32]));
    let grant = Grant::new(holder.public(), Level::Worker, now, now + 86_400);
    let grant = Grant { invitation: Some(InvitationId([invitation; 8])), ..grant };
    let slip = Slip { key: key(n), level: Level::Submit, not_after: now + 600 };
    let slip = slip.sign(&holder, &authority.mesh());
    let shown = Credential::with_slip(grant.sign(&authority).unwrap(), slip).show();
    Frame::Register {
        version: VERSION,
        namespace: authority.mesh().namespace(),
        boot: 0,
        shown: &shown,
        versions: Versions::SPOKEN,
    }
    .to_vec()
}

impl Bench {
    /// Registers a slip from a host; returns the answers.
    fn slip(&mut self, host: u8, n: u8, pass: u8, invitation: u8) -> (ClientId, Vec<Heard>) {
        let id = self.accept(host).unwrap();
        self.hub.handle_handshake(id, key(n));
        self.say(id, &register_slip(n, pass, invitation));
        let heard = self.heard(id);
        (id, heard)
    }

    fn new(limits: HubLimits) -> Bench {
        Bench::with_roles(limits, Roles::ALL)
    }

    fn with_roles(limits: HubLimits, roles: Roles) -> Bench {
        let now = crate::rt::time::now();
        let meshes =
            [ServedMesh::issued_by(Arc::new(authority(HOME))), ServedMesh::of(authority(ELSEWHERE).mesh())];
        let clock = (now, WallClock::new(now, UNIX));
        Bench { hub: Hub::new(meshes, roles, limits, clock, Rng::from_seed([1; 32])), now }
    }

    fn accept(&mut self, host: u8) -> Result<ClientId, Refusal> {
        self.hub.handle_accept(self.now, SocketAddr::from(([192, 0, 2, host], 1000)))
    }

    fn connect(&mut self, n: u8) -> ClientId {
        let id = self.accept(n).unwrap();
        self.hub.handle_handshake(id, key(n));
        id
    }

    fn client(&mut self, n: u8, mesh: u8) -> ClientId {
        let id = self.connect(n);
        self.say(id, &register(n, mesh));
        assert!(matches!(self.heard(id)[..], [Heard::Frame(_)]));
        id
    }

    fn say(&mut self, id: ClientId, plaintext: &[u8]) {
        self.hub.handle_message(self.now, id, plaintext);
    }

    fn heard(&mut self, id: ClientId) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut plaintext = Vec::new();
        loop {
            match self.hub.poll_output(id, &mut plaintext) {
                Output::Idle => return heard,
                Output::Plaintext => heard.extend(split(&plaintext).map(|frame| {
                    let (kind, body) = frame.unwrap();
                    match Frame::decode(kind, body).unwrap() {
                        Some(Frame::Close(reason)) => Heard::Close(reason),
                        _ => Heard::Frame(kind),
                    }
                })),
                Output::Close => {
                    heard.push(Heard::End);
                    return heard;
                }
                Output::Gone => {
                    heard.push(Heard::Gone);
                    return heard;
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.hub.handle_timeout(self.now);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Frame(u8),
    Close(CloseReason),
    End,
    Gone,
}

fn closed(reason: CloseReason) -> [Heard; 2] {
    [Heard::Close(reason), Heard::End]
}

#[test]
fn a_replayed_handshake_takes_nobodys_place() {
    let mut bench = Bench::new(HubLimits::default());
    let victim = bench.client(1, HOME);
    // An attacker replays the victim's message 1: the handshake "succeeds", and no frame follows.
    let thief = bench.accept(9).unwrap();
    bench.hub.handle_handshake(thief, key(1));
    let sender = bench.client(2, HOME);
    bench.say(sender, &Frame::Forward { dst: key(1), payload: b"for the victim" }.to_vec());
    assert_eq!(bench.heard(thief), []);
    assert_eq!(bench.heard(victim), [Heard::Frame(0x11)]);
    assert_eq!(bench.hub.stats().clients, 2);
    // The attacker's connection stays half-open until its timeout.
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.heard(thief), [Heard::Gone]);
    assert_eq!(bench.hub.poll_wake(), Some(thief));
    assert_eq!(bench.hub.stats().hub.handshake_timeouts, 1);
}

#[test]
fn the_newest_registration_closes_the_old_one_with_replaced() {
    let mut bench = Bench::new(HubLimits::default());
    let old = bench.client(1, HOME);
    while bench.hub.poll_wake().is_some() {}
    let new = bench.client(1, HOME);
    let woken: Vec<_> = std::iter::from_fn(|| bench.hub.poll_wake()).collect();
    assert!(woken.contains(&old));
    assert_eq!(bench.heard(old), closed(CloseReason::Replaced));
    bench.hub.handle_disconnect(old);
    let sender = bench.client(2, HOME);
    bench.say(sender, &Frame::Forward { dst: key(1), payload: b"x" }.to_vec());
    assert_eq!(bench.heard(new), [Heard::Frame(0x11)]);
}

#[test]
fn a_closed_client_that_never_reads_is_dropped_soon() {
    let mut bench = Bench::new(HubLimits::default());
    let old = bench.client(1, HOME);
    bench.client(1, HOME);
    bench.pass(TICK);
    assert!(!bench.hub.is_gone(old));
    bench.pass(CLOSE_LINGER);
    assert!(bench.hub.is_gone(old));
}

#[test]
fn unknown_namespaces_other_versions_and_frames_before_register_are_closed() {
    let mut bench = Bench::new(HubLimits::default());
    let shown = [0; SHOWN_BYTES];
    let namespace = authority(HOME).mesh().namespace();
    let twice = |n| [register(n, HOME), register(n, HOME)].concat();
    let strays = |n| [register(n, HOME), Frame::Deliver { src: key(2), payload: b"" }.to_vec()].concat();
    let cases: [(Vec<u8>, CloseReason); 8] = [
        (register(1, UNKNOWN), CloseReason::UnknownNamespace),
        (
            Frame::Register { version: 3, namespace, boot: 0, shown: &shown, versions: Versions::SPOKEN }
                .to_vec(),
            CloseReason::Version,
        ),
        // The first version's frame is shorter.
        ([&[0x01, 41, 0, 1][..], &[0; 40]].concat(), CloseReason::Version),
        (Frame::Ping { nonce: 1 }.to_vec(), CloseReason::Protocol),
        (vec![1, 200, 0, 1], CloseReason::Protocol),
        (twice(6), CloseReason::Protocol),
        (strays(7), CloseReason::Protocol),
        ([register(8, HOME), vec![0x03, 1, 0, 1]].concat(), CloseReason::Protocol),
    ];
    for (n, (plaintext, reason)) in cases.into_iter().enumerate() {
        let id = bench.connect(n as u8 + 1);
        bench.say(id, &plaintext);
        assert_eq!(bench.heard(id), closed(reason), "case {n}");
    }
    let counters = bench.hub.stats().hub;
    assert_eq!((counters.unknown_namespace, counters.wrong_version, counters.protocol_errors), (1, 2, 5));
    assert_eq!(bench.hub.stats().clients, 0);
}

#[test]
fn a_client_without_a_common_version_is_told_the_hubs_and_takes_no_place() {
    let limits = HubLimits { versions: Versions::made_up(3, 4), ..HubLimits::default() };
    let mut bench = Bench::new(limits);
    let shown = authority(HOME).mint(key(1), Level::Member, UNIX.as_secs() as u32).show();
    let namespace = authority(HOME).mesh().namespace();
    for (versions, registers) in [((2, 2), false), ((5, 255), false), ((2, 3), true), ((4, 255), true)] {
        let versions = Versions::made_up(versions.0, versions.1);
        let id = bench.connect(1);
        let frame = Frame::Register { version: VERSION, namespace, boot: 0, shown: &shown, versions };
        bench.say(id, &frame.to_vec());
        let heard = bench.heard(id);
        if registers {
            assert_eq!(heard, [Heard::Frame(0x02)], "{versions}");
        } else {
            let told = [Heard::Frame(0x0f), Heard::Close(CloseReason::Version), Heard::End];
            assert_eq!(heard, told, "{versions}");
            assert_eq!(bench.hub.stats().clients, 0);
        }
    }
    assert_eq!(bench.hub.stats().hub.wrong_version, 2);
}

#[test]
fn without_a_pass_of_this_mesh_nobody_registers() {
    let mut bench = Bench::new(HubLimits::default());
    let namespace = authority(HOME).mesh().namespace();
    let with = |shown: [u8; SHOWN_BYTES]| {
        Frame::Register { version: VERSION, namespace, boot: 0, shown: &shown, versions: Versions::SPOKEN }
            .to_vec()
    };
    let now = UNIX.as_secs() as u32;
    let mint = |mesh: u8, n: u8, from: u32| authority(mesh).mint(key(n), Level::Worker, from).show();
    for (n, shown, reason) in [
        (1, [0; SHOWN_BYTES], CloseReason::NoPass),
        (2, mint(ELSEWHERE, 2, now), CloseReason::BadPass),
        (3, mint(HOME, 9, now), CloseReason::BadPass),
        (4, mint(HOME, 4, now - 92 * 86_400), CloseReason::Expired),
    ] {
        let id = bench.connect(n);
        bench.say(id, &with(shown));
        assert_eq!(bench.heard(id), closed(reason), "client {n}");
    }
    assert_eq!((bench.hub.stats().hub.not_admitted, bench.hub.stats().clients), (4, 0));
}

#[test]
fn a_newcomer_with_an_invitation_gets_a_pass_and_then_registers() {
    let mut bench = Bench::new(HubLimits::default());
    let mut rng = Rng::from_seed([4; 32]);
    let invitation = Invitation::standard(&authority(HOME), UNIX, &mut rng);
    let namespace = authority(HOME).mesh().namespace();
    let enrol = |n: u8, namespace| {
        let request = EnrolRequest::new(&invitation, &key(n), "nas").encode();
        Frame::Enrol { version: VERSION, namespace, request: &request }.to_vec()
    };
    let id = bench.connect(1);
    bench.say(id, &enrol(1, namespace));
    assert_eq!(bench.heard(id), [Heard::Frame(0x08)]);
    assert_eq!(bench.hub.poll_issued().map(|(_, pass)| pass.grant().key), Some(key(1)));
    bench.say(id, &register(1, HOME));
    assert_eq!(bench.heard(id), [Heard::Frame(0x02)]);
    let id = bench.connect(2);
    bench.say(id, &enrol(1, namespace));
    assert_eq!(bench.heard(id), closed(CloseReason::BadInvitation), "a replay by another key");
    let id = bench.connect(3);
    bench.say(id, &enrol(3, authority(ELSEWHERE).mesh().namespace()));
    assert_eq!(bench.heard(id), closed(CloseReason::NoIssuer));
    assert_eq!(bench.hub.stats().hub.not_issued, 2);
}

/// The authority revokes the passes of a key that were issued by now.
fn revoked(n: u8) -> Vec<u8> {
    authority(HOME).revoke(Subject::Key(key(n)), UNIX.as_secs() as u32).encode()
}

#[test]
fn a_revocation_ends_its_subjects_registration_and_all_clients_learn_it_before_anything_else() {
    let mut bench = Bench::new(HubLimits::default());
    let [teller, victim, other] = [1, 2, 3].map(|n| bench.client(n, HOME));
    let stranger = bench.client(4, ELSEWHERE);
    let publish = rendezvous::Frame::Publish { seq: 1, ttl: Duration::from_secs(60), sealed: b"where" };
    bench.say(victim, &publish.to_vec());
    bench.heard(victim);
    assert_eq!(bench.hub.stats().records, 1);

    bench.say(teller, &Frame::Revoked { entries: &revoked(2) }.to_vec());
    assert_eq!(bench.heard(teller), [Heard::Frame(9), Heard::Frame(10)], "the news, and the acknowledgement");
    assert_eq!(bench.heard(other), [Heard::Frame(9)]);
    assert_eq!(bench.heard(stranger), [], "another mesh");
    let out = [Heard::Frame(9), Heard::Close(CloseReason::Revoked), Heard::End];
    assert_eq!(bench.heard(victim), out, "with the proof");
    let stats = bench.hub.stats();
    assert_eq!((stats.records, stats.clients, stats.hub.revoked, stats.hub.revocations), (0, 3, 1, 1));
    let (mesh, kept) = bench.hub.poll_revocation().unwrap();
    assert_eq!((mesh, kept.encode()), (authority(HOME).mesh(), revoked(2)));

    let again = bench.connect(2);
    bench.say(again, &register(2, HOME));
    assert_eq!(bench.heard(again), out);
    let newcomer = bench.connect(5);
    bench.say(newcomer, &register(5, HOME));
    assert_eq!(bench.heard(newcomer), [Heard::Frame(9), Heard::Frame(10), Heard::Frame(2)]);
    bench.say(newcomer, &Frame::Revoked { entries: &revoked(2) }.to_vec());
    assert_eq!(bench.heard(newcomer), [Heard::Frame(10)], "no news");
    assert_eq!(bench.heard(other), []);
    assert!(bench.hub.poll_revocation().is_none());
}

#[test]
fn a_hub_that_begins_again_knows_what_was_revoked_and_a_false_entry_ends_its_tellers_connection() {
    let mut bench = Bench::new(HubLimits::default());
    bench.hub.restore_revocation(&revoked(2));
    let victim = bench.connect(2);
    bench.say(victim, &register(2, HOME));
    assert_eq!(bench.heard(victim)[1..], closed(CloseReason::Revoked));
    let liar = bench.connect(3);
    bench.say(liar, &register(3, HOME));
    bench.heard(liar);
    let mut forged = revoked(4);
    *forged.last_mut().unwrap() ^= 1;
    bench.say(liar, &Frame::Revoked { entries: &forged }.to_vec());
    assert_eq!(bench.heard(liar), closed(CloseReason::Protocol));
    assert_eq!(bench.hub.stats().hub.revocations, 0);
}

#[test]
fn whoever_was_enrolled_and_is_revoked_leaves_a_closed_invitation() {
    let mut bench = Bench::new(HubLimits::default());
    let invitation = Invitation::for_keys(9, &authority(HOME), UNIX, &mut Rng::from_seed([4; 32]));
    let enrol = |bench: &mut Bench, n: u8| {
        let id = bench.connect(n);
        let request = EnrolRequest::new(&invitation, &key(n), "nas").encode();
        let namespace = authority(HOME).mesh().namespace();
        bench.say(id, &Frame::Enrol { version: VERSION, namespace, request: &request }.to_vec());
        bench.heard(id)
    };
    assert_eq!(enrol(&mut bench, 2), [Heard::Frame(8)]);
    let teller = bench.client(1, HOME);
    bench.say(teller, &Frame::Revoked { entries: &revoked(2) }.to_vec());
    assert_eq!(enrol(&mut bench, 3), closed(CloseReason::Revoked));
    assert_eq!(enrol(&mut bench, 2), closed(CloseReason::Revoked));
}

#[test]
fn all_that_was_revoked_comes_in_pieces_to_a_client_and_again_to_one_that_did_not_read() {
    let limits = HubLimits::default();
    let mut bench = Bench::new(limits);
    let slow = bench.client(1, HOME);
    let entries = |from: u16| -> Vec<u8> {
        let key = |n: u16| PublicKey::from_bytes(std::array::from_fn(|at| n.to_le_bytes()[at % 2]));
        (from..from + 100)
            .flat_map(|n| authority(HOME).revoke(Subject::Key(key(1_000 + n)), 1_800_000_000).encode())
            .collect()
    };
    let teller = bench.client(2, HOME);
    for from in 0..30 {
        bench.say(teller, &Frame::Revoked { entries: &entries(from * 100) }.to_vec());
        bench.heard(teller);
    }
    let known = bench.hub.stats().hub.revocations;
    assert_eq!(known, 3_000);
    let newcomer = bench.connect(3);
    bench.say(newcomer, &register(3, HOME));
    let heard = bench.heard(newcomer);
    let (pieces, rest) = heard.split_at(heard.len() - 2);
    assert!(pieces.len() > 15 && pieces.iter().all(|piece| *piece == Heard::Frame(9)), "{heard:?}");
    assert_eq!(rest, [Heard::Frame(10), Heard::Frame(2)]);
    assert!(bench.hub.stats().fullest_control_bytes <= limits.relay.control_bytes);
    assert!(bench.heard(slow).contains(&Heard::Frame(10)), "its queue was too short for the news");
}

/// The mesh's secret gets this number.
fn rotated(generation: u32) -> Vec<u8> {
    Frame::Revoked { entries: &authority(HOME).rotate(generation, UNIX.as_secs() as u32).entry.encode() }
        .to_vec()
}

#[test]
fn an_issuer_hands_the_next_secret_to_its_clients_and_to_nobody_who_was_revoked() {
    let mut bench = Bench::new(HubLimits::default());
    let [teller, victim, other] = [1, 2, 3].map(|n| bench.client(n, HOME));
    let stranger = bench.client(4, ELSEWHERE);
    bench.say(teller, &Frame::Revoked { entries: &revoked(2) }.to_vec());
    for id in [teller, victim, other] {
        bench.heard(id);
    }
    bench.say(teller, &rotated(1));
    assert_eq!(bench.heard(teller), [9, 11, 10].map(Heard::Frame), "the secret, and the acknowledgement");
    assert_eq!(bench.heard(other), [9, 11].map(Heard::Frame));
    assert_eq!(bench.heard(stranger), [], "another mesh");
    assert_eq!(bench.heard(victim), [Heard::End], "nothing");
    let again = bench.connect(2);
    bench.say(again, &register(2, HOME));
    assert_eq!(bench.heard(again), [Heard::Frame(9), Heard::Close(CloseReason::Revoked), Heard::End]);

    // Whoever comes later has it before it is registered. It is the same at every issuer.
    let newcomer = bench.connect(5);
    bench.say(newcomer, &register(5, HOME));
    assert_eq!(bench.heard(newcomer), [9, 10, 11, 2].map(Heard::Frame));
    let secret = bench.hub.secret(&authority(HOME).mesh()).cloned();
    assert_eq!(secret, Some(authority(HOME).rotate(1, UNIX.as_secs() as u32).secret));
    let mut copy = Bench::new(HubLimits::default());
    while let Some((_, entry)) = bench.hub.poll_revocation() {
        copy.hub.restore_revocation(&entry.encode());
    }
    assert_eq!(copy.hub.secret(&authority(HOME).mesh()).cloned(), secret);

    // A key and the secret in one message: the key is out first.
    let entries = [revoked(3), authority(HOME).rotate(2, UNIX.as_secs() as u32).entry.encode()].concat();
    bench.say(teller, &Frame::Revoked { entries: &entries }.to_vec());
    assert_eq!(bench.heard(other), [Heard::Frame(9), Heard::Close(CloseReason::Revoked), Heard::End]);
    assert_eq!(bench.heard(teller), [9, 11, 10].map(Heard::Frame));
    bench.say(teller, &rotated(1));
    assert_eq!(bench.heard(teller), [Heard::Frame(10)], "an older one is no news");
}

#[test]
fn a_hub_without_the_authoritys_key_tells_of_a_rotation_and_has_no_secret() {
    let mut bench = Bench::new(HubLimits::default());
    let [teller, other] = [1, 2].map(|n| bench.client(n, ELSEWHERE));
    let entry = authority(ELSEWHERE).rotate(1, UNIX.as_secs() as u32).entry.encode();
    bench.say(teller, &Frame::Revoked { entries: &entry }.to_vec());
    assert_eq!(
        (bench.heard(teller), bench.heard(other)),
        (vec![Heard::Frame(9), Heard::Frame(10)], vec![Heard::Frame(9)])
    );
    assert_eq!(bench.hub.secret(&authority(ELSEWHERE).mesh()), None);
}

#[test]
fn a_record_needs_a_members_pass() {
    let mut bench = Bench::new(HubLimits::default());
    for (n, level, records) in [(1, Level::Look, 0), (2, Level::Submit, 0), (3, Level::Member, 1)] {
        let id = bench.connect(n);
        bench.say(id, &register_as(n, HOME, level));
        bench.heard(id);
        let publish = rendezvous::Frame::Publish { seq: 1, ttl: Duration::from_secs(60), sealed: b"sealed" };
        bench.say(id, &publish.to_vec());
        assert_eq!(bench.hub.stats().records, records, "{level:?}");
    }
    assert_eq!(bench.hub.stats().hub.beyond_level, 2);
}

#[test]
fn a_message_without_a_handshake_is_a_protocol_error() {
    let mut bench = Bench::new(HubLimits::default());
    let id = bench.accept(1).unwrap();
    bench.say(id, &register(1, HOME));
    assert_eq!(bench.heard(id), closed(CloseReason::Protocol));
}

#[test]
fn unknown_frames_are_stepped_over() {
    let mut bench = Bench::new(HubLimits::default());
    let id = bench.client(1, HOME);
    let mut plaintext = Vec::new();
    frame(&mut plaintext, 0x7f, |body| body.extend(b"from the future"));
    Frame::Ping { nonce: 1 }.encode(&mut plaintext);
    bench.say(id, &plaintext);
    assert_eq!(bench.heard(id), [Heard::Frame(0x04)]);
    assert_eq!(bench.hub.stats().hub.unknown_frames, 1);
}

#[test]
fn an_idle_client_is_reaped_and_one_that_pings_is_not() {
    let mut bench = Bench::new(HubLimits::default());
    let (idle, alive) = (bench.client(1, HOME), bench.client(2, HOME));
    for _ in 0..4 {
        bench.pass(Duration::from_secs(15));
        bench.say(alive, &Frame::Ping { nonce: 1 }.to_vec());
        bench.heard(alive);
    }
    assert_eq!(bench.heard(idle), closed(CloseReason::Idle));
    assert_eq!(bench.heard(alive), []);
    assert_eq!(bench.hub.stats().clients, 1);
    assert_eq!(bench.hub.stats().hub.idle, 1);
}

#[test]
fn half_open_connections_are_capped_for_each_address_and_in_all() {
    let limits = HubLimits { half_open_per_address: 2, half_open: 3, ..HubLimits::default() };
    let mut bench = Bench::new(limits);
    let counts = |bench: &Bench| (bench.hub.stats().connections, bench.hub.stats().hub.evicted_half_open);
    let first = bench.connect(1);
    // A registered connection is no longer half-open.
    bench.say(first, &register(1, HOME));
    let (second, third) = (bench.accept(1).unwrap(), bench.accept(1).unwrap());
    assert_eq!(counts(&bench), (3, 0));
    // The hub evicts a connection of the same address and wakes its driver.
    let newcomer = bench.accept(1).unwrap();
    assert_eq!(counts(&bench), (3, 1));
    assert!(bench.hub.is_gone(second) != bench.hub.is_gone(third) && !bench.hub.is_gone(newcomer));
    let gone = std::iter::from_fn(|| bench.hub.poll_wake()).find(|id| [second, third].contains(id));
    assert!(bench.hub.is_gone(gone.unwrap()));
    // For the others, the hub evicts a connection of address 1, which has the most.
    bench.accept(2).unwrap();
    let other = bench.accept(3).unwrap();
    assert_eq!(counts(&bench), (4, 2));
    assert!(!bench.hub.is_gone(first) && !bench.hub.is_gone(other));
    bench.pass(Duration::from_secs(5));
    assert_eq!(counts(&bench), (1, 2));
}

#[test]
fn idle_connections_of_one_address_keep_no_client_there_out() {
    let mut bench = Bench::new(HubLimits::default());
    for _ in 0..70 {
        bench.accept(1).unwrap();
    }
    bench.client(1, HOME);
    assert_eq!(bench.hub.stats().hub.evicted_half_open, 7);
}

/// Registers key `n` from `host` and returns what the connection hears.
fn register_from(bench: &mut Bench, host: u8, n: u8) -> (ClientId, Vec<Heard>) {
    let id = bench.accept(host).unwrap();
    bench.hub.handle_handshake(id, key(n));
    bench.say(id, &register(n, HOME));
    let heard = bench.heard(id);
    (id, heard)
}

#[test]
fn clients_are_capped_for_each_address_and_in_all_but_may_take_their_own_place() {
    let limits = HubLimits {
        clients: 3,
        clients_per_address: 2,
        half_open: 2,
        half_open_per_address: 1,
        ..HubLimits::default()
    };
    let mut bench = Bench::new(limits);
    let registered = [Heard::Frame(0x02)];
    let (one, heard) = register_from(&mut bench, 1, 1);
    assert_eq!(heard, registered);
    assert_eq!(register_from(&mut bench, 1, 2).1, registered);
    let (refused, heard) = register_from(&mut bench, 1, 3);
    assert_eq!(heard, closed(CloseReason::Full));
    assert_eq!(bench.accept(1), Err(Refusal::Address));
    bench.hub.handle_disconnect(refused);
    assert_eq!(register_from(&mut bench, 2, 3).1, registered);
    let (refused, heard) = register_from(&mut bench, 3, 4);
    assert_eq!(heard, closed(CloseReason::Full));
    bench.hub.handle_disconnect(refused);
    // A full hub still lets a client replace its own registration.
    assert_eq!(register_from(&mut bench, 4, 1).1, registered);
    assert_eq!(bench.heard(one), closed(CloseReason::Replaced));
    bench.accept(5).unwrap();
    assert_eq!(bench.accept(6), Err(Refusal::Full));
    let counters = bench.hub.stats().hub;
    assert_eq!((counters.refused_address, counters.refused_full, counters.registrations_full), (1, 1, 2));
}

#[test]
fn every_count_returns_to_zero_when_all_have_gone() {
    let mut bench = Bench::new(HubLimits { half_open_per_address: 1, ..HubLimits::default() });
    for round in 0..50 {
        let id = bench.connect(1);
        match round % 4 {
            0 => bench.say(id, &register(1, HOME)),
            1 => bench.say(id, &register(1, UNKNOWN)),
            2 => {
                bench.say(id, &[register(1, HOME), Frame::GroupJoin { tag: [1; 16] }.to_vec()].concat());
                bench.say(id, &rendezvous::Frame::List { max: 1 }.to_vec());
            }
            _ => {}
        }
        bench.hub.handle_disconnect(id);
    }
    let stats = bench.hub.stats();
    assert_eq!((stats.connections, stats.clients, stats.groups), (0, 0, 0));
    bench.accept(1).unwrap();
}

#[test]
fn records_belong_to_the_key_of_the_connection_and_to_one_namespace() {
    let mut bench = Bench::new(HubLimits::default());
    let (a, b, c) = (bench.client(1, HOME), bench.client(2, HOME), bench.client(3, ELSEWHERE));
    let ttl = Duration::from_secs(120);
    bench.say(a, &rendezvous::Frame::Publish { seq: 1, ttl, sealed: b"a" }.to_vec());
    assert_eq!(bench.heard(a), [Heard::Frame(0x31)]);
    for (id, answer) in [(b, 0x33), (c, 0x34)] {
        bench.say(id, &rendezvous::Frame::Lookup { peer: key(1) }.to_vec());
        assert_eq!(bench.heard(id), [Heard::Frame(answer)]);
    }
    // The record survives its connection, though no list names it then, and ends with a goodbye.
    bench.hub.handle_disconnect(a);
    bench.say(b, &rendezvous::Frame::List { max: 9 }.to_vec());
    assert_eq!(bench.heard(b), [Heard::Frame(0x36)]);
    assert_eq!(bench.hub.stats().records, 1);
    let a = bench.client(1, HOME);
    bench.say(a, &Frame::Close(CloseReason::Bye).to_vec());
    assert_eq!(bench.hub.stats().records, 0);
}

#[test]
fn rendezvous_requests_are_bounded_in_rate() {
    let limits = HubLimits { requests_burst: 2, requests_per_second: 1, ..HubLimits::default() };
    let mut bench = Bench::new(limits);
    let a = bench.client(1, HOME);
    let lookup = rendezvous::Frame::Lookup { peer: key(2) }.to_vec();
    bench.say(a, &[lookup.clone(), lookup.clone(), lookup.clone()].concat());
    assert_eq!(bench.heard(a), [Heard::Frame(0x34), Heard::Frame(0x34)]);
    assert_eq!(bench.hub.stats().hub.dropped_requests, 1);
    bench.now += Duration::from_secs(1);
    bench.say(a, &lookup);
    assert_eq!(bench.heard(a), [Heard::Frame(0x34)]);
}

#[test]
fn a_role_that_is_off_answers_nothing_and_counts() {
    let roles = Roles { relay: false, rendezvous: false, stun: true };
    let mut bench = Bench::with_roles(HubLimits::default(), roles);
    let (a, b) = (bench.client(1, HOME), bench.client(2, HOME));
    bench.say(a, &Frame::Forward { dst: key(2), payload: b"x" }.to_vec());
    bench.say(a, &rendezvous::Frame::List { max: 3 }.to_vec());
    bench.say(a, &Frame::Ping { nonce: 1 }.to_vec());
    assert_eq!(bench.heard(a), [Heard::Frame(0x04)]);
    assert_eq!(bench.heard(b), []);
    assert_eq!(bench.hub.stats().hub.role_off, 2);
}

#[test]
fn shutdown_tells_everyone_and_takes_nobody_new() {
    let mut bench = Bench::new(HubLimits::default());
    let (a, b) = (bench.client(1, HOME), bench.client(2, ELSEWHERE));
    bench.hub.shutdown(bench.now);
    assert_eq!(bench.heard(a), closed(CloseReason::Shutdown));
    assert_eq!(bench.heard(b), closed(CloseReason::Shutdown));
    assert_eq!(bench.accept(3), Err(Refusal::Shutdown));
}

#[test]
fn a_hub_without_connections_sleeps() {
    let mut bench = Bench::new(HubLimits::default());
    assert_eq!(bench.hub.poll_timeout(), None);
    let id = bench.client(1, HOME);
    assert_eq!(bench.hub.poll_timeout(), Some(bench.now + TICK));
    bench.hub.handle_disconnect(id);
    bench.pass(TICK);
    assert_eq!(bench.hub.poll_timeout(), None);
}

proptest::proptest! {
    #[test]
    fn any_plaintext_is_handled_without_a_panic(
        messages in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120), 1..6),
        registered in proptest::prelude::any::<bool>(),
    ) {
        let mut bench = Bench::new(HubLimits::default());
        let id = bench.connect(1);
        if registered {
            bench.say(id, &register(1, HOME));
        }
        for message in messages {
            bench.say(id, &message);
            bench.heard(id);
        }
        bench.hub.handle_disconnect(id);
        proptest::prop_assert_eq!(bench.hub.stats().connections, 0);
    }
}

#[test]
fn the_slips_of_one_pass_make_room_for_others_and_not_for_themselves() {
    // All places of the hub, and all of one address.
    for (limits, host) in [
        (HubLimits { clients: 8, ..HubLimits::default() }, 99),
        (HubLimits { clients_per_address: 8, ..HubLimits::default() }, 1),
    ] {
        let mut bench = Bench::new(limits);
        let slips: Vec<ClientId> = (1..=8).map(|n| bench.slip(1, n, 1, 1).0).collect();
        assert_eq!(bench.hub.stats().clients, 8);
        assert_eq!(bench.slip(1, 9, 1, 1).1, closed(CloseReason::Full), "they are their pass's own");
        let lost = |bench: &mut Bench| {
            let ended =
                slips.iter().filter(|id| bench.heard(**id).contains(&Heard::Close(CloseReason::Full)));
            ended.count()
        };
        // Another pass of the same invitation, one of another, and one by hand.
        assert!(matches!(bench.slip(host, 20, 2, 1).1[..], [Heard::Frame(_)]));
        assert_eq!(lost(&mut bench), 1);
        assert!(matches!(bench.slip(host, 21, 3, 2).1[..], [Heard::Frame(_)]));
        bench.now += CLOSE_LINGER;
        bench.hub.handle_timeout(bench.now);
        let by_hand = bench.accept(host).unwrap();
        bench.hub.handle_handshake(by_hand, key(22));
        bench.say(by_hand, &register(22, HOME));
        assert!(matches!(bench.heard(by_hand)[..], [Heard::Frame(_)]));
        let stats = bench.hub.stats();
        assert_eq!((stats.clients, stats.hub.evicted_clients), (8, 3));
    }
}

#[test]
fn a_slip_leaves_no_record() {
    let mut bench = Bench::new(HubLimits::default());
    let (id, _) = bench.slip(1, 1, 1, 1);
    let ttl = Duration::from_secs(120);
    bench.say(id, &rendezvous::Frame::Publish { seq: 1, ttl, sealed: b"a" }.to_vec());
    assert_eq!((bench.hub.stats().records, bench.hub.stats().hub.beyond_level), (0, 1));
}
