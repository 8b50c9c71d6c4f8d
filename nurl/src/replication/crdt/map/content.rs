//! What stands under a dot of a map.

use super::super::clock::Stamp;
use super::super::codec::{Reader, put_bytes, put_number};
use super::super::{CrdtError, Kind, MAX_ELEMENT_BYTES, MAX_SIBLING_BYTES, News};
use super::DOT_BYTES;

/// The longest value of a register in a map, of either kind.
pub(super) const MAX_VALUE_BYTES: usize = MAX_SIBLING_BYTES;

/// An actor's slot in a counter: all that it added and took, and what of that was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sums {
    pub(super) added: u64,
    pub(super) taken: u64,
    pub(super) removed_added: u64,
    pub(super) removed_taken: u64,
}

impl Sums {
    /// What counts of it. The removed part may be known before the totals are.
    pub(super) fn value(&self) -> i128 {
        let (added, taken) = self.left();
        i128::from(added) - i128::from(taken)
    }

    /// The totals less the removed part.
    fn left(&self) -> (u64, u64) {
        (self.added.saturating_sub(self.removed_added), self.taken.saturating_sub(self.removed_taken))
    }

    /// Whether nothing counts of it any more.
    pub(super) fn is_removed(&self) -> bool {
        self.left() == (0, 0)
    }

    /// The part to be joined that removes what is known of the slot.
    pub(super) fn removal(&self) -> Sums {
        Sums { removed_added: self.added, removed_taken: self.taken, ..Sums::default() }
    }

    /// The totals after an addition, as a part to be joined.
    pub(super) fn plus(&self, by: i64) -> Result<Sums, CrdtError> {
        let mut sums = Sums { added: self.added, taken: self.taken, ..Sums::default() };
        let side = if by >= 0 { &mut sums.added } else { &mut sums.taken };
        *side = side.checked_add(by.unsigned_abs()).ok_or(CrdtError::Overflow)?;
        Ok(sums)
    }

    fn join(&self, other: &Sums) -> Sums {
        Sums {
            added: self.added.max(other.added),
            taken: self.taken.max(other.taken),
            removed_added: self.removed_added.max(other.removed_added),
            removed_taken: self.removed_taken.max(other.removed_taken),
        }
    }
}

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
        if (sums.added, sums.taken) != (held.added, held.taken) {
            return Some(News::Written);
        }
        let unseen = sums.removed_added > held.added.max(held.removed_added)
            || sums.removed_taken > held.taken.max(held.removed_taken);
        unseen.then_some(News::Seen)
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
            Content::Counter(sums) => {
                for number in [sums.added, sums.taken, sums.removed_added, sums.removed_taken] {
                    put_number(out, number);
                }
            }
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
            Kind::Counter => {
                let [added, taken] = [reader.number()?, reader.number()?];
                let [removed_added, removed_taken] = [reader.number()?, reader.number()?];
                let sums = Sums { added, taken, removed_added, removed_taken };
                if sums == Sums::default() {
                    return Err(CrdtError::NotCanonical("a counter's slot"));
                }
                Ok(Content::Counter(sums))
            }
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
