//! The known addresses of the peer: bounded, and in the order in which they are tried.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::challenge::Check;
use super::config::{AMPLIFICATION_LIMIT, MAX_REFLEXIVE};
use super::control::MAX_CANDIDATES;

/// How an address became known; declared in the order in which the addresses are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// An authenticated datagram came from it (peer-reflexive, RFC 8445 §7.3.1.3).
    Seen,
    /// Named by our side: configuration, rendezvous, a test.
    Configured,
    /// Named by the peer.
    Told,
}

/// One address of the peer.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) addr: SocketAddr,
    pub(super) origin: Origin,
    /// The position in the list that named it.
    pub(super) order: usize,
    pub(super) check: Check,
    /// An echo returned from it, and no doubt has come since.
    pub(super) validated: bool,
    /// An echo returned from it once: the peer owns the address, so no amplification limit applies.
    pub(super) proven: bool,
    /// Bytes of authenticated datagrams from it.
    pub(super) received: u64,
    /// Bytes sent to it before it was proven.
    pub(super) sent: u64,
    pub(super) heard: Option<Instant>,
    /// When application data from it must be answered on this leg.
    pub(super) answer_due: Option<Instant>,
    /// Losses that are not forgiven yet.
    pub(super) flaps: u32,
    /// Until when it stays in reserve after a loss.
    pub(super) hold_until: Option<Instant>,
    /// No contest with it before this time, and the length of the next pause.
    pub(super) contest_pause: Option<(Instant, Duration)>,
    /// Until when datagrams from it count as answers for the address in use. An echo of a challenge to the address in
    /// use came back from here, so datagrams to the address in use do arrive.
    pub(super) shadows_until: Option<Instant>,
}

impl Candidate {
    fn new(addr: SocketAddr, origin: Origin, order: usize) -> Candidate {
        Candidate {
            addr,
            origin,
            order,
            check: Check::default(),
            validated: false,
            proven: false,
            received: 0,
            sent: 0,
            heard: None,
            answer_due: None,
            flaps: 0,
            hold_until: None,
            contest_pause: None,
            shadows_until: None,
        }
    }

    /// Whether `len` more bytes may go there. A proven or configured address isn't limited; any other gets a multiple
    /// of the bytes that came from it. The few scheduled challenges to an address that the peer named are exempt.
    pub(super) fn may_send(&self, len: usize) -> bool {
        self.proven
            || self.origin == Origin::Configured
            || self.sent + len as u64 <= AMPLIFICATION_LIMIT * self.received
    }

    /// Whether its quick checks wait for their turn.
    pub(super) fn waits(&self) -> bool {
        !self.validated && self.check.next().is_none()
    }

    /// Whether it is being checked for the first time, or again after silence.
    pub(super) fn is_checked(&self) -> bool {
        !self.validated && self.check.is_quick()
    }

    pub(super) fn shadows(&self, now: Instant) -> bool {
        self.shadows_until.is_some_and(|until| now < until)
    }

    pub(super) fn rank(&self) -> (Origin, usize) {
        (self.origin, self.order)
    }
}

/// Converts a v4-mapped address to v4, and refuses addresses that no unicast datagram reaches.
pub(super) fn usable(addr: SocketAddr, loopback: bool) -> Option<SocketAddr> {
    let ip = addr.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    // A link-local address without a scope is meaningless on another host (RFC 4007 §6).
    let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let refused = addr.port() == 0 || ip.is_unspecified() || ip.is_multicast() || broadcast || link_local;
    if refused || (ip.is_loopback() && !loopback) {
        return None;
    }
    Some(SocketAddr::new(ip, addr.port()))
}

/// At most [`MAX_CANDIDATES`] candidates, of which at most [`MAX_REFLEXIVE`] were only seen.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<Candidate>);

impl Table {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Candidate> {
        self.0.iter_mut()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, addr: SocketAddr) -> Option<&Candidate> {
        self.0.iter().find(|candidate| candidate.addr == addr)
    }

    pub(super) fn get_mut(&mut self, addr: SocketAddr) -> Option<&mut Candidate> {
        self.0.iter_mut().find(|candidate| candidate.addr == addr)
    }

    /// Adds addresses that our side names. Returns how many didn't fit.
    pub(super) fn configure(&mut self, addrs: impl Iterator<Item = SocketAddr>) -> u64 {
        let mut refused = 0;
        for (order, addr) in addrs.enumerate() {
            match self.get_mut(addr) {
                Some(known) => (known.origin, known.order) = (known.origin.min(Origin::Configured), order),
                None => refused += u64::from(!self.push(addr, Origin::Configured, order)),
            }
        }
        refused
    }

    /// Replaces the addresses that the peer named before; `keep` and validated addresses stay. Returns how many
    /// didn't fit.
    pub(super) fn tell(&mut self, addrs: &[SocketAddr], keep: Option<SocketAddr>) -> u64 {
        self.0.retain(|candidate| {
            candidate.origin != Origin::Told
                || candidate.validated
                || keep == Some(candidate.addr)
                || addrs.contains(&candidate.addr)
        });
        let mut refused = 0;
        for (order, &addr) in addrs.iter().enumerate() {
            match self.get_mut(addr) {
                // An address that was only seen so far is no longer limited by the bytes that came from it: it may
                // have been seen once, long ago, and everything since then was lost.
                Some(known) if known.origin != Origin::Configured => {
                    (known.origin, known.order) = (Origin::Told, order);
                }
                Some(_) => {}
                None => refused += u64::from(!self.push(addr, Origin::Told, order)),
            }
        }
        refused
    }

    /// Adds a seen source. If there are too many seen ones, the one that was silent longest is dropped. A full table
    /// drops the last address that the peer named, since a source that is heard is more useful.
    pub(super) fn see(&mut self, addr: SocketAddr, keep: Option<SocketAddr>) -> bool {
        let seen = self.0.iter().filter(|candidate| candidate.origin == Origin::Seen).count();
        let victim = if seen >= MAX_REFLEXIVE {
            self.position(keep, Origin::Seen, |candidate| std::cmp::Reverse(candidate.heard))
        } else if self.0.len() >= MAX_CANDIDATES {
            self.position(keep, Origin::Told, |candidate| candidate.order)
        } else {
            return self.push(addr, Origin::Seen, 0);
        };
        if let Some(victim) = victim {
            self.0.remove(victim);
        }
        victim.is_some() && self.push(addr, Origin::Seen, 0)
    }

    /// The unvalidated candidate of this origin with the greatest key.
    fn position<K: Ord>(
        &self,
        keep: Option<SocketAddr>,
        origin: Origin,
        key: impl Fn(&Candidate) -> K,
    ) -> Option<usize> {
        let given_up = self.0.iter().enumerate().filter(|(_, candidate)| {
            candidate.origin == origin && !candidate.validated && keep != Some(candidate.addr)
        });
        given_up.max_by_key(|(_, candidate)| key(candidate)).map(|(index, _)| index)
    }

    fn push(&mut self, addr: SocketAddr, origin: Origin, order: usize) -> bool {
        let room = self.0.len() < MAX_CANDIDATES;
        if room {
            self.0.push(Candidate::new(addr, origin, order));
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], 4_000))
    }

    #[test]
    fn candidates_are_bounded_and_a_flood_of_sources_leaves_the_told_ones() {
        let mut table = Table::default();
        assert_eq!(table.tell(&(0..12).map(addr).collect::<Vec<_>>(), None), 0);
        for host in 100..200 {
            assert!(table.see(addr(host), None));
        }
        assert_eq!(table.iter().filter(|c| c.origin == Origin::Seen).count(), MAX_REFLEXIVE);
        assert_eq!(table.iter().filter(|c| c.origin == Origin::Told).count(), 12);
        assert_eq!(table.configure((50..60).map(addr)), 10, "the table is full");
        assert_eq!(table.iter().count(), MAX_CANDIDATES);
    }

    #[test]
    fn a_seen_source_takes_the_place_of_the_last_told_one() {
        let mut table = Table::default();
        table.tell(&(0..16).map(addr).collect::<Vec<_>>(), None);
        assert!(table.see(addr(99), None));
        assert!(table.get(addr(15)).is_none() && table.get(addr(14)).is_some());
        assert!(table.see(addr(98), Some(addr(14))));
        assert!(table.get(addr(14)).is_some(), "the address in use stays");
    }

    /// Found by the scenario `swarm` with seed 1263: three times the bytes of one datagram were used up, and the
    /// peer's own address was never challenged again.
    #[test]
    fn an_address_that_is_seen_and_then_named_is_checked_as_one_that_is_named() {
        let mut table = Table::default();
        assert!(table.see(addr(1), None));
        assert!(!table.get(addr(1)).unwrap().may_send(40));
        table.tell(&[addr(2), addr(1)], None);
        let known = table.get(addr(1)).unwrap();
        assert_eq!((known.origin, known.order), (Origin::Told, 1));
        table.tell(&[addr(2)], None);
        assert!(table.get(addr(1)).is_none(), "and forgotten as one");
    }

    #[test]
    fn a_new_list_replaces_the_old_one_but_not_what_works() {
        let mut table = Table::default();
        table.tell(&[addr(1), addr(2), addr(3)], None);
        table.get_mut(addr(1)).unwrap().validated = true;
        table.tell(&[addr(3), addr(4)], Some(addr(2)));
        let mut left: Vec<_> = table.iter().map(|c| c.addr).collect();
        left.sort();
        assert_eq!(left, [addr(1), addr(2), addr(3), addr(4)]);
        table.tell(&[], None);
        assert_eq!(table.iter().map(|c| c.addr).collect::<Vec<_>>(), [addr(1)]);
    }

    #[test]
    fn unusable_addresses_are_refused() {
        for (text, loopback, expected) in [
            ("192.0.2.1:1", false, Some("192.0.2.1:1")),
            ("[::ffff:192.0.2.1]:1", false, Some("192.0.2.1:1")),
            ("[2001:db8::1]:1", false, Some("[2001:db8::1]:1")),
            ("192.0.2.1:0", true, None),
            ("0.0.0.0:1", true, None),
            ("255.255.255.255:1", true, None),
            ("224.0.0.1:1", true, None),
            ("[ff02::1]:1", true, None),
            ("[fe80::1]:1", true, None),
            ("127.0.0.1:1", false, None),
            ("127.0.0.1:1", true, Some("127.0.0.1:1")),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(usable(text.parse().unwrap(), loopback), expected, "{text}");
        }
    }
}
