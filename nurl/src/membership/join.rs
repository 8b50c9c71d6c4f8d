//! Joining: whom a newcomer asks for the mesh's table, in which order, and when it may take itself for alone.
//!
//! **What it promises.** A contact that answers is found, however many others are gone or made up. A contact that
//! its hubs deny costs one round trip and no wait. A newcomer begins alone as soon as it is proven that nobody is
//! there: every hub has answered, and denied whomever it had named.
//!
//! **How.** Hubs name contacts (LIST names those that are connected to the hub). Up to [`FANOUT`] are asked at a
//! time; a denied one is replaced at once, a silent one after [`PATIENCE`], though its answer still counts. When all
//! have had their turn, the next round begins with a new LIST, at most one each [`ROUND`]. The first table that
//! arrives ends it all; it begins again by [`Join::begin`] when everybody is lost.
//!
//! **What it refuses.** A contact whose record isn't sealed by the mesh may be made up by somebody who knows the
//! namespace alone. It is asked only when no other is left: while a secret rotates, honest members may seal by one
//! that this node doesn't have yet. Silence proves nothing: a silent contact never makes a newcomer alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand_core::Rng;

use crate::key::PublicKey;
use crate::net::rendezvous::Contact;

/// Contacts asked at a time. One may be slow and one be about to fall silent; each more costs its table's bytes.
pub const FANOUT: usize = 3;

/// How long a contact that is asked keeps the next from being asked: a handshake, a reliable connection's and an
/// answer are five round trips, of which none takes longer than 200 ms on a usual path.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Time from one round to the next, and with it between two LISTs to each hub, as long as nobody has answered.
pub const ROUND: Duration = Duration::from_secs(2);

/// The same after a LIST that named nobody whose record opens: the sample may have missed those who matter. A hub
/// allows 64 requests a second.
pub const ROUND_OF_STRANGERS: Duration = Duration::from_millis(250);

/// Contacts that are known at one time: two LISTs of two hubs.
pub const MAX_CONTACTS: usize = 64;

/// What keeps a node from being in the mesh, as far as it can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// No hub accepts this node.
    NoHub,
    /// A hub accepted this node, and then didn't answer a LIST.
    HubSilent,
    /// Hubs name contacts, and passed on handshakes to them, which nobody answered: what a wrong secret meets.
    NoAnswer,
    /// A contact's session is up, but its table doesn't come.
    NoTable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Asked(Instant),
    /// It didn't answer in its time; it still may.
    Silent,
    Denied,
}

#[derive(Debug)]
struct Known {
    opened: bool,
    stage: Stage,
    /// Its place in the order of asking, drawn when it was named.
    place: u64,
    /// Whether it was asked in any round, and some hub didn't deny it.
    passed_on: bool,
    denied_by: BTreeSet<PublicKey>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Join {
    active: bool,
    /// The hubs that are up, and whether each has answered a LIST.
    hubs: BTreeMap<PublicKey, bool>,
    contacts: BTreeMap<PublicKey, Known>,
    /// Sessions with a contact came up.
    met: bool,
    told_alone: bool,
    round_ends: Option<Instant>,
}

impl Join {
    /// Begins, or begins again with the contacts that are known.
    pub fn begin(&mut self, now: Instant) {
        if !self.active {
            *self = Join {
                active: true,
                hubs: std::mem::take(&mut self.hubs),
                contacts: std::mem::take(&mut self.contacts),
                round_ends: Some(now + ROUND),
                ..Join::default()
            };
            self.contacts.retain(|_, known| known.stage != Stage::Denied);
            self.contacts.values_mut().for_each(|known| known.stage = Stage::Waiting);
        }
    }

    /// A table has arrived: nobody is asked any more. The contacts are kept for the day when everybody is lost.
    pub fn finish(&mut self) {
        self.active = false;
        self.round_ends = None;
    }

    /// Whether nobody's table has arrived yet.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// A hub accepts this node, or no longer does.
    pub fn handle_hub(&mut self, hub: PublicKey, up: bool) {
        if up {
            self.hubs.entry(hub).or_insert(false);
        } else {
            self.hubs.remove(&hub);
        }
    }

    /// Contacts: a hub's answer to LIST, or from elsewhere.
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
            // It is connected there again.
            if hub.is_some_and(|hub| known.denied_by.remove(&hub)) && known.stage == Stage::Denied {
                known.stage = Stage::Waiting;
            }
            return;
        }
        if self.contacts.len() >= MAX_CONTACTS && !self.make_room(contact.opened) {
            return;
        }
        let known = Known {
            opened: contact.opened,
            stage: Stage::Waiting,
            place: rng.next_u64(),
            passed_on: false,
            denied_by: BTreeSet::new(),
        };
        self.contacts.insert(contact.key, known);
    }

    /// Forgets the contact of the least use: a denied one, else one that isn't opened, else one that was silent,
    /// else the one that was asked first. Nobody goes for a contact that isn't opened but a denied one.
    fn make_room(&mut self, for_opened: bool) -> bool {
        let worth = |known: &Known| match known.stage {
            Stage::Denied => (0, None),
            _ if !known.opened => (1, None),
            Stage::Silent => (2, None),
            Stage::Asked(at) => (3, Some(at)),
            Stage::Waiting => (4, None),
        };
        let least = self.contacts.iter().min_by_key(|(_, known)| worth(known));
        let Some((key, rank)) = least.map(|(key, known)| (*key, worth(known).0)) else { return false };
        let worse = rank == 0 || for_opened;
        if worse {
            self.contacts.remove(&key);
        }
        worse
    }

    /// A hub says that `peer` isn't connected to it. True once every hub that is up has said so of a contact.
    pub fn handle_denied(&mut self, hub: PublicKey, peer: &PublicKey) -> bool {
        let Some(known) = self.contacts.get_mut(peer).filter(|_| self.active) else { return false };
        known.denied_by.insert(hub);
        let denied = self.hubs.keys().all(|hub| known.denied_by.contains(hub));
        if denied {
            (known.stage, known.passed_on) = (Stage::Denied, false);
        }
        denied
    }

    /// `peer` hasn't answered, or what it was asked was lost: it is waited for no longer.
    pub fn handle_silence(&mut self, peer: &PublicKey) {
        if let Some(known) = self.contacts.get_mut(peer)
            && let Stage::Asked(_) = known.stage
        {
            known.stage = Stage::Silent;
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
                Stage::Asked(at) if at + PATIENCE <= now => known.stage = Stage::Silent,
                Stage::Asked(_) => (awaited, opened) = (awaited + 1, opened | known.opened),
                _ => {}
            }
        }
        if awaited >= FANOUT {
            return None;
        }
        let waiting = self.contacts.iter_mut().filter(|(_, known)| known.stage == Stage::Waiting);
        let (key, known) = waiting.min_by_key(|(_, known)| (!known.opened, known.place))?;
        if !known.opened && opened {
            return None;
        }
        known.stage = Stage::Asked(now);
        known.passed_on = true;
        Some(*key)
    }

    /// Whether the hubs are to be asked for contacts again: the round is over.
    pub fn poll_list(&mut self, now: Instant) -> bool {
        if self.round_ends.is_none_or(|ends| now < ends) {
            return false;
        }
        if self.contacts.values().any(|known| known.opened && known.stage == Stage::Waiting) {
            // Not everybody has had a turn; there is one as soon as somebody's patience is over. Strangers don't
            // hold up the round: the next list may name somebody better.
            self.round_ends = Some(now + PATIENCE);
            return false;
        }
        self.round_ends = Some(now + ROUND);
        self.rewind();
        true
    }

    /// Those who were silent get another turn. The denied don't: a hub has to name them again.
    fn rewind(&mut self) {
        self.contacts.retain(|_, known| known.stage != Stage::Denied);
        let silent = self.contacts.values_mut().filter(|known| known.stage == Stage::Silent);
        silent.for_each(|known| known.stage = Stage::Waiting);
    }

    /// Whether it is proven now that nobody else is there. Says so once.
    pub fn poll_alone(&mut self) -> bool {
        let answered = !self.hubs.is_empty() && self.hubs.values().all(|answered| *answered);
        let denied = self.contacts.values().all(|known| known.stage == Stage::Denied);
        let alone = self.active && answered && denied && !self.told_alone;
        self.told_alone |= alone;
        alone
    }

    /// When [`poll_ask`](Join::poll_ask) or [`poll_list`](Join::poll_list) may have something.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let round_ends = self.round_ends.filter(|_| self.active)?;
        let patience = self.contacts.values().filter_map(|known| match known.stage {
            Stage::Asked(at) => Some(at + PATIENCE),
            _ => None,
        });
        patience.chain([round_ends]).min()
    }

    /// What keeps this node out, while it is.
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

    /// The contacts whose record was opened, by key.
    #[cfg(test)]
    pub fn opened(&self) -> impl Iterator<Item = &PublicKey> {
        self.contacts.iter().filter(|(_, known)| known.opened).map(|(key, _)| key)
    }
}

#[cfg(test)]
#[path = "tests/join.rs"]
mod tests;
