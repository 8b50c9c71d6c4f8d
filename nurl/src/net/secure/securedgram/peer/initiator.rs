//! Our handshakes with a peer as the initiator: the attempt that is under way, when the next one begins by itself, and
//! the cookies that the peer gave us.

use std::time::Instant;

use super::super::attempt::{HandshakeAttempt, PendingTry};
use super::super::frames::MAC_LEN;
use super::super::mac::{COOKIE_LIFE, Mac};
use crate::net::secure::route::Route;

/// Cookies kept: one for each route of an init.
pub const MAX_COOKIES: usize = 4;

#[derive(Default)]
pub(in super::super) struct PeerInitiator {
    pub(in super::super) attempt: Option<HandshakeAttempt>,
    /// When an attempt begins by itself.
    pub(in super::super) retry_at: Option<Instant>,
    /// An attempt that begins before this time sends nothing until then.
    held_until: Option<Instant>,
    cookies: Vec<(Route, Mac, Instant)>,
}

impl PeerInitiator {
    /// The try with this index, if it may still be answered.
    pub(super) fn pending(&mut self, index: u32) -> Option<&mut PendingTry> {
        self.attempt.as_mut()?.pending.iter_mut().find(|pending| pending.index == index)
    }

    /// Forgets a try whose index became a session's.
    pub(super) fn complete(&mut self, index: u32) {
        if let Some(attempt) = &mut self.attempt {
            attempt.pending.retain(|pending| pending.index != index);
        }
    }

    /// Takes the retry, if it is due.
    pub(super) fn take_retry(&mut self, now: Instant) -> bool {
        self.retry_at.take_if(|at| *at <= now).is_some()
    }

    /// Attempts send nothing until then.
    pub(super) fn hold_until(&mut self, until: Instant) {
        self.held_until = Some(until);
    }

    /// Until when an attempt that begins now waits, if it does.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        self.held_until.filter(|until| now < *until)
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

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let attempt = self.attempt.as_ref().map(HandshakeAttempt::deadline);
        attempt.into_iter().chain(self.retry_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_kept_for_each_route_and_are_bounded() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let mut initiator = PeerInitiator::default();
        let route = |port: u16| Route::Direct(([192, 0, 2, 1], port).into());
        for port in 0..9 {
            initiator.keep_cookie(now, route(port), [port as u8; 16]);
        }
        assert_eq!(initiator.cookies.len(), MAX_COOKIES);
        assert_eq!(initiator.cookie(now, &route(8)), Some(&[8; 16]));
        assert_eq!(initiator.cookie(now, &route(1)), None);
        assert_eq!(initiator.cookie(now + COOKIE_LIFE, &route(8)), None);
    }
}
