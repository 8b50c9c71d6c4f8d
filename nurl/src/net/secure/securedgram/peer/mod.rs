//! One peer: its sessions, its handshakes in both directions, its paths, and their deadlines.
//!
//! | part | content |
//! | --- | --- |
//! | [`sessions`] | the current, the previous and the unconfirmed sessions; rekeying |
//! | [`initiator`] | the handshakes that we begin |
//! | [`responder`] | the handshakes that we answer |
//! | [`paths`](super::paths) | the routes of the peer's datagrams |
//! | `context` | what the endpoint lends to a peer for one call |
//!
//! This file seals and opens data; [`handshake`] opens sessions.

mod context;
mod handshake;
mod initiator;
mod responder;
mod sessions;

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::frames::u32_at;
use super::paths::{Control, Paths};
use super::source::Source;
use super::timestamp::Timestamp;
use super::{CloseReason, Outgoing, Received, SealError, SessionEvent, channel, told};
use crate::key::PublicKey;
use crate::net::secure::noise::SharedSecret;
use crate::net::secure::route::{Route, Routes};
use crate::net::secure::session::{HEADER_LEN, OVERHEAD, OpenError, Opened, REKEY_AFTER};
use crate::rt;

pub(super) use context::PeerContext;
pub(super) use handshake::{AdmittedInit, answer, psk};
pub use initiator::MAX_COOKIES;
use initiator::PeerInitiator;
pub use responder::ANSWER_LIFE;
use responder::PeerResponder;
pub(super) use responder::{CachedAnswer, Timeliness};
pub(super) use sessions::LiveSession;
use sessions::PeerSessions;
pub use sessions::{
    CONCURRENT, CONFIRM_WAIT, MAX_CONFIRM_WAIT, MAX_UNCONFIRMED, REKEY_AFTER_AS_RESPONDER, UNANSWERED,
};

/// After a failed attempt or a close, a peer that is to be kept connected is tried again after this time. It is
/// tried sooner when the peer or a route to it appears.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// One peer; see the [module](self).
pub(super) struct Peer {
    pub(super) key: PublicKey,
    /// The Diffie-Hellman of both static keys; computed once.
    pub(super) ss: Option<SharedSecret>,
    /// A pre-shared key in place of the mesh's.
    pub(super) psk: Option<Zeroizing<[u8; 32]>>,
    /// Whether the session is kept open, through rekeyings and failures.
    keep: bool,
    pub(super) paths: Paths,
    pub(super) sessions: PeerSessions,
    initiator: PeerInitiator,
    pub(super) responder: PeerResponder,
    /// When application data was last sent or received.
    last_app: Option<Instant>,
    /// When the last authentic frame came.
    pub(super) last_heard: Option<Instant>,
}

impl Peer {
    /// A peer whose inits have to be later than `floor`.
    pub(super) fn new(key: PublicKey, paths: Paths, floor: Timestamp) -> Peer {
        Peer {
            key,
            ss: None,
            psk: None,
            keep: false,
            paths,
            sessions: PeerSessions::default(),
            initiator: PeerInitiator::default(),
            responder: PeerResponder::new(floor),
            last_app: None,
            last_heard: None,
        }
    }

    /// Whether an attempt is under way.
    pub(super) fn is_trying(&self) -> bool {
        self.initiator.attempt.is_some()
    }

    /// Whether nothing would be lost if the peer were removed; its timestamp is remembered.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        !self.keep && self.initiator.attempt.is_none() && self.sessions.is_idle(now, ANSWER_LIFE)
    }

    /// The next deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let parts =
            [self.initiator.next_deadline(), self.sessions.next_deadline(), self.paths.poll_timeout()];
        parts.into_iter().flatten().min()
    }

    /// Handles the timeouts that are due.
    pub(super) fn handle_timeout(&mut self, cx: &mut PeerContext<'_>) {
        let now = cx.now;
        self.expire(cx);
        if self.paths.poll_timeout().is_some_and(|at| at <= now) {
            self.paths.handle_timeout(now);
        }
        if self.sessions.confirm.as_ref().is_some_and(|confirm| confirm.at <= now) {
            self.send_confirm(cx);
        }

        let unanswered = self.sessions.take_unanswered(now);
        let rekey = self.sessions.take_rekey(now);
        let active =
            self.keep || self.last_app.is_some_and(|at| now.saturating_duration_since(at) < REKEY_AFTER);
        let retry = self.initiator.take_retry(now);
        match &self.initiator.attempt {
            Some(attempt) if attempt.is_over(now) => self.fail(cx),
            Some(attempt) if attempt.next_at <= now => self.send_try(cx),
            Some(_) => {}
            None if unanswered || (rekey && active) || retry => self.begin(cx),
            None => {}
        }
    }

    /// Drops sessions whose keys have expired.
    fn expire(&mut self, cx: &mut PeerContext<'_>) {
        cx.release(self.sessions.expire(cx.now));
        if self.sessions.is_expired(cx.now) {
            self.close(cx, CloseReason::Expired);
            if self.keep {
                self.begin(cx);
            }
        }
    }

    /// Keeps the session open from now on.
    pub(super) fn keep_open(&mut self) {
        self.keep = true;
    }

    /// Lets the session end, after the peer was told on every route.
    pub(super) fn end(&mut self, cx: &mut PeerContext<'_>) {
        self.keep = false;
        self.initiator.retry_at = None;
        for route in take_routes(&mut self.paths, cx, OVERHEAD + 2) {
            let mut bytes = Vec::new();
            if let Some(outgoing) = self.seal_control(cx, route, &Control::Close, &mut bytes) {
                cx.transmit(outgoing, bytes);
            }
        }
        self.end_attempt(cx);
        self.close(cx, CloseReason::Local);
    }

    /// Drops every session, and reports the end of the current one. One that the peer closed still opens its last frames.
    pub(super) fn close(&mut self, cx: &mut PeerContext<'_>, reason: CloseReason) {
        let was_open = self.sessions.is_open();
        let released = match reason {
            CloseReason::Remote => self.sessions.linger(cx.now),
            _ => self.sessions.drop_all(),
        };
        if was_open {
            self.paths.on_closed(cx.now);
        }
        cx.release(released);
        if was_open {
            cx.event(SessionEvent::Closed { peer: self.key, reason });
        }
        cx.touch();
    }

    /// Releases every index that leads to the peer, before it is removed.
    pub(super) fn release_all(&mut self, cx: &mut PeerContext<'_>) {
        self.end_attempt(cx);
        cx.release(self.sessions.drop_all());
    }

    /// The routes to the peer have changed; tries at once if one has appeared that was missed.
    pub(super) fn on_routes_changed(&mut self, cx: &mut PeerContext<'_>) {
        let routes = self.paths.routes();
        let attempt = self.initiator.attempt.as_ref();
        let appeared = attempt.is_some_and(|attempt| {
            routes.iter().any(|route| attempt.last_routes.iter().all(|known| known != route))
        });
        let wanted = self.keep && !self.sessions.is_open() && attempt.is_none() && !routes.is_empty();
        if appeared || wanted {
            self.nudge(cx);
        }
        cx.touch();
    }

    /// Seals a body on a channel into the buffer that `place` returns for the routes and the frame's length.
    pub(super) fn seal<'a>(
        &mut self,
        cx: &mut PeerContext<'_>,
        channel: u8,
        body: &[u8],
        place: impl FnOnce(&Routes, usize) -> &'a mut Vec<u8>,
    ) -> Result<Routes, SealError> {
        let now = cx.now;
        let Some(live) = &mut self.sessions.current else {
            cx.stats.seal_no_session += 1;
            self.begin_unless_answered(cx);
            return Err(SealError::NoSession);
        };
        let len = OVERHEAD + 1 + body.len();
        let routes = take_routes(&mut self.paths, cx, len);
        if routes.is_empty() {
            cx.stats.seal_no_route += 1;
            return Err(SealError::NoRoute);
        }
        let out = place(&routes, len);
        let begin = out.len();
        if live.session.seal(now, &[channel], body, out).is_err() {
            cx.stats.seal_no_session += 1;
            self.close(cx, CloseReason::Expired);
            self.begin(cx);
            return Err(SealError::NoSession);
        }
        rt::label(&out[begin..], || told::content(channel, body));
        cx.stats.frames_sealed += 1;
        let rekey = self.sessions.on_sealed(now);
        self.paths.on_sent(now, routes);
        self.last_app = Some(now);
        if rekey && self.initiator.attempt.is_none() {
            self.sessions.on_rekeying();
            self.begin(cx);
        }
        cx.touch();
        Ok(routes)
    }

    /// Seals the next control message of the paths, if there is one, for its own route only. One to an unproven address
    /// is lost if the budget of all peers is spent.
    pub(super) fn poll_control(&mut self, cx: &mut PeerContext<'_>, out: &mut Vec<u8>) -> Option<Outgoing> {
        loop {
            let (route, control) = self.paths.poll_control()?;
            let len = OVERHEAD + 1 + control.encoded_len();
            if self.paths.is_limited(&route) && !cx.take_unproven(len) {
                continue;
            }
            if let Some(outgoing) = self.seal_control(cx, route, &control, out) {
                return Some(outgoing);
            }
        }
    }

    fn seal_control(
        &mut self,
        cx: &mut PeerContext<'_>,
        route: Route,
        control: &Control,
        out: &mut Vec<u8>,
    ) -> Option<Outgoing> {
        let live = self.sessions.current.as_mut()?;
        let begin = out.len();
        live.session.seal(cx.now, &[channel::CONTROL], &control.encode_for(live.version), out).ok()?;
        rt::label(&out[begin..], || told::control(control));
        cx.stats.frames_sealed += 1;
        Some(Outgoing::to(self.key, route))
    }

    /// Seals an empty frame for one route, if it may go there.
    fn send_empty(&mut self, cx: &mut PeerContext<'_>, route: Route) {
        if !take(&mut self.paths, cx, &route, OVERHEAD) {
            return;
        }
        let Some(live) = &mut self.sessions.current else { return };
        let mut bytes = Vec::with_capacity(OVERHEAD);
        if live.session.seal(cx.now, &[], &[], &mut bytes).is_ok() {
            rt::label(&bytes, || "confirmation".to_owned());
            cx.stats.frames_sealed += 1;
            cx.transmit(Outgoing::to(self.key, route), bytes);
        }
    }

    /// Handles a data frame on one of the peer's indices. Data for the caller is returned.
    pub(super) fn handle_data(
        &mut self,
        cx: &mut PeerContext<'_>,
        source: Source,
        datagram: &mut [u8],
    ) -> Option<Received> {
        let now = cx.now;
        let Some(opened) = self.open(cx, source, datagram) else {
            cx.stats.unknown_index += 1;
            return None;
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                cx.stats.count_unopened(error);
                return None;
            }
        };
        cx.stats.frames_opened += 1;
        cx.touch();
        let body = HEADER_LEN + 1..HEADER_LEN + opened.len.max(1);
        let channel = (opened.len > 0).then(|| datagram[HEADER_LEN]);
        let is_app = channel.is_some_and(channel::is_callers);

        self.last_heard = Some(now);
        // Only a frame on the session that we seal with is an answer: the peer may have lost that
        // session.
        let on_current = self.sessions.is_current(u32_at(datagram, 1));
        if on_current {
            self.sessions.on_answered();
        }
        if !self.sessions.is_open() {
            // The last words of a peer that has closed: they tell nothing of a path, and nothing answers them.
            return channel.filter(|_| is_app).map(|channel| Received::Data {
                peer: self.key,
                channel,
                body,
            });
        }
        let freshness = opened.freshness;
        self.paths.on_authentic(now, source.route, freshness, datagram.len(), is_app);
        match channel {
            None => {
                // A confirm: the initiator repeats it until it receives a frame.
                let answer = on_current && self.sessions.answered_current();
                if answer && source.relay_src.is_none_or(|src| src == self.key) {
                    self.send_empty(cx, source.route);
                }
                None
            }
            Some(channel::CONTROL) => {
                let read = Control::decode_grown(&datagram[body]);
                cx.stats.grown_control += u64::from(matches!(&read, Ok((_, rest)) if !rest.is_empty()));
                match read.map(|(control, _)| control) {
                    // A late close on an earlier session is obsolete.
                    Ok(Control::Close) if !on_current => {}
                    Ok(Control::Close) => {
                        self.initiator.retry_at = self.keep.then(|| now + RETRY_AFTER);
                        self.close(cx, CloseReason::Remote);
                    }
                    Ok(control) => self.paths.on_control(now, source.route, freshness, control),
                    Err(_) => cx.stats.bad_control += 1,
                }
                None
            }
            Some(channel) if is_app => {
                self.last_app = Some(now);
                Some(Received::Data { peer: self.key, channel, body })
            }
            Some(_) => {
                cx.stats.unknown_channel += 1;
                None
            }
        }
    }

    /// Finds the session and opens the frame with it; the frame confirms a session that was unconfirmed.
    fn open(
        &mut self,
        cx: &mut PeerContext<'_>,
        source: Source,
        datagram: &mut [u8],
    ) -> Option<Result<Opened, OpenError>> {
        let (index, leg) = (u32_at(datagram, 1), source.leg());
        let frame = self.sessions.open(cx.now, leg, index, datagram, self.local_is_smaller(cx))?;
        cx.stats.tie_breaks += u64::from(frame.settled_tie);
        cx.release(frame.released);
        if let Some(live) = frame.confirmed {
            self.adopt(cx, live);
        }
        Some(frame.opened)
    }

    /// Whether our key is smaller than the peer's, which decides ties.
    fn local_is_smaller(&self, cx: &PeerContext<'_>) -> bool {
        *cx.identity.local() < self.key
    }
}

/// Those of the peer's routes that `len` bytes may go by now; they count as sent there.
fn take_routes(paths: &mut Paths, cx: &mut PeerContext<'_>, len: usize) -> Routes {
    paths.routes().filter(|route| take(paths, cx, route, len))
}

/// Whether `len` bytes may go by this route now, with regard to the peer and to all peers; then they count as sent.
fn take(paths: &mut Paths, cx: &mut PeerContext<'_>, route: &Route, len: usize) -> bool {
    let limited = paths.is_limited(route);
    paths.take(route, len) && (!limited || cx.take_unproven(len))
}
