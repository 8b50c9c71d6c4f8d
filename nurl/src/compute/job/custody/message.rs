//! The messages about detached tasks: between a keeper and the node that asks it, and between keepers.
//!
//! A message is one reliable message: the CBOR of `[type, [field…]]`, and behind it the body, which is the one field
//! without a number. Fields are never renumbered; a new one goes to the end and is optional. An unknown type is refused
//! and counted.

use bytes::Bytes;
use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Write};
use minicbor::{Decode, Encode};

use super::super::error::JobError;
use super::super::options::{MAX_HEADER_LEN, MAX_KEY_LEN, MAX_KIND_LEN, MAX_PAYLOAD_LEN, MAX_PROGRESS_LEN};
use super::super::record::{Class, Record};
use super::super::wire::{self, Encoded};
use super::super::{MessageError, TaskId};
use super::entry::{Course, Mark, Note, Terms};
use super::{MAX_LISTED, MAX_OFFERED};
use crate::key::PublicKey;

/// Why a keeper refuses what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// In its own view it is no keeper of the task.
    #[error("it is no keeper of the task")]
    NotAKeeper,
    /// The id is another task's.
    #[error("the id is already used for another task")]
    Conflict,
    /// It has no room, or the submitter has its share there.
    #[error("it has no room for it")]
    Full,
    /// The warrant doesn't count.
    #[error("the submitter's pass does not count there")]
    BadWarrant,
    /// It has no task of this id.
    #[error("it knows no task of this id")]
    Unknown,
    /// Only the submitter may do this.
    #[error("only the task's submitter may do this")]
    NotYours,
}

impl Refusal {
    const ALL: [Refusal; 6] = [
        Refusal::NotAKeeper,
        Refusal::Conflict,
        Refusal::Full,
        Refusal::BadWarrant,
        Refusal::Unknown,
        Refusal::NotYours,
    ];
}

impl<C> Encode<C> for Refusal {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        e.u8(*self as u8)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Refusal {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Refusal, DecodeError> {
        let number = d.u8()?;
        Refusal::ALL.get(usize::from(number)).copied().ok_or_else(|| DecodeError::message("not a refusal"))
    }
}

/// How a task ended, without the bytes of a result.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ended {
    #[n(0)]
    class: u8,
    /// In milliseconds since 1970, by the custodian's clock.
    #[n(1)]
    pub at_ms: u64,
    /// The node that ended it: the worker that ran it, or the custodian.
    #[n(2)]
    pub by: PublicKey,
    /// The error, if it has no result.
    #[n(3)]
    pub error: Option<JobError>,
}

impl Ended {
    pub(super) fn of(record: &Record, at_ms: u64) -> Ended {
        let error = record.outcome.as_deref().and_then(|outcome| outcome.as_ref().err().cloned());
        Ended { class: record.class.to_wire(), at_ms, by: record.by, error }
    }

    /// The kind of the outcome; none: one of a later version.
    pub fn class(&self) -> Option<Class> {
        Class::from_wire(self.class)
    }
}

/// What a keeper tells of a task to whoever knows its id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TaskStatus {
    /// The task.
    #[n(0)]
    pub task: TaskId,
    /// Its kind.
    #[n(1)]
    pub kind: String,
    /// Its key.
    #[cbor(n(2), with = "wire::bytes")]
    pub key: Bytes,
    /// The holder of the pass that submitted it.
    #[n(3)]
    pub holder: PublicKey,
    /// When it was submitted, in milliseconds since 1970, by the submitter's clock.
    #[n(4)]
    pub made_ms: u64,
    /// When its life ends, likewise.
    #[n(5)]
    pub until_ms: u64,
    /// How long its outcome is kept after its end, in seconds.
    #[n(6)]
    pub keep_s: u32,
    /// The task that it tries again.
    #[n(7)]
    pub parent: Option<TaskId>,
    /// Whether its submitter has asked for its cancellation.
    #[n(8)]
    pub cancelling: bool,
    /// How it ended; none: it is open.
    #[n(9)]
    pub end: Option<Ended>,
    /// Its handler's latest note, if this keeper is its custodian.
    #[cbor(n(10), with = "minicbor::bytes")]
    pub progress: Option<Vec<u8>>,
    /// What happened to it, oldest first. Empty in a list.
    #[n(11)]
    pub history: Vec<Note>,
}

/// What an asker wants beside the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Nothing,
    /// The outcome, once there is one.
    Outcome,
    /// The terms and the payload, of a task of the asker's own.
    Terms,
}

impl<C> Encode<C> for Want {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        e.u8(*self as u8)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Want {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Want, DecodeError> {
        Ok(match d.u8()? {
            1 => Want::Outcome,
            2 => Want::Terms,
            _ => Want::Nothing,
        })
    }
}

/// What a keeper has of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Has {
    #[n(0)]
    pub(super) task: TaskId,
    /// None: nothing.
    #[n(1)]
    pub(super) mark: Option<Mark>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[expect(clippy::large_enum_variant, reason = "a message is made, encoded and dropped")]
pub(super) enum Message {
    /// To a keeper: take this task.
    #[n(1)]
    Deposit {
        #[n(0)]
        call: u64,
        #[n(1)]
        task: TaskId,
        #[n(2)]
        terms: Terms,
        #[cbor(skip)]
        payload: Bytes,
    },
    /// To the caller: the keeper has it, as far as `durable` and its process say.
    #[n(2)]
    Stored {
        #[n(0)]
        call: u64,
        #[n(1)]
        boot: u64,
        #[n(2)]
        durable: bool,
    },
    /// To the caller.
    #[n(3)]
    Refused {
        #[n(0)]
        call: u64,
        #[n(1)]
        why: Refusal,
    },
    /// Between keepers: what the sender has.
    #[n(4)]
    Offer {
        #[n(0)]
        items: Vec<Has>,
    },
    /// Between keepers, in answer to an offer or to a copy: what the sender has, as far as `durable` and its process say.
    #[n(5)]
    Held {
        #[n(0)]
        boot: u64,
        #[n(1)]
        durable: bool,
        #[n(2)]
        items: Vec<Has>,
    },
    /// Between keepers: a copy; without terms for one who has them.
    #[n(6)]
    Copy {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        terms: Option<Terms>,
        #[n(2)]
        course: Course,
        /// The result if the course has one, or else the payload beside the terms.
        #[cbor(skip)]
        body: Bytes,
    },
    /// To a keeper: tell the task's status, at once if it has another mark than this, or else when it changes.
    #[n(7)]
    Ask {
        #[n(0)]
        call: u64,
        #[n(1)]
        task: TaskId,
        #[n(2)]
        seen: Option<Mark>,
        #[n(3)]
        wait_ms: u32,
        #[n(4)]
        want: Want,
    },
    /// To the asker.
    #[n(8)]
    Answer {
        #[n(0)]
        call: u64,
        #[n(1)]
        mark: Mark,
        #[n(2)]
        status: TaskStatus,
        /// The outcome, if it was wanted and the keeper has it.
        #[n(3)]
        record: Option<Record>,
        /// The terms, if they were wanted.
        #[n(4)]
        terms: Option<Terms>,
        /// The result, or the payload.
        #[cbor(skip)]
        body: Bytes,
    },
    /// To a keeper, from the submitter: end the task.
    #[n(9)]
    Cancel {
        #[n(0)]
        call: u64,
        #[n(1)]
        task: TaskId,
    },
    /// To a worker: tell the asker's own tasks.
    #[n(10)]
    List {
        #[n(0)]
        call: u64,
        #[n(1)]
        after: Option<TaskId>,
    },
    /// To the asker.
    #[n(11)]
    Listed {
        #[n(0)]
        call: u64,
        #[n(1)]
        tasks: Vec<TaskStatus>,
        /// Whether there are more behind the last one.
        #[n(2)]
        more: bool,
    },
}

impl Message {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = minicbor::to_vec(self).expect("a Vec takes every write");
        out.extend_from_slice(self.body());
        out.into()
    }

    /// Decodes a message; its body is a slice of `bytes`.
    pub(super) fn decode(bytes: &Bytes) -> Result<Message, MessageError> {
        let mut decoder = Decoder::new(bytes);
        let mut message: Message = decoder.decode().map_err(|error| {
            if error.is_unknown_variant() { MessageError::UnknownType(0) } else { MessageError::Malformed }
        })?;
        let header_len = decoder.position();
        if header_len > message.header_limit() {
            return Err(MessageError::TooLong("the header"));
        }
        let body = bytes.slice(header_len..);
        if body.len() > MAX_PAYLOAD_LEN {
            return Err(MessageError::TooLong("the body"));
        }
        message.complete(body)?;
        Ok(message)
    }

    /// Lists are bounded by their number; all else by one limit.
    fn header_limit(&self) -> usize {
        match self {
            Message::Listed { .. } => MAX_LISTED * 2 * MAX_KEY_LEN,
            _ => MAX_HEADER_LEN,
        }
    }

    fn body(&self) -> &[u8] {
        match self {
            Message::Deposit { payload, .. } => payload,
            Message::Copy { body, .. } | Message::Answer { body, .. } => body,
            _ => &[],
        }
    }

    /// Gives the decoded message its body, and refuses all that is over its limit.
    fn complete(&mut self, body: Bytes) -> Result<(), MessageError> {
        let limit = |len: usize, max: usize, what| {
            if len > max { Err(MessageError::TooLong(what)) } else { Ok(()) }
        };
        let of_terms = |terms: &Terms| {
            limit(terms.kind.len(), MAX_KIND_LEN, "a kind")?;
            limit(terms.key.len(), MAX_KEY_LEN, "a key")
        };
        let of_status = |status: &TaskStatus| {
            limit(status.progress.as_ref().map_or(0, Vec::len), MAX_PROGRESS_LEN, "a progress note")?;
            limit(status.history.len(), super::MAX_HISTORY, "a history")
        };
        match self {
            Message::Deposit { terms, payload, .. } => {
                of_terms(terms)?;
                *payload = body;
            }
            Message::Copy { terms, course, body: whole, .. } => {
                terms.as_ref().map_or(Ok(()), of_terms)?;
                if let Some(end) = &mut course.end {
                    end.record.complete(body.clone())?;
                }
                *whole = body;
            }
            Message::Answer { status, record, terms, body: whole, .. } => {
                of_status(status)?;
                terms.as_ref().map_or(Ok(()), of_terms)?;
                if let Some(record) = record {
                    record.complete(body.clone())?;
                }
                *whole = body;
            }
            Message::Offer { items } | Message::Held { items, .. } => {
                limit(items.len(), MAX_OFFERED, "a list of marks")?;
            }
            Message::Listed { tasks, .. } => {
                limit(tasks.len(), MAX_LISTED, "a list of tasks")?;
                tasks.iter().try_for_each(of_status)?;
            }
            _ => {}
        }
        Ok(())
    }
}
