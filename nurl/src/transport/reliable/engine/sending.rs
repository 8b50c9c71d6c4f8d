//! The send budget: how much is accepted for all peers, and who is told when there is room again.
//!
//! What waits for a peer is booked on its [account](crate::authority::account). The last eighth of the budget is for
//! invitations that have less than a fair share of the rest, so that for those who take what they are sent there is room
//! beside any number of keys that don't.

use std::collections::{BTreeMap, BTreeSet};

use crate::authority::account::Account;
use crate::key::PublicKey;
use crate::kit::shares::Shares;
use crate::rt::{Point, buggify};
use crate::transport::Gauge;
use crate::transport::reliable::{Priority, ReliableConfig};

/// The bytes accepted for all peers and unacknowledged, against their budget.
pub(super) struct Sending {
    bytes: Shares<Account>,
    accounts: BTreeMap<PublicKey, Account>,
    budget: usize,
    /// A refused sender may try again once half of its class's budget is free.
    half_class: usize,
    /// Peers and priorities whose `send` returned `Full`.
    refused: BTreeSet<(PublicKey, Priority)>,
    /// Peers whose `send` returned `Full` because of the budget of all peers.
    refused_by_all: BTreeSet<PublicKey>,
}

impl Sending {
    pub(super) fn new(config: &ReliableConfig) -> Sending {
        Sending {
            bytes: Shares::default(),
            accounts: BTreeMap::new(),
            budget: config.send_budget_bytes,
            half_class: config.class_budget_bytes / 2,
            refused: BTreeSet::new(),
            refused_by_all: BTreeSet::new(),
        }
    }

    pub(super) fn gauge(&self) -> Gauge {
        Gauge { now: self.bytes.total() as usize, bound: self.budget }
    }

    /// Notes on whose account is what waits for a peer, from now on.
    pub(super) fn meet(&mut self, account: Account) {
        let (peer, before) = (account.key(), self.account(&account.key()));
        let waits = self.bytes.of(&before);
        self.bytes.sub(before, waits);
        self.bytes.add(account, waits);
        self.accounts.insert(peer, account);
    }

    fn account(&self, peer: &PublicKey) -> Account {
        self.accounts.get(peer).copied().unwrap_or(Account::alone(*peer))
    }

    /// Whether a message to a peer fits. A single one always does, so that the budget may be below the longest message.
    pub(super) fn fits(&self, peer: &PublicKey, bytes: usize) -> bool {
        let all = self.bytes.total() as usize;
        let divided = (self.budget - self.budget / 8) as u64;
        let is_spent = buggify(Point::SendBudgetSpent);
        all == 0
            || (!is_spent && all.saturating_add(bytes) as u64 <= divided)
            || (all.saturating_add(bytes) <= self.budget
                && self.bytes.outermost_room(&self.account(peer), divided) >= bytes as u64)
    }

    pub(super) fn add(&mut self, peer: &PublicKey, bytes: usize) {
        self.bytes.add(self.account(peer), bytes as u64);
    }

    pub(super) fn remove(&mut self, peer: &PublicKey, bytes: usize) {
        self.bytes.sub(self.account(peer), bytes as u64);
    }

    /// Remembers a refused sender: of one priority, or because of the budget of all peers.
    pub(super) fn refuse(&mut self, peer: PublicKey, priority: Option<Priority>) {
        match priority {
            Some(priority) => self.refused.insert((peer, priority)),
            None => self.refused_by_all.insert(peer),
        };
    }

    /// A peer is known no more, and nothing waits for it.
    pub(super) fn part(&mut self, peer: &PublicKey) {
        self.accounts.remove(peer);
    }

    pub(super) fn forget(&mut self, peer: &PublicKey) {
        self.refused.retain(|(refused, _)| refused != peer);
        self.refused_by_all.remove(peer);
    }

    /// Refused senders that may try again, now that a message has left the outbox of `peer`. `fits` tells whether
    /// that outbox has room for so many bytes of a priority.
    pub(super) fn take_writable(
        &mut self,
        peer: PublicKey,
        fits: impl Fn(Priority, usize) -> bool,
    ) -> Vec<PublicKey> {
        let mut room = false;
        for priority in Priority::ALL {
            if fits(priority, self.half_class) {
                room |= self.refused.remove(&(peer, priority));
            }
        }
        let mut writable: Vec<PublicKey> = room.then_some(peer).into_iter().collect();
        if self.bytes.total() as usize <= self.budget / 2 {
            writable.extend(std::mem::take(&mut self.refused_by_all));
        } else if self.refused_by_all.contains(&peer) && self.fits(&peer, self.half_class) {
            self.refused_by_all.remove(&peer);
            writable.push(peer);
        }
        writable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_sender_is_told_once_half_of_what_it_lacked_is_free() {
        let key = |n: u8| PublicKey::from_bytes([n; 32]);
        let config =
            ReliableConfig { send_budget_bytes: 100, class_budget_bytes: 40, ..ReliableConfig::default() };
        let mut sending = Sending::new(&config);
        assert!(sending.fits(&key(4), 1_000), "one message always fits");
        sending.add(&key(4), 80);
        assert!(sending.fits(&key(1), 20) && !sending.fits(&key(1), 21));
        let priority = Priority::ALL[0];
        sending.refuse(key(1), Some(priority));
        sending.refuse(key(2), None);
        assert_eq!(sending.take_writable(key(1), |_, _| false), []);
        assert_eq!(sending.take_writable(key(1), |class, bytes| class == priority && bytes == 20), [key(1)]);
        assert_eq!(sending.take_writable(key(1), |_, _| true), [], "it is told once");
        sending.remove(&key(4), 30);
        assert_eq!(sending.take_writable(key(3), |_, _| true), [key(2)]);
    }

    #[test]
    fn keys_of_one_invitation_that_take_nothing_leave_room_for_what_others_are_sent() {
        let config = ReliableConfig { send_budget_bytes: 6_400, ..ReliableConfig::default() };
        let mut sending = Sending::new(&config);
        let mut kept = 0;
        for n in 0..64 {
            let deaf = Account::for_tests(1, n, n.into());
            sending.meet(deaf);
            while sending.fits(&deaf.key(), 100) {
                sending.add(&deaf.key(), 100);
                kept += 100;
            }
        }
        assert_eq!(kept, 5_600, "seven eighths");
        let other = Account::for_tests(2, 99, 99);
        sending.meet(other);
        for _ in 0..100 {
            assert!(sending.fits(&other.key(), 800));
            sending.add(&other.key(), 800);
            assert!(!sending.fits(&other.key(), 1));
            sending.refuse(other.key(), None);
            sending.remove(&other.key(), 800);
        }
    }
}
