//! The overhead of the handshake: `Noise_IKpsk2`, both sides, with payloads of the real lengths, against the 2 key
//! generations and 8 Diffie-Hellmans that it requires, by the same library. Also measured with the static-static
//! secret cached on one side (7), and on both (6). Target: at most 1.25.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod common;

use std::hint::black_box;
use std::time::Duration;

use aws_lc_rs::agreement;
use nurl::internals::key::SecretKey;
use nurl::internals::net::secure::noise::{Backend, Initiator, Responder, SharedSecret, StaticKey};
use x25519_dalek::StaticSecret;

const TARGET: f64 = 1.25;

/// The payload lengths of `securedgram`'s message 1 and message 2.
const PAYLOADS: (usize, usize) = (40, 12);

fn main() {
    println!("a whole handshake, both sides, best of many rounds in turns");
    for backend in [Backend::AwsLc, Backend::Portable] {
        println!("{backend:?}");
        for (label, cached, agreements) in [
            ("nothing cached", (false, false), 8),
            ("ss cached by one side", (false, true), 7),
            ("ss cached by both", (true, true), 6),
        ] {
            let [handshake, bare] = measure(backend, cached, agreements);
            let ratio = common::ratio(handshake, bare);
            println!(
                "  {label:<22} {:>6.1} µs, bare 2 key generations + {agreements} DH {:>6.1} µs, ratio \
                 {ratio:.3}  (target: at most {TARGET:.2})",
                micros(handshake),
                micros(bare),
            );
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn measure(backend: Backend, cached: (bool, bool), agreements: usize) -> [Duration; 2] {
    let key = |n| StaticKey::new(backend, &SecretKey::from_bytes([n; 32])).expect("32 bytes");
    let (left, right) = (key(1), key(2));
    let ss: SharedSecret = left.agree(right.public()).expect("honest keys");
    let (at_left, at_right) = (cached.0.then(|| ss.clone()), cached.1.then(|| ss.clone()));
    let (prologue, psk) = ([5; 38], [6; 32]);
    let (mut one, mut two) = (Vec::new(), Vec::new());
    let mut round = 0u64;
    let mut handshake = || {
        round += 1;
        let ephemeral = |side: u8| {
            let mut bytes = [side; 32];
            bytes[..8].copy_from_slice(&round.to_le_bytes());
            bytes
        };
        one.clear();
        two.clear();
        let mut payload = [0; 64];
        let mut initiator = Initiator::start(
            &left,
            right.public(),
            at_left.clone(),
            &prologue,
            ephemeral(1),
            &[0; PAYLOADS.0],
            &mut one,
        )
        .expect("honest keys");
        let mut responder = Responder::peek(&right, &prologue, ephemeral(2), &one).expect("it is for us");
        responder.admit(at_right.clone(), &mut payload).expect("it is genuine");
        let responders = responder.respond(&psk, &[0; PAYLOADS.1], &mut two).expect("it was admitted");
        let (_, initiators) = initiator.read_response(&psk, &two, &mut payload).expect("it is genuine");
        black_box((responders, initiators));
    };
    let mut bytes = 0u64;
    let mut bare = || {
        bytes += 1;
        let mut scalar = [9; 32];
        scalar[..8].copy_from_slice(&bytes.to_le_bytes());
        match backend {
            Backend::AwsLc => bare_aws(&scalar, agreements),
            Backend::Portable => bare_portable(scalar, agreements),
        }
    };
    common::in_turns([&mut handshake, &mut bare])
}

fn bare_aws(scalar: &[u8; 32], agreements: usize) {
    let generate = || {
        let key = agreement::PrivateKey::from_private_key(&agreement::X25519, scalar).expect("32 bytes");
        let public = key.compute_public_key().expect("it is a key");
        (key, public)
    };
    let (left, right) = (generate(), generate());
    for at in 0..agreements {
        let (key, public) = if at % 2 == 0 { (&left.0, &right.1) } else { (&right.0, &left.1) };
        let theirs = agreement::UnparsedPublicKey::new(&agreement::X25519, public.as_ref());
        let secret = agreement::agree(key, theirs, (), |bytes| Ok::<_, ()>(bytes[0]));
        black_box(secret.expect("honest keys"));
    }
}

fn bare_portable(scalar: [u8; 32], agreements: usize) {
    let generate = || {
        let key = StaticSecret::from(scalar);
        let public = x25519_dalek::PublicKey::from(&key);
        (key, public)
    };
    let (left, right) = (generate(), generate());
    for at in 0..agreements {
        let (key, public) = if at % 2 == 0 { (&left.0, &right.1) } else { (&right.0, &left.1) };
        black_box(key.diffie_hellman(public));
    }
}
