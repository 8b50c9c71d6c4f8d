//! A node that was away for longer than the marks of deletions are kept.
//!
//! What it holds may have been deleted meanwhile, and the others have forgotten that, too. So it sets its copies aside, and
//! asks the owners of each. If one of them vouches, having been there, its word counts, and the old copy is discarded: what
//! the others lack is gone. If none does, since they are new or were away, too, nobody knows better, and the copy stands.
//!
//! Its sums are of that time, too, so it writes on as another actor; and its unconfirmed writes are over.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use super::error::UpdateError;
use super::held::Held;
use super::record::Record;
use super::served::Served;
use super::shared::{Moment, Shared};
use super::told;
use super::writes::Writes;
use crate::replication::crdt::Object;

/// Limit on the objects that are asked about in one tick.
pub(super) const MAX_ASKED_PER_TICK: usize = 256;

/// The objects that are set aside.
#[derive(Debug, Default)]
pub(super) struct Aside {
    objects: BTreeMap<Vec<u8>, Object>,
    /// The key that was asked about last.
    asked: Vec<u8>,
    /// Whether this process has been among others.
    met_others: bool,
    /// Whether it found what an earlier one left before a long absence.
    found_old: bool,
}

impl Aside {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Object> {
        self.objects.get(key)
    }

    /// Restores what an earlier process set aside.
    pub(super) fn insert(&mut self, key: &[u8], object: Object) {
        self.objects.insert(key.to_vec(), object);
    }

    /// The next keys to ask about, in their order, and from the first again.
    pub(super) fn next(&mut self, most: usize) -> Vec<Vec<u8>> {
        let after = self.objects.range::<Vec<u8>, _>((Bound::Excluded(&self.asked), Bound::Unbounded));
        let next: Vec<Vec<u8>> = after.map(|(key, _)| key.clone()).take(most).collect();
        self.asked = next.last().cloned().unwrap_or_default();
        next
    }

    fn set_aside(&mut self, sh: &mut Shared, key: &[u8], object: Object) {
        sh.stats.set_aside += 1;
        sh.events.changed(key);
        self.objects.insert(key.to_vec(), object);
    }

    /// Notes that another member is alive. After a long absence of this process the copies are set aside; what an earlier
    /// one left was when it was restored.
    pub(super) fn see(
        &mut self,
        sh: &mut Shared,
        (held, writes, served): (&mut Held, &mut Writes, &mut Served),
        wall: Duration,
    ) {
        if self.met_others && sh.was_long_away(wall) {
            for key in held.copies.keys().cloned().collect::<Vec<_>>() {
                if let Some(object) = held.copies.take(sh, &key) {
                    self.set_aside(sh, &key, object);
                }
            }
            held.forget_hand_offs(sh);
            writes.give_up(sh, served);
            warn(sh);
        }
        self.met_others = true;
        let kept = sh.marks_kept();
        sh.events.presence.see(wall, kept);
    }

    /// Takes a record that an earlier process left before a long absence.
    pub(super) fn restore_old(
        &mut self,
        sh: &mut Shared,
        key: &[u8],
        record: &Record,
    ) -> Result<(), UpdateError> {
        if !self.found_old {
            self.found_old = true;
            sh.renew();
            warn(sh);
        }
        if let Some(state) = record.held() {
            self.set_aside(sh, key, Object::decode(state)?);
        }
        sh.events.changed(key);
        Ok(())
    }

    /// Decides about an object that was set aside: `vouched` tells whether an owner knows better; none if too few have
    /// answered.
    pub(super) fn decide(
        &mut self,
        sh: &mut Shared,
        held: &mut Held,
        at: Moment,
        key: &[u8],
        vouched: Option<bool>,
    ) {
        let Some(vouched) = vouched else { return };
        let Some(object) = self.objects.remove(key) else { return };
        sh.events.changed(key);
        if vouched {
            sh.stats.discarded += 1;
            tracing::debug!(target: "nurl::state", key = %told::name(key), "an old copy is discarded");
        } else if let Err(UpdateError::Full(_)) = held.merge(sh, at, key, &object, object.encode().len()) {
            self.objects.insert(key.to_vec(), object);
        }
        if self.objects.is_empty() {
            let (set_aside, discarded) = (sh.stats.set_aside, sh.stats.discarded);
            tracing::warn!(target: "nurl::state", set_aside, discarded, "what was set aside is decided");
        }
    }
}

fn warn(sh: &Shared) {
    tracing::warn!(
        target: "nurl::state",
        days = sh.marks_kept().as_secs() / 86_400,
        "this node saw no other member alive for longer than deletions are remembered: what it holds is set aside until \
         the owners have told what is left of it"
    );
}
