//! `nurl map`: one task for each of many inputs.
//!
//! Inputs are [read](inputs) as tasks [end](task), so that a million of them cost no more memory than those in flight and,
//! with `--out`, a few hashes for each. With `--out` every result is a [file](results), and a second run does the rest;
//! without it the results are written in the order of the inputs.

pub(crate) mod args;
mod halt;
mod inputs;
mod names;
mod results;
mod tally;
mod task;

use std::collections::BTreeMap;

use indicatif::ProgressBar;
use nurl::Node;
use nurl::rt::{self, sync::mpsc, time};

use self::args::MapArgs;
use self::halt::Halted;
use self::inputs::{Input, Read};
use self::names::Hash;
use self::results::Results;
use self::tally::Tally;
use self::task::{Course, Step};
use crate::client::with_workers;
use crate::event::Line;
use crate::out::{Failure, Out};
use crate::work::{UnderWay, Update, job_failure, result_line, waiting_line};

/// Payloads in flight: half of what a submitter may have, so that none is refused.
const MAX_BYTES_IN_FLIGHT: usize = 128 << 20;

/// Without `--out` results are written in order. So the map starts no input that is more than this many times `--jobs` ahead
/// of the first one without a result, whose successors' results are held in memory.
const AHEAD: usize = 8;

/// An input whose task is in flight.
#[derive(Debug)]
struct InFlight {
    source: String,
    name: String,
    id: Hash,
    bytes: usize,
}

/// An input that has ended, and isn't written yet.
#[derive(Debug)]
struct Ended {
    source: String,
    line: Line,
    outcome: Result<bytes::Bytes, String>,
}

/// A map at work.
struct Map<'a> {
    args: &'a MapArgs,
    out: Out<'a>,
    bar: &'a ProgressBar,
    results: &'a mut Option<Results>,
    tally: &'a mut Tally,
    in_flight: BTreeMap<usize, InFlight>,
    bytes: usize,
    /// Results that wait for those of earlier inputs.
    early: BTreeMap<usize, Ended>,
    /// The first input whose result isn't written yet.
    next: usize,
    read: usize,
    told: bool,
}

/// `nurl map`.
pub(crate) async fn map(args: MapArgs, out: Out<'_>) -> Result<(), Failure> {
    inputs::check(&args.paths)?;
    let (mut results, earlier) = args.out.as_deref().map(Results::open).transpose()?.unzip();
    let begun = time::now();
    let mut tally = Tally::new(args.out.as_deref());
    let mut reads = inputs::read(&args, earlier);
    // Without anything left to do there is no need of a mesh.
    let first = loop {
        match reads.recv().await {
            Some(Read::Skipped) => tally.skipped += 1,
            first => break first,
        }
    };
    let bar = out.progress((!args.paths.is_empty()).then_some(args.paths.len()), &args.kind);
    let ended = match first {
        None => Ok(()),
        Some(Read::Broken(failure)) => Err(failure),
        Some(first) => {
            with_workers(&args.mesh, out, async |node, under_way| {
                let mut map = Map {
                    args: &args,
                    out: out.beside(&bar),
                    bar: &bar,
                    results: &mut results,
                    in_flight: BTreeMap::new(),
                    bytes: 0,
                    early: BTreeMap::new(),
                    next: 0,
                    read: 0,
                    told: false,
                    tally: &mut tally,
                };
                map.run(node, under_way, first, &mut reads).await
            })
            .await
        }
    };
    bar.finish_and_clear();
    if let Some(results) = results {
        results.close();
    }
    tally.tell(out, time::now() - begun, ended.is_ok()).await;
    ended.map_err(|failure| tally.with_remedy(failure))?;
    tally.verdict()
}

impl Map<'_> {
    async fn run(
        &mut self,
        node: &Node,
        under_way: &UnderWay,
        first: Read,
        reads: &mut mpsc::Receiver<Read>,
    ) -> Result<(), Failure> {
        let (steps, mut course) = mpsc::channel(1);
        let directory = self.results.as_ref().map(Results::directory);
        let kind = self.args.kind.as_str().into();
        let tasks = Course { node: node.clone(), kind, life: self.args.timeout, directory, steps };
        let (mut first, mut more) = (Some(first), true);
        self.bar.set_position(self.tally.skipped as u64);
        self.bar.reset_eta();
        loop {
            let halted = self.tally.halted(self.args.halt);
            if halted == Some(Halted::Now) {
                break;
            }
            let starts = more && halted.is_none() && self.has_room();
            if !starts && self.in_flight.is_empty() {
                break;
            }
            let read = async {
                match first.take() {
                    Some(first) => Some(first),
                    None => reads.recv().await,
                }
            };
            rt::select! {
                step = course.recv(), if !self.in_flight.is_empty() => {
                    // The channel is open as long as this function has a sender.
                    let Some(step) = step else { break };
                    self.step(step).await?;
                }
                read = read, if starts => match read {
                    None => more = false,
                    Some(Read::Skipped) => {
                        self.tally.skipped += 1;
                        self.bar.inc(1);
                    }
                    Some(Read::Broken(failure)) => return Err(failure),
                    Some(Read::Input(input)) => self.start(&tasks, under_way, input).await?,
                },
            }
        }
        // Only after a halt: others wait for tasks that were cancelled.
        for (_, ended) in std::mem::take(&mut self.early) {
            self.show(ended).await;
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        let jobs = usize::from(self.args.jobs);
        let in_order = self.results.is_some() || self.read < self.next + AHEAD * jobs;
        self.in_flight.len() < jobs && self.bytes < MAX_BYTES_IN_FLIGHT && in_order
    }

    async fn start(&mut self, tasks: &Course, under_way: &UnderWay, input: Input) -> Result<(), Failure> {
        let Input { number, source, name, id, payload } = input;
        self.read = number + 1;
        match payload {
            Ok(payload) => {
                let bytes = payload.len();
                self.bytes += bytes;
                let one = InFlight { source: source.clone(), name: name.clone(), id, bytes };
                self.in_flight.insert(number, one);
                let (tasks, held) = (tasks.clone(), under_way.hold());
                rt::task::spawn(async move {
                    tasks.run(number, &source, name, payload).await;
                    drop(held);
                });
                Ok(())
            }
            Err(failure) => {
                let line = Line::Result {
                    task: None,
                    index: None,
                    source: None,
                    file: None,
                    by: None,
                    attempts: 0,
                    text: None,
                    hex: None,
                    error: Some(failure.message.clone()),
                };
                let one = InFlight { source, name, id, bytes: 0 };
                self.ended(number, one, line, Err(failure)).await
            }
        }
    }

    async fn step(&mut self, step: Step) -> Result<(), Failure> {
        match step {
            Step::Broken(failure) => Err(failure),
            Step::Waiting { task, why } => {
                self.out.line(&waiting_line(task, why), || None).await;
                // Once: a thousand tasks may wait for the same worker.
                if !std::mem::replace(&mut self.told, true) {
                    self.out.note(&why.to_string()).await;
                }
                Ok(())
            }
            Step::Ended { number, update } => {
                let Some(one) = self.in_flight.remove(&number) else { return Ok(()) };
                self.bytes -= one.bytes;
                let line = result_line(&update);
                let Update::Ended { outcome, attempts, .. } = update else { return Ok(()) };
                self.tally.reassigned += usize::from(attempts > 1);
                self.ended(number, one, line, outcome.map_err(|error| job_failure(&error))).await
            }
        }
    }

    /// Takes the end of an input: into the log, into the count, and to the reader when it is its turn.
    async fn ended(
        &mut self,
        number: usize,
        one: InFlight,
        mut line: Line,
        outcome: Result<bytes::Bytes, Failure>,
    ) -> Result<(), Failure> {
        let InFlight { source: name_of_input, name, id, .. } = one;
        if let Line::Result { index, source, file, text, .. } = &mut line {
            (*index, *source) = (Some(number), Some(name_of_input.clone()));
            if self.results.is_some() {
                // The text is in the file.
                (*text, *file) = (None, outcome.is_ok().then(|| name.clone()));
            }
        }
        if let Some(results) = self.results.as_mut() {
            let ended = outcome.as_ref().map(|_| name.as_str()).map_err(|failure| failure.message.as_str());
            results.note(&name_of_input, id, ended)?;
        }
        self.tally.ended(&name_of_input, outcome.as_ref().err());
        self.bar.inc(1);
        self.bar.set_message(self.tally.message(&self.args.kind));
        let ended =
            Ended { source: name_of_input, line, outcome: outcome.map_err(|failure| failure.message) };
        if self.results.is_some() {
            self.out.line(&ended.line, || None).await;
            return Ok(());
        }
        self.early.insert(number, ended);
        while let Some(ended) = self.early.remove(&self.next) {
            self.next += 1;
            self.show(ended).await;
        }
        Ok(())
    }

    /// Writes a result to standard output.
    async fn show(&self, ended: Ended) {
        let Ended { source, line, outcome } = ended;
        match outcome {
            _ if self.out.json => self.out.line(&line, || None).await,
            Ok(bytes) => {
                let mut bytes = bytes.to_vec();
                if !bytes.ends_with(b"\n") {
                    bytes.push(b'\n');
                }
                self.out.raw(bytes).await;
            }
            Err(message) => self.out.note(&format!("{source}: {message}")).await,
        }
    }
}
