//! Leaving: what only this node has is offered to the other owners until one of them has it.
//!
//! A write of an owner goes to the others as a delta that nobody acknowledges, since summaries find what was lost on
//! the way. A node that leaves is not there for the next summary.

use std::time::{Duration, Instant};

use super::Replicator;
use super::message::Message;

/// Between two offers: a few round trips.
const OFFER_EVERY: Duration = Duration::from_millis(250);

/// Keys offered at once. What is acknowledged makes room for the next.
const MAX_OFFERS: usize = 1024;

/// Keys whose newest writes no other node is known to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unheld {
    /// In all.
    pub keys: usize,
    /// Those that have another owner, which is offered them.
    pub offered: usize,
}

impl Replicator {
    /// Begins to offer what no other node is known to have, until [`unheld`](Replicator::unheld) says that it's done.
    pub fn leave(&mut self, now: Instant) {
        self.next_offer = Some(now);
        self.offer_again(now);
    }

    /// What no other node is known to have.
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
        // A late answer to an earlier offer is good, too, as long as nothing was written since.
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

    /// Another owner has just what is held here.
    pub(super) fn note_spread(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.spread();
        }
    }
}
