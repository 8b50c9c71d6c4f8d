//! Replicated state, as the application uses it: a counter, a register, a multi-value register, a set, a
//! map of these, each under a key.
//!
//! A write is made locally, under this node's own replica id, and is then sent to the key's owners; it is never applied twice.
//! An observer has no replica id: one of the object's owners writes in its place. `Ok` means that as many nodes have the
//! write as [`Confirm`] says: by default one that has it on its disk, or two in memory; in a smaller mesh all that there are.
//! Each is an owner of the key, or stands in for one that is away. What they have acknowledged is not lost as long as one of
//! them lives; with its disk, if it has a store. The objects of different kinds under one key know nothing of each other.
//!
//! A read gives the value of a set of writes, with all that this node wrote before. An owner answers from its own copy once it
//! has compared it with the other owners'; any other node asks the owners, and merges what they say. Two readers may see
//! different states until the owners have synchronised: there is no consensus.

use std::time::Duration;

use bytes::Bytes;

use super::Node;
use super::command::{Watched, WorkCommand};
use super::shown;
use super::watch::Watch;
use crate::error::{Error, StateError};
use crate::replication::crdt::{Kind, MAX_TTL, Value};
use crate::replication::replicator::{Confirm, FieldOp, Op};
use crate::rt::time::unix_now;

/// A replicated counter; see [`Node::counter`].
#[derive(Clone)]
pub struct Counter(Handle);

/// A replicated register; see [`Node::register`].
#[derive(Clone)]
pub struct Register(Handle);

/// A replicated register that shows concurrent writes side by side; see [`Node::multi`].
#[derive(Clone)]
pub struct MultiRegister(Handle);

/// A replicated set; see [`Node::set`].
#[derive(Clone)]
pub struct Set(Handle);

/// A replicated map; see [`Node::map`]. A field's name has at most 256 bytes. The counter, the register, the multi-value
/// register and the set of one name are different fields.
#[derive(Clone)]
pub struct Map(Handle);

/// What a field of a [`Map`] shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldValue {
    /// The sum of a counter.
    Counter(i128),
    /// The value of a register.
    Register(Vec<u8>),
    /// The elements of a set, sorted.
    Set(Vec<Vec<u8>>),
    /// The values of a multi-value register, sorted.
    Multi(Vec<Vec<u8>>),
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading<T> {
    /// The value of all writes that the answers have.
    pub value: T,
    /// Whether confirmed writes may be missing: an owner is silent, and too few of the others have had their copies for long
    /// enough to know.
    pub partial: bool,
}

impl<T> Reading<T> {
    fn whole(self) -> Result<T, Error> {
        if self.partial { Err(StateError::Partial.into()) } else { Ok(self.value) }
    }
}

#[derive(Clone)]
struct Handle {
    node: Node,
    kind: Kind,
    name: Bytes,
    confirm: Confirm,
}

impl Handle {
    fn new(node: &Node, kind: Kind, name: &str) -> Handle {
        Handle {
            node: node.clone(),
            kind,
            name: Bytes::copy_from_slice(name.as_bytes()),
            confirm: Confirm::default(),
        }
    }

    async fn update(&self, op: Op) -> Result<(), Error> {
        let (name, confirm) = (self.name.clone(), self.confirm);
        self.node.ask_work(|reply| WorkCommand::Update { name, op, confirm, reply }).await?
    }

    async fn read<T>(&self, value: impl FnOnce(Option<Value>) -> T) -> Result<Reading<T>, Error> {
        let (kind, name) = (self.kind, self.name.clone());
        let found = self.node.ask_work(|reply| WorkCommand::Read { kind, name, reply }).await??;
        Ok(Reading { value: value(found.value), partial: found.partial })
    }

    async fn watch<T: Clone + PartialEq>(&self, value: fn(Option<Value>) -> T) -> Result<Watch<T>, Error> {
        let (kind, name) = (self.kind, self.name.clone());
        let found: Watched = self.node.ask_work(|reply| WorkCommand::Watch { kind, name, reply }).await??;
        Ok(Watch::new(found, value))
    }

    fn confirmed_by(mut self, confirm: Confirm) -> Handle {
        self.confirm = confirm;
        self
    }
}

#[cfg(feature = "internals")]
impl Node {
    /// The copy that this node itself holds of an object, as an owner or until it is handed over. It asks no other node and
    /// repairs nothing, so the owners' copies can be compared as they are.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn held(&self, kind: Kind, name: &str) -> Result<Option<Value>, Error> {
        let key = crate::replication::replicator::state_key(kind, name.as_bytes());
        self.ask_work(|reply| WorkCommand::Held { key, reply }).await
    }
}

/// What objects of all kinds do alike; each shows something of a type of its own.
macro_rules! objects {
    ($($object:ident: $shows:ty = $show:path,)*) => {$(
        impl $object {
            /// Watches the object: what it shows now, and after each change the newest. It goes on while owners restart,
            /// are away or are others, until it is dropped.
            ///
            /// # Errors
            /// [`Error::State`] when this node has too many watches; [`Error::Closed`].
            pub async fn watch(&self) -> Result<Watch<$shows>, Error> {
                self.0.watch($show).await
            }

            /// The same object, whose writes are told to be made once so many nodes have them.
            #[must_use]
            pub fn confirmed_by(self, confirm: Confirm) -> $object {
                $object(self.0.confirmed_by(confirm))
            }

            /// Deletes the object: all that this node holds of it as an owner, or else what the owners tell. What is
            /// written at the same time stays. An object of this name begins anew with the next write.
            ///
            /// # Errors
            /// As [`Counter::add`], and [`Error::State`] when too few owners answer to know what there is.
            pub async fn delete(&self) -> Result<(), Error> {
                self.0.update(Op::Delete { kind: self.0.kind }).await
            }

            /// Lets the object be deleted after this time, 10 years at most, by the clocks of its owners; or never, which
            /// is so from the start. It concerns the object that there is: one that begins anew has no time.
            ///
            /// # Errors
            /// As [`delete`](Self::delete).
            pub async fn expire_in(&self, time: Option<Duration>) -> Result<(), Error> {
                let at = time.map(|time| unix_now() + time.min(MAX_TTL));
                let at_ms = at.map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
                self.0.update(Op::Expire { kind: self.0.kind, at_ms }).await
            }
        }
    )*};
}

objects! {
    Counter: i128 = shown::sum,
    Register: Option<Vec<u8>> = shown::last,
    MultiRegister: Vec<Vec<u8>> = shown::values,
    Set: Vec<Vec<u8>> = shown::members,
    Map: Vec<(Vec<u8>, FieldValue)> = shown::fields,
}

impl Counter {
    pub(super) fn new(node: &Node, key: &str) -> Counter {
        Counter(Handle::new(node, Kind::Counter, key))
    }

    /// Adds `by`, which may be negative.
    ///
    /// # Errors
    /// [`Error::State`]: nothing was added. [`Error::Unconfirmed`]: the addition is still under way.
    pub async fn add(&self, by: i64) -> Result<(), Error> {
        self.0.update(Op::Add { by }).await
    }

    /// The sum of all additions that have reached the owners.
    ///
    /// # Errors
    /// [`Error::State`] when no owner answers, or too few to be sure.
    pub async fn get(&self) -> Result<i128, Error> {
        self.read().await?.whole()
    }

    /// The sum in what the owners that answer have, also if these are too few to be sure.
    ///
    /// # Errors
    /// [`Error::State`] when no owner answers.
    pub async fn read(&self) -> Result<Reading<i128>, Error> {
        self.0.read(shown::sum).await
    }
}

impl Register {
    pub(super) fn new(node: &Node, key: &str) -> Register {
        Register(Handle::new(node, Kind::Register, key))
    }

    /// Sets the value.
    ///
    /// # Errors
    /// As [`Counter::add`], and [`Error::State`] when this node's clock is too far behind the timestamps that it has
    /// seen.
    pub async fn set(&self, value: &[u8]) -> Result<(), Error> {
        self.0.update(Op::Set { value: value.to_vec() }).await
    }

    /// The last value written that has reached the owners.
    ///
    /// # Errors
    /// As [`Counter::get`].
    pub async fn get(&self) -> Result<Option<Vec<u8>>, Error> {
        self.read().await?.whole()
    }

    /// As [`Counter::read`].
    ///
    /// # Errors
    /// As [`Counter::read`].
    pub async fn read(&self) -> Result<Reading<Option<Vec<u8>>>, Error> {
        self.0.read(shown::last).await
    }
}

impl MultiRegister {
    pub(super) fn new(node: &Node, key: &str) -> MultiRegister {
        MultiRegister(Handle::new(node, Kind::Multi, key))
    }

    /// Sets the value. It replaces the values that this node holds as an owner, or else those that the owners tell; what
    /// is written concurrently elsewhere stays beside it. A value has at most 8 KiB.
    ///
    /// # Errors
    /// As [`Counter::add`], and [`Error::State`] when this node isn't an owner and no owner answers.
    pub async fn set(&self, value: &[u8]) -> Result<(), Error> {
        self.0.update(Op::Replace { value: value.to_vec() }).await
    }

    /// The values, sorted, each once: none if nothing was written, and several if nobody has seen all of them and
    /// written since. They are 64 at most: a write that would add another one isn't acknowledged.
    ///
    /// # Errors
    /// As [`Counter::get`].
    pub async fn get(&self) -> Result<Vec<Vec<u8>>, Error> {
        self.read().await?.whole()
    }

    /// As [`Counter::read`].
    ///
    /// # Errors
    /// As [`Counter::read`].
    pub async fn read(&self) -> Result<Reading<Vec<Vec<u8>>>, Error> {
        self.0.read(shown::values).await
    }
}

impl Set {
    pub(super) fn new(node: &Node, key: &str) -> Set {
        Set(Handle::new(node, Kind::Set, key))
    }

    /// Adds an element.
    ///
    /// # Errors
    /// As [`Counter::add`].
    pub async fn insert(&self, element: &[u8]) -> Result<(), Error> {
        self.0.update(Op::Insert { element: element.to_vec() }).await
    }

    /// Removes the instances of an element that this node, or an owner that it asks, has observed; a concurrent add
    /// wins.
    ///
    /// # Errors
    /// As [`Counter::add`].
    pub async fn remove(&self, element: &[u8]) -> Result<(), Error> {
        self.0.update(Op::Remove { element: element.to_vec() }).await
    }

    /// The elements, sorted.
    ///
    /// # Errors
    /// As [`Counter::get`].
    pub async fn members(&self) -> Result<Vec<Vec<u8>>, Error> {
        self.read().await?.whole()
    }

    /// As [`Counter::read`].
    ///
    /// # Errors
    /// As [`Counter::read`].
    pub async fn read(&self) -> Result<Reading<Vec<Vec<u8>>>, Error> {
        self.0.read(shown::members).await
    }
}

impl Map {
    pub(super) fn new(node: &Node, key: &str) -> Map {
        Map(Handle::new(node, Kind::Map, key))
    }

    async fn change(&self, field: &[u8], op: FieldOp) -> Result<(), Error> {
        self.0.update(Op::Field { name: field.to_vec(), op }).await
    }

    /// Adds `by`, which may be negative, to the counter `field`. If the field is removed at the same time, only `by` is
    /// left.
    ///
    /// # Errors
    /// As [`MultiRegister::set`].
    pub async fn add(&self, field: &[u8], by: i64) -> Result<(), Error> {
        self.change(field, FieldOp::Add { by }).await
    }

    /// Sets the register `field`, of at most 8 KiB.
    ///
    /// # Errors
    /// As [`MultiRegister::set`], and as [`Register::set`] for the clock.
    pub async fn set(&self, field: &[u8], value: &[u8]) -> Result<(), Error> {
        self.change(field, FieldOp::Set { value: value.to_vec() }).await
    }

    /// Sets the multi-value register `field`, as [`MultiRegister::set`].
    ///
    /// # Errors
    /// As [`MultiRegister::set`].
    pub async fn replace(&self, field: &[u8], value: &[u8]) -> Result<(), Error> {
        self.change(field, FieldOp::Replace { value: value.to_vec() }).await
    }

    /// Adds an element to the set `field`.
    ///
    /// # Errors
    /// As [`MultiRegister::set`].
    pub async fn insert(&self, field: &[u8], element: &[u8]) -> Result<(), Error> {
        self.change(field, FieldOp::Insert { element: element.to_vec() }).await
    }

    /// Removes an element from the set `field`, as [`Set::remove`].
    ///
    /// # Errors
    /// As [`MultiRegister::set`].
    pub async fn remove(&self, field: &[u8], element: &[u8]) -> Result<(), Error> {
        self.change(field, FieldOp::Remove { element: element.to_vec() }).await
    }

    /// Removes what this node, or an owner that it asks, has observed of the fields of this name, of all kinds; what is
    /// written to them at the same time stays.
    ///
    /// # Errors
    /// As [`MultiRegister::set`].
    pub async fn clear(&self, field: &[u8]) -> Result<(), Error> {
        self.change(field, FieldOp::Clear).await
    }

    /// The fields that have reached the owners, sorted by name. A register whose only write is too far ahead of this
    /// node's clock isn't shown yet.
    ///
    /// # Errors
    /// As [`Counter::get`].
    pub async fn get(&self) -> Result<Vec<(Vec<u8>, FieldValue)>, Error> {
        self.read().await?.whole()
    }

    /// As [`Counter::read`].
    ///
    /// # Errors
    /// As [`Counter::read`].
    pub async fn read(&self) -> Result<Reading<Vec<(Vec<u8>, FieldValue)>>, Error> {
        self.0.read(shown::fields).await
    }
}
