//! A fenced file: jobs append lines to it, workers die half-way, and each line is there once. Beside it its unfenced twin,
//! in which a line is there twice.
//!
//! A worker that dies after its effect and before its outcome has told nobody of the effect, so the next worker on the
//! key's list runs the job again. A lease at the resource, here in the folder of the file, knows better: it asks for the
//! fencing token and the task, and remembers outcomes. What it doesn't know, the file tells: for a task that was in
//! progress when its process died, the lease's owner looks whether the line is in the file.
//!
//! The program starts itself for each worker. One of them kills itself right after its first line.
//!
//! `cargo run -p nurl-examples --bin fenced_file`

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nurl::config::Role;
use nurl::job::{JobContext, JobError, SubmitOptions};
use nurl::lease::{
    Admission, Config, LeaseError, MAX_LIFE, Moment, Outcome, Recovered, Resource, Store, StoreError,
};
use nurl::rt::{self, disk, time};
use nurl::{Node, Ticket};
use nurl_examples::{PATIENCE, see_alive, soon};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

const KINDS: [&str; 2] = ["unfenced", "fenced"];
const KEY: &[u8] = b"the file";

/// A file of a few lines.
const LIMIT_BYTES: u64 = 1 << 16;

#[tokio::main]
async fn main() -> nurl_examples::Outcome {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(ticket), Some(folder)) => worker(ticket.parse()?, folder.into()).await,
        _ => parent().await,
    }
}

async fn parent() -> nurl_examples::Outcome {
    let (hub, ticket) = nurl::hub::serve_new_mesh("127.0.0.1:0").await?;
    let folder = tempfile::tempdir()?;
    for kind in KINDS {
        let folder = folder.path().join(kind);
        disk::create_dir_all(&folder)?;
        let mut workers = [start(&ticket, &folder)?, start(&ticket, &folder)?];
        let mut keys = Vec::new();
        for worker in &mut workers {
            keys.push(soon("a worker's key", first_line(worker)).await??.parse()?);
        }
        let client = Node::builder(ticket.clone()).role(Role::Observer).spawn().await?;
        see_alive(&client, &keys).await?;

        let task = client.submit(kind, KEY, Bytes::from_static(b"a line"), SubmitOptions::default()).await?;
        let id = task.id().to_string();
        soon("the outcome", task.outcome()).await??;
        client.shutdown().await;
        let text = String::from_utf8(disk::read(&folder.join("log"), LIMIT_BYTES)?)?;
        let lines = text.lines().filter(|line| line.starts_with(&id)).count();
        println!(
            "{kind}: a worker died after its effect, and the line of task {} is there {lines} times",
            &id[..8]
        );
        assert_eq!(lines, if kind == "fenced" { 1 } else { 2 });
        assert!(disk::exists(&folder.join("died")), "a worker died");
    }
    hub.shutdown().await;
    Ok(())
}

fn start(ticket: &Ticket, folder: &Path) -> Result<Child, Box<dyn std::error::Error + Send + Sync>> {
    let mut command = Command::new(std::env::current_exe()?);
    // Other users can see the secret on the command line, which is acceptable for a mesh that lives for seconds.
    command.arg(ticket.to_text()?.as_str()).arg(folder);
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?)
}

async fn first_line(child: &mut Child) -> std::io::Result<String> {
    let mut line = String::new();
    let stdout = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    BufReader::new(stdout).read_line(&mut line).await?;
    Ok(line.trim().to_owned())
}

/// A worker, until its standard input is closed.
async fn worker(ticket: Ticket, folder: PathBuf) -> nurl_examples::Outcome {
    let mut builder = Node::builder(ticket);
    for kind in KINDS {
        let folder = folder.clone();
        builder = builder.handler(kind, move |context, line| {
            let folder = folder.clone();
            async move {
                match kind {
                    "fenced" => fenced(&folder, &context, &line).await,
                    _ => unfenced(&folder, &context, &line),
                }
            }
        });
    }
    let node = builder.spawn().await?;
    node.joined(PATIENCE).await?;
    println!("{}", node.key());
    let mut byte = [0];
    while matches!(tokio::io::stdin().read(&mut byte).await, Ok(1)) {}
    node.shutdown().await;
    Ok(())
}

fn unfenced(folder: &Path, context: &JobContext, line: &[u8]) -> Result<Bytes, JobError> {
    append(folder, context, line)?;
    die_once(folder);
    Ok(Bytes::from_static(b"appended"))
}

async fn fenced(folder: &Path, context: &JobContext, line: &[u8]) -> Result<Bytes, JobError> {
    let resource = open(folder).await.map_err(failed)?;
    let (key, token, task) = (&context.key[..], context.token, context.task.as_bytes());
    match resource.admit(Moment::now(), key, token, task, MAX_LIFE).map_err(failed)? {
        Admission::Admitted => {
            // If what follows returns early or panics, the task isn't left in progress.
            let _guard = resource.guard(key, token, task);
            append(folder, context, line)?;
            die_once(folder);
            // Nobody can have been admitted meanwhile: this process has the store open.
            let _in_time = resource.complete(key, token, task, b"appended").map_err(failed)?;
            Ok(Bytes::from_static(b"appended"))
        }
        Admission::Recorded(Outcome::Done(outcome)) => Ok(outcome.into()),
        Admission::Fenced { current } => Err(JobError::Fenced { current }),
        other => Err(JobError::retriable(format!("{other:?}"))),
    }
}

/// Opens the lease in the folder, when no other process has it open. The lock ends with its process, so a task that is in
/// progress then is that of a process that died.
async fn open(folder: &Path) -> Result<Resource, LeaseError> {
    let store = loop {
        match Store::open(&folder.join("lease.redb"), &mut rt::rng("lease")) {
            Err(StoreError::InUse { .. }) => time::sleep(Duration::from_millis(20)).await,
            opened => break opened?,
        }
    };
    let log = folder.join("log");
    Resource::open(Arc::new(store), Config::default(), Moment::now(), move |_, task| {
        match whole_lines(&log) {
            Ok(text) if text.lines().any(|line| line.starts_with(&hex(task))) => {
                Recovered::Done(b"appended".to_vec())
            }
            Ok(_) => Recovered::RolledBack,
            Err(_) => Recovered::Unknown,
        }
    })
}

/// The lines of the file, without one that was cut off: that one is removed.
fn whole_lines(log: &Path) -> std::io::Result<String> {
    let mut text = disk::read(log, LIMIT_BYTES)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < text.len() {
        disk::File::open(log)?.set_len(whole as u64)?;
        text.truncate(whole);
    }
    String::from_utf8(text).map_err(|_| std::io::ErrorKind::InvalidData.into())
}

/// The effect: a line at the end of the file, durable.
fn append(folder: &Path, context: &JobContext, line: &[u8]) -> Result<(), JobError> {
    let write = || {
        let log = disk::File::open(&folder.join("log"))?;
        let line = [context.task.to_string().as_bytes(), b" ", line, b"\n"].concat();
        log.write_all_at(&line, log.len()?)?;
        log.sync()
    };
    write().map_err(failed)
}

/// The first worker that comes here dies at once, as by a power loss.
fn die_once(folder: &Path) {
    if disk::create_new_private(&folder.join("died"), b"").is_ok() {
        std::process::exit(1);
    }
}

fn failed(error: impl std::fmt::Display) -> JobError {
    JobError::retriable(error.to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
