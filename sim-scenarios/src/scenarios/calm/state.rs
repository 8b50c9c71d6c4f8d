//! Replicated state: what a write and a read cost at an owner, at another member and at an observer.

use std::collections::BTreeSet;
use std::time::Duration;

use chaos::property::Violation;
use nurl::internals::replication::crdt::{Kind, Value};

use super::costs::{Bill, Till};
use super::numbers::OWNERS;
use crate::cluster::copies::{self, Object};
use crate::cluster::secret;

const RIGHT: &str = "a write is applied once, and a read gives what was written";

/// The counter's key as the ring hashes it: its kind and its name.
const COUNTER: (&str, &[u8]) = ("visits", b"\x01visits");
const SET: (&str, &[u8]) = ("guests", b"\x03guests");

async fn owners(till: &Till<'_>, key: &[u8]) -> Vec<usize> {
    let peers = &till.cluster.peers;
    let ring = till.cluster.ring(&peers[0], &peers[1]).await;
    let number = |key| peers.iter().position(|peer| peer.key == key).expect("it is one of them");
    ring.owners(key, OWNERS).into_iter().map(number).collect()
}

/// A write: DELTA to each other owner, and its ACK. Nobody here has a store, so two nodes have to have it.
fn write(till: &Till<'_>, by: usize, owners: &[usize]) -> Bill {
    let mut bill = Bill::new(till.shape);
    bill.crosses();
    for owner in owners.iter().filter(|owner| **owner != by) {
        bill.messages(by, *owner, 1);
        bill.messages(*owner, by, 1);
    }
    bill
}

/// READ to each owner, and its answer.
fn read(till: &Till<'_>, reader: usize, owners: &[usize]) -> Bill {
    let mut bill = Bill::new(till.shape);
    for owner in owners {
        bill.messages(reader, *owner, 1);
        bill.messages(*owner, reader, 1);
    }
    bill
}

/// Writes and reads; the first write is by an owner, and makes the key.
pub(super) async fn act(till: &mut Till<'_>, member: usize) -> Result<(), Violation> {
    let owners_of_counter = owners(till, COUNTER.1).await;
    let mut sum = 0;
    let slowest = |till: &Till<'_>, of: usize, owners: &[usize]| {
        owners.iter().map(|owner| till.round_trip(of, *owner)).max().unwrap_or(Duration::ZERO)
    };
    // The other one that an owner waits for, or the second of the two that a member waits for.
    let second_holder = |till: &Till<'_>, of: usize, owners: &[usize]| {
        let others = owners.iter().filter(|owner| **owner != of);
        let mut trips: Vec<Duration> = others.map(|owner| till.round_trip(of, *owner)).collect();
        trips.sort_unstable();
        trips[usize::from(!owners.contains(&of))]
    };
    let all = &owners_of_counter;
    let (first, second) = (all[0], all[1]);
    for (by, what) in [
        (first, "the first add, by an owner"),
        (second, "an add by an owner"),
        (member, "an add by a member"),
    ] {
        sum += 3;
        let node = till.cluster.peers[by].node(&till.world).await;
        let (begun, bound) = (till.world.elapsed(), second_holder(till, by, all));
        let done = node.counter(COUNTER.0).add(3).await;
        done.map_err(|error| Violation::safety(RIGHT, format!("{what}: {error}")))?;
        till.took(what, till.world.elapsed() - begun, bound)?;
        let bill = write(till, by, all);
        till.pay(what, &bill).await?;
    }
    for by in [member, till.shape.nodes() - 1] {
        let node = till.cluster.peers[by].node(&till.world).await;
        let (begun, bound) = (till.world.elapsed(), slowest(till, by, all));
        let got = node.counter(COUNTER.0).get().await;
        if !matches!(got, Ok(value) if value == sum) {
            return Err(Violation::safety(RIGHT, format!("{got:?}, not {sum}")));
        }
        till.took("a read", till.world.elapsed() - begun, bound)?;
        till.pay("a read", &read(till, by, all)).await?;
    }
    let owners_of_set = owners(till, SET.1).await;
    let bill = write(till, member, &owners_of_set);
    let node = till.cluster.peers[member].node(&till.world).await;
    let begun = till.world.elapsed();
    let done = node.set(SET.0).insert(&secret("a guest")).await;
    done.map_err(|error| Violation::safety(RIGHT, format!("the first insert: {error}")))?;
    let bound = second_holder(till, member, &owners_of_set);
    till.took("the first insert", till.world.elapsed() - begun, bound)?;
    till.pay("the first insert, by a member", &bill).await?;
    let guests = BTreeSet::from([secret("a guest").to_vec()]);
    holds(till, (Kind::Set, SET.0), |held| copies::elements(held) == guests).await
}

/// Each owner holds what was written.
async fn holds(
    till: &Till<'_>,
    object: Object<'_>,
    is_right: impl Fn(Option<&Value>) -> bool,
) -> Result<(), Violation> {
    let all: Vec<_> = till.cluster.peers.iter().collect();
    match till.cluster.same_copy(object, &all).await {
        Ok(held) if is_right(held.as_ref()) => Ok(()),
        Ok(held) => Err(Violation::safety(RIGHT, format!("the owners hold {held:?}"))),
        Err(differs) => Err(Violation::safety(RIGHT, differs)),
    }
}
