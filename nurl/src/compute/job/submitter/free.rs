//! Free tasks: those that any worker with their kind may run ([`SubmitOptions::anywhere`]).
//!
//! They wait here until the worker that is expected to end them first has room, see [`pace`](super::super::pace). Only the
//! first executors of the key's list come into question, as those alone may tell the key's owners an outcome; keys differ, so
//! together they are all workers. From the first attempt on, a free task is like another, but its next attempt goes to the
//! worker that is soonest done. When none waits any more and a lane is free, a task that takes long is run there once more,
//! if the handlers are pure: the first outcome ends it, and the acknowledgement stops the other run.
//!
//! [`SubmitOptions::anywhere`]: super::super::SubmitOptions::anywhere

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::super::options::MAX_ASKED;
use super::super::pace::{Lanes, Worker, choose};
use super::super::shared::SharedContext;
use super::super::submission::{Submission, SubmissionPhase};
use super::super::task::TaskId;
use crate::key::PublicKey;

/// Waiting tasks of a kind that are looked at for one whose workers have room.
const LOOK_AT: usize = 32;

/// Limit on the workers whose pace is remembered; a forgotten one is measured again.
const MAX_PACES: usize = 4096;

/// A worker's pace with one kind.
#[derive(Debug, Default)]
struct Pace {
    lanes: Option<Lanes>,
    mean: Option<Duration>,
}

/// A run of a free task: where, since when, and how many rounds of the worker's lanes it was expected to wait and run.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct FreeRun {
    at: PublicKey,
    since: Instant,
    rounds: u32,
}

/// The runs of one free task.
#[derive(Debug, Default)]
pub(in super::super) struct FreeRuns {
    latest: Option<FreeRun>,
    /// The run beside which the latest was started.
    earlier: Option<FreeRun>,
}

impl FreeRuns {
    /// Whether this is the worker whose run goes on beside the latest one.
    pub(super) fn runs_beside(&self, peer: PublicKey) -> bool {
        self.earlier.is_some_and(|run| run.at == peer)
    }

    /// Whether two runs are under way.
    pub(super) fn runs_twice(&self) -> bool {
        self.latest.is_some() && self.earlier.is_some()
    }

    /// Notes that it has no run but that of `by`.
    pub(super) fn is_only_at(&mut self, now: Instant, by: PublicKey) {
        let run = self.at(by).unwrap_or(FreeRun { at: by, since: now, rounds: 1 });
        *self = FreeRuns { latest: Some(run), earlier: None };
    }

    /// Notes that it doesn't run, or no longer, on `peer`.
    pub(super) fn left(&mut self, peer: PublicKey) {
        let runs = [self.latest, self.earlier].into_iter().flatten();
        let mut runs = runs.filter(|run| run.at != peer);
        *self = FreeRuns { latest: runs.next(), earlier: runs.next() };
    }

    fn at(&self, peer: PublicKey) -> Option<FreeRun> {
        [self.latest, self.earlier].into_iter().flatten().find(|run| run.at == peer)
    }
}

/// A submitter's open tasks.
type Open = BTreeMap<TaskId, Submission>;

/// The free tasks of a submitter.
#[derive(Debug, Default)]
pub(super) struct FreeTasks {
    /// Those without an attempt, by kind.
    waiting: BTreeMap<String, VecDeque<TaskId>>,
    /// Those with one.
    placed: BTreeSet<TaskId>,
    paces: BTreeMap<(String, PublicKey), Pace>,
    /// Whether anything has changed by which a task could go on.
    stirred: bool,
}

impl FreeTasks {
    pub(super) fn stir(&mut self) {
        self.stirred = true;
    }

    /// A worker that has a free task was heard: time has passed for it.
    pub(super) fn stir_if_placed(&mut self) {
        self.stirred |= !self.placed.is_empty();
    }

    pub(super) fn enter(&mut self, kind: &str, id: TaskId) {
        self.waiting.entry(kind.to_owned()).or_default().push_back(id);
        self.stirred = true;
    }

    fn pace(&mut self, kind: &str, peer: PublicKey) -> &mut Pace {
        let key = (kind.to_owned(), peer);
        if self.paces.len() >= MAX_PACES && !self.paces.contains_key(&key) {
            self.paces.pop_first();
        }
        self.paces.entry(key).or_default()
    }

    /// Takes what an executor says of its handler.
    pub(super) fn lanes(&mut self, kind: &str, peer: PublicKey, lanes: Option<Lanes>) {
        if lanes.is_some() {
            self.pace(kind, peer).lanes = lanes;
        }
        self.stirred = true;
    }

    /// Notes that a task has ended, with a result of `by` or in another way.
    pub(super) fn ended(&mut self, now: Instant, id: TaskId, task: &Submission, by: Option<PublicKey>) {
        self.placed.remove(&id);
        self.stirred = true;
        let run = by.and_then(|by| task.free.at(by));
        if let Some(run) = run {
            let took = now.saturating_duration_since(run.since) / run.rounds;
            let pace = self.pace(&task.spec.kind, run.at);
            pace.mean = Some(pace.mean.map_or(took, |mean| (mean * 3 + took) / 4));
        }
    }
}

impl FreeTasks {
    /// The kinds of the tasks that wait; none if nothing has changed by which one could go on. The latter is `None`.
    pub(super) fn stirred_kinds(&mut self) -> Option<Vec<String>> {
        std::mem::take(&mut self.stirred).then(|| self.waiting.keys().cloned().collect())
    }

    /// The next free task that a worker has room for, taken from those that wait.
    pub(super) fn next(
        &mut self,
        open: &Open,
        shared: &mut SharedContext,
        now: Instant,
        kind: &str,
    ) -> Option<(TaskId, PublicKey)> {
        let tasks = self.waiting.get_mut(kind)?;
        tasks.retain(|id| open.get(id).is_some_and(|task| task.tries.attempts == 0));
        let waiting = tasks.len();
        if waiting == 0 {
            self.waiting.remove(kind);
            return None;
        }
        let looked_at: Vec<_> = tasks.iter().take(LOOK_AT).copied().collect();
        let (id, target) = looked_at.into_iter().find_map(|id| {
            let list = shared.candidates(now, kind, &open.get(&id)?.spec.key);
            let mut list = shared.peers.not_silent(now, &list);
            list.truncate(MAX_ASKED);
            Some((id, choose(&self.workers(open, now, kind, &list), waiting)?))
        })?;
        self.waiting.get_mut(kind)?.retain(|other| *other != id);
        Some((id, target))
    }

    /// These workers as this submitter knows them, in the order of the list.
    fn workers(&self, open: &Open, now: Instant, kind: &str, list: &[PublicKey]) -> Vec<Worker> {
        let mut workers: Vec<_> = list
            .iter()
            .map(|key| {
                let pace = self.paces.get(&(kind.to_owned(), *key));
                let (lanes, mean) = pace.map_or((None, None), |pace| (pace.lanes, pace.mean));
                Worker { key: *key, lanes, mean, tasks: 0, oldest: Duration::ZERO }
            })
            .collect();
        let tasks = self.placed.iter().filter_map(|id| open.get(id));
        for task in tasks.filter(|task| task.spec.kind == kind) {
            for run in [task.free.latest, task.free.earlier].into_iter().flatten() {
                if let Some(worker) = workers.iter_mut().find(|worker| worker.key == run.at) {
                    worker.tasks += 1;
                    let took = now.saturating_duration_since(run.since) / run.rounds;
                    worker.oldest = worker.oldest.max(took);
                }
            }
        }
        workers
    }

    /// The list with the worker first that is soonest done.
    pub(super) fn soonest_first(
        &self,
        open: &Open,
        now: Instant,
        kind: &str,
        list: &[PublicKey],
    ) -> Vec<PublicKey> {
        let mut workers = self.workers(open, now, kind, list);
        workers.sort_by_key(|worker| (worker.end(), worker.tasks));
        workers.into_iter().map(|worker| worker.key).collect()
    }

    /// Notes that an attempt of a free task goes to `target`.
    pub(super) fn goes_to(&mut self, open: &mut Open, now: Instant, id: TaskId, target: PublicKey) {
        let Some(kind) = open.get(&id).map(|task| task.spec.kind.clone()) else { return };
        let rounds = self.workers(open, now, &kind, &[target]).first().map_or(1, Worker::rounds);
        self.placed.insert(id);
        if let Some(task) = open.get_mut(&id) {
            // A run that hasn't been given back goes on beside this one.
            let before = task.free.latest.filter(|run| run.at != target);
            let latest = Some(FreeRun { at: target, since: now, rounds });
            task.free = FreeRuns { latest, earlier: before.or(task.free.earlier) };
        }
    }

    /// Whether an executor that runs a free task has yet to say how many it runs at once: its answer was lost.
    pub(super) fn lacks_lanes(&self, task: &Submission, from: PublicKey) -> bool {
        let pace = self.paces.get(&(task.spec.kind.clone(), from));
        task.options.anywhere && pace.is_none_or(|pace| pace.lanes.is_none())
    }

    /// The next task to run once more, and where: the longest one first, if none waits and a lane is free.
    pub(super) fn to_run_once_more(
        &self,
        open: &Open,
        shared: &mut SharedContext,
        now: Instant,
    ) -> Option<(TaskId, PublicKey)> {
        if !self.waiting.is_empty() {
            return None;
        }
        let running = self.placed.iter().filter_map(|id| {
            let task = open.get(id)?;
            let SubmissionPhase::Accepted { by, fetch: None, .. } = task.phase else { return None };
            let run = task.free.latest.filter(|run| run.at == by && task.free.earlier.is_none())?;
            let pace = self.paces.get(&(task.spec.kind.clone(), by))?;
            pace.lanes.is_some_and(|lanes| lanes.pure).then_some((run.since, *id, by))
        });
        let mut running: Vec<_> = running.collect();
        running.sort_unstable_by_key(|(since, id, _)| (*since, *id));
        running.into_iter().find_map(|(since, id, by)| {
            let task = open.get(&id)?;
            let list = shared.candidates(now, &task.spec.kind, &task.spec.key);
            let mut list = shared.peers.not_silent(now, &task.nodes.may_allow(list));
            list.truncate(MAX_ASKED);
            list.retain(|member| *member != by);
            let elapsed = now.saturating_duration_since(since);
            let workers = self.workers(open, now, &task.spec.kind, &list);
            let free = workers.iter().filter(|worker| worker.outruns(elapsed));
            Some((id, free.min_by_key(|worker| (worker.end(), worker.tasks))?.key))
        })
    }
}
