//! Milder forms of one fault: shorter, weaker, on fewer hosts. Each is simpler than the form it is made of, so that a
//! shrink ends.

use crate::kernel::disk::DiskPace;
use crate::lab::plan::{BoxFault, Direction, Effect, Fault, HostFault, LinkScope, Planned};
use std::time::Duration;

/// The durations that are tried, in ms: a shorter fault would be over before it had an effect, and a round one is easier
/// to read.
const RUNGS_MS: &[u64] =
    &[10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 20_000, 30_000, 60_000];

/// Shorter forms of the fault, the shortest first: by bisection, since a shrink that has tried one doesn't try it again.
pub(super) fn shorter(planned: &Planned) -> Vec<Planned> {
    let Some(lasts) = planned.lasts else { return Vec::new() };
    let below = RUNGS_MS.iter().filter(|rung| Duration::from_millis(**rung) < lasts).count();
    let rungs = towards(below).into_iter().map(|at| Duration::from_millis(RUNGS_MS[at]));
    rungs.map(|lasts| Planned { lasts: Some(lasts), ..planned.clone() }).collect()
}

/// Forms of the fault that last for a rounder time, "8s" rather than "7.962s".
pub(super) fn rounder(planned: &Planned) -> Vec<Planned> {
    let ms = planned.lasts.map_or(0, |lasts| lasts.as_millis() as u64);
    let grain_ms = if ms > 1_000 { 1_000 } else { 100 };
    if ms < grain_ms || planned.lasts.is_some_and(|lasts| lasts == Duration::from_millis(ms - ms % grain_ms))
    {
        return Vec::new();
    }
    let floor = ms - ms % grain_ms;
    let form = |ms| Planned { lasts: Some(Duration::from_millis(ms)), ..planned.clone() };
    [floor, floor + grain_ms].map(form).into()
}

/// Numbers below `count`: 0, then each half as far from `count` as the one before, to `count - 1`.
fn towards(count: usize) -> Vec<usize> {
    let mut steps = Vec::new();
    let mut left = count;
    while left > 0 {
        steps.push(count - left);
        left /= 2;
    }
    steps
}

/// Weaker forms of the fault, or none.
pub(super) fn weaker(planned: &Planned) -> Vec<Planned> {
    let of = |fault: Fault| {
        let lasts = planned.lasts.filter(|_| !fault.kind().is_momentary());
        Planned { at: planned.at, fault, lasts }
    };
    weaker_faults(&planned.fault).into_iter().map(of).collect()
}

fn weaker_faults(fault: &Fault) -> Vec<Fault> {
    match fault {
        Fault::Link { on, way, effect } => {
            let link = |way, effect| Fault::Link { on: on.clone(), way, effect };
            let ways = [Direction::Out, Direction::In].into_iter().filter(|_| *way == Direction::Both);
            let mut forms: Vec<Fault> =
                weaker_effect(effect).map(|effect| link(*way, effect)).into_iter().collect();
            // A link that isn't a host's or a box's has no directions.
            if !matches!(on, LinkScope::Everywhere) {
                forms.extend(ways.map(|way| link(way, effect.clone())));
            }
            forms
        }
        Fault::Partition { left, right, one_way } => {
            let without = |group: &[String], at: usize| {
                let mut group = group.to_vec();
                group.remove(at);
                group
            };
            let mut forms = Vec::new();
            for at in (0..left.len()).filter(|_| left.len() > 1) {
                forms.push((without(left, at), right.clone()));
            }
            for at in (0..right.len()).filter(|_| right.len() > 1) {
                forms.push((left.clone(), without(right, at)));
            }
            let cut = |(left, right)| Fault::Partition { left, right, one_way: *one_way };
            forms.into_iter().map(cut).collect()
        }
        Fault::Host { host, fault } => {
            let weaker = weaker_host_fault(fault);
            weaker.map(|fault| Fault::Host { host: host.clone(), fault }).into_iter().collect()
        }
        Fault::Box { net, fault: BoxFault::Off } => {
            vec![Fault::Box { net: net.clone(), fault: BoxFault::Reboot }]
        }
        Fault::Box { .. } => Vec::new(),
    }
}

fn weaker_host_fault(fault: &HostFault) -> Option<HostFault> {
    Some(match fault {
        HostFault::ClockStep { by_ms } if by_ms.abs() > 1 => HostFault::ClockStep { by_ms: by_ms / 2 },
        HostFault::ClockDrift { ppm } if ppm.abs() > 1 => HostFault::ClockDrift { ppm: ppm / 2 },
        HostFault::Buggify { point, percent } => {
            HostFault::Buggify { point: point.clone(), percent: half(*percent)? }
        }
        HostFault::PowerLoss => HostFault::Crash,
        HostFault::SlowCpu { times } if *times > 3 => HostFault::SlowCpu { times: times / 2 },
        HostFault::DiskSlow { pace: DiskPace { read, write, sync } } => {
            let pace = DiskPace { read: half_ms(*read), write: half_ms(*write), sync: half_ms(*sync) };
            return (!pace.sync.is_zero()).then_some(HostFault::DiskSlow { pace });
        }
        HostFault::DnsSlow { add } if *add > Duration::from_millis(1) => {
            HostFault::DnsSlow { add: half_ms(*add) }
        }
        _ => return None,
    })
}

fn weaker_effect(effect: &Effect) -> Option<Effect> {
    let least = Duration::from_millis(1);
    Some(match *effect {
        Effect::Loss { udp_percent, tcp_percent: 1.. } => Effect::Loss { udp_percent, tcp_percent: 0 },
        Effect::Loss { udp_percent, .. } => Effect::Loss { udp_percent: half(udp_percent)?, tcp_percent: 0 },
        Effect::Burst { begin_percent, end_percent, loss_percent } => {
            Effect::Burst { begin_percent, end_percent, loss_percent: half(loss_percent)? }
        }
        Effect::Latency { add, jitter } if !jitter.is_zero() => {
            Effect::Latency { add, jitter: half_ms(jitter) }
        }
        Effect::Latency { add, jitter } if add > least => Effect::Latency { add: half_ms(add), jitter },
        Effect::Clog { every } if every > least => Effect::Clog { every: half_ms(every) },
        Effect::Clog { .. } | Effect::Latency { .. } | Effect::Bandwidth { .. } | Effect::Mtu { .. } => {
            return None;
        }
        Effect::Duplicate { percent } => Effect::Duplicate { percent: half(percent)? },
        Effect::Reorder { percent, by } => Effect::Reorder { percent: half(percent)?, by },
        Effect::Corrupt { percent } => Effect::Corrupt { percent: half(percent)? },
        Effect::Truncate { percent } => Effect::Truncate { percent: half(percent)? },
    })
}

/// Half of the value; `None` if that is zero.
fn half(value: u32) -> Option<u32> {
    (value > 1).then_some(value / 2)
}

/// Half of the duration, in whole ms.
fn half_ms(value: Duration) -> Duration {
    Duration::from_millis((value / 2).as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::plan::Plan;

    #[test]
    fn a_duration_is_bisected_from_its_shortest_form() {
        let crash = |lasts| Planned {
            at: Duration::ZERO,
            fault: Fault::Host { host: "a".to_owned(), fault: HostFault::Crash },
            lasts,
        };
        let tried = |ms| {
            let forms = shorter(&crash(Some(Duration::from_millis(ms))));
            forms.iter().map(|form| form.lasts.unwrap().as_millis()).collect::<Vec<_>>()
        };
        assert_eq!(tried(3_000), [10, 200, 1_000, 2_000]);
        assert_eq!(tried(20), [10]);
        assert!(tried(10).is_empty() && shorter(&crash(None)).is_empty());
    }

    #[test]
    fn a_duration_is_rounded_once() {
        let rounded = |text: &str| {
            let plan: Plan = text.parse().unwrap();
            let forms = rounder(&plan.faults()[0]);
            forms.iter().map(|form| form.lasts.unwrap().as_millis()).collect::<Vec<_>>()
        };
        assert_eq!(rounded("0s crash a for=7.962s"), [7_000, 8_000]);
        assert_eq!(rounded("0s crash a for=382ms"), [300, 400]);
        for round in ["0s crash a for=7s", "0s crash a for=300ms", "0s crash a for=50ms", "0s crash a"] {
            assert!(rounded(round).is_empty(), "{round}");
        }
    }

    #[test]
    fn a_chain_of_weaker_forms_ends() {
        let texts = [
            "1s loss * udp=60 tcp=9 for=2s",
            "1s latency a add=300ms jitter=100ms for=2s",
            "1s partition a b c / d e for=2s",
            "1s power-loss a for=2s",
            "1s loss a udp=60 tcp=9 for=2s",
            "1s disk-slow a read=9ms write=80ms sync=700ms for=2s",
            "1s slow-cpu a times=512 for=2s",
            "1s clock-step a by=-360s for=2s",
            "1s box-off n for=2s",
        ];
        for text in texts {
            let plan: Plan = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            let mut form = plan.faults()[0].clone();
            let mut steps = 0;
            while let Some(next) = weaker(&form).into_iter().next() {
                (form, steps) = (next, steps + 1);
                assert!(steps < 40, "{text} becomes {form}");
            }
            assert!(steps > 0, "{text}");
        }
    }
}
