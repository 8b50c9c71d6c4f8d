//! What a peer may use of its endpoint while it handles one call.

use std::time::Instant;

use super::super::endpoint::{EndpointOutbox, LocalIdentity, PeerSchedule};
use super::super::indices::SessionIndices;
use super::super::table::Slot;
use super::super::{EndpointStats, Outgoing, SessionEvent};
use crate::key::PublicKey;
use crate::net::secure::version::Versions;
use crate::rt::Rng;

/// The time of the call, the peer's slot, and what all peers share.
pub(in super::super) struct PeerContext<'a> {
    pub(in super::super) now: Instant,
    pub(in super::super) slot: Slot,
    pub(in super::super) identity: &'a mut LocalIdentity,
    pub(in super::super) indices: &'a mut SessionIndices,
    pub(in super::super) schedule: &'a mut PeerSchedule,
    pub(in super::super) outbox: &'a mut EndpointOutbox,
    pub(in super::super) rng: &'a mut Rng,
    pub(in super::super) stats: &'a mut EndpointStats,
}

impl PeerContext<'_> {
    /// Marks the peer: it may have a message, an event or another deadline.
    pub(in super::super) fn touch(&mut self) {
        self.schedule.touch(self.slot);
    }

    pub(in super::super) fn transmit(&mut self, outgoing: Outgoing, bytes: Vec<u8>) {
        self.outbox.transmit(self.stats, outgoing, bytes);
    }

    /// Whether `len` bytes may go to an unproven address, with regard to all peers; then they count.
    pub(in super::super) fn take_unproven(&mut self, len: usize) -> bool {
        self.outbox.take_unproven(self.stats, self.now, len)
    }

    pub(in super::super) fn event(&mut self, event: SessionEvent) {
        self.outbox.event(self.stats, event);
    }

    /// The peer has proved who it is, and speaks none of our versions.
    pub(in super::super) fn incompatible(&mut self, peer: PublicKey, theirs: Versions) {
        self.stats.incompatible += 1;
        if self.identity.incompatible.meet(self.now, peer, theirs) {
            self.event(SessionEvent::Incompatible { peer, theirs });
        }
    }

    /// Draws an index that leads to the peer.
    pub(in super::super) fn allocate_index(&mut self) -> u32 {
        self.indices.allocate(self.slot, self.rng)
    }

    /// The indices lead nowhere any more.
    pub(in super::super) fn release(&mut self, indices: impl IntoIterator<Item = u32>) {
        indices.into_iter().for_each(|index| self.indices.release(index));
    }
}
