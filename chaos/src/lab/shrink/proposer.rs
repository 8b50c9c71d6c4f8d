//! Which simpler runs to try, in which order: a pure machine that proposes a run and is told whether it failed.
//!
//! The stages, each over the simplest failing run so far:
//!
//! 1. branches of the recipe are left out;
//! 2. less work, then all faults but those that did something;
//! 3. whole kinds of fault left out, then hosts, with their faults and in partitions, then hosts of the scenario, then
//!    single faults: halves, quarters and so on (delta debugging, Zeller and Hildebrandt, 2002);
//! 4. shorter and weaker faults, at fewer and rounder moments, then shorter lengths of the scenario;
//! 5. faults left out once more, with other schedules; if many are left, before stage 4 too, since each costs runs there.
//!
//! Nothing is proposed twice. If the last stage is over and something became simpler, all begins again.
//!
//! A plan with one fault less also shifts the order in which tasks run at one instant, because that order is one random
//! stream. So a run without a fault that isn't needed may hold by bad luck, and other schedules may fail. To try them for
//! each proposal costs most of the runs, and mostly for nothing: only the few faults that are left at last are worth it.

use super::milder::{rounder, shorter, weaker};
use super::moments::slid;
use super::pieces::Grouping;
use crate::lab::plan::{Plan, Planned};
use crate::lab::scenario::{Knob, KnobKind, Options};
use crate::seed::subseed;
use std::collections::BTreeSet;

/// Scheduler seeds that the last stage tries: the one that failed, and others.
const SCHEDULES: u32 = 4;

/// A plan with more faults than that gets other schedules before its faults are made milder.
const FEW: usize = 4;

/// What became of a proposed run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judged {
    /// It doesn't fail in the same way.
    Holds,
    /// It does; these faults of its plan, by number from 0, have never begun.
    Fails { idle: BTreeSet<usize> },
}

/// A stage, with its place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Branches,
    Knobs(KnobKind),
    Idle,
    /// Pieces of `size` groups are left out, from this group on.
    Pieces {
        grouping: Grouping,
        size: usize,
        from: usize,
    },
    Milder,
    Moments,
    Schedules {
        /// Whether it is the last stage, or that before the faults are made milder.
        is_last: bool,
    },
}

impl Stage {
    /// Before any group of the plan has been left out.
    fn pieces(grouping: Grouping) -> Stage {
        Stage::Pieces { grouping, size: usize::MAX, from: 0 }
    }

    /// The stage after this one, if `faults` are left.
    fn next(self, faults: usize) -> Option<Stage> {
        Some(match self {
            Stage::Branches => Stage::Knobs(KnobKind::Work),
            Stage::Knobs(KnobKind::Work) => Stage::Idle,
            Stage::Idle => Stage::pieces(Grouping::Kinds),
            Stage::Pieces { grouping: Grouping::Kinds, .. } => Stage::pieces(Grouping::Hosts),
            Stage::Pieces { grouping: Grouping::Hosts, .. } => Stage::Knobs(KnobKind::Hosts),
            Stage::Knobs(KnobKind::Hosts) => Stage::pieces(Grouping::Singles),
            Stage::Pieces { grouping: Grouping::Singles, .. } if faults > FEW => {
                Stage::Schedules { is_last: false }
            }
            Stage::Pieces { grouping: Grouping::Singles, .. } | Stage::Schedules { is_last: false } => {
                Stage::Milder
            }
            Stage::Milder => Stage::Moments,
            Stage::Moments => Stage::Knobs(KnobKind::Length),
            Stage::Knobs(KnobKind::Length) => Stage::Schedules { is_last: true },
            Stage::Schedules { is_last: true } => return None,
        })
    }
}

/// Proposes simpler runs.
#[derive(Debug, Clone)]
pub(super) struct Proposer {
    knobs: &'static [Knob],
    /// The simplest run that fails.
    best: Options,
    /// The faults of its plan that have never begun.
    idle: BTreeSet<usize>,
    stage: Stage,
    /// Whether something became simpler since the first stage.
    is_simpler: bool,
    /// The run that was proposed last.
    proposed: Option<Options>,
    /// All runs that were proposed.
    tried: BTreeSet<[u8; 32]>,
}

impl Proposer {
    /// `failing` names its plan and its scheduler's seed.
    pub(super) fn new(knobs: &'static [Knob], failing: Options, idle: BTreeSet<usize>) -> Proposer {
        let tried = BTreeSet::from([key(&failing)]);
        let (stage, is_simpler) = (Stage::Branches, false);
        Proposer { knobs, best: failing, idle, stage, is_simpler, proposed: None, tried }
    }

    /// The next run to try; `None` if there is no simpler one.
    pub(super) fn propose(&mut self) -> Option<Options> {
        loop {
            let fresh = self.simpler().into_iter().find(|options| self.tried.insert(key(options)));
            if let Some(options) = fresh {
                self.proposed = Some(options.clone());
                return Some(options);
            }
            self.stage = match self.rest_of_stage().or_else(|| self.stage.next(self.faults().len())) {
                Some(stage) => stage,
                None if self.is_simpler => {
                    self.is_simpler = false;
                    Stage::Branches
                }
                None => return None,
            };
        }
    }

    /// What became of the run that was proposed last.
    pub(super) fn judged(&mut self, judged: Judged) {
        let proposed = self.proposed.take().expect("a run was proposed");
        match judged {
            Judged::Fails { idle } => {
                self.best = proposed;
                self.idle = idle;
                self.is_simpler = true;
            }
            Judged::Holds => {
                if let Stage::Pieces { size, from, .. } = &mut self.stage {
                    *from = from.saturating_add(*size);
                }
            }
        }
    }

    fn faults(&self) -> &[Planned] {
        self.best.plan.as_ref().map_or(&[], Plan::faults)
    }

    fn with(&self, faults: Vec<Planned>) -> Options {
        Options { plan: Some(Plan::new(faults)), ..self.best.clone() }
    }

    /// The proposals of this stage, in their order.
    fn simpler(&self) -> Vec<Options> {
        let faults = self.faults();
        match self.stage {
            Stage::Branches => {
                let without =
                    |number| Options { recipe: self.best.recipe.without(number), ..self.best.clone() };
                (0..self.best.recipe.branches().len()).rev().map(without).collect()
            }
            Stage::Knobs(turns) => self
                .knobs
                .iter()
                .filter(|knob| knob.turns == turns)
                .flat_map(|knob| self.turned(knob))
                .collect(),
            Stage::Idle if self.idle.is_empty() => Vec::new(),
            Stage::Idle => {
                let begun = faults.iter().enumerate().filter(|(number, _)| !self.idle.contains(number));
                vec![self.with(begun.map(|(_, planned)| planned.clone()).collect())]
            }
            Stage::Pieces { grouping, size, from } => {
                let count = grouping.count(faults);
                if from >= count {
                    return Vec::new();
                }
                vec![self.with(grouping.without(faults, from, from.saturating_add(size).min(count)))]
            }
            Stage::Milder => self.milder(),
            Stage::Moments => slid(faults).into_iter().map(|faults| self.with(faults)).collect(),
            Stage::Schedules { .. } => self.with_other_schedules(),
        }
    }

    /// The same stage further on, if it isn't over.
    fn rest_of_stage(&self) -> Option<Stage> {
        let Stage::Pieces { grouping, size, from } = self.stage else { return None };
        let count = grouping.count(self.faults());
        if from < count {
            // This piece was tried before.
            return Some(Stage::Pieces { grouping, size, from: from.saturating_add(size) });
        }
        let size = if size > count { count } else { size / 2 };
        (size > 0).then_some(Stage::Pieces { grouping, size, from: 0 })
    }

    /// Lower values of a knob: the least, then halfway to the present one, and so on.
    fn turned(&self, knob: &Knob) -> Vec<Options> {
        let value = self.best.knobs.get(knob.name).copied().unwrap_or(knob.default).max(knob.least);
        let (mut values, mut left) = (Vec::new(), value - knob.least);
        while left > 0 {
            values.push(value - left);
            left /= 2;
        }
        let turned = |value| {
            let mut options = self.best.clone();
            options.knobs.insert(knob.name.to_owned(), value);
            options
        };
        values.into_iter().map(turned).collect()
    }

    fn milder(&self) -> Vec<Options> {
        let faults = self.faults();
        let all = |forms: fn(&Planned) -> Vec<Planned>| -> Vec<Planned> {
            faults
                .iter()
                .map(|planned| forms(planned).into_iter().next().unwrap_or(planned.clone()))
                .collect()
        };
        let mut plans = if faults.len() > 1 { vec![all(shorter), all(weaker)] } else { Vec::new() };
        for (number, planned) in faults.iter().enumerate() {
            plans.extend([shorter(planned), weaker(planned), rounder(planned)].into_iter().flatten().map(
                |form| {
                    let mut faults = faults.to_vec();
                    faults[number] = form;
                    faults
                },
            ));
        }
        plans.into_iter().map(|faults| self.with(faults)).collect()
    }

    fn with_other_schedules(&self) -> Vec<Options> {
        let faults = self.faults();
        let others = (1..SCHEDULES).map(|n| subseed(self.best.seed, &format!("scheduler/{n}")));
        let seeds: Vec<u64> = self.best.scheduler_seed.into_iter().chain(others).collect();
        let (mut simpler, mut size) = (Vec::new(), faults.len());
        while size > 0 {
            // One seed after the other: a piece that isn't needed needs no particular one.
            for seed in &seeds {
                for from in (0..faults.len()).step_by(size) {
                    let to = (from + size).min(faults.len());
                    let options = self.with(Grouping::Singles.without(faults, from, to));
                    simpler.push(Options { scheduler_seed: Some(*seed), ..options });
                }
            }
            size /= 2;
        }
        simpler
    }
}

/// Equal for equal runs.
fn key(options: &Options) -> [u8; 32] {
    *blake3::hash(format!("{options:?}").as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests;
