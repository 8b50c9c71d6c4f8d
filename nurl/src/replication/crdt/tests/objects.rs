//! Deletions and expiries, in whatever order they arrive.

use std::collections::BTreeSet;

use super::*;

const REPLICAS: u8 = 3;

#[derive(Debug, Clone)]
enum Act {
    Add { at: u8, by: i8 },
    Delete { at: u8 },
    Expire { at: u8, in_s: u8 },
    Deliver { delta: prop::sample::Index, to: u8 },
    Merge { from: u8, to: u8 },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..REPLICAS, any::<i8>()).prop_map(|(at, by)| Act::Add { at, by }),
        2 => (0..REPLICAS).prop_map(|at| Act::Delete { at }),
        1 => (0..REPLICAS, any::<u8>()).prop_map(|(at, in_s)| Act::Expire { at, in_s }),
        6 => (any::<prop::sample::Index>(), 0..REPLICAS).prop_map(|(delta, to)| Act::Deliver { delta, to }),
        2 => (0..REPLICAS, 0..REPLICAS).prop_map(|(from, to)| Act::Merge { from, to }),
    ];
    proptest::collection::vec(act, 0..60)
}

/// A replica's object, its clock, and the additions that it has seen.
#[derive(Default)]
struct Replica {
    object: Option<Object>,
    clock: Clock,
    seen: BTreeSet<usize>,
}

fn sum(object: &Object) -> i128 {
    let Value::Counter(counter) = object.value() else { panic!() };
    counter.value()
}

proptest! {
    #[test]
    fn a_deletion_takes_what_it_has_seen_and_nothing_else(acts in acts()) {
        let mut replicas: Vec<Replica> = (0..REPLICAS).map(|_| Replica::default()).collect();
        let mut deltas: Vec<(Object, BTreeSet<usize>)> = Vec::new();
        let (mut amounts, mut gone, mut expires) = (Vec::new(), BTreeSet::new(), false);
        // Each addition is of one replica, whose later deltas contain it.
        let mut own: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); usize::from(REPLICAS)];
        for act in acts {
            match act {
                Act::Add { at, by } => {
                    let place = usize::from(at);
                    let at = &mut replicas[place];
                    let object = at.object.get_or_insert_with(|| Object::new(Kind::Counter));
                    let Value::Counter(counter) = object.value_mut() else { panic!() };
                    let delta = counter.add(replica(place as u8), i64::from(by)).unwrap();
                    amounts.push(i128::from(by));
                    own[place].insert(amounts.len() - 1);
                    at.seen.insert(amounts.len() - 1);
                    deltas.push((Value::Counter(delta).into(), own[place].clone()));
                }
                Act::Delete { at } => {
                    let place = at;
                    let at = &mut replicas[usize::from(at)];
                    let Some(object) = &mut at.object else { continue };
                    let stamp = at.clock.tick(WALL).unwrap();
                    let delta = object.deleting(Author { replica: replica(place), floor: 0 }, stamp);
                    object.merge(&delta, WALL).unwrap();
                    prop_assert_eq!((sum(object), object.dead_since().is_some()), (0, true));
                    gone.extend(at.seen.iter().copied());
                    deltas.push((delta, BTreeSet::new()));
                }
                Act::Expire { at, in_s } => {
                    let at = &mut replicas[usize::from(at)];
                    let Some(object) = &mut at.object else { continue };
                    let at_ms = (WALL.as_secs() + u64::from(in_s)) * 1000;
                    let delta = Object::expiring(Kind::Counter, at.clock.tick(WALL).unwrap(), at_ms);
                    object.merge(&delta, WALL).unwrap();
                    deltas.push((delta, BTreeSet::new()));
                    expires = true;
                }
                Act::Deliver { delta, to } if !deltas.is_empty() => {
                    let (delta, has) = &deltas[delta.index(deltas.len())];
                    let to = &mut replicas[usize::from(to)];
                    to.object.get_or_insert_with(|| Object::new(Kind::Counter)).merge(delta, WALL).unwrap();
                    to.seen.extend(has);
                }
                Act::Deliver { .. } => {}
                Act::Merge { from, to } => {
                    let (other, seen) = (replicas[usize::from(from)].object.clone(), replicas[usize::from(from)].seen.clone());
                    let to = &mut replicas[usize::from(to)];
                    let Some(other) = other else { continue };
                    to.object.get_or_insert_with(|| Object::new(Kind::Counter)).merge(&other, WALL).unwrap();
                    to.seen.extend(seen);
                }
            }
        }
        let states: Vec<Object> = replicas.iter().filter_map(|replica| replica.object.clone()).collect();
        let Some(first) = states.first() else { return Ok(()) };
        let join = |order: &mut dyn Iterator<Item = &Object>| {
            order.fold(Object::new(Kind::Counter), |mut all, state| {
                all.merge(state, WALL).unwrap();
                all
            })
        };
        let (mut all, again) = (join(&mut states.iter()), join(&mut states.iter().rev().chain(&states)));
        prop_assert_eq!(&all, &again);
        prop_assert_eq!(Object::decode(&all.encode()), Ok(all.clone()));
        let alive = amounts.iter().enumerate().filter(|(write, _)| !gone.contains(write));
        prop_assert_eq!(sum(&all), alive.map(|(_, by)| by).sum::<i128>());
        // What expires does so alike, whatever else is known; what is gone stays so.
        let mut alone = first.clone();
        let due = all.expires();
        let late = WALL + Duration::from_secs(300);
        prop_assert_eq!(all.expire(late), due.is_some());
        prop_assert!(expires || due.is_none());
        if due.is_some() {
            prop_assert_eq!((sum(&all), all.expires()), (0, None));
            // Whoever knows of another time only has deleted it then.
            alone.expire(late);
            alone.merge(&all, late).unwrap();
            all.merge(&alone, late).unwrap();
            prop_assert_eq!(sum(&alone), 0);
            prop_assert_eq!(alone, all);
        }
    }
}

#[test]
fn every_kind_is_empty_once_it_was_deleted_and_has_one_encoding() {
    let mut clock = Clock::default();
    let author = Author { replica: replica(9), floor: 0 };
    for kind in Kind::ALL {
        let value = match kind {
            Kind::Counter => Value::Counter(PnCounter::of(replica(1), 3, 1)),
            Kind::Register => {
                Value::Register(LwwRegister::default().set(replica(1), &mut clock, WALL, b"v").unwrap())
            }
            Kind::Set => Value::Set(OrSet::default().add(replica(1), b"e").unwrap()),
            Kind::Multi => Value::Multi(MultiRegister::default().writing(replica(1), b"v", 0).unwrap()),
            Kind::Map => {
                let author = Author { replica: replica(1), floor: 0 };
                Value::Map(OrMap::default().adding(author, b"f", 1).unwrap())
            }
        };
        let mut object = Object::from(value.clone());
        assert!(!value.is_empty() && object.encode() == value.encode(), "{kind:?}");
        let delta = object.deleting(author, clock.tick(WALL).unwrap());
        assert_eq!(object.merge(&delta, WALL), Ok(true));
        assert!(object.value().is_empty() && object.dead_since().is_some(), "{kind:?}");
        assert_eq!(object.merge(&Object::from(value), WALL), Ok(false), "{kind:?} doesn't come back");
        let bytes = object.encode();
        assert_eq!(Object::kind_byte(&bytes), Some(kind as u8));
        assert_eq!(Object::decode(&bytes), Ok(object));
        // Marks of zeros are the state without marks; and an expiry was set by somebody.
        for marks in [[0, 0, 0, 0, 0], [0, 0, 0, 0, 7], [5, 0, 0, 0, 7]] {
            let body = &Value::new(kind).encode()[1..];
            let bytes = [&[kind as u8 | 0x80], &marks[..], body].concat();
            assert!(Object::decode(&bytes).is_err(), "{marks:?}");
        }
    }
}

#[test]
fn a_deletion_from_the_future_is_taken_without_its_time() {
    let mut object = Object::from(Value::Counter(PnCounter::of(replica(1), 3, 0)));
    let author = Author { replica: replica(2), floor: 0 };
    let stamp = |ahead: Duration| Stamp { wall_ms: (WALL + ahead).as_millis() as u64, logical: 0 };
    let (early, late) = (stamp(MAX_DRIFT), stamp(MAX_DRIFT + Duration::from_millis(1)));
    assert_eq!(object.merge(&Object::expiring(Kind::Counter, late, 1), WALL), Ok(false));
    assert_eq!(object.expires(), None);
    let deletion = object.deleting(author, late);
    assert!(deletion.is_ahead_of(WALL) && !object.deleting(author, early).is_ahead_of(WALL));
    assert_eq!(object.merge(&deletion, WALL), Ok(true));
    assert!(object.value().is_empty());
    assert_eq!(object.dead_since(), None, "that it was a deletion isn't known yet");
    // What an honest clock set meanwhile stands.
    assert_eq!(object.merge(&Object::expiring(Kind::Counter, early, 99), WALL), Ok(true));
    assert_eq!(object.expires(), Some(Duration::from_millis(99)));
    let later = WALL + Duration::from_millis(1);
    assert_eq!(object.merge(&deletion, later), Ok(true));
    assert!(object.dead_since().is_some() && object.expires().is_none());
}
