//! What a node keeps in memory for each key that it holds.

use std::alloc::System;
use std::sync::Arc;
use std::time::Duration;

use nurl::PublicKey;
use nurl::internals::replication::identity::ReplicaId;
use nurl::internals::replication::replicator::{Config, Confirm, Op, Replicator};
use nurl::internals::ring::{Ring, RingMember};
use nurl::rt::{Rng, time};
use rand_core::SeedableRng;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const KEYS: u64 = 20_000;

/// For a counter with one writer and a name of 16 bytes: a million of them in 400 MB.
const MOST_BYTES: usize = 400;

/// What an allocator takes for itself, for each block.
const BLOCK_BYTES: usize = 8;

#[test]
fn a_key_costs_at_most_400_bytes() {
    let (mut now, mut wall) = (time::now(), Duration::from_secs(1_700_000_000));
    let key = |n: u8| PublicKey::from_bytes([n; 32]);
    let member = |n: u8| RingMember {
        boot: 0,
        key: key(n),
        seed: [n; 8],
        weight: 1,
        zone: String::new(),
        kinds: Vec::new(),
        live: true,
        placed: true,
    };
    let ring = Arc::new(Ring::new((1..=3).map(member)));
    let local = ReplicaId { key: key(1), incarnation: 1 };
    // With a store, so that a write is confirmed at once.
    let config = Config { durable: true, ..Config::default() };
    let mut node = Replicator::new(config, local, now, Rng::from_seed([1; 32]));
    node.set_ring(now, ring);
    let region = Region::new(ALLOCATOR);
    for n in 0..KEYS {
        node.update(now, wall, n, format!("{n:016x}").as_bytes(), (Op::Add { by: 1 }, Confirm::Safe));
        drain(&mut node);
    }
    // For as long as the node compares its keys with the other owners', it has their digests.
    for _ in 0..30 {
        (now, wall) = (now + Duration::from_secs(1), wall + Duration::from_secs(1));
        node.handle_timeout(now, wall);
        drain(&mut node);
    }
    let change = region.change();
    assert!(node.get(b"\x010000000000000000").is_some());
    let blocks = change.allocations - change.deallocations;
    let held = change.bytes_allocated - change.bytes_deallocated + blocks * BLOCK_BYTES;
    let each = held / KEYS as usize;
    assert!(each <= MOST_BYTES, "{each} bytes in {} blocks", blocks as f64 / KEYS as f64);
    assert!(each > 100, "the measure measures something: {each}");
}

fn drain(node: &mut Replicator) {
    while node.poll_changed().is_some() {}
    while node.poll_event().is_some() {}
    while node.poll_transmit().is_some() {}
}
