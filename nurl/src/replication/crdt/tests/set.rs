//! The observed-remove set.

use std::collections::BTreeMap;

use super::*;

/// Found by the fuzzer `crdt_value`: the owners that were told one of the two each never agreed.
#[test]
fn a_writer_that_says_two_things_under_one_dot_leaves_equal_copies() {
    let said = |element: &[u8]| Value::Set(OrSet::default().adding(replica(1), element, 4).unwrap());
    let (one, other) = (said(b"one"), said(b"other"));
    assert_eq!(one.news(&other), [(replica(1), News::Written)], "it is its writer's to change");
    assert_eq!(other.news(&one), []);
    let both = merged(&one, &other);
    assert_eq!(both, merged(&other, &one));
    assert_eq!(Value::decode(&both.encode()), Ok(both.clone()));
    let Value::Set(set) = &both else { unreachable!() };
    assert_eq!(set.iter().collect::<Vec<_>>(), [b"other"], "the greater element stays");
    let removal = Value::Set(set.removing(b"other"));
    for copy in [&one, &other, &both] {
        let removed = merged(copy, &removal);
        assert_eq!(removed, merged(&removal, copy));
        assert_eq!(merged(&removed, &other), removed, "what was removed stays away");
    }
}

#[test]
fn a_hundred_thousand_adds_and_removes_leave_under_4_kib() {
    let mut set = OrSet::default();
    for n in 0..100_000u64 {
        let element = (n % 100).to_le_bytes();
        if n / 100 % 2 == 0 {
            set.add(replica(1 + (n % 3) as u8), &element).unwrap();
        } else {
            set.remove(&element);
        }
    }
    for n in 0..100u64 {
        set.add(replica(1), &n.to_le_bytes()).unwrap();
    }
    assert_eq!(set.len(), 100);
    let size = Value::Set(set).encode().len();
    assert!(size < 4096, "{size}");
}

#[test]
fn a_removed_element_stays_removed_and_a_concurrent_add_wins() {
    let (mut a, mut b) = (OrSet::default(), OrSet::default());
    a.add(replica(1), b"x").unwrap();
    b.merge(&a).unwrap();
    let old = a.clone();
    a.remove(b"x");
    a.merge(&old).unwrap();
    assert!(!a.contains(b"x"), "an old copy brings nothing back");
    let again = b.add(replica(2), b"x").unwrap();
    a.merge(&again).unwrap();
    b.merge(&a).unwrap();
    assert!(a.contains(b"x") && b.contains(b"x"));
    assert_eq!(Value::Set(a).encode(), Value::Set(b).encode());
}

#[test]
fn a_delta_that_overtook_another_waits_in_the_cloud_without_hiding_it() {
    let mut a = OrSet::default();
    let first = a.add(replica(1), b"x").unwrap();
    let second = a.add(replica(1), b"y").unwrap();
    let mut b = OrSet::default();
    b.merge(&second).unwrap();
    assert!(b.contains(b"y") && !b.contains(b"x"));
    b.merge(&first).unwrap();
    assert_eq!(b, a);
}

#[test]
fn a_context_has_bounds_for_actors_and_for_gaps() {
    let id = |n: u64| ReplicaId { incarnation: n, ..replica(1) };
    let mut set = OrSet::default();
    let mut many = OrSet::default();
    for n in 0..MAX_ACTORS as u64 {
        many.merge(&set.adding(id(n), b"x", 0).unwrap()).unwrap();
    }
    let full = many.clone();
    assert_eq!(many.add(id(1 << 40), b"x"), Err(CrdtError::TooManyActors));
    assert_eq!(many, full, "nothing changed");
    assert!(Value::Set(many).encode().len() < MAX_STATE_BYTES);
    // Only every second dot arrives, so none continues a prefix.
    for n in 1..=MAX_CLOUD_DOTS as u64 {
        let delta = OrSet::default().adding(id(1), b"x", 2 * n).unwrap();
        set.merge(&delta).unwrap();
    }
    let beyond = OrSet::default().adding(id(1), b"x", 1 << 40).unwrap();
    assert_eq!(set.merge(&beyond), Err(CrdtError::TooManyActors));
    assert_eq!(Value::decode(&Value::Set(set.clone()).encode()), Ok(Value::Set(set)));
}

#[test]
fn a_new_store_incarnation_never_reuses_a_dot() {
    let mut a = OrSet::default();
    a.add(replica(1), b"lost").unwrap();
    let mut b = a.clone();
    b.remove(b"lost");
    // The disk is gone; the same key comes back with another incarnation and an empty state.
    let reborn = ReplicaId { incarnation: 77, ..replica(1) };
    let mut fresh = OrSet::default();
    fresh.add(reborn, b"new").unwrap();
    b.merge(&fresh).unwrap();
    assert!(b.contains(b"new"), "under its old id this would be a dot that was seen and removed");
}

/// How many dots an element has at most of one actor.
fn most_dots(set: &OrSet) -> usize {
    let mut dots = BTreeMap::<(&[u8], ReplicaId), usize>::new();
    for (dot, element) in set.dots() {
        *dots.entry((element, dot.actor)).or_default() += 1;
    }
    dots.into_values().max().unwrap_or(0)
}

/// The writers have no copy: they know the number of their last write, and of the element only when they remove it.
#[test]
fn a_hundred_thousand_blind_adds_and_removes_of_three_actors_leave_under_4_kib() {
    let mut owner = OrSet::default();
    for n in 0..100_000u64 {
        let (actor, element) = (replica(1 + (n % 3) as u8), (n % 100).to_le_bytes());
        let delta = if n % 7 == 0 {
            owner.removing(&element)
        } else {
            OrSet::default().adding(actor, &element, owner.context().highest(&actor)).unwrap()
        };
        owner.merge(&delta).unwrap();
        owner.compact(&delta);
        assert!(n % 1000 > 0 || most_dots(&owner) <= 1);
    }
    assert!(owner.len() > 80 && most_dots(&owner) == 1, "those removed last are missing");
    let size = Value::Set(owner).encode().len();
    assert!(size < 4096, "{size}");
}

#[test]
fn an_add_that_its_writer_has_repeated_goes_with_the_later_one() {
    let add = |dot: u64| OrSet::default().adding(replica(1), b"x", dot - 1).unwrap();
    let (mut here, mut there) = (OrSet::default(), OrSet::default());
    for (set, order) in [(&mut here, [1, 2]), (&mut there, [2, 1])] {
        for dot in order {
            set.merge(&add(dot)).unwrap();
            set.compact(&add(dot));
        }
    }
    assert_eq!((&here, most_dots(&here)), (&there, 1));
    let removal = here.removing(b"x");
    there.merge(&removal).unwrap();
    there.merge(&add(1)).unwrap();
    assert!(!there.contains(b"x"), "its first add doesn't come back");
}
