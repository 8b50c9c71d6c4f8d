//! The states that this node holds, as an owner or until a key is handed off.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use super::error::UpdateError;
use super::shared::Shared;
use crate::key::PublicKey;
use crate::replication::crdt::{Digest, Value};
use crate::rt::{Table, bound};

/// One key's state.
#[derive(Debug)]
pub(super) struct Entry {
    value: Value,
    /// The first R owners on the ring for this key.
    owners: Vec<PublicKey>,
    /// The digest of the present value, if it was computed.
    digest: Option<Digest>,
    /// The entry's part of the bytes held: exact after a digest, else an upper bound.
    size: usize,
    /// Whether the value was written or acknowledged here, and no other owner is known to have it.
    unspread: bool,
    /// The id of the last offer to other owners; 0 if there was none.
    offered: u64,
}

impl Entry {
    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    pub(super) fn owners(&self) -> &[PublicKey] {
        &self.owners
    }

    /// Notes that the other owners may lack the present value.
    pub(super) fn unspread(&mut self) {
        (self.unspread, self.offered) = (true, 0);
    }

    /// Notes that another owner has the present value.
    pub(super) fn spread(&mut self) {
        (self.unspread, self.offered) = (false, 0);
    }

    /// The id under which the present value is offered: that of the earlier offer as long as nothing was written
    /// since, so that a late answer to it counts.
    pub(super) fn offer(&mut self, id: u64) -> u64 {
        if self.offered == 0 {
            self.offered = id;
        }
        self.offered
    }

    /// Whether the present value was offered under this id.
    pub(super) fn was_offered(&self, id: u64) -> bool {
        self.offered == id && id != 0
    }
}

/// The effect of a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merged {
    /// The state was contained in the held one.
    Unchanged,
    /// The held state grew.
    Changed,
    /// The key wasn't held before.
    New,
}

/// The table of states held.
#[derive(Debug, Default)]
pub(super) struct Copies {
    entries: BTreeMap<Vec<u8>, Entry>,
    bytes: usize,
    /// Keys with parked writes.
    parked: BTreeSet<Vec<u8>>,
}

impl Copies {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    pub(super) fn value(&self, key: &[u8]) -> Option<&Value> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.entries.keys()
    }

    /// The bytes of state held.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The entries in a range of keys, in key order.
    pub(super) fn range(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl DoubleEndedIterator<Item = (&Vec<u8>, &Entry)> {
        self.entries.range::<[u8], _>((from, to))
    }

    /// The keys whose present value no other owner is known to have.
    pub(super) fn unspread_keys(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.entries.iter().filter(|(_, entry)| entry.unspread).map(|(key, _)| key)
    }

    /// Notes that another owner has exactly the state held here.
    pub(super) fn spread(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.spread();
        }
    }

    /// Computes the owners of all keys anew, and calls `placed` for each key with its owners and whether they changed.
    pub(super) fn place(&mut self, sh: &Shared, mut placed: impl FnMut(&Vec<u8>, &[PublicKey], bool)) {
        for (key, entry) in &mut self.entries {
            let owners = sh.owners(key);
            let changed = owners != entry.owners;
            entry.owners = owners;
            placed(key, &entry.owners, changed);
        }
    }

    /// Merges into the held state. The caller has checked that this node owns the key.
    pub(super) fn merge(
        &mut self,
        sh: &mut Shared,
        wall: Duration,
        key: &[u8],
        delta: &Value,
        size: usize,
    ) -> Result<Merged, UpdateError> {
        let merged = match self.entries.get_mut(key) {
            Some(entry) => {
                if self.bytes + size > sh.config.max_held_bytes {
                    sh.stats.full += 1;
                    return Err(UpdateError::Full("bytes held"));
                }
                if !entry.value.merge(delta, wall)? {
                    return Ok(Merged::Unchanged);
                }
                entry.digest = None;
                entry.size += size;
                Merged::Changed
            }
            None => {
                let full = self.entries.len() >= bound(Table::HeldKeys, sh.config.max_entries)
                    || self.bytes + size + key.len() > sh.config.max_held_bytes;
                if full {
                    sh.stats.full += 1;
                    return Err(UpdateError::Full("keys held"));
                }
                let mut value = Value::new(delta.kind());
                value.merge(delta, wall)?;
                let owners = sh.owners(key);
                let entry = Entry { value, owners, digest: None, size, unspread: false, offered: 0 };
                self.entries.insert(key.to_vec(), entry);
                Merged::New
            }
        };
        self.bytes += size;
        self.observe_register(sh, wall, key);
        sh.events.changed(key);
        Ok(merged)
    }

    /// Advances the clock to a register's stamp, and notes the key if the register has parked writes.
    fn observe_register(&mut self, sh: &mut Shared, wall: Duration, key: &[u8]) {
        let Some(Value::Register(register)) = self.value(key) else { return };
        if let Some(stamp) = register.stamp() {
            sh.clock.observe(stamp, wall);
        }
        if register.parked() > 0 && self.parked.insert(key.to_vec()) {
            sh.stats.parked += 1;
        }
    }

    /// Shows the parked writes whose time has come.
    pub(super) fn settle_parked(&mut self, sh: &mut Shared, wall: Duration) {
        let keys: Vec<Vec<u8>> = self.parked.iter().cloned().collect();
        for key in keys {
            let Some(Entry { value: Value::Register(register), digest, .. }) = self.entries.get_mut(&key)
            else {
                self.parked.remove(&key);
                continue;
            };
            if register.settle(wall) {
                *digest = None;
                sh.events.changed(&key);
            }
            if register.parked() == 0 {
                self.parked.remove(&key);
            }
        }
    }

    /// The digest of a key's state.
    pub(super) fn digest(&mut self, key: &[u8]) -> Option<Digest> {
        let entry = self.entries.get_mut(key)?;
        if entry.digest.is_none() {
            let bytes = entry.value.encode();
            self.bytes = self.bytes - entry.size + bytes.len();
            entry.size = bytes.len();
            entry.digest = Some(Value::digest_of(&bytes));
        }
        entry.digest
    }

    /// Drops a copy.
    pub(super) fn remove(&mut self, sh: &mut Shared, key: &[u8]) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.bytes -= entry.size;
        self.parked.remove(key);
        sh.events.changed(key);
    }
}
