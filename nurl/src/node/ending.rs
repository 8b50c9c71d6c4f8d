//! The unrequested end of a node: a plane panicked, or a store or a socket failed.
//!
//! A node with one plane would seem alive to the mesh without doing its work. So both planes end, and every later
//! call returns the cause.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use super::command::NetCommand;
use super::event::{Bus, NodeEvent};
use crate::Error;
use crate::error::RefusedBy;
use crate::key::PublicKey;
use crate::rt::sync::{mpsc, oneshot, watch};
use crate::rt::time;
use crate::store::StoreError;

/// How long a call without an answer waits to learn the cause. A plane that unwinds needs microseconds.
const WHY: Duration = Duration::from_secs(1);

/// Why a node ended on its own.
#[derive(Debug, Clone)]
pub(super) enum Cause {
    /// A defect.
    Panicked { plane: &'static str, message: String },
    /// The thread of the store's disk panicked.
    Store(Arc<StoreError>),
    /// The error of a socket that can't receive any more.
    Socket(String),
    /// The mesh's authority revoked the pass of this node.
    Revoked(PublicKey),
}

/// Runs one plane, and records why it ended.
pub(super) struct Guard {
    plane: &'static str,
    cause: Arc<OnceLock<Cause>>,
    bus: Bus,
    net: mpsc::WeakSender<NetCommand>,
    // Its drop signals that the plane has ended.
    _running: watch::Sender<()>,
}

/// Gives callers the reason why their plane has ended.
pub(super) struct Ending {
    cause: Arc<OnceLock<Cause>>,
    net: watch::Receiver<()>,
    work: watch::Receiver<()>,
}

/// A guard for the network plane, one for the work plane, and the receiver of both.
pub(super) fn guards(bus: &Bus, net: &mpsc::Sender<NetCommand>) -> (Guard, Guard, Ending) {
    let cause = Arc::new(OnceLock::new());
    let guard = |plane| {
        let (running, ended) = watch::channel(());
        let guard =
            Guard { plane, cause: cause.clone(), bus: bus.clone(), net: net.downgrade(), _running: running };
        (guard, ended)
    };
    let ((net_guard, net), (work_guard, work)) = (guard("network"), guard("work"));
    (net_guard, work_guard, Ending { cause, net, work })
}

impl Guard {
    /// Runs a plane to its end. A panic is resumed after the node has recorded it.
    pub(super) async fn run(self, plane: impl Future<Output = Result<(), Cause>>) {
        match caught(plane).await {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => self.end(cause).await,
            Err(panic) => {
                self.end(Cause::Panicked { plane: self.plane, message: message(&*panic) }).await;
                drop(self);
                resume_unwind(panic);
            }
        }
    }

    async fn end(&self, cause: Cause) {
        match &cause {
            Cause::Socket(reason) => self.bus.send(&NodeEvent::SocketFailed { reason: reason.clone() }),
            Cause::Revoked(own) => self.bus.send(&NodeEvent::Revoked { peer: *own }),
            Cause::Panicked { .. } | Cause::Store(_) => {}
        }
        // The first cause counts; later ones follow from it.
        let _ = self.cause.set(cause);
        self.bus.close();
        // A node without its work plane leaves the mesh, so that others take over its work and keys at once. An
        // error means that the network plane has ended already.
        if let Some(net) = self.net.upgrade() {
            let (reply, _) = oneshot::channel();
            let _ = net.send(NetCommand::Shutdown { reply }).await;
        }
    }
}

impl Ending {
    /// Why the node has ended on its own, if it has.
    pub(super) fn cause(&self) -> Option<Error> {
        self.cause.get().map(|cause| match cause.clone() {
            Cause::Panicked { plane, message } => Error::Panicked { plane, message },
            Cause::Store(error) => Error::Store(error),
            Cause::Socket(reason) => Error::Socket(reason),
            Cause::Revoked(_) => RefusedBy::Authority.into(),
        })
    }

    /// Why the network plane gave no answer.
    pub(super) async fn of_net(&self) -> Error {
        self.of(&self.net).await
    }

    /// Why the work plane gave no answer.
    pub(super) async fn of_work(&self) -> Error {
        self.of(&self.work).await
    }

    async fn of(&self, plane: &watch::Receiver<()>) -> Error {
        // A plane drops its callers before its end is recorded. Either error of this wait ends it.
        let _ = time::timeout(WHY, plane.clone().changed()).await;
        self.cause().unwrap_or(Error::Closed)
    }
}

/// The output of a future, or its panic.
async fn caught<T>(future: impl Future<Output = T>) -> Result<T, Box<dyn Any + Send>> {
    let mut future = Box::pin(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// The text of a panic.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
