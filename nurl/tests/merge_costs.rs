//! Merging a delta costs the delta, however large the state is: no part of the state is copied.

use std::alloc::System;

use nurl::PublicKey;
use nurl::internals::replication::crdt::{Author, Kind, MultiRegister, OrMap, OrSet, PnCounter, Value};
use nurl::internals::replication::identity::ReplicaId;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// More than any of the deltas needs, and far less than a copy of a state takes.
const MOST_BYTES: usize = 8 * 1024;

/// The n-th of the writers.
fn replica(n: u64) -> ReplicaId {
    ReplicaId { key: PublicKey::from_bytes([1; 32]), incarnation: n }
}

/// The delta of the n-th write: its writer has made no other, and knows of none.
fn delta(kind: Kind, n: u64) -> Value {
    match kind {
        Kind::Counter => Value::Counter(PnCounter::of(replica(n), n + 1, 0)),
        Kind::Set => Value::Set(OrSet::default().adding(replica(n), &n.to_le_bytes(), 0).unwrap()),
        Kind::Multi => {
            // A value that the next writer replaces.
            let known = MultiRegister::default().writing(replica(n + 1), b"replaced", 0).unwrap();
            Value::Multi(known.writing(replica(n), &n.to_le_bytes(), 0).unwrap())
        }
        Kind::Map => {
            let author = Author { replica: replica(n), floor: 0 };
            Value::Map(OrMap::default().adding(author, b"field", 1).unwrap())
        }
        Kind::Register => unreachable!("it has one value"),
    }
}

/// One test for all: the allocations that are counted are those of the process.
#[test]
fn a_delta_is_judged_and_merged_without_copying_the_state() {
    let wall = std::time::Duration::ZERO;
    for kind in [Kind::Counter, Kind::Set, Kind::Multi, Kind::Map] {
        let mut state = Value::new(kind);
        let many = if kind == Kind::Multi { 50 } else { 4_000 };
        for n in 0..many {
            state.merge(&delta(kind, 2 * n), wall).unwrap();
        }
        if kind == Kind::Multi {
            // What was replaced leaves a number for each writer.
            for n in 0..1_500 {
                let replaced = MultiRegister::default().writing(replica(1000 + 2 * n), b"", 0).unwrap();
                let later = Value::Multi(replaced.writing(replica(0), b"", n).unwrap());
                state.merge(&later, wall).unwrap();
            }
        }
        assert!(state.encode().len() > 8 * MOST_BYTES, "{kind:?}");
        for n in 0..40 {
            // By a new writer, and by one that has written.
            let delta = delta(kind, n);
            let author = replica(n).key;
            let region = Region::new(ALLOCATOR);
            let news = state.news(&delta).len();
            let slots = state.slots_with(&delta, &author);
            state.merge(&delta, wall).unwrap();
            state.compact(&delta);
            let bytes = region.change().bytes_allocated;
            assert!(bytes < MOST_BYTES, "{kind:?}: {bytes} bytes for {news} news beside {slots} slots");
        }
    }
}
