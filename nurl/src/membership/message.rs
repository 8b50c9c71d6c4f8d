//! The messages between members, and their encoding.
//!
//! CBOR (RFC 8949), definite lengths only, arrays with positional fields; fields after the known ones are
//! skipped, so a later version may append. All numbers are unsigned.
//!
//! ```text
//! message = [kind, highest epoch counter, flags (1 = observer), args, [fact…], [event…]]
//! args      0 ping           [seq]
//!           1 ack            [seq]
//!           2 ping-req       [seq, target: 32 bytes, timeout_ms]
//!           3 nack           [seq]
//!           4 gossip         []
//!           5 push-pull      [exchange id, chunk index, chunks in all, digest of the revocations: 32 bytes]
//!           6 push-pull-ack  [exchange id, chunk index, chunks in all, digest of the revocations: 32 bytes]
//!           7 announce       [nonce]
//! fact    = [key: 32 bytes, state (0 alive, 1 suspect, 2 dead, 3 left), incarnation, age_s,
//!            [accuser: 32 bytes…], null | profile]
//! profile = [incarnation, left: bool, boot, roles, weight, [job kind…], version, pass: bytes, signature: 64 bytes]
//! event   = [origin: 32 bytes, id, body]
//! ```
//!
//! A body is refused as a whole if any part of it is malformed or beyond its bound; no allocation exceeds the bytes
//! that arrived.

use minicbor::{Decoder, Encoder};

use super::meta::{MAX_KINDS, Meta, Roles};
use super::profile::{FIELDS_SAID, MemberProfile, SignedProfile};
use super::suspicion::MAX_ACCUSERS;
use super::table::{Fact, MAX_INCARNATION, MemberRecord, State};
use super::told;
use crate::authority::pass::{MAX_PASS_BYTES, PassHash};
use crate::authority::revocation::RevocationsDigest;
use crate::key::{KEY_LEN, PublicKey};
use crate::rt;

/// The largest body on the datagram channel: it fits every path even before path probing.
pub const MAX_DATAGRAM_BYTES: usize = crate::transport::MAX_DATAGRAM_BYTES;

/// The largest body on the reliable leg: one chunk of a table. Large enough that 500 members are a handful of
/// messages, small enough that no chunk holds up the control stream.
pub const MAX_CHUNK_BYTES: usize = 16 * 1024;

/// The most facts in one message: more than a chunk can hold of even the smallest facts.
pub const MAX_FACTS: usize = 512;

/// The most user events in one message.
pub const MAX_EVENTS: usize = 64;

/// The largest body of a user event. User events ride behind membership facts in the same datagram.
pub const MAX_EVENT_BYTES: usize = 256;

const OBSERVER: u64 = 1;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipMessage {
    /// The highest epoch counter that the sender knows.
    pub epoch: u64,
    /// The sender is an observer, not a member.
    pub observer: bool,
    /// The request or answer.
    pub body: MessageBody,
    /// The sender's knowledge about members.
    pub facts: Vec<Fact>,
    /// User events of applications.
    pub events: Vec<UserEvent>,
}

/// The purpose of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageBody {
    /// Asks whether the receiver is alive.
    Ping {
        /// Repeated in the answer.
        seq: u64,
    },
    /// The ping's target is alive; the sender is the target, or a helper that pinged it.
    Ack {
        /// Sequence number of the ping or the ping-req.
        seq: u64,
    },
    /// Asks the receiver to ping `target` for the sender.
    PingReq {
        /// Repeated in the answer.
        seq: u64,
        /// The member to ping.
        target: PublicKey,
        /// How long the sender will wait.
        timeout_ms: u32,
    },
    /// The helper is alive, but the target doesn't answer it either.
    Nack {
        /// Sequence number of the ping-req.
        seq: u64,
    },
    /// Carries facts and events only.
    Gossip,
    /// A chunk of the sender's table; the first chunk asks for the receiver's table.
    PushPull(TableChunk),
    /// A chunk of the requested table.
    PushPullAck(TableChunk),
    /// On the mesh group: the sender is present; members that don't know it may answer.
    Announce {
        /// Determines which members answer.
        nonce: u64,
    },
}

/// The position of a message within an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableChunk {
    /// The exchange's id, chosen by its initiator.
    pub id: u64,
    /// Index of this chunk, from 0.
    pub index: u32,
    /// Number of chunks.
    pub total: u32,
    /// The digest of all revocations that the sender knows.
    pub revocations: RevocationsDigest,
}

/// A small application event that rides on gossip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserEvent {
    /// The claimed author. It is unauthenticated: any forwarder could have forged it.
    pub origin: PublicKey,
    /// Unique per origin.
    pub id: u64,
    /// At most [`MAX_EVENT_BYTES`].
    pub body: Vec<u8>,
}

/// The reason why decoding failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not this layout, or beyond a bound.
    #[error("malformed membership message")]
    Malformed,
    /// A kind that this version doesn't know.
    #[error("unknown kind of membership message: {0}")]
    UnknownKind(u64),
    /// Longer than [`MAX_CHUNK_BYTES`].
    #[error("membership message of {0} bytes")]
    TooLarge(usize),
}

impl From<minicbor::decode::Error> for DecodeError {
    fn from(_: minicbor::decode::Error) -> DecodeError {
        DecodeError::Malformed
    }
}

type Infallible = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn written(build: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Infallible) -> Vec<u8> {
    let mut out = Vec::new();
    build(&mut Encoder::new(&mut out)).expect("a Vec takes every byte");
    out
}

/// Encodes everything before the facts.
fn encode_head(epoch: u64, observer: bool, body: &MessageBody) -> Vec<u8> {
    let flags = if observer { OBSERVER } else { 0 };
    let (kind, args) = match body {
        MessageBody::Ping { .. } => (0, 1),
        MessageBody::Ack { .. } => (1, 1),
        MessageBody::PingReq { .. } => (2, 3),
        MessageBody::Nack { .. } => (3, 1),
        MessageBody::Gossip => (4, 0),
        MessageBody::PushPull(_) => (5, 4),
        MessageBody::PushPullAck(_) => (6, 4),
        MessageBody::Announce { .. } => (7, 1),
    };
    written(|e| {
        e.array(6)?.u8(kind)?.u64(epoch)?.u64(flags)?.array(args)?;
        match *body {
            MessageBody::Ping { seq } | MessageBody::Ack { seq } | MessageBody::Nack { seq } => {
                e.u64(seq)?.ok()
            }
            MessageBody::Announce { nonce } => e.u64(nonce)?.ok(),
            MessageBody::PingReq { seq, target, timeout_ms } => {
                e.u64(seq)?.bytes(target.as_bytes())?.u32(timeout_ms)?.ok()
            }
            MessageBody::Gossip => Ok(()),
            MessageBody::PushPull(chunk) | MessageBody::PushPullAck(chunk) => {
                e.u64(chunk.id)?.u32(chunk.index)?.u32(chunk.total)?.bytes(&chunk.revocations)?.ok()
            }
        }
    })
}

/// Number of bytes for facts and events in a message of `limit` bytes with this body.
pub(crate) fn room(limit: usize, observer: bool, body: &MessageBody) -> usize {
    // The two list headers take at most three bytes each. The epoch is counted at its longest encoding, so that a
    // growing epoch never exceeds the measured size.
    limit.saturating_sub(encode_head(u64::MAX, observer, body).len() + 6)
}

/// Joins a head with already encoded facts and events.
pub(crate) fn assemble(
    epoch: u64,
    observer: bool,
    body: &MessageBody,
    facts: &[Vec<u8>],
    events: &[Vec<u8>],
) -> Vec<u8> {
    let mut out = encode_head(epoch, observer, body);
    for list in [facts, events] {
        out.extend(written(|e| e.array(list.len() as u64)?.ok()));
        list.iter().for_each(|item| out.extend_from_slice(item));
    }
    rt::label(&out, || told::message(&out));
    out
}

/// The fields of a profile: what is said, the pass, the signature.
const PROFILE_FIELDS: u64 = FIELDS_SAID + 2;

/// The bytes of a fact.
pub(crate) fn encode_fact(fact: &Fact) -> Vec<u8> {
    written(|e| {
        let state = match fact.record.state {
            State::Alive => 0,
            State::Suspect => 1,
            State::Dead => 2,
            State::Left => 3,
        };
        e.array(6)?.bytes(fact.key.as_bytes())?.u8(state)?.u64(fact.record.incarnation)?.u32(fact.age_s)?;
        e.array(fact.accusers.len() as u64)?;
        for accuser in &fact.accusers {
            e.bytes(accuser.as_bytes())?;
        }
        let Some(profile) = &fact.record.profile else {
            return e.null()?.ok();
        };
        e.array(PROFILE_FIELDS)?;
        profile.said().write(e)?.bytes(profile.pass())?.bytes(profile.signature())?.ok()
    })
}

/// The bytes of an event.
pub(crate) fn encode_event(event: &UserEvent) -> Vec<u8> {
    written(|e| e.array(3)?.bytes(event.origin.as_bytes())?.u64(event.id)?.bytes(&event.body)?.ok())
}

impl MembershipMessage {
    /// Encodes the message. A caller that builds a message by hand must respect its bounds.
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn encode(&self) -> Vec<u8> {
        let facts: Vec<_> = self.facts.iter().map(encode_fact).collect();
        let events: Vec<_> = self.events.iter().map(encode_event).collect();
        assemble(self.epoch, self.observer, &self.body, &facts, &events)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`DecodeError`]; no input causes a panic.
    pub fn decode(bytes: &[u8]) -> Result<MembershipMessage, DecodeError> {
        if bytes.len() > MAX_CHUNK_BYTES {
            return Err(DecodeError::TooLarge(bytes.len()));
        }
        let mut d = Decoder::new(bytes);
        let fields = open(&mut d, 6)?;
        let kind = d.u64()?;
        let epoch = d.u64()?;
        let observer = d.u64()? & OBSERVER != 0;
        let body = decode_body(&mut d, kind)?;
        let mut facts = Vec::new();
        for _ in 0..count(&mut d, MAX_FACTS)? {
            facts.push(decode_fact(&mut d)?);
        }
        let mut events = Vec::new();
        for _ in 0..count(&mut d, MAX_EVENTS)? {
            events.push(decode_event(&mut d)?);
        }
        close(&mut d, fields, 6)?;
        if d.position() != bytes.len() {
            return Err(DecodeError::Malformed);
        }
        Ok(MembershipMessage { epoch, observer, body, facts, events })
    }
}

/// Opens an array of at least `known` fields.
fn open(d: &mut Decoder<'_>, known: u64) -> Result<u64, DecodeError> {
    d.array()?.filter(|fields| *fields >= known).ok_or(DecodeError::Malformed)
}

/// Skips the fields that a later version appended.
fn close(d: &mut Decoder<'_>, fields: u64, known: u64) -> Result<(), DecodeError> {
    for _ in known..fields {
        d.skip()?;
    }
    Ok(())
}

fn count(d: &mut Decoder<'_>, limit: usize) -> Result<u64, DecodeError> {
    d.array()?.filter(|count| *count <= limit as u64).ok_or(DecodeError::Malformed)
}

fn decode_key(d: &mut Decoder<'_>) -> Result<PublicKey, DecodeError> {
    let bytes: [u8; KEY_LEN] = d.bytes()?.try_into().map_err(|_| DecodeError::Malformed)?;
    Ok(PublicKey::from_bytes(bytes))
}

fn decode_chunk(d: &mut Decoder<'_>) -> Result<TableChunk, DecodeError> {
    let (id, index, total) = (d.u64()?, d.u32()?, d.u32()?);
    let revocations = d.bytes()?.try_into().map_err(|_| DecodeError::Malformed)?;
    let chunk = TableChunk { id, index, total, revocations };
    let sound = chunk.index < chunk.total && chunk.total <= super::pushpull::MAX_CHUNKS;
    if sound { Ok(chunk) } else { Err(DecodeError::Malformed) }
}

fn decode_body(d: &mut Decoder<'_>, kind: u64) -> Result<MessageBody, DecodeError> {
    let known = match kind {
        4 => 0,
        0 | 1 | 3 | 7 => 1,
        2 => 3,
        5 | 6 => 4,
        _ => return Err(DecodeError::UnknownKind(kind)),
    };
    let fields = open(d, known)?;
    let body = match kind {
        0 => MessageBody::Ping { seq: d.u64()? },
        1 => MessageBody::Ack { seq: d.u64()? },
        2 => MessageBody::PingReq { seq: d.u64()?, target: decode_key(d)?, timeout_ms: d.u32()? },
        3 => MessageBody::Nack { seq: d.u64()? },
        5 => MessageBody::PushPull(decode_chunk(d)?),
        6 => MessageBody::PushPullAck(decode_chunk(d)?),
        7 => MessageBody::Announce { nonce: d.u64()? },
        _ => MessageBody::Gossip,
    };
    close(d, fields, known)?;
    Ok(body)
}

fn decode_fact(d: &mut Decoder<'_>) -> Result<Fact, DecodeError> {
    let fields = open(d, 6)?;
    let key = decode_key(d)?;
    let state = match d.u64()? {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Dead,
        3 => State::Left,
        _ => return Err(DecodeError::Malformed),
    };
    let incarnation = d.u64()?;
    let age_s = d.u32()?;
    let mut accusers = Vec::new();
    for _ in 0..count(d, MAX_ACCUSERS)? {
        accusers.push(decode_key(d)?);
    }
    let profile = if d.datatype()? == minicbor::data::Type::Null {
        d.null()?;
        None
    } else {
        Some(decode_profile(d)?)
    };
    close(d, fields, 6)?;
    // Only the subject itself says that it is alive or has left, so such a fact must carry its profile of the same
    // incarnation. No profile may be newer than the fact's incarnation. An incarnation above the limit could not be
    // outbid.
    let said = profile.as_ref().map(|profile| (profile.said().incarnation, profile.said().left));
    let sound = match state {
        State::Alive => said == Some((incarnation, false)) && accusers.is_empty(),
        State::Left => said == Some((incarnation, true)),
        State::Suspect | State::Dead => said.is_none_or(|said| said <= (incarnation, false)),
    };
    if !sound || incarnation > MAX_INCARNATION {
        return Err(DecodeError::Malformed);
    }
    Ok(Fact { key, record: MemberRecord { incarnation, state, profile }, age_s, accusers })
}

fn decode_profile(d: &mut Decoder<'_>) -> Result<SignedProfile, DecodeError> {
    let fields = open(d, PROFILE_FIELDS)?;
    let (incarnation, left, boot) = (d.u64()?, d.bool()?, d.u64()?);
    let roles = Roles::from_bits(d.u16()?);
    let weight = d.u16()?;
    let mut kinds = Vec::new();
    for _ in 0..count(d, MAX_KINDS)? {
        kinds.push(d.str()?.to_owned());
    }
    let version = d.str()?.to_owned();
    let pass = d.bytes()?;
    let signature = d.bytes()?.try_into().map_err(|_| DecodeError::Malformed)?;
    close(d, fields, PROFILE_FIELDS)?;
    // The kinds are signed as they came: a list that isn't sorted isn't one of a member's.
    let sorted = kinds.is_sorted_by(|one, next| one < next);
    let meta = Meta::new(roles, kinds, weight, version).map_err(|_| DecodeError::Malformed)?;
    if !sorted || pass.len() > MAX_PASS_BYTES {
        return Err(DecodeError::Malformed);
    }
    let said = MemberProfile { incarnation, left, boot, meta, pass: PassHash::of(pass) };
    Ok(SignedProfile::unchecked(said, pass, signature))
}

fn decode_event(d: &mut Decoder<'_>) -> Result<UserEvent, DecodeError> {
    let fields = open(d, 3)?;
    let event = UserEvent { origin: decode_key(d)?, id: d.u64()?, body: d.bytes()?.to_vec() };
    close(d, fields, 3)?;
    if event.body.len() > MAX_EVENT_BYTES { Err(DecodeError::Malformed) } else { Ok(event) }
}

#[cfg(test)]
mod tests;
