//! Reads at one node, each compared with what it must not lack.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chaos::property::Violation;
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::replication::crdt::{Kind, Value};

use super::books::Books;
use super::play::SharedBooks;
use super::{BACKWARDS, EMPTY, WHOLE};
use crate::cluster::Peer;
use crate::cluster::copies::{self, Object};
use crate::lock::lock;

/// Between two reads.
const EVERY: Duration = Duration::from_millis(40);

/// What a read gave.
#[derive(Clone)]
enum Reading {
    Sum(i128),
    Elements(BTreeSet<Vec<u8>>),
    Word(bool),
}

impl Reading {
    /// What all owners held.
    fn of(object: Object<'static>, held: Option<&Value>) -> Reading {
        match object.0 {
            Kind::Counter => Reading::Sum(copies::sum(held)),
            Kind::Set => Reading::Elements(copies::elements(held)),
            _ => Reading::Word(copies::content(held).is_some()),
        }
    }

    /// Without the elements that somebody removes.
    fn lasting(self, object: Object<'static>, books: &Books) -> Reading {
        match self {
            Reading::Elements(elements) => Reading::Elements(books.lasting(object, elements)),
            other => other,
        }
    }

    /// Whether it has nothing at all.
    fn is_empty(&self) -> bool {
        match self {
            Reading::Sum(sum) => *sum == 0,
            Reading::Elements(elements) => elements.is_empty(),
            Reading::Word(is_there) => !is_there,
        }
    }

    /// What it has less than this one.
    fn lacks(&self, floor: &Reading) -> Option<String> {
        match (self, floor) {
            (Reading::Sum(is), Reading::Sum(least)) if is < least => Some(format!("{is}, not {least}")),
            (Reading::Elements(are), Reading::Elements(least)) => {
                let missing = least.difference(are).count();
                let (are, least) = (are.len(), least.len());
                (missing > 0).then(|| format!("{are} elements, and {missing} of {least} are missing"))
            }
            (Reading::Word(false), Reading::Word(true)) => Some("nothing".to_owned()),
            _ => None,
        }
    }
}

/// Reads the objects in turn at a node until a time. What it reads has at least what all owners held when they agreed last,
/// and what it has read before.
///
/// # Errors
/// [`WHOLE`] or [`BACKWARDS`], at once; [`EMPTY`], when nothing worse was read until the end.
pub(super) async fn read_until(
    world: World,
    peer: Peer,
    (agreed, books): (Arc<BTreeMap<Object<'static>, Value>>, SharedBooks),
    objects: Vec<Object<'static>>,
    end: Duration,
) -> Result<(), Violation> {
    let node = peer.node(&world).await;
    let up = world.elapsed();
    let mut before: BTreeMap<Object<'static>, Reading> = BTreeMap::new();
    let mut empty = None;
    for object in objects.iter().cycle() {
        if world.elapsed() >= end {
            break;
        }
        let name = object.1;
        let reading = match object.0 {
            Kind::Counter => node.counter(name).get().await.map(Reading::Sum),
            Kind::Set => node.set(name).members().await.map(|of| Reading::Elements(of.into_iter().collect())),
            _ => node.register(name).get().await.map(|word| Reading::Word(word.is_some())),
        };
        sometimes!(reading.is_err(), "a read at a node that came back failed");
        if let Ok(reading) = reading {
            let after = world.elapsed() - up;
            let told =
                |lacks: String| format!("{} reads {lacks} in {name}, {after:?} after it came", peer.name);
            let whole = Reading::of(*object, agreed.get(object)).lasting(*object, &lock(&books));
            if let Some(lacks) = reading.lacks(&whole) {
                if reading.is_empty() {
                    empty.get_or_insert_with(|| Violation::safety(EMPTY, told(lacks)));
                    world.sleep(EVERY).await;
                    continue;
                }
                return Err(Violation::safety(WHOLE, told(lacks)));
            }
            let earlier = before.get(object).map(|earlier| earlier.clone().lasting(*object, &lock(&books)));
            if let Some(lacks) = earlier.and_then(|earlier| reading.lacks(&earlier)) {
                return Err(Violation::safety(BACKWARDS, told(lacks)));
            }
            sometimes!(true, "a node that came back was read at");
            before.insert(*object, reading);
        }
        world.sleep(EVERY).await;
    }
    empty.map_or(Ok(()), Err)
}
