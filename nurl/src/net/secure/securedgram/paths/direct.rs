//! The direct path: the peer's address that the data goes to, and the keepalive that holds its NAT mappings open.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::config::{FLAPS_FORGIVEN_AFTER, MOVED_TIMES};
use super::keepalive::Keepalive;
use super::status::PathReason;

#[derive(Debug)]
pub(super) struct DirectPath {
    addr: Option<SocketAddr>,
    /// Since when this address is in use.
    since: Option<Instant>,
    pub(super) keepalive: Keepalive,
    /// Remaining repetitions of "moved".
    moved_left: u8,
    /// Why there is none although there was one, or could be one.
    absence: Option<PathReason>,
}

impl DirectPath {
    /// No direct path yet. The keepalive interval adapts from this value on.
    pub(super) fn new(keepalive: Duration) -> DirectPath {
        DirectPath {
            addr: None,
            since: None,
            keepalive: Keepalive::new(keepalive),
            moved_left: 0,
            absence: None,
        }
    }

    pub(super) fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    pub(super) fn is_some(&self) -> bool {
        self.addr.is_some()
    }

    /// Whether it goes to this address.
    pub(super) fn is(&self, addr: SocketAddr) -> bool {
        self.addr == Some(addr)
    }

    /// Replaces the address. Returns the old one.
    pub(super) fn replace(&mut self, now: Instant, addr: Option<SocketAddr>) -> Option<SocketAddr> {
        self.since = addr.map(|_| now);
        if addr.is_some() {
            self.absence = None;
            self.keepalive.begin(now);
        } else {
            self.keepalive.end();
        }
        std::mem::replace(&mut self.addr, addr)
    }

    /// Whether it has been in use for so long that earlier losses are forgiven.
    pub(super) fn has_lasted(&self, now: Instant) -> bool {
        self.since.is_none_or(|since| now >= since + FLAPS_FORGIVEN_AFTER)
    }

    /// Says why there is no direct path.
    pub(super) fn explain_absence(&mut self, reason: PathReason) {
        self.absence = Some(reason);
    }

    /// Why there is none although there was one, or could be one.
    pub(super) fn absence(&self) -> Option<PathReason> {
        self.absence
    }

    /// Whether the relay carries the data because it is faster.
    pub(super) fn yields_to_relay(&self) -> bool {
        self.absence == Some(PathReason::RelayFaster)
    }

    /// The session is over.
    pub(super) fn close(&mut self) {
        (self.absence, self.moved_left) = (None, 0);
    }

    /// Our network changed: challenges to the address are accompanied by "moved".
    pub(super) fn begin_moved(&mut self) {
        self.moved_left = MOVED_TIMES;
    }

    /// The peer echoed, so it knows our new address.
    pub(super) fn end_moved(&mut self) {
        self.moved_left = 0;
    }

    /// Whether a challenge to `addr` is accompanied by "moved"; takes one repetition.
    pub(super) fn take_moved(&mut self, addr: SocketAddr) -> bool {
        let takes = self.is(addr) && self.moved_left > 0;
        self.moved_left -= u8::from(takes);
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::origin;
    use super::*;

    #[test]
    fn moved_accompanies_the_first_challenges_to_the_address_in_use() {
        let [used, other] = [1, 2].map(|host| SocketAddr::from(([192, 0, 2, host], 1)));
        let mut direct = DirectPath::new(Duration::from_secs(15));
        direct.begin_moved();
        assert!(!direct.take_moved(used));
        direct.replace(origin(), Some(used));
        assert!(!direct.take_moved(other));
        assert_eq!((0..9).filter(|_| direct.take_moved(used)).count(), usize::from(MOVED_TIMES));
        direct.begin_moved();
        direct.end_moved();
        assert!(!direct.take_moved(used));
    }

    #[test]
    fn a_new_address_needs_no_excuse_and_ends_the_old_ones_keepalive() {
        let addr = SocketAddr::from(([192, 0, 2, 1], 1));
        let mut direct = DirectPath::new(Duration::from_secs(15));
        direct.explain_absence(PathReason::RelayFaster);
        assert!(direct.yields_to_relay() && direct.keepalive.due().is_none());
        assert_eq!(direct.replace(origin(), Some(addr)), None);
        assert_eq!((direct.absence(), direct.keepalive.due().is_some()), (None, true));
        assert_eq!(direct.replace(origin(), None), Some(addr));
        assert!(direct.keepalive.due().is_none());
    }
}
