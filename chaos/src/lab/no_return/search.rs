//! Which continuations to make, in which order: a pure machine that proposes one and is told whether it held.
//!
//! A run is *saved* at an event if one of `each` continuations from there holds, and *lost* there if none does. The
//! search looks for the last event at which it is saved:
//!
//! 1. the beginning, because a run that isn't saved there isn't saved anywhere;
//! 2. bisection between the last event that is known as saved and the next one that is known as lost;
//! 3. when these are neighbours, events behind them, the nearest first and others ever further off, if the bisection hasn't
//!    been there: luck isn't monotone, so the run may be saved at a later event although it seemed lost before. Then it
//!    bisects again from there;
//! 4. more continuations from the event at which it is lost, and the rest of those from the event before.
//!
//! What to do next follows from what has been found alone, so the search keeps nothing else.

use std::collections::BTreeMap;

/// An event that seems lost first, or from the beginning, gets so many times as many continuations as others.
const CONFIRM: u32 = 3;

/// Each look behind the border is so many times as far as the one before.
const STRIDE: u64 = 4;

/// A continuation to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    /// The number of the event from which on the run goes another way; 0 for the beginning.
    pub(super) event: u64,
    /// The number among the continuations from there, from 1 on.
    pub(super) number: u32,
}

/// The continuations from an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) tried: u32,
    pub(super) held: u32,
}

/// What is known of the border between saved and lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Border {
    /// The last event at which the run is saved; `None` if there is none.
    pub(super) saved: Option<u64>,
    /// The first event after it at which it is lost; one after the last event is the failure itself.
    pub(super) lost: u64,
}

/// The search over the events of a run.
#[derive(Debug, Clone)]
pub(super) struct Search {
    /// The number of the last event.
    last: u64,
    /// Continuations after which an event is lost.
    each: u32,
    tallies: BTreeMap<u64, Tally>,
}

impl Search {
    /// A search over the events up to `last`, with `each` continuations from an event.
    pub(super) fn new(last: u64, each: u32) -> Search {
        Search { last, each, tallies: BTreeMap::new() }
    }

    /// The continuations from an event.
    pub(super) fn tally(&self, event: u64) -> Tally {
        self.tallies.get(&event).copied().unwrap_or_default()
    }

    fn is_lost(&self, tally: Tally) -> bool {
        tally.held == 0 && tally.tried >= self.each
    }

    /// What is known of the border.
    pub(super) fn border(&self) -> Border {
        let saved = self.tallies.iter().rev().find(|(_, tally)| tally.held > 0).map(|(event, _)| *event);
        let mut behind = self.tallies.range(saved.map_or(0, |saved| saved + 1)..);
        let lost = behind.find(|(_, tally)| self.is_lost(**tally)).map(|(event, _)| *event);
        Border { saved, lost: lost.unwrap_or(self.last + 1) }
    }

    /// The next continuation to make; `None` when the border is certain enough.
    pub(super) fn propose(&self) -> Option<Probe> {
        let Border { saved, lost } = self.border();
        let Some(saved) = saved else { return self.more(0, CONFIRM * self.each) };
        if lost - saved > 1 {
            return self.more(saved + (lost - saved) / 2, self.each);
        }
        let mut distance = 1;
        while lost + distance <= self.last {
            let mut there = self.tallies.range(lost + distance..lost + distance * STRIDE);
            let is_known = distance > STRIDE && there.any(|(_, tally)| self.is_lost(*tally));
            if let Some(probe) = self.more(lost + distance, self.each).filter(|_| !is_known) {
                return Some(probe);
            }
            distance *= STRIDE;
        }
        let confirmed = if lost > self.last { None } else { self.more(lost, CONFIRM * self.each) };
        confirmed.or_else(|| self.more(saved, self.each))
    }

    /// The next continuation from an event, if fewer than `most` have been made.
    fn more(&self, event: u64, most: u32) -> Option<Probe> {
        let Tally { tried, .. } = self.tally(event);
        (tried < most).then_some(Probe { event, number: tried + 1 })
    }

    /// What became of the continuation that was proposed.
    pub(super) fn judged(&mut self, probe: Probe, held: bool) {
        let tally = self.tallies.entry(probe.event).or_default();
        tally.tried += 1;
        tally.held += u32::from(held);
    }
}

#[cfg(test)]
mod tests;
