//! Observers' writes: an operation with an id, sent to one member and retried only there.
//!
//! Trying "increment" at two members would count twice, so an observer never turns to another member, nor to another
//! process of the same: each operation names the process to which it was sent first. If the member is lost, or its process
//! is another one, the observer gets `Unknown` and its application decides. But what was sent only once, and came to
//! another process, wasn't done by the one that it names, so it is sent to this one. [`served`](super::served) is the
//! member's side.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand_core::Rng as _;

use super::confirm::Confirm;
use super::error::{UpdateError, UpdateFailure};
use super::event::ReplicatorEvent;
use super::message::{Message, Op};
use super::served::{ANOTHER, APPLIED, BUSY, REFUSED, UNKNOWN};
use super::shared::Shared;
use crate::key::PublicKey;
use crate::rt::{Point, buggify};

/// Limit on the operations under way at an observer: a command line has one.
pub(super) const MAX_OPERATIONS: usize = 1024;
/// The pause between two tries.
const RETRY: Duration = Duration::from_secs(2);
/// After this time an observer stops trying.
const GIVE_UP: Duration = Duration::from_secs(60);

/// A member that may be asked, and its process, if it is known.
pub(super) type Member = (PublicKey, Option<u64>);

/// 128 random bits.
pub type OperationId = [u8; 16];

/// How an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// Not done: the member has no room now.
    #[error("the member can't take the write now")]
    Busy,
    /// Not done: the value or the key refused it.
    #[error("the member refused the write")]
    Refused,
    /// Done once or not at all: the member is lost or silent, or no owner has acknowledged its write.
    #[error("the write was made once or not at all")]
    Unknown,
}

/// The outcome that a member's byte tells, if it tells one.
pub(super) fn outcome_of(code: u8) -> Option<Result<(), OperationError>> {
    let error = match code {
        APPLIED => return Some(Ok(())),
        BUSY => OperationError::Busy,
        REFUSED => OperationError::Refused,
        UNKNOWN => OperationError::Unknown,
        _ => return None,
    };
    Some(Err(error))
}

#[derive(Debug)]
struct Underway {
    /// The id given by the caller.
    call: u64,
    member: PublicKey,
    /// Those that are asked next if it doesn't do it.
    others: Vec<Member>,
    key: Vec<u8>,
    op: Op,
    confirm: Confirm,
    /// The member's process to which it is sent, if it is known.
    boot: Option<u64>,
    /// How often it was sent to this process.
    sent: u32,
    /// Whether it was sent to another process first, which hasn't got it.
    moved: bool,
    next: Instant,
    give_up: Instant,
}

impl Underway {
    /// Sends it, once more or for the first time.
    fn send(&mut self, sh: &mut Shared, now: Instant, id: OperationId) {
        let (key, op) = (self.key.clone().into(), self.op.clone());
        let confirm = self.confirm.to_wire();
        sh.send(self.member, &Message::Operation { id: id.into(), key, op, boot: self.boot, confirm });
        let is_hasty = self.sent == 0 && buggify(Point::OperationRepeated);
        self.next = now + if is_hasty { RETRY / 20 } else { RETRY };
        self.sent = self.sent.saturating_add(1);
    }
}

/// The operations of this node as an observer.
#[derive(Debug, Default)]
pub(super) struct Operations(BTreeMap<OperationId, Underway>);

impl Operations {
    /// Whether another operation may begin.
    pub(super) fn has_room(&self, sh: &Shared) -> bool {
        self.0.len() + sh.events.waiting() < MAX_OPERATIONS
    }

    /// Asks the first of these members to write in this node's place, the next one if it refuses, and so on: it may have
    /// no place in the value either. Reports the outcome under the id `call`. There must be room.
    pub(super) fn operate(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        call: u64,
        members: Vec<Member>,
        key: &[u8],
        (op, confirm): (Op, Confirm),
    ) {
        let mut others = members;
        others.reverse();
        let Some((member, boot)) = others.pop() else {
            let outcome = Err(UpdateError::NoOwners.into());
            sh.events.push(ReplicatorEvent::Updated { id: call, outcome });
            return;
        };
        let give_up = now + GIVE_UP;
        let mut underway = Underway {
            call,
            member,
            others,
            key: key.to_vec(),
            op,
            confirm,
            boot,
            sent: 0,
            moved: false,
            next: give_up,
            give_up,
        };
        let mut id = [0; 16];
        sh.rng.fill_bytes(&mut id);
        underway.send(sh, now, id);
        self.0.insert(id, underway);
    }

    pub(super) fn on_reply(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        from: PublicKey,
        id: OperationId,
        (code, boot): (u8, Option<u64>),
    ) {
        let known = self.0.get_mut(&id).filter(|underway| underway.member == from);
        let (Some(underway), false) = (known, code > ANOTHER) else {
            let counter = if code > ANOTHER { &mut sh.stats.malformed } else { &mut sh.stats.stray };
            *counter += 1;
            return;
        };
        match outcome_of(code) {
            Some(Err(OperationError::Refused)) if !underway.others.is_empty() => {
                let Some(next) = self.0.remove(&id) else { return };
                let members = next.others.into_iter().rev().collect();
                self.operate(sh, now, next.call, members, &next.key, (next.op, next.confirm));
            }
            Some(outcome) => self.end(sh, id, outcome),
            None if underway.sent > 1 => self.end(sh, id, Err(OperationError::Unknown)),
            // A message arrives at one process at most, so the one that was asked hasn't got it.
            None if underway.moved || boot.is_none() => self.end(sh, id, Err(OperationError::Busy)),
            None => {
                (underway.boot, underway.sent, underway.moved) = (boot, 0, true);
                underway.send(sh, now, id);
            }
        }
    }

    /// Sends the operations that are due again, and gives up the old ones.
    pub(super) fn retry(&mut self, sh: &mut Shared, now: Instant) {
        let mut lost = Vec::new();
        for (id, underway) in &mut self.0 {
            if underway.give_up <= now {
                lost.push(*id);
            } else if underway.next <= now {
                underway.send(sh, now, *id);
            }
        }
        for id in lost {
            self.end(sh, id, Err(OperationError::Unknown));
        }
    }

    /// Ends the operations at a member that is lost.
    pub(super) fn on_peer_lost(&mut self, sh: &mut Shared, peer: PublicKey) {
        let lost = self.0.iter().filter(|(_, underway)| underway.member == peer);
        let lost: Vec<OperationId> = lost.map(|(id, _)| *id).collect();
        for id in lost {
            self.end(sh, id, Err(OperationError::Unknown));
        }
    }

    fn end(&mut self, sh: &mut Shared, id: OperationId, outcome: Result<(), OperationError>) {
        let Some(Underway { call, .. }) = self.0.remove(&id) else { return };
        sh.events.push(ReplicatorEvent::Updated { id: call, outcome: outcome.map_err(UpdateFailure::from) });
    }
}
