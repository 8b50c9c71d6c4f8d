//! A writer's slot in a counter.

use super::codec::{Reader, put_number};
use super::{CrdtError, News};

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

    pub(super) fn join(&self, other: &Sums) -> Sums {
        Sums {
            added: self.added.max(other.added),
            taken: self.taken.max(other.taken),
            removed_added: self.removed_added.max(other.removed_added),
            removed_taken: self.removed_taken.max(other.removed_taken),
        }
    }

    /// In what way this, the join, is news beside what is `held`. To remove what is held is no news: everybody may.
    pub(super) fn news_beside(&self, held: &Sums) -> Option<News> {
        if (self.added, self.taken) != (held.added, held.taken) {
            return Some(News::Written);
        }
        let unseen = self.removed_added > held.added.max(held.removed_added)
            || self.removed_taken > held.taken.max(held.removed_taken);
        unseen.then_some(News::Seen)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.added, self.taken, self.removed_added, self.removed_taken] {
            put_number(out, number);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Sums, CrdtError> {
        let [added, taken] = [reader.number()?, reader.number()?];
        let [removed_added, removed_taken] = [reader.number()?, reader.number()?];
        let sums = Sums { added, taken, removed_added, removed_taken };
        if sums == Sums::default() { Err(CrdtError::NotCanonical("a counter's slot")) } else { Ok(sums) }
    }
}
