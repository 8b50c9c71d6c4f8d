//! The fencing token.

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};

use crate::key::PublicKey;

/// The length of an encoded epoch.
pub const EPOCH_LEN: usize = 40;

/// A *tenure* of one key: ordered by counter, then by owner, so tokens of two nodes are never equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// 1 + the highest counter that the owner had seen when its tenure began.
    pub counter: u64,
    /// The node that acts for the key.
    pub owner: PublicKey,
}

impl Epoch {
    /// Below every epoch that a node takes, since counters begin at 1.
    pub const ZERO: Epoch = Epoch { counter: 0, owner: PublicKey::from_bytes([0; 32]) };

    /// `counter:8 (big-endian) ‖ owner:32`: bytes compare as epochs do.
    pub fn to_bytes(&self) -> [u8; EPOCH_LEN] {
        let mut bytes = [0; EPOCH_LEN];
        bytes[..8].copy_from_slice(&self.counter.to_be_bytes());
        bytes[8..].copy_from_slice(self.owner.as_bytes());
        bytes
    }

    /// The inverse. Any 40 bytes decode to an epoch; the receiver still has to check its counter.
    pub fn from_slice(bytes: &[u8]) -> Option<Epoch> {
        let bytes: &[u8; EPOCH_LEN] = bytes.try_into().ok()?;
        let (counter, owner) = bytes.split_at(8);
        Some(Epoch {
            counter: u64::from_be_bytes(counter.try_into().ok()?),
            owner: PublicKey::from_slice(owner)?,
        })
    }
}

/// In messages: `[counter, owner]`.
impl<C> minicbor::Encode<C> for Epoch {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.array(2)?.u64(self.counter)?.bytes(self.owner.as_bytes())?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Epoch {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        if d.array()? != Some(2) {
            return Err(DecodeError::message("an epoch is a counter and a key"));
        }
        let counter = d.u64()?;
        let owner =
            PublicKey::from_slice(d.bytes()?).ok_or_else(|| DecodeError::message("a key has 32 bytes"))?;
        Ok(Epoch { counter, owner })
    }
}
