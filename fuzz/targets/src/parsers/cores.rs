//! Bytes of the wire and of the store whose parsers are inside state machines: each is driven through its machine.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use nurl::PublicKey;
use nurl::internals::compute::blob::fetch::Fetch;
use nurl::internals::compute::blob::message::{FileId, Message, Refusal, Side};
use nurl::internals::compute::blob::provider::Provider;
use nurl::internals::compute::blob::{Envelope, Manifest};
use nurl::internals::compute::job::{Config as JobConfig, Jobs, KindLimits, Placement, Submitter, TaskId};
use nurl::internals::net::reach::control::{Connection, MAX_PLAINTEXT_BYTES};
use nurl::internals::net::secure::route::Route;
use nurl::internals::net::secure::securedgram::frames::{self, FrameKind, InitPayload, ResponsePayload};
use nurl::internals::net::secure::securedgram::{Endpoint, EndpointConfig, Received, Source, mac};
use nurl::internals::replication::crdt::Kind;
use nurl::internals::replication::identity::ReplicaId;
use nurl::internals::replication::replicator::{
    Config as StateConfig, MAX_MESSAGE_BYTES, Replicator, state_key,
};
use nurl::internals::ring::{Ring, RingMember};
use nurl::internals::transport::group::{FrameOutcome, GROUP_FRAME, Groups};

use super::parser;
use crate::Target;
use crate::draw::Draw;
use crate::ground::{UNIX, key, millis, now, rng, secret, secs, ticket};
use crate::insiders;

pub(crate) const TARGETS: &[Target] = &[
    parser!(datagram, datagram_seeds),
    parser!(control_connection, control_connection_seeds),
    parser!(reliable_datagrams, reliable_seeds),
    parser!(group_frame, group_seeds),
    parser!(job_message, job_seeds),
    parser!(large_file_message, large_file_seeds),
    parser!(state_message, state_seeds),
    parser!(state_record, state_record_seeds),
];

/// A datagram at an endpoint without sessions, as it is and, if it may be an init, with the mac of the mesh's secret.
/// It is answered by at most one datagram, which isn't longer.
fn datagram(bytes: &[u8]) -> bool {
    let kind = frames::classify(bytes);
    if let Some(payload) = bytes.first_chunk() {
        assert_eq!(&InitPayload::decode(payload).encode(), payload);
    }
    if let Some(payload) = bytes.first_chunk() {
        assert_eq!(&ResponsePayload::decode(payload).encode(), payload);
    }
    let now = now();
    let mut endpoint = Endpoint::new(
        EndpointConfig::new(secret(1), ticket().mesh, ticket().generations(), 1),
        now,
        UNIX,
        rng(1),
    );
    let mut copies = vec![bytes.to_vec()];
    if kind == Ok(FrameKind::Init) {
        let (body, _) = bytes.split_at(bytes.len() - 2 * frames::MAC_LEN);
        let mac = mac::mac(&ticket().generations()[0].mac1_key(endpoint.local()), body);
        copies.push([body, &mac, &[0; frames::MAC_LEN]].concat());
    }
    for source in [Source::direct(([192, 0, 2, 1], 4242).into()), Source::relay(key(200), key(7))] {
        for copy in &copies {
            let mut datagram = copy.clone();
            let received = endpoint.handle_datagram(now, source, &mut datagram);
            assert!(matches!(received, None | Some(Received::Group)), "nobody sealed this");
            assert_eq!(received.is_some(), kind == Ok(FrameKind::Group));
            let mut out = Vec::new();
            if let Some(outgoing) = endpoint.poll_transmit(&mut out) {
                assert!(out.len() <= datagram.len() && outgoing.route == source.route);
                assert!(matches!(outgoing.route, Route::Direct(_)) || outgoing.relay_dst.is_some());
            }
            assert!(endpoint.poll_transmit(&mut out).is_none(), "one answer");
        }
    }
    assert_eq!(endpoint.peers().count(), 0, "a stranger gets no slot");
    kind.is_ok()
}

fn datagram_seeds() -> Vec<Vec<u8>> {
    let kinds = [
        (frames::INIT, frames::INIT_LEN),
        (frames::RESPONSE, frames::RESPONSE_LEN),
        (frames::COOKIE, frames::COOKIE_LEN),
        (frames::DATA, 60),
        (frames::GROUP, frames::MIN_GROUP_LEN + 9),
    ];
    let frame = |(first, len): (u8, usize)| [vec![first], vec![7; len - 1]].concat();
    kinds.into_iter().map(frame).chain([insiders::endpoint::an_init()]).collect()
}

/// A control connection's bytes, in portions: at the hub before and after a client's handshake, and at a client.
fn control_connection(bytes: &[u8]) -> bool {
    let hub = secret(1).public();
    let mut client = Connection::client(&secret(2), &hub, &mut rng(1)).expect("a sound key");
    let mut stranger = Connection::client(&secret(3), &hub, &mut rng(2)).expect("a sound key");
    let mut server = Connection::server(&secret(1), &mut rng(3)).expect("a sound key");
    let mut other = Connection::server(&secret(1), &mut rng(4)).expect("a sound key");
    let (mut wire, mut plaintext) = (Vec::new(), Vec::new());
    client.poll_write(&mut wire);
    server.handle_bytes(&wire);
    assert_eq!(server.poll_message(&mut plaintext), Ok(false));
    assert_eq!(server.peer(), Some(secret(2).public()));

    for connection in [&mut stranger, &mut server, &mut other] {
        for portion in bytes.chunks(1 + bytes.len() / 3) {
            connection.handle_bytes(portion);
            if connection.poll_message(&mut plaintext) == Ok(true) {
                panic!("nobody sealed this");
            }
            assert!(plaintext.len() <= MAX_PLAINTEXT_BYTES);
        }
    }
    // The same bytes sealed: they arrive.
    wire.clear();
    let mut server = Connection::server(&secret(1), &mut rng(3)).expect("a sound key");
    let mut client = Connection::client(&secret(2), &hub, &mut rng(1)).expect("a sound key");
    client.poll_write(&mut wire);
    server.handle_bytes(&wire);
    assert_eq!(server.poll_message(&mut plaintext), Ok(false));
    wire.clear();
    server.poll_write(&mut wire);
    client.handle_bytes(&wire);
    assert_eq!(client.poll_message(&mut plaintext), Ok(false));
    wire.clear();
    if client.seal(bytes, &mut wire).is_ok() {
        server.handle_bytes(&wire);
        assert_eq!(server.poll_message(&mut plaintext), Ok(true));
        assert_eq!(plaintext, bytes);
    }
    other.peer().is_some() || bytes.len() <= MAX_PLAINTEXT_BYTES
}

fn control_connection_seeds() -> Vec<Vec<u8>> {
    let mut first = Vec::new();
    let mut client = Connection::client(&secret(2), &secret(1).public(), &mut rng(1)).expect("a sound key");
    client.poll_write(&mut first);
    vec![first, vec![0, 32, 7, 7]]
}

/// Datagrams of reliable messages from a peer, each after its length, at a client and at a server of its connection.
/// QUIC's packets aren't sealed there, the session does it; so the fuzzer reaches QUIC itself.
fn reliable_datagrams(bytes: &[u8]) -> bool {
    let mut net = insiders::reliable::Net::new(2);
    net.run(millis(200));
    let before = net.garbage();
    let mut draw = Draw::new(bytes);
    let mut taken = 0;
    while draw.more() && taken < 64 {
        let to = usize::from(draw.flag());
        let datagram = draw.bytes(1_300);
        net.inject(1 - to, to, &datagram);
        taken += 1;
    }
    net.run(millis(500));
    net.garbage() < before + taken
}

fn reliable_seeds() -> Vec<Vec<u8>> {
    let sent = insiders::reliable::Net::recorded();
    let script = |datagrams: &[(usize, Vec<u8>)]| {
        let step = |(to, datagram): &(usize, Vec<u8>)| {
            [&[*to as u8][..], &(datagram.len() as u16).to_le_bytes(), datagram].concat()
        };
        datagrams.iter().flat_map(step).collect::<Vec<u8>>()
    };
    let short: Vec<_> = sent.iter().filter(|(_, datagram)| datagram.len() < 200).cloned().collect();
    vec![script(&sent[..sent.len().min(3)]), script(&short[..short.len().min(8)])]
}

/// A group's frame and a message about its key. The first byte says whether the frame gets the group's tag.
fn group_frame(bytes: &[u8]) -> bool {
    let Some((first, body)) = bytes.split_first() else { return false };
    let now = now();
    let mut groups = Groups::new(key(2), 22, ticket().generations(), rng(2));
    groups.join("jobs", None).expect("there is room");
    groups.on_established(key(1), 11);
    let tags: Vec<_> = groups.tags().collect();
    let mut frame = body.to_vec();
    if first & 1 == 1 && frame.len() >= 17 {
        frame[0] = GROUP_FRAME;
        frame[1..17].copy_from_slice(&tags[usize::from(first / 2) % tags.len()]);
    }
    let outcome = groups.handle_frame(now, &frame);
    assert_ne!(outcome, FrameOutcome::Received, "nobody sealed this");
    let mut message = body.to_vec();
    if first & 1 == 1 && message.len() >= 17 {
        message[1..17].copy_from_slice(&tags[usize::from(first / 2) % tags.len()]);
    }
    groups.handle_key_message(now, key(1), true, &message);
    groups.handle_frame(now, &frame);
    groups.handle_timeout(now + millis(600));
    assert!(groups.poll_event().is_none());
    assert!(
        std::iter::from_fn(|| groups.poll_transmit()).count() <= 4,
        "a question, its repetition, an answer"
    );
    outcome != FrameOutcome::Malformed || groups.stats().bad_key_messages == 0
}

fn group_seeds() -> Vec<Vec<u8>> {
    let mut sender = Groups::new(key(1), 11, ticket().generations(), rng(1));
    sender.join("jobs", None).expect("there is room");
    let mut frame = vec![1 | 4];
    sender.seal(now(), "jobs", b"body", &mut frame).expect("it is joined");
    let tag = sender.tags().last().expect("it has tags");
    sender.handle_key_message(now(), key(2), true, &[&[1][..], &tag].concat());
    let key_message = sender.poll_transmit().map_or_else(|| vec![2; 73], |(_, message)| message);
    vec![frame, [&[5][..], &key_message].concat(), [&[5, 1][..], &[0; 16]].concat()]
}

/// The executors of every key, in one order.
pub(crate) struct Order(pub(crate) Vec<PublicKey>);

impl Placement for Order {
    fn executors(&self, kind: &str, _key: &[u8]) -> Vec<PublicKey> {
        if self.has_kind(kind) { self.0.clone() } else { Vec::new() }
    }

    fn owners(&self, _key: &[u8], r: usize) -> Vec<PublicKey> {
        self.0.iter().copied().take(r).collect()
    }

    fn has_kind(&self, kind: &str) -> bool {
        kind == "work"
    }
}

/// A node that executes and submits, as the worker of a mesh of two.
fn worker(now: Instant) -> Jobs {
    let mut jobs = Jobs::new(JobConfig::default(), key(1), 1, now, rng(1));
    jobs.register("work", KindLimits::default());
    jobs.set_unix_now(UNIX);
    jobs.set_placement(now, Arc::new(Order(vec![key(1), key(2)])));
    jobs.on_view_complete(now);
    while let Some(counter) = jobs.poll_persist() {
        jobs.on_persisted(counter);
    }
    jobs
}

/// A message of jobs.
fn job_message(bytes: &[u8]) -> bool {
    let now = now();
    let mut jobs = worker(now);
    jobs.handle_message(now, Submitter::new(key(2), None), Bytes::copy_from_slice(bytes));
    let (malformed, unknown) = (jobs.stats().malformed, jobs.stats().unknown_type);
    let mut runs = 0;
    while let Some(run) = jobs.poll_run(now) {
        assert_eq!(run.submitter.key(), key(2), "nobody submits in another's name");
        runs += 1;
        jobs.finished(now, run.id, Ok(run.payload));
    }
    assert!(runs <= 1);
    let answered: usize = std::iter::from_fn(|| jobs.poll_transmit()).map(|(_, body)| body.len()).sum();
    assert!(answered <= 4_096 + 4 * bytes.len(), "{answered} bytes answered {}", bytes.len());
    jobs.handle_timeout(now + millis(1_100));
    malformed + unknown == 0
}

/// A message about a large file, for one who has the file of a task and one who fetches it.
fn large_file_message(bytes: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(bytes);
    // An envelope and a manifest have one encoding each.
    if let Ok(envelope) = Envelope::decode(&bytes) {
        assert_eq!(envelope.encode(), bytes);
    }
    let Ok(message) = Message::decode(&bytes) else { return false };
    let (now, mut rng) = (now(), rng(1));
    let manifest = Manifest::of(200_000, |buffer, _| {
        buffer.fill(7);
        Ok(())
    });
    let manifest = manifest.expect("memory can be read");
    match message {
        Message::Get { file, indexes } => {
            let mut provider = Provider::default();
            provider.offer(LARGE_FILE, manifest, (), now + secs(60));
            provider.handle_get(key(2), LARGE_FILE, &indexes);
            assert!(provider.poll_read().is_none(), "nobody reads what isn't granted");
            provider.grant(LARGE_FILE, key(2));
            provider.handle_get(key(2), file, &indexes);
            let reads = std::iter::from_fn(|| provider.poll_read()).count();
            assert!(reads <= 4 && (reads == 0 || file == LARGE_FILE));
        }
        Message::Chunk { index, bytes, .. } => {
            let mut fetch = Fetch::new(now, &manifest, |_| false);
            assert!(!fetch.handle_chunk(now, index), "it wasn't asked for");
            let asked = fetch.poll_request(now).expect("all lack");
            assert_eq!(fetch.handle_chunk(now, index), asked.contains(&index));
            let right = manifest.is_chunk(index, &bytes);
            assert!(!right || bytes.iter().all(|byte| *byte == 7));
        }
        Message::Refused { why, .. } => {
            let mut fetch = Fetch::new(now, &manifest, |_| false);
            fetch.handle_refused(now, &mut rng, why);
            assert!(!fetch.is_complete());
        }
        Message::Done { file } => {
            let mut provider = Provider::default();
            provider.offer(LARGE_FILE, manifest, (), now + secs(60));
            assert!(provider.handle_done(key(2), file).is_none());
        }
    }
    true
}

const LARGE_FILE: FileId = FileId { task: TaskId::from_bytes([1; 16]), side: Side::Payload };

fn large_file_seeds() -> Vec<Vec<u8>> {
    let file = LARGE_FILE;
    let chunk = |len: usize| Bytes::from(vec![7; len]);
    let messages = [
        Message::Get { file, indexes: vec![0, 3, 4] },
        Message::Chunk { file, index: 3, bytes: chunk(200_000 - 3 * 65_536) },
        Message::Refused { file, why: Refusal::Unknown },
        Message::Refused { file: FileId { side: Side::Result, ..file }, why: Refusal::Changed },
        Message::Done { file },
    ];
    messages.iter().map(|message| message.encode().to_vec()).collect()
}

fn job_seeds() -> Vec<Vec<u8>> {
    let mut messages: Vec<Bytes> = insiders::jobs::Mesh::recorded();
    // One of each type.
    messages.sort_by_key(|message| (message[0], message.len()));
    messages.dedup_by_key(|message| message[0]);
    messages.iter().map(|message| message.to_vec()).chain(insiders::jobs::hostile_samples()).collect()
}

/// A ring of these peers.
pub(crate) fn ring(peers: impl IntoIterator<Item = PublicKey>) -> Arc<Ring> {
    let member = |key: PublicKey| RingMember {
        boot: 0,
        key,
        seed: *key.as_bytes().first_chunk().expect("a key has 32 bytes"),
        weight: 1,
        zone: String::new(),
        kinds: Vec::new(),
        live: true,
        placed: true,
    };
    Arc::new(Ring::new(peers.into_iter().map(member)))
}

fn owner(now: Instant) -> Replicator {
    let local = ReplicaId { key: key(1), incarnation: 1 };
    let mut node = Replicator::new(StateConfig::default(), local, now, rng(1));
    node.set_ring(now, ring([key(1), key(2), key(3)]));
    node
}

/// A message of replicated state, from an owner of every key.
fn state_message(bytes: &[u8]) -> bool {
    let now = now();
    let mut node = owner(now);
    node.handle_message(now, UNIX, key(2), bytes);
    let malformed = node.stats().malformed;
    drain_state(&mut node);
    node.handle_timeout(now + millis(2_000), UNIX + millis(2_000));
    drain_state(&mut node);
    for key in node.keys() {
        assert!(node.get(key).is_some_and(|value| value.kind() as u8 == key[0]));
    }
    malformed == 0
}

fn drain_state(node: &mut Replicator) {
    let changed: BTreeSet<Vec<u8>> = std::iter::from_fn(|| node.poll_changed()).flatten().collect();
    for key in changed {
        let _ = node.record(&key);
    }
    while let Some((_, message)) = node.poll_transmit() {
        assert!(message.len() <= MAX_MESSAGE_BYTES);
    }
    while node.poll_event().is_some() {}
}

fn state_seeds() -> Vec<Vec<u8>> {
    let mut messages = insiders::state::Mesh::recorded();
    // One of each type, as CBOR writes it: an array of two, and the type.
    messages.sort_by_key(|message| (message[1], message.len()));
    messages.dedup_by_key(|message| message[1]);
    messages
        .into_iter()
        .filter(|message| message.len() < 1_000)
        .chain(insiders::state::hostile_samples())
        .collect()
}

/// A key's record in the store, after a restart. What is kept of it can be restored again.
fn state_record(bytes: &[u8]) -> bool {
    Kind::ALL.map(|kind| restored(kind, bytes)).contains(&true)
}

/// Whether the record is that of a key of this kind.
fn restored(kind: Kind, bytes: &[u8]) -> bool {
    let (now, key) = (now(), state_key(kind, b"name"));
    let mut node = owner(now);
    if node.restore(now, UNIX, &key, bytes).is_err() {
        return false;
    }
    assert!(node.get(&key).is_none_or(|value| value.kind() == kind));
    if let Some(record) = node.record(&key) {
        let mut again = owner(now);
        assert_eq!(again.restore(now, UNIX, &key, &record), Ok(()));
        assert_eq!(again.record(&key), Some(record));
        assert_eq!(again.get(&key), node.get(&key));
    }
    node.handle_timeout(now + millis(2_000), UNIX + millis(2_000));
    drain_state(&mut node);
    true
}

fn state_record_seeds() -> Vec<Vec<u8>> {
    insiders::state::Mesh::records()
}
