//! Forwarded tasks, until their submitters claim them.
//!
//! A forwarder speaks in a submitter's name. So the receiver keeps the task, runs nothing, and tells the submitter
//! nothing, until that claims the task over its own session: the forwarder has told it where the task went. A large
//! payload arrives after the claim, so a claim waits, too. Whatever finds no counterpart within [`CLAIM_WITHIN`] is
//! dropped.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::message::Submit;
use super::standing::Submitter;
use super::task::TaskId;
use crate::authority::account::Account;
use crate::key::PublicKey;
use crate::kit::shares::Shares;
use crate::rt::{Table, bound};

/// How long a task waits for its claim, and a claim for its task: some round trips, and the time that a large payload
/// takes.
pub(super) const CLAIM_WITHIN: Duration = Duration::from_secs(5);
/// Limit on the tasks that wait, and on the claims; over it the peer that has most of them loses its oldest.
pub(super) const MAX_FORWARDED: usize = 1024;
/// Limit on the payload bytes of the tasks that wait.
pub(super) const MAX_FORWARDED_BYTES: usize = 64 * 1024 * 1024;

/// A submitter's word that a task is its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) attempt: u32,
    /// The [`digest`](super::spec::digest) of the task: a forwarder can't replace it by another one.
    pub(super) digest: [u8; 32],
}

/// A task, and the node in whose name it came.
type Name = (TaskId, PublicKey);

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    /// Who brought it, and so who pays for its place.
    from: Account,
    bytes: usize,
    due: Instant,
}

/// Items by task and submitter, with a share for each account that brought some.
#[derive(Debug)]
struct Room<T> {
    items: BTreeMap<Name, Waiting<T>>,
    counts: Shares<Account>,
    bytes: Shares<Account>,
}

impl<T> Default for Room<T> {
    fn default() -> Room<T> {
        Room { items: BTreeMap::new(), counts: Shares::default(), bytes: Shares::default() }
    }
}

impl<T> Room<T> {
    /// Adds an item; returns how many were dropped for it, or in place of it.
    fn insert(&mut self, now: Instant, name: Name, from: Account, item: T, bytes: usize) -> u64 {
        if self.items.contains_key(&name) {
            // The first one counts, so that a later one can't prolong its time or displace it.
            return 1;
        }
        let mut dropped = 0;
        let most = bound(Table::Forwarded, MAX_FORWARDED);
        while self.items.len() >= most || self.bytes.total() as usize + bytes > MAX_FORWARDED_BYTES {
            let shares = if self.items.len() >= most { &self.counts } else { &self.bytes };
            let more = if self.items.len() >= most { 1 } else { bytes as u64 };
            dropped += 1;
            let Some(payer) = shares.payer(&from, more) else { return dropped };
            let theirs = self.items.iter().filter(|(_, waiting)| waiting.from == payer);
            let Some(oldest) = theirs.min_by_key(|(_, waiting)| waiting.due).map(|(name, _)| *name) else {
                return dropped;
            };
            self.remove(&oldest);
        }
        self.counts.add(from, 1);
        self.bytes.add(from, bytes as u64);
        self.items.insert(name, Waiting { item, from, bytes, due: now + CLAIM_WITHIN });
        dropped
    }

    fn remove(&mut self, name: &Name) -> Option<Waiting<T>> {
        let waiting = self.items.remove(name)?;
        self.counts.sub(waiting.from, 1);
        self.bytes.sub(waiting.from, waiting.bytes as u64);
        Some(waiting)
    }

    fn expire(&mut self, now: Instant) -> u64 {
        let due: Vec<Name> =
            self.items.iter().filter(|(_, waiting)| waiting.due <= now).map(|(name, _)| *name).collect();
        due.iter().filter_map(|name| self.remove(name)).count() as u64
    }

    fn next_due(&self) -> Option<Instant> {
        self.items.values().map(|waiting| waiting.due).min()
    }
}

/// The tasks that wait for their claims, and the claims that wait for their tasks.
#[derive(Debug, Default)]
pub(super) struct Forwarded {
    tasks: Room<(Submit, [u8; 32])>,
    /// Each with the submitter whose word it is.
    claims: Room<(Claim, Submitter)>,
}

/// What follows from a forwarded task or from a claim.
#[derive(Debug)]
pub(super) enum Met {
    /// Task and claim are together: the task, its digest, its submitter by the claim's session, and the peer that forwarded
    /// it.
    Both(Box<Submit>, [u8; 32], Submitter, PublicKey),
    /// It waits; the number of others that were dropped for it, or of itself.
    Waits(u64),
    /// The forwarder brought another task than the submitter claims.
    Differs,
}

impl Forwarded {
    /// Takes a task that `from` forwarded in its submitter's name.
    pub(super) fn arrived(&mut self, now: Instant, from: Account, submit: Submit, digest: [u8; 32]) -> Met {
        let name = (submit.task, submit.submitter);
        if self.claims.items.get(&name).is_some_and(|claim| claim.item.0.digest != digest) {
            return Met::Differs;
        }
        match self.claims.remove(&name) {
            Some(Waiting { item: (claim, submitter), .. }) => {
                let submit = Box::new(Submit { attempt: claim.attempt, ..submit });
                Met::Both(submit, digest, submitter, from.key())
            }
            None => {
                let bytes = submit.payload.len();
                Met::Waits(self.tasks.insert(now, name, from, (submit, digest), bytes))
            }
        }
    }

    /// Takes a submitter's claim of a task.
    pub(super) fn claimed(&mut self, now: Instant, from: Submitter, task: TaskId, claim: Claim) -> Met {
        let (name, account) = ((task, from.key()), from.account());
        let Some(waiting) = self.tasks.remove(&name) else {
            return Met::Waits(self.claims.insert(now, name, account, (claim, from), 0));
        };
        let (submit, digest) = waiting.item;
        if digest == claim.digest {
            let submit = Box::new(Submit { attempt: claim.attempt, ..submit });
            return Met::Both(submit, digest, from, waiting.from.key());
        }
        self.claims.insert(now, name, account, (claim, from), 0);
        Met::Differs
    }

    /// Drops what nobody claimed; returns the number.
    pub(super) fn expire(&mut self, now: Instant) -> u64 {
        self.claims.expire(now);
        self.tasks.expire(now)
    }

    /// When the next one is dropped.
    pub(super) fn next_due(&self) -> Option<Instant> {
        [self.tasks.next_due(), self.claims.next_due()].into_iter().flatten().min()
    }
}
