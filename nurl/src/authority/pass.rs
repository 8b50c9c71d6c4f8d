//! A peer's standing in the mesh, signed by the authority.
//!
//! `1, level:1, weight:1, invitation:8, ring seed:8, issued:4, not after:4, key:32, name length:1, name, zone length:1,
//! zone, signature:64`, integers little-endian; the signature is over all that is before it. At most 192 bytes.

use bech32::{Bech32m, Hrp};

use super::invitation::InvitationId;
use super::key::{self, AuthorityKey};
use super::level::Level;
use super::{SIGNATURE_LEN, UnixSeconds};
use crate::key::{PublicKey, decode_text};
use crate::kit::reader::Reader;
use crate::mesh::MeshId;

/// The longest pass in bytes: two of them fit a handshake message beside its keys.
pub const MAX_PASS_BYTES: usize = 192;

/// The longest name of a peer in a pass, in bytes.
pub const MAX_NAME_BYTES: usize = 40;

/// The longest zone in a pass, in bytes.
pub const MAX_ZONE_BYTES: usize = 24;

/// The largest weight that a pass can permit: a member's share of the ring is at most so many times another's.
pub const MAX_WEIGHT: u8 = 8;

/// A pass that would be valid for longer is invalid: revocations, which are kept for 200 days, outlive each pass and its
/// renewal.
pub const MAX_LIFE: UnixSeconds = 90 * DAY;

/// How long after its end a gate still takes a pass: clocks differ.
pub const GRACE: UnixSeconds = DAY;

pub(super) const DAY: UnixSeconds = 24 * 60 * 60;

const VERSION: u8 = 1;
const LABEL: &[u8] = b"nurl/2 pass";

/// The prefix of the text form.
const TEXT_HRP: &str = "nurlpass";

/// What the authority says about a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The peer.
    pub key: PublicKey,
    /// Its name, of at most [`MAX_NAME_BYTES`], for people; not unique.
    pub name: String,
    /// What it may do.
    pub level: Level,
    /// The largest weight on the ring that it may claim, at most [`MAX_WEIGHT`].
    pub weight: u8,
    /// The only zone that it may claim, of at most [`MAX_ZONE_BYTES`]; empty: none.
    pub zone: String,
    /// The invitation by which it came; `None`: it was admitted by hand.
    pub invitation: Option<InvitationId>,
    /// Drawn by the issuer, and kept when the pass is renewed: the peer's points on the ring come from it, so no peer
    /// chooses its place by grinding keys.
    pub ring_seed: [u8; 8],
    /// When it was signed.
    pub issued: UnixSeconds,
    /// The last second for which it counts.
    pub not_after: UnixSeconds,
}

/// A signed [`Grant`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    grant: Grant,
    bytes: Vec<u8>,
}

/// Names a pass: the hash of its grant. The signature is left out, since one grant can have several valid ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PassHash(pub [u8; 32]);

impl PassHash {
    /// The name of the pass with this encoding, checked or not.
    pub fn of(pass: &[u8]) -> PassHash {
        let body = &pass[..pass.len().saturating_sub(SIGNATURE_LEN)];
        PassHash(blake3::derive_key("nurl/2 pass hash", body))
    }
}

/// Why bytes are no pass of a mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PassError {
    /// A field is missing, out of its bounds, or followed by something.
    #[error("the pass is malformed")]
    Malformed,
    /// It was made for a later version of this program.
    #[error("the pass has version {0}: update this program")]
    Version(u8),
    /// The authority of this mesh didn't sign it.
    #[error("the pass isn't signed by this mesh's authority")]
    Signature,
}

impl Grant {
    /// A grant without a name, a zone or an invitation, of weight 1.
    pub fn new(key: PublicKey, level: Level, issued: UnixSeconds, not_after: UnixSeconds) -> Grant {
        Grant {
            key,
            name: String::new(),
            level,
            weight: 1,
            zone: String::new(),
            invitation: None,
            ring_seed: [0; 8],
            issued,
            not_after,
        }
    }

    /// Signs the grant.
    ///
    /// # Errors
    /// [`PassError::Malformed`] if a field is out of its bounds.
    pub fn sign(self, authority: &AuthorityKey) -> Result<Pass, PassError> {
        if !self.is_within_bounds() {
            return Err(PassError::Malformed);
        }
        let mut bytes = self.encode();
        let signature = authority.sign(LABEL, &bytes);
        bytes.extend_from_slice(&signature);
        Ok(Pass { grant: self, bytes })
    }

    fn is_within_bounds(&self) -> bool {
        self.name.len() <= MAX_NAME_BYTES
            && self.zone.len() <= MAX_ZONE_BYTES
            && (1..=MAX_WEIGHT).contains(&self.weight)
            && self.not_after.checked_sub(self.issued).is_some_and(|life| life <= MAX_LIFE)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAX_PASS_BYTES);
        out.extend_from_slice(&[VERSION, self.level.to_byte(), self.weight]);
        out.extend_from_slice(&self.invitation.unwrap_or(InvitationId::NONE).0);
        out.extend_from_slice(&self.ring_seed);
        out.extend_from_slice(&self.issued.to_le_bytes());
        out.extend_from_slice(&self.not_after.to_le_bytes());
        out.extend_from_slice(self.key.as_bytes());
        for text in [&self.name, &self.zone] {
            out.push(text.len() as u8);
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Grant, PassError> {
        let mut reader = Reader(bytes);
        match reader.u8() {
            Some(VERSION) => Grant::decode_fields(reader).ok_or(PassError::Malformed),
            Some(version) => Err(PassError::Version(version)),
            None => Err(PassError::Malformed),
        }
    }

    fn decode_fields(mut reader: Reader<'_>) -> Option<Grant> {
        let level = Level::from_byte(reader.u8()?)?;
        let weight = reader.u8()?;
        let invitation = InvitationId(reader.array()?);
        let ring_seed = reader.array()?;
        let (issued, not_after) = (reader.u32()?, reader.u32()?);
        let key = PublicKey::from_bytes(reader.array()?);
        let mut text = || {
            let len = usize::from(reader.u8()?);
            Some(std::str::from_utf8(reader.slice(len)?).ok()?.to_owned())
        };
        let (name, zone) = (text()?, text()?);
        let grant = Grant {
            key,
            name,
            level,
            weight,
            zone,
            invitation: (invitation != InvitationId::NONE).then_some(invitation),
            ring_seed,
            issued,
            not_after,
        };
        reader.end(grant).filter(Grant::is_within_bounds)
    }
}

/// A pass whose signature isn't checked yet.
pub(crate) struct UncheckedPass(Pass);

impl UncheckedPass {
    pub(crate) fn grant(&self) -> &Grant {
        self.0.grant()
    }

    pub(super) fn hash(&self) -> PassHash {
        self.0.hash()
    }

    pub(super) fn is_current(&self, now: UnixSeconds) -> bool {
        self.0.is_current(now)
    }

    /// Checks the signature of the mesh's authority.
    pub(crate) fn verify(self, mesh: &MeshId) -> Result<Pass, PassError> {
        let Some((body, signature)) = self.0.bytes.split_last_chunk::<SIGNATURE_LEN>() else {
            return Err(PassError::Malformed);
        };
        if !key::verify(mesh, LABEL, body, signature) {
            return Err(PassError::Signature);
        }
        Ok(self.0)
    }

    /// Takes the pass without a check: its grant is known to be signed.
    pub(crate) fn trust(self) -> Pass {
        self.0
    }
}

impl Pass {
    /// Reads a pass and checks that the authority of `mesh` signed it. Whether it has ended or was revoked is for the
    /// caller to ask.
    ///
    /// # Errors
    /// [`PassError`].
    pub fn decode(mesh: &MeshId, bytes: &[u8]) -> Result<Pass, PassError> {
        Pass::read(bytes)?.verify(mesh)
    }

    /// The text form, `nurlpass1…` in bech32m. It is no secret.
    pub fn to_text(&self) -> String {
        bech32::encode::<Bech32m>(Hrp::parse_unchecked(TEXT_HRP), &self.bytes)
            .expect("a pass is short enough")
    }

    /// Reads the text form, as [`decode`](Pass::decode) reads bytes.
    ///
    /// # Errors
    /// [`PassError`].
    pub fn from_text(mesh: &MeshId, text: &str) -> Result<Pass, PassError> {
        let bytes = decode_text(text.trim(), TEXT_HRP).map_err(|_| PassError::Malformed)?;
        Pass::decode(mesh, &bytes)
    }

    /// Reads a pass. Its signature, which costs as much as a Diffie-Hellman, is still to be checked.
    pub(crate) fn read(bytes: &[u8]) -> Result<UncheckedPass, PassError> {
        if bytes.len() > MAX_PASS_BYTES {
            return Err(PassError::Malformed);
        }
        let body = bytes.len().checked_sub(SIGNATURE_LEN).ok_or(PassError::Malformed)?;
        let grant = Grant::decode(&bytes[..body])?;
        Ok(UncheckedPass(Pass { grant, bytes: bytes.to_vec() }))
    }

    /// What it says, without the signature.
    pub fn into_grant(self) -> Grant {
        self.grant
    }

    /// What it says.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Its encoding, at most [`MAX_PASS_BYTES`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its name.
    pub fn hash(&self) -> PassHash {
        PassHash::of(&self.bytes)
    }

    /// Whether a gate takes it at this time: until its end, and a day longer. No gate looks at when it was issued.
    pub fn is_current(&self, now: UnixSeconds) -> bool {
        now <= self.grant.not_after.saturating_add(GRACE)
    }

    /// Whether its holder asks for a new one: two thirds of its life are over.
    pub fn is_due_for_renewal(&self, now: UnixSeconds) -> bool {
        let life = self.grant.not_after - self.grant.issued;
        now >= self.grant.issued.saturating_add(life / 3 * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grant(name: &str, zone: &str) -> Grant {
        Grant {
            key: PublicKey::from_bytes([3; 32]),
            name: name.into(),
            level: Level::Worker,
            weight: 2,
            zone: zone.into(),
            invitation: Some(InvitationId([9; 8])),
            ring_seed: [5; 8],
            issued: 1_000,
            not_after: 1_000 + 30 * DAY,
        }
    }

    fn authority() -> AuthorityKey {
        AuthorityKey::from_seed(&[1; 32])
    }

    #[test]
    fn a_pass_comes_back_from_its_bytes_and_fits_also_at_its_largest() {
        let mesh = authority().mesh();
        for (name, zone) in
            [("", ""), ("nas", "attic"), (&*"n".repeat(MAX_NAME_BYTES), &*"z".repeat(MAX_ZONE_BYTES))]
        {
            let pass = grant(name, zone).sign(&authority()).unwrap();
            assert!(pass.as_bytes().len() <= MAX_PASS_BYTES, "{}", pass.as_bytes().len());
            assert_eq!(Pass::decode(&mesh, pass.as_bytes()), Ok(pass.clone()));
            assert_eq!(pass.grant(), &grant(name, zone));
        }
        let by_hand = Grant { invitation: None, ..grant("phone", "") }.sign(&authority()).unwrap();
        assert_eq!(Pass::decode(&mesh, by_hand.as_bytes()).unwrap().grant().invitation, None);
    }

    #[test]
    fn another_mesh_and_every_changed_byte_are_refused() {
        let pass = grant("nas", "attic").sign(&authority()).unwrap();
        let other = AuthorityKey::from_seed(&[2; 32]).mesh();
        assert_eq!(Pass::decode(&other, pass.as_bytes()), Err(PassError::Signature));
        for at in 0..pass.as_bytes().len() {
            let mut changed = pass.as_bytes().to_vec();
            changed[at] ^= 1;
            assert!(Pass::decode(&authority().mesh(), &changed).is_err(), "byte {at}");
        }
        let mut longer = pass.as_bytes().to_vec();
        longer.push(0);
        assert!(Pass::decode(&authority().mesh(), &longer).is_err());
        let later = [&[2], &pass.as_bytes()[1..]].concat();
        assert_eq!(Pass::decode(&authority().mesh(), &later), Err(PassError::Version(2)));
    }

    #[test]
    fn what_is_out_of_bounds_is_neither_signed_nor_taken() {
        let bad = [
            Grant { name: "n".repeat(MAX_NAME_BYTES + 1), ..grant("", "") },
            Grant { zone: "z".repeat(MAX_ZONE_BYTES + 1), ..grant("", "") },
            Grant { weight: 0, ..grant("", "") },
            Grant { weight: MAX_WEIGHT + 1, ..grant("", "") },
            Grant { not_after: 1_000 + MAX_LIFE + 1, ..grant("", "") },
            Grant { not_after: 999, ..grant("", "") },
        ];
        for grant in bad {
            let body = grant.encode();
            assert_eq!(grant.clone().sign(&authority()), Err(PassError::Malformed), "{grant:?}");
            let signed = [&body[..], &authority().sign(LABEL, &body)].concat();
            assert_eq!(Pass::decode(&authority().mesh(), &signed), Err(PassError::Malformed), "{grant:?}");
        }
    }

    #[test]
    fn a_pass_counts_a_day_beyond_its_end_and_is_renewed_from_two_thirds_on() {
        let pass = grant("", "").sign(&authority()).unwrap();
        let end = 1_000 + 30 * DAY;
        assert!(pass.is_current(0) && pass.is_current(end + DAY) && !pass.is_current(end + DAY + 1));
        assert!(!pass.is_due_for_renewal(1_000 + 20 * DAY - 1) && pass.is_due_for_renewal(1_000 + 20 * DAY));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..220)) {
            prop_assert!(Pass::decode(&authority().mesh(), &bytes).is_err());
            if let Ok(grant) = Grant::decode(&bytes) {
                prop_assert_eq!(grant.encode(), bytes);
            }
        }
    }
}
