//! Other nodes that wait for a change of an object that is kept here.
//!
//! WATCH names the digest that its sender has. It is answered as soon as the copy here has another one, at once or when that
//! changes; or, after a while, by the word that there is nothing new. The table is bounded, and leaves room to others: who
//! finds none is told so, and reads now and then instead.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::{Duration, Instant};

use minicbor::bytes::ByteVec;

use super::copies::Copies;
use super::message::Message;
use super::shared::Shared;
use crate::authority::account::Account;
use crate::key::PublicKey;
use crate::kit::shares::Shares;
use crate::replication::crdt::Digest;
use crate::rt::{Table, bound};

/// Limit on the waiting nodes. One pass has a half or a quarter of what is left, as of [operations](super::served).
const MAX_WATCHERS: usize = 4096;
/// How long a node waits for an answer at most.
pub(super) const NOTHING_NEW_AFTER: Duration = Duration::from_secs(25);

/// The object as it is here, which differs.
pub(super) const DIFFERS: u8 = 0;
/// It is as the watcher has it, so far.
pub(super) const NOTHING_NEW: u8 = 1;
/// There is no room for another watcher.
pub(super) const NO_ROOM: u8 = 2;

/// The watched keys whose objects may have changed since they were looked at.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// How many watch each.
    watched: BTreeMap<Vec<u8>, usize>,
    touched: BTreeSet<Vec<u8>>,
}

impl Touched {
    pub(super) fn watch(&mut self, key: &[u8]) {
        *self.watched.entry(key.to_vec()).or_default() += 1;
    }

    pub(super) fn unwatch(&mut self, key: &[u8]) {
        let Some(count) = self.watched.get_mut(key) else { return };
        *count -= 1;
        if *count == 0 {
            self.watched.remove(key);
            self.touched.remove(key);
        }
    }

    /// Notes a change.
    pub(super) fn note(&mut self, key: &[u8]) {
        if self.watched.contains_key(key) {
            self.touched.insert(key.to_vec());
        }
    }

    /// The changed keys, once.
    pub(super) fn take(&mut self) -> BTreeSet<Vec<u8>> {
        std::mem::take(&mut self.touched)
    }
}

#[derive(Debug)]
struct Waiting {
    account: Account,
    /// What the watcher has; none: nothing.
    has: Option<Digest>,
    until: Instant,
}

/// The waiting nodes.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    /// By key, node and the id that it gave.
    waiting: BTreeMap<(Vec<u8>, PublicKey, u64), Waiting>,
    shares: Shares<Account>,
}

/// The digest of what is shown of an object here; none if that is nothing.
fn shown_digest(copies: &mut Copies, key: &[u8]) -> Option<Digest> {
    copies.value(key).filter(|object| object.dead_since().is_none())?;
    copies.digest(key)
}

fn answer(sh: &mut Shared, copies: &Copies, to: PublicKey, key: &[u8], id: u64, outcome: u8) {
    let state = copies.value(key).filter(|_| outcome == DIFFERS);
    let state = state.map(|object| ByteVec::from(object.encode()));
    sh.send(to, &Message::Watched { key: key.to_vec().into(), id, outcome, state });
}

impl Watchers {
    /// Answers at once, or keeps the watcher.
    pub(super) fn on_watch(
        &mut self,
        sh: &mut Shared,
        copies: &mut Copies,
        now: Instant,
        by: Account,
        (key, id, has): (Vec<u8>, u64, Option<Digest>),
    ) {
        let (from, account) = (by.key(), by.of_pass());
        let name = (key, from, id);
        self.forget(sh, &name);
        let key = &name.0;
        if !sh.takes(key) {
            return sh.refuse(from, key.clone().into(), Some(id));
        }
        if shown_digest(copies, key) != has {
            return answer(sh, copies, from, key, id, DIFFERS);
        }
        if !self.shares.leaves_room(&account, bound(Table::Watchers, MAX_WATCHERS) as u64) {
            sh.stats.full += 1;
            return answer(sh, copies, from, key, id, NO_ROOM);
        }
        self.shares.add(account, 1);
        sh.events.touched.watch(key);
        self.waiting.insert(name, Waiting { account, has, until: now + NOTHING_NEW_AFTER });
    }

    fn forget(&mut self, sh: &mut Shared, name: &(Vec<u8>, PublicKey, u64)) {
        if let Some(waiting) = self.waiting.remove(name) {
            self.shares.sub(waiting.account, 1);
            sh.events.touched.unwatch(&name.0);
        }
    }

    /// Answers those that wait for a key which may have changed, or which this node doesn't keep any more.
    pub(super) fn look(&mut self, sh: &mut Shared, copies: &mut Copies, key: &[u8]) {
        let first = (key.to_vec(), PublicKey::from_bytes([0; 32]), 0);
        let from = self.waiting.range((Bound::Included(first), Bound::Unbounded));
        let of_key = from.take_while(|((of, ..), _)| of == key);
        let waiting: Vec<_> = of_key.map(|(name, waiting)| (name.clone(), waiting.has)).collect();
        if waiting.is_empty() {
            return;
        }
        let (keeps, present) = (sh.takes(key), shown_digest(copies, key));
        for (name, has) in waiting {
            if keeps && present == has {
                continue;
            }
            self.forget(sh, &name);
            if keeps {
                answer(sh, copies, name.1, key, name.2, DIFFERS);
            } else {
                sh.refuse(name.1, name.0.into(), Some(name.2));
            }
        }
    }

    /// Refuses those that wait for what this node doesn't keep in a new view.
    pub(super) fn follow(&mut self, sh: &mut Shared, copies: &mut Copies) {
        let keys: BTreeSet<Vec<u8>> = self.waiting.keys().map(|(key, ..)| key.clone()).collect();
        for key in keys {
            self.look(sh, copies, &key);
        }
    }

    /// Answers those that have waited for long.
    pub(super) fn expire(&mut self, sh: &mut Shared, copies: &Copies, now: Instant) {
        let over = self.waiting.iter().filter(|(_, waiting)| waiting.until <= now);
        let over: Vec<_> = over.map(|(name, _)| name.clone()).collect();
        for name in over {
            self.forget(sh, &name);
            answer(sh, copies, name.1, &name.0, name.2, NOTHING_NEW);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}
