//! This node's own sums: the totals that it has written to each key.

use std::collections::BTreeMap;

use super::shared::Shared;
use crate::replication::crdt::Value;
use crate::replication::identity::ReplicaId;
use crate::rt::{Table, bound};

/// This node's total writes to a key, from which its next delta continues. An owner reads them from the state that it
/// holds; for every other key that the node wrote, it keeps this record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) added: u64,
    pub(super) taken: u64,
    /// The highest dot.
    pub(super) dot: u64,
}

impl Own {
    /// `replica`'s writes as far as `value` contains them.
    pub(super) fn of(value: &Value, replica: &ReplicaId) -> Own {
        match value {
            Value::Counter(counter) => {
                let (added, taken) = counter.slot(replica);
                Own { added, taken, dot: 0 }
            }
            Value::Register(_) => Own::default(),
            Value::Map(map) => Own { dot: map.context().highest(replica), ..Own::default() },
            Value::Multi(register) => Own { dot: register.highest(replica), ..Own::default() },
            Value::Set(set) => Own { dot: set.context().highest(replica), ..Own::default() },
        }
    }

    pub(super) fn join(self, other: Own) -> Own {
        Own {
            added: self.added.max(other.added),
            taken: self.taken.max(other.taken),
            dot: self.dot.max(other.dot),
        }
    }
}

/// The sums of the keys that this node wrote and doesn't hold. They must not be forgotten while the replica id lives, so a
/// node that has no room for more of them goes on under another id, under which it has written nothing.
#[derive(Debug, Default)]
pub(super) struct Sums(BTreeMap<Vec<u8>, Own>);

impl Sums {
    pub(super) fn get(&self, key: &[u8]) -> Option<Own> {
        self.0.get(key).copied()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Makes room for the key's sums; if the table is full, by taking another replica id.
    pub(super) fn make_room(&mut self, sh: &mut Shared, key: &[u8]) {
        let most = bound(Table::OwnKeys, sh.config.max_own);
        if self.0.contains_key(key) || self.0.len() < most {
            return;
        }
        sh.renew();
        for key in std::mem::take(&mut self.0).into_keys() {
            sh.events.changed(&key);
        }
    }

    /// Remembers `own` in addition to the sums known, for which there must be [room](Sums::make_room).
    pub(super) fn join(&mut self, key: &[u8], own: Own) {
        let known = self.0.get(key).copied().unwrap_or_default();
        self.0.insert(key.to_vec(), own.join(known));
    }
}
