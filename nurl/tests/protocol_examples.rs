//! The worked examples of `docs/protocol.md`, computed by the code, so that the document stays correct.
//!
//! Each test computes the bytes of an example, and looks for their hexadecimal digits in the document. White space
//! within the document's code blocks is ignored.
#![cfg(not(feature = "sim"))]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nurl::internals::authority::checker::Standing;
use nurl::internals::authority::credential::Credential;
use nurl::internals::authority::invitation::{InvitationId, Terms};
use nurl::internals::authority::issuer::EnrolRequest;
use nurl::internals::authority::key::AuthorityKey;
use nurl::internals::authority::level::Level;
use nurl::internals::authority::pass::{Grant, Pass};
use nurl::internals::authority::revocation::{Revocation, Revocations, Subject};
use nurl::internals::authority::slip::Slip;
use nurl::internals::compute::blob::message::{FileId, Message, Refusal, Side};
use nurl::internals::compute::blob::{Envelope, Manifest};
use nurl::internals::compute::job::custody::{Custody, Signer};
use nurl::internals::compute::job::warrant::{Detached, Warrants};
use nurl::internals::compute::job::{Config as JobConfig, Jobs, Placement, SubmitOptions, Submitter, TaskId};
use nurl::internals::key::{PublicKey, SecretKey};
use nurl::internals::kit::wall_clock::WallClock;
use nurl::internals::membership::message::{MembershipMessage, MessageBody};
use nurl::internals::membership::profile::MemberProfile;
use nurl::internals::membership::table::{Fact, MemberRecord, State};
use nurl::internals::membership::{Meta, Roles};
use nurl::internals::mesh::{Generation, Hub, MeshSecret, Ticket};
use nurl::internals::net::reach::control::Connection;
use nurl::internals::net::reach::control::frames::Counted;
use nurl::internals::net::reach::relay::{self, CloseReason, Limits, RelayLimits};
use nurl::internals::net::reach::rendezvous::Record;
use nurl::internals::net::secure::noise::{Backend, Initiator, Responder, StaticKey, TransportKeys};
use nurl::internals::net::secure::securedgram::frames::{
    INIT_LEN, INIT_PAYLOAD_LEN, InitPayload, RESPONSE_LEN, RESPONSE_PAYLOAD_LEN, ResponsePayload,
};
use nurl::internals::net::secure::securedgram::mac::{self, Sealed};
use nurl::internals::net::secure::securedgram::paths::{Control, acknowledgement};
use nurl::internals::net::secure::session::Session;
use nurl::internals::net::secure::version::Versions;
use nurl::internals::replication::crdt::{
    Author, Clock, Kind, LwwRegister, MultiRegister, Object, OrMap, OrSet, PnCounter, Stamp, Value,
};
use nurl::internals::replication::identity::ReplicaId;
use nurl::internals::replication::replicator::{self, Confirm, NameQuery, Op, Replicator};
use nurl::internals::ring::{Epoch, Ring, RingMember, position};
use nurl::internals::transport::group::Groups;
use nurl::internals::transport::reliable::{Priority, Reliable, ReliableConfig};
use nurl::rt::Rng;
use rand_core::{Rng as _, SeedableRng};

const PROTOCOL: &str = include_str!("../docs/protocol.md");

/// When the examples' passes were signed: 2027-01-15 08:00 UTC.
const ISSUED: u32 = 1_800_000_000;

const BOOT: u64 = 0x0102_0304_0506_0708;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Looks for each example in the document, and reports the missing ones with the computed values.
fn must_show(examples: &[(&str, String)]) {
    let document: String = PROTOCOL.split_whitespace().collect();
    let missing: Vec<String> = examples
        .iter()
        .filter(|(_, value)| !document.contains(value.split_whitespace().collect::<String>().as_str()))
        .map(|(name, value)| format!("{name}:\n{value}\n"))
        .collect();
    assert!(missing.is_empty(), "docs/protocol.md doesn't show:\n{}", missing.join("\n"));
}

#[expect(clippy::disallowed_methods, reason = "any instant will do as the beginning of a test's time")]
fn now() -> Instant {
    Instant::now()
}

fn rng(seed: u8) -> Rng {
    Rng::from_seed([seed; 32])
}

/// The secret key whose bytes count up from `from`.
fn secret(from: u8) -> SecretKey {
    SecretKey::from_bytes(std::array::from_fn(|at| from + at as u8))
}

fn initiator() -> SecretKey {
    secret(0x00)
}

fn responder() -> SecretKey {
    secret(0x20)
}

fn authority() -> AuthorityKey {
    AuthorityKey::from_seed(&[0x11; 32])
}

fn ticket() -> Ticket {
    let terms = Terms {
        id: InvitationId([0x33; 8]),
        level: Level::Worker,
        weight: 1,
        zone: "attic".to_owned(),
        until: ISSUED + 90 * 86_400,
        keys: 64,
    };
    Ticket {
        mesh: authority().mesh(),
        generation: 0,
        current: MeshSecret::from_bytes([0x22; 32]),
        previous: None,
        hubs: vec![Hub { key: responder().public(), addr: "127.0.0.1:4242".to_owned() }],
        invitation: terms.invite(&authority()),
    }
}

/// The pass of a key: a worker's, of the ticket's invitation.
fn pass(key: &PublicKey, name: &str) -> Pass {
    let grant = Grant {
        key: *key,
        name: name.to_owned(),
        level: Level::Worker,
        weight: 1,
        zone: "attic".to_owned(),
        invitation: Some(InvitationId([0x33; 8])),
        ring_seed: [0x44; 8],
        issued: ISSUED,
        not_after: ISSUED + 3 * 86_400,
    };
    grant.sign(&authority()).unwrap()
}

#[test]
fn a_mesh_its_passes_and_its_requests_are_these_bytes() {
    let (a, b) = (initiator(), responder());
    let invitation = ticket().invitation.unwrap();
    let enrol = EnrolRequest::new(&invitation, &a.public(), "nas");
    let slip = Slip { key: b.public(), level: Level::Submit, not_after: ISSUED + 3_600 };
    let revocation = Revocation::sign(&authority(), Subject::Key(a.public()), ISSUED, ISSUED);
    must_show(&[
        ("mesh id", authority().mesh().to_string()),
        ("invitation secret", hex(invitation.secret())),
        ("enrol request of A", hex(&enrol.encode())),
        ("pass of A", hex(pass(&a.public(), "nas").as_bytes())),
        ("hash of A's pass", hex(&pass(&a.public(), "nas").hash().0)),
        ("slip of A for B", hex(&slip.sign(&a, &authority().mesh()))),
        ("revocation of A", hex(&revocation.encode())),
        ("rotation", hex(&authority().rotate(1, ISSUED).entry.encode())),
        ("signed secret", hex(&authority().rotate(1, ISSUED).secret.encode())),
    ]);
    let mut known = Revocations::default();
    known.merge(revocation.clone());
    must_show(&[
        ("REVOKED", hex(&relay::Frame::Revoked { entries: &revocation.encode() }.to_vec())),
        ("KNOWS", hex(&relay::Frame::Knows { digest: known.digest() }.to_vec())),
    ]);
    let (version, namespace, request) = (2, authority().mesh().namespace(), enrol.encode());
    let frame = relay::Frame::Enrol { version, namespace, request: &request }.to_vec();
    let asked = relay::Frame::Asked { number: 7, key: a.public(), kind: frame[0], body: &frame[3..] };
    let pass = pass(&a.public(), "nas");
    let granted = relay::Frame::Granted { number: 7, pass: Counted(pass.as_bytes()), sealed: &[] };
    must_show(&[
        ("ASKED", hex(&asked.to_vec())),
        ("GRANTED", hex(&granted.to_vec())),
        ("DENIED", hex(&relay::Frame::Denied { number: 7, reason: CloseReason::UsedUp }.to_vec())),
        ("ISSUER", hex(&relay::Frame::Issuer { key: b.public() }.to_vec())),
    ]);
}

fn generation() -> Generation {
    ticket().generations().remove(0)
}

#[test]
fn keys_and_tickets_have_their_text_forms() {
    let (a, b) = (initiator(), responder());
    must_show(&[
        ("public key A", hex(a.public().as_bytes())),
        ("text of public key A", a.public().to_string()),
        ("text of secret key A", a.to_text().to_string()),
        ("public key B", hex(b.public().as_bytes())),
        ("text of public key B", b.public().to_string()),
        ("ticket", ticket().to_text().unwrap().to_string()),
    ]);
}

#[test]
fn a_ticket_gives_these_keys() {
    let (generation, b) = (generation(), responder().public());
    must_show(&[
        ("namespace", hex(ticket().mesh.namespace().as_bytes())),
        ("psk", hex(&*generation.psk)),
        ("mac1 key of B", hex(&generation.mac1_key(&b))),
        ("cookie key of B", hex(&generation.cookie_key(&b))),
        ("record key", hex(&*generation.record)),
        ("group key", hex(&*generation.group)),
        ("group key of B", hex(&*generation.group_sender_key(&b, BOOT))),
    ]);
}

#[test]
fn a_handshake_and_the_first_frames_are_these_bytes() {
    let prologue = ticket().mesh.prologue();
    let (generation, now) = (generation(), now());
    let key = |secret: &SecretKey| StaticKey::new(Backend::DEFAULT, secret).unwrap();
    let (a, b) = (key(&initiator()), key(&responder()));

    let mut timestamp = [0; 12];
    timestamp[..8].copy_from_slice(&1_700_000_000u64.to_be_bytes());
    timestamp[8..].copy_from_slice(&5u32.to_be_bytes());
    let shown = Credential::new(pass(&initiator().public(), "nas")).show();
    let payload =
        InitPayload { timestamp, boot: BOOT, versions: [2; 2], features: 0, challenge: [0; 16], shown }
            .encode();
    let mut init = vec![0xC1];
    init.extend_from_slice(&0x1234_5678u32.to_le_bytes());
    let mut begun =
        Initiator::start(&a, b.public(), None, &prologue, [0x40; 32], &payload, &mut init).unwrap();
    let mac1 = mac::mac(&generation.mac1_key(b.public()), &init);
    init.extend_from_slice(&mac1);
    init.extend_from_slice(&[0; 16]);

    let mut read = [0; INIT_PAYLOAD_LEN];
    let mut answering = Responder::peek(&b, &prologue, [0x60; 32], &init[5..INIT_LEN - 32]).unwrap();
    assert_eq!(answering.initiator(), a.public());
    answering.admit(None, &mut read).unwrap();
    assert_eq!(read, payload);
    let mut response = vec![0xC2];
    response.extend_from_slice(&0x9abc_def0u32.to_le_bytes());
    response.extend_from_slice(&0x1234_5678u32.to_le_bytes());
    let shown = Credential::new(pass(&responder().public(), "desk")).show();
    let ours = ResponsePayload { boot: 2, versions: [2; 2], features: 0, shown }.encode();
    let keys_b = answering.respond(&generation.psk, &ours, &mut response).unwrap();
    let mac1_response = mac::mac(&generation.mac1_key(a.public()), &response);
    response.extend_from_slice(&mac1_response);
    response.extend_from_slice(&[0; 16]);

    let (_, keys_a) = begun
        .read_response(&generation.psk, &response[9..RESPONSE_LEN - 32], &mut [0; RESPONSE_PAYLOAD_LEN])
        .unwrap();
    let mut session_a = Session::new(&keys_a, 0x1234_5678, 0x9abc_def0, true, now);
    let mut session_b = Session::new(&keys_b, 0x9abc_def0, 0x1234_5678, false, now);
    let (mut confirm, mut data) = (Vec::new(), Vec::new());
    session_a.seal(now, &[], &[], &mut confirm).unwrap();
    session_b.seal(now, &[3], b"hello", &mut data).unwrap();

    let mac2 = mac::mac2(&[0x77; 16], &init[..INIT_LEN - 16]);
    let (cookie_key, ss) = (generation.cookie_key(b.public()), a.agree(b.public()).unwrap());
    let challenge_key = mac::challenge_key(&ss);
    let cookie = mac::seal(0x1234_5678, &cookie_key, &mac1, Sealed::Cookie([0x77; 16]), &mut rng(6));
    let challenge = mac::seal(0x1234_5678, &challenge_key, &mac1, Sealed::Challenge([0x88; 16]), &mut rng(6));
    must_show(&[
        ("init payload", hex(&payload)),
        ("init", hex(&init)),
        ("mac2 of init", hex(&mac2)),
        ("cookie", hex(&cookie)),
        ("challenge key", hex(&*challenge_key)),
        ("challenge", hex(&challenge)),
        ("response payload", hex(&ours)),
        ("response", hex(&response)),
        ("confirm", hex(&confirm)),
        ("first data frame of the responder", hex(&data)),
    ]);
}

#[test]
fn a_data_frame_under_fixed_keys_is_these_bytes() {
    let now = now();
    let keys = TransportKeys::from_bytes(Backend::DEFAULT, [0x80; 32], [0x81; 32]);
    let mut session = Session::new(&keys, 1, 0xA1B2_C3D4, true, now);
    let mut frames = Vec::new();
    session.seal(now, &[3], b"first", &mut frames).unwrap();
    let second = frames.len();
    session.seal(now, &[3], b"second", &mut frames).unwrap();
    must_show(&[
        ("data frame with counter 0", hex(&frames[..second])),
        ("data frame with counter 1", hex(&frames[second..])),
    ]);
}

#[test]
fn control_messages_are_these_bytes() {
    let candidates = Control::Candidates {
        r#gen: 2,
        addrs: vec!["192.0.2.1:4000".parse().unwrap(), "[2001:db8::1]:4001".parse().unwrap()],
    };
    let seen = "203.0.113.9:50000".parse().unwrap();
    must_show(&[
        ("candidates", hex(&candidates.encode())),
        ("acknowledgement", hex(&Control::Response { data: acknowledgement(2), observed: None }.encode())),
        ("response", hex(&Control::Response { data: [0x88; 8], observed: Some(seen) }.encode())),
    ]);
}

#[test]
fn a_frame_to_the_mesh_group_is_these_bytes() {
    let (mut frame, sender) = (Vec::new(), initiator().public());
    let mut groups = Groups::new(sender, BOOT, vec![generation()], rng(1));
    let tag = groups.seal(now(), "", b"hi", &mut frame).unwrap();
    groups.join("news", None).unwrap();
    let news = groups.tags().find(|other| *other != tag).unwrap();
    must_show(&[
        ("tag of the mesh group", hex(&tag)),
        ("tag of the group news", hex(&news)),
        ("group frame", hex(&frame)),
    ]);
}

/// The first datagram of `local`'s reliable layer, once it has a message for `peer`.
fn first_reliable(local: PublicKey, local_boot: u64, peer: PublicKey, peer_boot: u64) -> Vec<u8> {
    let (now, mut out) = (now(), Vec::new());
    let mut reliable = Reliable::new(ReliableConfig::default(), local, local_boot, now, rng(7));
    reliable.on_established(now, peer, peer_boot);
    reliable.send(now, peer, Priority::Job, 2, Bytes::from_static(b"body")).unwrap();
    reliable.poll_transmit(now, &mut out).unwrap();
    out
}

#[test]
fn the_first_reliable_datagrams_are_these_bytes() {
    let (a, b) = (initiator().public(), responder().public());
    let ((small, small_boot), (large, large_boot)) =
        if a < b { ((a, BOOT), (b, 2)) } else { ((b, 2), (a, BOOT)) };
    let open = first_reliable(large, large_boot, small, small_boot);
    let initial = first_reliable(small, small_boot, large, large_boot);
    assert_eq!(initial.len(), 1200);
    assert_eq!(initial[6..14], open[1..9], "both name the pair");
    // The zeros at the end are the padding, and after it the four bytes that stand for a tag.
    let padding = initial.iter().rposition(|byte| *byte != 0).unwrap();
    must_show(&[("OPEN", hex(&open)), ("client's first packet", hex(&initial[..=padding]))]);
}

#[test]
fn hub_frames_are_these_bytes() {
    let namespace = ticket().mesh.namespace();
    let register = relay::Frame::Register {
        version: 2,
        namespace,
        boot: BOOT,
        shown: &Credential::new(pass(&initiator().public(), "nas")).show(),
        versions: Versions::SPOKEN,
    }
    .to_vec();
    let limits = Limits {
        roles: relay::Roles::ALL,
        frame_bytes: 65_519,
        datagram_bytes: 16 * 1024,
        queue_bytes: RelayLimits::default().queue_bytes as u32,
        bytes_per_second: RelayLimits::default().bytes_per_second,
        groups: 64,
        record_ttl: Duration::from_secs(120),
        idle: Duration::from_secs(60),
        versions: Versions::SPOKEN,
    };
    let forward = relay::Frame::Forward { dst: responder().public(), payload: b"\xc4\x01" }.to_vec();
    must_show(&[
        ("REGISTER", hex(&register)),
        ("REGISTERED", hex(&relay::Frame::Registered(limits).to_vec())),
        ("FORWARD", hex(&forward)),
    ]);
}

#[test]
fn a_control_connection_begins_with_these_bytes() {
    let (mut to_hub, mut to_client, mut plaintext) = (Vec::new(), Vec::new(), Vec::new());
    let ephemeral = |seed: u8| {
        let mut bytes = [0; 32];
        rng(seed).fill_bytes(&mut bytes);
        hex(&bytes)
    };
    let mut client = Connection::client(&initiator(), &responder().public(), &mut rng(8)).unwrap();
    let mut hub = Connection::server(&responder(), &mut rng(9)).unwrap();
    client.poll_write(&mut to_hub);
    hub.handle_bytes(&to_hub);
    assert!(!hub.poll_message(&mut plaintext).unwrap());
    hub.poll_write(&mut to_client);
    client.handle_bytes(&to_client);
    assert!(!client.poll_message(&mut plaintext).unwrap());
    let mut ping = Vec::new();
    client.seal(&relay::Frame::Ping { nonce: 1 }.to_vec(), &mut ping).unwrap();
    must_show(&[
        ("the client's ephemeral secret", ephemeral(8)),
        ("message 1", hex(&to_hub)),
        ("the hub's ephemeral secret", ephemeral(9)),
        ("message 2", hex(&to_client)),
        ("the client's first transport message", hex(&ping)),
    ]);
}

#[test]
fn a_sealed_record_is_these_bytes() {
    let record = Record {
        candidates: vec!["192.0.2.1:4000".parse().unwrap()],
        home: Some(responder().public()),
        capabilities: 0,
        expires: Duration::from_secs(1_700_001_200),
    };
    let key = initiator().public();
    let sealed = record.seal(&generation(), &key, 9, &mut rng(2)).unwrap();
    must_show(&[("sealed record", hex(&sealed))]);
}

#[test]
fn membership_messages_are_these_bytes() {
    let meta = Meta::new(Roles::WORKER, vec!["up".to_owned()], 1, "0.1.0".to_owned()).unwrap();
    let (mesh, pass) = (authority().mesh(), pass(&initiator().public(), "nas"));
    let said = MemberProfile { incarnation: 3, left: false, boot: BOOT, meta, pass: pass.hash() };
    let profile = said.sign(&initiator(), &mesh, &pass);
    let record = MemberRecord { incarnation: 3, state: State::Alive, profile: Some(profile) };
    let fact = Fact { key: initiator().public(), record, age_s: 0, accusers: Vec::new() };
    let message = MembershipMessage {
        epoch: 7,
        observer: false,
        body: MessageBody::Ping { seq: 500 },
        facts: vec![fact],
        events: Vec::new(),
    };
    must_show(&[("ping with a fact", hex(&message.encode()))]);
}

#[test]
fn keys_have_these_places_on_the_ring() {
    let member = |from: u8| RingMember {
        boot: 0,
        key: PublicKey::from_bytes([from; 32]),
        seed: [from; 8],
        weight: 1,
        zone: String::new(),
        kinds: vec!["up".to_owned()],
        live: true,
        placed: true,
    };
    let ring = Ring::new((1..=5).map(member));
    let owners: Vec<String> =
        ring.owners(b"key", 3).iter().map(|owner| hex(&owner.as_bytes()[..1])).collect();
    let epoch = Epoch { counter: 7, owner: PublicKey::from_bytes([1; 32]) };
    must_show(&[
        ("position of the empty key", format!("{:016x}", position(b""))),
        ("position of key", format!("{:016x}", position(b"key"))),
        ("owners of key", owners.join(", ")),
        ("an epoch", hex(&epoch.to_bytes())),
    ]);
}

/// A view in which one node executes and keeps all tasks.
struct Only(PublicKey);

impl Placement for Only {
    fn executors(&self, _kind: &str, _key: &[u8]) -> Vec<PublicKey> {
        vec![self.0]
    }

    fn owners(&self, _key: &[u8], _replicas: usize) -> Vec<PublicKey> {
        vec![self.0]
    }

    fn has_kind(&self, _kind: &str) -> bool {
        true
    }
}

#[test]
fn job_messages_are_these_bytes() {
    let (now, a, b) = (now(), initiator().public(), responder().public());
    let mut submitter = Jobs::new(JobConfig::default(), a, BOOT, now, rng(3));
    let mut executor = Jobs::new(JobConfig::default(), b, 2, now, rng(4));
    submitter.set_placement(now, Arc::new(Only(b)));
    executor.set_placement(now, Arc::new(Only(b)));
    executor.register("up", Default::default());
    let reserve = executor.poll_persist().unwrap();
    executor.on_persisted(reserve);
    let (id, payload) = (TaskId::from_bytes([0xEE; 16]), Bytes::from_static(b"hello"));
    submitter.submit_with_id(now, id, "up", b"k", payload, SubmitOptions::default()).unwrap();
    let (to, submit) = submitter.poll_transmit().unwrap();
    assert_eq!(to, b);
    executor.handle_message(now, Submitter::new(a, None), submit.clone());
    let (_, accepted) = executor.poll_transmit().unwrap();
    let run = executor.poll_run(now).unwrap();
    executor.finished(now, run.id, Ok(Bytes::from_static(b"HELLO")));
    let (_, outcome) = executor.poll_transmit().unwrap();
    submitter.handle_message(now, Submitter::new(b, None), outcome.clone());
    let (_, ack) = submitter.poll_transmit().unwrap();
    must_show(&[
        ("SUBMIT", hex(&submit)),
        ("ACCEPTED", hex(&accepted)),
        ("OUTCOME", hex(&outcome)),
        ("ACK", hex(&ack)),
    ]);
}

#[test]
fn a_question_its_answer_and_a_hand_back_are_these_bytes() {
    let (mut now, a, b) = (now(), initiator().public(), responder().public());
    let mut submitter = Jobs::new(JobConfig::default(), a, BOOT, now, rng(3));
    let mut executor = Jobs::new(JobConfig::default(), b, 2, now, rng(4));
    submitter.set_placement(now, Arc::new(Only(b)));
    executor.set_placement(now, Arc::new(Only(b)));
    executor.register("up", Default::default());
    let reserve = executor.poll_persist().unwrap();
    executor.on_persisted(reserve);
    let (id, payload) = (TaskId::from_bytes([0xDD; 16]), Bytes::from_static(b"hello"));
    submitter.submit_with_id(now, id, "up", b"k", payload, SubmitOptions::default()).unwrap();
    executor.handle_message(now, Submitter::new(a, None), submitter.poll_transmit().unwrap().1);
    submitter.handle_message(now, Submitter::new(b, None), executor.poll_transmit().unwrap().1);
    let run = executor.poll_run(now).unwrap();
    now += Duration::from_secs(1);
    executor.handle_timeout(now);
    let (_, beats) = executor.poll_transmit().unwrap();
    submitter.handle_message(now, Submitter::new(b, None), beats.clone());
    let (_, listening) = submitter.poll_transmit().unwrap();
    executor.handle_message(now, Submitter::new(a, None), listening.clone());
    executor.drain(now, Duration::ZERO);
    executor.handle_timeout(now);
    let (_, refused) = executor.poll_transmit().unwrap();
    assert_eq!(executor.poll_cancel(), Some(run.id));
    must_show(&[("BEATS", hex(&beats)), ("LISTENING", hex(&listening)), ("REFUSED", hex(&refused))]);
}

#[test]
fn messages_about_a_detached_task_are_these_bytes() {
    let (now, wall, mesh) = (now(), Duration::from_secs(ISSUED.into()), authority().mesh());
    let (a, b) = (initiator(), responder());
    let log = |of: &SecretKey, durable: bool| {
        let pass = Some(pass(&of.public(), "nas"));
        let warrants = Warrants::new(mesh, WallClock::new(now, wall), &[]);
        let mut log = Custody::new(
            (of.public(), BOOT, durable),
            Signer { holder: of.clone(), pass, mesh },
            warrants,
            wall,
        );
        log.set_ring(
            now,
            Arc::new(Ring::new([RingMember {
                boot: BOOT,
                key: b.public(),
                seed: [1; 8],
                weight: 1,
                zone: String::new(),
                kinds: vec!["up".to_owned()],
                live: true,
                placed: true,
            }])),
        );
        log
    };
    let (mut submitter, mut keeper) = (log(&a, false), log(&b, true));
    let from = |of: &SecretKey| Submitter::new(of.public(), Some(Standing::of(&pass(&of.public(), "nas"))));
    let (id, payload) = (TaskId::from_bytes([0xCC; 16]), Bytes::from_static(b"hello"));
    let keep = Duration::from_secs(86_400);
    let job = Detached { options: SubmitOptions::default(), keep, parent: None };
    submitter.deposit(now, id, ("up", b"k", payload), &job).unwrap();
    let (_, deposit) = submitter.poll_transmit().unwrap();
    keeper.handle_message(now, &from(&a), &deposit);
    let (_, stored) = keeper.poll_transmit().unwrap();
    submitter.handle_message(now, &from(&b), &stored);
    submitter.ask(now, id, None, Duration::ZERO, false).unwrap();
    let (_, ask) = submitter.poll_transmit().unwrap();
    keeper.handle_message(now, &from(&a), &ask);
    let (_, answer) = keeper.poll_transmit().unwrap();
    must_show(&[
        ("DEPOSIT", hex(&deposit)),
        ("STORED", hex(&stored)),
        ("ASK", hex(&ask)),
        ("ANSWER", hex(&answer)),
    ]);
}

#[test]
fn messages_about_a_large_file_are_these_bytes() {
    let (len, file) = (65_537, |side| FileId { task: TaskId::from_bytes([0xEE; 16]), side });
    let manifest = Manifest::of(len, |buffer, _| {
        buffer.fill(0);
        Ok(())
    });
    let payload = Envelope::File(manifest.unwrap());
    let get = Message::Get { file: file(Side::Payload), indexes: vec![0, 1] };
    let chunk = Message::Chunk { file: file(Side::Payload), index: 1, bytes: Bytes::from_static(&[0]) };
    let refused = Message::Refused { file: file(Side::Payload), why: Refusal::Changed };
    let done = Message::Done { file: file(Side::Result) };
    must_show(&[
        ("the envelope", hex(&payload.encode())),
        ("GET", hex(&get.encode())),
        ("CHUNK", hex(&chunk.encode())),
        ("REFUSED", hex(&refused.encode())),
        ("DONE", hex(&done.encode())),
    ]);
}

#[test]
fn states_are_these_bytes() {
    let replica = ReplicaId { key: PublicKey::from_bytes([1; 32]), incarnation: 5 };
    let mut counter = PnCounter::default();
    counter.add(replica, 300).unwrap();
    let mut register = LwwRegister::default();
    let wall = Duration::from_millis(1_700_000_000_000);
    register.set(replica, &mut Clock::default(), wall, b"v").unwrap();
    let mut set = OrSet::default();
    set.add(replica, b"x").unwrap();
    let multi = MultiRegister::default().writing(replica, b"v", 0).unwrap();
    let mut map = OrMap::default();
    map.merge(&map.adding(Author { replica, floor: 0 }, b"n", 300).unwrap()).unwrap();
    map.merge(&map.inserting(Author { replica, floor: 0 }, b"s", b"x").unwrap()).unwrap();
    let other = ReplicaId { incarnation: 6, ..replica };
    let cleared = map.removing(Author { replica: other, floor: 0 }, b"n");
    let (counter, set) = (Value::Counter(counter), Value::Set(set));
    let stamp = Stamp { wall_ms: 1_700_000_000_000, logical: 1 };
    let deletion = Object::from(counter.clone()).deleting(Author { replica, floor: 0 }, stamp);
    let expiry = Object::expiring(Kind::Counter, stamp, 1_700_000_060_000);
    must_show(&[
        ("counter", hex(&counter.encode())),
        ("digest of the counter", hex(&counter.digest())),
        ("register", hex(&Value::Register(register).encode())),
        ("set", hex(&set.encode())),
        ("multi-value register", hex(&Value::Multi(multi).encode())),
        ("map", hex(&Value::Map(map).encode())),
        ("removal of a field", hex(&Value::Map(cleared).encode())),
        ("deletion of the counter", hex(&deletion.encode())),
        ("expiry of the counter", hex(&expiry.encode())),
    ]);
}

#[test]
fn state_messages_are_these_bytes() {
    let (now, wall) = (now(), Duration::from_millis(1_700_000_000_000));
    let key = |from: u8| PublicKey::from_bytes([from; 32]);
    let member = |from: u8| RingMember {
        boot: 0,
        key: key(from),
        seed: [from; 8],
        weight: 1,
        zone: String::new(),
        kinds: Vec::new(),
        live: true,
        placed: true,
    };
    let ring = Arc::new(Ring::new([member(1), member(2)]));
    let start = |from: u8| {
        let local = ReplicaId { key: key(from), incarnation: 5 };
        let mut replicator = Replicator::new(replicator::Config::default(), local, now, rng(5));
        replicator.set_ring(now, ring.clone());
        replicator
    };
    let (mut first, mut second) = (start(1), start(2));
    let sent = |from: &mut Replicator, to: u8| {
        let (peer, bytes) = from.poll_transmit().unwrap();
        assert_eq!(peer, key(to));
        bytes
    };
    first.read(now, 1, Kind::Counter, b"key");
    let read = sent(&mut first, 2);
    second.handle_message(now, wall, key(1), &read);
    let reply = sent(&mut second, 1);
    first.handle_message(now, wall, key(2), &reply);
    first.update(now, wall, 2, b"key", (Op::Add { by: 300 }, Confirm::Safe));
    let delta = sent(&mut first, 2);
    second.handle_message(now, wall, key(1), &delta);
    let ack = sent(&mut second, 1);
    // An observer.
    let config = replicator::Config { observer: true, ..Default::default() };
    let mut third = Replicator::new(config, ReplicaId { key: key(3), incarnation: 5 }, now, rng(6));
    third.set_ring(now, ring.clone());
    let mut asked = start(1);
    let mut answer = |question: &[u8]| {
        asked.handle_message(now, wall, key(3), question);
        std::iter::from_fn(|| asked.poll_transmit()).find(|(to, _)| *to == key(3)).unwrap().1
    };
    third.update(now, wall, 3, b"key", (Op::Add { by: 1 }, Confirm::Nodes(1)));
    let inquiry = sent(&mut third, 1);
    let there = answer(&inquiry);
    third.handle_message(now, wall, key(1), &there);
    let operation = sent(&mut third, 1);
    let made = answer(&operation);
    third.list(now, 4, NameQuery { kind: None, prefix: b"k".to_vec(), after: None, most: 10 });
    let list = sent(&mut third, 1);
    let names = answer(&list);
    first.leave(now);
    let copy = sent(&mut first, 2);
    let mut set = OrSet::default();
    set.add(ReplicaId { key: key(3), incarnation: 5 }, b"x").unwrap();
    // A set for the counter's key, encoded by hand: [0, [key, id, state]].
    let mut write = vec![0x82, 0x00, 0x83, 0x44, 0x01];
    write.extend_from_slice(b"key");
    let state = Value::Set(set).encode();
    write.extend_from_slice(&[0x07, 0x58, u8::try_from(state.len()).unwrap()]);
    write.extend_from_slice(&state);
    second.handle_message(now, wall, key(3), &write);
    assert_eq!((second.stats().malformed, second.poll_transmit()), (1, None));
    must_show(&[
        ("READ", hex(&read)),
        ("READ_REPLY", hex(&reply)),
        ("DELTA", hex(&delta)),
        ("ACK", hex(&ack)),
        ("COPY", hex(&copy)),
        ("INQUIRY", hex(&inquiry)),
        ("OPERATION_REPLY to INQUIRY", hex(&there)),
        ("OPERATION", hex(&operation)),
        ("OPERATION_REPLY", hex(&made)),
        ("LIST", hex(&list)),
        ("NAMES", hex(&names)),
        ("a DELTA that is none", hex(&write)),
    ]);
}
