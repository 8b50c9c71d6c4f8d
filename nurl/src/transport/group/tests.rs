use std::collections::BTreeSet;
use std::time::Instant;

use proptest::prelude::*;
use rand_core::SeedableRng;

use super::*;
use crate::key::AllowList;
use crate::mesh::{Generation, Hub, Ticket};
use crate::rt::Rng;

fn key(n: u8) -> PublicKey {
    PublicKey::from_bytes([n; 32])
}

/// The mesh's generations after `rotations` new secrets, the current one first.
fn generations(rotations: u8) -> Vec<Generation> {
    let mut rng = Rng::from_seed([1; 32]);
    let mut ticket = Ticket::generate(
        crate::mesh::MeshId::from_bytes([1; 32]),
        Hub { key: key(200), addr: "hub:1".into() },
        &mut rng,
    );
    for _ in 0..rotations {
        let new = crate::mesh::MeshSecret::generate(&mut rng);
        ticket.previous = Some(std::mem::replace(&mut ticket.current, new));
    }
    ticket.generations()
}

fn node(n: u8, boot: u64) -> Groups {
    let mut node = Groups::new(key(n), boot, generations(0), Rng::from_seed([n; 32]));
    node.join("jobs", None).unwrap();
    node
}

fn only(keys: &[u8]) -> Option<AllowList> {
    Some(AllowList::Only(keys.iter().map(|n| key(*n)).collect()))
}

fn seal(sender: &mut Groups, now: Instant, name: &str, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    sender.seal(now, name, body, &mut frame).unwrap();
    frame
}

/// Carries channel-4 messages between two nodes until nothing is left.
fn exchange(now: Instant, a: (u8, &mut Groups), b: (u8, &mut Groups)) {
    loop {
        let (from_a, from_b) = (a.1.poll_transmit(), b.1.poll_transmit());
        if from_a.is_none() && from_b.is_none() {
            return;
        }
        if let Some((to, body)) = from_a {
            assert_eq!(to, key(b.0));
            b.1.handle_key_message(now, key(a.0), true, &body);
        }
        if let Some((to, body)) = from_b {
            assert_eq!(to, key(a.0));
            a.1.handle_key_message(now, key(b.0), true, &body);
        }
    }
}

/// A sender, and a receiver that has pulled its key.
fn acquainted(now: Instant) -> (Groups, Groups) {
    let (mut sender, mut receiver) = (node(1, 11), node(2, 22));
    receiver.pull(now, "jobs", key(1)).unwrap();
    exchange(now, (1, &mut sender), (2, &mut receiver));
    (sender, receiver)
}

fn bodies(receiver: &mut Groups) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| receiver.poll_event()).map(|GroupEvent::Received { body, .. }| body).collect()
}

fn now() -> Instant {
    crate::rt::time::now()
}

#[test]
fn the_relay_sees_no_plaintext_and_no_name() {
    let mut sender = node(1, 11);
    for name in ["jobs", MESH_GROUP] {
        let frame = seal(&mut sender, now(), name, b"the secret plan of the jobs group");
        for plain in [&b"secret"[..], b"jobs"] {
            assert!(!frame.windows(plain.len()).any(|window| window == plain));
        }
    }
}

#[test]
fn a_mesh_frame_needs_no_pulling() {
    let (mut sender, mut receiver) = (node(1, 11), node(2, 22));
    let frame = seal(&mut sender, now(), MESH_GROUP, b"I am here");
    assert_eq!(receiver.handle_frame(now(), &frame), FrameOutcome::Received);
    let event = receiver.poll_event();
    assert_eq!(
        event,
        Some(GroupEvent::Received { group: String::new(), sender: key(1), body: b"I am here".into() })
    );
    assert_eq!(receiver.handle_frame(now(), &frame), FrameOutcome::Replayed);
    assert_eq!(receiver.poll_transmit(), None);
}

#[test]
fn a_stranger_to_the_mesh_secret_cannot_send_to_the_mesh_group() {
    let mut receiver = node(2, 22);
    let mut frame = seal(&mut node(1, 11), now(), MESH_GROUP, b"I am here");
    let last = frame.len() - 1;
    frame[last] ^= 1;
    assert_eq!(receiver.handle_frame(now(), &frame), FrameOutcome::Forged);
    assert!(receiver.poll_event().is_none());
}

#[test]
fn a_pulled_key_opens_what_is_sent_after_it() {
    let (mut sender, mut receiver) = acquainted(now());
    let frame = seal(&mut sender, now(), "jobs", b"one");
    assert_eq!(receiver.handle_frame(now(), &frame), FrameOutcome::Received);
    assert_eq!(receiver.handle_frame(now(), &frame), FrameOutcome::Replayed);
    assert_eq!(bodies(&mut receiver), [b"one"]);
}

#[test]
fn an_unknown_sender_is_asked_and_later_frames_wait_for_the_answer() {
    let now = now();
    let (mut sender, mut receiver) = (node(1, 11), node(2, 22));
    let first = seal(&mut sender, now, "jobs", b"first");
    assert_eq!(receiver.handle_frame(now, &first), FrameOutcome::Waiting);
    let (to, request) = receiver.poll_transmit().unwrap();
    assert_eq!(to, key(1));
    sender.handle_key_message(now, key(2), true, &request);
    // This frame was sent after the answer, and overtakes it.
    let second = seal(&mut sender, now, "jobs", b"second");
    assert_eq!(receiver.handle_frame(now, &second), FrameOutcome::Waiting);
    exchange(now, (1, &mut sender), (2, &mut receiver));
    assert_eq!(bodies(&mut receiver), [b"second"], "the first lies before the counter of the answer");
    assert_eq!(receiver.poll_timeout(), None);
}

#[test]
fn a_restarted_receiver_is_never_fed_old_frames() {
    let now = now();
    let (mut sender, mut receiver) = acquainted(now);
    let old: Vec<_> = (0..5).map(|n| seal(&mut sender, now, "jobs", &[n])).collect();
    for frame in &old {
        receiver.handle_frame(now, frame);
    }
    let mut restarted = node(2, 23);
    restarted.handle_frame(now, &old[0]);
    exchange(now, (1, &mut sender), (2, &mut restarted));
    for frame in &old {
        assert_eq!(restarted.handle_frame(now, frame), FrameOutcome::Replayed);
    }
    assert!(bodies(&mut restarted).is_empty());
    let new = seal(&mut sender, now, "jobs", b"new");
    assert_eq!(restarted.handle_frame(now, &new), FrameOutcome::Received);
}

#[test]
fn the_same_key_told_again_never_reopens_its_window() {
    let now = now();
    let (mut sender, mut receiver) = (node(1, 11), node(2, 22));
    receiver.pull(now, "jobs", key(1)).unwrap();
    let (_, request) = receiver.poll_transmit().unwrap();
    sender.handle_key_message(now, key(2), true, &request);
    let (_, answer) = sender.poll_transmit().unwrap();
    receiver.handle_key_message(now, key(1), true, &answer);
    let frame = seal(&mut sender, now, "jobs", b"one");
    assert_eq!(receiver.handle_frame(now, &frame), FrameOutcome::Received);
    receiver.handle_key_message(now, key(1), true, &answer);
    assert_eq!(receiver.handle_frame(now, &frame), FrameOutcome::Replayed);
}

#[test]
fn a_newer_boot_voids_older_keys() {
    let now = now();
    let (mut sender, mut receiver) = acquainted(now);
    let old = seal(&mut sender, now, "jobs", b"old");
    let old_mesh = seal(&mut sender, now, MESH_GROUP, b"old");
    let mut restarted = node(1, 12);
    receiver.on_established(key(1), 12);
    assert_eq!(receiver.handle_frame(now, &old), FrameOutcome::Voided);
    assert_eq!(receiver.handle_frame(now, &old_mesh), FrameOutcome::Voided);
    receiver.pull(now, "jobs", key(1)).unwrap();
    exchange(now, (1, &mut restarted), (2, &mut receiver));
    let new = seal(&mut restarted, now, "jobs", b"new");
    assert_eq!(receiver.handle_frame(now, &new), FrameOutcome::Received);
    assert_eq!(bodies(&mut receiver), [b"new"]);
}

#[test]
fn a_forger_without_the_key_is_refused() {
    let now = now();
    let (mut sender, mut receiver) = acquainted(now);
    let mut frame = seal(&mut sender, now, "jobs", b"one");
    // A frame of another sender under this sender's name.
    let mut forged = seal(&mut node(3, 33), now, "jobs", b"lie");
    forged[17..73].copy_from_slice(&frame[17..73]);
    assert_eq!(receiver.handle_frame(now, &forged), FrameOutcome::Forged);
    // A refused frame doesn't use up its counter.
    assert_eq!(receiver.handle_frame(now, &frame), FrameOutcome::Received);
    frame[72] ^= 1;
    assert_eq!(receiver.handle_frame(now, &frame), FrameOutcome::Forged);
    assert_eq!(bodies(&mut receiver), [b"one"]);
}

#[test]
fn a_key_is_told_to_members_or_to_the_list_only() {
    let now = now();
    let mut sender = node(1, 11);
    let ask = |sender: &mut Groups, from, live| {
        let tag = sender.groups_tag("jobs");
        sender.handle_key_message(now, key(from), live, &message::request(&tag));
        sender.poll_transmit().is_some()
    };
    assert!(ask(&mut sender, 2, true));
    assert!(!ask(&mut sender, 2, false));
    sender.join("jobs", only(&[2])).unwrap();
    assert!(ask(&mut sender, 2, false));
    assert!(!ask(&mut sender, 3, true));
    assert_eq!(sender.stats().requests_refused, 2);
}

#[test]
fn a_sender_off_the_list_is_refused_whatever_it_knows() {
    let now = now();
    let (mut sender, mut receiver) = acquainted(now);
    receiver.join("jobs", only(&[2, 3])).unwrap();
    let frame = seal(&mut sender, now, "jobs", b"one");
    assert_eq!(receiver.handle_frame(now, &frame), FrameOutcome::SenderRefused);
}

#[test]
fn whose_pass_was_revoked_reads_nothing_from_then_on() {
    let begin = now();
    let (mut sender, mut revoked) = acquainted(begin);
    sender.expel(&key(2));
    let after = seal(&mut sender, begin, "jobs", b"after");
    assert_eq!(sender.stats().rotations, 1, "the key is young, and replaced all the same");
    assert_eq!(revoked.handle_frame(begin, &after), FrameOutcome::Waiting);
    assert!(sender.poll_transmit().is_none(), "nobody else had the old key");
    seal(&mut sender, begin, "jobs", b"more");
    assert_eq!(sender.stats().rotations, 1);
}

#[test]
fn who_is_taken_off_the_list_reads_nothing_after_the_rotation() {
    let begin = now();
    let (mut sender, mut removed) = acquainted(begin);
    let mut kept = node(3, 33);
    kept.pull(begin, "jobs", key(1)).unwrap();
    exchange(begin, (1, &mut sender), (3, &mut kept));
    sender.join("jobs", only(&[1, 3])).unwrap();
    // The key is replaced at most once a minute.
    let before = seal(&mut sender, begin, "jobs", b"before");
    assert_eq!(removed.handle_frame(begin, &before), FrameOutcome::Received);
    let later = begin + MIN_ROTATION;
    let after = seal(&mut sender, later, "jobs", b"after");
    assert_eq!(sender.stats().rotations, 1);
    // The frame overtakes the new key, and waits for it.
    assert_eq!(kept.handle_frame(later, &after), FrameOutcome::Waiting);
    exchange(later, (1, &mut sender), (3, &mut kept));
    assert_eq!(bodies(&mut kept), [b"after"]);
    assert_eq!(removed.handle_frame(later, &after), FrameOutcome::Waiting);
    let (_, request) = removed.poll_transmit().unwrap();
    sender.handle_key_message(later, key(2), true, &request);
    assert_eq!(sender.poll_transmit(), None);
    assert_eq!(bodies(&mut removed), [b"before"]);
}

#[test]
fn a_key_is_replaced_hourly_and_never_by_churn() {
    let begin = now();
    let (mut sender, mut receiver) = acquainted(begin);
    for n in 3..50 {
        let mut other = node(n, n.into());
        other.pull(begin, "jobs", key(1)).unwrap();
        exchange(begin, (1, &mut sender), (n, &mut other));
        sender.on_established(key(n), 1);
        sender.forget(&key(n));
    }
    seal(&mut sender, begin + ROTATION - Duration::from_secs(1), "jobs", b"x");
    assert_eq!(sender.stats().rotations, 0);
    let late = seal(&mut sender, begin + ROTATION - Duration::from_secs(1), "jobs", b"late");
    let new = seal(&mut sender, begin + ROTATION, "jobs", b"new");
    assert_eq!(sender.stats().rotations, 1);
    exchange(begin + ROTATION, (1, &mut sender), (2, &mut receiver));
    assert_eq!(receiver.handle_frame(begin + ROTATION, &new), FrameOutcome::Received);
    assert_eq!(
        receiver.handle_frame(begin + ROTATION, &late),
        FrameOutcome::Received,
        "the key before is kept"
    );
}

#[test]
fn a_new_mesh_secret_changes_tags_and_keys_and_the_old_ones_are_heard_for_a_generation() {
    let begin = now();
    let (mut sender, mut receiver) = acquainted(begin);
    let old = seal(&mut sender, begin, "jobs", b"old");
    let old_mesh = seal(&mut sender, begin, MESH_GROUP, b"old mesh");
    receiver.set_generations(generations(1));
    assert_eq!(receiver.tags().count(), 4);
    assert_eq!(receiver.handle_frame(begin, &old), FrameOutcome::Received);
    assert_eq!(receiver.handle_frame(begin, &old_mesh), FrameOutcome::Received);
    sender.set_generations(generations(1));
    let later = begin + MIN_ROTATION;
    let new = seal(&mut sender, later, "jobs", b"new");
    let new_mesh = seal(&mut sender, later, MESH_GROUP, b"new mesh");
    assert_ne!(old[1..17], new[1..17]);
    assert_eq!(sender.stats().rotations, 1);
    exchange(later, (1, &mut sender), (2, &mut receiver));
    assert_eq!(receiver.handle_frame(later, &new), FrameOutcome::Received);
    assert_eq!(receiver.handle_frame(later, &new_mesh), FrameOutcome::Received);
    // Two generations later, the first one is unknown.
    receiver.set_generations(generations(2));
    assert_eq!(receiver.handle_frame(later, &old_mesh), FrameOutcome::UnknownGroup);
}

#[test]
fn requests_are_repeated_and_given_up_and_their_frames_dropped() {
    let begin = now();
    let mut receiver = node(2, 22);
    let frame = seal(&mut node(1, 11), begin, "jobs", b"one");
    receiver.handle_frame(begin, &frame);
    let mut sent = 0;
    while let Some(at) = receiver.poll_timeout() {
        assert!(at <= begin + Duration::from_secs(10));
        while receiver.poll_transmit().is_some() {
            sent += 1;
        }
        receiver.handle_timeout(at);
    }
    assert_eq!(sent, REQUEST_TRIES);
    assert_eq!((receiver.stats().expired, receiver.stats().requests_failed), (1, 1));
}

#[test]
fn frames_that_wait_are_bounded_per_sender_and_in_all() {
    let now = now();
    let mut receiver = node(2, 22);
    let mut sender = node(1, 11);
    for n in 0..MAX_WAITING_PER_SENDER + 3 {
        let frame = seal(&mut sender, now, "jobs", b"x");
        let expected =
            if n < MAX_WAITING_PER_SENDER { FrameOutcome::Waiting } else { FrameOutcome::Overflow };
        assert_eq!(receiver.handle_frame(now, &frame), expected);
    }
    let waiting = (0..200u8).filter(|n| *n > 2).filter(|n| {
        let frame = seal(&mut node(*n, 1), now, "jobs", b"x");
        receiver.handle_frame(now, &frame) == FrameOutcome::Waiting
    });
    assert_eq!(waiting.count(), MAX_WAITING - MAX_WAITING_PER_SENDER);
    assert!(std::iter::from_fn(|| receiver.poll_transmit()).count() <= MAX_REQUESTS);
}

#[test]
fn requests_under_way_are_bounded() {
    let mut receiver = node(2, 22);
    for n in 0..=255u8 {
        receiver.pull(now(), "jobs", key(n)).unwrap();
    }
    assert_eq!(std::iter::from_fn(|| receiver.poll_transmit()).count(), MAX_REQUESTS);
}

#[test]
fn groups_names_and_bodies_are_bounded() {
    let mut node = Groups::new(key(1), 1, generations(0), Rng::from_seed([1; 32]));
    for n in 0..MAX_GROUPS {
        node.join(&format!("group {n}"), None).unwrap();
    }
    assert_eq!(node.join("one more", None), Err(GroupError::TooManyGroups));
    assert_eq!(node.join("group 3", only(&[1])), Ok(()));
    node.leave("group 3");
    assert_eq!(node.join("one more", None), Ok(()));
    assert_eq!(node.join("", None), Err(GroupError::Name));
    assert_eq!(node.join(&"x".repeat(MAX_NAME_BYTES + 1), None), Err(GroupError::Name));
    let mut frame = Vec::new();
    let len = MAX_BODY_BYTES + 1;
    assert_eq!(node.seal(now(), "one more", &vec![0; len], &mut frame), Err(GroupError::TooLarge { len }));
    assert_eq!(node.seal(now(), "group 3", b"", &mut frame), Err(GroupError::NotJoined));
    node.seal(now(), "one more", &[0; MAX_BODY_BYTES], &mut frame).unwrap();
    assert_eq!(frame.len(), MAX_FRAME_BYTES);
}

#[test]
fn leaving_a_group_forgets_its_keys_and_stays_out_of_its_frames() {
    let (mut sender, mut receiver) = acquainted(now());
    receiver.leave("jobs");
    let frame = seal(&mut sender, now(), "jobs", b"one");
    assert_eq!(receiver.handle_frame(now(), &frame), FrameOutcome::UnknownGroup);
    receiver.leave(MESH_GROUP);
    assert_eq!(receiver.tags().count(), 1, "the mesh group can't be left");
}

#[test]
fn the_table_of_senders_evicts_the_one_silent_longest() {
    let now = now();
    let mut receiver = node(2, 22);
    let wide = |n: u32| {
        let mut bytes = [9; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        PublicKey::from_bytes(bytes)
    };
    let frame = |n: u32| {
        let mut sender = Groups::new(wide(n), 1, generations_once(), Rng::from_seed([1; 32]));
        seal(&mut sender, now, MESH_GROUP, b"x")
    };
    for n in 0..=u32::try_from(MAX_SENDERS).unwrap() {
        assert_eq!(receiver.handle_frame(now, &frame(n)), FrameOutcome::Received);
        receiver.poll_event();
    }
    assert_eq!(receiver.stats().senders_evicted, 1);
    assert_eq!(receiver.handle_frame(now, &frame(1)), FrameOutcome::Replayed, "the second is still known");
}

fn generations_once() -> Vec<Generation> {
    static ONCE: std::sync::OnceLock<Vec<Generation>> = std::sync::OnceLock::new();
    ONCE.get_or_init(|| generations(0)).clone()
}

#[test]
fn tags_differ_by_name_and_by_generation() {
    let node = node(1, 1);
    let mut tags: BTreeSet<Tag> = node.tags().collect();
    let mut rotated = Groups::new(key(1), 1, generations(1), Rng::from_seed([1; 32]));
    rotated.join("jobs", None).unwrap();
    tags.extend(rotated.tags());
    assert_eq!(tags.len(), 4, "two names in two generations; the older one is shared");
}

#[test]
fn the_same_seed_gives_the_same_keys() {
    let frame = |_| seal(&mut node(1, 11), now(), "jobs", b"body");
    assert_eq!(frame(0), frame(1));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        tagged: bool,
    ) {
        let (_, mut receiver) = acquainted(now());
        let mut bytes = bytes;
        if tagged && bytes.len() >= 17 {
            bytes[0] = GROUP_FRAME;
            bytes[1..17].copy_from_slice(&receiver.groups_tag("jobs"));
        }
        prop_assert_ne!(receiver.handle_frame(now(), &bytes), FrameOutcome::Received);
        if tagged && bytes.len() >= 17 {
            bytes[0] = 1 + bytes[16] % 2;
        }
        receiver.handle_key_message(now(), key(1), true, &bytes);
        receiver.handle_timeout(now());
    }
}
