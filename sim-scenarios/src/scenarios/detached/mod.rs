//! Detached tasks end once, whatever becomes of their submitter, their custodian and their other keepers.
//!
//! Six workers, of which all but one have stores, and an observer. In each round a client comes, deposits tasks, one of them by
//! a name of its own and one that runs until it is cancelled, and dies in the moment in which the last deposit is confirmed.
//! Meanwhile the custodian of one task is killed, or all keepers of one at once, or two workers at random; they start again
//! within seconds, or when all is over. Then another client of the same holder cancels the endless task.
//!
//! - Each task ends within a bound, with the result of one of its runs, and the cancelled one as such. The observer, who asked
//!   before the faults, the other client and all workers have the same outcome.
//! - No task runs twice but for a killed process that had begun it.
//! - The endless task runs nowhere soon after it was cancelled, though the custodian that had it run may be dead.
//! - At rest its three keepers hold each task in the same state, and nobody else holds it. They are only looked at.
//! - The named task, deposited again from elsewhere while it is open and when it has ended, is the same task, and doesn't run
//!   again; another content under its name is refused.

mod books;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use chaos::scenario::{Knob, KnobKind, Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::compute::job::custody::{CustodyError, Refusal, Step, TaskStatus};
use nurl::internals::compute::job::{JobError, KindLimits, SubmitOptions, TaskId};
use nurl::internals::node::Role;
use nurl::rt::{Rng, task, time};
use nurl::{Error, PublicKey, SecretKey};
use rand_core::Rng as _;

use self::books::Books;
use crate::cluster::{Cluster, Deadline, Peer, secret};
use crate::stage::{Stage, link_ms, with_store};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    knobs: &[
        Knob {
            name: "rounds",
            about: "clients that come and die",
            default: 4,
            least: 1,
            turns: KnobKind::Work,
        },
        Knob { name: "tasks", about: "tasks of each client", default: 4, least: 1, turns: KnobKind::Work },
    ],
    marks: &[
        Mark::new("a kill hit the custodian of an open task"),
        Mark::new("a kill hit a worker that ran a detached task"),
        Mark::new("all keepers of an open task were killed at once"),
        Mark::new("an open task was taken over by another keeper"),
        Mark::new("a cancelled task was taken over before"),
        Mark::new("a task ran once more after a kill"),
    ],
    time_limit: Duration::from_secs(30 * 60),
    ..Scenario::new(
        "detached",
        "clients deposit tasks and die, keepers are killed: each task ends once, and everybody is told the same",
        |trial| Box::pin(run(trial)),
    )
};

const CONFIRMED: &str = "a deposit is confirmed while nothing is wrong";
const ENDS: &str = "a detached task that was deposited ends, and who asks is told";
const OWN: &str = "a detached task has the result of one of its runs";
const ONE: &str = "everybody is told the same outcome of a detached task";
const RUNS: &str = "a detached task runs again only for a process that was killed";
const STOPS: &str = "a detached task that was cancelled runs nowhere";
const CANCELLED: &str = "a detached task that was cancelled is told as such";
const SAME: &str = "a name deposited again by its holder is the same task";
const CONFLICT: &str = "another content under a task's name is refused";
const KEPT: &str = "three keepers hold a detached task alike, and nobody else";

const WORKERS: usize = 6;
/// The worker without a store.
const STORELESS: usize = 5;
const KEEPERS: usize = 3;

const TASK: &str = "task";
const ENDLESS: &str = "endless";
const TAKES: Duration = Duration::from_secs(4);
/// Longer than a run of the scenario.
const LIFE: Duration = Duration::from_secs(3_600);

const MEET: Duration = Duration::from_secs(60);
/// A death is certain within 35 s, a restarted keeper waits 5 s for the others' news, an asker asks another keeper after 17 s and
/// pauses for 5 s, and a worker that fell silent costs the run again.
const ENDS_WITHIN: Duration = Duration::from_secs(35 + 5 + 17 + 5 + 2 * TAKES.as_secs());
/// A cancellation goes to one keeper, which offers it to the custodian at once; a lost offer is repeated after 3 and 6 s more. Its
/// keeper may be a dead one that is asked for 2 s, and the custodian one that is not yet held dead.
/// A worker whose custodian is gone asks the keepers every 5 s, one after the other for 2 s each.
const STOPS_WITHIN: Duration = Duration::from_secs(35 + 5 + 9 + 2 + 5 + 3 * 2);
/// Offers are repeated after 48 s at most.
const KEPT_WITHIN: Duration = Duration::from_secs(100);
/// The longest pause before a kill and before a restart.
const PAUSE_MS: usize = 5_000;

struct Play {
    world: World,
    cluster: Cluster,
    draws: Rng,
    books: Books,
    holder: SecretKey,
    /// The outcomes that were told.
    told: usize,
}

/// A deposited task.
#[derive(Clone)]
struct Deposited {
    name: String,
    id: TaskId,
    /// It runs until it is cancelled.
    endless: bool,
}

type Outcome = Result<Bytes, JobError>;

/// Runs the scenario.
async fn run(trial: Trial) -> RunResult {
    let (world, books) = (trial.world, Books::default());
    let noted = books.clone();
    let stage = Stage::new(world).links(link_ms(15, 10)).hub("hub").workers(WORKERS).observer("phone");
    let stage = stage.configure(move |builder, setup| {
        if setup.role != Role::Worker {
            return builder;
        }
        let builder = if setup.number == STORELESS { builder } else { with_store(builder, "/node") };
        [(TASK, TAKES), (ENDLESS, 2 * LIFE)].into_iter().fold(builder, |builder, (kind, takes)| {
            let (noted, setup) = (noted.clone(), setup.clone());
            builder.handler_with(kind, KindLimits::default(), move |context, payload| {
                noted.clone().handle(setup.clone(), takes, context, payload)
            })
        })
    });
    let cluster = stage.meet(MEET).await?;
    let mut draws = world.rng("detached");
    let holder = SecretKey::generate(&mut draws);
    let mut play = Play { world, cluster, draws, books, holder, told: 0 };
    for round in 0..trial.knob("rounds") {
        play.round(round, trial.knob("tasks")).await?;
    }
    play.cluster.inspect().await?;
    let state = format!("{}{} outcomes were told\n", play.cluster.views().await, play.told);
    Ok(Passed { state, notes: String::new() })
}

impl Play {
    fn draw(&mut self, end: usize) -> usize {
        (self.draws.next_u64() % end as u64) as usize
    }

    async fn pause(&mut self) {
        let pause = Duration::from_millis(self.draw(PAUSE_MS) as u64);
        self.world.sleep(pause).await;
    }

    fn workers(&self) -> Vec<Peer> {
        self.cluster.peers[..WORKERS].to_vec()
    }

    async fn round(&mut self, round: u64, count: u64) -> Result<(), Violation> {
        let internet = self.world.internet();
        let shell = self.cluster.add_by_slip(&format!("shell {round}"), internet, &self.holder.clone());
        shell.node(&self.world).await;
        let tasks = self.deposit_and_die(round, count).await?;
        let (named, endless) = (tasks[0].clone(), tasks[tasks.len() - 1].clone());
        self.again(&shell, &named).await?;
        let asked = self.ask_all(&self.cluster.peers[WORKERS].clone(), &tasks);

        let victims = self.kill(round, &tasks).await;
        let late = self.draw(2) == 0 && victims.len() < KEEPERS;
        self.pause().await;
        if !late {
            victims.iter().for_each(|victim| victim.host.restart());
        }
        let ended = self.cancel(&shell, &endless).await?;
        sometimes!(takers(&ended).len() > 1, "a cancelled task was taken over before");
        let mut outcomes = Vec::new();
        for (task, asking) in tasks.iter().zip(asked) {
            outcomes.push(self.end_of(task, asking).await?);
        }
        if late {
            victims.iter().for_each(|victim| victim.host.restart());
        }
        self.cluster.converge(MEET).await?;
        self.kept(&tasks).await?;
        self.asked_everywhere(&shell, &tasks, &outcomes).await?;
        self.again(&shell, &named).await?;
        self.other_content(&shell, &named).await?;
        for task in &tasks {
            if let Some(wrong) = self.books.too_many(&self.cluster, &task.name) {
                return Err(Violation::safety(RUNS, wrong));
            }
            sometimes!(self.books.starts(&task.name) > 1, "a task ran once more after a kill");
        }
        shell.host.crash();
        self.cluster.converge(MEET).await
    }

    /// A client comes, deposits its tasks, and is dead when the last one is confirmed: the first has a name of its own, and
    /// the last has no end.
    async fn deposit_and_die(&mut self, round: u64, count: u64) -> Result<Vec<Deposited>, Violation> {
        let (holder, internet) = (self.holder.clone(), self.world.internet());
        let client = self.cluster.add_by_slip(&format!("client {round}"), internet, &holder);
        client.node(&self.world).await;
        let mut tasks = Vec::new();
        for number in 0..=count {
            let kind = if number == count { ENDLESS } else { TASK };
            let name = format!("task {number} of round {round}");
            let own = (number == 0).then_some(name.as_str());
            let id = self.deposit(&client, own, kind, &name).await;
            let id = id.map_err(|error| Violation::liveness(CONFIRMED, format!("{name}: {error}")))?;
            tasks.push(Deposited { name, id, endless: number == count });
        }
        match self.draw(2) {
            0 => client.host.crash(),
            _ => client.host.power_loss(),
        }
        Ok(tasks)
    }

    async fn deposit(
        &self,
        from: &Peer,
        own: Option<&str>,
        kind: &str,
        content: &str,
    ) -> Result<TaskId, Error> {
        // No number of losses makes a task a dead letter here.
        let options = SubmitOptions { life: LIFE, max_losses: u32::MAX, ..SubmitOptions::default() };
        let node = from.node(&self.world).await;
        let task =
            node.submit_detached(own, kind, content.as_bytes(), secret(content), options, LIFE).await?;
        Ok(task.id())
    }

    /// Begins to ask for the outcomes at a node.
    fn ask_all(&self, at: &Peer, tasks: &[Deposited]) -> Vec<task::JoinHandle<Result<Bytes, Error>>> {
        let asking = tasks.iter().map(|Deposited { id, .. }| {
            let (world, at, id) = (self.world, at.clone(), *id);
            task::spawn(async move { at.node(&world).await.detached(id).outcome().await })
        });
        asking.collect()
    }

    /// The keepers of a task, the custodian first, as a worker that runs sees it.
    async fn keepers(&self, id: TaskId) -> Vec<Peer> {
        let mut see = self.cluster.running().filter(|peer| peer.role == Role::Worker);
        let (of, by) = (see.next().expect("a worker runs"), see.next().expect("another worker runs"));
        let ring = self.cluster.ring(of, by).await;
        let live = ring.preference(id.as_bytes()).filter(|member| member.live);
        let keys: Vec<PublicKey> = live.take(KEEPERS).map(|member| member.key).collect();
        let peer = |key| self.cluster.peers.iter().find(|peer| peer.key == key).cloned();
        keys.into_iter().filter_map(peer).collect()
    }

    /// Kills some workers at a random moment, and returns them.
    async fn kill(&mut self, round: u64, tasks: &[Deposited]) -> Vec<Peer> {
        let chosen = &tasks[self.draw(tasks.len())];
        let keepers = self.keepers(chosen.id).await;
        let mut victims = match round % 4 {
            0 | 2 => keepers[..1].to_vec(),
            1 => keepers,
            _ => self.workers(),
        };
        while round % 4 == 3 && victims.len() > 2 {
            victims.remove(self.draw(victims.len()));
        }
        self.pause().await;
        for victim in &victims {
            let driving = self.cluster.metric(victim, "custody.driving").await > 0;
            sometimes!(driving, "a kill hit the custodian of an open task");
        }
        let open = victims.len() == KEEPERS && tasks.iter().any(|task| self.runs(&task.name));
        sometimes!(open, "all keepers of an open task were killed at once");
        for victim in &victims {
            let ran =
                tasks.iter().any(|task| self.books.running(&self.cluster, &task.name).contains(&victim.name));
            sometimes!(ran, "a kill hit a worker that ran a detached task");
        }
        let loses_power = self.draw(2) == 0;
        for victim in &victims {
            match loses_power {
                true => victim.host.power_loss(),
                false => victim.host.crash(),
            }
        }
        victims
    }

    fn runs(&self, name: &str) -> bool {
        !self.books.running(&self.cluster, name).is_empty()
    }

    /// Cancels the endless task, which runs nowhere soon after, and returns its end.
    async fn cancel(&self, shell: &Peer, endless: &Deposited) -> Result<TaskStatus, Violation> {
        let task = shell.node(&self.world).await.detached(endless.id);
        let begun = self.world.elapsed();
        let ended = loop {
            let left = ENDS_WITHIN.saturating_sub(self.world.elapsed() - begun);
            match time::timeout(left, task.cancel()).await {
                Ok(Ok(ended)) => break ended,
                // Its keepers are restarting.
                Ok(Err(Error::Detached(error))) if error.may_pass() => {}
                other => {
                    let seen = format!("{}, cancelled for {ENDS_WITHIN:?}: {other:?}", endless.name);
                    return Err(Violation::liveness(ENDS, seen));
                }
            }
            self.world.sleep(Duration::from_millis(200)).await;
        };
        if ended.end.as_ref().and_then(|end| end.error.as_ref()) != Some(&JobError::Cancelled) {
            return Err(Violation::safety(CANCELLED, format!("{} ended as {:?}", endless.name, ended.end)));
        }
        let deadline = Deadline::new(self.world, STOPS, STOPS_WITHIN);
        loop {
            let running = self.books.running(&self.cluster, &endless.name);
            let missing = running.iter().map(|by| format!("{by} runs {}", endless.name)).collect();
            if !deadline.still_missing(missing).await? {
                return Ok(ended);
            }
        }
    }

    /// What who asked before the faults was told, in time.
    async fn end_of(
        &mut self,
        task: &Deposited,
        asking: task::JoinHandle<Result<Bytes, Error>>,
    ) -> Result<Outcome, Violation> {
        let outcome = match time::timeout(ENDS_WITHIN, asking).await {
            Ok(Ok(Ok(result))) => Ok(result),
            Ok(Ok(Err(Error::Job(error)))) => Err(error),
            other => {
                let seen = format!("{} after {ENDS_WITHIN:?}: {other:?}", task.name);
                return Err(Violation::liveness(ENDS, seen));
            }
        };
        let right = match &outcome {
            Ok(bytes) => self.books.is_result(&task.name, bytes),
            Err(error) => *error == JobError::Cancelled && task.endless,
        };
        if !right {
            return Err(Violation::safety(OWN, format!("{}: {outcome:?}", task.name)));
        }
        Ok(outcome)
    }

    /// Its keepers hold each task as ended, in the same state, and nobody else does. It asks each worker for its own copies only.
    async fn kept(&self, tasks: &[Deposited]) -> Result<(), Violation> {
        let deadline = Deadline::new(self.world, KEPT, KEPT_WITHIN);
        loop {
            let mut missing = Vec::new();
            let mut held = Vec::new();
            for worker in self.workers() {
                let copies = worker.node(&self.world).await.held_tasks().await.unwrap_or_default();
                held.extend(copies.into_iter().map(|copy| (worker.name.clone(), copy)));
            }
            for Deposited { name, id, .. } in tasks {
                let keepers: BTreeSet<String> =
                    self.keepers(*id).await.into_iter().map(|keeper| keeper.name).collect();
                let copies: Vec<_> = held.iter().filter(|(_, (task, ..))| task == id).collect();
                let holders: BTreeSet<String> = copies.iter().map(|(by, _)| by.clone()).collect();
                let states: BTreeSet<_> =
                    copies.iter().map(|(_, (_, mark, ended))| (*mark, *ended)).collect();
                if holders != keepers {
                    missing.push(format!("{name} is held by {holders:?}, not by {keepers:?}"));
                } else if states.len() != 1 || states.iter().any(|(_, ended)| !ended) {
                    missing.push(format!("{name} is held in {} states, or is open", states.len()));
                }
            }
            if !deadline.still_missing(missing).await? {
                return Ok(());
            }
        }
    }

    /// Everybody is told the outcome that who asked first was told.
    async fn asked_everywhere(
        &mut self,
        shell: &Peer,
        tasks: &[Deposited],
        outcomes: &[Outcome],
    ) -> Result<(), Violation> {
        for asker in self.workers().iter().chain([shell]) {
            for ((task, first), asking) in tasks.iter().zip(outcomes).zip(self.ask_all(asker, tasks)) {
                let outcome = self.end_of(task, asking).await?;
                if outcome != *first {
                    let seen =
                        format!("{} is told {outcome:?} of {}, after {first:?}", asker.name, task.name);
                    return Err(Violation::safety(ONE, seen));
                }
                self.told += 1;
            }
        }
        for task in tasks {
            let status = shell.node(&self.world).await.detached(task.id).status().await;
            let status =
                status.map_err(|error| Violation::safety(ENDS, format!("{}: {error}", task.name)))?;
            sometimes!(takers(&status).len() > 1, "an open task was taken over by another keeper");
        }
        Ok(())
    }

    /// The same holder deposits the named task from elsewhere.
    async fn again(&self, shell: &Peer, named: &Deposited) -> Result<(), Violation> {
        let again = self.deposit(shell, Some(&named.name), TASK, &named.name).await;
        match again {
            Ok(id) if id == named.id => Ok(()),
            other => Err(Violation::safety(SAME, format!("{}: {other:?}, not {}", named.name, named.id))),
        }
    }

    async fn other_content(&self, shell: &Peer, named: &Deposited) -> Result<(), Violation> {
        let other = self.deposit(shell, Some(&named.name), TASK, "another content").await;
        match other {
            Err(Error::Detached(CustodyError::Refused(Refusal::Conflict))) => Ok(()),
            other => Err(Violation::safety(CONFLICT, format!("{}: {other:?}", named.name))),
        }
    }
}

/// The keepers that have submitted a task.
fn takers(status: &TaskStatus) -> BTreeSet<PublicKey> {
    let taken = status.history.iter().filter(|note| note.step == Step::Taken);
    taken.map(|note| note.by).collect()
}
