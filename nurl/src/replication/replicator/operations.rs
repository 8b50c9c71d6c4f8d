//! Observers' writes: an operation with an id, sent to one member and retried only there.
//!
//! Trying "increment" at two members would count twice, so an observer never turns to another member. If its member
//! is lost, the observer gets `Unknown` and its application decides. The member remembers the outcome of an operation
//! for longer than the observer retries.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rand_core::Rng as _;

use super::calls::Caller;
use super::message::Message;
use super::{MAX_KEY_BYTES, Op, Replicator, ReplicatorEvent, UpdateError};
use crate::key::PublicKey;
use crate::replication::crdt::{CrdtError, Kind};

/// Limit on the operations under way at an observer: a command line has one.
pub(super) const MAX_OPERATIONS: usize = 1024;
/// Limit on the operations that a member remembers. With more than that in 10 minutes it answers busy.
pub(super) const MAX_REMEMBERED: usize = 16_384;
/// The pause between two tries.
const RETRY: Duration = Duration::from_secs(2);
/// After this time an observer stops trying.
const GIVE_UP: Duration = Duration::from_secs(60);
/// How long a member remembers an outcome: ten times the observer's retry time, for delayed messages.
pub(super) const REMEMBER: Duration = Duration::from_secs(600);

const APPLIED: u8 = 0;
const BUSY: u8 = 1;
const REFUSED: u8 = 2;
/// The key's type is added to it: 3 to 5.
const OTHER_KIND: u8 = 2;
/// The write was made, but no owner has acknowledged it.
const UNKNOWN: u8 = 6;

/// 128 random bits.
pub type OperationId = [u8; 16];

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationOutcome {
    /// Done, once.
    Applied,
    /// Not done: the member has no room now.
    Busy,
    /// Not done: the value or the key refused it.
    Refused,
    /// Not done: the key holds this type.
    OtherKind(Kind),
    /// Done once or not at all: the member is lost or silent, or no owner has acknowledged its write.
    Unknown,
}

#[derive(Debug)]
struct Underway {
    member: PublicKey,
    message: Message,
    next: Instant,
    give_up: Instant,
}

/// The operations of this node as an observer, and as a member.
#[derive(Debug, Default)]
pub(super) struct Operations {
    underway: BTreeMap<OperationId, Underway>,
    /// The outcomes of other nodes' operations; none while an operation is under way here.
    remembered: BTreeMap<(PublicKey, OperationId), Option<u8>>,
    forget: VecDeque<(Instant, (PublicKey, OperationId))>,
}

impl Replicator {
    /// Asks `member` to write in this node's place. [`ReplicatorEvent::OperationDone`] reports the outcome.
    ///
    /// # Errors
    /// [`UpdateError::Full`] or [`UpdateError::KeyTooLong`]; nothing was sent then.
    pub fn operate(
        &mut self,
        now: Instant,
        member: PublicKey,
        key: &[u8],
        op: Op,
    ) -> Result<OperationId, UpdateError> {
        if key.len() > MAX_KEY_BYTES {
            return Err(UpdateError::KeyTooLong(key.len()));
        }
        if self.operations.underway.len() + self.events.len() >= MAX_OPERATIONS {
            return Err(UpdateError::Full("operations"));
        }
        let mut id = [0; 16];
        self.rng.fill_bytes(&mut id);
        let message = Message::Operation { id: id.into(), key: key.to_vec().into(), op };
        self.send(member, &message);
        let underway = Underway { member, message, next: now + RETRY, give_up: now + GIVE_UP };
        self.operations.underway.insert(id, underway);
        Ok(id)
    }

    pub(super) fn on_operation(
        &mut self,
        now: Instant,
        wall: Duration,
        from: PublicKey,
        id: OperationId,
        key: Vec<u8>,
        op: Op,
    ) {
        let outcome = match self.operations.remembered.get(&(from, id)) {
            Some(Some(outcome)) => *outcome,
            // The reply follows when the operation is over.
            Some(None) => return,
            None if self.operations.remembered.len() >= MAX_REMEMBERED => BUSY,
            None => {
                self.operations.remembered.insert((from, id), None);
                self.operations.forget.push_back((now + REMEMBER, (from, id)));
                if let Err(error) = self.call(now, wall, &key, op, Caller::Observer(from, id)) {
                    self.settle_operation(from, id, Err(error));
                }
                return;
            }
        };
        self.send(from, &Message::OperationReply { id: id.into(), outcome });
    }

    /// Remembers the outcome of another node's operation, and sends it.
    pub(super) fn settle_operation(
        &mut self,
        from: PublicKey,
        id: OperationId,
        outcome: Result<(), UpdateError>,
    ) {
        let outcome = match outcome {
            Ok(()) => APPLIED,
            Err(UpdateError::Full(_) | UpdateError::NoOwners | UpdateError::Unknown) => BUSY,
            Err(UpdateError::Value(CrdtError::WrongKind { held, .. })) => OTHER_KIND + held as u8,
            Err(UpdateError::Unacknowledged) => UNKNOWN,
            Err(UpdateError::Value(_) | UpdateError::KeyTooLong(_) | UpdateError::Observer) => REFUSED,
        };
        self.operations.remembered.entry((from, id)).and_modify(|remembered| *remembered = Some(outcome));
        self.send(from, &Message::OperationReply { id: id.into(), outcome });
    }

    pub(super) fn on_operation_reply(&mut self, from: PublicKey, id: OperationId, outcome: u8) {
        let kind = outcome.checked_sub(OTHER_KIND).and_then(Kind::from_byte);
        let outcome = match (outcome, kind) {
            (APPLIED, _) => OperationOutcome::Applied,
            (BUSY, _) => OperationOutcome::Busy,
            (REFUSED, _) => OperationOutcome::Refused,
            (UNKNOWN, _) => OperationOutcome::Unknown,
            (_, Some(held)) => OperationOutcome::OtherKind(held),
            (_, None) => {
                self.stats.malformed += 1;
                return;
            }
        };
        match self.operations.underway.get(&id) {
            Some(underway) if underway.member == from => {
                self.operations.underway.remove(&id);
                self.events.push_back(ReplicatorEvent::OperationDone { id, outcome });
            }
            _ => self.stats.stray += 1,
        }
    }

    pub(super) fn retry_operations(&mut self, now: Instant) {
        while self.operations.forget.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, key)) = self.operations.forget.pop_front() {
                self.operations.remembered.remove(&key);
            }
        }
        let mut lost = Vec::new();
        let mut again = Vec::new();
        for (id, underway) in &mut self.operations.underway {
            if underway.give_up <= now {
                lost.push(*id);
            } else if underway.next <= now {
                underway.next = now + RETRY;
                again.push((underway.member, underway.message.clone()));
            }
        }
        for (member, message) in again {
            self.send(member, &message);
        }
        self.end_as_unknown(lost);
    }

    pub(super) fn fail_operations(&mut self, peer: PublicKey) {
        let underway = self.operations.underway.iter();
        let lost = underway.filter(|(_, underway)| underway.member == peer).map(|(id, _)| *id).collect();
        self.end_as_unknown(lost);
    }

    fn end_as_unknown(&mut self, lost: Vec<OperationId>) {
        for id in lost {
            self.operations.underway.remove(&id);
            self.events.push_back(ReplicatorEvent::OperationDone { id, outcome: OperationOutcome::Unknown });
        }
    }
}
