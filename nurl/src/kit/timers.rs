//! One deadline per name, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Deadlines by name; setting a name again moves its deadline.
///
/// The table is bounded because each name belongs to an entry of a bounded table.
#[derive(Debug)]
pub struct Timers<K> {
    by_name: BTreeMap<K, Instant>,
    in_order: BTreeSet<(Instant, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Timers<K> {
        Timers { by_name: BTreeMap::new(), in_order: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Timers<K> {
    /// Sets or moves a name's deadline.
    pub fn set(&mut self, name: K, at: Instant) {
        match self.by_name.insert(name, at) {
            // The commonest case on a hot path: nothing moves.
            Some(old) if old == at => return,
            Some(old) => _ = self.in_order.remove(&(old, name)),
            None => {}
        }
        self.in_order.insert((at, name));
    }

    /// Sets the deadline unless there is one already.
    pub fn set_if_idle(&mut self, name: K, at: Instant) {
        if !self.by_name.contains_key(&name) {
            self.set(name, at);
        }
    }

    /// Removes a name's deadline, if it has one.
    pub fn clear(&mut self, name: K) {
        if let Some(old) = self.by_name.remove(&name) {
            self.in_order.remove(&(old, name));
        }
    }

    /// Whether a name has a deadline.
    pub fn is_set(&self, name: &K) -> bool {
        self.by_name.contains_key(name)
    }

    /// How many names have a deadline.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether no name has a deadline.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.in_order.first().map(|(at, _)| *at)
    }

    /// Removes the earliest deadline and returns its name, if it has passed.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (at, name) = *self.in_order.first()?;
        if at > now {
            return None;
        }
        self.clear(name);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_name_has_one_deadline() {
        let t = Instant::now();
        let mut timers = Timers::default();
        timers.set(1, t + Duration::from_secs(5));
        timers.set(2, t + Duration::from_secs(2));
        timers.set(1, t + Duration::from_secs(1));
        timers.set_if_idle(2, t);
        assert_eq!(timers.next(), Some(t + Duration::from_secs(1)));
        assert_eq!(timers.pop_due(t + Duration::from_secs(9)), Some(1));
        assert_eq!(timers.pop_due(t + Duration::from_secs(9)), Some(2));
        assert_eq!(timers.pop_due(t + Duration::from_secs(9)), None);
        assert_eq!(timers.next(), None);
    }
}
