//! What an explorer knows: everything that its runs have reached, with runs that reached it, and the choice of the next.
//!
//! A run is blind, a new seed as in a sweep, or a branch of a run that reached something, at that place or shortly before.
//! A branch is worth more than a new seed if it begins where few blind runs come: if half of them come there anyway, it
//! finds nothing sooner, and it never sees what is decided before its place. So the share of branches follows from the worth of
//! the best thing that has been reached, against [`BLIND_WORTH`]. The worth falls with the share of blind runs that reach
//! the thing, with the part of the run that is over by then, and with the branches made from it without success.
//!
//! A branch leaves the fault plan as it is, and in half of the cases it takes the faults that begin later from another
//! run's plan: the plan is a part of its inputs then, so it replays like any other.

use crate::lab::faults::StartedPlan;
use crate::lab::plan::Plan;
use crate::lab::scenario::{Options, Report};
use crate::seed::{Rng, below, stream};
use crate::world::novelty::{FirstReach, Novelties, Novelty};
use crate::world::recipe::Branch;
use rand_core::Rng as _;
use std::collections::{BTreeMap, VecDeque};

/// The worth of a blind run. The best watermark alone makes a fifth of all runs branches, the best pair a half, and the best
/// mark four fifths: a mark is what the scenario's author holds rare, and a watermark is often mere length.
const BLIND_WORTH: u64 = 4 * UNIT;

/// The worth of a watermark that no blind run has reached, whose run has just begun.
const UNIT: u64 = 1 << 20;

/// A thing that one in so many blind runs reaches has a quarter of its worth.
const RARE_OF: u64 = 4;

/// The most branches of a run. A failure of a long recipe is hard to understand, and its early branches seldom matter.
const MOST_BRANCHES: usize = 4;

/// Runs that are remembered for a thing that they reached: a few, because they differ in what led to it.
const MOST_WITNESSES: usize = 4;

/// Plans of blind runs from which branches take later faults.
const MOST_PLANS: usize = 64;

/// Branches after which the weight of a thing is halved: so many times the same place may well give nothing.
const PATIENT_BRANCHES: u64 = 32;

/// One branch in so many is shortly before the place: what was decided there may itself be what keeps the next step away.
const BEFORE_OF: u64 = 4;

/// How far before the place such a branch may be, in doublings of events: up to 64. Each doubling is as likely as the others.
const BEFORE_DOUBLINGS: u64 = 7;

/// A run that reached something.
struct Witness {
    options: Options,
    place: FirstReach,
    /// Events of the run, from that place on and in all.
    left: u64,
    events: u64,
    faults: Option<StartedPlan>,
}

/// Something that runs have reached.
struct Reached {
    /// The number of the first run that reached it.
    first_run: u64,
    /// Blind runs that reached it. Branches don't count: they come to what is near their places.
    blind: u64,
    /// Branches made from its witnesses.
    branches: u64,
    witnesses: Vec<Witness>,
}

impl Reached {
    /// The worth of a branch from it, after so many blind runs.
    fn worth(&self, novelty: &Novelty, blind: u64) -> u64 {
        let kind = match novelty {
            Novelty::Mark(_) => 16,
            Novelty::Pair(..) => 4,
            Novelty::Watermark(..) => 1,
        };
        // The part of the run that a branch can change, in the mean over the witnesses.
        let lefts = self.witnesses.iter().map(|witness| UNIT * witness.left / witness.events.max(1));
        let left = lefts.sum::<u64>() / (self.witnesses.len() as u64).max(1);
        let rare = |worth: u64| worth * blind / (blind + RARE_OF * self.blind).max(1);
        kind * rare(rare(left)) * PATIENT_BRANCHES / (PATIENT_BRANCHES + self.branches)
    }
}

/// Everything that the runs have reached.
pub(super) struct Corpus {
    reached: BTreeMap<Novelty, Reached>,
    plans: VecDeque<Plan>,
    rng: Rng,
    /// The seed of the next blind run.
    next_seed: u64,
    /// Blind runs that have been added.
    blind: u64,
    knobs: BTreeMap<String, u64>,
}

impl Corpus {
    pub(super) fn new(start: u64, knobs: BTreeMap<String, u64>) -> Corpus {
        let rng = stream(start, "explore");
        Corpus { reached: BTreeMap::new(), plans: VecDeque::new(), rng, next_seed: start, blind: 0, knobs }
    }

    fn below(&mut self, bound: u64) -> u64 {
        below(self.rng.next_u64(), bound)
    }

    /// The inputs of the next run.
    pub(super) fn next(&mut self) -> Options {
        let best = self.worths().map(|(worth, _)| worth).max().unwrap_or(0);
        let is_blind = self.below(BLIND_WORTH + best) < BLIND_WORTH;
        let branch = if is_blind { None } else { self.branch() };
        branch.unwrap_or_else(|| {
            let seed = self.next_seed;
            self.next_seed = seed.wrapping_add(1);
            Options { knobs: self.knobs.clone(), ..Options::seed(seed) }
        })
    }

    /// The worth of each thing that has been reached.
    fn worths(&self) -> impl Iterator<Item = (u64, Novelty)> {
        self.reached.iter().map(|(novelty, reached)| (reached.worth(novelty, self.blind), *novelty))
    }

    /// A branch of a run that reached something; `None` if nothing has been reached.
    fn branch(&mut self) -> Option<Options> {
        let all: u64 = self.worths().map(|(worth, _)| worth).sum();
        let mut lot = self.below(all);
        // A short seed is easier to type, and there are enough of them.
        let seed = self.rng.next_u64() >> 32;
        let which = self.rng.next_u64();
        let is_before = self.below(BEFORE_OF) == 0;
        let before = 1u64 << self.below(BEFORE_DOUBLINGS);
        let (takes_faults, donor) = (self.below(2) == 1, self.rng.next_u64());
        let (_, novelty) = self.worths().find(|(worth, _)| {
            let is_drawn = lot < *worth;
            lot = lot.saturating_sub(*worth);
            is_drawn
        })?;
        let reached = self.reached.get_mut(&novelty)?;
        reached.branches += 1;
        let Witness { options, place, faults, .. } =
            reached.witnesses.get(below(which, reached.witnesses.len() as u64) as usize)?;
        let event = place.event.saturating_sub(if is_before { before } else { 0 });
        let mut options =
            Options { recipe: options.recipe.branched(Branch { event, seed }), ..options.clone() };
        let donor = self.plans.get(below(donor, self.plans.len() as u64) as usize);
        if let (true, Some(started), Some(donor)) = (takes_faults, faults, donor) {
            options.plan = Some(crossed(started, *place, donor));
        }
        Some(options)
    }

    /// Adds a run, which is the `number`-th; returns what it reached as the first.
    pub(super) fn add(&mut self, number: u64, report: &Report, novelties: Novelties) -> Vec<Novelty> {
        let recipe = &report.options.recipe;
        if let (true, Some(started)) = (recipe.is_empty(), &report.plan) {
            self.plans.push_back(started.plan.clone());
            if self.plans.len() > MOST_PLANS {
                self.plans.pop_front();
            }
        }
        let inherited = recipe.branches().last().map_or(0, |branch| branch.event);
        let mut new = Vec::new();
        self.blind += u64::from(recipe.is_empty());
        for (novelty, place) in novelties.into_iter().filter(|(_, place)| place.event >= inherited) {
            let reached = self.reached.entry(novelty).or_insert_with(|| {
                new.push(novelty);
                Reached { first_run: number, blind: 0, branches: 0, witnesses: Vec::new() }
            });
            reached.blind += u64::from(recipe.is_empty());
            if reached.witnesses.len() < MOST_WITNESSES && recipe.branches().len() < MOST_BRANCHES {
                let (options, faults) = (report.options.clone(), report.plan.clone());
                let left = report.events.saturating_sub(place.event);
                reached.witnesses.push(Witness { options, place, left, events: report.events, faults });
            }
        }
        new
    }

    /// How much has been reached.
    pub(super) fn len(&self) -> usize {
        self.reached.len()
    }

    /// What has been reached, each with the number of the first run.
    pub(super) fn into_reached(self) -> BTreeMap<Novelty, u64> {
        self.reached.into_iter().map(|(novelty, reached)| (novelty, reached.first_run)).collect()
    }
}

/// The faults of a plan that have begun at a place, and those of another plan that begin later.
fn crossed(started: &StartedPlan, place: FirstReach, other: &Plan) -> Plan {
    let reached = place.at.checked_sub(started.at);
    let has_begun = |at| reached.is_some_and(|reached| at <= reached);
    let begun = started.plan.faults().iter().filter(|planned| has_begun(planned.at));
    let later = other.faults().iter().filter(|planned| !has_begun(planned.at));
    Plan::new(begun.chain(later).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn started(text: &str) -> StartedPlan {
        StartedPlan {
            plan: text.parse().unwrap(),
            drawn: None,
            at: Duration::from_secs(10),
            begun: 0,
            idle: BTreeSet::new(),
            skipped: Vec::new(),
            unknown: Vec::new(),
        }
    }

    fn report(options: Options) -> Report {
        Report {
            scenario: "toy",
            options,
            scheduler_seed: 0,
            digest: String::new(),
            events: 10_000,
            packets: 0,
            elapsed: Duration::ZERO,
            marks: std::collections::BTreeSet::new(),
            plan: None,
            verdict: Ok(crate::lab::scenario::Passed::default()),
        }
    }

    #[test]
    fn a_branch_keeps_the_faults_that_have_begun_and_takes_the_later_ones_of_another_plan() {
        let own = started("1s crash a for=1s\n5s crash a for=1s\n");
        let other = "2s crash b for=1s\n6s crash b for=1s\n".parse().unwrap();
        let at = |secs| FirstReach { event: 0, at: Duration::from_secs(secs) };
        let crossed = |secs| crossed(&own, at(secs), &other).to_string();
        assert_eq!(crossed(13), "1s crash a for=1s\n6s crash b for=1s\n");
        assert_eq!(crossed(9), other.to_string(), "no fault has begun before they are started");
    }

    #[test]
    fn what_few_runs_reached_gets_most_branches_at_its_place_or_shortly_before() {
        let mut corpus = Corpus::new(1, BTreeMap::new());
        let place = |event| FirstReach { event, at: Duration::ZERO };
        let common = Novelty::Mark("common");
        for seed in 0..20 {
            let mut reached = Novelties::from([(common, place(1_000))]);
            if seed == 7 {
                reached.insert(Novelty::Mark("rare"), place(5_000));
            }
            corpus.add(seed, &report(Options::seed(seed)), reached);
        }
        let made: Vec<Options> = (0..100).map(|_| corpus.next()).collect();
        let blind = made.iter().filter(|options| options.recipe.is_empty()).count();
        assert!((30..75).contains(&blind), "{blind}");
        let event = |options: &Options| options.recipe.branches().first().map(|branch| branch.event);
        let rare: Vec<&Options> = made.iter().filter(|options| event(options) > Some(2_000)).collect();
        assert!(rare.len() > 4 * (100 - blind - rare.len()), "{}", rare.len());
        assert!(
            rare.iter()
                .all(|options| options.seed == 7 && (4_936..=5_000).contains(&event(options).unwrap()))
        );
        assert!(rare.iter().filter(|options| event(options) == Some(5_000)).count() > rare.len() / 2);
    }

    #[test]
    fn most_runs_are_blind_as_long_as_all_runs_reach_the_same() {
        let mut corpus = Corpus::new(1, BTreeMap::new());
        for seed in 0..20 {
            let place = FirstReach { event: 1_000, at: Duration::ZERO };
            corpus.add(
                seed,
                &report(Options::seed(seed)),
                Novelties::from([(Novelty::Mark("common"), place)]),
            );
        }
        let blind = (0..300).filter(|_| corpus.next().recipe.is_empty()).count();
        assert!((240..300).contains(&blind), "{blind}");
    }

    #[test]
    fn a_run_counts_only_for_what_it_reached_after_its_last_branch() {
        let mut corpus = Corpus::new(1, BTreeMap::new());
        let place = |event| FirstReach { event, at: Duration::ZERO };
        let options = Options { recipe: "10:1,50:2".parse().unwrap(), ..Options::seed(1) };
        let reached =
            [("before", 49), ("after", 50)].map(|(mark, event)| (Novelty::Mark(mark), place(event)));
        assert_eq!(corpus.add(1, &report(options), reached.into()), [Novelty::Mark("after")]);
        let deep = Options { recipe: "1:1,2:2,3:3,4:4".parse().unwrap(), ..Options::seed(1) };
        corpus.add(2, &report(deep), Novelties::from([(Novelty::Mark("deep"), place(9))]));
        let made: Vec<Options> = (0..100).map(|_| corpus.next()).collect();
        assert!(made.iter().all(|options| options.recipe.branches().len() <= MOST_BRANCHES));
        assert!(made.iter().all(|options| !options.recipe.to_string().starts_with("1:1")), "too deep");
    }
}
