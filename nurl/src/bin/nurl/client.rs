//! Joining a mesh from the command line.

use std::path::Path;
use std::time::Duration;

use nurl::membership::{Roles, State};
use nurl::node::{Builder, Events, Role};
use nurl::rt::{disk, time};
use nurl::{Node, Ticket};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::MeshArgs;
use crate::out::{Code, Failure, Out, shown, unusable};

/// How often the members are looked at while something is awaited of them.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How a ticket begins, as the library writes it.
const TICKET_BEGINS: &str = "nurlmesh1";

/// The longest ticket file: the text form and a newline.
const TICKET_FILE_LIMIT_BYTES: u64 = 4_096;

/// Reads a ticket, or the file that holds it. A ticket is never shown whole, whatever is wrong with it.
pub(crate) fn ticket(text: &str) -> Result<Ticket, Failure> {
    let text = text.trim();
    if text.is_empty() {
        let message =
            "the ticket is empty: give --mesh or NURL_MESH a ticket (nurlmesh1…) or a file that holds one";
        return Err(Failure::new(Code::Usage, message));
    }
    // In capitals, too: QR codes hold those best.
    if text.get(..TICKET_BEGINS.len()).is_some_and(|begins| begins.eq_ignore_ascii_case(TICKET_BEGINS)) {
        return text.parse().map_err(|error| Failure::new(Code::Usage, format!("{error}")));
    }
    let bytes = disk::read(Path::new(text), TICKET_FILE_LIMIT_BYTES).map_err(|error| {
        unusable(Path::new(text), &error, "give a ticket (nurlmesh1…) or a file that holds one")
    })?;
    String::from_utf8_lossy(&bytes)
        .trim()
        .parse()
        .map_err(|error| Failure::new(Code::Usage, format!("{}: {error}", shown(text))))
}

/// A node that submits work or looks around: it owns no keys and is not gossiped about.
pub(crate) async fn observer(mesh: &MeshArgs, out: Out) -> Result<Node, Failure> {
    let _waiting = out.waiting("looking for the mesh");
    let (node, _) = join(Node::builder(ticket(&mesh.mesh)?).role(Role::Observer), mesh.join).await?;
    Ok(node)
}

/// Spawns a node and waits until it is in the mesh; the events are all since its start.
pub(crate) async fn join(builder: Builder, limit: Duration) -> Result<(Node, Events), Failure> {
    let node = builder.spawn().await?;
    let events = node.events();
    match node.joined(limit).await {
        Ok(()) => Ok((node, events)),
        Err(error) => {
            node.shutdown().await;
            Err(error.into())
        }
    }
}

/// Waits until a worker is known. A hub that was just restarted knows nobody until its clients are back.
pub(crate) async fn some_worker(node: &Node, limit: Duration, out: Out) -> Result<(), Failure> {
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

/// Waits for Ctrl-C or SIGTERM, or, if asked, for the end of standard input. From the call on, not only from the first
/// poll, a signal ends this wait and not the process: call it before anybody is told that there is something to stop.
pub(crate) fn told_to_stop(with_stdin: bool) -> impl Future<Output = ()> {
    let (interrupted, terminated) = (signalled(SignalKind::interrupt()), signalled(SignalKind::terminate()));
    let stdin = async move {
        if !with_stdin {
            return std::future::pending().await;
        }
        let mut sink = [0; 256];
        let mut stdin = tokio::io::stdin();
        while matches!(stdin.read(&mut sink).await, Ok(n) if n > 0) {}
    };
    async move {
        nurl::rt::select! {
            () = interrupted => {}
            () = terminated => {}
            () = stdin => {}
        }
    }
}

/// Waits for a signal, whose handler is in place when this returns. Without one there is nothing to wait for, and the
/// default action ends us.
fn signalled(kind: SignalKind) -> impl Future<Output = ()> {
    let handler = signal(kind);
    async move {
        match handler {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    }
}

/// Runs a command's work until it is done or the person interrupts it.
pub(crate) async fn until_interrupted<T>(
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    nurl::rt::select! {
        done = work => done,
        () = told_to_stop(false) => Err(Failure::new(Code::Interrupted, "interrupted")),
    }
}
