//! The nodes that a task's submitter has dealt with: it chooses the next executor, and knows whose messages count.

use std::collections::{BTreeMap, BTreeSet};

use super::event::Moved;
use super::options::{MAX_HEARD_PER_TASK, MAX_NOT_ALLOWED, MAX_TRIED};
use super::policy::Needs;
use crate::key::PublicKey;

/// The nodes of one task.
#[derive(Debug, Default)]
pub(super) struct TaskNodes {
    /// The nodes that this round over the list has tried.
    tried: BTreeSet<PublicKey>,
    /// The nodes that have no handler of the kind.
    without_kind: BTreeSet<PublicKey>,
    /// The nodes whose policies don't permit the task, and what any of them would need.
    not_allowed: BTreeSet<PublicKey>,
    needs: Needs,
    /// All nodes that were addressed or have accepted: their outcomes count.
    heard: BTreeSet<PublicKey>,
    /// The latest attempt that each node has given back. What the node said of the attempt before may come after that.
    given_back: BTreeMap<PublicKey, u32>,
    /// The executor of the last attempt, and why it ended; none while an executor has the task.
    pub(super) last: Option<(PublicKey, Moved)>,
}

impl TaskNodes {
    /// The next executor: `stay` while it is on the list, otherwise the first of the list that this round hasn't
    /// tried. That is the n-th at attempt n, and still the right one after dead nodes have left the list. After all
    /// were tried a new round begins, but not with the last executor if there is another.
    pub(super) fn choose(&mut self, list: &[PublicKey], stay: Option<PublicKey>) -> Option<PublicKey> {
        if list.is_empty() {
            return None;
        }
        if let Some(stay) = stay.filter(|stay| list.contains(stay)) {
            return Some(stay);
        }
        if self.tried.len() < MAX_TRIED
            && let Some(next) = list.iter().find(|member| !self.tried.contains(*member))
        {
            return Some(*next);
        }
        self.tried.clear();
        let last = self.last.as_ref().map(|(last, _)| *last);
        list.iter().find(|member| list.len() == 1 || Some(**member) != last).copied()
    }

    /// Notes that an attempt goes to `target`.
    pub(super) fn addressed(&mut self, target: PublicKey) {
        self.tried.insert(target);
        self.hear(target);
    }

    /// Notes that messages of `peer` about the task count.
    pub(super) fn hear(&mut self, peer: PublicKey) {
        if self.heard.len() < MAX_HEARD_PER_TASK {
            self.heard.insert(peer);
        }
    }

    pub(super) fn has_heard(&self, peer: &PublicKey) -> bool {
        self.heard.contains(peer)
    }

    /// Notes that `peer` has given this attempt back: it failed there, or had no place, or the node drains.
    pub(super) fn gave_back(&mut self, peer: PublicKey, attempt: u32) {
        if self.has_heard(&peer) {
            let latest = self.given_back.entry(peer).or_default();
            *latest = attempt.max(*latest);
        }
    }

    /// Whether what `peer` says of this attempt is from before it gave the attempt back.
    pub(super) fn has_given_back(&self, peer: &PublicKey, attempt: u32) -> bool {
        self.given_back.get(peer).is_some_and(|latest| attempt <= *latest)
    }

    /// The nodes that may still have the task.
    pub(super) fn into_heard(self) -> BTreeSet<PublicKey> {
        self.heard
    }

    /// Those of the list whose policies haven't refused the task.
    pub(super) fn may_allow(&self, mut list: Vec<PublicKey>) -> Vec<PublicKey> {
        list.retain(|member| !self.not_allowed.contains(member));
        list
    }

    /// Notes that the policy of `peer` doesn't permit the task.
    pub(super) fn refused_by_policy(&mut self, peer: PublicKey, needs: Needs) {
        self.not_allowed.insert(peer);
        self.needs.join(needs);
    }

    /// What the task's submitter would need, if all of the list have said that they won't run the task, and some by policy.
    /// So it is when very many have said so.
    pub(super) fn needed(&self, list: &[PublicKey]) -> Option<&Needs> {
        let over = self.not_allowed.len() >= MAX_NOT_ALLOWED || (!list.is_empty() && self.none_runs_it(list));
        (over && !self.not_allowed.is_empty()).then_some(&self.needs)
    }

    fn none_runs_it(&self, list: &[PublicKey]) -> bool {
        list.iter().all(|member| self.without_kind.contains(member) || self.not_allowed.contains(member))
    }

    /// Notes that `peer` has no handler of the kind; returns whether none of the list has one.
    pub(super) fn lacks_kind(&mut self, peer: PublicKey, list: &[PublicKey]) -> bool {
        if self.without_kind.len() < MAX_HEARD_PER_TASK {
            self.without_kind.insert(peer);
        }
        list.iter().all(|member| self.without_kind.contains(member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    #[test]
    fn a_round_tries_all_of_the_list_and_the_next_does_not_begin_with_the_last() {
        let (list, mut nodes) = ([key(1), key(2), key(3)], TaskNodes::default());
        let next = |nodes: &mut TaskNodes, list: &[PublicKey]| {
            let chosen = nodes.choose(list, None);
            chosen.into_iter().for_each(|chosen| nodes.addressed(chosen));
            chosen
        };
        for n in 1..=3 {
            assert_eq!(next(&mut nodes, &list), Some(key(n)));
        }
        nodes.last = Some((key(1), Moved::Silent));
        assert_eq!(next(&mut nodes, &list), Some(key(2)));
        assert_eq!(next(&mut nodes, &[]), None);
        assert_eq!(next(&mut nodes, &[key(1)]), Some(key(1)), "the only one is tried again");
    }

    #[test]
    fn each_round_tries_all_of_the_list() {
        let (list, mut nodes) = ([key(1), key(2), key(3)], TaskNodes::default());
        let next = |_| {
            let chosen = nodes.choose(&list, None).expect("the list isn't empty");
            nodes.addressed(chosen);
            nodes.last = Some((chosen, Moved::Silent));
            chosen
        };
        assert_eq!((0..7).map(next).collect::<Vec<_>>(), [1, 2, 3, 1, 2, 3, 1].map(key));
    }

    #[test]
    fn the_one_to_stay_with_is_chosen_only_while_it_is_on_the_list() {
        let mut nodes = TaskNodes::default();
        assert_eq!(nodes.choose(&[key(1), key(2)], Some(key(2))), Some(key(2)));
        assert_eq!(nodes.choose(&[key(1), key(2)], Some(key(3))), Some(key(1)));
    }

    #[test]
    fn a_kind_is_unknown_once_all_of_the_list_have_said_so() {
        let mut nodes = TaskNodes::default();
        assert!(!nodes.lacks_kind(key(1), &[key(1), key(2)]));
        assert!(nodes.lacks_kind(key(2), &[key(1), key(2)]));
    }
}
