//! What the runs of a test that holds have done, and whether that proves anything.

use crate::lab::scenario::Report;

/// What the runs of a test that holds have done.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) seeds: u64,
    pub(super) faults: usize,
    pub(super) packets: u64,
    /// Runs that started faults.
    started: u64,
    /// Those of them whose seed drew kinds of fault, but not a single fault.
    without_target: u64,
    /// Those whose plan had faults.
    with_plan: u64,
}

impl Done {
    pub(super) fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.packets += report.packets;
        let Some(plan) = &report.plan else { return };
        self.started += 1;
        self.faults += plan.begun;
        let drew_kinds = plan.drawn.as_ref().is_some_and(|drawn| !drawn.starts_with("nothing"));
        self.with_plan += u64::from(!plan.plan.is_empty());
        self.without_target += u64::from(plan.plan.is_empty() && drew_kinds);
    }

    /// Why a test that names faults and holds proves nothing, if so.
    pub(super) fn is_vacuous(&self) -> Option<&'static str> {
        match self {
            Done { started: 0, .. } => Some("none was ever started: call `trial.start_faults`"),
            Done { with_plan: 0, without_target: 1.., .. } => {
                Some("no target can have them: see `chaos::Targets`")
            }
            _ => None,
        }
    }
}
