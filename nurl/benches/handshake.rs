//! The overhead of the handshake: `Noise_IKpsk2`, both sides, with payloads of the real lengths, against the 2 key
//! generations and 8 Diffie-Hellmans that it requires, by the same library. Also measured with the static-static
//! secret cached on one side (7), and on both (6). Target: at most 1.25.
//!
//! And what the passes add, which both sides show: against a handshake without any, with passes that both have met
//! (target: at most 1.10), and with passes that both see for the first time, so that each checks a signature.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod common;

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::agreement;
use nurl::internals::authority::checker::Checker;
use nurl::internals::authority::credential::SHOWN_BYTES;
use nurl::internals::authority::key::AuthorityKey;
use nurl::internals::authority::level::Level;
use nurl::internals::key::{PublicKey, SecretKey};
use nurl::internals::kit::wall_clock::WallClock;
use nurl::internals::net::secure::noise::{Backend, Initiator, Responder, SharedSecret, StaticKey};
use x25519_dalek::StaticSecret;

const TARGET: f64 = 1.25;
const TARGET_OF_PASSES: f64 = 1.10;

/// The payload lengths of `securedgram`'s message 1 and message 2, without the passes.
const PAYLOADS: (usize, usize) = (40, 12);

/// A time at which passes are checked, in seconds since 1970.
const TODAY: u32 = 1_800_000_000;

fn main() {
    println!("a whole handshake, both sides, best of many rounds in turns");
    for backend in [Backend::AwsLc, Backend::Portable] {
        println!("{backend:?}");
        for (label, cached, agreements) in [
            ("nothing cached", (false, false), 8),
            ("ss cached by one side", (false, true), 7),
            ("ss cached by both", (true, true), 6),
        ] {
            let [handshake, bare] = measure_overhead(backend, cached, agreements);
            let ratio = common::ratio(handshake, bare);
            println!(
                "  {label:<22} {:>6.1} µs, bare 2 key generations + {agreements} DH {:>6.1} µs, ratio \
                 {ratio:.3}  (target: at most {TARGET:.2})",
                micros(handshake),
                micros(bare),
            );
        }
        let [without, known, new] = measure_passes(backend);
        println!(
            "  passes: without {:.1} µs; known {:.1} µs, ratio {:.3}  (target: at most {TARGET_OF_PASSES:.2}); \
             both new {:.1} µs, {:.1} µs for each signature",
            micros(without),
            micros(known),
            common::ratio(known, without),
            micros(new),
            micros(new.saturating_sub(known) / 2),
        );
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The two sides, and what each caches.
struct Pair {
    left: StaticKey,
    right: StaticKey,
    at_left: Option<SharedSecret>,
    at_right: Option<SharedSecret>,
    psk: [u8; 32],
    round: u64,
    one: Vec<u8>,
    two: Vec<u8>,
}

impl Pair {
    fn new(backend: Backend, cached: (bool, bool)) -> Pair {
        let key = |n| StaticKey::new(backend, &secret(n)).expect("32 bytes");
        let (left, right) = (key(1), key(2));
        let ss: SharedSecret = left.agree(right.public()).expect("honest keys");
        let (at_left, at_right) = (cached.0.then(|| ss.clone()), cached.1.then(|| ss.clone()));
        Pair { left, right, at_left, at_right, psk: [6; 32], round: 0, one: Vec::new(), two: Vec::new() }
    }

    /// A handshake in which each side shows these payloads, which the other one is given to judge.
    fn handshake(&mut self, shown: [&[u8]; 2], mut judge: impl FnMut(usize, &[u8])) {
        self.round += 1;
        let ephemeral = |side: u8| {
            let mut bytes = [side; 32];
            bytes[..8].copy_from_slice(&self.round.to_le_bytes());
            bytes
        };
        let prologue = [5; 38];
        self.one.clear();
        self.two.clear();
        let mut payload = [0; PAYLOADS.0 + SHOWN_BYTES + 16];
        let mut initiator = Initiator::start(
            &self.left,
            self.right.public(),
            self.at_left.clone(),
            &prologue,
            ephemeral(1),
            shown[0],
            &mut self.one,
        )
        .expect("honest keys");
        let mut responder =
            Responder::peek(&self.right, &prologue, ephemeral(2), &self.one).expect("it is for us");
        let len = responder.admit(self.at_right.clone(), &mut payload).expect("it is genuine");
        judge(0, &payload[..len]);
        let responders = responder.respond(&self.psk, shown[1], &mut self.two).expect("it was admitted");
        let (len, initiators) =
            initiator.read_response(&self.psk, &self.two, &mut payload).expect("it is genuine");
        judge(1, &payload[..len]);
        black_box((responders, initiators));
    }
}

fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn measure_overhead(backend: Backend, cached: (bool, bool), agreements: usize) -> [Duration; 2] {
    let mut pair = Pair::new(backend, cached);
    let payloads = [[0; PAYLOADS.0 + SHOWN_BYTES].as_slice(), &[0; PAYLOADS.1 + SHOWN_BYTES]];
    let mut handshake = || pair.handshake(payloads, |_, _| ());
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

/// Handshakes without passes, with passes that are known, and with new ones.
fn measure_passes(backend: Backend) -> [Duration; 3] {
    let authority = AuthorityKey::from_seed(&[7; 32]);
    let keys: [PublicKey; 2] = [1, 2].map(|n| secret(n).public());
    let passes = keys.map(|key| authority.mint(key, Level::Worker, TODAY).show());
    let shown = [
        [[0; PAYLOADS.0].as_slice(), &passes[0]].concat(),
        [[0; PAYLOADS.1].as_slice(), &passes[1]].concat(),
    ];
    let shown = [shown[0].as_slice(), shown[1].as_slice()];
    let start = Instant::now();
    let checker =
        || Checker::new(authority.mesh(), WallClock::new(start, Duration::from_secs(u64::from(TODAY))));
    let check = |checker: &mut Checker, side: usize, payload: &[u8]| {
        let pass = payload.last_chunk::<SHOWN_BYTES>().expect("a payload ends with what is shown");
        black_box(checker.check(start, &keys[side], pass).expect("the pass is good"));
    };
    let [mut a, mut b, mut c] = [(); 3].map(|()| Pair::new(backend, (false, false)));
    let mut checkers = [checker(), checker()];
    let mut without =
        || a.handshake([[0; PAYLOADS.0].as_slice(), &[0; PAYLOADS.1]], |_, payload| _ = black_box(payload));
    let mut known = || b.handshake(shown, |side, payload| check(&mut checkers[side], side, payload));
    let mut new = || c.handshake(shown, |side, payload| check(&mut checker(), side, payload));
    common::in_turns([&mut without, &mut known, &mut new])
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
