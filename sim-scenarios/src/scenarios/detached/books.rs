//! What the handlers did: each start of a run, and each run that goes on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use nurl::internals::compute::job::JobError;
use nurl::internals::compute::pool::JobContext;
use nurl::rt::{self, time};

use crate::cluster::{Cluster, Setup, secret, text};
use crate::lock::lock;

/// A process of a worker: its name, and its host's boot number.
type Process = (String, u32);

/// One run of a task.
#[derive(Debug, Clone)]
struct Start {
    at: Process,
    goes_on: bool,
}

/// The runs of each task, by its name.
#[derive(Clone, Default)]
pub(super) struct Books(Arc<Mutex<BTreeMap<String, Vec<Start>>>>);

/// One run that goes on until this is dropped: also the abort of a handler ends it.
struct Run {
    books: Books,
    name: String,
    number: usize,
}

impl Drop for Run {
    fn drop(&mut self) {
        lock(&self.books.0).get_mut(&self.name).expect("it was noted")[self.number].goes_on = false;
    }
}

impl Books {
    fn start(&self, name: &str, at: Process) -> Run {
        let mut books = lock(&self.0);
        let runs = books.entry(name.to_owned()).or_default();
        runs.push(Start { at, goes_on: true });
        Run { books: self.clone(), name: name.to_owned(), number: runs.len() - 1 }
    }

    /// A handler that takes so long, and has another result in each run. It ends at once when it is cancelled.
    pub(super) async fn handle(
        self,
        setup: Setup,
        takes: Duration,
        context: JobContext,
        payload: Bytes,
    ) -> Result<Bytes, JobError> {
        let run = self.start(&text(&payload), (setup.name, setup.host.boot()));
        rt::select! {
            () = context.cancelled() => Err(JobError::Cancelled),
            () = time::sleep(takes) => Ok(result(&run.name, run.number)),
        }
    }

    /// How often a task was begun.
    pub(super) fn starts(&self, name: &str) -> usize {
        lock(&self.0).get(name).map_or(0, Vec::len)
    }

    /// Whether this is the result of one of the task's runs.
    pub(super) fn is_result(&self, name: &str, bytes: &Bytes) -> bool {
        (0..self.starts(name)).any(|number| result(name, number) == *bytes)
    }

    /// The workers that run a task now.
    pub(super) fn running(&self, cluster: &Cluster, name: &str) -> Vec<String> {
        let books = lock(&self.0);
        let runs = books.get(name).into_iter().flatten();
        runs.filter(|start| start.goes_on && lives(cluster, &start.at))
            .map(|start| start.at.0.clone())
            .collect()
    }

    /// What is wrong with the number of a task's runs. A process that was killed may have had the only news of its run, so
    /// each such process permits one more.
    pub(super) fn too_many(&self, cluster: &Cluster, name: &str) -> Option<String> {
        let books = lock(&self.0);
        let runs = books.get(name)?;
        let lost = runs.iter().filter(|start| !lives(cluster, &start.at)).count();
        (runs.len() > lost + 1)
            .then(|| format!("{name} ran {} times, {lost} of them in killed processes", runs.len()))
    }
}

fn result(name: &str, number: usize) -> Bytes {
    secret(&format!("{name}, run {number}"))
}

/// Whether a process is its host's present one, and runs.
fn lives(cluster: &Cluster, (name, boot): &Process) -> bool {
    cluster.running().any(|peer| peer.name == *name && peer.host.boot() == *boot)
}
