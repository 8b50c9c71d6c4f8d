//! Shrinks a failing run: fewer faults, fewer hosts, less work, milder faults.
//!
//! Delta debugging (Zeller and Hildebrandt, 2002) over the plan, then reduction of the number of hosts and of the
//! amount of work, then of the parameters of the remaining faults, then the plan once more. A candidate counts only
//! if *the same property* breaks; otherwise a shrinker drifts from the failure that was found to one that is easier
//! to trigger.
//!
//! A plan with one fault less also shifts the order in which tasks run at one instant, because that order is one
//! random stream. So a candidate is tried with up to [`SCHEDULES`] scheduler seeds, and the seed that failed is
//! kept.

use crate::lab::plan::{BoxFault, Effect, Fault, HostFault, Plan, Planned};
use crate::lab::scenario::{Knob, KnobKind, Options, Report, Scenario};
use crate::seed::subseed;
use crate::world::property::{PropertyKind, Violation};
use std::fmt;
use std::time::Duration;

/// Scheduler seeds with which a candidate is tried.
pub const SCHEDULES: u32 = 4;

/// The default limit of a shrink's runs: some minutes.
pub const RUNS: u32 = 400;

/// The shortest duration tried: a shorter fault would be over before it had an effect.
const LEAST_LASTS: Duration = Duration::from_millis(10);

/// A failing run after shrinking.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// The smallest run that still fails; its options name the plan and the scheduler's seed.
    pub report: Report,
    /// The number of faults in the original run.
    pub faults_before: usize,
    /// Reduced knobs: name, value before, value after.
    pub knobs: Vec<(&'static str, u64, u64)>,
    /// Runs that the shrink took.
    pub runs: u32,
    /// Whether the shrink stopped because the runs were used up.
    pub gave_up: bool,
}

impl Shrunk {
    /// The number of faults left.
    pub fn faults_after(&self) -> usize {
        self.report.options.plan.as_ref().map_or(0, Plan::len)
    }
}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} faults → {}", self.faults_before, self.faults_after())?;
        for (name, before, after) in &self.knobs {
            write!(f, ", {name} {before} → {after}")?;
        }
        write!(f, ", in {} runs", self.runs)?;
        f.write_str(if self.gave_up { " (the limit)" } else { "" })
    }
}

/// The identity of the failure to preserve.
struct Target {
    kind: PropertyKind,
    property: String,
}

impl Target {
    fn is(&self, broken: &Violation) -> bool {
        broken.kind == self.kind && broken.property == self.property
    }
}

struct Shrinker<'a> {
    scenario: &'a Scenario,
    target: Target,
    best: Report,
    runs: u32,
    limit: u32,
    told: &'a mut dyn FnMut(&str),
}

/// Shrinks a failing run in at most `limit` runs, and reports each step to `told`. The report of a run that held is
/// returned without shrinking.
pub fn shrink(scenario: &Scenario, failing: &Report, limit: u32, told: &mut dyn FnMut(&str)) -> Shrunk {
    let plan = failing.plan.as_ref().map(|unleashed| unleashed.plan.clone());
    let faults_before = plan.as_ref().map_or(0, Plan::len);
    let mut best = failing.clone();
    best.options.plan = plan;
    best.options.scheduler_seed = Some(failing.scheduler_seed);
    let Err(broken) = &failing.verdict else {
        return Shrunk { report: best, faults_before, knobs: Vec::new(), runs: 0, gave_up: false };
    };
    let target = Target { kind: broken.kind, property: broken.property.clone() };
    let mut shrinker = Shrinker { scenario, target, best, runs: 0, limit, told };
    shrinker.fewer_branches();
    shrinker.fewer_faults();
    for turns in [KnobKind::Hosts, KnobKind::Work] {
        for knob in scenario.knobs.iter().filter(|knob| knob.turns == turns) {
            shrinker.turn_down(knob);
        }
    }
    shrinker.milder_faults();
    shrinker.fewer_faults();
    let best = shrinker.best;
    let knobs = scenario.knobs.iter().filter_map(|knob| {
        let (before, after) = (scenario.knob(knob, &failing.options), scenario.knob(knob, &best.options));
        (before != after).then_some((knob.name, before, after))
    });
    Shrunk {
        faults_before,
        knobs: knobs.collect(),
        runs: shrinker.runs,
        gave_up: shrinker.runs >= limit,
        report: best,
    }
}

impl Shrinker<'_> {
    /// Whether a run with these options fails in the same way; if so it becomes the best so far.
    fn fails(&mut self, options: Options) -> bool {
        let first = self.best.scheduler_seed;
        let others = (1..SCHEDULES).map(|n| subseed(options.seed, &format!("scheduler/{n}")));
        for scheduler_seed in std::iter::once(first).chain(others) {
            if self.runs >= self.limit {
                return false;
            }
            self.runs += 1;
            let options = Options { scheduler_seed: Some(scheduler_seed), ..options.clone() };
            let report = self.scenario.run(&options);
            if report.verdict.as_ref().is_err_and(|broken| self.target.is(broken)) {
                self.best = report;
                return true;
            }
        }
        false
    }

    fn plan(&self) -> Vec<Planned> {
        self.best.options.plan.as_ref().map_or(Vec::new(), |plan| plan.faults().to_vec())
    }

    fn fails_with(&mut self, faults: Vec<Planned>) -> bool {
        let plan = Some(Plan::new(faults));
        self.fails(Options { plan, ..self.best.options.clone() })
    }

    /// Removes branches of the recipe, the last one first.
    fn fewer_branches(&mut self) {
        for number in (0..self.best.options.recipe.branches().len()).rev() {
            let recipe = self.best.options.recipe.without(number);
            if self.fails(Options { recipe, ..self.best.options.clone() }) {
                let left = self.best.options.recipe.branches().len();
                (self.told)(&format!("{left} branches left after {} runs", self.runs));
            }
        }
    }

    /// ddmin: removes larger, then smaller pieces, until no single fault can be removed.
    fn fewer_faults(&mut self) {
        let all = self.plan();
        if all.is_empty() || self.fails_with(Vec::new()) {
            return;
        }
        let mut pieces = 2;
        loop {
            let faults = self.plan();
            if faults.len() < 2 {
                break;
            }
            let size = faults.len().div_ceil(pieces);
            let without = |start: usize| {
                let end = (start + size).min(faults.len());
                [&faults[..start], &faults[end..]].concat()
            };
            let starts = (0..faults.len()).step_by(size);
            if starts.clone().any(|start| self.fails_with(without(start))) {
                pieces = pieces.saturating_sub(1).max(2);
                let left = self.plan().len();
                (self.told)(&format!("{left} faults left after {} runs", self.runs));
            } else if size == 1 {
                break;
            } else {
                pieces = (pieces * 2).min(faults.len());
            }
        }
    }

    /// Reduces a knob to its least value, or towards it by bisection.
    fn turn_down(&mut self, knob: &Knob) {
        let mut floor = knob.least;
        let mut value = self.scenario.knob(knob, &self.best.options);
        let mut next = floor;
        while next < value {
            let mut options = self.best.options.clone();
            options.knobs.insert(knob.name.to_owned(), next);
            if self.fails(options) {
                value = next;
                (self.told)(&format!("{} {value} after {} runs", knob.name, self.runs));
            } else {
                floor = next + 1;
            }
            next = floor + (value - floor.min(value)) / 2;
        }
    }

    /// Tries each fault shorter, weaker and at rounder moments, until no attempt fails in the same way.
    fn milder_faults(&mut self) {
        loop {
            let mut changed = false;
            for at in 0..self.plan().len() {
                // A successful step may enable further steps on the same fault.
                while self.runs < self.limit {
                    let faults = self.plan();
                    let Some(fault) = faults.get(at) else { break };
                    let milder = milder(fault).into_iter().any(|fault| {
                        let mut faults = faults.clone();
                        faults[at] = fault;
                        self.fails_with(faults)
                    });
                    changed |= milder;
                    if !milder {
                        break;
                    }
                }
            }
            if !changed || self.runs >= self.limit {
                return;
            }
        }
    }
}

/// Half of the value; `None` if that is zero.
fn half(value: u32) -> Option<u32> {
    (value > 1).then_some(value / 2)
}

/// Milder forms of the fault.
fn milder(planned: &Planned) -> Vec<Planned> {
    let mut forms = Vec::new();
    if let Some(lasts) = planned.lasts.filter(|lasts| *lasts / 2 >= LEAST_LASTS) {
        let ms = (lasts / 2).as_millis() as u64;
        forms.push(Planned { lasts: Some(Duration::from_millis(ms)), ..planned.clone() });
    }
    // Rounder moments are easier to read: "2s" rather than "2.143s".
    for grain_ms in [1_000, 100] {
        let ms = planned.at.as_millis() as u64;
        let rounded = Duration::from_millis(ms - ms % grain_ms);
        if rounded != planned.at {
            forms.push(Planned { at: rounded, ..planned.clone() });
            break;
        }
    }
    let faults = weaker(&planned.fault);
    forms.extend(faults.into_iter().map(|fault| {
        let lasts = planned.lasts.filter(|_| !fault.kind().is_momentary());
        Planned { at: planned.at, fault, lasts }
    }));
    forms
}

fn weaker(fault: &Fault) -> Vec<Fault> {
    match fault {
        Fault::Link { on, way, effect } => {
            let weaker = weaker_effect(effect);
            weaker.map(|effect| Fault::Link { on: on.clone(), way: *way, effect }).into_iter().collect()
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
            let weaker = match fault {
                HostFault::ClockStep { by_ms } if by_ms.abs() > 1 => {
                    HostFault::ClockStep { by_ms: by_ms / 2 }
                }
                HostFault::ClockDrift { ppm } if ppm.abs() > 1 => HostFault::ClockDrift { ppm: ppm / 2 },
                HostFault::Buggify { point, percent } if *percent > 1 => {
                    HostFault::Buggify { point: point.clone(), percent: percent / 2 }
                }
                HostFault::PowerLoss => HostFault::Crash,
                HostFault::DnsSlow { add } if *add > Duration::from_millis(1) => {
                    HostFault::DnsSlow { add: Duration::from_millis((*add / 2).as_millis() as u64) }
                }
                _ => return Vec::new(),
            };
            vec![Fault::Host { host: host.clone(), fault: weaker }]
        }
        Fault::Box { net, fault: BoxFault::Off } => {
            vec![Fault::Box { net: net.clone(), fault: BoxFault::Reboot }]
        }
        Fault::Box { .. } => Vec::new(),
    }
}

fn weaker_effect(effect: &Effect) -> Option<Effect> {
    Some(match *effect {
        Effect::Loss { udp_percent, tcp_percent: 1.. } => Effect::Loss { udp_percent, tcp_percent: 0 },
        Effect::Loss { udp_percent, .. } => Effect::Loss { udp_percent: half(udp_percent)?, tcp_percent: 0 },
        Effect::Burst { begin_percent, end_percent, loss_percent } => {
            Effect::Burst { begin_percent, end_percent, loss_percent: half(loss_percent)? }
        }
        Effect::Latency { add, jitter } if !jitter.is_zero() => {
            Effect::Latency { add, jitter: Duration::from_millis((jitter / 2).as_millis() as u64) }
        }
        Effect::Latency { add, jitter } if add > Duration::from_millis(1) => {
            Effect::Latency { add: Duration::from_millis((add / 2).as_millis() as u64), jitter }
        }
        Effect::Clog { every } if every > Duration::from_millis(1) => {
            Effect::Clog { every: Duration::from_millis((every / 2).as_millis() as u64) }
        }
        Effect::Clog { .. } | Effect::Latency { .. } | Effect::Bandwidth { .. } | Effect::Mtu { .. } => {
            return None;
        }
        Effect::Duplicate { percent } => Effect::Duplicate { percent: half(percent)? },
        Effect::Reorder { percent, by } => Effect::Reorder { percent: half(percent)?, by },
        Effect::Corrupt { percent } => Effect::Corrupt { percent: half(percent)? },
        Effect::Truncate { percent } => Effect::Truncate { percent: half(percent)? },
    })
}
