//! The mesh's secret: how this node gets a new one, and how an issuer's node hands it out.
//!
//! That there is a new one is told as a revocation is ([`revoking`](super::revoking)). The secret itself comes from issuers
//! alone, since they merge revocations before they sign: from a hub that issues, at a registration and with the news; or in a
//! session with a node whose caller has the authority's key, if no hub issues. No member passes it on, so a revoked peer finds
//! nobody who hasn't heard of its revocation. Whoever it comes from, the authority's signature says that it is the mesh's.
//!
//! The message is a reliable one of kind 5: `3 ‖ signed secret`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::liars::Liars;
use super::mail::Ends;
use crate::authority::keyring::Keyring;
use crate::authority::rotation::{SIGNED_SECRET_BYTES, SignedSecret};
use crate::error::{Error, RevokeError};
use crate::key::PublicKey;
use crate::node::command::{HandedOver, Reply};
use crate::node::event::NodeEvent;
use crate::transport::{MessageId, Priority, kind};

/// The first byte of a message with a secret.
pub(super) const SECRET: u8 = 3;

/// How long a hub that issues has to hand the new secret to its caller, which then hands it to nobody: everybody else has it
/// from there.
const HUBS_FIRST: Duration = Duration::from_secs(3);

/// How long members have to acknowledge the secret: a handshake under the old one, and some retransmissions.
const GIVE_UP: Duration = Duration::from_secs(10);

/// A caller that hands out a secret.
struct Handing {
    secret: SignedSecret,
    begun: Instant,
    /// The messages that aren't acknowledged; `None` while hubs come first.
    waiting: Option<BTreeSet<(PublicKey, MessageId)>>,
    handed: HandedOver,
    reply: Reply<Result<HandedOver, Error>>,
}

/// See the module.
pub(super) struct Rotating {
    keyring: Keyring,
    /// What a hub handed us last.
    by_hub: Option<SignedSecret>,
    handing: Option<Handing>,
    liars: Liars,
    /// Secrets taken.
    pub(super) taken: u64,
    /// Secrets refused: malformed, not the authority's, or from somebody who lied before.
    pub(super) refused: u64,
}

impl Rotating {
    pub(super) fn new(keyring: Keyring) -> Rotating {
        Rotating { keyring, by_hub: None, handing: None, liars: Liars::default(), taken: 0, refused: 0 }
    }

    /// The number of the secret in use.
    pub(super) fn generation(&self) -> u32 {
        self.keyring.generation()
    }

    /// A hub hands us the secret.
    pub(super) fn on_hub(&mut self, now: Instant, hub: PublicKey, secret: SignedSecret, ends: &mut Ends<'_>) {
        if self.on_secret(now, hub, &secret, ends) {
            self.by_hub = Some(secret);
            self.handle_timeout(now, ends);
        }
    }

    /// An issuer sealed the secret for us; the hub through which it came doesn't have it.
    pub(super) fn on_sealed(
        &mut self,
        now: Instant,
        hub: PublicKey,
        secret: &SignedSecret,
        ends: &mut Ends<'_>,
    ) {
        self.on_secret(now, hub, secret, ends);
    }

    /// A peer's message that begins with [`SECRET`].
    pub(super) fn on_message(&mut self, now: Instant, from: PublicKey, body: &[u8], ends: &mut Ends<'_>) {
        match SignedSecret::decode(body) {
            Some(secret) => drop(self.on_secret(now, from, &secret, ends)),
            None => self.refused += 1,
        }
    }

    /// Takes a secret, if it is the authority's and later than ours. Returns whether it is in force now.
    fn on_secret(
        &mut self,
        now: Instant,
        from: PublicKey,
        secret: &SignedSecret,
        ends: &mut Ends<'_>,
    ) -> bool {
        if !self.keyring.is_news(secret) {
            return self.keyring.is_present(secret);
        }
        let lied = self.liars.contains(now, &from);
        if lied || !secret.is_of(self.keyring.mesh()) {
            self.refused += 1;
            if !lied {
                tracing::warn!(target: "nurl::net", teller = %from.short(), "a secret isn't the authority's");
                self.liars.insert(now, from);
            }
            return false;
        }
        self.take(now, secret, ends);
        true
    }

    /// Takes a secret that is the authority's, if it is news.
    pub(super) fn take(&mut self, now: Instant, secret: &SignedSecret, ends: &mut Ends<'_>) {
        let time = ends.transport.time(now);
        if self.keyring.take((now, time), secret) {
            self.taken += 1;
            ends.transport.set_generations(now, self.keyring.generations());
            ends.outlets.rotated(self.keyring.record(secret));
            ends.outlets.event(&NodeEvent::Rotated { generation: secret.generation });
        }
    }

    // ---- Callers.

    /// A caller with the authority's key hands out a secret, of which the hubs have been told.
    pub(super) fn hand_over(
        &mut self,
        now: Instant,
        secret: SignedSecret,
        reply: Reply<Result<HandedOver, Error>>,
        ends: &mut Ends<'_>,
    ) {
        if self.handing.as_ref().is_some_and(|handing| !handing.reply.is_closed()) {
            let _ = reply.send(Err(Error::Busy("another secret is being handed out")));
            return;
        }
        self.take(now, &secret, ends);
        let handed = HandedOver::default();
        self.handing = Some(Handing { secret, begun: now, waiting: None, handed, reply });
        self.handle_timeout(now, ends);
    }

    /// A peer has a message of ours.
    pub(super) fn on_acked(&mut self, now: Instant, peer: PublicKey, id: MessageId, ends: &mut Ends<'_>) {
        if let Some(Handing { waiting: Some(waiting), handed, .. }) = &mut self.handing
            && waiting.remove(&(peer, id))
        {
            handed.members += 1;
            self.handle_timeout(now, ends);
        }
    }

    /// When a caller has waited long enough for something.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.handing.as_ref().map(|handing| match handing.waiting {
            None => handing.begun + HUBS_FIRST,
            Some(_) => handing.begun + HUBS_FIRST + GIVE_UP,
        })
    }

    /// Brings the secret's time forward, and the caller.
    pub(super) fn handle_timeout(&mut self, now: Instant, ends: &mut Ends<'_>) {
        let time = ends.transport.time(now);
        if self.keyring.handle_time((now, time)) {
            ends.transport.set_generations(now, self.keyring.generations());
        }
        let by_hub = self.by_hub.as_ref().map(SignedSecret::stamp);
        let Some(handing) = &mut self.handing else { return };
        if by_hub.is_some_and(|stamp| stamp >= handing.secret.stamp()) {
            handing.handed.by_hub = true;
            return self.answer();
        }
        let hub_up = ends.transport.hubs().values().any(|hub| hub.up);
        if handing.waiting.is_none() && (!hub_up || now >= handing.begun + HUBS_FIRST) {
            let waiting = tell_members(now, &handing.secret, ends);
            handing.handed.missed = waiting.len();
            handing.waiting = Some(waiting);
        }
        let over = now >= handing.begun + HUBS_FIRST + GIVE_UP;
        if handing.waiting.as_ref().is_some_and(|waiting| over || waiting.is_empty()) {
            self.answer();
        }
    }

    fn answer(&mut self) {
        let Some(Handing { mut handed, reply, .. }) = self.handing.take() else { return };
        handed.missed = handed.missed.saturating_sub(handed.members);
        let nobody = !handed.by_hub && handed.members == 0 && handed.missed > 0;
        // An error means that the caller gave up.
        let _ = reply.send(if nobody { Err(RevokeError::Untold.into()) } else { Ok(handed) });
    }
}

/// Hands a secret to every live member. The session that carries it is with a key whose pass counts.
fn tell_members(
    now: Instant,
    secret: &SignedSecret,
    ends: &mut Ends<'_>,
) -> BTreeSet<(PublicKey, MessageId)> {
    let mut body = Vec::with_capacity(1 + SIGNED_SECRET_BYTES);
    body.push(SECRET);
    body.extend_from_slice(&secret.encode());
    let body = Bytes::from(body);
    let local = ends.detector.local().key;
    let live = ends.detector.members().filter(|member| member.key != local && member.state.is_live());
    let live: Vec<PublicKey> = live.map(|member| member.key).collect();
    let mut send = |peer: PublicKey| {
        let id = ends.transport.send_message(now, peer, Priority::Control, kind::REVOCATIONS, body.clone());
        Some((peer, id.ok()?))
    };
    live.into_iter().filter_map(&mut send).collect()
}

#[cfg(test)]
mod tests {
    use super::super::liars::IGNORED_FOR;
    use super::super::revoking::tests::{Parts, UNIX, authority, key};
    use super::*;
    use crate::authority::key::AuthorityKey;
    use crate::node::command::WorkInput;
    use crate::rt::sync::oneshot;

    fn secret(generation: u32) -> SignedSecret {
        authority().rotate(generation, UNIX.as_secs() as u32).secret
    }

    struct Node {
        rotating: Rotating,
        parts: Parts,
    }

    impl Node {
        fn new() -> Node {
            let parts = Parts::new();
            Node { rotating: Rotating::new(Keyring::new(&parts.ticket)), parts }
        }

        fn with<T>(&mut self, act: impl FnOnce(&mut Rotating, Instant, &mut Ends<'_>) -> T) -> T {
            let Parts { transport, detector, outlets, now, .. } = &mut self.parts;
            act(&mut self.rotating, *now, &mut Ends { transport, detector, outlets })
        }

        fn hear(&mut self, from: u16, body: &[u8]) {
            self.with(|rotating, now, ends| rotating.on_message(now, key(from), body, ends));
        }

        fn hand_over(&mut self, secret: SignedSecret) -> oneshot::Receiver<Result<HandedOver, Error>> {
            let (reply, answer) = oneshot::channel();
            self.with(|rotating, now, ends| rotating.hand_over(now, secret, reply, ends));
            answer
        }
    }

    #[test]
    fn a_secret_counts_if_the_authority_signed_it_whoever_hands_it_over() {
        let mut node = Node::new();
        let forged = AuthorityKey::from_seed(&[9; 32]).rotate(5, UNIX.as_secs() as u32).secret;
        node.hear(7, &forged.encode());
        node.hear(7, &secret(1).encode());
        node.hear(8, b"short");
        assert_eq!((node.rotating.generation(), node.rotating.refused), (0, 3), "a liar isn't listened to");
        node.hear(8, &secret(2).encode());
        for known in [1, 2] {
            node.hear(8, &secret(known).encode());
        }
        assert_eq!((node.rotating.generation(), node.rotating.taken, node.rotating.refused), (2, 1, 3));
        assert!(
            matches!(node.parts.kept.try_recv(), Ok(WorkInput::Rotated(record)) if record[..] == secret(2).encode()[..])
        );
        node.parts.now += IGNORED_FOR;
        node.hear(7, &secret(3).encode());
        assert_eq!(node.rotating.generation(), 3);
    }

    #[test]
    fn a_caller_learns_that_an_issuing_hub_has_it_before_or_after_it_asks() {
        let mut node = Node::new();
        let by_hub = |node: &mut Node| {
            node.with(|rotating, now, ends| rotating.on_hub(now, key(1), secret(1), ends));
        };
        by_hub(&mut node);
        let handed = HandedOver { by_hub: true, ..HandedOver::default() };
        assert_eq!(node.hand_over(secret(1)).try_recv().unwrap().unwrap(), handed);
        // No hub is up, and there is no member.
        let alone = node.hand_over(secret(2)).try_recv().unwrap().unwrap();
        assert_eq!((alone, node.rotating.generation()), (HandedOver::default(), 2));
        assert_eq!(node.rotating.poll_timeout(), None);
    }
}
