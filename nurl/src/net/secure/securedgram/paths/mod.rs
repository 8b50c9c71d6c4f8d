//! The path machine of one peer: NAT traversal (hole punching by connectivity checks, as in ICE), roaming, and the
//! selection of the routes of its datagrams.
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
//! and drop data. Without the evidence, the path is put in doubt and probed; and when the peer's data comes by another
//! leg while the one in use is silent, for the peer doubts it then. A late datagram ([`Freshness::late`]) is
//! no evidence: a stalled TCP connection still delivers the datagrams sent before the stall.
//!
//! **Limits.** A datagram that isn't its leg's newest never adds an address, and only an echo puts an address into
//! use. The addresses that haven't echoed get at most three times the bytes that the peer sent, all together, and one
//! that was only seen at most three times the bytes that came from it. Nothing goes to loopback for the word of a peer
//! elsewhere. A lost keepalive or probe alone never demotes a path. Candidates, challenges and queues are bounded
//! ([`config`]).
//!
//! **Parts**, each with its own fields and deadlines:
//!
//! | part | content |
//! | --- | --- |
//! | `selection` | the route in use: promotion, demotion, roaming |
//! | `candidates`, `candidate` | the addresses of the peer, and what each has shown |
//! | `allowance`, `locality` | how much may go to those that aren't proven; to which of them nothing goes |
//! | `relays` | the hubs over which the peer may be reached |
//! | `direct`, `keepalive` | the direct address in use, and its NAT mappings |
//! | `challenge` | the connectivity check of one address or relay leg |
//! | `evidence`, `score`, `roam` | the policies, as pure functions: does it deliver, which is better, is it followed |
//! | `announcement`, `reflection` | our addresses: told to the peer, reported by it |
//! | `refresh`, `rotation` | when to measure; which address is tried first without a session |
//! | `control`, `outbox` | the messages of channel 0; what waits for the caller |
//!
//! Pure: it holds no socket, clock or key. For each authenticated datagram of the peer call
//! [`Paths::on_authentic`] and then, if it was on channel 0, [`Paths::on_control`]; for each one sealed on
//! another channel ask [`Paths::routes`] and [`Paths::take`], then call [`Paths::on_sent`]; drop what
//! [`Paths::is_limited`] if all peers' budget is spent; after every
//! call drain [`Paths::poll_control`] and [`Paths::poll_event`] and set a timer to [`Paths::poll_timeout`].

mod allowance;
mod announcement;
mod candidate;
mod candidates;
mod challenge;
pub mod config;
mod context;
mod control;
mod direct;
mod evidence;
mod keepalive;
mod locality;
mod outbox;
mod reflection;
mod refresh;
mod relays;
mod roam;
mod rotation;
mod score;
mod selection;
mod status;

use std::net::SocketAddr;
use std::time::Instant;

use crate::key::PublicKey;
use crate::net::secure::route::{Route, Routes};
use crate::net::secure::session::Freshness;
use crate::rt::Rng;

use announcement::Announcement;
use candidate::{CandidateOrigin, usable};
pub use config::PathConfig;
use context::PathContext;
pub use control::{Control, ControlError, MAX_CANDIDATES, acknowledgement};
use outbox::PathOutbox;
use reflection::Reflection;
use refresh::RttRefresh;
use selection::RouteSelection;
pub use status::{PathEvent, PathEventKind, PathReason, PathState, PathStats};

/// The path machine of one peer; see the [module](self).
#[derive(Debug)]
pub struct Paths {
    config: PathConfig,
    rng: Rng,
    stats: PathStats,
    /// Whether there is a session.
    established: bool,
    selection: RouteSelection,
    announcement: Announcement,
    reflection: Reflection,
    refresh: RttRefresh,
    relay_refresh: RttRefresh,
    outbox: PathOutbox,
}

impl Paths {
    /// A path machine without a route.
    pub fn new(config: PathConfig, _now: Instant, rng: Rng) -> Paths {
        Paths {
            selection: RouteSelection::new(&config),
            config,
            rng,
            stats: PathStats::default(),
            established: false,
            announcement: Announcement::default(),
            reflection: Reflection::default(),
            refresh: RttRefresh::default(),
            relay_refresh: RttRefresh::default(),
            outbox: PathOutbox::default(),
        }
    }

    /// Sets the hubs where we are registered now, the preferred one first; hubs beyond [`MAX_RELAYS`](config::MAX_RELAYS)
    /// are ignored. Each is measured with challenges of its own.
    pub fn set_relays(&mut self, now: Instant, hubs: &[PublicKey]) {
        let (selection, mut cx) = self.split(now);
        if selection.set_relays(&mut cx, hubs) {
            // A relay that (re)appears can carry candidates that had no route before.
            self.announcement.again(now);
        }
        self.drive(now);
    }

    /// Sets our own candidates, best first. They are sent to the peer now, and with back-off until it acknowledges.
    pub fn set_local_candidates(&mut self, now: Instant, addrs: &[SocketAddr]) {
        let addrs = &addrs[..addrs.len().min(MAX_CANDIDATES)];
        self.selection.candidates.locality.tell(addrs);
        if self.announcement.set(now, addrs) {
            self.drive(now);
        }
    }

    /// Adds addresses of the peer that our side knows by itself. Without any relay, data goes to them at once, before they
    /// are validated, since there is no other route.
    pub fn add_candidates(&mut self, now: Instant, addrs: &[SocketAddr]) {
        self.add(now, addrs, CandidateOrigin::Configured);
    }

    /// Adds the addresses in the peer's record at a rendezvous, which had `len` bytes. Without any relay the first
    /// handshake goes to them, as far as the record has paid for it.
    pub fn add_published(&mut self, now: Instant, addrs: &[SocketAddr], len: usize) {
        self.selection.candidates.allowance.earn(len.max(config::MIN_RECORD_BYTES));
        self.add(now, addrs, CandidateOrigin::Published);
    }

    fn add(&mut self, now: Instant, addrs: &[SocketAddr], origin: CandidateOrigin) {
        let (selection, mut cx) = self.split(now);
        selection.add_candidates(&mut cx, addrs, origin);
        self.drive(now);
    }

    /// A session is up, also after a rekey: checks begin, and candidates are announced (again, since the peer may
    /// have restarted).
    pub fn on_established(&mut self, now: Instant) {
        self.selection.candidates.allowance.earn(config::HANDSHAKE_BYTES);
        self.announcement.again(now);
        let first = !std::mem::replace(&mut self.established, true);
        self.selection.on_established(now, first);
        self.drive(now);
    }

    /// The session is over. The addresses stay known, but must be proven again.
    pub fn on_closed(&mut self, now: Instant) {
        self.established = false;
        self.outbox.clear_control();
        self.refresh.stop();
        self.relay_refresh.stop();
        self.announcement.stop();
        self.reflection = Reflection::default();
        let (selection, mut cx) = self.split(now);
        selection.on_closed(&mut cx);
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
        self.selection.candidates.allowance.earn(len);
        // A late datagram neither is an answer nor gets one: it would keep both sides on a stalled path.
        let answers = app && !late;
        let answer_due = answers.then(|| now + self.config.answer_delay);
        if app {
            self.note_app(now);
        }
        let (selection, mut cx) = self.split(now);
        match source {
            Route::Relay(_) if late => {}
            Route::Relay(hub) => selection.on_relayed(cx.now, hub, answer_due),
            Route::Direct(addr) => {
                match selection.on_datagram(&mut cx, addr, len, newest_on_leg, app, answer_due) {
                    Some(true) => self.drive(now),
                    Some(false) => {}
                    None => return,
                }
            }
        }
        if answers {
            let (selection, mut cx) = self.split(now);
            selection.on_answer(&mut cx, source);
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
                let (selection, mut cx) = self.split(now);
                if !late {
                    selection.on_answer(&mut cx, source);
                }
                if newest_on_leg && let Route::Direct(addr) = source {
                    selection.consider_migration(now, addr, false);
                }
            }
            Control::Candidates { r#gen, addrs } => {
                self.push(now, source, Control::Response { data: acknowledgement(r#gen), observed: None });
                let (selection, mut cx) = self.split(now);
                selection.on_told(&mut cx, r#gen, &addrs);
            }
            Control::Moved => self.selection.on_moved(now, source, newest_on_leg),
            Control::Close => self.on_closed(now),
        }
        self.drive(now);
    }

    fn on_response(&mut self, now: Instant, source: Route, data: [u8; 8], observed: Option<SocketAddr>) {
        let (selection, mut cx) = self.split(now);
        let known = match source {
            Route::Direct(addr) => selection.on_echo(&mut cx, addr, &data),
            Route::Relay(hub) => selection.on_relay_echo(&mut cx, hub, &data),
        };
        if known {
            self.stats.echoes += 1;
            if let Some(addr) = observed.and_then(|addr| usable(addr, self.config.loopback)) {
                self.reflection.observed(addr);
            }
        } else if !self.announcement.acknowledge(&data) {
            self.stats.stray_responses += 1;
        }
    }

    /// A datagram of a channel other than 0 was sealed and goes to these routes, each of which was
    /// [taken](Paths::take).
    pub fn on_sent(&mut self, now: Instant, routes: Routes) {
        let (selection, cx) = self.split(now);
        selection.on_sent(&cx, routes);
        if self.established {
            self.note_app(now);
        }
    }

    /// Our own network changed: the peer is told over the routes that work, and everything is checked anew. Call
    /// [`set_relays`](Paths::set_relays) and [`set_local_candidates`](Paths::set_local_candidates) once the new ones
    /// are known.
    pub fn on_network_change(&mut self, now: Instant) {
        if !self.established {
            return;
        }
        if let Some(home) = self.selection.on_network_change(now) {
            self.push(now, Route::Relay(home), Control::Moved);
        }
        self.announcement.again(now);
        self.drive(now);
    }

    /// The routes for datagrams of channels other than 0: one, or two while the path is in doubt; none when no route
    /// is known. Skip those that [`take`](Paths::take) refuses.
    pub fn routes(&self) -> Routes {
        self.selection.routes()
    }

    /// Whether what goes by this route counts against the limits, because it leads to an address that neither the peer has
    /// proven nor our side has named.
    pub fn is_limited(&self, route: &Route) -> bool {
        self.selection.is_limited(route)
    }

    /// Whether `len` bytes may go by this route now; then they count as sent. The addresses that haven't echoed a challenge
    /// yet get at most three times the bytes that came from the peer. Control messages fetched by
    /// [`poll_control`](Paths::poll_control) are counted already.
    pub fn take(&mut self, route: &Route, len: usize) -> bool {
        let taken = self.selection.take(route, len);
        self.stats.amplification_refused += u64::from(!taken && route.is_direct());
        taken
    }

    /// The next control message to seal, for exactly this route.
    pub fn poll_control(&mut self) -> Option<(Route, Control)> {
        self.outbox.poll_control()
    }

    /// The next change of the route.
    pub fn poll_event(&mut self) -> Option<PathEvent> {
        self.outbox.poll_event()
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
        self.selection.state(self.established)
    }

    /// Handles the timeouts that are due. Early and repeated calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.selection.rotation.handle_timeout(now);
        self.drive(now);
    }

    /// When [`handle_timeout`](Paths::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.established {
            return self.selection.rotation.due();
        }
        let announcement = self.announcement.due().filter(|_| self.announcement_route().is_some());
        let selection = self.selection.next_deadline(&self.config);
        [selection, announcement, self.refresh.due(), self.relay_refresh.due()].into_iter().flatten().min()
    }

    /// Application data was sent or received.
    fn note_app(&mut self, now: Instant) {
        self.refresh.note_app(now, self.config.rtt_refresh);
        if self.selection.is_relayed() {
            self.relay_refresh.note_app(now, config::RELAY_REFRESH);
        }
    }

    /// Does everything that is due during a session.
    fn drive(&mut self, now: Instant) {
        if !self.established {
            return;
        }
        let (selection, mut cx) = self.split(now);
        selection.handle_timeout(&mut cx);
        if self.refresh.poll(now, self.config.rtt_refresh) {
            self.selection.measure(now);
        }
        if self.relay_refresh.poll(now, config::RELAY_REFRESH) && self.selection.is_relayed() {
            self.selection.relays.measure_home(now);
        }
        self.challenge(now);
        // Application data is answered on its leg with a keepalive, if no other answer went there.
        for route in self.selection.answers_due(now) {
            self.stats.answers += 1;
            self.push(now, route, Control::Keepalive);
        }
        if self.selection.direct.keepalive.due().is_some_and(|due| due <= now)
            && let Some(addr) = self.selection.direct.addr()
        {
            self.stats.keepalives += 1;
            self.push(now, Route::Direct(addr), Control::Keepalive);
        }
        if let Some(route) = self.announcement_route()
            && let Some(candidates) = self.announcement.poll(now, &mut self.rng)
        {
            self.push(now, route, candidates);
        }
    }

    /// Sends the challenges that are due.
    fn challenge(&mut self, now: Instant) {
        let (selection, mut cx) = self.split(now);
        let (messages, punches) = selection.poll_candidate_challenges(&mut cx);
        for (route, message) in messages {
            self.push(now, route, message);
        }
        if punches {
            self.reflection.punched();
        }
        let (selection, mut cx) = self.split(now);
        for (hub, data) in selection.relays.draw_due(&mut cx) {
            self.stats.challenges += 1;
            self.push(now, Route::Relay(hub), Control::Challenge { data });
        }
    }

    fn announcement_route(&self) -> Option<Route> {
        self.selection.relays.home().map(Route::Relay).or_else(|| self.routes().first())
    }

    /// Queues a control message, unless its route may not carry it, and records it as sent.
    fn push(&mut self, now: Instant, route: Route, control: Control) {
        let (selection, mut cx) = self.split(now);
        if selection.admit(&mut cx, route, &control) {
            self.outbox.push(&mut self.stats, route, control);
        }
    }

    /// The selection, and what it may use besides.
    fn split(&mut self, now: Instant) -> (&mut RouteSelection, PathContext<'_>) {
        let cx = PathContext {
            now,
            established: self.established,
            config: &self.config,
            rng: &mut self.rng,
            stats: &mut self.stats,
            outbox: &mut self.outbox,
        };
        (&mut self.selection, cx)
    }
}

#[cfg(test)]
mod tests;
