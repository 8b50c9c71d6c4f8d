//! What each account has of an executor: tasks, payload bytes, running handlers.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::options::{MAX_EXECUTION_BYTES, MAX_EXECUTIONS, NEWCOMER_BYTES};
use super::task::Priority;
use crate::authority::account::{Account, Party};
use crate::kit::shares::{Holder as _, Shares};
use crate::rt::{Table, bound};

/// The portions of all submitters that have a task here.
#[derive(Debug, Default)]
pub(super) struct Portions {
    tasks: Shares<Account>,
    bytes: Shares<Account>,
    running: Shares<Account>,
    /// The number of each party's latest start, or of the one before the latest when it came: whoever waits longer is
    /// before it.
    served: BTreeMap<(usize, Party), u64>,
    starts: u64,
}

/// A submitter's place in the order in which free places are given: of the invitations, then of the passes, the one with
/// the fewest running, then the one whose last start is longest ago; of the keys the one with the fewest running, the
/// highest priority, the longest time since its last start.
pub(super) type Turn = ([(u64, u64); 2], u64, Reverse<Priority>, u64);

impl Portions {
    pub(super) fn taken(&mut self, submitter: Account, bytes: usize) {
        self.tasks.add(submitter, 1);
        self.bytes.add(submitter, bytes as u64);
        for (tier, party) in submitter.path().into_iter().enumerate() {
            // Before the one that has just started, and after all that wait.
            self.served.entry((tier, party)).or_insert(self.starts.saturating_sub(1));
        }
    }

    pub(super) fn gone(&mut self, submitter: Account, bytes: usize) {
        self.tasks.sub(submitter, 1);
        self.bytes.sub(submitter, bytes as u64);
        self.forget(submitter);
    }

    pub(super) fn started(&mut self, submitter: Account) {
        self.running.add(submitter, 1);
        self.starts += 1;
        for (tier, party) in submitter.path().into_iter().enumerate() {
            self.served.insert((tier, party), self.starts);
        }
    }

    pub(super) fn ended(&mut self, submitter: Account) {
        self.running.sub(submitter, 1);
        self.forget(submitter);
    }

    /// The submitter's turn; the lowest is next.
    pub(super) fn turn(&self, submitter: &Account, priority: Priority) -> Turn {
        let (mut running, path) = (self.running.amounts(submitter), submitter.path());
        let [group, pass, key] = std::array::from_fn(|tier| {
            let served = self.served.get(&(tier, path[tier])).copied().unwrap_or(0);
            (running.next().unwrap_or(0), served)
        });
        ([group, pass], key.0, Reverse(priority), key.1)
    }

    /// None if a task of `submitter` fits. Else the submitters that can pay, in the order in which they have to: one of
    /// their tasks gives way.
    pub(super) fn payers_for(
        &self,
        submitter: &Account,
        bytes: usize,
    ) -> Option<impl Iterator<Item = Account> + '_> {
        let is_newcomer = self.tasks.amounts(submitter).next() == Some(0);
        let kept_free = if is_newcomer { 0 } else { NEWCOMER_BYTES };
        let bytes = bytes as u64;
        let (shares, more) = if self.tasks.total() >= bound(Table::Executions, MAX_EXECUTIONS) as u64 {
            (&self.tasks, 1)
        } else if self.bytes.total() + bytes > (MAX_EXECUTION_BYTES - kept_free) as u64 {
            (&self.bytes, bytes)
        } else {
            return None;
        };
        Some(shares.payers(submitter, more))
    }

    fn forget(&mut self, submitter: Account) {
        let has = self.tasks.amounts(&submitter).zip(self.running.amounts(&submitter));
        for ((tier, party), has) in submitter.path().into_iter().enumerate().zip(has) {
            if has == (0, 0) {
                self.served.remove(&(tier, party));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By invitation, pass and key.
    const fn by(invitation: u8, pass: u16, key: u32) -> (u8, u16, u32) {
        (invitation, pass, key)
    }

    fn account((invitation, pass, key): (u8, u16, u32)) -> Account {
        Account::for_tests(invitation, pass, key)
    }

    #[test]
    fn the_one_with_the_fewest_running_starts_next_whatever_anothers_priority() {
        for (a, b) in [(by(1, 1, 1), by(2, 2, 2)), (by(1, 1, 1), by(1, 2, 2)), (by(1, 1, 1), by(1, 1, 2))] {
            let (a, b) = (account(a), account(b));
            let mut portions = Portions::default();
            for who in [a, b] {
                (0..3).for_each(|_| portions.taken(who, 0));
            }
            let turn = |portions: &Portions, who, priority| portions.turn(&who, priority);
            assert!(turn(&portions, b, Priority::High) < turn(&portions, a, Priority::Low));
            portions.started(b);
            assert!(turn(&portions, a, Priority::Low) < turn(&portions, b, Priority::High));
            portions.ended(b);
            assert!(turn(&portions, a, Priority::Low) < turn(&portions, b, Priority::Low), "they take turns");
        }
    }

    #[test]
    fn many_keys_have_one_turn_and_a_priority_counts_among_the_tasks_of_one_pass_alone() {
        let honest = account(by(2, 1, 0));
        for flood in [by(1, 7, 0), by(2, 7, 0)] {
            let mut portions = Portions::default();
            let keys: Vec<Account> = (1..100).map(|key| account(by(flood.0, flood.1, key))).collect();
            keys.iter().for_each(|key| portions.taken(*key, 0));
            portions.started(keys[0]);
            portions.taken(honest, 0);
            portions.ended(keys[0]);
            let before = |portions: &Portions| {
                let own = portions.turn(&honest, Priority::Low);
                keys.iter().filter(|key| portions.turn(key, Priority::High) < own).count()
            };
            // One run that began when the honest one came may be before it, and none of a key that comes later.
            portions.started(keys[1]);
            portions.ended(keys[1]);
            keys[2..9].iter().for_each(|key| portions.gone(*key, 0));
            keys[2..9].iter().for_each(|key| portions.taken(*key, 0));
            assert_eq!(before(&portions), 0, "{flood:?}");
        }
    }

    #[test]
    fn the_last_payload_is_kept_for_a_newcomer_which_another_key_of_the_same_invitation_is_not() {
        let (a, b) = (account(by(1, 1, 1)), account(by(2, 2, 2)));
        let mut portions = Portions::default();
        let payers = |portions: &Portions, who| {
            portions.payers_for(&who, NEWCOMER_BYTES).map(|payers| payers.collect::<Vec<_>>())
        };
        let mut taken = 0;
        while payers(&portions, a).is_none() {
            portions.taken(a, NEWCOMER_BYTES);
            taken += 1;
        }
        assert_eq!(taken, MAX_EXECUTION_BYTES / NEWCOMER_BYTES - 1);
        assert_eq!(payers(&portions, account(by(1, 3, 3))), Some(vec![a]));
        assert_eq!(payers(&portions, b), None);
        portions.taken(b, NEWCOMER_BYTES);
        assert_eq!(payers(&portions, b), Some(vec![a]));
    }
}
