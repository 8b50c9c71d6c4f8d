//! This node's own sums: the totals that it has written to each key.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_core::Rng as _;

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

/// This node as the writer of a key, without a copy that shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Writer {
    /// The incarnation under which it wrote.
    pub(super) incarnation: u64,
    pub(super) own: Own,
    /// When it last wrote, in milliseconds since 1970.
    pub(super) used_ms: u64,
}

/// The sums of the keys that this node wrote and doesn't hold. They must not be forgotten while the replica id lives, so a
/// node that has no room for more of them goes on under another id, under which it has written nothing.
///
/// The others forget a deleted object with all its slots after some time. Sums that are half as old may come to count for
/// an object that knows nothing of them, so the node then goes on under another id with that key alone.
#[derive(Debug, Default)]
pub(super) struct Sums(BTreeMap<Vec<u8>, Writer>);

impl Sums {
    pub(super) fn get(&self, key: &[u8]) -> Option<Writer> {
        self.0.get(key).copied()
    }

    /// The id under which this node writes a key now.
    pub(super) fn actor(&mut self, sh: &mut Shared, key: &[u8], wall: Duration) -> ReplicaId {
        let Some(writer) = self.0.get(key) else { return sh.local };
        if wall.saturating_sub(Duration::from_millis(writer.used_ms)) > sh.marks_kept() / 2 {
            self.renew(sh, key, wall);
        }
        let incarnation = self.0.get(key).map_or(sh.local.incarnation, |writer| writer.incarnation);
        ReplicaId { incarnation, ..sh.local }
    }

    /// Goes on under another id with this key.
    pub(super) fn renew(&mut self, sh: &mut Shared, key: &[u8], wall: Duration) {
        let incarnation = sh.rng.next_u64();
        self.0.insert(key.to_vec(), Writer { incarnation, own: Own::default(), used_ms: millis(wall) });
        sh.events.changed(key);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Makes room for the key's sums; if the table is full, by taking another replica id.
    pub(super) fn make_room(&mut self, sh: &mut Shared, key: &[u8]) {
        let most = bound(Table::OwnKeys, sh.config.max_own);
        if !self.0.contains_key(key) && self.0.len() >= most {
            self.forget(sh);
        }
    }

    /// Forgets all, and takes another replica id.
    pub(super) fn forget(&mut self, sh: &mut Shared) {
        sh.renew();
        for key in std::mem::take(&mut self.0).into_keys() {
            sh.events.changed(&key);
        }
    }

    /// Remembers `own`, written under this id, in addition to the sums known, for which there must be
    /// [room](Sums::make_room).
    pub(super) fn join(&mut self, key: &[u8], actor: &ReplicaId, own: Own, wall: Duration) {
        let known = self.0.get(key).filter(|known| known.incarnation == actor.incarnation);
        let own = known.map_or(own, |known| known.own.join(own));
        let writer = Writer { incarnation: actor.incarnation, own, used_ms: millis(wall) };
        self.0.insert(key.to_vec(), writer);
    }

    /// Restores what an earlier process remembered.
    pub(super) fn restore(&mut self, key: &[u8], writer: Writer) {
        self.0.insert(key.to_vec(), writer);
    }
}

fn millis(wall: Duration) -> u64 {
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}
