//! Panics as values: a task's panic is caught, told to its awaiter, and else ends the run.

use super::pulse::Counted;
use super::sim;
use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// The future of a task. It returns panics as values, `Err` with the message, and its polls are counted.
pub(crate) struct CatchPanic<F> {
    future: Option<Pin<Box<F>>>,
    counted: Counted,
}

impl<F> CatchPanic<F> {
    /// The caller's place becomes the place where the task was spawned.
    #[track_caller]
    pub(crate) fn new(future: F) -> CatchPanic<F> {
        CatchPanic::spawned_at(Location::caller(), future)
    }

    /// A task that was spawned at `place`.
    pub(crate) fn spawned_at(place: &'static Location<'static>, future: F) -> CatchPanic<F> {
        CatchPanic { future: Some(Box::pin(future)), counted: Counted::new(place) }
    }
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.counted.begin();
        let future = self.future.as_mut().expect("polled again after its end");
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        self.counted.end();
        let caught = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(payload) => {
                sim::try_with(|sim| sim.record.stats.task_panics += 1);
                Err(panic_message(&*payload))
            }
        };
        // Drops the future's content now, as for a finished task, rather than with the handle.
        self.future = None;
        Poll::Ready(caught)
    }
}

thread_local! {
    /// The location of the last panic of this thread.
    static LAST_PANIC: Cell<Option<String>> = const { Cell::new(None) };

    /// Whether panics of this thread are printed.
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Does work in whose runs panics aren't printed: they are results, and a shrink makes dozens of them.
pub(crate) fn silently<T>(work: impl FnOnce() -> T) -> T {
    let before = SILENT.replace(true);
    let done = work();
    SILENT.set(before);
    done
}

/// The work for another thread, which will be as silent as this one.
pub(crate) fn as_silent<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let silent = SILENT.get();
    move || {
        SILENT.set(silent);
        work()
    }
}

/// From now on, panics record their location for [`panicked_at`]; they are printed as before, unless the thread is silent.
pub(crate) fn note_panic_locations() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if let Some(at) = info.location() {
            LAST_PANIC.set(Some(format!(", at {}:{}:{}", at.file(), at.line(), at.column())));
        }
        if !SILENT.get() {
            before(info);
        }
    }));
}

/// The location of the last panic of this thread, as the end of a message.
pub(crate) fn panicked_at() -> String {
    LAST_PANIC.take().unwrap_or_default()
}

pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no message)".to_owned())
}

/// Ends the run because the caller panicked and no task awaits it. A panic of an ended process is ignored: its tasks
/// may still run until the executor drops them, but have no effect.
pub(crate) fn unheard(what: &str, message: &str) {
    if let Some(why) = told(what, message) {
        sim::try_with(|sim| sim.fail(why));
    }
}

/// A message about a panic of the caller; `None` if the caller's process has ended.
pub(crate) fn told(what: &str, message: &str) -> Option<String> {
    let at = panicked_at();
    let whose = match sim::place() {
        Some(place) => sim::with(|sim| {
            let host = sim.host(place.host);
            host.runs(place.boot).then(|| format!("host {}", host.name))
        })?,
        None => "the scenario".to_owned(),
    };
    Some(format!("{what} of {whose} panicked: {message}{at}"))
}
