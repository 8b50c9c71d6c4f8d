//! Tests of the client's rules with a simulated clock. A bare [`Connection`] plays the hub.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rand_core::SeedableRng;

use super::backoff::{CAP, REPLACED, URGENT_CAP};
use super::core::{
    HANDSHAKE_TIMEOUT, KEEPALIVE, MAX_EVENT_BYTES, MAX_EVENTS, MAX_GROUPS, MAX_REQUESTS, OUTBOX_BYTES,
    PONG_TIMEOUT, URGENT_FOR,
};
use super::*;
use crate::authority::key::AuthorityKey;
use crate::authority::level::Level;
use crate::authority::pass::Grant;
use crate::authority::sealed;
use crate::net::reach::control::Connection;
use crate::net::reach::control::frames::split;
use crate::net::reach::hub::HubLimits;
use crate::net::reach::relay::{self, CloseReason, Roles};
use crate::net::reach::rendezvous;
use crate::rt::Rng;

const UNIX: Duration = Duration::from_secs(1_800_000_000);

fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn authority() -> AuthorityKey {
    AuthorityKey::from_seed(&[9; 32])
}

fn peer(n: u8) -> PublicKey {
    PublicKey::from_bytes([n; 32])
}

struct Bench {
    client: HubClient,
    hub: Connection,
    now: Instant,
    limits: HubLimits,
}

impl Bench {
    fn new() -> Bench {
        let now = crate::rt::time::now();
        let wall = WallClock::new(now, UNIX);
        let joining = Joining::minted(&authority(), secret(1).public(), Level::Worker, wall, now);
        Bench::joining(joining, now)
    }

    fn joining(joining: Joining, now: Instant) -> Bench {
        let config = HubClientConfig {
            hub: Hub { key: secret(100).public(), addr: "hub.example:1".into() },
            key: secret(1),
            boot: 7,
            joining,
        };
        let client = HubClient::new(config, now, Rng::from_seed([1; 32]));
        let hub = Connection::server(&secret(100), &mut Rng::from_seed([2; 32])).unwrap();
        Bench { client, hub, now, limits: HubLimits::default() }
    }

    /// A registered client; the events so far are discarded.
    fn up() -> Bench {
        let mut bench = Bench::new();
        bench.connect();
        bench.events();
        bench
    }

    /// Dials and registers; returns the kinds of the frames that the hub received.
    fn connect(&mut self) -> Vec<u8> {
        self.hub = Connection::server(&secret(100), &mut Rng::from_seed([2; 32])).unwrap();
        assert!(self.client.poll_dial());
        self.client.handle_dialed(self.now);
        let mut heard = self.exchange();
        let limits = self.limits.announced(Roles::ALL);
        self.tell(&relay::Frame::Registered(limits).to_vec());
        heard.extend(self.exchange());
        heard
    }

    /// Carries bytes both ways until none are left; returns the kinds of the frames that the hub
    /// received.
    fn exchange(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        let mut plaintext = Vec::new();
        loop {
            let mut bytes = Vec::new();
            self.client.poll_write(&mut bytes);
            self.hub.handle_bytes(&bytes);
            while self.hub.poll_message(&mut plaintext).unwrap() {
                heard.extend(split(&plaintext).map(|frame| frame.unwrap().0));
            }
            let mut back = Vec::new();
            self.hub.poll_write(&mut back);
            self.client.handle_bytes(self.now, &back);
            if bytes.is_empty() && back.is_empty() {
                return heard;
            }
        }
    }

    fn tell(&mut self, plaintext: &[u8]) {
        let mut bytes = Vec::new();
        self.hub.seal(plaintext, &mut bytes).unwrap();
        self.client.handle_bytes(self.now, &bytes);
    }

    /// All events that wait.
    fn events(&mut self) -> Vec<HubEvent> {
        std::iter::from_fn(|| self.client.poll_event()).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.client.handle_timeout(self.now);
    }

    /// The reason and the wait of the single Down among the events.
    fn down(&mut self) -> (DownReason, Duration) {
        let events = self.events();
        let mut downs = events.iter().filter_map(|event| match event {
            HubEvent::Down { reason, retry_in } => Some((*reason, *retry_in)),
            _ => None,
        });
        let down = downs.next().unwrap_or_else(|| panic!("no Down in {events:?}"));
        assert_eq!(downs.next(), None);
        down
    }
}

const REGISTER: u8 = 0x01;
const ENROL: u8 = 0x06;
const RENEW: u8 = 0x07;
const PING: u8 = 0x03;
const CLOSE: u8 = 0x05;
const FORWARD: u8 = 0x10;
const GJOIN: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const LIST: u8 = 0x35;

#[test]
fn it_registers_first_and_measures_the_round_trip() {
    let mut bench = Bench::new();
    assert_eq!(bench.connect(), [REGISTER, PING]);
    assert!(matches!(bench.events()[..], [HubEvent::Up { .. }]));
    bench.now += Duration::from_millis(30);
    bench.tell(&relay::Frame::Pong { nonce: 0 }.to_vec());
    assert_eq!(bench.events(), [HubEvent::Pong { rtt: Duration::from_millis(30) }]);
}

/// A client without a pass, with a ticket that has an invitation.
fn newcomer(invitation: Option<Invitation>) -> Bench {
    let now = crate::rt::time::now();
    let mesh = authority().mesh();
    let joining = Joining {
        mesh,
        credential: None,
        invitation,
        name: "nas".to_owned(),
        wall: WallClock::new(now, UNIX),
        versions: Versions::SPOKEN,
    };
    Bench::joining(joining, now)
}

fn pass(key: &PublicKey, level: Level, unix: Duration) -> Vec<u8> {
    let issued = unix.as_secs() as u32;
    Grant::new(*key, level, issued, issued + 30 * 86_400).sign(&authority()).unwrap().as_bytes().to_vec()
}

#[test]
fn a_newcomer_asks_for_a_pass_and_registers_with_it() {
    let invitation = Invitation::standard(&authority(), UNIX, &mut Rng::from_seed([3; 32]));
    let mut bench = newcomer(Some(invitation));
    assert!(bench.client.poll_dial());
    bench.client.handle_dialed(bench.now);
    assert_eq!(bench.exchange(), [ENROL]);
    let pass = pass(&secret(1).public(), Level::Worker, UNIX);
    bench.tell(&relay::Frame::Issued { pass: &pass }.to_vec());
    assert_eq!(bench.exchange(), [REGISTER]);
    let events = bench.events();
    assert!(
        matches!(&events[..], [HubEvent::Issued { credential: own, .. }] if own.pass().as_bytes() == pass),
        "{events:?}"
    );
}

#[test]
fn a_pass_may_take_as_long_as_a_hub_asks_issuers_and_the_secret_that_one_sealed_comes_with_it() {
    let invitation = Invitation::standard(&authority(), UNIX, &mut Rng::from_seed([3; 32]));
    let mut bench = newcomer(Some(invitation));
    assert!(bench.client.poll_dial());
    bench.client.handle_dialed(bench.now);
    assert_eq!(bench.exchange(), [ENROL]);
    bench.now += Duration::from_secs(19);
    bench.client.handle_timeout(bench.now);
    assert_eq!(bench.events(), []);
    let (own, issuer) = (secret(1).public(), secret(5).public());
    let next = authority().rotate(1, UNIX.as_secs() as u32).secret;
    let mut rng = Rng::from_seed([4; 32]);
    for sealed in [sealed::seal(&next, &issuer, &mut rng), sealed::seal(&next, &own, &mut rng)] {
        bench.tell(&relay::Frame::Sealed { sealed: &sealed }.to_vec());
    }
    assert_eq!(bench.events(), [HubEvent::Secret { secret: Box::new(next), sealed: true }], "ours alone");
    bench.tell(&relay::Frame::Issuer { key: issuer }.to_vec());
    bench.tell(&relay::Frame::Issued { pass: &pass(&own, Level::Worker, UNIX) }.to_vec());
    assert_eq!(bench.exchange(), [REGISTER]);
    let events = bench.events();
    assert!(matches!(&events[..], [HubEvent::Issued { issuer: by, .. }] if *by == issuer), "{events:?}");
}

#[test]
fn another_keys_or_another_meshs_pass_is_no_answer() {
    let others = pass(&secret(2).public(), Level::Worker, UNIX);
    let mut forged = pass(&secret(1).public(), Level::Worker, UNIX);
    *forged.last_mut().unwrap() ^= 1;
    for pass in [others, forged] {
        let invitation = Invitation::standard(&authority(), UNIX, &mut Rng::from_seed([3; 32]));
        let mut bench = newcomer(Some(invitation));
        assert!(bench.client.poll_dial());
        bench.client.handle_dialed(bench.now);
        bench.exchange();
        bench.tell(&relay::Frame::Issued { pass: &pass }.to_vec());
        assert_eq!(bench.down().0, DownReason::Protocol);
    }
}

#[test]
fn without_pass_and_invitation_a_client_says_so_and_goes_on_once_it_has_a_pass() {
    let mut bench = newcomer(None);
    assert!(bench.client.poll_dial());
    bench.client.handle_dialed(bench.now);
    bench.exchange();
    assert_eq!(bench.down().0, DownReason::NoPass);
    assert!(DownReason::NoPass.is_refusal());
    let credential = authority().mint(secret(1).public(), Level::Look, UNIX.as_secs() as u32);
    bench.client.set_credential(bench.now, credential);
    bench.pass(Duration::ZERO);
    assert_eq!(bench.connect()[..1], [REGISTER]);
}

#[test]
fn a_pass_is_renewed_while_it_counts_and_first_of_all_when_it_has_ended() {
    let mut bench = Bench::new();
    bench.connect();
    bench.events();
    let mut renewed = 0;
    for _ in 0..60 {
        // A pass that is minted counts for 90 days, and two thirds of them are 60.
        bench.client.handle_timeout(bench.now);
        bench.now += KEEPALIVE;
        bench.tell(&relay::Frame::Ping { nonce: 1 }.to_vec());
        renewed += bench.exchange().iter().filter(|kind| **kind == RENEW).count();
    }
    assert_eq!(renewed, 0, "it isn't time");
    let later = Duration::from_secs(61 * 86_400);
    for (unix, expected) in [(UNIX + later, vec![REGISTER, PING, RENEW]), (UNIX + later * 2, vec![RENEW])] {
        let now = crate::rt::time::now();
        let old =
            Joining::minted(&authority(), secret(1).public(), Level::Worker, WallClock::new(now, UNIX), now);
        let mut bench = Bench::joining(Joining { wall: WallClock::new(now, unix), ..old }, now);
        let mut heard = bench.connect();
        bench.pass(KEEPALIVE);
        heard.extend(bench.exchange());
        heard.dedup();
        heard.retain(|kind| expected.contains(kind));
        heard.dedup();
        assert_eq!(heard.iter().filter(|kind| **kind == RENEW).count(), 1, "{heard:?}");
        assert_eq!(heard[0], expected[0]);
    }
}

#[test]
fn a_client_whose_clock_is_ahead_registers_with_the_pass_that_it_was_just_given() {
    let now = crate::rt::time::now();
    let ahead = WallClock::new(now, UNIX + Duration::from_secs(365 * 86_400));
    let old =
        Joining::minted(&authority(), secret(1).public(), Level::Worker, WallClock::new(now, UNIX), now);
    let mut bench = Bench::joining(Joining { wall: ahead, ..old }, now);
    assert!(bench.client.poll_dial());
    bench.client.handle_dialed(bench.now);
    assert_eq!(bench.exchange(), [RENEW], "by its clock the pass has ended");
    bench.tell(&relay::Frame::Issued { pass: &pass(&secret(1).public(), Level::Worker, UNIX) }.to_vec());
    assert_eq!(bench.exchange(), [REGISTER], "but it was signed just now");
    // What a hub says of the time counts more than that.
    bench.tell(&relay::Frame::Close(relay::CloseReason::Expired).to_vec());
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.connect()[..1], [RENEW]);
}

#[test]
fn after_a_reconnect_groups_and_record_are_there_again() {
    let mut bench = Bench::new();
    bench.client.join([1; 16]);
    bench.connect();
    bench.client.join([2; 16]);
    bench.client.publish(bench.now, 1, Bytes::from_static(b"r"));
    assert_eq!(bench.exchange(), [GJOIN, PUBLISH]);
    bench.client.handle_end(bench.now);
    bench.events();
    bench.pass(CAP);
    assert_eq!(bench.connect(), [REGISTER, GJOIN, GJOIN, PUBLISH, PING]);
    bench.client.leave([1; 16]);
    bench.client.withdraw();
    bench.client.handle_end(bench.now);
    bench.pass(CAP);
    assert_eq!(bench.connect(), [REGISTER, GJOIN, PING]);
}

#[test]
fn a_record_is_refreshed_at_a_third_of_its_time() {
    let mut bench = Bench::up();
    bench.client.publish(bench.now, 1, Bytes::from_static(b"r"));
    assert_eq!(bench.exchange(), [PUBLISH]);
    let mut published = 0;
    for second in 1..=80 {
        bench.now += Duration::from_secs(1);
        bench.tell(&relay::Frame::Pong { nonce: 999 }.to_vec());
        bench.client.handle_timeout(bench.now);
        published += bench.exchange().iter().filter(|kind| **kind == PUBLISH).count();
        assert_eq!(published, second / 40, "after {second} s");
    }
    assert_eq!(bench.client.stats().publishes, 3);
}

#[test]
fn what_a_client_asks_of_its_hub_is_counted_when_the_hub_hears_it() {
    let mut bench = Bench::new();
    bench.client.publish(bench.now, 1, Bytes::from_static(b"r"));
    bench.client.list(1);
    bench.client.ping(bench.now);
    let counted = |bench: &Bench| {
        let stats = bench.client.stats();
        [stats.publishes, stats.lists, stats.pings]
    };
    assert_eq!(counted(&bench), [0; 3], "there is no connection");
    let mut heard = bench.connect();
    bench.client.list(1);
    bench.client.list(1);
    bench.client.ping(bench.now);
    heard.extend(bench.exchange());
    let heard = [PUBLISH, LIST, PING].map(|kind| heard.iter().filter(|heard| **heard == kind).count() as u64);
    assert_eq!((counted(&bench), heard[1]), (heard, 2));
}

#[test]
fn a_half_open_connection_is_noticed_within_20_seconds() {
    let mut bench = Bench::up();
    bench.tell(&relay::Frame::Pong { nonce: 0 }.to_vec());
    let begun = bench.now;
    while bench.client.wants_stream() {
        bench.now = bench.client.poll_timeout();
        assert!(bench.now <= begun + KEEPALIVE + PONG_TIMEOUT);
        bench.client.handle_timeout(bench.now);
    }
    assert_eq!(bench.now - begun, Duration::from_secs(20));
    assert_eq!(bench.down().0, DownReason::Silent);
}

#[test]
fn a_hub_that_reaps_early_is_pinged_early() {
    let mut bench = Bench::new();
    bench.limits.idle = Duration::from_secs(6);
    bench.connect();
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.exchange(), [PING]);
}

#[test]
fn a_busy_stream_is_alive_though_its_pong_waits() {
    let mut bench = Bench::up();
    for _ in 0..60 {
        bench.pass(Duration::from_secs(1));
        bench.exchange();
        bench.tell(&relay::Frame::Deliver { src: peer(2), payload: b"x" }.to_vec());
    }
    assert!(bench.client.wants_stream());
}

#[test]
fn the_timer_always_lies_ahead() {
    let mut bench = Bench::up();
    bench.client.publish(bench.now, 1, Bytes::from_static(b"r"));
    bench.client.withdraw();
    for _ in 0..500 {
        let at = bench.client.poll_timeout();
        bench.now = bench.now.max(at);
        bench.client.handle_timeout(bench.now);
        assert!(bench.client.poll_timeout() > bench.now);
        bench.client.poll_dial();
        bench.events();
    }
}

#[test]
fn it_dials_again_for_ever_with_growing_waits() {
    let mut bench = Bench::new();
    bench.client.others_up(bench.now, true);
    let mut longest = Duration::ZERO;
    for attempt in 0..100 {
        assert!(bench.client.poll_dial(), "attempt {attempt}");
        assert!(!bench.client.poll_dial());
        bench.client.handle_dial_failed(bench.now);
        let (reason, retry_in) = bench.down();
        assert_eq!(reason, DownReason::Unreachable);
        assert!(retry_in <= CAP);
        if attempt == 0 {
            assert!(retry_in <= Duration::from_millis(200));
        }
        longest = longest.max(retry_in);
        bench.pass(retry_in);
    }
    assert!(longest > CAP / 2);
    assert_eq!(bench.client.stats().dials, 100);
}

/// Fails each dial at once and waits as long as the client says, for the given time; returns the
/// waits.
fn waits(bench: &mut Bench, time: Duration) -> Vec<Duration> {
    let end = bench.now + time;
    let mut waits = Vec::new();
    while bench.now < end {
        assert!(bench.client.poll_dial());
        bench.client.handle_dial_failed(bench.now);
        let (_, retry_in) = bench.down();
        waits.push(retry_in);
        bench.pass(retry_in);
    }
    waits
}

#[test]
fn without_another_hub_tries_are_two_seconds_apart_at_most_for_two_minutes() {
    let mut bench = Bench::new();
    let urgent = waits(&mut bench, URGENT_FOR);
    let (last, before) = urgent.split_last().unwrap();
    assert!(before.iter().all(|wait| *wait <= URGENT_CAP), "{before:?}");
    assert!(*last <= URGENT_CAP && before.iter().any(|wait| *wait > URGENT_CAP / 2));
    let later = waits(&mut bench, URGENT_FOR);
    assert!(later.iter().any(|wait| *wait > CAP / 2), "{later:?}");
    // The hub comes back for a while, and goes again.
    bench.connect();
    bench.now += Duration::from_secs(10);
    bench.client.handle_end(bench.now);
    let (_, retry_in) = bench.down();
    bench.pass(retry_in);
    assert!(waits(&mut bench, URGENT_FOR - Duration::from_secs(2)).iter().all(|wait| *wait <= URGENT_CAP));
}

#[test]
fn a_try_is_counted_from_its_beginning() {
    let mut bench = Bench::new();
    assert!(bench.client.poll_dial());
    bench.pass(URGENT_CAP);
    bench.client.handle_dial_failed(bench.now);
    assert_eq!(bench.down().1, Duration::ZERO);
    assert!(bench.client.poll_dial());
}

#[test]
fn a_long_wait_is_cut_short_when_the_last_other_hub_goes() {
    let mut bench = Bench::new();
    bench.client.others_up(bench.now, true);
    loop {
        assert!(bench.client.poll_dial());
        bench.client.handle_dial_failed(bench.now);
        let (_, retry_in) = bench.down();
        if retry_in > CAP / 2 {
            break;
        }
        bench.pass(retry_in);
    }
    bench.client.others_up(bench.now, false);
    assert!(bench.client.poll_timeout() <= bench.now + URGENT_CAP);
}

#[test]
fn a_duel_and_a_full_hub_are_not_urgent() {
    for reason in [CloseReason::Replaced, CloseReason::Full] {
        let mut bench = Bench::new();
        let mut longest = Duration::ZERO;
        for _ in 0..12 {
            bench.connect();
            bench.tell(&relay::Frame::Close(reason).to_vec());
            let until = bench.client.poll_timeout();
            bench.client.others_up(bench.now, true);
            bench.client.others_up(bench.now, false);
            assert_eq!(bench.client.poll_timeout(), until, "{reason:?}");
            let wait = until - bench.now;
            longest = longest.max(wait);
            bench.pass(wait);
        }
        assert!(longest > CAP / 2, "{reason:?}: {longest:?}");
    }
}

#[test]
fn a_hub_that_restarts_after_a_stable_hour_is_found_at_once() {
    let mut bench = Bench::new();
    for _ in 0..10 {
        bench.client.poll_dial();
        bench.client.handle_dial_failed(bench.now);
        let (_, retry_in) = bench.down();
        bench.pass(retry_in);
    }
    bench.connect();
    bench.events();
    bench.now += Duration::from_secs(3600);
    bench.client.handle_end(bench.now);
    let (reason, retry_in) = bench.down();
    assert_eq!(reason, DownReason::Lost);
    assert!(retry_in <= Duration::from_millis(200));
}

#[test]
fn a_hub_that_closes_at_once_each_time_is_not_hammered() {
    let mut bench = Bench::new();
    bench.client.others_up(bench.now, true);
    let mut waited = Duration::ZERO;
    for _ in 0..20 {
        bench.connect();
        bench.events();
        bench.client.handle_end(bench.now);
        let (_, retry_in) = bench.down();
        waited += retry_in;
        bench.pass(retry_in);
    }
    assert!(waited > Duration::from_secs(20), "{waited:?}");
}

#[test]
fn a_replaced_client_waits_ten_seconds_and_says_so() {
    let mut bench = Bench::up();
    bench.tell(&relay::Frame::Close(CloseReason::Replaced).to_vec());
    assert!(!bench.client.wants_stream());
    let events = bench.events();
    let [HubEvent::Down { reason, retry_in }] = events[..] else { panic!("{events:?}") };
    assert_eq!(reason, DownReason::Closed(CloseReason::Replaced));
    assert!(retry_in >= REPLACED);
    bench.pass(REPLACED - Duration::from_millis(1));
    assert!(!bench.client.poll_dial());
    bench.pass(retry_in);
    assert!(bench.client.poll_dial());
}

#[test]
fn a_changed_network_ends_every_wait_and_every_old_stream() {
    let mut bench = Bench::up();
    bench.tell(&relay::Frame::Close(CloseReason::Replaced).to_vec());
    bench.events();
    bench.client.network_changed(bench.now);
    assert!(bench.client.poll_dial());
    bench.client.network_changed(bench.now);
    assert!(!bench.client.wants_dial());
    bench.events();
    bench.connect();
    bench.client.network_changed(bench.now);
    assert!(!bench.client.wants_stream());
    assert!(bench.client.poll_dial());
}

#[test]
fn another_hubs_key_is_no_refusal() {
    let mut bench = Bench::new();
    assert!(bench.client.poll_dial());
    bench.client.handle_dialed(bench.now);
    bench.hub = Connection::server(&secret(101), &mut Rng::from_seed([2; 32])).unwrap();
    let mut bytes = Vec::new();
    bench.client.poll_write(&mut bytes);
    bench.hub.handle_bytes(&bytes);
    assert!(bench.hub.poll_message(&mut Vec::new()).is_err());
    bench.client.handle_end(bench.now);
    assert_eq!(bench.down().0, DownReason::NotTheHub);
}

#[test]
fn another_protocol_on_the_hubs_port_is_no_refusal_and_known_by_its_first_bytes() {
    let mut bench = Bench::new();
    assert!(bench.client.poll_dial());
    bench.client.handle_dialed(bench.now);
    bench.client.handle_bytes(bench.now, b"H");
    assert!(bench.client.wants_stream());
    bench.client.handle_bytes(bench.now, b"TTP/1.1 302 Found\r\n");
    let (reason, _) = bench.down();
    assert!(reason == DownReason::NotTheHub && !reason.is_refusal());
}

#[test]
fn a_registration_that_gets_no_answer_is_silence() {
    let mut bench = Bench::new();
    assert!(bench.client.poll_dial());
    bench.client.handle_dialed(bench.now);
    assert_eq!(bench.exchange(), [REGISTER]);
    bench.pass(HANDSHAKE_TIMEOUT);
    assert_eq!(bench.down().0, DownReason::Silent);
}

#[test]
fn a_handshake_that_stalls_is_given_up() {
    let mut bench = Bench::new();
    assert!(bench.client.poll_dial());
    bench.client.handle_dialed(bench.now);
    bench.pass(HANDSHAKE_TIMEOUT);
    assert_eq!(bench.down().0, DownReason::Silent);
}

#[test]
fn garbage_after_the_handshake_ends_the_connection() {
    let mut bench = Bench::up();
    bench.tell(&[0x11, 5, 0, 1]);
    assert_eq!(bench.down().0, DownReason::Protocol);
    let mut bench = Bench::up();
    bench
        .client
        .handle_bytes(bench.now, &[0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]);
    assert_eq!(bench.down().0, DownReason::Protocol);
}

#[test]
fn datagrams_without_a_connection_or_over_the_limit_are_counted_drops() {
    let mut bench = Bench::new();
    bench.client.forward(&peer(2), b"x");
    assert_eq!(bench.client.stats().dropped_down, 1);
    bench.connect();
    bench.client.forward(&peer(2), &vec![0; 16 * 1024]);
    bench.client.forward(&peer(2), &vec![0; 16 * 1024 + 1]);
    assert_eq!(bench.exchange(), [FORWARD]);
    assert_eq!(bench.client.stats().dropped_too_large, 1);
}

#[test]
fn a_stream_that_takes_nothing_costs_a_bounded_queue_and_the_oldest_go() {
    let mut bench = Bench::up();
    for n in 0..1000u32 {
        bench.client.forward(&peer(2), &[&n.to_be_bytes()[..], &[0; 1196]].concat());
    }
    let sent = bench.exchange().len() as u64;
    assert!(sent * 1200 <= OUTBOX_BYTES as u64 && sent > 200);
    assert_eq!(bench.client.stats().dropped_queue_full + sent, 1000);
    for _ in 0..MAX_REQUESTS + 5 {
        bench.client.list(1);
    }
    assert_eq!(bench.client.stats().dropped_requests, 5);
}

#[test]
fn events_that_nobody_takes_are_bounded_and_the_newest_news_stays() {
    let mut bench = Bench::up();
    for _ in 0..100 {
        bench.tell(&relay::Frame::Deliver { src: peer(2), payload: &[0; 16 * 1024] }.to_vec());
    }
    assert_eq!(bench.client.stats().dropped_events, 100 - (MAX_EVENT_BYTES / (16 * 1024)) as u64);
    for _ in 0..MAX_EVENTS {
        bench.tell(&relay::Frame::PeerGone { peer: peer(2) }.to_vec());
    }
    bench.client.handle_end(bench.now);
    let events = bench.events();
    assert_eq!(events.len(), MAX_EVENTS);
    assert!(matches!(events.last(), Some(HubEvent::Down { .. })));
}

#[test]
fn groups_are_bounded_and_the_refusal_is_an_event() {
    let mut bench = Bench::up();
    for n in 0..=MAX_GROUPS as u8 {
        bench.client.join([n; 16]);
    }
    let refused = HubEvent::GroupRefused { tag: [MAX_GROUPS as u8; 16] };
    assert_eq!(bench.events(), [refused]);
    assert_eq!(bench.exchange().len(), MAX_GROUPS);
}

#[test]
fn a_record_older_than_one_already_seen_is_dropped() {
    let mut bench = Bench::up();
    let record = |seq| SealedRecord {
        key: peer(2),
        seq,
        ttl: Duration::from_secs(100),
        sealed: Bytes::from_static(b"r"),
    };
    bench.tell(&rendezvous::Frame::Record(record(5)).to_vec());
    bench.tell(&rendezvous::Frame::Record(record(4)).to_vec());
    bench.tell(&rendezvous::Frame::Records(vec![record(4), record(6)]).to_vec());
    let seen = bench.events();
    assert_eq!(seen, [HubEvent::Record(record(5)), HubEvent::Records(vec![record(6)])]);
    assert_eq!(bench.client.stats().stale_records, 2);
}

#[test]
fn a_datagram_sealed_into_the_queue_goes_out_whole_or_not_at_all() {
    let mut bench = Bench::up();
    bench.exchange();
    bench.client.begin_forward(&peer(2), 5).unwrap().extend_from_slice(b"whole");
    bench.client.commit_forward(5);
    bench.client.begin_forward(&peer(2), 5).unwrap().extend_from_slice(b"ha");
    bench.client.commit_forward(5);
    assert_eq!(bench.exchange(), [FORWARD]);
    assert!(bench.client.is_quiet());
    bench.client.handle_end(bench.now);
    assert!(bench.client.begin_forward(&peer(2), 5).is_none());
    assert_eq!(bench.client.stats().dropped(), 1);
}

#[test]
fn a_goodbye_follows_everything_that_waits() {
    let mut bench = Bench::up();
    for _ in 0..100 {
        bench.client.forward(&peer(2), &[0; 1200]);
    }
    let mut bytes = Vec::new();
    bench.client.poll_goodbye(&mut bytes);
    bench.hub.handle_bytes(&bytes);
    let (mut heard, mut plaintext) = (Vec::new(), Vec::new());
    while bench.hub.poll_message(&mut plaintext).unwrap() {
        heard.extend(split(&plaintext).map(|frame| frame.unwrap().0));
    }
    assert_eq!((heard.iter().filter(|kind| **kind == FORWARD).count(), heard.last()), (100, Some(&CLOSE)));
}
