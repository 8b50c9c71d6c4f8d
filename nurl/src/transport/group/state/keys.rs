//! Keys: our own, and those that we request from other senders.

use std::collections::BTreeSet;
use std::time::Instant;

use rand_core::Rng as _;
use zeroize::Zeroizing;

use super::{Groups, HeldKey, Name, OwnKey, Request, WaitingFrame};
use crate::key::PublicKey;
use crate::kit::window::{self, ReplayWindow};
use crate::rt::Rng;
use crate::transport::group::message::{self, SenderKey};
use crate::transport::group::{
    MAX_HOLDERS, MAX_OUTBOX, MAX_REQUESTS, MAX_SENDERS, MIN_ROTATION, REQUEST_RETRY, ROTATION, Tag,
};

/// Keys of one sender that are kept: the newest, and the previous one for frames in flight. In the mesh
/// group, where boots have no order, the keys of as many boots.
const KEYS_PER_SENDER: usize = 2;

impl Groups {
    /// Begins a request unless one is in progress. Returns `false` if there is no room.
    pub(super) fn request(&mut self, now: Instant, name: Name, sender: PublicKey) -> bool {
        let id = (name, sender);
        if self.requests.contains_key(&id) {
            return true;
        }
        if self.requests.len() >= MAX_REQUESTS {
            return false;
        }
        self.post_request(&id.0.clone(), sender);
        self.requests.insert(id, Request { at: now + REQUEST_RETRY, wait: REQUEST_RETRY, tries: 1 });
        true
    }

    pub(super) fn post_request(&mut self, name: &str, sender: PublicKey) {
        if let Some(&tag) = self.groups.get(name).and_then(|group| group.tags.first()) {
            self.stats.requests_sent += 1;
            self.post(sender, message::request(&tag));
        }
    }

    pub(super) fn post(&mut self, to: PublicKey, body: Vec<u8>) {
        if self.outbox.len() >= MAX_OUTBOX {
            self.stats.outbox_full += 1;
        } else {
            self.outbox.push_back((to, body));
        }
    }

    pub(super) fn answer(&mut self, now: Instant, from: PublicKey, live: bool, name: &str, tag: Tag) {
        let group = &self.groups[name];
        if !group.allow.as_ref().map_or(live, |list| list.allows(&from)) {
            self.stats.requests_refused += 1;
            return;
        }
        self.rotate_if_due(now, name);
        let boot = self.boot;
        let Some(own) = self.own_key(now, name) else { return };
        if own.holders.len() < MAX_HOLDERS {
            own.holders.insert(from);
        }
        let key = SenderKey { boot, key_id: own.id, counter: own.counter, key: own.key.clone() };
        self.stats.requests_answered += 1;
        self.post(from, message::key(&tag, &key));
    }

    pub(super) fn take_key(&mut self, now: Instant, from: PublicKey, name: Name, key: SenderKey) {
        let allowed =
            self.groups[&name].allow.as_ref().is_none_or(|list| list.allows(&from)) && from != self.local;
        let voided = self.boots.get(&from).is_some_and(|boot| *boot != key.boot);
        let id = (name.clone(), from);
        // A repeated key must not lower its window's floor, and an older key is obsolete.
        let newest = self.senders.get(&id).and_then(|sender| sender.keys.last());
        let old = newest.is_some_and(|held| held.boot == key.boot && key.key_id <= held.key_id);
        if !allowed || voided {
            self.stats.bad_key_messages += 1;
            return;
        }
        self.requests.remove(&id);
        if old {
            return;
        }
        if let Some(sender) = self.senders.get_mut(&id) {
            sender.keys.retain(|held| held.boot == key.boot);
        }
        let window = ReplayWindow::after(key.counter, window::MIN_BITS);
        let held = HeldKey { boot: key.boot, key_id: key.key_id, tag: None, key: key.key, window };
        self.hold(id, held);
        let (ready, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|frame| frame.group == name && frame.sender == from);
        self.waiting = rest.into();
        for WaitingFrame { frame, .. } in ready {
            self.handle_frame(now, &frame);
        }
    }

    /// Stores a key. If necessary, the sender's oldest key and the sender that was silent longest are evicted.
    pub(super) fn hold(&mut self, id: (Name, PublicKey), key: HeldKey) {
        if !self.senders.contains_key(&id)
            && self.senders.len() >= MAX_SENDERS
            && let Some(silent) =
                self.senders.iter().min_by_key(|(_, sender)| sender.spoke).map(|(id, _)| id.clone())
        {
            self.senders.remove(&silent);
            self.stats.senders_evicted += 1;
        }
        self.clock += 1;
        let clock = self.clock;
        let sender = self.senders.entry(id).or_default();
        sender.spoke = clock;
        sender.keys.push(key);
        if sender.keys.len() > KEYS_PER_SENDER {
            sender.keys.remove(0);
        }
    }

    /// Our key for a group, created at first use.
    pub(super) fn own_key(&mut self, now: Instant, name: &str) -> Option<&mut OwnKey> {
        let group = self.groups.get_mut(name)?;
        if group.own.is_none() {
            let key = random_key(&mut self.rng);
            group.own = Some(OwnKey { id: 1, key, counter: 0, made: now, holders: BTreeSet::new() });
        }
        group.own.as_mut()
    }

    /// Replaces our key if that is due and allowed, and sends the new one to the holders of the old.
    pub(super) fn rotate_if_due(&mut self, now: Instant, name: &str) {
        let boot = self.boot;
        let Some(group) = self.groups.get_mut(name) else { return };
        let (Some(own), Some(&tag)) = (&mut group.own, group.tags.first()) else { return };
        let age = now.saturating_duration_since(own.made);
        if age < MIN_ROTATION || !(group.stale || age >= ROTATION) {
            return;
        }
        group.stale = false;
        own.id += 1;
        own.key = random_key(&mut self.rng);
        own.counter = 0;
        own.made = now;
        own.holders.retain(|key| group.allow.as_ref().is_none_or(|list| list.allows(key)));
        let key = SenderKey { boot, key_id: own.id, counter: 0, key: own.key.clone() };
        let holders: Vec<PublicKey> = own.holders.iter().copied().collect();
        self.stats.rotations += 1;
        for holder in holders {
            self.post(holder, message::key(&tag, &key));
        }
    }
}

fn random_key(rng: &mut Rng) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *key);
    key
}
