//! The handshakes with a peer: tries, responses, cookies and challenges as their initiator, the response as their
//! responder, and the adoption of the finished session.

use std::sync::Arc;
use std::time::Duration;

use rand_core::Rng as _;
use zeroize::Zeroizing;

use super::super::attempt::{ATTEMPT_LIFE, HandshakeAttempt, MAX_RESPONSES, PendingTry};
use super::super::frames::{
    INIT, INIT_LEN, InitPayload, MAC_LEN, RESPONSE, RESPONSE_LEN, RESPONSE_PAYLOAD_LEN, ResponsePayload,
    u32_at,
};
use super::super::generation::GenerationKeys;
use super::super::mac::{self, Challenger, Mac, Sealed, challenge_key};
use super::super::source::Source;
use super::super::{EndpointStats, Outgoing, SessionEvent};
use super::responder::Timeliness;
use super::sessions::PendingConfirm;
use super::{CONFIRM_WAIT, LiveSession, MAX_CONFIRM_WAIT, Peer, PeerContext, RETRY_AFTER, take_routes};
use crate::authority::checker::{NotAdmitted, Standing};
use crate::key::PublicKey;
use crate::net::secure::noise::{Initiator, NoiseError, Responder, TransportKeys};
use crate::net::secure::route::Route;
use crate::net::secure::session::Session;
use crate::net::secure::version::{Version, Versions};

/// How long we await the confirm of a session that we answered before we begin our own handshake.
const AWAIT_CONFIRM: Duration = Duration::from_millis(500);

/// A peer that speaks none of our versions isn't tried again for so long: it has to be restarted first, and then it begins
/// by itself.
const INCOMPATIBLE_AGAIN: Duration = Duration::from_secs(10);

/// The minimum gap between two tries on the same routes.
const MIN_TRY_GAP: Duration = Duration::from_millis(50);

impl Peer {
    /// Begins an attempt, unless one is pending.
    pub(in super::super) fn begin(&mut self, cx: &mut PeerContext<'_>) {
        if self.initiator.attempt.is_none() {
            let mut attempt = HandshakeAttempt::new(cx.now);
            self.initiator.retry_at = None;
            if let Some(until) = self.initiator.held_until(cx.now) {
                attempt.next_at = until;
                self.initiator.attempt = Some(attempt);
                return cx.touch();
            }
            self.initiator.attempt = Some(attempt);
            self.send_try(cx);
        }
    }

    /// Begins an attempt; if the peer has just begun one itself, waits for its confirm first.
    pub(super) fn begin_unless_answered(&mut self, cx: &mut PeerContext<'_>) {
        let answered = self.sessions.answered_at();
        let young = answered.filter(|at| cx.now.saturating_duration_since(*at) < AWAIT_CONFIRM);
        match young {
            Some(at) if self.initiator.attempt.is_none() => {
                let mut attempt = HandshakeAttempt::new(cx.now);
                attempt.next_at = at + AWAIT_CONFIRM;
                self.initiator.attempt = Some(attempt);
                cx.touch();
            }
            _ => self.begin(cx),
        }
    }

    /// Handles a request for the session. The attempt keeps its schedule however often this is called. Otherwise, on
    /// a slow path, each response would find its try replaced by a later one, and the tries themselves would congest
    /// the path.
    pub(in super::super) fn demand(&mut self, cx: &mut PeerContext<'_>) {
        let attempt = self.initiator.attempt.as_ref();
        match attempt.map(|attempt| attempt.may_hurry(cx.now)) {
            None => self.begin_unless_answered(cx),
            Some(true) => self.send_try(cx),
            Some(false) => {}
        }
    }

    /// Tries at once and restarts the schedule, because a route to the peer has just appeared.
    pub(in super::super) fn nudge(&mut self, cx: &mut PeerContext<'_>) {
        let (now, routes) = (cx.now, self.paths.routes());
        let held = self.initiator.held_until(now).is_some();
        match &mut self.initiator.attempt {
            None => self.begin_unless_answered(cx),
            // A route makes no difference.
            Some(_) if held => cx.touch(),
            Some(attempt) => {
                attempt.restart(now);
                let just_tried =
                    attempt.last_at.is_some_and(|at| now.saturating_duration_since(at) < MIN_TRY_GAP);
                if just_tried && attempt.last_routes == routes {
                    attempt.schedule(now, cx.rng);
                    cx.touch();
                } else {
                    self.send_try(cx);
                }
            }
        }
    }

    /// Sends an init on every route in use, with a new ephemeral, and schedules the next try.
    pub(super) fn send_try(&mut self, cx: &mut PeerContext<'_>) {
        cx.touch();
        let (now, key, known) = (cx.now, self.key, self.paths.routes());
        let routes = take_routes(&mut self.paths, cx, INIT_LEN);
        let Some(attempt) = &mut self.initiator.attempt else { return };
        attempt.schedule(now, cx.rng);
        attempt.last_routes = known;
        attempt.last_at = Some(now);
        let generations = cx.identity.generations();
        // Without a route the computation would be wasted; a new route calls `nudge`.
        if routes.is_empty() || generations.is_empty() {
            return;
        }
        let keys = generations[attempt.generation(generations.len())].clone();
        let Some(payload) = cx.identity.init_payload(now, attempt.challenge) else { return };
        let payload = payload.encode();
        let mut ephemeral = [0; 32];
        cx.rng.fill_bytes(&mut ephemeral);
        let index = cx.allocate_index();
        let mut frame = Vec::with_capacity(INIT_LEN);
        frame.push(INIT);
        frame.extend_from_slice(&index.to_le_bytes());
        let identity = &cx.identity;
        let started = Initiator::start(
            &identity.key,
            &key,
            self.ss.clone(),
            &identity.prologue,
            ephemeral,
            &payload,
            &mut frame,
        );
        let mut noise = match started {
            Ok(noise) => noise,
            Err(error) => {
                cx.release([index]);
                cx.stats.count_noise(error);
                self.fail(cx);
                return;
            }
        };
        cx.stats.dh += noise.take_dh_count();
        let mac1 = mac::mac(&keys.generation.mac1_key(&key), &frame);
        frame.extend_from_slice(&mac1);

        self.ss = noise.shared_secret();
        let frames: Vec<(Route, Vec<u8>)> = routes
            .iter()
            .map(|route| {
                let cookie = self.initiator.cookie(now, &route);
                let mac2 = cookie.map_or([0; MAC_LEN], |cookie| mac::mac2(cookie, &frame));
                (route, [&frame[..], &mac2].concat())
            })
            .collect();
        let pending = PendingTry { index, noise, mac1, generation: keys, responses: 0, challenged: false };
        cx.release(self.initiator.attempt.as_mut().and_then(|attempt| attempt.push(pending)));
        for (route, bytes) in frames {
            cx.stats.inits_sent += 1;
            cx.transmit(Outgoing::to(key, route), bytes);
        }
    }

    /// Ends the attempt as failed.
    pub(super) fn fail(&mut self, cx: &mut PeerContext<'_>) {
        self.end_attempt(cx);
        if self.keep {
            self.initiator.retry_at = Some(cx.now + RETRY_AFTER);
        }
        cx.stats.handshakes_failed += 1;
        cx.event(SessionEvent::HandshakeFailed { peer: self.key });
        cx.touch();
    }

    /// Ends the attempt, if there is one.
    pub(super) fn end_attempt(&mut self, cx: &mut PeerContext<'_>) {
        if let Some(attempt) = self.initiator.attempt.take() {
            cx.release(attempt.pending.iter().map(|pending| pending.index));
        }
    }

    /// Handles a response frame of the right length to the try with index `ours`. An invalid response doesn't end the
    /// attempt.
    pub(in super::super) fn handle_response(
        &mut self,
        cx: &mut PeerContext<'_>,
        source: Source,
        frame: &[u8],
    ) {
        const MAC1_AT: usize = RESPONSE_LEN - 2 * MAC_LEN;
        let (theirs, ours) = (u32_at(frame, 1), u32_at(frame, 5));
        let Some(pending) = self.initiator.pending(ours) else {
            cx.stats.responses_unexpected += 1;
            return;
        };
        let expected = mac::mac(&pending.generation.own_mac1, &frame[..MAC1_AT]);
        if !mac::equal(&expected, &frame[MAC1_AT..][..MAC_LEN]) {
            cx.stats.bad_mac1 += 1;
            return;
        }
        pending.responses += 1;
        if pending.responses > MAX_RESPONSES {
            cx.stats.responses_limited += 1;
            return;
        }
        let psk = psk(&self.psk, &pending.generation);
        let mut payload = [0; RESPONSE_PAYLOAD_LEN];
        let read = pending.noise.read_response(&psk, &frame[9..MAC1_AT], &mut payload);
        let (dh, ss) = (pending.noise.take_dh_count(), pending.noise.shared_secret());
        cx.stats.dh += dh;
        let keys = match read {
            Ok((RESPONSE_PAYLOAD_LEN, keys)) => keys,
            Ok(_) => {
                cx.stats.handshake_forged += 1;
                return;
            }
            Err(error) => {
                cx.stats.count_noise(error);
                return;
            }
        };
        let ResponsePayload { boot, versions, features, shown } = ResponsePayload::decode(&payload);
        let Some(spoken) = Versions::from_bytes(versions) else {
            cx.stats.handshake_forged += 1;
            return;
        };
        let standing = match cx.identity.checker.check(cx.now, &self.key, &shown) {
            Ok(standing) => standing,
            Err(reason) => {
                cx.stats.not_admitted += 1;
                tracing::debug!(target: "nurl::session", peer = %self.key.short(), reason = reason.as_str(), "a peer's response is refused");
                // It answers a fresh ephemeral of ours, so it is no replay of a pass that the peer showed before.
                if reason == NotAdmitted::Revoked && !self.sessions.is_open() {
                    cx.event(SessionEvent::Revoked { peer: self.key });
                }
                return;
            }
        };
        let Some(version) = cx.identity.versions.common(spoken) else {
            self.ss = ss;
            cx.incompatible(self.key, spoken);
            self.initiator.hold_until(cx.now + INCOMPATIBLE_AGAIN);
            return self.fail(cx);
        };
        // This try's index becomes the session's; those of the other tries are released.
        self.initiator.complete(ours);
        self.ss = ss;
        self.end_attempt(cx);
        let session = Session::new(&keys, ours, theirs, true, cx.now);
        if self.adopt(cx, LiveSession { session, boot, version, features, standing }) {
            let extra = source.relay_src.is_none_or(|src| src == self.key).then_some(source.route);
            let until = cx.now + ATTEMPT_LIFE;
            self.sessions.confirm = Some(PendingConfirm { at: cx.now, wait: CONFIRM_WAIT, extra, until });
            self.send_confirm(cx);
        }
    }

    /// Handles a cookie frame of the right length: a cookie, or a challenge.
    pub(in super::super) fn handle_cookie(&mut self, cx: &mut PeerContext<'_>, source: Source, frame: &[u8]) {
        let index = u32_at(frame, 1);
        let Some(pending) = self.initiator.pending(index) else {
            cx.stats.cookies_refused += 1;
            return;
        };
        let (mac1, cookie_key) = (pending.mac1, pending.generation.generation.cookie_key(&self.key));
        let seal_key = self.ss.as_ref().map(challenge_key);
        match mac::open(frame, &mac1, &cookie_key, seal_key.as_deref()) {
            Some(Sealed::Cookie(cookie)) => {
                self.initiator.keep_cookie(cx.now, source.route, cookie);
                cx.stats.cookies_taken += 1;
            }
            // Each try takes one challenge.
            Some(Sealed::Challenge(challenge)) if !pending.challenged => {
                pending.challenged = true;
                if let Some(attempt) = &mut self.initiator.attempt {
                    attempt.challenge = challenge;
                }
                cx.stats.challenges_taken += 1;
                self.send_try(cx);
            }
            Some(Sealed::Challenge(_)) | None => cx.stats.cookies_refused += 1,
        }
    }

    /// Answers an admitted init. Returns the response, or `None` if the init's timestamp is old; then the initiator may
    /// have been challenged.
    pub(in super::super) fn respond(
        &mut self,
        cx: &mut PeerContext<'_>,
        init: &AdmittedInit<'_>,
        responder: Responder,
        challenger: &Challenger,
    ) -> Result<Option<Vec<u8>>, NoiseError> {
        self.ss = responder.shared_secret();
        let psk = psk(&self.psk, init.keys);
        if !self.is_timely(cx, init, challenger) {
            return Ok(None);
        }
        let Some(ours) = cx.identity.response_payload() else { return Ok(None) };
        let local_index = cx.allocate_index();
        let indices = (local_index, init.sender);
        let answered = answer(responder, &psk, &ours, indices, (init.keys, &self.key), cx.stats);
        let (response, transport) = match answered {
            Ok(answered) => answered,
            Err(error) => {
                cx.release([local_index]);
                return Err(error);
            }
        };

        let session = Session::new(&transport, local_index, init.sender, false, cx.now);
        let InitPayload { boot, features, .. } = init.payload;
        let (version, standing) = (init.version, init.standing.clone());
        let live = LiveSession { session, boot, version, features, standing };
        cx.release(self.sessions.keep_unconfirmed(live));
        Ok(Some(response))
    }

    /// Whether a timestamp is newer than the last from that key, or comes with the challenge that the
    /// responder sent because the initiator's clock had gone back.
    fn is_timely(
        &mut self,
        cx: &mut PeerContext<'_>,
        init: &AdmittedInit<'_>,
        challenger: &Challenger,
    ) -> bool {
        let key = self.key;
        let challenge = |last: &[u8; 12]| challenger.challenge(&key, last);
        let challenge = match self.responder.judge(cx.now, &init.payload, init.vouched, challenge) {
            Timeliness::Newer => return true,
            Timeliness::LetBack => {
                cx.stats.clocks_let_back += 1;
                return true;
            }
            Timeliness::Unvouched => {
                cx.stats.stale_timestamp += 1;
                cx.stats.stale_unvouched += 1;
                return false;
            }
            Timeliness::Limited => {
                cx.stats.stale_timestamp += 1;
                cx.stats.challenge_limited += 1;
                return false;
            }
            Timeliness::Stale(challenge) => challenge,
        };
        cx.stats.stale_timestamp += 1;
        let Some(ss) = &self.ss else { return false };
        self.responder.on_challenged(cx.now);
        let seal_key = challenge_key(ss);
        let bytes = mac::seal(init.sender, &seal_key, &init.mac1, Sealed::Challenge(challenge), cx.rng);
        cx.stats.challenges_sent += 1;
        cx.transmit(Outgoing::back(init.source, Some(key)), bytes);
        false
    }

    /// Adopts a session whose keys the peer is known to hold. Says whether it is the current one.
    pub(super) fn adopt(&mut self, cx: &mut PeerContext<'_>, live: LiveSession) -> bool {
        let (boot, initiator) = (live.boot, live.session.is_initiator());
        let (now, key) = (cx.now, self.key);
        let adopted = self.sessions.adopt(self.local_is_smaller(cx), live);
        if adopted.is_current {
            self.sessions.confirm = None;
            self.initiator.retry_at = None;
        }
        if adopted.restarted {
            // Paths that were proven with the old process aren't proven for the new one.
            self.paths.on_closed(now);
        }
        if adopted.is_current {
            // Also after a rekeying: the peer may have forgotten us and our candidates meanwhile.
            self.paths.on_established(now);
        }
        cx.release(adopted.released);
        cx.stats.tie_breaks += u64::from(adopted.tie);
        if adopted.is_current {
            // There is a session now, whichever side began it.
            self.end_attempt(cx);
        }
        if adopted.restarted {
            cx.event(SessionEvent::PeerRestarted { peer: key, boot });
        }
        if adopted.is_first {
            cx.identity.incompatible.forget(&key);
            self.initiator.hold_until(now);
            cx.stats.established += 1;
            cx.event(SessionEvent::Established { peer: key, boot, initiator });
        } else if adopted.is_current {
            tracing::debug!(target: "nurl::session", peer = %key.short(), initiator, "a session has new keys");
            cx.stats.rekeyed += 1;
        }
        cx.touch();
        adopted.is_current
    }

    /// Sends an empty frame on every live leg, and schedules the next confirm.
    pub(super) fn send_confirm(&mut self, cx: &mut PeerContext<'_>) {
        cx.touch();
        let Some(confirm) = &mut self.sessions.confirm else { return };
        if cx.now >= confirm.until {
            // The responder never sent on this session, so a new handshake is due.
            self.sessions.confirm = None;
            if self.keep {
                self.begin(cx);
            }
            return;
        }
        confirm.at = cx.now + confirm.wait;
        confirm.wait = (confirm.wait * 2).min(MAX_CONFIRM_WAIT);
        let mut routes: Vec<Route> = self.paths.routes().iter().collect();
        routes.extend(confirm.extra.filter(|extra| !routes.contains(extra)));
        for route in routes {
            cx.stats.confirms_sent += 1;
            self.send_empty(cx, route);
        }
    }
}

/// An init that has passed the gate.
pub(in super::super) struct AdmittedInit<'a> {
    pub(in super::super) source: Source,
    /// The initiator's index.
    pub(in super::super) sender: u32,
    pub(in super::super) mac1: Mac,
    /// The generation of the mesh's secret under which mac1 was made.
    pub(in super::super) keys: &'a Arc<GenerationKeys>,
    pub(in super::super) payload: InitPayload,
    /// What both speak.
    pub(in super::super) version: Version,
    /// What the initiator may do.
    pub(in super::super) standing: Standing,
    /// Whether its source has a voucher, so that an old timestamp may be answered.
    pub(in super::super) vouched: bool,
}

/// The response frame to an init of `to`, and the keys of its session. `indices` are ours and the initiator's.
pub(in super::super) fn answer(
    mut responder: Responder,
    psk: &[u8; 32],
    payload: &ResponsePayload,
    indices: (u32, u32),
    (keys, to): (&GenerationKeys, &PublicKey),
    stats: &mut EndpointStats,
) -> Result<(Vec<u8>, TransportKeys), NoiseError> {
    let mut response = Vec::with_capacity(RESPONSE_LEN);
    response.push(RESPONSE);
    response.extend_from_slice(&indices.0.to_le_bytes());
    response.extend_from_slice(&indices.1.to_le_bytes());
    let transport = responder.respond(psk, &payload.encode(), &mut response);
    stats.dh += responder.take_dh_count();
    let transport = transport?;
    let tag = mac::mac(&keys.generation.mac1_key(to), &response);
    response.extend_from_slice(&tag);
    response.extend_from_slice(&[0; MAC_LEN]);
    stats.inits_answered += 1;
    Ok((response, transport))
}

/// The pre-shared key of a handshake: the peer's own, or the mesh's.
pub(in super::super) fn psk(own: &Option<Zeroizing<[u8; 32]>>, keys: &GenerationKeys) -> Zeroizing<[u8; 32]> {
    own.clone().unwrap_or_else(|| keys.generation.psk.clone())
}
