//! A node whose disk takes no epoch counters.

use bytes::Bytes;

use super::super::*;
use super::harness::{World, key, secs};
use crate::ring::TENURE_RESERVE;

#[test]
fn a_task_that_needs_a_counter_that_the_disk_does_not_take_runs_elsewhere_at_once() {
    let mut world = World::new(1, 3);
    let submit = |world: &mut World, payload: &[u8]| {
        let task = world.submit(3, payload, SubmitOptions::default());
        world.run(secs(1));
        assert_eq!(world.outcomes(3, task), [Ok(Bytes::copy_from_slice(payload))]);
        world.runs_of(task)
    };
    world.nodes.get_mut(&key(1)).unwrap().persists = false;
    world.jobs(1).set_counters_kept(false);
    world.jobs(1).note_epoch(2 * TENURE_RESERVE);
    assert_eq!(submit(&mut world, b"beyond the reserve"), [key(2)]);
    assert_eq!(world.jobs(1).stats().handed_back, 1);
    // The submitter passes it over for a while.
    world.nodes.get_mut(&key(1)).unwrap().persists = true;
    world.jobs(1).set_counters_kept(true);
    world.run(secs(60));
    assert_eq!(submit(&mut world, b"when there is room"), [key(1)]);
}
