//! Files of a few MiB go to a handler and come back, whatever happens on the way.
//!
//! Three workers with disks and an observer, on lossy links of 8 Mbit/s. A file takes seconds, there and back. Meanwhile,
//! in a drawn order: nothing; the worker that fetches the file roams; the submitter's link is cut for a while; the worker
//! crashes or loses its power, and is back with its disk. Each
//! result has the hash of the file, and small jobs are done in time beside the large ones. A worker that crashed goes on
//! with what it has: it fetches no chunk again that it had written.
//!
//! An insider that wasn't given the task asks for the chunks of the payload and of the result, with the task's id: it gets
//! none. Another insider, which says that it is a worker, takes tasks and promises results whose chunks are others: the
//! submitter believes none of them, asks a bounded number of times, and ends with an error.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use chaos::link::{Bandwidth, LinkConfig, Rate};
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use minicbor::Decoder;
use nurl::internals::compute::blob::message::{FileId, Message, Side};
use nurl::internals::compute::blob::{Envelope, MAX_WRONG, Manifest};
use nurl::internals::compute::handlers::{ECHO, run_large};
use nurl::internals::compute::job::{JobError, KindLimits, Record, SubmitOptions};
use nurl::internals::compute::pool::Content;
use nurl::internals::membership::State;
use nurl::internals::node::{LargeStats, Payload, Role, Task};
use nurl::internals::ring::Epoch;
use nurl::internals::transport::{channel, kind};
use nurl::rt::{disk, task, time};
use rand_core::Rng as _;

use crate::cluster::{Cluster, Deadline, Jobs, MARKER, Peer};
use crate::insider::{Inlet, Insider, wire};
use crate::models::nat_box::presets;
use crate::stage::{Stage, link_ms, with_store};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a restarted worker went on with what it had of a file"),
        Mark::new("a worker roamed while it fetched a file"),
    ],
    time_limit: Duration::from_secs(15 * 60),
    ..Scenario::new(
        "large",
        "files go to workers and back in chunks: lost links, restarts and liars change neither their bytes nor their cost",
        |trial| Box::pin(run(trial)),
    )
};

const WORKERS: usize = 3;

/// A file's length: 40 chunks, the last one short.
const LEN: usize = 40 * (64 << 10) - 1_000;

/// The kind that every worker has; the one that only the first has; the one that only the insider has.
const COPY: &str = "copy";
const LONE: &str = "lone";
const PHANTOM: &str = "phantom";

const MEET: Duration = Duration::from_secs(60);
const LEARN: Duration = Duration::from_secs(90);

/// A file is there and back within this: eight seconds on the links, the longest fault, and what it takes to notice it
/// and to begin again.
const DONE: Duration = Duration::from_secs(200);

/// Bytes that may have come and not been written: a write takes less than the next chunk.
const UNWRITTEN: u64 = 4 * (64 << 10);

/// A small job beside a large one.
const SMALL: Duration = Duration::from_secs(20);

const SAME: &str = "a large result has the bytes of its file";
const ONCE: &str = "a restarted worker fetches no chunk again that it has";
const KEPT: &str = "a node without the task reads no chunk of its files";
const LIAR: &str = "a result with other bytes than promised is not taken, and not asked for for ever";
const KNOWN: &str = "the insider is known as a worker";
const BESIDE: &str = "small jobs are done beside large ones";

/// What happens while a file is on its way.
#[derive(Debug, Clone, Copy)]
enum Act {
    Nothing,
    Roam,
    Cut,
    Restart,
}

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let bandwidth = Bandwidth { bytes_per_second: 1 << 20, queue_bytes: 128 << 10 };
    let link = LinkConfig { udp_loss: Rate::percent(1), bandwidth: Some(bandwidth), ..link_ms(15, 5) };
    let stage = Stage::new(world).links(link).hub("hub").workers(WORKERS);
    let home = stage.nat("home", presets::home_router());
    let stage = stage.observer("observer").configure(|builder, setup| {
        let builder = with_store(builder, "/node");
        if setup.role != Role::Worker {
            return builder;
        }
        let kinds = if setup.number == 0 { [COPY, LONE].as_slice() } else { &[COPY] };
        kinds.iter().fold(builder, |builder, kind| {
            let copy = |context, file| async move { run_large(ECHO, &context, file).await };
            builder.large_handler(kind, KindLimits::default(), copy)
        })
    });
    let mut cluster = stage.meet(MEET).await?;
    let mut draws = world.rng("large");
    let mut acts = vec![Act::Nothing, Act::Roam, Act::Cut, Act::Restart];
    while let Some(left) = acts.len().checked_sub(1) {
        let act = acts.swap_remove(draws.next_u32() as usize % (left + 1));
        let file = format!("/file {act:?}");
        one(&mut cluster, act, &file, &mut draws, home).await?;
        cluster.converge(LEARN).await?;
    }
    spies(&cluster).await?;
    lies(&cluster).await?;
    cluster.inspect().await?;
    let state =
        "every file came back as it was; nobody read another's, and no liar was believed\n".to_owned();
    Ok(Passed { state, notes: String::new() })
}

/// A file's bytes: each chunk is another, and no part is to be seen in the clear.
fn content(name: &str) -> Vec<u8> {
    let line = |number: usize| [MARKER, format!("{name} {number:06}\n").as_bytes()].concat();
    let mut bytes: Vec<u8> = (0..).flat_map(line).take(LEN).collect();
    bytes.truncate(LEN);
    bytes
}

/// Writes a file on a peer's disk, and submits it.
async fn submit(world: World, from: &Peer, kind: &str, file: &str) -> Task {
    let node = from.node(&world).await;
    let (kind, file) = (kind.to_owned(), file.to_owned());
    let submitted = from.host.run(async move {
        disk::create_new_private(Path::new(&file), &content(&file)).expect("there is room on the disk");
        let options = SubmitOptions { life: DONE, ..SubmitOptions::default() };
        node.submit_large(&kind, file.as_bytes(), Payload::File(file.clone().into()), options).await
    });
    submitted.await.expect("the observer runs").expect("there is room for it")
}

/// Whether a task's result is a file with these bytes; what it is otherwise.
async fn result(from: &Peer, task: Task, expected: Vec<u8>) -> Result<(), String> {
    let ended = from.host.run(async move {
        match task.content().await {
            Ok(Content::File(file)) => {
                let bytes = disk::read(&file.path(), 2 * LEN as u64).map_err(|error| error.to_string())?;
                if bytes == expected { Ok(()) } else { Err(format!("{} other bytes", bytes.len())) }
            }
            other => Err(format!("{other:?}")),
        }
    });
    let ended = time::timeout(DONE + Duration::from_secs(10), ended).await;
    ended.map_err(|_| "no end".to_owned())?.expect("the observer runs")
}

async fn stats(world: World, peer: &Peer) -> Option<std::sync::Arc<LargeStats>> {
    Some(peer.node(&world).await.work_stats().await.ok()?.large)
}

async fn received(world: World, peer: &Peer) -> u64 {
    stats(world, peer).await.map_or(0, |stats| stats.received_bytes.get())
}

/// Waits until a worker has got a part of a file.
async fn fetching(cluster: &Cluster, before: &[u64], part: u64) -> Result<Peer, Violation> {
    let world = cluster.world();
    let deadline = Deadline::new(world, SAME, DONE);
    loop {
        for (worker, before) in cluster.peers[..WORKERS].iter().zip(before) {
            if received(world, worker).await >= before + part {
                return Ok(worker.clone());
            }
        }
        world.sleep(Duration::from_millis(20)).await;
        if deadline.waited() > DONE / 2 {
            deadline.still_missing(vec!["a worker that fetches the file".to_owned()]).await?;
        }
    }
}

async fn one(
    cluster: &mut Cluster,
    act: Act,
    file: &str,
    draws: &mut nurl::rt::Rng,
    home: chaos::net::Net,
) -> Result<(), Violation> {
    let world = cluster.world();
    let observer = cluster.peers[WORKERS].clone();
    let mut before = Vec::new();
    for worker in &cluster.peers[..WORKERS] {
        before.push(received(world, worker).await);
    }
    let kind = if matches!(act, Act::Restart) { LONE } else { COPY };
    let task = submit(world, &observer, kind, file).await;
    let (part, pause) = (u64::from(draws.next_u32()) % (LEN as u64 / 2), u64::from(draws.next_u32() % 20));
    let worker = fetching(cluster, &before, 1 + part).await?;
    match act {
        Act::Nothing => {
            let mut small = Jobs::new(cluster);
            for number in 0..8 {
                small.submit(&observer, "slow", &format!("beside {file} {number}")).await?;
            }
            small.settle(SMALL).await.map_err(|broken| Violation::liveness(BESIDE, format!("{broken:?}")))?;
        }
        Act::Roam => {
            cluster.roam(&worker, home);
            sometimes!(true, "a worker roamed while it fetched a file");
        }
        Act::Cut => {
            observer.host.set_nic_up("eth0", false);
            world.sleep(Duration::from_secs(pause)).await;
            observer.host.set_nic_up("eth0", true);
        }
        Act::Restart => {
            let had = received(world, &worker).await;
            let crash = pause % 3 > 0;
            if crash {
                worker.host.crash();
                world.sleep(Duration::from_secs(1)).await;
            } else {
                worker.host.power_loss();
            }
            worker.host.restart();
            let deadline = Deadline::new(world, ONCE, DONE);
            let counted = loop {
                let stats = stats(world, &worker).await;
                let counted =
                    stats.map_or((0, 0), |stats| (stats.found_bytes.get(), stats.received_bytes.get()));
                if counted.0 + counted.1 >= LEN as u64 {
                    break counted;
                }
                deadline.still_missing(vec![format!("the file at the worker: {counted:?}")]).await?;
            };
            let (found, came) = counted;
            sometimes!(found > 0, "a restarted worker went on with what it had of a file");
            // Without a loss of power the disk has what was written; the last chunks may have come and not been written.
            let least = had.saturating_sub(before[0] + UNWRITTEN);
            if found + came > LEN as u64 || (crash && found < least) {
                let seen = format!("{found} bytes found, {came} fetched, of {LEN}; {had} had come before");
                return Err(Violation::safety(ONCE, seen));
            }
        }
    }
    let got = result(&observer, task, content(file)).await;
    got.map_err(|other| Violation::safety(SAME, format!("{act:?}: {other}")))
}

// ---- A member without the task.

/// An insider knows the id of a task, and asks the submitter and the workers for the task's files.
async fn spies(cluster: &Cluster) -> Result<(), Violation> {
    let world = cluster.world();
    let (observer, eve) = (cluster.peers[WORKERS].clone(), Insider::start(world, cluster, "eve"));
    eve.meet(cluster, MEET).await?;
    let task = submit(world, &observer, COPY, "/file of a spied task").await;
    let id = task.id();
    let end = {
        let (host, node) = (observer.host, observer.node(&world).await);
        host.run(async move {
            let ended = task.content().await;
            drop(node);
            ended.is_ok()
        })
    };
    while !end.is_finished() {
        for peer in &cluster.peers {
            for side in [Side::Payload, Side::Result] {
                let get = Message::Get { file: FileId { task: id, side }, indexes: vec![0, 1] };
                eve.send_message(peer.key, kind::LARGE_FILE, get.encode());
                let done = Message::Done { file: FileId { task: id, side } };
                eve.send_message(peer.key, kind::LARGE_FILE, done.encode());
            }
        }
        world.sleep(Duration::from_millis(500)).await;
    }
    let mut refused = 0;
    for of in eve.take_received().into_iter().filter(|of| of.by == Inlet::Message(kind::LARGE_FILE)) {
        match Message::decode(&of.body) {
            Ok(Message::Refused { .. }) => refused += 1,
            Ok(Message::Chunk { file, index, .. }) => {
                return Err(Violation::safety(KEPT, format!("chunk {index} of {file:?}")));
            }
            other => return Err(Violation::safety(KEPT, format!("{other:?}"))),
        }
    }
    if refused == 0 {
        return Err(Violation::safety(KEPT, "the control failed: nobody answered the insider".to_owned()));
    }
    if !end.await.expect("the observer runs") {
        return Err(Violation::safety(SAME, "a spied task had no result".to_owned()));
    }
    Ok(())
}

// ---- A worker that lies.

const SUBMIT: u8 = 1;
const ACCEPTED: u8 = 2;
const OUTCOME: u8 = 6;

async fn lies(cluster: &Cluster) -> Result<(), Violation> {
    let world = cluster.world();
    let (observer, mallory) = (cluster.peers[WORKERS].clone(), Insider::start(world, cluster, "mallory"));
    mallory.meet(cluster, MEET).await?;
    let alive = wire::gossip(0, vec![wire::worker_of(mallory.key, &mallory.signer(), 1, PHANTOM)]);
    mallory.answer_pings(Some(alive.clone()));
    for peer in &cluster.peers {
        mallory.send(peer.key, channel::MEMBERSHIP, alive.encode());
    }
    let deadline = Deadline::new(world, KNOWN, MEET);
    loop {
        let state = cluster.view(&observer).await.get(&mallory.key).copied();
        let missing = if state == Some(State::Alive) { Vec::new() } else { vec![format!("{state:?}")] };
        if !deadline.still_missing(missing).await? {
            break;
        }
    }
    let node = observer.node(&world).await;
    let options = SubmitOptions { life: DONE, large: true, ..SubmitOptions::default() };
    let payload = Payload::Bytes(Bytes::from_static(MARKER));
    let task = node.submit_large(PHANTOM, b"key", payload, options).await.expect("there is room for it");
    let end = task::spawn(task.content());
    let bytes = content("promised");
    let manifest = Manifest::of(bytes.len() as u64, |buffer, offset| {
        let at = usize::try_from(offset).expect("a short file");
        buffer.copy_from_slice(&bytes[at..at + buffer.len()]);
        Ok(())
    });
    let promised = manifest.expect("memory can be read");
    let (mut asked, deadline) = (0, Deadline::new(world, LIAR, DONE));
    while !end.is_finished() {
        for of in mallory.take_received().into_iter().filter(|of| of.from == observer.key) {
            match of.by {
                Inlet::Message(kind::JOB) if of.body.first() == Some(&SUBMIT) => {
                    promise(&mallory, of.from, &of.body, &promised);
                }
                Inlet::Message(kind::LARGE_FILE) => asked += answer(&mallory, of.from, &of.body),
                _ => {}
            }
        }
        if deadline.waited() > DONE / 2 {
            deadline.still_missing(vec![format!("the end, after {asked} chunks")]).await?;
        }
        world.sleep(Duration::from_millis(5)).await;
    }
    let outcome = end.await.expect("it has no reason to panic");
    // Each wrong chunk is asked for again, and each of the first window may be wrong.
    let most = 2 * promised.count() + MAX_WRONG;
    if !matches!(&outcome, Err(JobError::Failed { .. })) || asked == 0 || asked > most {
        return Err(Violation::safety(LIAR, format!("{outcome:?} after {asked} chunks, {most} at most")));
    }
    Ok(())
}

/// Accepts a task, and says that its result is a file.
fn promise(mallory: &Insider, to: nurl::PublicKey, submit: &[u8], manifest: &Manifest) {
    let mut header = Decoder::new(&submit[3..]);
    let read = (|| {
        header.array()?;
        Ok::<_, minicbor::decode::Error>((header.bytes()?.to_vec(), header.u32()?))
    })();
    let Ok((task, attempt)) = read else { return };
    let token = Epoch { counter: 1, owner: mallory.key };
    let accepted =
        |e: &mut wire::Writer<'_>| e.array(4)?.bytes(&task)?.u32(attempt)?.u64(1)?.encode(token)?.ok();
    mallory.send_message(to, kind::JOB, wire::job(ACCEPTED, accepted, &[]));
    let result = Envelope::File(manifest.clone()).encode();
    let record = Record::new(Ok(result.clone()), token, mallory.key);
    let outcome = |e: &mut wire::Writer<'_>| e.array(3)?.bytes(&task)?.u32(attempt)?.encode(&record)?.ok();
    mallory.send_message(to, kind::JOB, wire::job(OUTCOME, outcome, &result));
}

/// Answers a request with other bytes than those promised; the number of chunks that it asks for.
fn answer(mallory: &Insider, to: nurl::PublicKey, request: &Bytes) -> u32 {
    let Ok(Message::Get { file, indexes }) = Message::decode(request) else { return 0 };
    for index in &indexes {
        let bytes = Bytes::from(content("another"));
        let at = (*index as usize * (64 << 10)).min(LEN - 1);
        let bytes = bytes.slice(at..LEN.min(at + (64 << 10)));
        let chunk = Message::Chunk { file, index: *index, bytes };
        mallory.send_message(to, kind::LARGE_FILE, chunk.encode());
    }
    u32::try_from(indexes.len()).unwrap_or(u32::MAX)
}
