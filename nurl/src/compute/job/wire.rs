//! The CBOR headers of [`message`](super::message)s on the wire: arrays of indexed fields. A field is never
//! renumbered; a new field goes to the end and is an `Option`.

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use minicbor::{Decode, Encode};

use super::message::Beat;
use super::task::TaskId;
use crate::key::PublicKey;
use crate::ring::Epoch;

/// A public key in CBOR: a byte string of 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(pub(super) PublicKey);

impl<C> Encode<C> for Key {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.bytes(self.0.as_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Key {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        let key = PublicKey::from_slice(d.bytes()?);
        key.map(Key).ok_or_else(|| DecodeError::message("a key has 32 bytes"))
    }
}

#[derive(Encode, Decode)]
pub(super) struct Submit {
    #[n(0)]
    pub(super) task: TaskId,
    #[n(1)]
    pub(super) attempt: u32,
    #[n(2)]
    pub(super) reach: u16,
    #[n(3)]
    pub(super) hops: u8,
    #[n(4)]
    pub(super) submitter: Key,
    #[n(5)]
    pub(super) kind: String,
    #[cbor(n(6), with = "minicbor::bytes")]
    pub(super) key: Vec<u8>,
    #[n(7)]
    pub(super) priority: u8,
    #[n(8)]
    pub(super) life_ms: u64,
    #[n(9)]
    pub(super) ask: bool,
    #[n(10)]
    pub(super) force: bool,
    #[n(11)]
    pub(super) parent: Option<TaskId>,
}

#[derive(Encode, Decode)]
pub(super) struct Accepted {
    #[n(0)]
    pub(super) task: TaskId,
    #[n(1)]
    pub(super) attempt: u32,
    #[n(2)]
    pub(super) boot: u64,
    #[n(3)]
    pub(super) token: Epoch,
}

#[derive(Encode, Decode)]
pub(super) struct Beats {
    #[n(0)]
    pub(super) boot: u64,
    #[n(1)]
    pub(super) beats: Vec<Beat>,
    #[n(2)]
    pub(super) answer: Option<bool>,
}

/// The header of a message without fields.
#[derive(Encode, Decode)]
pub(super) struct Empty {}

#[derive(Encode, Decode)]
pub(super) struct Attempt {
    #[n(0)]
    pub(super) task: TaskId,
    #[n(1)]
    pub(super) attempt: u32,
}

#[derive(Encode, Decode)]
pub(super) struct Error {
    #[n(0)]
    pub(super) code: u8,
    #[n(1)]
    pub(super) text: String,
    #[n(2)]
    pub(super) number: u64,
    #[n(3)]
    pub(super) token: Option<Epoch>,
    #[cbor(n(4), with = "minicbor::bytes")]
    pub(super) hash: Option<[u8; 32]>,
}

#[derive(Encode, Decode)]
pub(super) struct Refused {
    #[n(0)]
    pub(super) task: TaskId,
    #[n(1)]
    pub(super) attempt: u32,
    #[n(2)]
    pub(super) code: u8,
    #[n(3)]
    pub(super) retry_after_ms: u64,
    #[n(4)]
    pub(super) runner: Option<Key>,
    #[cbor(n(5), with = "minicbor::bytes")]
    pub(super) hash: Option<[u8; 32]>,
    #[n(6)]
    pub(super) error: Option<Error>,
}

#[derive(Encode, Decode)]
pub(super) struct Record {
    #[n(0)]
    pub(super) class: u8,
    #[n(1)]
    pub(super) token: Epoch,
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(super) hash: [u8; 32],
    #[n(3)]
    pub(super) by: Key,
    #[n(4)]
    pub(super) settled: bool,
    #[n(5)]
    pub(super) error: Option<Error>,
}

#[derive(Encode, Decode)]
pub(super) struct Outcome {
    #[n(0)]
    pub(super) task: TaskId,
    #[n(1)]
    pub(super) attempt: u32,
    #[n(2)]
    pub(super) record: Record,
}

#[derive(Encode, Decode)]
pub(super) struct Replica {
    #[n(0)]
    pub(super) task: TaskId,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) digest: [u8; 32],
    #[n(2)]
    pub(super) submitters: Vec<Key>,
    #[n(3)]
    pub(super) kind: String,
    #[cbor(n(4), with = "minicbor::bytes")]
    pub(super) key: Vec<u8>,
    #[n(5)]
    pub(super) keep_ms: u64,
    #[n(6)]
    pub(super) record: Record,
}

#[derive(Encode, Decode)]
pub(super) struct Hashed {
    #[n(0)]
    pub(super) task: TaskId,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) hash: [u8; 32],
}

#[derive(Encode, Decode)]
pub(super) struct Named {
    #[n(0)]
    pub(super) task: TaskId,
}

#[derive(Encode, Decode)]
pub(super) struct Known {
    #[n(0)]
    pub(super) task: TaskId,
    #[n(1)]
    pub(super) running: bool,
    #[n(2)]
    pub(super) record: Option<Record>,
}
