use proptest::prelude::*;

use super::*;
use crate::key::PublicKey;

const BOTH: [Backend; 2] = [Backend::AwsLc, Backend::Portable];

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn hex32(text: &str) -> [u8; 32] {
    hex(text).try_into().unwrap()
}

/// The published cacophony vector of Noise_IKpsk2_25519_ChaChaPoly_SHA256.
mod vector {
    pub(super) const PROLOGUE: &str = "4a6f686e2047616c74";
    pub(super) const PSK: &str = "54686973206973206d7920417573747269616e20706572737065637469766521";
    pub(super) const INIT_STATIC: &str = "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1";
    pub(super) const INIT_EPHEMERAL: &str =
        "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a";
    pub(super) const RESP_PUBLIC: &str = "31e0303fd6418d2f8c0e78b91f22e8caed0fbe48656dcf4767e4834f701b8f62";
    pub(super) const RESP_STATIC: &str = "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893";
    pub(super) const RESP_EPHEMERAL: &str =
        "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b";
    pub(super) const HASH: &str = "8310f86394dc0dabb40beb8210031556db4403ab1202db7034c526232147a700";
    pub(super) const MESSAGES: [(&str, &str); 6] = [
        (
            "4c756477696720766f6e204d69736573",
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79442ec9b09893d0f510791784c10cbc959f25b1766e0def6e301d14fbca1c7790ac829b8b3674f5f649a5f0e98479662cbfbf2b2c47cd4b09fcd266cd29d7cb675f1808849707847840f6d178ec4d3733aa",
        ),
        (
            "4d757272617920526f746862617264",
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f1448088439a1b3cebf680b2c74217fcb5eba4ff58a9468cd90c4aca6194f57479b379a7",
        ),
        ("462e20412e20486179656b", "a8fde7a0accec190cd306c5950d4fd8e04a205ec288aa747d8b347"),
        ("4361726c204d656e676572", "59caddd9984a3bbe24c4fb31a2bd455b7eba3fa0980674b1a3a5f9"),
        (
            "4a65616e2d426170746973746520536179",
            "3b9bfebd210c22ba0cff9de79b4007d7a552fffbf92616881faa8a883e25b80258",
        ),
        (
            "457567656e2042f6686d20766f6e2042617765726b",
            "f37512df1043d564d7c46ac85c53d3b6a9a05724bc297e7142808f217561651217fe85b782",
        ),
    ];
}

#[test]
fn the_published_vector_passes_on_both_backends() {
    use vector::*;
    for backend in BOTH {
        let (prologue, psk) = (hex(PROLOGUE), hex32(PSK));
        let init = StaticKey::from_bytes(backend, &hex32(INIT_STATIC)).unwrap();
        let resp = StaticKey::from_bytes(backend, &hex32(RESP_STATIC)).unwrap();
        assert_eq!(resp.public().as_bytes(), &hex32(RESP_PUBLIC));
        let texts: Vec<_> = MESSAGES.iter().map(|(text, cipher)| (hex(text), hex(cipher))).collect();

        let mut one = Vec::new();
        let ephemeral = hex32(INIT_EPHEMERAL);
        let mut initiator =
            Initiator::start(&init, resp.public(), None, &prologue, ephemeral, &texts[0].0, &mut one)
                .unwrap();
        assert_eq!(one, texts[0].1);

        let mut responder = Responder::peek(&resp, &prologue, hex32(RESP_EPHEMERAL), &one).unwrap();
        assert_eq!(responder.initiator(), init.public());
        let mut payload = [0; 64];
        let len = responder.admit(None, &mut payload).unwrap();
        assert_eq!(payload[..len], texts[0].0);

        let mut two = Vec::new();
        let at_responder = responder.respond(&psk, &texts[1].0, &mut two).unwrap();
        assert_eq!(two, texts[1].1);
        let (len, at_initiator) = initiator.read_response(&psk, &two, &mut payload).unwrap();
        assert_eq!(payload[..len], texts[1].0);
        assert_eq!(initiator.handshake_hash(), hex32(HASH));
        assert_eq!(responder.handshake_hash(), hex32(HASH));

        // The rest of the vector are transport messages with empty associated data, in alternating
        // directions.
        for (at, (text, cipher)) in texts[2..].iter().enumerate() {
            let (sender, receiver) =
                if at % 2 == 0 { (&at_initiator, &at_responder) } else { (&at_responder, &at_initiator) };
            let counter = at as u64 / 2;
            let mut bytes = text.clone();
            let tag = sender.ciphers().0.seal(counter, &[], &mut bytes);
            bytes.extend_from_slice(&tag);
            assert_eq!(&bytes, cipher);
            let len = receiver.ciphers().1.open(counter, &[], &mut bytes).unwrap();
            assert_eq!(&bytes[..len], text);
        }
    }
}

#[test]
fn the_handshake_without_a_pre_shared_key_gives_the_same_bytes_on_both_backends() {
    let transcripts = BOTH.map(|backend| {
        let (init, resp) = (keys(backend, 1), keys(backend, 2));
        let mut initiator = Ik::initiator(&init, resp.public(), b"x", [3; 32]).unwrap();
        let mut responder = Ik::responder(&resp, b"x", [4; 32]).unwrap();
        let mut wire = Vec::new();
        initiator.write(MESSAGE_1_OVERHEAD, &mut wire).unwrap();
        responder.read(&wire).unwrap();
        assert!(responder.finish().is_err(), "there is a message to come");
        responder.write(MESSAGE_2_OVERHEAD, &mut wire).unwrap();
        initiator.read(&wire[MESSAGE_1_OVERHEAD..]).unwrap();
        let (peer, ours) = initiator.finish().unwrap();
        assert_eq!(&peer, resp.public());
        let (peer, theirs) = responder.finish().unwrap();
        assert_eq!(&peer, init.public());
        let mut text = *b"hello";
        let tag = ours.ciphers().0.seal(0, &[], &mut text);
        wire.extend_from_slice(&text);
        wire.extend_from_slice(&tag);
        let mut sealed = [&text[..], &tag].concat();
        let len = theirs.ciphers().1.open(0, &[], &mut sealed).unwrap();
        assert_eq!(&sealed[..len], b"hello");
        wire
    });
    assert_eq!(transcripts[0], transcripts[1]);
}

fn keys(backend: Backend, seed: u8) -> StaticKey {
    StaticKey::from_bytes(backend, &[seed; 32]).unwrap()
}

#[test]
fn the_gate_costs_one_agreement_and_a_known_initiator_three() {
    for backend in BOTH {
        let (a, b) = (keys(backend, 1), keys(backend, 2));
        let mut one = Vec::new();
        let mut initiator = Initiator::start(&a, b.public(), None, b"p", [3; 32], b"", &mut one).unwrap();
        assert_eq!(initiator.take_dh_count(), 2, "es and ss");
        let ss = initiator.shared_secret();

        let mut responder = Responder::peek(&b, b"p", [4; 32], &one).unwrap();
        assert_eq!(responder.take_dh_count(), 1, "es alone tells who claims to come");
        responder.admit(ss.clone(), &mut []).unwrap();
        assert_eq!(responder.take_dh_count(), 0, "ss comes from the cache and es isn't repeated");
        let mut two = Vec::new();
        responder.respond(&[9; 32], b"", &mut two).unwrap();
        assert_eq!(responder.take_dh_count(), 2, "ee and se");

        let mut again = Initiator::start(&a, b.public(), ss, b"p", [5; 32], b"", &mut Vec::new()).unwrap();
        assert_eq!(again.take_dh_count(), 1);
    }
}

#[test]
fn a_point_of_small_order_is_refused_by_both_backends() {
    let mut order_8 = [0; 32];
    order_8.copy_from_slice(&hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"));
    let mut one = [0; 32];
    one[0] = 1;
    for backend in BOTH {
        for point in [[0; 32], one, order_8] {
            let point = PublicKey::from_bytes(point);
            assert_eq!(keys(backend, 7).agree(&point).err(), Some(NoiseError::ZeroOutput));
            let started =
                Initiator::start(&keys(backend, 7), &point, None, b"p", [3; 32], b"", &mut Vec::new());
            assert_eq!(started.err(), Some(NoiseError::ZeroOutput));
            let mut message = vec![0; MESSAGE_1_OVERHEAD];
            message[..32].copy_from_slice(point.as_bytes());
            let peeked = Responder::peek(&keys(backend, 7), b"p", [3; 32], &message);
            assert_eq!(peeked.err(), Some(NoiseError::ZeroOutput));
        }
    }
}

#[test]
fn a_forged_second_message_leaves_the_handshake_as_it_was() {
    for backend in BOTH {
        let (a, b) = (keys(backend, 1), keys(backend, 2));
        let (mut one, mut two) = (Vec::new(), Vec::new());
        let mut initiator = Initiator::start(&a, b.public(), None, b"p", [3; 32], b"x", &mut one).unwrap();
        let mut responder = Responder::peek(&b, b"p", [4; 32], &one).unwrap();
        responder.admit(None, &mut [0; 8]).unwrap();
        responder.respond(&[9; 32], b"y", &mut two).unwrap();
        let mut payload = [0; 8];
        for at in 0..two.len() {
            let mut forged = two.clone();
            forged[at] ^= 1;
            assert!(initiator.read_response(&[9; 32], &forged, &mut payload).is_err());
        }
        assert!(initiator.read_response(&[8; 32], &two, &mut payload).is_err(), "another psk");
        assert!(initiator.read_response(&[9; 32], &two[..20], &mut payload).is_err());
        let (len, _) = initiator.read_response(&[9; 32], &two, &mut payload).unwrap();
        assert_eq!(&payload[..len], b"y");
    }
}

#[test]
fn another_mesh_or_a_borrowed_name_is_refused() {
    let backend = Backend::DEFAULT;
    let (a, b) = (keys(backend, 1), keys(backend, 2));
    let mut one = Vec::new();
    Initiator::start(&a, b.public(), None, b"mesh a", [3; 32], b"", &mut one).unwrap();
    assert_eq!(Responder::peek(&b, b"mesh b", [4; 32], &one).err(), Some(NoiseError::Message));

    // An initiator that claims another peer's key passes the gate and fails at ss.
    let wrong = keys(backend, 5).agree(b.public()).unwrap();
    let mut lie = Vec::new();
    Initiator::start(&a, b.public(), Some(wrong), b"p", [3; 32], b"", &mut lie).unwrap();
    let mut responder = Responder::peek(&b, b"p", [4; 32], &lie).unwrap();
    assert_eq!(responder.admit(None, &mut []).err(), Some(NoiseError::Message));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_backends_agree_on_every_secret(a: [u8; 32], b: [u8; 32]) {
        let [x, y] = BOTH.map(|backend| StaticKey::from_bytes(backend, &a).unwrap());
        prop_assert_eq!(x.public(), y.public());
        let theirs = PublicKey::from_bytes(b);
        prop_assert_eq!(x.agree(&theirs), y.agree(&theirs));
    }

    #[test]
    fn both_backends_seal_alike_and_open_each_other(
        key: [u8; 32], counter: u64, aad in proptest::collection::vec(any::<u8>(), 0..40),
        text in proptest::collection::vec(any::<u8>(), 0..300), flip: prop::sample::Index,
    ) {
        let [x, y] = BOTH.map(|backend| AeadKey::new(backend, &key));
        let (mut by_x, mut by_y) = (text.clone(), text.clone());
        let (tag_x, tag_y) = (x.seal(counter, &aad, &mut by_x), y.seal(counter, &aad, &mut by_y));
        by_x.extend_from_slice(&tag_x);
        by_y.extend_from_slice(&tag_y);
        prop_assert_eq!(&by_x, &by_y);
        let mut bad = by_x.clone();
        bad[flip.index(by_x.len())] ^= 0x40;
        prop_assert_eq!(x.open(counter, &aad, &mut bad.clone()), Err(OpenFailed));
        prop_assert_eq!(y.open(counter, &aad, &mut bad), Err(OpenFailed));
        let len = x.open(counter, &aad, &mut by_y).unwrap();
        prop_assert_eq!(&by_y[..len], &text[..]);
        let len = y.open(counter, &aad, &mut by_x).unwrap();
        prop_assert_eq!(&by_x[..len], &text[..]);
    }

    #[test]
    fn a_handshake_across_backends_gives_the_same_bytes(
        a: [u8; 32], b: [u8; 32], e: [u8; 32], f: [u8; 32], psk: [u8; 32],
    ) {
        let run = |one: Backend, two: Backend| {
            let (a, b) = (StaticKey::from_bytes(one, &a).unwrap(), StaticKey::from_bytes(two, &b).unwrap());
            let (mut first, mut second) = (Vec::new(), Vec::new());
            let mut i = Initiator::start(&a, b.public(), None, b"p", e, b"1", &mut first).unwrap();
            let mut r = Responder::peek(&b, b"p", f, &first).unwrap();
            r.admit(None, &mut [0; 4]).unwrap();
            let theirs = r.respond(&psk, b"2", &mut second).unwrap();
            let (_, ours) = i.read_response(&psk, &second, &mut [0; 4]).unwrap();
            let mut text = *b"abc";
            let tag = ours.ciphers().0.seal(0, b"h", &mut text);
            let mut sealed = [&text[..], &tag[..]].concat();
            assert_eq!(theirs.ciphers().1.open(0, b"h", &mut sealed), Ok(3));
            (first, second, tag)
        };
        let same = run(Backend::AwsLc, Backend::AwsLc);
        prop_assert_eq!(&run(Backend::AwsLc, Backend::Portable), &same);
        prop_assert_eq!(&run(Backend::Portable, Backend::AwsLc), &same);
        prop_assert_eq!(&run(Backend::Portable, Backend::Portable), &same);
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(message in proptest::collection::vec(any::<u8>(), 0..300)) {
        let b = keys(Backend::DEFAULT, 2);
        prop_assert!(Responder::peek(&b, b"p", [4; 32], &message).is_err());
        let a = keys(Backend::DEFAULT, 1);
        let mut i = Initiator::start(&a, b.public(), None, b"p", [3; 32], b"", &mut Vec::new()).unwrap();
        prop_assert!(i.read_response(&[9; 32], &message, &mut [0; 400]).is_err());
    }
}
