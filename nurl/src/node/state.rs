//! Replicated state, as the application uses it: a counter, a register, a multi-value register, a set, each under a key.
//!
//! A write is made locally, under this node's own replica id, and is then sent to the key's owners; it is never
//! applied twice. `Ok` means that the write is safe: an owner or this node's store has it. The objects of
//! different kinds under one key know nothing of each other. An observer has no replica id: one of
//! the object's owners writes in its place. A read asks the owners and merges their answers. No call waits for a quorum:
//! two readers may see different states until the owners have synchronised.

use bytes::Bytes;

use super::Node;
use super::command::WorkCommand;
use crate::error::{Error, StateError};
use crate::replication::crdt::{Kind, Value};
use crate::replication::replicator::{Confirm, Op};

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

    async fn read(&self) -> Result<Option<Value>, Error> {
        let (kind, name) = (self.kind, self.name.clone());
        let found = self.node.ask_work(|reply| WorkCommand::Read { kind, name, reply }).await??;
        if found.partial { Err(StateError::Partial.into()) } else { Ok(found.value) }
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
    /// [`Error::State`] when no owner answers.
    pub async fn get(&self) -> Result<i128, Error> {
        match self.0.read().await? {
            Some(Value::Counter(counter)) => Ok(counter.value()),
            _ => Ok(0),
        }
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
        match self.0.read().await? {
            Some(Value::Register(register)) => Ok(register.value().map(<[u8]>::to_vec)),
            _ => Ok(None),
        }
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
        match self.0.read().await? {
            Some(Value::Multi(register)) => Ok(register.values().into_iter().map(<[u8]>::to_vec).collect()),
            _ => Ok(Vec::new()),
        }
    }

    /// As [`Counter::held_digest`].
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn held_digest(&self) -> Result<Option<Digest>, Error> {
        self.0.held_digest().await
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
        match self.0.read().await? {
            Some(Value::Set(set)) => Ok(set.iter().map(<[u8]>::to_vec).collect()),
            _ => Ok(Vec::new()),
        }
    }
}
