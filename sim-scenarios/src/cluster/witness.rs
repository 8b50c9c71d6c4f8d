//! What the whole cluster has seen, in the order in which it happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chaos::property::{Broken, fail};
use chaos::sometimes;
use chaos::world::{Host, World};
use nurl::PublicKey;
use nurl::internals::compute::job::{JobError, WaitReason};
use nurl::internals::membership::State;
use nurl::internals::node::{MemberInfo, NodeEvent, Task, TaskEvent};

use super::checks::Checks;

use super::Peer;

/// What one handler did with one task: who ran it, and when.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ran {
    /// What the payload says, which names the job.
    pub job: String,
    /// The host's name.
    pub by: String,
}

/// Everybody's account. A clone is the same witness.
#[derive(Debug, Clone, Default)]
pub struct Witness(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    ran: Vec<Ran>,
    /// (who says, about whom, state) in order.
    verdicts: Vec<(String, PublicKey, State)>,
    checks: Checks,
    /// By who says, and of the way to whom.
    paths: BTreeMap<(String, PublicKey), Way>,
    /// Connections to hubs that went down, by whose they were.
    hub_downs: BTreeMap<String, u32>,
    /// Those who took themselves for isolated.
    isolated: BTreeSet<String>,
}

/// What became of the way from one node to another.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    direct: bool,
    demotions: u32,
}

impl Witness {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every event of every node comes through here, in the order in which it happened; `by` is the node's name,
    /// and its host has had `boot` processes.
    pub(super) fn event(&self, at: Duration, by: &str, boot: u32, event: &NodeEvent) {
        let mut seen = self.seen();
        match event {
            NodeEvent::Member { peer, state, .. } => {
                seen.verdicts.push((by.to_owned(), *peer, *state));
            }
            NodeEvent::Path { peer, direct, .. } => {
                let way = seen.paths.entry((by.to_owned(), *peer)).or_default();
                sometimes!(
                    *direct && !way.direct && way.demotions > 0,
                    "a path was given up, and direct again later"
                );
                way.demotions += u32::from(way.direct && !direct);
                way.direct = *direct;
            }
            NodeEvent::HubDown { .. } => *seen.hub_downs.entry(by.to_owned()).or_default() += 1,
            NodeEvent::Isolated(true) => drop(seen.isolated.insert(by.to_owned())),
            _ => {}
        }
        if let Err(broken) = seen.checks.event(at, by, boot, event) {
            fail(broken);
        }
    }

    /// The outcome of a task that the node `by` submitted, once its handle is closed.
    pub async fn outcome(&self, by: &str, task: Task) -> Result<Bytes, JobError> {
        self.course(by, task).await.1
    }

    /// As [`outcome`](Witness::outcome), with the reasons for which the task waited.
    pub async fn course(&self, by: &str, mut task: Task) -> (Vec<WaitReason>, Result<Bytes, JobError>) {
        let (id, mut waits, mut end) = (task.id(), Vec::new(), None);
        while let Some(event) = task.next().await {
            match event {
                TaskEvent::Accepted { .. } => {}
                TaskEvent::Waiting { why } => waits.push(why),
                TaskEvent::Ended { outcome, .. } => {
                    if let Err(broken) = self.seen().checks.ended(by, id) {
                        fail(broken);
                    }
                    end = Some(outcome);
                }
            }
        }
        (waits, end.unwrap_or(Err(JobError::Cancelled)))
    }

    /// How many handlers run at a node now.
    pub fn running(&self, by: &str) -> usize {
        self.seen().checks.running(by)
    }

    /// A node's key is that of this host.
    pub(super) fn knows(&self, key: PublicKey, host: Host) {
        self.seen().checks.knows(key, host);
    }

    /// Looks whether a node holds somebody alive who has been silent for too long.
    ///
    /// # Errors
    /// If it does.
    pub(super) fn silent(
        &self,
        world: World,
        by: &str,
        host: Host,
        members: &[MemberInfo],
    ) -> Result<(), Broken> {
        self.seen().checks.silent(world, by, host, members)
    }

    /// A process of a node has begun: it knows no ways yet.
    pub(super) fn begins(&self, by: &str) {
        self.seen().paths.retain(|(name, _), _| name != by);
    }

    /// Whether the way from one node to another is direct, by what the first has told last.
    pub fn is_direct(&self, from: &Peer, to: &Peer) -> bool {
        self.seen().paths.get(&(from.name.clone(), to.key)).is_some_and(|way| way.direct)
    }

    /// How often the way from one node to another has stopped to be direct.
    pub fn demotions(&self, from: &Peer, to: &Peer) -> u32 {
        self.seen().paths.get(&(from.name.clone(), to.key)).map_or(0, |way| way.demotions)
    }

    /// How often a node's connections to hubs have gone down.
    pub fn hub_downs(&self, of: &Peer) -> u32 {
        self.seen().hub_downs.get(&of.name).copied().unwrap_or_default()
    }

    /// A handler has come to its end with a payload.
    pub fn ran(&self, by: &str, payload: &[u8]) {
        let ran = Ran { job: super::text(payload), by: by.to_owned() };
        self.seen().ran.push(ran);
    }

    /// Every completed run of a handler.
    pub fn runs(&self) -> Vec<Ran> {
        self.seen().ran.clone()
    }

    /// Everything that anybody ever said of a node's state, in order.
    pub fn verdicts_on(&self, node: &Peer) -> impl Iterator<Item = State> + use<> {
        let seen = self.seen();
        let said = seen.verdicts.iter().filter(|(_, about, _)| *about == node.key);
        said.map(|(_, _, state)| *state).collect::<Vec<_>>().into_iter()
    }

    /// Everything that a node ever said of the others' states, in order.
    pub fn verdicts_by(&self, node: &Peer) -> impl Iterator<Item = State> + use<> {
        let seen = self.seen();
        let said = seen.verdicts.iter().filter(|(by, ..)| *by == node.name);
        said.map(|(_, _, state)| *state).collect::<Vec<_>>().into_iter()
    }

    /// Whether a node has ever taken itself for isolated.
    pub fn was_isolated(&self, node: &Peer) -> bool {
        self.seen().isolated.contains(&node.name)
    }

    /// Who ever held whom dead.
    pub fn held_dead(&self) -> Vec<(String, PublicKey)> {
        let seen = self.seen();
        let dead = seen.verdicts.iter().filter(|(_, _, state)| *state == State::Dead);
        dead.map(|(by, about, _)| (by.clone(), *about)).collect()
    }

    /// How often each job was run to its end.
    pub fn runs_per_job(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for ran in self.seen().ran.iter() {
            *count.entry(ran.job.clone()).or_default() += 1;
        }
        count
    }
}
