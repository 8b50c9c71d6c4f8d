//! The decisions of the [selection](super): when the direct path is promoted, replaced or given up, and when a roaming
//! peer is followed.

use std::net::SocketAddr;
use std::time::Instant;

use super::super::candidate::{Candidate, CandidateOrigin};
use super::super::challenge::Rtt;
use super::super::config::MIGRATION_COOLDOWN;
use super::super::context::PathContext;
use super::super::evidence::{PathVerdict, patience};
use super::super::roam::{Migration, MigrationOutcome};
use super::super::score::{relay_wins, replaces};
use super::super::status::{PathEventKind, PathReason};
use super::RouteSelection;
use crate::net::secure::route::Route;
use crate::rt;
use crate::rt::{Point, buggify};

impl RouteSelection {
    /// The peer was heard from an address that isn't in use: challenges it and the one in use.
    pub(in super::super) fn consider_migration(&mut self, now: Instant, addr: SocketAddr, asked: bool) {
        let Some(used) = self.direct.addr().filter(|used| *used != addr) else { return };
        match &mut self.migration {
            Some(migration) if migration.newcomer == addr => {
                migration.asked |= asked;
                return;
            }
            // If the peer moves again meanwhile, the silence of the old address keeps counting.
            Some(migration)
                if asked || !self.candidates.get(migration.newcomer).is_some_and(Candidate::is_validated) =>
            {
                (migration.newcomer, migration.asked) = (addr, asked);
            }
            Some(_) => return,
            None => {
                let pause = self.candidates.get(addr).and_then(|known| known.migration_pause);
                if !asked && pause.is_some_and(|(until, _)| now < until) {
                    return;
                }
                let old_rtt = self.candidates.get(used).and_then(|known| known.check.rtt.smoothed());
                self.migration = Some(Migration::new(now, addr, old_rtt, asked));
                if let Some(old) = self.candidates.get_mut(used) {
                    old.check.restart(now);
                }
            }
        }
        if let Some(new) = self.candidates.get_mut(addr) {
            new.check.restart(now);
        }
    }

    pub(super) fn judge_migration(&mut self, cx: &mut PathContext<'_>) {
        let Some(migration) = self.migration else { return };
        let Some(new) = self.candidates.get_mut(migration.newcomer) else {
            self.migration = None;
            return;
        };
        match migration.outcome(cx.now, new.check.proven_since(migration.started)) {
            MigrationOutcome::Wait => {}
            MigrationOutcome::Follow => {
                cx.stats.moves += 1;
                if new.origin == CandidateOrigin::Seen {
                    rt::reached("a roamed sender was followed to an address that nobody had named");
                }
                self.set_direct(cx, Some(migration.newcomer));
                let route = Some(Route::Direct(migration.newcomer));
                cx.outbox.emit(cx.stats, PathEventKind::Moved, route, PathReason::PeerMoved);
            }
            MigrationOutcome::Stay => {
                let pause = new.migration_pause.map_or(MIGRATION_COOLDOWN.0, |(_, pause)| pause);
                new.migration_pause = Some((cx.now + pause, (pause * 2).min(MIGRATION_COOLDOWN.1)));
                self.migration = None;
            }
        }
    }

    /// Puts the direct path in doubt and checks every address anew.
    pub(super) fn recheck_all(&mut self, now: Instant) {
        if let Some(known) = self.direct.addr().and_then(|used| self.candidates.get_mut(used)) {
            known.check.restart(now);
            self.evidence.doubt(now);
        }
        self.candidates.doubt_others(self.direct.addr());
    }

    /// Schedules the next check of an address that has just echoed.
    pub(super) fn plan_next_check(&mut self, cx: &mut PathContext<'_>, addr: SocketAddr) {
        self.candidates.plan_next_check(cx, addr, self.direct.is(addr));
    }

    pub(super) fn choose_home(&mut self, now: Instant) {
        let relayed = !self.direct.is_some();
        if self.relays.choose_home(now, relayed && self.in_doubt()) && relayed {
            self.evidence.reset();
        }
    }

    /// Applies the verdict on the route in use.
    pub(super) fn judge_active(&mut self, cx: &mut PathContext<'_>) {
        let doubt = self.evidence.doubted_since();
        let Some(check) = self.active().and_then(|active| self.check(active)) else { return };
        let echo = doubt.is_some_and(|doubt| check.proven_since(doubt));
        let patience = patience(&check.rtt, cx.config.answer_delay);
        match self.evidence.verdict(cx.now, echo, patience, cx.config.demote_after) {
            PathVerdict::Trust if buggify(Point::PathDoubted) => self.begin_doubt(cx.now),
            PathVerdict::Trust => {}
            PathVerdict::Doubt => self.begin_doubt(cx.now),
            PathVerdict::Clear => self.evidence.clear(),
            PathVerdict::Drop(reason) => match self.direct.addr() {
                Some(addr) => self.drop_direct(cx, addr, reason),
                None => self.drop_home(cx.now),
            },
        }
    }

    pub(super) fn begin_doubt(&mut self, now: Instant) {
        if self.in_doubt() {
            return;
        }
        self.evidence.doubt(now);
        match self.direct.addr() {
            Some(used) => self.candidates.probe_validated(now, used),
            None => self.relays.restart(now, true),
        }
    }

    /// The relay leg in use gives no answers. A proven leg replaces it; without one, all legs are probed.
    fn drop_home(&mut self, now: Instant) {
        self.choose_home(now);
        self.evidence.reset();
    }

    fn drop_direct(&mut self, cx: &mut PathContext<'_>, addr: SocketAddr, reason: PathReason) {
        let doubt = self.evidence.doubted_since().unwrap_or(cx.now);
        self.direct.keepalive.lost(self.evidence.first_unanswered());
        // Without a relay there is no better route to wait on, so nothing is held.
        let terms = [self.direct.has_lasted(cx.now), !self.relays.is_empty()];
        self.candidates.lose(cx.now, addr, doubt, reason, terms);
        self.demote(cx, reason);
        self.reselect(cx);
    }

    fn demote(&mut self, cx: &mut PathContext<'_>, reason: PathReason) {
        cx.stats.demotions += 1;
        self.direct.explain_absence(reason);
        self.set_direct(cx, None);
        self.emit_fallback(cx, reason);
    }

    /// Replaces a silent direct path in doubt by a reserve that answered meanwhile. That is faster than the way
    /// back through the relay.
    pub(super) fn take_over(&mut self, cx: &mut PathContext<'_>) {
        if self.takeover_at.is_none_or(|at| at > cx.now) {
            return;
        }
        self.takeover_at = None;
        let Some(doubt) = self.evidence.doubted_since().filter(|_| self.migration.is_none()) else { return };
        let Some(used) = self.direct.addr() else { return };
        let best = self
            .candidates
            .fastest(|known| known.addr != used && known.check.proven_since(doubt) && !known.shadows(cx.now));
        let Some(best) = best.map(|known| known.addr) else { return };
        let Some(old) = self.candidates.get_mut(used).filter(|old| !old.check.proven_since(doubt)) else {
            return;
        };
        old.doubt();
        old.check.rest();
        self.promote(cx, best, PathReason::Better);
    }

    /// Applies the policy to the addresses that are validated now.
    pub(super) fn reselect(&mut self, cx: &mut PathContext<'_>) {
        if !cx.established || self.migration.is_some() || (self.direct.is_some() && self.in_doubt()) {
            return;
        }
        let relay = self.relays.proven_rtt();
        let rtt = |known: &Candidate| -> (SocketAddr, Rtt) { (known.addr, known.check.rtt) };
        let best = self.candidates.fastest(|known| !(self.direct.is_some() && known.shadows(cx.now)));
        let Some(best) = best.map(rtt) else {
            if self.direct.yields_to_relay() {
                self.direct.explain_absence(PathReason::PathLost);
            }
            return;
        };
        match self.direct.addr().and_then(|used| self.candidates.get(used)).map(rtt) {
            None if relay_wins(&best.1, &relay, self.direct.yields_to_relay()) => {
                self.direct.explain_absence(PathReason::RelayFaster);
            }
            None => self.promote(cx, best.0, PathReason::Direct),
            Some(current) if best.0 != current.0 && replaces(&best.1, &current.1) => {
                self.promote(cx, best.0, PathReason::Better);
            }
            Some(current) if relay_wins(&current.1, &relay, false) => {
                self.demote(cx, PathReason::RelayFaster);
            }
            Some(_) => {}
        }
    }

    fn promote(&mut self, cx: &mut PathContext<'_>, addr: SocketAddr, reason: PathReason) {
        cx.stats.promotions += 1;
        if self.candidates.get(addr).is_some_and(|known| known.origin == CandidateOrigin::Seen) {
            rt::reached("a peer-reflexive address became the path");
        }
        self.set_direct(cx, Some(addr));
        cx.outbox.emit(cx.stats, PathEventKind::Promoted, Some(Route::Direct(addr)), reason);
    }

    /// Changes the direct address in use, and resets the evidence.
    pub(super) fn set_direct(&mut self, cx: &mut PathContext<'_>, addr: Option<SocketAddr>) {
        let old = self.direct.replace(cx.now, addr);
        self.evidence.reset();
        (self.migration, self.takeover_at) = (None, None);
        for changed in [old, addr].into_iter().flatten() {
            if self.candidates.get(changed).is_some_and(Candidate::is_validated) {
                self.plan_next_check(cx, changed);
            }
        }
    }

    pub(super) fn emit_fallback(&self, cx: &mut PathContext<'_>, reason: PathReason) {
        let route = self.routes().first();
        let kind = if route.is_some() { PathEventKind::Demoted } else { PathEventKind::Lost };
        cx.outbox.emit(cx.stats, kind, route, reason);
    }
}
