//! Jobs, by each kind of submitter: what one of each costs, and many at once.

use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use nurl::internals::compute::job::{JobError, SubmitOptions};
use nurl::internals::compute::pool::JobContext;
use nurl::internals::node::{Builder, Role};
use nurl::rt::time;

use super::costs::{Bill, Till};
use super::numbers::{BEAT_S, BEATS_PER_QUESTION, OWNERS};
use crate::cluster::{Setup, secret};

const RIGHT: &str = "a job gives the result of its handler";

/// A handler that answers at once.
const QUICK: &str = "quick";
/// A handler that takes [`TAKES`].
const LONG: &str = "long";
/// The same, which says each 400 ms how far it is.
const TALKS: &str = "talks";

/// Between two beats.
const TAKES: Duration = Duration::from_millis(5_500);
/// A job is cancelled so long after its submit.
const CANCELLED: Duration = Duration::from_millis(2_500);

/// The life of each job.
pub(super) const LIFE: Duration = Duration::from_secs(120);

/// A long payload: hundreds of packets.
const LARGE: usize = 100_000;

/// Jobs at once.
const MANY: usize = 40;

/// Gives a worker its handlers.
pub(super) fn handlers(builder: Builder, setup: &Setup) -> Builder {
    if setup.role != Role::Worker {
        return builder;
    }
    builder
        .handler(QUICK, |_: JobContext, payload: Bytes| async move { Ok(payload) })
        .handler(LONG, |_: JobContext, payload: Bytes| async move {
            time::sleep(TAKES).await;
            Ok(payload)
        })
        .handler(TALKS, |context: JobContext, payload: Bytes| async move {
            let until = time::now() + TAKES;
            while time::now() < until {
                context.progress(b"on it".to_vec());
                time::sleep(Duration::from_millis(400).min(until - time::now())).await;
            }
            Ok(payload)
        })
}

/// Who has a part in a job of this key.
struct Parts {
    executor: usize,
    owners: Vec<usize>,
}

/// Each worker has all kinds, so the first owner of a key is its executor.
async fn parts(till: &Till<'_>, key: &[u8]) -> Parts {
    let peers = &till.cluster.peers;
    let ring = till.cluster.ring(&peers[0], &peers[1]).await;
    let number = |key| peers.iter().position(|peer| peer.key == key).expect("it is one of them");
    let owners: Vec<_> = ring.owners(key, OWNERS).into_iter().map(number).collect();
    Parts { executor: owners[0], owners }
}

/// The price of a job whose handler takes so long, and says something at each beat or doesn't.
fn price(till: &Till<'_>, from: usize, parts: &Parts, takes: Duration, talks: bool) -> Bill {
    let mut bill = Bill::new(till.shape);
    let Parts { executor, owners } = parts;
    let executor = *executor;
    // SUBMIT, ACCEPTED and OUTCOME.
    bill.messages(from, executor, 1);
    bill.messages(executor, from, 2);
    let beats = (takes.as_secs() / BEAT_S) as i64;
    // BEATS and PROGRESS; LISTENING to the first, the fourth …
    bill.messages(executor, from, if talks { 2 * beats } else { beats });
    bill.messages(from, executor, (beats + BEATS_PER_QUESTION - 1) / BEATS_PER_QUESTION);
    for owner in owners {
        // REPLICA, and the submitter's ACK.
        bill.messages(executor, *owner, 1);
        bill.messages(from, *owner, 1);
        bill.record(*owner);
    }
    for name in ["job.submitted", "job.attempts", "job.results"] {
        bill.count(name, from, 1);
    }
    bill.count("job.runs", executor, 1);
    bill.count("pool.started", executor, 1);
    bill
}

/// One job, and its price.
async fn one(
    till: &mut Till<'_>,
    from: usize,
    kind: &str,
    payload: Bytes,
    key: &str,
) -> Result<(), Violation> {
    let name = till.shape.name(from);
    let what = format!("a job {kind} of {} bytes from {name}", payload.len());
    let parts = parts(till, key.as_bytes()).await;
    let takes = if kind == QUICK { Duration::ZERO } else { TAKES };
    let mut bill = price(till, from, &parts, takes, kind == TALKS);
    let large = payload.len() >= LARGE;
    if large && from != parts.executor {
        bill.long(2 * payload.len());
    }
    if large {
        // Its result goes to the owners, too.
        bill.long((parts.owners.len() - 1) * payload.len());
    }
    let node = till.cluster.peers[from].node(&till.world).await;
    let begun = till.world.elapsed();
    let options = SubmitOptions { life: LIFE, ..SubmitOptions::default() };
    let task = node.submit(kind, key.as_bytes(), payload.clone(), options).await;
    let outcome = task.map_err(|error| refused(&what, &error))?.outcome().await;
    let took = till.world.elapsed() - begun;
    if outcome.as_ref() != Ok(&payload) {
        return Err(Violation::safety(
            RIGHT,
            format!("{what} ended with {:?}", outcome.map(|result| result.len())),
        ));
    }
    let trip = till.round_trip(from, parts.executor);
    // A long one takes round trips until the window is open.
    let trips = if large { 12 } else { 1 };
    till.took(&what, took, trips * trip + takes)?;
    if !large {
        till.kept(&what, &bill).await?;
    }
    till.pay(&what, &bill).await
}

fn refused(what: &str, error: &nurl::Error) -> Violation {
    Violation::safety(RIGHT, format!("{what} is refused: {error}"))
}

/// Each kind of job from each kind of submitter, then many at once, then one that is cancelled while it runs.
pub(super) async fn act(till: &mut Till<'_>, submitters: &[usize]) -> Result<(), Violation> {
    for from in submitters {
        one(till, *from, QUICK, secret("quick"), "a key").await?;
    }
    one(till, submitters[0], QUICK, secret("without a key"), "").await?;
    for from in &submitters[..2] {
        one(till, *from, LONG, secret("long"), "a key").await?;
    }
    one(till, submitters[1], TALKS, secret("talks"), "another key").await?;
    one(till, 0, QUICK, vec![7; LARGE].into(), "large").await?;
    many(till, submitters).await?;
    cancelled(till, submitters[0]).await
}

/// As many as there are cost as much as each alone.
async fn many(till: &mut Till<'_>, submitters: &[usize]) -> Result<(), Violation> {
    let (mut bill, mut tasks) = (Bill::new(till.shape), Vec::new());
    let begun = till.world.elapsed();
    let mut longest = Duration::ZERO;
    for number in 0..MANY {
        let (from, key) = (submitters[number % submitters.len()], format!("of many {number}"));
        let parts = parts(till, key.as_bytes()).await;
        bill.add(&price(till, from, &parts, Duration::ZERO, false));
        longest = longest.max(till.round_trip(from, parts.executor));
        let node = till.cluster.peers[from].node(&till.world).await;
        let options = SubmitOptions { life: LIFE, ..SubmitOptions::default() };
        let task = node.submit(QUICK, key.as_bytes(), secret(&key), options).await;
        tasks.push((key, task.map_err(|error| refused("one of many", &error))?));
    }
    for (key, task) in tasks {
        let outcome = task.outcome().await;
        if outcome != Ok(secret(&key)) {
            return Err(Violation::safety(RIGHT, format!("{key} ended with {outcome:?}")));
        }
    }
    till.took("many jobs", till.world.elapsed() - begun, longest)?;
    till.pay("many jobs", &bill).await
}

/// A running job is cancelled: its submitter knows at once, and tells the executor, which stops the run, and then the
/// owners.
async fn cancelled(till: &mut Till<'_>, from: usize) -> Result<(), Violation> {
    let key = "cancelled";
    let parts = parts(till, key.as_bytes()).await;
    let executor = parts.executor;
    let mut bill = Bill::new(till.shape);
    let beats = (CANCELLED.as_secs() / BEAT_S) as i64;
    // SUBMIT, LISTENING and CANCEL; ACCEPTED and BEATS.
    bill.messages(from, executor, 2 + (beats + BEATS_PER_QUESTION - 1) / BEATS_PER_QUESTION);
    bill.messages(executor, from, 1 + beats);
    for owner in &parts.owners {
        // REPLICA.
        bill.messages(from, *owner, 1);
        bill.record(*owner);
    }
    bill.record(from);
    for name in ["job.submitted", "job.attempts", "job.errors"] {
        bill.count(name, from, 1);
    }
    bill.count("job.runs", executor, 1);
    bill.count("pool.started", executor, 1);
    let node = till.cluster.peers[from].node(&till.world).await;
    let options = SubmitOptions { life: LIFE, ..SubmitOptions::default() };
    let task = node.submit(LONG, key.as_bytes(), secret(key), options).await;
    let task = task.map_err(|error| refused(key, &error))?;
    till.world.sleep(CANCELLED).await;
    let begun = till.world.elapsed();
    let open = node.cancel(task.id()).await;
    let outcome = task.outcome().await;
    if !matches!(open, Ok(true)) || outcome != Err(JobError::Cancelled) {
        return Err(Violation::safety(RIGHT, format!("a cancelled job ended with {outcome:?}")));
    }
    till.took("a cancel", till.world.elapsed() - begun, Duration::ZERO)?;
    till.pay("a job that is cancelled while it runs", &bill).await
}
