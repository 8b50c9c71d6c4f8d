//! Joining a mesh from the command line.

use std::path::Path;
use std::time::Duration;

use nurl::config::Role;
use nurl::events::{Events, Roles, State};
use nurl::rt::{disk, time};
use nurl::{Builder, Node, Ticket};

use crate::args::MeshArgs;
use crate::identity::{Equipment, of_command};
use crate::out::{Code, Failure, Out, shown, unusable};
use crate::stop::Stop;
use crate::work::UnderWay;

/// How often the members are polled while a command waits for a change.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a client that ends may take to cancel its tasks and to leave: a few round trips through a busy relay. A
/// person who interrupted the command is waiting.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// How long the failure report of an interrupted command waits for its reader.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The prefix of a ticket, as the library writes it.
const TICKET_BEGINS: &str = "nurlmesh1";

/// The longest ticket file: the text form and a newline.
const TICKET_FILE_LIMIT_BYTES: u64 = 4_096;

/// Reads a ticket, or the file that holds it. An error never shows a ticket whole.
pub(crate) fn ticket(text: &str) -> Result<Ticket, Failure> {
    let text = text.trim();
    if text.is_empty() {
        let message =
            "the ticket is empty: give --mesh or NURL_MESH a ticket (nurlmesh1…) or a file that holds one";
        return Err(Failure::new(Code::Usage, message));
    }
    // Upper case is accepted too: it suits QR codes best.
    if text.get(..TICKET_BEGINS.len()).is_some_and(|begins| begins.eq_ignore_ascii_case(TICKET_BEGINS)) {
        return text.parse().map_err(|error| Failure::new(Code::Usage, format!("{error}")));
    }
    let bytes = disk::read_private(Path::new(text), TICKET_FILE_LIMIT_BYTES).map_err(|error| {
        unusable(Path::new(text), &error, "give a ticket (nurlmesh1…) or a file that holds one")
    })?;
    String::from_utf8_lossy(&bytes)
        .trim()
        .parse()
        .map_err(|error| Failure::new(Code::Usage, format!("{}: {error}", shown(text))))
}

/// Makes a state directory, or checks that nobody else can put files into the one that is there.
pub(crate) fn state_directory(path: &Path) -> Result<(), Failure> {
    disk::create_dir_all(path)
        .and_then(|()| disk::check_private_dir(path))
        .map_err(|error| unusable(path, &error, "choose another --state"))
}

/// Joins as an observer, to submit work or read the mesh: it owns no keys and is not gossiped about.
pub(crate) async fn observer(mesh: &MeshArgs, out: Out<'_>) -> Result<Node, Failure> {
    observer_with(mesh, None, out).await
}

/// As [`observer`], with a folder for large files.
async fn observer_with(mesh: &MeshArgs, large_files: Option<&Path>, out: Out<'_>) -> Result<Node, Failure> {
    let _waiting = out.waiting("looking for the mesh");
    let ticket = ticket(&mesh.mesh)?;
    let Equipment { key, holder, credential, first } =
        of_command(mesh.home.as_deref(), &ticket, mesh.join).await?;
    let mut builder = Node::builder(ticket).role(Role::Observer).key(key).holder(holder);
    if let Some(credential) = credential {
        builder = builder.credential(credential);
    }
    if let Some(path) = large_files {
        builder = builder.large_files(path);
    }
    let node = builder.spawn().await?;
    if let Some(identity) = first {
        identity.keep_passes(&node);
    }
    joined(node, mesh.join).await
}

/// Spawns a node and waits until it has joined; the returned events are all since its start.
pub(crate) async fn join(builder: Builder, limit: Duration) -> Result<(Node, Events), Failure> {
    let node = builder.spawn().await?;
    let events = node.events();
    Ok((joined(node, limit).await?, events))
}

/// Waits until a node has joined.
pub(crate) async fn joined(node: Node, limit: Duration) -> Result<Node, Failure> {
    match node.joined(limit).await {
        Ok(()) => Ok(node),
        Err(error) => {
            node.shutdown().await;
            Err(error.into())
        }
    }
}

/// Waits until a worker is known. A restarted hub knows no peer until its clients have reconnected.
pub(crate) async fn some_worker(node: &Node, limit: Duration, out: Out<'_>) -> Result<(), Failure> {
    let _waiting = out.waiting("waiting for a worker");
    let known = async {
        loop {
            let members = node.members().await?;
            if members.iter().any(|m| m.state == State::Alive && m.roles.contains(Roles::WORKER)) {
                return Ok(());
            }
            time::sleep(LOOK_EVERY).await;
        }
    };
    time::timeout(limit, known).await.unwrap_or_else(|_| {
        let message = format!("no worker is in the mesh within {limit:?}: start one with `nurl worker`");
        Err(Failure::new(Code::JobFailed, message))
    })
}

/// Runs a command's work until it is done or the person interrupts it.
pub(crate) async fn until_interrupted<T>(
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut stop = Stop::new(false);
    nurl::rt::select! {
        done = work => done,
        () = stop.told() => Err(interrupted()),
    }
}

fn interrupted() -> Failure {
    Failure::new(Code::Interrupted, "interrupted")
}

/// Joins a mesh with workers and runs a command's work on it, until it is done or the person interrupts it. Tasks
/// still under way are then cancelled, down to the program that a worker runs.
pub(crate) async fn with_workers<T>(
    mesh: &MeshArgs,
    out: Out<'_>,
    work: impl AsyncFnOnce(&Node, &UnderWay) -> Result<T, Failure>,
) -> Result<T, Failure> {
    with_workers_and_files(mesh, None, out, work).await
}

/// As [`with_workers`], with a folder for large files.
pub(crate) async fn with_workers_and_files<T>(
    mesh: &MeshArgs,
    large_files: Option<&Path>,
    out: Out<'_>,
    work: impl AsyncFnOnce(&Node, &UnderWay) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut stop = Stop::new(false);
    let node = nurl::rt::select! {
        node = observer_with(mesh, large_files, out) => node?,
        () = stop.told() => return Err(interrupted()),
    };
    let under_way = UnderWay::new();
    let done = {
        let work = async {
            some_worker(&node, mesh.join, out).await?;
            work(&node, &under_way).await
        };
        nurl::rt::select! {
            done = work => done,
            () = stop.told() => Err(interrupted()),
        }
    };
    let leave = async {
        under_way.all_ended().await;
        node.shutdown().await;
    };
    nurl::rt::select! {
        // Workers detect tasks that aren't cancelled by then.
        _ = time::timeout(LEAVE_WITHIN, leave) => {}
        () = stop.told() => {}
    }
    done
}

/// Reports a failure. An interrupted command doesn't wait for a hanging reader.
pub(crate) async fn last_words(failure: &Failure, out: Out<'_>) {
    let mut stop = Stop::new(false);
    let patience = async {
        match failure.code {
            Code::Interrupted => time::sleep(LAST_WORDS).await,
            _ => stop.told().await,
        }
    };
    nurl::rt::select! {
        () = out.fail(failure) => {}
        () = patience => {}
    }
}
