//! The answers between a submitter and an executor that no honest pair gives each other by chance.
//!
//! Three workers, a hub and a member, and two [insiders](crate::insider).
//!
//! **An id twice.** The first one submits a task under an id that it uses again: while the task runs, when it has ended, and
//! when its outcome is acknowledged; with the same content, and with another. The same content is one run, whose outcome is
//! told as long as it is there, by each owner, and whose hash is told then. Another content is a conflict. When the task's
//! life and ten minutes are over, the id is free.
//!
//! **A worker that refuses.** The second one advertises a kind that nobody else has, and refuses what it is sent, for each
//! reason that there is. The member waits, asks again, or ends the task, as the protocol says.
//!
//! Negative control: a task of the first one is run, so its bytes are right; and so are those of the second, which is asked.

use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use chaos::scenario::{Passed, RunResult, Scenario, Trial};
use chaos::world::World;
use minicbor::Decoder;
use nurl::internals::compute::job::{JobError, SubmitOptions, outcome_hash};
use nurl::internals::membership::State;
use nurl::internals::node::Role;
use nurl::internals::transport::{channel, kind};
use nurl::rt::task;
use nurl::{PublicKey, SecretKey};

use crate::cluster::{Cluster, Deadline, Peer, secret};
use crate::insider::{Inlet, Insider, wire};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    time_limit: Duration::from_secs(20 * 60),
    ..Scenario::new(
        "refusals",
        "an id is used twice, and a worker refuses for each reason: the answers and the ends are those of the protocol",
        |trial| Box::pin(run(trial)),
    )
};

const WORKERS: usize = 3;
const MEET: Duration = Duration::from_secs(60);

/// There and back, over a hub.
const ROUND_TRIP: Duration = Duration::from_millis(200);

/// The handler of all workers runs for a second.
const SLOW: &str = "slow";
const RUNS: Duration = Duration::from_secs(1);

/// The life that the insider's tasks have, and how much longer a record is kept.
const LIFE: Duration = Duration::from_secs(60);
const KEPT: Duration = Duration::from_secs(600);
/// Records that end within so long of each other end together.
const TOGETHER: Duration = Duration::from_secs(2);

/// The kind of the worker that refuses.
const PHANTOM: &str = "phantom";

/// How long a worker that is busy says to wait.
const BUSY: Duration = Duration::from_millis(400);

/// How long a submitter waits for an answer.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(1);

const ONE_RUN: &str = "a task that is submitted twice is run once, and each submit has its answer";
const CONFLICT: &str = "an id that is used with another content is a conflict";
const SETTLED: &str =
    "an outcome that was acknowledged is told by its hash alone, until ten minutes after the task's life";
const FREE: &str = "ten minutes after the life of its task an id is free";
const KNOWN: &str = "the member knows the worker that refuses";
const ENDS: &str = "a task that is refused ends as the protocol says";
const AGAIN: &str = "a task that is refused is asked again when the protocol says, and as it says";

/// Types of messages.
const SUBMIT: u8 = 1;
const ACCEPTED: u8 = 2;
const REFUSED: u8 = 5;
const OUTCOME: u8 = 6;
const ACK: u8 = 8;
const FETCH: u8 = 9;

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let stage = Stage::new(world).links(link_ms(15, 5)).hub("hub").workers(WORKERS).member("member");
    let cluster = stage.meet(MEET).await?;
    let key = SecretKey::generate(&mut world.rng("eve"));
    let standing = cluster.credential(&key.public(), Role::Observer);
    let eve = Insider::with_credential(world, &cluster, "eve", (key, standing), &cluster.ticket);
    eve.meet(&cluster, MEET).await?;
    twice(world, &cluster, &eve).await?;
    // A worker that advertises itself owns keys, so it comes afterwards.
    refuses(world, &cluster).await?;
    let state = "an id was one task until its time was over; each refusal had its consequence\n".to_owned();
    Ok(Passed { state, notes: String::new() })
}

// ---- An id twice.

async fn twice(world: World, cluster: &Cluster, eve: &Insider) -> Result<(), Violation> {
    let (id, same, other) = ([0xe1; 16], secret("eve's"), secret("eve's other"));
    let (first, second) = (&cluster.peers[0], &cluster.peers[1]);
    let ask = |to: &Peer, payload: &Bytes| {
        eve.take_received();
        eve.send_message(to.key, kind::JOB, wire::submit(id, eve.key, 0, SLOW, b"key", payload));
    };
    let begun = world.elapsed();
    let (run, told) = ((ACCEPTED, 0), (OUTCOME, 0));
    let hash = outcome_hash(&Ok(same.clone()));
    ask(first, &same);
    answered(world, eve, first, ONE_RUN, run).await?;
    ask(first, &same);
    answered(world, eve, first, ONE_RUN, run).await?;
    ask(first, &other);
    answered(world, eve, first, CONFLICT, (REFUSED, 5)).await?;
    world.sleep(RUNS + ROUND_TRIP).await;
    for worker in [first, second] {
        ask(worker, &same);
        answered(world, eve, worker, ONE_RUN, told).await?;
        ask(worker, &other);
        answered(world, eve, worker, CONFLICT, (REFUSED, 5)).await?;
    }
    for worker in &cluster.peers[..WORKERS] {
        let ack = wire::job(ACK, |e| e.array(2)?.bytes(&id)?.bytes(&hash)?.ok(), &[]);
        eve.send_message(worker.key, kind::JOB, ack);
    }
    world.sleep(ROUND_TRIP).await;
    let settled = |when: &str, told: Option<Vec<u8>>| match told {
        Some(told) if told == hash => Ok(()),
        other => Err(Violation::safety(SETTLED, format!("{when} the hash is {other:?}"))),
    };
    for worker in [first, second] {
        ask(worker, &same);
        settled("at once", answered(world, eve, worker, SETTLED, (REFUSED, 6)).await?)?;
        ask(worker, &other);
        answered(world, eve, worker, CONFLICT, (REFUSED, 5)).await?;
    }
    // The end of the record is that of the life that the executor was told, whose clock began when the task came.
    world.sleep(begun + LIFE + KEPT - Duration::from_secs(1) - world.elapsed()).await;
    ask(first, &same);
    settled("just before the end", answered(world, eve, first, SETTLED, (REFUSED, 6)).await?)?;
    world.sleep(TOGETHER + Duration::from_secs(1)).await;
    ask(first, &other);
    answered(world, eve, first, FREE, run).await?;
    world.sleep(RUNS + ROUND_TRIP).await;
    let ran = cluster.witness.runs_per_job();
    let counts = [ran.get("eve's"), ran.get("eve's other")];
    if counts != [Some(&1), Some(&1)] {
        return Err(Violation::safety(
            ONE_RUN,
            format!("the one ran {:?} times, the other {:?}", counts[0], counts[1]),
        ));
    }
    Ok(())
}

/// A node's answer, of this type, and as a refusal with this code: its hash, if it has one.
async fn answered(
    world: World,
    eve: &Insider,
    by: &Peer,
    property: &'static str,
    (type_, code): (u8, u8),
) -> Result<Option<Vec<u8>>, Violation> {
    world.sleep(ROUND_TRIP).await;
    let answers: Vec<_> = jobs(eve).filter(|(from, of)| *from == by.key && of.type_ != 3).collect();
    let right = |of: &Message| of.type_ == type_ && (type_ != REFUSED || of.code == Some(code));
    match answers.iter().find(|(_, of)| right(of)) {
        Some((_, of)) => Ok(of.hash.clone()),
        None => Err(Violation::safety(property, format!("{} answered with {answers:?}", by.name))),
    }
}

// ---- A worker that refuses.

/// What the worker does with the n-th submit of a task, from 0: the code of its refusal.
type Script = fn(usize) -> u8;

async fn refuses(world: World, cluster: &Cluster) -> Result<(), Violation> {
    let (member, mallory) = (&cluster.peers[WORKERS], Insider::start(world, cluster, "mallory"));
    mallory.meet(cluster, MEET).await?;
    let alive = wire::gossip(0, vec![wire::worker_of(mallory.key, &mallory.signer(), 1, PHANTOM)]);
    mallory.answer_pings(Some(alive.clone()));
    for peer in &cluster.peers {
        mallory.send(peer.key, channel::MEMBERSHIP, alive.encode());
    }
    let deadline = Deadline::new(world, KNOWN, MEET);
    loop {
        let state = cluster.view(member).await.get(&mallory.key).copied();
        let missing = if state == Some(State::Alive) { Vec::new() } else { vec![format!("{state:?}")] };
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    let unknown = Err(JobError::UnknownKind(PHANTOM.to_owned()));
    let letter = Err(JobError::DeadLetter { failures: 3, last: "the handler failed: no disk".to_owned() });
    let cases: [(&str, Script, Result<Bytes, JobError>, usize); 7] = [
        ("unknown kind", |_| 2, unknown.clone(), 1),
        ("conflict", |_| 5, Err(JobError::Conflict), 1),
        ("settled", |_| 6, Err(JobError::Settled { hash: [6; 32] }), 1),
        ("failed", |_| 7, letter, 3),
        ("misrouted, and unknown here", |n| [3, 8, 2][n.min(2)], unknown.clone(), 3),
        ("busy", |n| if n < 4 { 1 } else { 2 }, unknown.clone(), 5),
        ("elsewhere", |n| if n == 0 { 4 } else { 2 }, unknown, 2),
    ];
    for (name, script, expected, asked) in cases {
        case(world, member, &mallory, (name, script), (expected, asked)).await?;
    }
    Ok(())
}

async fn case(
    world: World,
    member: &Peer,
    mallory: &Insider,
    (name, script): (&str, Script),
    (expected, asked): (Result<Bytes, JobError>, usize),
) -> Result<(), Violation> {
    mallory.take_received();
    let options = SubmitOptions { max_failures: 3, ..SubmitOptions::default() };
    let node = member.node(&world).await;
    let task = node.submit(PHANTOM, name.as_bytes(), secret(name), options).await.expect("there is room");
    let end = task::spawn(task.outcome());
    let (mut submits, mut fetches) = (Vec::new(), 0);
    let deadline = Deadline::new(world, ENDS, Duration::from_secs(10));
    while !end.is_finished() {
        for (from, message) in jobs(mallory).filter(|(from, _)| *from == member.key) {
            match message.type_ {
                SUBMIT => {
                    let refusal = refusal(&message, script(submits.len()), mallory.key);
                    mallory.send_message(from, kind::JOB, refusal);
                    submits.push((world.elapsed(), message.force));
                }
                // Whoever is said to run it doesn't answer.
                FETCH => fetches += 1,
                _ => {}
            }
        }
        if deadline.waited() > Duration::from_secs(9) {
            deadline
                .still_missing(vec![format!("the end of {name}, after {} submits", submits.len())])
                .await?;
        }
        world.sleep(Duration::from_millis(5)).await;
    }
    let outcome = end.await.expect("it has no reason to panic");
    if outcome != expected || submits.len() != asked {
        let seen = format!("{name}: {outcome:?} after {} submits, not {asked}", submits.len());
        return Err(Violation::safety(ENDS, seen));
    }
    let elsewhere = name == "elsewhere";
    for (number, pair) in submits.windows(2).enumerate() {
        // The back-off doubles as long as no executor accepts, and a busy one's word counts instead, three times.
        let back_off = Duration::from_millis(200 << number);
        let (least, most) = match name {
            "busy" if number < 3 => (BUSY, BUSY * 2),
            "busy" => (Duration::ZERO, Duration::from_millis(200)),
            "elsewhere" => (ACCEPTED_WITHIN, ACCEPTED_WITHIN + back_off),
            _ => (Duration::ZERO, back_off),
        };
        let gap = pair[1].0 - pair[0].0;
        let forced = pair[1].1;
        if gap < least || gap > most + ROUND_TRIP || forced != elsewhere {
            let seen =
                format!("{name}: submit {} came {gap:?} after the one before, forced: {forced}", number + 1);
            return Err(Violation::safety(AGAIN, seen));
        }
    }
    if fetches != usize::from(elsewhere) {
        return Err(Violation::safety(AGAIN, format!("{name}: it asked {fetches} times for the outcome")));
    }
    Ok(())
}

/// The answer to a submit.
fn refusal(to: &Message, code: u8, runner: PublicKey) -> Bytes {
    let header = |e: &mut wire::Writer<'_>| {
        let wait_ms = if code == 1 { BUSY.as_millis() as u64 } else { 0 };
        e.array(7)?.bytes(&to.task)?.u32(to.attempt)?.u8(code)?.u64(wait_ms)?;
        if code == 4 {
            e.bytes(runner.as_bytes())?
        } else {
            e.null()?
        };
        if code == 6 {
            e.bytes(&[6; 32])?
        } else {
            e.null()?
        };
        // A retriable failure.
        if code == 7 {
            e.array(3)?.u8(2)?.str("no disk")?.u64(0)?
        } else {
            e.null()?
        };
        Ok(())
    };
    wire::job(REFUSED, header, &[])
}

// ---- Messages.

/// What counts of a message here.
#[derive(Debug)]
struct Message {
    type_: u8,
    task: Vec<u8>,
    attempt: u32,
    /// A refusal's.
    code: Option<u8>,
    hash: Option<Vec<u8>>,
    /// A submit's.
    force: bool,
}

/// The job messages that an insider received since the last look.
fn jobs(insider: &Insider) -> impl Iterator<Item = (PublicKey, Message)> + use<> {
    let received = insider.take_received().into_iter().filter(|of| of.by == Inlet::Message(kind::JOB));
    received.filter_map(|of| Some((of.from, decode(&of.body)?)))
}

fn decode(body: &[u8]) -> Option<Message> {
    let type_ = *body.first()?;
    let mut header = Decoder::new(body.get(3..)?);
    header.array().ok()?;
    // Beats begin with a boot, and aren't looked at.
    let task = header.bytes().map(<[u8]>::to_vec).unwrap_or_default();
    let mut message = Message { type_, task, attempt: 0, code: None, hash: None, force: false };
    if matches!(type_, SUBMIT | ACCEPTED | REFUSED | OUTCOME | FETCH) {
        message.attempt = header.u32().ok()?;
    }
    if type_ == REFUSED {
        message.code = Some(header.u8().ok()?);
        // The time to wait and the runner. Absent fields at the end are left out.
        let _ = (header.skip(), header.skip());
        message.hash = header.bytes().ok().map(<[u8]>::to_vec);
    }
    if type_ == SUBMIT {
        // Reach, hops, submitter, kind, key, priority, life, ask.
        (0..8).try_for_each(|_| header.skip()).ok()?;
        message.force = header.bool().ok()?;
    }
    Some(message)
}
