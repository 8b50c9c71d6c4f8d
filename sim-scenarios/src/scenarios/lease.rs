//! A leased resource on a disk that loses unsynced writes.
//!
//! One host serves forty-eight tasks, each an effect in one transaction with its outcome. Its process is killed
//! at drawn disk operations, the machine keeps a part of the unsynced sectors, and the process starts again and
//! takes the tasks from the beginning, like an owner that never received an answer. In the end every effect has
//! happened exactly once, every outcome is the one first recorded, by the same process, and a token below the
//! last one is fenced, even after the last restart. All answers of all processes are those of one
//! [fenced register](crate::history).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use nurl::PublicKey;
use nurl::internals::compute::lease::{Admission, Config, LeaseError, Moment, Outcome, Recovered, TaskId};
use nurl::internals::ring::Epoch;
use nurl::internals::store::Store;
use nurl::rt::{self, disk, time};
use rand_core::Rng as _;

use crate::history::register::Register;
use crate::history::witness::{SharedHistory, Witness};
use crate::lock::lock;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[Mark::new("an outcome is given again after a restart")],
    ..Scenario::new(
        "lease",
        "a leased resource is killed at drawn disk operations: every effect happens once",
        |trial| Box::pin(run(trial)),
    )
};

const TASKS: u8 = 48;

/// Tasks that share a token; the next ones have a higher one.
const PER_TOKEN: u8 = 8;

/// Kills, each at a drawn disk operation; after them the process may finish.
const KILLS: u32 = 24;

/// A kill comes within this many disk operations of its arming: a transaction has about ten.
const WITHIN: u64 = 60;

const LIFE: Duration = Duration::from_secs(3_600);

const KEY: &[u8] = b"the one key";

/// The effect: a sum in the store, which a second run of any task would change.
const SUM: &[u8] = b"sum";

/// What the scenario knows of the resource, across its processes.
#[derive(Default)]
struct LeaseLog {
    /// The result of the last boot's process, once it has finished.
    end: Option<Result<u64, Violation>>,
    /// Number of outcomes that an earlier process had recorded.
    recorded: usize,
    /// By task: the process that made its effect, as that process or a later one read it from the disk.
    made: BTreeMap<u8, u8>,
}

/// Runs the resource through its kills.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let host = world.host("resource").addr("10.0.0.1");
    let seen = Arc::new(Mutex::new(LeaseLog::default()));
    let history = SharedHistory::default();
    let (log, calls) = (seen.clone(), history.clone());
    host.spawn(move || {
        let (log, calls) = (log.clone(), calls.clone());
        async move {
            let found = serve(host.boot() as u8, &log, &calls).await;
            // A store error here is the disk crash that was armed: the next process continues.
            if let Some(end) = found.unwrap_or(None) {
                lock(&log).end = Some(end);
            }
            std::future::pending::<()>().await;
        }
    });
    let mut draws = world.rng("kills");
    for _ in 0..KILLS {
        host.crash_at_disk_op(1 + draws.next_u64() % WITHIN);
        world.sleep(Duration::from_secs(2)).await;
        host.restart();
    }
    world.sleep(Duration::from_secs(10)).await;
    let seen = lock(&seen);
    let unfinished =
        || Violation::liveness("the resource comes to its end once it is left alone", "it did not");
    let sum = seen.end.clone().ok_or_else(unfinished)??;
    let expected: u64 = (0..TASKS).map(u64::from).sum();
    if sum != expected {
        let seen = format!("the effects add up to {sum}, once each they are {expected}");
        return Err(Violation::safety("an effect is made once", seen));
    }
    history.so_far().check(&Register::new())?;
    let mut state =
        format!("{TASKS} effects happened once each across {KILLS} kills; a lower token is fenced\n");
    for (task, boot) in &seen.made {
        state += &format!("effect {task:02}: by process {boot}\n");
    }
    let stats = world.stats();
    let notes = format!(
        "{} outcomes were given again, {} sectors were lost\n",
        seen.recorded, stats.disk_sectors_lost
    );
    Ok(Passed { state, notes })
}

/// Whether an outcome is the known one of a task; after a crash the first outcome read becomes the known one.
fn is_known_outcome(log: &Mutex<LeaseLog>, task: u8, outcome: &[u8]) -> bool {
    let [number, boot] = *outcome else { return false };
    number == task && *lock(log).made.entry(task).or_insert(boot) == boot
}

/// Takes every task from the first to the last, in the host's `boot`-th process. `Ok(Some)` is the final verdict.
async fn serve(
    boot: u8,
    log: &Mutex<LeaseLog>,
    history: &SharedHistory,
) -> Result<Option<Result<u64, Violation>>, LeaseError> {
    let folder = Path::new("/data");
    if disk::create_dir_all(folder).is_err() {
        return Ok(None);
    }
    let store = Arc::new(Store::open(&folder.join("lease.redb"), &mut rt::rng("store"))?);
    let recover = |_: &[u8], _: &TaskId| Recovered::RolledBack;
    let resource = Witness::open(store.clone(), Config::default(), Moment::now(), history, recover)?;
    let token = |number: u8| Epoch {
        counter: 1 + u64::from(number / PER_TOKEN),
        owner: PublicKey::from_bytes([7; 32]),
    };
    for number in 0..TASKS {
        let task = [number; 16];
        match resource.admit(Moment::now(), KEY, token(number), &task, LIFE)? {
            Admission::Admitted => {
                resource.commit_with(KEY, token(number), &task, &[number, boot], |effects| {
                    let before = effects.get(SUM)?.and_then(|bytes| bytes.try_into().ok());
                    let sum = before.map_or(0, u64::from_le_bytes) + u64::from(number);
                    effects.put(SUM, &sum.to_le_bytes())
                })?;
                let first = *lock(log).made.entry(number).or_insert(boot);
                if first != boot {
                    let seen = format!("task {number} was made by process {first}, and again by {boot}");
                    return Ok(Some(Err(Violation::safety("an effect is made once", seen))));
                }
            }
            Admission::Recorded(Outcome::Done(outcome)) if is_known_outcome(log, number, &outcome) => {
                sometimes!("an outcome is given again after a restart");
                lock(log).recorded += 1;
            }
            other => {
                let seen = format!("task {number} was answered with {other:?}");
                return Ok(Some(Err(Violation::safety("an outcome never changes", seen))));
            }
        }
        time::sleep(Duration::from_millis(20)).await;
    }
    let late = resource.admit(Moment::now(), KEY, token(0), &[0xff; 16], LIFE)?;
    if !matches!(late, Admission::Fenced { .. }) {
        let seen = format!("a token below the last one was answered with {late:?}");
        return Ok(Some(Err(Violation::safety("a token below the last one is fenced", seen))));
    }
    let sum = store.effect(SUM)?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    Ok(Some(Ok(sum)))
}
