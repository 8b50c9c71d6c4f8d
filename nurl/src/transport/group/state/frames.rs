//! Handling of received frames.

use std::time::Instant;

use super::{Groups, HeldKey, Name, WaitingFrame};
use crate::kit::window::{self, ReplayWindow};
use crate::transport::group::frame::{Header, open};
use crate::transport::group::{
    FrameOutcome, GroupEvent, MAX_FRAME_BYTES, MAX_WAITING, MAX_WAITING_PER_SENDER, MESH_GROUP, WAIT,
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
        if !allowed || header.sender == self.local {
            return FrameOutcome::SenderRefused;
        }
        if self.boots.get(&header.sender).is_some_and(|boot| *boot != header.boot) {
            return FrameOutcome::Voided;
        }
        if &*name == MESH_GROUP {
            return self.open_mesh(name, &header, frame);
        }
        let sender = self.senders.get(&(name.clone(), header.sender));
        let keys = sender.map_or(&[][..], |sender| &sender.keys);
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
    pub(super) fn open_held(&mut self, name: Name, header: &Header, frame: &[u8]) -> FrameOutcome {
        let Some(sender) = self.senders.get_mut(&(name.clone(), header.sender)) else {
            return FrameOutcome::Voided;
        };
        let held = sender.keys.iter_mut().find(|key| {
            key.boot == header.boot
                && key.key_id == header.key_id
                && key.tag.is_none_or(|tag| tag == header.group)
        });
        let Some(held) = held else { return FrameOutcome::Voided };
        if !held.window.would_accept(header.counter) {
            return FrameOutcome::Replayed;
        }
        let Some(body) = open(&held.key, frame) else { return FrameOutcome::Forged };
        held.window.commit(header.counter);
        self.clock += 1;
        sender.spoke = self.clock;
        self.events.push_back(GroupEvent::Received { group: name.to_string(), sender: header.sender, body });
        FrameOutcome::Received
    }

    /// Opens a frame of the mesh group. A sender is added to the table only if its frame decrypts.
    pub(super) fn open_mesh(&mut self, name: Name, header: &Header, frame: &[u8]) -> FrameOutcome {
        let id = (name.clone(), header.sender);
        let known = self.senders.get(&id).is_some_and(|sender| {
            sender.keys.iter().any(|key| key.boot == header.boot && key.tag == Some(header.group))
        });
        if !known {
            let generation = self.groups[&name].tags.iter().position(|tag| *tag == header.group);
            let Some(generation) = generation.and_then(|index| self.generations.get(index)) else {
                return FrameOutcome::UnknownGroup;
            };
            let key = generation.group_sender_key(&header.sender, header.boot);
            if header.key_id != 0 || open(&key, frame).is_none() {
                return FrameOutcome::Forged;
            }
            let held = HeldKey {
                boot: header.boot,
                key_id: 0,
                tag: Some(header.group),
                key,
                window: ReplayWindow::after(0, window::MIN_BITS),
            };
            self.hold(id, held);
        }
        self.open_held(name, header, frame)
    }

    pub(super) fn wait_for_key(
        &mut self,
        now: Instant,
        name: Name,
        header: &Header,
        frame: &[u8],
    ) -> FrameOutcome {
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
}
