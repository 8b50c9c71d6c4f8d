use proptest::prelude::*;

use super::*;
use crate::net::secure::noise::Backend;

fn pair(now: Instant) -> (Session, Session) {
    let a = TransportKeys::from_bytes(Backend::DEFAULT, [1; 32], [2; 32]);
    let b = TransportKeys::from_bytes(Backend::DEFAULT, [2; 32], [1; 32]);
    (
        Session::new(&a, 0xAAAA_0001, 0xBBBB_0002, true, now),
        Session::new(&b, 0xBBBB_0002, 0xAAAA_0001, false, now),
    )
}

const NEWEST: Freshness = Freshness { newest_on_leg: true, late: false };

#[expect(clippy::disallowed_methods, reason = "any instant will do as the beginning of a test's time")]
pub(super) fn start() -> Instant {
    Instant::now()
}

fn frame(session: &mut Session, now: Instant, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    session.seal(now, &[3], body, &mut out).unwrap();
    out
}

#[test]
fn frames_are_appended_to_the_batch_and_opened_in_place() {
    let now = start();
    let (mut a, mut b) = pair(now);
    let mut batch = Vec::new();
    a.seal(now, &[3], b"one", &mut batch).unwrap();
    let len = batch.len();
    a.seal(now, &[3], b"two", &mut batch).unwrap();
    assert_eq!(len, OVERHEAD + 4);
    let (first, second) = batch.split_at_mut(len);
    assert_eq!(second[..5], [0xC4, 2, 0, 0xBB, 0xBB]);
    assert_eq!(b.open(now, Leg::Direct, second), Ok(Opened { len: 4, freshness: NEWEST }));
    assert_eq!(&second[HEADER_LEN..][..4], b"\x03two");
    assert_eq!(b.open(now, Leg::Direct, first).map(|opened| opened.freshness.newest_on_leg), Ok(false));
    assert_eq!(&first[HEADER_LEN..][..4], b"\x03one");
}

#[test]
fn every_byte_of_a_frame_is_authenticated_the_header_too() {
    let now = start();
    let (mut a, mut b) = pair(now);
    let good = frame(&mut a, now, b"body");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x80;
        // A flipped counter bit may also yield `Expired`.
        assert!(
            matches!(b.open(now, Leg::Direct, &mut bad), Err(OpenError::Forged | OpenError::Expired)),
            "{at}"
        );
    }
    assert!(b.open(now, Leg::Direct, &mut good.clone()).is_ok(), "the forgeries moved nothing");
}

#[test]
fn a_copy_on_the_other_leg_dies_in_the_window() {
    let now = start();
    let (mut a, mut b) = pair(now);
    let sealed = frame(&mut a, now, b"body");
    assert!(b.open(now, Leg::Relay, &mut sealed.clone()).is_ok());
    assert_eq!(b.open(now, Leg::Direct, &mut sealed.clone()), Err(OpenError::Replay));
    assert!(!b.heard_on(Leg::Direct));
}

#[test]
fn a_frame_500_ms_late_on_the_relay_leg_is_accepted_at_100_000_packets_a_second() {
    let now = start();
    let (mut a, mut b) = pair(now);
    // Every tenth frame goes through the relay and is half a second late.
    let mut late = Vec::new();
    for at in 0..50_000 {
        let mut sealed = frame(&mut a, now, b"x");
        if at % 10 == 0 {
            late.push(sealed);
        } else {
            b.open(now, Leg::Direct, &mut sealed).unwrap();
        }
    }
    for (at, mut sealed) in late.into_iter().enumerate() {
        let opened = b.open(now, Leg::Relay, &mut sealed).unwrap();
        assert!(opened.freshness.newest_on_leg, "late frame {at} is the relay leg's newest all the same");
    }
}

#[test]
fn keys_are_rejected_after_180_seconds_in_both_directions() {
    let now = start();
    let (mut a, mut b) = pair(now);
    let mut early = frame(&mut a, now, b"x");
    let mut just_in_time = frame(&mut a, now + REJECT_AFTER - Duration::from_millis(1), b"x");
    let later = now + REJECT_AFTER;
    assert!(b.open(later - Duration::from_millis(1), Leg::Direct, &mut just_in_time).is_ok());
    assert_eq!(b.open(later, Leg::Direct, &mut early), Err(OpenError::Expired));
    let mut out = vec![7];
    assert_eq!(a.seal(later, &[3], b"x", &mut out), Err(SessionError::Expired));
    assert_eq!(out, [7]);
}

#[test]
fn the_counter_ends_long_before_it_wraps() {
    let now = start();
    let (mut a, mut b) = pair(now);
    a.set_counter(REKEY_AFTER_MESSAGES);
    assert!(a.is_spent() && !a.is_expired(now));
    a.set_counter(REJECT_AFTER_MESSAGES - 1);
    let mut last = frame(&mut a, now, b"x");
    assert!(b.open(now, Leg::Direct, &mut last).is_ok());
    assert_eq!(a.seal(now, &[3], b"x", &mut Vec::new()), Err(SessionError::Expired));
}

#[test]
fn a_clock_that_steps_back_is_no_panic() {
    let now = start() + Duration::from_secs(1000);
    let (mut a, mut b) = pair(now);
    let before = now - Duration::from_secs(500);
    let mut sealed = frame(&mut a, before, b"x");
    assert!(b.open(before, Leg::Direct, &mut sealed).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_refused_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let now = start();
        let (_, mut b) = pair(now);
        prop_assert!(b.open(now, Leg::Direct, &mut bytes).is_err());
    }
}
