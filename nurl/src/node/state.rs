//! Replicated state, as the application uses it: a counter, a register, a set, each under a key.
//!
//! A write is made here, under this node's own replica id, and reaches the key's owners by itself; it is
//! never made twice. An observer has no such id: one of the key's owners writes in its place. A read asks the
//! owners and merges what they answer. Nothing waits for a quorum: two readers may see different states until
//! the owners have heard of each other.

use bytes::Bytes;

use super::Node;
use super::command::StateCommand;
use crate::Error;
use crate::state::crdt::Value;
use crate::state::replicator::Op;

/// A replicated counter; see [`Node::counter`].
#[derive(Clone)]
pub struct Counter(Handle);

/// A replicated register; see [`Node::register`].
#[derive(Clone)]
pub struct Register(Handle);

/// A replicated set; see [`Node::set`].
#[derive(Clone)]
pub struct Set(Handle);

#[derive(Clone)]
struct Handle {
    node: Node,
    key: Bytes,
}

impl Handle {
    fn new(node: &Node, key: &str) -> Handle {
        Handle { node: node.clone(), key: Bytes::copy_from_slice(key.as_bytes()) }
    }

    async fn update(&self, op: Op) -> Result<(), Error> {
        let key = self.key.clone();
        self.node.ask_state(|reply| StateCommand::Update { key, op, reply }).await?
    }

    async fn read(&self) -> Result<Option<Value>, Error> {
        let key = self.key.clone();
        self.node.ask_state(|reply| StateCommand::Read { key, reply }).await?
    }

    fn other_kind(&self) -> Error {
        Error::State(format!("{} holds another kind of value", String::from_utf8_lossy(&self.key)))
    }
}

impl Counter {
    pub(super) fn new(node: &Node, key: &str) -> Counter {
        Counter(Handle::new(node, key))
    }

    /// Adds `by`, which may be negative.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn add(&self, by: i64) -> Result<(), Error> {
        self.0.update(Op::Add { by }).await
    }

    /// The sum of all additions that the owners have heard of.
    ///
    /// # Errors
    /// [`Error::State`] when no owner answers or the key holds another kind of value.
    pub async fn get(&self) -> Result<i128, Error> {
        match self.0.read().await? {
            None => Ok(0),
            Some(Value::Counter(counter)) => Ok(counter.value()),
            Some(_) => Err(self.0.other_kind()),
        }
    }
}

impl Register {
    pub(super) fn new(node: &Node, key: &str) -> Register {
        Register(Handle::new(node, key))
    }

    /// Sets the value.
    ///
    /// # Errors
    /// [`Error::State`], also when this node's clock is too far ahead of what it has seen.
    pub async fn set(&self, value: &[u8]) -> Result<(), Error> {
        self.0.update(Op::Set { value: value.to_vec() }).await
    }

    /// The last value written, as far as the owners have heard.
    ///
    /// # Errors
    /// As [`Counter::get`].
    pub async fn get(&self) -> Result<Option<Vec<u8>>, Error> {
        match self.0.read().await? {
            None => Ok(None),
            Some(Value::Register(register)) => Ok(register.value().map(<[u8]>::to_vec)),
            Some(_) => Err(self.0.other_kind()),
        }
    }
}

impl Set {
    pub(super) fn new(node: &Node, key: &str) -> Set {
        Set(Handle::new(node, key))
    }

    /// Adds an element.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn insert(&self, element: &[u8]) -> Result<(), Error> {
        self.0.update(Op::Insert { element: element.to_vec() }).await
    }

    /// Removes an element where this node has observed it; a concurrent add wins.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn remove(&self, element: &[u8]) -> Result<(), Error> {
        self.0.update(Op::Remove { element: element.to_vec() }).await
    }

    /// The elements, sorted.
    ///
    /// # Errors
    /// As [`Counter::get`].
    pub async fn members(&self) -> Result<Vec<Vec<u8>>, Error> {
        match self.0.read().await? {
            None => Ok(Vec::new()),
            Some(Value::Set(set)) => Ok(set.iter().map(<[u8]>::to_vec).collect()),
            Some(_) => Err(self.0.other_kind()),
        }
    }
}
