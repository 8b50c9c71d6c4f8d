//! The life of sessions: opening, rekeying, restarting, closing.

use std::time::Duration;

use super::super::*;
use super::world::{HUB, UNIX, World, config, ticket};
use crate::net::secure::route::{Route, Routes};
use crate::net::secure::session::{REJECT_AFTER, REKEY_AFTER};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn two_endpoints_shake_hands_and_exchange_data() {
    let mut world = World::pair(1);
    world.send(0, 1, b"ping").unwrap();
    world.send(1, 0, b"pong").unwrap();
    world.run(SECOND);
    let (a, b) = (world.nodes[0].key, world.nodes[1].key);
    assert_eq!(world.nodes[1].received, [(a, 3, b"ping".to_vec())]);
    assert_eq!(world.nodes[0].received, [(b, 3, b"pong".to_vec())]);
    let boot = world.nodes[1].config.boot;
    assert_eq!(world.nodes[0].events, [SessionEvent::Established { peer: b, boot, initiator: true }]);
    let boot = world.nodes[0].config.boot;
    assert_eq!(world.nodes[1].events, [SessionEvent::Established { peer: a, boot, initiator: false }]);
    assert!(world.same_session());
    assert_eq!(world.stats(1).dh, 4, "es and ss once, ee and se");
}

#[test]
fn sealing_without_a_session_begins_a_handshake() {
    let mut world = World::new(2, 2);
    assert_eq!(world.send(0, 1, b"x"), Err(SealError::NoSession));
    assert!(world.run_until(SECOND, World::both_open));
    world.send(0, 1, b"x").unwrap();
    world.run(SECOND);
    assert_eq!(world.nodes[1].received.len(), 1);
}

#[test]
fn the_responder_sends_no_data_before_the_confirm() {
    let mut world = World::new(3, 2);
    world.lose = Box::new(|packet| packet.bytes[0] == frames::DATA);
    world.connect(0, 1);
    world.run(Duration::from_millis(300));
    assert!(world.open(0, 1) && !world.open(1, 0));
    assert_eq!(world.send(1, 0, b"x"), Err(SealError::NoSession));
}

#[test]
fn a_lost_confirm_is_repeated_until_the_responder_is_heard() {
    let mut world = World::new(4, 2);
    let mut left = 3;
    world.lose = Box::new(move |packet| {
        let lost = packet.bytes[0] == frames::DATA && left > 0;
        left -= u32::from(lost);
        lost
    });
    world.connect(0, 1);
    assert!(world.run_until(Duration::from_secs(5), World::both_open));
    assert_eq!(world.frames(frames::INIT).len(), 1, "no second handshake was needed");
    let confirms = world.stats(0).confirms_sent;
    world.run(Duration::from_secs(60));
    assert!(world.stats(0).confirms_sent <= confirms + 1, "and then there is silence");
}

#[test]
fn a_lost_response_retransmits() {
    let mut world = World::new(5, 2);
    let mut first = true;
    world.lose =
        Box::new(move |packet| packet.bytes[0] == frames::RESPONSE && std::mem::replace(&mut first, false));
    world.connect(0, 1);
    assert!(world.run_until(SECOND, World::both_open));
    assert_eq!(world.frames(frames::RESPONSE).len(), 2);
}

#[test]
fn two_idle_peers_are_silent() {
    let mut world = World::relayed(6);
    world.connect(0, 1);
    assert!(world.run_until(SECOND, World::both_open));
    world.send(0, 1, b"one word").unwrap();
    world.run(Duration::from_secs(15));
    assert_eq!(world.path_stats(1).answers, 1, "the word is answered once");
    assert_eq!(world.path_stats(0).answers, 0, "and the answer isn't");
    let sent = world.sent.len();
    world.run(Duration::from_secs(100));
    assert_eq!(world.sent.len(), sent, "a relayed peer costs nothing");
}

#[test]
fn two_idle_peers_with_a_direct_path_only_keep_it_warm() {
    let mut world = World::pair(6);
    world.send(0, 1, b"one word").unwrap();
    world.run(Duration::from_secs(15));
    let sent = world.sent.len();
    world.run(Duration::from_secs(100));
    let each = 100 / paths::PathConfig::default().keepalive.as_secs() as usize;
    assert!(world.sent.len() - sent <= 2 * (each + 1), "{}", world.sent.len() - sent);
    assert!(world.path_stats(0).keepalives >= each as u64);
    assert_eq!((world.path_stats(0).answers, world.path_stats(1).answers), (0, 1), "none is answered");
}

#[test]
fn a_session_in_use_is_rekeyed_by_its_initiator_before_it_dies() {
    let mut world = World::pair(7);
    for _ in 0..400 {
        world.send(0, 1, b"x").unwrap();
        world.run(SECOND);
    }
    assert_eq!(world.nodes[1].received.len(), 400, "nothing was lost");
    assert_eq!(world.stats(0).rekeyed, 3);
    assert_eq!(world.stats(1).inits_sent, 0);
    assert_eq!(world.nodes[0].events.len(), 1, "a rekeying is nobody else's business");
    assert!(world.same_session());
}

#[test]
fn an_unused_session_expires_and_says_so() {
    let mut world = World::new(8, 2);
    let _ = world.send(0, 1, b"x");
    assert!(world.run_until(SECOND, World::both_open));
    world.run(REJECT_AFTER + SECOND);
    let peer = world.nodes[1].key;
    assert_eq!(world.nodes[0].events[1], SessionEvent::Closed { peer, reason: CloseReason::Expired });
    assert!(!world.open(0, 1) && !world.open(1, 0));
    assert_eq!(world.frames(frames::INIT).len(), 1);
    assert_eq!(world.send(0, 1, b"x"), Err(SealError::NoSession));
    assert!(world.run_until(SECOND, World::both_open), "and comes back when it is wanted");
}

#[test]
fn a_kept_session_is_rekeyed_also_when_idle() {
    let mut world = World::pair(9);
    world.run(REKEY_AFTER * 5);
    assert!(world.both_open());
    assert_eq!(world.stats(0).rekeyed, 4);
}

#[test]
fn nothing_is_sealed_or_opened_with_keys_past_their_reject_time() {
    let mut world = World::pair(10);
    let mut early = Vec::new();
    let peer = world.nodes[1].key;
    world.nodes[0].endpoint.seal(world.now, &peer, 3, b"x", &mut early).unwrap();
    // No timers run: the check is made on the frame itself.
    world.now += REJECT_AFTER;
    let from = Source::direct(world.nodes[0].addr);
    world.inject(1, from, &early);
    assert_eq!(world.stats(1).expired, 1);
    let sealed = world.nodes[0].endpoint.seal(world.now, &peer, 3, b"x", &mut Vec::new());
    assert_eq!(sealed, Err(SealError::NoSession));
}

#[test]
fn simultaneous_initiation_converges_on_one_session() {
    for seed in 100..130 {
        let mut world = World::new(seed, 2);
        world.delay_ms = 10..80;
        world.loss_percent = if seed % 2 == 0 { 0 } else { 20 };
        world.connect(0, 1);
        world.connect(1, 0);
        assert!(world.run_until(Duration::from_secs(30), World::both_open), "seed {seed}");
        world.loss_percent = 0;
        world.run(SECOND);
        for round in 0..4 {
            world.send(0, 1, b"x").unwrap();
            world.send(1, 0, b"x").unwrap();
            world.run(Duration::from_millis(200));
            assert_eq!(world.nodes[0].received.len(), round + 1, "seed {seed}");
            assert_eq!(world.nodes[1].received.len(), round + 1, "seed {seed}");
        }
        assert!(world.same_session(), "seed {seed}");
        for node in &world.nodes {
            let opened = node.events.iter().filter(|event| matches!(event, SessionEvent::Established { .. }));
            assert_eq!(opened.count(), 1, "seed {seed}");
        }
    }
}

#[test]
fn a_tie_is_really_reached_and_the_smaller_key_wins() {
    let mut world = World::new(11, 2);
    world.connect(0, 1);
    world.connect(1, 0);
    world.run(SECOND);
    assert!(world.stats(0).tie_breaks + world.stats(1).tie_breaks > 0);
    assert!(world.same_session());
    let smaller = usize::from(world.nodes[1].key < world.nodes[0].key);
    let other = world.nodes[1 - smaller].key;
    assert!(world.nodes[smaller].endpoint.began_current(&other));
}

#[test]
fn a_restarted_peer_is_told_apart_by_its_boot() {
    let mut world = World::pair(12);
    world.restart(1, UNIX + Duration::from_secs(60));
    world.connect(1, 0);
    assert!(world.run_until(SECOND, |world| world.nodes[0].events.len() == 3));
    let (peer, boot) = (world.nodes[1].key, world.nodes[1].config.boot);
    assert_eq!(
        world.nodes[0].events[1..],
        [
            SessionEvent::PeerRestarted { peer, boot },
            SessionEvent::Established { peer, boot, initiator: false }
        ]
    );
    world.send(0, 1, b"x").unwrap();
    world.run(SECOND);
    assert_eq!(world.nodes[1].received.len(), 1);
}

#[test]
fn what_was_proven_with_a_process_that_is_gone_has_to_be_proven_again() {
    let mut world = World::pair(25);
    world.relay(0, 1);
    world.run(SECOND);
    assert!(world.path_state(0).direct);
    // The new process is behind another port, and only the hub reaches it.
    world.nodes[1].addr.set_port(9);
    world.restart(1, UNIX + SECOND);
    world.relay(0, 1);
    world.connect(1, 0);
    world.lose = Box::new(|packet| packet.source.route.is_direct());
    assert!(world.run_until(SECOND, |world| world.nodes[0].events.len() == 3));
    assert!(!world.path_state(0).direct);
    world.send(0, 1, b"at once").unwrap();
    world.run(Duration::from_millis(50));
    assert_eq!(world.nodes[1].received.len(), 1);
}

#[test]
fn a_silently_restarted_peer_is_found_within_seconds_of_the_first_send() {
    let mut world = World::pair(13);
    world.run(Duration::from_secs(20));
    world.restart(1, UNIX);
    world.send(0, 1, b"into the void").unwrap();
    assert!(world.run_until(UNANSWERED + SECOND, |world| world.open(1, 0)));
    world.run(SECOND);
    let (peer, boot) = (world.nodes[1].key, world.nodes[1].config.boot);
    assert!(world.nodes[0].events.contains(&SessionEvent::PeerRestarted { peer, boot }));
}

#[test]
fn frames_on_the_session_before_are_no_answer_to_the_current_one() {
    let mut world = World::pair(22);
    world.run(REKEY_AFTER - SECOND);
    // From here on no frame that node 0 seals arrives, so node 1 never leaves the old session. Node 1's
    // own handshake fails too.
    world.lose = Box::new(|packet| packet.bytes[0] == [frames::INIT, frames::DATA][packet.to]);
    for _ in 0..35 {
        world.send(0, 1, b"x").unwrap();
        world.send(1, 0, b"y").unwrap();
        world.run(SECOND / 5);
    }
    assert!(world.nodes[0].received.len() > 30, "node 1 is heard all the time");
    assert!(world.stats(0).inits_sent >= 3, "the first, the rekeying, and one for the silence on it");
}

#[test]
fn a_close_ends_both_sides_at_once() {
    let mut world = World::pair(14);
    let (a, b) = (world.nodes[0].key, world.nodes[1].key);
    let now = world.now;
    world.nodes[0].endpoint.close(now, &b);
    world.run(SECOND);
    assert_eq!(world.nodes[0].events[1], SessionEvent::Closed { peer: b, reason: CloseReason::Local });
    assert_eq!(world.nodes[1].events[1], SessionEvent::Closed { peer: a, reason: CloseReason::Remote });
    assert!(!world.open(0, 1) && !world.open(1, 0));
}

#[test]
fn last_words_that_the_close_overtakes_are_heard_for_a_second() {
    let mut world = World::pair(24);
    let (a, b, now) = (world.nodes[0].key, world.nodes[1].key, world.now);
    let from = Source::direct(world.nodes[0].addr);
    let words = [&b"goodbye"[..], b"too late"].map(|body| {
        let mut frame = Vec::new();
        world.nodes[0].endpoint.seal(now, &b, channel::APPLICATION, body, &mut frame).unwrap();
        frame
    });
    world.nodes[0].endpoint.close(now, &b);
    let mut close = Vec::new();
    world.nodes[0].endpoint.poll_transmit(&mut close).unwrap();

    world.inject(1, from, &close);
    assert!(!world.open(1, 0));
    let answers = world.inject(1, from, &words[0]);
    assert!(answers.is_empty() && !world.open(1, 0), "a session that is closed answers nothing");
    assert_eq!(world.nodes[1].received, [(a, channel::APPLICATION, b"goodbye".to_vec())]);
    world.inject(1, from, &words[0]);
    assert_eq!(world.nodes[1].received.len(), 1, "a replay is none of them");
    world.run(SECOND + SECOND);
    world.inject(1, from, &words[1]);
    assert_eq!(world.nodes[1].received.len(), 1);
}

#[test]
fn a_late_close_of_the_session_before_does_not_end_the_present_one() {
    let mut world = World::pair(23);
    let (peer, now) = (world.nodes[1].key, world.now);
    world.nodes[0].endpoint.close(now, &peer);
    let mut close = Vec::new();
    world.nodes[0].endpoint.poll_transmit(&mut close).unwrap();
    world.connect(0, 1);
    assert!(world.run_until(SECOND, |world| world.stats(1).rekeyed == 1));
    let from = Source::direct(world.nodes[0].addr);
    world.inject(1, from, &close);
    assert!(world.both_open());
    world.send(1, 0, b"x").unwrap();
    world.run(SECOND);
    assert_eq!(world.nodes[0].received.len(), 1);
}

#[test]
fn an_endpoint_can_live_on_the_network_thread() {
    fn assert_send<T: Send>() {}
    assert_send::<Endpoint>();
}

#[test]
fn a_peer_that_never_answers_fails_after_ninety_seconds_and_is_tried_again() {
    let mut world = World::new(15, 2);
    world.lose = Box::new(|_| true);
    world.connect(0, 1);
    let peer = world.nodes[1].key;
    world.run(Duration::from_secs(89));
    assert_eq!(world.nodes[0].events, []);
    world.run(Duration::from_secs(2));
    assert_eq!(world.nodes[0].events, [SessionEvent::HandshakeFailed { peer }]);
    let tries = world.stats(0).inits_sent;
    assert!((15..30).contains(&tries), "{tries}");
    world.lose = Box::new(|_| false);
    assert!(world.run_until(Duration::from_secs(40), World::both_open));
}

#[test]
fn an_attempt_is_repeated_at_once_when_a_relay_appears() {
    let mut world = World::new(16, 2);
    world.lose = Box::new(|packet| packet.source.relay_src.is_none());
    world.connect(0, 1);
    world.run(Duration::from_secs(20));
    world.relay(0, 1);
    assert!(world.run_until(Duration::from_millis(100), |world| world.open(0, 1)));
    assert!(world.run_until(Duration::from_millis(100), World::both_open));
    world.send(0, 1, b"by the hub").unwrap();
    world.run(SECOND);
    assert_eq!(world.nodes[1].received.len(), 1);
    let peer = world.nodes[1].key;
    let routes = world.nodes[0].endpoint.paths(&peer).unwrap().routes();
    assert_eq!(routes, Routes::one(Route::Relay(HUB)), "lost on every other way");
}

#[test]
fn generations_rotate_in_both_directions() {
    let both = ticket().generations();
    let (new, old) = (both[0].clone(), both[1].clone());
    for (first, second) in [
        (vec![new.clone(), old.clone()], vec![old.clone()]),
        (vec![old.clone()], vec![new.clone(), old.clone()]),
        (vec![new.clone(), old.clone()], vec![old.clone(), new.clone()]),
    ] {
        let (mut a, mut b) = (config(17, 0), config(17, 1));
        (a.generations, b.generations) = (first, second);
        let mut world = World::of(vec![a, b], 17);
        world.connect(0, 1);
        assert!(world.run_until(Duration::from_secs(2), World::both_open));
    }
    let (mut a, mut b) = (config(17, 0), config(17, 1));
    (a.generations, b.generations) = (vec![new], vec![old]);
    let mut world = World::of(vec![a, b], 17);
    world.connect(0, 1);
    world.run(Duration::from_secs(30));
    assert!(!world.open(0, 1), "without a common secret there is none");
    let now_common = world.nodes[0].config.generations.clone();
    world.nodes[1].endpoint.set_generations(now_common);
    assert!(
        world.run_until(Duration::from_secs(6), World::both_open),
        "a rotation reaches a running attempt"
    );
}

#[test]
fn a_changed_psk_reaches_a_handshake_that_already_runs() {
    let mut world = World::new(18, 2);
    let (a, b, now) = (world.nodes[0].key, world.nodes[1].key, world.now);
    world.nodes[1].endpoint.set_psk(now, &a, Some([5; 32])).unwrap();
    world.connect(0, 1);
    world.run(Duration::from_millis(30));
    world.nodes[0].endpoint.set_psk(now, &b, Some([5; 32])).unwrap();
    assert!(world.run_until(Duration::from_millis(100), World::both_open));
    assert_eq!(world.frames(frames::INIT).len(), 1);

    let mut world = World::new(18, 2);
    world.nodes[1].endpoint.set_psk(now, &a, Some([5; 32])).unwrap();
    world.connect(0, 1);
    world.run(Duration::from_secs(5));
    assert!(!world.open(0, 1), "only one side has it");
    assert!(world.stats(0).handshake_forged > 0);
}

#[test]
fn the_allow_list_holds_and_a_change_ends_sessions() {
    let mut world = World::pair(19);
    let (a, b, now) = (world.nodes[0].key, world.nodes[1].key, world.now);
    let only = crate::key::AllowList::Only([b].into());
    world.nodes[1].endpoint.set_allow(now, only.clone());
    world.run(SECOND);
    assert!(
        world.nodes[1].events.contains(&SessionEvent::Closed { peer: a, reason: CloseReason::NotAllowed })
    );
    assert_eq!(world.send(1, 0, b"x"), Err(SealError::NotAllowed));
    let dh = world.stats(1).dh;
    world.connect(0, 1);
    world.send(0, 1, b"x").unwrap();
    world.run(Duration::from_secs(5));
    let stats = world.stats(1);
    assert!(stats.not_allowed > 0 && !world.open(1, 0));
    assert_eq!(stats.dh - dh, stats.not_allowed, "one agreement tells who it is, and no more is spent");
}

#[test]
fn a_body_over_the_limit_is_a_typed_error_and_the_limit_can_be_raised() {
    let mut world = World::pair(20);
    let large = vec![7; DEFAULT_BODY_BYTES + 1];
    assert_eq!(world.send(0, 1, &large), Err(SealError::TooLarge { max_bytes: DEFAULT_BODY_BYTES }));
    world.nodes[0].endpoint.set_max_body(usize::MAX);
    let largest = vec![7; frames::MAX_BODY_BYTES];
    world.send(0, 1, &largest).unwrap();
    assert!(world.send(0, 1, &[&largest[..], &[1]].concat()).is_err());
    world.run(SECOND);
    assert_eq!(world.nodes[1].received[0].2, largest);
}

#[test]
fn channel_zero_is_not_for_callers_nor_is_an_unknown_one() {
    let mut world = World::pair(21);
    let peer = world.nodes[1].key;
    for channel in [0, channel::REVOKED + 1, 255] {
        let now = world.now;
        let sealed = world.nodes[0].endpoint.seal(now, &peer, channel, b"x", &mut Vec::new());
        assert_eq!(sealed, Err(SealError::BadChannel));
    }
}

#[test]
fn every_channel_of_the_callers_passes() {
    let mut world = World::pair(24);
    let peer = world.nodes[1].key;
    let from = Source::direct(world.nodes[0].addr);
    let channels =
        [channel::MEMBERSHIP, channel::RELIABLE, channel::APPLICATION, channel::GROUP_KEYS, channel::ECHO];
    for channel in channels {
        let (now, mut sealed) = (world.now, Vec::new());
        world.nodes[0].endpoint.seal(now, &peer, channel, b"x", &mut sealed).unwrap();
        world.inject(1, from, &sealed);
    }
    let seen: Vec<u8> = world.nodes[1].received.iter().map(|(_, channel, _)| *channel).collect();
    assert_eq!(seen, channels);
}
