//! Entries and their laws.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::harness::*;
use crate::compute::job::custody::entry::{Course, End, Entry, Note, Step, Terms};
use crate::compute::job::warrant::{Named, Warrant};
use crate::compute::job::{JobError, Record, TaskId, digest};
use crate::key::PublicKey;
use crate::ring::Epoch;

/// The end that a liar tells.
pub(super) fn forged_end(by: PublicKey) -> Course {
    let token = Epoch { counter: 9, owner: by };
    let record = Record::new(Err(JobError::permanent("so I say")), token, by);
    Course { end: Some(End { record, at_ms: u64::from(NOW_S) * 1_000 }), ..Course::default() }
}

/// A task that `by` signs.
pub(super) fn terms_of(world: &mut World, by: PublicKey, task: TaskId, payload: &[u8]) -> (Terms, Bytes) {
    let digest = digest("work", b"key", payload);
    let node = &world.nodes[&by];
    let by = (&node.secret, &node.pass, &world.authority.mesh());
    let warrant = Warrant::sign(Named { task, digest }, &detached(300), world.wall(), by);
    let terms = Terms { warrant, kind: "work".to_owned(), key: Bytes::from_static(b"key"), digest };
    (terms, Bytes::copy_from_slice(payload))
}

fn course() -> impl Strategy<Value = Course> {
    let end = (0u8..3, 0u64..2, 0u64..3).prop_map(|(result, counter, at_ms)| {
        let by = PublicKey::from_bytes([1; 32]);
        let outcome = match result {
            0 => Err(JobError::Deadline),
            n => Ok(Bytes::from(vec![n])),
        };
        End { record: Record::new(outcome, Epoch { counter, owner: by }, by), at_ms }
    });
    let note = (0u64..40, 1u8..3).prop_map(|(at_ms, by)| Note {
        at_ms,
        step: Step::Taken,
        by: PublicKey::from_bytes([by; 32]),
        worker: None,
        text: String::new(),
    });
    let history = proptest::collection::btree_set(note, 0..24);
    let cancel = proptest::option::of(0u64..3);
    (cancel, proptest::option::of(end), history).prop_map(
        |(cancel_ms, end, history): (_, _, BTreeSet<Note>)| {
            let mut course = Course { cancel_ms, end, ..Course::default() };
            history.into_iter().for_each(|note| course.note(note));
            course
        },
    )
}

fn joined(a: &Course, b: &Course) -> Course {
    let mut a = a.clone();
    a.merge(b.clone());
    a
}

proptest! {
    #[test]
    fn courses_merge_in_any_order_to_the_same(a in course(), b in course(), c in course()) {
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(joined(&a, &joined(&b, &c)), joined(&joined(&a, &b), &c));
        let once = joined(&a, &b);
        prop_assert_eq!(joined(&once, &b), once.clone());
        prop_assert!(!once.clone().merge(a));
    }
}

#[test]
fn equal_marks_are_equal_states_whatever_bytes_are_left() {
    let mut world = World::new(1, 1, false);
    let client = world.client();
    let (terms, payload) = terms_of(&mut world, client, TaskId::from_bytes([1; 16]), b"payload");
    let open = Entry { terms, payload: Some(payload), course: Course::default() };
    let failed = Entry { course: forged_end(client), ..open.clone() };
    assert_ne!(open.mark(), failed.mark());
    let mut dropped = failed.clone();
    dropped.drop_bytes();
    assert_eq!((dropped.mark(), dropped.bytes()), (failed.mark(), 0));
    let mut again = dropped.clone();
    assert!(!again.merge(failed.clone()), "the state is the same");
    assert_eq!(again, failed, "and the bytes are back");
}

#[test]
fn a_custodians_clock_keeps_an_outcome_for_no_longer_than_its_submitter_asked() {
    let mut world = World::new(1, 1, false);
    let client = world.client();
    let (terms, payload) = terms_of(&mut world, client, TaskId::from_bytes([1; 16]), b"payload");
    let mut course = forged_end(client);
    course.end.as_mut().unwrap().at_ms = u64::MAX;
    let entry = Entry { terms, payload: Some(payload), course };
    assert_eq!(entry.kept_until_ms(), entry.terms.warrant.until_ms + 3_600_000);
}
