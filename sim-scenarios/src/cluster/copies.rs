//! What the owners of an object hold, without a read.
//!
//! A read asks the owners and has those repaired that lag, so a check that reads heals what it checks. These only look: each
//! node tells its own copy, and asks nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chaos::property::Violation;
use nurl::internals::node::Role;
use nurl::internals::replication::crdt::{Kind, Value};
use nurl::internals::replication::replicator::state_key;

use super::{ANSWERS, Cluster, Deadline, Peer};
use nurl::rt::time;

/// Owners of a key, the default.
pub const REPLICAS: usize = 3;

/// An object: its kind and its name.
pub type Object<'a> = (Kind, &'a str);

impl Cluster {
    /// The copy of an object that a node holds. Also none if it doesn't answer, as when it shuts down.
    pub async fn held(&self, peer: &Peer, (kind, name): Object<'_>) -> Option<Value> {
        let node = peer.node(&self.world).await;
        time::timeout(ANSWERS, node.held(kind, name)).await.ok()?.ok()?
    }

    /// Those of these nodes that own the object, first the first owner, by the ring that two of them see.
    ///
    /// # Panics
    /// If fewer than two of them are members or workers.
    pub async fn owners(&self, (kind, name): Object<'_>, among: &[&Peer]) -> Vec<Peer> {
        let mut see = among.iter().filter(|peer| peer.role != Role::Observer);
        let (of, by) = (see.next().expect("one has a view"), see.next().expect("another one has a view"));
        let ring = self.ring(of, by).await;
        let owners = ring.owners(&state_key(kind, name.as_bytes()), REPLICAS);
        let peer = |key| among.iter().find(|peer| peer.key == key).map(|peer| (*peer).clone());
        owners.into_iter().filter_map(peer).collect()
    }

    /// The state of an object that its owners among these nodes hold, all of them the same bytes; `None` if none of them
    /// has one.
    ///
    /// # Errors
    /// The owners that differ.
    pub async fn same_copy(&self, object: Object<'_>, among: &[&Peer]) -> Result<Option<Value>, String> {
        let mut copies = BTreeMap::new();
        let mut value = None;
        for owner in self.owners(object, among).await {
            let held = self.held(&owner, object).await;
            copies.entry(held.as_ref().map(Value::digest)).or_insert_with(Vec::new).push(owner.name);
            value = held;
        }
        if copies.len() == 1 {
            return Ok(value);
        }
        let told = copies.iter().map(|(digest, owners)| match digest {
            Some(_) => format!("{} one copy", owners.join(", ")),
            None => format!("{} none", owners.join(", ")),
        });
        Err(format!("{} differs: {}", object.1, told.collect::<Vec<_>>().join("; ")))
    }

    /// Waits until these nodes agree: no write of theirs waits for an owner, and the owners of each object hold the same
    /// bytes. Returns the state of each.
    ///
    /// # Errors
    /// The property, with what still differs when `limit` is over.
    pub async fn agreed(
        &self,
        property: &'static str,
        limit: Duration,
        objects: &[Object<'_>],
        among: &[&Peer],
    ) -> Result<Vec<Option<Value>>, Violation> {
        let deadline = Deadline::new(self.world, property, limit);
        loop {
            let (values, missing) = self.copies(objects, among).await;
            if !deadline.still_missing(missing).await? {
                return Ok(values);
            }
        }
    }

    /// The state of each object that its owners agree on, and what is missing until these nodes agree.
    pub async fn copies(&self, objects: &[Object<'_>], among: &[&Peer]) -> (Vec<Option<Value>>, Vec<String>) {
        let (mut values, mut missing) = (Vec::new(), Vec::new());
        for peer in among {
            let waiting = self.metric(peer, "state.unacknowledged").await;
            if waiting > 0 {
                missing.push(format!("{waiting} writes of {} wait for an owner", peer.name));
            }
        }
        for object in objects {
            match self.same_copy(*object, among).await {
                Ok(value) => values.push(value),
                Err(differs) => missing.push(differs),
            }
        }
        (values, missing)
    }
}

/// The sum of a counter's state; 0 without one.
pub fn sum(state: Option<&Value>) -> i128 {
    match state {
        Some(Value::Counter(counter)) => counter.value(),
        _ => 0,
    }
}

/// The elements of a set's state.
pub fn elements(state: Option<&Value>) -> BTreeSet<Vec<u8>> {
    match state {
        Some(Value::Set(set)) => set.iter().map(<[u8]>::to_vec).collect(),
        _ => BTreeSet::new(),
    }
}

/// The value of a register's state.
pub fn content(state: Option<&Value>) -> Option<Vec<u8>> {
    match state {
        Some(Value::Register(register)) => register.value().map(<[u8]>::to_vec),
        _ => None,
    }
}
