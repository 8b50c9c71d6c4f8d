//! The messages between nodes about tasks.
//!
//! One job message is one reliable message: `type:1 ‖ header_len:2 (LE) ‖ header ‖ body`. The type is the number at a
//! variant of [`Message`], the header a CBOR array of the fields by their numbers. A field is never renumbered; a new
//! field goes to the end and is optional. Fields that a later version adds are ignored, an unknown type is refused and
//! counted. The body is the one field without a number: an unencoded payload, result or progress note, so a receiver
//! takes a slice of the received bytes and copies nothing.
//!
//! Every length is checked before use. A header longer than [`MAX_HEADER_LEN`], a kind, key or text over its limit,
//! and an outcome without the hash that it claims are errors.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use minicbor::{Decode, Encode};

use super::error::JobError;
use super::options::{
    HORIZON, MAX_BEATS, MAX_HEADER_LEN, MAX_KEY_LEN, MAX_KIND_LEN, MAX_LIFE, MAX_PAYLOAD_LEN,
    MAX_PROGRESS_LEN, MAX_WAITERS,
};
use super::pace::Lanes;
use super::policy::Needs;
use super::record::Record;
use super::task::{Priority, TaskId};
use super::warrant::Warrant;
use super::{told, wire};
use crate::key::PublicKey;
use crate::ring::Epoch;
use crate::rt;

/// Why bytes couldn't be decoded as a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Shorter than its length fields say.
    #[error("truncated")]
    Truncated,
    /// A type of a later version.
    #[error("unknown message type {0}")]
    UnknownType(u8),
    /// The header is not the CBOR of its message type.
    #[error("malformed header")]
    Malformed,
    /// A field is over its limit.
    #[error("{0} is over its limit")]
    TooLong(&'static str),
    /// An outcome that contradicts its class or its hash.
    #[error("the outcome is not what its header says")]
    Inconsistent,
}

/// Asks the receiver to run this task or to forward it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Submit {
    #[n(0)]
    pub(super) task: TaskId,
    /// The number of this submitter's attempt; every answer repeats it.
    #[n(1)]
    pub(super) attempt: u32,
    /// The receiver runs the task if it is among the first `reach + 1` executors in its own view.
    #[n(2)]
    pub(super) reach: u16,
    #[n(3)]
    pub(super) hops: u8,
    #[n(4)]
    pub(super) submitter: PublicKey,
    #[n(5)]
    pub(super) kind: String,
    #[cbor(n(6), with = "wire::bytes")]
    pub(super) key: Bytes,
    #[n(7)]
    pub(super) priority: Priority,
    #[cbor(n(8), with = "wire::millis")]
    pub(super) life: Duration,
    /// Another node may have had this task before: ask the owners first.
    #[n(9)]
    pub(super) ask: bool,
    /// Run the task even if another node says that it runs it.
    #[n(10)]
    pub(super) force: bool,
    /// The task that this one tries again.
    #[n(11)]
    pub(super) parent: Option<TaskId>,
    /// Any worker may run it: the executor says how many it runs at once.
    #[cbor(n(12), with = "wire::flag", has_nil)]
    pub(super) anywhere: bool,
    /// The word of whose task it is, if the sender submits it for another.
    #[n(13)]
    pub(super) warrant: Option<Box<Warrant>>,
    /// The payload is in an envelope, and so is the result ([`blob`](crate::compute::blob)).
    #[cbor(n(14), with = "wire::flag", has_nil)]
    pub(super) large: bool,
    #[cbor(skip)]
    pub(super) payload: Bytes,
}

/// The attempt ended without an outcome. Its CBOR form is in [`wire`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) task: TaskId,
    pub(super) attempt: u32,
    pub(super) reason: Reason,
}

/// Why an attempt ended without an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// The queue is full.
    Busy { retry_after: Duration },
    /// This node has no handler of the kind.
    UnknownKind,
    /// Views differ: no node within the hop limit was responsible in its own view.
    Misrouted,
    /// Another node runs the task.
    Elsewhere { runner: PublicKey },
    /// The task was forwarded to this node, which waits for the submitter's own word.
    Forwarded { runner: PublicKey },
    /// The id is already used for another payload.
    Conflict,
    /// The outcome was acknowledged before.
    Settled { hash: [u8; 32] },
    /// This attempt failed; another may succeed.
    Failed { error: JobError },
    /// The question was about a task that this node doesn't have.
    Unknown,
    /// This node is draining: it takes no task, and gives its tasks back.
    HandedBack,
    /// By this node's policy the submitter may not submit tasks of the kind; it would need any one of these.
    NotAllowed { needs: Needs },
}

/// One beat of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Beat {
    #[n(0)]
    pub(super) task: TaskId,
    #[n(1)]
    pub(super) attempt: u32,
    /// Set when the outcome exists and has been sent: its length in bytes.
    #[n(2)]
    pub(super) finished: Option<u64>,
}

/// A copy of an outcome for a replica.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct RecordCopy {
    #[n(0)]
    pub(super) task: TaskId,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) digest: [u8; 32],
    #[n(2)]
    pub(super) submitters: Vec<PublicKey>,
    #[n(3)]
    pub(super) kind: String,
    #[cbor(n(4), with = "wire::bytes")]
    pub(super) key: Bytes,
    /// The time from now for which the receiver must keep it.
    #[cbor(n(5), with = "wire::millis")]
    pub(super) keep: Duration,
    #[n(6)]
    pub(super) record: Record,
}

/// An owner's or an executor's knowledge about a task.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Known {
    #[n(0)]
    pub(super) task: TaskId,
    /// Whether the task is queued or running there; without meaning beside a record.
    #[n(1)]
    pub(super) running: bool,
    #[n(2)]
    pub(super) record: Option<Record>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Message {
    #[n(1)]
    Submit(#[n(0)] Submit),
    /// To the submitter: the executor has the attempt, under this token.
    #[n(2)]
    Accepted {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        attempt: u32,
        #[n(2)]
        boot: u64,
        #[n(3)]
        token: Epoch,
        /// For a task that any worker may run.
        #[n(4)]
        lanes: Option<Lanes>,
    },
    /// To the submitter, every second.
    #[n(3)]
    Beats {
        #[n(0)]
        boot: u64,
        #[n(1)]
        beats: Vec<Beat>,
        /// Asks the submitter for [`Message::Listening`].
        #[cbor(n(2), with = "wire::flag", has_nil)]
        answer: bool,
    },
    /// To the submitter: the handler's note.
    #[n(4)]
    Progress {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        attempt: u32,
        #[cbor(skip)]
        note: Bytes,
    },
    /// To the submitter.
    #[n(5)]
    Refused(#[n(0)] Refused),
    /// To the submitter: the outcome.
    #[n(6)]
    Outcome {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        attempt: u32,
        #[n(2)]
        record: Record,
    },
    /// To the replicas: a copy of the outcome.
    #[n(7)]
    Replica(#[n(0)] RecordCopy),
    /// From the submitter: it has the outcome.
    #[n(8)]
    Ack {
        #[n(0)]
        task: TaskId,
        #[cbor(n(1), with = "minicbor::bytes")]
        hash: [u8; 32],
    },
    /// From the submitter: send the outcome or the state again.
    #[n(9)]
    Fetch {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        attempt: u32,
    },
    /// From the submitter: it no longer waits for the task.
    #[n(10)]
    Cancel {
        #[n(0)]
        task: TaskId,
    },
    /// From the submitter: another node runs the task.
    #[n(11)]
    Withdraw {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        attempt: u32,
    },
    /// To an owner or an executor: asks whether it knows this task.
    #[n(12)]
    Ask {
        #[n(0)]
        task: TaskId,
        #[cbor(n(1), with = "minicbor::bytes")]
        digest: [u8; 32],
    },
    /// The answer to `Ask`.
    #[n(13)]
    Known(#[n(0)] Known),
    /// From the submitter, in answer to beats: it is alive.
    #[n(14)]
    Listening {},
    /// From the submitter: the task that was forwarded in its name is its own.
    #[n(15)]
    Claim {
        #[n(0)]
        task: TaskId,
        #[n(1)]
        attempt: u32,
        #[cbor(n(2), with = "minicbor::bytes")]
        digest: [u8; 32],
    },
}

/// The types whose variant holds a struct.
const WRAPPED: [u8; 4] = [1, 5, 7, 13];

/// The bytes that minicbor writes before a header. It writes an enum as `[type, [field…]]`; a struct within a variant
/// has an array of its own. On the wire there are the type and the innermost array only.
fn before_header(kind: u8) -> Vec<u8> {
    let (array_of_1, array_of_2) = (0x81, 0x82);
    let mut bytes = vec![array_of_2, kind];
    bytes.extend(WRAPPED.contains(&kind).then_some(array_of_1));
    bytes
}

/// The highest type that CBOR writes as one byte.
const MAX_TYPE: u8 = 23;

impl Message {
    /// The encoded message.
    pub(super) fn encode(&self) -> Bytes {
        let item = minicbor::to_vec(self).expect("a Vec takes every write");
        let kind = item[1];
        let header = &item[before_header(kind).len()..];
        let header_len = u16::try_from(header.len()).expect("fields are bounded before they get here");
        let body = self.body();
        let mut out = BytesMut::with_capacity(3 + header.len() + body.len());
        out.put_u8(kind);
        out.put_u16_le(header_len);
        out.put_slice(header);
        out.put_slice(body);
        rt::label(&out, || told::message(self));
        out.freeze()
    }

    /// Decodes a message; its body is a slice of `bytes`.
    pub(super) fn decode(bytes: &Bytes) -> Result<Message, MessageError> {
        let [kind, low, high, ..] = bytes[..] else { return Err(MessageError::Truncated) };
        let header_len = usize::from(u16::from_le_bytes([low, high]));
        limit(header_len, MAX_HEADER_LEN, "the header")?;
        let header = bytes.get(3..3 + header_len).ok_or(MessageError::Truncated)?;
        let body = bytes.slice(3 + header_len..);
        limit(body.len(), MAX_PAYLOAD_LEN, "the body")?;
        if kind > MAX_TYPE {
            return Err(MessageError::UnknownType(kind));
        }
        let mut item = before_header(kind);
        item.extend_from_slice(header);
        let mut message: Message = minicbor::decode(&item).map_err(|error| {
            if error.is_unknown_variant() { MessageError::UnknownType(kind) } else { MessageError::Malformed }
        })?;
        message.complete(body)?;
        Ok(message)
    }

    fn body(&self) -> &[u8] {
        match self {
            Message::Submit(submit) => &submit.payload,
            Message::Progress { note, .. } => note,
            Message::Replica(RecordCopy { record, .. })
            | Message::Outcome { record, .. }
            | Message::Known(Known { record: Some(record), .. }) => record.result(),
            _ => &[],
        }
    }

    /// Gives the decoded message its body, and refuses or cuts all that is over its limit.
    fn complete(&mut self, body: Bytes) -> Result<(), MessageError> {
        match self {
            Message::Submit(submit) => {
                limit(submit.kind.len(), MAX_KIND_LEN, "a kind")?;
                limit(submit.key.len(), MAX_KEY_LEN, "a key")?;
                submit.life = submit.life.min(MAX_LIFE);
                submit.payload = body;
            }
            Message::Beats { beats, .. } => limit(beats.len(), MAX_BEATS, "a batch of beats")?,
            Message::Progress { note, .. } => {
                limit(body.len(), MAX_PROGRESS_LEN, "a progress note")?;
                *note = body;
            }
            Message::Replica(copy) => {
                limit(copy.kind.len(), MAX_KIND_LEN, "a kind")?;
                limit(copy.key.len(), MAX_KEY_LEN, "a key")?;
                limit(copy.submitters.len(), MAX_WAITERS, "the list of submitters")?;
                copy.keep = copy.keep.min(MAX_LIFE + HORIZON);
                copy.record.complete(body)?;
            }
            Message::Outcome { record, .. } | Message::Known(Known { record: Some(record), .. }) => {
                record.complete(body)?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn limit(len: usize, max: usize, what: &'static str) -> Result<(), MessageError> {
    if len > max { Err(MessageError::TooLong(what)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
