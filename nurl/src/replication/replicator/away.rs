//! A node that was away for longer than the marks of deletions are kept.
//!
//! What it holds may have been deleted meanwhile, and the others have forgotten that, too. So it sets its copies aside, and
//! asks the owners of each. If one of them vouches, having been there, its word counts, and the old copy is discarded: what
//! the others lack is gone. If none does, since they are new or were away, too, nobody knows better, and the copy stands.
//!
//! Its sums are of that time, too, so it writes on as another actor; and its unconfirmed writes are over.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::Replicator;
use super::asking::Asked;
use super::error::UpdateError;
use super::presence::Presence;
use super::record::Record;
use super::shared::Moment;
use crate::replication::crdt::Object;

/// Limit on the objects that are asked about in one tick.
const MAX_ASKED_PER_TICK: usize = 256;

/// The objects that are set aside.
#[derive(Debug, Default)]
pub(super) struct Aside {
    objects: BTreeMap<Vec<u8>, Object>,
    /// The key that was asked about last.
    asked: Vec<u8>,
}

impl Aside {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Object> {
        self.objects.get(key)
    }

    pub(super) fn insert(&mut self, key: &[u8], object: Object) {
        self.objects.insert(key.to_vec(), object);
    }

    /// The next keys, in their order, and from the first again.
    fn next(&mut self, most: usize) -> Vec<Vec<u8>> {
        let after = self.objects.range::<Vec<u8>, _>((Bound::Excluded(&self.asked), Bound::Unbounded));
        let next: Vec<Vec<u8>> = after.map(|(key, _)| key.clone()).take(most).collect();
        self.asked = next.last().cloned().unwrap_or_default();
        next
    }
}

impl Replicator {
    /// When this node was among others. It must be kept durably, see [`Config`](super::Config).
    pub fn presence(&self) -> Presence {
        self.shared.events.presence_to_store()
    }

    /// Notes that another member is alive. After a long absence of this process the copies are set aside; what an earlier one
    /// left was when it was restored.
    pub(super) fn see(&mut self, wall: Duration) {
        if self.met_others && self.shared.was_long_away(wall) {
            let keys: Vec<Vec<u8>> = self.held.copies.keys().cloned().collect();
            for key in keys {
                if let Some(object) = self.held.copies.take(&mut self.shared, &key) {
                    self.set_aside(&key, object);
                }
            }
            self.held.forget_hand_offs(&mut self.shared);
            self.writes.give_up(&mut self.shared, &mut self.served);
            self.say_that_it_was_away();
        }
        self.met_others = true;
        let kept = self.shared.marks_kept();
        self.shared.events.presence.see(wall, kept);
    }

    /// Takes a record that an earlier process left before a long absence.
    pub(super) fn restore_old(&mut self, key: &[u8], record: &Record) -> Result<(), UpdateError> {
        if self.shared.stats.renewed == 0 {
            self.shared.renew();
            self.say_that_it_was_away();
        }
        if let Some(state) = record.held() {
            self.set_aside(key, Object::decode(state)?);
        }
        self.shared.events.changed(key);
        Ok(())
    }

    fn say_that_it_was_away(&self) {
        tracing::warn!(
            target: "nurl::state",
            days = self.shared.marks_kept().as_secs() / 86_400,
            "this node saw no other member alive for longer than deletions are remembered: what it holds is set aside until \
             the owners have told what is left of it"
        );
    }

    /// Sets a copy aside.
    pub(super) fn set_aside(&mut self, key: &[u8], object: Object) {
        self.shared.stats.set_aside += 1;
        self.shared.events.changed(key);
        self.aside.insert(key, object);
    }

    /// Asks the owners about the next objects that are set aside.
    pub(super) fn ask_about_aside(&mut self, now: Instant) {
        for key in self.aside.next(MAX_ASKED_PER_TICK) {
            let asked = !self.shared.other_keepers(&key).iter().any(|keeper| keeper.live)
                || self.ask(now, &key, Asked::Aside).is_err();
            if asked {
                return;
            }
        }
    }

    /// Decides about an object that was set aside: `vouched` tells whether an owner knows better; none if too few have
    /// answered.
    pub(super) fn decide_aside(&mut self, at: Moment, key: &[u8], vouched: Option<bool>) {
        let Some(vouched) = vouched else { return };
        let Some(object) = self.aside.objects.remove(key) else { return };
        let sh = &mut self.shared;
        sh.events.changed(key);
        if vouched {
            sh.stats.discarded += 1;
            tracing::debug!(target: "nurl::state", key = %super::told::name(key), "an old copy is discarded");
        } else {
            let size = object.encode().len();
            let taken = self.held.merge(sh, at, key, &object, size);
            if let Err(UpdateError::Full(_)) = taken {
                self.aside.insert(key, object);
            }
        }
        if self.aside.objects.is_empty() {
            let (set_aside, discarded) = (self.shared.stats.set_aside, self.shared.stats.discarded);
            tracing::warn!(target: "nurl::state", set_aside, discarded, "what was set aside is decided");
        }
    }
}
