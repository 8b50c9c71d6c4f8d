//! The states that this node holds, as an owner or until a key is handed off.
//!
//! A copy is *whole* once it was compared with those of all other owners that are live, since this node became an owner or its
//! process began, and if at most one owner is unknown to it: what isn't on a disk is confirmed by two nodes. A copy that
//! isn't whole, such as one that a delta created, answers no read alone.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::due::{Due, Schedule};
use super::error::UpdateError;
use super::placing::{PORTION, Placing};
use super::shared::Shared;
use crate::key::PublicKey;
use crate::replication::crdt::{Digest, Object, Value};
use crate::rt::{Point, Table, bound, buggify};

/// One key's state.
#[derive(Debug)]
pub(super) struct Entry {
    value: Object,
    /// The first R owners on the ring for this key.
    owners: Arc<[PublicKey]>,
    /// A bit for each owner: whether this copy has all that the owner's had when they were compared.
    compared: u8,
    /// Whether it has what earlier processes of this node acknowledged: it was restored, or has been whole.
    remembers: bool,
    /// The digest of the present value, if it was computed.
    digest: Option<Digest>,
    /// The entry's part of the bytes held: exact after a digest, else an upper bound.
    size: usize,
    /// Whether the value was written or acknowledged here, and no other owner is known to have it.
    unspread: bool,
    /// The id of the last offer to other owners; 0 if there was none.
    offered: u64,
    /// When it expires, or its deletion is forgotten.
    due: Option<Due>,
}

impl Entry {
    pub(super) fn value(&self) -> &Object {
        &self.value
    }

    pub(super) fn owners(&self) -> &[PublicKey] {
        &self.owners
    }

    /// Whether it is whole; see the module.
    pub(super) fn is_whole(&self, local: &PublicKey, is_live: impl Fn(&PublicKey) -> bool) -> bool {
        let Some(own) = self.owners.iter().position(|owner| owner == local) else { return false };
        let known = self.compared | (u8::from(self.remembers) << own);
        let unknown = |(at, _): &(usize, &PublicKey)| known & (1 << at) == 0;
        let unknown = self.owners.iter().enumerate().filter(unknown);
        let others = unknown.clone().filter(|(at, _)| *at != own);
        let is_alone = self.owners.len() == 1;
        is_alone || (unknown.count() <= MAX_UNKNOWN && !others.into_iter().any(|(_, owner)| is_live(owner)))
    }

    /// Whether it has what earlier processes of this node acknowledged.
    pub(super) fn remembers(&self) -> bool {
        self.remembers
    }

    /// Notes that it has all that `owner` has. What was compared with all others needs no memory.
    fn compare(&mut self, local: &PublicKey, owner: &PublicKey) {
        if let Some(at) = self.owners.iter().position(|other| other == owner)
            && owner != local
        {
            self.compared |= 1 << at;
            self.remembers |= self.compared.count_ones() as usize + 1 == self.owners.len();
        }
    }

    /// Takes the owners of a new view. What isn't known of a new one has to be compared.
    fn place(&mut self, local: &PublicKey, owners: Arc<[PublicKey]>) {
        let before = |owner: &PublicKey| self.owners.iter().position(|other| other == owner);
        let stays = before(local).is_some();
        let known =
            |owner: &PublicKey| stays && before(owner).is_some_and(|at| self.compared & (1 << at) != 0);
        let bits = owners.iter().enumerate().map(|(at, owner)| u8::from(known(owner)) << at);
        self.compared = bits.fold(0, |bits, bit| bits | bit);
        self.owners = owners;
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

/// How many of a key's owners may be unknown to a whole copy: a write that isn't on a disk is confirmed by two.
pub(super) const MAX_UNKNOWN: usize = 1;

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
    /// In boxes: a tree of the entries themselves would have a third of its room empty.
    entries: BTreeMap<Vec<u8>, Box<Entry>>,
    /// The entries' lists of owners: many keys have the same.
    owners: BTreeSet<Arc<[PublicKey]>>,
    /// The way around the keys after the last change of the ring, if it isn't over.
    placing: Option<Placing>,
    bytes: usize,
    /// Keys with parked writes.
    parked: BTreeSet<Vec<u8>>,
    schedule: Schedule,
}

impl Copies {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key).map(|entry| &**entry)
    }

    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut Entry> {
        self.entries.get_mut(key).map(|entry| &mut **entry)
    }

    pub(super) fn value(&self, key: &[u8]) -> Option<&Object> {
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
        self.entries.range::<[u8], _>((from, to)).map(|(key, entry)| (key, &**entry))
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

    /// Notes that the copy has all that `owner` has.
    pub(super) fn compared(&mut self, sh: &Shared, key: &[u8], owner: &PublicKey) {
        let has_placed = self.has_placed(key);
        if let Some(entry) = self.entries.get_mut(key) {
            if !has_placed {
                entry.place(&sh.local.key, shared(&mut self.owners, sh.owners(key)));
            }
            entry.compare(&sh.local.key, owner);
        }
    }

    /// Whether a key has its owners by the present ring.
    fn has_placed(&self, key: &[u8]) -> bool {
        self.placing.as_ref().is_none_or(|placing| placing.has_placed(key))
    }

    /// The owners of a key that is held, by the present ring.
    pub(super) fn owners<'a>(&self, sh: &Shared, key: &[u8], entry: &'a Entry) -> Cow<'a, [PublicKey]> {
        if self.has_placed(key) { Cow::Borrowed(entry.owners()) } else { Cow::Owned(sh.owners(key)) }
    }

    /// Begins to compute the owners of all keys anew.
    pub(super) fn begin_placing(&mut self) {
        self.placing = Some(self.placing.take().unwrap_or_default().anew());
    }

    /// Whether there are keys left to place.
    pub(super) fn is_placing(&self) -> bool {
        self.placing.is_some()
    }

    /// Places the next portion of the keys, and calls `placed` for each with its owners and whether they changed.
    pub(super) fn place(&mut self, sh: &Shared, mut placed: impl FnMut(&Vec<u8>, &[PublicKey], bool)) {
        let Some(placing) = &mut self.placing else { return };
        let most = if buggify(Point::PlaceOne) { 1 } else { PORTION };
        let (mut count, mut last) = (0, None);
        for (key, entry) in self.entries.range_mut::<[u8], _>(placing.next()).take(most) {
            let owners = sh.owners(key);
            let changed = *owners != *entry.owners;
            if changed {
                entry.place(&sh.local.key, shared(&mut self.owners, owners));
            }
            placed(key, &entry.owners, changed);
            (count, last) = (count + 1, Some(key));
        }
        if placing.placed(last.filter(|_| count == most).cloned()) {
            self.placing = None;
            self.owners.retain(|owners| Arc::strong_count(owners) > 1);
        }
    }

    /// Merges into the held state. The caller has checked that this node keeps the key. `is_settled` tells of an owner that it
    /// is known to have had nothing that isn't held here.
    pub(super) fn merge(
        &mut self,
        sh: &mut Shared,
        wall: Duration,
        key: &[u8],
        (delta, size): (&Object, usize),
        is_settled: impl Fn(&PublicKey) -> bool,
    ) -> Result<Merged, UpdateError> {
        let merged = match self.entries.get_mut(key) {
            Some(entry) => {
                // What is merged now was perhaps written since.
                if entry.value.expire(wall) {
                    entry.digest = None;
                }
                if self.bytes + size > sh.config.max_held_bytes {
                    sh.stats.full += 1;
                    return Err(UpdateError::Full("bytes held"));
                }
                if !entry.value.merge(delta, wall)? {
                    return Ok(Merged::Unchanged);
                }
                entry.value.compact(delta);
                entry.digest = None;
                entry.size += size;
                Merged::Changed
            }
            None => {
                let mut value = Object::new(delta.kind());
                value.merge(delta, wall)?;
                if !self.insert(sh, wall, key, (value, size))? {
                    return Ok(Merged::Unchanged);
                }
                if let Some(entry) = self.entries.get_mut(key) {
                    for owner in sh.owners(key).iter().filter(|owner| is_settled(owner)) {
                        entry.compare(&sh.local.key, owner);
                    }
                }
                return Ok(Merged::New);
            }
        };
        self.took(sh, wall, key, size);
        Ok(merged)
    }

    /// Takes what an earlier process of this node held, as it was: a clock that went back since hides nothing of it.
    /// False if it was nothing but a deletion whose time is over.
    pub(super) fn restore(
        &mut self,
        sh: &mut Shared,
        wall: Duration,
        key: &[u8],
        (value, size): (Object, usize),
    ) -> Result<bool, UpdateError> {
        let taken = self.insert(sh, wall, key, (value, size))?;
        if let Some(entry) = self.entries.get_mut(key) {
            entry.remembers = true;
        }
        Ok(taken)
    }

    /// Begins to hold a key; not if it is nothing but a deletion whose time is over.
    fn insert(
        &mut self,
        sh: &mut Shared,
        wall: Duration,
        key: &[u8],
        (value, size): (Object, usize),
    ) -> Result<bool, UpdateError> {
        let full = self.entries.len() >= bound(Table::HeldKeys, sh.config.max_entries)
            || self.bytes + size + key.len() > sh.config.max_held_bytes;
        if full {
            sh.stats.full += 1;
            return Err(UpdateError::Full("keys held"));
        }
        if Due::of(&value, sh.marks_kept()).is_some_and(|due| due.is_forgotten(wall)) {
            return Ok(false);
        }
        let entry = Entry {
            value,
            owners: shared(&mut self.owners, sh.owners(key)),
            compared: 0,
            remembers: false,
            digest: None,
            size,
            unspread: false,
            offered: 0,
            due: None,
        };
        self.entries.insert(key.to_vec(), Box::new(entry));
        self.took(sh, wall, key, size);
        Ok(true)
    }

    /// Notes that a state of `size` bytes was merged.
    fn took(&mut self, sh: &mut Shared, wall: Duration, key: &[u8], size: usize) {
        self.bytes += size;
        self.observe_register(sh, wall, key);
        self.plan(sh, key);
        sh.events.changed(key);
    }

    /// Notes when the object expires, or its deletion is forgotten.
    fn plan(&mut self, sh: &Shared, key: &[u8]) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let due = Due::of(&entry.value, sh.marks_kept());
        self.schedule.plan(key, std::mem::replace(&mut entry.due, due), due);
    }

    /// Deletes what expires now.
    pub(super) fn expire(&mut self, sh: &mut Shared, wall: Duration) {
        for key in self.schedule.to_expire(wall) {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if entry.value.expire(wall) {
                entry.digest = None;
                sh.stats.expired += 1;
                sh.events.changed(&key);
            }
            self.plan(sh, &key);
        }
    }

    /// The deleted keys whose marks are forgotten now.
    pub(super) fn to_forget(&self, sh: &Shared, wall: Duration) -> Vec<Vec<u8>> {
        self.schedule.to_forget(wall, bound(Table::Marks, sh.config.max_marks))
    }

    /// Advances the clock to a register's stamp, and notes the key if the register has parked writes.
    fn observe_register(&mut self, sh: &mut Shared, wall: Duration, key: &[u8]) {
        let Some(Value::Register(register)) = self.value(key).map(Object::value) else { return };
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
            let Some(Entry { value, digest, .. }) = self.entries.get_mut(&key).map(|entry| &mut **entry)
            else {
                self.parked.remove(&key);
                continue;
            };
            let Value::Register(register) = value.value_mut() else { continue };
            if register.settle(wall) {
                *digest = None;
                sh.events.changed(&key);
            }
            if register.parked() == 0 {
                self.parked.remove(&key);
            }
            self.plan(sh, &key);
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
        self.take(sh, key);
    }

    /// Drops a copy, and returns it.
    pub(super) fn take(&mut self, sh: &mut Shared, key: &[u8]) -> Option<Object> {
        let entry = self.entries.remove(key)?;
        self.bytes -= entry.size;
        self.parked.remove(key);
        self.schedule.plan(key, entry.due, None);
        sh.events.changed(key);
        Some(entry.value)
    }
}

/// The one copy of this list.
fn shared(lists: &mut BTreeSet<Arc<[PublicKey]>>, owners: Vec<PublicKey>) -> Arc<[PublicKey]> {
    if let Some(known) = lists.get(owners.as_slice()) {
        return known.clone();
    }
    let owners = Arc::from(owners);
    lists.insert(Arc::clone(&owners));
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::crdt::Kind;

    fn peer(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    fn entry(owners: &[u8]) -> Entry {
        Entry {
            value: Object::new(Kind::Counter),
            owners: owners.iter().map(|n| peer(*n)).collect::<Vec<_>>().into(),
            compared: 0,
            remembers: false,
            digest: None,
            size: 0,
            unspread: false,
            offered: 0,
            due: None,
        }
    }

    #[test]
    fn a_copy_is_whole_when_it_was_compared_with_all_live_owners_and_at_most_one_is_unknown() {
        // The owners, of whom 1 is this node; who is away; whether it remembers; with whom it was compared; whether it is
        // whole.
        type Row<'a> = (&'a [u8], &'a [u8], bool, &'a [u8], bool);
        let table: &[Row] = &[
            (&[1], &[], false, &[], true),
            (&[1, 2], &[], false, &[], false),
            (&[1, 2], &[], false, &[2], true),
            (&[1, 2], &[], true, &[], false),
            (&[1, 2], &[2], true, &[], true),
            (&[1, 2], &[2], false, &[], false),
            (&[1, 2, 3], &[], false, &[2], false),
            (&[1, 2, 3], &[], false, &[2, 3], true),
            (&[1, 2, 3], &[], true, &[3], false),
            (&[1, 2, 3], &[2], true, &[3], true),
            (&[1, 2, 3], &[2], false, &[3], false),
            (&[1, 2, 3], &[2, 3], true, &[], false),
            (&[1, 2, 3], &[2], true, &[4], false),
            (&[2, 3, 4], &[], true, &[2, 3, 4], false),
        ];
        for (owners, away, remembers, compared, whole) in table {
            let mut entry = entry(owners);
            entry.remembers = *remembers;
            for n in *compared {
                entry.compare(&peer(1), &peer(*n));
            }
            let is_live = |owner: &PublicKey| !away.iter().any(|n| peer(*n) == *owner);
            assert_eq!(
                entry.is_whole(&peer(1), is_live),
                *whole,
                "{owners:?} {away:?} {remembers} {compared:?}"
            );
        }
    }

    #[test]
    fn another_owner_has_to_be_compared_and_a_new_owner_with_all() {
        let owners = |list: &[u8]| list.iter().map(|n| peer(*n)).collect::<Vec<_>>().into();
        let mut entry = entry(&[2, 1, 3]);
        entry.compare(&peer(1), &peer(2));
        entry.compare(&peer(1), &peer(3));
        let is_whole = |entry: &Entry| entry.is_whole(&peer(1), |_| true);
        assert!(is_whole(&entry) && entry.remembers());
        entry.place(&peer(1), owners(&[1, 4, 3]));
        assert!(!is_whole(&entry), "4 is new");
        entry.compare(&peer(1), &peer(4));
        assert!(is_whole(&entry), "it was compared with 3 before");
        entry.place(&peer(1), owners(&[6, 4, 3]));
        entry.place(&peer(1), owners(&[1, 4, 3]));
        assert!(!is_whole(&entry), "it wasn't told what was written meanwhile");
    }
}
