//! Leaving: states that only this node has are offered to the other owners until one of them has them.
//!
//! An owner's write goes to the other owners as an unacknowledged delta, because summaries find the deltas that were
//! lost. A node that leaves doesn't take part in the next summary.

use std::time::{Duration, Instant};

use super::copies::Copies;
use super::message::Message;
use super::shared::Shared;

/// The interval between two offers: a few round trips.
const OFFER_EVERY: Duration = Duration::from_millis(250);

/// Limit on the keys offered at once. Each acknowledgement makes room for the next key.
pub(super) const MAX_OFFERS: usize = 1024;

/// A count of the keys whose newest writes no other node is known to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unheld {
    /// All of them.
    pub keys: usize,
    /// The keys that have another owner, to which they are offered.
    pub offered: usize,
}

/// The schedule of offers.
#[derive(Debug, Default)]
pub(super) struct Offers {
    /// When this node next offers, once it leaves.
    next: Option<Instant>,
}

impl Offers {
    /// Begins to offer.
    pub(super) fn begin(&mut self, now: Instant) {
        self.next = Some(now);
    }

    /// The time of the next offer.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Offers the states that no other owner is known to have, if it is time. Returns whether it was.
    pub(super) fn offer_again(&mut self, sh: &mut Shared, copies: &mut Copies, now: Instant) -> bool {
        if self.next.is_none_or(|due| due > now) {
            return false;
        }
        self.next = Some(now + OFFER_EVERY);
        let unspread: Vec<Vec<u8>> = copies.unspread_keys().take(MAX_OFFERS).cloned().collect();
        for key in unspread {
            offer(sh, copies, &key);
        }
        true
    }
}

fn offer(sh: &mut Shared, copies: &mut Copies, key: &[u8]) {
    let id = sh.fresh_id();
    let Some(entry) = copies.get_mut(key) else { return };
    let id = entry.offer(id);
    let message = Message::Copy { key: key.to_vec().into(), id, state: entry.value().encode().into() };
    for keeper in sh.other_keepers(key) {
        sh.stats.states_sent += 1;
        sh.send(keeper.key, &message);
    }
}
