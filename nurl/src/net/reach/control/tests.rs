use super::*;
use crate::rt::Rng;
use proptest::prelude::*;
use rand_core::SeedableRng;

fn rng(n: u8) -> Rng {
    Rng::from_seed([n; 32])
}

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn carry(from: &mut Connection, to: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.poll_write(&mut bytes);
    to.handle_bytes(&bytes);
    bytes
}

/// A client and a server after the handshake.
fn pair() -> (Connection, Connection) {
    let mut client = Connection::client(&key(1), &key(2).public(), &mut rng(1)).unwrap();
    let mut server = Connection::server(&key(2), &mut rng(2)).unwrap();
    carry(&mut client, &mut server);
    assert_eq!(server.poll_message(&mut Vec::new()), Ok(false));
    carry(&mut server, &mut client);
    assert_eq!(client.poll_message(&mut Vec::new()), Ok(false));
    (client, server)
}

#[test]
fn both_sides_learn_the_others_key_and_carry_messages_both_ways() {
    let (mut client, mut server) = pair();
    assert_eq!(client.peer(), Some(key(2).public()));
    assert_eq!(server.peer(), Some(key(1).public()));
    let (mut wire, mut plain) = (Vec::new(), Vec::new());
    client.seal(b"to the hub", &mut wire).unwrap();
    server.handle_bytes(&wire);
    assert_eq!(server.poll_message(&mut plain), Ok(true));
    assert_eq!(plain, b"to the hub");
    wire.clear();
    server.seal(b"to the client", &mut wire).unwrap();
    client.handle_bytes(&wire);
    assert_eq!(client.poll_message(&mut plain), Ok(true));
    assert_eq!(plain, b"to the client");
    assert!(!wire.windows(6).any(|window| window == b"client"));
}

#[test]
fn a_hub_with_another_key_than_the_pinned_one_is_refused() {
    let mut client = Connection::client(&key(1), &key(2).public(), &mut rng(1)).unwrap();
    let mut server = Connection::server(&key(3), &mut rng(2)).unwrap();
    carry(&mut client, &mut server);
    assert_eq!(server.poll_message(&mut Vec::new()), Err(ControlError::Handshake));
    assert_eq!(server.peer(), None);
}

#[test]
fn a_replayed_message_1_proves_nothing() {
    let mut client = Connection::client(&key(1), &key(2).public(), &mut rng(1)).unwrap();
    let mut first = Connection::server(&key(2), &mut rng(2)).unwrap();
    let message_1 = carry(&mut client, &mut first);
    first.poll_message(&mut Vec::new()).unwrap();
    carry(&mut first, &mut client);
    client.poll_message(&mut Vec::new()).unwrap();
    let mut transport = Vec::new();
    client.seal(b"register", &mut transport).unwrap();

    // An attacker that recorded all of it replays it.
    let mut second = Connection::server(&key(2), &mut rng(3)).unwrap();
    second.handle_bytes(&message_1);
    assert_eq!(second.poll_message(&mut Vec::new()), Ok(false));
    assert_eq!(second.peer(), Some(key(1).public()));
    assert!(!second.is_proven());
    second.handle_bytes(&transport);
    assert_eq!(second.poll_message(&mut Vec::new()), Err(ControlError::Decrypt));
    assert!(!second.is_proven());

    first.handle_bytes(&transport);
    assert_eq!(first.poll_message(&mut Vec::new()), Ok(true));
    assert!(first.is_proven());
}

#[test]
fn a_length_header_reserves_nothing() {
    let (_, mut server) = pair();
    server.handle_bytes(&[0xff, 0xff, 0, 0, 0]);
    assert_eq!(server.poll_message(&mut Vec::new()), Ok(false));
    assert!(server.reserved_bytes() < 1024, "{}", server.reserved_bytes());
}

#[test]
fn a_message_in_single_bytes_is_the_same_message() {
    let (mut client, mut server) = pair();
    let mut wire = Vec::new();
    client.seal(b"one", &mut wire).unwrap();
    client.seal(b"two", &mut wire).unwrap();
    let mut plain = Vec::new();
    let mut seen = Vec::new();
    for byte in wire {
        server.handle_bytes(&[byte]);
        while server.poll_message(&mut plain).unwrap() {
            seen.push(plain.clone());
        }
    }
    assert_eq!(seen, [b"one", b"two"]);
}

#[test]
fn the_largest_message_passes_and_one_byte_more_is_refused() {
    let (mut client, mut server) = pair();
    let mut wire = Vec::new();
    client.seal(&vec![7; MAX_PLAINTEXT_BYTES], &mut wire).unwrap();
    assert_eq!(client.seal(&vec![7; MAX_PLAINTEXT_BYTES + 1], &mut wire), Err(ControlError::NotReady));
    server.handle_bytes(&wire);
    let mut plain = Vec::new();
    assert_eq!(server.poll_message(&mut plain), Ok(true));
    assert_eq!(plain.len(), MAX_PLAINTEXT_BYTES);
}

#[test]
fn nothing_is_sealed_before_the_handshake_is_done() {
    let mut client = Connection::client(&key(1), &key(2).public(), &mut rng(1)).unwrap();
    assert_eq!(client.seal(b"early", &mut Vec::new()), Err(ControlError::NotReady));
}

#[test]
fn a_low_order_hub_key_is_an_error() {
    let zero = PublicKey::from_bytes([0; 32]);
    assert!(matches!(Connection::client(&key(1), &zero, &mut rng(1)), Err(ControlError::Handshake)));
}

proptest! {
    #[test]
    fn any_bytes_before_the_handshake_are_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut server = Connection::server(&key(2), &mut rng(2)).unwrap();
        server.handle_bytes(&bytes);
        let _ = server.poll_message(&mut Vec::new());
        prop_assert_eq!(server.peer(), None);
    }

    #[test]
    fn a_changed_byte_ends_the_connection(at in 2usize..30, flip in 1u8..) {
        let (mut client, mut server) = pair();
        let mut wire = Vec::new();
        client.seal(b"hello, hub", &mut wire).unwrap();
        let at = at.min(wire.len() - 1);
        wire[at] ^= flip;
        server.handle_bytes(&wire);
        prop_assert_eq!(server.poll_message(&mut Vec::new()), Err(ControlError::Decrypt));
    }

    #[test]
    fn a_row_of_frames_comes_back(
        rows in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..10),
    ) {
        let mut out = Vec::new();
        for (kind, body) in &rows {
            frames::frame(&mut out, *kind, |out| out.extend(body));
        }
        let back: Vec<_> = frames::split(&out).map(|frame| frame.map(|(k, b)| (k, b.to_vec())).unwrap()).collect();
        prop_assert_eq!(back, rows);
    }

    #[test]
    fn any_plaintext_splits_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let frames: Vec<_> = frames::split(&bytes).collect();
        let taken: usize = frames.iter().flatten().map(|(_, body)| body.len() + frames::HEADER_BYTES).sum();
        let whole = frames.iter().all(Result::is_ok);
        prop_assert_eq!(whole, taken == bytes.len());
    }
}
