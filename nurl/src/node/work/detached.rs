//! Calls on detached tasks, and the callers that wait for their answers.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::compute::job::custody::{Custody, CustodyError, Told};
use crate::error::Error;
use crate::node::command::{DetachedCall, Reply};

/// The calls under way, by the log's ids. The log bounds them.
#[derive(Default)]
pub(super) struct DetachedCalls(BTreeMap<u64, Reply<Result<Told, Error>>>);

impl DetachedCalls {
    /// Makes a call.
    pub(super) fn open(
        &mut self,
        now: Instant,
        custody: &mut Custody,
        call: DetachedCall,
        reply: Reply<Result<Told, Error>>,
    ) {
        let begun = match call {
            DetachedCall::Deposit { task, kind, key, payload, job } => {
                custody.deposit(now, task, (&kind, &key, payload), &job)
            }
            DetachedCall::Ask { task, seen, wait, outcome } => custody.ask(now, task, seen, wait, outcome),
            DetachedCall::Content { task } => custody.ask_terms(now, task),
            DetachedCall::Cancel { task } => custody.cancel(now, task),
            DetachedCall::List => custody.list(now),
        };
        match begun {
            Ok(id) => {
                self.0.insert(id, reply);
            }
            // An error means that the caller gave up.
            Err(error) => drop(reply.send(Err(error.into()))),
        }
    }

    /// Answers the caller whose call is over.
    pub(super) fn on_told(&mut self, id: u64, told: Result<Told, CustodyError>) {
        if let Some(reply) = self.0.remove(&id) {
            let _ = reply.send(told.map_err(Error::from));
        }
    }
}
