//! Lists of names.

use super::mesh::{K, Mesh, add, insert, peer, remove, ring_of, set};
use crate::replication::replicator::list::MAX_NAMES;
use crate::replication::replicator::*;

fn query(kind: Option<Kind>, prefix: &str, most: usize) -> NameQuery {
    NameQuery { kind, prefix: prefix.as_bytes().to_vec(), after: None, most }
}

fn page_of(mesh: &mut Mesh) -> Option<NamePage> {
    let at = mesh.events.iter().position(|(_, event)| matches!(event, ReplicatorEvent::Listed { .. }))?;
    let ReplicatorEvent::Listed { page, .. } = mesh.events.remove(at).1 else { unreachable!() };
    Some(page)
}

fn page(mesh: &mut Mesh, n: u8, query: NameQuery) -> NamePage {
    let now = mesh.now;
    mesh.node(n).list(now, 5, query);
    mesh.deliver();
    for _ in 0..8 {
        if let Some(page) = page_of(mesh) {
            return page;
        }
        mesh.run(1);
    }
    panic!("the list has no end");
}

fn names(page: &NamePage) -> Vec<(Kind, &str)> {
    page.names.iter().map(|(kind, name)| (*kind, std::str::from_utf8(name).unwrap())).collect()
}

/// All pages.
fn all(mesh: &mut Mesh, n: u8, mut query: NameQuery) -> Vec<(Kind, Vec<u8>)> {
    let mut names = Vec::new();
    loop {
        let page = page(mesh, n, query.clone());
        assert!(page.silent.is_empty() && !page.partial && page.names.len() <= query.most);
        names.extend(page.names);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return names,
        }
    }
}

#[test]
fn a_list_has_the_names_of_all_that_is_there_in_order_of_kinds_and_names() {
    let mut mesh = Mesh::new(7);
    for name in ["b", "ab", "a", "c"] {
        mesh.write(0, &state_key(Kind::Counter, name.as_bytes()), add(1)).unwrap();
        mesh.write(1, &state_key(Kind::Set, name.as_bytes()), insert(b"x")).unwrap();
    }
    mesh.write(2, b"\x02a", set(b"word")).unwrap();
    // What is deleted and what shows nothing isn't listed.
    mesh.write(2, b"\x01c", Op::Delete { kind: Kind::Counter }).unwrap();
    mesh.write(2, b"\x03c", remove(b"x")).unwrap();
    mesh.run(30);
    for n in 0..7 {
        let page = page(&mut mesh, n, query(None, "", 100));
        let (c, s) = (Kind::Counter, Kind::Set);
        let expected = [(c, "a"), (c, "ab"), (c, "b"), (Kind::Register, "a"), (s, "a"), (s, "ab"), (s, "b")];
        assert_eq!(names(&page), expected);
        assert_eq!((page.next.clone(), page.silent.len(), page.partial), (None, 0, false));
    }
    assert_eq!(names(&page(&mut mesh, 3, query(None, "ab", 9))), [(Kind::Counter, "ab"), (Kind::Set, "ab")]);
    assert_eq!(names(&page(&mut mesh, 3, query(Some(Kind::Set), "b", 9))), [(Kind::Set, "b")]);
    assert!(page(&mut mesh, 3, query(Some(Kind::Map), "", 9)).names.is_empty());
}

#[test]
fn pages_of_any_size_make_up_the_whole_list() {
    let mut mesh = Mesh::new(6);
    for n in 0..40u8 {
        let kind = if n % 2 == 0 { Kind::Counter } else { Kind::Set };
        let op = if n % 2 == 0 { add(1) } else { insert(b"x") };
        mesh.update(n % 6, &state_key(kind, format!("n {n:02}").as_bytes()), &op);
    }
    mesh.deliver();
    let whole = all(&mut mesh, 0, query(None, "", 1000));
    assert_eq!(whole.len(), 40);
    for most in [1, 3, 39, 40] {
        assert_eq!(all(&mut mesh, 4, query(None, "n", most)), whole, "{most}");
    }
}

#[test]
fn the_silent_are_named_and_as_many_as_an_object_has_owners_make_a_list_partial() {
    let mut mesh = Mesh::new(6);
    mesh.write(0, K, add(1)).unwrap();
    let reader = mesh.outsider(K);
    let others: Vec<u8> = (0..6).filter(|n| *n != reader).collect();
    for silent in 1..4 {
        mesh.cut.clear();
        mesh.partition(&others[..silent]);
        let page = page(&mut mesh, reader, query(None, "", 10));
        let mut keys: Vec<_> = others[..silent].iter().map(|n| peer(*n)).collect();
        keys.sort();
        assert_eq!((page.silent, page.partial), (keys, silent == 3));
        if silent < 3 {
            assert_eq!(page.names, [(Kind::Counter, b"k".to_vec())]);
        }
    }
    // Who is away isn't asked, and is silent, too; who is lost isn't waited for.
    mesh.cut.clear();
    mesh.take_ring(&ring_of((0..6).map(|n| (n, 0)), &[others[0]]));
    assert_eq!(page(&mut mesh, reader, query(None, "", 10)).silent, [peer(others[0])]);
    let now = mesh.now;
    mesh.partition(&[others[1]]);
    mesh.node(reader).list(now, 5, query(None, "", 10));
    mesh.deliver();
    mesh.node(reader).on_peer_lost(peer(others[1]));
    let wall = mesh.wall;
    mesh.node(reader).handle_timeout(now, wall);
    mesh.deliver();
    assert_eq!(page_of(&mut mesh).unwrap().silent.len(), 2);
}

/// The names that an answer has, and where more begin.
type Answer<'a> = (&'a [&'a [u8]], Option<&'a [u8]>);

/// A list at node 0, to which only node 1 answers, by these answers to the question.
fn answered(answers: &[Answer<'_>], prefix: &str) -> (NamePage, u64) {
    let mut mesh = Mesh::new(4);
    mesh.partition(&[0]);
    let now = mesh.now;
    mesh.node(0).list(now, 5, query(Some(Kind::Set), prefix, 3));
    let id = mesh.node(0).shared.last_id();
    for (keys, upto) in answers {
        let bytes = |key: &[u8]| minicbor::bytes::ByteVec::from(key.to_vec());
        let keys = keys.iter().map(|key| bytes(key)).collect();
        mesh.inject(1, 0, &Message::Names { id, keys, upto: upto.map(bytes) });
    }
    mesh.run(6);
    let refused = mesh.node(0).stats().bad_names;
    (page_of(&mut mesh).unwrap(), refused)
}

#[test]
fn an_answer_that_isnt_one_to_the_question_is_refused_whole() {
    let (page, refused) = answered(&[(&[b"\x03na", b"\x03nb"], None)], "n");
    assert_eq!(
        (names(&page), page.silent.len(), refused),
        (vec![(Kind::Set, "na"), (Kind::Set, "nb")], 2, 0)
    );
    let hostile: &[Answer<'_>] = &[
        (&[b"\x03nb", b"\x03na"], None),
        (&[b"\x03na", b"\x03na"], None),
        (&[b"\x03na", b"\x03o"], None),
        (&[b"\x01na"], None),
        (&[b"\x03na", b"\x03nb", b"\x03nc", b"\x03nd"], None),
        (&[b"\x03nb"], Some(b"\x03na")),
        (&[], Some(b"\x03o")),
        (&[], Some(b"\x04na")),
    ];
    for answer in hostile {
        let (page, refused) = answered(&[*answer], "n");
        assert_eq!((page.names.len(), page.silent.len(), refused), (0, 3, 1), "{answer:?}");
    }
    // It may not begin anew, nor tell of what it has passed.
    let again: (&[&[u8]], Option<&[u8]>) = (&[b"\x03na"], Some(b"\x03na"));
    assert_eq!(answered(&[again, again], "n").1, 1);
}

#[test]
fn who_always_says_that_there_is_more_is_left_at_last() {
    let keys: Vec<Vec<u8>> = (0..100u8).map(|n| vec![3, b'n', n]).collect();
    let answers: Vec<Answer<'_>> = keys.iter().map(|key| (&[][..], Some(key.as_slice()))).collect();
    let (page, refused) = answered(&answers, "n");
    assert_eq!((page.names.len(), page.next, page.silent.len(), refused), (0, None, 3, 1));
    // A full answer ends the page, and the caller decides whether it goes on.
    let (page, refused) = answered(&[(&[b"\x03na", b"\x03nb", b"\x03nc"], Some(b"\x03nc"))], "n");
    assert_eq!((page.names.len(), page.next, refused), (3, Some((Kind::Set, b"nc".to_vec())), 0));
}

#[test]
fn what_is_asked_and_answered_is_bounded() {
    let mut mesh = Mesh::new(4);
    mesh.partition(&[0]);
    let now = mesh.now;
    for _ in 0..40 {
        mesh.node(0).list(now, 5, query(None, "", usize::MAX));
    }
    mesh.deliver();
    let full = |(_, event): &&(PublicKey, ReplicatorEvent)| {
        let full = ReadFailure::Refused(UpdateError::Full("lists"));
        matches!(event, ReplicatorEvent::ReadFailed { why, .. } if *why == full)
    };
    assert_eq!(mesh.events.iter().filter(full).count(), 24);
    // One asker has a part of a member's answers in a tick.
    let list = Message::List { id: 9, kind: None, prefix: Vec::new().into(), after: None, most: u64::MAX };
    for _ in 0..100 {
        mesh.inject(2, 1, &list);
    }
    let answers = mesh.sent(1).len();
    assert!((16..=32).contains(&answers), "{answers}");
    mesh.inject(3, 1, &list);
    assert_eq!(mesh.sent(1).len(), 1);
    mesh.run(2);
    mesh.inject(2, 1, &list);
    assert!(mesh.sent(1).iter().any(|(to, _)| *to == peer(2)));
    let long = Message::List { id: 9, kind: None, prefix: vec![0; 1025].into(), after: None, most: 1 };
    mesh.inject(2, 1, &long);
    assert_eq!(mesh.node(1).stats().malformed, 1);
    let too_long = NameQuery { prefix: vec![0; 1025], ..query(None, "", 1) };
    mesh.events.clear();
    mesh.node(1).list(now, 5, too_long);
    mesh.deliver();
    assert!(matches!(mesh.events[0].1, ReplicatorEvent::ReadFailed { .. }));
}

#[test]
fn one_answer_is_bounded_in_names_bytes_and_keys_that_are_looked_at() {
    let mut mesh = Mesh::new(1);
    let name = |n: usize, length: usize| state_key(Kind::Counter, format!("{n:0length$}").as_bytes());
    for n in 0..1_000 {
        mesh.update(0, &name(n, 1_000), &add(1));
    }
    mesh.deliver();
    let list = Message::List { id: 9, kind: None, prefix: Vec::new().into(), after: None, most: u64::MAX };
    mesh.inject(2, 0, &list);
    let [(_, Message::Names { keys, upto, .. })] = &mesh.sent(0)[..] else { panic!() };
    assert_eq!((keys.len(), upto.as_ref()), (523, keys.last()));
    assert_eq!(all(&mut mesh, 0, query(None, "", MAX_NAMES)).len(), 1_000);
    // Many keys that aren't listed are passed in several answers.
    let mut mesh = Mesh::new(1);
    for n in 0..17_000 {
        let key = state_key(Kind::Set, format!("{n:05}").as_bytes());
        mesh.update(0, &key, &insert(b"x"));
        mesh.update(0, &key, &remove(b"x"));
    }
    mesh.update(0, b"\x03last", &insert(b"x"));
    mesh.deliver();
    mesh.inject(2, 0, &list);
    let [(_, Message::Names { keys, upto: Some(upto), .. })] = &mesh.sent(0)[..] else { panic!() };
    assert_eq!((keys.len(), &upto[..]), (0, &b"\x0316383"[..]));
    assert_eq!(names(&page(&mut mesh, 0, query(None, "", 10))), [(Kind::Set, "last")]);
}
