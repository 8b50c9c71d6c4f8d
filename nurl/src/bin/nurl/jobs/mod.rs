//! `nurl jobs` and `nurl submit --detach`: jobs that outlive the command that submitted them.

pub(crate) mod args;

use std::collections::BTreeSet;

use bytes::Bytes;
use nurl::job::{Class, JobError, Note, Step, TaskStatus};
use nurl::rt::time;
use nurl::{Error, Node, PublicKey};

use self::args::{AwaitArgs, JobsCommand};
use crate::args::SubmitArgs;
use crate::client::{observer, some_worker, until_interrupted};
use crate::event::{Line, NoteLine, TaskLine};
use crate::out::{Code, Failure, Out};
use crate::talk::text_or_hex;
use crate::work::job_failure;

/// `nurl submit --detach`.
pub(crate) async fn detach(
    args: &SubmitArgs,
    key: &str,
    payload: Bytes,
    out: Out<'_>,
) -> Result<(), Failure> {
    let options = args.options();
    let node = until_interrupted(observer(&args.mesh, out)).await?;
    let done = until_interrupted(async {
        some_worker(&node, args.mesh.join, out).await?;
        let _waiting = out.waiting("handing the job over");
        let name = args.id.as_deref();
        let task =
            node.submit_detached(name, &args.kind, key.as_bytes(), payload, options, args.keep).await?;
        let id = task.id().to_string();
        out.line(&Line::Detached { task: id.clone(), parent: None }, || Some(id)).await;
        Ok(())
    })
    .await;
    node.shutdown().await;
    done
}

/// `nurl jobs`.
pub(crate) async fn run(command: JobsCommand, out: Out<'_>) -> Result<(), Failure> {
    let node = until_interrupted(observer(command.mesh(), out)).await?;
    let done = until_interrupted(async {
        some_worker(&node, command.mesh().join, out).await?;
        match &command {
            JobsCommand::List(_) => list(&node, out).await,
            JobsCommand::Show(args) => show(&node.detached(args.id).status().await?, out).await,
            JobsCommand::Await(args) => wait(&node, args, out).await,
            JobsCommand::Cancel(args) => {
                let _waiting = out.waiting("waiting for its end");
                show(&node.detached(args.id).cancel().await?, out).await
            }
            JobsCommand::Retry(args) => {
                let id = node.detached(args.id).retry().await?.id().to_string();
                let parent = Some(args.id.to_string());
                out.line(&Line::Detached { task: id.clone(), parent }, || Some(id)).await;
                Ok(())
            }
            JobsCommand::Logs(args) => logs(&node.detached(args.id).status().await?, out).await,
        }
    })
    .await;
    node.shutdown().await;
    done
}

async fn list(node: &Node, out: Out<'_>) -> Result<(), Failure> {
    let listed = node.detached_tasks().await?;
    for status in &listed.tasks {
        let human = format!("{} {:9} {}", status.task, state(status), status.kind.escape_debug());
        out.line(&Line::Task(task_line(status)), || Some(human)).await;
    }
    if !listed.silent.is_empty() {
        let keys: Vec<String> = listed.silent.iter().map(|key| key.short().to_string()).collect();
        let few = listed.silent.len() < 3;
        let lacks = if few { "no job is missing" } else { "jobs may be missing" };
        out.note(&format!("{} didn't answer: {lacks}", keys.join(", "))).await;
    }
    let silent = listed.silent.iter().map(PublicKey::to_string).collect();
    out.line(&Line::TasksListed { tasks: listed.tasks.len(), silent }, || None).await;
    Ok(())
}

async fn show(status: &TaskStatus, out: Out<'_>) -> Result<(), Failure> {
    let mut lines = vec![
        format!("id       {}", status.task),
        format!("state    {}", state(status)),
        format!("kind     {}", status.kind.escape_debug()),
        format!("key      {}", String::from_utf8_lossy(&status.key).escape_debug()),
        format!("from     {}", status.holder),
        format!("made     {}", moment(status.made_ms)),
        format!("until    {}", moment(status.until_ms)),
        format!("kept for {} s after its end", status.keep_s),
    ];
    lines.extend(status.parent.map(|parent| format!("again    {parent}")));
    if let Some(end) = &status.end {
        lines.push(format!("ended    {} by {}", moment(end.at_ms), end.by.short()));
        lines.extend(end.error.as_ref().map(|error| format!("error    {error}")));
    }
    if let Some(note) = &status.progress {
        lines.push(format!("progress {}", String::from_utf8_lossy(note).escape_debug()));
    }
    out.lines(&Line::Task(task_line(status)), || lines).await;
    Ok(())
}

async fn logs(status: &TaskStatus, out: Out<'_>) -> Result<(), Failure> {
    for note in &status.history {
        out.line(&Line::TaskNote(note_line(status, note)), || Some(note_text(note))).await;
    }
    Ok(())
}

async fn wait(node: &Node, args: &AwaitArgs, out: Out<'_>) -> Result<(), Failure> {
    let waiting = out.waiting("waiting for the result");
    let (sender, mut notes) = nurl::rt::sync::mpsc::channel(64);
    let task = node.detached(args.job.id);
    let both = async {
        let follow = task.follow(|status| {
            // A notice that finds no room is left out.
            let _ = sender.try_send(status.clone());
        });
        let mut follow = std::pin::pin!(follow);
        let mut told = BTreeSet::new();
        let status = loop {
            nurl::rt::select! {
                status = notes.recv() => match status {
                    Some(status) => tell_accepted(&status, &mut told, out.beside(waiting.bar())).await,
                    None => unreachable!("the sender lives here"),
                },
                ended = &mut follow => break ended?,
            }
        };
        tell_accepted(&status, &mut told, out.beside(waiting.bar())).await;
        match task.outcome().await {
            Ok(bytes) => Ok((status, Ok(bytes))),
            Err(Error::Job(error)) => Ok((status, Err(error))),
            Err(error) => Err(Failure::from(error)),
        }
    };
    let (status, outcome) = match args.timeout {
        None => both.await?,
        Some(limit) => time::timeout(limit, both).await.unwrap_or_else(|_| {
            let message = format!("the job has not ended within {limit:?}; it goes on");
            Err(Failure::new(Code::Deadline, message))
        })?,
    };
    waiting.hide();
    if out.json {
        out.line(&result_line(&status, &outcome), || None).await;
    } else if let Ok(bytes) = &outcome {
        out.raw(bytes.to_vec()).await;
    }
    outcome.map(|_| ()).map_err(|error| job_failure(&error))
}

/// Tells each worker that accepted the job, once for each time.
async fn tell_accepted(status: &TaskStatus, told: &mut BTreeSet<Note>, out: Out<'_>) {
    for note in status.history.iter().filter(|note| note.step == Step::Accepted) {
        if let Some(by) = note.worker.filter(|_| told.insert(note.clone())) {
            let line = Line::Accepted { task: status.task.to_string(), by: by.to_string() };
            out.line(&line, || None).await;
        }
    }
}

fn result_line(status: &TaskStatus, outcome: &Result<Bytes, JobError>) -> Line {
    let (text, hex) = outcome.as_deref().map(text_or_hex).unwrap_or_default();
    let accepted = status.history.iter().filter(|note| note.step == Step::Accepted).count();
    Line::Result {
        task: Some(status.task.to_string()),
        index: None,
        source: None,
        file: None,
        by: status.end.as_ref().map(|end| end.by.to_string()),
        attempts: u32::try_from(accepted).unwrap_or(u32::MAX),
        text,
        hex,
        error: outcome.as_ref().err().map(ToString::to_string),
    }
}

/// A job's state in a word.
fn state(status: &TaskStatus) -> &'static str {
    match status.end.as_ref().map(|end| end.class()) {
        None if status.cancelling => "cancelling",
        None => "open",
        Some(Some(Class::Result)) => "done",
        Some(Some(Class::Cancelled)) => "cancelled",
        Some(Some(Class::Deadline)) => "deadline",
        Some(Some(Class::DeadLetter)) => "given-up",
        Some(Some(Class::Failed) | None) => "failed",
    }
}

fn task_line(status: &TaskStatus) -> TaskLine {
    let (key, key_hex) = text_or_hex(&status.key);
    let (progress, progress_hex) = status.progress.as_deref().map(text_or_hex).unwrap_or_default();
    TaskLine {
        task: status.task.to_string(),
        state: state(status),
        kind: status.kind.clone(),
        key,
        key_hex,
        from: status.holder.to_string(),
        made_ms: status.made_ms,
        until_ms: status.until_ms,
        keep_s: status.keep_s,
        parent: status.parent.map(|parent| parent.to_string()),
        ended_ms: status.end.as_ref().map(|end| end.at_ms),
        by: status.end.as_ref().map(|end| end.by.to_string()),
        error: status.end.as_ref().and_then(|end| end.error.as_ref()).map(ToString::to_string),
        progress,
        progress_hex,
    }
}

fn note_line(status: &TaskStatus, note: &Note) -> NoteLine {
    NoteLine {
        task: status.task.to_string(),
        at_ms: note.at_ms,
        step: note.step.as_str(),
        keeper: note.by.to_string(),
        worker: note.worker.map(|worker| worker.to_string()),
        text: note.text.clone(),
    }
}

fn note_text(note: &Note) -> String {
    let worker = note.worker.map(|worker| format!(" {}", worker.short())).unwrap_or_default();
    let text = if note.text.is_empty() { String::new() } else { format!(": {}", note.text.escape_debug()) };
    format!("{} {} {}{worker}{text}", moment(note.at_ms), note.by.short(), note.step.as_str())
}

/// A time as seconds since now, since other machines' clocks and zones differ.
fn moment(ms: u64) -> String {
    let now = u64::try_from(time::unix_now().as_millis()).unwrap_or(u64::MAX);
    if ms <= now { format!("{} s ago", (now - ms) / 1_000) } else { format!("in {} s", (ms - now) / 1_000) }
}
