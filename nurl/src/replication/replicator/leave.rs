//! Leaving: states that only this node has are offered to the other owners until one of them has them.
//!
//! An owner's write goes to the other owners as an unacknowledged delta, because summaries find the deltas that were
//! lost. A node that leaves doesn't take part in the next summary.

use std::time::{Duration, Instant};

use super::Replicator;
use super::message::Message;

/// The interval between two offers: a few round trips.
const OFFER_EVERY: Duration = Duration::from_millis(250);

/// Limit on the keys offered at once. Each acknowledgement makes room for the next key.
const MAX_OFFERS: usize = 1024;

/// A count of the keys whose newest writes no other node is known to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unheld {
    /// All of them.
    pub keys: usize,
    /// The keys that have another owner, to which they are offered.
    pub offered: usize,
}

impl Replicator {
    /// Begins to offer the states that no other node is known to have, until [`unheld`](Replicator::unheld) counts
    /// none.
    pub fn leave(&mut self, now: Instant) {
        self.next_offer = Some(now);
        self.offer_again(now);
    }

    /// Counts the keys that no other node is known to have.
    pub fn unheld(&self) -> Unheld {
        let unspread = self.entries.iter().filter(|(_, entry)| entry.unspread).map(|(key, _)| key);
        let mut unheld = Unheld::default();
        for key in unspread.chain(self.pending.keys()) {
            unheld.keys += 1;
            unheld.offered += usize::from(!self.other_owners(key).is_empty());
        }
        unheld
    }

    pub(super) fn offer_again(&mut self, now: Instant) {
        if self.next_offer.is_none_or(|due| due > now) {
            return;
        }
        self.next_offer = Some(now + OFFER_EVERY);
        let unspread = self.entries.iter().filter(|(_, entry)| entry.unspread);
        let copies: Vec<Vec<u8>> = unspread.map(|(key, _)| key.clone()).take(MAX_OFFERS).collect();
        for key in copies {
            self.offer_copy(&key);
        }
        let pending: Vec<Vec<u8>> = self.pending.keys().take(MAX_OFFERS).cloned().collect();
        for key in pending {
            let Some(pending) = self.pending.get(&key) else { continue };
            let (id, state) = (pending.id(), pending.value().encode());
            self.fan_out(&key, Some(id), state);
        }
    }

    fn offer_copy(&mut self, key: &[u8]) {
        let (id, owners) = (self.fresh_id(), self.other_owners(key));
        let Some(entry) = self.entries.get_mut(key) else { return };
        // The id of the earlier offer stays valid as long as nothing was written since, so a late answer to it
        // counts.
        if entry.offered == 0 {
            entry.offered = id;
        }
        let message =
            Message::Copy { key: key.to_vec().into(), id: entry.offered, state: entry.value.encode().into() };
        for owner in owners {
            self.stats.states_sent += 1;
            self.send(owner, &message);
        }
    }

    /// Whether the acknowledgement belongs to an offer.
    pub(super) fn offer_acknowledged(&mut self, key: &[u8], id: u64) -> bool {
        let entry = self.entries.get_mut(key).filter(|entry| entry.offered == id && id != 0);
        let Some(entry) = entry else { return false };
        entry.spread();
        true
    }

    /// Notes that another owner has exactly the state held here.
    pub(super) fn note_spread(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.spread();
        }
    }
}
