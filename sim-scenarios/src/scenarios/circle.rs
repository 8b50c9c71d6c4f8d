//! Views that send a job in a circle: it is forwarded four times at most, and runs as soon as they agree.
//!
//! Three nodes each hold the next one responsible, a fourth submits. Each host runs the pure core of jobs alone,
//! over datagrams, because membership would not let views differ for so long. Until the views agree, at a drawn
//! time, every attempt goes round until its hops are used up and is refused. So at every moment forwards are at
//! most [`MAX_HOPS`] times the attempts. Then each task runs and its handle resolves.
//!
//! Negative control: there must have been forwards, and attempts whose hops were used up.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use chaos::scenario::{Passed, RunResult, Scenario, Trial};
use chaos::world::{Host, World};
use nurl::PublicKey;
use nurl::internals::compute::job::options::MAX_HOPS;
use nurl::internals::compute::job::{
    Config, JobEvent, Jobs, KindLimits, Placement, SubmitOptions, Submitter, TaskId,
};
use nurl::rt::net::{RecvMeta, Transmit, UdpSocket};
use nurl::rt::{self, time};
use rand_core::Rng as _;

use crate::cluster::Deadline;
use crate::lock::lock;
use crate::stage::link_ms;

/// The scenario.
pub const SCENARIO: Scenario = Scenario::new(
    "circle",
    "views that differ send jobs in circles: four hops at most, and they run once views agree",
    |trial| Box::pin(run(trial)),
);

const PORT: u16 = 4000;
const KIND: &str = "work";

/// Number of jobs that the fourth node submits.
const JOBS: u8 = 24;

/// Number of nodes that may run them.
const WORKERS: u8 = 3;

/// The longest interval at which a node checks whether views should agree.
const TICK: Duration = Duration::from_millis(20);

/// Time to complete after views agree: the longest back-off, and a few attempts.
const COMPLETES: Duration = Duration::from_secs(30);

const HOPS: &str = "a submit is forwarded four times at most";
const COMPLETE: &str = "jobs complete once views agree";
const CIRCLES: &str = "views that differ send jobs in circles";

/// A node's view of the list of executors, which the scenario sets.
#[derive(Debug, Clone)]
struct FixedPlacement(Vec<PublicKey>);

impl Placement for FixedPlacement {
    fn has_kind(&self, _kind: &str) -> bool {
        true
    }

    fn executors(&self, _kind: &str, _key: &[u8]) -> Vec<PublicKey> {
        self.0.clone()
    }

    fn owners(&self, _key: &[u8], r: usize) -> Vec<PublicKey> {
        self.0.iter().copied().take(r).collect()
    }
}

/// The state that all nodes share: the counters of each, and the ends of the jobs.
#[derive(Debug, Default)]
struct CircleLog {
    forwarded: BTreeMap<u8, u64>,
    misrouted: BTreeMap<u8, u64>,
    attempts: u64,
    ends: BTreeMap<TaskId, bool>,
    /// By job: the nodes that ran it, in order.
    ran: BTreeMap<u8, Vec<u8>>,
}

type SharedLog = Arc<Mutex<CircleLog>>;

/// The key of a node; key and address contain its number.
fn key(number: u8) -> PublicKey {
    PublicKey::from_bytes([number; 32])
}

fn addr(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], PORT))
}

fn workers() -> Vec<PublicKey> {
    (1..=WORKERS).map(key).collect()
}

/// Runs a circle until the views agree.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    world.link_default(link_ms(5, 10));
    let agree = Duration::from_millis(2_000 + world.rng("agreement").next_u64() % 6_000);
    let log = SharedLog::default();
    for number in 1..=WORKERS + 1 {
        let host = world.host(&format!("node {number}")).addr(&addr(number).ip().to_string());
        start_node(world, host, number, agree, log.clone());
    }
    world.sleep(agree.saturating_sub(world.elapsed())).await;
    let circled = lock(&log).misrouted.values().sum::<u64>();
    if circled == 0 {
        return Err(Violation::safety(CIRCLES, "no hops were used up"));
    }
    let deadline = Deadline::new(world, COMPLETE, COMPLETES);
    while deadline.still_missing(unfinished_jobs(&log)).await? {}
    let counts = lock(&log);
    let forwarded: u64 = counts.forwarded.values().sum();
    let notes = format!("{forwarded} forwards of {} attempts, {circled} in vain\n", counts.attempts);
    let mut state = String::new();
    for (job, by) in &counts.ran {
        let by: Vec<_> = by.iter().map(|number| format!("node {number}")).collect();
        state += &format!("job {job:02} ran at {}\n", by.join(", then "));
    }
    Ok(Passed { state, notes })
}

/// The jobs without a result.
fn unfinished_jobs(log: &SharedLog) -> Vec<String> {
    let done = lock(log).ends.values().filter(|ok| **ok).count();
    (done..usize::from(JOBS)).map(|number| format!("job {number}")).collect()
}

fn start_node(world: World, host: Host, number: u8, agree: Duration, log: SharedLog) {
    host.run(async move {
        let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], PORT))).await.expect("the port is free");
        let now = time::now();
        let mut jobs = Jobs::new(Config::default(), key(number), u64::from(number), now, rt::rng("jobs"));
        let is_worker = number <= WORKERS;
        if is_worker {
            jobs.register(KIND, KindLimits::default());
        }
        // Each worker names the next one, and the submitter the first.
        let next = if is_worker { number % WORKERS + 1 } else { 1 };
        jobs.set_placement(now, Arc::new(FixedPlacement(vec![key(next)])));
        jobs.on_view_complete(now);
        if !is_worker {
            for job in 0..JOBS {
                let body = Bytes::from(vec![job]);
                jobs.submit(now, KIND, &[job], body, SubmitOptions::default()).expect("there is room");
            }
        }
        let mut agreed = false;
        loop {
            run_and_send(&mut jobs, &socket, number, &log);
            let due = jobs.poll_timeout().map_or(TICK, |at| at.saturating_duration_since(time::now()));
            if let Ok((from, body)) = time::timeout(due.min(TICK), receive(&socket)).await {
                jobs.handle_message(time::now(), Submitter::new(from, None), body);
            }
            let now = time::now();
            if !agreed && world.elapsed() >= agree {
                agreed = true;
                jobs.set_placement(now, Arc::new(FixedPlacement(workers())));
            }
            jobs.handle_timeout(now);
        }
    });
}

/// Runs the due jobs, sends the queued messages, and checks the bound.
fn run_and_send(jobs: &mut Jobs, socket: &UdpSocket, number: u8, log: &SharedLog) {
    while let Some(counter) = jobs.poll_persist() {
        jobs.on_persisted(counter);
    }
    while let Some(run) = jobs.poll_run(time::now()) {
        lock(log).ran.entry(run.payload[0]).or_default().push(number);
        jobs.finished(time::now(), run.id, Ok(run.payload));
    }
    while let Some((to, contents)) = jobs.poll_transmit() {
        let destination = addr(to.as_bytes()[0]);
        let transmit = Transmit { destination, contents: &contents, segment_size: None, src_ip: None };
        socket.try_send(&transmit).expect("a message of a small job fits a datagram");
    }
    let mut counts = lock(log);
    while let Some(event) = jobs.poll_event() {
        if let JobEvent::Done { task, outcome, .. } = event {
            counts.ends.insert(task, outcome.is_ok());
        }
    }
    let stats = jobs.stats();
    counts.forwarded.insert(number, stats.forwarded);
    counts.misrouted.insert(number, stats.misrouted);
    counts.attempts = counts.attempts.max(stats.attempts);
    let forwarded: u64 = counts.forwarded.values().sum();
    let bound = counts.attempts * u64::from(MAX_HOPS);
    if forwarded > bound {
        let what = format!("{forwarded} forwards of {} attempts", counts.attempts);
        chaos::property::fail(Violation::safety(HOPS, what));
    }
}

async fn receive(socket: &UdpSocket) -> (PublicKey, Bytes) {
    let mut buffer = vec![0; 2048];
    let mut meta = [RecvMeta::default()];
    socket.recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta).await.expect("the socket is open");
    buffer.truncate(meta[0].len);
    let std::net::IpAddr::V4(from) = meta[0].addr.ip() else { unreachable!("all addresses here are v4") };
    (key(from.octets()[3]), Bytes::from(buffer))
}
