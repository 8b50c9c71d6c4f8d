//! One peer: its sessions, its pending messages, and its deadlines.
//!
//! Session slots as in WireGuard §6.1, with one more: `current` seals; `previous` only opens late frames;
//! `next` holds sessions that we answered and whose initiator hasn't proved yet that it has the keys. Message
//! 1 may be a replay, so it has no effect before that. `next` has two entries, because an initiator keeps its
//! last two tries.

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::attempt::{Attempt, MAX_PENDING};
use super::frames::MAC_LEN;
use super::mac::{COOKIE_LIFE, Mac};
use super::paths::Paths;
use crate::key::PublicKey;
use crate::net::secure::noise::SharedSecret;
use crate::net::secure::route::Route;
use crate::net::secure::session::{REJECT_AFTER, REKEY_AFTER, Session};

/// Sessions answered and not yet confirmed: as many as the tries that an initiator keeps.
pub const MAX_UNCONFIRMED: usize = MAX_PENDING;

/// Two sessions that the two sides began within this time count as simultaneous, and the tie-break chooses.
/// The time is longer than the quick retries; a rekeying comes minutes later.
pub const CONCURRENT: Duration = Duration::from_secs(5);

/// The age at which the responder of a session begins the next one if the initiator failed to (WireGuard
/// §6.2: the reject time less the attempts that fit).
pub const REKEY_AFTER_AS_RESPONDER: Duration = Duration::from_secs(165);

/// After application data went unanswered for so long, a handshake begins, because the peer may have
/// restarted. A peer without data of its own answers with a keepalive long before that
/// ([`PathConfig::answer_delay`](super::paths::PathConfig::answer_delay)).
pub const UNANSWERED: Duration = Duration::from_secs(3);

/// The first wait before a confirm is repeated; it doubles.
pub const CONFIRM_WAIT: Duration = Duration::from_millis(200);

/// The longest wait between confirms.
pub const MAX_CONFIRM_WAIT: Duration = Duration::from_secs(5);

/// How long a response is cached for a copy of its init that comes by another leg.
pub const ANSWER_LIFE: Duration = Duration::from_secs(10);

/// Cookies kept: one for each route of an init.
pub const MAX_COOKIES: usize = 4;

/// A session and the data from its handshake.
pub(super) struct Live {
    pub(super) session: Session,
    pub(super) boot: u64,
    pub(super) features: u32,
}

/// A cached response, sent again for the same init.
pub(super) struct Answer {
    pub(super) mac1: Mac,
    /// The init up to and including mac1; mac2 differs from leg to leg.
    pub(super) init: Vec<u8>,
    pub(super) response: Vec<u8>,
    pub(super) at: Instant,
}

/// The confirm, repeated until a frame of the responder arrives.
pub(super) struct Confirm {
    pub(super) at: Instant,
    pub(super) wait: Duration,
    /// The route of the response; the confirm goes there beside the routes in use.
    pub(super) extra: Option<Route>,
    pub(super) until: Instant,
}

pub(super) struct Peer {
    pub(super) key: PublicKey,
    pub(super) paths: Paths,
    pub(super) ss: Option<SharedSecret>,
    pub(super) psk: Option<Zeroizing<[u8; 32]>>,
    pub(super) last_timestamp: Option<[u8; 12]>,
    pub(super) boot: Option<u64>,
    pub(super) keep: bool,
    pub(super) current: Option<Live>,
    pub(super) previous: Option<Live>,
    pub(super) next: Vec<Live>,
    pub(super) attempt: Option<Attempt>,
    pub(super) retry_at: Option<Instant>,
    pub(super) answered: Vec<Answer>,
    pub(super) cookies: Vec<(Route, Mac, Instant)>,
    pub(super) challenged_at: Option<Instant>,
    pub(super) confirm: Option<Confirm>,
    pub(super) rekey_timer: Option<Instant>,
    pub(super) unanswered_since: Option<Instant>,
    pub(super) last_app: Option<Instant>,
    pub(super) last_heard: Option<Instant>,
    pub(super) dirty: bool,
    pub(super) timer: Option<Instant>,
}

/// The result of adopting a session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Adopted {
    /// Indices of the sessions that were dropped.
    pub(super) released: Vec<u32>,
    /// Whether the new session is the current one.
    pub(super) is_current: bool,
    /// Whether there was no session with this process of the peer before.
    pub(super) is_first: bool,
    /// Whether the peer's process has changed.
    pub(super) restarted: bool,
    /// Whether the tie-break decided.
    pub(super) tie: bool,
}

impl Peer {
    pub(super) fn new(key: PublicKey, paths: Paths) -> Peer {
        Peer {
            key,
            paths,
            ss: None,
            psk: None,
            last_timestamp: None,
            boot: None,
            keep: false,
            current: None,
            previous: None,
            next: Vec::new(),
            attempt: None,
            retry_at: None,
            answered: Vec::new(),
            cookies: Vec::new(),
            challenged_at: None,
            confirm: None,
            rekey_timer: None,
            unanswered_since: None,
            last_app: None,
            last_heard: None,
            dirty: false,
            timer: None,
        }
    }

    /// Whether only a timestamp would be lost if the peer were removed.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        !self.keep
            && self.current.is_none()
            && self.previous.is_none()
            && self.attempt.is_none()
            && self
                .next
                .iter()
                .all(|live| now.saturating_duration_since(live.session.created()) > ANSWER_LIFE)
    }

    /// Adopts a session whose keys the peer is known to hold. It becomes the current one or, if both sides
    /// began at once and the tie-break says so, the previous one.
    pub(super) fn adopt(&mut self, local: &PublicKey, live: Live) -> Adopted {
        let mut adopted = Adopted::default();
        let created = live.session.created();
        let Some(current) = &self.current else {
            adopted.restarted = self.boot.is_some_and(|boot| boot != live.boot);
            adopted.is_first = true;
            self.install(live, &mut adopted);
            return adopted;
        };
        if current.boot != live.boot {
            if created < current.session.created() {
                // A late confirm by an earlier process of the peer.
                adopted.released.push(live.session.local_index());
                return adopted;
            }
            adopted.restarted = true;
            adopted.is_first = true;
            adopted.released.extend(self.current.take().map(|old| old.session.local_index()));
            adopted.released.extend(self.previous.take().map(|old| old.session.local_index()));
            self.install(live, &mut adopted);
            return adopted;
        }
        // A session that we began completes only during its attempt, and any adoption ends the attempt. So it
        // is always newer than the current one, and only a session that the peer began can be concurrent.
        let concurrent = !live.session.is_initiator()
            && current.session.is_initiator()
            && apart(&live, current) < CONCURRENT;
        adopted.tie = concurrent && current.session.is_heard();
        let old = if adopted.tie && *local < self.key {
            self.previous.replace(live)
        } else {
            // A current session without a frame from the peer must not displace the previous one, because the
            // peer still seals with the previous one.
            let unheard = !current.session.is_heard() && !concurrent && self.previous.is_some();
            let old = if unheard {
                self.current.take()
            } else {
                std::mem::replace(&mut self.previous, self.current.take())
            };
            self.install(live, &mut adopted);
            old
        };
        adopted.released.extend(old.map(|old| old.session.local_index()));
        adopted
    }

    /// A frame came on the previous session, so both are confirmed. If the two sides began them at once, and
    /// the smaller key began the previous one, the previous one becomes the current one. The other side
    /// decides the same, so both end on one session whatever was lost. Says whether the current session
    /// changed.
    pub(super) fn settle_tie(&mut self, local: &PublicKey) -> bool {
        let (Some(current), Some(previous)) = (&self.current, &self.previous) else { return false };
        let ours = previous.session.is_initiator();
        let wins = ours != current.session.is_initiator()
            && previous.boot == current.boot
            && apart(previous, current) < CONCURRENT
            && ours == (*local < self.key);
        if wins {
            std::mem::swap(&mut self.current, &mut self.previous);
            self.rekey_timer = self.current.as_ref().map(rekey_at);
            self.confirm = None;
        }
        wins
    }

    fn install(&mut self, live: Live, adopted: &mut Adopted) {
        self.rekey_timer = Some(rekey_at(&live));
        self.boot = Some(live.boot);
        self.current = Some(live);
        self.retry_at = None;
        self.unanswered_since = None;
        adopted.is_current = true;
    }

    /// Removes every session and returns their indices.
    pub(super) fn drop_sessions(&mut self) -> Vec<u32> {
        self.confirm = None;
        self.rekey_timer = None;
        self.unanswered_since = None;
        let all = self.current.take().into_iter().chain(self.previous.take()).chain(self.next.drain(..));
        all.map(|live| live.session.local_index()).collect()
    }

    /// The cookie for inits on `route`, if it is still valid.
    pub(super) fn cookie(&self, now: Instant, route: &Route) -> Option<&Mac> {
        let fresh = |at: &Instant| now.saturating_duration_since(*at) < COOKIE_LIFE;
        self.cookies.iter().find(|(of, _, at)| of == route && fresh(at)).map(|(_, cookie, _)| cookie)
    }

    /// Stores a cookie; the oldest one is dropped if needed.
    pub(super) fn keep_cookie(&mut self, now: Instant, route: Route, cookie: [u8; MAC_LEN]) {
        self.cookies.retain(|(of, ..)| *of != route);
        if self.cookies.len() >= MAX_COOKIES {
            self.cookies.remove(0);
        }
        self.cookies.push((route, cookie, now));
    }

    /// The next deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let expiry = |live: &Live| live.session.created() + REJECT_AFTER;
        [
            self.attempt.as_ref().map(Attempt::deadline),
            self.retry_at,
            self.confirm.as_ref().map(|confirm| confirm.at),
            self.rekey_timer,
            self.unanswered_since.map(|since| since + UNANSWERED),
            self.current.as_ref().map(expiry),
            self.previous.as_ref().map(expiry),
            self.next.iter().map(expiry).min(),
            self.paths.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

fn rekey_at(live: &Live) -> Instant {
    let after = if live.session.is_initiator() { REKEY_AFTER } else { REKEY_AFTER_AS_RESPONDER };
    live.session.created() + after
}

/// The time between the beginnings of two sessions.
fn apart(a: &Live, b: &Live) -> Duration {
    let (a, b) = (a.session.created(), b.session.created());
    a.saturating_duration_since(b).max(b.saturating_duration_since(a))
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;
    use crate::net::secure::noise::{Backend, TransportKeys};

    fn live(index: u32, initiator: bool, boot: u64, now: Instant) -> Live {
        let keys = TransportKeys::from_bytes(Backend::DEFAULT, [1; 32], [2; 32]);
        Live { session: Session::new(&keys, index, 0, initiator, now), boot, features: 0 }
    }

    fn peer(now: Instant) -> Peer {
        let rng = crate::rt::Rng::from_seed([0; 32]);
        Peer::new(PublicKey::from_bytes([5; 32]), Paths::new(Default::default(), now, rng))
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do as the beginning of a test's time")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Makes a session open one frame.
    fn hear(live: &mut Live, now: Instant) {
        let keys = TransportKeys::from_bytes(Backend::DEFAULT, [2; 32], [1; 32]);
        let mut frame = Vec::new();
        Session::new(&keys, 0, 0, false, now).seal(now, &[], &[], &mut frame).unwrap();
        live.session.open(now, crate::net::secure::session::Leg::Direct, &mut frame).unwrap();
    }

    const SMALL: PublicKey = PublicKey::from_bytes([1; 32]);
    const LARGE: PublicKey = PublicKey::from_bytes([9; 32]);

    /// Two sessions in each order of confirmation; the tie-break must not depend on the order.
    #[test]
    fn the_tie_break_ends_on_the_session_that_the_smaller_key_began() {
        let now = start();
        for (local, ours_wins) in [(SMALL, true), (LARGE, false)] {
            for heard_first in [true, false] {
                let mut peer = peer(now);
                let mut ours = live(1, true, 7, now);
                if heard_first {
                    hear(&mut ours, now);
                }
                assert!(peer.adopt(&local, ours).is_first);
                let adopted = peer.adopt(&local, live(2, false, 7, now));
                assert!(!adopted.is_first && adopted.released.is_empty());
                assert_eq!(adopted.tie, heard_first, "an unconfirmed session isn't kept against a confirmed");
                let kept = if heard_first && ours_wins { 1 } else { 2 };
                assert_eq!(peer.current.as_ref().unwrap().session.local_index(), kept);
                // Frames arrive on the session that isn't current here but may be current on the other side.
                peer.settle_tie(&local);
                assert!(!peer.settle_tie(&local), "and there it stays");
                let (winner, loser) = if ours_wins { (1, 2) } else { (2, 1) };
                assert_eq!(peer.current.unwrap().session.local_index(), winner);
                assert_eq!(peer.previous.unwrap().session.local_index(), loser);
            }
        }
    }

    #[test]
    fn sessions_begun_apart_are_no_tie() {
        let now = start();
        let mut peer = peer(now);
        let mut first = live(1, true, 7, now);
        hear(&mut first, now);
        peer.adopt(&SMALL, first);
        assert!(!peer.adopt(&SMALL, live(2, false, 7, now + CONCURRENT)).tie);
        assert!(!peer.settle_tie(&SMALL));
        assert_eq!(peer.current.unwrap().session.local_index(), 2);
    }

    #[test]
    fn a_later_session_replaces_the_current_one_whoever_began_it() {
        let now = start();
        let mut peer = peer(now);
        for index in 1..5 {
            let at = now + CONCURRENT * index;
            let mut next = live(index, index % 2 == 0, 7, at);
            hear(&mut next, at);
            let adopted = peer.adopt(&SMALL, next);
            assert!(adopted.is_current && !adopted.tie);
            assert_eq!(adopted.released, if index < 3 { vec![] } else { vec![index - 2] });
        }
    }

    #[test]
    fn a_session_on_which_nothing_was_heard_does_not_push_out_the_one_before_it() {
        let now = start();
        let mut peer = peer(now);
        let mut heard = live(1, true, 7, now);
        hear(&mut heard, now);
        peer.adopt(&SMALL, heard);
        for index in 2..5 {
            let adopted = peer.adopt(&SMALL, live(index, true, 7, now + CONCURRENT * index));
            assert_eq!(adopted.released, if index == 2 { vec![] } else { vec![index - 1] });
            assert_eq!(peer.previous.as_ref().unwrap().session.local_index(), 1);
        }
    }

    #[test]
    fn a_session_with_another_boot_ends_the_older_process_and_never_the_newer() {
        let now = start();
        let mut peer = peer(now);
        peer.adopt(&SMALL, live(1, true, 7, now));
        let adopted = peer.adopt(&SMALL, live(2, false, 8, now + Duration::from_secs(1)));
        assert!(adopted.restarted && adopted.is_first && adopted.is_current);
        assert_eq!(adopted.released, [1]);
        let late = peer.adopt(&SMALL, live(3, false, 7, now));
        assert_eq!(late, Adopted { released: vec![3], ..Adopted::default() });
        assert_eq!(peer.boot, Some(8));
    }

    #[test]
    fn cookies_are_kept_for_each_route_and_are_bounded() {
        let now = start();
        let mut peer = peer(now);
        let route = |port: u16| Route::Direct(([192, 0, 2, 1], port).into());
        for port in 0..9 {
            peer.keep_cookie(now, route(port), [port as u8; 16]);
        }
        assert_eq!(peer.cookies.len(), MAX_COOKIES);
        assert_eq!(peer.cookie(now, &route(8)), Some(&[8; 16]));
        assert_eq!(peer.cookie(now, &route(1)), None);
        assert_eq!(peer.cookie(now + COOKIE_LIFE, &route(8)), None);
    }
}
