//! A short standing for a throwaway key, signed by the holder of a pass.
//!
//! `1, level:1, not after:4, key:32, signature:64`, integers little-endian; 102 bytes. The signature is the holder's
//! ([`peer_signature`]) over all that is before it. It is presented with the holder's pass, whose
//! limits, shares and revocation count for it.

use super::level::Level;
use super::pass::{GRACE, Grant};
use super::{SIGNATURE_LEN, UnixSeconds, peer_signature};
use crate::key::{PublicKey, SecretKey};
use crate::kit::reader::Reader;
use crate::mesh::MeshId;

/// The length of a slip in bytes.
pub const SLIP_BYTES: usize = 1 + 1 + 4 + 32 + SIGNATURE_LEN;

/// The longest life of a slip: one call of the command, long ones included.
pub const MAX_LIFE: UnixSeconds = 60 * 60;

const VERSION: u8 = 1;
const LABEL: &[u8] = b"nurl/2 slip";

/// What a slip says, after it was checked with its holder's pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slip {
    /// The throwaway key.
    pub key: PublicKey,
    /// What it may do: at most [`Level::Submit`], and at most what its holder may.
    pub level: Level,
    /// The last second for which it counts.
    pub not_after: UnixSeconds,
}

impl Slip {
    /// Signs a slip with the key of the pass's holder.
    pub fn sign(&self, holder: &SecretKey, mesh: &MeshId) -> [u8; SLIP_BYTES] {
        let mut out = [0; SLIP_BYTES];
        (out[0], out[1]) = (VERSION, self.level.to_byte());
        out[2..6].copy_from_slice(&self.not_after.to_le_bytes());
        out[6..38].copy_from_slice(self.key.as_bytes());
        let signature = peer_signature::sign(holder, LABEL, mesh, &out[..38]);
        out[38..].copy_from_slice(&signature);
        out
    }

    /// Reads a slip that the holder of `pass` signed. `None`: malformed, beyond what the pass permits, ended or valid for
    /// too long at `now`, or not signed by the holder.
    pub fn decode(mesh: &MeshId, pass: &Grant, now: UnixSeconds, bytes: &[u8; SLIP_BYTES]) -> Option<Slip> {
        let (body, signature) = bytes.split_last_chunk::<SIGNATURE_LEN>()?;
        let mut reader = Reader(body);
        let version = reader.u8()?;
        let level = Level::from_byte(reader.u8()?)?;
        let slip = Slip { level, not_after: reader.u32()?, key: PublicKey::from_bytes(reader.array()?) };
        let permitted = version == VERSION
            && level <= Level::Submit.min(pass.level)
            && now <= slip.not_after.saturating_add(GRACE)
            && slip.not_after <= now.saturating_add(MAX_LIFE).saturating_add(GRACE);
        (permitted && peer_signature::verify(&pass.key, LABEL, mesh, body, signature)).then_some(slip)
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::AuthorityKey;
    use super::*;
    use rand_core::SeedableRng;

    #[test]
    fn a_slip_is_its_holders_and_permits_no_more_than_its_pass() {
        let mut rng = crate::rt::Rng::from_seed([4; 32]);
        let mesh = AuthorityKey::generate(&mut rng).mesh();
        let (holder, other) = (SecretKey::generate(&mut rng), SecretKey::generate(&mut rng));
        let pass = |level| Grant {
            key: holder.public(),
            name: String::new(),
            level,
            weight: 1,
            zone: String::new(),
            invitation: None,
            ring_seed: [0; 8],
            issued: 0,
            not_after: 1_000_000,
        };
        let slip = Slip { key: PublicKey::from_bytes([7; 32]), level: Level::Submit, not_after: 500_000 };
        let bytes = slip.sign(&holder, &mesh);
        assert_eq!(Slip::decode(&mesh, &pass(Level::Worker), 499_000, &bytes), Some(slip));
        assert_eq!(Slip::decode(&mesh, &pass(Level::Look), 499_000, &bytes), None, "its pass permits less");
        assert_eq!(Slip::decode(&mesh, &pass(Level::Worker), 500_001 + GRACE, &bytes), None, "it has ended");
        let early = 500_000 - MAX_LIFE - GRACE - 1;
        assert_eq!(
            Slip::decode(&mesh, &pass(Level::Worker), early, &bytes),
            None,
            "it is valid for too long"
        );
        let stolen = slip.sign(&other, &mesh);
        assert_eq!(Slip::decode(&mesh, &pass(Level::Worker), 499_000, &stolen), None, "another signed it");
        let member = Slip { level: Level::Member, ..slip }.sign(&holder, &mesh);
        assert_eq!(Slip::decode(&mesh, &pass(Level::Worker), 499_000, &member), None, "no slip is a member");
        for at in 0..SLIP_BYTES {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert_eq!(Slip::decode(&mesh, &pass(Level::Worker), 499_000, &changed), None, "byte {at}");
        }
    }
}
