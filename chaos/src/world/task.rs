//! Tasks, and the handles that wait for them.
//!
//! A panic is returned as a value to the task that awaits the handle. A panic that is not awaited would leave a host
//! that looks healthy and does less than it should, so it ends the run. That is the case if the handle hasn't been
//! polled yet, if the handle is gone, or if the handle is dropped without another poll.

use super::cpu::on_processor;
use super::panics::{self, CatchPanic};
use super::process;
use super::sim;
use madsim::runtime::NodeHandle;
use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// Runs `future` on a scheduling node.
#[track_caller]
pub(crate) fn spawn_on<F>(node: &NodeHandle, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    process::count_spawn();
    let hearing = Hearing::default();
    JoinHandle { task: node.spawn(hearing.clone().watch(CatchPanic::new(future))), hearing }
}

/// Runs `future` on the plane of the caller.
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    process::count_spawn();
    let hearing = Hearing::default();
    JoinHandle { task: madsim::task::spawn(hearing.clone().watch(CatchPanic::new(future))), hearing }
}

/// Whether a task's panic is awaited: shared by the task and its handle.
#[derive(Debug, Clone, Default)]
struct Hearing(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    /// Whether the handle has been polled, and not dropped since.
    awaited: bool,
    /// The message of a panic that the handle hasn't returned yet.
    untold: Option<String>,
}

impl Hearing {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a task's future to its end, or to its panic.
    async fn watch<F: Future>(self, future: CatchPanic<F>) -> Result<F::Output, String> {
        let ended = on_processor(future).await;
        if let Err(message) = &ended {
            if self.lock().awaited {
                let told = panics::told("a task", message);
                self.lock().untold = told;
            } else {
                panics::unheard("a task", message);
            }
        }
        ended
    }
}

/// Waits for a task. Dropping the handle doesn't end the task.
#[derive(Debug)]
pub struct JoinHandle<T> {
    task: madsim::task::JoinHandle<Result<T, String>>,
    hearing: Hearing,
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let untold = {
            let mut heard = self.hearing.lock();
            heard.awaited = false;
            heard.untold.take()
        };
        if let Some(why) = untold {
            sim::try_with(|sim| sim.fail(why));
        }
    }
}

impl<T> JoinHandle<T> {
    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// A handle that can end the task, and no more.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle(self.task.abort_handle())
    }
}

/// Ends a task whose result somebody else waits for. Dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct AbortHandle(madsim::task::AbortHandle);

impl AbortHandle {
    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.task).poll(cx);
        let mut heard = self.hearing.lock();
        heard.awaited = true;
        if polled.is_ready() {
            heard.untold = None;
        }
        polled.map(|ended| match ended {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(message)) => Err(JoinError::Panicked(message)),
            Err(_) => Err(JoinError::Cancelled),
        })
    }
}

/// Why a task gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// It panicked; the text is the panic's message.
    #[error("the task panicked: {0}")]
    Panicked(String),
    /// It was aborted, or its plane ended.
    #[error("the task was cancelled")]
    Cancelled,
}

impl JoinError {
    /// Whether the task panicked.
    pub fn is_panic(&self) -> bool {
        matches!(self, JoinError::Panicked(_))
    }

    /// Whether the task was ended before it had a result.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, JoinError::Cancelled)
    }

    /// The message of the panic, as the payload that [`resume_unwind`](std::panic::resume_unwind) takes.
    ///
    /// # Panics
    /// If the task didn't panic.
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self {
            JoinError::Panicked(message) => Box::new(message),
            JoinError::Cancelled => panic!("the task didn't panic: it was cancelled"),
        }
    }
}

impl From<JoinError> for std::io::Error {
    fn from(error: JoinError) -> std::io::Error {
        std::io::Error::other(error)
    }
}
