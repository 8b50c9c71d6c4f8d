//! When objects expire, and when their deletions are forgotten.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::replication::crdt::Object;

/// Limit on the objects that expire, or are forgotten, in one tick.
pub(super) const MAX_DUE_PER_TICK: usize = 1024;

/// What happens to an object in time, and when: as time since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Expires(Duration),
    Forgotten(Duration),
}

impl Due {
    /// What happens to an object, whose deletion is remembered for so long.
    pub(super) fn of(object: &Object, kept: Duration) -> Option<Due> {
        let forgotten = object.dead_since().map(|since| Due::Forgotten(since + kept));
        forgotten.or(object.expires().map(Due::Expires))
    }

    /// Whether it is a deletion that is to be forgotten by now.
    pub(super) fn is_forgotten(&self, wall: Duration) -> bool {
        matches!(self, Due::Forgotten(due) if *due <= wall)
    }
}

/// The keys of the objects that expire, and of the dead ones, by time.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    expiring: BTreeSet<(Duration, Vec<u8>)>,
    dead: BTreeSet<(Duration, Vec<u8>)>,
}

impl Schedule {
    /// Plans what is `due` of a key, in place of what was planned before.
    pub(super) fn plan(&mut self, key: &[u8], before: Option<Due>, due: Option<Due>) {
        if before == due {
            return;
        }
        match before {
            Some(Due::Expires(at)) => self.expiring.remove(&(at, key.to_vec())),
            Some(Due::Forgotten(at)) => self.dead.remove(&(at, key.to_vec())),
            None => false,
        };
        match due {
            Some(Due::Expires(at)) => self.expiring.insert((at, key.to_vec())),
            Some(Due::Forgotten(at)) => self.dead.insert((at, key.to_vec())),
            None => false,
        };
    }

    /// The keys of what expires now.
    pub(super) fn to_expire(&self, wall: Duration) -> Vec<Vec<u8>> {
        let due = self.expiring.iter().take_while(|(due, _)| *due <= wall);
        due.map(|(_, key)| key.clone()).take(MAX_DUE_PER_TICK).collect()
    }

    /// The keys whose deletions are forgotten now: it is time, or there are more than `most`.
    pub(super) fn to_forget(&self, wall: Duration, most: usize) -> Vec<Vec<u8>> {
        let over = self.dead.len().saturating_sub(most);
        let due = self.dead.iter().enumerate().take_while(|(at, (due, _))| *at < over || *due <= wall);
        due.map(|(_, (_, key))| key.clone()).take(MAX_DUE_PER_TICK).collect()
    }
}
