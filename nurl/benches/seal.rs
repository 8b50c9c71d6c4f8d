//! The overhead of a session over its cipher: seal and open of 1,420 bytes through [`Session`] (header, counter,
//! batch buffer, replay window) against the two bare AEAD calls of the same library, in place, with associated data
//! of the same length. Target: at most 1.10.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod common;

use std::hint::black_box;
use std::time::Instant;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit};
use nurl::internals::net::secure::noise::{Backend, TransportKeys};
use nurl::internals::net::secure::session::{HEADER_LEN, Leg, Session, TAG_LEN};

const BODY_BYTES: usize = 1_420;
const TARGET: f64 = 1.10;

/// Frames that share a batch buffer before it is sent, as in the driver.
const BATCH: usize = 32;

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

fn main() {
    println!("seal + open of {BODY_BYTES} bytes, best of many rounds in turns");
    for backend in [Backend::AwsLc, Backend::Portable] {
        let [session, bare] = measure(backend);
        let mbit = |time: std::time::Duration| BODY_BYTES as f64 * 8.0 / time.as_secs_f64() / 1e6;
        println!("{backend:?}");
        println!("  session       {session:>9.2?}  {:>7.0} Mbit/s", mbit(session));
        println!("  bare calls    {bare:>9.2?}  {:>7.0} Mbit/s", mbit(bare));
        println!("  ratio         {:>9.3}  (target: at most {TARGET:.2})", common::ratio(session, bare));
    }
}

fn measure(backend: Backend) -> [std::time::Duration; 2] {
    let (one, two) = ([1; 32], [2; 32]);
    let now = Instant::now();
    let mut left = Session::new(&TransportKeys::from_bytes(backend, one, two), 1, 2, true, now);
    let mut right = Session::new(&TransportKeys::from_bytes(backend, two, one), 2, 1, false, now);
    let body = [7; BODY_BYTES];
    let mut batch: Vec<u8> = Vec::new();
    let mut in_batch = 0;
    let mut session = || {
        if in_batch == BATCH {
            batch.clear();
            in_batch = 0;
        }
        in_batch += 1;
        let start = batch.len();
        left.seal(now, &[], black_box(&body), &mut batch).expect("the session is fresh");
        let opened = right.open(now, Leg::Direct, &mut batch[start..]).expect("it is its peer's frame");
        black_box(opened);
    };

    let mut buffer = vec![0; (BODY_BYTES + TAG_LEN) * BATCH];
    let mut counter = 0;
    let aad = [3; HEADER_LEN];
    // Both variants copy the body into the buffer, because in-place calls need it there.
    let aws = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &one).expect("32 bytes"));
    let portable = ChaCha20Poly1305::new(&one.into());
    let mut bare = || {
        let start = (counter as usize % BATCH) * (BODY_BYTES + TAG_LEN);
        let frame = &mut buffer[start..start + BODY_BYTES + TAG_LEN];
        frame[..BODY_BYTES].copy_from_slice(black_box(&body));
        let (text, tag_place) = frame.split_at_mut(BODY_BYTES);
        match backend {
            Backend::AwsLc => {
                let fresh = || Nonce::assume_unique_for_key(nonce(counter));
                let tag = aws.seal_in_place_separate_tag(fresh(), Aad::from(&aad), text).expect("it fits");
                tag_place.copy_from_slice(tag.as_ref());
                black_box(aws.open_in_place(fresh(), Aad::from(&aad), frame).expect("just sealed"));
            }
            Backend::Portable => {
                let nonce = nonce(counter).into();
                let tag = portable.encrypt_in_place_detached(&nonce, &aad, text).expect("it fits");
                tag_place.copy_from_slice(&tag);
                portable.decrypt_in_place_detached(&nonce, &aad, text, &tag).expect("just sealed");
            }
        }
        counter += 1;
    };
    common::in_turns([&mut session, &mut bare])
}
