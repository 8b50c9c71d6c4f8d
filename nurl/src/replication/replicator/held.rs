//! The owner's side: the states held here, and how they spread to the other owners.

use std::collections::BTreeSet;
use std::time::Instant;

use super::authors::{self, Judgement};
use super::copies::{Copies, Merged};
use super::error::UpdateError;
use super::handoff::HandOffs;
use super::leave::Offers;
use super::message::Message;
use super::own::Sums;
use super::shared::{Moment, Shared};
use super::sync::Summaries;
use crate::key::PublicKey;
use crate::replication::crdt::{Digest, Value};

/// The states held, and the work on them.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) copies: Copies,
    pub(super) summaries: Summaries,
    hand_offs: HandOffs,
    offers: Offers,
}

impl Held {
    /// The copy of an owner, which is a complete answer to a read: one under hand-off may be behind.
    pub(super) fn owned(&self, key: &[u8]) -> Option<&Value> {
        self.copies.value(key).filter(|_| !self.hand_offs.contains(key))
    }

    /// Adapts to a new view.
    pub(super) fn place(&mut self, sh: &mut Shared, now: Instant) {
        let Held { copies, summaries, hand_offs, .. } = self;
        let mut peers = BTreeSet::new();
        copies.place(sh, |key, owners, changed| {
            peers.extend(owners.iter().copied());
            hand_offs.placed(now, key, owners.contains(&sh.local.key), changed);
        });
        summaries.retain(&peers);
        for peer in peers {
            summaries.know_peer(sh, now, peer);
        }
    }

    /// Merges into the held state, see [`Copies::merge`]. Returns whether the state grew.
    pub(super) fn merge(
        &mut self,
        sh: &mut Shared,
        at: Moment,
        key: &[u8],
        delta: &Value,
        size: usize,
    ) -> Result<bool, UpdateError> {
        let merged = self.copies.merge(sh, at.wall, key, delta, size)?;
        if merged == Merged::New {
            for peer in self.copies.get(key).map_or(&[][..], |entry| entry.owners()) {
                self.summaries.know_peer(sh, at.now, *peer);
            }
        }
        Ok(merged != Merged::Unchanged)
    }

    /// Merges this node's own write, and sends it to the other owners.
    pub(super) fn commit(
        &mut self,
        sh: &mut Shared,
        at: Moment,
        key: &[u8],
        delta: &Value,
    ) -> Result<(), UpdateError> {
        let bytes = delta.encode();
        if self.merge(sh, at, key, delta, bytes.len())?
            && let Some(entry) = self.copies.get_mut(key)
        {
            entry.unspread();
        }
        sh.fan_out(key, None, bytes);
        Ok(())
    }

    /// Merges the state that the other owners have told.
    pub(super) fn take_told(
        &mut self,
        sh: &mut Shared,
        at: Moment,
        key: &[u8],
        value: &Value,
    ) -> Result<(), UpdateError> {
        let taken = self.merge(sh, at, key, value, value.encode().len());
        sh.stats.bad_states += u64::from(matches!(taken, Err(UpdateError::Value(_))));
        taken.map(|_| ())
    }

    /// Merges a state that a peer sent, if this node owns the key and the peer may tell all that is new in it. Returns
    /// the digest after the merge.
    pub(super) fn merge_from(
        &mut self,
        sh: &mut Shared,
        at: Moment,
        from: PublicKey,
        key: Vec<u8>,
        state: &[u8],
    ) -> Option<Digest> {
        if !sh.takes(&key) {
            sh.refuse(from, key.into(), None);
            return None;
        }
        let Ok(value) = Value::decode(state) else {
            sh.stats.bad_states += 1;
            return None;
        };
        match self.judge(sh, at, &from, &key, &value) {
            Judgement::Take => {}
            Judgement::Foreign | Judgement::Unseen => {
                sh.stats.foreign += 1;
                return None;
            }
        }
        match self.merge(sh, at, &key, &value, state.len()) {
            Ok(_) => self.copies.digest(&key),
            Err(UpdateError::Full(_)) => None,
            Err(_) => {
                sh.stats.bad_states += 1;
                None
            }
        }
    }

    /// Judges a peer's state.
    pub(super) fn judge(
        &self,
        sh: &Shared,
        at: Moment,
        from: &PublicKey,
        key: &[u8],
        state: &Value,
    ) -> Judgement {
        authors::judge(sh, at.now, self.copies.value(key), (from, key), state)
    }

    /// Takes a copy, or the write of a node that isn't an owner, and acknowledges it.
    pub(super) fn on_copy(
        &mut self,
        sh: &mut Shared,
        at: Moment,
        from: PublicKey,
        key: Vec<u8>,
        id: u64,
        state: &[u8],
    ) {
        if !sh.takes(&key) {
            sh.refuse(from, key.into(), Some(id));
            return;
        }
        if let Some(digest) = self.merge_from(sh, at, from, key.clone(), state) {
            // The sender may rely on this node alone from now on, and may leave.
            if let Some(entry) = self.copies.get_mut(&key) {
                entry.unspread();
            }
            sh.send(from, &Message::Ack { key: key.into(), id, digest: digest.into() });
        }
    }

    /// Whether an owner's acknowledgement belongs to an offer or to a hand-off.
    pub(super) fn acknowledged(&mut self, from: PublicKey, key: &[u8], id: u64, digest: Digest) -> bool {
        let Some(entry) = self.copies.get_mut(key) else { return false };
        let offered = entry.was_offered(id);
        let handed = self.hand_offs.acknowledged(from, key, id, digest, entry.owners());
        if offered || handed {
            entry.spread();
        }
        offered || handed
    }

    /// Sends the summaries that are due.
    pub(super) fn summarise(&mut self, sh: &mut Shared, now: Instant) {
        self.summaries.summarise(sh, &mut self.copies, now);
    }

    /// Continues the hand-offs that are due.
    pub(super) fn hand_off(&mut self, sh: &mut Shared, sums: &mut Sums, now: Instant) {
        self.hand_offs.resume(sh, &mut self.copies, sums, now);
    }

    /// Begins to offer the states that no other owner is known to have.
    pub(super) fn leave(&mut self, now: Instant) {
        self.offers.begin(now);
    }

    /// Whether this node leaves.
    pub(super) fn is_leaving(&self) -> bool {
        self.offers.next().is_some()
    }

    /// Offers these states again if it is time. Returns whether it was.
    pub(super) fn offer_again(&mut self, sh: &mut Shared, now: Instant) -> bool {
        self.offers.offer_again(sh, &mut self.copies, now)
    }

    /// The time of the next offer, if this node leaves.
    pub(super) fn next_offer(&self) -> Option<Instant> {
        self.offers.next()
    }
}
