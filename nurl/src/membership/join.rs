//! Joining: which contacts a newcomer asks for the mesh's table, in which order, and when it may conclude that it is
//! alone.
//!
//! A *contact* is a bootstrap peer: one that a hub names, which may or may not be a member.
//!
//! **Guarantees.** A contact that answers is found, however many others are gone or forged. A contact denied by its
//! hubs costs one round trip and no wait. A newcomer starts alone as soon as it is proven that no member is there:
//! every hub has answered, and has denied every contact named.
//!
//! **How.** Hubs name contacts (LIST names those that are connected to the hub). Up to [`FANOUT`] are asked at a
//! time; a denied contact is replaced at once, a silent one after [`PATIENCE`], though its answer still counts. When
//! all have had their turn, the next round begins with a new LIST, at most one each [`ROUND`]. The first table that
//! arrives ends the join; [`Join::begin`] restarts it when all members are lost.
//!
//! **Limits.** A contact whose record isn't sealed by the mesh may be forged by anyone that knows only the namespace.
//! It is asked only when no other is left: while a secret rotates, honest members may seal by a secret that this node
//! doesn't have yet. Silence proves nothing: a silent contact never lets a newcomer conclude that it is alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand_core::Rng;

use crate::key::PublicKey;
use crate::net::reach::rendezvous::Contact;

/// Contacts asked at a time. One may be slow and one may be about to fail; each further one costs the bytes of its
/// table.
pub const FANOUT: usize = 3;

/// How long an asked contact blocks the next: the handshakes of the session and of the reliable connection and an
/// answer are five round trips, none of which takes longer than 200 ms on a usual path.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Time from one round to the next, and so between two LISTs to each hub, until a contact has answered.
pub const ROUND: Duration = Duration::from_secs(2);

/// The round time after a LIST without any record that this node can open: the sample may have missed the members. A
/// hub allows 64 requests a second.
pub const ROUND_OF_STRANGERS: Duration = Duration::from_millis(250);

/// The most contacts known at a time: two LISTs of two hubs.
pub const MAX_CONTACTS: usize = 64;

/// The reason why a node isn't in the mesh, as far as it can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// No hub accepts this node.
    NoHub,
    /// A hub accepted this node, and then didn't answer a LIST.
    HubSilent,
    /// Hubs name contacts and passed on handshakes to them, but no contact answered: the effect of a wrong secret.
    NoAnswer,
    /// A session with a contact is up, but the contact's table doesn't arrive.
    NoTable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ContactStage {
    Waiting,
    Asked(Instant),
    /// It didn't answer in time; it still may.
    Silent,
    Denied,
}

#[derive(Debug)]
struct JoinContact {
    opened: bool,
    stage: ContactStage,
    /// Its random position in the order of asking, drawn when it was first named.
    place: u64,
    /// Whether it was asked in any round and is not denied by every hub.
    passed_on: bool,
    denied_by: BTreeSet<PublicKey>,
}

/// State of a join.
#[derive(Debug, Default)]
pub struct Join {
    active: bool,
    /// The hubs that are up, and whether each has answered a LIST.
    hubs: BTreeMap<PublicKey, bool>,
    contacts: BTreeMap<PublicKey, JoinContact>,
    /// A session with some contact came up.
    met: bool,
    told_alone: bool,
    round_ends: Option<Instant>,
}

impl Join {
    /// Starts joining, or starts again with the known contacts.
    pub fn begin(&mut self, now: Instant) {
        if !self.active {
            *self = Join {
                active: true,
                hubs: std::mem::take(&mut self.hubs),
                contacts: std::mem::take(&mut self.contacts),
                round_ends: Some(now + ROUND),
                ..Join::default()
            };
            self.contacts.retain(|_, known| known.stage != ContactStage::Denied);
            self.contacts.values_mut().for_each(|known| known.stage = ContactStage::Waiting);
        }
    }

    /// A table has arrived: no further contact is asked. The contacts are kept for a later join, after all members
    /// are lost.
    pub fn finish(&mut self) {
        self.active = false;
        self.round_ends = None;
    }

    /// Whether no table has arrived yet.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// A hub accepts this node (`up`), or no longer does.
    pub fn handle_hub(&mut self, hub: PublicKey, up: bool) {
        if up {
            self.hubs.entry(hub).or_insert(false);
        } else {
            self.hubs.remove(&hub);
        }
    }

    /// Contacts from a hub's answer to LIST, or from another source.
    pub fn handle_contacts(
        &mut self,
        now: Instant,
        hub: Option<PublicKey>,
        contacts: &[Contact],
        rng: &mut impl Rng,
    ) {
        if let Some(answered) = hub.and_then(|hub| self.hubs.get_mut(&hub)) {
            *answered = true;
        }
        for contact in contacts {
            self.add(contact, hub, rng);
        }
        let strangers = !contacts.is_empty() && !self.contacts.values().any(|known| known.opened);
        if let Some(ends) = self.round_ends.as_mut().filter(|_| strangers) {
            *ends = (*ends).min(now + ROUND_OF_STRANGERS);
        }
    }

    fn add(&mut self, contact: &Contact, hub: Option<PublicKey>, rng: &mut impl Rng) {
        if let Some(known) = self.contacts.get_mut(&contact.key) {
            known.opened |= contact.opened;
            // The hub lists it, so it is connected there again.
            if hub.is_some_and(|hub| known.denied_by.remove(&hub)) && known.stage == ContactStage::Denied {
                known.stage = ContactStage::Waiting;
            }
            return;
        }
        if self.contacts.len() >= MAX_CONTACTS && !self.make_room(contact.opened) {
            return;
        }
        let known = JoinContact {
            opened: contact.opened,
            stage: ContactStage::Waiting,
            place: rng.next_u64(),
            passed_on: false,
            denied_by: BTreeSet::new(),
        };
        self.contacts.insert(contact.key, known);
    }

    /// Drops the least useful contact: a denied one, else one that isn't opened, else a silent one, else the one that
    /// was asked first. A contact that isn't opened displaces only a denied one.
    fn make_room(&mut self, for_opened: bool) -> bool {
        let worth = |known: &JoinContact| match known.stage {
            ContactStage::Denied => (0, None),
            _ if !known.opened => (1, None),
            ContactStage::Silent => (2, None),
            ContactStage::Asked(at) => (3, Some(at)),
            ContactStage::Waiting => (4, None),
        };
        let least = self.contacts.iter().min_by_key(|(_, known)| worth(known));
        let Some((key, rank)) = least.map(|(key, known)| (*key, worth(known).0)) else { return false };
        let worse = rank == 0 || for_opened;
        if worse {
            self.contacts.remove(&key);
        }
        worse
    }

    /// A hub says that `peer` isn't connected to it. True once every hub that is up has denied this contact.
    pub fn handle_denied(&mut self, hub: PublicKey, peer: &PublicKey) -> bool {
        let Some(known) = self.contacts.get_mut(peer).filter(|_| self.active) else { return false };
        known.denied_by.insert(hub);
        let denied = self.hubs.keys().all(|hub| known.denied_by.contains(hub));
        if denied {
            (known.stage, known.passed_on) = (ContactStage::Denied, false);
        }
        denied
    }

    /// `peer` hasn't answered, or the request to it was lost: it no longer blocks the next contact.
    pub fn handle_silence(&mut self, peer: &PublicKey) {
        if let Some(known) = self.contacts.get_mut(peer)
            && let ContactStage::Asked(_) = known.stage
        {
            known.stage = ContactStage::Silent;
        }
    }

    /// A session with `peer` is up.
    pub fn handle_session(&mut self, peer: &PublicKey) {
        self.met |= self.contacts.contains_key(peer);
    }

    /// The next contact to ask now.
    pub fn poll_ask(&mut self, now: Instant) -> Option<PublicKey> {
        if !self.active {
            return None;
        }
        let (mut awaited, mut opened) = (0, false);
        for known in self.contacts.values_mut() {
            match known.stage {
                ContactStage::Asked(at) if at + PATIENCE <= now => known.stage = ContactStage::Silent,
                ContactStage::Asked(_) => (awaited, opened) = (awaited + 1, opened | known.opened),
                _ => {}
            }
        }
        if awaited >= FANOUT {
            return None;
        }
        let waiting = self.contacts.iter_mut().filter(|(_, known)| known.stage == ContactStage::Waiting);
        let (key, known) = waiting.min_by_key(|(_, known)| (!known.opened, known.place))?;
        if !known.opened && opened {
            return None;
        }
        known.stage = ContactStage::Asked(now);
        known.passed_on = true;
        Some(*key)
    }

    /// Whether the hubs should be asked for contacts again, because the round is over.
    pub fn poll_list(&mut self, now: Instant) -> bool {
        if self.round_ends.is_none_or(|ends| now < ends) {
            return false;
        }
        if self.contacts.values().any(|known| known.opened && known.stage == ContactStage::Waiting) {
            // Some opened contacts haven't had a turn; a slot becomes free when the patience for another ends.
            // Unopened contacts don't hold up the round: the next LIST may name better ones.
            self.round_ends = Some(now + PATIENCE);
            return false;
        }
        self.round_ends = Some(now + ROUND);
        self.rewind();
        true
    }

    /// Silent contacts get another turn. Denied ones don't: a hub has to name them again.
    fn rewind(&mut self) {
        self.contacts.retain(|_, known| known.stage != ContactStage::Denied);
        let silent = self.contacts.values_mut().filter(|known| known.stage == ContactStage::Silent);
        silent.for_each(|known| known.stage = ContactStage::Waiting);
    }

    /// Whether it is proven now that no other member is there. True at most once.
    pub fn poll_alone(&mut self) -> bool {
        let answered = !self.hubs.is_empty() && self.hubs.values().all(|answered| *answered);
        let denied = self.contacts.values().all(|known| known.stage == ContactStage::Denied);
        let alone = self.active && answered && denied && !self.told_alone;
        self.told_alone |= alone;
        alone
    }

    /// When [`poll_ask`](Join::poll_ask) or [`poll_list`](Join::poll_list) may next return something.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let round_ends = self.round_ends.filter(|_| self.active)?;
        let patience = self.contacts.values().filter_map(|known| match known.stage {
            ContactStage::Asked(at) => Some(at + PATIENCE),
            _ => None,
        });
        patience.chain([round_ends]).min()
    }

    /// The reason why this node hasn't joined yet.
    pub fn obstacle(&self) -> Obstacle {
        if self.hubs.is_empty() {
            Obstacle::NoHub
        } else if self.met {
            Obstacle::NoTable
        } else if self.contacts.values().any(|known| known.passed_on) {
            Obstacle::NoAnswer
        } else {
            Obstacle::HubSilent
        }
    }

    /// The contacts that were asked for their table and aren't denied by all hubs.
    pub fn asked(&self) -> impl Iterator<Item = &PublicKey> {
        self.contacts.iter().filter(|(_, known)| known.passed_on).map(|(key, _)| key)
    }

    /// The contacts whose record was opened, by key.
    #[cfg(test)]
    pub fn opened(&self) -> impl Iterator<Item = &PublicKey> {
        self.contacts.iter().filter(|(_, known)| known.opened).map(|(key, _)| key)
    }
}

#[cfg(test)]
#[path = "tests/join.rs"]
mod tests;
