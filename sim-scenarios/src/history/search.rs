//! The search for an order: depth first, without looking twice at the same calls with the same register.

use std::collections::BTreeSet;

use super::Operation;
use super::register::Register;

/// The most places that a search remembers. A history of a scenario has a few for each call; only one with many calls at
/// once, none of whose orders fits, would have more.
pub(crate) const MAX_PLACES: usize = 20_000;

/// The result of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// The calls have an order.
    Found,
    /// They have none.
    None {
        /// How many calls the longest order has that fits.
        placed: usize,
        /// The calls that could come next there, and don't fit.
        stuck: Vec<Operation>,
    },
    /// There are more than [`MAX_PLACES`].
    TooCostly,
}

/// The calls that are in the order so far.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Placed {
    bits: Vec<u64>,
    count: usize,
}

impl Placed {
    fn has(&self, at: usize) -> bool {
        self.bits[at / 64] >> (at % 64) & 1 == 1
    }

    fn with(&self, at: usize) -> Placed {
        let mut more = self.clone();
        more.bits[at / 64] |= 1 << (at % 64);
        more.count += 1;
        more
    }
}

/// Where the search is.
struct Node {
    placed: Placed,
    register: Register,
    /// All calls before this one are placed, or can't be any more.
    low: usize,
    /// The latest beginning of a placed call: what ended before can't come any more.
    latest: u64,
}

/// Searches for an order of calls on one key, which are sorted by their beginnings.
pub(crate) fn search(operations: &[Operation], register: Register) -> Order {
    let answered = operations.iter().filter(|one| one.answer.is_some()).count();
    let placed = Placed { bits: vec![0; operations.len().div_ceil(64)], count: 0 };
    let mut open = vec![(Node { placed, register, low: 0, latest: 0 }, 0)];
    let mut been = BTreeSet::new();
    let mut best: (usize, Vec<usize>) = (0, Vec::new());
    while let Some((mut node, done)) = open.pop() {
        // A call without an answer may stay out.
        if done == answered {
            return Order::Found;
        }
        if been.len() > MAX_PLACES {
            return Order::TooCostly;
        }
        let gone = |at: usize, node: &Node| {
            let one = &operations[at];
            node.placed.has(at) || (one.answer.is_none() && one.ended < node.latest)
        };
        while node.low < operations.len() && gone(node.low, &node) {
            node.low += 1;
        }
        let next = candidates(operations, &node, gone);
        if node.placed.count >= best.0 {
            best = (node.placed.count, next.clone());
        }
        // The stack's top is looked at first: the call that began first.
        for at in next.into_iter().rev() {
            let one = &operations[at];
            for register in node.register.after(one) {
                let placed = node.placed.with(at);
                if been.insert((placed.clone(), register.clone())) {
                    let latest = node.latest.max(one.began);
                    let done = done + usize::from(one.answer.is_some());
                    open.push((Node { placed, register, low: node.low, latest }, done));
                }
            }
        }
    }
    Order::None { placed: best.0, stuck: best.1.into_iter().map(|at| operations[at].clone()).collect() }
}

/// The calls that may come next: those that began before every answered call that is left has returned.
fn candidates(operations: &[Operation], node: &Node, gone: impl Fn(usize, &Node) -> bool) -> Vec<usize> {
    let mut next = Vec::new();
    let mut first_end = u64::MAX;
    for (at, one) in operations.iter().enumerate().skip(node.low) {
        if one.began > first_end {
            break;
        }
        if gone(at, node) {
            continue;
        }
        next.push(at);
        if one.answer.is_some() {
            first_end = first_end.min(one.ended);
        }
    }
    // One that began before may still come after the end of another that was found later.
    next.retain(|at| operations[*at].began <= first_end);
    next
}
