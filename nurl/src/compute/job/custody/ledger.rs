//! The table of detached tasks: its bounds, what changed in it, and when each entry is looked at next.
//!
//! An entry is booked on its submitter's account: the invitation, or the pass that was admitted by hand. One account has a
//! quarter of the table at most. For want of room the bytes of the oldest ended tasks are dropped, those of the account
//! that asks for room first; the state of a task stays until its time, and an open task gives way to nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::super::TaskId;
use super::entry::{Entry, Mark};
use super::{MAX_ENTRIES, MAX_ENTRY_BYTES, MAX_SHARE};
use crate::authority::account::Party;
use crate::authority::checker::Standing;
use crate::key::PublicKey;

/// What another keeper has of an entry, as far as this node knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) key: PublicKey,
    /// What it said that it has, with its process, and whether that is on its disk.
    pub(super) told: Option<(Mark, u64, bool)>,
    /// The offer that it hasn't answered with this node's mark.
    pub(super) offered: Option<Offered>,
}

/// An offer of an entry to another keeper.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offered {
    pub(super) at: Instant,
    /// How often it was offered since it was answered.
    pub(super) times: u32,
    /// Whether a copy followed.
    pub(super) copied: bool,
}

/// An entry with what this node knows around it.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) entry: Entry,
    pub(super) mark: Mark,
    pub(super) standing: Standing,
    pub(super) peers: Vec<Peer>,
    /// Until then a restored entry may lack what happened meanwhile.
    pub(super) unsure_until: Option<Instant>,
    due: Option<Instant>,
    arrival: u64,
    bytes: usize,
}

impl Kept {
    pub(super) fn party(&self) -> Party {
        self.standing.account(self.standing.grant.key).group()
    }

    /// What this node knows of another keeper.
    pub(super) fn peer(&mut self, key: PublicKey) -> &mut Peer {
        if let Some(at) = self.peers.iter().position(|peer| peer.key == key) {
            return &mut self.peers[at];
        }
        self.peers.push(Peer { key, told: None, offered: None });
        self.peers.last_mut().expect("it was pushed")
    }
}

/// What the driver makes durable of a task: all that there is, or only its course.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Changed {
    Course,
    Whole,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<TaskId, Kept>,
    due: BTreeSet<(Instant, TaskId)>,
    changed: BTreeMap<TaskId, Changed>,
    shares: BTreeMap<Party, (usize, usize)>,
    /// The ended tasks with bytes, by age.
    ended: BTreeSet<(u64, TaskId)>,
    bytes: usize,
    arrivals: u64,
    /// Ended tasks whose bytes were dropped for want of room.
    pub(super) evicted: u64,
}

impl Ledger {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, task: &TaskId) -> Option<&Kept> {
        self.entries.get(task)
    }

    pub(super) fn get_mut(&mut self, task: &TaskId) -> Option<&mut Kept> {
        self.entries.get_mut(task)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&TaskId, &Kept)> {
        self.entries.iter()
    }

    /// The tasks behind this one.
    pub(super) fn after(&self, task: Option<TaskId>) -> impl Iterator<Item = (&TaskId, &Kept)> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.entries.range((task.map_or(Unbounded, Excluded), Unbounded))
    }

    /// Takes a new entry; false if there is no room.
    pub(super) fn insert(&mut self, now: Instant, task: TaskId, entry: Entry, standing: Standing) -> bool {
        let party = standing.account(standing.grant.key).group();
        let bytes = entry.bytes();
        if !self.make_room(party, 1, bytes) {
            return false;
        }
        self.arrivals += 1;
        let (mark, arrival) = (entry.mark(), self.arrivals);
        let (peers, unsure_until, due) = (Vec::new(), None, None);
        let kept = Kept { entry, mark, standing, peers, unsure_until, due, arrival, bytes: 0 };
        self.entries.insert(task, kept);
        let share = self.shares.entry(party).or_default();
        share.0 += 1;
        self.settle(task);
        self.changed.insert(task, Changed::Whole);
        self.look_at(task, now);
        true
    }

    /// Changes an entry. Returns whether its state changed; its record is made durable then, and it is looked at.
    pub(super) fn change(&mut self, now: Instant, task: TaskId, change: impl FnOnce(&mut Entry)) -> bool {
        let Some(kept) = self.entries.get_mut(&task) else { return false };
        let (before, had) = (kept.mark, kept.entry.bytes());
        change(&mut kept.entry);
        kept.mark = kept.entry.mark();
        let (changed, has) = (kept.mark != before, kept.entry.bytes());
        self.settle(task);
        if changed || has != had {
            let how = self.changed.entry(task).or_insert(Changed::Course);
            *how = (*how).max(if has == had { Changed::Course } else { Changed::Whole });
        }
        if changed {
            self.look_at(task, now);
        }
        changed
    }

    /// Joins another copy, if there is room for the bytes that it adds; `standing` is that of its warrant, if that is another
    /// one. Returns whether the state changed; none: no room.
    pub(super) fn merge(
        &mut self,
        now: Instant,
        task: TaskId,
        other: Entry,
        standing: Option<Standing>,
    ) -> Option<bool> {
        let kept = self.entries.get(&task)?;
        let newer = other.terms.warrant.rank() > kept.entry.terms.warrant.rank();
        let grows = other.bytes().saturating_sub(kept.bytes);
        if !self.make_room(kept.party(), 0, grows) {
            return None;
        }
        let changed = self.change(now, task, |entry| {
            entry.merge(other);
        });
        if newer {
            self.changed.insert(task, Changed::Whole);
            if let Some(standing) = standing {
                self.rebook(task, standing);
            }
        }
        Some(changed)
    }

    /// Books an entry on the account of its newer warrant's pass.
    fn rebook(&mut self, task: TaskId, standing: Standing) {
        let Some(kept) = self.entries.get_mut(&task) else { return };
        let (bytes, from) = (kept.bytes, kept.party());
        kept.standing = standing;
        let to = kept.party();
        self.unbook(from, bytes);
        let share = self.shares.entry(to).or_default();
        *share = (share.0 + 1, share.1 + bytes);
    }

    fn unbook(&mut self, party: Party, bytes: usize) {
        if let Some(share) = self.shares.get_mut(&party) {
            *share = (share.0 - 1, share.1 - bytes);
            if share.0 == 0 {
                self.shares.remove(&party);
            }
        }
    }

    /// Forgets which records changed.
    pub(super) fn forget_changed(&mut self) {
        self.changed.clear();
    }

    /// Has all records stored again.
    pub(super) fn store_all(&mut self) {
        self.changed.extend(self.entries.keys().map(|task| (*task, Changed::Whole)));
    }

    pub(super) fn remove(&mut self, task: &TaskId) {
        let Some(kept) = self.entries.remove(task) else { return };
        if let Some(due) = kept.due {
            self.due.remove(&(due, *task));
        }
        self.ended.remove(&(kept.arrival, *task));
        self.bytes -= kept.bytes;
        self.unbook(kept.party(), kept.bytes);
        self.changed.insert(*task, Changed::Whole);
    }

    /// Books what an entry holds now.
    fn settle(&mut self, task: TaskId) {
        let Some(kept) = self.entries.get_mut(&task) else { return };
        let (before, after) = (kept.bytes, kept.entry.bytes());
        kept.bytes = after;
        let (party, ended) = (kept.party(), !kept.entry.is_open() && after > 0);
        let place = (kept.arrival, task);
        if ended {
            self.ended.insert(place);
        } else {
            self.ended.remove(&place);
        }
        self.bytes = self.bytes - before + after;
        if let Some(share) = self.shares.get_mut(&party) {
            share.1 = share.1 - before + after;
        }
    }

    /// Makes room for so many entries and bytes of a party, if need be at the cost of ended tasks' bytes.
    fn make_room(&mut self, party: Party, entries: usize, bytes: usize) -> bool {
        let (most, most_bytes) = (MAX_ENTRIES, MAX_ENTRY_BYTES);
        let share = self.shares.get(&party).copied().unwrap_or_default();
        if entries > 0 && (self.entries.len() + entries > most || share.0 + entries > most / MAX_SHARE) {
            return false;
        }
        while self.shares.get(&party).map_or(0, |share| share.1) + bytes > most_bytes / MAX_SHARE {
            if bytes == 0 || !self.evict(Some(party)) {
                return bytes == 0;
            }
        }
        while self.bytes + bytes > most_bytes {
            if bytes == 0 || !self.evict(None) {
                return bytes == 0;
            }
        }
        true
    }

    /// Drops the bytes of the oldest ended task, of this party if one is given.
    fn evict(&mut self, party: Option<Party>) -> bool {
        let is_theirs = |task: &TaskId| {
            party.is_none_or(|party| self.entries.get(task).is_some_and(|kept| kept.party() == party))
        };
        let Some(oldest) = self.ended.iter().map(|(_, task)| *task).find(is_theirs) else { return false };
        self.evicted += 1;
        self.drop_bytes(oldest);
        true
    }

    /// Drops the bytes of an ended task. Its state stays.
    pub(super) fn drop_bytes(&mut self, task: TaskId) {
        if let Some(kept) = self.entries.get_mut(&task) {
            kept.entry.drop_bytes();
            self.changed.insert(task, Changed::Whole);
        }
        self.settle(task);
    }

    /// Looks at an entry at this time, or earlier if that was planned.
    pub(super) fn look_at(&mut self, task: TaskId, at: Instant) {
        let Some(kept) = self.entries.get_mut(&task) else { return };
        if kept.due.is_some_and(|due| due <= at) {
            return;
        }
        if let Some(due) = kept.due.replace(at) {
            self.due.remove(&(due, task));
        }
        self.due.insert((at, task));
    }

    /// Looks at every entry now.
    pub(super) fn look_at_all(&mut self, now: Instant) {
        let all: Vec<TaskId> = self.entries.keys().copied().collect();
        all.into_iter().for_each(|task| self.look_at(task, now));
    }

    /// The next entry that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<TaskId> {
        let first = *self.due.first().filter(|(due, _)| *due <= now)?;
        self.due.remove(&first);
        if let Some(kept) = self.entries.get_mut(&first.1) {
            kept.due = None;
        }
        Some(first.1)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The next tasks whose records changed, and how.
    pub(super) fn take_changed(&mut self, most: usize) -> Vec<(TaskId, Changed)> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(changed) = self.changed.pop_first()
        {
            taken.push(changed);
        }
        taken
    }

    /// Notes that an entry's record is as it was stored.
    pub(super) fn is_stored(&mut self, task: &TaskId) {
        self.changed.remove(task);
    }
}
