//! The content of a record, sealed so that only the mesh can read it.
//!
//! Sealed: `nonce:24 ‖ XChaCha20-Poly1305 ‖ tag:16` under [`Generation::record`], with
//! `"nurl/2 record" ‖ key:32 ‖ seq:8` as associated data: a hub can't present one member's record as another's,
//! nor an old one as new. The plaintext, little-endian:
//! `version:1 = 1, expires_unix_s:8, capabilities:4, home:1 (0 or 1), [home_key:32], count:1, candidates`,
//! each candidate `family:1 (4 or 6), ip:4 or 16, port:2`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand_core::CryptoRng;

use super::{MAX_CANDIDATES, MAX_RECORD_BYTES};
use crate::key::PublicKey;
use crate::kit::reader::Reader;
use crate::mesh::Generation;

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
const LABEL: &[u8] = b"nurl/2 record";

/// The longest lifetime that a record may carry itself, independent of the hub: a dishonest hub can serve an old record
/// at most so long. Publishers choose a third of it and seal anew well before; clocks that differ by minutes don't
/// matter.
pub const MAX_RECORD_LIFE: Duration = Duration::from_secs(3600);

/// The data that a member publishes about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The addresses for a direct path; at most [`MAX_CANDIDATES`].
    pub candidates: Vec<SocketAddr>,
    /// The member's preferred hub.
    pub home: Option<PublicKey>,
    /// Bits whose meaning the layers above define.
    pub capabilities: u32,
    /// The wall-clock time of the record's end, in whole seconds since 1970, by the publisher's clock.
    pub expires: Duration,
}

/// Why a record can't be sealed or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// More than [`MAX_CANDIDATES`].
    #[error("a record holds at most {MAX_CANDIDATES} candidates, not {0}")]
    TooManyCandidates(usize),
    /// No generation's key opens it: another mesh, an older secret, or changed bytes.
    #[error("the record isn't sealed by this mesh for this key")]
    Sealed,
    /// The seal opens, but the content isn't a record.
    #[error("the record's content is malformed")]
    Malformed,
    /// The record's lifetime is over.
    #[error("the record has expired")]
    Expired,
}

impl Record {
    /// Seals the record of `key` under a generation of the mesh's secret.
    ///
    /// # Errors
    /// [`RecordError::TooManyCandidates`].
    pub fn seal(
        &self,
        generation: &Generation,
        key: &PublicKey,
        seq: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, RecordError> {
        if self.candidates.len() > MAX_CANDIDATES {
            return Err(RecordError::TooManyCandidates(self.candidates.len()));
        }
        let mut sealed = vec![0; NONCE_BYTES];
        rng.fill_bytes(&mut sealed);
        let plaintext = self.to_bytes();
        let body = XChaCha20Poly1305::new((&*generation.record).into())
            .encrypt(XNonce::from_slice(&sealed), Payload { msg: &plaintext, aad: &associated(key, seq) })
            .map_err(|_| RecordError::Sealed)?;
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens the output of [`seal`](Record::seal), with the first generation whose key fits.
    ///
    /// # Errors
    /// All of [`RecordError`]; [`RecordError::Expired`] by the wall clock `unix_now`.
    pub fn open(
        generations: &[Generation],
        key: &PublicKey,
        seq: u64,
        sealed: &[u8],
        unix_now: Duration,
    ) -> Result<Record, RecordError> {
        if sealed.len() > MAX_RECORD_BYTES {
            return Err(RecordError::Malformed);
        }
        let (nonce, body) = sealed.split_at_checked(NONCE_BYTES).ok_or(RecordError::Malformed)?;
        let aad = associated(key, seq);
        let plaintext = generations
            .iter()
            .find_map(|generation| {
                XChaCha20Poly1305::new((&*generation.record).into())
                    .decrypt(XNonce::from_slice(nonce), Payload { msg: body, aad: &aad })
                    .ok()
            })
            .ok_or(RecordError::Sealed)?;
        let record = Record::from_bytes(&plaintext).ok_or(RecordError::Malformed)?;
        if record.expires <= unix_now {
            return Err(RecordError::Expired);
        }
        Ok(record)
    }

    /// The content, as it is sealed.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.expires.as_secs().to_le_bytes());
        out.extend_from_slice(&self.capabilities.to_le_bytes());
        match &self.home {
            Some(home) => {
                out.push(1);
                out.extend_from_slice(home.as_bytes());
            }
            None => out.push(0),
        }
        out.push(self.candidates.len() as u8);
        for candidate in &self.candidates {
            match candidate.ip() {
                IpAddr::V4(ip) => {
                    out.push(4);
                    out.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    out.push(6);
                    out.extend_from_slice(&ip.octets());
                }
            }
            out.extend_from_slice(&candidate.port().to_le_bytes());
        }
        out
    }

    /// Reads the content. `None`: it is malformed.
    pub fn from_bytes(bytes: &[u8]) -> Option<Record> {
        let mut rest = Reader(bytes);
        if rest.u8()? != VERSION {
            return None;
        }
        let expires = Duration::from_secs(rest.u64()?);
        let capabilities = rest.u32()?;
        let home = match rest.u8()? {
            0 => None,
            1 => Some(PublicKey::from_bytes(rest.array()?)),
            _ => return None,
        };
        let count = usize::from(rest.u8()?);
        if count > MAX_CANDIDATES {
            return None;
        }
        let mut candidates = Vec::with_capacity(count);
        for _ in 0..count {
            let ip = match rest.u8()? {
                4 => IpAddr::V4(Ipv4Addr::from(rest.array::<4>()?)),
                6 => IpAddr::V6(Ipv6Addr::from(rest.array::<16>()?)),
                _ => return None,
            };
            candidates.push(SocketAddr::new(ip, rest.u16()?));
        }
        rest.end(Record { candidates, home, capabilities, expires })
    }
}

fn associated(key: &PublicKey, seq: u64) -> Vec<u8> {
    [LABEL, key.as_bytes(), &seq.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::{Hub, Ticket};
    use crate::rt;
    use proptest::prelude::*;
    use rand_core::SeedableRng;

    fn rng() -> rt::Rng {
        rt::Rng::from_seed([3; 32])
    }

    fn generations(seed: u8) -> Vec<Generation> {
        let hub = Hub { key: PublicKey::from_bytes([1; 32]), addr: "h:1".into() };
        let mesh = crate::mesh::MeshId::from_bytes([seed; 32]);
        Ticket::generate(mesh, hub, &mut rt::Rng::from_seed([seed; 32])).generations()
    }

    fn record() -> Record {
        Record {
            candidates: vec!["192.0.2.1:4242".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap()],
            home: Some(PublicKey::from_bytes([5; 32])),
            capabilities: 0x8000_0001,
            expires: Duration::from_secs(1_000),
        }
    }

    const ALICE: PublicKey = PublicKey::from_bytes([7; 32]);
    const BOB: PublicKey = PublicKey::from_bytes([8; 32]);
    const BEFORE: Duration = Duration::from_secs(999);

    #[test]
    fn a_record_opens_for_its_mesh_its_key_and_its_number_only() {
        let mine = generations(1);
        let sealed = record().seal(&mine[0], &ALICE, 5, &mut rng()).unwrap();
        assert_eq!(Record::open(&mine, &ALICE, 5, &sealed, BEFORE), Ok(record()));
        assert_eq!(Record::open(&mine, &BOB, 5, &sealed, BEFORE), Err(RecordError::Sealed));
        assert_eq!(Record::open(&mine, &ALICE, 6, &sealed, BEFORE), Err(RecordError::Sealed));
        assert_eq!(Record::open(&generations(2), &ALICE, 5, &sealed, BEFORE), Err(RecordError::Sealed));
        let both = [generations(2), mine].concat();
        assert_eq!(Record::open(&both, &ALICE, 5, &sealed, BEFORE), Ok(record()));
        assert!(!sealed.windows(4).any(|window| window == [192, 0, 2, 1]));
    }

    #[test]
    fn a_record_past_its_life_is_refused_whatever_the_hub_says() {
        let mine = generations(1);
        let sealed = record().seal(&mine[0], &ALICE, 5, &mut rng()).unwrap();
        let later = Duration::from_secs(1_000);
        assert_eq!(Record::open(&mine, &ALICE, 5, &sealed, later), Err(RecordError::Expired));
    }

    #[test]
    fn sixteen_candidates_fit_and_one_more_is_a_typed_error() {
        let mine = generations(1);
        let mut record = record();
        record.candidates = vec!["[2001:db8::1]:1".parse().unwrap(); MAX_CANDIDATES];
        let sealed = record.seal(&mine[0], &ALICE, 1, &mut rng()).unwrap();
        assert!(sealed.len() < MAX_RECORD_BYTES);
        assert_eq!(Record::open(&mine, &ALICE, 1, &sealed, BEFORE), Ok(record.clone()));
        record.candidates.push("192.0.2.1:1".parse().unwrap());
        assert_eq!(
            record.seal(&mine[0], &ALICE, 1, &mut rng()),
            Err(RecordError::TooManyCandidates(MAX_CANDIDATES + 1))
        );
    }

    #[test]
    fn a_truncated_record_is_refused_and_not_filled_up() {
        let whole = record().to_bytes();
        assert_eq!(Record::from_bytes(&whole), Some(record()));
        for cut in 0..whole.len() {
            assert_eq!(Record::from_bytes(&whole[..cut]), None);
        }
    }

    proptest! {
        #[test]
        fn any_content_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(record) = Record::from_bytes(&bytes) {
                prop_assert_eq!(record.to_bytes(), bytes);
            }
        }

        #[test]
        fn any_sealed_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Record::open(&generations(1), &ALICE, 1, &bytes, BEFORE).is_err());
        }
    }
}
