//! The issuer: enrols newcomers that hold an invitation, and renews passes.
//!
//! **Guarantees.** Nothing is signed before the newcomer's proof is checked, so strangers cost one MAC each. The same key
//! gets the same pass again, and takes one place of its invitation, however often it asks. What was revoked isn't
//! enrolled or renewed. What an issuer remembers are the passes that it signed, and they prove themselves: an issuer
//! restored from an old copy forgets places, never revocations, which it takes from everybody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use rand_core::Rng as _;

use super::UnixSeconds;
use super::invitation::{self, Invitation, InvitationId, Terms};
use super::key::AuthorityKey;
use super::pass::{DAY, GRACE, Grant, MAX_NAME_BYTES, Pass, PassError};
use super::revocation::{Revocation, Revocations, Subject};
use super::rotation::SignedSecret;
use crate::key::PublicKey;
use crate::kit::rate::TokenBucket;
use crate::kit::reader::Reader;
use crate::mesh::MeshId;
use crate::rt::Rng;

/// The life of a first pass. A key that never comes back frees its place soon.
pub const FIRST_LIFE: UnixSeconds = 3 * DAY;

/// The life of a renewed pass, and of one that was admitted by hand.
pub const LIFE: UnixSeconds = 30 * DAY;

/// How long after its end a pass is renewed without an invitation.
pub const RENEWED_WITHIN: UnixSeconds = 90 * DAY;

/// The most keys whose passes an issuer remembers.
pub const MAX_ENROLLED: usize = 65_536;

/// Signatures per second, and at once: far more than a mesh needs, and far less than a core can do.
const SIGNATURES: (u64, u64) = (50, 200);

/// Why a newcomer gets no pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotIssued {
    /// The proof isn't that of the invitation, or the pass to renew isn't one.
    #[error("the invitation is none of this mesh's, or was changed")]
    NoProof,
    /// The invitation has ended, or the pass ended too long ago.
    #[error("it has expired")]
    Expired,
    /// The invitation is closed, or the key was revoked.
    #[error("it was revoked")]
    Revoked,
    /// The invitation has enrolled as many keys as it may.
    #[error("the invitation is used up")]
    UsedUp,
    /// The issuer signs as much as it may, or remembers as many keys as it can.
    #[error("the issuer is busy")]
    Busy,
}

impl NotIssued {
    /// The machine-readable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            NotIssued::NoProof => "bad-invitation",
            NotIssued::Expired => "expired",
            NotIssued::Revoked => "revoked",
            NotIssued::UsedUp => "used-up",
            NotIssued::Busy => "busy",
        }
    }
}

/// A mesh's issuer.
pub struct Issuer {
    authority: Arc<AuthorityKey>,
    /// The latest pass of each key.
    passes: BTreeMap<PublicKey, Pass>,
    signatures: TokenBucket,
    rng: Rng,
}

impl Issuer {
    /// An issuer that has signed nothing. `rng` draws ring seeds.
    pub fn new(authority: Arc<AuthorityKey>, now: Instant, rng: Rng) -> Issuer {
        let signatures = TokenBucket::new(SIGNATURES.0, SIGNATURES.1, now);
        Issuer { authority, passes: BTreeMap::new(), signatures, rng }
    }

    /// The mesh.
    pub fn mesh(&self) -> MeshId {
        self.authority.mesh()
    }

    /// Remembers a pass that was signed earlier; of two of a key the later.
    ///
    /// # Errors
    /// [`PassError`]: it isn't one of this mesh.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), PassError> {
        let pass = Pass::decode(&self.mesh(), bytes)?;
        let known = self.passes.get(&pass.grant().key);
        if known.is_none_or(|known| known.grant().issued <= pass.grant().issued) {
            self.passes.insert(pass.grant().key, pass);
        }
        Ok(())
    }

    /// The secret of the mesh that a rotation announced.
    pub fn secret(&self, generation: u32, made: UnixSeconds) -> SignedSecret {
        SignedSecret::of(&self.authority, generation, made)
    }

    /// A key was revoked: signs the entry that closes the invitation by which it came, if it isn't closed yet. Whoever
    /// has the key has the ticket too, and would come back by it under another key. `told` is what its pass says of that, if
    /// this issuer didn't sign it.
    pub fn close_invitation_of(
        &self,
        key: &PublicKey,
        told: Option<InvitationId>,
        time: UnixSeconds,
        revocations: &Revocations,
    ) -> Option<Revocation> {
        let signed = self.passes.get(key).and_then(|pass| pass.grant().invitation);
        let invitation = signed.or(told)?;
        let subject = Subject::Invitation(invitation);
        (!revocations.is_closed(invitation)).then(|| Revocation::sign(&self.authority, subject, 0, time))
    }

    /// Enrols a key that proves an invitation, or gives it the pass again that it has.
    ///
    /// # Errors
    /// [`NotIssued`].
    pub fn enrol(
        &mut self,
        (now, time): (Instant, UnixSeconds),
        key: &PublicKey,
        request: &EnrolRequest<'_>,
        revocations: &Revocations,
    ) -> Result<Pass, NotIssued> {
        let EnrolRequest { terms, name, proof } = request;
        if !invitation::is_proved(&self.authority, terms, key, name.as_bytes(), proof) {
            return Err(NotIssued::NoProof);
        }
        if revocations.is_closed(terms.id) || revocations.names(key) {
            return Err(NotIssued::Revoked);
        }
        if let Some(pass) = self.passes.get(key)
            && pass.grant().invitation == Some(terms.id)
            && pass.is_current(time)
        {
            return Ok(pass.clone());
        }
        if time > terms.until.saturating_add(GRACE) {
            return Err(NotIssued::Expired);
        }
        if self.taken(terms.id, time) >= usize::from(terms.keys) {
            return Err(NotIssued::UsedUp);
        }
        let mut ring_seed = [0; 8];
        self.rng.fill_bytes(&mut ring_seed);
        self.sign(
            now,
            Grant {
                key: *key,
                name: (*name).to_owned(),
                level: terms.level,
                weight: terms.weight,
                zone: terms.zone.clone(),
                invitation: Some(terms.id),
                ring_seed,
                issued: time,
                not_after: time.saturating_add(FIRST_LIFE),
            },
        )
    }

    /// Renews a pass: the same standing, for longer.
    ///
    /// # Errors
    /// [`NotIssued`].
    pub fn renew(
        &mut self,
        (now, time): (Instant, UnixSeconds),
        key: &PublicKey,
        pass: &[u8],
        revocations: &Revocations,
    ) -> Result<Pass, NotIssued> {
        let old = Pass::decode(&self.mesh(), pass).map_err(|_| NotIssued::NoProof)?.into_grant();
        if old.key != *key {
            return Err(NotIssued::NoProof);
        }
        if revocations.names(key) || revocations.revokes(&old) {
            return Err(NotIssued::Revoked);
        }
        if time > old.not_after.saturating_add(RENEWED_WITHIN) {
            return Err(NotIssued::Expired);
        }
        // A pass renewed already, whose answer was lost, is given again.
        if let Some(pass) = self.passes.get(key)
            && pass.grant().issued > old.issued
            && !pass.is_due_for_renewal(time)
        {
            return Ok(pass.clone());
        }
        let issued = time.max(old.issued);
        self.sign(now, Grant { issued, not_after: issued.saturating_add(LIFE), ..old })
    }

    /// Admits a key by hand.
    ///
    /// # Errors
    /// [`NotIssued`].
    #[cfg_attr(not(any(test, feature = "internals")), expect(dead_code, reason = "door: admission by hand"))]
    pub fn admit(&mut self, now: Instant, mut grant: Grant) -> Result<Pass, NotIssued> {
        grant.ring_seed = match self.passes.get(&grant.key) {
            Some(pass) => pass.grant().ring_seed,
            None => {
                let mut seed = [0; 8];
                self.rng.fill_bytes(&mut seed);
                seed
            }
        };
        self.sign(now, grant)
    }

    fn sign(&mut self, now: Instant, grant: Grant) -> Result<Pass, NotIssued> {
        let key = grant.key;
        let room = self.passes.contains_key(&key) || self.passes.len() < MAX_ENROLLED;
        if !room || !self.signatures.take(now, 1) {
            return Err(NotIssued::Busy);
        }
        let pass = grant.sign(&self.authority).map_err(|_| NotIssued::NoProof)?;
        self.passes.insert(key, pass.clone());
        Ok(pass)
    }

    /// The places of an invitation that are taken: those of keys whose pass counts.
    fn taken(&self, invitation: InvitationId, time: UnixSeconds) -> usize {
        let of = |pass: &&Pass| pass.grant().invitation == Some(invitation) && pass.is_current(time);
        self.passes.values().filter(of).count()
    }
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("passes", &self.passes.len()).finish_non_exhaustive()
    }
}

/// What a newcomer asks with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolRequest<'a> {
    /// The invitation's terms.
    pub terms: Terms,
    /// The name that the newcomer would like, of at most [`MAX_NAME_BYTES`].
    pub name: &'a str,
    /// The proof that it has the invitation, over its key and the name.
    pub proof: [u8; 32],
}

impl<'a> EnrolRequest<'a> {
    /// What a newcomer with this key and this invitation sends.
    pub fn new(invitation: &Invitation, key: &PublicKey, name: &'a str) -> EnrolRequest<'a> {
        let name = fitting_name(name);
        let proof = invitation.prove(key, name.as_bytes());
        EnrolRequest { terms: invitation.terms.clone(), name, proof }
    }

    /// The encoding: the terms, `name length:1, name, proof:32`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.terms.encode();
        out.push(self.name.len() as u8);
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(&self.proof);
        out
    }

    /// Reads the encoding. `None`: malformed or out of bounds.
    pub fn decode(bytes: &'a [u8]) -> Option<EnrolRequest<'a>> {
        let mut reader = Reader(bytes);
        let terms = Terms::decode(&mut reader)?;
        let len = usize::from(reader.u8()?);
        let name =
            std::str::from_utf8(reader.slice(len)?).ok().filter(|name| name.len() <= MAX_NAME_BYTES)?;
        let proof = reader.array()?;
        reader.end(EnrolRequest { terms, name, proof })
    }
}

/// The longest prefix of a text that fits a pass as a name.
pub fn fitting_name(text: &str) -> &str {
    let mut end = text.len().min(MAX_NAME_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::super::level::Level;
    use super::*;
    use rand_core::SeedableRng;
    use std::time::Duration;

    const NOW: UnixSeconds = 1_800_000_000;

    fn issuer() -> (Issuer, Instant) {
        let now = crate::rt::test_now();
        (Issuer::new(AuthorityKey::from_seed(&[1; 32]).into(), now, Rng::from_seed([2; 32])), now)
    }

    fn invitation(keys: u16) -> Invitation {
        let terms = Terms {
            id: InvitationId([7; 8]),
            level: Level::Worker,
            weight: 1,
            zone: String::new(),
            until: NOW + DAY,
            keys,
        };
        terms.invite(&AuthorityKey::from_seed(&[1; 32])).unwrap()
    }

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    fn request(invitation: &Invitation, key: &PublicKey) -> EnrolRequest<'static> {
        EnrolRequest::new(invitation, key, "nas")
    }

    #[test]
    fn a_key_gets_one_pass_and_takes_one_place_however_often_it_asks() {
        let (mut issuer, now) = issuer();
        let (invitation, none) = (invitation(2), Revocations::default());
        let at = (now, NOW);
        let asked = request(&invitation, &key(1));
        assert_eq!(EnrolRequest::decode(&asked.encode()), Some(asked.clone()));
        assert_eq!(EnrolRequest::decode(&asked.encode()[1..]), None);
        let first = issuer.enrol(at, &key(1), &asked, &none).unwrap();
        assert_eq!((first.grant().level, &*first.grant().name), (Level::Worker, "nas"));
        assert_eq!(first.grant().not_after, NOW + FIRST_LIFE);
        for _ in 0..5 {
            let again = issuer.enrol(at, &key(1), &request(&invitation, &key(1)), &none);
            assert_eq!(again.as_ref(), Ok(&first));
        }
        assert!(issuer.enrol(at, &key(2), &request(&invitation, &key(2)), &none).is_ok());
        let third = request(&invitation, &key(3));
        assert_eq!(issuer.enrol(at, &key(3), &third, &none), Err(NotIssued::UsedUp));
        let replayed = request(&invitation, &key(1));
        assert_eq!(issuer.enrol(at, &key(4), &replayed, &none), Err(NotIssued::NoProof), "another's proof");
    }

    #[test]
    fn a_place_that_was_not_renewed_comes_free() {
        let (mut issuer, now) = issuer();
        let mut invitation = invitation(1);
        invitation.terms.until = NOW + 90 * DAY;
        let invitation = invitation.terms.invite(&AuthorityKey::from_seed(&[1; 32])).unwrap();
        let none = Revocations::default();
        assert!(issuer.enrol((now, NOW), &key(1), &request(&invitation, &key(1)), &none).is_ok());
        let later = NOW + FIRST_LIFE + GRACE + 1;
        assert!(issuer.enrol((now, later - 1), &key(2), &request(&invitation, &key(2)), &none).is_err());
        assert!(issuer.enrol((now, later), &key(2), &request(&invitation, &key(2)), &none).is_ok());
    }

    #[test]
    fn wrong_proofs_cost_no_signature() {
        let (mut issuer, now) = issuer();
        let (invitation, none) = (invitation(9), Revocations::default());
        for _ in 0..10_000 {
            let mut bad = request(&invitation, &key(1));
            bad.proof[0] ^= 1;
            assert_eq!(issuer.enrol((now, NOW), &key(1), &bad, &none), Err(NotIssued::NoProof));
        }
        assert!(issuer.enrol((now, NOW), &key(1), &request(&invitation, &key(1)), &none).is_ok());
        let over = issuer.enrol((now, NOW + DAY + GRACE + 1), &key(2), &request(&invitation, &key(2)), &none);
        assert_eq!(over, Err(NotIssued::Expired));
    }

    #[test]
    fn what_was_revoked_is_neither_enrolled_nor_renewed() {
        let (mut issuer, now) = issuer();
        let (invitation, mut known) = (invitation(9), Revocations::default());
        let at = (now, NOW);
        let pass = issuer.enrol(at, &key(1), &request(&invitation, &key(1)), &known).unwrap();
        known.merge(issuer.authority.revoke(Subject::Key(key(1)), NOW));
        assert_eq!(
            issuer.enrol(at, &key(1), &request(&invitation, &key(1)), &known),
            Err(NotIssued::Revoked)
        );
        let late = (now, NOW + 199 * DAY);
        assert_eq!(issuer.renew(late, &key(1), pass.as_bytes(), &known), Err(NotIssued::Revoked));
        assert!(issuer.enrol(at, &key(2), &request(&invitation, &key(2)), &known).is_ok());
        known.merge(issuer.close_invitation_of(&key(1), None, NOW, &known).unwrap());
        assert_eq!(issuer.close_invitation_of(&key(1), None, NOW, &known), None);
        let closed = issuer.enrol(at, &key(3), &request(&invitation, &key(3)), &known);
        assert_eq!(closed, Err(NotIssued::Revoked));
    }

    #[test]
    fn a_pass_is_renewed_with_the_same_standing_also_after_its_end() {
        let (mut issuer, now) = issuer();
        let (invitation, none) = (invitation(9), Revocations::default());
        let first = issuer.enrol((now, NOW), &key(1), &request(&invitation, &key(1)), &none).unwrap();
        let at = NOW + FIRST_LIFE + 60 * DAY;
        let renewed = issuer.renew((now, at), &key(1), first.as_bytes(), &none).unwrap();
        let expected = Grant { issued: at, not_after: at + LIFE, ..first.grant().clone() };
        assert_eq!(renewed.grant(), &expected);
        let again = issuer.renew((now, at + 60), &key(1), first.as_bytes(), &none).unwrap();
        assert_eq!(again, renewed, "the answer was lost");
        let stranger = issuer.renew((now, at), &key(2), first.as_bytes(), &none);
        assert_eq!(stranger, Err(NotIssued::NoProof));
        let late =
            issuer.renew((now, NOW + FIRST_LIFE + RENEWED_WITHIN + 1), &key(1), first.as_bytes(), &none);
        assert_eq!(late, Err(NotIssued::Expired));
    }

    #[test]
    fn an_issuer_remembers_by_its_passes() {
        let (mut issuer, now) = issuer();
        let (invitation, none) = (invitation(1), Revocations::default());
        let pass = issuer.enrol((now, NOW), &key(1), &request(&invitation, &key(1)), &none).unwrap();
        let mut restored =
            Issuer::new(AuthorityKey::from_seed(&[1; 32]).into(), now, Rng::from_seed([5; 32]));
        restored.restore(pass.as_bytes()).unwrap();
        let again = restored.enrol((now, NOW), &key(1), &request(&invitation, &key(1)), &none);
        assert_eq!(again, Ok(pass));
        let second = restored.enrol((now, NOW), &key(2), &request(&invitation, &key(2)), &none);
        assert_eq!(second, Err(NotIssued::UsedUp));
    }

    #[test]
    fn signatures_are_rationed_and_come_again() {
        let (mut issuer, now) = issuer();
        let grant = |n: u8| Grant::new(key(n), Level::Look, NOW, NOW + DAY);
        let signed = (0..=255).filter(|n| issuer.admit(now, grant(*n)).is_ok()).count() as u64;
        assert_eq!(signed, SIGNATURES.1);
        assert_eq!(issuer.admit(now + Duration::from_secs(1), grant(0)).map(|_| ()), Ok(()));
    }

    #[test]
    fn a_name_is_cut_between_letters() {
        assert_eq!(fitting_name("nas"), "nas");
        let long = "ä".repeat(30);
        assert_eq!(fitting_name(&long).len(), 40);
        assert_eq!(fitting_name(&format!("x{long}")).len(), 39);
    }
}
