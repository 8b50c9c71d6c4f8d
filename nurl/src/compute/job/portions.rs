//! What each submitter has of an executor: tasks, payload bytes, running handlers.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::options::{MAX_EXECUTION_BYTES, MAX_EXECUTIONS, NEWCOMER_BYTES};
use super::task::Priority;
use crate::key::PublicKey;
use crate::kit::shares::Shares;

/// The portions of all submitters that have a task here.
#[derive(Debug, Default)]
pub(super) struct Portions {
    tasks: Shares<PublicKey>,
    bytes: Shares<PublicKey>,
    running: Shares<PublicKey>,
    /// The number of each submitter's latest start.
    served: BTreeMap<PublicKey, u64>,
    starts: u64,
}

impl Portions {
    pub(super) fn taken(&mut self, submitter: PublicKey, bytes: usize) {
        self.tasks.add(submitter, 1);
        self.bytes.add(submitter, bytes as u64);
    }

    pub(super) fn gone(&mut self, submitter: PublicKey, bytes: usize) {
        self.tasks.sub(submitter, 1);
        self.bytes.sub(submitter, bytes as u64);
        self.forget(submitter);
    }

    pub(super) fn started(&mut self, submitter: PublicKey) {
        self.running.add(submitter, 1);
        self.starts += 1;
        self.served.insert(submitter, self.starts);
    }

    pub(super) fn ended(&mut self, submitter: PublicKey) {
        self.running.sub(submitter, 1);
        self.forget(submitter);
    }

    /// The order in which submitters get a free place: least running, highest priority, longest since its last start.
    pub(super) fn turn(
        &self,
        submitter: &PublicKey,
        priority: Reverse<Priority>,
    ) -> (u64, Reverse<Priority>, u64) {
        let served = self.served.get(submitter).copied().unwrap_or(0);
        (self.running.of(submitter), priority, served)
    }

    /// None if a task of `submitter` fits. Else the submitters that have more than it would have, the largest first:
    /// one of their tasks gives way.
    pub(super) fn payers_for(&self, submitter: &PublicKey, bytes: usize) -> Option<Vec<PublicKey>> {
        let kept_free = if self.tasks.of(submitter) == 0 { 0 } else { NEWCOMER_BYTES };
        let bytes = bytes as u64;
        let (shares, more) = if self.tasks.total() >= MAX_EXECUTIONS as u64 {
            (&self.tasks, 1)
        } else if self.bytes.total() + bytes > (MAX_EXECUTION_BYTES - kept_free) as u64 {
            (&self.bytes, bytes)
        } else {
            return None;
        };
        let would_have = shares.of(submitter) + more;
        let larger = shares.ranking().take_while(|(_, amount)| *amount > would_have);
        Some(larger.map(|(holder, _)| holder).filter(|holder| holder != submitter).collect())
    }

    fn forget(&mut self, submitter: PublicKey) {
        if self.tasks.of(&submitter) == 0 && self.running.of(&submitter) == 0 {
            self.served.remove(&submitter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_with_the_fewest_running_starts_next_whatever_anothers_priority() {
        let (a, b) = (PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32]));
        let mut portions = Portions::default();
        for who in [a, b] {
            (0..3).for_each(|_| portions.taken(who, 0));
        }
        let turn = |portions: &Portions, who, priority| portions.turn(&who, Reverse(priority));
        assert!(turn(&portions, b, Priority::High) < turn(&portions, a, Priority::Low));
        portions.started(b);
        assert!(turn(&portions, a, Priority::Low) < turn(&portions, b, Priority::High));
        portions.ended(b);
        assert!(turn(&portions, a, Priority::Low) < turn(&portions, b, Priority::Low), "they take turns");
    }

    #[test]
    fn the_last_payload_is_kept_for_a_newcomer() {
        let (a, b) = (PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32]));
        let mut portions = Portions::default();
        let mut taken = 0;
        while portions.payers_for(&a, NEWCOMER_BYTES).is_none() {
            portions.taken(a, NEWCOMER_BYTES);
            taken += 1;
        }
        assert_eq!(taken, MAX_EXECUTION_BYTES / NEWCOMER_BYTES - 1);
        assert_eq!(portions.payers_for(&b, NEWCOMER_BYTES), None);
        portions.taken(b, NEWCOMER_BYTES);
        assert_eq!(portions.payers_for(&b, NEWCOMER_BYTES), Some(vec![a]));
    }
}
