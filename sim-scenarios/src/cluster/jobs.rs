//! Jobs that a scenario submits, and the properties that every one of them must have.

use std::time::Duration;

use bytes::Bytes;
use chaos::property::Violation;
use nurl::internals::compute::job::{JobError, SubmitOptions};
use nurl::internals::node::Task;
use nurl::rt::time;

use super::{Cluster, Peer, secret};

/// How long a job may take before its submitter gives up on it.
const LIFE: Duration = Duration::from_secs(180);

/// Jobs under way. Each is named by its payload, which is also its key and its expected result.
pub struct Jobs<'a> {
    cluster: &'a Cluster,
    open: Vec<(String, String, Task)>,
}

impl<'a> Jobs<'a> {
    /// No jobs yet.
    pub fn new(cluster: &'a Cluster) -> Jobs<'a> {
        Jobs { cluster, open: Vec::new() }
    }

    /// Submits the job `name` of `kind` at a node.
    ///
    /// # Errors
    /// If the node refuses the job.
    pub async fn submit(&mut self, from: &Peer, kind: &str, name: &str) -> Result<(), Violation> {
        self.submit_with(from, kind, name, SubmitOptions { life: LIFE, ..SubmitOptions::default() }).await
    }

    /// Submits a job that any worker with the kind may run.
    ///
    /// # Errors
    /// If the node refuses the job.
    pub async fn submit_anywhere(&mut self, from: &Peer, kind: &str, name: &str) -> Result<(), Violation> {
        let options = SubmitOptions { life: LIFE, anywhere: true, ..SubmitOptions::default() };
        self.submit_with(from, kind, name, options).await
    }

    async fn submit_with(
        &mut self,
        from: &Peer,
        kind: &str,
        name: &str,
        options: SubmitOptions,
    ) -> Result<(), Violation> {
        let node = from.node(&self.cluster.world).await;
        match node.submit(kind, name.as_bytes(), secret(name), options).await {
            Ok(task) => self.open.push((from.name.clone(), name.to_owned(), task)),
            Err(error) => {
                return Err(Violation::safety(
                    "a node takes a job",
                    format!("{} refused: {error}", from.name),
                ));
            }
        }
        Ok(())
    }

    /// Waits for all jobs: each handle resolves once, with the right result, within `limit` from now.
    ///
    /// # Errors
    /// The property that broke.
    pub async fn settle(&mut self, limit: Duration) -> Result<usize, Violation> {
        let count = self.open.len();
        for (name, outcome) in self.outcomes(limit).await? {
            match outcome {
                Ok(result) if result == secret(&name) => {}
                other => {
                    let seen = format!("{name} came back as {other:?}");
                    return Err(Violation::safety("a job's result is its handler's", seen));
                }
            }
        }
        Ok(count)
    }

    /// Waits for all jobs within `limit` from now, and returns their outcomes whether they succeeded or not.
    ///
    /// # Errors
    /// If a handle isn't resolved by then.
    pub async fn outcomes(
        &mut self,
        limit: Duration,
    ) -> Result<Vec<(String, Result<Bytes, JobError>)>, Violation> {
        let until = self.cluster.world.elapsed() + limit;
        let mut ends = Vec::new();
        let mut late = Vec::new();
        for (by, name, task) in self.open.drain(..) {
            let left = until.saturating_sub(self.cluster.world.elapsed());
            // A handle that has already resolved is read even when no time is left.
            match time::timeout(left.max(Duration::from_millis(1)), self.cluster.witness.outcome(&by, task))
                .await
            {
                Ok(outcome) => ends.push((name, outcome)),
                Err(_) => late.push(name),
            }
        }
        if late.is_empty() {
            return Ok(ends);
        }
        let seen = format!("after {limit:?} no end of {}", late.join(", "));
        Err(Violation::liveness("every job's handle resolves in time", seen))
    }
}
