//! Time-driven work: challenges, keepalives, answers, resends, verdicts; and the outbound queues.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::candidate::Origin;
use super::challenge::jittered;
use super::config::{
    CANDIDATES_RESEND, FLOW, MAX_CHECKS_IN_FLIGHT, MAX_QUEUED_CONTROL, ROTATE_EVERY, SEAL_OVERHEAD,
};
use super::control::Control;
use super::evidence::patience;
use super::{Paths, Route};

/// The gap between the first samples of a round-trip time: a single one may have met a cold cache or a
/// sleeping radio.
pub(super) const SAMPLE_GAP: Duration = Duration::from_secs(1);

/// Samples taken before the refresh interval applies; the policy needs as many.
const FIRST_SAMPLES: u32 = 3;

impl Paths {
    /// Handles the timeouts that are due. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_rotation.is_some_and(|next| next <= now) {
            self.rotation = self.rotation.wrapping_add(2);
            self.rotations_left = self.rotations_left.saturating_sub(1);
            self.next_rotation = (self.rotations_left > 0).then_some(now + ROTATE_EVERY);
        }
        self.drive(now);
    }

    /// When [`handle_timeout`](Paths::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.established {
            return self.next_rotation;
        }
        let rtt = match self.active() {
            Some(Route::Direct(addr)) => self.candidates.get(addr).map(|known| known.check.rtt),
            Some(Route::Relay(_)) => self.home_leg().map(|leg| leg.check.rtt),
            None => None,
        };
        let evidence = rtt.and_then(|rtt| {
            self.evidence.deadline(patience(&rtt, self.config.answer_delay), self.config.demote_after)
        });
        let contest = self.contest.map(|contest| {
            let echoed =
                self.candidates.get(contest.newcomer).is_some_and(|c| c.check.proven_since(contest.started));
            if echoed { contest.deadline } else { contest.ends() }
        });
        let candidates = self
            .candidates
            .iter()
            .flat_map(|known| [known.check.next(), known.hold_until, known.answer_due])
            .flatten()
            .min();
        let relays = self.relays.iter().flat_map(|leg| [leg.check.next(), leg.answer_due]).flatten().min();
        let keepalive = self.keepalive.due();
        [
            evidence,
            contest,
            candidates,
            relays,
            keepalive,
            self.announcement.next.filter(|_| self.announcement_route().is_some()),
            self.wait_until,
            self.next_refresh,
            self.next_takeover,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn drive(&mut self, now: Instant) {
        if !self.established {
            return;
        }
        if self.wait_until.is_some_and(|until| until <= now) {
            self.wait_until = None;
        }
        self.judge_contest(now);
        self.judge_active(now);
        self.take_over(now);
        self.refresh(now);
        self.start_waiting_checks(now);
        self.challenge_candidates(now);
        self.challenge_relays(now);
        self.answer(now);
        if self.keepalive.due().is_some_and(|due| due <= now)
            && let Some(primary) = self.primary
        {
            self.stats.keepalives += 1;
            self.push(now, Route::Direct(primary), Control::Keepalive);
        }
        self.announce(now);
    }

    /// Schedules the next check of an address that has just echoed.
    pub(super) fn plan_next_check(&mut self, now: Instant, addr: SocketAddr) {
        let in_use = self.primary == Some(addr);
        let slow = jittered(self.config.slow_check, &mut self.rng);
        let Some(known) = self.candidates.get_mut(addr) else { return };
        if known.check.rtt.samples() < FIRST_SAMPLES {
            known.check.schedule(now + SAMPLE_GAP);
        } else if in_use {
            known.check.rest();
        } else {
            known.check.schedule(now + slow);
        }
    }

    /// Measures the route in use, and the relays that it is compared with, while application data flows; an
    /// idle peer costs no traffic. An interval begins with the first datagram after an idle one.
    fn refresh(&mut self, now: Instant) {
        if self.next_refresh.is_none_or(|next| next > now) {
            return;
        }
        let flows = std::mem::take(&mut self.app_datagrams) >= FLOW;
        self.next_refresh = flows.then_some(now + self.config.rtt_refresh);
        if !flows {
            return;
        }
        let primary = self.primary.and_then(|primary| self.candidates.get_mut(primary));
        let relays = self.relays.iter_mut().filter(|leg| leg.proven).map(|leg| &mut leg.check);
        for check in primary.map(|known| &mut known.check).into_iter().chain(relays) {
            if check.next().is_none() {
                check.schedule(now);
            }
        }
    }

    /// Starts waiting checks, in order, up to the bound.
    fn start_waiting_checks(&mut self, now: Instant) {
        let mut in_flight = self.candidates.iter().filter(|known| known.is_checked()).count();
        while in_flight < MAX_CHECKS_IN_FLIGHT {
            let waiting = self.candidates.iter_mut().filter(|known| known.waits());
            let Some(next) = waiting.min_by_key(|known| known.rank()) else { break };
            next.check.restart(now);
            in_flight += 1;
        }
    }

    fn challenge_candidates(&mut self, now: Instant) {
        let slow = if self.primary.is_some() { self.config.idle_check } else { self.config.slow_check };
        let challenge_len = SEAL_OVERHEAD + Control::Challenge { data: [0; 8] }.encoded_len();
        let mut due: Vec<(SocketAddr, [u8; 8])> = Vec::new();
        let in_doubt = self.evidence.doubted_since().is_some();
        for known in self.candidates.iter_mut() {
            if known.hold_until.is_some_and(|until| until <= now) {
                // The hold after a loss is over: a fresh echo lets the address return.
                known.hold_until = None;
                known.validated = false;
                known.check.restart(now);
            }
            if !known.check.is_due(now) {
                continue;
            }
            if self.primary == Some(known.addr) {
                // An unanswered probe is no evidence against a path that carries no data.
                if known.check.is_silent() && !in_doubt {
                    known.check.rest();
                    continue;
                }
            } else if known.check.is_silent() {
                known.validated = false;
            }
            let limited = known.origin == Origin::Seen && !known.may_send(challenge_len);
            if limited {
                self.stats.amplification_refused += 1;
                known.check.skip(now, slow, &mut self.rng);
            } else {
                // In the slow phase no data waits for the path.
                if (self.primary.is_none() || in_doubt) && !known.check.is_slow() {
                    self.reflection.punched();
                }
                due.push((known.addr, known.check.issue(now, slow, &mut self.rng)));
            }
        }
        for (addr, data) in due {
            if self.primary == Some(addr) && self.moved_left > 0 {
                self.moved_left -= 1;
                self.push(now, Route::Direct(addr), Control::Moved);
            }
            self.stats.challenges += 1;
            self.push(now, Route::Direct(addr), Control::Challenge { data });
        }
    }

    fn challenge_relays(&mut self, now: Instant) {
        let slow = self.config.slow_check;
        for index in 0..self.relays.len() {
            let leg = &mut self.relays[index];
            if !leg.check.is_due(now) {
                continue;
            }
            if leg.check.is_silent() {
                leg.proven = false;
            }
            let (hub, data) = (leg.hub, leg.check.issue(now, slow, &mut self.rng));
            self.stats.challenges += 1;
            self.push(now, Route::Relay(hub), Control::Challenge { data });
        }
    }

    /// Answers application data on its leg with a keepalive, if no other answer went there.
    fn answer(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        loop {
            let candidate = self.candidates.iter().find(|known| due(known.answer_due));
            let relay = self.relays.iter().find(|leg| due(leg.answer_due));
            let direct = candidate.map(|known| Route::Direct(known.addr));
            let Some(route) = direct.or(relay.map(|leg| Route::Relay(leg.hub))) else { break };
            self.stats.answers += 1;
            self.push(now, route, Control::Keepalive);
        }
    }

    fn announcement_route(&self) -> Option<Route> {
        self.home.map(Route::Relay).or_else(|| self.routes().first())
    }

    fn announce(&mut self, now: Instant) {
        if self.announcement.next.is_none_or(|next| next > now) {
            return;
        }
        let Some(route) = self.announcement_route() else { return };
        let (r#gen, addrs) = (self.announcement.generation, self.announcement.addrs.clone());
        self.announcement.next = Some(now + jittered(self.announcement.gap, &mut self.rng));
        self.announcement.gap = (self.announcement.gap * 2).min(CANDIDATES_RESEND.1);
        self.push(now, route, Control::Candidates { r#gen, addrs });
    }

    /// Queues a control message, unless its route may not carry it, and records it as sent.
    pub(super) fn push(&mut self, now: Instant, route: Route, control: Control) {
        let len = SEAL_OVERHEAD + control.encoded_len();
        let answers = control == Control::Keepalive;
        match route {
            Route::Relay(hub) => {
                let Some(leg) = self.relays.iter_mut().find(|leg| leg.hub == hub) else { return };
                if answers {
                    leg.answer_due = None;
                }
            }
            Route::Direct(addr) => {
                if let Some(known) = self.candidates.get_mut(addr) {
                    if answers {
                        known.answer_due = None;
                    }
                    // A challenge was checked against the limit when it was drawn. A response to a named
                    // address is always allowed: it reflects less than twice the bytes received.
                    let free = match control {
                        Control::Challenge { .. } => true,
                        Control::Response { .. } => known.origin != Origin::Seen,
                        _ => false,
                    };
                    if !free && !known.may_send(len) {
                        self.stats.amplification_refused += 1;
                        return;
                    }
                    if known.received > 0 {
                        known.sent = known.sent.saturating_add(len as u64);
                    }
                } else if !matches!(control, Control::Response { .. }) {
                    return;
                }
                if self.primary == Some(addr) {
                    self.keepalive.sent(now);
                }
            }
        }
        if self.control.len() == MAX_QUEUED_CONTROL {
            self.stats.control_dropped += 1;
            return;
        }
        self.control.push_back((route, control));
    }
}
