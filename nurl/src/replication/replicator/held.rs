//! The owner's side: the states held here, and how they spread to the other owners.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::authors::{self, Judgement};
use super::confirm::Decline;
use super::copies::{Copies, Merged};
use super::error::UpdateError;
use super::handoff::{Acknowledged, HandOffs};
use super::leave::Offers;
use super::message::Message;
use super::own::Sums;
use super::shared::{Moment, Shared};
use super::sync::Summaries;
use minicbor::bytes::ByteVec;

use crate::key::PublicKey;
use crate::replication::crdt::{Digest, Object};

/// Who tells a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Teller {
    /// The one who writes it. Its delta is merged whole or not at all, so that what is declined has no effect.
    Author,
    /// Another keeper. Of its state all is merged that this node's clock permits.
    Keeper,
}

/// The states held, and the work on them.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) copies: Copies,
    pub(super) summaries: Summaries,
    hand_offs: HandOffs,
    offers: Offers,
    /// The owners of the keys that were placed so far, after a change of the ring.
    peers: BTreeSet<PublicKey>,
    placing_since: Option<Instant>,
}

impl Held {
    /// The copy of an owner, if it is a complete answer to a read.
    pub(super) fn whole(&self, sh: &Shared, key: &[u8]) -> Option<&Object> {
        let entry = self.copies.get(key)?;
        if self.copies.owners(sh, key, entry) != entry.owners() {
            // What new owners have has to be compared.
            return None;
        }
        let is_live = |owner: &PublicKey| sh.ring.member(owner).is_some_and(|member| member.live);
        // It takes no writes, so it lags behind the others.
        let is_other = |owner: &&PublicKey| **owner != sh.local.key;
        if sh.is_read_only() && entry.owners().iter().filter(is_other).any(is_live) {
            return None;
        }
        entry.is_whole(&sh.local.key, is_live).then(|| entry.value())
    }

    /// Whether this node has, or knows that there isn't, what its earlier processes and the other owners confirmed.
    pub(super) fn remembers(&self, sh: &Shared, key: &[u8]) -> bool {
        match self.copies.get(key) {
            Some(entry) => entry.remembers(),
            None => {
                sh.is_owner(key) && sh.other_owners(key).iter().all(|peer| self.summaries.is_settled(peer))
            }
        }
    }

    /// Answers another node's read with this node's state.
    pub(super) fn on_read(&mut self, sh: &mut Shared, at: Moment, from: PublicKey, key: ByteVec, id: u64) {
        let state = self.copies.value(&key).map(|value| ByteVec::from(value.encode()));
        if state.is_none() && !sh.takes(&key) {
            sh.refuse(from, key, Some(id));
            return;
        }
        let remembers = self.remembers(sh, &key);
        if state.is_none() && !remembers && sh.is_owner(&key) {
            // From now on it is worth knowing.
            for peer in sh.other_owners(&key) {
                self.summaries.know_peer(sh, at.now, peer);
            }
        }
        let vouches = sh.events.presence.vouches(at.wall, sh.marks_kept());
        sh.send(from, &Message::ReadReply { key, id, state, remembers, vouches });
    }

    /// Adapts to a new view; `moved` tells whether keys may have other owners.
    pub(super) fn follow(&mut self, sh: &mut Shared, now: Instant, moved: bool) {
        if !moved {
            self.hand_offs.view_changed(now, &sh.ring);
            return;
        }
        self.summaries.unsettle(sh);
        self.peers = BTreeSet::new();
        self.placing_since = Some(now);
        self.copies.begin_placing();
        self.place(sh, now);
    }

    /// When the next portion of the keys has to be placed: as soon as the driver's other work permits.
    pub(super) fn next_portion(&self) -> Option<Instant> {
        self.placing_since.filter(|_| self.copies.is_placing())
    }

    /// Places the next portion of the keys that have to be placed.
    pub(super) fn place(&mut self, sh: &mut Shared, now: Instant) {
        let Held { copies, summaries, hand_offs, peers, .. } = self;
        if !copies.is_placing() {
            return;
        }
        let mut news = BTreeSet::new();
        copies.place(sh, |key, owners, changed| {
            news.extend(owners.iter().copied());
            hand_offs.placed(now, &sh.ring, key, owners.contains(&sh.local.key), changed);
        });
        for peer in &news {
            summaries.know_peer(sh, now, *peer);
        }
        peers.append(&mut news);
        if !copies.is_placing() {
            summaries.retain(&std::mem::take(peers));
        }
    }

    /// Merges into the held state, see [`Copies::merge`]. Returns whether the state grew.
    pub(super) fn merge(
        &mut self,
        sh: &mut Shared,
        at: Moment,
        key: &[u8],
        delta: &Object,
        size: usize,
    ) -> Result<bool, UpdateError> {
        let summaries = &self.summaries;
        let is_settled = |peer: &PublicKey| summaries.is_settled(peer);
        let merged = self.copies.merge(sh, at.wall, key, (delta, size), is_settled)?;
        match merged {
            Merged::New => {
                let owners = self.copies.get(key).map_or(&[][..], |entry| entry.owners());
                if owners.contains(&sh.local.key) {
                    for peer in owners {
                        self.summaries.know_peer(sh, at.now, *peer);
                    }
                } else {
                    self.hand_offs.begin(at.now, key);
                }
            }
            Merged::Changed => self.hand_offs.grew(at.now, key),
            Merged::Unchanged => {}
        }
        Ok(merged != Merged::Unchanged)
    }

    /// Takes what an earlier process of this node held.
    pub(super) fn restore(
        &mut self,
        sh: &mut Shared,
        at: Moment,
        key: &[u8],
        state: &[u8],
    ) -> Result<(), UpdateError> {
        if self.copies.restore(sh, at.wall, key, (Object::decode(state)?, state.len()))? {
            self.hand_offs.begin(at.now, key);
        }
        Ok(())
    }

    /// Merges this node's own write.
    pub(super) fn commit(
        &mut self,
        sh: &mut Shared,
        at: Moment,
        key: &[u8],
        delta: &Object,
        size: usize,
    ) -> Result<(), UpdateError> {
        if self.merge(sh, at, key, delta, size)?
            && let Some(entry) = self.copies.get_mut(key)
        {
            entry.unspread();
        }
        Ok(())
    }

    /// Merges the state that these `owners` have told.
    pub(super) fn take_told<'a>(
        &mut self,
        sh: &mut Shared,
        at: Moment,
        key: &[u8],
        value: &Object,
        owners: impl IntoIterator<Item = &'a PublicKey>,
    ) -> Result<(), UpdateError> {
        sh.check_disk()?;
        let taken = self.merge(sh, at, key, value, value.encode().len());
        sh.stats.bad_states += u64::from(matches!(taken, Err(UpdateError::Value(_))));
        taken?;
        for owner in owners {
            self.copies.compared(sh, key, owner);
        }
        Ok(())
    }

    /// Merges a state that a peer sent, if this node keeps the key and the peer may tell all that is new in it. Returns
    /// the digest after the merge, or why it wasn't merged; neither if the bytes are no state.
    pub(super) fn merge_from(
        &mut self,
        sh: &mut Shared,
        at: Moment,
        (from, teller): (PublicKey, Teller),
        key: &[u8],
        state: &[u8],
    ) -> Option<Result<Digest, Decline>> {
        if !sh.takes(key) {
            sh.refuse(from, key.to_vec().into(), None);
            return None;
        }
        if sh.is_read_only() {
            sh.stats.not_stored += 1;
            return Some(Err(Decline::Disk));
        }
        let Ok(value) = Object::decode(state) else {
            sh.stats.bad_states += 1;
            return None;
        };
        match self.judge(sh, at, &from, key, &value) {
            Judgement::Take => {}
            Judgement::Crowded => return Some(Err(Decline::Writers)),
            Judgement::Foreign | Judgement::Unseen => {
                sh.stats.foreign += 1;
                return Some(Err(Decline::Foreign));
            }
        }
        let is_ahead = value.is_ahead_of(at.wall);
        sh.stats.marks_ahead += u64::from(is_ahead);
        if is_ahead && teller == Teller::Author {
            return Some(Err(Decline::Clock));
        }
        match self.merge(sh, at, key, &value, state.len()) {
            Ok(_) if is_ahead => Some(Err(Decline::Clock)),
            Ok(_) => self.copies.digest(key).map(Ok),
            Err(error) => {
                let why = Decline::of(&error);
                sh.stats.bad_states += u64::from(why == Decline::Limit);
                Some(Err(why))
            }
        }
    }

    /// Merges the whole state of a peer.
    pub(super) fn on_state(
        &mut self,
        sh: &mut Shared,
        at: Moment,
        from: PublicKey,
        key: &[u8],
        state: &[u8],
    ) -> Option<Result<Digest, Decline>> {
        let merged = self.merge_from(sh, at, (from, Teller::Keeper), key, state);
        // A deletion that is ahead of the clock was left out, with its time only: what it removes is gone here, too.
        if let Some(Ok(_) | Err(Decline::Clock)) = merged {
            self.copies.compared(sh, key, &from);
        }
        merged
    }

    /// Judges a peer's state.
    pub(super) fn judge(
        &self,
        sh: &Shared,
        at: Moment,
        from: &PublicKey,
        key: &[u8],
        state: &Object,
    ) -> Judgement {
        authors::judge(sh, at.now, self.copies.value(key), (from, key), state)
    }

    /// Takes a write for which an answer is wanted.
    pub(super) fn on_write(
        &mut self,
        sh: &mut Shared,
        at: Moment,
        from: PublicKey,
        key: &[u8],
        id: u64,
        state: &[u8],
    ) {
        if sh.takes(key) {
            let merged = self.merge_from(sh, at, (from, Teller::Author), key, state);
            self.answer(sh, from, key, id, merged);
        } else {
            sh.refuse(from, key.to_vec().into(), Some(id));
        }
    }

    /// Answers a write while the disk takes no commits. What is on the disk is acknowledged: a commit may have failed after a
    /// part of its batch.
    pub(super) fn on_write_without_disk(
        &mut self,
        sh: &mut Shared,
        wall: Duration,
        from: PublicKey,
        key: &[u8],
        id: u64,
        state: &[u8],
    ) {
        let has = |copy: &Object| {
            let grown = Object::decode(state).and_then(|delta| copy.clone().merge(&delta, wall));
            grown.is_ok_and(|grown| !grown)
        };
        if self.copies.value(key).is_some_and(has) {
            let digest = self.copies.digest(key);
            self.answer(sh, from, key, id, digest.map(Ok));
        } else if !sh.config.in_doubt {
            sh.decline(from, key, id, Decline::Disk);
        } else {
            sh.stats.not_stored += 1;
        }
    }

    /// Takes the copy of a node that is no owner any more, or leaves.
    pub(super) fn on_copy(
        &mut self,
        sh: &mut Shared,
        at: Moment,
        from: PublicKey,
        key: &[u8],
        id: u64,
        state: &[u8],
    ) {
        if sh.takes(key) {
            let merged = self.on_state(sh, at, from, key, state);
            self.answer(sh, from, key, id, merged);
        } else {
            sh.refuse(from, key.to_vec().into(), Some(id));
        }
    }

    fn answer(
        &mut self,
        sh: &mut Shared,
        to: PublicKey,
        key: &[u8],
        id: u64,
        merged: Option<Result<Digest, Decline>>,
    ) {
        match merged {
            Some(Ok(digest)) => {
                // The sender may rely on this node alone from now on, and may leave.
                if let Some(entry) = self.copies.get_mut(key) {
                    entry.unspread();
                }
                sh.acknowledge(to, key, id, digest);
            }
            Some(Err(why)) => sh.decline(to, key, id, why),
            None => {}
        }
    }

    /// Tells a former owner that this node has the key, or asks for it.
    pub(super) fn on_confirm(&mut self, sh: &mut Shared, from: PublicKey, key: &[u8], id: u64) {
        match self.copies.digest(key) {
            _ if !sh.is_owner(key) => sh.refuse(from, key.to_vec().into(), Some(id)),
            Some(digest) => sh.acknowledge(from, key, id, digest),
            None => sh.send(from, &Message::Pull { keys: vec![key.to_vec().into()] }),
        }
    }

    /// Whether a keeper's acknowledgement belongs to an offer or to a hand-off. The keeper has all that is held here, if
    /// the digests are equal.
    pub(super) fn acknowledged(
        &mut self,
        sh: &Shared,
        from: PublicKey,
        key: &[u8],
        id: u64,
        told: Acknowledged,
    ) -> bool {
        let is_equal = self.copies.digest(key) == Some(told.digest);
        if is_equal {
            self.copies.compared(sh, key, &from);
        }
        let Some(entry) = self.copies.get_mut(key) else { return false };
        let offered = entry.was_offered(id);
        let handed = self.hand_offs.acknowledged(from, key, id, told, entry.owners());
        if offered || handed || is_equal {
            entry.spread();
        }
        offered || handed
    }

    /// Sends the summaries that are due.
    pub(super) fn summarise(&mut self, sh: &mut Shared, now: Instant) {
        self.summaries.summarise(sh, &mut self.copies, now);
    }

    /// Continues the hand-offs that are due.
    pub(super) fn hand_off(&mut self, sh: &mut Shared, sums: &mut Sums, at: Moment) {
        self.hand_offs.resume(sh, &mut self.copies, sums, at);
    }

    /// Hands nothing over any more of what was held so far.
    pub(super) fn forget_hand_offs(&mut self, sh: &mut Shared) {
        self.hand_offs = HandOffs::default();
        self.summaries.unsettle(sh);
    }

    /// Deletes what expires now, and forgets deletions whose time is up. The next object of the name has slots of its own:
    /// another owner may still have the old ones.
    pub(super) fn age(&mut self, sh: &mut Shared, sums: &mut Sums, wall: Duration) {
        self.copies.expire(sh, wall);
        for key in self.copies.to_forget(sh, wall) {
            sums.make_room(sh, &key);
            sums.renew(sh, &key, wall);
            self.copies.remove(sh, &key);
            sh.stats.forgotten += 1;
        }
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
