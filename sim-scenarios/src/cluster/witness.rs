//! The record of everything that the whole cluster reported, in order of occurrence.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use chaos::property::{Violation, fail};
use chaos::sometimes;
use chaos::world::{Host, World};
use nurl::PublicKey;
use nurl::internals::compute::job::{JobError, WaitReason};
use nurl::internals::membership::State;
use nurl::internals::net::secure::version::Versions;
use nurl::internals::node::{MemberInfo, NodeEvent, Task, TaskEvent};

use super::Peer;
use super::checks::{EventChecks, Moment};
use crate::lock::lock;

/// One completed run of a handler: the job, and the host that ran it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HandlerRun {
    /// The payload's text, which names the job.
    pub job: String,
    /// The host's name.
    pub by: String,
}

/// What a node said of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The world's time.
    pub at: Duration,
    /// The reporting node's name.
    pub by: String,
    /// Its subject.
    pub about: PublicKey,
    /// The subject's state.
    pub state: State,
}

/// The record of all nodes' events. A clone shares the same record.
#[derive(Debug, Clone, Default)]
pub struct Witness(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    runs: Vec<HandlerRun>,
    /// In order.
    verdicts: Vec<Verdict>,
    checks: EventChecks,
    /// By reporting node and the path's other end.
    paths: BTreeMap<(String, PublicKey), PathHistory>,
    /// Number of hub connections that went down, by node.
    hub_downs: BTreeMap<String, u32>,
    /// The mesh's secrets that each node got.
    secrets: BTreeMap<String, Vec<u32>>,
    /// When a node was told of which other one that has no version in common with it, and what the other one speaks.
    incompatible: Vec<(Duration, String, PublicKey, Versions)>,
    /// Nodes that have considered themselves isolated.
    isolated: BTreeSet<String>,
    /// The nodes whose store fails now.
    failed_stores: BTreeSet<String>,
    /// Where each node that found its store damaged has put it; nowhere if it was gone.
    set_aside: BTreeMap<String, Vec<Option<PathBuf>>>,
}

/// The state and history of the path from one node to another.
#[derive(Debug, Clone, Copy, Default)]
struct PathHistory {
    direct: bool,
    demotions: u32,
}

impl Witness {
    fn record(&self) -> MutexGuard<'_, Record> {
        lock(&self.0)
    }

    /// Receives every event of every node, in order of occurrence; `by` is the node's name, and its host has had
    /// `boot` processes.
    pub(super) fn event(&self, moment: Moment, by: &str, boot: u32, event: &NodeEvent) {
        let (at, mut record) = (moment.world, self.record());
        match event {
            NodeEvent::Member { peer, state, .. } => {
                record.verdicts.push(Verdict { at, by: by.to_owned(), about: *peer, state: *state });
            }
            NodeEvent::Path { peer, direct, .. } => {
                let path = record.paths.entry((by.to_owned(), *peer)).or_default();
                sometimes!(
                    *direct && !path.direct && path.demotions > 0,
                    "a path was given up, and direct again later"
                );
                path.demotions += u32::from(path.direct && !direct);
                path.direct = *direct;
            }
            NodeEvent::HubDown { .. } => *record.hub_downs.entry(by.to_owned()).or_default() += 1,
            NodeEvent::Rotated { generation } => {
                record.secrets.entry(by.to_owned()).or_default().push(*generation);
            }
            NodeEvent::Incompatible { peer, theirs, .. } => {
                record.incompatible.push((at, by.to_owned(), *peer, *theirs));
            }
            NodeEvent::StoreFailed { .. } => {
                record.failed_stores.insert(by.to_owned());
            }
            NodeEvent::StoreWorks => drop(record.failed_stores.remove(by)),
            NodeEvent::StoreSetAside { path, .. } => {
                record.set_aside.entry(by.to_owned()).or_default().push(path.clone());
            }
            NodeEvent::Isolated(true) => drop(record.isolated.insert(by.to_owned())),
            _ => {}
        }
        if let Err(broken) = record.checks.event(moment, by, boot, event) {
            fail(broken);
        }
    }

    /// Where a node has put its damaged stores, in order; nowhere if the file was gone.
    pub fn set_aside(&self, by: &str) -> Vec<Option<PathBuf>> {
        self.record().set_aside.get(by).cloned().unwrap_or_default()
    }

    /// The outcome of a task that the node `by` submitted, once its handle is closed.
    pub async fn outcome(&self, by: &str, task: Task) -> Result<Bytes, JobError> {
        self.waits_and_outcome(by, task).await.1
    }

    /// Like [`outcome`](Witness::outcome), with the reasons for which the task waited.
    pub async fn waits_and_outcome(
        &self,
        by: &str,
        mut task: Task,
    ) -> (Vec<WaitReason>, Result<Bytes, JobError>) {
        let (id, mut waits, mut end) = (task.id(), Vec::new(), None);
        while let Some(event) = task.next().await {
            match event {
                TaskEvent::Accepted { .. } | TaskEvent::Progress { .. } | TaskEvent::Fetching { .. } => {}
                TaskEvent::Waiting { why } => waits.push(why),
                TaskEvent::Ended { outcome, .. } => {
                    if let Err(broken) = self.record().checks.handle_resolved(by, id) {
                        fail(broken);
                    }
                    end = Some(outcome);
                }
            }
        }
        (waits, end.unwrap_or(Err(JobError::Cancelled)))
    }

    /// Whether a node says that its store fails now.
    pub fn store_fails(&self, by: &str) -> bool {
        self.record().failed_stores.contains(by)
    }

    /// Whether a node has found its store damaged, and gone on with a new one.
    pub fn has_lost_store(&self, by: &str) -> bool {
        self.record().set_aside.contains_key(by)
    }

    /// How many handlers run at a node now.
    pub fn running(&self, by: &str) -> usize {
        self.record().checks.running(by)
    }

    /// Registers `host` as the host of the node with this key.
    pub(super) fn register(&self, key: PublicKey, host: Host) {
        self.record().checks.register(key, host);
    }

    /// Checks whether a node that was asked at that time held a member alive that had been silent for too long.
    ///
    /// # Errors
    /// If it does.
    pub(super) fn check_silence(
        &self,
        world: World,
        asked: Duration,
        by: &str,
        host: Host,
        members: &[MemberInfo],
    ) -> Result<(), Violation> {
        self.record().checks.check_silence(world, asked, by, host, members)
    }

    /// Records the start of a node's process: it has no paths yet.
    pub(super) fn node_started(&self, by: &str) {
        let mut record = self.record();
        record.paths.retain(|(name, _), _| name != by);
        record.failed_stores.remove(by);
    }

    /// Whether the path from one node to another is direct, according to the first node's latest event.
    pub fn is_direct(&self, from: &Peer, to: &Peer) -> bool {
        self.record().paths.get(&(from.name.clone(), to.key)).is_some_and(|path| path.direct)
    }

    /// How often the path from one node to another has ceased to be direct.
    pub fn demotions(&self, from: &Peer, to: &Peer) -> u32 {
        self.record().paths.get(&(from.name.clone(), to.key)).map_or(0, |path| path.demotions)
    }

    /// How often a node's connections to hubs have gone down.
    pub fn hub_downs(&self, of: &Peer) -> u32 {
        self.record().hub_downs.get(&of.name).copied().unwrap_or_default()
    }

    /// Records that a handler has finished with a payload.
    pub fn record_run(&self, by: &str, payload: &[u8]) {
        let run = HandlerRun { job: super::text(payload), by: by.to_owned() };
        self.record().runs.push(run);
    }

    /// Every completed run of a handler.
    pub fn runs(&self) -> Vec<HandlerRun> {
        self.record().runs.clone()
    }

    /// Every state that any node has reported of `node`, in order.
    pub fn verdicts_on(&self, node: &Peer) -> impl Iterator<Item = State> + use<> {
        let record = self.record();
        let said = record.verdicts.iter().filter(|verdict| verdict.about == node.key);
        said.map(|verdict| verdict.state).collect::<Vec<_>>().into_iter()
    }

    /// Every state that `node` has reported of the others, in order.
    pub fn verdicts_by(&self, node: &Peer) -> impl Iterator<Item = State> + use<> {
        let record = self.record();
        let said = record.verdicts.iter().filter(|verdict| verdict.by == node.name);
        said.map(|verdict| verdict.state).collect::<Vec<_>>().into_iter()
    }

    /// Whether a node has ever considered itself isolated.
    pub fn was_isolated(&self, node: &Peer) -> bool {
        self.record().isolated.contains(&node.name)
    }

    /// The generations of the mesh's secret that a node got, in order.
    pub fn secrets(&self, node: &str) -> Vec<u32> {
        self.record().secrets.get(node).cloned().unwrap_or_default()
    }

    /// When each node was told of which other one that has no version in common with it, and what the other one speaks.
    pub fn incompatible(&self) -> Vec<(Duration, String, PublicKey, Versions)> {
        self.record().incompatible.clone()
    }

    /// Every verdict of death, in order.
    pub fn held_dead(&self) -> Vec<Verdict> {
        let record = self.record();
        record.verdicts.iter().filter(|verdict| verdict.state == State::Dead).cloned().collect()
    }

    /// How often each job has run to completion.
    pub fn runs_per_job(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for run in self.record().runs.iter() {
            *count.entry(run.job.clone()).or_default() += 1;
        }
        count
    }
}
