//! Messages that wait to be sent, and the budget of repair traffic.

use std::collections::VecDeque;

use super::config::{MAX_OUTBOX, MAX_OUTBOX_BYTES};
use super::message::MAX_MESSAGE_BYTES;
use crate::key::PublicKey;
use crate::rt::{Point, buggify};

/// A bounded queue of encoded messages.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: VecDeque<(PublicKey, Vec<u8>)>,
    bytes: usize,
    /// Bytes of state that may still be sent in this tick; a large state may overdraw it.
    budget: i64,
}

impl Outbox {
    /// An empty outbox with the budget of one tick.
    pub(super) fn new(bytes_per_tick: usize) -> Outbox {
        Outbox { queue: VecDeque::new(), bytes: 0, budget: bytes_per_tick as i64 }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Queues a message, if there is room.
    pub(super) fn push(&mut self, to: PublicKey, bytes: Vec<u8>) -> bool {
        let full = self.queue.len() >= MAX_OUTBOX || self.bytes + bytes.len() > MAX_OUTBOX_BYTES;
        if full || bytes.len() > MAX_MESSAGE_BYTES || buggify(Point::StateOutboxFull) {
            return false;
        }
        self.bytes += bytes.len();
        self.queue.push_back((to, bytes));
        true
    }

    /// Whether half of the room is taken.
    pub(super) fn is_half_full(&self) -> bool {
        self.queue.len() >= MAX_OUTBOX / 2 || self.bytes >= MAX_OUTBOX_BYTES / 2
    }

    pub(super) fn pop(&mut self) -> Option<(PublicKey, Vec<u8>)> {
        let (to, bytes) = self.queue.pop_front()?;
        self.bytes -= bytes.len();
        Some((to, bytes))
    }

    /// Whether nothing is left of the budget.
    pub(super) fn is_spent(&self) -> bool {
        self.budget <= 0 || buggify(Point::RepairSpent)
    }

    /// Charges repair traffic to the budget.
    pub(super) fn charge(&mut self, bytes: usize) {
        self.budget -= bytes as i64;
    }

    /// Adds a tick's budget. What a tick didn't use is lost, so repair never bursts.
    pub(super) fn refill(&mut self, bytes_per_tick: usize) {
        self.budget = (self.budget + bytes_per_tick as i64).min(bytes_per_tick as i64);
    }
}
