//! An outsider that has captured inits and sends them again, to learn where we are.

use std::time::Duration;

use rand_core::Rng as _;

use super::super::*;
use super::abuse::{INIT_MAC1, INIT_MAC2, direct, init_by, secret};
use super::world::{HUB, UNIX, World, config, ticket};
use crate::net::secure::noise::{Responder, StaticKey};

const SECOND: Duration = Duration::from_secs(1);
const OUTSIDER: &str = "203.0.113.66:6666";

/// The timestamp of a captured init to node 1, which only node 1 can read.
fn stamp_of(world: &World, init: &[u8]) -> [u8; 12] {
    let key = StaticKey::new(Backend::DEFAULT, &world.nodes[1].config.key).unwrap();
    let mut responder =
        Responder::peek(&key, &ticket().mesh.prologue(), [1; 32], &init[5..INIT_MAC1]).unwrap();
    let mut payload = [0; frames::INIT_PAYLOAD_LEN];
    responder.admit(None, &mut payload).unwrap();
    frames::InitPayload::decode(&payload).timestamp
}

#[test]
fn a_captured_init_draws_silence_once_its_copies_have_come() {
    let mut world = World::pair(70);
    let init = world.frames(frames::INIT)[0].bytes.clone();
    let dh = world.stats(1).dh;
    world.run(ANSWER_LIFE);
    for port in 0..1_000 {
        let from = Source::direct(([203, 0, 113, 66], port).into());
        assert!(world.inject(1, from, &init).is_empty(), "not even a cookie");
    }
    let stats = world.stats(1);
    assert_eq!((stats.repeated, stats.dh, stats.cookie_demanded), (1_000, dh, 0));
}

#[test]
fn an_init_from_before_our_start_draws_silence_and_takes_no_slot() {
    let mut world = World::pair(71);
    world.run(Duration::from_secs(500));
    let inits = world.frames(frames::INIT);
    assert!(inits.len() > 4, "the session was rekeyed");
    let now = UNIX + (world.now - world.start);
    world.restart(1, now);
    let (peer, at) = (world.nodes[0].key, world.now);
    world.nodes[1].endpoint.forget(at, &peer);
    let floor = timestamp::stamp(now - remembered::CLOCKS_DIFFER);
    for packet in &inits {
        assert!(stamp_of(&world, &packet.bytes) < floor);
        for _ in 0..30 {
            assert!(world.inject(1, direct(OUTSIDER), &packet.bytes).is_empty());
        }
    }
    assert_eq!(world.nodes[1].endpoint.peers().count(), 0);
    let stats = world.stats(1);
    assert_eq!((stats.stale_unvouched, stats.repeated), (inits.len() as u64, inits.len() as u64 * 29));
    world.send(0, 1, b"unanswered").unwrap();
    assert!(world.run_until(Duration::from_secs(10), World::both_open), "the real peer is let in");
}

#[test]
fn an_init_of_a_peer_that_was_forgotten_draws_silence() {
    let mut world = World::new(72, 2);
    let (_, first) = init_by(&world, &secret(5), 8, [0; 16]);
    let (_, captured) = init_by(&world, &secret(5), 7, [0; 16]);
    let (_, next) = init_by(&world, &secret(5), 9, [0; 16]);
    assert_eq!(world.inject(1, direct(OUTSIDER), &first).len(), 1);
    let now = world.now;
    world.nodes[1].endpoint.forget(now, &secret(5).public());
    for replayed in [&first, &captured] {
        assert!(world.inject(1, direct(OUTSIDER), replayed).is_empty());
    }
    assert_eq!(world.inject(1, direct(OUTSIDER), &next).len(), 1);
}

#[test]
fn copies_within_ten_seconds_are_answered_within_the_budget_of_their_source() {
    let mut world = World::pair(73);
    let init = world.frames(frames::INIT)[0].bytes.clone();
    let answers = (0..1_000).map(|_| world.inject(1, direct(OUTSIDER), &init).len()).sum::<usize>();
    assert_eq!(answers, budget::Rates::OPEN.narrow.burst as usize);
    assert_eq!(world.stats(1).answers_limited, 1_000 - answers as u64);
    assert_eq!(world.inject(1, direct("198.51.100.1:1"), &init).len(), 1, "others have their own");
}

/// Who is vouched for, for an init whose timestamp is old.
#[test]
fn an_old_init_is_challenged_only_where_a_replay_can_not_come_from() {
    let mut world = World::new(74, 2);
    let key = secret(5);
    let own = key.public();
    let (_, fresh) = init_by(&world, &key, 9, [0; 16]);
    assert_eq!(world.inject(1, direct("198.51.100.1:1"), &fresh).len(), 1);
    let (_, stale) = init_by(&world, &key, 1, [0; 16]);
    // First over UDP, then by the hub: the copy by the hub counts, in whatever order they come.
    assert!(world.inject(1, direct(OUTSIDER), &stale).is_empty());
    assert!(
        world.inject(1, Source::relay(HUB, world.nodes[0].key), &stale).is_empty(),
        "another's registration"
    );
    let answer = world.inject(1, Source::relay(HUB, own), &stale);
    assert_eq!((answer.len(), answer[0].1[0]), (1, frames::COOKIE));
    assert!(world.inject(1, direct(OUTSIDER), &stale).is_empty());
    assert_eq!(world.stats(1).challenges_sent, 1);
}

#[test]
fn a_clock_far_behind_gets_in_by_the_hub_after_our_restart() {
    let (a, b) = (config(75, 0), config(75, 1));
    let mut world = World::of(vec![a, b], 75);
    world.restart(0, Duration::from_secs(1_000));
    world.relay(0, 1);
    world.connect(0, 1);
    assert!(world.run_until(SECOND, World::both_open));
    assert_eq!((world.stats(1).challenges_sent, world.stats(1).clocks_let_back), (1, 1));
    world.run(Duration::from_secs(400));
    assert!(world.both_open(), "rekeyed without another challenge");
    assert_eq!(world.stats(1).challenges_sent, 1);
}

#[test]
fn a_clock_far_behind_without_a_hub_gets_in_with_a_cookie_or_when_we_begin() {
    let (a, mut b) = (config(76, 0), config(76, 1));
    b.open_rates.global = budget::Rate { per_second: 0, burst: 0 };
    let mut world = World::of(vec![a, b], 76);
    world.restart(0, Duration::from_secs(1_000));
    // Node 1 doesn't know where node 0 is.
    let (peer, now) = (world.nodes[0].key, world.now);
    world.nodes[1].endpoint.forget(now, &peer);
    world.connect(0, 1);
    assert!(world.run_until(Duration::from_secs(2), World::both_open), "its cookie speaks for it");
    assert_eq!((world.stats(1).cookie_demanded, world.stats(1).clocks_let_back), (1, 1));

    let mut world = World::new(77, 2);
    world.restart(0, Duration::from_secs(1_000));
    let (peer, now) = (world.nodes[0].key, world.now);
    world.nodes[1].endpoint.forget(now, &peer);
    world.connect(0, 1);
    world.run(Duration::from_secs(30));
    assert!(!world.open(0, 1), "silence");
    world.introduce(1);
    world.connect(1, 0);
    assert!(world.run_until(SECOND, World::both_open), "the clock of who answers doesn't matter");
}

#[test]
fn what_a_peer_sent_before_its_clock_went_back_stays_old() {
    let mut world = World::pair(78);
    world.run(Duration::from_secs(300));
    let before = world.frames(frames::INIT);
    world.restart(0, UNIX - Duration::from_secs(86_400));
    world.connect(0, 1);
    world.run(Duration::from_secs(30));
    assert!(world.both_open());
    assert_eq!(world.stats(1).clocks_let_back, 1);
    let answered = world.stats(1).inits_answered;
    for packet in &before {
        assert!(world.inject(1, direct(OUTSIDER), &packet.bytes).is_empty());
    }
    assert_eq!(world.stats(1).inits_answered, answered);
}

/// Beyond the memory: an outsider with more captured inits than a source's budget is asked for a cookie, as anybody is
/// whose address sends too much. It is the one answer left, and needs more than 20 different inits at once.
#[test]
fn only_as_many_different_inits_as_a_budget_draw_a_cookie() {
    let mut world = World::new(79, 2);
    let burst = budget::Rates::OPEN.narrow.burst;
    let captured: Vec<_> = (0..burst + 5)
        .map(|_| {
            let (_, mut init) = init_by(&world, &secret(6), 0, [0; 16]);
            init[1..5].copy_from_slice(&world.rng.next_u32().to_le_bytes());
            let mac1 = mac::mac(&ticket().generations()[0].mac1_key(&world.nodes[1].key), &init[..INIT_MAC1]);
            init[INIT_MAC1..INIT_MAC2].copy_from_slice(&mac1);
            init
        })
        .collect();
    let answers = captured.iter().map(|init| world.inject(1, direct(OUTSIDER), init).len());
    assert_eq!(answers.sum::<usize>(), 5);
    let again = captured[..burst as usize].iter();
    assert_eq!(again.map(|init| world.inject(1, direct(OUTSIDER), init).len()).sum::<usize>(), 0);
}
