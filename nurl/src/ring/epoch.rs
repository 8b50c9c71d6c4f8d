//! The fencing token.

use std::fmt;
use std::str::FromStr;

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};

use crate::key::PublicKey;

/// The length of an encoded epoch.
pub const EPOCH_LEN: usize = 40;

/// A text that isn't a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token has 80 hexadecimal digits")]
pub struct NotAToken;

/// A *tenure* of one key: ordered by counter, then by owner, so tokens of two nodes are never equal.
///
/// As text it is one word of 80 lower-case hexadecimal digits, the bytes of [`to_bytes`](Epoch::to_bytes): of two
/// tokens the higher one sorts later.
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

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Epoch {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Epoch, NotAToken> {
        // The number's own parser would take a sign.
        if text.len() != 2 * EPOCH_LEN || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NotAToken);
        }
        let mut bytes = [0; EPOCH_LEN];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| NotAToken)?;
        }
        Epoch::from_slice(&bytes).ok_or(NotAToken)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_that_sorts_as_the_token_does() {
        let token = |counter, owner| Epoch { counter, owner: PublicKey::from_bytes([owner; 32]) };
        let ascending =
            [Epoch::ZERO, token(1, 9), token(15, 1), token(16, 0), token(16, 1), token(u64::MAX, 0xff)];
        let words: Vec<String> = ascending.iter().map(Epoch::to_string).collect();
        assert!(words.is_sorted());
        for (word, token) in words.iter().zip(ascending) {
            assert_eq!(word.parse(), Ok(token));
            assert_eq!(word.to_uppercase().parse(), Ok(token));
        }
        let word = &words[3];
        for wrong in
            ["", &word[1..], &format!("{word}0"), &format!("+{}", &word[1..]), &word.replace('1', "ä")]
        {
            assert_eq!(wrong.parse::<Epoch>(), Err(NotAToken), "{wrong}");
        }
    }
}
