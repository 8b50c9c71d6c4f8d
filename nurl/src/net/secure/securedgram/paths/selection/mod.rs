//! Selects the route that carries the data, out of the peer's candidates and its relays.
//!
//! The direct path comes first, else the home relay. The policies are elsewhere, as pure functions: whether the route
//! in use still delivers ([`evidence`](super::evidence)), which of two paths is better ([`score`](super::score)),
//! whether a roaming peer is followed ([`roam`](super::roam)). This machine asks them, and does what they say:
//!
//! | change | when |
//! | --- | --- |
//! | promote | an address is validated, and there is no direct path or a slower one |
//! | follow | the peer moved, and the new address echoes |
//! | take over | the direct path is in doubt and silent, and a reserve echoed meanwhile |
//! | demote | data, or its answers, don't arrive any more; or the relay is much faster |
//!
//! This file takes what happens; [`decide`] has the decisions.

mod decide;

use std::net::SocketAddr;
use std::time::Instant;

use super::candidate::{CandidateOrigin, usable};
use super::candidates::CandidateTable;
use super::challenge::ConnectivityCheck;
use super::config::{OLD_PATH_SILENCE, PATIENCE, PathConfig, SEAL_OVERHEAD, SHADOW_LIFE};
use super::context::PathContext;
use super::control::Control;
use super::direct::DirectPath;
use super::evidence::{PathEvidence, patience};
use super::relays::RelayLegs;
use super::roam::Migration;
use super::rotation::AddressRotation;
use super::status::{PathReason, PathState};
use crate::key::PublicKey;
use crate::net::secure::route::{Route, Routes};

/// The route in use, and what it is chosen from.
#[derive(Debug)]
pub(super) struct RouteSelection {
    pub(super) candidates: CandidateTable,
    pub(super) relays: RelayLegs,
    pub(super) direct: DirectPath,
    /// The evidence about the route in use: the direct path, else the home relay.
    evidence: PathEvidence,
    /// Whether to follow the peer to another address.
    migration: Option<Migration>,
    /// When an answering reserve replaces a silent direct path in doubt.
    takeover_at: Option<Instant>,
    pub(super) rotation: AddressRotation,
}

impl RouteSelection {
    /// No route.
    pub(super) fn new(config: &PathConfig) -> RouteSelection {
        RouteSelection {
            candidates: CandidateTable::default(),
            relays: RelayLegs::default(),
            direct: DirectPath::new(config.keepalive),
            evidence: PathEvidence::default(),
            migration: None,
            takeover_at: None,
            rotation: AddressRotation::default(),
        }
    }

    /// The routes of the data: one, or two while the path is in doubt; none when no route is known.
    pub(super) fn routes(&self) -> Routes {
        let newcomer = self.migration.map(|migration| Route::Direct(migration.newcomer));
        let relay = self.relays.home().map(Route::Relay);
        match (self.direct.addr().map(Route::Direct), relay) {
            (Some(_), Some(relay)) if self.in_doubt() && newcomer.is_some() => {
                Routes::NONE.with(newcomer).and(relay)
            }
            (Some(direct), Some(relay)) if self.in_doubt() => Routes::one(direct).and(relay),
            (Some(direct), _) => Routes::one(direct).with(newcomer),
            (None, Some(relay)) => Routes::one(relay).with(self.relays.standby().map(Route::Relay)),
            (None, None) => self.candidates.fallback(self.rotation.offset()),
        }
    }

    /// Whether `len` bytes may go by this route; then they count as sent.
    pub(super) fn take(&mut self, route: &Route, len: usize) -> bool {
        match *route {
            Route::Relay(hub) => self.relays.get(hub).is_some(),
            Route::Direct(addr) if self.candidates.may_send(addr, len) => {
                self.candidates.count_sent(addr, len);
                true
            }
            Route::Direct(_) => false,
        }
    }

    /// Whether what goes by this route is limited, because it leads to an address that isn't proven.
    pub(super) fn is_limited(&self, route: &Route) -> bool {
        route.addr().is_some_and(|addr| self.candidates.is_limited(addr))
    }

    /// Whether the route in use is in doubt.
    fn in_doubt(&self) -> bool {
        self.evidence.doubted_since().is_some()
    }

    /// The route whose answers are counted.
    fn active(&self) -> Option<Route> {
        self.direct.addr().map(Route::Direct).or(self.relays.home().map(Route::Relay))
    }

    fn check(&self, route: Route) -> Option<&ConnectivityCheck> {
        match route {
            Route::Direct(addr) => self.candidates.get(addr).map(|known| &known.check),
            Route::Relay(hub) => self.relays.get(hub).map(|leg| &leg.check),
        }
    }

    /// The present route, and the reason.
    pub(super) fn state(&self, established: bool) -> PathState {
        let route = self.active().or_else(|| self.routes().first());
        PathState {
            direct: self.direct.is_some(),
            addr: route.and_then(|route| route.addr()),
            reason: self.reason(established),
            rtt: route.and_then(|route| self.check(route)?.rtt.smoothed()),
            settled: self.settled(established),
        }
    }

    fn reason(&self, established: bool) -> PathReason {
        if self.direct.is_some() {
            return if self.in_doubt() { PathReason::Suspect } else { PathReason::Direct };
        }
        if !established {
            let reachable = !self.relays.is_empty() || !self.candidates.is_empty();
            return if reachable { PathReason::Starting } else { PathReason::NoRelay };
        }
        if let Some(absence) = self.direct.absence() {
            return absence;
        }
        if self.candidates.is_checking() {
            return PathReason::Checking;
        }
        if self.relays.is_empty() {
            return PathReason::NoRelay;
        }
        if self.candidates.is_empty() { PathReason::NoCandidates } else { PathReason::NoAnswer }
    }

    fn settled(&self, established: bool) -> bool {
        if !established {
            return false;
        }
        if self.direct.is_some() {
            return !self.in_doubt() && self.migration.is_none();
        }
        let measuring = self.relays.home_leg().is_some_and(|leg| !leg.proven && leg.check.is_quick());
        !self.candidates.is_checking() && !measuring
    }

    /// When [`handle_timeout`](RouteSelection::handle_timeout) has something to do during a session.
    pub(super) fn next_deadline(&self, config: &PathConfig) -> Option<Instant> {
        let evidence = self.active().and_then(|active| {
            let patience = patience(&self.check(active)?.rtt, config.answer_delay);
            self.evidence.deadline(patience, config.demote_after)
        });
        let migration = self.migration.map(|migration| {
            let newcomer = self.candidates.get(migration.newcomer);
            let echoed = newcomer.is_some_and(|known| known.check.proven_since(migration.started));
            if echoed { migration.deadline } else { migration.ends() }
        });
        let parts =
            [self.candidates.next_deadline(), self.relays.next_deadline(), self.direct.keepalive.due()];
        parts.into_iter().chain([evidence, migration, self.takeover_at]).flatten().min()
    }

    /// Decides whatever the time decides.
    pub(super) fn handle_timeout(&mut self, cx: &mut PathContext<'_>) {
        self.candidates.end_wait(cx.now);
        if self.relays.home_becomes_overdue(cx.now) {
            // Which of the others answers, it is asked now.
            self.relays.measure(cx.now);
        }
        self.judge_migration(cx);
        self.judge_active(cx);
        self.take_over(cx);
    }

    /// Sets the hubs. Returns whether one was added.
    pub(super) fn set_relays(&mut self, cx: &mut PathContext<'_>, hubs: &[PublicKey]) -> bool {
        let had_route = !self.routes().is_empty();
        let added = self.relays.set(cx.now, hubs, cx.established);
        self.choose_home(cx.now);
        self.reselect(cx);
        if had_route && self.routes().is_empty() {
            self.emit_fallback(cx, PathReason::NoRelay);
        }
        self.start_rotation(cx);
        added
    }

    /// Adds addresses that our side or the peer's record names.
    pub(super) fn add_candidates(
        &mut self,
        cx: &mut PathContext<'_>,
        addrs: &[SocketAddr],
        origin: CandidateOrigin,
    ) {
        let loopback = cx.config.loopback;
        let usable: Vec<_> = addrs.iter().filter_map(|&addr| usable(addr, loopback)).collect();
        cx.stats.candidates_refused += (addrs.len() - usable.len()) as u64;
        cx.stats.candidates_refused += self.candidates.add(usable.into_iter(), origin);
        self.start_rotation(cx);
    }

    fn start_rotation(&mut self, cx: &PathContext<'_>) {
        if !cx.established && self.relays.is_empty() && self.candidates.len() > 2 {
            self.rotation.start(cx.now);
        } else {
            self.rotation.stop();
        }
    }

    /// A session is up. `first` says that there was none.
    pub(super) fn on_established(&mut self, now: Instant, first: bool) {
        self.candidates.on_handshake();
        if first {
            self.rotation.stop();
            if !self.direct.is_some() {
                self.candidates.await_list(now);
            }
            self.relays.restart(now, false);
        }
    }

    /// The session is over. The addresses stay known, but must be proven again.
    pub(super) fn on_closed(&mut self, cx: &mut PathContext<'_>) {
        let was_direct = self.direct.is_some();
        self.set_direct(cx, None);
        self.direct.close();
        self.candidates.close();
        self.relays.close();
        if was_direct {
            self.emit_fallback(cx, PathReason::Closed);
        }
        self.start_rotation(cx);
    }

    /// Our network changed: everything is checked anew. The peer is told over the returned hub, and beside the next
    /// challenges to the address in use.
    pub(super) fn on_network_change(&mut self, now: Instant) -> Option<PublicKey> {
        self.migration = None;
        self.direct.begin_moved();
        self.recheck_all(now);
        self.relays.restart(now, true);
        self.relays.home()
    }

    /// An authenticated datagram of `len` bytes came from `addr`. `answer_due` is set for application data that is to be
    /// answered. Returns whether something is to be decided now; `None` if the source is refused.
    pub(super) fn on_datagram(
        &mut self,
        cx: &mut PathContext<'_>,
        addr: SocketAddr,
        len: usize,
        newest_on_leg: bool,
        app: bool,
        answer_due: Option<Instant>,
    ) -> Option<bool> {
        if self.candidates.get(addr).is_none() && !self.meet(cx, addr, newest_on_leg) {
            return None;
        }
        self.candidates.locality.hear(&addr);
        let known = self.candidates.get_mut(addr)?;
        known.hear(cx.now, len);
        known.answer_due = known.answer_due.or(answer_due);
        if self.direct.is(addr) {
            self.direct.keepalive.heard(cx.now);
            let migration = self.migration.as_mut().filter(|_| newest_on_leg);
            return Some(migration.map(|migration| migration.old_heard = true).is_some());
        }
        if newest_on_leg {
            self.candidates.check_heard(cx.now, addr);
            if app {
                self.consider_migration(cx.now, addr, false);
            }
        }
        Some(newest_on_leg)
    }

    /// A datagram that isn't late came through `hub`. `answer_due` is set for application data.
    ///
    /// If that data doesn't come by the route in use, and that has been silent, the peer has left it or doubts it, and our
    /// answers may not arrive there either. Without this, the receiver of a transfer would notice only when its own
    /// acknowledgements had gone unanswered for as long.
    pub(super) fn on_relayed(&mut self, now: Instant, hub: PublicKey, answer_due: Option<Instant>) {
        self.relays.hear(now, hub);
        let Some(due) = answer_due else { return };
        self.relays.owe_answer(hub, due);
        let heard = match self.active() {
            Some(Route::Direct(addr)) => self.candidates.get(addr).and_then(|used| used.heard),
            Some(Route::Relay(home)) => match self.relays.get(home) {
                Some(leg) if leg.proven && home != hub => leg.heard,
                // The data comes by the route in use, or that isn't relied upon yet.
                _ => return,
            },
            None => return,
        };
        if heard.is_none_or(|heard| now.saturating_duration_since(heard) >= PATIENCE.0) {
            self.begin_doubt(now);
        }
    }

    /// Adds a new source, if it is acceptable. Returns whether it was added.
    fn meet(&mut self, cx: &mut PathContext<'_>, addr: SocketAddr, newest_on_leg: bool) -> bool {
        if !newest_on_leg {
            cx.stats.late_sources += 1;
            return false;
        }
        // The source of a datagram is used unchanged; only an unusable one is refused.
        let met = usable(addr, true) == Some(addr) && self.candidates.see(addr, self.direct.addr());
        cx.stats.candidates_refused += u64::from(!met);
        met
    }

    /// The peer says that it moved.
    pub(super) fn on_moved(&mut self, now: Instant, source: Route, newest_on_leg: bool) {
        match source {
            Route::Direct(addr) if newest_on_leg => self.consider_migration(now, addr, true),
            Route::Direct(_) => {}
            // The peer's direct datagrams may not reach us from its new address, so all its known addresses
            // are in question.
            Route::Relay(_) => self.recheck_all(now),
        }
    }

    /// The peer told its candidates.
    pub(super) fn on_told(&mut self, cx: &mut PathContext<'_>, generation: u32, addrs: &[SocketAddr]) {
        if self.candidates.on_told(cx, generation, addrs, self.direct.addr()) {
            let known = |migration: &Migration| self.candidates.get(migration.newcomer).is_some();
            self.migration = self.migration.filter(known);
        }
    }

    /// An echo came from `addr`. Returns whether it answers an open challenge.
    pub(super) fn on_echo(&mut self, cx: &mut PathContext<'_>, addr: SocketAddr, data: &[u8; 8]) -> bool {
        let Some(known) = self.candidates.get_mut(addr) else { return false };
        let Some(sent) = known.check.echo(cx.now, data) else { return self.on_shadow_echo(cx, addr, data) };
        known.validate();
        if self.direct.is(addr) {
            if let Some(migration) = &mut self.migration {
                migration.old_heard |= sent >= migration.started;
            }
            self.direct.end_moved();
        } else if let Some(doubt) = self.evidence.doubted_since()
            && let Some(used) = self.direct.addr().and_then(|used| self.candidates.get(used))
            && sent >= doubt
        {
            let silence = used.check.rtt.smoothed().unwrap_or_default() * 3;
            self.takeover_at.get_or_insert(doubt + silence.max(OLD_PATH_SILENCE));
        }
        self.plan_next_check(cx, addr);
        self.judge_migration(cx);
        self.judge_active(cx);
        self.take_over(cx);
        self.reselect(cx);
        true
    }

    /// The echo of a challenge to the address in use came back from another one. So the address in use works,
    /// at least one way. The difference comes from the peer's return path: its routing, or an on-path
    /// attacker whose copies are faster. The echo proves nothing about an address that isn't in use.
    fn on_shadow_echo(&mut self, cx: &mut PathContext<'_>, source: SocketAddr, data: &[u8; 8]) -> bool {
        let Some(used) = self.direct.addr() else { return false };
        let Some(sent) = self.candidates.get_mut(used).and_then(|known| known.check.echo(cx.now, data))
        else {
            return false;
        };
        if let Some(shadow) = self.candidates.get_mut(source) {
            shadow.shadows_until = Some(cx.now + SHADOW_LIFE);
        }
        if let Some(migration) = &mut self.migration {
            migration.old_heard |= sent >= migration.started;
        }
        self.plan_next_check(cx, used);
        self.judge_migration(cx);
        self.judge_active(cx);
        true
    }

    /// An echo came over `hub`. Returns whether it answers an open challenge.
    pub(super) fn on_relay_echo(&mut self, cx: &mut PathContext<'_>, hub: PublicKey, data: &[u8; 8]) -> bool {
        let known = self.relays.echo(cx.now, hub, data);
        if known {
            self.choose_home(cx.now);
            self.judge_active(cx);
            self.reselect(cx);
        }
        known
    }

    /// Application data, or a keepalive in its place, arrived from `source`.
    pub(super) fn on_answer(&mut self, cx: &mut PathContext<'_>, source: Route) {
        let used = self.direct.addr();
        let shadows = match source {
            Route::Direct(addr) => self.candidates.get(addr).is_some_and(|known| known.shadows(cx.now)),
            Route::Relay(_) => false,
        };
        if self.active() != Some(source) && !(shadows && used.is_some()) {
            return;
        }
        if self.is_slow(cx, source) {
            self.relays.measure(cx.now);
        }
        if self.evidence.answered()
            && let Some(used) = used
        {
            self.plan_next_check(cx, used);
        }
    }

    /// Whether the answer that came through a hub took longer than a round trip there usually takes, twice over. Then the
    /// legs are measured: a hub that loses a part of its packets answers within [`PATIENCE`], but another one is faster.
    fn is_slow(&self, cx: &PathContext<'_>, source: Route) -> bool {
        let Route::Relay(hub) = source else { return false };
        let usual = self.relays.get(hub).and_then(|leg| leg.check.rtt.smoothed());
        let (Some(since), Some(usual)) = (self.evidence.first_unanswered(), usual) else { return false };
        cx.now.saturating_duration_since(since) > usual * 2 + cx.config.answer_delay
    }

    /// Data goes to these routes.
    pub(super) fn on_sent(&mut self, cx: &PathContext<'_>, routes: Routes) {
        for route in routes {
            match route {
                Route::Relay(hub) => _ = self.relays.answered(hub),
                Route::Direct(addr) => {
                    if self.direct.is(addr) {
                        self.direct.keepalive.sent(cx.now);
                    }
                    if let Some(known) = self.candidates.get_mut(addr) {
                        known.answer_due = None;
                    }
                }
            }
        }
        if cx.established && self.active().is_some_and(|active| routes.contains(&active)) {
            self.evidence.sent(cx.now);
        }
    }

    /// Whether a control message may go by this route; then it counts as sent.
    pub(super) fn admit(&mut self, cx: &mut PathContext<'_>, route: Route, control: &Control) -> bool {
        let answers = *control == Control::Keepalive;
        let addr = match route {
            Route::Relay(hub) if answers => return self.relays.answered(hub),
            Route::Relay(hub) => return self.relays.get(hub).is_some(),
            Route::Direct(addr) => addr,
        };
        if let Some(known) = self.candidates.get_mut(addr) {
            if answers {
                known.answer_due = None;
            }
            // A challenge was checked against the limits when it was drawn. The challenge that a response answers has
            // paid for it; an address that was only seen must have paid itself.
            let len = SEAL_OVERHEAD + control.encoded_len();
            let admitted = match control {
                Control::Challenge { .. } => true,
                Control::Response { .. } => known.is_within(len),
                _ => self.candidates.may_send(addr, len),
            };
            if !admitted {
                cx.stats.amplification_refused += 1;
                return false;
            }
        } else if !matches!(control, Control::Response { .. }) {
            return false;
        }
        self.candidates.count_sent(addr, SEAL_OVERHEAD + control.encoded_len());
        if self.direct.is(addr) {
            self.direct.keepalive.sent(cx.now);
        }
        true
    }

    /// The challenges that are due, each with its route, and whether one of them is to open a path. "Moved" goes before
    /// a challenge to the address in use after our network changed.
    pub(super) fn poll_candidate_challenges(
        &mut self,
        cx: &mut PathContext<'_>,
    ) -> (Vec<(Route, Control)>, bool) {
        self.candidates.start_waiting_checks(cx.now);
        let due = self.candidates.draw_due(cx, self.direct.addr(), self.in_doubt());
        let mut messages = Vec::with_capacity(due.challenges.len());
        for (addr, data) in due.challenges {
            if self.direct.take_moved(addr) {
                messages.push((Route::Direct(addr), Control::Moved));
            }
            cx.stats.challenges += 1;
            messages.push((Route::Direct(addr), Control::Challenge { data }));
        }
        (messages, due.punches)
    }

    /// The routes on which application data came that must be answered now.
    pub(super) fn answers_due(&self, now: Instant) -> Vec<Route> {
        let direct = self.candidates.answers_due(now).map(Route::Direct);
        direct.chain(self.relays.answers_due(now).map(Route::Relay)).collect()
    }

    /// Whether a relay carries the data.
    pub(super) fn is_relayed(&self) -> bool {
        !self.direct.is_some() && self.relays.home().is_some()
    }

    /// Measures the direct path, and the relays that it is compared with.
    pub(super) fn measure(&mut self, now: Instant) {
        if let Some(known) = self.direct.addr().and_then(|used| self.candidates.get_mut(used)) {
            known.check.schedule_if_idle(now);
        }
        self.relays.measure(now);
    }
}
