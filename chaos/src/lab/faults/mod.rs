//! Executes a plan in a world, and ends it.
//!
//! A background task of the scenario begins each fault at its start and ends it after its duration. Nothing here is
//! random.

mod apply;
mod ledger;

use crate::ids::{End, HostId};
use crate::lab::plan::Plan;
use crate::lab::points::Point;
use crate::world::World;
use crate::world::host::Host;
use crate::world::sim;
use ledger::{Before, Hold, Ledger};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A fault plan that was started in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartedPlan {
    /// The plan.
    pub plan: Plan,
    /// The kinds and weights that the seed drew; `None` if the plan was given.
    pub drawn: Option<String>,
    /// When it was started.
    pub at: Duration,
    /// How many of its faults have begun.
    pub begun: usize,
    /// Those that have not, by their number in the plan, from 0 on.
    pub idle: BTreeSet<usize>,
    /// Faults that were skipped, or applied only in part, or never due, each with the reason.
    pub skipped: Vec<String>,
    /// Targets that the world didn't have when the plan was started, each with its fault.
    pub unknown: Vec<String>,
}

/// The account of one run's faults, for the run and for whoever waits for its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account(Arc<Mutex<Ledger>>);

impl Account {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plan that was started, if one was.
    pub(crate) fn report(&self) -> Option<StartedPlan> {
        self.lock().report()
    }
}

/// Begins and ends faults in a world.
#[derive(Debug, Clone)]
pub(crate) struct Injector {
    world: World,
    points: &'static [Point],
    account: Account,
}

impl Injector {
    /// `points` are those of the program.
    pub(crate) fn new(world: World, points: &'static [Point], account: Account) -> Injector {
        Injector { world, points, account }
    }

    /// Calls `f` with the account as it is now. The world must not be borrowed.
    fn with<R>(&self, f: impl FnOnce(&mut Ledger) -> R) -> R {
        let fired = sim::with(|sim| std::mem::take(&mut sim.fired));
        let mut ledger = self.account.lock();
        for (number, host) in fired {
            ledger.fires(number, host);
        }
        f(&mut ledger)
    }

    fn is_held(&self, hold: &Hold) -> bool {
        self.with(|ledger| ledger.is_held(hold))
    }

    /// Adds a hold on a usual state; returns whether it is the first on it.
    fn hold(&self, number: usize, hold: Hold) -> bool {
        self.hold_from(number, hold, || Before::Usual)
    }

    /// Adds a hold; returns whether it is the first on this state. `before` is what the state is now.
    fn hold_from(&self, number: usize, hold: Hold, before: impl FnOnce() -> Before) -> bool {
        let takes_addrs = hold.takes_addrs();
        let is_first = self.with(|ledger| ledger.hold(number, hold, before));
        if takes_addrs {
            self.reserve();
        }
        is_first
    }

    /// Releases a hold; returns the previous state if it was the last hold on it.
    fn release(&self, hold: &Hold) -> Option<Before> {
        let before = self.with(|ledger| ledger.release(hold));
        if hold.takes_addrs() {
            self.reserve();
        }
        before
    }

    /// Tells the world which addresses are taken away now.
    fn reserve(&self) {
        let reserved = self.with(|ledger| ledger.reserved());
        sim::with(|sim| sim.wire.nets.reserve(reserved));
    }

    /// Starts the faults of a plan, from now on and in the background. `drawn` are the kinds and weights that the seed
    /// drew for it, if it did. Returns at once.
    ///
    /// # Panics
    /// If faults have been started in this run before.
    pub(crate) fn start(&self, plan: Plan, drawn: Option<String>) {
        let world = self.world;
        let steps = steps(&plan);
        let begun = world.elapsed();
        let numbered = plan.faults().iter().enumerate();
        let unknown = numbered.filter_map(|(number, planned)| {
            Some((number, apply::unknown(world, self.points, &planned.fault)?))
        });
        let unknown: BTreeMap<usize, String> = unknown.collect();
        sim::with(|sim| sim.keep_map());
        self.with(|ledger| {
            assert!(ledger.plan.is_none(), "faults are let loose once in a run");
            ledger.plan = Some(plan.clone());
            ledger.drawn = drawn;
            ledger.started = begun;
            ledger.unknown = unknown;
        });
        let injector = self.clone();
        drop(madsim::task::spawn(async move {
            for (at, step, number) in steps {
                world.sleep((begun + at).saturating_sub(world.elapsed())).await;
                if injector.with(|ledger| ledger.healed) {
                    return;
                }
                match step {
                    Step::Begin => injector.begin(number, &plan.faults()[number]),
                    Step::End => injector.end(number, false, |_| true),
                }
            }
        }));
    }

    /// Ends every fault; see [`Trial::heal`](crate::Trial::heal).
    pub(crate) async fn heal(&self) {
        self.heal_what(|_| true).await;
        self.world.sleep(self.plan().held_back()).await;
    }

    /// Ends the faults that touch `core`; see [`Trial::heal_core`](crate::Trial::heal_core).
    pub(crate) async fn heal_core(&self, core: &[Host]) {
        let hosts: BTreeSet<HostId> = core.iter().map(Host::id).collect();
        // Roamed hosts return first, because the boxes of their own networks count.
        self.heal_what(|hold| matches!(hold, Hold::Place(id) if hosts.contains(id))).await;
        let mut boxes = BTreeSet::new();
        for mut net in core.iter().flat_map(Host::nets) {
            while let Some(outside) = net.outside() {
                boxes.insert(net.id());
                net = outside;
            }
        }
        let touches = |end: End| match end {
            End::Host(id) => hosts.contains(&id),
            End::Box(id) => boxes.contains(&id),
        };
        let end_of = |number: usize| sim::with(|sim| sim.wire.links.effects.end_of(number));
        self.heal_what(|hold| match hold {
            Hold::Effect(number) => end_of(*number).is_none_or(touches),
            Hold::Cut(a, b) => hosts.contains(a) && hosts.contains(b),
            Hold::Down(id)
            | Hold::Paused(id)
            | Hold::Suspended(id)
            | Hold::Pinned(id)
            | Hold::SlowCpu(id)
            | Hold::Step(_, id)
            | Hold::Unset(_, id)
            | Hold::Disk(_, id)
            | Hold::Lookups(_, id)
            | Hold::Point(_, id)
            | Hold::Drift(id)
            | Hold::Nic(id, _)
            | Hold::Armed(_, id)
            | Hold::Place(id) => hosts.contains(id),
            // Anyone may ask for a name.
            Hold::StaleName(..) => true,
            Hold::Off(id) | Hold::Outer(id) => boxes.contains(id),
        })
        .await;
    }

    async fn heal_what(&self, what: impl Fn(&Hold) -> bool) {
        let active: Vec<usize> = self.with(|ledger| {
            ledger.healed = true;
            ledger.active.keys().copied().collect()
        });
        for number in active {
            self.end(number, true, &what);
        }
        // Started and continued processes run before the scenario goes on.
        self.world.sleep(Duration::from_millis(1)).await;
    }

    /// The plan in use; empty until faults are started.
    pub(crate) fn plan(&self) -> Plan {
        self.with(|ledger| ledger.plan.clone().unwrap_or_default())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    // At the same time, ends come before begins.
    End,
    Begin,
}

/// The steps of a plan by time, each with its fault's number.
fn steps(plan: &Plan) -> Vec<(Duration, Step, usize)> {
    let mut steps = Vec::new();
    for (number, planned) in plan.faults().iter().enumerate() {
        steps.push((planned.at, Step::Begin, number));
        if let Some(lasts) = planned.lasts {
            // Not before its own beginning, also if its duration is zero.
            let end = (planned.at + lasts).max(planned.at + Duration::from_nanos(1));
            steps.push((end, Step::End, number));
        }
    }
    steps.sort_unstable();
    steps
}
