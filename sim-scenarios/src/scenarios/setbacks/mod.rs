//! Work that goes wrong: each setback has the end that its submitter was promised, as soon as it was promised.
//!
//! Three workers, a hub, and a submitter: a member or an observer, as drawn.
//!
//! **Refused.** What no worker could take is refused at once, with its reason.
//!
//! **Failures.** Handlers fail retriably fewer times than they may, or as often as they may, give up, run over their kind's
//! limit or their life, fail for good, panic on the pool and beside it, and make a result that is too long. Retries go round
//! the workers; each job has the end that its options and its handler's error say, after as many runs as that takes. Then
//! the same among losses, while a worker crashes in which a job has just failed.
//!
//! **Progress.** A handler says how far it is, and its submitter hears the latest word at each beat.
//!
//! **Order.** One worker runs tasks of a kind one by one: the more urgent first, and of equals the older.
//!
//! **Cancelled.** A job is cancelled while it waits for a worker, waits in the queue, runs, and runs at a worker that can't
//! be reached. It never begins, or is over a round trip later, or as soon as the worker is reached.
//!
//! **Kinds.** A kind that nobody has is infeasible after three seconds. A kind whose worker is gone waits for a newcomer that
//! has it, and is run when the submitter knows of that one.
//!
//! In the end no node has anything left of all of these tasks.
//!
//! Negative control: each job whose handler fails has another end than one whose handler doesn't.

mod failures;
mod handlers;
mod kinds;
mod order;
mod submitted;

use std::time::Duration;

use bytes::Bytes;
use chaos::link::LinkConfig;
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::world::World;
use nurl::Error;
use nurl::internals::compute::job::options::{MAX_KEY_LEN, MAX_KIND_LEN, MAX_LIFE, MAX_PAYLOAD_LEN};
use nurl::internals::compute::job::{SubmitError, SubmitOptions};
use nurl::internals::node::Role;
use rand_core::Rng as _;

use self::handlers::{Course, SAYS_EVERY, Script, TRIES};
use self::submitted::Submitted;
use crate::cluster::{Cluster, Deadline, Peer, secret};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a job failed at each worker, and was tried again where it had failed first"),
        Mark::new("a worker crashed between two attempts of a job that had failed there"),
        Mark::new("a job was cancelled while it ran where nobody could be reached"),
    ],
    ..Scenario::new(
        "setbacks",
        "handlers fail, panic, give up and run late, jobs are cancelled, and kinds are missing: each has the end it was promised",
        |trial| Box::pin(run(trial)),
    )
};

const WORKERS: usize = 3;

/// A worker that comes late.
const NEWCOMER: &str = "newcomer";

const MEET: Duration = Duration::from_secs(60);

/// A death or a return is known everywhere within this.
const LEARN: Duration = Duration::from_secs(90);

/// There and back over a hub, with the time of a first session between two workers.
const ROUND_TRIP: Duration = Duration::from_millis(200);

const REFUSED: &str = "a job that no worker could take is refused at once, with the reason";
const HEARD: &str = "a submitter hears at each beat how far its job was just before";
const NOTHING_LEFT: &str = "no node has anything left of tasks that have ended";

/// An executor's beat.
const BEAT: Duration = Duration::from_secs(1);

/// How long the handler runs that says how far it is.
const SAYS_FOR: Duration = Duration::from_secs(6);

/// The longest note that arrives.
const NOTE_BYTES: usize = 256;

/// The owners of a finished task's key are told, and acknowledged outcomes are dropped, within this.
const TIDY: Duration = Duration::from_secs(10);

/// What each act needs.
struct Act<'a> {
    world: World,
    cluster: &'a Cluster,
    script: Script,
    /// The submitter.
    from: &'a Peer,
}

fn links() -> LinkConfig {
    link_ms(15, 10)
}

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let script = Script::new(world);
    let handlers = script.clone();
    let stage = Stage::new(world).links(links()).hub("hub").workers(WORKERS);
    let stage = if world.rng("submitter").next_u32().is_multiple_of(2) {
        stage.member("submitter")
    } else {
        stage.observer("submitter")
    };
    let stage =
        stage.configure(
            move |builder, setup| {
                if setup.role == Role::Worker { handlers.handlers(builder, setup) } else { builder }
            },
        );
    let mut cluster = stage.meet(MEET).await?;
    let from = cluster.peers[WORKERS].clone();
    let mut state = String::new();
    {
        let act = Act { world, cluster: &cluster, script: script.clone(), from: &from };
        refused(&act).await?;
        state += &failures::act(&act).await?;
        progress(&act).await?;
        state += &order::by_priority(&act).await?;
        state += &order::cancelled(&act).await?;
        state += &failures::among_losses(&act).await?;
    }
    state += &kinds::act(world, &mut cluster, &script, &from).await?;
    nothing_left(&cluster).await?;
    cluster.inspect().await?;
    Ok(Passed { state, notes: String::new() })
}

/// Jobs that are over a limit are refused, and none of them is taken.
async fn refused(act: &Act<'_>) -> Result<(), Violation> {
    let node = act.from.node(&act.world).await;
    let before = act.cluster.metric(act.from, "job.submitted").await;
    let long_kind = "k".repeat(MAX_KIND_LEN + 1);
    let long_key = vec![0; MAX_KEY_LEN + 1];
    let no_life = SubmitOptions { life: Duration::from_micros(999), ..SubmitOptions::default() };
    let long_life = SubmitOptions { life: MAX_LIFE + Duration::from_millis(1), ..SubmitOptions::default() };
    let (usual, small, len) = (SubmitOptions::default(), secret("refused"), MAX_PAYLOAD_LEN + 1);
    let tries: [(&str, &[u8], Bytes, &SubmitOptions, SubmitError); 6] = [
        ("", b"key", small.clone(), &usual, SubmitError::BadKind),
        (&long_kind, b"key", small.clone(), &usual, SubmitError::BadKind),
        (TRIES, &long_key, small.clone(), &usual, SubmitError::BadKey),
        (TRIES, b"key", vec![0; len].into(), &usual, SubmitError::PayloadTooLarge { len }),
        (TRIES, b"key", small.clone(), &no_life, SubmitError::BadLife),
        (TRIES, b"key", small, &long_life, SubmitError::BadLife),
    ];
    for (kind, key, payload, options, expected) in tries {
        let begun = act.world.elapsed();
        let answer = node.submit(kind, key, payload, options.clone()).await;
        let right = matches!(&answer, Err(Error::Submit(error)) if *error == expected);
        if !right || act.world.elapsed() > begun + ROUND_TRIP {
            return Err(Violation::safety(REFUSED, format!("{answer:?}, not {expected:?}")));
        }
    }
    let after = act.cluster.metric(act.from, "job.submitted").await;
    if after != before {
        return Err(Violation::safety(REFUSED, format!("{} of them were taken", after - before)));
    }
    Ok(())
}

/// Each note that arrives is the latest before its beat, and one arrives with each beat.
async fn progress(act: &Act<'_>) -> Result<(), Violation> {
    let name = "says how far it is";
    act.script.set(name, Course::Say(SAYS_FOR));
    let job = Submitted::new(act.world, act.from, TRIES, name, SubmitOptions::default()).await;
    let end = job.end(act.world, HEARD, SAYS_FOR + BEAT + ROUND_TRIP).await?;
    let broken = |seen: String| Err(Violation::safety(HEARD, seen));
    if end.outcome != Ok(secret(name)) {
        return broken(format!("{name} came back as {:?}", end.outcome));
    }
    let run = act.script.runs(name)[0].clone();
    let mut last = run.began;
    for (at, note) in &end.notes {
        let Some((number, _)) = note.split_first_chunk::<8>().filter(|_| note.len() == NOTE_BYTES) else {
            return broken(format!("a note has {} bytes", note.len()));
        };
        let number = u64::from_be_bytes(*number);
        let Some(made) = act.script.made(name, number) else {
            return broken(format!("note {number} was never made"));
        };
        // The next one was made so much later, and wasn't sent instead.
        if *at - made > SAYS_EVERY + ROUND_TRIP {
            return broken(format!("note {number} came {:?} after it was made", *at - made));
        }
        if *at - last > BEAT + SAYS_EVERY + ROUND_TRIP {
            return broken(format!("{:?} passed without a word before note {number}", *at - last));
        }
        last = *at;
    }
    let over = run.ended.unwrap_or(run.began);
    if over.saturating_sub(last) > BEAT + SAYS_EVERY + ROUND_TRIP {
        return broken(format!("{:?} passed without a word before the end", over.saturating_sub(last)));
    }
    // A beat each second, and one more for the second that has begun.
    match end.notes.len() as u64 {
        count if count <= SAYS_FOR.as_secs() + 1 => Ok(()),
        count => broken(format!("{count} notes in {SAYS_FOR:?}")),
    }
}

/// Nobody waits for a task, runs one, or keeps the bytes of an outcome that was acknowledged.
async fn nothing_left(cluster: &Cluster) -> Result<(), Violation> {
    let deadline = Deadline::new(cluster.world(), NOTHING_LEFT, TIDY);
    loop {
        let mut left = Vec::new();
        for peer in cluster.running() {
            for gauge in ["job.open", "job.executing", "job.running", "job.record_bytes", "pool.running"] {
                match cluster.metric(peer, gauge).await {
                    0 => {}
                    count => left.push(format!("{} has {gauge} {count}", peer.name)),
                }
            }
        }
        if !deadline.still_missing(left).await? {
            return Ok(());
        }
    }
}
