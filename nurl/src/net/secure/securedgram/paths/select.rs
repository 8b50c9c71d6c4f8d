//! Selects the route in use: promotion, demotion, roaming.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::candidate::{Candidate, Origin, usable};
use super::config::{
    CONTEST_COOLDOWN, DATA_LOST_HOLD, FLAPS_FORGIVEN_AFTER, LOST_HOLD, OLD_PATH_SILENCE, SHADOW_LIFE,
};
use super::control::{Control, acknowledgement};
use super::evidence::{Verdict, patience};
use super::roam::{Contest, Outcome};
use super::score::{relay_wins, replaces};
use super::status::{PathEvent, PathEventKind, PathReason};
use super::{Paths, Route};
use crate::rt;

/// How long a path stays in reserve after it was lost for this reason, the `flaps`-th time in a row.
fn hold(reason: PathReason, flaps: u32) -> Option<Duration> {
    let (base, limit, doublings) = match reason {
        PathReason::DataLost => (DATA_LOST_HOLD.0, DATA_LOST_HOLD.1, flaps.checked_sub(1)?),
        _ => (LOST_HOLD.0, LOST_HOLD.1, flaps.checked_sub(2)?),
    };
    Some((base * 2u32.pow(doublings.min(10))).min(limit))
}

impl Paths {
    /// Adds a new source, if it is acceptable. Returns whether it was added.
    pub(super) fn meet(&mut self, addr: SocketAddr, newest_on_leg: bool) -> bool {
        if !newest_on_leg {
            self.stats.late_sources += 1;
            return false;
        }
        // The source of a datagram is used unchanged; only an unusable one is refused.
        let met = usable(addr, true) == Some(addr) && self.candidates.see(addr, self.primary);
        self.stats.candidates_refused += u64::from(!met);
        met
    }

    /// Checks at once an address that was just heard and isn't validated.
    pub(super) fn check_heard(&mut self, now: Instant, addr: SocketAddr) {
        if let Some(known) = self.candidates.get_mut(addr).filter(|known| !known.validated) {
            known.check.prompt(now);
        }
    }

    /// The peer was heard from an address that isn't in use: challenges it and the one in use.
    pub(super) fn consider_contest(&mut self, now: Instant, addr: SocketAddr, asked: bool) {
        let Some(primary) = self.primary.filter(|primary| *primary != addr) else { return };
        match &mut self.contest {
            Some(contest) if contest.newcomer == addr => {
                contest.asked |= asked;
                return;
            }
            // If the peer moves again meanwhile, the silence of the old address keeps counting.
            Some(contest) if asked || !self.candidates.get(contest.newcomer).is_some_and(|c| c.validated) => {
                (contest.newcomer, contest.asked) = (addr, asked);
            }
            Some(_) => return,
            None => {
                let pause = self.candidates.get(addr).and_then(|known| known.contest_pause);
                if !asked && pause.is_some_and(|(until, _)| now < until) {
                    return;
                }
                let old_rtt = self.candidates.get(primary).and_then(|known| known.check.rtt.smoothed());
                self.contest = Some(Contest::new(now, addr, old_rtt, asked));
                if let Some(old) = self.candidates.get_mut(primary) {
                    old.check.restart(now);
                }
            }
        }
        if let Some(new) = self.candidates.get_mut(addr) {
            new.check.restart(now);
        }
    }

    pub(super) fn judge_contest(&mut self, now: Instant) {
        let Some(contest) = self.contest else { return };
        let Some(new) = self.candidates.get_mut(contest.newcomer) else {
            self.contest = None;
            return;
        };
        match contest.outcome(now, new.check.proven_since(contest.started)) {
            Outcome::Wait => {}
            Outcome::Follow => {
                self.stats.moves += 1;
                if new.origin == Origin::Seen {
                    rt::reached("a roamed sender was followed to an address that nobody had named");
                }
                self.set_primary(now, Some(contest.newcomer));
                self.emit(PathEventKind::Moved, Some(Route::Direct(contest.newcomer)), PathReason::PeerMoved);
            }
            Outcome::Stay => {
                let pause = new.contest_pause.map_or(CONTEST_COOLDOWN.0, |(_, pause)| pause);
                new.contest_pause = Some((now + pause, (pause * 2).min(CONTEST_COOLDOWN.1)));
                self.contest = None;
            }
        }
    }

    pub(super) fn on_moved(&mut self, now: Instant, source: Route, newest_on_leg: bool) {
        match source {
            Route::Direct(addr) if newest_on_leg => self.consider_contest(now, addr, true),
            Route::Direct(_) => {}
            // The peer's direct datagrams may not reach us from its new address, so all its known addresses
            // are in question.
            Route::Relay(_) => self.recheck_all(now),
        }
    }

    /// Puts the primary in doubt and checks every address anew.
    pub(super) fn recheck_all(&mut self, now: Instant) {
        if let Some(primary) = self.primary
            && let Some(known) = self.candidates.get_mut(primary)
        {
            known.check.restart(now);
            self.evidence.doubt(now);
        }
        let primary = self.primary;
        for other in self.candidates.iter_mut().filter(|other| Some(other.addr) != primary) {
            other.validated = false;
            other.hold_until = None;
            other.check.rest();
        }
    }

    pub(super) fn on_told(&mut self, now: Instant, source: Route, generation: u32, addrs: &[SocketAddr]) {
        self.push(now, source, Control::Response { data: acknowledgement(generation), observed: None });
        let newer = self.told_generation.is_none_or(|known| (generation.wrapping_sub(known) as i32) > 0);
        if !newer {
            self.stats.stale_candidates += u64::from(self.told_generation != Some(generation));
            return;
        }
        self.told_generation = Some(generation);
        self.wait_until = None;
        let loopback = self.config.loopback;
        let mut told: Vec<SocketAddr> = Vec::with_capacity(addrs.len());
        for addr in addrs.iter().take(super::MAX_CANDIDATES).filter_map(|addr| usable(*addr, loopback)) {
            if !told.contains(&addr) {
                told.push(addr);
            }
        }
        self.stats.candidates_refused += (addrs.len() - told.len()) as u64;
        self.stats.candidates_refused += self.candidates.tell(&told, self.primary);
        if self.contest.is_some_and(|contest| self.candidates.get(contest.newcomer).is_none()) {
            self.contest = None;
        }
    }

    pub(super) fn on_response(
        &mut self,
        now: Instant,
        source: Route,
        data: [u8; 8],
        observed: Option<SocketAddr>,
    ) {
        let known = match source {
            Route::Direct(addr) => self.on_echo(now, addr, &data),
            Route::Relay(hub) => self.on_relay_echo(now, hub, &data),
        };
        if known {
            self.stats.echoes += 1;
            if let Some(addr) = observed.and_then(|addr| usable(addr, self.config.loopback)) {
                self.reflection.observed(addr);
            }
        } else if self.announcement.next.is_some() && data == acknowledgement(self.announcement.generation) {
            self.announcement.next = None;
        } else {
            self.stats.stray_responses += 1;
        }
    }

    fn on_echo(&mut self, now: Instant, addr: SocketAddr, data: &[u8; 8]) -> bool {
        let Some(known) = self.candidates.get_mut(addr) else { return false };
        let Some(sent) = known.check.echo(now, data) else { return self.on_shadow_echo(now, addr, data) };
        (known.validated, known.proven) = (true, true);
        if let Some(contest) = &mut self.contest
            && self.primary == Some(addr)
            && sent >= contest.started
        {
            contest.old_heard = true;
        }
        if self.primary == Some(addr) {
            self.moved_left = 0;
        } else if let Some(doubt) = self.evidence.doubted_since()
            && let Some(primary) = self.primary.and_then(|primary| self.candidates.get(primary))
            && sent >= doubt
        {
            let silence = primary.check.rtt.smoothed().unwrap_or_default() * 3;
            self.next_takeover.get_or_insert(doubt + silence.max(OLD_PATH_SILENCE));
        }
        self.plan_next_check(now, addr);
        self.judge_contest(now);
        self.judge_active(now);
        self.take_over(now);
        self.reselect(now);
        true
    }

    /// The echo of a challenge to the address in use came back from another one. So the address in use works,
    /// at least one way. The difference comes from the peer's return path: its routing, or an on-path
    /// attacker whose copies are faster. The echo proves nothing about an address that isn't in use.
    fn on_shadow_echo(&mut self, now: Instant, source: SocketAddr, data: &[u8; 8]) -> bool {
        let Some(primary) = self.primary else { return false };
        let Some(sent) = self.candidates.get_mut(primary).and_then(|known| known.check.echo(now, data))
        else {
            return false;
        };
        if let Some(shadow) = self.candidates.get_mut(source) {
            shadow.shadows_until = Some(now + SHADOW_LIFE);
        }
        if let Some(contest) = &mut self.contest {
            contest.old_heard |= sent >= contest.started;
        }
        self.plan_next_check(now, primary);
        self.judge_contest(now);
        self.judge_active(now);
        true
    }

    fn on_relay_echo(&mut self, now: Instant, hub: crate::key::PublicKey, data: &[u8; 8]) -> bool {
        let Some(leg) = self.relays.iter_mut().find(|leg| leg.hub == hub) else { return false };
        if leg.check.echo(now, data).is_none() {
            return false;
        }
        leg.proven = true;
        if leg.check.rtt.samples() < 3 {
            leg.check.schedule(now + super::drive::SAMPLE_GAP);
        } else {
            leg.check.rest();
        }
        self.choose_home();
        self.judge_active(now);
        self.reselect(now);
        true
    }

    /// Application data, or a keepalive in its place, arrived from `source`.
    pub(super) fn on_answer(&mut self, now: Instant, source: Route) {
        let shadows = match source {
            Route::Direct(addr) => self.candidates.get(addr).is_some_and(|known| known.shadows(now)),
            Route::Relay(_) => false,
        };
        if self.active() != Some(source) && !(shadows && self.primary.is_some()) {
            return;
        }
        if self.evidence.answered()
            && let Some(primary) = self.primary
        {
            self.plan_next_check(now, primary);
        }
    }

    /// Chooses the relay leg: a proven one before others, and the present one unless another is faster by the
    /// margin.
    pub(super) fn choose_home(&mut self) {
        let best = self
            .relays
            .iter()
            .enumerate()
            .min_by_key(|(index, leg)| {
                (!leg.proven, leg.check.rtt.smoothed().is_none(), leg.check.rtt.smoothed(), *index)
            })
            .map(|(_, leg)| leg);
        let keep = match (self.home_leg(), best) {
            (Some(home), Some(best)) => {
                home.proven >= best.proven && !(best.proven && replaces(&best.check.rtt, &home.check.rtt))
            }
            _ => false,
        };
        if !keep {
            let best = best.map(|leg| leg.hub);
            if best != self.home && self.primary.is_none() {
                self.evidence.reset();
            }
            self.home = best;
        }
    }

    /// Applies the verdict on the route in use.
    pub(super) fn judge_active(&mut self, now: Instant) {
        let (rtt, echo) = {
            let check = match self.active() {
                Some(Route::Direct(addr)) => self.candidates.get(addr).map(|known| &known.check),
                Some(Route::Relay(_)) => self.home_leg().map(|leg| &leg.check),
                None => None,
            };
            let Some(check) = check else { return };
            let doubt = self.evidence.doubted_since();
            (check.rtt, doubt.is_some_and(|doubt| check.proven_since(doubt)))
        };
        let patience = patience(&rtt, self.config.answer_delay);
        match self.evidence.verdict(now, echo, patience, self.config.demote_after) {
            Verdict::Trust => {}
            Verdict::Doubt => self.begin_doubt(now),
            Verdict::Clear => self.evidence.clear(),
            Verdict::Drop(reason) => match self.primary {
                Some(_) => self.drop_primary(now, reason),
                None => self.drop_home(),
            },
        }
    }

    fn begin_doubt(&mut self, now: Instant) {
        if self.evidence.doubted_since().is_some() {
            return;
        }
        self.evidence.doubt(now);
        if let Some(primary) = self.primary {
            // The reserve is challenged too, so that a fresh echo shows a replacement if the primary is dead.
            for known in self.candidates.iter_mut().filter(|known| known.validated || known.addr == primary) {
                known.check.restart(now);
            }
        } else {
            for leg in &mut self.relays {
                leg.proven = false;
                leg.check.restart(now);
            }
        }
    }

    /// The relay leg in use gives no answers. A proven leg replaces it; without one, all legs are probed.
    fn drop_home(&mut self) {
        self.evidence.reset();
        self.choose_home();
    }

    fn drop_primary(&mut self, now: Instant, reason: PathReason) {
        let Some(addr) = self.primary else { return };
        let doubt = self.evidence.doubted_since().unwrap_or(now);
        let forgiven = self.primary_since.is_none_or(|since| now >= since + FLAPS_FORGIVEN_AFTER);
        let relayed = !self.relays.is_empty();
        self.keepalive.lost(self.evidence.first_unanswered());
        for known in self.candidates.iter_mut() {
            if known.addr == addr {
                known.validated = false;
                known.flaps = if forgiven { 1 } else { known.flaps.saturating_add(1) };
                // Without a relay there is no better route to wait on.
                known.hold_until = hold(reason, known.flaps).filter(|_| relayed).map(|hold| now + hold);
                known.check.restart(now);
            } else {
                known.validated &= known.check.proven_since(doubt);
                if !known.validated {
                    known.check.rest();
                }
            }
        }
        self.demote(now, reason);
        self.reselect(now);
    }

    fn demote(&mut self, now: Instant, reason: PathReason) {
        self.stats.demotions += 1;
        self.lost = Some(reason);
        self.set_primary(now, None);
        self.emit_fallback(reason);
    }

    /// Replaces a silent primary in doubt by a reserve that answered meanwhile. That is faster than the way
    /// back through the relay.
    pub(super) fn take_over(&mut self, now: Instant) {
        if self.next_takeover.is_none_or(|next| next > now) {
            return;
        }
        self.next_takeover = None;
        let Some(doubt) = self.evidence.doubted_since().filter(|_| self.contest.is_none()) else { return };
        let silent =
            |known: &&Candidate| Some(known.addr) == self.primary && !known.check.proven_since(doubt);
        let answered = |known: &&Candidate| {
            Some(known.addr) != self.primary
                && known.validated
                && known.hold_until.is_none()
                && known.check.proven_since(doubt)
                && !known.shadows(now)
        };
        let best = self.candidates.iter().filter(answered);
        let best =
            best.min_by_key(|known| (known.check.rtt.smoothed(), known.rank())).map(|known| known.addr);
        if let Some(best) = best.filter(|_| self.candidates.iter().any(|known| silent(&known)))
            && let Some(old) = self.primary.and_then(|old| self.candidates.get_mut(old))
        {
            old.validated = false;
            old.check.rest();
            self.promote(now, best, PathReason::Better);
        }
    }

    /// Applies the policy to the addresses that are validated now.
    pub(super) fn reselect(&mut self, now: Instant) {
        if !self.established
            || self.contest.is_some()
            || (self.primary.is_some() && self.evidence.doubted_since().is_some())
        {
            return;
        }
        let relay = self.home_leg().filter(|leg| leg.proven).map(|leg| leg.check.rtt).unwrap_or_default();
        let reserve = self.candidates.iter().filter(|known| {
            let shadows = self.primary.is_some() && known.shadows(now);
            known.validated && known.hold_until.is_none() && !shadows
        });
        let best = reserve.min_by_key(|known| (known.check.rtt.smoothed(), known.rank()));
        let Some(best) = best.map(|known| (known.addr, known.check.rtt)) else {
            if std::mem::take(&mut self.relay_faster) {
                self.lost = Some(PathReason::PathLost);
            }
            return;
        };
        let current = self.primary.and_then(|primary| self.candidates.get(primary));
        match current.map(|known| (known.addr, known.check.rtt)) {
            None => {
                self.relay_faster = relay_wins(&best.1, &relay, self.relay_faster);
                if !self.relay_faster {
                    self.promote(now, best.0, PathReason::Direct);
                }
            }
            Some(current) if best.0 != current.0 && replaces(&best.1, &current.1) => {
                self.promote(now, best.0, PathReason::Better);
            }
            Some(current) if relay_wins(&current.1, &relay, false) => {
                self.relay_faster = true;
                self.demote(now, PathReason::RelayFaster);
            }
            Some(_) => {}
        }
    }

    fn promote(&mut self, now: Instant, addr: SocketAddr, reason: PathReason) {
        self.stats.promotions += 1;
        if self.candidates.get(addr).is_some_and(|known| known.origin == Origin::Seen) {
            rt::reached("a peer-reflexive address became the path");
        }
        self.set_primary(now, Some(addr));
        self.emit(PathEventKind::Promoted, Some(Route::Direct(addr)), reason);
    }

    /// Changes the direct address in use, and resets the evidence.
    pub(super) fn set_primary(&mut self, now: Instant, addr: Option<SocketAddr>) {
        let old = std::mem::replace(&mut self.primary, addr);
        self.primary_since = addr.map(|_| now);
        self.evidence.reset();
        (self.contest, self.next_takeover) = (None, None);
        for changed in [old, addr].into_iter().flatten() {
            if self.candidates.get(changed).is_some_and(|known| known.validated) {
                self.plan_next_check(now, changed);
            }
        }
        if addr.is_some() {
            (self.lost, self.relay_faster) = (None, false);
            self.keepalive.begin(now);
        } else {
            self.keepalive.end();
        }
    }

    pub(super) fn emit_fallback(&mut self, reason: PathReason) {
        let route = self.routes().first();
        let kind = if route.is_some() { PathEventKind::Demoted } else { PathEventKind::Lost };
        self.emit(kind, route, reason);
    }

    fn emit(&mut self, kind: PathEventKind, route: Option<Route>, reason: PathReason) {
        if self.events.len() == super::config::MAX_QUEUED_EVENTS {
            self.events.pop_front();
            self.stats.events_dropped += 1;
        }
        self.events.push_back(PathEvent { route, kind, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_lost_again_stays_in_reserve_for_longer() {
        for (reason, flaps, expected_s) in [
            (PathReason::PathLost, 1, None),
            (PathReason::PathLost, 2, Some(2)),
            (PathReason::PathLost, 3, Some(4)),
            (PathReason::PathLost, 7, Some(60)),
            (PathReason::PathLost, u32::MAX, Some(60)),
            (PathReason::DataLost, 1, Some(15)),
            (PathReason::DataLost, 2, Some(30)),
            (PathReason::DataLost, 9, Some(300)),
        ] {
            assert_eq!(hold(reason, flaps), expected_s.map(Duration::from_secs), "{reason} {flaps}");
        }
    }
}
