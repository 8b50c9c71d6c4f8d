//! Observers' writes: an operation with an id, sent to one member and retried only there.
//!
//! Trying "increment" at two members would count twice, so an observer never turns to another member. If its member
//! is lost, the observer gets `Unknown` and its application decides. [`served`](super::served) is the
//! member's side.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand_core::Rng as _;

use super::error::{UpdateError, UpdateFailure};
use super::event::ReplicatorEvent;
use super::message::{Message, Op};
use super::served::{APPLIED, BUSY, REFUSED, UNKNOWN};
use super::shared::Shared;
use crate::key::PublicKey;
use crate::rt::{Point, buggify};

/// Limit on the operations under way at an observer: a command line has one.
pub(super) const MAX_OPERATIONS: usize = 1024;
/// The pause between two tries.
const RETRY: Duration = Duration::from_secs(2);
/// After this time an observer stops trying.
const GIVE_UP: Duration = Duration::from_secs(60);

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
    message: Message,
    next: Instant,
    give_up: Instant,
}

/// The operations of this node as an observer.
#[derive(Debug, Default)]
pub(super) struct Operations(BTreeMap<OperationId, Underway>);

impl Operations {
    /// Asks `member` to write in this node's place, and reports the outcome under the id `call`.
    pub(super) fn operate(
        &mut self,
        sh: &mut Shared,
        now: Instant,
        call: u64,
        member: PublicKey,
        key: &[u8],
        op: Op,
    ) -> Result<(), UpdateError> {
        if self.0.len() + sh.events.waiting() >= MAX_OPERATIONS {
            return Err(UpdateError::Full("operations"));
        }
        let mut id = [0; 16];
        sh.rng.fill_bytes(&mut id);
        let message = Message::Operation { id: id.into(), key: key.to_vec().into(), op };
        sh.send(member, &message);
        let first = if buggify(Point::OperationRepeated) { RETRY / 20 } else { RETRY };
        let (next, give_up) = (now + first, now + GIVE_UP);
        self.0.insert(id, Underway { call, member, message, next, give_up });
        Ok(())
    }

    pub(super) fn on_reply(&mut self, sh: &mut Shared, from: PublicKey, id: OperationId, code: u8) {
        let Some(outcome) = outcome_of(code) else {
            sh.stats.malformed += 1;
            return;
        };
        if self.0.get(&id).is_some_and(|underway| underway.member == from) {
            self.end(sh, id, outcome);
        } else {
            sh.stats.stray += 1;
        }
    }

    /// Sends the operations that are due again, and gives up the old ones.
    pub(super) fn retry(&mut self, sh: &mut Shared, now: Instant) {
        let mut lost = Vec::new();
        for (id, underway) in &mut self.0 {
            if underway.give_up <= now {
                lost.push(*id);
            } else if underway.next <= now {
                underway.next = now + RETRY;
                sh.send(underway.member, &underway.message);
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
