use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand_core::SeedableRng;
use stun_types::attribute::{
    AttributeStaticType, ErrorCode, MappedSocketAddr, RawAttribute, UnknownAttributes, Username,
    XorMappedAddress,
};
use stun_types::message::{
    BINDING, IntegrityAlgorithm, Message, MessageClass, MessageIntegrityCredentials, MessageType,
    MessageWrite, MessageWriteExt, MessageWriteVec, ShortTermCredentials,
};

use super::*;
use crate::rt::Rng;

#[expect(clippy::disallowed_methods, reason = "only differences matter")]
fn origin() -> Instant {
    Instant::now()
}

fn client() -> Client {
    Client::new(Rng::seed_from_u64(1))
}

fn server() -> SocketAddr {
    "192.0.2.10:3478".parse().unwrap()
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn vectors() -> serde_json::Value {
    serde_json::from_str(include_str!("rfc5769.json")).unwrap()
}

fn bytes_of(vector: &serde_json::Value) -> Vec<u8> {
    let hex = vector["hex"].as_str().unwrap();
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// A request with these attributes and the transaction id `n`.
fn request(n: u128, attributes: &[RawAttribute<'_>], fingerprint: bool) -> Vec<u8> {
    let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
    let mut request = Message::builder(kind, n.into(), MessageWriteVec::new());
    for attribute in attributes {
        request.add_attribute(attribute).unwrap();
    }
    if fingerprint {
        request.add_fingerprint().unwrap();
    }
    request.finish()
}

#[test]
fn the_vectors_of_rfc_5769_are_read_as_published() {
    let vectors = vectors();
    let password = vectors["password"].as_str().unwrap().to_owned();
    let credentials = MessageIntegrityCredentials::ShortTerm(ShortTermCredentials::new(password));
    for name in ["request", "response_ipv4", "response_ipv6"] {
        let bytes = bytes_of(&vectors[name]);
        let message = parse(&bytes).unwrap();
        assert_eq!(message.validate_integrity(&credentials).ok(), Some(IntegrityAlgorithm::Sha1), "{name}");
        if let Some(expected) = vectors[name]["xor_mapped_address"].as_str() {
            let mapped = message.attribute::<XorMappedAddress>().unwrap();
            assert_eq!(mapped.addr(message.transaction_id()), expected.parse().unwrap());
        }
        let mut wrong = bytes.clone();
        *wrong.last_mut().unwrap() ^= 1;
        assert!(parse(&wrong).is_none(), "{name} with a wrong FINGERPRINT");
    }
    let request = bytes_of(&vectors["request"]);
    let username = parse(&request).unwrap().attribute::<Username>().unwrap();
    assert_eq!(username.username(), vectors["request"]["username"].as_str().unwrap());
}

#[test]
fn the_client_takes_the_answers_of_rfc_5769() {
    let vectors = vectors();
    for name in ["response_ipv4", "response_ipv6"] {
        let bytes = bytes_of(&vectors[name]);
        let addr = vectors[name]["xor_mapped_address"].as_str().unwrap().parse().unwrap();
        let outcome = client::outcome(&parse(&bytes).unwrap(), None);
        assert_eq!(outcome, StunOutcome::Reflexive { addr, rtt: None });
    }
}

#[test]
fn client_and_server_understand_each_other_in_both_families() {
    for (source, seen) in [
        ("198.51.100.7:40000", "198.51.100.7:40000"),
        ("[2001:db8::7]:40000", "[2001:db8::7]:40000"),
        ("[::ffff:198.51.100.7]:40000", "198.51.100.7:40000"),
    ] {
        let (mut client, now) = (client(), origin());
        client.query(now, server()).unwrap();
        let request = client.poll_transmit(now).unwrap();
        assert!(is_stun(&request.contents));
        let response = answer(&request.contents, source.parse().unwrap()).unwrap();
        let needed = if seen.starts_with('[') { 44 } else { 32 };
        assert_eq!((request.contents.len(), response.len()), (20, needed), "and nothing else");
        assert!(client.handle_datagram(now, server(), &response));
        let outcome = StunOutcome::Reflexive { addr: seen.parse().unwrap(), rtt: Some(ms(0)) };
        assert_eq!(client.poll_event().unwrap().outcome, outcome);
        assert!(!client.handle_datagram(now, server(), &response), "once");
        assert_eq!(client.poll_timeout(), None);
    }
}

#[test]
fn requests_are_repeated_as_rfc_8489_says() {
    let (mut client, start) = (client(), origin());
    client.query(start, server()).unwrap();
    let mut times = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    let end = loop {
        let now = client.poll_timeout().unwrap();
        client.handle_timeout(now);
        if let Some(event) = client.poll_event() {
            assert_eq!(event, StunEvent { server: server(), outcome: StunOutcome::TimedOut });
            break now;
        }
        let transmit = client.poll_transmit(now).unwrap();
        assert_eq!(transmit.destination, server());
        ids.insert(transmit.contents);
        times.push((now - start).as_millis());
    };
    // The example of §6.2.1.
    assert_eq!(times, [0, 500, 1_500, 3_500, 7_500, 15_500, 31_500]);
    assert_eq!((end - start).as_millis(), 39_500);
    assert_eq!(ids.len(), 1, "a retransmission is the same request");
    assert_eq!((client.poll_timeout(), client.stats().timeouts), (None, 1));
}

#[test]
fn a_server_that_was_away_is_asked_at_once_when_somebody_asks_again() {
    let (mut client, start) = (client(), origin());
    client.query(start, server()).unwrap();
    let mut sent = 0;
    while let Some(next) = client.poll_timeout().filter(|next| *next <= start + ms(15_500)) {
        sent += usize::from(client.poll_transmit(next).is_some());
    }
    assert_eq!(sent, 6, "the next one would be due 16 s later");
    let back = start + ms(17_000);
    client.query(start + ms(15_500) + RTO - ms(1), server()).unwrap();
    assert_eq!(client.poll_transmit(back), None, "it was asked just now");
    client.query(back, server()).unwrap();
    let again = client.poll_transmit(back).unwrap();
    assert_eq!(client.poll_timeout(), Some(back + RTO), "the schedule begins anew");
    let mapped = "203.0.113.1:50000".parse().unwrap();
    let response = answer(&again.contents, mapped).unwrap();
    assert!(client.handle_datagram(back + ms(20), server(), &response));
    let outcome = StunOutcome::Reflexive { addr: mapped, rtt: None };
    assert_eq!(
        client.poll_event(),
        Some(StunEvent { server: server(), outcome }),
        "which request it answers is unknown"
    );
}

#[test]
fn an_answer_from_elsewhere_is_no_answer() {
    let (mut client, now) = (client(), origin());
    client.query(now, server()).unwrap();
    let request = client.poll_transmit(now).unwrap();
    let response = answer(&request.contents, "198.51.100.7:1".parse().unwrap()).unwrap();
    for elsewhere in ["192.0.2.10:3479", "192.0.2.11:3478"] {
        assert!(!client.handle_datagram(now, elsewhere.parse().unwrap(), &response));
    }
    let mut other_id = response.clone();
    other_id[19] ^= 1;
    assert!(!client.handle_datagram(now, server(), &other_id));
    assert!(!client.handle_datagram(now, server(), &request.contents), "a request is no answer");
    assert_eq!(client.stats().unexpected, 4);
    assert!(client.handle_datagram(now, "[::ffff:192.0.2.10]:3478".parse().unwrap(), &response));
}

#[test]
fn a_repeated_request_gives_no_round_trip_time() {
    let (mut client, now) = (client(), origin());
    client.query(now, server()).unwrap();
    client.poll_transmit(now).unwrap();
    let again = client.poll_transmit(now + ms(500)).unwrap();
    let response = answer(&again.contents, "198.51.100.7:1".parse().unwrap()).unwrap();
    client.handle_datagram(now + ms(510), server(), &response);
    assert!(matches!(client.poll_event().unwrap().outcome, StunOutcome::Reflexive { rtt: None, .. }));
}

#[test]
fn the_old_mapped_address_is_the_fallback_and_nonsense_is_unusable() {
    let addr: SocketAddr = "198.51.100.7:40000".parse().unwrap();
    let nowhere: SocketAddr = "0.0.0.0:40000".parse().unwrap();
    let reflexive = StunOutcome::Reflexive { addr, rtt: Some(ms(0)) };
    let mapped = |addr: SocketAddr| MappedSocketAddr::new(addr).to_raw(0x0001.into()).into_owned();
    let alien = RawAttribute::new(0x7ffe.into(), &[1, 2, 3, 4]);
    let optional = RawAttribute::new(0x8ffe.into(), &[1, 2, 3, 4]);
    for (attributes, expected) in [
        (vec![mapped(addr)], reflexive.clone()),
        (vec![mapped(addr), optional], reflexive),
        (vec![mapped(addr), alien], StunOutcome::Unusable),
        (vec![mapped(nowhere)], StunOutcome::Unusable),
        (vec![RawAttribute::new(0x0001.into(), &[0, 9, 1, 1, 1, 1, 1, 1])], StunOutcome::Unusable),
        (vec![], StunOutcome::Unusable),
    ] {
        let (mut client, now) = (client(), origin());
        client.query(now, server()).unwrap();
        let request = client.poll_transmit(now).unwrap();
        let asked = Message::from_bytes(&request.contents).unwrap();
        let mut response = Message::builder_success(&asked, MessageWriteVec::new());
        for attribute in &attributes {
            response.add_attribute(attribute).unwrap();
        }
        assert!(client.handle_datagram(now, server(), &response.finish()));
        assert_eq!(client.poll_event().unwrap().outcome, expected);
    }
}

#[test]
fn an_attribute_that_must_be_understood_and_is_not_gets_420() {
    let alien = RawAttribute::new(0x7ffe.into(), &[1; 12]);
    let bytes = request(5, &[alien], true);
    let response = answer(&bytes, "198.51.100.7:1".parse().unwrap()).unwrap();
    let message = parse(&response).unwrap();
    assert!(message.has_class(MessageClass::Error));
    assert_eq!(message.transaction_id(), 5.into());
    assert_eq!(message.attribute::<ErrorCode>().unwrap().code(), 420);
    assert!(message.attribute::<UnknownAttributes>().unwrap().has_attribute(0x7ffe.into()));
    // To a server without ICE, ICE's PRIORITY in the vector of RFC 5769 is such an attribute.
    let ice = answer(&bytes_of(&vectors()["request"]), "198.51.100.7:1".parse().unwrap()).unwrap();
    assert!(parse(&ice).unwrap().attribute::<UnknownAttributes>().unwrap().has_attribute(0x0024.into()));
    let (mut client, now) = (client(), origin());
    client.query(now, server()).unwrap();
    let sent = client.poll_transmit(now).unwrap();
    let mut refused = response.clone();
    refused[4..20].copy_from_slice(&sent.contents[4..20]);
    assert!(!client.handle_datagram(now, server(), &refused), "the FINGERPRINT doesn't fit");
    let alien = RawAttribute::new(0x7ffe.into(), &[0; 12]);
    let id = parse(&sent.contents).unwrap().transaction_id();
    let refused = answer(&request(id.into(), &[alien], false), server()).unwrap();
    assert!(client.handle_datagram(now, server(), &refused));
    assert_eq!(client.poll_event().unwrap().outcome, StunOutcome::Refused { code: 420 });
}

#[test]
fn optional_and_credential_attributes_are_no_reason_to_refuse() {
    let software = RawAttribute::new(0x8022.into(), b"coturn");
    let username = RawAttribute::new(Username::TYPE, b"user");
    let response =
        answer(&request(5, &[software, username], true), "198.51.100.7:1".parse().unwrap()).unwrap();
    let message = parse(&response).unwrap();
    assert!(message.has_class(MessageClass::Success));
    assert!(message.has_attribute(stun_types::attribute::Fingerprint::TYPE), "asked with, answered with");
}

#[test]
fn the_server_answers_nothing_but_whole_binding_requests() {
    let source = "198.51.100.7:1".parse().unwrap();
    let good = request(5, &[], false);
    assert!(answer(&good, source).is_some());
    let changed = |index: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[index] = byte;
        bytes
    };
    for (what, bytes) in [
        ("empty", vec![]),
        ("cut", good[..19].to_vec()),
        ("trailing", [&good[..], &[0; 4]].concat()),
        ("no cookie", changed(4, 0)),
        ("another method", changed(1, 3)),
        ("an indication", changed(1, 0x11)),
        ("a response", changed(0, 1)),
        ("a length that isn't there", changed(3, 4)),
        ("a sealed datagram", changed(0, 0xc4)),
        ("a wrong fingerprint", {
            let mut bytes = request(5, &[], true);
            *bytes.last_mut().unwrap() ^= 1;
            bytes
        }),
        ("too long", request(5, &[RawAttribute::new(0x8022.into(), &[7; 600])], false)),
    ] {
        assert_eq!(answer(&bytes, source), None, "{what}");
    }
}

#[test]
fn an_answer_is_bounded_whatever_was_asked() {
    let aliens: Vec<_> = (0..120).map(|n| RawAttribute::new((0x4000 + n).into(), &[])).collect();
    let source = "[2001:db8::7]:1".parse().unwrap();
    let response = answer(&request(5, &aliens, true), source).unwrap();
    assert!(response.len() <= server::MAX_ERROR_LEN);
    assert!(parse(&response).unwrap().attribute::<UnknownAttributes>().unwrap().has_attribute(0x4007.into()));
    assert_eq!(
        answer(&request(5, &aliens[..1], false), source),
        None,
        "an error would be longer than this question"
    );
    let padded = [aliens[0].clone(), RawAttribute::new(0x8022.into(), &[7; 8])];
    let asked = request(5, &padded, false);
    assert_eq!(answer(&asked, source).map(|error| error.len()), Some(asked.len()), "to this one it isn't");
    let fingerprinted = answer(&request(5, &[], true), source).unwrap();
    assert_eq!(fingerprinted.len(), MAX_RESPONSE_LEN);
}

#[test]
fn transactions_are_bounded() {
    let (mut client, now) = (client(), origin());
    for port in 0..MAX_TRANSACTIONS as u16 {
        client.query(now, SocketAddr::from(([192, 0, 2, 1], 1_000 + port))).unwrap();
    }
    assert_eq!(client.query(now, server()), Err(ClientError::TooManyTransactions));
    let first = SocketAddr::from(([192, 0, 2, 1], 1_000));
    assert_eq!(client.query(now, first), Ok(()), "asked already");
    assert_eq!(std::iter::from_fn(|| client.poll_transmit(now)).count(), MAX_TRANSACTIONS);
    client.clear();
    assert_eq!(client.poll_timeout(), None);
}

#[test]
fn an_overlong_message_is_not_read() {
    let padded = |len: usize| request(5, &[RawAttribute::new(0x8022.into(), &vec![7; len])], false);
    assert!(parse(&padded(MAX_MESSAGE_LEN - 24)).is_some());
    assert!(parse(&padded(MAX_MESSAGE_LEN - 20)).is_none());
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..700), shaped in any::<bool>()) {
        if shaped && bytes.len() >= 20 {
            let length = (bytes.len() - 20) as u16 & !3;
            bytes.truncate(20 + usize::from(length));
            bytes[..2].copy_from_slice(&[0, 1]);
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes[4..8].copy_from_slice(&MAGIC_COOKIE);
        }
        if let Some(response) = answer(&bytes, server()) {
            let parsed = parse(&response);
            prop_assert!(parsed.is_some());
            let error = parsed.is_some_and(|response| response.has_class(MessageClass::Error));
            let limit = if error { bytes.len() } else { MAX_RESPONSE_LEN };
            prop_assert!(response.len() <= limit);
        }
        let (mut client, now) = (client(), origin());
        client.query(now, server()).unwrap();
        let sent = client.poll_transmit(now).unwrap();
        if bytes.len() >= 20 {
            bytes[0] = 1;
            bytes[4..20].copy_from_slice(&sent.contents[4..20]);
        }
        client.handle_datagram(now, server(), &bytes);
    }
}
