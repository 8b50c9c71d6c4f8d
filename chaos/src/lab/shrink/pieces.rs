//! Parts of a plan that are left out together: the faults of a kind, those of a host, single ones.

use crate::lab::plan::{Fault, FaultKind, LinkScope, Planned};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What belongs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grouping {
    /// All faults of a kind.
    Kinds,
    /// All faults of a host or a box. It leaves the sides of partitions, too.
    Hosts,
    /// Each fault alone.
    Singles,
}

impl Grouping {
    /// The number of groups of the plan.
    pub(super) fn count(self, faults: &[Planned]) -> usize {
        match self {
            Grouping::Kinds => kinds(faults).len(),
            Grouping::Hosts => names(faults).len(),
            Grouping::Singles => faults.len(),
        }
    }

    /// The plan without the groups `from..to`.
    pub(super) fn without(self, faults: &[Planned], from: usize, to: usize) -> Vec<Planned> {
        match self {
            Grouping::Kinds => {
                let kinds = &kinds(faults)[from..to];
                faults.iter().filter(|planned| !kinds.contains(&planned.fault.kind())).cloned().collect()
            }
            Grouping::Hosts => {
                let names = names(faults);
                faults.iter().filter_map(|planned| without_names(planned, &names[from..to])).collect()
            }
            Grouping::Singles => [&faults[..from], &faults[to..]].concat(),
        }
    }
}

/// The kinds in a plan, those of most faults first.
fn kinds(faults: &[Planned]) -> Vec<FaultKind> {
    let mut counted = BTreeMap::new();
    for planned in faults {
        *counted.entry(planned.fault.kind()).or_insert(0usize) += 1;
    }
    let mut kinds: Vec<_> = counted.into_iter().collect();
    kinds.sort_by_key(|(_, count)| Reverse(*count));
    kinds.into_iter().map(|(kind, _)| kind).collect()
}

/// The hosts and boxes that a plan names.
fn names(faults: &[Planned]) -> Vec<String> {
    let mut names = Vec::new();
    for planned in faults {
        match &planned.fault {
            Fault::Link { on: LinkScope::Everywhere, .. } => {}
            Fault::Link { on: LinkScope::Host(name) | LinkScope::Box(name), .. } => names.push(name.clone()),
            Fault::Partition { left, right, .. } => names.extend(left.iter().chain(right).cloned()),
            Fault::Host { host, .. } => names.push(host.clone()),
            Fault::Box { net, .. } => names.push(net.clone()),
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The fault if these hosts and boxes have none; `None` if nothing of it is left.
fn without_names(planned: &Planned, names: &[String]) -> Option<Planned> {
    let keeps = |name: &String| !names.contains(name);
    let is_kept = match &planned.fault {
        Fault::Link { on: LinkScope::Everywhere, .. } => true,
        Fault::Link { on: LinkScope::Host(name) | LinkScope::Box(name), .. } => keeps(name),
        Fault::Host { host, .. } => keeps(host),
        Fault::Box { net, .. } => keeps(net),
        Fault::Partition { left, right, one_way } => {
            let kept = |side: &[String]| side.iter().filter(|name| keeps(name)).cloned().collect::<Vec<_>>();
            let (left, right) = (kept(left), kept(right));
            let is_cut = !left.is_empty() && !right.is_empty();
            let fault = Fault::Partition { left, right, one_way: *one_way };
            return is_cut.then(|| Planned { fault, ..planned.clone() });
        }
    };
    is_kept.then(|| planned.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::plan::Plan;

    fn without(grouping: Grouping, from: usize, to: usize) -> (usize, String) {
        let text = "1s crash a for=1s\n2s partition a b / c for=1s\n3s restart b\n4s restart c";
        let plan: Plan = text.parse().unwrap();
        let left = Plan::new(grouping.without(plan.faults(), from, to));
        (grouping.count(plan.faults()), left.to_string())
    }

    #[test]
    fn a_kind_a_host_or_one_fault_is_left_out() {
        // Two restarts, so they are the first kind.
        assert_eq!(
            without(Grouping::Kinds, 0, 1),
            (3, "1s crash a for=1s\n2s partition a b / c for=1s\n".to_owned())
        );
        let (count, left) = without(Grouping::Hosts, 0, 1);
        assert_eq!((count, left.as_str()), (3, "2s partition b / c for=1s\n3s restart b\n4s restart c\n"));
        assert_eq!(without(Grouping::Hosts, 2, 3).1, "1s crash a for=1s\n3s restart b\n");
        assert_eq!(without(Grouping::Singles, 1, 4), (4, "1s crash a for=1s\n".to_owned()));
    }
}
