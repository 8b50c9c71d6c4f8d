//! Whatever is lost, repeated and reordered, the replicas end equal, with the value that a plain model of the type
//! gives.
//!
//! The model knows nothing of dots: a write is a number, and knows the writes that its writer had seen.

use std::collections::BTreeSet;

use super::*;

const REPLICAS: u8 = 4;

/// All clocks are past all stamps.
const LATE: Duration = Duration::from_secs(1_000_100);

/// The names of a map's fields.
const NAMES: [u8; 2] = [0, 1];

/// What a write does to a map; its argument says the name and the value.
const ADD: u8 = 0;
const SET: u8 = 1;
const INSERT: u8 = 2;
const REPLACE: u8 = 3;
const TAKE_OUT: u8 = 4;
const REMOVE: u8 = 5;

/// The name and the value, or the amount, that an argument says.
fn name_and_value(arg: u8) -> (u8, u8) {
    (arg % 2, arg / 2)
}

#[derive(Debug, Clone)]
enum Act {
    Write {
        at: u8,
        arg: u8,
        skew_s: i8,
    },
    /// Gives a replica the delta of any write so far, at first or again.
    Deliver {
        delta: prop::sample::Index,
        to: u8,
    },
    /// Gives a replica the state of another one.
    Merge {
        from: u8,
        to: u8,
    },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..REPLICAS, 0u8..12, -5i8..40).prop_map(|(at, arg, skew_s)| Act::Write { at, arg, skew_s }),
        6 => (any::<prop::sample::Index>(), 0..REPLICAS).prop_map(|(delta, to)| Act::Deliver { delta, to }),
        1 => (0..REPLICAS, 0..REPLICAS).prop_map(|(from, to)| Act::Merge { from, to }),
    ];
    proptest::collection::vec(act, 0..100)
}

/// A write of the model.
#[derive(Debug)]
struct Written {
    arg: u8,
    /// A register's order: of writes with one stamp the higher replica's wins.
    rank: (Option<Stamp>, u8),
    /// Of a map: what it does, by a number.
    does: u8,
    /// The writes that it replaces or removes.
    gone: BTreeSet<usize>,
    /// The writes whose effects its delta has, too.
    covers: BTreeSet<usize>,
    delta: Value,
}

#[derive(Debug, Default)]
struct History {
    writes: Vec<Written>,
    replicas: Vec<(Value, BTreeSet<usize>)>,
}

/// What a type shows, in a form that the model gives, too.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Sum(i128),
    All(BTreeSet<u8>),
    /// Of each of two names: the counter, the register, the set and the multi-value register.
    Fields(Vec<Shown>),
}

fn shown(value: &Value) -> Shown {
    match value {
        Value::Counter(counter) => Shown::Sum(counter.value()),
        Value::Register(register) => Shown::All(register.value().map(|value| value[0]).into_iter().collect()),
        Value::Set(set) => Shown::All(set.iter().map(|element| element[0]).collect()),
        Value::Map(map) => Shown::Fields(
            NAMES
                .iter()
                .flat_map(|name| {
                    let name = &[*name];
                    let all = |values: Vec<&[u8]>| Shown::All(values.iter().map(|value| value[0]).collect());
                    [
                        Shown::Sum(map.counter(name)),
                        all(map.register(name, LATE).into_iter().collect()),
                        all(map.values(Kind::Set, name)),
                        all(map.values(Kind::Multi, name)),
                    ]
                })
                .collect(),
        ),
        Value::Multi(register) => Shown::All(register.values().iter().map(|value| value[0]).collect()),
    }
}

/// The change of a counter and the element of a set that an argument says; from 3 on it removes the element.
fn change(arg: u8) -> i64 {
    i64::from(arg) - 3
}

impl History {
    /// Those of the writes that none of them has replaced or removed.
    fn alive(&self, seen: &BTreeSet<usize>) -> BTreeSet<usize> {
        let gone: BTreeSet<usize> =
            seen.iter().flat_map(|write| &self.writes[*write].gone).copied().collect();
        seen - &gone
    }

    /// What the model shows of a kind after these writes.
    fn model(&self, kind: Kind, seen: &BTreeSet<usize>) -> Shown {
        let args = |writes: BTreeSet<usize>| writes.into_iter().map(|write| self.writes[write].arg);
        match kind {
            Kind::Counter => Shown::Sum(args(seen.clone()).map(|arg| i128::from(change(arg))).sum()),
            Kind::Register => {
                let last = seen.iter().map(|write| &self.writes[*write]).max_by_key(|write| write.rank);
                Shown::All(last.map(|write| write.arg).into_iter().collect())
            }
            Kind::Set => Shown::All(args(self.alive(seen)).filter(|arg| *arg < 3).collect()),
            Kind::Multi => Shown::All(args(self.alive(seen)).collect()),
            Kind::Map => {
                Shown::Fields(NAMES.iter().flat_map(|name| self.model_of_field(*name, seen)).collect())
            }
        }
    }

    fn model_of_field(&self, name: u8, seen: &BTreeSet<usize>) -> [Shown; 4] {
        let alive = self.alive(seen);
        let of = |does: u8| {
            let all = alive.iter().map(|write| &self.writes[*write]);
            all.filter(move |write| write.does == does && name_and_value(write.arg).0 == name)
        };
        let value = |write: &Written| name_and_value(write.arg).1;
        [
            Shown::Sum(of(ADD).map(|write| i128::from(change(value(write)))).sum()),
            Shown::All(of(SET).max_by_key(|write| write.rank).map(value).into_iter().collect()),
            Shown::All(of(INSERT).map(value).collect()),
            Shown::All(of(REPLACE).map(value).collect()),
        ]
    }

    /// A write to a map, and the writes that it replaces or removes, and covers.
    fn write_map(&self, map: &OrMap, clock: &mut Clock, at: u8, arg: u8, skew_s: i8) -> Option<Written> {
        let does = skew_s.rem_euclid(6).unsigned_abs();
        let author = Author { replica: replica(at), floor: 0 };
        let (name, value) = name_and_value(arg);
        let (field, bytes) = (&[name], &[value]);
        let delta = match does {
            ADD => map.adding(author, field, change(value)),
            SET => {
                let wall = WALL.checked_add_signed(i64::from(skew_s)).unwrap();
                map.setting(author, field, clock, wall, bytes)
            }
            INSERT => map.inserting(author, field, bytes),
            REPLACE => map.replacing(author, field, bytes),
            TAKE_OUT => Ok(map.taking_out(field, bytes)),
            _ => Ok(map.removing(author, field)),
        };
        let rank = ((does == SET).then(|| clock.high_water()), at);
        let seen = &self.replicas[usize::from(at)].1;
        let replaces = |write: &usize| {
            let old = &self.writes[*write];
            let (of, what) = name_and_value(old.arg);
            let replaced = match does {
                ADD => false,
                SET => old.does == SET && old.rank.0 < rank.0,
                INSERT | TAKE_OUT => old.does == INSERT && what == value,
                REPLACE => old.does == REPLACE,
                _ => does == REMOVE,
            };
            of == name && replaced
        };
        let gone = self.alive(seen).into_iter().filter(replaces).collect();
        // The delta of an addition has the totals of its writer.
        let is_covered = |write: &usize| {
            let old = &self.writes[*write];
            (old.does, old.rank.1, name_and_value(old.arg).0) == (ADD, at, name)
        };
        let covers =
            if does == ADD { seen.iter().copied().filter(is_covered).collect() } else { BTreeSet::new() };
        Some(Written { arg, rank, does, gone, covers, delta: Value::Map(delta.ok()?) })
    }

    fn write(&mut self, clock: &mut Clock, at: u8, arg: u8, skew_s: i8) {
        let (value, seen) = &self.replicas[usize::from(at)];
        let (id, seen) = (replica(at), seen.clone());
        let mut rank = (None, at);
        let (delta, gone) = match value {
            Value::Counter(counter) => {
                (Value::Counter(counter.clone().add(id, change(arg)).unwrap()), BTreeSet::new())
            }
            Value::Register(_) => {
                let wall = WALL.checked_add_signed(i64::from(skew_s)).unwrap();
                let Ok(delta) = LwwRegister::default().set(id, clock, wall, &[arg]) else { return };
                rank.0 = delta.stamp();
                (Value::Register(delta), BTreeSet::new())
            }
            Value::Set(set) => {
                let element = arg % 3;
                let delta =
                    if arg < 3 { set.adding(id, &[element], 0).unwrap() } else { set.removing(&[element]) };
                let of = |write: &usize| self.writes[*write].arg == element;
                (Value::Set(delta), self.alive(&seen).into_iter().filter(of).collect())
            }
            Value::Map(map) => {
                let Some(written) = self.write_map(map, clock, at, arg, skew_s) else { return };
                self.writes.push(written);
                return self.deliver(self.writes.len() - 1, at);
            }
            Value::Multi(register) => (Value::Multi(register.writing(id, &[arg], 0).unwrap()), seen.clone()),
        };
        self.writes.push(Written { arg, rank, does: 0, gone, covers: BTreeSet::new(), delta });
        self.deliver(self.writes.len() - 1, at);
    }

    fn deliver(&mut self, write: usize, to: u8) {
        let (value, seen) = &mut self.replicas[usize::from(to)];
        value.merge(&self.writes[write].delta, WALL).unwrap();
        seen.insert(write);
        seen.extend(&self.writes[write].covers);
    }
}

fn run(kind: Kind, acts: &[Act]) -> History {
    let replicas = (0..REPLICAS).map(|_| (Value::new(kind), BTreeSet::new())).collect();
    let mut history = History { replicas, ..History::default() };
    let mut clocks = vec![Clock::default(); usize::from(REPLICAS)];
    for act in acts {
        match act {
            Act::Write { at, arg, skew_s } => {
                history.write(&mut clocks[usize::from(*at)], *at, *arg, *skew_s);
            }
            Act::Deliver { .. } if history.writes.is_empty() => {}
            Act::Deliver { delta, to } => history.deliver(delta.index(history.writes.len()), *to),
            Act::Merge { from, to } => {
                let (state, writes) = &history.replicas[usize::from(*from)];
                let (state, writes) = (state.clone(), writes.clone());
                let (value, seen) = &mut history.replicas[usize::from(*to)];
                value.merge(&state, WALL).unwrap();
                seen.extend(writes);
            }
        }
    }
    history
}

proptest! {
    #[test]
    fn all_replicas_end_equal_and_show_what_the_model_shows(
        kind in kind(), acts in acts(), order in Just((0..REPLICAS).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut history = run(kind, &acts);
        if kind == Kind::Set {
            // At any time: a set's deltas say no more than the model's writes.
            for (value, seen) in &history.replicas {
                prop_assert_eq!(shown(value), history.model(kind, seen));
            }
        }
        // Everybody gives everybody its state.
        let mut all = Value::new(kind);
        for at in order {
            all.merge(&history.replicas[usize::from(at)].0, LATE).unwrap();
        }
        let bytes = all.encode();
        let model = history.model(kind, &(0..history.writes.len()).collect());
        prop_assert_eq!(shown(&all), model);
        for (value, _) in &mut history.replicas {
            value.merge(&all, LATE).unwrap();
            prop_assert_eq!(&value.encode(), &bytes);
        }
    }
}
