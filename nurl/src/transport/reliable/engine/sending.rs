//! The send budget: how much is accepted for all peers, and who is told when there is room again.

use std::collections::BTreeSet;

use crate::key::PublicKey;
use crate::transport::Gauge;
use crate::transport::reliable::{Priority, ReliableConfig};

/// The bytes accepted for all peers and unacknowledged, against their budget.
pub(super) struct Sending {
    bytes: usize,
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
            bytes: 0,
            budget: config.send_budget_bytes,
            half_class: config.class_budget_bytes / 2,
            refused: BTreeSet::new(),
            refused_by_all: BTreeSet::new(),
        }
    }

    pub(super) fn gauge(&self) -> Gauge {
        Gauge { now: self.bytes, bound: self.budget }
    }

    /// Whether a message fits. A single one always does, so that the budget may be below the longest message.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.bytes == 0 || self.bytes.saturating_add(bytes) <= self.budget
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub(super) fn remove(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// Remembers a refused sender: of one priority, or because of the budget of all peers.
    pub(super) fn refuse(&mut self, peer: PublicKey, priority: Option<Priority>) {
        match priority {
            Some(priority) => self.refused.insert((peer, priority)),
            None => self.refused_by_all.insert(peer),
        };
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
        if self.bytes <= self.budget / 2 {
            writable.extend(std::mem::take(&mut self.refused_by_all));
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
        assert!(sending.fits(1_000), "one message always fits");
        sending.add(80);
        assert!(sending.fits(20) && !sending.fits(21));
        let priority = Priority::ALL[0];
        sending.refuse(key(1), Some(priority));
        sending.refuse(key(2), None);
        assert_eq!(sending.take_writable(key(1), |_, _| false), []);
        assert_eq!(sending.take_writable(key(1), |class, bytes| class == priority && bytes == 20), [key(1)]);
        assert_eq!(sending.take_writable(key(1), |_, _| true), [], "it is told once");
        sending.remove(30);
        assert_eq!(sending.take_writable(key(3), |_, _| true), [key(2)]);
    }
}
