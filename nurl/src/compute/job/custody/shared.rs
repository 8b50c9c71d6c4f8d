//! What the parts of the log have in common: who this node is, whom it believes, and what leaves it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::keepers::Keepers;
use super::message::Message;
use super::{CustodyError, CustodyStats, MAX_OUTBOX, MAX_OUTBOX_BYTES, Order, Told};
use crate::compute::job::warrant::{Warrants, millis};
use crate::key::PublicKey;

pub(super) struct Shared {
    pub(super) local: PublicKey,
    pub(super) boot: u64,
    /// Whether what it has is on its disk before it says so.
    pub(super) durable: bool,
    pub(super) keepers: Keepers,
    pub(super) warrants: Warrants,
    /// The time since 1970.
    pub(super) wall: Duration,
    pub(super) to_self: VecDeque<Bytes>,
    pub(super) outbox: VecDeque<(PublicKey, Bytes)>,
    pub(super) outbox_bytes: usize,
    /// The ends of this node's own calls.
    pub(super) events: VecDeque<(u64, Result<Told, CustodyError>)>,
    pub(super) orders: VecDeque<Order>,
    pub(super) stats: CustodyStats,
}

impl Shared {
    /// Sends a message. One over the limits is dropped and counted; every exchange recovers by its timer.
    pub(super) fn send(&mut self, to: PublicKey, message: &Message) {
        let body = message.encode();
        let fits = self.outbox.len() + self.to_self.len() < MAX_OUTBOX
            && (self.outbox_bytes == 0 || self.outbox_bytes + body.len() <= MAX_OUTBOX_BYTES);
        if !fits {
            self.stats.outbox_dropped += 1;
        } else if to == self.local {
            self.to_self.push_back(body);
        } else {
            self.outbox_bytes += body.len();
            self.outbox.push_back((to, body));
        }
    }

    pub(super) fn wall_ms(&self) -> u64 {
        millis(self.wall)
    }

    /// Whether the process with this boot id is the peer's present one, and lives.
    pub(super) fn is_present(&self, peer: &PublicKey, boot: u64) -> bool {
        if *peer == self.local { boot == self.boot } else { self.keepers.is_present(peer, boot) }
    }
}
