//! Received frames, and the messages by which senders' keys are exchanged.

use std::time::Instant;

use super::senders::HeldKey;
use super::{Groups, Name, OwnKey, Request, WaitingFrame};
use crate::key::PublicKey;
use crate::kit::window::{self, ReplayWindow};
use crate::transport::group::frame::{self, Header};
use crate::transport::group::message::{self, SenderKey};
use crate::transport::group::{
    FrameOutcome, GroupEvent, MAX_FRAME_BYTES, MAX_OUTBOX, MAX_REQUESTS, MAX_WAITING, MAX_WAITING_PER_SENDER,
    MESH_GROUP, REQUEST_RETRY, Tag, WAIT,
};

impl Groups {
    pub(super) fn take_frame(&mut self, now: Instant, frame: &[u8]) -> FrameOutcome {
        let Some(header) = Header::parse(frame).filter(|_| frame.len() <= MAX_FRAME_BYTES) else {
            return FrameOutcome::Malformed;
        };
        let Some(name) = self.by_tag.get(&header.group).cloned() else { return FrameOutcome::UnknownGroup };
        let allowed = self
            .groups
            .get(&name)
            .is_some_and(|group| group.allow.as_ref().is_none_or(|list| list.allows(&header.sender)));
        if !allowed || header.sender == self.local.key {
            return FrameOutcome::SenderRefused;
        }
        if self.boots.get(&header.sender).is_some_and(|boot| *boot != header.boot) {
            return FrameOutcome::Voided;
        }
        if &*name == MESH_GROUP {
            return self.open_mesh(name, &header, frame);
        }
        let keys = self.senders.keys(&name, header.sender);
        if keys.iter().any(|key| key.boot == header.boot && key.key_id == header.key_id) {
            return self.open_held(name, &header, frame);
        }
        let newest = keys.last().map(|key| (key.boot, key.key_id));
        if newest.is_some_and(|(boot, key_id)| boot == header.boot && header.key_id < key_id) {
            return FrameOutcome::Voided;
        }
        self.wait_for_key(now, name, &header, frame)
    }

    /// Opens a frame whose key is held.
    fn open_held(&mut self, name: Name, header: &Header, frame: &[u8]) -> FrameOutcome {
        match self.senders.open(&name, header, frame) {
            Ok(body) => {
                let event = GroupEvent::Received { group: name.to_string(), sender: header.sender, body };
                self.events.push_back(event);
                FrameOutcome::Received
            }
            Err(outcome) => outcome,
        }
    }

    /// Opens a frame of the mesh group. A sender is added to the table only if its frame decrypts.
    fn open_mesh(&mut self, name: Name, header: &Header, frame: &[u8]) -> FrameOutcome {
        let keys = self.senders.keys(&name, header.sender);
        if !keys.iter().any(|key| key.boot == header.boot && key.tag == Some(header.group)) {
            let generation = self.groups[&name].tags.iter().position(|tag| *tag == header.group);
            let Some(generation) = generation.and_then(|index| self.generations.get(index)) else {
                return FrameOutcome::UnknownGroup;
            };
            let key = generation.group_sender_key(&header.sender, header.boot);
            if header.key_id != 0 || frame::open(&key, frame).is_none() {
                return FrameOutcome::Forged;
            }
            let window = ReplayWindow::after(0, window::MIN_BITS);
            let held = HeldKey { boot: header.boot, key_id: 0, tag: Some(header.group), key, window };
            self.hold(name.clone(), header.sender, held);
        }
        self.open_held(name, header, frame)
    }

    fn wait_for_key(&mut self, now: Instant, name: Name, header: &Header, frame: &[u8]) -> FrameOutcome {
        let of_sender = self.waiting.iter().filter(|w| w.group == name && w.sender == header.sender).count();
        if of_sender >= MAX_WAITING_PER_SENDER
            || self.waiting.len() >= MAX_WAITING
            || !self.request(now, name.clone(), header.sender)
        {
            return FrameOutcome::Overflow;
        }
        self.waiting.push_back(WaitingFrame {
            group: name,
            sender: header.sender,
            until: now + WAIT,
            frame: frame.to_vec(),
        });
        FrameOutcome::Waiting
    }

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

    fn post(&mut self, to: PublicKey, body: Vec<u8>) {
        if self.outbox.len() >= MAX_OUTBOX {
            self.stats.outbox_full += 1;
        } else {
            self.outbox.push_back((to, body));
        }
    }

    /// Answers a request for our key.
    pub(super) fn answer(&mut self, now: Instant, from: PublicKey, live: bool, name: &str, tag: Tag) {
        let group = &self.groups[name];
        if !group.allow.as_ref().map_or(live, |list| list.allows(&from)) {
            self.stats.requests_refused += 1;
            return;
        }
        self.rotate_if_due(now, name);
        let boot = self.local.boot;
        let Some(own) = self.own_key(now, name) else { return };
        own.add_holder(from);
        let key = own.to_send(boot);
        self.stats.requests_answered += 1;
        self.post(from, message::key(&tag, &key));
    }

    /// Takes a sender's key, and handles the frames that waited for it.
    pub(super) fn take_key(&mut self, now: Instant, from: PublicKey, name: Name, key: SenderKey) {
        let allowed =
            self.groups[&name].allow.as_ref().is_none_or(|list| list.allows(&from)) && from != self.local.key;
        let voided = self.boots.get(&from).is_some_and(|boot| *boot != key.boot);
        // A repeated key must not lower its window's floor, and an older key is obsolete.
        let newest = self.senders.keys(&name, from).last();
        let old = newest.is_some_and(|held| held.boot == key.boot && key.key_id <= held.key_id);
        if !allowed || voided {
            self.stats.bad_key_messages += 1;
            return;
        }
        self.requests.remove(&(name.clone(), from));
        if old {
            return;
        }
        self.senders.keep_boot_in(&name, from, key.boot);
        let window = ReplayWindow::after(key.counter, window::MIN_BITS);
        let held = HeldKey { boot: key.boot, key_id: key.key_id, tag: None, key: key.key, window };
        self.hold(name.clone(), from, held);
        let (ready, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|frame| frame.group == name && frame.sender == from);
        self.waiting = rest.into();
        for WaitingFrame { frame, .. } in ready {
            self.handle_frame(now, &frame);
        }
    }

    fn hold(&mut self, name: Name, sender: PublicKey, key: HeldKey) {
        self.stats.senders_evicted += u64::from(self.senders.hold(name, sender, key));
    }

    /// Our key for a group, created at first use.
    pub(super) fn own_key(&mut self, now: Instant, name: &str) -> Option<&mut OwnKey> {
        let group = self.groups.get_mut(name)?;
        Some(group.own.get_or_insert_with(|| OwnKey::new(now, &mut self.local.rng)))
    }

    /// Replaces our key if that is due and allowed, and sends the new one to the holders of the old.
    pub(super) fn rotate_if_due(&mut self, now: Instant, name: &str) {
        let Some(group) = self.groups.get_mut(name) else { return };
        let (Some(own), Some(&tag)) = (&mut group.own, group.tags.first()) else { return };
        if !own.is_due(now, group.stale) {
            return;
        }
        group.stale = false;
        own.rotate(now, &mut self.local.rng, |key| group.allow.as_ref().is_none_or(|list| list.allows(key)));
        let key = own.to_send(self.local.boot);
        let holders: Vec<PublicKey> = own.holders.iter().copied().collect();
        self.stats.rotations += 1;
        for holder in holders {
            self.post(holder, message::key(&tag, &key));
        }
    }
}
