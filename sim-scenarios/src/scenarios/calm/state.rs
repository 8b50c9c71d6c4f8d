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

/// A write by an owner, which asks the others first if it has no copy: READ and its answer, then DELTA.
fn by_owner(till: &Till<'_>, owner: usize, owners: &[usize], has_copy: bool) -> Bill {
    let mut bill = Bill::new(till.shape);
    bill.crosses();
    for other in owners {
        bill.messages(owner, *other, if has_copy { 1 } else { 2 });
        bill.messages(*other, owner, i64::from(!has_copy));
    }
    bill
}

/// A write by another member: DELTA to each owner and its ACK, of which the first one is awaited. Owners without a copy ask
/// each other first.
fn by_member(till: &Till<'_>, member: usize, owners: &[usize], have_copy: bool) -> Bill {
    let mut bill = Bill::new(till.shape);
    bill.crosses();
    for owner in owners {
        bill.messages(member, *owner, 1);
        bill.messages(*owner, member, 1);
        for other in owners.iter().filter(|_| !have_copy) {
            bill.messages(*owner, *other, 1);
            bill.messages(*other, *owner, 1);
        }
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
    let nearest = |till: &Till<'_>, of: usize, owners: &[usize]| {
        owners.iter().map(|owner| till.round_trip(of, *owner)).min().unwrap_or(Duration::ZERO)
    };
    let all = &owners_of_counter;
    let (first, second) = (all[0], all[1]);
    for (by, bill, bound, what) in [
        (first, by_owner(till, first, all, false), slowest(till, first, all), "the first add, by an owner"),
        (second, by_owner(till, second, all, true), Duration::ZERO, "an add by an owner"),
        (member, by_member(till, member, all, true), nearest(till, member, all), "an add by a member"),
    ] {
        sum += 3;
        let node = till.cluster.peers[by].node(&till.world).await;
        let begun = till.world.elapsed();
        let done = node.counter(COUNTER.0).add(3).await;
        done.map_err(|error| Violation::safety(RIGHT, format!("{what}: {error}")))?;
        till.took(what, till.world.elapsed() - begun, bound)?;
        till.pay(what, &bill).await?;
        holds(till, (Kind::Counter, COUNTER.0), |held| copies::sum(held) == sum).await?;
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
    let bill = by_member(till, member, &owners_of_set, false);
    let node = till.cluster.peers[member].node(&till.world).await;
    let begun = till.world.elapsed();
    let done = node.set(SET.0).insert(&secret("a guest")).await;
    done.map_err(|error| Violation::safety(RIGHT, format!("the first insert: {error}")))?;
    let among = owners_of_set.iter().map(|owner| slowest(till, *owner, &owners_of_set)).max();
    let bound = slowest(till, member, &owners_of_set) + among.unwrap_or(Duration::ZERO);
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
