//! The receive budget: which peers are read from, which are paused, and who pays when it is used up.
//!
//! Bytes count when they have arrived, also those beyond a gap; nothing is reserved for what is announced. While all
//! incomplete messages together are below half of the budget, everybody is read from. Above it the half is divided
//! fairly: the *level* is the greatest amount that every peer may hold so that all fit, and a peer that holds less than
//! the others doesn't lower theirs. So a newcomer's message fits, whatever others hold.
//!
//! A peer above the level is paused: QUIC's windows stop it. One of them at a time leads: it is read from, so that its
//! messages complete, and another one gets its turn after [`STALL`]. A peer above the level that was read from and sent
//! less than [`MIN_PROGRESS_BYTES`] within [`STALL`] only holds memory, and loses its connection. So does the largest
//! holder when seven eighths of the budget are used up.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::key::PublicKey;
use crate::kit::shares::Shares;
use crate::transport::Gauge;
use crate::transport::reliable::limits::{MIN_PROGRESS_BYTES, STALL};

/// How fast a peer sends that holds bytes here.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// When it had last sent [`MIN_PROGRESS_BYTES`], or when it began or was allowed to.
    since: Instant,
    /// The bytes since then.
    bytes: u64,
}

/// Why a peer's connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It holds more than its share and sends nothing of use.
    Stalled,
    /// It holds most, and there is no room.
    Largest,
}

/// The bytes received from all peers, against their budget.
pub(super) struct Receiving {
    /// Bytes received, incomplete or not yet taken.
    bytes: usize,
    budget: usize,
    /// The bytes of incomplete messages.
    held: Shares<PublicKey>,
    /// None of a peer that just began, or was paused: it may have been unable to send.
    paces: BTreeMap<PublicKey, Pace>,
    /// Peers with reading paused because of the budget, and since when.
    paused: BTreeMap<PublicKey, Instant>,
    /// The latest time that was told.
    now: Instant,
    /// The only peer above the level that is read from, and since when.
    leader: Option<(PublicKey, Instant)>,
    /// The number of each peer's latest lead.
    led: BTreeMap<PublicKey, u64>,
    leads: u64,
}

impl Receiving {
    pub(super) fn new(now: Instant, budget: usize) -> Receiving {
        Receiving {
            bytes: 0,
            budget,
            held: Shares::default(),
            paces: BTreeMap::new(),
            paused: BTreeMap::new(),
            now,
            leader: None,
            led: BTreeMap::new(),
            leads: 0,
        }
    }

    pub(super) fn gauge(&self) -> Gauge {
        Gauge { now: self.bytes, bound: self.budget }
    }

    /// Bytes of a complete message wait to be taken.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// They were taken.
    pub(super) fn remove(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// Notes the bytes of a peer's incomplete messages.
    pub(super) fn holds(&mut self, peer: PublicKey, held: usize) {
        let before = self.held.of(&peer);
        self.bytes = self.bytes - before as usize + held;
        self.held.sub(peer, before);
        self.held.add(peer, held as u64);
    }

    /// The greatest amount that a peer may hold while others hold theirs; none while there is room for all.
    fn level(&self) -> Option<u64> {
        let shared = (self.budget / 2) as u64;
        let mut rest = self.held.total();
        if rest < shared {
            return None;
        }
        // The largest hold as much as remains beside all that hold less than that.
        let mut larger = 0;
        let mut level = 0;
        for (_, held) in self.held.ranking() {
            if larger > 0 && held <= level {
                break;
            }
            larger += 1;
            rest -= held;
            level = shared.saturating_sub(rest) / larger;
        }
        Some(level)
    }

    fn leads(&self, peer: &PublicKey) -> bool {
        self.leader.is_some_and(|(leader, _)| leader == *peer)
    }

    /// How many bytes of a peer may be read now; none while it has to wait.
    pub(super) fn room(&self, peer: &PublicKey) -> Option<usize> {
        let held = self.held.of(peer);
        let room = match self.level() {
            _ if self.leads(peer) => usize::MAX,
            _ if self.bytes >= self.budget => 0,
            None => self.budget / 2 - self.held.total() as usize,
            Some(level) => level.saturating_sub(held) as usize,
        };
        (room > 0).then_some(room)
    }

    /// Notes the time before peers are read from.
    pub(super) fn tick(&mut self, now: Instant) {
        self.now = now;
    }

    /// Pauses a peer. Returns whether it wasn't paused before.
    pub(super) fn pause(&mut self, peer: PublicKey) -> bool {
        let now = self.now;
        let mut fresh = false;
        self.paused.entry(peer).or_insert_with(|| {
            fresh = true;
            now
        });
        fresh
    }

    pub(super) fn unpause(&mut self, peer: &PublicKey) {
        if self.paused.remove(peer).is_some() && !self.leads(peer) {
            self.paces.remove(peer);
        }
    }

    /// A paused peer that may be read from again.
    pub(super) fn resumable(&self) -> Option<PublicKey> {
        self.paused.keys().find(|peer| self.room(peer).is_some()).copied()
    }

    /// A peer's connection ended, and with it its incomplete messages.
    pub(super) fn forget(&mut self, peer: &PublicKey) {
        self.holds(*peer, 0);
        self.paces.remove(peer);
        self.led.remove(peer);
        self.paused.remove(peer);
        self.leader.take_if(|(leader, _)| leader == peer);
    }

    /// A datagram was handled that brought so many bytes of a peer's messages.
    pub(super) fn progressed(&mut self, now: Instant, peer: &PublicKey, bytes: u64) {
        if self.held.of(peer) == 0 {
            self.paces.remove(peer);
            return;
        }
        let pace = self.paces.entry(*peer).or_insert(Pace { since: now, bytes: 0 });
        pace.bytes += bytes;
        if pace.bytes >= MIN_PROGRESS_BYTES {
            *pace = Pace { since: now, bytes: 0 };
        }
    }

    /// Ends a lead that is over, and lets the next peer lead: of those above the level the one whose last lead is longest
    /// ago, then the one that holds most.
    pub(super) fn choose_leader(&mut self, now: Instant) {
        let full = (self.bytes >= self.budget).then_some(0);
        let level = self.level().or(full);
        self.leader.take_if(|(leader, since)| {
            let held = self.held.of(leader);
            held == 0 || level.is_none_or(|level| held < level) || now >= *since + STALL
        });
        let Some(level) = level.filter(|_| self.leader.is_none()) else { return };
        let above = self.held.ranking().take_while(|(_, held)| *held >= level);
        let led = |peer: &PublicKey| self.led.get(peer).copied().unwrap_or(0);
        let Some((next, _)) = above.min_by_key(|(peer, _)| led(peer)) else { return };
        self.leads += 1;
        self.leader = Some((next, now));
        self.led.insert(next, self.leads);
        let fresh = Pace { since: now, bytes: 0 };
        if self.paused.contains_key(&next) {
            // It couldn't send while it was paused.
            self.paces.insert(next, fresh);
        } else {
            self.paces.entry(next).or_insert(fresh);
        }
    }

    /// When [`verdict`](Receiving::verdict) and [`choose_leader`](Receiving::choose_leader) are due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.leader.map(|(_, since)| since + STALL)
    }

    /// A peer whose connection has to end.
    pub(super) fn verdict(&self, now: Instant) -> Option<(PublicKey, Verdict)> {
        let level = self.level()?;
        // The leader is never the one that pays, since it alone goes on.
        let others = |(peer, _): &(PublicKey, u64)| !self.leads(peer);
        let (largest, held) = self.held.ranking().find(others).unzip();
        let leader = self.leader.map_or(0, |(leader, _)| self.held.of(&leader));
        if self.held.total() - leader >= (self.budget * 7 / 8) as u64 && held >= Some(level) {
            return largest.map(|peer| (peer, Verdict::Largest));
        }
        // A paused peer is judged by what it did before.
        let until =
            |peer: &PublicKey| self.paused.get(peer).copied().filter(|_| !self.leads(peer)).unwrap_or(now);
        let slow =
            |peer: &PublicKey| self.paces.get(peer).is_some_and(|pace| until(peer) >= pace.since + STALL);
        let above = self.held.ranking().take_while(|(_, held)| *held >= level);
        above.map(|(peer, _)| peer).find(slow).map(|peer| (peer, Verdict::Stalled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    /// A budget of 1,600, so that 800 are divided.
    fn holding(held: &[usize]) -> Receiving {
        let mut receiving = Receiving::new(crate::rt::time::now(), 1600);
        for (n, held) in (1..).zip(held) {
            receiving.holds(key(n), *held);
        }
        receiving
    }

    #[test]
    fn the_half_is_divided_and_small_holders_take_nothing_from_large_ones() {
        for (held, level) in [
            (&[799][..], None),
            (&[900], Some(800)),
            (&[500, 400], Some(400)),
            (&[700, 100], Some(700)),
            (&[600, 500, 10, 10], Some(390)),
            (&[900, 900, 0], Some(400)),
            (&[100; 9], Some(88)),
        ] {
            assert_eq!(holding(held).level(), level, "{held:?}");
        }
    }

    #[test]
    fn one_that_holds_little_is_read_from_whatever_others_hold_and_one_above_the_level_when_it_leads() {
        let now = crate::rt::time::now();
        let mut receiving = holding(&[600, 500, 0, 10]);
        let may = |receiving: &Receiving| [1, 2, 3, 4].map(|n| receiving.room(&key(n)).is_some());
        assert_eq!(may(&receiving), [false, false, true, true]);
        receiving.choose_leader(now);
        assert_eq!(may(&receiving), [true, false, true, true], "the largest leads first");
        assert!(receiving.pause(key(2)) && !receiving.pause(key(2)));
        assert_eq!(receiving.resumable(), None);
        receiving.choose_leader(now + STALL);
        assert_eq!(may(&receiving), [false, true, true, true], "then the other one");
        assert_eq!(receiving.resumable(), Some(key(2)));
        receiving.holds(key(2), 100);
        receiving.choose_leader(now + STALL);
        assert_eq!(may(&receiving), [true; 4]);
        assert_eq!(receiving.poll_timeout(), None);
        receiving.add(900);
        assert_eq!(may(&receiving), [false; 4], "what nobody takes is the reader's fault");
    }

    #[test]
    fn one_above_the_level_that_sends_too_little_is_ended_and_one_that_was_paused_gets_time() {
        let now = crate::rt::time::now();
        let mut receiving = holding(&[600, 300, 300]);
        for n in 1..=3 {
            receiving.progressed(now, &key(n), 1);
        }
        receiving.tick(now);
        receiving.pause(key(1));
        assert_eq!(receiving.verdict(now + STALL - Duration::from_millis(1)), None);
        receiving.progressed(now + STALL / 2, &key(2), MIN_PROGRESS_BYTES - 1);
        assert_eq!(receiving.verdict(now + STALL), Some((key(3), Verdict::Stalled)));
        receiving.forget(&key(3));
        assert_eq!(receiving.verdict(now + STALL), None, "the first is paused, the second sends enough");
        receiving.choose_leader(now + STALL);
        assert_eq!(receiving.verdict(now + STALL), None);
        assert_eq!(receiving.poll_timeout(), Some(now + STALL * 2));
        assert_eq!(receiving.verdict(now + STALL * 2), Some((key(1), Verdict::Stalled)));
        receiving.holds(key(1), 400);
        assert_eq!(receiving.verdict(now + STALL * 9), None, "there is room: silence ends nothing");
        receiving.holds(key(1), 600);
        receiving.holds(key(2), 600);
        receiving.tick(now + STALL * 10);
        receiving.pause(key(2));
        receiving.progressed(now + STALL * 10, &key(1), MIN_PROGRESS_BYTES);
        assert_eq!(receiving.verdict(now + STALL * 10), Some((key(2), Verdict::Stalled)), "before its pause");
    }

    #[test]
    fn the_largest_pays_when_the_budget_is_used_up() {
        let now = crate::rt::time::now();
        let mut receiving = holding(&[800, 500, 99]);
        assert_eq!(receiving.verdict(now), None);
        receiving.holds(key(3), 100);
        assert_eq!(receiving.verdict(now), Some((key(1), Verdict::Largest)));
        receiving.choose_leader(now);
        assert_eq!(receiving.verdict(now), None, "but for the leader, there is room");
        receiving.holds(key(2), 1300);
        assert_eq!(receiving.verdict(now), Some((key(2), Verdict::Largest)));
        receiving.forget(&key(2));
        assert_eq!((receiving.verdict(now), receiving.gauge().now), (None, 900));
    }
}
