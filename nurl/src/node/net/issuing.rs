//! The authority's key at a node: passes for whom a hub without the key hands over, and the mesh's secret for its peers.
//!
//! **Guarantees.** What hubs know to be revoked is merged before anything is signed, since a hub tells it before it
//! registers us. A hub's requests are limited, and what they ask for is checked as if the newcomer had asked itself, so a
//! hub gets no pass, and none for anybody without an invitation. Who gets the secret has a session, thus a pass that
//! counts, or a pass from here.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use super::mail::Ends;
use super::revoking::Revoking;
use super::rotating::{self, Rotating};
use crate::authority::UnixSeconds;
use crate::authority::issuer::{EnrolRequest, Issuer, NotIssued};
use crate::authority::pass::Pass;
use crate::authority::rotation::SignedSecret;
use crate::authority::sealed;
use crate::key::PublicKey;
use crate::kit::rate::TokenBucket;
use crate::net::reach::hub_client::Ask;
use crate::net::reach::relay::CloseReason;
use crate::rt::Rng;
use crate::transport::{Priority, kind};

/// Requests that a hub may hand over per second, and at once: more than a hub hands to all its issuers.
const ASKS: (u64, u64) = (200, 400);

/// See the module.
pub(super) struct Issuing {
    issuer: Issuer,
    /// For sealing.
    rng: Rng,
    asks: BTreeMap<PublicKey, TokenBucket>,
    /// The present secret, once it was rotated.
    secret: Option<SignedSecret>,
    /// Passes issued.
    pub(super) issued: u64,
    /// Requests refused.
    pub(super) refused: u64,
    /// Requests dropped: malformed, or beyond a hub's rate.
    pub(super) dropped: u64,
}

impl Issuing {
    pub(super) fn new(issuer: Issuer, rng: Rng) -> Issuing {
        Issuing { issuer, rng, asks: BTreeMap::new(), secret: None, issued: 0, refused: 0, dropped: 0 }
    }

    /// A hub hands over a request. One that is dropped goes to another issuer when the hub has waited for it.
    pub(super) fn on_asked(
        &mut self,
        now: Instant,
        hub: PublicKey,
        (number, key): (u64, PublicKey),
        ask: &Ask,
        ends: &mut Ends<'_>,
    ) {
        let rate = || TokenBucket::new(ASKS.0, ASKS.1, now);
        if !self.asks.entry(hub).or_insert_with(rate).take(now, 1) {
            self.dropped += 1;
            return;
        }
        let time = ends.transport.time(now);
        let Some(answer) = self.judge((now, time), &key, ask, ends) else {
            self.dropped += 1;
            return;
        };
        let reason = answer.as_ref().err().map(|reason| reason.as_str());
        tracing::info!(target: "audit", peer = %key, hub = %hub.short(), reason, "a hub asks for a pass");
        let answer = match answer {
            Ok(pass) => {
                self.issued += 1;
                ends.outlets.signed(pass.clone());
                let secret = self.secret.as_ref();
                let sealed = secret.map(|secret| sealed::seal(secret, &key, &mut self.rng));
                Ok((pass, sealed.unwrap_or_default()))
            }
            Err(reason) => {
                self.refused += 1;
                Err(match reason {
                    NotIssued::NoProof => CloseReason::BadInvitation,
                    NotIssued::Expired => CloseReason::Expired,
                    NotIssued::Revoked => CloseReason::Revoked,
                    NotIssued::UsedUp => CloseReason::UsedUp,
                    NotIssued::Busy => CloseReason::Busy,
                })
            }
        };
        ends.transport.answer_hub(&hub, number, &answer);
    }

    fn judge(
        &mut self,
        at: (Instant, UnixSeconds),
        key: &PublicKey,
        ask: &Ask,
        ends: &Ends<'_>,
    ) -> Option<Result<Pass, NotIssued>> {
        let revocations = ends.transport.revocations();
        Some(match ask {
            Ask::Enrol(request) => self.issuer.enrol(at, key, &EnrolRequest::decode(request)?, revocations),
            Ask::Renew(pass) => self.issuer.renew(at, key, pass, revocations),
        })
    }

    /// What was revoked since: invitations of revoked keys are closed, and the secret that a rotation announced is handed
    /// to every peer with a session.
    pub(super) fn on_revocations(
        &mut self,
        now: Instant,
        (revoking, rotating): (&mut Revoking, &mut Rotating),
        ends: &mut Ends<'_>,
    ) {
        for (key, invitation) in revoking.take_revoked_keys() {
            let time = ends.transport.time(now);
            // Another issuer may have signed its pass, which its fact tells.
            let known = ends.transport.revocations();
            let closing = self.issuer.close_invitation_of(&key, invitation, time, known);
            if let Some(entry) = closing {
                revoking.begin(now, entry, ends);
            }
        }
        let announced = ends.transport.revocations().secret();
        if announced != self.secret.as_ref().map(SignedSecret::stamp)
            && let Some((generation, made)) = announced
        {
            let secret = self.issuer.secret(generation, made);
            rotating.take(now, &secret, ends);
            self.secret = Some(secret);
            let peers: Vec<PublicKey> = ends.detector.members().map(|member| member.key).collect();
            for peer in peers.into_iter().filter(|peer| ends.transport.has_session(peer)).collect::<Vec<_>>()
            {
                self.hand(now, peer, ends);
            }
        }
    }

    /// A session began, or its peer's process is another one: it may have been away during a rotation.
    pub(super) fn hand(&mut self, now: Instant, peer: PublicKey, ends: &mut Ends<'_>) {
        let Some(secret) = &self.secret else { return };
        let body = Bytes::from([&[rotating::SECRET][..], &secret.encode()].concat());
        // Without room it gets it with its next session.
        let _ = ends.transport.send_message(now, peer, Priority::Control, kind::REVOCATIONS, body);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand_core::SeedableRng as _;

    use super::super::revoking::tests::{Parts, UNIX, authority, key};
    use super::*;
    use crate::authority::invitation::Invitation;
    use crate::authority::keyring::Keyring;
    use crate::authority::revocation::Subject;
    use crate::node::command::WorkInput;

    fn rng(seed: u8) -> Rng {
        Rng::from_seed([seed; 32])
    }

    struct Node {
        issuing: Issuing,
        revoking: Revoking,
        rotating: Rotating,
        parts: Parts,
    }

    impl Node {
        fn new() -> Node {
            let parts = Parts::new();
            let issuer = Issuer::new(authority().into(), parts.now, rng(1));
            let (issuing, revoking) = (Issuing::new(issuer, rng(2)), Revoking::new(rng(3)));
            let rotating = Rotating::new(Keyring::new(&parts.ticket));
            Node { issuing, revoking, rotating, parts }
        }

        fn with(
            &mut self,
            act: impl FnOnce(&mut Issuing, &mut Revoking, &mut Rotating, Instant, &mut Ends<'_>),
        ) {
            let Parts { transport, detector, outlets, now, .. } = &mut self.parts;
            let mut ends = Ends { transport, detector, outlets };
            act(&mut self.issuing, &mut self.revoking, &mut self.rotating, *now, &mut ends);
        }

        fn ask(&mut self, newcomer: u16, ask: &Ask) {
            self.with(|issuing, _, _, now, ends| {
                issuing.on_asked(now, key(1), (0, key(newcomer)), ask, ends);
            });
        }

        fn counted(&self) -> (u64, u64, u64) {
            (self.issuing.issued, self.issuing.refused, self.issuing.dropped)
        }
    }

    fn enrol(invitation: &Invitation, newcomer: u16) -> Ask {
        Ask::Enrol(EnrolRequest::new(invitation, &key(newcomer), "nas").encode().into())
    }

    #[test]
    fn a_hubs_requests_are_checked_kept_and_limited() {
        let mut node = Node::new();
        let invitation = Invitation::for_keys(2, &authority(), UNIX, &mut rng(4));
        node.ask(7, &enrol(&invitation, 7));
        assert!(
            matches!(node.parts.kept.try_recv(), Ok(WorkInput::Signed(pass)) if pass.grant().key == key(7))
        );
        // In another's name, and what is none.
        node.ask(8, &enrol(&invitation, 7));
        node.ask(8, &Ask::Enrol(Bytes::from_static(b"short")));
        node.ask(8, &Ask::Renew(Bytes::from_static(b"short")));
        assert_eq!(node.counted(), (1, 2, 1));
        for _ in 4..ASKS.1 {
            node.ask(8, &enrol(&invitation, 7));
        }
        let refused = ASKS.1 - 2;
        assert_eq!(node.counted(), (1, refused, 1));
        node.ask(9, &enrol(&invitation, 9));
        assert_eq!(node.counted(), (1, refused, 2), "beyond the rate");
        node.parts.now += Duration::from_secs(1);
        node.ask(9, &enrol(&invitation, 9));
        assert_eq!(node.counted(), (2, refused, 2));
    }

    #[test]
    fn what_is_revoked_closes_invitations_and_a_rotation_reaches_the_issuers_own_keyring() {
        let mut node = Node::new();
        let (invitation, time) =
            (Invitation::for_keys(9, &authority(), UNIX, &mut rng(4)), UNIX.as_secs() as u32);
        node.ask(7, &enrol(&invitation, 7));
        let entries = [authority().revoke(Subject::Key(key(7)), time), authority().rotate(3, time).entry];
        node.with(|issuing, revoking, rotating, now, ends| {
            let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.encode()).collect();
            revoking.on_told(now, key(1), &bytes, ends);
            issuing.on_revocations(now, (revoking, rotating), ends);
            assert!(ends.transport.revocations().is_closed(invitation.terms.id));
        });
        assert_eq!(node.rotating.generation(), 3);
        node.ask(8, &enrol(&invitation, 8));
        assert_eq!(node.counted(), (1, 1, 0));
    }
}
