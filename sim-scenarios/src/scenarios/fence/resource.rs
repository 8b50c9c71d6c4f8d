//! The resource: a lease over a store on its host's disk, asked by datagram.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chaos::property::{Violation, fail};
use chaos::sometimes;
use nurl::PublicKey;
use nurl::internals::compute::job::TaskId;
use nurl::internals::compute::lease::{Admission, Config, Effects, LeaseError, Moment, Outcome, Recovered};
use nurl::internals::node::Node;
use nurl::internals::ring::Epoch;
use nurl::internals::store::{Store, StoreError};
use nurl::rt::{self, Rng, disk, task, time};
use rand_core::Rng as _;

use super::messages::{Answer, Request};
use crate::history::History;
use crate::history::witness::{SharedHistory, Witness};
use crate::lock::lock;

/// The lifetime of a task at the resource: longer than any run.
const LIFE: Duration = Duration::from_secs(3_600);

/// An effect takes up to this many milliseconds, during which other requests may come.
const EFFECT_MS: u64 = 3_000;

/// The events at the resource, across all of its processes. An effect is noted after its commit, so every noted
/// effect is on the disk. A crash may leave the last one unnoted, so the final check reads the disk.
#[derive(Debug, Clone, Default)]
pub(super) struct ResourceLog(Arc<Mutex<ResourceEvents>>, SharedHistory);

#[derive(Debug, Default)]
struct ResourceEvents {
    boots: u32,
    /// Per task: the requests, as owner, counter and run of the handler.
    asked: BTreeMap<TaskId, Vec<(PublicKey, u64, u64)>>,
    /// Per key: the highest token that was admitted.
    highest: BTreeMap<String, Epoch>,
    /// Per task: the process in which its outcome was recorded, and the outcome.
    outcomes: BTreeMap<TaskId, (u32, String)>,
    /// Per owner: its host's processes, with the least and the highest counter in each.
    tokens: BTreeMap<PublicKey, BTreeMap<u32, (u64, u64)>>,
}

impl ResourceLog {
    fn events(&self) -> MutexGuard<'_, ResourceEvents> {
        lock(&self.0)
    }

    /// The calls to the lease.
    pub(super) fn history(&self) -> History {
        self.1.so_far()
    }

    /// Tasks for which more than one run of a handler asked: without the lease, their effect would have happened
    /// more than once.
    pub(super) fn doubled(&self) -> usize {
        let runs = |asked: &[(PublicKey, u64, u64)]| {
            asked.iter().map(|(_, _, run)| *run).collect::<BTreeSet<_>>().len()
        };
        self.events().asked.values().filter(|asked| runs(asked) > 1).count()
    }

    /// Records that an owner has a token, in its host's `boot`-th process.
    pub(super) fn record_token(&self, owner: PublicKey, boot: u32, counter: u64) {
        let mut events = self.events();
        let boots = events.tokens.entry(owner).or_default();
        let (least, most) = boots.entry(boot).or_insert((counter, counter));
        (*least, *most) = ((*least).min(counter), (*most).max(counter));
        let before = boots.range(..boot).next_back().map(|(_, (_, most))| *most);
        let (least, _) = boots[&boot];
        sometimes!(before.is_some(), "an owner restarts from its disk and takes a higher tenure");
        if before.is_some_and(|before| before >= least) {
            let seen = format!("{owner:?} had counter {before:?}, and {least} in its next process");
            fail(Violation::safety("an owner that restarts from its disk takes a higher tenure", seen));
        }
    }

    fn record_request(&self, from: PublicKey, request: &Request) {
        let mut events = self.events();
        let asked = events.asked.entry(request.task).or_default();
        let one = (from, request.counter, request.run);
        if asked.contains(&one) {
            return;
        }
        if let Some((first, counter, _)) = asked.iter().find(|(owner, _, _)| *owner != from) {
            sometimes!("two owners ask for one task");
            sometimes!((*counter, *first) < (request.counter, from), "the stale owner came first");
            sometimes!((*counter, *first) > (request.counter, from), "the stale owner came last");
        }
        asked.push(one);
    }

    fn record_answer(&self, task: TaskId, outcome: &str) {
        let mut events = self.events();
        let boots = events.boots;
        let (boot, first) = events.outcomes.entry(task).or_insert_with(|| (boots, outcome.to_owned()));
        sometimes!(*boot < boots, "an outcome is given again after a restart");
        if first != outcome {
            let seen = format!("{task} was answered with {first}, now with {outcome}");
            fail(Violation::safety("an outcome never changes", seen));
        }
    }

    fn record_admission(&self, key: &str, token: Epoch) {
        let mut events = self.events();
        let highest = events.highest.entry(key.to_owned()).or_insert(token);
        *highest = token.max(*highest);
    }

    fn record_effect(&self, key: &str, token: Epoch) {
        let highest = self.events().highest.get(key).copied();
        if highest.is_some_and(|highest| token < highest) {
            let seen = format!("{key}: {token:?}, though {highest:?} had been admitted");
            fail(Violation::safety(
                "no effect is made under a lower token than one admitted before it",
                seen,
            ));
        }
    }

    /// The owner whose run made the effect of a task, derived from the outcome.
    pub(super) fn maker(&self, task: TaskId) -> Option<PublicKey> {
        let events = self.events();
        let (_, outcome) = events.outcomes.get(&task)?;
        let asked = events.asked.get(&task)?.iter();
        let mut made = asked.filter(|(_, counter, run)| outcome_of(*counter, *run) == *outcome);
        made.next().map(|(owner, _, _)| *owner)
    }

    /// The outcome that an owner received, if any.
    pub(super) fn outcome(&self, task: TaskId) -> Option<String> {
        self.events().outcomes.get(&task).map(|(_, outcome)| outcome.clone())
    }
}

/// The resource in its host's present process.
pub(super) struct LeaseServer {
    node: Node,
    resource: Witness,
    log: ResourceLog,
}

impl LeaseServer {
    /// Opens the store, on the host that runs this code.
    pub(super) fn open(node: Node, log: ResourceLog) -> Result<LeaseServer, LeaseError> {
        let folder = Path::new("/resource");
        let path = folder.join("lease.redb");
        disk::create_dir_all(folder)
            .map_err(|error| StoreError::File { path: path.display().to_string(), error })?;
        let store = Arc::new(Store::open(&path, &mut rt::rng("lease store"))?);
        // An effect and its outcome are one transaction: no recorded outcome means no effect.
        let recover = |_: &[u8], _: &_| Recovered::RolledBack;
        let resource = Witness::open(store, Config::default(), Moment::now(), &log.1, recover)?;
        log.events().boots += 1;
        Ok(LeaseServer { node, resource, log })
    }

    /// Answers until the process ends.
    pub(super) async fn serve(self) {
        let this = Arc::new(self);
        while let Some(batch) = this.node.recv_many().await {
            for datagram in batch {
                if let Some(request) = Request::decode(&datagram.body) {
                    let (this, rng) = (this.clone(), rt::rng("effect"));
                    task::spawn(async move { this.answer(datagram.peer, request, rng).await });
                }
            }
        }
    }

    async fn answer(&self, from: PublicKey, request: Request, rng: Rng) {
        self.log.record_request(from, &request);
        // A store error here is the disk crash that was armed: no answer goes out.
        let Ok(answer) = self.decide(from, &request, rng).await else { return };
        if let Answer::Done(outcome) = &answer {
            self.log.record_answer(request.task, outcome);
        }
        let _ = self.node.send(from, answer.encode(request.task)).await;
    }

    async fn decide(&self, from: PublicKey, request: &Request, mut rng: Rng) -> Result<Answer, LeaseError> {
        let (key, task) = (request.key.as_bytes(), request.task.as_bytes());
        let token = Epoch { counter: request.counter, owner: from };
        match self.resource.admit(Moment::now(), key, token, task, LIFE)? {
            Admission::Recorded(Outcome::Done(outcome)) => {
                return Ok(Answer::Done(String::from_utf8_lossy(&outcome).into_owned()));
            }
            Admission::InProgress => {
                sometimes!("a task is asked for while it is in progress");
                return Ok(Answer::Wait);
            }
            Admission::Fenced { current } => {
                sometimes!("a stale owner is fenced");
                return Ok(Answer::Fenced(current));
            }
            Admission::Busy | Admission::Recorded(Outcome::Unknown) => return Ok(Answer::Wait),
            Admission::Admitted => self.log.record_admission(&request.key, token),
        }
        time::sleep(Duration::from_millis(rng.next_u64() % EFFECT_MS)).await;
        let outcome = outcome_of(request.counter, request.run);
        let made = self
            .resource
            .commit_with(key, token, task, outcome.as_bytes(), |effects| count(effects, request.task));
        match made {
            Ok(()) => {
                self.log.record_effect(&request.key, token);
                Ok(Answer::Done(outcome))
            }
            Err(LeaseError::Fenced { current }) => {
                sometimes!("an effect is fenced at its commit");
                self.resource.release(key, token, task)?;
                Ok(Answer::Fenced(current))
            }
            Err(error) => Err(error),
        }
    }

    /// How often the effect of a task was made, according to the disk.
    pub(super) fn times(&self, task: TaskId) -> Result<u64, LeaseError> {
        let count = self.resource.resource().store().effect(&count_name(task))?;
        Ok(count.map_or(0, |bytes| number_of(&bytes)))
    }
}

/// The outcome identifies the run that made the effect, so a repeated effect has another outcome.
fn outcome_of(counter: u64, run: u64) -> String {
    format!("{counter}.{run}")
}

fn count(effects: &mut Effects<'_>, task: TaskId) -> Result<(), StoreError> {
    let before = effects.get(&count_name(task))?.map_or(0, |bytes| number_of(&bytes));
    effects.put(&count_name(task), &(before + 1).to_le_bytes())
}

fn count_name(task: TaskId) -> Vec<u8> {
    [b"times ", task.as_bytes().as_slice()].concat()
}

fn number_of(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}
