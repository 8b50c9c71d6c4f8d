//! The points of a program at which it does on purpose what is allowed and rare: buggification, as FoundationDB has it.
//!
//! A program asks at each of its points whether to take the rare way. The answer is no, unless a fault of the plan has
//! turned the point on for the host, and then yes so many times of a hundred.

use crate::seed::{Rng, below};
use rand_core::Rng as _;
use std::collections::BTreeMap;

/// A point that is on.
struct On {
    point: String,
    percent: u32,
    asked: u64,
    fired: u64,
}

/// The points of one host that are on, by the numbers of the faults that turned them on.
pub(crate) struct Points {
    rng: Rng,
    on: BTreeMap<usize, On>,
}

impl Points {
    /// None is on; `rng` decides which questions get a yes.
    pub(crate) fn new(rng: Rng) -> Points {
        Points { rng, on: BTreeMap::new() }
    }

    /// Turns a point on.
    pub(crate) fn turn_on(&mut self, number: usize, point: &str, percent: u32) {
        self.on.insert(number, On { point: point.to_owned(), percent, asked: 0, fired: 0 });
    }

    /// Turns it off again; returns its account, for a person.
    pub(crate) fn turn_off(&mut self, number: usize) -> String {
        self.on.remove(&number).map_or_else(String::new, |on| {
            format!("{} was asked {} times and fired {} times", on.point, on.asked, on.fired)
        })
    }

    /// Whether the point takes the rare way this time.
    pub(crate) fn fires(&mut self, point: &str) -> bool {
        let mut fires = false;
        for on in self.on.values_mut().filter(|on| on.point == point) {
            on.asked += 1;
            if below(self.rng.next_u64(), 100) < u64::from(on.percent) {
                on.fired += 1;
                fires = true;
            }
        }
        fires
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::stream;

    #[test]
    fn a_point_fires_so_many_times_of_a_hundred_and_only_while_it_is_on() {
        let mut points = Points::new(stream(1, "points/a"));
        assert!(!points.fires("tiny"));
        points.turn_on(3, "tiny", 20);
        points.turn_on(4, "always", 100);
        let count = |points: &mut Points, point| (0..1_000).filter(|_| points.fires(point)).count();
        assert!((150..250).contains(&count(&mut points, "tiny")));
        assert_eq!((count(&mut points, "always"), count(&mut points, "other")), (1_000, 0));
        assert!(points.turn_off(3).starts_with("tiny was asked 1000 times and fired "));
        assert_eq!(count(&mut points, "tiny"), 0);
        assert_eq!(points.turn_off(4), "always was asked 1000 times and fired 1000 times");
    }
}
