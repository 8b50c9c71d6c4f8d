//! The known addresses of the peer: a bounded table, in the order in which the addresses are tried, and their
//! connectivity checks (ICE, RFC 8445 §6.1.4), which punch holes into both NATs.

use std::net::SocketAddr;
use std::time::Instant;

use super::allowance::Allowance;
use super::candidate::{Candidate, CandidateOrigin, CandidateState, usable};
use super::challenge::jittered;
use super::config::{CANDIDATES_WAIT, FIRST_CHALLENGES, MAX_CHECKS_IN_FLIGHT, MAX_REFLEXIVE, SEAL_OVERHEAD};
use super::context::PathContext;
use super::control::{Control, MAX_CANDIDATES};
use super::locality::Locality;
use super::status::PathReason;
use crate::net::secure::route::{Route, Routes};

/// At most [`MAX_CANDIDATES`] candidates, of which at most [`MAX_REFLEXIVE`] were only seen.
#[derive(Debug, Default)]
pub(super) struct CandidateTable {
    list: Vec<Candidate>,
    /// The generation of the last list that the peer told in this session.
    told_generation: Option<u32>,
    /// Until when a first list of the peer is awaited.
    wait_until: Option<Instant>,
    /// What may go to those that aren't proven.
    pub(super) allowance: Allowance,
    pub(super) locality: Locality,
}

/// The challenges that are due.
pub(super) struct DueChallenges {
    pub(super) challenges: Vec<(SocketAddr, [u8; 8])>,
    /// Whether one of them is to open a path, so that the peer should know our current reflexive address.
    pub(super) punches: bool,
}

impl CandidateTable {
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.list.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn get(&self, addr: SocketAddr) -> Option<&Candidate> {
        self.list.iter().find(|candidate| candidate.addr == addr)
    }

    pub(super) fn get_mut(&mut self, addr: SocketAddr) -> Option<&mut Candidate> {
        self.list.iter_mut().find(|candidate| candidate.addr == addr)
    }

    /// Adds addresses that our side or the peer's record names. Returns how many didn't fit.
    pub(super) fn add(&mut self, addrs: impl Iterator<Item = SocketAddr>, origin: CandidateOrigin) -> u64 {
        let mut refused = 0;
        for (order, addr) in addrs.enumerate() {
            match self.get_mut(addr) {
                Some(known) => (known.origin, known.order) = (known.origin.min(origin), order),
                None => refused += u64::from(!self.push(addr, origin, order)),
            }
        }
        refused
    }

    /// Whether what goes to this address is limited. An address that isn't in the table is.
    pub(super) fn is_limited(&self, addr: SocketAddr) -> bool {
        self.get(addr).is_none_or(Candidate::is_limited)
    }

    /// Whether `len` bytes may go to this address now. To one that isn't in the table only an answer goes.
    pub(super) fn may_send(&self, addr: SocketAddr, len: usize) -> bool {
        let within = self.get(addr).is_none_or(|known| known.is_within(len));
        !self.is_limited(addr) || (within && self.allowance.covers(len) && self.locality.admits(&addr))
    }

    /// Counts `len` bytes to this address.
    pub(super) fn count_sent(&mut self, addr: SocketAddr, len: usize) {
        if self.is_limited(addr) {
            self.allowance.spend(len);
        }
        if let Some(known) = self.get_mut(addr) {
            known.count_sent(len);
        }
    }

    /// Takes a list that the peer told. Returns whether it is newer than the last one.
    pub(super) fn on_told(
        &mut self,
        cx: &mut PathContext<'_>,
        generation: u32,
        addrs: &[SocketAddr],
        keep: Option<SocketAddr>,
    ) -> bool {
        let newer = self.told_generation.is_none_or(|known| (generation.wrapping_sub(known) as i32) > 0);
        if !newer {
            cx.stats.stale_candidates += u64::from(self.told_generation != Some(generation));
            return false;
        }
        self.told_generation = Some(generation);
        self.wait_until = None;
        let loopback = cx.config.loopback;
        let mut told: Vec<SocketAddr> = Vec::with_capacity(addrs.len());
        for addr in addrs.iter().take(MAX_CANDIDATES).filter_map(|addr| usable(*addr, loopback)) {
            if !told.contains(&addr) {
                told.push(addr);
            }
        }
        cx.stats.candidates_refused += (addrs.len() - told.len()) as u64;
        cx.stats.candidates_refused += self.tell(&told, keep);
        true
    }

    /// Replaces the addresses that the peer named before; `keep` and validated addresses stay. Returns how many
    /// didn't fit.
    fn tell(&mut self, addrs: &[SocketAddr], keep: Option<SocketAddr>) -> u64 {
        self.list.retain(|candidate| {
            candidate.origin != CandidateOrigin::Told
                || candidate.is_validated()
                || keep == Some(candidate.addr)
                || addrs.contains(&candidate.addr)
        });
        let mut refused = 0;
        for (order, &addr) in addrs.iter().enumerate() {
            match self.get_mut(addr) {
                // An address that was only seen so far is no longer limited by the bytes that came from it: it may
                // have been seen once, long ago, and everything since then was lost.
                Some(known) if known.origin == CandidateOrigin::Seen => {
                    (known.origin, known.order) = (CandidateOrigin::Told, order);
                }
                Some(known) if known.origin == CandidateOrigin::Told => known.order = order,
                Some(_) => {}
                None => refused += u64::from(!self.push(addr, CandidateOrigin::Told, order)),
            }
        }
        refused
    }

    /// Adds a seen source. If there are too many seen ones, the one that was silent longest is dropped. A full table
    /// drops the last address that the peer named, since a source that is heard is more useful.
    pub(super) fn see(&mut self, addr: SocketAddr, keep: Option<SocketAddr>) -> bool {
        let seen = self.list.iter().filter(|candidate| candidate.origin == CandidateOrigin::Seen).count();
        let victim = if seen >= MAX_REFLEXIVE {
            self.position(keep, CandidateOrigin::Seen, |candidate| std::cmp::Reverse(candidate.heard))
        } else if self.list.len() >= MAX_CANDIDATES {
            self.position(keep, CandidateOrigin::Told, |candidate| candidate.order)
        } else {
            return self.push(addr, CandidateOrigin::Seen, 0);
        };
        if let Some(victim) = victim {
            self.list.remove(victim);
        }
        victim.is_some() && self.push(addr, CandidateOrigin::Seen, 0)
    }

    /// The unvalidated candidate of this origin with the greatest key.
    fn position<K: Ord>(
        &self,
        keep: Option<SocketAddr>,
        origin: CandidateOrigin,
        key: impl Fn(&Candidate) -> K,
    ) -> Option<usize> {
        let given_up = self.list.iter().enumerate().filter(|(_, candidate)| {
            candidate.origin == origin && !candidate.is_validated() && keep != Some(candidate.addr)
        });
        given_up.max_by_key(|(_, candidate)| key(candidate)).map(|(index, _)| index)
    }

    fn push(&mut self, addr: SocketAddr, origin: CandidateOrigin, order: usize) -> bool {
        let room = self.list.len() < MAX_CANDIDATES;
        if room {
            self.list.push(Candidate::new(addr, origin, order));
        }
        room
    }

    /// A handshake has ended: the peer may have restarted, and then its generations begin anew.
    pub(super) fn on_handshake(&mut self) {
        self.told_generation = None;
    }

    /// The first session is up: unless the peer's list is known, it is awaited.
    pub(super) fn await_list(&mut self, now: Instant) {
        if self.list.iter().all(|known| known.origin != CandidateOrigin::Told) {
            self.wait_until = Some(now + CANDIDATES_WAIT);
        }
    }

    /// The session is over: every address must echo again.
    pub(super) fn close(&mut self) {
        self.wait_until = None;
        self.locality.close();
        self.list.iter_mut().for_each(Candidate::close);
    }

    /// Whether checks are under way, or a list is awaited, so that a path may still be found.
    pub(super) fn is_checking(&self) -> bool {
        self.wait_until.is_some() || self.list.iter().any(|known| known.waits() || known.is_checked())
    }

    /// Ends the wait for the peer's list when its time is over.
    pub(super) fn end_wait(&mut self, now: Instant) {
        self.wait_until = self.wait_until.filter(|until| *until > now);
    }

    /// The next deadline of a candidate or of the wait for the peer's list.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.list.iter().filter_map(Candidate::next_deadline).chain(self.wait_until).min()
    }

    /// Checks at once an address that was just heard and isn't validated.
    pub(super) fn check_heard(&mut self, now: Instant, addr: SocketAddr) {
        if let Some(known) = self.get_mut(addr).filter(|known| !known.is_validated()) {
            known.check.prompt(now);
        }
    }

    /// Schedules the next check of an address that has just echoed.
    pub(super) fn plan_next_check(&mut self, cx: &mut PathContext<'_>, addr: SocketAddr, in_use: bool) {
        let slow = jittered(cx.config.slow_check, cx.rng);
        if let Some(known) = self.get_mut(addr) {
            known.check.sample_then(cx.now, (!in_use).then_some(slow));
        }
    }

    /// Challenges the address in use, and each in reserve, so that a fresh echo shows a replacement if the address in
    /// use is dead.
    pub(super) fn probe_validated(&mut self, now: Instant, in_use: SocketAddr) {
        for known in self.list.iter_mut().filter(|known| known.is_validated() || known.addr == in_use) {
            known.check.restart(now);
        }
    }

    /// Every address but the one in use must wait for its turn to be checked anew.
    pub(super) fn doubt_others(&mut self, in_use: Option<SocketAddr>) {
        for other in self.list.iter_mut().filter(|other| Some(other.addr) != in_use) {
            other.doubt_unheld();
            other.check.rest();
        }
    }

    /// The path to `lost` was given up. Only those that echoed since the doubt began stay validated.
    pub(super) fn lose(
        &mut self,
        now: Instant,
        lost: SocketAddr,
        doubted_since: Instant,
        reason: PathReason,
        [forgiven, may_hold]: [bool; 2],
    ) {
        for known in &mut self.list {
            if known.addr == lost {
                known.lose(now, reason, forgiven, may_hold);
            } else if !(known.is_validated() && known.check.proven_since(doubted_since)) {
                known.doubt();
                known.check.rest();
            }
        }
    }

    /// The fastest address that may be selected and passes `also`.
    pub(super) fn fastest(&self, also: impl Fn(&Candidate) -> bool) -> Option<&Candidate> {
        let reserve = self.list.iter().filter(|known| known.is_selectable() && also(known));
        reserve.min_by_key(|known| (known.check.rtt.smoothed(), known.rank()))
    }

    /// Starts waiting checks, in order, up to the bound.
    pub(super) fn start_waiting_checks(&mut self, now: Instant) {
        let mut in_flight = self.list.iter().filter(|known| known.is_checked()).count();
        while in_flight < MAX_CHECKS_IN_FLIGHT {
            let waiting = self.list.iter_mut().filter(|known| known.waits());
            let Some(next) = waiting.min_by_key(|known| known.rank()) else { break };
            next.check.restart(now);
            in_flight += 1;
        }
    }

    /// Draws the challenges that are due. `in_doubt` tells whether the address in use is.
    pub(super) fn draw_due(
        &mut self,
        cx: &mut PathContext<'_>,
        in_use: Option<SocketAddr>,
        in_doubt: bool,
    ) -> DueChallenges {
        let now = cx.now;
        let slow = if in_use.is_some() { cx.config.idle_check } else { cx.config.slow_check };
        let challenge_len = SEAL_OVERHEAD + Control::Challenge { data: [0; 8] }.encoded_len();
        let mut due = DueChallenges { challenges: Vec::new(), punches: false };
        // While addresses wait for their turn, those before them leave enough for the first challenges of each.
        let held_back = self.list.iter().filter(|known| known.is_limited() && known.waits()).count()
            * FIRST_CHALLENGES
            * challenge_len;
        let mut limited_bytes = 0;
        for known in &mut self.list {
            if known.held_until().is_some_and(|until| until <= now) {
                // The hold after a loss is over: a fresh echo lets the address return.
                known.state = CandidateState::Doubted;
                known.check.restart(now);
            }
            if !known.check.is_due(now) {
                continue;
            }
            if in_use == Some(known.addr) {
                // An unanswered probe is no evidence against a path that carries no data.
                if known.check.is_silent() && !in_doubt {
                    known.check.rest();
                    continue;
                }
            } else if known.check.is_silent() {
                known.doubt();
            }
            let limited = known.is_limited();
            let held_back = if known.check.attempts() < FIRST_CHALLENGES { 0 } else { held_back };
            let wanted = limited_bytes + challenge_len + held_back;
            if limited && !self.locality.admits(&known.addr) {
                cx.stats.loopback_refused += 1;
                known.check.skip(now, slow, cx.rng);
            } else if limited && !(known.is_within(challenge_len) && self.allowance.covers(wanted)) {
                cx.stats.amplification_refused += 1;
                known.check.skip(now, slow, cx.rng);
            } else {
                limited_bytes += if limited { challenge_len } else { 0 };
                // In the slow phase no data waits for the path.
                due.punches |= (in_use.is_none() || in_doubt) && !known.check.is_slow();
                due.challenges.push((known.addr, known.check.issue(now, slow, cx.rng)));
            }
        }
        due
    }

    /// The addresses from which application data came that must be answered now.
    pub(super) fn answers_due(&self, now: Instant) -> impl Iterator<Item = SocketAddr> {
        let due = move |known: &&Candidate| known.answer_due.is_some_and(|at| at <= now);
        self.list.iter().filter(due).map(|known| known.addr)
    }

    /// The routes without relay and direct path: the two most promising addresses that may be sent to. Among equals,
    /// those `turn` places behind the first come first.
    pub(super) fn fallback(&self, turn: usize) -> Routes {
        let count = self.list.len().max(1);
        let key = |known: &Candidate, index: usize| {
            let turn = (index + count - turn % count) % count;
            (!known.is_validated(), std::cmp::Reverse(known.heard), turn)
        };
        let mut best: [Option<(_, Route)>; 2] = [None, None];
        for (index, known) in self.list.iter().enumerate() {
            let named = matches!(known.origin, CandidateOrigin::Configured | CandidateOrigin::Published);
            if known.is_proven() || known.heard.is_some() || named {
                let entry = (key(known, index), Route::Direct(known.addr));
                if best[0].is_none_or(|first| entry < first) {
                    best = [Some(entry), best[0]];
                } else if best[1].is_none_or(|second| entry < second) {
                    best[1] = Some(entry);
                }
            }
        }
        let [first, second] = best.map(|entry| entry.map(|(_, route)| route));
        Routes::NONE.with(first).with(second)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::origin;
    use super::*;

    fn addr(host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], 4_000))
    }

    #[test]
    fn candidates_are_bounded_and_a_flood_of_sources_leaves_the_told_ones() {
        let mut table = CandidateTable::default();
        assert_eq!(table.tell(&(0..12).map(addr).collect::<Vec<_>>(), None), 0);
        for host in 100..200 {
            assert!(table.see(addr(host), None));
        }
        assert_eq!(table.iter().filter(|c| c.origin == CandidateOrigin::Seen).count(), MAX_REFLEXIVE);
        assert_eq!(table.iter().filter(|c| c.origin == CandidateOrigin::Told).count(), 12);
        let refused = table.add((50..60).map(addr), CandidateOrigin::Configured);
        assert_eq!(refused, 10, "the table is full");
        assert_eq!(table.iter().count(), MAX_CANDIDATES);
    }

    #[test]
    fn a_seen_source_takes_the_place_of_the_last_told_one() {
        let mut table = CandidateTable::default();
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
        let mut table = CandidateTable::default();
        assert!(table.see(addr(1), None));
        assert!(!table.get(addr(1)).unwrap().is_within(40));
        table.tell(&[addr(2), addr(1)], None);
        let known = table.get(addr(1)).unwrap();
        assert_eq!((known.origin, known.order, known.is_within(40)), (CandidateOrigin::Told, 1, true));
        table.tell(&[addr(2)], None);
        assert!(table.get(addr(1)).is_none(), "and forgotten as one");
    }

    #[test]
    fn a_new_list_replaces_the_old_one_but_not_what_works() {
        let mut table = CandidateTable::default();
        table.tell(&[addr(1), addr(2), addr(3)], None);
        table.get_mut(addr(1)).unwrap().validate();
        table.tell(&[addr(3), addr(4)], Some(addr(2)));
        let mut left: Vec<_> = table.iter().map(|c| c.addr).collect();
        left.sort();
        assert_eq!(left, [addr(1), addr(2), addr(3), addr(4)]);
        table.tell(&[], None);
        assert_eq!(table.iter().map(|c| c.addr).collect::<Vec<_>>(), [addr(1)]);
    }

    #[test]
    fn without_relay_and_path_validated_addresses_come_first_then_heard_ones_then_each_in_turn() {
        let routes = |table: &CandidateTable, turn| {
            table.fallback(turn).iter().filter_map(|route| route.addr()).collect::<Vec<_>>()
        };
        let mut table = CandidateTable::default();
        table.tell(&[addr(9)], None);
        assert_eq!(routes(&table, 0), [], "an address that only the peer named isn't tried with data");
        table.add([1, 2, 3].into_iter().map(addr), CandidateOrigin::Published);
        assert_eq!(routes(&table, 0), [addr(1), addr(2)]);
        assert_eq!(routes(&table, 3), [addr(3), addr(1)]);
        table.get_mut(addr(3)).unwrap().hear(origin(), 100);
        assert_eq!(routes(&table, 0), [addr(3), addr(1)]);
        table.get_mut(addr(2)).unwrap().validate();
        assert_eq!(routes(&table, 0), [addr(2), addr(3)]);
    }
}
