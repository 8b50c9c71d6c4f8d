//! Plans with fewer and rounder moments: faults that begin together, and at "2s" rather than at "2.143s".

use crate::lab::plan::Planned;
use std::time::Duration;

/// The grains of a moment, in ms, the roundest first.
const GRAINS_MS: &[u64] = &[1_000, 100];

/// Plans of the same faults, of which some begin at other moments, so that there are fewer moments or rounder ones. No
/// chain of them is endless: each has fewer moments, or the same number and rounder ones, or earlier ones.
pub(super) fn slid(faults: &[Planned]) -> Vec<Vec<Planned>> {
    let mut moments: Vec<Duration> = faults.iter().map(|planned| planned.at).collect();
    moments.sort_unstable();
    moments.dedup();
    let moved = |to: &dyn Fn(Duration) -> Duration| -> Vec<Planned> {
        faults.iter().map(|planned| Planned { at: to(planned.at), ..planned.clone() }).collect()
    };
    let mut plans = Vec::new();
    let grain = Duration::from_millis(GRAINS_MS[0]);
    // The whole plan earlier, so that less work may be enough.
    if let Some(first) = moments.first().map(|at| floor(*at, grain)).filter(|first| !first.is_zero()) {
        plans.push(moved(&|at| at - first));
    }
    if moments.iter().filter(|at| !is_round(**at, grain)).count() > 1 {
        plans.push(moved(&|at| floor(at, grain)));
    }
    for (place, moment) in moments.iter().enumerate() {
        let mut move_one = |to: Duration| {
            plans.push(moved(&|at| if at == *moment { to } else { at }));
        };
        let before = place.checked_sub(1).and_then(|place| moments.get(place));
        for to in before.into_iter().chain(moments.get(place + 1)) {
            move_one(*to);
        }
        for grain in GRAINS_MS.iter().map(|ms| Duration::from_millis(*ms)) {
            if is_round(*moment, grain) {
                break;
            }
            move_one(floor(*moment, grain));
            move_one(floor(*moment, grain) + grain);
        }
    }
    plans
}

fn is_round(at: Duration, grain: Duration) -> bool {
    floor(at, grain) == at
}

fn floor(at: Duration, grain: Duration) -> Duration {
    let (at, grain) = (at.as_millis() as u64, grain.as_millis() as u64);
    Duration::from_millis(at - at % grain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::plan::Plan;

    /// The moments of each plan in ms, space-separated.
    fn moments(text: &str) -> Vec<String> {
        let plan: Plan = text.parse().unwrap();
        let told = |plan: &Vec<Planned>| {
            plan.iter().map(|planned| planned.at.as_millis().to_string()).collect::<Vec<_>>().join(" ")
        };
        slid(plan.faults()).iter().map(told).collect()
    }

    #[test]
    fn moments_become_fewer_or_rounder() {
        let two = moments("2.143s restart a\n3s restart b");
        assert_eq!(
            two,
            ["143 1000", "3000 3000", "2000 3000", "3000 3000", "2100 3000", "2200 3000", "2143 2143"]
        );
        assert!(moments("0s restart a\n0s restart b").is_empty());
        assert_eq!(moments("1.5s restart a\n2.5s restart b")[1], "1000 2000", "all at once first");
    }

    #[test]
    fn a_chain_of_slides_ends() {
        for always in [0, 1, 2, 3] {
            let mut plan = "7.143s restart a\n9.001s restart b\n9.5s restart c".parse::<Plan>().unwrap();
            let mut steps = 0;
            loop {
                let next = slid(plan.faults());
                let Some(next) = next.get(always.min(next.len().saturating_sub(1))) else { break };
                (plan, steps) = (Plan::new(next.clone()), steps + 1);
                assert!(steps < 40, "{plan}");
            }
        }
    }
}
