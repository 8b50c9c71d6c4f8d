//! One detached task in the log: what is to be done, and what has become of it.
//!
//! Copies of an entry merge as [`Record`]s do: an open one is below one that has ended, of two ends the higher record
//! counts, a cancellation that was asked for stays asked for, and the history is the latest notes of both. So merging is
//! commutative, associative and idempotent, and all keepers of a task come to the same state. The bytes of a result and of
//! a payload are no part of that state: a keeper that lacks room drops them.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Write};
use minicbor::{Decode, Encode};

use super::super::options::HORIZON;
use super::super::record::{Class, Record};
use super::super::warrant::{Detached, Named, Warrant, millis};
use super::super::wire::{self, Encoded};
use super::super::{TaskId, digest};
use super::{Content, MAX_HISTORY, MAX_NOTE_LEN};
use crate::key::PublicKey;

/// What an entry's state is known by: equal marks, equal states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Mark(#[cbor(n(0), with = "minicbor::bytes")] pub(super) [u8; 16]);

/// What is to be done, by whose word.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Terms {
    #[n(0)]
    pub(super) warrant: Warrant,
    #[n(1)]
    pub(super) kind: String,
    #[cbor(n(2), with = "wire::bytes")]
    pub(super) key: Bytes,
    #[cbor(n(3), with = "minicbor::bytes")]
    pub(super) digest: [u8; 32],
}

impl Terms {
    pub(super) fn named(&self, task: TaskId) -> Named {
        Named { task, digest: self.digest }
    }

    /// What is to be done, with all of its life.
    pub(super) fn content(self, payload: Bytes) -> Content {
        let made = Duration::from_millis(self.warrant.made_ms);
        let (options, keep) = (self.warrant.options(made), Duration::from_secs(self.warrant.keep_s.into()));
        let job = Detached { options, keep, parent: self.warrant.parent };
        Content { kind: self.kind, key: self.key, payload, job }
    }

    /// Whether these bytes are the payload.
    pub(super) fn are_of(&self, payload: &[u8]) -> bool {
        digest(&self.kind, &self.key, payload) == self.digest
    }
}

/// What happened to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A keeper took it into its log.
    Deposited,
    /// A custodian submitted it.
    Taken,
    /// A worker accepted it.
    Accepted,
    /// It left a worker without an outcome.
    Moved,
    /// It waits for a worker.
    Waits,
    /// Its submitter asked for its cancellation.
    CancelAsked,
    /// It ended.
    Ended,
}

impl Step {
    const ALL: [Step; 7] = [
        Step::Deposited,
        Step::Taken,
        Step::Accepted,
        Step::Moved,
        Step::Waits,
        Step::CancelAsked,
        Step::Ended,
    ];

    /// The step in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Deposited => "deposited",
            Step::Taken => "taken",
            Step::Accepted => "accepted",
            Step::Moved => "moved",
            Step::Waits => "waits",
            Step::CancelAsked => "cancel-asked",
            Step::Ended => "ended",
        }
    }
}

impl<C> Encode<C> for Step {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        e.u8(*self as u8)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Step {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Step, DecodeError> {
        let number = d.u8()?;
        Step::ALL.get(usize::from(number)).copied().ok_or_else(|| DecodeError::message("not a step"))
    }
}

/// One line of a task's history.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Note {
    /// When, in milliseconds since 1970, by the clock of the keeper that noted it.
    #[n(0)]
    pub at_ms: u64,
    /// What happened.
    #[n(1)]
    pub step: Step,
    /// The keeper that noted it.
    #[n(2)]
    pub by: PublicKey,
    /// The worker that it is about.
    #[n(3)]
    pub worker: Option<PublicKey>,
    /// Why, in words; at most 128 bytes.
    #[n(4)]
    pub text: String,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct End {
    #[n(0)]
    pub(super) record: Record,
    /// In milliseconds since 1970, by the custodian's clock.
    #[n(1)]
    pub(super) at_ms: u64,
}

impl End {
    /// The higher one counts; of two that are the same, the earlier.
    fn rank(&self) -> impl Ord + use<> {
        (self.record.rank(), std::cmp::Reverse(self.at_ms))
    }
}

/// What has become of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Course {
    /// When its cancellation was asked for, in milliseconds since 1970.
    pub(super) cancel_ms: Option<u64>,
    pub(super) end: Option<End>,
    pub(super) history: BTreeSet<Note>,
}

#[derive(Encode, Decode)]
struct CourseFields {
    #[n(0)]
    cancel_ms: Option<u64>,
    #[n(1)]
    end: Option<End>,
    #[n(2)]
    history: Vec<Note>,
}

impl<C> Encode<C> for Course {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Encoded<W> {
        let &Course { cancel_ms, ref end, ref history } = self;
        CourseFields { cancel_ms, end: end.clone(), history: history.iter().cloned().collect() }
            .encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Course {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Course, DecodeError> {
        let CourseFields { cancel_ms, end, history } = CourseFields::decode(d, ctx)?;
        let long = history.iter().any(|note| note.text.len() > MAX_NOTE_LEN);
        if long || history.len() > MAX_HISTORY {
            return Err(DecodeError::message("a history is over its limit"));
        }
        Ok(Course { cancel_ms, end, history: history.into_iter().collect() })
    }
}

impl Course {
    /// Adds a note; the earliest gives way.
    pub(super) fn note(&mut self, note: Note) {
        self.history.insert(note);
        while self.history.len() > MAX_HISTORY {
            self.history.pop_first();
        }
    }

    /// Joins another copy's course. Returns whether this one's state changed.
    pub(super) fn merge(&mut self, other: Course) -> bool {
        let before = (self.cancel_ms, self.history.clone());
        self.cancel_ms = match (self.cancel_ms, other.cancel_ms) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, theirs) => ours.or(theirs),
        };
        other.history.into_iter().for_each(|note| self.note(note));
        let mut changed = before != (self.cancel_ms, self.history.clone());
        if let Some(theirs) = other.end {
            match &mut self.end {
                Some(ours) if ours.rank() > theirs.rank() => {}
                Some(ours) if ours.rank() == theirs.rank() => {
                    // The same end: bytes that were dropped here come back.
                    ours.record.outcome = ours.record.outcome.take().or(theirs.record.outcome);
                }
                ours => {
                    *ours = Some(theirs);
                    changed = true;
                }
            }
        }
        changed
    }

    /// The bytes of the result, if it has one here.
    pub(super) fn result(&self) -> Option<&Bytes> {
        self.end.as_ref()?.record.outcome.as_deref()?.as_ref().ok()
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) terms: Terms,
    /// None: it was dropped, since the task has its result, or for want of room.
    pub(super) payload: Option<Bytes>,
    pub(super) course: Course,
}

impl Entry {
    /// Joins another copy. Returns whether this one's state changed.
    pub(super) fn merge(&mut self, other: Entry) -> bool {
        let longer = other.terms.warrant.rank() > self.terms.warrant.rank();
        if longer {
            self.terms.warrant = other.terms.warrant;
        }
        self.payload = self.payload.take().or(other.payload);
        let changed = self.course.merge(other.course);
        self.trim();
        longer || changed
    }

    /// Drops the payload of a task that has a result: it won't run again.
    pub(super) fn trim(&mut self) {
        if self.course.end.as_ref().is_some_and(|end| end.record.class == Class::Result) {
            self.payload = None;
        }
    }

    /// Drops the bytes of the result and of the payload. An error is short, and stays.
    pub(super) fn drop_bytes(&mut self) {
        if let Some(end) = &mut self.course.end {
            self.payload = None;
            if end.record.class == Class::Result {
                end.record.outcome = None;
            }
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.course.end.is_none()
    }

    /// The bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.payload.as_ref().map_or(0, Bytes::len) + self.course.result().map_or(0, Bytes::len)
    }

    pub(super) fn mark(&self) -> Mark {
        let mut hasher = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        let (until_ms, signature) = self.terms.warrant.rank();
        add(&self.terms.digest);
        add(&until_ms.to_le_bytes());
        add(signature);
        add(&minicbor::to_vec(self.course.cancel_ms).expect("a Vec takes every write"));
        if let Some(End { record, at_ms }) = &self.course.end {
            add(&[record.class.to_wire()]);
            add(&record.token.to_bytes());
            add(&record.hash);
            add(record.by.as_bytes());
            add(&at_ms.to_le_bytes());
        }
        for note in &self.course.history {
            add(&minicbor::to_vec(note).expect("a Vec takes every write"));
        }
        let hash = hasher.finalize();
        Mark(*hash.as_bytes().first_chunk().expect("a hash is longer"))
    }

    /// When its outcome's bytes are dropped, in milliseconds since 1970. A custodian's clock can't keep it for longer than
    /// the submitter asked for: an end counts as at the task's deadline at the latest.
    pub(super) fn kept_until_ms(&self) -> u64 {
        let Warrant { made_ms, until_ms, keep_s, .. } = self.terms.warrant;
        let ended = self.course.end.as_ref().map_or(until_ms, |end| end.at_ms.clamp(made_ms, until_ms));
        ended.saturating_add(u64::from(keep_s) * 1_000)
    }

    /// When it is forgotten, in milliseconds since 1970. The state outlasts the bytes for as long as a copy may be about
    /// that knows of no end: it would be run again.
    pub(super) fn known_until_ms(&self) -> u64 {
        let until_ms = self.terms.warrant.until_ms;
        self.kept_until_ms().max(until_ms.saturating_add(millis(HORIZON)))
    }
}
