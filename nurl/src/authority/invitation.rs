//! A ticket's right to enrol new keys.
//!
//! The issuer keeps no list of secrets: it derives an invitation's secret from the authority's key and from what the
//! invitation says. A newcomer proves that it has the secret by a MAC, so that the secret never travels.

use std::time::Duration;

use rand_core::Rng as _;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::UnixSeconds;
use super::key::AuthorityKey;
use super::level::Level;
use super::pass::{DAY, MAX_WEIGHT, MAX_ZONE_BYTES};
use crate::key::PublicKey;
use crate::kit::reader::Reader;
use crate::rt::Rng;

/// The longest life of an invitation.
pub const MAX_LIFE: UnixSeconds = 90 * DAY;

/// The most keys that one invitation can enrol, if nothing else is said.
pub const DEFAULT_KEYS: u16 = 64;

/// The longest encoding of an invitation's terms in bytes.
pub const MAX_TERMS_BYTES: usize = 8 + 1 + 1 + 4 + 2 + 1 + MAX_ZONE_BYTES;

/// Names an invitation: 8 random bytes, not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InvitationId(pub [u8; 8]);

impl InvitationId {
    /// In a pass: the peer was admitted by hand.
    pub(super) const NONE: InvitationId = InvitationId([0; 8]);

    /// Draws a name.
    pub fn draw(rng: &mut Rng) -> InvitationId {
        // Never all zeros: the lowest bit is set.
        InvitationId((rng.next_u64() | 1).to_le_bytes())
    }
}

/// 16 hexadecimal digits.
impl std::fmt::Display for InvitationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for InvitationId {
    type Err = NotAnInvitationId;

    fn from_str(text: &str) -> Result<InvitationId, NotAnInvitationId> {
        let hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|number| hex && *number != 0);
        number.map(|number| InvitationId(number.to_be_bytes())).ok_or(NotAnInvitationId)
    }
}

/// A text names no invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the 16 hexadecimal digits of an invitation, as `nurl mesh list` shows them")]
pub struct NotAnInvitationId;

/// What an invitation grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The invitation.
    pub id: InvitationId,
    /// The level of its passes.
    pub level: Level,
    /// The weight of its passes.
    pub weight: u8,
    /// The zone of its passes; empty: none.
    pub zone: String,
    /// The last second at which it enrols.
    pub until: UnixSeconds,
    /// How many keys it enrols.
    pub keys: u16,
}

/// An invitation as a ticket holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    /// What it grants.
    pub terms: Terms,
    secret: Zeroizing<[u8; 32]>,
}

impl Terms {
    /// The encoding: `id:8, level:1, weight:1, until:4, keys:2, zone length:1, zone`, integers little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAX_TERMS_BYTES);
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&[self.level.to_byte(), self.weight]);
        out.extend_from_slice(&self.until.to_le_bytes());
        out.extend_from_slice(&self.keys.to_le_bytes());
        out.push(self.zone.len() as u8);
        out.extend_from_slice(self.zone.as_bytes());
        out
    }

    /// Reads terms off the front of `reader`. `None`: they are malformed or out of bounds.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Terms> {
        let id = InvitationId(reader.array()?);
        let level = Level::from_byte(reader.u8()?)?;
        let (weight, until, keys) = (reader.u8()?, reader.u32()?, reader.u16()?);
        let len = usize::from(reader.u8()?);
        let zone = std::str::from_utf8(reader.slice(len)?).ok()?.to_owned();
        Some(Terms { id, level, weight, zone, until, keys }).filter(Terms::is_within_bounds)
    }

    fn is_within_bounds(&self) -> bool {
        self.id != InvitationId::NONE
            && (1..=MAX_WEIGHT).contains(&self.weight)
            && self.zone.len() <= MAX_ZONE_BYTES
            && self.keys > 0
            && self.level != Level::Issuer
    }

    /// The invitation with these terms, as its issuer makes it. `None`: they are out of bounds. An issuer is admitted by
    /// hand, never by an invitation.
    pub fn invite(self, authority: &AuthorityKey) -> Option<Invitation> {
        let secret = self.secret(authority);
        self.is_within_bounds().then_some(Invitation { terms: self, secret })
    }

    fn secret(&self, authority: &AuthorityKey) -> Zeroizing<[u8; 32]> {
        let base = Zeroizing::new(blake3::derive_key("nurl/2 invitation secret", authority.seed()));
        Zeroizing::new(*blake3::keyed_hash(&base, &self.encode()).as_bytes())
    }
}

impl Invitation {
    /// The one in a new mesh's first ticket: [`DEFAULT_KEYS`] workers of any weight, for [`MAX_LIFE`].
    pub fn standard(authority: &AuthorityKey, unix_now: Duration, rng: &mut Rng) -> Invitation {
        Invitation::for_keys(DEFAULT_KEYS, authority, unix_now, rng)
    }

    /// The same for another number of keys, at least one.
    pub fn for_keys(keys: u16, authority: &AuthorityKey, unix_now: Duration, rng: &mut Rng) -> Invitation {
        let now = UnixSeconds::try_from(unix_now.as_secs()).unwrap_or(UnixSeconds::MAX);
        let id = InvitationId::draw(rng);
        let until = now.saturating_add(MAX_LIFE);
        let terms = Terms {
            id,
            level: Level::Worker,
            weight: MAX_WEIGHT,
            zone: String::new(),
            until,
            keys: keys.max(1),
        };
        terms.invite(authority).expect("these terms are within their bounds")
    }

    /// Takes an invitation's parts, as a ticket holds them.
    pub fn from_parts(terms: Terms, secret: [u8; 32]) -> Invitation {
        Invitation { terms, secret: Zeroizing::new(secret) }
    }

    /// The secret, for the ticket. The caller must zeroize any copy.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The proof that `key` has the invitation. It holds for this key and this request alone.
    pub fn prove(&self, key: &PublicKey, request: &[u8]) -> [u8; 32] {
        proof(&self.secret, &self.terms, key, request)
    }
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation").field("terms", &self.terms).finish_non_exhaustive()
    }
}

/// Whether `key` has the invitation with these terms, as the issuer checks it.
pub fn is_proved(
    authority: &AuthorityKey,
    terms: &Terms,
    key: &PublicKey,
    request: &[u8],
    given: &[u8; 32],
) -> bool {
    proof(&terms.secret(authority), terms, key, request).ct_eq(given).into()
}

fn proof(secret: &[u8; 32], terms: &Terms, key: &PublicKey, request: &[u8]) -> [u8; 32] {
    let terms = terms.encode();
    let mut hasher = blake3::Hasher::new_keyed(secret);
    // The lengths keep the parts apart; the key's is fixed.
    hasher.update(&[terms.len() as u8]).update(&terms).update(key.as_bytes()).update(request);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn terms() -> Terms {
        Terms {
            id: InvitationId([1; 8]),
            level: Level::Worker,
            weight: 2,
            zone: "attic".into(),
            until: 90 * DAY,
            keys: DEFAULT_KEYS,
        }
    }

    #[test]
    fn the_issuer_checks_a_proof_from_the_terms_alone() {
        let (ours, theirs) = (AuthorityKey::from_seed(&[1; 32]), AuthorityKey::from_seed(&[2; 32]));
        let (key, other) = (PublicKey::from_bytes([3; 32]), PublicKey::from_bytes([4; 32]));
        let invitation = terms().invite(&ours).unwrap();
        let proof = invitation.prove(&key, b"request");
        assert!(is_proved(&ours, &terms(), &key, b"request", &proof));
        assert!(!is_proved(&ours, &terms(), &other, b"request", &proof));
        assert!(!is_proved(&ours, &terms(), &key, b"another", &proof));
        assert!(!is_proved(&theirs, &terms(), &key, b"request", &proof));
        let better = Terms { level: Level::Worker, weight: MAX_WEIGHT, ..terms() };
        assert!(!is_proved(&ours, &better, &key, b"request", &proof), "no term can be changed");
        let from_ticket = Invitation::from_parts(terms(), *invitation.secret());
        assert_eq!(from_ticket, invitation);
    }

    #[test]
    fn an_invitation_makes_no_issuer_and_stays_within_its_bounds() {
        let authority = AuthorityKey::from_seed(&[1; 32]);
        let bad = [
            Terms { level: Level::Issuer, ..terms() },
            Terms { keys: 0, ..terms() },
            Terms { weight: MAX_WEIGHT + 1, ..terms() },
            Terms { zone: "z".repeat(MAX_ZONE_BYTES + 1), ..terms() },
            Terms { id: InvitationId::NONE, ..terms() },
        ];
        for terms in bad {
            assert_eq!(Terms::decode(&mut Reader(&terms.encode())), None, "{terms:?}");
            assert_eq!(terms.invite(&authority), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic_and_have_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader(&bytes);
            if let Some(terms) = Terms::decode(&mut reader) {
                let len = bytes.len() - reader.rest().len();
                prop_assert_eq!(terms.encode(), &bytes[..len]);
            }
        }
    }
}
