//! Bytes of the wire whose parsers are pure functions.

use std::net::SocketAddr;

use bytes::Bytes;
use nurl::PublicKey;
use nurl::internals::authority::credential::SHOWN_BYTES;
use nurl::internals::authority::level::Level;
use nurl::internals::membership::message::{MembershipMessage, MessageBody, TableChunk, UserEvent};
use nurl::internals::membership::profile::MemberProfile;
use nurl::internals::membership::table::{Fact, MemberRecord};
use nurl::internals::membership::{Meta, Roles, State};
use nurl::internals::mesh::Namespace;
use nurl::internals::net::reach::control::frames::{frame, split};
use nurl::internals::net::reach::control::table::{RelayFrame, RendezvousFrame};
use nurl::internals::net::reach::relay::CloseReason;
use nurl::internals::net::reach::rendezvous::record::Record;
use nurl::internals::net::reach::rendezvous::{PublishResult, SealedRecord};
use nurl::internals::net::reach::stun::{self, Client};
use nurl::internals::net::secure::securedgram::paths::Control;
use nurl::internals::net::secure::version::Versions;
use nurl::internals::replication::crdt::{
    Author, Clock, LwwRegister, MultiRegister, Object, OrMap, OrSet, PnCounter, Stamp, Value,
};
use nurl::internals::replication::identity::ReplicaId;

use super::parser;
use crate::Target;
use crate::ground::{UNIX, UNIX_S, authority, key, now, rng, secret, secs, ticket};

pub(crate) const TARGETS: &[Target] = &[
    parser!(path_control, path_control_seeds),
    parser!(stun_message, stun_seeds),
    parser!(hub_frames, hub_frames_seeds),
    parser!(record, record_seeds),
    parser!(membership_message, membership_seeds),
    parser!(crdt_value, crdt_seeds),
];

/// A message of a session's channel 0. Its fields have one encoding; a later version may put more behind them.
fn path_control(bytes: &[u8]) -> bool {
    let Ok((control, rest)) = Control::decode_grown(bytes) else { return false };
    let (known, said) = (&bytes[..bytes.len() - rest.len()], control.encode());
    assert!(known == said || known == [&said[..], &[0]].concat());
    assert_eq!(control.encoded_len(), said.len());
    true
}

fn path_control_seeds() -> Vec<Vec<u8>> {
    let v4: SocketAddr = ([192, 0, 2, 1], 4242).into();
    let v6: SocketAddr = ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 4242).into();
    let all = [
        Control::Challenge { data: *b"8 random" },
        Control::Response { data: *b"8 random", observed: Some(v6) },
        Control::Response { data: *b"8 random", observed: None },
        Control::Keepalive,
        Control::Candidates { r#gen: 3, addrs: vec![v4, v6, v4] },
        Control::Moved,
        Control::Close,
    ];
    all.iter().map(Control::encode).collect()
}

/// A STUN message, at the server and at a client that waits for an answer. No answer is longer than the RFC needs, and
/// no error longer than its question.
fn stun_message(bytes: &[u8]) -> bool {
    let _ = stun::is_stun(bytes);
    let (now, server) = (now(), SocketAddr::from(([192, 0, 2, 1], 3478)));
    let mut client = Client::new(rng(1));
    client.query(now, server).expect("it is the first");
    let asked = client.poll_transmit(now).expect("it is due at once");
    let mut accepted = false;
    for source in [SocketAddr::from(([198, 51, 100, 7], 4000)), ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7], 4).into()]
    {
        if let Some(answer) = stun::answer(bytes, source) {
            let success = answer[..2] == [1, 1];
            assert!(answer.len() <= if success { stun::MAX_RESPONSE_LEN } else { bytes.len() });
            assert!(answer[4..20] == bytes[4..20], "an answer has the question's id");
            accepted = true;
            let mut named = answer;
            named[8..20].copy_from_slice(&asked.contents[8..20]);
            // A fingerprint covers the id, so this one may be refused now.
            let _ = Client::handle_datagram(&mut client, now, server, &named);
        }
    }
    // The same bytes as an answer to the open question.
    let mut named = bytes.to_vec();
    if let Some(id) = named.get_mut(8..20) {
        id.copy_from_slice(&asked.contents[8..20]);
    }
    accepted |= client.handle_datagram(now, server, &named);
    client.handle_timeout(now + secs(60));
    assert!(std::iter::from_fn(|| client.poll_event()).count() <= 1, "one question has one end");
    accepted
}

fn stun_seeds() -> Vec<Vec<u8>> {
    let mut client = Client::new(rng(1));
    client.query(now(), ([192, 0, 2, 1], 3478).into()).expect("it is the first");
    let request = client.poll_transmit(now() + secs(1)).expect("it is due").contents;
    // With an unknown attribute that must be understood, and room for its refusal; and with one that needs not be.
    let with = |attribute: &[u8]| {
        let mut message = [&request, attribute].concat();
        message[3] = attribute.len() as u8;
        message
    };
    let alien = with(&[0x7f, 0xfe, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    let software = with(&[0x80, 0x22, 0, 6, b'c', b'o', b't', b'u', b'r', b'n', 0, 0]);
    let v4 = stun::answer(&request, ([198, 51, 100, 7], 4000).into());
    let v6 = stun::answer(&request, ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7], 4000).into());
    let refused = stun::answer(&alien, ([198, 51, 100, 7], 4000).into());
    let answers = [v4, v6, refused].map(|answer| answer.expect("they are questions"));
    [vec![request, alien, software], answers.into()].concat()
}

/// A plaintext of a control connection. Each frame that is read has the same content when it is written again, and the
/// same bytes unless it may grow.
fn hub_frames(bytes: &[u8]) -> bool {
    let mut accepted = false;
    for part in split(bytes) {
        let Ok((kind, body)) = part else { break };
        let mut raw = Vec::new();
        frame(&mut raw, kind, |out| out.extend_from_slice(body));
        if let Ok(Some(read)) = RelayFrame::decode(kind, body) {
            accepted = true;
            let again = read.to_vec();
            let (kind, rest) = split(&again).next().expect("it was written").expect("it is whole");
            assert_eq!(RelayFrame::decode(kind, rest).as_ref(), Ok(&Some(read.clone())));
            let grows = matches!(
                read,
                RelayFrame::Register { .. }
                    | RelayFrame::Registered(_)
                    | RelayFrame::Speaks { .. }
                    | RelayFrame::Close(_)
            );
            assert!(grows || again == raw, "{read:?}");
        }
        if let Ok(Some(read)) = RendezvousFrame::decode(kind, body) {
            accepted = true;
            assert_eq!(read.to_vec(), raw, "{read:?}");
        }
    }
    accepted
}

fn hub_frames_seeds() -> Vec<Vec<u8>> {
    use {RelayFrame as Relay, RendezvousFrame as Rendezvous};
    let (peer, tag, namespace) = (key(3), [0xbb; 16], Namespace::from_bytes([9; 32]));
    let shown = authority().mint(peer, Level::Member, 5).show();
    let shown: &[u8; SHOWN_BYTES] = &shown;
    let limits = nurl::internals::net::reach::hub::HubLimits::default();
    let limits = limits.announced(nurl::internals::net::reach::relay::Roles::ALL);
    let payload = &b"payload"[..];
    let sealed = Bytes::from_static(b"sealed");
    let entry = SealedRecord { key: peer, seq: 7, ttl: secs(120), sealed };
    let relay = [
        Relay::Register { version: 2, namespace, boot: 7, shown, versions: Versions::SPOKEN },
        Relay::Speaks { versions: Versions::SPOKEN },
        Relay::Registered(limits),
        Relay::Ping { nonce: 1 },
        Relay::Pong { nonce: 1 },
        Relay::Close(CloseReason::Expired),
        Relay::Enrol { version: 2, namespace, request: payload },
        Relay::Renew { version: 2, namespace, pass: payload },
        Relay::Issued { pass: payload },
        Relay::Revoked { entries: payload },
        Relay::Knows { digest: [7; 32] },
        Relay::Forward { dst: peer, payload },
        Relay::Deliver { src: peer, payload },
        Relay::PeerGone { peer },
        Relay::QueueFull { peer },
        Relay::GroupJoin { tag },
        Relay::GroupLeave { tag },
        Relay::GroupSend { tag, payload },
        Relay::GroupDeliver { src: peer, tag, payload },
    ];
    let rendezvous = [
        Rendezvous::Publish { seq: 1, ttl: secs(60), sealed: payload },
        Rendezvous::Published { seq: 1, result: PublishResult::Stale },
        Rendezvous::Lookup { peer },
        Rendezvous::Record(entry.clone()),
        Rendezvous::NoRecord { peer },
        Rendezvous::List { max: 30 },
        Rendezvous::Records(vec![entry.clone(), entry]),
        Rendezvous::Withdraw,
    ];
    let (first, second) = relay.split_at(5);
    let all = |frames: &[Relay<'_>]| frames.iter().flat_map(Relay::to_vec).collect();
    vec![all(first), all(second), rendezvous.iter().flat_map(Rendezvous::to_vec).collect()]
}

/// A record at rendezvous: the bytes as its content, and as its sealed form.
fn record(bytes: &[u8]) -> bool {
    let generations = ticket().generations();
    assert!(Record::open(&generations, &key(7), 1, bytes, UNIX).is_err(), "nobody sealed this");
    let Some(record) = Record::from_bytes(bytes) else { return false };
    assert_eq!(record.to_bytes(), bytes);
    let sealed =
        record.seal(&generations[0], &key(7), 1, &mut rng(1)).expect("what was read is within bounds");
    let opened = Record::open(&generations, &key(7), 1, &sealed, UNIX);
    assert_eq!(opened.ok(), (record.expires > UNIX).then_some(record));
    assert!(Record::open(&generations, &key(7), 2, &sealed, UNIX).is_err(), "its number is sealed, too");
    true
}

fn record_seeds() -> Vec<Vec<u8>> {
    let full = Record {
        candidates: vec![([192, 0, 2, 1], 4242).into(), ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 1).into()],
        home: Some(key(5)),
        capabilities: 0x8000_0001,
        expires: UNIX + secs(100),
    };
    let bare = Record { candidates: vec![], home: None, capabilities: 0, expires: secs(1) };
    vec![full.to_bytes(), bare.to_bytes()]
}

/// A message between members. What is read is the same when it is written and read again.
fn membership_message(bytes: &[u8]) -> bool {
    let Ok(message) = MembershipMessage::decode(bytes) else { return false };
    let again = message.encode();
    assert_eq!(MembershipMessage::decode(&again).as_ref(), Ok(&message));
    true
}

fn membership_seeds() -> Vec<Vec<u8>> {
    let meta =
        Meta::new(Roles::WORKER, vec!["sum".into(), "echo".into()], 2, "1".into()).expect("short names");
    let credential = authority().mint(secret(1).public(), Level::Worker, UNIX_S);
    let pass = credential.pass();
    let said = MemberProfile { incarnation: 4, left: false, boot: 9, meta, pass: pass.hash() };
    let profile = said.sign(&secret(1), &authority().mesh(), pass);
    let fact = |n, state, profile| Fact {
        key: key(n),
        record: MemberRecord { incarnation: 4, state, profile },
        age_s: 7,
        accusers: if state == State::Suspect { vec![key(9)] } else { Vec::new() },
    };
    let chunk = TableChunk { id: 1, index: 0, total: 2, revocations: [7; 32] };
    let bodies = [
        MessageBody::Ping { seq: 1 },
        MessageBody::Ack { seq: 1 },
        MessageBody::PingReq { seq: 1, target: key(2), timeout_ms: 500 },
        MessageBody::Nack { seq: 1 },
        MessageBody::Gossip,
        MessageBody::PushPull(chunk),
        MessageBody::PushPullAck(chunk),
        MessageBody::Announce { nonce: 5 },
    ];
    let message = |body| MembershipMessage {
        epoch: 1 << 20,
        observer: body == MessageBody::Ping { seq: 1 },
        body,
        facts: vec![fact(1, State::Alive, Some(profile.clone())), fact(2, State::Suspect, None)],
        events: vec![UserEvent { origin: key(1), id: 8, body: b"event".to_vec() }],
    };
    bodies.into_iter().map(|body| message(body).encode()).collect()
}

/// One replicated state, or two after the length of the first. Each has one encoding, and merging two of one kind gives
/// the same in both orders, and nothing new the second time.
fn crdt_value(bytes: &[u8]) -> bool {
    let one = checked_value(bytes);
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return one.is_some() };
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (a, b) = rest.split_at(length);
    let (Some(a), Some(b)) = (checked_value(a), checked_value(b)) else { return one.is_some() };
    // As a node takes them: into its own copy, which begins empty and has its clock's view of a register's writes.
    let joined = |states: [&Object; 2]| {
        let mut copy = Object::new(states[0].kind());
        states.iter().try_for_each(|state| copy.merge(state, UNIX).map(drop)).ok().map(|()| copy)
    };
    let (Some(ab), Some(ba)) = (joined([&a, &b]), joined([&b, &a])) else { return true };
    assert_eq!(a.kind(), b.kind(), "states of two kinds don't merge");
    assert_eq!(ab.encode(), ba.encode(), "the order doesn't matter");
    assert_eq!(Object::decode(&ab.encode()).as_ref(), Ok(&ab), "what is merged can be sent");
    let mut again = ab.clone();
    assert_eq!(again.merge(&b, UNIX), Ok(false), "it is known");
    assert_eq!(again.merge(&a, UNIX), Ok(false), "it is known");
    assert!(ab.news(&a).is_empty() && ab.news(&b).is_empty());
    true
}

fn checked_value(bytes: &[u8]) -> Option<Object> {
    let value = Object::decode(bytes).ok()?;
    assert_eq!(value.encode(), bytes);
    assert_eq!(value.digest(), Value::digest_of(bytes));
    Some(value)
}

fn crdt_seeds() -> Vec<Vec<u8>> {
    let replica = |n: u8| ReplicaId { key: PublicKey::from_bytes([n; 32]), incarnation: n.into() };
    let counter = Value::Counter(PnCounter::of(replica(1), 5, 3));
    let mut set = OrSet::default();
    for n in 1..4 {
        set.add(replica(n), &[n; 3]).expect("there is room");
    }
    set.remove(&[2; 3]);
    let (mut register, mut clock) = (LwwRegister::default(), Clock::new(Stamp::default()));
    for n in 1..3 {
        register.set(replica(n), &mut clock, UNIX, b"value").expect("it is short");
    }
    let mut multi = MultiRegister::default();
    for n in [1, 2] {
        let beside = MultiRegister::default().writing(replica(n), &[n; 3], 0).expect("it is short");
        multi.merge(&beside).expect("there is room");
    }
    let multi =
        [multi.clone(), multi.writing(replica(1), b"both", 0).expect("it is short")].map(Value::Multi);
    let author = |n| Author { replica: replica(n), floor: 0 };
    let mut map = OrMap::default();
    for n in [1, 2] {
        let (mut clock, name) = (Clock::new(Stamp::default()), &[n]);
        let put = |map: &mut OrMap, delta: Result<OrMap, _>| {
            map.merge(&delta.expect("it is short")).expect("there is room");
        };
        let writes: [&dyn Fn(&OrMap) -> _; 3] =
            [&|map| map.adding(author(n), name, 5), &|map| map.inserting(author(n), b"all", &[n]), &|map| {
                map.replacing(author(n), name, b"v")
            }];
        for write in writes {
            let delta = write(&map);
            put(&mut map, delta);
        }
        let delta = map.setting(author(n), name, &mut clock, UNIX, b"r");
        put(&mut map, delta);
    }
    let map = [map.removing(author(3), &[1]), map].map(Value::Map);
    let (set, register) = (Value::Set(set), Value::Register(register));
    let states = [&counter, &set, &register, &multi[0], &multi[1], &map[0], &map[1]];
    let mut seeds: Vec<Vec<u8>> = states.map(Value::encode).into();
    for (a, b) in [
        (&counter, &counter),
        (&set, &set),
        (&register, &register),
        (&multi[0], &multi[1]),
        (&map[0], &map[1]),
        (&counter, &set),
    ] {
        let a = a.encode();
        seeds.push([&(a.len() as u16).to_le_bytes()[..], &a, &b.encode()].concat());
    }
    // Deleted, and with a time.
    let stamp = Stamp { wall_ms: UNIX.as_millis() as u64, logical: 1 };
    for value in [counter, set, register] {
        let kind = value.kind();
        let object = Object::from(value);
        seeds.push(object.deleting(author(3), stamp).encode());
        seeds.push(Object::expiring(kind, stamp, stamp.wall_ms + 60_000).encode());
    }
    seeds
}
