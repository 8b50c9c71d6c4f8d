//! The condition of other nodes, as far as jobs need it: dead, draining, silent, or not reached by a message.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::options::{DRAINING_FOR, SILENT_FOR};
use crate::key::PublicKey;

/// Limit on the nodes of each condition; a forgotten node costs a full timeout.
const MAX_PEERS: usize = 16_384;

/// The nodes in a condition that counts.
#[derive(Debug, Default)]
pub(super) struct PeerConditions {
    /// Dead and departed members.
    down: BTreeSet<PublicKey>,
    /// Members to whom a message was not delivered, until the next timeout handles them.
    failed: BTreeSet<PublicKey>,
    /// Draining members, and until when they are passed over.
    draining: BTreeMap<PublicKey, Instant>,
    /// Members that fell silent over a task, and until when they are asked last.
    silent: BTreeMap<PublicKey, Instant>,
}

impl PeerConditions {
    /// Notes that a member's state has changed: nothing known about its former process counts.
    pub(super) fn changed(&mut self, peer: PublicKey, down: bool) {
        self.draining.remove(&peer);
        self.heard(&peer);
        if !down {
            self.down.remove(&peer);
        } else if self.down.len() < MAX_PEERS {
            self.down.insert(peer);
        }
    }

    pub(super) fn is_down(&self, peer: &PublicKey) -> bool {
        self.down.contains(peer)
    }

    /// Notes that a message to a member was not delivered; false if there is no room to remember it.
    pub(super) fn send_failed(&mut self, peer: PublicKey) -> bool {
        let fits = self.failed.len() < MAX_PEERS;
        if fits {
            self.failed.insert(peer);
        }
        fits
    }

    /// The members to whom a message was not delivered since the last call.
    pub(super) fn take_failed(&mut self) -> BTreeSet<PublicKey> {
        std::mem::take(&mut self.failed)
    }

    /// Notes that a member drains; false if there is no room to remember it.
    pub(super) fn pass_over(&mut self, now: Instant, peer: PublicKey) -> bool {
        self.draining.retain(|_, until| *until > now);
        let fits = self.draining.len() < MAX_PEERS;
        if fits {
            self.draining.insert(peer, now + DRAINING_FOR);
        }
        fits
    }

    /// Leaves out the draining members of a list.
    pub(super) fn without_draining(&mut self, now: Instant, mut list: Vec<PublicKey>) -> Vec<PublicKey> {
        self.draining.retain(|_, until| *until > now);
        list.retain(|member| !self.draining.contains_key(member));
        list
    }

    /// The time at which the first draining member is no longer passed over.
    pub(super) fn first_drained(&self) -> Option<Instant> {
        self.draining.values().min().copied()
    }

    /// Notes that a member fell silent: it is asked last until it is heard.
    pub(super) fn fell_silent(&mut self, now: Instant, peer: PublicKey) {
        self.silent.retain(|_, until| *until > now);
        if self.silent.len() < MAX_PEERS {
            self.silent.insert(peer, now + SILENT_FOR);
        }
    }

    /// Notes that a member, or a new process of it, was heard.
    pub(super) fn heard(&mut self, peer: &PublicKey) {
        self.silent.remove(peer);
    }

    /// The members of the list that haven't fallen silent lately; the whole list if all have.
    pub(super) fn not_silent(&self, now: Instant, list: &[PublicKey]) -> Vec<PublicKey> {
        let silent = |member: &PublicKey| self.silent.get(member).is_some_and(|until| *until > now);
        let heard: Vec<_> = list.iter().filter(|member| !silent(member)).copied().collect();
        if heard.is_empty() { list.to_vec() } else { heard }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the base of virtual time")]
mod tests {
    use super::*;

    const fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    #[test]
    fn a_silent_member_is_asked_last_until_it_is_heard_or_time_has_passed() {
        let (now, list, mut peers) = (Instant::now(), [key(1), key(2)], PeerConditions::default());
        peers.fell_silent(now, key(1));
        assert_eq!(peers.not_silent(now, &list), [key(2)]);
        assert_eq!(peers.not_silent(now + SILENT_FOR, &list), list);
        peers.fell_silent(now, key(2));
        assert_eq!(peers.not_silent(now, &list), list, "all are silent");
        peers.heard(&key(1));
        assert_eq!(peers.not_silent(now, &list), [key(1)]);
    }

    #[test]
    fn a_draining_member_is_left_out_until_it_changes_or_time_has_passed() {
        let (now, list, mut peers) = (Instant::now(), vec![key(1), key(2)], PeerConditions::default());
        assert!(peers.pass_over(now, key(1)));
        assert_eq!(peers.first_drained(), Some(now + DRAINING_FOR));
        assert_eq!(peers.without_draining(now, list.clone()), [key(2)]);
        assert_eq!(peers.without_draining(now + DRAINING_FOR, list.clone()), list);
        assert!(peers.pass_over(now, key(1)));
        peers.changed(key(1), false);
        assert_eq!(peers.without_draining(now, list.clone()), list);
    }

    #[test]
    fn down_and_unreached_members_are_known_until_they_are_back_or_handled() {
        let mut peers = PeerConditions::default();
        peers.changed(key(1), true);
        assert!(peers.is_down(&key(1)));
        peers.changed(key(1), false);
        assert!(!peers.is_down(&key(1)));
        assert!(peers.send_failed(key(2)) && peers.send_failed(key(2)));
        assert_eq!(peers.take_failed().into_iter().collect::<Vec<_>>(), [key(2)]);
        assert!(peers.take_failed().is_empty());
    }
}
