//! The wire format: CBOR with indexed fields, so a later version may add fields and an older one skips them.
//!
//! The length of a message bounds its lists, and is checked first. Keys, and whether each value is of its key's kind, are
//! checked after decoding. A replicated state is sent as its canonical bytes.

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use super::key::{is_of_kind, kind_of};
use super::told;
use crate::replication::crdt::Kind;
use crate::rt;

/// The largest message that is sent or taken.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// A key, and its holder's digest or state.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Item {
    #[n(0)]
    pub(super) key: ByteVec,
    /// A digest or a state.
    #[n(1)]
    pub(super) bytes: ByteVec,
}

/// A range of the keys that two nodes share, in key order: above `after`, up to `upto`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Range {
    /// Exclusive; none: from the first key.
    #[n(0)]
    pub(super) after: Option<ByteVec>,
    /// Inclusive; none: to the last key.
    #[n(1)]
    pub(super) upto: Option<ByteVec>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Message {
    /// A write for a keeper of the key. With an id the keeper acknowledges or declines it.
    #[n(0)]
    Delta {
        #[n(0)]
        key: ByteVec,
        #[n(1)]
        id: Option<u64>,
        #[n(2)]
        state: ByteVec,
    },
    /// Acknowledges a merged delta; the digest is that of the owner's state after the merge.
    #[n(1)]
    Ack {
        #[n(0)]
        key: ByteVec,
        #[n(1)]
        id: u64,
        #[n(2)]
        digest: ByteArray<16>,
        /// The boot id of the keeper's process: without a store, another one doesn't have it.
        #[n(3)]
        boot: u64,
        /// Whether it is on the keeper's disk.
        #[n(4)]
        durable: bool,
    },
    /// The receiver of a delta or a read is not an owner in its own view, which it sends along.
    #[n(2)]
    Refused {
        #[n(0)]
        key: ByteVec,
        #[n(1)]
        id: Option<u64>,
        #[n(2)]
        owners: Vec<ByteArray<32>>,
    },
    /// A hash over (key, digest) of the shared keys in a range. If it differs, the answer is DIVIDED or DIGESTS.
    #[n(3)]
    Summary {
        #[n(0)]
        range: Range,
        #[n(1)]
        hash: ByteArray<16>,
        /// The id that the answer repeats: IN_SYNC for a match. Without it a match isn't answered.
        #[n(2)]
        settling: Option<u64>,
        /// The answer is DIGESTS, however many keys there are.
        #[cbor(n(3), default)]
        digests: bool,
    },
    /// A hash for each part of a range that differs. A lower `upto` may cut the range short.
    #[n(21)]
    Divided {
        #[n(0)]
        range: Range,
        /// The last key and the hash of each part but the last, ascending.
        #[n(1)]
        parts: Vec<Item>,
        /// The hash of the last part.
        #[n(2)]
        last: ByteArray<16>,
        /// The summary's id, if it had one.
        #[n(3)]
        settling: Option<u64>,
    },
    /// The receiver's digests in the range of a summary that differs. A lower `upto` may cut the range short.
    #[n(4)]
    Digests {
        #[n(0)]
        range: Range,
        #[n(1)]
        items: Vec<Item>,
        /// The summary's id, if it had one.
        #[n(2)]
        settling: Option<u64>,
    },
    /// Asks for states.
    #[n(5)]
    Pull {
        #[n(0)]
        keys: Vec<ByteVec>,
    },
    /// Whole states.
    #[n(6)]
    States {
        #[n(0)]
        items: Vec<Item>,
    },
    /// Asks an owner for its state.
    #[n(7)]
    Read {
        #[n(0)]
        key: ByteVec,
        #[n(1)]
        id: u64,
    },
    /// The owner's state, or none if it has no copy.
    #[n(8)]
    ReadReply {
        #[n(0)]
        key: ByteVec,
        #[n(1)]
        id: u64,
        #[n(2)]
        state: Option<ByteVec>,
        /// Whether the answerer has, or knows that there isn't, what its earlier processes and the other owners confirmed.
        #[n(3)]
        remembers: bool,
        /// Whether it was there, without a long absence, for as long as deletions are remembered.
        #[n(4)]
        vouches: bool,
    },
    /// An observer asks a member to write in its place, once.
    #[n(9)]
    Operation {
        #[n(0)]
        id: ByteArray<16>,
        #[n(1)]
        key: ByteVec,
        #[n(2)]
        op: Op,
        /// The boot id of the member's process to which it was sent first; another process doesn't make it.
        #[n(3)]
        boot: Option<u64>,
        /// How many keepers have to hold it; 255: all; absent: one with a store, or two.
        #[n(4)]
        confirm: Option<u8>,
    },
    /// The outcome of an operation. 0: applied. 1: not done, busy. 2: not done, refused. 3: done, but no owner has
    /// acknowledged it. 4: not done by this process, since it isn't the one that was asked. 5: this process doesn't have it.
    /// 6: not done, for a disk: the member's, or those of all live keepers.
    #[n(10)]
    OperationReply {
        #[n(0)]
        id: ByteArray<16>,
        #[n(1)]
        outcome: u8,
        /// With 4 and 5, the boot id of this process.
        #[n(2)]
        boot: Option<u64>,
    },
    /// The copy of a node that leaves the key's owners or the mesh. It is acknowledged like a delta.
    #[n(11)]
    Copy {
        #[n(0)]
        key: ByteVec,
        #[n(1)]
        id: u64,
        #[n(2)]
        state: ByteVec,
    },
    /// A reader tells an owner that another owner has more of the key: it compares with the others.
    #[n(12)]
    Behind {
        #[n(0)]
        key: ByteVec,
    },
    /// A keeper took no delta or copy. 0: no room. 1: a limit of the value. 2: it changes what others wrote.
    #[n(13)]
    Declined {
        #[n(0)]
        key: ByteVec,
        #[n(1)]
        id: u64,
        #[n(2)]
        why: u8,
    },
    /// A summary of this range matches.
    #[n(15)]
    InSync {
        #[n(0)]
        range: Range,
        #[n(1)]
        settling: u64,
    },
    /// Asks a member for the next names of objects that it holds as a keeper.
    #[n(16)]
    List {
        #[n(0)]
        id: u64,
        /// Of this kind; absent: of all.
        #[n(1)]
        kind: Option<Kind>,
        /// How the names begin.
        #[n(2)]
        prefix: ByteVec,
        /// The key behind which they are; absent: from the first.
        #[n(3)]
        after: Option<ByteVec>,
        #[n(4)]
        most: u64,
    },
    /// These names, as keys, ascending.
    #[n(17)]
    Names {
        #[n(0)]
        id: u64,
        #[n(1)]
        keys: Vec<ByteVec>,
        /// The last key looked at, if there may be more behind it.
        #[n(2)]
        upto: Option<ByteVec>,
    },
    /// Asks a keeper to answer as soon as its object differs from this digest.
    #[n(18)]
    Watch {
        #[n(0)]
        key: ByteVec,
        #[n(1)]
        id: u64,
        /// Absent: nothing is shown.
        #[n(2)]
        has: Option<ByteArray<16>>,
    },
    /// 0: the keeper's state, if it has one, differs. 1: nothing new for a while. 2: the keeper has no room for this watcher.
    #[n(19)]
    Watched {
        #[n(0)]
        key: ByteVec,
        #[n(1)]
        id: u64,
        #[n(2)]
        outcome: u8,
        #[n(3)]
        state: Option<ByteVec>,
    },
    /// Asks a member whether it is there, by an operation that it hasn't got. It answers with 5.
    #[n(20)]
    Inquiry {
        #[n(0)]
        id: ByteArray<16>,
    },
    /// A former owner, before it drops its copy, asks an owner whether it still has the key. It acknowledges, or pulls.
    #[n(14)]
    Confirm {
        #[n(0)]
        key: ByteVec,
        #[n(1)]
        id: u64,
    },
}

/// A write.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Op {
    /// Adds to a counter; subtracts if negative.
    #[n(0)]
    Add {
        /// The amount.
        #[n(0)]
        by: i64,
    },
    /// Sets a register.
    #[n(1)]
    Set {
        /// The new value.
        #[cbor(n(0), with = "minicbor::bytes")]
        value: Vec<u8>,
    },
    /// Adds an element to a set.
    #[n(2)]
    Insert {
        /// The element.
        #[cbor(n(0), with = "minicbor::bytes")]
        element: Vec<u8>,
    },
    /// Removes an element from a set, as far as the writer has observed it.
    #[n(3)]
    Remove {
        /// The element.
        #[cbor(n(0), with = "minicbor::bytes")]
        element: Vec<u8>,
    },
    /// Sets a multi-value register: replaces the values that the writer has observed.
    #[n(4)]
    Replace {
        /// The new value.
        #[cbor(n(0), with = "minicbor::bytes")]
        value: Vec<u8>,
    },
    /// Changes a field of a map.
    #[n(5)]
    Field {
        /// The field's name.
        #[cbor(n(0), with = "minicbor::bytes")]
        name: Vec<u8>,
        /// The change.
        #[n(1)]
        op: FieldOp,
    },
    /// Deletes an object of this kind: removes all of it that the writer has observed.
    #[n(6)]
    Delete {
        /// The object's kind.
        #[n(0)]
        kind: Kind,
    },
    /// Says when an object of this kind expires.
    #[n(7)]
    Expire {
        /// The object's kind.
        #[n(0)]
        kind: Kind,
        /// Milliseconds since 1970; 0: never.
        #[n(1)]
        at_ms: u64,
    },
}

/// A write to a field of a map. The write says the field's kind.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FieldOp {
    /// Adds to a counter; subtracts if negative.
    #[n(0)]
    Add {
        /// The amount.
        #[n(0)]
        by: i64,
    },
    /// Sets a register.
    #[n(1)]
    Set {
        /// The new value.
        #[cbor(n(0), with = "minicbor::bytes")]
        value: Vec<u8>,
    },
    /// Adds an element to a set.
    #[n(2)]
    Insert {
        /// The element.
        #[cbor(n(0), with = "minicbor::bytes")]
        element: Vec<u8>,
    },
    /// Removes an element from a set, as far as the writer has observed it.
    #[n(3)]
    Remove {
        /// The element.
        #[cbor(n(0), with = "minicbor::bytes")]
        element: Vec<u8>,
    },
    /// Sets a multi-value register: replaces the values that the writer has observed.
    #[n(4)]
    Replace {
        /// The new value.
        #[cbor(n(0), with = "minicbor::bytes")]
        value: Vec<u8>,
    },
    /// Removes what the writer has observed of the fields of all kinds.
    #[n(5)]
    Clear,
}

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        let out = minicbor::to_vec(self).expect("a Vec takes every write");
        rt::label(&out, || told::message(self));
        out
    }

    /// Refuses a message that is too long, doesn't decode, or has a wrong key or a value of another kind than its key.
    pub(super) fn decode(bytes: &[u8]) -> Option<Message> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return None;
        }
        let message: Message = minicbor::decode(bytes).ok()?;
        let sound = message.keys().all(|key| kind_of(key).is_some()) && message.is_of_its_keys_kinds();
        sound.then_some(message)
    }

    fn is_of_its_keys_kinds(&self) -> bool {
        match self {
            Message::Delta { key, state, .. }
            | Message::Copy { key, state, .. }
            | Message::ReadReply { key, state: Some(state), .. }
            | Message::Watched { key, state: Some(state), .. } => is_of_kind(key, state),
            Message::States { items } => items.iter().all(|item| is_of_kind(&item.key, &item.bytes)),
            Message::Operation { key, op, .. } => kind_of(key) == Some(op.kind()),
            _ => true,
        }
    }

    fn keys(&self) -> Box<dyn Iterator<Item = &ByteVec> + '_> {
        match self {
            Message::Delta { key, .. }
            | Message::Ack { key, .. }
            | Message::Refused { key, .. }
            | Message::Read { key, .. }
            | Message::ReadReply { key, .. }
            | Message::Copy { key, .. }
            | Message::Behind { key }
            | Message::Declined { key, .. }
            | Message::Confirm { key, .. }
            | Message::Watch { key, .. }
            | Message::Watched { key, .. }
            | Message::Operation { key, .. } => Box::new(std::iter::once(key)),
            Message::Summary { range, .. } | Message::InSync { range, .. } => {
                Box::new(range.after.iter().chain(&range.upto))
            }
            Message::Digests { range, items, .. } | Message::Divided { range, parts: items, .. } => {
                Box::new(range.after.iter().chain(&range.upto).chain(items.iter().map(|item| &item.key)))
            }
            Message::Pull { keys } => Box::new(keys.iter()),
            Message::List { after, .. } => Box::new(after.iter()),
            Message::Names { keys, upto, .. } => Box::new(keys.iter().chain(upto)),
            Message::States { items } => Box::new(items.iter().map(|item| &item.key)),
            Message::Inquiry { .. } | Message::OperationReply { .. } => Box::new(std::iter::empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::crdt::{Kind, Value};
    use crate::replication::replicator::state_key;

    #[test]
    fn a_message_whose_value_is_of_another_kind_than_its_key_is_none() {
        for (key, value) in Kind::ALL.iter().flat_map(|key| Kind::ALL.map(|value| (*key, value))) {
            let state = || ByteVec::from(Value::new(value).encode());
            let of = |kind| ByteVec::from(state_key(kind, b"name"));
            let sound = Item { key: of(value), bytes: state() };
            let op = match value {
                Kind::Counter => Op::Add { by: 1 },
                Kind::Register => Op::Set { value: Vec::new() },
                Kind::Set => Op::Remove { element: Vec::new() },
                Kind::Multi => Op::Replace { value: Vec::new() },
                Kind::Map => Op::Field { name: Vec::new(), op: FieldOp::Clear },
            };
            let messages = [
                Message::Delta { key: of(key), id: None, state: state() },
                Message::Copy { key: of(key), id: 1, state: state() },
                Message::ReadReply {
                    key: of(key),
                    id: 1,
                    state: Some(state()),
                    remembers: true,
                    vouches: true,
                },
                Message::States { items: vec![sound, Item { key: of(key), bytes: state() }] },
                Message::Operation { id: [1; 16].into(), key: of(key), op, boot: Some(7), confirm: None },
            ];
            for message in messages {
                let decoded = Message::decode(&message.encode());
                assert_eq!(decoded, (key == value).then_some(message));
            }
        }
    }

    #[test]
    fn a_message_with_a_key_of_no_kind_is_none() {
        for (key, sound) in [
            (&b""[..], false),
            (b"name", false),
            (&[0], false),
            (&[200], false),
            (&[3], true),
            (&[5], true),
            (&[6], false),
        ] {
            let key = || ByteVec::from(key.to_vec());
            let messages = [
                Message::Ack { key: key(), id: 1, digest: [0; 16].into(), boot: 1, durable: true },
                Message::Declined { key: key(), id: 1, why: 0 },
                Message::Confirm { key: key(), id: 1 },
                Message::Summary {
                    range: Range { after: None, upto: Some(key()) },
                    hash: [0; 16].into(),
                    settling: Some(1),
                    digests: false,
                },
                Message::Pull { keys: vec![key()] },
                Message::ReadReply { key: key(), id: 1, state: None, remembers: false, vouches: false },
            ];
            for message in messages {
                assert_eq!(Message::decode(&message.encode()).is_some(), sound);
            }
        }
    }
}
