//! The order in which a worker runs what waits there, and jobs that are cancelled.

use std::time::Duration;

use chaos::property::Violation;
use chaos::sometimes;
use nurl::internals::compute::job::{JobError, Priority, SubmitOptions};
use rand_core::Rng as _;

use super::handlers::{Course, QUEUED, TRIES};
use super::submitted::Submitted;
use super::{Act, ROUND_TRIP};
use crate::cluster::secret;

const ORDER: &str = "of one submitter's tasks that wait the more urgent begin first, and of equals the older";
const DONE: &str = "each task that waits is run";
const ENDS: &str = "a job that is cancelled ends at once, cancelled, and can't be cancelled again";
const NEVER: &str = "a job that is cancelled before it begins never begins";
const OVER: &str = "a run that is cancelled is over a round trip later";
const REACHED: &str = "a run that is cancelled where nobody is reached is over once somebody is";

/// Tasks of each priority.
const EACH: usize = 3;

/// Between two submits, so that they arrive in their order.
const APART: Duration = Duration::from_millis(150);

/// How long the task runs behind which the others wait: until all of them are there.
const BEHIND: Duration = Duration::from_secs(2);

/// How long each of them runs.
const SHORT: Duration = Duration::from_millis(50);

const ALL_DONE: Duration = Duration::from_secs(20);

/// How long a worker can't be reached: too short for a verdict on it.
const CUT: Duration = Duration::from_millis(2_500);

/// From the end of the cut until the worker has heard: a retransmission, or the answer to a beat of its own. A message that
/// didn't arrive may delay the next one by 2 s.
const REACHES: Duration = Duration::from_secs(4);

/// One worker runs one at a time; the others wait there.
pub(super) async fn by_priority(act: &Act<'_>) -> Result<String, Violation> {
    let mut draws = act.world.rng("priorities");
    let mut urgencies = [Priority::Low, Priority::Normal, Priority::High].repeat(EACH);
    for at in (1..urgencies.len()).rev() {
        urgencies.swap(at, draws.next_u64() as usize % (at + 1));
    }
    act.script.set("the task before", Course::Take(BEHIND));
    let mut open = vec![submit(act, QUEUED, "the task before", Priority::Low).await];
    let mut expected = Vec::new();
    for (number, priority) in urgencies.into_iter().enumerate() {
        act.world.sleep(APART).await;
        let name = format!("waits {number} {priority:?}");
        act.script.set(&name, Course::Take(SHORT));
        open.push(submit(act, QUEUED, &name, priority).await);
        expected.push((std::cmp::Reverse(priority), name));
    }
    // It is stable: the older one stays before the younger one.
    expected.sort_by_key(|(priority, _)| *priority);
    for job in open {
        let name = job.name.clone();
        let end = job.end(act.world, DONE, ALL_DONE).await?;
        if end.outcome != Ok(secret(&name)) {
            return Err(Violation::safety(DONE, format!("{name} came back as {:?}", end.outcome)));
        }
    }
    let began = act.script.order("waits ");
    if began.iter().ne(expected.iter().map(|(_, name)| name)) {
        return Err(Violation::safety(ORDER, format!("they began so: {}", began.join(", "))));
    }
    Ok(format!("{} tasks were run by their priorities\n", 3 * EACH))
}

/// Jobs are cancelled wherever they are.
pub(super) async fn cancelled(act: &Act<'_>) -> Result<String, Violation> {
    let world = act.world;
    for name in ["runs and is cancelled", "waits and is cancelled", "waits on"] {
        act.script.set(name, Course::Take(if name == "waits on" { SHORT } else { BEHIND * 30 }));
    }
    let nobodys = submit(act, "nobody's", "has no worker and is cancelled", Priority::Normal).await;
    let runs = submit(act, QUEUED, "runs and is cancelled", Priority::Normal).await;
    world.sleep(APART).await;
    let waits = submit(act, QUEUED, "waits and is cancelled", Priority::Normal).await;
    world.sleep(APART).await;
    let next = submit(act, QUEUED, "waits on", Priority::Normal).await;
    world.sleep(APART).await;
    // Cancelled from the end of the queue on, so that none of them begins before it is cancelled.
    for job in [nobodys, waits, runs] {
        let (name, at) = (job.name.clone(), world.elapsed());
        cancel(act, job).await?;
        world.sleep(ROUND_TRIP).await;
        let ran = act.script.runs(&name);
        match (name.starts_with("runs"), ran.as_slice()) {
            (true, [run]) if run.ended.is_some_and(|ended| ended <= at + ROUND_TRIP) => {}
            (false, []) => {}
            (true, _) => return Err(Violation::safety(OVER, format!("{name} at {at:?}: {ran:?}"))),
            (false, _) => return Err(Violation::safety(NEVER, format!("{name} at {at:?}: {ran:?}"))),
        }
    }
    let end = next.end(world, DONE, BEHIND).await?;
    if end.outcome != Ok(secret("waits on")) {
        return Err(Violation::safety(DONE, format!("the one behind came back as {:?}", end.outcome)));
    }
    if !act.script.runs("waits and is cancelled").is_empty() {
        return Err(Violation::safety(NEVER, "it began once there was room"));
    }
    unreached(act).await?;
    Ok("no cancelled job began, or ran on\n".to_owned())
}

/// A job is cancelled while its worker is cut off from everybody.
async fn unreached(act: &Act<'_>) -> Result<(), Violation> {
    let (world, name) = (act.world, "is cancelled from afar");
    act.script.set(name, Course::Take(BEHIND * 30));
    let job = submit(act, TRIES, name, Priority::Normal).await;
    world.sleep(APART * 4).await;
    let Some(run) = act.script.runs(name).first().cloned() else {
        return Err(Violation::liveness(DONE, format!("{name} hasn't begun")));
    };
    let worker = act.cluster.peers.iter().find(|peer| peer.name == run.by).expect("a worker runs it").host;
    let others: Vec<_> = world.hosts().into_iter().filter(|host| *host != worker).collect();
    world.partition(&[worker], &others);
    cancel(act, job).await?;
    world.sleep(CUT).await;
    let on = act.script.runs(name)[0].ended.is_none();
    sometimes!(on, "a job was cancelled while it ran where nobody could be reached");
    world.heal();
    world.sleep(REACHES).await;
    match act.script.runs(name).as_slice() {
        [run] if run.ended.is_some() => Ok(()),
        runs => Err(Violation::liveness(REACHED, format!("{REACHES:?} after the cut: {runs:?}"))),
    }
}

async fn cancel(act: &Act<'_>, job: Submitted) -> Result<(), Violation> {
    let node = act.from.node(&act.world).await;
    let (name, id) = (job.name.clone(), job.id);
    let (first, again) = (node.cancel(id).await, node.cancel(id).await);
    let end = job.end(act.world, ENDS, ROUND_TRIP).await?;
    let at_once = matches!((&first, &again), (Ok(true), Ok(false)));
    if at_once && end.outcome == Err(JobError::Cancelled) {
        return Ok(());
    }
    Err(Violation::safety(
        ENDS,
        format!("{name}: {first:?}, then {again:?}; it came back as {:?}", end.outcome),
    ))
}

async fn submit(act: &Act<'_>, kind: &str, name: &str, priority: Priority) -> Submitted {
    let options = SubmitOptions { priority, ..SubmitOptions::default() };
    Submitted::new(act.world, act.from, kind, name, options).await
}
