//! How far the answers to a round of summaries have shown that this node holds every key that a peer holds.

use std::collections::BTreeMap;

use super::message::Range;

/// Limit on the parts of which the answer is awaited: those of a round over 1,000,000 keys that all differ.
const MAX_OPEN: usize = 16_384;

/// See the module. The parts of a round are proved one behind the other; parts that are asked about once more have an id of
/// their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Proof {
    /// Up to this key; none: nothing yet.
    upto: Option<Vec<u8>>,
    /// To the last key.
    whole: bool,
    /// This node lacks a key: the next round may show more.
    lacks: bool,
    /// The ends of the parts that are asked about once more, by the ids of the questions.
    open: BTreeMap<u64, Option<Vec<u8>>>,
}

impl Proof {
    /// Whether this node holds every key that the peer held.
    pub(super) fn is_settled(&self) -> bool {
        self.whole && !self.lacks && self.open.is_empty()
    }

    /// Takes the answer to the question `id` about a range: whether this node holds every key that the peer holds in it.
    pub(super) fn answered(&mut self, id: u64, range: &Range, holds_all: bool) {
        let end = range.upto.as_ref().map(|key| key.to_vec());
        match self.open.remove(&id) {
            Some(asked) => self.lacks |= !holds_all || asked != end,
            None => self.extend(range, end, holds_all),
        }
    }

    /// Takes an answer in parts, of which those with these ids and ends are asked about once more.
    pub(super) fn divided(&mut self, range: &Range, open: Vec<(u64, Option<Vec<u8>>)>) {
        let end = range.upto.as_ref().map(|key| key.to_vec());
        if self.follows(range) {
            self.lacks |= self.open.len() + open.len() > MAX_OPEN;
            if !self.lacks {
                self.open.extend(open);
            }
            self.extend(range, end, true);
        }
    }

    fn follows(&self, range: &Range) -> bool {
        !self.whole && self.upto.as_deref() == range.after.as_ref().map(|key| key.as_slice())
    }

    fn extend(&mut self, range: &Range, end: Option<Vec<u8>>, holds_all: bool) {
        if self.follows(range) {
            self.lacks |= !holds_all;
            (self.whole, self.upto) = (end.is_none(), end);
        }
    }
}
