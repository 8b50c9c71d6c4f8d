//! The outcome of a task, and the merge of two copies of it.
//!
//! Without consensus a task can have two outcomes: the deadline at the submitter and the result of a worker that it
//! couldn't reach, or the results of two workers. The replicated record is a join-semilattice: result > dead letter >
//! failed > cancelled > deadline, ties by (token, outcome hash). So merging is commutative, associative and
//! idempotent, and after quiescence all replicas agree, whatever the order of the messages.

use bytes::Bytes;
use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Write};
use minicbor::{Decode, Encode};

use super::error::JobError;
use super::message::MessageError;
use super::wire::Encoded;
use crate::key::PublicKey;
use crate::ring::Epoch;

/// The kind of an outcome. The variants are declared in ascending order of the lattice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The task's life ended first.
    Deadline,
    /// The submitter cancelled the task.
    Cancelled,
    /// A permanent error.
    Failed,
    /// Given up after too many failed attempts.
    DeadLetter,
    /// A result.
    Result,
}

impl Class {
    /// The class of an outcome.
    pub fn of(outcome: &Result<Bytes, JobError>) -> Class {
        match outcome {
            Ok(_) => Class::Result,
            Err(JobError::DeadLetter { .. } | JobError::Lost { .. }) => Class::DeadLetter,
            Err(JobError::Cancelled) => Class::Cancelled,
            Err(JobError::Deadline) => Class::Deadline,
            Err(_) => Class::Failed,
        }
    }

    pub(super) fn to_wire(self) -> u8 {
        self as u8
    }

    pub(super) fn from_wire(number: u8) -> Option<Class> {
        [Class::Deadline, Class::Cancelled, Class::Failed, Class::DeadLetter, Class::Result]
            .into_iter()
            .find(|class| class.to_wire() == number)
    }

    /// Whether the submitter declares such an end, not an executor.
    pub(super) fn is_submitters(self) -> bool {
        matches!(self, Class::Deadline | Class::Cancelled | Class::DeadLetter)
    }
}

/// One outcome of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The kind of the outcome.
    pub class: Class,
    /// The token of the tenure.
    pub token: Epoch,
    /// BLAKE3 of the outcome, see [`outcome_hash`].
    pub hash: [u8; 32],
    /// The node that produced it.
    pub by: PublicKey,
    /// The outcome itself, until the submitter has acknowledged it.
    pub outcome: Option<Box<Result<Bytes, JobError>>>,
}

impl Record {
    /// The record of an outcome.
    pub fn new(outcome: Result<Bytes, JobError>, token: Epoch, by: PublicKey) -> Record {
        let outcome = outcome.map_err(JobError::bounded);
        let (class, hash) = (Class::of(&outcome), outcome_hash(&outcome));
        Record { class, token, hash, by, outcome: Some(Box::new(outcome)) }
    }

    /// Whether the submitter has acknowledged an outcome, so that only the hash is left.
    pub fn is_settled(&self) -> bool {
        self.outcome.is_none()
    }

    /// The result; empty if there is an error, or if the record is settled.
    pub(super) fn result(&self) -> &[u8] {
        match self.outcome.as_deref() {
            Some(Ok(bytes)) => bytes,
            _ => &[],
        }
    }

    /// The bytes of the outcome that this record holds.
    pub fn held_bytes(&self) -> usize {
        self.result().len()
    }

    /// Gives a decoded record its result, unless it is settled or has an error. An outcome of another class or with
    /// another hash is refused.
    pub(super) fn complete(&mut self, body: Bytes) -> Result<(), MessageError> {
        let Some(outcome) = self.outcome.as_deref_mut() else { return Ok(()) };
        if let Ok(result) = outcome {
            *result = body;
        }
        let honest = Class::of(outcome) == self.class && outcome_hash(outcome) == self.hash;
        if honest { Ok(()) } else { Err(MessageError::Inconsistent) }
    }

    pub(super) fn rank(&self) -> (Class, Epoch, [u8; 32], PublicKey) {
        (self.class, self.token, self.hash, self.by)
    }

    /// Joins `other` into this record; returns whether the record changed.
    ///
    /// The higher rank wins. If either record is settled, the joined one is settled too: the submitter has its
    /// outcome, so the bytes are no longer needed.
    pub fn merge(&mut self, other: Record) -> bool {
        let settled = self.is_settled() || other.is_settled();
        let mut changed = false;
        if other.rank() > self.rank() {
            *self = other;
            changed = true;
        }
        if settled && !self.is_settled() {
            self.outcome = None;
            changed = true;
        }
        changed
    }
}

/// A record in CBOR. Its result is the body of the message.
#[derive(Encode, Decode)]
struct RecordFields {
    #[n(0)]
    class: u8,
    #[n(1)]
    token: Epoch,
    #[cbor(n(2), with = "minicbor::bytes")]
    hash: [u8; 32],
    #[n(3)]
    by: PublicKey,
    #[n(4)]
    settled: bool,
    #[n(5)]
    error: Option<JobError>,
}

impl<C> Encode<C> for Record {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Encoded<W> {
        let &Record { class, token, hash, by, ref outcome } = self;
        let error = outcome.as_deref().and_then(|outcome| outcome.as_ref().err().cloned());
        let settled = outcome.is_none();
        RecordFields { class: class.to_wire(), token, hash, by, settled, error }.encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Record {
    /// A record with a result gets it by [`Record::complete`].
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Record, DecodeError> {
        let RecordFields { class, token, hash, by, settled, error } = RecordFields::decode(d, ctx)?;
        let class = Class::from_wire(class).ok_or_else(|| DecodeError::message("an unknown class"))?;
        let outcome = error.map_or_else(|| Ok(Bytes::new()), Err);
        Ok(Record { class, token, hash, by, outcome: (!settled).then(|| Box::new(outcome)) })
    }
}

/// BLAKE3 over a tag byte (0 result, 1 error) and the result's bytes or the error's wire form.
pub fn outcome_hash(outcome: &Result<Bytes, JobError>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    match outcome {
        Ok(bytes) => hasher.update(&[0]).update(bytes),
        Err(error) => hasher.update(&[1]).update(&minicbor::to_vec(error).expect("a Vec takes every write")),
    };
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = Record> {
        let outcome = prop_oneof![
            (0u8..3).prop_map(|n| Ok(Bytes::from(vec![n]))),
            Just(Err(JobError::Deadline)),
            Just(Err(JobError::Cancelled)),
            Just(Err(JobError::permanent("no"))),
            Just(Err(JobError::DeadLetter { failures: 2, last: "x".into() })),
            Just(Err(JobError::Lost { workers: 3, names: "a, b, c".into() })),
        ];
        (outcome, 0u64..3, 0u8..2, any::<bool>()).prop_map(|(outcome, counter, owner, settled)| {
            let owner = PublicKey::from_bytes([owner; 32]);
            let mut record = Record::new(outcome, Epoch { counter, owner }, owner);
            if settled {
                record.outcome = None;
            }
            record
        })
    }

    fn joined(a: &Record, b: &Record) -> Record {
        let mut a = a.clone();
        a.merge(b.clone());
        a
    }

    proptest! {
        #[test]
        fn merge_is_commutative(a in record(), b in record()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        }

        #[test]
        fn merge_is_associative(a in record(), b in record(), c in record()) {
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        }

        #[test]
        fn merge_is_idempotent_and_says_when_nothing_changed(a in record(), b in record()) {
            let once = joined(&a, &b);
            let mut twice = once.clone();
            prop_assert!(!twice.merge(b.clone()));
            prop_assert!(!twice.merge(a.clone()));
            prop_assert_eq!(once, twice);
        }
    }

    #[test]
    fn a_result_outranks_every_other_end_whatever_its_token() {
        let owner = PublicKey::from_bytes([1; 32]);
        let token = |counter| Epoch { counter, owner };
        let result = Record::new(Ok(Bytes::from_static(b"r")), token(1), owner);
        let ends = [
            JobError::DeadLetter { failures: 1, last: String::new() },
            JobError::permanent("p"),
            JobError::Cancelled,
            JobError::Deadline,
        ];
        let mut previous: Option<Record> = None;
        for end in ends {
            let record = Record::new(Err(end), token(9), owner);
            assert_eq!(joined(&record, &result), result);
            if let Some(better) = previous {
                assert_eq!(joined(&record, &better), better);
            }
            previous = Some(record);
        }
    }
}
