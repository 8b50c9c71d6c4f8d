//! The path machine of one peer: selects the routes of its datagrams.
//!
//! **Guarantees.** Application data flows from the start, through a relay if there is one. The best direct path is
//! found before any data is sent on it, used once it is proven in both directions, and given up within 1.5 s of
//! unanswered sends; while it is in doubt the relay carries a copy. A peer that roams and announces it is followed
//! within a round trip. Every peer without a direct path has a [`PathReason`].
//!
//! **How.** Addresses come from the configuration, from the peer ([`Control::Candidates`], resent until
//! acknowledged), and from the source of its authenticated datagrams. Each is checked with random challenges on a
//! bounded schedule; both sides do so at the same time, which opens both NATs. An echo that returns from the
//! challenged address validates it for this side; the other side decides for itself. Among validated addresses the
//! lowest round-trip time wins, with a margin. Application data received on a leg is answered there, by application
//! data or, 250 ms later, by a keepalive: that answer is the evidence that data passes, since a path may pass probes
//! and drop data. Without the evidence, the path is put in doubt and probed. A late datagram ([`Freshness::late`]) is
//! no evidence: a stalled TCP connection still delivers the datagrams sent before the stall.
//!
//! **Limits.** A datagram that isn't its leg's newest never adds an address, and only an echo puts an address into
//! use. An address that was only seen gets at most three times the bytes it sent until it has echoed. A lost
//! keepalive or probe alone never demotes a path. Candidates, challenges and queues are bounded ([`config`]).
//!
//! Pure: it holds no socket, clock or key. For each authenticated datagram of the peer call
//! [`Paths::on_authentic`] and then, if it was on channel 0, [`Paths::on_control`]; for each one sealed on
//! another channel ask [`Paths::routes`] and [`Paths::may_send`], then call [`Paths::on_sent`]; after every
//! call drain [`Paths::poll_control`] and [`Paths::poll_event`] and set a timer to [`Paths::poll_timeout`].

mod candidate;
mod challenge;
pub mod config;
mod control;
mod drive;
mod evidence;
mod keepalive;
mod reflection;
mod roam;
mod score;
mod select;
mod status;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::key::PublicKey;
use crate::net::secure::route::{Route, Routes};
use crate::net::secure::session::Freshness;
use crate::rt::Rng;

use candidate::{Table, usable};
use challenge::Check;
pub use config::PathConfig;
use config::{CANDIDATES_RESEND, CANDIDATES_WAIT, MAX_RELAYS, MOVED_TIMES, ROTATE_EVERY, ROTATE_TIMES};
pub use control::{Control, ControlError, MAX_CANDIDATES, acknowledgement};
use evidence::Evidence;
use keepalive::Keepalive;
use reflection::Reflection;
use roam::Contest;
pub use status::{PathEvent, PathEventKind, PathReason, PathState, PathStats};

/// A hub over which the peer may be reached.
#[derive(Debug)]
struct Leg {
    hub: PublicKey,
    check: Check,
    /// The peer answered over this leg, and no doubt has come since.
    proven: bool,
    answer_due: Option<Instant>,
}

/// The announcement of our candidates to the peer.
#[derive(Debug, Default)]
struct Announcement {
    generation: u32,
    addrs: Vec<SocketAddr>,
    next: Option<Instant>,
    gap: Duration,
}

/// The path machine of one peer; see the [module](self).
#[derive(Debug)]
pub struct Paths {
    config: PathConfig,
    rng: Rng,
    stats: PathStats,
    established: bool,
    candidates: Table,
    relays: Vec<Leg>,
    /// The relay leg in use, or in reserve behind the primary.
    home: Option<PublicKey>,
    /// The direct address in use.
    primary: Option<SocketAddr>,
    primary_since: Option<Instant>,
    /// The evidence about the route in use: the primary, else the home relay.
    evidence: Evidence,
    contest: Option<Contest>,
    /// When an answering reserve replaces a silent primary in doubt.
    next_takeover: Option<Instant>,
    /// Why the last primary was given up.
    lost: Option<PathReason>,
    relay_faster: bool,
    keepalive: Keepalive,
    announcement: Announcement,
    told_generation: Option<u32>,
    reflection: Reflection,
    /// Until when to wait for the peer's candidates.
    wait_until: Option<Instant>,
    /// Remaining repetitions of "moved".
    moved_left: u8,
    /// Application datagrams, in either direction, since the refresh interval began.
    app_datagrams: u32,
    next_refresh: Option<Instant>,
    next_rotation: Option<Instant>,
    rotations_left: u32,
    rotation: usize,
    control: VecDeque<(Route, Control)>,
    events: VecDeque<PathEvent>,
}

impl Paths {
    /// A path machine without a route.
    pub fn new(config: PathConfig, _now: Instant, rng: Rng) -> Paths {
        let keepalive = Keepalive::new(config.keepalive);
        Paths {
            config,
            rng,
            stats: PathStats::default(),
            established: false,
            candidates: Table::default(),
            relays: Vec::new(),
            home: None,
            primary: None,
            primary_since: None,
            evidence: Evidence::default(),
            contest: None,
            next_takeover: None,
            lost: None,
            relay_faster: false,
            keepalive,
            announcement: Announcement::default(),
            told_generation: None,
            reflection: Reflection::default(),
            wait_until: None,
            moved_left: 0,
            app_datagrams: 0,
            next_refresh: None,
            next_rotation: None,
            rotations_left: 0,
            rotation: 0,
            control: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Sets the hubs where we are registered now, the preferred one first; hubs beyond [`MAX_RELAYS`] are ignored.
    /// Each is measured with challenges of its own.
    pub fn set_relays(&mut self, now: Instant, hubs: &[PublicKey]) {
        let had_route = !self.routes().is_empty();
        let mut old = std::mem::take(&mut self.relays);
        let before: Vec<PublicKey> = old.iter().map(|leg| leg.hub).collect();
        for &hub in hubs {
            if self.relays.len() == MAX_RELAYS || self.relays.iter().any(|leg| leg.hub == hub) {
                continue;
            }
            match old.iter().position(|leg| leg.hub == hub) {
                Some(index) => self.relays.push(old.swap_remove(index)),
                None => {
                    let mut leg = Leg { hub, check: Check::default(), proven: false, answer_due: None };
                    if self.established {
                        leg.check.restart(now);
                    }
                    self.relays.push(leg);
                }
            }
        }
        if self.relays.iter().any(|leg| !before.contains(&leg.hub)) {
            // A relay that (re)appears can carry candidates that had no route before.
            self.announce_again(now);
        }
        self.choose_home();
        self.reselect(now);
        if had_route && self.routes().is_empty() {
            self.emit_fallback(PathReason::NoRelay);
        }
        self.start_rotation(now);
        self.drive(now);
    }

    /// Sets our own candidates, best first. They are sent to the peer now, and with back-off until it acknowledges.
    pub fn set_local_candidates(&mut self, now: Instant, addrs: &[SocketAddr]) {
        let addrs = &addrs[..addrs.len().min(MAX_CANDIDATES)];
        let told_before = self.announcement.generation != 0;
        if self.announcement.addrs == addrs && (told_before || addrs.is_empty()) {
            return;
        }
        self.announcement.addrs = addrs.to_vec();
        self.announcement.generation = self.announcement.generation.wrapping_add(1).max(1);
        self.announcement.next = Some(now);
        self.announcement.gap = CANDIDATES_RESEND.0;
        self.drive(now);
    }

    /// Adds addresses of the peer that our side knows: configuration, rendezvous. Without any relay, data goes to
    /// them at once, before they are validated, since there is no other route.
    pub fn add_candidates(&mut self, now: Instant, addrs: &[SocketAddr]) {
        let loopback = self.config.loopback;
        let usable: Vec<_> = addrs.iter().filter_map(|&addr| usable(addr, loopback)).collect();
        self.stats.candidates_refused += (addrs.len() - usable.len()) as u64;
        self.stats.candidates_refused += self.candidates.configure(usable.into_iter());
        self.start_rotation(now);
        self.drive(now);
    }

    /// A session is up, also after a rekey: checks begin, and candidates are announced (again, since the peer may
    /// have restarted).
    pub fn on_established(&mut self, now: Instant) {
        self.told_generation = None;
        self.announce_again(now);
        if !self.established {
            self.established = true;
            self.next_rotation = None;
            if self.primary.is_none()
                && self.candidates.iter().all(|known| known.rank().0 != candidate::Origin::Told)
            {
                self.wait_until = Some(now + CANDIDATES_WAIT);
            }
            for leg in &mut self.relays {
                leg.check.restart(now);
            }
        }
        self.drive(now);
    }

    /// The session is over. The addresses stay known, but must be proven again.
    pub fn on_closed(&mut self, now: Instant) {
        let had_primary = self.primary.is_some();
        self.established = false;
        self.control.clear();
        self.set_primary(now, None);
        (self.contest, self.lost, self.wait_until, self.next_refresh) = (None, None, None, None);
        (self.announcement.next, self.moved_left, self.relay_faster) = (None, 0, false);
        self.reflection = Reflection::default();
        for candidate in self.candidates.iter_mut() {
            candidate.check.reset();
            (candidate.validated, candidate.answer_due, candidate.hold_until) = (false, None, None);
        }
        for leg in &mut self.relays {
            leg.check.reset();
            (leg.proven, leg.answer_due) = (false, None);
        }
        if had_primary {
            self.emit_fallback(PathReason::Closed);
        }
        self.start_rotation(now);
    }

    /// An authenticated datagram of the peer arrived: `len` bytes from `source`. `app` says whether it carried
    /// application data (a channel other than 0).
    pub fn on_authentic(
        &mut self,
        now: Instant,
        source: Route,
        Freshness { newest_on_leg, late }: Freshness,
        len: usize,
        app: bool,
    ) {
        let delay = self.config.answer_delay;
        // A late datagram neither is an answer nor gets one: it would keep both sides on a stalled path.
        let answers = app && !late;
        if app {
            self.note_app(now);
        }
        match source {
            Route::Relay(hub) => {
                if let Some(leg) = self.relays.iter_mut().find(|leg| leg.hub == hub)
                    && answers
                {
                    leg.answer_due.get_or_insert(now + delay);
                }
            }
            Route::Direct(addr) => {
                if self.candidates.get(addr).is_none() && !self.meet(addr, newest_on_leg) {
                    return;
                }
                let Some(known) = self.candidates.get_mut(addr) else { return };
                known.received = known.received.saturating_add(len as u64);
                known.heard = Some(now);
                if answers {
                    known.answer_due.get_or_insert(now + delay);
                }
                if self.primary == Some(addr) {
                    self.keepalive.heard(now);
                    if let Some(contest) = &mut self.contest
                        && newest_on_leg
                    {
                        contest.old_heard = true;
                        self.drive(now);
                    }
                } else if newest_on_leg {
                    self.check_heard(now, addr);
                    if app {
                        self.consider_contest(now, addr, false);
                    }
                    self.drive(now);
                }
            }
        }
        if answers {
            self.on_answer(now, source);
        }
    }

    /// Handles a message of channel 0, after [`on_authentic`](Paths::on_authentic) for its datagram.
    pub fn on_control(
        &mut self,
        now: Instant,
        source: Route,
        Freshness { newest_on_leg, late }: Freshness,
        control: Control,
    ) {
        match control {
            Control::Challenge { data } => {
                self.push(now, source, Control::Response { data, observed: source.addr() });
            }
            Control::Response { data, observed } => self.on_response(now, source, data, observed),
            Control::Keepalive => {
                if !late {
                    self.on_answer(now, source);
                }
                if newest_on_leg && let Route::Direct(addr) = source {
                    self.consider_contest(now, addr, false);
                }
            }
            Control::Candidates { r#gen, addrs } => self.on_told(now, source, r#gen, &addrs),
            Control::Moved => self.on_moved(now, source, newest_on_leg),
            Control::Close => self.on_closed(now),
        }
        self.drive(now);
    }

    /// A datagram of `len` bytes was sealed and goes to [`routes`](Paths::routes). `app` says whether its channel is
    /// other than 0; control messages fetched by [`poll_control`](Paths::poll_control) are recorded already.
    pub fn on_sent(&mut self, now: Instant, len: usize, app: bool) {
        if !app {
            return;
        }
        let routes = self.routes();
        for route in routes {
            match route {
                Route::Relay(hub) => {
                    if let Some(leg) = self.relays.iter_mut().find(|leg| leg.hub == hub) {
                        leg.answer_due = None;
                    }
                }
                Route::Direct(addr) => {
                    if self.primary == Some(addr) {
                        self.keepalive.sent(now);
                    }
                    if let Some(known) = self.candidates.get_mut(addr)
                        && known.may_send(len)
                    {
                        known.answer_due = None;
                        known.sent = known.sent.saturating_add(len as u64);
                    }
                }
            }
        }
        if self.established {
            self.note_app(now);
            if self.active().is_some_and(|active| routes.contains(&active)) {
                self.evidence.sent(now);
            }
        }
    }

    /// Our own network changed: the peer is told over the routes that work, and everything is checked anew. Call
    /// [`set_relays`](Paths::set_relays) and [`set_local_candidates`](Paths::set_local_candidates) once the new ones
    /// are known.
    pub fn on_network_change(&mut self, now: Instant) {
        if !self.established {
            return;
        }
        self.contest = None;
        self.moved_left = MOVED_TIMES;
        self.recheck_all(now);
        for leg in &mut self.relays {
            leg.proven = false;
            leg.check.restart(now);
        }
        if let Some(home) = self.home {
            self.push(now, Route::Relay(home), Control::Moved);
        }
        self.announce_again(now);
        self.drive(now);
    }

    /// The routes for datagrams of channels other than 0: one, or two while the path is in doubt; none when no route
    /// is known. Skip those that [`may_send`](Paths::may_send) refuses.
    pub fn routes(&self) -> Routes {
        let doubt = self.evidence.doubted_since().is_some();
        let newcomer = self.contest.map(|contest| Route::Direct(contest.newcomer));
        let relay = self.home.map(Route::Relay);
        match (self.primary.map(Route::Direct), relay) {
            (Some(_), Some(relay)) if doubt && newcomer.is_some() => Routes::NONE.with(newcomer).and(relay),
            (Some(primary), Some(relay)) if doubt => Routes::one(primary).and(relay),
            (Some(primary), _) => Routes::one(primary).with(newcomer),
            (None, Some(relay)) => {
                let proven = self.home_leg().is_some_and(|leg| leg.proven);
                let standby = self.relays.iter().find(|leg| Some(leg.hub) != self.home);
                Routes::one(relay).with(standby.filter(|_| !proven).map(|leg| Route::Relay(leg.hub)))
            }
            (None, None) => self.fallback(),
        }
    }

    /// Whether `len` bytes may go by this route now. An address that was only seen, and has not echoed a challenge
    /// yet, gets at most three times the bytes that came from it.
    pub fn may_send(&self, route: &Route, len: usize) -> bool {
        match route {
            Route::Relay(hub) => self.relays.iter().any(|leg| leg.hub == *hub),
            Route::Direct(addr) => self.candidates.get(*addr).is_some_and(|known| known.may_send(len)),
        }
    }

    /// The next control message to seal, for exactly this route.
    pub fn poll_control(&mut self) -> Option<(Route, Control)> {
        self.control.pop_front()
    }

    /// The next change of the route.
    pub fn poll_event(&mut self) -> Option<PathEvent> {
        self.events.pop_front()
    }

    /// Whether addresses were challenged lately to open a path, so that the peer should know our current reflexive
    /// address. Returns true once per round.
    pub fn poll_punched(&mut self) -> bool {
        self.reflection.poll_punched()
    }

    /// Our address as the peer sees it, whenever that has changed. The report is unverified.
    pub fn poll_observed(&mut self) -> Option<SocketAddr> {
        self.reflection.poll_observed()
    }

    /// The counters.
    pub fn stats(&self) -> &PathStats {
        &self.stats
    }

    /// The peer's present route, and the reason.
    pub fn state(&self) -> PathState {
        let route = self.active().or_else(|| self.routes().first());
        let rtt = match route {
            Some(Route::Direct(addr)) => {
                self.candidates.get(addr).and_then(|known| known.check.rtt.smoothed())
            }
            Some(Route::Relay(hub)) => {
                self.relays.iter().find(|leg| leg.hub == hub).and_then(|leg| leg.check.rtt.smoothed())
            }
            None => None,
        };
        let addr = match route {
            Some(Route::Direct(addr)) => Some(addr),
            _ => None,
        };
        let direct = self.primary.is_some();
        PathState { direct, addr, reason: self.reason(), rtt, settled: self.settled() }
    }

    fn reason(&self) -> PathReason {
        if self.primary.is_some() {
            let doubt = self.evidence.doubted_since().is_some();
            return if doubt { PathReason::Suspect } else { PathReason::Direct };
        }
        if !self.established {
            let reachable = !self.relays.is_empty() || !self.candidates.is_empty();
            return if reachable { PathReason::Starting } else { PathReason::NoRelay };
        }
        if self.relay_faster {
            return PathReason::RelayFaster;
        }
        if let Some(lost) = self.lost {
            return lost;
        }
        if self.wait_until.is_some()
            || self.candidates.iter().any(|known| known.waits() || known.is_checked())
        {
            return PathReason::Checking;
        }
        if self.relays.is_empty() {
            return PathReason::NoRelay;
        }
        if self.candidates.is_empty() { PathReason::NoCandidates } else { PathReason::NoAnswer }
    }

    fn settled(&self) -> bool {
        if !self.established {
            return false;
        }
        if self.primary.is_some() {
            return self.evidence.doubted_since().is_none() && self.contest.is_none();
        }
        let checking = self.candidates.iter().any(|known| known.waits() || known.is_checked());
        let measuring = self.home_leg().is_some_and(|leg| !leg.proven && leg.check.is_quick());
        !checking && !measuring && self.wait_until.is_none()
    }

    fn home_leg(&self) -> Option<&Leg> {
        self.relays.iter().find(|leg| Some(leg.hub) == self.home)
    }

    /// The route whose answers are counted.
    fn active(&self) -> Option<Route> {
        self.primary.map(Route::Direct).or(self.home.map(Route::Relay))
    }

    fn note_app(&mut self, now: Instant) {
        self.app_datagrams = self.app_datagrams.saturating_add(1);
        if self.next_refresh.is_none() {
            self.next_refresh = Some(now + self.config.rtt_refresh);
        }
    }

    fn announce_again(&mut self, now: Instant) {
        if self.announcement.generation != 0 {
            self.announcement.next = Some(now);
            self.announcement.gap = CANDIDATES_RESEND.0;
        }
    }

    fn start_rotation(&mut self, now: Instant) {
        let several = self.candidates.iter().nth(2).is_some();
        if !self.established && self.relays.is_empty() && several {
            self.next_rotation = Some(now + ROTATE_EVERY);
            self.rotations_left = ROTATE_TIMES;
        } else {
            self.next_rotation = None;
        }
    }

    /// The routes without relay and primary: the two most promising addresses that may be sent to.
    fn fallback(&self) -> Routes {
        let count = self.candidates.iter().count().max(1);
        let key = |known: &candidate::Candidate, index: usize| {
            let turn = (index + count - self.rotation % count) % count;
            (!known.validated, std::cmp::Reverse(known.heard), turn)
        };
        let mut best: [Option<(_, Route)>; 2] = [None, None];
        for (index, known) in self.candidates.iter().enumerate() {
            if known.proven || known.heard.is_some() || known.origin == candidate::Origin::Configured {
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
mod tests;
#[cfg(test)]
mod wire;
