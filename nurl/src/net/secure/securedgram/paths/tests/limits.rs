//! What a peer can have sent to addresses that it names: at most three times what it sent, and nothing to loopback.

use super::*;
use crate::net::secure::securedgram::frames::RESPONSE_LEN;

/// What a finished handshake has brought from the peer, at least.
const HANDSHAKE: usize = RESPONSE_LEN;

fn len(control: &Control) -> usize {
    config::SEAL_OVERHEAD + control.encoded_len()
}

/// A machine that knows its peer over a relay only, and the bytes that it got and sent.
struct Victim {
    now: Instant,
    paths: Paths,
    received: usize,
    direct: Vec<(SocketAddr, usize)>,
}

impl Victim {
    fn new() -> Victim {
        let now = origin();
        let mut paths = Paths::new(PathConfig::default(), now, crate::rt::Rng::seed_from_u64(1));
        paths.set_relays(now, &[hub(1)]);
        paths
            .set_local_candidates(now, &["192.0.2.1:4000", "127.0.0.1:4000"].map(|own| own.parse().unwrap()));
        paths.on_established(now);
        let mut victim = Victim { now, paths, received: HANDSHAKE, direct: Vec::new() };
        victim.drain();
        victim
    }

    fn hear(&mut self, source: Route, control: Control) {
        self.received += len(&control);
        self.paths.on_authentic(self.now, source, NEWEST, len(&control), false);
        self.paths.on_control(self.now, source, NEWEST, control);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some((route, control)) = self.paths.poll_control() {
            self.direct.extend(route.addr().map(|addr| (addr, len(&control))));
        }
    }

    fn wait(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(at) = self.paths.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.paths.handle_timeout(self.now);
            self.drain();
        }
        self.now = until;
    }

    fn sent(&self) -> usize {
        self.direct.iter().map(|(_, len)| len).sum()
    }
}

/// Sixteen ports of one victim.
fn list(r#gen: u32) -> Control {
    let addrs = (0..16).map(|port| ([198, 51, 100, 7], 1_000 + port + 16 * r#gen as u16).into()).collect();
    Control::Candidates { r#gen, addrs }
}

#[test]
fn one_long_list_draws_at_most_three_times_the_peers_bytes() {
    let mut victim = Victim::new();
    victim.hear(Route::Relay(hub(1)), list(1));
    victim.wait(secs(600));
    let (sent, received) = (victim.sent(), victim.received);
    assert!(sent <= 3 * received, "{sent} bytes for {received}");
    assert!(sent > 2 * received, "{sent} bytes for {received}: it is tried as far as it has paid");
}

#[test]
fn lists_that_change_draw_at_most_three_times_the_peers_bytes() {
    for every in [ms(100), secs(1), secs(20)] {
        let mut victim = Victim::new();
        for r#gen in 1..200 {
            victim.hear(Route::Relay(hub(1)), list(r#gen));
            victim.wait(every);
        }
        let (sent, received) = (victim.sent(), victim.received);
        assert!(sent <= 3 * received, "{sent} bytes for {received}, each {every:?}");
    }
}

#[test]
fn a_peer_of_long_standing_saves_up_a_bounded_number_of_bytes() {
    let mut victim = Victim::new();
    for _ in 0..10_000 {
        victim.paths.on_authentic(victim.now, Route::Relay(hub(1)), NEWEST, 1_200, true);
    }
    victim.drain();
    for r#gen in 1..200 {
        victim.hear(Route::Relay(hub(1)), list(r#gen));
    }
    let sent = victim.sent();
    assert!(sent <= 16 * 1024 + 3 * 200 * len(&list(1)), "{sent} bytes in a moment");
}

#[test]
fn nothing_goes_to_loopback_for_the_word_of_a_peer_elsewhere() {
    let inside: SocketAddr = "127.0.0.1:53".parse().unwrap();
    let named =
        Control::Candidates { r#gen: 1, addrs: vec![inside, "[::ffff:127.0.0.1]:54".parse().unwrap()] };
    let mut victim = Victim::new();
    victim.hear(Route::Relay(hub(1)), named.clone());
    victim.paths.add_published(victim.now, &[inside], 100);
    victim.wait(secs(60));
    assert_eq!(victim.direct, [], "not even one datagram");
    assert!(victim.paths.stats().loopback_refused > 0);
    // A datagram that came from loopback shows that the peer is here.
    let here = Route::Direct("127.0.0.1:4001".parse().unwrap());
    victim.hear(here, Control::Challenge { data: [1; 8] });
    victim.wait(secs(60));
    assert!(victim.direct.iter().any(|(addr, _)| *addr == inside));
    // A machine without a network has no other addresses.
    let mut alone = Victim::new();
    alone.paths.set_local_candidates(alone.now, &["127.0.0.1:4000".parse().unwrap()]);
    alone.hear(Route::Relay(hub(1)), named);
    assert!(alone.direct.iter().any(|(addr, _)| *addr == inside), "at once");
}

/// What an honest punch needs is within what the peer's own messages pay for, before any data.
#[test]
fn an_honest_punch_is_never_short_of_bytes() {
    for silent in [0, 1, 3, 7] {
        let mut world = World::relayed(1);
        for side in [A, B] {
            world.nodes[side].filtered = true;
            let own: Vec<_> = (0..silent).map(|n| addr(100 + n)).chain([world.nodes[side].source]).collect();
            world.with(side, |paths, now| paths.set_local_candidates(now, &own));
        }
        world.run(ms(700));
        for (side, peer) in [(A, 2), (B, 1)] {
            assert_eq!(world.primary(side), Some(addr(peer)), "{silent} silent ones before it");
            assert_eq!(world.nodes[side].paths.stats().amplification_refused, 0, "{silent} silent ones");
        }
    }
}

#[test]
fn the_last_of_sixteen_addresses_is_found_as_soon_as_ever() {
    let mut world = World::new(1);
    for side in [A, B] {
        world.nodes[side].filtered = true;
        let own: Vec<_> = (0..15).map(|n| addr(100 + n)).chain([world.nodes[side].source]).collect();
        world.with(side, |paths, now| {
            paths.set_relays(now, &[hub(1)]);
            paths.set_local_candidates(now, &own);
        });
    }
    world.establish();
    // The second eight begin after the seventh challenges to the first, at 4.5 s, with the next thing that is due.
    world.run(ms(7_600));
    assert_eq!((world.primary(A), world.primary(B)), (Some(addr(2)), Some(addr(1))));
}

#[test]
fn a_record_pays_for_one_init_without_a_relay_and_for_no_more() {
    let mut paths = Paths::new(PathConfig::default(), origin(), crate::rt::Rng::seed_from_u64(1));
    paths.add_published(origin(), &[addr(2)], 62);
    let route = paths.routes().first().unwrap();
    let init = crate::net::secure::securedgram::frames::INIT_LEN;
    assert!(paths.is_limited(&route) && !paths.take(&route, 1_200));
    assert!(paths.take(&route, init) && !paths.take(&route, init));
    paths.add_published(origin(), &[addr(2)], 62);
    assert!(paths.take(&route, init), "the next record pays for the next one");
}
