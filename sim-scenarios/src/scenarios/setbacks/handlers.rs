//! What the handlers of this scenario are told to do, and the log of what they did.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chaos::world::World;
use nurl::internals::compute::job::options::MAX_PAYLOAD_LEN;
use nurl::internals::compute::job::{JobError, KindLimits};
use nurl::internals::compute::pool::JobContext;
use nurl::internals::node::Builder;
use nurl::rt::time;

use crate::cluster::{Setup, text};
use crate::lock::lock;

/// The kind that all workers have.
pub(super) const TRIES: &str = "tries";
/// The same, with a time limit of [`LIMIT`].
pub(super) const LIMITED: &str = "limited";
/// The kind of one worker, which runs one task of it at a time.
pub(super) const QUEUED: &str = "queued";
/// The kind of the worker that goes, and of the newcomer.
pub(super) const RARE: &str = "rare";

/// The time limit of the kind that has one.
pub(super) const LIMIT: Duration = Duration::from_secs(1);

/// How often a handler that says how far it is says so.
pub(super) const SAYS_EVERY: Duration = Duration::from_millis(300);

/// A note is longer than a note may be.
const NOTE_LEN: usize = 1_000;

/// What the runs of a job do.
#[derive(Debug, Clone)]
pub(super) enum Course {
    /// So many of them fail retriably; the next ones give the payload back.
    Fail(usize),
    /// They fail for good, with this message.
    Refuse(String),
    /// They panic, on the pool or beside it.
    Panic { beside: bool },
    /// They return the error of something else that was cancelled.
    GiveUp,
    /// Their result is longer than a result may be.
    Grow,
    /// They take so long, and give the payload back.
    Take(Duration),
    /// They take so long, and say now and then how far they are.
    Say(Duration),
}

/// The text of a retriable failure.
pub(super) const FAILS: &str = "no space left on the device";

/// One run of a handler.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) job: String,
    /// The worker's name.
    pub(super) by: String,
    pub(super) began: Duration,
    /// When it was over, or was dropped.
    pub(super) ended: Option<Duration>,
}

#[derive(Debug, Default)]
struct Book {
    courses: BTreeMap<String, Course>,
    runs: Vec<Run>,
    /// By job and note: when the note was made.
    notes: BTreeMap<(String, u64), Duration>,
}

/// What all handlers do and did. A clone shares the same.
#[derive(Clone)]
pub(super) struct Script(World, Arc<Mutex<Book>>);

impl Script {
    pub(super) fn new(world: World) -> Script {
        Script(world, Arc::default())
    }

    /// From now on the runs of a job do this.
    pub(super) fn set(&self, job: &str, course: Course) {
        lock(&self.1).courses.insert(job.to_owned(), course);
    }

    /// The runs of a job, in the order of their beginnings.
    pub(super) fn runs(&self, job: &str) -> Vec<Run> {
        lock(&self.1).runs.iter().filter(|run| run.job == job).cloned().collect()
    }

    /// The jobs in the order in which their runs began, of those whose name begins so.
    pub(super) fn order(&self, prefix: &str) -> Vec<String> {
        let book = lock(&self.1);
        book.runs.iter().filter(|run| run.job.starts_with(prefix)).map(|run| run.job.clone()).collect()
    }

    /// When the note of this number was made.
    pub(super) fn made(&self, job: &str, note: u64) -> Option<Duration> {
        lock(&self.1).notes.get(&(job.to_owned(), note)).copied()
    }

    /// Gives a worker its handlers.
    pub(super) fn handlers(&self, builder: Builder, setup: &Setup) -> Builder {
        let limited = KindLimits { time_limit: Some(LIMIT), ..KindLimits::default() };
        let single = KindLimits { concurrency: 1, ..KindLimits::default() };
        let kinds = [
            (TRIES, KindLimits::default(), true),
            (LIMITED, limited, true),
            (QUEUED, single, setup.number == 0),
            (RARE, KindLimits::default(), setup.number == 2 || setup.name == super::NEWCOMER),
        ];
        kinds.into_iter().filter(|(_, _, has)| *has).fold(builder, |builder, (kind, limits, _)| {
            let (script, by) = (self.clone(), setup.name.clone());
            builder.handler_with(kind, limits, move |context, payload| {
                let (script, by) = (script.clone(), by.clone());
                async move { script.run(by, context, payload).await }
            })
        })
    }

    async fn run(self, by: String, context: JobContext, payload: Bytes) -> Result<Bytes, JobError> {
        let job = text(&payload);
        let (before, number, course) = {
            let mut book = lock(&self.1);
            let before = book.runs.iter().filter(|run| run.job == job).count();
            let began = self.0.elapsed();
            book.runs.push(Run { job: job.clone(), by, began, ended: None });
            let course = book.courses.get(&job).cloned().expect("each job has its course");
            (before, book.runs.len() - 1, course)
        };
        let _over = Over { script: self.clone(), number };
        match course {
            Course::Fail(times) if before < times => Err(JobError::retriable(FAILS)),
            Course::Fail(_) => Ok(payload),
            Course::Refuse(message) => Err(JobError::permanent(message)),
            Course::Panic { beside: false } => panic!("as asked: {job}"),
            Course::Panic { beside: true } => {
                context.blocking(move || -> Result<Bytes, JobError> { panic!("as asked: {job}") }).await
            }
            Course::GiveUp => Err(JobError::Cancelled),
            Course::Grow => Ok(vec![0; MAX_PAYLOAD_LEN + 1].into()),
            Course::Take(long) => {
                time::sleep(long).await;
                Ok(payload)
            }
            Course::Say(long) => {
                let until = time::now() + long;
                for note in 0u64.. {
                    if time::now() >= until {
                        break;
                    }
                    lock(&self.1).notes.insert((job.clone(), note), self.0.elapsed());
                    let mut bytes = note.to_be_bytes().to_vec();
                    bytes.resize(NOTE_LEN, 0);
                    context.progress(bytes);
                    time::sleep(SAYS_EVERY).await;
                }
                Ok(payload)
            }
        }
    }
}

/// Notes the end of a run, also of one that is dropped.
struct Over {
    script: Script,
    number: usize,
}

impl Drop for Over {
    fn drop(&mut self) {
        let now = self.script.0.elapsed();
        lock(&self.script.1).runs[self.number].ended = Some(now);
    }
}
