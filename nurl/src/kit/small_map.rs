//! An ordered map that is small while it has few entries.
//!
//! A node holds up to a million values, and most have one writer. A B-tree takes room for eleven entries at once; a sorted
//! list takes what it has. Above eight entries it is a tree, so that an insertion doesn't move all others.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The most entries of a list.
const FEW: usize = 8;

/// See the module.
#[derive(Debug, Clone)]
pub enum SmallMap<K, V> {
    /// Ascending by key.
    List(Vec<(K, V)>),
    /// More entries than a list has.
    Tree(BTreeMap<K, V>),
}

impl<K: Ord + Copy, V> SmallMap<K, V> {
    /// The number of entries.
    pub fn count(&self) -> usize {
        match self {
            SmallMap::List(list) => list.len(),
            SmallMap::Tree(tree) => tree.len(),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        match self {
            SmallMap::List(list) => place(list, key).ok().map(|at| &list[at].1),
            SmallMap::Tree(tree) => tree.get(key),
        }
    }

    /// Whether the key has a value.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The value of a key, which has the default one if it had none.
    pub fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        if let SmallMap::List(list) = self
            && list.len() == FEW
            && place(list, &key).is_err()
        {
            *self = SmallMap::Tree(std::mem::take(list).into_iter().collect());
        }
        match self {
            SmallMap::List(list) => {
                let at = place(list, &key).unwrap_or_else(|at| {
                    // A list that is full grows by what it needs, not by the double.
                    list.reserve_exact(1);
                    list.insert(at, (key, V::default()));
                    at
                });
                &mut list[at].1
            }
            SmallMap::Tree(tree) => tree.entry(key).or_default(),
        }
    }

    /// The entries, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        let (list, tree) = match self {
            SmallMap::List(list) => (Some(list), None),
            SmallMap::Tree(tree) => (None, Some(tree)),
        };
        let list = list.into_iter().flatten().map(|(key, value)| (key, value));
        list.chain(tree.into_iter().flatten())
    }

    /// The keys, ascending.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values, by their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The entries whose keys lie in the range, ascending.
    pub fn range(&self, keys: RangeInclusive<K>) -> impl Iterator<Item = (&K, &V)> {
        let (list, tree) = match self {
            SmallMap::List(list) => (Some(list.iter().filter(move |(key, _)| keys.contains(key))), None),
            SmallMap::Tree(tree) => (None, Some(tree.range(keys))),
        };
        list.into_iter().flatten().map(|(key, value)| (key, value)).chain(tree.into_iter().flatten())
    }
}

/// Where the key is in an ascending list, or would be.
fn place<K: Ord, V>(list: &[(K, V)], key: &K) -> Result<usize, usize> {
    list.binary_search_by(|(other, _)| other.cmp(key))
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        SmallMap::List(Vec::new())
    }
}

/// Equal entries are equal maps: entries are never removed, so equal maps are both lists or both trees.
impl<K: Ord + Copy, V: PartialEq> PartialEq for SmallMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<K: Ord + Copy, V: Eq> Eq for SmallMap<K, V> {}

impl<K: Ord + Copy, V: Default> FromIterator<(K, V)> for SmallMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = SmallMap::default();
        for (key, value) in entries {
            *map.or_default(key) = value;
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It is the map that the standard library's is.
        #[test]
        fn it_is_an_ordered_map(entries in prop::collection::vec((0u8..24, any::<u8>()), 0..40), from in 0u8..24, to in 0u8..24) {
            let (mut small, mut tree) = (SmallMap::default(), BTreeMap::new());
            for (key, value) in entries {
                *small.or_default(key) = value;
                tree.insert(key, value);
                prop_assert_eq!(small.count(), tree.len());
                prop_assert!(small.iter().eq(tree.iter()) && small.iter().rev().eq(tree.iter().rev()));
                prop_assert!((0..24).all(|key| small.get(&key) == tree.get(&key)));
                prop_assert_eq!(matches!(small, SmallMap::List(_)), tree.len() <= FEW);
            }
            let keys = from.min(to)..=from.max(to);
            prop_assert!(small.range(keys.clone()).eq(tree.range(keys)));
            prop_assert_eq!(&tree.into_iter().collect::<SmallMap<u8, u8>>(), &small);
        }
    }
}
