//! `nurl submit`, `nurl wordcount`: work on the mesh, one task or many; and what `nurl map` shares with them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{ErrorKind, IsTerminal};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use nurl::job::handlers::{decode_counts, merge};
use nurl::job::{JobError, MAX_PAYLOAD_LEN, SubmitOptions, TaskEvent, TaskId, WaitReason};
use nurl::rt::sync::mpsc;
use nurl::rt::{self, disk, time};
use nurl::{Node, PublicKey};
use tokio::io::AsyncReadExt;

use crate::args::{SubmitArgs, WordcountArgs};
use crate::client::with_workers;
use crate::event::{Done, Line};
use crate::files::{cut, read_texts, unreadable};
use crate::jobs;
use crate::out::{Code, Failure, Out};
use crate::talk::text_or_hex;

/// Tasks that `wordcount` and the demo keep in flight: enough to keep every worker busy over a long round trip, few
/// enough that none waits long in a queue.
pub(crate) const WINDOW: usize = 64;

/// One of a command's tasks.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) key: String,
    /// Any worker may run it, and not only the key's.
    pub(crate) anywhere: bool,
    pub(crate) payload: Bytes,
}

/// An event of a task.
#[derive(Debug)]
pub(crate) enum Update {
    /// A worker accepted it.
    Accepted { index: usize, task: TaskId, by: PublicKey },
    /// It waits for a worker.
    Waiting { task: TaskId, why: WaitReason },
    /// It has ended.
    Ended {
        index: usize,
        task: TaskId,
        by: Option<PublicKey>,
        attempts: u32,
        outcome: Result<Bytes, JobError>,
    },
    /// Its submission was refused.
    Refused { failure: Failure },
}

/// The tasks of a command that are under way. Each ends with an outcome, or is cancelled when the receiver of its
/// events is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    // Every task holds a clone: the channel is closed when the last task has ended.
    held: mpsc::Sender<Infallible>,
    released: mpsc::Receiver<Infallible>,
}

impl UnderWay {
    /// Without tasks yet.
    pub(crate) fn new() -> UnderWay {
        let (held, released) = mpsc::channel(1);
        UnderWay { held, released }
    }

    /// Counts as a task until it is dropped.
    pub(crate) fn hold(&self) -> mpsc::Sender<Infallible> {
        self.held.clone()
    }

    /// Waits until no task is left.
    pub(crate) async fn all_ended(mut self) {
        drop(self.held);
        self.released.recv().await;
    }
}

/// Submits jobs of one kind, `window` at a time, and reports their events. Every job ends exactly once. When the
/// receiver is dropped, jobs under way are cancelled.
pub(crate) fn run_all(
    node: &Node,
    under_way: &UnderWay,
    kind: &str,
    jobs: Vec<Job>,
    window: usize,
    life: Duration,
) -> mpsc::Receiver<Update> {
    let (updates, course) = mpsc::channel(window.max(1) * 2);
    let (node, held) = (node.clone(), under_way.hold());
    let kind = kind.to_owned();
    rt::task::spawn(async move {
        let slots = std::sync::Arc::new(rt::sync::Semaphore::new(window));
        for (index, job) in jobs.into_iter().enumerate() {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            if updates.is_closed() {
                return;
            }
            let (node, kind, updates, held) = (node.clone(), kind.clone(), updates.clone(), held.clone());
            rt::task::spawn(async move {
                run_one(&node, &kind, index, job, life, &updates).await;
                drop((slot, held));
            });
        }
    });
    course
}

pub(crate) async fn run_one(
    node: &Node,
    kind: &str,
    index: usize,
    job: Job,
    life: Duration,
    updates: &mpsc::Sender<Update>,
) {
    let options = SubmitOptions { life, anywhere: job.anywhere, ..SubmitOptions::default() };
    let mut task = match node.submit(kind, job.key.as_bytes(), job.payload, options).await {
        Ok(task) => task,
        Err(error) => {
            let _ = updates.send(Update::Refused { failure: error.into() }).await;
            return;
        }
    };
    let id = task.id();
    loop {
        let event = rt::select! {
            event = task.next() => event,
            // The receiver was dropped: the command failed or was interrupted.
            () = updates.closed() => {
                let _ = node.cancel(id).await;
                return;
            }
        };
        let update = match event {
            Some(TaskEvent::Accepted { by }) => Update::Accepted { index, task: id, by },
            Some(TaskEvent::Waiting { why }) => Update::Waiting { task: id, why },
            // The command shows how many jobs are done; a note is for programs.
            Some(TaskEvent::Progress { .. }) => continue,
            Some(TaskEvent::Ended { by, attempts, outcome }) => {
                Update::Ended { index, task: id, by, attempts, outcome }
            }
            None => return,
        };
        // An error shows as `closed` in the next round.
        let _ = updates.send(update).await;
    }
}

/// The command's failure for a job's error.
pub(crate) fn job_failure(error: &JobError) -> Failure {
    match error {
        JobError::Deadline => Failure::new(Code::Deadline, error.to_string()),
        JobError::NotAllowed { .. } => Failure::new(
            Code::NotAllowed,
            format!(
                "{error}: a command's level is submit at most, so ask whoever runs the workers to --allow your name or \
                 key (nurl pass show)"
            ),
        ),
        error => Failure::new(Code::JobFailed, error.to_string()),
    }
}

pub(crate) fn waiting_line(task: TaskId, why: WaitReason) -> Line {
    Line::Waiting { task: task.to_string(), reason: why.as_str() }
}

/// How a task has ended, for machines.
pub(crate) fn result_line(update: &Update) -> Line {
    let Update::Ended { task, by, attempts, outcome, .. } = update else {
        unreachable!("only ends have a result")
    };
    let (text, hex) = outcome.as_deref().map(text_or_hex).unwrap_or_default();
    Line::Result {
        task: Some(task.to_string()),
        index: None,
        source: None,
        file: None,
        by: by.map(|by| by.to_string()),
        attempts: *attempts,
        text,
        hex,
        error: outcome.as_ref().err().map(ToString::to_string),
    }
}

/// `nurl submit`.
pub(crate) async fn submit(args: SubmitArgs, out: Out<'_>) -> Result<(), Failure> {
    let payload = payload(args.payload.as_deref()).await?;
    let key = args.key.clone().or_else(|| args.id.clone()).unwrap_or_else(random_key);
    if args.detach {
        return jobs::detach(&args, &key, payload, out).await;
    }
    with_workers(&args.mesh, out, async |node, under_way| {
        let waiting = out.waiting("waiting for the result");
        let job = Job { key, anywhere: false, payload };
        let mut course = run_all(node, under_way, &args.kind, vec![job], 1, args.timeout);
        let mut ended = Err(Failure::new(Code::Other, "the node stopped"));
        while let Some(update) = course.recv().await {
            match &update {
                Update::Accepted { task, by, .. } => {
                    let line = Line::Accepted { task: task.to_string(), by: by.to_string() };
                    out.line(&line, || None).await;
                }
                Update::Waiting { task, why } => {
                    let out = out.beside(waiting.bar());
                    out.line(&waiting_line(*task, *why), || None).await;
                    out.note(&why.to_string()).await;
                }
                Update::Ended { outcome, .. } => {
                    waiting.hide();
                    if out.json {
                        out.line(&result_line(&update), || None).await;
                    } else if let Ok(bytes) = outcome {
                        out.raw(bytes.to_vec()).await;
                    }
                    ended = outcome.as_ref().map(|_| ()).map_err(job_failure);
                }
                Update::Refused { .. } => {}
            }
            if let Update::Refused { failure } = update {
                ended = Err(failure);
            }
        }
        ended
    })
    .await
}

/// `nurl wordcount`.
pub(crate) async fn wordcount(args: WordcountArgs, out: Out<'_>) -> Result<(), Failure> {
    let texts = read_texts(&args.paths)?;
    let pieces = cut(&texts);
    let total = pieces.len();
    let begun = time::now();
    with_workers(&args.mesh, out, async |node, under_way| {
        let jobs = pieces
            .into_iter()
            .map(|piece| Job { key: piece.key, anywhere: false, payload: piece.bytes })
            .collect();
        let mut course = run_all(node, under_way, "wordcount", jobs, WINDOW, Duration::from_secs(300));
        let bar = out.progress(Some(total), "wordcount");
        let (mut sum, mut reassigned) = (BTreeMap::new(), 0);
        while let Some(update) = course.recv().await {
            match update {
                Update::Accepted { .. } | Update::Waiting { .. } => {}
                Update::Refused { failure } => return Err(failure),
                Update::Ended { outcome, attempts, .. } => {
                    let bytes = outcome.map_err(|error| job_failure(&error))?;
                    let counts = decode_counts(&bytes).map_err(|error| {
                        Failure::new(Code::JobFailed, format!("a worker's result: {error}"))
                    })?;
                    merge(&mut sum, counts);
                    reassigned += usize::from(attempts > 1);
                    bar.inc(1);
                }
            }
        }
        bar.finish_and_clear();
        for (word, count) in top(&sum, args.top) {
            let line = Line::Word { word: word.clone(), count };
            out.line(&line, || Some(format!("{count:>8} {word}"))).await;
        }
        let done = Done {
            tasks: total,
            reassigned,
            files: Some(texts.len()),
            words: Some(sum.values().sum()),
            distinct: Some(sum.len()),
            seconds: (time::now() - begun).as_secs_f64(),
            ..Done::default()
        };
        let human = format!(
            "{} words, {} of them distinct, in {} files: {} tasks, {:.1} s",
            sum.values().sum::<u64>(),
            sum.len(),
            texts.len(),
            total,
            done.seconds
        );
        out.line(&Line::Done(Box::new(done)), || Some(human)).await;
        Ok(())
    })
    .await
}

/// The most frequent words, ties in alphabetical order.
pub(crate) fn top(counts: &BTreeMap<String, u64>, most: usize) -> Vec<(String, u64)> {
    let mut list: Vec<_> = counts.iter().map(|(word, count)| (word.clone(), *count)).collect();
    list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    list.truncate(most);
    list
}

/// A random key, which spreads tasks without a requested placement.
fn random_key() -> String {
    use rand_core::Rng;
    format!("{:016x}", rt::rng("submit key").next_u64())
}

async fn payload(path: Option<&Path>) -> Result<Bytes, Failure> {
    let limit = MAX_PAYLOAD_LEN as u64;
    match path {
        Some(path) if path != Path::new("-") => read_payload(path),
        None if std::io::stdin().is_terminal() => Ok(Bytes::new()),
        _ => {
            let mut bytes = Vec::new();
            tokio::io::stdin()
                .take(limit + 1)
                .read_to_end(&mut bytes)
                .await
                .map_err(|error| Failure::new(Code::Resource, format!("standard input: {error}")))?;
            if bytes.len() as u64 > limit {
                return Err(too_large("standard input"));
            }
            Ok(Bytes::from(bytes))
        }
    }
}

pub(crate) fn read_payload(path: &Path) -> Result<Bytes, Failure> {
    disk::read(path, MAX_PAYLOAD_LEN as u64).map(Bytes::from).map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => too_large(&path.display().to_string()),
        _ => unreadable(path, &error),
    })
}

fn too_large(source: &str) -> Failure {
    Failure::new(
        Code::Usage,
        format!("{source}: a payload holds at most {MAX_PAYLOAD_LEN} bytes: cut it into several tasks"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_words_are_sorted_by_count_then_name() {
        let counts = BTreeMap::from([("b".into(), 2), ("a".into(), 2), ("c".into(), 9), ("d".into(), 1)]);
        assert_eq!(top(&counts, 3), [("c".into(), 9), ("a".into(), 2), ("b".into(), 2)]);
    }
}
