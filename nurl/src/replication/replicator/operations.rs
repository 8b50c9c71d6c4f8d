//! Observers' writes: an operation with an id, sent to one member and retried only there.
//!
//! Trying "increment" at two members would count twice. So an observer first looks for one that is there: it asks the
//! key's keepers, one after the other ([`seek`](super::seek)), and sends the operation to the first that answers. From
//! then on it turns to no other member, nor to another process of the same: each operation names the process to which it
//! was sent first. If the member is lost, or its process is another one, the observer gets `Unknown` and its application
//! decides. But what was sent only once, and came to another process, wasn't done by the one that it names, so it is sent
//! to this one. [`served`](super::served) is the member's side.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand_core::Rng as _;

use super::confirm::Confirm;
use super::error::UpdateFailure;
use super::event::ReplicatorEvent;
use super::message::{Message, Op};
use super::seek::{Acquaintances, Search};
use super::served::{APPLIED, BUSY, NO_DISK, REFUSED, UNHEARD, UNKNOWN};
use super::shared::Shared;
use crate::key::PublicKey;
use crate::rt::{Point, buggify};

/// Limit on the operations under way at an observer: a command line has one.
pub(super) const MAX_OPERATIONS: usize = 1024;
/// The pause between two tries.
const RETRY: Duration = Duration::from_secs(2);
/// After this time an observer stops trying the member that has it.
const GIVE_UP: Duration = Duration::from_secs(60);

/// 128 random bits.
pub type OperationId = [u8; 16];

/// How an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// Not done: no keeper of the key is there.
    #[error("no owner of the key answers: nothing was written")]
    Nobody,
    /// Not done: the member has no room now.
    #[error("the member can't take the write now")]
    Busy,
    /// Not done: the value or the key refused it.
    #[error("the member refused the write")]
    Refused,
    /// Done once or not at all: the member is lost or silent, or no owner has acknowledged its write.
    #[error("the write was made once or not at all")]
    Unknown,
    /// Not done: the member's disk, or the owners', take no writes.
    #[error("the disks of the key's owners are full or fail")]
    Disk,
}

/// The outcome that a member's byte tells, if it tells one.
pub(super) fn outcome_of(code: u8) -> Option<Result<(), OperationError>> {
    let error = match code {
        APPLIED => return Some(Ok(())),
        BUSY => OperationError::Busy,
        REFUSED => OperationError::Refused,
        UNKNOWN => OperationError::Unknown,
        NO_DISK => OperationError::Disk,
        _ => return None,
    };
    Some(Err(error))
}

/// The member that has the operation.
#[derive(Debug)]
struct Asked {
    member: PublicKey,
    /// Its process.
    boot: u64,
    /// How often it was sent to this process.
    sent: u32,
    /// Whether it was sent to another process first, which hasn't got it.
    moved: bool,
    next: Instant,
    give_up: Instant,
}

#[derive(Debug)]
struct Underway {
    /// The id given by the caller.
    call: u64,
    key: Vec<u8>,
    op: Op,
    confirm: Confirm,
    search: Search,
    /// None while it is looked for.
    asked: Option<Asked>,
}

impl Underway {
    /// Sends it to this process of a member.
    fn ask(&mut self, sh: &mut Shared, now: Instant, id: OperationId, (member, boot): (PublicKey, u64)) {
        let give_up = now + GIVE_UP;
        self.asked = Some(Asked { member, boot, sent: 0, moved: false, next: now, give_up });
        self.send(sh, now, id);
    }

    /// Sends it to its member, once more or for the first time.
    fn send(&mut self, sh: &mut Shared, now: Instant, id: OperationId) {
        let Some(asked) = &mut self.asked else { return };
        let (key, op) = (self.key.clone().into(), self.op.clone());
        let (boot, confirm) = (Some(asked.boot), self.confirm.to_wire());
        sh.send(asked.member, &Message::Operation { id: id.into(), key, op, boot, confirm });
        let is_hasty = asked.sent == 0 && buggify(Point::OperationRepeated);
        asked.next = now + if is_hasty { RETRY / 20 } else { RETRY };
        asked.sent = asked.sent.saturating_add(1);
    }
}

/// The operations of this node as an observer.
#[derive(Debug, Default)]
pub(super) struct Operations {
    under_way: BTreeMap<OperationId, Underway>,
    acquaintances: Acquaintances,
}

impl Operations {
    /// Whether another operation may begin.
    pub(super) fn has_room(&self, sh: &Shared) -> bool {
        self.under_way.len() + sh.events.waiting() < MAX_OPERATIONS
    }

    /// Asks one of these keepers of the key to write in this node's place; another one if it refuses, which may have a place
    /// in the value. Reports the outcome under the id `call`. There must be room.
    pub(super) fn operate(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        call: u64,
        keepers: Vec<PublicKey>,
        key: &[u8],
        (op, confirm): (Op, Confirm),
    ) {
        let mut id = [0; 16];
        sh.rng.fill_bytes(&mut id);
        let search = Search::new(now, keepers);
        let known = search.acquaintance(&self.acquaintances, now);
        let mut underway = Underway { call, key: key.to_vec(), op, confirm, search, asked: None };
        match known {
            Some(known) => underway.ask(sh, now, id, known),
            None => underway.search.go_on(sh, now, id),
        }
        self.under_way.insert(id, underway);
    }

    /// When the next one has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let due = |underway: &Underway| match &underway.asked {
            Some(asked) => asked.next.min(asked.give_up),
            None => underway.search.next_deadline(),
        };
        self.under_way.values().map(due).min()
    }

    pub(super) fn on_reply(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        from: PublicKey,
        id: OperationId,
        (code, boot): (u8, Option<u64>),
    ) {
        if code > NO_DISK {
            sh.stats.malformed += 1;
            return;
        }
        let Some(underway) = self.under_way.get_mut(&id) else {
            sh.stats.stray += 1;
            return;
        };
        let Some(asked) = &mut underway.asked else {
            match boot {
                Some(boot) if code == UNHEARD && underway.search.was_called(&from) => {
                    self.acquaintances.met(now, from, boot);
                    underway.ask(sh, now, id, (from, boot));
                }
                _ => sh.stats.stray += 1,
            }
            return;
        };
        if asked.member != from || code == UNHEARD {
            // Another keeper was called, too, or this one twice.
            sh.stats.stray += 1;
            return;
        }
        match outcome_of(code) {
            Some(Err(OperationError::Refused | OperationError::Disk))
                if underway.search.refused(now, &from) =>
            {
                underway.asked = None;
                underway.search.go_on(sh, now, id);
            }
            Some(outcome) => {
                self.acquaintances.met(now, from, asked.boot);
                self.end(sh, id, outcome);
            }
            None if asked.sent > 1 => self.end(sh, id, Err(OperationError::Unknown)),
            // A message arrives at one process at most, so the one that was asked hasn't got it.
            None => match boot.filter(|_| !asked.moved) {
                None => self.end(sh, id, Err(OperationError::Busy)),
                Some(boot) => {
                    (asked.boot, asked.sent, asked.moved) = (boot, 0, true);
                    underway.send(sh, now, id);
                }
            },
        }
    }

    /// Goes on with the operations that are due, and gives up the old ones.
    pub(super) fn retry(&mut self, sh: &mut Shared, now: Instant) {
        let mut over = Vec::new();
        for (id, underway) in &mut self.under_way {
            match &underway.asked {
                Some(asked) if asked.give_up <= now => over.push((*id, OperationError::Unknown)),
                Some(asked) if asked.next <= now => underway.send(sh, now, *id),
                Some(_) => {}
                None if underway.search.is_over(now) => over.push((*id, OperationError::Nobody)),
                None => underway.search.go_on(sh, now, *id),
            }
        }
        for (id, why) in over {
            self.end(sh, id, Err(why));
        }
    }

    /// Takes a new view: who keeps the keys now may be asked, too.
    pub(super) fn follow(&mut self, sh: &Shared) {
        for underway in self.under_way.values_mut() {
            underway.search.may_ask(asked_for(sh, &underway.key));
        }
    }

    /// Ends the operations at a member that is lost.
    pub(super) fn on_peer_lost(&mut self, sh: &mut Shared, peer: PublicKey) {
        self.acquaintances.lost(&peer);
        let mut lost = BTreeSet::new();
        for (id, underway) in &mut self.under_way {
            match &underway.asked {
                Some(asked) if asked.member == peer => drop(lost.insert(*id)),
                Some(_) => {}
                None => underway.search.lost(&peer),
            }
        }
        for id in lost {
            self.end(sh, id, Err(OperationError::Unknown));
        }
    }

    fn end(&mut self, sh: &mut Shared, id: OperationId, outcome: Result<(), OperationError>) {
        let Some(Underway { call, .. }) = self.under_way.remove(&id) else { return };
        sh.events.push(ReplicatorEvent::Updated { id: call, outcome: outcome.map_err(UpdateFailure::from) });
    }
}

/// Those who may write to a key in this node's place: its other keepers that are live, or all if none is.
pub(super) fn asked_for(sh: &Shared, key: &[u8]) -> Vec<PublicKey> {
    let keepers = sh.other_keepers(key);
    let any = keepers.iter().any(|keeper| keeper.live);
    keepers.into_iter().filter(|keeper| keeper.live || !any).map(|keeper| keeper.key).collect()
}
