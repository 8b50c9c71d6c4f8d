//! The messages between nodes about tasks.
//!
//! One job message is one reliable message: `type:1 ‖ header_len:2 (LE) ‖ header ‖ body`. The header is a CBOR array
//! of indexed fields: fields that a later version adds are ignored, an unknown type is refused and counted. The body
//! is an unencoded payload, result or progress note, so a receiver takes a slice of the received bytes and copies
//! nothing.
//!
//! Every length is checked before use. A header longer than [`MAX_HEADER_LEN`], a kind, key or text over its limit,
//! and an outcome without the hash that it claims are errors.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use minicbor::{Decode, Encode};

use super::error::JobError;
use super::options::{
    HORIZON, MAX_BEATS, MAX_ERROR_TEXT_LEN, MAX_HEADER_LEN, MAX_KEY_LEN, MAX_KIND_LEN, MAX_LIFE,
    MAX_PAYLOAD_LEN, MAX_PROGRESS_LEN, MAX_WAITERS,
};
use super::record::{Class, Record, outcome_hash};
use super::task::{Priority, TaskId};
use super::wire::{self, Key};
use crate::key::PublicKey;
use crate::ring::Epoch;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Submit {
    pub(super) task: TaskId,
    /// The number of this submitter's attempt; every answer repeats it.
    pub(super) attempt: u32,
    /// The receiver runs the task if it is among the first `reach + 1` executors in its own view.
    pub(super) reach: u16,
    pub(super) hops: u8,
    pub(super) submitter: PublicKey,
    pub(super) kind: String,
    pub(super) key: Bytes,
    pub(super) priority: Priority,
    pub(super) life: Duration,
    /// Another node may have had this task before: ask the owners first.
    pub(super) ask: bool,
    /// Run the task even if another node says that it runs it.
    pub(super) force: bool,
    /// The dead letter that this task retries.
    pub(super) parent: Option<TaskId>,
    pub(super) payload: Bytes,
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
}

/// An owner's knowledge about a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    Nothing,
    Running,
    Recorded(Record),
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replica {
    pub(super) task: TaskId,
    pub(super) digest: [u8; 32],
    pub(super) submitters: Vec<PublicKey>,
    pub(super) kind: String,
    pub(super) key: Bytes,
    /// The time from now for which the receiver must keep it.
    pub(super) keep: Duration,
    pub(super) record: Record,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    Submit(Submit),
    /// To the submitter: the executor has the attempt, under this token.
    Accepted {
        task: TaskId,
        attempt: u32,
        boot: u64,
        token: Epoch,
    },
    /// To the submitter, every second.
    Beats {
        boot: u64,
        beats: Vec<Beat>,
        /// Asks the submitter for [`Message::Listening`].
        answer: bool,
    },
    /// To the submitter: the handler's note.
    Progress {
        task: TaskId,
        attempt: u32,
        note: Bytes,
    },
    /// To the submitter: the attempt ended without an outcome.
    Refused {
        task: TaskId,
        attempt: u32,
        reason: Reason,
    },
    /// To the submitter: the outcome.
    Outcome {
        task: TaskId,
        attempt: u32,
        record: Record,
    },
    /// To the replicas: a copy of the outcome.
    Replica(Replica),
    /// From the submitter: it has the outcome.
    Ack {
        task: TaskId,
        hash: [u8; 32],
    },
    /// From the submitter: send the outcome or the state again.
    Fetch {
        task: TaskId,
        attempt: u32,
    },
    /// From the submitter: it no longer waits for the task.
    Cancel {
        task: TaskId,
    },
    /// From the submitter: another node runs the task.
    Withdraw {
        task: TaskId,
        attempt: u32,
    },
    /// To an owner or an executor: asks whether it knows this task.
    Ask {
        task: TaskId,
        digest: [u8; 32],
    },
    /// The answer to `Ask`.
    Known {
        task: TaskId,
        known: Known,
    },
    /// From the submitter, in answer to beats: it is alive.
    Listening,
}

const SUBMIT: u8 = 1;
const ACCEPTED: u8 = 2;
const BEATS: u8 = 3;
const PROGRESS: u8 = 4;
const REFUSED: u8 = 5;
const OUTCOME: u8 = 6;
const REPLICA: u8 = 7;
const ACK: u8 = 8;
const FETCH: u8 = 9;
const CANCEL: u8 = 10;
const WITHDRAW: u8 = 11;
const ASK: u8 = 12;
const KNOWN: u8 = 13;
const LISTENING: u8 = 14;

impl Message {
    /// The encoded message.
    pub(super) fn encode(&self) -> Bytes {
        let empty = Bytes::new();
        match self {
            Message::Submit(s) => {
                let header = wire::Submit {
                    task: s.task,
                    attempt: s.attempt,
                    reach: s.reach,
                    hops: s.hops,
                    submitter: Key(s.submitter),
                    kind: s.kind.clone(),
                    key: s.key.to_vec(),
                    priority: s.priority.to_wire(),
                    life_ms: millis(s.life),
                    ask: s.ask,
                    force: s.force,
                    parent: s.parent,
                };
                frame(SUBMIT, &header, &s.payload)
            }
            &Message::Accepted { task, attempt, boot, token } => {
                frame(ACCEPTED, &wire::Accepted { task, attempt, boot, token }, &empty)
            }
            Message::Beats { boot, beats, answer } => {
                let answer = answer.then_some(true);
                frame(BEATS, &wire::Beats { boot: *boot, beats: beats.clone(), answer }, &empty)
            }
            &Message::Progress { task, attempt, ref note } => {
                frame(PROGRESS, &wire::Attempt { task, attempt }, note)
            }
            Message::Refused { task, attempt, reason } => {
                frame(REFUSED, &refused(*task, *attempt, reason), &empty)
            }
            Message::Outcome { task, attempt, record } => {
                let (header, body) = record_out(record);
                frame(OUTCOME, &wire::Outcome { task: *task, attempt: *attempt, record: header }, &body)
            }
            Message::Replica(r) => {
                let (record, body) = record_out(&r.record);
                let header = wire::Replica {
                    task: r.task,
                    digest: r.digest,
                    submitters: r.submitters.iter().copied().map(Key).collect(),
                    kind: r.kind.clone(),
                    key: r.key.to_vec(),
                    keep_ms: millis(r.keep),
                    record,
                };
                frame(REPLICA, &header, &body)
            }
            &Message::Ack { task, hash } => frame(ACK, &wire::Hashed { task, hash }, &empty),
            &Message::Fetch { task, attempt } => frame(FETCH, &wire::Attempt { task, attempt }, &empty),
            &Message::Cancel { task } => frame(CANCEL, &wire::Named { task }, &empty),
            &Message::Withdraw { task, attempt } => frame(WITHDRAW, &wire::Attempt { task, attempt }, &empty),
            &Message::Ask { task, digest } => frame(ASK, &wire::Hashed { task, hash: digest }, &empty),
            Message::Known { task, known } => {
                let (record, body) = match known {
                    Known::Recorded(record) => {
                        let (header, body) = record_out(record);
                        (Some(header), body)
                    }
                    Known::Nothing | Known::Running => (None, empty),
                };
                let running = matches!(known, Known::Running);
                frame(KNOWN, &wire::Known { task: *task, running, record }, &body)
            }
            Message::Listening => frame(LISTENING, &wire::Empty {}, &empty),
        }
    }

    /// Decodes a message; its body is a slice of `bytes`.
    pub(super) fn decode(bytes: &Bytes) -> Result<Message, MessageError> {
        let [kind, low, high, ..] = bytes[..] else { return Err(MessageError::Truncated) };
        let header_len = usize::from(u16::from_le_bytes([low, high]));
        if header_len > MAX_HEADER_LEN {
            return Err(MessageError::TooLong("the header"));
        }
        let header = bytes.get(3..3 + header_len).ok_or(MessageError::Truncated)?;
        let body = bytes.slice(3 + header_len..);
        if body.len() > MAX_PAYLOAD_LEN {
            return Err(MessageError::TooLong("the body"));
        }
        match kind {
            SUBMIT => decode_submit(cbor(header)?, body),
            ACCEPTED => {
                let wire::Accepted { task, attempt, boot, token } = cbor(header)?;
                Ok(Message::Accepted { task, attempt, boot, token })
            }
            BEATS => {
                let wire::Beats { boot, beats, answer } = cbor(header)?;
                limit(beats.len(), MAX_BEATS, "a batch of beats")?;
                Ok(Message::Beats { boot, beats, answer: answer.unwrap_or(false) })
            }
            PROGRESS => {
                let wire::Attempt { task, attempt } = cbor(header)?;
                limit(body.len(), MAX_PROGRESS_LEN, "a progress note")?;
                Ok(Message::Progress { task, attempt, note: body })
            }
            REFUSED => decode_refused(cbor(header)?),
            OUTCOME => {
                let wire::Outcome { task, attempt, record } = cbor(header)?;
                Ok(Message::Outcome { task, attempt, record: record_in(record, body)? })
            }
            REPLICA => decode_replica(cbor(header)?, body),
            ACK => cbor(header).map(|wire::Hashed { task, hash }| Message::Ack { task, hash }),
            FETCH => cbor(header).map(|wire::Attempt { task, attempt }| Message::Fetch { task, attempt }),
            CANCEL => cbor(header).map(|wire::Named { task }| Message::Cancel { task }),
            WITHDRAW => {
                cbor(header).map(|wire::Attempt { task, attempt }| Message::Withdraw { task, attempt })
            }
            ASK => cbor(header).map(|wire::Hashed { task, hash }| Message::Ask { task, digest: hash }),
            KNOWN => {
                let wire::Known { task, running, record } = cbor(header)?;
                let known = match record {
                    Some(record) => Known::Recorded(record_in(record, body)?),
                    None if running => Known::Running,
                    None => Known::Nothing,
                };
                Ok(Message::Known { task, known })
            }
            LISTENING => cbor(header).map(|wire::Empty {}| Message::Listening),
            other => Err(MessageError::UnknownType(other)),
        }
    }
}

fn cbor<'b, T: Decode<'b, ()>>(header: &'b [u8]) -> Result<T, MessageError> {
    minicbor::decode(header).map_err(|_| MessageError::Malformed)
}

fn frame(kind: u8, header: &impl Encode<()>, body: &[u8]) -> Bytes {
    let header = minicbor::to_vec(header).expect("a Vec takes every write");
    let header_len = u16::try_from(header.len()).expect("fields are bounded before they get here");
    let mut out = BytesMut::with_capacity(3 + header.len() + body.len());
    out.put_u8(kind);
    out.put_u16_le(header_len);
    out.put_slice(&header);
    out.put_slice(body);
    out.freeze()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn limit(len: usize, max: usize, what: &'static str) -> Result<(), MessageError> {
    if len > max { Err(MessageError::TooLong(what)) } else { Ok(()) }
}

fn decode_submit(s: wire::Submit, payload: Bytes) -> Result<Message, MessageError> {
    limit(s.kind.len(), MAX_KIND_LEN, "a kind")?;
    limit(s.key.len(), MAX_KEY_LEN, "a key")?;
    Ok(Message::Submit(Submit {
        task: s.task,
        attempt: s.attempt,
        reach: s.reach,
        hops: s.hops,
        submitter: s.submitter.0,
        kind: s.kind,
        key: s.key.into(),
        priority: Priority::from_wire(s.priority),
        life: Duration::from_millis(s.life_ms).min(MAX_LIFE),
        ask: s.ask,
        force: s.force,
        parent: s.parent,
        payload,
    }))
}

fn decode_replica(r: wire::Replica, body: Bytes) -> Result<Message, MessageError> {
    limit(r.kind.len(), MAX_KIND_LEN, "a kind")?;
    limit(r.key.len(), MAX_KEY_LEN, "a key")?;
    limit(r.submitters.len(), MAX_WAITERS, "the list of submitters")?;
    Ok(Message::Replica(Replica {
        task: r.task,
        digest: r.digest,
        submitters: r.submitters.into_iter().map(|key| key.0).collect(),
        kind: r.kind,
        key: r.key.into(),
        keep: Duration::from_millis(r.keep_ms).min(MAX_LIFE + HORIZON),
        record: record_in(r.record, body)?,
    }))
}

fn record_out(record: &Record) -> (wire::Record, Bytes) {
    let (error, body) = match record.outcome.as_deref() {
        Some(Ok(bytes)) => (None, bytes.clone()),
        Some(Err(error)) => (Some(error_out(error)), Bytes::new()),
        None => (None, Bytes::new()),
    };
    let header = wire::Record {
        class: record.class.to_wire(),
        token: record.token,
        hash: record.hash,
        by: Key(record.by),
        settled: record.outcome.is_none(),
        error,
    };
    (header, body)
}

fn record_in(header: wire::Record, body: Bytes) -> Result<Record, MessageError> {
    let class = Class::from_wire(header.class).ok_or(MessageError::Malformed)?;
    let outcome = match (header.settled, header.error) {
        (true, _) => None,
        (false, Some(error)) => Some(Err(error_in(error)?)),
        (false, None) => Some(Ok(body)),
    };
    let honest = outcome.as_ref().is_none_or(|outcome: &Result<_, _>| {
        Class::of(outcome) == class && outcome_hash(outcome) == header.hash
    });
    if !honest {
        return Err(MessageError::Inconsistent);
    }
    Ok(Record {
        class,
        token: header.token,
        hash: header.hash,
        by: header.by.0,
        outcome: outcome.map(Box::new),
    })
}

fn refused(task: TaskId, attempt: u32, reason: &Reason) -> wire::Refused {
    let mut header =
        wire::Refused { task, attempt, code: 0, retry_after_ms: 0, runner: None, hash: None, error: None };
    header.code = match reason {
        Reason::Busy { retry_after } => {
            header.retry_after_ms = millis(*retry_after);
            1
        }
        Reason::UnknownKind => 2,
        Reason::Misrouted => 3,
        Reason::Elsewhere { runner } => {
            header.runner = Some(Key(*runner));
            4
        }
        Reason::Conflict => 5,
        Reason::Settled { hash } => {
            header.hash = Some(*hash);
            6
        }
        Reason::Failed { error } => {
            header.error = Some(error_out(error));
            7
        }
        Reason::Unknown => 8,
        Reason::HandedBack => 9,
    };
    header
}

fn decode_refused(header: wire::Refused) -> Result<Message, MessageError> {
    let reason = match header.code {
        1 => Reason::Busy { retry_after: Duration::from_millis(header.retry_after_ms) },
        2 => Reason::UnknownKind,
        3 => Reason::Misrouted,
        4 => Reason::Elsewhere { runner: header.runner.ok_or(MessageError::Malformed)?.0 },
        5 => Reason::Conflict,
        6 => Reason::Settled { hash: header.hash.ok_or(MessageError::Malformed)? },
        7 => Reason::Failed { error: error_in(header.error.ok_or(MessageError::Malformed)?)? },
        8 => Reason::Unknown,
        9 => Reason::HandedBack,
        _ => return Err(MessageError::Malformed),
    };
    Ok(Message::Refused { task: header.task, attempt: header.attempt, reason })
}

/// The wire form of an error, over which its hash is taken.
pub(super) fn error_bytes(error: &JobError) -> Vec<u8> {
    minicbor::to_vec(error_out(error)).expect("a Vec takes every write")
}

fn error_out(error: &JobError) -> wire::Error {
    let mut out = wire::Error { code: 0, text: String::new(), number: 0, token: None, hash: None };
    out.code = match error.clone().bounded() {
        JobError::Failed { retriable, message } => {
            out.text = message;
            if retriable { 2 } else { 1 }
        }
        JobError::Panicked(text) => {
            out.text = text;
            3
        }
        JobError::TimedOut => 4,
        JobError::UnknownKind(text) => {
            out.text = text;
            5
        }
        JobError::Infeasible(text) => {
            out.text = text;
            6
        }
        JobError::Cancelled => 7,
        JobError::Deadline => 8,
        JobError::DeadLetter { failures, last } => {
            out.text = last;
            out.number = u64::from(failures);
            9
        }
        JobError::Fenced { current } => {
            out.token = Some(current);
            10
        }
        JobError::Conflict => 11,
        JobError::Settled { hash } => {
            out.hash = Some(hash);
            12
        }
        JobError::TooLarge { len } => {
            out.number = len;
            13
        }
        JobError::Lost { workers, names } => {
            out.text = names;
            out.number = u64::from(workers);
            14
        }
    };
    out
}

fn error_in(error: wire::Error) -> Result<JobError, MessageError> {
    limit(error.text.len(), MAX_ERROR_TEXT_LEN, "an error text")?;
    let text = error.text;
    Ok(match error.code {
        1 => JobError::Failed { retriable: false, message: text },
        2 => JobError::Failed { retriable: true, message: text },
        3 => JobError::Panicked(text),
        4 => JobError::TimedOut,
        5 => JobError::UnknownKind(text),
        6 => JobError::Infeasible(text),
        7 => JobError::Cancelled,
        8 => JobError::Deadline,
        9 => {
            let failures = u32::try_from(error.number).map_err(|_| MessageError::Malformed)?;
            JobError::DeadLetter { failures, last: text }
        }
        10 => JobError::Fenced { current: error.token.ok_or(MessageError::Malformed)? },
        11 => JobError::Conflict,
        12 => JobError::Settled { hash: error.hash.ok_or(MessageError::Malformed)? },
        13 => JobError::TooLarge { len: error.number },
        14 => {
            let workers = u32::try_from(error.number).map_err(|_| MessageError::Malformed)?;
            JobError::Lost { workers, names: text }
        }
        _ => return Err(MessageError::Malformed),
    })
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
