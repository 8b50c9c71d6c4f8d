//! Hand-off: a former owner's copy goes to all owners before it is dropped.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Replicator;
use super::message::Message;
use crate::key::PublicKey;
use crate::replication::crdt::Digest;

/// The pause before a copy is offered again to the owners that didn't acknowledge it. It doubles up to [`PAUSE_MAX`],
/// so a hand-off to an absent owner continues at a low rate. A change of the view, perhaps with an owner that is
/// back, resets the pause.
const PAUSE_MIN: Duration = Duration::from_secs(5);
/// The upper limit of [`PAUSE_MIN`]'s doubling.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// The pause before owners whose acknowledged states differ are asked again: a summary may have repaired them by
/// then.
const REPAIRED: Duration = Duration::from_secs(10);
/// Limit on the copies examined in one tick.
const MAX_PER_TICK: usize = 1024;

/// The progress of one key's hand-off.
#[derive(Debug, Clone)]
pub(super) struct HandOff {
    /// When the present owners became the owners.
    since: Instant,
    next: Instant,
    pause: Duration,
    id: u64,
    acknowledged: BTreeMap<PublicKey, Digest>,
}

impl HandOff {
    pub(super) fn new(now: Instant) -> HandOff {
        HandOff { since: now, next: now, pause: PAUSE_MIN, id: 0, acknowledged: BTreeMap::new() }
    }

    /// Notes a view with the same owners: an absent owner may be back.
    pub(super) fn view_changed(&mut self, now: Instant) {
        self.next = self.next.min(now + PAUSE_MIN);
        self.pause = PAUSE_MIN;
    }
}

impl Replicator {
    /// Whether the acknowledgement belongs to a hand-off.
    pub(super) fn hand_off_acknowledged(
        &mut self,
        from: PublicKey,
        key: &[u8],
        id: u64,
        digest: Digest,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        match &mut entry.hand_off {
            Some(hand_off) if hand_off.id == id => {
                hand_off.acknowledged.insert(from, digest);
                (entry.unspread, entry.offered) = (false, 0);
                if entry.owners.iter().all(|owner| hand_off.acknowledged.contains_key(owner)) {
                    // The next tick compares the owners' digests, however long the pause would be.
                    hand_off.next = hand_off.since;
                }
                true
            }
            _ => false,
        }
    }

    pub(super) fn continue_hand_off(&mut self, now: Instant) {
        let due: Vec<Vec<u8>> = self
            .leaving
            .iter()
            .filter(|key| {
                let entry = self.entries.get(*key);
                entry.and_then(|entry| entry.hand_off.as_ref()).is_none_or(|hand_off| hand_off.next <= now)
            })
            .take(MAX_PER_TICK)
            .cloned()
            .collect();
        for key in due {
            if self.budget <= 0 {
                self.stats.throttled += 1;
                return;
            }
            self.hand_off_key(now, &key);
        }
    }

    fn hand_off_key(&mut self, now: Instant, key: &[u8]) {
        let id = self.fresh_id();
        let Some(entry) = self.entries.get_mut(key) else {
            self.leaving.remove(key);
            return;
        };
        let owners = entry.owners.clone();
        let Some(hand_off) = &mut entry.hand_off else {
            self.leaving.remove(key);
            return;
        };
        if owners.is_empty() {
            hand_off.next = now + PAUSE_MAX;
            return;
        }
        let mut digests: Vec<&Digest> = hand_off.acknowledged.values().collect();
        digests.dedup();
        let complete = owners.iter().all(|owner| hand_off.acknowledged.contains_key(owner));
        if complete && digests.len() == 1 {
            let held = now.saturating_duration_since(hand_off.since);
            if held < self.config.hand_off_hold {
                hand_off.next = hand_off.since + self.config.hand_off_hold;
            } else if self.drop_entry(key) {
                self.leaving.remove(key);
                self.stats.handed_off += 1;
            } else if let Some(hand_off) = self.entries.get_mut(key).and_then(|entry| entry.hand_off.as_mut())
            {
                hand_off.next = now + PAUSE_MAX;
            }
            return;
        }
        // All owners have the copy, but their digests differ: ask all again after they had time to repair.
        if complete {
            hand_off.acknowledged.clear();
            hand_off.pause = PAUSE_MIN;
            hand_off.next = now + REPAIRED;
            return;
        }
        let missing: Vec<PublicKey> =
            owners.into_iter().filter(|owner| !hand_off.acknowledged.contains_key(owner)).collect();
        hand_off.id = id;
        // The pause doubles with each further offer.
        hand_off.next = now + hand_off.pause;
        hand_off.pause = (hand_off.pause * 2).min(PAUSE_MAX);
        let state = entry.value.encode();
        for owner in missing {
            if !self.spend(state.len() + key.len()) {
                return;
            }
            self.stats.states_sent += 1;
            let message = Message::Copy { key: key.to_vec().into(), id, state: state.clone().into() };
            self.send(owner, &message);
        }
    }
}
