//! A run that goes another way from an event on, without faults.

use crate::lab::plan::{Plan, Planned};
use crate::lab::scenario::{Options, Report};
use crate::world::recipe::Branch;
use crate::world::timeline::Timeline;
use std::time::Duration;

/// The inputs of a continuation of a failed run: the same up to `branch.event`, then all faults end, none begins, and
/// schedules and randomness are those of `branch.seed`.
pub(super) fn continued(failing: &Report, timeline: &Timeline, branch: Branch) -> Options {
    // A plan that was never started must not be started later either.
    let started = failing.plan.as_ref();
    let plan = started.map(|started| cut(&started.plan, started.at, timeline, branch.event));
    Options {
        scheduler_seed: Some(failing.scheduler_seed),
        plan: Some(plan.unwrap_or_default()),
        recipe: failing.options.recipe.branched(branch),
        ..failing.options.clone()
    }
}

/// The faults of a plan that have begun by an event; those under way end right after its instant, so that everything up
/// to the event is as it was. `started` is when the plan was.
fn cut(plan: &Plan, started: Duration, timeline: &Timeline, event: u64) -> Plan {
    let now = timeline.at(event) + Duration::from_nanos(1);
    let has_begun = |number: &usize| timeline.begun.get(number).is_some_and(|begun| *begun <= event);
    let faults = plan.faults().iter().enumerate().filter(|(number, _)| has_begun(number));
    let ended = faults.map(|(_, planned)| {
        let most = now.saturating_sub(started + planned.at);
        let lasts = planned.lasts.map_or(most, |lasts| lasts.min(most));
        let lasts = if planned.fault.kind().is_momentary() { planned.lasts } else { Some(lasts) };
        Planned { lasts, ..planned.clone() }
    });
    Plan::new(ended.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::timeline::TimelineRecorder;

    /// A timeline with an event each second, from 1 s on, and these faults begun at these events.
    fn timeline(begun: &[(usize, u64)]) -> Timeline {
        let mut recorder = TimelineRecorder::new(0..0);
        for number in 1..=20 {
            recorder.record(number * 1_000_000_000, false, String::new);
            begun
                .iter()
                .filter(|(_, event)| *event == number)
                .for_each(|(fault, _)| recorder.fault_begins(*fault));
        }
        recorder.end()
    }

    #[test]
    fn faults_under_way_end_and_those_to_come_are_left_out() {
        let plan: Plan = "1s pause a for=2s\n2s crash b for=10s\n2s restart c\n3s loss everywhere udp=1 tcp=1\n7s crash c for=1s\n"
            .parse()
            .unwrap();
        // The plan was started at 2 s.
        let timeline = timeline(&[(0, 3), (1, 4), (2, 4), (3, 5), (4, 9)]);
        let cut_at = |event| cut(&plan, Duration::from_secs(2), &timeline, event).to_string();
        assert_eq!(cut_at(0), "");
        assert_eq!(cut_at(3), "1s pause a for=1ns\n");
        assert_eq!(
            cut_at(8),
            "1s pause a for=2s\n2s crash b for=4.000000001s\n2s restart c\n3s loss everywhere udp=1 tcp=1 for=3.000000001s\n"
        );
    }

    #[test]
    fn a_fault_that_begins_later_in_the_same_instant_has_not_begun() {
        let plan: Plan = "1s crash a\n1s crash b\n".parse().unwrap();
        let timeline = timeline(&[(0, 1), (1, 2)]);
        assert_eq!(cut(&plan, Duration::ZERO, &timeline, 1).to_string(), "1s crash a for=1ns\n");
    }
}
