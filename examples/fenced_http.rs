//! A fenced HTTP endpoint: jobs pay money into an account over HTTP, a worker is paused half-way, and the money is there
//! once. Beside it its unfenced twin, in which it is there twice.
//!
//! Each request carries the run's fencing token, the job's key and the task in headers, and the server asks a lease. A
//! worker that falls silent after its request and before its outcome (a long pause of its machine, say) is replaced by the
//! next one on the key's list, which requests the same again: the server answers with the outcome that it has recorded.
//! A request with a token below the last one that was admitted for the key gets a `412 Precondition Failed`.
//!
//! The payment and its outcome are one transaction of the lease's store, so the payment is made exactly once, also if the
//! server is killed. The program starts itself for each worker; one of them stops itself (`SIGSTOP`) after its first request.
//!
//! `cargo run -p nurl-examples --bin fenced_http`

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use nurl::config::Role;
use nurl::job::{JobContext, JobError, SubmitOptions, TaskId};
use nurl::lease::{
    Admission, Config, Epoch, LeaseError, MAX_LIFE, Moment, Outcome, Recovered, Resource, Store,
};
use nurl::rt::{self, disk};
use nurl::{Node, Ticket};
use nurl_examples::{PATIENCE, see_alive, soon};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

const KINDS: [&str; 2] = ["unfenced", "fenced"];
const KEY: &str = "account";
const AMOUNT: u64 = 10;

/// The longest head of a request: a few short headers.
const MAX_HEAD_BYTES: u64 = 4_096;

#[tokio::main]
async fn main() -> nurl_examples::Outcome {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(ticket), Some(server), Some(folder)) => {
            worker(ticket.parse()?, server.parse()?, folder.into()).await
        }
        _ => parent().await,
    }
}

async fn parent() -> nurl_examples::Outcome {
    let (hub, ticket) = nurl::hub::serve_new_mesh("127.0.0.1:0").await?;
    let folder = tempfile::tempdir()?;
    let store = Arc::new(Store::open(&folder.path().join("lease.redb"), &mut rt::rng("lease"))?);
    // A payment is made in one transaction with its outcome: without an outcome there was no payment.
    let resource = Resource::open(store, Config::default(), Moment::now(), |_, _| Recovered::RolledBack)?;
    let bank = Arc::new(Bank { resource, unfenced: AtomicU64::new(0) });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = listener.local_addr()?;
    rt::task::spawn(serve(listener, bank.clone()));

    for kind in KINDS {
        let mut workers = [start(&ticket, server, folder.path())?, start(&ticket, server, folder.path())?];
        let mut keys = Vec::new();
        for worker in &mut workers {
            keys.push(soon("a worker's key", first_line(worker)).await??.parse()?);
        }
        let client = Node::builder(ticket.clone()).role(Role::Observer).spawn().await?;
        see_alive(&client, &keys).await?;
        let task = client.submit(kind, KEY.as_bytes(), Bytes::new(), SubmitOptions::default()).await?;
        soon("the outcome", task.outcome()).await??;
        client.shutdown().await;
    }
    let paid = (bank.unfenced.load(Ordering::SeqCst), bank.balance()?);
    println!("unfenced: {AMOUNT} were to be paid in, and {} are there", paid.0);
    println!("fenced: {AMOUNT} were to be paid in, and {} are there", paid.1);
    assert_eq!(paid, (2 * AMOUNT, AMOUNT));

    // An owner of long ago.
    let request =
        Request { kind: "fenced".to_owned(), token: Epoch::ZERO, task: TaskId::from_bytes([9; 16]) };
    let (status, body) = request.send(server).await?;
    println!("a request under an old token: {status} {body}");
    assert_eq!((status, bank.balance()?), (412, AMOUNT));
    hub.shutdown().await;
    Ok(())
}

fn start(
    ticket: &Ticket,
    server: SocketAddr,
    folder: &Path,
) -> Result<Child, Box<dyn std::error::Error + Send + Sync>> {
    let mut command = Command::new(std::env::current_exe()?);
    // Other users can see the secret on the command line, which is acceptable for a mesh that lives for seconds.
    command.arg(ticket.to_text()?.as_str()).arg(server.to_string()).arg(folder);
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?)
}

async fn first_line(child: &mut Child) -> io::Result<String> {
    let mut line = String::new();
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    BufReader::new(stdout).read_line(&mut line).await?;
    Ok(line.trim().to_owned())
}

/// A worker, until its standard input is closed.
async fn worker(ticket: Ticket, server: SocketAddr, folder: PathBuf) -> nurl_examples::Outcome {
    let mut builder = Node::builder(ticket);
    for kind in KINDS {
        let paused = folder.join(format!("{kind}-paused"));
        builder = builder.handler(kind, move |context, _| pay(server, kind, context, paused.clone()));
    }
    let node = builder.spawn().await?;
    node.joined(PATIENCE).await?;
    println!("{}", node.key());
    let mut byte = [0];
    while matches!(tokio::io::stdin().read(&mut byte).await, Ok(1)) {}
    node.shutdown().await;
    Ok(())
}

async fn pay(
    server: SocketAddr,
    kind: &str,
    context: JobContext,
    paused: PathBuf,
) -> Result<Bytes, JobError> {
    let failed = |error: io::Error| JobError::retriable(error.to_string());
    let request = Request { kind: kind.to_owned(), token: context.token, task: context.task };
    let (status, body) = request.send(server).await.map_err(failed)?;
    // The first worker that comes here falls silent.
    if disk::create_new_private(&paused, b"").is_ok() {
        let me = std::process::id().to_string();
        let _ = Command::new("kill").args(["-STOP", &me]).status().await.map_err(failed)?;
    }
    match status {
        200 => Ok(body.into()),
        412 => Err(JobError::permanent(body)),
        _ => Err(JobError::retriable(body)),
    }
}

/// A request to pay.
struct Request {
    kind: String,
    token: Epoch,
    task: TaskId,
}

impl Request {
    async fn send(&self, server: SocketAddr) -> io::Result<(u16, String)> {
        let Request { kind, token, task } = self;
        let mut stream = TcpStream::connect(server).await?;
        let head = format!(
            "POST /{kind} HTTP/1.1\r\nHost: {server}\r\nNurl-Key: {KEY}\r\nNurl-Task: {task}\r\nNurl-Token: {token}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        status.zip(body).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Reads a request's head.
    async fn receive(stream: &mut TcpStream) -> io::Result<Option<Request>> {
        let mut lines = BufReader::new(stream.take(MAX_HEAD_BYTES)).lines();
        let first = lines.next_line().await?.unwrap_or_default();
        let kind = first.strip_prefix("POST /").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
        let (mut token, mut task) = (None, None);
        while let Some(line) = lines.next_line().await? {
            match line.split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("nurl-token") => token = value.parse().ok(),
                Some((name, value)) if name.eq_ignore_ascii_case("nurl-task") => task = value.parse().ok(),
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        Ok(kind.zip(token).zip(task).map(|((kind, token), task)| Request { kind, token, task }))
    }
}

/// The accounts: one behind a lease, one without.
struct Bank {
    resource: Resource,
    unfenced: AtomicU64,
}

impl Bank {
    /// The status and the body of the answer.
    fn answer(&self, request: Option<Request>) -> (&'static str, String) {
        match request {
            Some(request) if request.kind == "fenced" => {
                self.fenced(&request).unwrap_or_else(|error| ("500 Internal Server Error", error.to_string()))
            }
            Some(_) => ("200 OK", (self.unfenced.fetch_add(AMOUNT, Ordering::SeqCst) + AMOUNT).to_string()),
            None => ("400 Bad Request", "Nurl-Token or Nurl-Task is missing".to_owned()),
        }
    }

    fn fenced(&self, request: &Request) -> Result<(&'static str, String), LeaseError> {
        let (key, token, task) = (KEY.as_bytes(), request.token, request.task.as_bytes());
        Ok(match self.resource.admit(Moment::now(), key, token, task, MAX_LIFE)? {
            Admission::Admitted => {
                // If the payment fails, the task isn't left in progress.
                let _guard = self.resource.guard(key, token, task);
                let balance = self.balance()? + AMOUNT;
                let outcome = balance.to_string();
                self.resource.commit_with(key, token, task, outcome.as_bytes(), |effects| {
                    effects.put(KEY.as_bytes(), &balance.to_le_bytes())
                })?;
                ("200 OK", outcome)
            }
            Admission::Recorded(Outcome::Done(outcome)) => {
                ("200 OK", String::from_utf8_lossy(&outcome).into_owned())
            }
            Admission::Fenced { current } => {
                ("412 Precondition Failed", format!("the token is below {current}"))
            }
            other => ("409 Conflict", format!("{other:?}")),
        })
    }

    fn balance(&self) -> Result<u64, LeaseError> {
        let bytes = self.resource.store().effect(KEY.as_bytes())?;
        Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes))
    }
}

/// Serves requests, one after the other.
async fn serve(listener: TcpListener, bank: Arc<Bank>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        // A client that hangs up, or sends nothing for long, gets no answer.
        let Ok(Ok(request)) = soon("a request", Request::receive(&mut stream)).await else { continue };
        let (status, body) = bank.answer(request);
        let len = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}");
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}
