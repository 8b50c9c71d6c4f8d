//! The observed-remove map.

use super::*;

fn author(n: u8) -> Author {
    Author { replica: replica(n), floor: 0 }
}

fn merged_all<'a>(of: impl IntoIterator<Item = &'a OrMap>) -> OrMap {
    let mut all = OrMap::default();
    for one in of {
        all.merge(one).unwrap();
    }
    all
}

#[test]
fn an_addition_beside_a_removal_counts_alone_and_what_was_removed_does_not_come_back() {
    let mut a = OrMap::default();
    let first = a.adding(author(1), b"f", 5).unwrap();
    a.merge(&first).unwrap();
    let mut b = a.clone();
    let removal = b.removing(author(2), b"f");
    b.merge(&removal).unwrap();
    assert_eq!((b.counter(b"f"), b.fields()), (0, vec![]));
    let second = a.adding(author(1), b"f", 2).unwrap();
    for order in [[&first, &second, &removal], [&removal, &first, &second], [&second, &removal, &first]] {
        let all = merged_all(order);
        assert_eq!(all.counter(b"f"), 2);
        assert_eq!(Value::Map(all), Value::Map(merged_all([&a, &b, &second])));
    }
}

#[test]
fn a_removed_counter_leaves_nothing_once_its_actor_writes() {
    let mut map = OrMap::default();
    let write = |map: &mut OrMap, delta: OrMap| map.merge(&delta).unwrap();
    for n in 0..500u32 {
        let name = n.to_le_bytes();
        let delta = map.adding(author(1), &name, 7).unwrap();
        write(&mut map, delta);
        let delta = map.removing(author(2), &name);
        write(&mut map, delta);
        assert_eq!(map.fields(), []);
    }
    let delta = map.inserting(author(1), b"s", b"x").unwrap();
    write(&mut map, delta);
    let size = Value::Map(map.clone()).encode().len();
    assert!(size < 100, "{size}");
    let again = map.adding(author(1), b"s", 3).unwrap();
    write(&mut map, again);
    assert_eq!(map.counter(b"s"), 3);
    assert_eq!(map.fields(), [(&b"s"[..], Kind::Counter), (b"s", Kind::Set)], "two kinds are two fields");
}

#[test]
fn a_hundred_thousand_additions_take_one_slot_of_each_actor() {
    let mut map = OrMap::default();
    for n in 0..100_000u32 {
        let delta = map.adding(author(1 + (n % 3) as u8), b"f", i64::from(n % 5) - 2).unwrap();
        assert!(n > 10 || Value::Map(delta.clone()).encode().len() < 100, "a delta is small");
        map.merge(&delta).unwrap();
    }
    assert_eq!(map.counter(b"f"), 0);
    assert!(Value::Map(map).encode().len() < 200);
}

#[test]
fn an_actor_that_may_not_know_its_totals_begins_another_slot() {
    let mut owner = OrMap::default();
    let mut stale = OrMap::default();
    for floor in 0..4 {
        // It knows how many writes it made, and what it knew at first.
        let delta = stale.adding(Author { floor, ..author(1) }, b"f", 10).unwrap();
        owner.merge(&delta).unwrap();
        if floor == 0 {
            stale.merge(&delta).unwrap();
        }
        // It neither continues nor closes what it may not know all of.
        let removal = stale.removing(Author { floor: 4, ..author(1) }, b"f");
        assert_eq!(merged_all([&removal, &owner]).counter(b"f"), 10 * i128::from(floor));
    }
    assert_eq!(owner.counter(b"f"), 40, "no addition was lost");
    // Its first write is lost. It continues what it has begun since.
    let author = |floor| Author { floor, ..author(1) };
    let second = OrMap::default().adding(author(1), b"f", 1).unwrap();
    let third = second.adding(author(2), b"f", 1).unwrap();
    assert_eq!(
        (third.counter(b"f"), third.context().contains(&Dot { actor: replica(1), counter: 2 })),
        (2, true)
    );
    let fourth = merged_all([&second, &third]).removing(author(3), b"f");
    let closed = merged_all([&second, &third, &fourth]);
    assert_eq!(Value::Map(closed).encode().len(), 1 + 1 + 41 + 1 + 4 + 1, "it closes it, too");
}

#[test]
fn the_last_write_of_a_register_wins_and_one_ahead_of_the_clock_waits() {
    let set = |map: &OrMap, n, at_s, value: &[u8]| {
        map.setting(author(n), b"f", &mut Clock::default(), WALL + Duration::from_secs(at_s), value).unwrap()
    };
    let empty = OrMap::default();
    let mut map = merged_all([&set(&empty, 1, 1, b"a"), &set(&empty, 2, 2, b"b"), &set(&empty, 3, 60, b"c")]);
    assert_eq!(map.register(b"f", WALL), Some(&b"b"[..]));
    map.merge(&set(&map, 1, 3, b"d")).unwrap();
    assert_eq!(map.register(b"f", WALL), Some(&b"d"[..]));
    assert_eq!(map.register(b"f", WALL + Duration::from_secs(50)), Some(&b"c"[..]), "it wasn't replaced");
    let mut slow = Clock::default();
    assert!(map.setting(author(4), b"f", &mut slow, WALL - Duration::from_secs(20), b"e").is_ok());
    let behind = map.setting(
        author(4),
        b"f",
        &mut Clock::new(slow.high_water()),
        WALL - Duration::from_secs(60),
        b"e",
    );
    assert!(matches!(behind, Err(CrdtError::ClockDrift { .. })));
}

#[test]
fn a_field_is_removed_as_far_as_it_was_observed() {
    let mut map = OrMap::default();
    for n in 1..3 {
        for delta in [
            OrMap::default().inserting(author(n), b"f", &[n]).unwrap(),
            OrMap::default().replacing(Author { floor: 1, ..author(n) }, b"f", &[n]).unwrap(),
            OrMap::default().inserting(Author { floor: 2, ..author(n) }, b"g", &[n]).unwrap(),
        ] {
            map.merge(&delta).unwrap();
        }
    }
    assert_eq!(map.values(Kind::Set, b"f"), [[1], [2]]);
    assert_eq!(map.values(Kind::Multi, b"f"), [[1], [2]], "side by side");
    let beside = map.inserting(author(3), b"f", &[1]).unwrap();
    let mut removed = merged_all([&map, &map.removing(author(3), b"f")]);
    assert_eq!(removed.fields(), [(&b"g"[..], Kind::Set)]);
    removed.merge(&map).unwrap();
    removed.merge(&beside).unwrap();
    assert_eq!(removed.values(Kind::Set, b"f"), [[1]], "only what was added at the same time");
    assert_eq!(removed.values(Kind::Multi, b"f"), [[0u8; 1]; 0]);
    removed.merge(&removed.taking_out(b"g", &[2])).unwrap();
    assert_eq!(removed.values(Kind::Set, b"g"), [[1]]);
}

#[test]
fn what_is_too_large_for_a_map_is_a_typed_error_and_changes_nothing() {
    let mut map = OrMap::default();
    let (name, large) = ([0; MAX_FIELD_BYTES + 1], [0; MAX_SIBLING_BYTES + 1]);
    for refused in [
        map.adding(author(1), &name, 1),
        map.inserting(author(1), b"f", &large[..MAX_ELEMENT_BYTES + 1]),
        map.replacing(author(1), b"f", &large),
        map.setting(author(1), b"f", &mut Clock::default(), WALL, &large),
    ] {
        assert!(matches!(refused, Err(CrdtError::TooLarge { .. })), "{refused:?}");
    }
    let most = map.adding(author(1), b"f", i64::MAX).unwrap();
    map.merge(&most).unwrap();
    map.merge(&map.adding(author(1), b"f", i64::MAX).unwrap()).unwrap();
    assert_eq!(map.adding(author(1), b"f", i64::MAX), Err(CrdtError::Overflow));
    let mut refused = None;
    for n in 0u32.. {
        match map.replacing(author(2), &n.to_le_bytes(), &large[1..]) {
            Ok(delta) => drop(map.merge(&delta).unwrap()),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert!(matches!(refused, Some(CrdtError::TooLarge { limit: MAX_WRITE_BYTES, .. })));
    let size = Value::Map(map.clone()).encode().len();
    assert!(size <= MAX_WRITE_BYTES && size > MAX_WRITE_BYTES - 2 * MAX_SIBLING_BYTES);
    assert!(map.replacing(author(2), &0u32.to_le_bytes(), &large[1..]).is_ok(), "in place of another one");
    map.merge(&map.removing(author(1), &0u32.to_le_bytes())).unwrap();
    assert!(map.replacing(author(2), b"new", &large[1..]).is_ok(), "there is room again");
}

#[test]
fn two_things_said_under_one_dot_leave_equal_copies() {
    let said = |name: &[u8], element: &[u8]| OrMap::default().inserting(author(1), name, element).unwrap();
    let counted = OrMap::default().adding(author(1), b"a", 9).unwrap();
    let of = [said(b"a", b"x"), said(b"a", b"y"), said(b"b", b"w"), counted];
    let all = merged_all(&of);
    assert_eq!(all.values(Kind::Set, b"b"), [b"w"], "the greater field stays");
    assert_eq!(all.fields().len(), 1);
    for order in [[3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]] {
        let other = merged_all(order.map(|n: usize| &of[n]));
        assert_eq!(other, all);
        assert_eq!(Value::decode(&Value::Map(other.clone()).encode()), Ok(Value::Map(other)));
    }
    let removal = all.removing(author(2), b"b");
    assert_eq!(merged_all([&removal, &of[0], &of[2]]), merged_all([&of[2], &of[1], &removal]));
}

#[test]
fn it_is_told_whose_the_news_are() {
    let held = merged_all([&OrMap::default().adding(author(1), b"f", 5).unwrap()]);
    let news = |of: &OrMap| held.news(of);
    let (written, seen) = ((replica(1), News::Written), (replica(1), News::Seen));
    assert_eq!(news(&held), []);
    assert_eq!(news(&held.removing(author(2), b"f")), [], "everybody may remove what was seen");
    assert_eq!(news(&held.adding(author(1), b"f", 1).unwrap()), [written, seen]);
    let more = merged_all([&held, &held.adding(author(1), b"f", 1).unwrap()]);
    assert_eq!(news(&more.removing(author(2), b"f")), [seen], "it removes what isn't here");
    let closed = held.removing(author(1), b"f");
    assert_eq!(news(&closed), [written], "nobody closes another's slot");
    assert_eq!(news(&merged_all([&more.removing(author(2), b"f"), &more])), [written, seen]);
}
