//! Other nodes' operations: each is made once, however often it arrives, and its outcome is remembered.
//!
//! A member remembers an outcome for longer than the observer retries, and as long as its process lives: the next process
//! doesn't know what was done, so it makes nothing that was asked of an earlier one.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::confirm::Decline;
use super::error::UpdateError;
use super::message::Message;
use super::operations::OperationId;
use super::shared::Shared;
use crate::authority::account::Account;
use crate::key::PublicKey;
use crate::kit::shares::Shares;
use crate::rt::{Table, bound};

/// Limit on the operations that a member remembers. None can be forgotten early, since it could be made twice. So an
/// observer has to leave room to others: a pass that was admitted by hand may have half of these in 10 minutes, one of an
/// invitation a quarter. Over that the member answers busy.
pub(super) const MAX_REMEMBERED: usize = 65_536;
/// How long a member remembers an outcome: ten times the observer's retry time, for delayed messages.
pub(super) const REMEMBER: Duration = Duration::from_secs(600);

pub(super) const APPLIED: u8 = 0;
pub(super) const BUSY: u8 = 1;
pub(super) const REFUSED: u8 = 2;
/// The write was made, but too few nodes have it.
pub(super) const UNKNOWN: u8 = 3;
/// The operation was sent to another process of this node.
pub(super) const ANOTHER: u8 = 4;
/// The answer to an inquiry about an operation that this process doesn't have.
pub(super) const UNHEARD: u8 = 5;
/// The write wasn't made: this node's disk, or the owners', take none.
pub(super) const NO_DISK: u8 = 6;

/// An observer, and the id of its operation.
type Name = (PublicKey, OperationId);

/// What a member does with an operation that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is new: the member makes the write.
    New,
    /// It is under way. The reply follows when it is over.
    Repeated,
    /// It is over: the member replies with this outcome.
    Over(u8),
    /// There is no room for it: the member replies that it is busy.
    Full,
}

/// The operations of other nodes.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// The outcomes; none while an operation is under way here.
    remembered: BTreeMap<Name, Option<u8>>,
    /// When each is forgotten, and whose it is.
    forget: VecDeque<(Instant, Name, Account)>,
    /// Who has how many of them. A pass counts as a whole: each command has a key of its own.
    shares: Shares<Account>,
}

impl Served {
    /// Takes an operation, unless it is known.
    pub(super) fn arrive(&mut self, now: Instant, from: Account, id: OperationId) -> Arrival {
        let (name, account) = ((from.key(), id), from.of_pass());
        let limit = bound(Table::Operations, MAX_REMEMBERED) as u64;
        match self.remembered.get(&name) {
            Some(Some(outcome)) => Arrival::Over(*outcome),
            Some(None) => Arrival::Repeated,
            None if !self.shares.leaves_room(&account, limit) => Arrival::Full,
            None => {
                self.remembered.insert(name, None);
                self.shares.add(account, 1);
                self.forget.push_back((now + REMEMBER, name, account));
                Arrival::New
            }
        }
    }

    /// Remembers the outcome of an operation, and sends it.
    pub(super) fn settle(
        &mut self,
        sh: &mut Shared,
        from: PublicKey,
        id: OperationId,
        outcome: Result<(), UpdateError>,
    ) {
        let outcome = code(outcome);
        self.remembered.entry((from, id)).and_modify(|remembered| *remembered = Some(outcome));
        sh.send(from, &Message::OperationReply { id: id.into(), outcome, boot: None });
    }

    /// Ends the operations under way: what became of their writes isn't known. Nor is it of those that were made, for all
    /// that is remembered: some of their replies may have waited for a commit that failed.
    pub(super) fn end_all(&mut self, sh: &mut Shared) {
        for ((from, id), outcome) in &mut self.remembered {
            match outcome.replace(UNKNOWN) {
                None => {
                    let reply = Message::OperationReply { id: (*id).into(), outcome: UNKNOWN, boot: None };
                    sh.send(*from, &reply);
                }
                Some(APPLIED) => {}
                not_made => *outcome = not_made,
            }
        }
    }

    /// Forgets the outcomes whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((_, name, account)) = self.forget.pop_front_if(|(due, ..)| *due <= now) {
            self.remembered.remove(&name);
            self.shares.sub(account, 1);
        }
    }
}

/// The byte that tells an outcome.
fn code(outcome: Result<(), UpdateError>) -> u8 {
    match outcome {
        Ok(()) => APPLIED,
        Err(UpdateError::Full(_) | UpdateError::NoOwners | UpdateError::Unknown) => BUSY,
        Err(UpdateError::Unconfirmed(_)) => UNKNOWN,
        Err(UpdateError::Disk(_) | UpdateError::Declined(Decline::Disk)) => NO_DISK,
        Err(
            UpdateError::Value(_)
            | UpdateError::KeyTooLong(_)
            | UpdateError::Observer
            | UpdateError::Declined(_),
        ) => REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::crdt::CrdtError;
    use crate::replication::replicator::operations::{OperationError, outcome_of};

    #[test]
    fn an_outcome_is_told_as_it_was() {
        let table = [
            (Ok(()), Ok(())),
            (Err(UpdateError::Full("reads")), Err(OperationError::Busy)),
            (Err(UpdateError::NoOwners), Err(OperationError::Busy)),
            (Err(UpdateError::Unknown), Err(OperationError::Busy)),
            (Err(CrdtError::Overflow.into()), Err(OperationError::Refused)),
            (Err(UpdateError::Unconfirmed(Vec::new())), Err(OperationError::Unknown)),
            (Err(UpdateError::Declined(Decline::Limit)), Err(OperationError::Refused)),
            (Err(UpdateError::KeyTooLong(9)), Err(OperationError::Refused)),
            (Err(UpdateError::Observer), Err(OperationError::Refused)),
            (Err(UpdateError::Disk("full".into())), Err(OperationError::Disk)),
            (Err(UpdateError::Declined(Decline::Disk)), Err(OperationError::Disk)),
        ];
        for (outcome, told) in table {
            assert_eq!(outcome_of(code(outcome.clone())), Some(told), "{outcome:?}");
        }
        assert_eq!((outcome_of(ANOTHER), outcome_of(UNHEARD), outcome_of(NO_DISK + 1)), (None, None, None));
    }
}
