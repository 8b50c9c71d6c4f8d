//! Attacks and faults: strangers, replays, floods and broken networks.

use std::time::Duration;

use proptest::prelude::*;
use rand_core::{Rng as _, SeedableRng};

use super::super::*;
use super::world::{HUB, Packet, UNIX, World, addr, authority, config, instant, ticket};
use crate::authority::credential::Credential;
use crate::authority::level::Level;
use crate::authority::slip::Slip;
use crate::key::{PublicKey, SecretKey};
use crate::mesh::MeshSecret;
use crate::net::secure::noise::{Initiator, Responder, StaticKey};
use crate::net::secure::route::Route;
use crate::rt::Rng;

/// Offsets of the MACs.
pub(super) const INIT_MAC1: usize = frames::INIT_LEN - 32;
pub(super) const INIT_MAC2: usize = frames::INIT_LEN - 16;
const RESPONSE_MAC1: usize = frames::RESPONSE_LEN - 32;

const SECOND: Duration = Duration::from_secs(1);

/// An init to node 1 of `world`, by a key of its own, with the mesh's secret.
pub(super) fn init_by(
    world: &World,
    key: &SecretKey,
    timestamp: u8,
    challenge: [u8; 16],
) -> (Initiator, Vec<u8>) {
    let shown = authority().mint(key.public(), Level::Worker, UNIX.as_secs() as u32);
    init_showing(world, key, timestamp, challenge, &shown)
}

/// The same with these versions.
pub(super) fn init_saying(
    world: &World,
    key: &SecretKey,
    timestamp: u8,
    challenge: [u8; 16],
    versions: [u8; 2],
) -> (Initiator, Vec<u8>) {
    let shown = authority().mint(key.public(), Level::Worker, UNIX.as_secs() as u32);
    init_of(world, key, timestamp, challenge, (&shown, versions))
}

/// The same with this standing.
fn init_showing(
    world: &World,
    key: &SecretKey,
    timestamp: u8,
    challenge: [u8; 16],
    shown: &Credential,
) -> (Initiator, Vec<u8>) {
    init_of(world, key, timestamp, challenge, (shown, [2; 2]))
}

fn init_of(
    world: &World,
    key: &SecretKey,
    timestamp: u8,
    challenge: [u8; 16],
    (shown, versions): (&Credential, [u8; 2]),
) -> (Initiator, Vec<u8>) {
    let shown = shown.show();
    let key = StaticKey::new(Backend::DEFAULT, key).unwrap();
    let to = world.nodes[1].key;
    let payload =
        frames::InitPayload { timestamp: [timestamp; 12], boot: 99, versions, features: 0, challenge, shown }
            .encode();
    let mut frame = vec![frames::INIT, 9, 9, 9, 9];
    let prologue = ticket().mesh.prologue();
    let noise = Initiator::start(&key, &to, None, &prologue, [timestamp; 32], &payload, &mut frame).unwrap();
    let mac1 = mac::mac(&ticket().generations()[0].mac1_key(&to), &frame);
    frame.extend_from_slice(&mac1);
    frame.extend_from_slice(&[0; 16]);
    (noise, frame)
}

pub(super) fn secret(seed: u64) -> SecretKey {
    SecretKey::generate(&mut Rng::seed_from_u64(seed))
}

pub(super) fn direct(text: &str) -> Source {
    Source::direct(text.parse().unwrap())
}

#[test]
fn a_replayed_message_1_neither_replaces_the_session_nor_moves_anything() {
    let mut world = World::pair(30);
    let init = world.frames(frames::INIT)[0].bytes.clone();
    let key = world.nodes[0].key;
    let before = world.nodes[1].endpoint.current_indices(&key);
    let routes = world.nodes[1].endpoint.paths(&key).unwrap().routes();
    let attacker = direct("203.0.113.66:6666");
    // At once the cache answers; later, when the entry is gone, it is a replay.
    for wait in [Duration::ZERO, ANSWER_LIFE, REKEY_AFTER_AS_RESPONDER / 2] {
        world.run(wait);
        world.inject(1, attacker, &init);
        assert_eq!(world.nodes[1].endpoint.current_indices(&key), before);
        assert_eq!(world.nodes[1].endpoint.paths(&key).unwrap().routes(), routes);
    }
    let stats = world.stats(1);
    assert_eq!((stats.answers_from_cache, stats.repeated, stats.inits_answered), (1, 2, 1));
    world.send(0, 1, b"still here").unwrap();
    world.send(1, 0, b"me too").unwrap();
    world.run(SECOND);
    assert_eq!((world.nodes[0].received.len(), world.nodes[1].received.len()), (1, 1));
    assert_eq!(world.nodes[1].events.len(), 1);
    let real = Some(Route::Direct(world.nodes[0].addr));
    assert!(world.nodes[1].paths.iter().all(|(_, event)| event.route == real));
}

#[test]
fn a_message_1_replayed_to_a_restarted_responder_is_no_session() {
    let mut world = World::pair(31);
    let init = world.frames(frames::INIT)[0].bytes.clone();
    world.restart(1, UNIX + SECOND);
    let answers = world.inject(1, direct("203.0.113.66:6666"), &init);
    assert_eq!(answers.len(), 1, "a clock may be so far behind, so it answers");
    assert!(!world.open(1, 0), "and waits for a confirm that never comes");
    assert_eq!(world.send(1, 0, b"x"), Err(SealError::NoSession));
    assert!(world.run_until(SECOND, World::both_open), "the real peer is reached all the same");
}

#[test]
fn a_forged_message_2_does_not_kill_a_pending_handshake() {
    let mut world = World::new(32, 2);
    let real: std::rc::Rc<std::cell::RefCell<Vec<Packet>>> = Default::default();
    let seen = real.clone();
    world.lose = Box::new(move |packet| {
        let caught = packet.bytes[0] == frames::RESPONSE && seen.borrow().is_empty();
        if caught {
            seen.borrow_mut().push(packet.clone());
        }
        caught
    });
    world.connect(0, 1);
    world.run(Duration::from_millis(100));
    let real = real.borrow()[0].clone();
    // A member that saw the index but has neither key forges with a valid mac1.
    let mac1_key = ticket().generations()[0].mac1_key(&world.nodes[0].key);
    for at in [9, 20, 45, 60] {
        let mut forged = real.bytes.clone();
        forged[at] ^= 1;
        let mac1 = mac::mac(&mac1_key, &forged[..RESPONSE_MAC1]);
        forged[RESPONSE_MAC1..][..16].copy_from_slice(&mac1);
        world.inject(0, real.source, &forged);
    }
    let mut bad_mac = real.bytes.clone();
    bad_mac[RESPONSE_MAC1 + 1] ^= 1;
    world.inject(0, real.source, &bad_mac);
    assert!(!world.open(0, 1));
    let stats = world.stats(0);
    assert_eq!((stats.handshake_forged, stats.bad_mac1), (4, 1));
    world.inject(0, real.source, &real.bytes);
    assert!(world.open(0, 1), "the real one still counts");
}

#[test]
fn forged_responses_are_looked_at_a_bounded_number_of_times() {
    let mut world = World::new(33, 2);
    world.lose = Box::new(|_| true);
    world.connect(0, 1);
    world.run(Duration::from_millis(10));
    let init = world.frames(frames::INIT)[0].bytes.clone();
    let mac1_key = ticket().generations()[0].mac1_key(&world.nodes[0].key);
    let dh = world.stats(0).dh;
    for n in 0..100u8 {
        let mut forged = vec![0x55; frames::RESPONSE_LEN];
        forged[0] = frames::RESPONSE;
        forged[5..9].copy_from_slice(&init[1..5]);
        forged[9] = n;
        let mac1 = mac::mac(&mac1_key, &forged[..RESPONSE_MAC1]);
        forged[RESPONSE_MAC1..][..16].copy_from_slice(&mac1);
        world.inject(0, direct("203.0.113.66:6666"), &forged);
    }
    let stats = world.stats(0);
    assert_eq!(stats.responses_limited, 100 - u64::from(attempt::MAX_RESPONSES));
    assert!(stats.dh - dh <= 2 * u64::from(attempt::MAX_RESPONSES));
}

#[test]
fn a_clock_that_went_back_is_let_in_through_the_challenge() {
    let mut world = World::pair(34);
    world.restart(0, UNIX - Duration::from_secs(86_400));
    world.connect(0, 1);
    let (key, boot) = (world.nodes[0].key, world.nodes[0].config.boot);
    assert!(world.run_until(SECOND, |world| {
        world.nodes[1].events.contains(&SessionEvent::Established { peer: key, boot, initiator: false })
    }));
    let (a, b) = (world.stats(0), world.stats(1));
    assert_eq!((b.stale_timestamp, b.challenges_sent, b.clocks_let_back), (1, 1, 1));
    assert_eq!((a.challenges_taken, a.cookies_taken, a.inits_sent), (1, 0, 2));

    // The init that carried the challenge can't be used a second time.
    let last = world.frames(frames::INIT).pop().unwrap();
    world.run(ANSWER_LIFE);
    world.inject(1, last.source, &last.bytes);
    assert_eq!(world.stats(1).clocks_let_back, 1);
    assert_eq!((world.stats(1).stale_timestamp, world.stats(1).repeated), (1, 1));
}

#[test]
fn challenges_are_rate_limited() {
    let mut world = World::pair(35);
    let key = secret(1);
    let (_, fresh) = init_by(&world, &key, 9, [0; 16]);
    let from = Source::relay(HUB, key.public());
    world.inject(1, from, &fresh);
    for timestamp in 1..9 {
        let (_, stale) = init_by(&world, &key, timestamp, [7; 16]);
        world.inject(1, from, &stale);
    }
    let stats = world.stats(1);
    assert_eq!((stats.stale_timestamp, stats.challenges_sent, stats.challenge_limited), (8, 1, 7));
}

#[test]
fn a_stranger_without_the_mesh_secret_gets_silence_and_costs_no_diffie_hellman() {
    let (mut a, b) = (config(36, 0), config(36, 1));
    let mut other = ticket();
    other.current = MeshSecret::from_bytes([1; 32]);
    other.previous = None;
    a.generations = other.generations();
    let mut world = World::of(vec![a, b], 36);
    world.connect(0, 1);
    world.run(Duration::from_secs(30));
    let stats = world.stats(1);
    assert!(stats.bad_mac1 >= 5);
    assert_eq!(
        stats,
        EndpointStats { bad_mac1: stats.bad_mac1, ..EndpointStats::default() },
        "nothing else happened"
    );
    assert!(world.sent.iter().all(|(_, packet)| packet.to == 1), "not a byte came back");
}

/// Spends node 1's budget for the /32 of `from`.
fn flood(world: &mut World, from: [u8; 4], count: u32) {
    let key = secret(99);
    let (_, frame) = init_by(world, &key, 1, [0; 16]);
    for _ in 0..count {
        // A different frame each time, or the cache would answer.
        let mut frame = frame.clone();
        frame[1..5].copy_from_slice(&world.rng.next_u32().to_le_bytes());
        let mac1 = mac::mac(&ticket().generations()[0].mac1_key(&world.nodes[1].key), &frame[..INIT_MAC1]);
        frame[INIT_MAC1..INIT_MAC2].copy_from_slice(&mac1);
        world.inject(1, Source::direct((from, 5).into()), &frame);
    }
}

#[test]
fn a_flooder_in_one_network_does_not_put_others_in_cookie_mode() {
    let mut world = World::new(37, 2);
    for host in 0..=255 {
        flood(&mut world, [198, 51, 100, host], 30);
    }
    let stats = world.stats(1);
    assert!(stats.cookie_demanded > 7000, "the flooder is told to bring a cookie");
    assert!(stats.dh < 600, "and costs little");
    world.connect(0, 1);
    assert!(world.run_until(Duration::from_millis(100), World::both_open));
    assert_eq!(world.stats(0).cookies_taken, 0);
}

#[test]
fn under_its_own_budget_a_peer_is_asked_for_a_cookie_and_comes_through_with_it() {
    let mut world = World::new(38, 2);
    flood(&mut world, [192, 0, 2, 1], 100);
    world.connect(0, 1);
    world.run(Duration::from_millis(50));
    assert!(!world.open(0, 1));
    assert_eq!(world.stats(0).cookies_taken, 1);
    assert!(world.run_until(Duration::from_millis(400), World::both_open), "the next try carries mac2");
    let inits = world.frames(frames::INIT);
    assert_eq!(inits[0].bytes[INIT_MAC2..], [0; 16]);
    assert_ne!(inits[1].bytes[INIT_MAC2..], [0; 16]);
    assert_eq!(world.nodes[0].events.len(), 1, "a cookie moves nothing");
}

#[test]
fn cookie_holders_have_their_own_lane_when_everyone_else_is_flooded() {
    let (a, mut b) = (config(39, 0), config(39, 1));
    b.open_rates.global = budget::Rate { per_second: 0, burst: 50 };
    let mut world = World::of(vec![a, b], 39);
    for net in 0..60 {
        flood(&mut world, [100, net, 1, 1], 1);
    }
    assert_eq!(world.stats(1).cookie_demanded, 10);
    world.connect(0, 1);
    assert!(world.run_until(SECOND, World::both_open));
    assert_eq!(world.stats(0).cookies_taken, 1);
    // A cookie is invalid at another port, so it doesn't make a replay of an init an answer.
    let with_mac2 = world.frames(frames::INIT)[1].bytes.clone();
    world.run(ANSWER_LIFE);
    let mut elsewhere = world.nodes[0].addr;
    elsewhere.set_port(9);
    assert!(world.inject(1, Source::direct(elsewhere), &with_mac2).is_empty());
    assert_eq!(world.stats(1).repeated, 1);
}

#[test]
fn the_copy_of_an_init_on_a_second_leg_gets_the_same_answer_without_a_diffie_hellman() {
    let mut world = World::new(40, 2);
    let (_, init) = init_by(&world, &secret(5), 1, [0; 16]);
    let first = world.inject(1, direct("203.0.113.1:1"), &init);
    let dh = world.stats(1).dh;
    let return_address = PublicKey::from_bytes([3; 32]);
    let second = world.inject(1, Source::relay(HUB, return_address), &init);
    assert_eq!(first[0].1, second[0].1);
    assert_eq!(second[0].0.route, Route::Relay(HUB));
    assert_eq!(second[0].0.relay_dst, Some(return_address));
    assert_eq!(world.stats(1).dh, dh);
    world.run(ANSWER_LIFE);
    assert!(world.inject(1, direct("203.0.113.1:1"), &init).is_empty(), "a replay by now");
}

#[test]
fn a_relayed_source_is_a_return_address_and_never_an_identity() {
    let mut world = World::new(41, 2);
    let key = secret(5);
    let claimed = world.nodes[0].key;
    let (mut noise, init) = init_by(&world, &key, 1, [0; 16]);
    let answer = world.inject(1, Source::relay(HUB, claimed), &init).remove(0);
    assert_eq!((answer.0.relay_dst, answer.0.peer), (Some(claimed), Some(key.public())));
    let psk = ticket().generations()[0].psk.clone();
    let (_, keys) = noise
        .read_response(&psk, &answer.1[9..RESPONSE_MAC1], &mut [0; frames::RESPONSE_PAYLOAD_LEN])
        .unwrap();
    let remote = frames::u32_at(&answer.1, 1);
    let mut session = crate::net::secure::session::Session::new(&keys, 0x0909_0909, remote, true, world.now);
    let mut frame = Vec::new();
    session.seal(world.now, &[3], b"hello", &mut frame).unwrap();
    world.inject(1, Source::relay(HUB, claimed), &frame);
    assert_eq!(world.nodes[1].received, [(key.public(), 3, b"hello".to_vec())]);
    assert!(!world.open(1, 0));
    // Without a return address no answer is possible.
    let (_, next) = init_by(&world, &key, 2, [0; 16]);
    let nowhere = Source { route: Route::Relay(HUB), relay_src: None };
    assert!(world.inject(1, nowhere, &next).is_empty());
    assert_eq!(world.stats(1).no_return_address, 1);
}

/// The confirm goes to the source of the response, again and again, and the source may be a victim's.
#[test]
fn a_response_from_a_spoofed_source_draws_at_most_three_times_its_bytes() {
    let mut world = World::new(53, 3);
    world.relay(0, 1);
    world.lose = Box::new(|_| true);
    world.connect(0, 1);
    world.run(Duration::from_millis(10));
    let init = world.frames(frames::INIT)[0].bytes.clone();
    let from = Source::relay(HUB, world.nodes[0].key);
    let response = world.inject(1, from, &init).remove(0).1;
    let victim = world.nodes[2].addr;
    let at_once = world.inject(0, Source::direct(victim), &response);
    assert!(world.open(0, 1));
    world.run(Duration::from_secs(100));
    let at_once = at_once.iter().filter(|(to, _)| to.route == Route::Direct(victim));
    let later = world.sent.iter().filter(|(_, packet)| packet.to == 2 && packet.source.route.is_direct());
    let sent = at_once.map(|(_, bytes)| bytes.len()).chain(later.map(|(_, packet)| packet.bytes.len()));
    let sent: usize = sent.sum();
    assert!((1..=3 * response.len()).contains(&sent), "{sent} bytes for {}", response.len());
}

#[test]
fn a_frame_sent_on_two_routes_is_delivered_once() {
    let mut world = World::pair(42);
    let (peer, from) = (world.nodes[1].key, world.nodes[0].key);
    let mut out = Vec::new();
    let now = world.now;
    world.nodes[0].endpoint.seal(now, &peer, 3, b"once", &mut out).unwrap();
    let direct = Source::direct(world.nodes[0].addr);
    world.inject(1, Source::relay(HUB, from), &out);
    world.inject(1, direct, &out);
    assert_eq!(world.nodes[1].received.len(), 1);
    assert_eq!(world.stats(1).replayed, 1);
}

#[test]
fn session_indices_are_random() {
    let mut all = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let world = World::pair(seed + 1000);
        for node in &world.nodes {
            let indices = node.endpoint.indices();
            assert_eq!(indices.len(), 1);
            all.insert(indices[0]);
        }
    }
    assert_eq!(all.len(), 80, "none comes twice");
    assert!(all.iter().filter(|index| **index < 1 << 24).count() < 8, "and small ones are rare");
    for bit in 0..32 {
        let ones = all.iter().filter(|index| *index >> bit & 1 == 1).count();
        assert!((15..=65).contains(&ones), "bit {bit} is set {ones} times");
    }
}

#[test]
fn every_byte_of_the_header_is_authenticated_or_leads_nowhere() {
    let mut world = World::pair(43);
    let peer = world.nodes[1].key;
    let mut good = Vec::new();
    let now = world.now;
    world.nodes[0].endpoint.seal(now, &peer, 3, b"x", &mut good).unwrap();
    let from = direct("203.0.113.66:6666");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(world.inject(1, from, &bad).is_empty());
        assert!(world.nodes[1].received.is_empty(), "byte {at}");
    }
    world.inject(1, from, &good);
    assert_eq!(world.nodes[1].received.len(), 1);
}

#[test]
fn an_unknown_channel_and_a_malformed_control_message_are_counted() {
    let mut world = World::new(44, 2);
    let key = secret(5);
    let from = direct("203.0.113.1:1");
    let (mut noise, init) = init_by(&world, &key, 1, [0; 16]);
    let answer = world.inject(1, from, &init).remove(0);
    let psk = ticket().generations()[0].psk.clone();
    let (_, keys) = noise
        .read_response(&psk, &answer.1[9..RESPONSE_MAC1], &mut [0; frames::RESPONSE_PAYLOAD_LEN])
        .unwrap();
    let remote = frames::u32_at(&answer.1, 1);
    let mut session = crate::net::secure::session::Session::new(&keys, 0x0909_0909, remote, true, world.now);
    for plaintext in [&[channel::REVOKED + 1][..], &[255, 1], &[0], &[0, 250, 1], &[0, 4]] {
        let mut frame = Vec::new();
        session.seal(world.now, plaintext, &[], &mut frame).unwrap();
        world.inject(1, from, &frame);
    }
    let stats = world.stats(1);
    assert_eq!((stats.unknown_channel, stats.bad_control, stats.frames_opened), (2, 3, 5));
    assert!(world.nodes[1].received.is_empty());
}

#[test]
fn group_frames_are_handed_up_untouched() {
    let mut world = World::new(45, 1);
    let mut frame = vec![frames::GROUP; frames::MIN_GROUP_LEN];
    let before = frame.clone();
    let now = world.now;
    let received = world.nodes[0].endpoint.handle_datagram(now, direct("203.0.113.1:1"), &mut frame);
    assert_eq!((received, frame), (Some(Received::Group), before));
}

#[test]
fn the_table_of_peers_is_bounded_and_an_idle_one_makes_room() {
    let mut endpoint = Endpoint::new(config(46, 0), instant(), UNIX, Rng::seed_from_u64(1));
    let key = |n: usize| {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_le_bytes());
        PublicKey::from_bytes(bytes)
    };
    let now = instant();
    for n in 0..MAX_PEERS {
        endpoint.connect(now, &key(n)).unwrap();
    }
    assert_eq!(endpoint.connect(now, &key(MAX_PEERS)), Err(SealError::PeersFull));
    assert_eq!(endpoint.stats().peers_full, 1);
    endpoint.close(now, &key(5));
    assert_eq!(endpoint.connect(now, &key(MAX_PEERS)), Ok(()), "a closed peer is idle");
    endpoint.forget(now, &key(6));
    assert_eq!(endpoint.connect(now, &key(MAX_PEERS + 1)), Ok(()));
    assert_eq!(endpoint.peers().count(), MAX_PEERS);
    let own = *endpoint.local();
    assert_eq!(endpoint.connect(now, &own), Err(SealError::NotAllowed));
}

#[test]
fn slips_of_one_pass_that_confirm_nothing_make_room_for_another_passes_handshake() {
    let (a, mut b) = (config(48, 0), config(48, 1));
    b.max_peers = 40;
    let unlimited = budget::Rate { per_second: 0, burst: u32::MAX };
    b.open_rates = budget::Rates { narrow: unlimited, wide: unlimited, hub: unlimited, global: unlimited };
    let mut world = World::of(vec![a, b], 48);
    world.connect(0, 1);
    world.run(SECOND);
    let (holder, now) = (secret(900), UNIX.as_secs() as u32);
    let pass = authority().mint(holder.public(), Level::Worker, now);
    let answers = |world: &mut World, key: &SecretKey, shown: &Credential| {
        let (_, init) = init_showing(world, key, 0xff, [0; 16], shown);
        world.inject(1, direct("203.0.113.1:1"), &init).len()
    };
    let slip = |key: &SecretKey| {
        let slip = Slip { key: key.public(), level: Level::Submit, not_after: now + 600 };
        Credential::with_slip(pass.pass().clone(), slip.sign(&holder, &ticket().mesh))
    };
    let answered: usize =
        (0..60).map(|n| secret(1_000 + n)).map(|key| answers(&mut world, &key, &slip(&key))).sum();
    assert_eq!(answered, 39, "they are refused when they have all places");
    let other = secret(5);
    let shown = authority().mint(other.public(), Level::Worker, now);
    assert_eq!(answers(&mut world, &other, &shown), 1);
    assert!(world.open(1, 0), "a session is no unconfirmed one");
}

#[test]
fn the_queue_of_answers_is_bounded() {
    let (a, mut b) = (config(47, 0), config(47, 1));
    let unlimited = budget::Rate { per_second: 0, burst: u32::MAX };
    b.open_rates = budget::Rates { narrow: unlimited, wide: unlimited, hub: unlimited, global: unlimited };
    let mut world = World::of(vec![a, b], 47);
    let (_, init) = init_by(&world, &secret(5), 1, [0; 16]);
    let now = world.now;
    for _ in 0..MAX_TRANSMITS + 10 {
        let mut bytes = init.clone();
        world.nodes[1].endpoint.handle_datagram(now, direct("203.0.113.1:1"), &mut bytes);
    }
    assert_eq!(world.stats(1).transmits_dropped, 10);
}

#[test]
fn the_queue_of_events_is_bounded() {
    let mut endpoint = Endpoint::new(config(46, 0), instant(), UNIX, Rng::seed_from_u64(1));
    endpoint.flood_events(MAX_EVENTS + 3);
    assert_eq!(endpoint.stats().events_dropped, 3);
    assert_eq!(std::iter::from_fn(|| endpoint.poll_event()).count(), MAX_EVENTS);
}

#[test]
fn a_forgotten_peer_leaves_no_index_behind() {
    let mut world = World::pair(48);
    let peer = world.nodes[1].key;
    let now = world.now;
    world.nodes[0].endpoint.forget(now, &peer);
    assert!(world.nodes[0].endpoint.indices().is_empty());
    assert!(world.nodes[0].endpoint.peers().next().is_none());
    world.run(SECOND);
    world.connect(1, 0);
    assert!(world.run_until(Duration::from_secs(40), World::both_open));
}

#[test]
fn indices_do_not_leak_over_many_rekeyings_and_restarts() {
    let mut world = World::pair(49);
    for _ in 0..20 {
        world.run(Duration::from_secs(130));
        world.restart(1, UNIX + (world.now - world.start));
        world.connect(1, 0);
        world.run(Duration::from_secs(2));
    }
    assert!(world.both_open());
    assert!(world.nodes[0].endpoint.indices().len() <= 4);
}

#[test]
fn every_refusal_is_counted_by_its_cause() {
    let mut world = World::pair(50);
    let from = direct("203.0.113.1:1");
    let before = world.stats(1);
    for bytes in [
        vec![],
        vec![0x16; 40],
        vec![frames::INIT; frames::INIT_LEN - 1],
        vec![frames::INIT; frames::INIT_LEN],
        vec![frames::RESPONSE; frames::RESPONSE_LEN],
        vec![frames::COOKIE; frames::COOKIE_LEN],
        vec![frames::DATA; 28],
        vec![frames::DATA; 29],
        vec![frames::DATA; 65_507],
    ] {
        assert!(world.inject(1, from, &bytes).is_empty());
    }
    let after = world.stats(1);
    let expected = EndpointStats {
        unknown_frame: before.unknown_frame + 2,
        bad_length: before.bad_length + 2,
        bad_mac1: before.bad_mac1 + 1,
        responses_unexpected: before.responses_unexpected + 1,
        cookies_refused: before.cookies_refused + 1,
        unknown_index: before.unknown_index + 1,
        oversize: before.oversize + 1,
        ..before
    };
    assert_eq!(after, expected);
}

#[test]
fn coalesced_frames_that_were_not_split_are_a_counter() {
    let mut world = World::pair(51);
    let peer = world.nodes[1].key;
    let mut batch = Vec::new();
    let now = world.now;
    for _ in 0..3 {
        world.nodes[0].endpoint.seal(now, &peer, 3, b"same size", &mut batch).unwrap();
    }
    let from = Source::direct(addr(0));
    world.inject(1, from, &batch);
    assert_eq!(world.stats(1).forged, 1);
    for frame in batch.chunks(batch.len() / 3) {
        world.inject(1, from, frame);
    }
    assert_eq!(world.nodes[1].received.len(), 3);
}

#[test]
fn a_responder_of_the_wrong_key_is_never_taken_for_the_peer() {
    let mut world = World::new(52, 2);
    world.lose = Box::new(|_| true);
    world.connect(0, 1);
    world.run(Duration::from_millis(10));
    let init = world.frames(frames::INIT)[0].bytes.clone();
    // A member that isn't node 1 can't even read message 1.
    let other = StaticKey::new(Backend::DEFAULT, &secret(9)).unwrap();
    let peeked = Responder::peek(&other, &ticket().mesh.prologue(), [1; 32], &init[5..INIT_MAC1]);
    assert!(peeked.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_of_any_shape_is_a_counter_and_never_a_panic(
        first in prop_oneof![Just(0xC1u8), Just(0xC2), Just(0xC3), Just(0xC4), any::<u8>()],
        len in prop_oneof![Just(frames::INIT_LEN), Just(frames::RESPONSE_LEN), Just(frames::COOKIE_LEN), 0usize..2000, 16_000usize..66_000],
        known_index: bool, seed: u64, valid_mac1: bool,
    ) {
        let mut world = World::pair(60);
        let mut bytes = vec![0; len];
        Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        if known_index && len >= 9 {
            let index = world.nodes[1].endpoint.indices()[0].to_le_bytes();
            bytes[1..5].copy_from_slice(&index);
            bytes[5..9].copy_from_slice(&index);
        }
        if valid_mac1 && len == frames::INIT_LEN {
            let mac1 = mac::mac(&ticket().generations()[0].mac1_key(&world.nodes[1].key), &bytes[..INIT_MAC1]);
            bytes[INIT_MAC1..INIT_MAC2].copy_from_slice(&mac1);
        }
        prop_assume!(first != frames::GROUP);
        let (before, key) = (world.stats(1), world.nodes[0].key);
        let session = world.nodes[1].endpoint.current_indices(&key);
        let answers = world.inject(1, direct("203.0.113.1:1"), &bytes);
        prop_assert!(answers.is_empty());
        prop_assert_ne!(world.stats(1), before);
        prop_assert_eq!(world.nodes[1].endpoint.current_indices(&key), session);
        prop_assert!(world.nodes[1].received.is_empty());
    }

    #[test]
    fn a_truncated_or_stretched_real_frame_is_refused(cut in 0usize..60, stretch in 1usize..60) {
        let mut world = World::pair(61);
        let (peer, now) = (world.nodes[1].key, world.now);
        let mut good = Vec::new();
        world.nodes[0].endpoint.seal(now, &peer, 3, &[1; 30], &mut good).unwrap();
        prop_assume!(cut < good.len());
        world.inject(1, Source::direct(addr(0)), &good[..cut]);
        world.inject(1, Source::direct(addr(0)), &[&good[..], &vec![0; stretch]].concat());
        prop_assert!(world.nodes[1].received.is_empty());
        world.inject(1, Source::direct(addr(0)), &good);
        prop_assert_eq!(world.nodes[1].received.len(), 1);
    }
}
