//! The gate: the checks on an inbound init, each cheaper than the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_core::Rng as _;

use super::super::budget::{AnswerRates, Answers, Lane};
use super::super::frames::{INIT_LEN, INIT_PAYLOAD_LEN, InitPayload, MAC_LEN, u32_at};
use super::super::generation::GenerationKeys;
use super::super::mac::{self, Challenger, CookieJar, Mac, Sealed};
use super::super::peer::{AdmittedInit, CachedAnswer, Timeliness, answer, psk};
use super::super::remembered::InitMemory;
use super::super::source::{Origin, Source};
use super::super::{EndpointConfig, EndpointStats, Outgoing, SessionEvent, frames};
use super::Endpoint;
use crate::key::PublicKey;
use crate::net::secure::noise::{NoiseError, Responder};
use crate::net::secure::route::Route;
use crate::net::secure::version::Versions;
use crate::rt::{Point, Rng, buggify};

/// Offsets of an init's parts.
const MAC1_AT: usize = INIT_LEN - 2 * MAC_LEN;
const MAC2_AT: usize = INIT_LEN - MAC_LEN;
const NOISE_AT: usize = 5;

/// The gate's secrets, budgets and memory.
pub(super) struct Gate {
    pub(super) memory: InitMemory,
    jar: CookieJar,
    pub(super) challenger: Challenger,
    /// The budget of inits without a cookie.
    open_lane: Lane,
    /// The budget of inits with a cookie.
    cookie_lane: Lane,
    /// The budget of the cookies that are handed out.
    cookies: Answers,
}

/// An init whose mac1 is right.
struct KnownInit<'a> {
    source: Source,
    origin: Origin,
    frame: &'a [u8],
    mac1: Mac,
    /// The generation of the mesh's secret under which mac1 was made.
    keys: Arc<GenerationKeys>,
    /// Whether its mac2 is under a cookie of ours for its source.
    has_cookie: bool,
}

impl KnownInit<'_> {
    /// The initiator's index.
    fn sender(&self) -> u32 {
        u32_at(self.frame, 1)
    }

    /// Everything but mac2, which differs from leg to leg.
    fn without_mac2(&self) -> &[u8] {
        &self.frame[..MAC2_AT]
    }

    fn mac2(&self) -> &[u8] {
        &self.frame[MAC2_AT..]
    }

    fn noise_message(&self) -> &[u8] {
        &self.frame[NOISE_AT..MAC1_AT]
    }
}

/// Whether a source may ask for a handshake.
enum Admission {
    Admitted,
    Refused,
    /// Only with a cookie; this frame brings one.
    CookieDemanded(Vec<u8>),
}

impl Gate {
    /// Draws the secrets. `unix_now` is the wall clock's time at `now`.
    pub(super) fn new(config: &EndpointConfig, now: Instant, unix_now: Duration, rng: &mut Rng) -> Gate {
        Gate {
            memory: InitMemory::new(now, unix_now),
            jar: CookieJar::new(now, rng),
            challenger: Challenger::new(rng),
            open_lane: Lane::new(config.open_rates, now),
            cookie_lane: Lane::new(config.cookie_rates, now),
            cookies: Answers::new(AnswerRates::COOKIES, now),
        }
    }

    /// Whether the init's mac2 is under a cookie of its source.
    fn has_cookie(&mut self, now: Instant, init: &KnownInit<'_>, rng: &mut Rng) -> bool {
        if *init.mac2() == [0; MAC_LEN] {
            return false;
        }
        self.jar.rotate(now, rng);
        self.jar.verify(&init.origin, init.without_mac2(), init.mac2())
    }

    /// Whether the source is within its budget, that without a cookie or that with one.
    fn is_within_budget(&mut self, now: Instant, init: &KnownInit<'_>) -> bool {
        self.open_lane.admit(now, &init.origin)
            || (init.has_cookie && self.cookie_lane.admit(now, &init.origin))
    }

    /// Whether the source may ask for a handshake. One over its budget without a cookie is to be sent one.
    fn admit(
        &mut self,
        now: Instant,
        init: &KnownInit<'_>,
        rng: &mut Rng,
        stats: &mut EndpointStats,
    ) -> Admission {
        let is_under_load = !init.has_cookie && buggify(Point::CookieDemanded);
        if !is_under_load && self.is_within_budget(now, init) {
            return Admission::Admitted;
        }
        if init.has_cookie {
            stats.cookie_holder_over_budget += 1;
            return Admission::Refused;
        }
        stats.cookie_demanded += 1;
        if !self.cookies.admit(now, &init.origin) {
            stats.cookies_limited += 1;
            return Admission::Refused;
        }
        self.jar.rotate(now, rng);
        let sealed = Sealed::Cookie(self.jar.cookie(&init.origin));
        Admission::CookieDemanded(mac::seal(init.sender(), &init.keys.own_cookie, &init.mac1, sealed, rng))
    }
}

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
        let Some(keys) = self.identity.generation_of(signed, &mac1) else {
            self.stats.bad_mac1 += 1;
            refused(source, "bad-mac1");
            return;
        };
        let mut init = KnownInit { source, origin, frame, mac1, keys, has_cookie: false };
        init.has_cookie = self.gate.has_cookie(now, &init, &mut self.rng);
        if self.answer_again(now, &init) {
            return;
        }
        // What came before and has no answer now is a replay, unless a hub or a cookie speaks for its source. It costs
        // its source no budget, or a few replays would draw a cookie.
        if source.route.is_direct() && !init.has_cookie && self.gate.memory.knows(&init.mac1) {
            self.stats.repeated += 1;
            return refused(source, "repeated");
        }
        match self.gate.admit(now, &init, &mut self.rng, &mut self.stats) {
            Admission::Admitted => {}
            Admission::Refused => return refused(source, "over-budget"),
            Admission::CookieDemanded(cookie) => return self.reply(source, None, cookie),
        }
        if let Err(error) = self.answer(now, &init) {
            self.stats.count_noise(error);
            refused(source, "forged");
        }
    }

    /// Answers a copy of an answered init, by another leg: the same response, without a
    /// Diffie-Hellman, and within the budget of its source. Returns whether it is such a copy.
    fn answer_again(&mut self, now: Instant, init: &KnownInit<'_>) -> bool {
        let answer = self.peers.answer(now, &init.mac1, init.without_mac2());
        let Some((key, response)) = answer.map(|(key, response)| (key, response.to_vec())) else {
            return false;
        };
        if !self.gate.is_within_budget(now, init) {
            self.stats.answers_limited += 1;
            refused(init.source, "over-budget");
            return true;
        }
        self.stats.answers_from_cache += 1;
        self.reply(init.source, Some(key), response);
        true
    }

    fn reply(&mut self, source: Source, peer: Option<PublicKey>, bytes: Vec<u8>) {
        self.outbox.transmit(&mut self.stats, Outgoing::back(source, peer), bytes);
    }

    /// Does the Diffie-Hellmans, checks the timestamp, and sends the response.
    fn answer(&mut self, now: Instant, init: &KnownInit<'_>) -> Result<(), NoiseError> {
        let mut ephemeral = [0; 32];
        self.rng.fill_bytes(&mut ephemeral);
        let identity = &self.identity;
        let peeked = Responder::peek(&identity.key, &identity.prologue, ephemeral, init.noise_message());
        self.stats.dh += 1;
        let mut responder = peeked?;
        responder.take_dh_count();

        let initiator = *responder.initiator();
        if initiator == *self.identity.local() || !self.allow.allows(&initiator) {
            self.stats.not_allowed += 1;
            tracing::debug!(target: "nurl::session", peer = %initiator.short(), reason = "not-allowed", "a peer is refused");
            return Ok(());
        }
        let ss = self.peer(&initiator).and_then(|peer| peer.ss.clone());
        let mut payload = [0; INIT_PAYLOAD_LEN];
        let admitted = responder.admit(ss, &mut payload);
        self.stats.dh += responder.take_dh_count();
        if admitted? != INIT_PAYLOAD_LEN {
            return Err(NoiseError::Message);
        }
        let payload = InitPayload::decode(&payload);
        let standing = match self.identity.checker.check(now, &initiator, &payload.shown) {
            Ok(standing) => standing,
            Err(reason) => {
                self.stats.not_admitted += 1;
                tracing::debug!(target: "nurl::session", peer = %initiator.short(), reason = reason.as_str(), "a peer is refused");
                return Ok(());
            }
        };

        let Some(theirs) = Versions::from_bytes(payload.versions) else { return Err(NoiseError::Message) };
        self.gate.memory.note(init.mac1);
        let Some(version) = self.identity.versions.common(theirs) else {
            return self.refuse_versions(now, init, responder, &payload, theirs);
        };
        let known = self.peer(&initiator);
        let vouched = init.has_cookie
            || match init.source.route {
                Route::Relay(_) => init.source.relay_src == Some(initiator),
                route @ Route::Direct(_) => known.is_some_and(|peer| !peer.paths.is_limited(&route)),
            };
        // A replay of an unknown peer's init takes no slot either.
        if known.is_none() && !vouched && payload.timestamp <= self.gate.memory.floor_of(&initiator) {
            self.stats.stale_timestamp += 1;
            self.stats.stale_unvouched += 1;
            return Ok(());
        }

        // A full table is counted.
        let account = standing.account(initiator);
        let Ok(slot) = self.slot_or_insert_for(now, &account) else { return Ok(()) };
        let Some((peer, mut cx, gate)) = self.split_with_gate(now, slot) else { return Ok(()) };
        let admitted = AdmittedInit {
            source: init.source,
            sender: init.sender(),
            mac1: init.mac1,
            keys: &init.keys,
            payload,
            version,
            standing,
            vouched,
        };
        let Some(response) = peer.respond(&mut cx, &admitted, responder, &gate.challenger)? else {
            return Ok(());
        };
        let (mac1, copy) = (init.mac1, init.without_mac2().to_vec());
        self.peers.keep_answer(slot, CachedAnswer { mac1, init: copy, response: response.clone(), at: now });
        self.reply(init.source, Some(initiator), response);
        self.schedule.touch(slot);
        Ok(())
    }

    /// Answers an init of a peer that has no version in common with us: the response says ours, which no outsider can say,
    /// and there is no session. It takes no place in the table. An init that isn't newer than the last one gets silence.
    /// So does a program that says no versions: it would take the response for a session.
    fn refuse_versions(
        &mut self,
        now: Instant,
        init: &KnownInit<'_>,
        responder: Responder,
        payload: &InitPayload,
        theirs: Versions,
    ) -> Result<(), NoiseError> {
        let to = *responder.initiator();
        let known = self.peers.slot_of(&to).and_then(|slot| self.peers.get_mut(slot));
        let (newer, psk) = match known {
            Some(peer) => {
                let judged = peer.responder.judge(now, payload, false, |_| [0; MAC_LEN]);
                (judged == Timeliness::Newer, psk(&peer.psk, &init.keys))
            }
            None => {
                let newer = payload.timestamp > self.gate.memory.floor_of(&to);
                (newer, psk(&None, &init.keys))
            }
        };
        if !newer {
            self.stats.stale_timestamp += 1;
            return Ok(());
        }
        if self.peers.slot_of(&to).is_none() {
            self.gate.memory.meet(&to);
            self.gate.memory.forget(now, to, payload.timestamp);
        }
        self.stats.incompatible += 1;
        if self.identity.incompatible.meet(now, to, theirs) {
            self.outbox.event(&mut self.stats, SessionEvent::Incompatible { peer: to, theirs });
        }
        let Some(ours) = self.identity.response_payload().filter(|_| payload.versions != [0; 2]) else {
            return Ok(());
        };
        let indices = (self.rng.next_u32(), init.sender());
        let (response, _) = answer(responder, &psk, &ours, indices, (&init.keys, &to), &mut self.stats)?;
        self.reply(init.source, Some(to), response);
        Ok(())
    }
}
