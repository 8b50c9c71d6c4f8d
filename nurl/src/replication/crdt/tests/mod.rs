mod histories;
mod map;
mod multi;
mod objects;
mod register;
mod set;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::key::PublicKey;
use crate::replication::identity::ReplicaId;

const WALL: Duration = Duration::from_secs(1_000_000);

fn replica(n: u8) -> ReplicaId {
    ReplicaId { key: PublicKey::from_bytes([n; 32]), incarnation: u64::from(n) }
}

fn merged(a: &Value, b: &Value) -> Value {
    let mut joined = a.clone();
    joined.merge(b, WALL).unwrap();
    joined
}

/// Writes to a multi-value register, and returns the delta.
fn write(register: &mut MultiRegister, id: ReplicaId, value: &[u8]) -> Result<MultiRegister, CrdtError> {
    let delta = register.writing(id, value, 0)?;
    register.merge(&delta)?;
    Ok(delta)
}

#[derive(Debug, Clone)]
enum Step {
    Write {
        replica: u8,
        arg: u8,
        skew_s: i8,
    },
    Merge {
        from: u8,
        into: u8,
    },
    /// The other replica gets only the delta of the writer's last write: out of order, with gaps.
    Deliver {
        from: u8,
        into: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u8..4, 0u8..6, -5i8..40).prop_map(|(replica, arg, skew_s)| Step::Write { replica, arg, skew_s }),
        1 => (0u8..4, 0u8..4).prop_map(|(from, into)| Step::Merge { from, into }),
        2 => (0u8..4, 0u8..4).prop_map(|(from, into)| Step::Deliver { from, into }),
    ]
}

/// Four replicas after a history; their clocks may be off by up to 40 s.
fn history(kind: Kind, steps: &[Step]) -> Vec<Value> {
    let mut states = vec![Value::new(kind); 4];
    let mut deltas = vec![Value::new(kind); 4];
    let mut clocks = vec![Clock::default(); 4];
    for step in steps {
        match *step {
            Step::Write { replica: n, arg, skew_s } => {
                let at = usize::from(n);
                let delta = match &mut states[at] {
                    Value::Counter(counter) => {
                        Value::Counter(counter.add(replica(n), i64::from(arg) - 3).unwrap())
                    }
                    Value::Register(register) => {
                        let wall = WALL.checked_add_signed(i64::from(skew_s)).unwrap();
                        let mut own = LwwRegister::default();
                        let Ok(delta) = own.set(replica(n), &mut clocks[at], wall, &[arg]) else { continue };
                        register.merge(&delta, WALL);
                        Value::Register(delta)
                    }
                    Value::Set(set) => Value::Set(if arg < 3 {
                        set.add(replica(n), &[arg]).unwrap()
                    } else {
                        set.remove(&[arg - 3])
                    }),
                    Value::Map(map) => {
                        let author = Author { replica: replica(n), floor: 0 };
                        let name = [arg % 2];
                        let wall = WALL.checked_add_signed(i64::from(skew_s)).unwrap();
                        let delta = match skew_s.rem_euclid(7) {
                            0 => map.inserting(author, &name, &[arg]),
                            1 => map.replacing(author, &name, &[arg]),
                            2 => map.setting(author, &name, &mut clocks[at], wall, &[arg]),
                            3 => Ok(map.removing(author, &name)),
                            4 => Ok(map.taking_out(&name, &[arg])),
                            _ => map.adding(author, &name, i64::from(arg) - 3),
                        };
                        let Ok(delta) = delta else { continue };
                        map.merge(&delta).unwrap();
                        Value::Map(delta)
                    }
                    Value::Multi(register) => Value::Multi(write(register, replica(n), &[arg]).unwrap()),
                };
                deltas[at] = delta;
            }
            Step::Merge { from, into } => {
                states[usize::from(into)] = merged(&states[usize::from(into)], &states[usize::from(from)]);
            }
            Step::Deliver { from, into } => {
                states[usize::from(into)] = merged(&states[usize::from(into)], &deltas[usize::from(from)]);
            }
        }
    }
    states
}

trait Signed {
    fn checked_add_signed(self, seconds: i64) -> Option<Duration>;
}

impl Signed for Duration {
    fn checked_add_signed(self, seconds: i64) -> Option<Duration> {
        self.as_secs().checked_add_signed(seconds).map(Duration::from_secs)
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    proptest::sample::select(&Kind::ALL[..])
}

proptest! {
    #[test]
    fn merge_is_commutative_associative_and_idempotent(
        kind in kind(), steps in proptest::collection::vec(step(), 0..40),
    ) {
        let states = history(kind, &steps);
        let (a, b, c) = (&states[0], &states[1], &states[2]);
        prop_assert_eq!(merged(a, b), merged(b, a));
        prop_assert_eq!(merged(&merged(a, b), c), merged(a, &merged(b, c)));
        prop_assert_eq!(&merged(a, a), a);
        let both = merged(a, b);
        prop_assert_eq!(&merged(&both, b), &both);
        prop_assert!(!both.clone().merge(b, WALL).unwrap(), "a merge that changes nothing says so");
    }

    #[test]
    fn equal_states_are_equal_bytes_whatever_the_path(
        kind in kind(), steps in proptest::collection::vec(step(), 0..40),
    ) {
        let states = history(kind, &steps);
        let forth = states.iter().fold(Value::new(kind), |all, state| merged(&all, state));
        let back = states.iter().rev().fold(Value::new(kind), |all, state| merged(&all, state));
        prop_assert_eq!(forth.encode(), back.encode());
        prop_assert_eq!(forth.digest(), back.digest());
        for state in &states {
            prop_assert_eq!(&Value::decode(&state.encode()).unwrap(), state);
            prop_assert_eq!(merged(state, &forth).encode(), forth.encode(), "the join is the top");
        }
    }

    #[test]
    fn states_of_two_kinds_do_not_merge(
        steps in proptest::collection::vec(step(), 0..20), kinds in (kind(), kind()),
    ) {
        let (a, b) = (&history(kinds.0, &steps)[0], &history(kinds.1, &steps)[1]);
        let mut joined = a.clone();
        let merged = joined.merge(b, WALL);
        if kinds.0 != kinds.1 {
            prop_assert_eq!((merged, &joined), (Err(CrdtError::WrongKind), a));
        }
    }

    #[test]
    fn any_bytes_are_decoded_canonically_or_refused(
        kind in 0u8..6, body in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..200),
    ) {
        let bytes = [&[kind], &body[..]].concat();
        if let Ok(value) = Value::decode(&bytes) {
            prop_assert_eq!(value.encode(), bytes);
        }
    }

    #[test]
    fn a_damaged_state_is_refused_or_is_another_canonical_one(
        kind in kind(), steps in proptest::collection::vec(step(), 1..30), at: prop::sample::Index, with: u8,
    ) {
        let mut bytes = history(kind, &steps)[0].encode();
        let at = at.index(bytes.len());
        prop_assert!(Value::decode(&bytes[..at]).is_err(), "a truncated state is refused");
        prop_assert!(Value::decode(&[&bytes[..], &[0]].concat()).is_err(), "trailing bytes are refused");
        bytes[at] = with;
        if let Ok(value) = Value::decode(&bytes) {
            prop_assert_eq!(value.encode(), bytes);
        }
    }
}

#[test]
fn a_counter_counts_each_writer_once_however_often_deltas_arrive() {
    let (mut a, mut b) = (PnCounter::default(), PnCounter::default());
    let first = a.add(replica(1), 70_000).unwrap();
    let second = a.add(replica(1), -5).unwrap();
    b.add(replica(2), -70_000_000_000).unwrap();
    for delta in [&second, &first, &second, &first] {
        b.merge(delta).unwrap();
    }
    assert_eq!(b.value(), 70_000 - 5 - 70_000_000_000);
}

#[test]
fn the_4097th_writer_of_a_counter_is_a_typed_error() {
    let id = |n: u64| ReplicaId { incarnation: n, ..replica(1) };
    let mut counter = PnCounter::default();
    for n in 0..MAX_COUNTER_SLOTS as u64 {
        counter.add(id(n), 1).unwrap();
    }
    let full = counter.clone();
    assert_eq!(counter.add(id(9999), 1), Err(CrdtError::TooManySlots));
    assert_eq!(counter.merge(&PnCounter::of(id(9999), 1, 0)), Err(CrdtError::TooManySlots));
    assert_eq!(counter, full, "nothing changed");
    counter.add(id(0), 1).unwrap();
    assert!(Value::Counter(counter).encode().len() < MAX_STATE_BYTES);
    let mut counter = PnCounter::of(id(0), u64::MAX, 0);
    assert_eq!(counter.add(id(0), 1), Err(CrdtError::Overflow));
}

#[test]
fn a_value_over_the_limit_is_refused_where_it_enters() {
    let large = vec![0; MAX_REGISTER_BYTES + 1];
    let mut register = LwwRegister::default();
    assert!(matches!(
        register.set(replica(1), &mut Clock::default(), WALL, &large),
        Err(CrdtError::TooLarge { limit: MAX_REGISTER_BYTES, .. })
    ));
    let mut set = OrSet::default();
    assert!(set.add(replica(1), &large[..MAX_ELEMENT_BYTES + 1]).is_err());
    let mut n = 0u32;
    let refused = loop {
        n += 1;
        let mut element = vec![7; MAX_ELEMENT_BYTES];
        element[..4].copy_from_slice(&n.to_le_bytes());
        if let Err(error) = set.add(replica(1), &element) {
            break error;
        }
    };
    assert!(matches!(refused, CrdtError::TooLarge { limit: MAX_WRITE_BYTES, .. }), "{refused:?}");
    assert!(set.len() > 200);
    assert!(Value::Set(set).encode().len() <= MAX_WRITE_BYTES);
}

#[test]
fn overlong_numbers_and_unsorted_lists_are_refused() {
    for bytes in [
        &[1, 0x80, 0][..],            // An overlong zero.
        &[1, 0],                      // Valid: an empty counter.
        &[2, 2],                      // A register's presence byte is 0 or 1.
        &[3, 0, 0, 1, 1, 7, 1, 0, 1], // An element's dot of an unknown actor.
        &[9, 0],                      // An unknown kind.
        &[],
        &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], // More slots than arrived.
    ] {
        assert_eq!(Value::decode(bytes).is_ok(), bytes == [1, 0], "{bytes:?}");
    }
    let mut two = PnCounter::of(replica(1), 1, 0);
    two.add(replica(2), 1).unwrap();
    let sound = Value::Counter(two).encode();
    let (first, second) = (&sound[2..46], &sound[46..90]);
    let swapped = [&sound[..2], second, first].concat();
    assert!(Value::decode(&sound).is_ok());
    assert_eq!(Value::decode(&swapped), Err(CrdtError::NotCanonical("counter slots")));
}
