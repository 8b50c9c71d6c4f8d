//! The CBOR forms of what [`message`](super::message)s are made of, where they can't be derived.
//!
//! A [`JobError`] and a [`Reason`] have a fixed row of fields on the wire. Their code says which of these fields count;
//! the others are empty. One table for each names the codes and their fields, in both directions.

use std::time::Duration;

use ::bytes::Bytes;
use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use minicbor::{Decode, Encode};

use super::error::JobError;
use super::message::{Reason, Refused};
use super::options::{MAX_ERROR_TEXT_LEN, MAX_KIND_LEN};
use super::policy::Needs;
use super::task::TaskId;
use crate::key::PublicKey;
use crate::ring::Epoch;

/// The result of an encoding.
pub(super) type Encoded<W> = Result<(), EncodeError<<W as Write>::Error>>;

/// A value of an enum within its field on the wire.
trait Slot<T>: Sized {
    fn to_slot(self) -> T;
    /// None: the sender left the field empty, or the value is too large.
    fn from_slot(slot: T) -> Option<Self>;
}

impl<T> Slot<Option<T>> for T {
    fn to_slot(self) -> Option<T> {
        Some(self)
    }

    fn from_slot(slot: Option<T>) -> Option<T> {
        slot
    }
}

impl<T> Slot<T> for T {
    fn to_slot(self) -> T {
        self
    }

    fn from_slot(slot: T) -> Option<T> {
        Some(slot)
    }
}

impl Slot<u64> for u32 {
    fn to_slot(self) -> u64 {
        self.into()
    }

    fn from_slot(slot: u64) -> Option<u32> {
        slot.try_into().ok()
    }
}

impl Slot<u64> for Duration {
    fn to_slot(self) -> u64 {
        u64::try_from(self.as_millis()).unwrap_or(u64::MAX)
    }

    fn from_slot(slot: u64) -> Option<Duration> {
        Some(Duration::from_millis(slot))
    }
}

/// The table of an enum's codes. Each line has the code, the variant, the value that a field of the variant has under
/// this code, and the other fields with their places on the wire.
macro_rules! codes {
    ($enum:ident as $wire:ident {
        $($code:literal = $variant:ident $([$fixed:ident: $value:literal])? { $($field:tt: $slot:ident),* })*
    }) => {
        impl $wire {
            /// Sets the code, and the fields that count under it.
            fn put(mut self, value: $enum) -> $wire {
                match value {
                    $($enum::$variant { $($fixed: $value,)? $($field: $slot),* } => {
                        self.code = $code;
                        $(self.$slot = $slot.to_slot();)*
                    })*
                }
                self
            }

            /// The value of this code; none if the code is unknown, or lacks a field.
            fn take(self) -> Option<$enum> {
                Some(match self.code {
                    $($code => $enum::$variant {
                        $($fixed: $value,)?
                        $($field: Slot::from_slot(self.$slot)?),*
                    },)*
                    _ => return None,
                })
            }
        }
    };
}

#[derive(Default, Encode, Decode)]
struct ErrorFields {
    #[n(0)]
    code: u8,
    #[n(1)]
    text: String,
    #[n(2)]
    number: u64,
    #[n(3)]
    token: Option<Epoch>,
    #[cbor(n(4), with = "minicbor::bytes")]
    hash: Option<[u8; 32]>,
    #[n(5)]
    kind: Option<String>,
}

codes! {
    JobError as ErrorFields {
        1 = Failed [retriable: false] { message: text }
        2 = Failed [retriable: true] { message: text }
        3 = Panicked { 0: text }
        4 = TimedOut {}
        5 = UnknownKind { 0: text }
        6 = Infeasible { 0: text }
        7 = Cancelled {}
        8 = Deadline {}
        9 = DeadLetter { failures: number, last: text }
        10 = Fenced { current: token }
        11 = Conflict {}
        12 = Settled { hash: hash }
        13 = TooLarge { len: number }
        14 = Lost { workers: number, names: text }
        15 = NotAllowed { needs: text, kind: kind }
    }
}

impl<C> Encode<C> for JobError {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Encoded<W> {
        ErrorFields::default().put(self.clone().bounded()).encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for JobError {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<JobError, DecodeError> {
        let fields = ErrorFields::decode(d, ctx)?;
        if fields.text.len() > MAX_ERROR_TEXT_LEN {
            return Err(DecodeError::message("an error text is over its limit"));
        }
        if fields.kind.as_ref().is_some_and(|kind| kind.len() > MAX_KIND_LEN) {
            return Err(DecodeError::message("a kind is over its limit"));
        }
        fields.take().ok_or_else(|| DecodeError::message("not an error"))
    }
}

#[derive(Encode, Decode)]
struct RefusedFields {
    #[n(0)]
    task: TaskId,
    #[n(1)]
    attempt: u32,
    #[n(2)]
    code: u8,
    #[n(3)]
    retry_after_ms: u64,
    #[n(4)]
    runner: Option<PublicKey>,
    #[cbor(n(5), with = "minicbor::bytes")]
    hash: Option<[u8; 32]>,
    #[n(6)]
    error: Option<JobError>,
    #[n(7)]
    needs: Option<Needs>,
}

codes! {
    Reason as RefusedFields {
        1 = Busy { retry_after: retry_after_ms }
        2 = UnknownKind {}
        3 = Misrouted {}
        4 = Elsewhere { runner: runner }
        5 = Conflict {}
        6 = Settled { hash: hash }
        7 = Failed { error: error }
        8 = Unknown {}
        9 = HandedBack {}
        10 = Forwarded { runner: runner }
        11 = NotAllowed { needs: needs }
    }
}

impl<C> Encode<C> for Refused {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Encoded<W> {
        let &Refused { task, attempt, ref reason } = self;
        let empty = RefusedFields {
            task,
            attempt,
            code: 0,
            retry_after_ms: 0,
            runner: None,
            hash: None,
            error: None,
            needs: None,
        };
        empty.put(reason.clone()).encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Refused {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Refused, DecodeError> {
        let fields = RefusedFields::decode(d, ctx)?;
        let (task, attempt) = (fields.task, fields.attempt);
        let reason = fields.take().ok_or_else(|| DecodeError::message("not a reason"))?;
        Ok(Refused { task, attempt, reason })
    }
}

/// A byte string.
pub(super) mod bytes {
    use super::*;

    pub(crate) fn encode<C, W: Write>(bytes: &Bytes, e: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        e.bytes(bytes)?.ok()
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Bytes, DecodeError> {
        d.bytes().map(Bytes::copy_from_slice)
    }
}

/// A duration in milliseconds.
pub(super) mod millis {
    use super::*;

    pub(crate) fn encode<C, W: Write>(duration: &Duration, e: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        e.u64(Slot::to_slot(*duration))?.ok()
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Duration, DecodeError> {
        d.u64().map(Duration::from_millis)
    }
}

/// A flag that is absent when it isn't set.
pub(super) mod flag {
    use super::*;

    pub(crate) fn encode<C, W: Write>(flag: &bool, e: &mut Encoder<W>, _: &mut C) -> Encoded<W> {
        e.bool(*flag)?.ok()
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, ctx: &mut C) -> Result<bool, DecodeError> {
        Ok(Option::decode(d, ctx)?.unwrap_or(false))
    }

    pub(crate) fn nil() -> Option<bool> {
        Some(false)
    }

    pub(crate) fn is_nil(flag: &bool) -> bool {
        !flag
    }
}
