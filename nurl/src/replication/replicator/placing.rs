//! The way around all keys after the ring has changed.
//!
//! Where each key belongs now is a hash and a search in the ring; a million of them would hold the node for seconds. So they
//! are placed in portions, and between two portions the node does its other work. Until a key's turn has come, its owners are
//! looked up when they are needed. If the ring changes meanwhile, the way around begins anew where it is: else keys at the end
//! would never have their turn where the ring changes often.

use std::ops::Bound;

/// The keys placed at a stretch: some 10 ms.
pub(super) const PORTION: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Placing {
    /// The key behind which it began; none: at the first key.
    start: Option<Vec<u8>>,
    /// The last key that was placed; none: none yet.
    at: Option<Vec<u8>>,
    /// Whether it has come to the last key, and goes on at the first.
    wrapped: bool,
}

impl Placing {
    /// The way around from where this one is.
    pub(super) fn anew(self) -> Placing {
        let start = self.at.or(self.start);
        Placing { start, at: None, wrapped: false }
    }

    /// Whether a key's turn has come.
    pub(super) fn has_placed(&self, key: &[u8]) -> bool {
        let behind_start = self.start.as_deref().is_none_or(|start| start < key);
        match &self.at {
            None => self.wrapped && behind_start,
            Some(at) if self.wrapped => behind_start || key <= at.as_slice(),
            Some(at) => behind_start && key <= at.as_slice(),
        }
    }

    /// The keys whose turn it is.
    pub(super) fn next(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let from = if self.wrapped { self.at.as_ref() } else { self.at.as_ref().or(self.start.as_ref()) };
        let to = self.start.as_ref().filter(|_| self.wrapped);
        (
            from.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_slice())),
            to.map_or(Bound::Unbounded, |key| Bound::Included(key.as_slice())),
        )
    }

    /// Notes that a portion was placed, up to this key, or up to the end if there is none. Returns whether all keys were.
    pub(super) fn placed(&mut self, upto: Option<Vec<u8>>) -> bool {
        match upto {
            Some(upto) => self.at = Some(upto),
            None if self.wrapped || self.start.is_none() => return true,
            None => (self.wrapped, self.at) = (true, None),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Places the next `portion` of the keys.
    fn go_on(placing: &mut Placing, keys: &BTreeSet<Vec<u8>>, portion: usize) -> (Vec<Vec<u8>>, bool) {
        let next: Vec<Vec<u8>> = keys.range::<[u8], _>(placing.next()).take(portion).cloned().collect();
        let upto = next.last().filter(|_| next.len() == portion).cloned();
        (next, placing.placed(upto))
    }

    #[test]
    fn each_key_has_its_turn_once_wherever_the_way_begins() {
        let keys: BTreeSet<Vec<u8>> = (0u8..20).map(|n| vec![2 * n]).collect();
        for (portion, before) in [(1, 0), (1, 7), (3, 0), (3, 4), (7, 1), (20, 0), (50, 0), (4, 5)] {
            let mut placing = Placing::default();
            for _ in 0..before {
                go_on(&mut placing, &keys, portion);
            }
            let mut placing = placing.anew();
            let mut placed = BTreeSet::new();
            loop {
                for key in &keys {
                    assert_eq!(
                        placing.has_placed(key),
                        placed.contains(key),
                        "{portion} {before} {placing:?}"
                    );
                }
                let (next, over) = go_on(&mut placing, &keys, portion);
                for key in next {
                    assert!(placed.insert(key), "each has one turn");
                }
                if over {
                    break;
                }
            }
            assert_eq!(placed, keys);
        }
    }
}
