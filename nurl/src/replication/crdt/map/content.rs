//! What stands under a dot of a map.

use super::super::clock::Stamp;
use super::super::codec::{Reader, put_bytes, put_number};
use super::super::sums::Sums;
use super::super::{CrdtError, Kind, MAX_ELEMENT_BYTES, MAX_SIBLING_BYTES, News};
use super::DOT_BYTES;

/// The longest value of a register in a map, of either kind.
pub(super) const MAX_VALUE_BYTES: usize = MAX_SIBLING_BYTES;

/// The content of a dot. All dots of a field have that of the field's kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    Counter(Sums),
    Register {
        stamp: Stamp,
        value: Vec<u8>,
    },
    /// An element of a set, or a value of a multi-value register.
    Bytes(Vec<u8>),
}

impl Content {
    /// Whether it shows anything.
    pub(super) fn is_present(&self) -> bool {
        !matches!(self, Content::Counter(sums) if sums.is_removed())
    }

    /// The join of two contents of one dot and field. Other contents than a counter's don't change; if a writer said
    /// two things, the greater one stays.
    pub(super) fn join(&self, other: &Content) -> Content {
        match (self, other) {
            (Content::Counter(one), Content::Counter(other)) => Content::Counter(one.join(other)),
            (one, other) => one.max(other).clone(),
        }
    }

    /// In what way this, the join, is news beside what is `held`. To remove what is held is no news: everybody may.
    pub(super) fn news_beside(&self, held: Option<&Content>) -> Option<News> {
        let Content::Counter(sums) = self else { return Some(News::Written) };
        let held = match held {
            Some(Content::Counter(held)) => *held,
            _ => Sums::default(),
        };
        sums.news_beside(&held)
    }

    /// An upper bound of the encoded size, with its dot.
    pub(super) fn weight(&self) -> usize {
        DOT_BYTES
            + match self {
                Content::Counter(_) => 40,
                Content::Register { value, .. } => 15 + 3 + value.len(),
                Content::Bytes(value) => 3 + value.len(),
            }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Content::Counter(sums) => sums.encode(out),
            Content::Register { stamp, value } => {
                put_number(out, stamp.wall_ms);
                put_number(out, u64::from(stamp.logical));
                put_bytes(out, value);
            }
            Content::Bytes(value) => put_bytes(out, value),
        }
    }

    /// Reads the content of a field of this kind.
    pub(super) fn decode(kind: Kind, reader: &mut Reader<'_>) -> Result<Content, CrdtError> {
        match kind {
            Kind::Counter => Ok(Content::Counter(Sums::decode(reader)?)),
            Kind::Register => {
                let wall_ms = reader.number()?;
                let logical =
                    u32::try_from(reader.number()?).map_err(|_| CrdtError::NotCanonical("stamp"))?;
                let value = reader.bytes(MAX_VALUE_BYTES)?.to_vec();
                Ok(Content::Register { stamp: Stamp { wall_ms, logical }, value })
            }
            Kind::Set => Ok(Content::Bytes(reader.bytes(MAX_ELEMENT_BYTES)?.to_vec())),
            Kind::Multi => Ok(Content::Bytes(reader.bytes(MAX_VALUE_BYTES)?.to_vec())),
            Kind::Map => Err(CrdtError::NotCanonical("a map in a map")),
        }
    }
}
