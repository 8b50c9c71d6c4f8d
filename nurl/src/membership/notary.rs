//! The notary of a node: signs what the node says of itself, and checks what others say of themselves.
//!
//! A check costs up to two signatures, of the pass and of the profile. A pass that was checked once is remembered, and
//! nothing that is known already comes here. So a member pays for each profile once, whoever tells it. A bad signature
//! spends the *teller's* checks: nobody passes on what it hasn't checked itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::meta::Meta;
use super::profile::{MemberProfile, SignedProfile};
use super::table::MAX_MEMBERS;
use crate::authority::level::Level;
use crate::authority::pass::{Grant, Pass, PassError, PassHash};
use crate::authority::revocation::{Revocations, RevocationsDigest};
use crate::key::{PublicKey, SecretKey};
use crate::kit::rate::TokenBucket;
use crate::mesh::MeshId;

/// Passes whose signature is remembered as checked: those of a full table, and as many that replaced them.
const MAX_KNOWN: usize = 2 * MAX_MEMBERS;

/// Checks that a teller of a bad signature may still cause at once, and each second.
pub const FORGER_CHECKS: (u64, u64) = (16, 1);

/// The most tellers of bad signatures that are remembered.
const MAX_FORGERS: usize = 1_024;

/// Why a profile isn't believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProfileRefusal {
    /// The pass isn't one of this mesh, or another key's; or the key didn't sign the profile.
    Forged,
    /// Its teller has told too many forged ones.
    Limited,
    /// The pass was revoked.
    Revoked,
    /// The pass permits no membership.
    BelowMember,
}

/// What a pass says, and the encoding whose signature was checked: one with the same words and a bad signature isn't
/// passed on.
type KnownPass = (Arc<Grant>, Arc<[u8]>);

/// Signs and checks profiles in one mesh.
#[derive(Debug)]
pub struct Notary {
    mesh: MeshId,
    secret: SecretKey,
    /// The secret's public key.
    key: PublicKey,
    /// This node's pass; without it, the node says nothing.
    pass: Option<Pass>,
    /// What it signed last.
    signed: Option<SignedProfile>,
    /// Passes that were checked: what they say, and their encoding.
    known: BTreeMap<PassHash, KnownPass>,
    /// The names of the known passes, oldest first.
    order: VecDeque<PassHash>,
    revocations: Revocations,
    digest: RevocationsDigest,
    /// Tellers of bad signatures.
    forgers: BTreeMap<PublicKey, TokenBucket>,
    #[cfg(test)]
    trusts: bool,
}

impl Notary {
    /// A notary for the node with this key and pass. A pass of another key (the node shows a slip of its holder) says
    /// nothing about the node.
    pub fn new(mesh: MeshId, secret: SecretKey, pass: Option<Pass>) -> Notary {
        let (revocations, key) = (Revocations::default(), secret.public());
        Notary {
            mesh,
            pass: pass.filter(|pass| pass.grant().key == key),
            secret,
            key,
            signed: None,
            known: BTreeMap::new(),
            order: VecDeque::new(),
            digest: revocations.digest(),
            revocations,
            forgers: BTreeMap::new(),
            #[cfg(test)]
            trusts: false,
        }
    }

    /// A notary that believes everything, for tests whose subject isn't the evidence.
    #[cfg(test)]
    pub(crate) fn trusting(key: PublicKey) -> Notary {
        let secret = SecretKey::from_bytes([1; 32]);
        Notary { trusts: true, key, ..Notary::new(MeshId::from_bytes([0; 32]), secret, None) }
    }

    /// This node's key.
    pub(super) fn key(&self) -> PublicKey {
        self.key
    }

    /// What this node's pass says.
    pub(super) fn grant(&self) -> Option<&Grant> {
        self.pass.as_ref().map(Pass::grant)
    }

    /// This node has another pass. Returns whether it is this node's own.
    pub(super) fn set_pass(&mut self, pass: Pass) -> bool {
        let own = pass.grant().key == self.key;
        if own {
            self.pass = Some(pass);
        }
        own
    }

    /// The digest of all revocations that this node knows.
    pub(super) fn digest(&self) -> RevocationsDigest {
        self.digest
    }

    /// Replaces the revocations that this node knows.
    pub(super) fn set_revocations(&mut self, revocations: &Revocations) {
        self.digest = revocations.digest();
        self.revocations = revocations.clone();
    }

    /// Whether a pass is revoked.
    pub(super) fn revokes(&self, grant: &Grant) -> bool {
        self.revocations.revokes(grant)
    }

    /// What this node says of itself, signed; `None` without a pass.
    pub(super) fn sign(
        &mut self,
        incarnation: u64,
        left: bool,
        boot: u64,
        meta: &Meta,
    ) -> Option<SignedProfile> {
        #[cfg(test)]
        if self.trusts {
            return Some(super::profile::tests::said(incarnation, left, boot, meta.clone()));
        }
        let pass = self.pass.as_ref()?;
        let said = MemberProfile { incarnation, left, boot, meta: meta.clone(), pass: pass.hash() };
        match &self.signed {
            Some(signed) if *signed.said() == said => Some(signed.clone()),
            _ => {
                self.signed = Some(said.sign(&self.secret, &self.mesh, pass));
                self.signed.clone()
            }
        }
    }

    /// Whether this node's key signed a profile: now, or in an earlier process.
    pub(super) fn is_own(&mut self, now: Instant, teller: &PublicKey, profile: &SignedProfile) -> bool {
        #[cfg(test)]
        if self.trusts {
            return true;
        }
        if self.signed.as_ref() == Some(profile) {
            return true;
        }
        let own = self.may_check(now, teller) && profile.is_signed_by(&self.key, &self.mesh);
        if !own {
            self.blame(now, *teller);
        }
        own
    }

    /// Checks what the member `key` is told to have said: first what costs least.
    ///
    /// # Errors
    /// [`ProfileRefusal`].
    pub(super) fn check(
        &mut self,
        now: Instant,
        teller: &PublicKey,
        key: &PublicKey,
        profile: &mut SignedProfile,
    ) -> Result<(), ProfileRefusal> {
        #[cfg(test)]
        if self.trusts {
            let trusted = super::profile::tests::said(0, false, 0, Meta::default());
            profile.check_off((trusted.grant().expect("it counts as checked").clone(), Arc::new([])));
            return Ok(());
        }
        let known = self.known.get(&profile.said().pass).cloned();
        let unchecked = match &known {
            Some(_) => None,
            None => match Pass::read(profile.pass()) {
                Ok(pass) => Some(pass),
                // A later program knows it.
                Err(PassError::Version(_)) => return Err(ProfileRefusal::Forged),
                Err(_) => return Err(self.forged(now, teller)),
            },
        };
        let grant = match (&known, &unchecked) {
            (Some((grant, _)), _) => grant.as_ref(),
            (None, Some(pass)) => pass.grant(),
            (None, None) => return Err(ProfileRefusal::Forged),
        };
        if grant.key != *key {
            return Err(self.forged(now, teller));
        }
        if grant.level < Level::Member {
            return Err(ProfileRefusal::BelowMember);
        }
        if self.revocations.revokes(grant) {
            return Err(ProfileRefusal::Revoked);
        }
        if !self.may_check(now, teller) {
            return Err(ProfileRefusal::Limited);
        }
        let pass = match (known, unchecked) {
            (Some(pass), _) => pass,
            (None, pass) => match pass.and_then(|pass| pass.verify(&self.mesh).ok()) {
                Some(pass) => self.remember(pass),
                None => return Err(self.forged(now, teller)),
            },
        };
        if !profile.is_signed_by(key, &self.mesh) {
            return Err(self.forged(now, teller));
        }
        profile.check_off(pass);
        Ok(())
    }

    fn remember(&mut self, pass: Pass) -> KnownPass {
        if self.order.len() >= MAX_KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        let hash = pass.hash();
        let known: KnownPass = (Arc::new(pass.grant().clone()), pass.as_bytes().into());
        self.known.insert(hash, known.clone());
        self.order.push_back(hash);
        known
    }

    /// Whether a teller may cause a check: anybody who has told no bad signature lately, and a forger within bounds.
    fn may_check(&mut self, now: Instant, teller: &PublicKey) -> bool {
        let Some(checks) = self.forgers.get_mut(teller) else { return true };
        if checks.is_full(now) {
            self.forgers.remove(teller);
            return true;
        }
        checks.take(now, 1)
    }

    fn forged(&mut self, now: Instant, teller: &PublicKey) -> ProfileRefusal {
        self.blame(now, *teller);
        ProfileRefusal::Forged
    }

    /// A teller has told a bad signature.
    fn blame(&mut self, now: Instant, teller: PublicKey) {
        if self.forgers.contains_key(&teller) {
            return;
        }
        if self.forgers.len() >= MAX_FORGERS {
            self.forgers.retain(|_, checks| !checks.is_full(now));
        }
        if self.forgers.len() >= MAX_FORGERS {
            self.forgers.pop_first();
        }
        let (burst, per_second) = FORGER_CHECKS;
        let mut checks = TokenBucket::new(per_second, burst, now);
        checks.take(now, 1);
        self.forgers.insert(teller, checks);
    }
}
