//! The search for a keeper that is there.
//!
//! A view may name workers that have just died, and an operation may be sent to one member only. So the keepers are called
//! first, by an INQUIRY about an operation that none has: one after the other, each before the one before it is given up
//! (as RFC 8305 races addresses). Who answers is there, and says which process it is. One that was heard a moment ago isn't
//! called again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::message::Message;
use super::operations::OperationId;
use super::shared::Shared;
use crate::key::PublicKey;

/// The time until the next keeper is called, too. An answer through a relay takes less.
const PATIENCE: Duration = Duration::from_millis(500);
/// The time until all are called once more.
const CALL_AGAIN: Duration = Duration::from_secs(5);
/// After this time the search is given up. Longer than the time between two tables of the members: an observer whose
/// workers were all replaced learns of the new ones by then.
const SEEK_WITHIN: Duration = Duration::from_secs(35);
/// For this long one that was heard is taken to be there.
const HEARD: Duration = Duration::from_secs(3);

/// How far a keeper is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Called,
    /// It has no place for the write.
    Refused,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Search {
    /// In the order in which they are called.
    keepers: Vec<(PublicKey, State)>,
    next: Instant,
    give_up: Instant,
}

impl Search {
    /// A search among these.
    pub(super) fn new(now: Instant, keepers: Vec<PublicKey>) -> Search {
        let keepers = keepers.into_iter().map(|keeper| (keeper, State::New)).collect();
        Search { keepers, next: now, give_up: now + SEEK_WITHIN }
    }

    /// One of them that was heard a moment ago, and its process.
    pub(super) fn acquaintance(&self, known: &Acquaintances, now: Instant) -> Option<(PublicKey, u64)> {
        self.keepers.iter().find_map(|(keeper, _)| Some((*keeper, known.boot_of(now, keeper)?)))
    }

    /// When the next keeper is called, or the search given up.
    pub(super) fn next_deadline(&self) -> Instant {
        self.next.min(self.give_up)
    }

    /// Calls the next keeper, if it is time.
    pub(super) fn go_on(&mut self, sh: &mut Shared, now: Instant, id: OperationId) {
        if self.next > now {
            return;
        }
        let Some((keeper, state)) = self.keepers.iter_mut().find(|(_, state)| *state == State::New) else {
            // Perhaps one wasn't there when it was called.
            for (_, state) in self.keepers.iter_mut().filter(|(_, state)| *state == State::Called) {
                *state = State::New;
            }
            self.next = now + PATIENCE;
            return;
        };
        *state = State::Called;
        sh.send(*keeper, &Message::Inquiry { id: id.into() });
        let others = self.keepers.iter().any(|(_, state)| *state == State::New);
        self.next = now + if others { PATIENCE } else { CALL_AGAIN };
    }

    /// Whether this one was called, and may answer.
    pub(super) fn was_called(&self, keeper: &PublicKey) -> bool {
        self.keepers.contains(&(*keeper, State::Called))
    }

    /// Whether nobody was found in time.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.give_up <= now
    }

    /// Notes that a keeper won't write. False if no other one may; else the search begins anew among those.
    pub(super) fn refused(&mut self, now: Instant, by: &PublicKey) -> bool {
        for (keeper, state) in &mut self.keepers {
            match state {
                _ if keeper == by => *state = State::Refused,
                State::Called => *state = State::New,
                State::New | State::Refused => {}
            }
        }
        (self.next, self.give_up) = (now, now + SEEK_WITHIN);
        self.keepers.iter().any(|(_, state)| *state != State::Refused)
    }

    /// Adds keepers of a later view.
    pub(super) fn may_ask(&mut self, keepers: Vec<PublicKey>) {
        self.keepers.retain(|(keeper, state)| *state != State::New || keepers.contains(keeper));
        for keeper in keepers {
            if self.keepers.iter().all(|(known, _)| *known != keeper) {
                self.keepers.push((keeper, State::New));
            }
        }
    }

    /// Notes that a call wasn't delivered.
    pub(super) fn lost(&mut self, peer: &PublicKey) {
        for (keeper, state) in &mut self.keepers {
            if keeper == peer && *state == State::Called {
                *state = State::New;
            }
        }
    }
}

/// The members that were heard a moment ago, and their processes.
#[derive(Debug, Default)]
pub(super) struct Acquaintances(BTreeMap<PublicKey, (Instant, u64)>);

impl Acquaintances {
    /// Notes that this process answered.
    pub(super) fn met(&mut self, now: Instant, member: PublicKey, boot: u64) {
        self.0.retain(|_, (until, _)| now < *until);
        self.0.insert(member, (now + HEARD, boot));
    }

    /// Its process, if it was heard a moment ago.
    fn boot_of(&self, now: Instant, member: &PublicKey) -> Option<u64> {
        self.0.get(member).filter(|(until, _)| now < *until).map(|(_, boot)| *boot)
    }

    /// Forgets one that is lost.
    pub(super) fn lost(&mut self, member: &PublicKey) {
        self.0.remove(member);
    }
}
