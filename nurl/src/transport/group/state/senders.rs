//! Other senders' keys, and the replay window of each.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::Name;
use crate::key::PublicKey;
use crate::kit::window::ReplayWindow;
use crate::transport::group::frame::{self, Header};
use crate::transport::group::{FrameOutcome, MAX_SENDERS, Tag};

/// Keys of one sender that are kept: the newest, and the previous one for frames in flight. In the mesh
/// group, where boots have no order, the keys of as many boots.
const KEYS_PER_SENDER: usize = 2;

/// A sender's key.
pub(super) struct HeldKey {
    pub(super) boot: u64,
    pub(super) key_id: u64,
    /// In the mesh group: the generation's tag.
    pub(super) tag: Option<Tag>,
    pub(super) key: Zeroizing<[u8; 32]>,
    /// At a group's rates, a frame takes minutes to be overtaken by more others than the narrowest window holds.
    pub(super) window: ReplayWindow,
}

#[derive(Default)]
struct Sender {
    keys: Vec<HeldKey>,
    /// The clock at its last frame, for eviction.
    spoke: u64,
}

/// The keys of at most [`MAX_SENDERS`] senders in all groups.
#[derive(Default)]
pub(super) struct Senders {
    table: BTreeMap<(Name, PublicKey), Sender>,
    /// Counts authenticated frames and new keys, in order to find the sender that was silent longest.
    clock: u64,
}

impl Senders {
    /// A sender's keys in a group, the newest last.
    pub(super) fn keys(&self, group: &Name, sender: PublicKey) -> &[HeldKey] {
        self.table.get(&(group.clone(), sender)).map_or(&[], |sender| &sender.keys)
    }

    /// Stores a key. If necessary, the sender's oldest key and the sender that was silent longest are evicted; returns
    /// whether a sender was.
    pub(super) fn hold(&mut self, group: Name, sender: PublicKey, key: HeldKey) -> bool {
        let id = (group, sender);
        let mut evicted = false;
        if !self.table.contains_key(&id)
            && self.table.len() >= MAX_SENDERS
            && let Some(silent) =
                self.table.iter().min_by_key(|(_, sender)| sender.spoke).map(|(id, _)| id.clone())
        {
            self.table.remove(&silent);
            evicted = true;
        }
        self.clock += 1;
        let sender = self.table.entry(id).or_default();
        sender.spoke = self.clock;
        sender.keys.push(key);
        if sender.keys.len() > KEYS_PER_SENDER {
            sender.keys.remove(0);
        }
        evicted
    }

    /// Opens a frame with the key that its header names, once per counter.
    pub(super) fn open(
        &mut self,
        group: &Name,
        header: &Header,
        frame: &[u8],
    ) -> Result<Vec<u8>, FrameOutcome> {
        let sender = self.table.get_mut(&(group.clone(), header.sender)).ok_or(FrameOutcome::Voided)?;
        let held = sender.keys.iter_mut().find(|key| {
            key.boot == header.boot
                && key.key_id == header.key_id
                && key.tag.is_none_or(|tag| tag == header.group)
        });
        let held = held.ok_or(FrameOutcome::Voided)?;
        if !held.window.would_accept(header.counter) {
            return Err(FrameOutcome::Replayed);
        }
        let body = frame::open(&held.key, frame).ok_or(FrameOutcome::Forged)?;
        held.window.commit(header.counter);
        self.clock += 1;
        sender.spoke = self.clock;
        Ok(body)
    }

    /// Keeps only those keys of a sender in a group that were made in this boot of it.
    pub(super) fn keep_boot_in(&mut self, group: &Name, sender: PublicKey, boot: u64) {
        if let Some(sender) = self.table.get_mut(&(group.clone(), sender)) {
            sender.keys.retain(|key| key.boot == boot);
        }
    }

    /// Keeps only those keys of a sender in all groups that were made in this boot of it.
    pub(super) fn keep_boot(&mut self, sender: PublicKey, boot: u64) {
        for ((_, of), sender_keys) in &mut self.table {
            if *of == sender {
                sender_keys.keys.retain(|key| key.boot == boot);
            }
        }
    }

    /// Keeps only the mesh group's keys of these generations, and all keys of other groups.
    pub(super) fn keep_tags(&mut self, current: impl Fn(&Tag) -> bool) {
        for sender in self.table.values_mut() {
            sender.keys.retain(|key| key.tag.is_none_or(|tag| current(&tag)));
        }
    }

    pub(super) fn forget_group(&mut self, name: &str) {
        self.table.retain(|(of, _), _| &**of != name);
    }

    pub(super) fn forget_sender(&mut self, sender: &PublicKey) {
        self.table.retain(|(_, of), _| of != sender);
    }
}
