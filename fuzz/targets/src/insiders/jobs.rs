//! Jobs: three workers, an honest submitter, and an insider that is no worker and speaks the whole protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use minicbor::Encoder;
use nurl::PublicKey;
use nurl::internals::compute::job::{
    Config, JobError, JobEvent, Jobs, KindLimits, MemberChange, Priority, RunId, SubmitOptions, Submitter,
    TaskId, outcome_hash,
};

use super::MAX_STEPS;
use crate::draw::Draw;
use crate::ground::{UNIX, key, millis, now, rng, secs};
use crate::parsers::cores::Order;

/// The nodes: workers 1 to 3, and the honest submitter.
const WORKERS: [u8; 3] = [1, 2, 3];
const CLIENT: u8 = 4;
const INSIDER: u8 = 5;

enum Happening {
    Arrives { from: PublicKey, to: PublicKey, body: Bytes },
    Lost { at: PublicKey, to: PublicKey },
    Ends { at: PublicKey, run: RunId, result: Result<Bytes, JobError> },
}

/// The nodes, and messages that take 10 ms.
pub(crate) struct Mesh {
    now: Instant,
    nodes: BTreeMap<PublicKey, Jobs>,
    queue: BTreeMap<(Instant, u64), Happening>,
    sequence: u64,
    done: Vec<(PublicKey, TaskId, Result<Bytes, JobError>)>,
    /// What the insider received.
    told: Vec<Bytes>,
    /// All messages between honest nodes, if they are recorded.
    log: Option<Vec<Bytes>>,
    /// How long a handler runs for the insider.
    hostile_run: Duration,
    /// The tasks that honest nodes submitted.
    submitted: BTreeSet<TaskId>,
    /// How often a handler was started for each honest task.
    runs: BTreeMap<TaskId, u32>,
}

impl Mesh {
    fn new() -> Mesh {
        let now = now();
        let node = |n: u8| {
            let mut jobs = Jobs::new(Config::default(), key(n), n.into(), now, rng(n.into()));
            if WORKERS.contains(&n) {
                jobs.register("work", KindLimits::default());
            }
            jobs.set_unix_now(UNIX);
            jobs.set_placement(now, Arc::new(Order(WORKERS.map(key).into())));
            jobs.on_view_complete(now);
            (key(n), jobs)
        };
        Mesh {
            now,
            nodes: (1..=CLIENT).map(node).collect(),
            queue: BTreeMap::new(),
            sequence: 0,
            done: Vec::new(),
            told: Vec::new(),
            log: None,
            hostile_run: millis(50),
            submitted: BTreeSet::new(),
            runs: BTreeMap::new(),
        }
    }

    fn at(&mut self, at: Instant, what: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), what);
    }

    fn submit(&mut self, from: u8, payload: &'static [u8]) -> TaskId {
        let now = self.now;
        let options =
            SubmitOptions { life: secs(120), priority: Priority::Normal, ..SubmitOptions::default() };
        let jobs = self.nodes.get_mut(&key(from)).expect("it is a node");
        let task = jobs.submit(now, "work", b"key", Bytes::from_static(payload), options);
        let task = task.expect("there is room for an honest task");
        self.submitted.insert(task);
        self.drain();
        task
    }

    /// A message of the insider.
    fn say(&mut self, to: u8, body: Bytes) {
        let now = self.now;
        self.nodes.get_mut(&key(to)).expect("it is a node").handle_message(
            now,
            Submitter::new(key(INSIDER), None),
            body,
        );
        self.drain();
    }

    fn drain(&mut self) {
        let names: Vec<PublicKey> = self.nodes.keys().copied().collect();
        for at in names {
            let mut turns = 0;
            loop {
                turns += 1;
                assert!(turns < 100_000, "a node spins");
                let now = self.now;
                let jobs = self.nodes.get_mut(&at).expect("it is a node");
                while let Some(counter) = jobs.poll_persist() {
                    jobs.on_persisted(counter);
                }
                if let Some((to, body)) = jobs.poll_transmit() {
                    self.transmit(at, to, body);
                } else if let Some(run) = jobs.poll_cancel() {
                    jobs.finished(now, run, Err(JobError::Cancelled));
                } else if let Some(run) = jobs.poll_run(now) {
                    let hostile = run.submitter.key() == key(INSIDER);
                    if !hostile {
                        assert!(
                            self.submitted.contains(&run.task),
                            "a task runs in the name of {:?}",
                            run.submitter.key()
                        );
                        *self.runs.entry(run.task).or_default() += 1;
                    }
                    let time = if hostile { self.hostile_run } else { millis(50) };
                    let result = Ok([&run.payload[..], b" is done"].concat().into());
                    self.at(now + time, Happening::Ends { at, run: run.id, result });
                } else if let Some(event) = jobs.poll_event() {
                    if let JobEvent::Done { task, outcome, .. } = event {
                        self.done.push((at, task, outcome));
                    }
                } else {
                    break;
                }
            }
        }
    }

    fn transmit(&mut self, from: PublicKey, to: PublicKey, body: Bytes) {
        if to == key(INSIDER) {
            self.told.push(body);
        } else if self.nodes.contains_key(&to) {
            if let Some(log) = &mut self.log {
                log.push(body.clone());
            }
            self.at(self.now + millis(10), Happening::Arrives { from, to, body });
        } else {
            // A key that the insider made up.
            self.at(self.now + secs(1), Happening::Lost { at: from, to });
        }
    }

    fn run_until(&mut self, time: Duration, done: impl Fn(&Mesh) -> bool) -> bool {
        let end = self.now + time;
        let mut turns = 0;
        self.drain();
        while !done(self) {
            turns += 1;
            assert!(turns < 200_000, "the mesh spins");
            let timer = self.nodes.values().filter_map(Jobs::poll_timeout).min();
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = timer.into_iter().chain(queued).min().filter(|next| *next <= end) else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            let now = self.now;
            while let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= now
            {
                let what = entry.remove();
                let node = |at: &PublicKey| match &what {
                    Happening::Arrives { to, .. } => *to == *at,
                    Happening::Lost { at: of, .. } | Happening::Ends { at: of, .. } => *of == *at,
                };
                let Some((_, jobs)) = self.nodes.iter_mut().find(|(at, _)| node(at)) else { continue };
                match what {
                    Happening::Arrives { from, body, .. } => {
                        jobs.handle_message(now, Submitter::new(from, None), body)
                    }
                    Happening::Lost { to, .. } => jobs.on_send_failed(now, to),
                    Happening::Ends { run, result, .. } => jobs.finished(now, run, result),
                }
                self.drain();
            }
            for jobs in self.nodes.values_mut() {
                if jobs.poll_timeout().is_some_and(|at| at <= now) {
                    jobs.handle_timeout(now);
                }
            }
            self.drain();
        }
        true
    }

    fn outcomes(&self, at: u8, task: TaskId) -> Vec<&Result<Bytes, JobError>> {
        self.done
            .iter()
            .filter(|(node, id, _)| *node == key(at) && *id == task)
            .map(|(.., outcome)| outcome)
            .collect()
    }

    /// The messages of tasks that run, are repeated elsewhere and are cancelled.
    pub(crate) fn recorded() -> Vec<Bytes> {
        let mut mesh = Mesh::new();
        mesh.log = Some(Vec::new());
        let task = mesh.submit(CLIENT, b"payload");
        mesh.run_until(secs(3), |_| false);
        let (now, options) = (mesh.now, SubmitOptions::default());
        let again = mesh.nodes.get_mut(&key(2)).expect("it is a node");
        let payload = Bytes::from_static(b"payload");
        again.submit_with_id(now, task, "work", b"key", payload, options).expect("there is room");
        let task = mesh.submit(CLIENT, b"another");
        mesh.run_until(millis(30), |_| false);
        mesh.nodes.get_mut(&key(CLIENT)).expect("it is a node").cancel(now, task);
        mesh.run_until(secs(3), |_| false);
        mesh.log.unwrap_or_default()
    }
}

/// One message of each type, as the insider writes them.
pub(crate) fn hostile_samples() -> Vec<Vec<u8>> {
    let known = Known { tasks: vec![TaskId::from_bytes([7; 16])] };
    let sample = |kind: u8| {
        let zeros = [kind - 1, 0, 0, 0, 0, 0];
        message(&mut Draw::new(&zeros), &known).to_vec()
    };
    [1, 3, 4, 5, 8, 9, 10, 11, 12, 14].map(sample).into()
}

/// What the insider knows of the honest ones: it saw the ids of tasks.
struct Known {
    tasks: Vec<TaskId>,
}

pub(super) fn programs() -> Vec<Vec<u8>> {
    super::plain_programs()
}

pub(super) fn run(bytes: &[u8]) -> bool {
    let mut draw = Draw::new(bytes);
    let mut mesh = Mesh::new();
    mesh.hostile_run = millis(draw.below(10_000) as u64);
    let first = mesh.submit(CLIENT, b"first");
    // The worst case: the insider knows the ids of honest tasks, as an owner of their key would.
    let mut known = Known { tasks: vec![first] };
    let mut honest = vec![(CLIENT, first, b"first is done")];
    for step in 0..MAX_STEPS {
        if !draw.more() {
            break;
        }
        match draw.u8() % 8 {
            0 => {
                let time = millis(draw.below(5_000) as u64);
                mesh.run_until(time, |_| false);
            }
            1 if honest.len() < 8 => {
                let at = draw.of(&[1, 2, 3, CLIENT]);
                let task = mesh.submit(at, b"other");
                known.tasks.push(task);
                honest.push((at, task, b"other is done"));
            }
            2 if !mesh.told.is_empty() => {
                // Something that it was told goes to somebody else.
                let body = draw.of(&mesh.told);
                mesh.say(draw.of(&[1, 2, 3, CLIENT]), body);
            }
            3 => {
                let change = draw.of(&[
                    MemberChange::Restarted,
                    MemberChange::Alive,
                    MemberChange::Dead,
                    MemberChange::Left,
                ]);
                let now = mesh.now;
                mesh.nodes.values_mut().for_each(|jobs| jobs.on_member(now, key(INSIDER), change));
                mesh.drain();
            }
            _ => {
                let body = message(&mut draw, &known);
                mesh.say(draw.of(&[1, 2, 3, CLIENT]), body);
            }
        }
        check_bounds(&mesh, step);
    }
    let last = mesh.submit(CLIENT, b"final");
    honest.push((CLIENT, last, b"final is done"));
    mesh.run_until(secs(125), |mesh| {
        honest.iter().all(|(at, task, _)| !mesh.outcomes(*at, *task).is_empty())
    });
    for (at, task, wanted) in &honest {
        let outcomes = mesh.outcomes(*at, *task);
        assert_eq!(outcomes.len(), 1, "a handle resolves once");
        assert_eq!(outcomes[0].as_deref(), Ok(&wanted[..]), "an honest task is done");
        // None, if the insider had submitted the very same task, whose run then counts for both.
        let runs = mesh.runs.get(task).copied().unwrap_or_default();
        assert!(runs <= 2, "a task runs again and again: {:?}", mesh.runs);
    }
    true
}

fn check_bounds(mesh: &Mesh, step: usize) {
    for jobs in mesh.nodes.values() {
        let gauges = jobs.gauges();
        // An operation adds one message, and the honest tasks are few.
        assert!(gauges.executing <= step + 16, "{gauges:?}");
        assert!(gauges.records <= step + 16, "{gauges:?}");
        assert!(gauges.open <= 16, "{gauges:?}");
        // 2^16 for each millisecond since 1970, and two days.
        let limit = (UNIX.as_millis() as u64 + 2 * 86_400_000 + 86_400_000) << 16;
        assert!(jobs.highest_epoch() <= limit, "{}", jobs.highest_epoch());
    }
}

type Writer<'a> = Encoder<&'a mut Vec<u8>>;
type Step = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// A message of any type. The layouts are in `docs/protocol.md`.
fn message(draw: &mut Draw<'_>, known: &Known) -> Bytes {
    let kind = draw.u8() % 16 + 1;
    let mut header = Vec::new();
    let mut body = Bytes::new();
    fields(kind, draw, known, &mut Encoder::new(&mut header), &mut body).expect("memory takes every byte");
    let len = (header.len() as u16).to_le_bytes();
    [&[kind][..], &len, &header, &body].concat().into()
}

fn task_of(draw: &mut Draw<'_>, known: &Known) -> TaskId {
    if draw.flag() { draw.of(&known.tasks) } else { TaskId::from_bytes([draw.u8() % 4; 16]) }
}

fn key_of(draw: &mut Draw<'_>) -> PublicKey {
    key(draw.u8() % 8)
}

fn fields(kind: u8, draw: &mut Draw<'_>, known: &Known, e: &mut Writer<'_>, body: &mut Bytes) -> Step {
    let task = task_of(draw, known);
    let attempt = if draw.flag() { u32::from(draw.u8() % 4) } else { draw.u32() };
    match kind {
        1 => {
            // Of its own: before an executor has a task, nobody but its submitter knows the id, and afterwards only
            // those that run it or own its key could take it elsewhere.
            let task = TaskId::from_bytes([draw.u8() % 4; 16]);
            *body = draw.of(&[
                Bytes::from_static(b"first"),
                Bytes::from_static(b"other"),
                Bytes::from_static(b"x"),
            ]);
            let (reach, hops, submitter) = (draw.u16(), draw.u8() % 6, key_of(draw));
            e.array(12)?
                .bytes(task.as_bytes())?
                .u32(attempt)?
                .u16(reach)?
                .u8(hops)?
                .bytes(submitter.as_bytes())?;
            e.str(draw.of(&["work", "work", "play"]))?.bytes(b"key")?.u8(draw.u8() % 4)?.u64(draw.u64())?;
            e.bool(draw.flag())?.bool(draw.flag())?;
            if draw.flag() { e.bytes(&[3; 16])?.ok() } else { e.null()?.ok() }
        }
        2 => {
            e.array(4)?.bytes(task.as_bytes())?.u32(attempt)?.u64(draw.u64())?;
            epoch(draw, e)
        }
        3 => {
            let count = draw.below(4) as u64;
            e.array(3)?.u64(draw.u64())?.array(count)?;
            for _ in 0..count {
                let task = task_of(draw, known);
                e.array(3)?.bytes(task.as_bytes())?.u32(attempt)?;
                if draw.flag() {
                    e.u64(draw.u64())?
                } else {
                    e.null()?
                };
            }
            e.bool(draw.flag())?.ok()
        }
        4 => {
            *body = draw.bytes(300);
            e.array(2)?.bytes(task.as_bytes())?.u32(attempt)?.ok()
        }
        5 => {
            e.array(7)?.bytes(task.as_bytes())?.u32(attempt)?.u8(1 + draw.u8() % 11)?.u64(draw.u64())?;
            if draw.flag() {
                e.bytes(key_of(draw).as_bytes())?
            } else {
                e.null()?
            };
            if draw.flag() {
                e.bytes(&[draw.u8(); 32])?
            } else {
                e.null()?
            };
            if draw.flag() { error(draw, e) } else { e.null()?.ok() }
        }
        6 => {
            e.array(3)?.bytes(task.as_bytes())?.u32(attempt)?;
            record(class(draw), draw, e, body)
        }
        7 => {
            let class = class(draw);
            // An end that a submitter declares counts for what it says is its own, so the id is one of its own, too.
            let submitters = matches!(class, 0 | 1 | 3);
            let task = if submitters { TaskId::from_bytes([draw.u8() % 4; 16]) } else { task };
            e.array(7)?.bytes(task.as_bytes())?.bytes(&[draw.u8(); 32])?;
            let count = draw.below(4) as u64;
            e.array(count)?;
            for _ in 0..count {
                e.bytes(key_of(draw).as_bytes())?;
            }
            e.str("work")?.bytes(b"key")?.u64(draw.u64())?;
            record(class, draw, e, body)
        }
        8 => {
            let hash = if draw.flag() {
                outcome_hash(&Ok(Bytes::from_static(b"first is done")))
            } else {
                [draw.u8(); 32]
            };
            e.array(2)?.bytes(task.as_bytes())?.bytes(&hash)?.ok()
        }
        9 | 11 => e.array(2)?.bytes(task.as_bytes())?.u32(attempt)?.ok(),
        10 => e.array(1)?.bytes(task.as_bytes())?.ok(),
        12 => e.array(2)?.bytes(task.as_bytes())?.bytes(&[draw.u8(); 32])?.ok(),
        13 => {
            e.array(3)?.bytes(task.as_bytes())?.bool(draw.flag())?;
            if draw.flag() { record(class(draw), draw, e, body) } else { e.null()?.ok() }
        }
        15 => e.array(3)?.bytes(task.as_bytes())?.u32(attempt)?.bytes(&[draw.u8(); 32])?.ok(),
        _ => e.array(0)?.ok(),
    }
}

fn epoch(draw: &mut Draw<'_>, e: &mut Writer<'_>) -> Step {
    e.array(2)?.u64(draw.u64())?.bytes(key_of(draw).as_bytes())?.ok()
}

fn error(draw: &mut Draw<'_>, e: &mut Writer<'_>) -> Step {
    e.array(5)?.u8(draw.u8() % 16)?.str("text")?.u64(draw.u64())?;
    if draw.flag() {
        epoch(draw, e)?
    } else {
        e.null()?.ok()?
    }
    if draw.flag() { e.bytes(&[draw.u8(); 32])?.ok() } else { e.null()?.ok() }
}

/// The class of an outcome: often a result, which is 4.
fn class(draw: &mut Draw<'_>) -> u8 {
    if draw.flag() { 4 } else { draw.u8() % 6 }
}

/// A record with an outcome that fits its hash, or without one.
fn record(class: u8, draw: &mut Draw<'_>, e: &mut Writer<'_>, body: &mut Bytes) -> Step {
    let forged = draw.of(&[Bytes::from_static(b"forged"), Bytes::from_static(b"first is done")]);
    let outcome = Ok(forged.clone());
    let hash = if draw.flag() { outcome_hash(&outcome) } else { [draw.u8(); 32] };
    e.array(6)?.u8(class)?;
    epoch(draw, e)?;
    e.bytes(&hash)?.bytes(key_of(draw).as_bytes())?;
    match draw.u8() % 3 {
        0 => {
            *body = forged;
            e.bool(false)?.null()?.ok()
        }
        1 => {
            e.bool(false)?;
            error(draw, e)
        }
        _ => e.bool(true)?.null()?.ok(),
    }
}
