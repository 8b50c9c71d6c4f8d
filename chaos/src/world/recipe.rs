//! Recipes: a run that leaves the run of its seed at given places.
//!
//! A recipe is a list of branches. The run is that of the seed until its trace has as many records as the first branch
//! says; from the next event of the world, or packet, on, randomness is another: the streams of hosts, links, boxes, programs and
//! the scenario continue with the branch's seed, and the scheduler's generator is moved elsewhere. The fault plan stays
//! as it is, because it follows from the run's own seed or is given.

use crate::seed::below;
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

/// A place at which a run's randomness becomes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Branch {
    /// Records of the trace before it.
    pub event: u64,
    /// The seed of all randomness from then on.
    pub seed: u64,
}

/// The branches of a run, by their events; none for the run of the seed alone. As text `EVENT:SEED,EVENT:SEED`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recipe {
    branches: Vec<Branch>,
}

/// Why a text isn't a recipe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    /// A branch isn't two numbers.
    #[error("{0} is no branch: expected EVENT:SEED,EVENT:SEED")]
    NoBranch(String),
    /// A branch comes before the one in front of it, or at the same event.
    #[error("the branch {0} must come later than the one before it")]
    Order(String),
}

impl Recipe {
    /// Its branches, the first one first.
    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// Whether it is the run of the seed alone.
    pub fn is_empty(&self) -> bool {
        self.branches.is_empty()
    }

    /// This recipe up to an event, with a branch there.
    #[must_use]
    pub fn branched(&self, at: Branch) -> Recipe {
        let kept = self.branches.iter().filter(|branch| branch.event < at.event);
        Recipe { branches: kept.copied().chain([at]).collect() }
    }

    /// This recipe without one of its branches.
    #[must_use]
    pub fn without(&self, number: usize) -> Recipe {
        let mut branches = self.branches.clone();
        branches.remove(number);
        Recipe { branches }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Branch { event, seed }) in self.branches.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{event}:{seed}")?;
        }
        Ok(())
    }
}

impl FromStr for Recipe {
    type Err = RecipeError;

    fn from_str(text: &str) -> Result<Recipe, RecipeError> {
        let mut branches: Vec<Branch> = Vec::new();
        for word in text.split(',').filter(|_| !text.is_empty()) {
            let numbers = word
                .split_once(':')
                .and_then(|(event, seed)| Some((event.parse().ok()?, seed.parse().ok()?)));
            let (event, seed) = numbers.ok_or_else(|| RecipeError::NoBranch(word.to_owned()))?;
            if branches.last().is_some_and(|last| last.event >= event) {
                return Err(RecipeError::Order(word.to_owned()));
            }
            branches.push(Branch { event, seed });
        }
        Ok(Recipe { branches })
    }
}

/// The most words by which a branch moves the scheduler's generator.
const MOST_SKIPPED: u64 = 1 << 12;

/// The branches of a running world that are still to come.
#[derive(Debug)]
pub(crate) struct BranchQueue {
    left: VecDeque<Branch>,
    /// The event of the next branch; the largest number if none is left.
    next_at: u64,
    /// Words by which the scheduler's generator is to be moved. madsim's can't be seeded again, so its driver draws.
    skip: u64,
}

impl BranchQueue {
    pub(crate) fn new(recipe: &Recipe) -> BranchQueue {
        let mut queue = BranchQueue { left: recipe.branches.iter().copied().collect(), next_at: 0, skip: 0 };
        queue.note_next();
        queue
    }

    fn note_next(&mut self) {
        self.next_at = self.left.front().map_or(u64::MAX, |branch| branch.event);
    }

    /// The seed of the next branch, if a trace of so many records has come to it.
    #[inline]
    pub(crate) fn take_due(&mut self, records: u64) -> Option<u64> {
        if records < self.next_at {
            return None;
        }
        let branch = self.left.pop_front()?;
        self.note_next();
        self.skip += 1 + below(crate::seed::subseed(branch.seed, "scheduler"), MOST_SKIPPED);
        Some(branch.seed)
    }

    /// Words to draw from the scheduler's generator, once.
    pub(crate) fn take_skip(&mut self) -> u64 {
        std::mem::take(&mut self.skip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_read_back_from_its_text() {
        for text in ["", "120:7", "0:1,120:7,121:18446744073709551615"] {
            assert_eq!(text.parse::<Recipe>().unwrap().to_string(), text);
        }
        for wrong in ["7", "a:7", "1:2,", "1:-1", " 1:2"] {
            assert!(matches!(wrong.parse::<Recipe>(), Err(RecipeError::NoBranch(_))), "{wrong}");
        }
        assert_eq!("5:1,5:2".parse::<Recipe>(), Err(RecipeError::Order("5:2".to_owned())));
    }

    #[test]
    fn a_branch_replaces_what_came_after_its_event() {
        let recipe: Recipe = "10:1,20:2,30:3".parse().unwrap();
        assert_eq!(recipe.branched(Branch { event: 20, seed: 9 }).to_string(), "10:1,20:9");
        assert_eq!(recipe.without(1).to_string(), "10:1,30:3");
    }

    #[test]
    fn each_branch_is_due_once_and_in_its_order() {
        let mut queue = BranchQueue::new(&"10:1,20:2".parse().unwrap());
        assert_eq!((queue.take_due(9), queue.take_skip()), (None, 0));
        assert_eq!(queue.take_due(25), Some(1));
        assert!((1..=MOST_SKIPPED).contains(&queue.take_skip()));
        assert_eq!((queue.take_due(25), queue.take_due(u64::MAX - 1)), (Some(2), None));
    }
}
