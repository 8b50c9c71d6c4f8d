//! The gate: the checks on an inbound init, each cheaper than the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_core::Rng as _;

use super::super::frames::{
    INIT_LEN, INIT_PAYLOAD_LEN, InitPayload, MAC_LEN, RESPONSE, RESPONSE_LEN, ResponsePayload, u32_at,
};
use super::super::generation::Keys;
use super::super::mac::{self, Mac, Sealed, challenge_key};
use super::super::peer::{ANSWER_LIFE, Answer, Live, MAX_UNCONFIRMED};
use super::super::source::{Origin, Source};
use super::super::table::Slot;
use super::super::{Outgoing, frames};
use super::Endpoint;
use crate::net::secure::noise::{NoiseError, Responder};
use crate::net::secure::session::Session;

/// The minimum gap between two challenges to one key; the first one suffices for a clock that went
/// back.
const CHALLENGE_GAP: Duration = Duration::from_millis(200);

/// Offsets of an init's parts.
const MAC1_AT: usize = INIT_LEN - 2 * MAC_LEN;
const MAC2_AT: usize = INIT_LEN - MAC_LEN;
const NOISE_AT: usize = 5;

/// Logs the refusal of a handshake whose sender isn't known yet: it has another ticket, or sends too much.
fn refused(source: Source, reason: &str) {
    tracing::debug!(target: "nurl::session", ?source, reason, "a handshake is refused");
}

impl Endpoint {
    /// Handles an init frame of the right length.
    pub(super) fn handle_init(&mut self, now: Instant, source: Source, frame: &[u8]) {
        let Some(origin) = source.origin() else {
            self.stats.no_return_address += 1;
            return;
        };
        let (signed, mac1) = (&frame[..MAC1_AT], frames::array::<MAC_LEN>(&frame[MAC1_AT..MAC2_AT]));
        let keys = self.generations.iter().find(|keys| mac::equal(&mac::mac(&keys.own_mac1, signed), &mac1));
        let Some(keys) = keys.cloned() else {
            self.stats.bad_mac1 += 1;
            refused(source, "bad-mac1");
            return;
        };
        if self.answer_again(now, source, &frame[..MAC2_AT], &mac1)
            || !self.within_budget(now, source, &origin, &keys, frame, &mac1)
        {
            return;
        }
        if let Err(error) = self.answer(now, source, &keys, frame, mac1) {
            self.count_noise(error);
            refused(source, "forged");
        }
    }

    pub(super) fn count_noise(&mut self, error: NoiseError) {
        match error {
            NoiseError::ZeroOutput => self.stats.small_order += 1,
            NoiseError::Message | NoiseError::State => self.stats.handshake_forged += 1,
        }
    }

    /// Answers a copy of an answered init, by another leg: the same response, without a
    /// Diffie-Hellman.
    fn answer_again(&mut self, now: Instant, source: Source, init: &[u8], mac1: &Mac) -> bool {
        let Some(peer) = self.answers.get(mac1).and_then(|slot| self.table.get(*slot)) else { return false };
        let fresh =
            |answer: &&Answer| answer.init == init && now.saturating_duration_since(answer.at) < ANSWER_LIFE;
        let Some(answer) = peer.answered.iter().find(fresh) else { return false };
        let (key, response) = (peer.key, answer.response.clone());
        self.stats.answers_from_cache += 1;
        self.reply(source, Some(key), response);
        true
    }

    /// Whether the source is within budget; a source over budget without a valid cookie is sent one.
    fn within_budget(
        &mut self,
        now: Instant,
        source: Source,
        origin: &Origin,
        keys: &Keys,
        frame: &[u8],
        mac1: &Mac,
    ) -> bool {
        if self.open_lane.admit(now, origin) {
            return true;
        }
        self.jar.rotate(now, &mut self.rng);
        if self.jar.verify(origin, &frame[..MAC2_AT], &frame[MAC2_AT..]) {
            let admitted = self.cookie_lane.admit(now, origin);
            self.stats.cookie_holder_over_budget += u64::from(!admitted);
            if !admitted {
                refused(source, "over-budget");
            }
            return admitted;
        }
        self.stats.cookie_demanded += 1;
        let sealed = Sealed::Cookie(self.jar.cookie(origin));
        let cookie = mac::seal(u32_at(frame, 1), &keys.own_cookie, mac1, sealed, &mut self.rng);
        self.reply(source, None, cookie);
        false
    }

    fn reply(&mut self, source: Source, peer: Option<crate::key::PublicKey>, bytes: Vec<u8>) {
        self.transmit(Outgoing { peer, route: source.route, relay_dst: source.relay_src }, bytes);
    }

    /// Does the Diffie-Hellmans, checks the timestamp, and sends the response.
    fn answer(
        &mut self,
        now: Instant,
        source: Source,
        keys: &Arc<Keys>,
        frame: &[u8],
        mac1: Mac,
    ) -> Result<(), NoiseError> {
        let mut ephemeral = [0; 32];
        self.rng.fill_bytes(&mut ephemeral);
        let peeked = Responder::peek(&self.key, &self.prologue, ephemeral, &frame[NOISE_AT..MAC1_AT]);
        self.stats.dh += 1;
        let mut responder = peeked?;
        responder.take_dh_count();

        let initiator = *responder.initiator();
        if initiator == self.local || !self.allow.allows(&initiator) {
            self.stats.not_allowed += 1;
            tracing::debug!(target: "nurl::session", peer = %initiator.short(), reason = "not-allowed", "a peer is refused");
            return Ok(());
        }
        let known = self.table.slot_of(&initiator);
        let ss = known.and_then(|slot| self.table.get(slot)?.ss.clone());
        let mut payload = [0; INIT_PAYLOAD_LEN];
        let admitted = responder.admit(ss, &mut payload);
        self.stats.dh += responder.take_dh_count();
        if admitted? != INIT_PAYLOAD_LEN {
            return Err(NoiseError::Message);
        }
        let payload = InitPayload::decode(&payload);

        // `slot_or_insert` counts a full table.
        let Ok(slot) = self.slot_or_insert(now, &initiator) else { return Ok(()) };
        let Some(peer) = self.table.get_mut(slot) else { return Ok(()) };
        peer.ss = responder.shared_secret();
        let psk = peer.psk.clone().unwrap_or_else(|| keys.generation.psk.clone());
        if !self.is_timely(now, slot, source, &payload, frame, &mac1) {
            return Ok(());
        }

        let local_index = self.table.allocate_index(slot, &mut self.rng);
        let mut response = Vec::with_capacity(RESPONSE_LEN);
        response.push(RESPONSE);
        response.extend_from_slice(&local_index.to_le_bytes());
        response.extend_from_slice(&frame[1..5]);
        let ours = ResponsePayload { boot: self.boot, features: self.features }.encode();
        let transport = responder.respond(&psk, &ours, &mut response);
        self.stats.dh += responder.take_dh_count();
        let transport = match transport {
            Ok(transport) => transport,
            Err(error) => {
                self.table.release_index(local_index);
                return Err(error);
            }
        };
        let tag = mac::mac(&keys.generation.mac1_key(&initiator), &response);
        response.extend_from_slice(&tag);
        response.extend_from_slice(&[0; MAC_LEN]);
        self.stats.inits_answered += 1;

        let session = Session::new(&transport, local_index, u32_at(frame, 1), false, now);
        self.keep_unconfirmed(slot, Live { session, boot: payload.boot, features: payload.features });
        let answer = Answer { mac1, init: frame[..MAC2_AT].to_vec(), response: response.clone(), at: now };
        self.keep_answer(slot, answer);
        self.reply(source, Some(initiator), response);
        self.touch(slot);
        Ok(())
    }

    /// Whether a timestamp is newer than the last from that key, or comes with the challenge that the
    /// responder sent because the initiator's clock had gone back.
    fn is_timely(
        &mut self,
        now: Instant,
        slot: Slot,
        source: Source,
        payload: &InitPayload,
        frame: &[u8],
        mac1: &Mac,
    ) -> bool {
        let Some(peer) = self.table.get_mut(slot) else { return false };
        let Some(last) = peer.last_timestamp.filter(|last| payload.timestamp <= *last) else {
            peer.last_timestamp = Some(payload.timestamp);
            return true;
        };
        let challenge = self.challenger.challenge(&peer.key, &last);
        if mac::equal(&challenge, &payload.challenge) {
            peer.last_timestamp = Some(payload.timestamp);
            self.stats.clocks_let_back += 1;
            return true;
        }
        self.stats.stale_timestamp += 1;
        if peer.challenged_at.is_some_and(|at| now.saturating_duration_since(at) < CHALLENGE_GAP) {
            self.stats.challenge_limited += 1;
            return false;
        }
        let Some(ss) = &peer.ss else { return false };
        peer.challenged_at = Some(now);
        let (key, seal_key) = (peer.key, challenge_key(ss));
        let sealed = Sealed::Challenge(challenge);
        let bytes = mac::seal(u32_at(frame, 1), &seal_key, mac1, sealed, &mut self.rng);
        self.stats.challenges_sent += 1;
        self.reply(source, Some(key), bytes);
        false
    }

    fn keep_unconfirmed(&mut self, slot: Slot, live: Live) {
        let Some(peer) = self.table.get_mut(slot) else { return };
        let dropped = (peer.next.len() >= MAX_UNCONFIRMED).then(|| peer.next.remove(0));
        peer.next.push(live);
        if let Some(dropped) = dropped {
            self.table.release_index(dropped.session.local_index());
        }
    }

    fn keep_answer(&mut self, slot: Slot, answer: Answer) {
        let Some(peer) = self.table.get_mut(slot) else { return };
        let mac1 = answer.mac1;
        let dropped = (peer.answered.len() >= MAX_UNCONFIRMED).then(|| peer.answered.remove(0));
        peer.answered.push(answer);
        if let Some(dropped) = dropped {
            self.answers.remove(&dropped.mac1);
        }
        debug_assert!(self.answers.len() <= self.max_peers * MAX_UNCONFIRMED);
        self.answers.insert(mac1, slot);
    }
}
