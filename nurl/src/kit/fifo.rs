//! First-in-first-out queues by key, with one bound for all of them together.

use std::collections::{BTreeMap, VecDeque};

/// Queues by key. An item beyond the bound is given back to the caller, which tells its sender.
#[derive(Debug)]
pub struct Fifo<K, V> {
    queues: BTreeMap<K, VecDeque<V>>,
    len: usize,
    bound: usize,
}

impl<K: Ord, V> Fifo<K, V> {
    /// Empty queues for at most `bound` items.
    pub fn new(bound: usize) -> Fifo<K, V> {
        Fifo { queues: BTreeMap::new(), len: 0, bound }
    }

    /// Appends to the key's queue.
    ///
    /// # Errors
    /// The item, if there are as many items as there may be.
    pub fn push(&mut self, key: K, item: V) -> Result<(), V> {
        if self.len >= self.bound {
            return Err(item);
        }
        self.len += 1;
        self.queues.entry(key).or_default().push_back(item);
        Ok(())
    }

    /// Removes a key's whole queue.
    pub fn take(&mut self, key: &K) -> VecDeque<V> {
        let queue = self.queues.remove(key).unwrap_or_default();
        self.len -= queue.len();
        queue
    }

    /// A key's queue, oldest first.
    pub fn queue(&self, key: &K) -> impl DoubleEndedIterator<Item = &V> {
        self.queues.get(key).into_iter().flatten()
    }

    /// The number of items in all queues.
    pub fn total(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_keep_their_order_and_share_one_bound() {
        let mut fifo = Fifo::new(4);
        for (key, item) in [("a", 1), ("b", 2), ("a", 3), ("a", 4)] {
            fifo.push(key, item).unwrap();
        }
        assert_eq!(fifo.push("b", 5), Err(5));
        assert_eq!(fifo.queue(&"a").rev().copied().collect::<Vec<_>>(), [4, 3, 1]);
        assert_eq!(fifo.take(&"a"), [1, 3, 4]);
        assert_eq!((fifo.total(), fifo.take(&"a").len(), fifo.queue(&"a").count()), (1, 0, 0));
        fifo.push("c", 6).unwrap();
        assert_eq!((fifo.take(&"b"), fifo.take(&"c"), fifo.total()), ([2].into(), [6].into(), 0));
    }
}
