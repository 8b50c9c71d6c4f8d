//! What the replicator tells its driver: events, changed records, and counters.

use std::collections::{BTreeSet, VecDeque};

use super::config::MAX_READS;
use super::error::{ReadFailure, UpdateFailure};
use super::list::NamePage;
use super::presence::Presence;
use super::watchers::Touched;
use crate::key::PublicKey;
use crate::replication::crdt::Value;
use crate::replication::store::MAX_BATCH;

/// An event for the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicatorEvent {
    /// An update is over.
    Updated {
        /// The id given by the caller.
        id: u64,
        /// Whether the write was made.
        outcome: Result<(), UpdateFailure>,
    },
    /// A read is done.
    ReadDone {
        /// The id given by the caller.
        id: u64,
        /// The merged state; none if no owner has one.
        value: Option<Value>,
        /// Whether confirmed writes may be missing, because too few owners answered.
        partial: bool,
    },
    /// A read failed.
    ReadFailed {
        /// The id given by the caller.
        id: u64,
        /// Why it failed.
        why: ReadFailure,
    },
    /// A page of names.
    Listed {
        /// The id given by the caller.
        id: u64,
        /// The page.
        page: NamePage,
    },
    /// What a watched object shows now.
    Watched {
        /// The watch.
        id: u64,
        /// The value; none if there is nothing.
        value: Option<Value>,
        /// Whether confirmed writes may be missing.
        partial: bool,
    },
    /// A peer's view has other owners for a key than this node's: the driver does a push-pull with the peer.
    ViewDiffers {
        /// The peer.
        peer: PublicKey,
    },
}

/// Counters of the replicator's work, of drops and of refusals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplicationStats {
    /// Messages that didn't decode, or whose value is of another kind than its key.
    pub malformed: u64,
    /// States whose bytes were not canonical, or that exceeded a limit.
    pub bad_states: u64,
    /// States of which a deletion or an expiry was left out: its stamp was too far ahead of this node's clock.
    pub marks_ahead: u64,
    /// States for keys that this node doesn't own.
    pub not_owner: u64,
    /// States refused: they would have changed what the sender didn't write, and it isn't one of the key's owners of
    /// the last minutes; or its author has too many slots.
    pub foreign: u64,
    /// Writes and copies that were declined, each told to its sender.
    pub declined: u64,
    /// States refused because this node's disk takes no commits.
    pub not_stored: u64,
    /// Acknowledgements that match no request of this process, answers that nothing waits for, and both from the wrong
    /// node.
    pub stray: u64,
    /// States refused because the node holds as much as it may, deltas refused because too many wait, observers' writes
    /// refused because too many are remembered, and lists and watches refused because others have too many.
    pub full: u64,
    /// Lists of names refused: not of what was asked for, or without an end.
    pub bad_names: u64,
    /// Messages dropped because the queue was full.
    pub outbox_dropped: u64,
    /// Times that repair stopped because its budget was used up.
    pub throttled: u64,
    /// Summaries sent.
    pub summaries: u64,
    /// Received summaries that matched.
    pub in_sync: u64,
    /// Matches that were told to a peer that settles.
    pub in_sync_told: u64,
    /// Received summaries that differed.
    pub out_of_sync: u64,
    /// Whole states sent for repair or hand-off.
    pub states_sent: u64,
    /// Merges that parked a write whose stamp is too far ahead.
    pub parked: u64,
    /// Objects set aside after a long absence, and those of them that were discarded.
    pub set_aside: u64,
    /// See [`set_aside`](ReplicationStats::set_aside).
    pub discarded: u64,
    /// Objects that expired here.
    pub expired: u64,
    /// Deletions forgotten: the objects have been gone for long, or there were too many.
    pub forgotten: u64,
    /// Keys handed off and dropped.
    pub handed_off: u64,
    /// Times that this node took another replica id, because it had no room to remember more of its own sums.
    pub renewed: u64,
}

/// Limit on the changed keys given at once: those of one commit.
const MAX_CHANGED: usize = MAX_BATCH;

/// The events that the driver hasn't taken. Changed keys and differing peers are each told once, however often they
/// were noted, so both are bounded by the keys and the peers.
#[derive(Debug, Default)]
pub(super) struct Events {
    queue: VecDeque<ReplicatorEvent>,
    changed: BTreeSet<Vec<u8>>,
    differing: BTreeSet<PublicKey>,
    pub(super) touched: Touched,
    pub(super) presence: Presence,
    /// What of it may be durable.
    stored: Presence,
}

impl Events {
    pub(super) fn push(&mut self, event: ReplicatorEvent) {
        self.queue.push_back(event);
    }

    /// The number of calls that have ended and aren't told yet.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether there is as much as one commit takes, or half as many calls have ended as may wait.
    pub(super) fn is_congested(&self) -> bool {
        self.changed.len() >= MAX_CHANGED || self.queue.len() >= MAX_READS / 2
    }

    /// Notes that the durable record of a key changed.
    pub(super) fn changed(&mut self, key: &[u8]) {
        self.touched.note(key);
        if !self.changed.contains(key) {
            self.changed.insert(key.to_vec());
        }
    }

    /// Notes that the durable record of a key is as it was stored.
    pub(super) fn unchanged(&mut self, key: &[u8]) {
        self.changed.remove(key);
    }

    /// Notes that a peer's view has other owners for a key.
    pub(super) fn differs(&mut self, peer: PublicKey) {
        self.differing.insert(peer);
    }

    pub(super) fn poll(&mut self) -> Option<ReplicatorEvent> {
        if let Some(event) = self.queue.pop_front() {
            return Some(event);
        }
        self.differing.pop_first().map(|peer| ReplicatorEvent::ViewDiffers { peer })
    }

    /// Restores what an earlier process left.
    pub(super) fn restore_presence(&mut self, presence: Presence) {
        (self.presence, self.stored) = (presence, presence);
    }

    /// The presence that may be made durable: a new one not before all changed records are, since these may say what the
    /// absence before has led to.
    pub(super) fn presence_to_store(&self) -> Presence {
        self.stored
    }

    /// The next keys whose durable records changed. None of them, if only this node's presence has.
    pub(super) fn poll_changed(&mut self) -> Option<Vec<Vec<u8>>> {
        let keys: Vec<Vec<u8>> = std::iter::from_fn(|| self.changed.pop_first()).take(MAX_CHANGED).collect();
        if keys.is_empty() && !self.presence.outdates(&self.stored) {
            return None;
        }
        if self.changed.is_empty() {
            self.stored = self.presence;
        }
        Some(keys)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn more_changed_keys_than_a_commit_takes_come_in_several() {
        let mut events = Events::default();
        assert_eq!(events.poll_changed(), None);
        for key in (0..MAX_CHANGED as u32 + 1).chain([7, 8]) {
            events.changed(&key.to_be_bytes());
        }
        events.unchanged(&7u32.to_be_bytes());
        events.changed(&9_999_999u32.to_be_bytes());
        assert!(events.is_congested());
        assert_eq!(events.poll_changed().unwrap().len(), MAX_CHANGED);
        assert_eq!(events.poll_changed(), Some(vec![9_999_999u32.to_be_bytes().to_vec()]));
        assert_eq!(events.poll_changed(), None);
        assert!(!events.is_congested());
    }

    #[test]
    fn calls_that_wait_to_be_told_congest_before_reads_are_refused() {
        let mut events = Events::default();
        for id in 0..MAX_READS as u64 / 2 {
            assert!(!events.is_congested());
            events.push(ReplicatorEvent::Updated { id, outcome: Ok(()) });
        }
        assert!(events.is_congested() && events.waiting() < MAX_READS);
    }

    #[test]
    fn a_presence_is_durable_with_the_last_of_the_records_that_it_led_to() {
        let mut events = Events::default();
        for key in 0..MAX_CHANGED as u32 + 1 {
            events.changed(&key.to_be_bytes());
        }
        let new = Presence { since: Some(Duration::from_secs(7)), seen: Some(Duration::from_secs(7)) };
        events.presence = new;
        assert!(events.poll_changed().is_some());
        assert_eq!(events.presence_to_store(), Presence::default(), "one record is still to come");
        assert!(events.poll_changed().is_some());
        assert_eq!((events.presence_to_store(), events.poll_changed()), (new, None));
        // Without records it goes alone, now and then.
        events.presence.seen = Some(Duration::from_secs(7 + 3600));
        assert_eq!(events.poll_changed(), Some(Vec::new()));
        assert_eq!((events.presence_to_store(), events.poll_changed()), (events.presence, None));
    }
}
