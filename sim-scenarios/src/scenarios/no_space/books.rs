//! What was written, and what became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use chaos::property::{Violation, fail};
use chaos::world::World;
use nurl::Error;
use nurl::internals::replication::crdt::Kind;
use nurl::internals::replication::replicator::UpdateError;
use nurl::rt::task;
use nurl::state::{Decline, StateError};

use super::{COUNTER, SET};
use crate::cluster::copies::Object;
use crate::cluster::{Peer, text};
use crate::lock::lock;

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is confirmed.
    Acknowledged,
    /// It wasn't made, for a disk.
    Refused,
    /// It was made once or not at all.
    Unknown,
}

/// Why a write ended otherwise.
const TYPED: &str = "a write that a disk doesn't take ends with an error that says so";

/// What may be read.
#[derive(Debug, Clone, Default)]
pub(super) struct Books {
    least: i128,
    most: i128,
    /// The elements, and how the writes of them ended; none while they are under way.
    elements: BTreeMap<String, Option<Ended>>,
}

/// What was read.
pub(super) enum Read {
    Sum(i128),
    Elements(BTreeSet<String>),
}

impl Books {
    fn begins(&mut self, (kind, _): Object<'_>) -> String {
        let element = format!("element {:04}", self.elements.len());
        match kind {
            Kind::Counter => self.most += 1,
            _ => drop(self.elements.insert(element.clone(), None)),
        }
        element
    }

    fn ends(&mut self, (kind, _): Object<'_>, element: &str, ended: Ended) {
        match (kind, ended) {
            (Kind::Counter, Ended::Acknowledged) => self.least += 1,
            (Kind::Counter, Ended::Refused) => self.most -= 1,
            (Kind::Counter, Ended::Unknown) => {}
            _ => drop(self.elements.insert(element.to_owned(), Some(ended))),
        }
    }

    fn acknowledged(&self) -> impl Iterator<Item = &String> {
        let there = self.elements.iter().filter(|(_, ended)| **ended == Some(Ended::Acknowledged));
        there.map(|(element, _)| element)
    }

    /// What a reading lacks of all that was confirmed before it began.
    pub(super) fn lacks(&self, _: Object<'_>, read: &Read) -> Option<String> {
        match read {
            Read::Sum(sum) if *sum < self.least => Some(format!("{sum} of {}", self.least)),
            Read::Sum(_) => None,
            Read::Elements(elements) => {
                let lost = self.acknowledged().find(|element| !elements.contains(*element));
                lost.map(|lost| format!("no {lost}"))
            }
        }
    }

    /// Compares with what all owners hold while nothing is under way.
    pub(super) fn agree(&mut self, sum: i128, elements: &BTreeSet<Vec<u8>>) -> Result<(), String> {
        if !(self.least..=self.most).contains(&sum) {
            return Err(format!("{sum} is counted, of {} to {}", self.least, self.most));
        }
        (self.least, self.most) = (sum, sum);
        let held: BTreeSet<String> = elements.iter().map(|element| text(element)).collect();
        for (element, ended) in &mut self.elements {
            let is_held = held.contains(element);
            match ended {
                Some(Ended::Acknowledged) if !is_held => return Err(format!("{element} is lost")),
                Some(Ended::Refused) if is_held => {
                    return Err(format!("{element} was refused, and is there"));
                }
                Some(Ended::Refused) => {}
                _ => *ended = Some(if is_held { Ended::Acknowledged } else { Ended::Refused }),
            }
        }
        Ok(())
    }

    pub(super) fn told(&self) -> String {
        format!("{} counted, {} gathered\n", self.least, self.acknowledged().count())
    }
}

/// Writes to an object, and notes what becomes of it.
///
/// # Errors
/// It ended in a way that says nothing.
pub(super) async fn write(
    world: World,
    peer: &Peer,
    object: Object<'_>,
    books: Arc<Mutex<Books>>,
) -> Result<Ended, Violation> {
    let node = peer.node(&world).await;
    let element = lock(&books).begins(object);
    let done = match object.0 {
        Kind::Counter => node.counter(COUNTER).add(1).await,
        _ => node.set(SET).insert(element.as_bytes()).await,
    };
    let ended = match done {
        Ok(()) => Ended::Acknowledged,
        Err(Error::State(StateError::Write(UpdateError::Disk(_) | UpdateError::Declined(Decline::Disk)))) => {
            Ended::Refused
        }
        Err(Error::State(StateError::Disk(_) | StateError::Unknown) | Error::Unconfirmed { .. }) => {
            Ended::Unknown
        }
        Err(other) => return Err(Violation::safety(TYPED, format!("{}: {other}", peer.name))),
    };
    lock(&books).ends(object, &element, ended);
    Ok(ended)
}

/// Begins to write.
pub(super) fn spawn(
    world: World,
    peer: &Peer,
    object: Object<'static>,
    books: Arc<Mutex<Books>>,
) -> task::JoinHandle<Ended> {
    let peer = peer.clone();
    task::spawn(async move {
        match write(world, &peer, object, books).await {
            Ok(ended) => ended,
            Err(broken) => {
                fail(broken);
                Ended::Unknown
            }
        }
    })
}

/// Reads an object.
pub(super) async fn read(world: World, peer: &Peer, object: Object<'_>) -> Result<Read, Error> {
    let node = peer.node(&world).await;
    match object.0 {
        Kind::Counter => node.counter(COUNTER).get().await.map(Read::Sum),
        _ => {
            let members = node.set(SET).members().await?;
            Ok(Read::Elements(members.iter().map(|member| text(member)).collect()))
        }
    }
}
