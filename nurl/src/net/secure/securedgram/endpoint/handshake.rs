//! Handshakes that we begin: tries, responses, cookies, challenges, and the adoption of the finished session.

use std::time::{Duration, Instant};

use rand_core::Rng as _;

use super::super::attempt::{Attempt, MAX_RESPONSES, Pending};
use super::super::frames::{
    INIT, INIT_LEN, InitPayload, MAC_LEN, RESPONSE_LEN, RESPONSE_PAYLOAD_LEN, ResponsePayload, u32_at,
};
use super::super::mac::{self, Sealed, challenge_key};
use super::super::peer::{CONFIRM_WAIT, Confirm, Live};
use super::super::source::Source;
use super::super::table::Slot;
use super::super::{SessionEvent, attempt};
use super::{Endpoint, outgoing};
use crate::key::PublicKey;
use crate::net::secure::noise::Initiator;
use crate::net::secure::route::Route;
use crate::net::secure::session::Session;

/// How long we await the confirm of a session that we answered before we begin our own handshake.
const AWAIT_CONFIRM: Duration = Duration::from_millis(500);

/// The minimum gap between two tries on the same routes.
const MIN_TRY_GAP: Duration = Duration::from_millis(50);

/// After a failed attempt or a close, a peer that is to be kept connected is tried again after this time. It is
/// tried sooner when the peer or a route to it appears.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(30);

impl Endpoint {
    /// Begins an attempt, unless one is pending.
    pub(super) fn begin(&mut self, now: Instant, slot: Slot) {
        let Some(peer) = self.table.get_mut(slot) else { return };
        if peer.attempt.is_none() {
            peer.attempt = Some(Attempt::new(now));
            peer.retry_at = None;
            self.send_try(now, slot);
        }
    }

    /// Begins an attempt; if the peer has just begun one itself, waits for its confirm first.
    pub(super) fn begin_unless_answered(&mut self, now: Instant, slot: Slot) {
        let Some(peer) = self.table.get_mut(slot) else { return };
        let answered = peer.next.iter().map(|live| live.session.created()).max();
        let young = answered.filter(|at| now.saturating_duration_since(*at) < AWAIT_CONFIRM);
        match young {
            Some(at) if peer.attempt.is_none() => {
                let mut attempt = Attempt::new(now);
                attempt.next_at = at + AWAIT_CONFIRM;
                peer.attempt = Some(attempt);
                self.touch(slot);
            }
            _ => self.begin(now, slot),
        }
    }

    /// Handles a request for the session. The attempt keeps its schedule however often this is called. Otherwise, on
    /// a slow path, each response would find its try replaced by a later one, and the tries themselves would congest
    /// the path.
    pub(super) fn demand(&mut self, now: Instant, slot: Slot) {
        let attempt = self.table.get(slot).and_then(|peer| peer.attempt.as_ref());
        match attempt.map(|attempt| attempt.may_hurry(now)) {
            None => self.begin_unless_answered(now, slot),
            Some(true) => self.send_try(now, slot),
            Some(false) => {}
        }
    }

    /// Tries at once and restarts the schedule, because a route to the peer has just appeared.
    pub(super) fn nudge(&mut self, now: Instant, slot: Slot) {
        let Some(peer) = self.table.get_mut(slot) else { return };
        let routes = peer.paths.routes();
        match &mut peer.attempt {
            None => self.begin_unless_answered(now, slot),
            Some(attempt) => {
                attempt.restart(now);
                let just_tried =
                    attempt.last_at.is_some_and(|at| now.saturating_duration_since(at) < MIN_TRY_GAP);
                if just_tried && attempt.last_routes == routes {
                    attempt.schedule(now, &mut self.rng);
                    self.touch(slot);
                } else {
                    self.send_try(now, slot);
                }
            }
        }
    }

    /// Sends an init on every route in use, with a new ephemeral, and schedules the next try.
    pub(super) fn send_try(&mut self, now: Instant, slot: Slot) {
        self.touch(slot);
        let Some(peer) = self.table.get_mut(slot) else { return };
        let (key, routes) = (peer.key, peer.paths.routes());
        let Some(attempt) = &mut peer.attempt else { return };
        attempt.schedule(now, &mut self.rng);
        attempt.last_routes = routes;
        attempt.last_at = Some(now);
        // Without a route the computation would be wasted; a new route calls `nudge`.
        if routes.is_empty() || self.generations.is_empty() {
            return;
        }
        let keys = self.generations[attempt.generation(self.generations.len())].clone();
        let (challenge, ss) = (attempt.challenge, peer.ss.clone());
        let payload = InitPayload {
            timestamp: self.clock.next(now),
            boot: self.boot,
            features: self.features,
            challenge,
        };
        let mut ephemeral = [0; 32];
        self.rng.fill_bytes(&mut ephemeral);
        let index = self.table.allocate_index(slot, &mut self.rng);
        let mut frame = Vec::with_capacity(INIT_LEN);
        frame.push(INIT);
        frame.extend_from_slice(&index.to_le_bytes());
        let (prologue, payload) = (&self.prologue, payload.encode());
        let started = Initiator::start(&self.key, &key, ss, prologue, ephemeral, &payload, &mut frame);
        let mut noise = match started {
            Ok(noise) => noise,
            Err(error) => {
                self.table.release_index(index);
                self.count_noise(error);
                self.fail(now, slot);
                return;
            }
        };
        self.stats.dh += noise.take_dh_count();
        let mac1 = mac::mac(&keys.generation.mac1_key(&key), &frame);
        frame.extend_from_slice(&mac1);

        let Some(peer) = self.table.get_mut(slot) else { return };
        peer.ss = noise.shared_secret();
        let frames: Vec<(Route, Vec<u8>)> = routes
            .iter()
            .map(|route| {
                let mac2 = peer.cookie(now, &route).map_or([0; MAC_LEN], |cookie| mac::mac2(cookie, &frame));
                (route, [&frame[..], &mac2].concat())
            })
            .collect();
        let pending = Pending { index, noise, mac1, generation: keys, responses: 0, challenged: false };
        let dropped = peer.attempt.as_mut().and_then(|attempt| attempt.push(pending));
        if let Some(dropped) = dropped {
            self.table.release_index(dropped);
        }
        for (route, bytes) in frames {
            self.stats.inits_sent += 1;
            self.transmit(outgoing(key, route), bytes);
        }
    }

    /// Ends the attempt as failed.
    pub(super) fn fail(&mut self, now: Instant, slot: Slot) {
        self.end_attempt(slot);
        let Some(peer) = self.table.get_mut(slot) else { return };
        if peer.keep {
            peer.retry_at = Some(now + RETRY_AFTER);
        }
        let key = peer.key;
        self.stats.handshakes_failed += 1;
        self.event(SessionEvent::HandshakeFailed { peer: key });
        self.touch(slot);
    }

    /// Handles a response frame of the right length. An invalid response doesn't end the attempt.
    pub(super) fn handle_response(&mut self, now: Instant, source: Source, frame: &[u8]) {
        const MAC1_AT: usize = RESPONSE_LEN - 2 * MAC_LEN;
        let (theirs, ours) = (u32_at(frame, 1), u32_at(frame, 5));
        let Some((slot, key, pending)) = self.pending(ours) else {
            self.stats.responses_unexpected += 1;
            return;
        };
        let expected = mac::mac(&pending.generation.own_mac1, &frame[..MAC1_AT]);
        if !mac::equal(&expected, &frame[MAC1_AT..][..MAC_LEN]) {
            self.stats.bad_mac1 += 1;
            return;
        }
        pending.responses += 1;
        if pending.responses > MAX_RESPONSES {
            self.stats.responses_limited += 1;
            return;
        }
        let mut psk = pending.generation.generation.psk.clone();
        if let Some(own) = self.table.get(slot).and_then(|peer| peer.psk.clone()) {
            psk = own;
        }
        let Some((_, _, pending)) = self.pending(ours) else { return };
        let mut payload = [0; RESPONSE_PAYLOAD_LEN];
        let read = pending.noise.read_response(&psk, &frame[9..MAC1_AT], &mut payload);
        let (dh, ss) = (pending.noise.take_dh_count(), pending.noise.shared_secret());
        self.stats.dh += dh;
        let keys = match read {
            Ok((RESPONSE_PAYLOAD_LEN, keys)) => keys,
            Ok(_) => {
                self.stats.handshake_forged += 1;
                return;
            }
            Err(error) => {
                self.count_noise(error);
                return;
            }
        };
        if let Some(peer) = self.table.get_mut(slot) {
            // This try's index becomes the session's; those of the other tries are released.
            if let Some(attempt) = &mut peer.attempt {
                attempt.pending.retain(|pending| pending.index != ours);
            }
            peer.ss = ss;
        }
        self.end_attempt(slot);
        let ResponsePayload { boot, features } = ResponsePayload::decode(&payload);
        let session = Session::new(&keys, ours, theirs, true, now);
        let is_current = self.adopt(now, slot, Live { session, boot, features });
        if is_current && let Some(peer) = self.table.get_mut(slot) {
            let extra = if source.relay_src.is_none_or(|src| src == key) { Some(source.route) } else { None };
            let until = now + attempt::ATTEMPT_LIFE;
            peer.confirm = Some(Confirm { at: now, wait: CONFIRM_WAIT, extra, until });
            self.send_confirm(now, slot);
        }
    }

    /// Handles a cookie frame of the right length: a cookie, or a challenge.
    pub(super) fn handle_cookie(&mut self, now: Instant, source: Source, frame: &[u8]) {
        let Some((slot, key, pending)) = self.pending(u32_at(frame, 1)) else {
            self.stats.cookies_refused += 1;
            return;
        };
        let (mac1, cookie_key) = (pending.mac1, pending.generation.generation.cookie_key(&key));
        let first = !std::mem::replace(&mut pending.challenged, true);
        let Some(peer) = self.table.get_mut(slot) else { return };
        let seal_key = peer.ss.as_ref().map(challenge_key);
        match mac::open(frame, &mac1, &cookie_key, seal_key.as_deref()) {
            Some(Sealed::Cookie(cookie)) => {
                peer.keep_cookie(now, source.route, cookie);
                self.stats.cookies_taken += 1;
                self.unmark_challenged(frame, !first);
            }
            Some(Sealed::Challenge(challenge)) if first => {
                if let Some(attempt) = &mut peer.attempt {
                    attempt.challenge = challenge;
                }
                self.stats.challenges_taken += 1;
                self.send_try(now, slot);
            }
            Some(Sealed::Challenge(_)) => self.stats.cookies_refused += 1,
            None => {
                self.stats.cookies_refused += 1;
                self.unmark_challenged(frame, !first);
            }
        }
    }

    fn unmark_challenged(&mut self, frame: &[u8], to: bool) {
        if let Some((_, _, pending)) = self.pending(u32_at(frame, 1)) {
            pending.challenged = to;
        }
    }

    fn pending(&mut self, index: u32) -> Option<(Slot, PublicKey, &mut Pending)> {
        let slot = self.table.slot_of_index(index)?;
        let peer = self.table.get_mut(slot)?;
        let pending = peer.attempt.as_mut()?.pending.iter_mut().find(|pending| pending.index == index)?;
        Some((slot, peer.key, pending))
    }

    /// Adopts a session whose keys the peer is known to hold. Says whether it is the current one.
    pub(super) fn adopt(&mut self, now: Instant, slot: Slot, live: Live) -> bool {
        let (boot, initiator) = (live.boot, live.session.is_initiator());
        let Some(peer) = self.table.get_mut(slot) else { return false };
        let key = peer.key;
        let adopted = peer.adopt(&self.local, live);
        if adopted.is_current {
            peer.confirm = None;
        }
        if adopted.restarted {
            // Paths that were proven with the old process aren't proven for the new one.
            peer.paths.on_closed(now);
        }
        if adopted.is_current {
            // Also after a rekeying: the peer may have forgotten us and our candidates meanwhile.
            peer.paths.on_established(now);
        }
        adopted.released.into_iter().for_each(|index| self.table.release_index(index));
        self.stats.tie_breaks += u64::from(adopted.tie);
        if adopted.is_current {
            // There is a session now, whichever side began it.
            self.end_attempt(slot);
        }
        if adopted.restarted {
            self.event(SessionEvent::PeerRestarted { peer: key, boot });
        }
        if adopted.is_first {
            self.stats.established += 1;
            self.event(SessionEvent::Established { peer: key, boot, initiator });
        } else if adopted.is_current {
            self.stats.rekeyed += 1;
        }
        self.touch(slot);
        adopted.is_current
    }

    /// Sends an empty frame on every live leg, and schedules the next confirm.
    pub(super) fn send_confirm(&mut self, now: Instant, slot: Slot) {
        self.touch(slot);
        let Some(peer) = self.table.get_mut(slot) else { return };
        let Some(confirm) = &mut peer.confirm else { return };
        if now >= confirm.until {
            // The responder never sent on this session, so a new handshake is due.
            peer.confirm = None;
            if peer.keep {
                self.begin(now, slot);
            }
            return;
        }
        confirm.at = now + confirm.wait;
        confirm.wait = (confirm.wait * 2).min(super::super::peer::MAX_CONFIRM_WAIT);
        let mut ways: Vec<Route> = peer.paths.routes().iter().collect();
        ways.extend(confirm.extra.filter(|extra| !ways.contains(extra)));
        for route in ways {
            self.stats.confirms_sent += 1;
            self.send_empty(now, slot, route);
        }
    }

    /// Seals an empty frame for one route.
    pub(super) fn send_empty(&mut self, now: Instant, slot: Slot, route: Route) {
        let Some(peer) = self.table.get_mut(slot) else { return };
        let Some(live) = &mut peer.current else { return };
        let mut bytes = Vec::with_capacity(crate::net::secure::session::OVERHEAD);
        if live.session.seal(now, &[], &[], &mut bytes).is_ok() {
            self.stats.frames_sealed += 1;
            peer.paths.on_sent(now, bytes.len(), false);
            let to = outgoing(peer.key, route);
            self.transmit(to, bytes);
        }
    }
}
