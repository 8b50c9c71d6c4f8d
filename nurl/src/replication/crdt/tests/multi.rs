//! The multi-value register.

use super::*;

fn values(register: &MultiRegister) -> Vec<&[u8]> {
    register.values().into_iter().collect()
}

fn merged_all<'a>(of: impl IntoIterator<Item = &'a MultiRegister>) -> MultiRegister {
    let mut all = MultiRegister::default();
    for one in of {
        all.merge(one).unwrap();
    }
    all
}

#[test]
fn concurrent_writes_stay_side_by_side_until_one_has_seen_them() {
    let (mut a, mut b) = (MultiRegister::default(), MultiRegister::default());
    let first = write(&mut a, replica(2), b"z").unwrap();
    let second = write(&mut b, replica(1), b"a").unwrap();
    b.merge(&first).unwrap();
    a.merge(&second).unwrap();
    assert_eq!(a, b);
    assert_eq!(values(&a), [b"a", b"z"], "sorted");
    let third = write(&mut b, replica(1), b"m").unwrap();
    assert_eq!(values(&b), [b"m"]);
    let beside = write(&mut a, replica(2), b"n").unwrap();
    for delta in [&third, &first, &beside, &second] {
        b.merge(delta).unwrap();
        a.merge(delta).unwrap();
    }
    assert_eq!((values(&a), &a), (vec![&b"m"[..], b"n"], &b), "what was replaced doesn't come back");
}

#[test]
fn a_writer_that_knows_only_its_own_number_leaves_one_value() {
    let mut owner = MultiRegister::default();
    for n in 0..1000u64 {
        // It has seen nothing, and its deltas before may be lost.
        let delta = MultiRegister::default().writing(replica(1), &n.to_le_bytes(), 3 * n).unwrap();
        owner.merge(&delta).unwrap();
    }
    assert_eq!(values(&owner), [999u64.to_le_bytes()]);
    assert!(Value::Multi(owner).encode().len() < 64, "no dots pile up");
}

#[test]
fn the_65th_value_side_by_side_is_a_typed_error_until_some_are_replaced() {
    let of = |n: u64| {
        let id = ReplicaId { incarnation: n, ..replica(1) };
        MultiRegister::default().writing(id, &[7; MAX_SIBLING_BYTES], 0).unwrap()
    };
    let most = MAX_SIBLINGS as u64;
    let mut full = merged_all((0..most).map(of).collect::<Vec<_>>().iter());
    let before = full.clone();
    assert_eq!(full.merge(&of(most)), Err(CrdtError::TooManySiblings));
    assert_eq!(full, before, "nothing changed");
    let bytes = Value::Multi(before).encode();
    assert!(Value::decode(&bytes).is_ok());
    let more = merged_all([&of(most), &of(most + 1)]);
    write(&mut full, replica(3), b"x").unwrap();
    assert_eq!(full.merge(&more), Ok(true));
    assert_eq!(full.values().len(), 2, "the two equal ones are one value");
    let large = MultiRegister::default().writing(replica(1), &[0; MAX_SIBLING_BYTES + 1], 0);
    assert!(matches!(large, Err(CrdtError::TooLarge { limit: MAX_SIBLING_BYTES, .. })));
    assert_eq!(full.writing(replica(1), b"", u64::MAX), Err(CrdtError::Overflow));
}

#[test]
fn the_4097th_writer_of_a_multi_value_register_is_a_typed_error() {
    let id = |n: u64| ReplicaId { incarnation: n, ..replica(1) };
    let mut register = MultiRegister::default();
    for n in 0..MAX_ACTORS as u64 {
        write(&mut register, id(n), b"x").unwrap();
    }
    let full = register.clone();
    assert_eq!(write(&mut register, id(9999), b"x"), Err(CrdtError::TooManyActors));
    let delta = MultiRegister::default().writing(id(9999), b"x", 0).unwrap();
    assert_eq!(register.merge(&delta), Err(CrdtError::TooManyActors));
    assert_eq!(register, full, "nothing changed");
    assert!(write(&mut register, id(0), b"x").is_ok());
}

#[test]
fn two_values_under_one_dot_leave_equal_copies() {
    let said = |value: &[u8]| MultiRegister::default().writing(replica(1), value, 4).unwrap();
    let (one, other) = (said(b"one"), said(b"other"));
    let both = merged_all([&one, &other]);
    assert_eq!(
        (&both, values(&both)),
        (&merged_all([&other, &one]), vec![&b"other"[..]]),
        "the greater stays"
    );
    let after = both.writing(replica(2), b"new", 0).unwrap();
    for order in [[&one, &after, &other], [&after, &other, &one], [&other, &one, &after]] {
        let all = merged_all(order);
        assert_eq!((values(&all), &all), (vec![&b"new"[..]], &merged_all([&both, &after])));
    }
}

#[test]
fn it_is_told_whose_the_news_are() {
    let mut held = MultiRegister::default();
    let first = write(&mut held, replica(1), b"a").unwrap();
    let news = |of: &MultiRegister| held.news(of).collect::<Vec<_>>();
    assert_eq!(news(&first), []);
    let second = held.writing(replica(2), b"b", 0).unwrap();
    assert_eq!(news(&second), [(replica(2), News::Written)], "everybody may replace what was seen");
    let unseen = held.writing(replica(1), b"c", 5).unwrap().writing(replica(2), b"b", 0).unwrap();
    assert_eq!(news(&unseen), [(replica(1), News::Seen), (replica(2), News::Written)]);
}
