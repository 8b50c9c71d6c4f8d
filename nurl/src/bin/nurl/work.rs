//! `nurl submit`, `nurl wordcount`: work on the mesh, one task or many; and what `nurl map` shares with them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{ErrorKind, IsTerminal};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use nurl::job::handlers::{decode_counts, merge};
use nurl::job::{
    JobError, LargeFile, MAX_FILE_LEN, MAX_PAYLOAD_LEN, Payload, SubmitOptions, Task, TaskEvent, TaskId,
    WaitReason,
};
use nurl::rt::sync::mpsc;
use nurl::rt::{self, disk, time};
use nurl::{Node, PublicKey};
use tokio::io::AsyncReadExt;

use crate::args::{SubmitArgs, WordcountArgs};
use crate::client::{with_workers, with_workers_and_files};
use crate::event::{Done, Line};
use crate::files::{cut, read_texts, unreadable};
use crate::jobs;
use crate::out::{Code, Failure, Out, unusable};
use crate::passing::Passing;
use crate::talk::{on_terminal, text_or_hex};

/// Tasks that `wordcount` and the demo keep in flight: enough to keep every worker busy over a long round trip, few
/// enough that none waits long in a queue.
pub(crate) const WINDOW: usize = 64;

/// Bytes of a large result that are read at a time.
const PRINTED_AT_ONCE: usize = 1 << 20;

/// The bytes that a payload in a message has beside its own.
const ENVELOPE_BYTES: u64 = 1;

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
    /// Its handler, or the worker that fetches its payload, says how far it is.
    Progress { note: Bytes },
    /// Its result is on its way.
    Fetching { task: TaskId, there: u64, len: u64 },
    /// It has ended.
    Ended {
        index: usize,
        task: TaskId,
        by: Option<PublicKey>,
        attempts: u32,
        outcome: Result<Bytes, JobError>,
        /// The result, if it is a file.
        file: Option<LargeFile>,
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
    let submitted = node.submit(kind, job.key.as_bytes(), job.payload, options).await;
    follow(node, submitted, index, updates).await;
}

/// Reports the events of a task until its end.
async fn follow(
    node: &Node,
    submitted: Result<Task, nurl::Error>,
    index: usize,
    updates: &mpsc::Sender<Update>,
) {
    let mut task = match submitted {
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
            Some(TaskEvent::Progress { note, .. }) => Update::Progress { note },
            Some(TaskEvent::Fetching { there, len }) => Update::Fetching { task: id, there, len },
            Some(TaskEvent::Ended { by, attempts, outcome, file }) => {
                Update::Ended { index, task: id, by, attempts, outcome, file }
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
    result_line_at(update, None)
}

/// As [`result_line`]; the result is in a file, if one is named.
fn result_line_at(update: &Update, file: Option<&Path>) -> Line {
    let Update::Ended { task, by, attempts, outcome, .. } = update else {
        unreachable!("only ends have a result")
    };
    let shown = outcome.as_deref().ok().filter(|_| file.is_none());
    let (text, hex) = shown.map(text_or_hex).unwrap_or_default();
    let file = file.filter(|_| outcome.is_ok()).map(|path| path.display().to_string());
    Line::Result {
        task: Some(task.to_string()),
        index: None,
        source: None,
        file,
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
        return match payload {
            Payload::Bytes(bytes) => jobs::detach(&args, &key, bytes, out).await,
            Payload::File(path) => Err(too_large_to_keep(&path)),
        };
    }
    let folder = match args.out.as_deref().map(folder_of) {
        Some(folder) => Passing::within(folder)?,
        None => Passing::new()?,
    };
    with_workers_and_files(&args.mesh, Some(folder.path()), out, async |node, under_way| {
        let waiting = out.waiting("waiting for the result");
        let (updates, mut course) = mpsc::channel(2);
        let (node, held, kind) = (node.clone(), under_way.hold(), args.kind.clone());
        let options = args.options();
        rt::task::spawn(async move {
            let submitted = node.submit_large(&kind, key.as_bytes(), payload, options).await;
            follow(&node, submitted, 0, &updates).await;
            drop(held);
        });
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
                Update::Progress { note, .. } => {
                    let (text, hex) = text_or_hex(note);
                    waiting.bar().set_message(on_terminal(&text, &hex));
                }
                Update::Fetching { task, there, len } => {
                    let line = Line::Fetching { task: task.to_string(), bytes: *there, of: *len };
                    out.line(&line, || None).await;
                    let message = format!("fetching the result: {} of {} MiB", there >> 20, len >> 20);
                    waiting.bar().set_message(message);
                }
                Update::Ended { outcome, file, .. } => {
                    waiting.hide();
                    ended = match outcome {
                        Ok(bytes) => keep_result(bytes, file.as_ref(), args.out.as_deref(), out).await,
                        Err(error) => Err(job_failure(error)),
                    };
                    if out.json {
                        out.line(&result_line_at(&update, args.out.as_deref()), || None).await;
                    }
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
                Update::Accepted { .. }
                | Update::Waiting { .. }
                | Update::Progress { .. }
                | Update::Fetching { .. } => {}
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

async fn payload(path: Option<&Path>) -> Result<Payload, Failure> {
    let limit = MAX_PAYLOAD_LEN as u64 - ENVELOPE_BYTES;
    match path {
        Some(path) if path != Path::new("-") => match disk::read(path, limit) {
            Ok(bytes) => Ok(Payload::Bytes(Bytes::from(bytes))),
            Err(error) if error.kind() == ErrorKind::FileTooLarge => large_payload(path),
            Err(error) => Err(unreadable(path, &error)),
        },
        None if std::io::stdin().is_terminal() => Ok(Payload::Bytes(Bytes::new())),
        _ => {
            let mut bytes = Vec::new();
            tokio::io::stdin()
                .take(limit + 1)
                .read_to_end(&mut bytes)
                .await
                .map_err(|error| Failure::new(Code::Resource, format!("standard input: {error}")))?;
            if bytes.len() as u64 > limit {
                let message = format!(
                    "standard input: a payload from there has at most {limit} bytes: write it to a file, and give that \
                     with --payload (up to 4 GiB)"
                );
                return Err(Failure::new(Code::Usage, message));
            }
            Ok(Payload::Bytes(Bytes::from(bytes)))
        }
    }
}

/// A payload that stays in its file.
fn large_payload(path: &Path) -> Result<Payload, Failure> {
    let len = disk::File::open_read(path).and_then(|file| file.len());
    let len = len.map_err(|error| unreadable(path, &error))?;
    if len <= MAX_PAYLOAD_LEN as u64 {
        let message =
            format!("{}: a payload over 16 MiB is read twice, so it must be a regular file", path.display());
        return Err(Failure::new(Code::Usage, message));
    }
    if len > MAX_FILE_LEN {
        let path = path.display();
        let message = format!(
            "{path}: {len} bytes, and a payload has at most {MAX_FILE_LEN}: cut it into several tasks"
        );
        return Err(Failure::new(Code::Usage, message));
    }
    Ok(Payload::File(path.to_owned()))
}

/// The failure of a detached task with a large payload.
fn too_large_to_keep(path: &Path) -> Failure {
    let message = format!(
        "{}: the payload of a detached job has at most {MAX_PAYLOAD_LEN} bytes, because the mesh's workers keep it: \
         leave out --detach, and let this command run",
        path.display()
    );
    Failure::new(Code::Usage, message)
}

/// The folder of a file.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Puts a result where the person wants it.
async fn keep_result(
    bytes: &Bytes,
    file: Option<&LargeFile>,
    to: Option<&Path>,
    out: Out<'_>,
) -> Result<(), Failure> {
    let unusable_out = |path: &Path, error: &std::io::Error| unusable(path, error, "choose another --out");
    match (file, to) {
        (Some(file), Some(to)) => moved(&file.path(), to).map_err(|error| unusable_out(to, &error)),
        (None, Some(to)) => disk::atomic_replace(to, bytes).map_err(|error| unusable_out(to, &error)),
        (Some(_), None) if out.json => {
            let message = "the result is too long for a line of JSON: name a file for it with --out";
            Err(Failure::new(Code::Usage, message))
        }
        (Some(file), None) => print(file, out).await,
        (None, None) => {
            if !out.json {
                out.raw(bytes.to_vec()).await;
            }
            Ok(())
        }
    }
}

/// Moves a file within a file system, in the place of another one.
#[expect(clippy::disallowed_methods, reason = "the command runs on a real disk only")]
fn moved(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::rename(from, to)
}

/// Writes a file to standard output.
async fn print(file: &LargeFile, out: Out<'_>) -> Result<(), Failure> {
    let path = file.path();
    let failed = |error| unreadable(&path, &error);
    let (opened, mut offset) = (disk::File::open_read(&path).map_err(failed)?, 0);
    while offset < file.len() {
        let rest = file.len() - offset;
        let len = usize::try_from(rest).map_or(PRINTED_AT_ONCE, |rest| rest.min(PRINTED_AT_ONCE));
        let mut part = vec![0; len];
        opened.read_exact_at(&mut part, offset).map_err(failed)?;
        out.raw(part).await;
        offset += len as u64;
    }
    Ok(())
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
