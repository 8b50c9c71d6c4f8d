//! Kinds that no worker has, or none that is alive, until one comes.

use std::time::Duration;

use chaos::property::Violation;
use chaos::world::World;
use nurl::internals::compute::job::{JobError, SubmitOptions, WaitReason};
use nurl::internals::membership::State;
use nurl::internals::node::Role;

use super::handlers::{Course, RARE, Script};
use super::submitted::Submitted;
use super::{LEARN, NEWCOMER, ROUND_TRIP};
use crate::cluster::{Cluster, Deadline, Peer, secret};

const INFEASIBLE: &str = "a kind that nobody has is infeasible after three seconds, and no sooner";
const TOLD: &str = "a job whose kind only the dead have says after three seconds that it waits";
const GONE: &str = "the worker of the kind is held dead";
const KNOWN: &str = "the submitter knows the newcomer";
const AT_ONCE: &str = "a job that waits for its kind is run as soon as its submitter knows of a worker";
const NEXT: &str = "a kind that was infeasible is run once a worker has it";

/// How long a submitter waits for a worker before it says so.
const PATIENCE: Duration = Duration::from_secs(3);

/// A kind that the submitter was told of in a session that it had not needed yet: a submit, its way, its outcome's.
const RUN: Duration = Duration::from_millis(1_000);

/// The only worker of a kind goes for good, and a newcomer has it.
pub(super) async fn act(
    world: World,
    cluster: &mut Cluster,
    script: &Script,
    from: &Peer,
) -> Result<String, Violation> {
    let gone = cluster.peers[2].clone();
    gone.host.power_loss();
    let deadline = Deadline::new(world, GONE, LEARN);
    loop {
        let state = cluster.view(from).await.get(&gone.key).copied();
        let missing = if state == Some(State::Dead) { Vec::new() } else { vec![format!("{state:?}")] };
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    let usual = SubmitOptions::default;
    for name in ["waits for a newcomer", "comes after it"] {
        script.set(name, Course::Fail(0));
    }
    let nobodys = Submitted::new(world, from, "nobody's", "has no worker", usual()).await;
    let waits = Submitted::new(world, from, RARE, "waits for a newcomer", usual()).await;
    let end = nobodys.end(world, INFEASIBLE, PATIENCE + ROUND_TRIP).await?;
    let in_time = end.took >= PATIENCE && end.took <= PATIENCE + ROUND_TRIP / 10;
    if end.outcome != Err(JobError::Infeasible("nobody's".to_owned())) || !in_time || end.attempts != 0 {
        let seen = format!("{:?} after {:?}", end.outcome, end.took);
        return Err(Violation::safety(INFEASIBLE, seen));
    }
    world.sleep(PATIENCE).await;
    if waits.is_over() {
        return Err(Violation::safety(TOLD, "it has ended"));
    }

    let newcomer = cluster.add(NEWCOMER, world.internet(), Role::Worker);
    let deadline = Deadline::new(world, KNOWN, LEARN);
    loop {
        let state = cluster.view(from).await.get(&newcomer.key).copied();
        let missing = if state == Some(State::Alive) { Vec::new() } else { vec![format!("{state:?}")] };
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    let end = waits.end(world, AT_ONCE, RUN).await?;
    if end.outcome != Ok(secret("waits for a newcomer")) {
        return Err(Violation::safety(AT_ONCE, format!("it came back as {:?}", end.outcome)));
    }
    match end.waits.as_slice() {
        [(after, WaitReason::Away)] if *after >= PATIENCE && *after <= PATIENCE + ROUND_TRIP / 10 => {}
        waits => return Err(Violation::safety(TOLD, format!("{waits:?}"))),
    }
    let next = Submitted::new(world, from, RARE, "comes after it", usual()).await;
    let end = next.end(world, NEXT, RUN).await?;
    if end.outcome != Ok(secret("comes after it")) {
        return Err(Violation::safety(NEXT, format!("it came back as {:?}", end.outcome)));
    }
    Ok("a kind that nobody had was infeasible; one that a newcomer had was run by it\n".to_owned())
}
