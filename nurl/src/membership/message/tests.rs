//! The codec: every message survives a round trip, and malformed input is refused.

use proptest::prelude::*;

use super::*;
use crate::membership::table::MAX_INCARNATION;

fn key(at: u8) -> PublicKey {
    PublicKey::from_bytes([at; 32])
}

fn largest_meta() -> Meta {
    // A CBOR string of 24 bytes or more has a two-byte header, so 15 such names encode near the largest size.
    let kinds = (0..15).map(|at| format!("{at:024}")).collect();
    Meta::new(Roles::from_bits(u16::MAX), kinds, u16::MAX, "v".repeat(24)).unwrap()
}

fn alive(at: u8, meta: Meta) -> Fact {
    let pass = [7; MAX_PASS_BYTES];
    let said = MemberProfile { incarnation: 9, left: false, boot: u64::MAX, meta, pass: PassHash::of(&pass) };
    let profile = SignedProfile::unchecked(said, &pass, [8; 64]);
    let record = MemberRecord { incarnation: 9, state: State::Alive, profile: Some(profile) };
    Fact { key: key(at), record, age_s: 0, accusers: Vec::new() }
}

fn suspect(at: u8) -> Fact {
    let record = MemberRecord { incarnation: MAX_INCARNATION, state: State::Suspect, profile: None };
    Fact { key: key(at), record, age_s: u32::MAX, accusers: (1..=MAX_ACCUSERS as u8).map(key).collect() }
}

fn message(body: MessageBody, facts: Vec<Fact>) -> MembershipMessage {
    let events = vec![UserEvent { origin: key(4), id: 5, body: vec![6; MAX_EVENT_BYTES] }];
    MembershipMessage { epoch: 77, observer: false, body, facts, events }
}

#[test]
fn every_kind_comes_back() {
    let chunk = TableChunk { id: u64::MAX, index: 2, total: 3, revocations: [0; 32] };
    let target = key(8);
    for body in [
        MessageBody::Ping { seq: 1 },
        MessageBody::Ack { seq: u64::MAX },
        MessageBody::PingReq { seq: 3, target, timeout_ms: 700 },
        MessageBody::Nack { seq: 4 },
        MessageBody::Gossip,
        MessageBody::PushPull(chunk),
        MessageBody::PushPullAck(chunk),
        MessageBody::Announce { nonce: 6 },
    ] {
        for observer in [false, true] {
            let mut sent = message(body, vec![alive(1, largest_meta()), suspect(2)]);
            sent.observer = observer;
            assert_eq!(MembershipMessage::decode(&sent.encode()), Ok(sent));
        }
    }
}

#[test]
fn the_bytes_of_a_ping_req_are_as_documented() {
    let bytes = MembershipMessage {
        epoch: 5,
        observer: true,
        body: MessageBody::PingReq { seq: 7, target: key(0xaa), timeout_ms: 700 },
        facts: Vec::new(),
        events: Vec::new(),
    }
    .encode();
    let mut expected = vec![0x86, 2, 5, 1, 0x83, 7, 0x58, 32];
    expected.extend([0xaa; 32]);
    expected.extend([0x19, 0x02, 0xbc, 0x80, 0x80]);
    assert_eq!(bytes, expected);
}

#[test]
fn the_largest_fact_fits_a_datagram_beside_an_accusation() {
    let body = MessageBody::PingReq { seq: u64::MAX, target: key(1), timeout_ms: u32::MAX };
    let room = room(MAX_DATAGRAM_BYTES, false, &body);
    let (largest, accusation) = (encode_fact(&alive(1, largest_meta())), encode_fact(&suspect(2)));
    assert!(largest.len() + accusation.len() <= room, "{} + {}", largest.len(), accusation.len());
    let whole = assemble(u64::MAX, false, &body, &[largest, accusation], &[]);
    assert!(whole.len() <= MAX_DATAGRAM_BYTES);
}

#[test]
fn the_largest_table_fits_its_chunks_and_its_queue() {
    let mut largest = alive(1, largest_meta());
    largest.record.state = State::Suspect;
    largest.record.incarnation = MAX_INCARNATION;
    largest.accusers = (1..=MAX_ACCUSERS as u8).map(key).collect();
    let body =
        MessageBody::PushPull(TableChunk { id: u64::MAX, index: 0, total: u32::MAX, revocations: [0; 32] });
    let facts = room(MAX_CHUNK_BYTES, false, &body) / encode_fact(&largest).len();
    let chunks = (crate::membership::table::MAX_MEMBERS + 1).div_ceil(facts);
    assert!(chunks <= crate::membership::pushpull::MAX_CHUNKS as usize, "{chunks}");
    assert!(8 * chunks <= crate::membership::detector::MAX_TRANSMITS, "{chunks}");
}

#[test]
fn an_unknown_kind_is_told_from_a_malformed_message() {
    assert_eq!(
        MembershipMessage::decode(&[0x86, 23, 0, 0, 0x80, 0x80, 0x80]),
        Err(DecodeError::UnknownKind(23))
    );
    assert_eq!(MembershipMessage::decode(&[]), Err(DecodeError::Malformed));
    assert_eq!(MembershipMessage::decode(&[0x85, 4, 0, 0, 0x80, 0x80]), Err(DecodeError::Malformed));
    let long = vec![0; MAX_CHUNK_BYTES + 1];
    assert_eq!(MembershipMessage::decode(&long), Err(DecodeError::TooLarge(MAX_CHUNK_BYTES + 1)));
}

#[test]
fn fields_of_a_later_version_are_skipped() {
    let newer = [0x87, 0, 9, 0, 0x82, 5, 0x61, b'x', 0x80, 0x80, 0x82, 1, 2];
    let read = MembershipMessage::decode(&newer).unwrap();
    assert_eq!((read.epoch, read.body), (9, MessageBody::Ping { seq: 5 }));
}

#[test]
fn what_is_beyond_a_bound_is_refused() {
    let refused = |message: MembershipMessage| {
        assert_eq!(MembershipMessage::decode(&message.encode()), Err(DecodeError::Malformed));
    };
    let mut over = suspect(1);
    over.accusers.push(key(9));
    refused(message(MessageBody::Gossip, vec![over]));
    let mut high = suspect(1);
    high.record.incarnation = MAX_INCARNATION + 1;
    refused(message(MessageBody::Gossip, vec![high]));
    let mut silent = alive(1, Meta::default());
    silent.record.profile = None;
    refused(message(MessageBody::Gossip, vec![silent]));
    let mut ahead = alive(1, Meta::default());
    ahead.record.state = State::Dead;
    ahead.record.incarnation = 8;
    refused(message(MessageBody::Gossip, vec![ahead]));
    let mut shouting = message(MessageBody::Gossip, Vec::new());
    shouting.events[0].body.push(0);
    refused(shouting);
    for (index, total) in [(3, 3), (0, 0), (0, super::super::pushpull::MAX_CHUNKS + 1)] {
        refused(message(
            MessageBody::PushPull(TableChunk { id: 1, index, total, revocations: [0; 32] }),
            Vec::new(),
        ));
    }
    // A list whose header claims more items than the message has bytes.
    assert_eq!(
        MembershipMessage::decode(&[0x86, 4, 0, 0, 0x80, 0x99, 0xff, 0xff]),
        Err(DecodeError::Malformed)
    );
    assert_eq!(
        MembershipMessage::decode(&[0x86, 4, 0, 0, 0x80, 0x99, 1, 0, 0xf6]),
        Err(DecodeError::Malformed)
    );
    let mut trailing = message(MessageBody::Gossip, Vec::new()).encode();
    trailing.push(0);
    assert_eq!(MembershipMessage::decode(&trailing), Err(DecodeError::Malformed));
}

#[test]
fn too_many_facts_or_events_are_refused() {
    let record = MemberRecord { incarnation: 0, state: State::Dead, profile: None };
    let fact = |at: u8| Fact { key: key(at), record: record.clone(), age_s: 0, accusers: Vec::new() };
    let encoded: Vec<_> = (0..300).map(|at| encode_fact(&fact(at as u8))).collect();
    let whole = assemble(0, false, &MessageBody::Gossip, &encoded, &[]);
    assert_eq!(MembershipMessage::decode(&whole).unwrap().facts.len(), 300);
    let event = encode_event(&UserEvent { origin: key(1), id: 1, body: Vec::new() });
    let events = vec![event; MAX_EVENTS + 1];
    assert!(MembershipMessage::decode(&assemble(0, false, &MessageBody::Gossip, &[], &events[1..])).is_ok());
    let whole = assemble(0, false, &MessageBody::Gossip, &[], &events);
    assert_eq!(MembershipMessage::decode(&whole), Err(DecodeError::Malformed));
    // The limit on facts exceeds the number of even the smallest facts that fit a chunk.
    assert!(MAX_FACTS * encoded[0].len() > MAX_CHUNK_BYTES);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = MembershipMessage::decode(&bytes);
    }

    #[test]
    fn a_damaged_message_is_read_without_a_panic(at in 0usize..1000, by in 1u8.., cut in 0usize..1000) {
        let mut bytes = message(MessageBody::Ping { seq: 1 }, vec![alive(1, largest_meta()), suspect(2)]).encode();
        let length = bytes.len();
        bytes[at % length] ^= by;
        let _ = MembershipMessage::decode(&bytes);
        prop_assert!(MembershipMessage::decode(&bytes[..cut % length]).is_err());
    }
}
