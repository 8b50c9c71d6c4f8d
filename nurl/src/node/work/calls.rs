//! Calls on replicated state, and the callers that wait for their answers.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use super::outcome;
use crate::error::{Error, StateError};
use crate::node::command::{Found, Reply, Watched};
use crate::replication::crdt::Kind;
use crate::replication::replicator::{NamePage, NameQuery, Replicator, ReplicatorEvent};
use crate::rt::sync::watch;

/// A call, and its caller.
pub(super) enum Call {
    /// A write.
    Update(Reply<Result<(), Error>>),
    /// A read of this object.
    Read(Kind, Bytes, Reply<Result<Found, Error>>),
    /// A list of names.
    List(NameQuery, Reply<Result<NamePage, Error>>),
}

/// A watch of an object.
struct WatchCall {
    kind: Kind,
    name: Bytes,
    found: watch::Sender<Option<Found>>,
}

/// The calls under way. The replicator bounds them: it ends a call over its limits at once.
#[derive(Default)]
pub(super) struct Calls {
    open: BTreeMap<u64, Call>,
    /// By the replicator's ids.
    watches: BTreeMap<u64, WatchCall>,
    /// The id of the last call.
    last: u64,
}

impl Calls {
    /// Gives an id to a call.
    pub(super) fn open(&mut self, call: Call) -> u64 {
        self.last += 1;
        self.open.insert(self.last, call);
        self.last
    }

    /// Begins to pass on what this watch finds.
    pub(super) fn watch(&mut self, id: u64, kind: Kind, name: Bytes) -> Watched {
        let (found, receiver) = watch::channel(None);
        self.watches.insert(id, WatchCall { kind, name, found });
        receiver
    }

    /// Forgets the watches whose findings nobody reads any more, and returns their ids.
    pub(super) fn unread_watches(&mut self) -> Vec<u64> {
        self.watches.extract_if(.., |_, watch| !watch.found.has_readers()).map(|(id, _)| id).collect()
    }

    /// Begins reads, lists and watches again with another replicator, which knows of none. The writes under way are over: this
    /// node can't tell whether they were made.
    pub(super) fn begin_again(&mut self, now: Instant, replicator: &mut Replicator, why: &str) {
        // An error of a reply means that the caller gave up.
        for (id, call) in std::mem::take(&mut self.open) {
            match &call {
                Call::Read(kind, name, _) => replicator.read(now, id, *kind, name),
                Call::List(query, _) => replicator.list(now, id, query.clone()),
                Call::Update(_) => {}
            }
            match call {
                Call::Update(reply) => drop(reply.send(Err(StateError::Disk(why.into()).into()))),
                call => drop(self.open.insert(id, call)),
            }
        }
        for watch in std::mem::take(&mut self.watches).into_values() {
            // There is as much room as before.
            if let Ok(id) = replicator.watch(now, watch.kind, &watch.name) {
                self.watches.insert(id, watch);
            }
        }
    }

    /// Answers the caller whose call is over.
    pub(super) fn on_event(&mut self, event: ReplicatorEvent) {
        // An error of a reply means that the caller gave up.
        match event {
            ReplicatorEvent::Updated { id, outcome } => {
                tracing::debug!(target: "nurl::state", id, ?outcome, "a write is over");
                if let Some(Call::Update(reply)) = self.open.remove(&id) {
                    let _ = reply.send(outcome.map_err(outcome::of_update));
                }
            }
            ReplicatorEvent::ReadDone { id, value, partial } => {
                if let Some(Call::Read(.., reply)) = self.open.remove(&id) {
                    let _ = reply.send(Ok(Found { value, partial }));
                }
            }
            ReplicatorEvent::ReadFailed { id, why } => {
                tracing::debug!(target: "nurl::state", id, ?why, "a read has failed");
                match self.open.remove(&id) {
                    Some(Call::Read(.., reply)) => drop(reply.send(Err(outcome::of_read(why)))),
                    Some(Call::List(_, reply)) => drop(reply.send(Err(outcome::of_read(why)))),
                    Some(Call::Update(_)) | None => {}
                }
            }
            ReplicatorEvent::Listed { id, page } => {
                if let Some(Call::List(_, reply)) = self.open.remove(&id) {
                    let _ = reply.send(Ok(page));
                }
            }
            ReplicatorEvent::Watched { id, value, partial } => {
                if let Some(watch) = self.watches.get(&id) {
                    watch.found.send(Some(Found { value, partial }));
                }
            }
            // Views converge by membership's own push-pull.
            ReplicatorEvent::ViewDiffers { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::replicator::ReadFailure;
    use crate::rt::sync::oneshot;

    #[test]
    fn each_caller_gets_its_own_answer_once() {
        let mut calls = Calls::default();
        let (reply, mut written) = oneshot::channel();
        let write = calls.open(Call::Update(reply));
        let (reply, mut read) = oneshot::channel();
        let failed = calls.open(Call::Read(Kind::Counter, Bytes::new(), reply));
        assert_ne!(write, failed);
        calls.on_event(ReplicatorEvent::ReadFailed { id: failed, why: ReadFailure::NoAnswer });
        assert!(matches!(read.try_recv(), Ok(Err(Error::State(StateError::NoAnswer)))));
        assert!(written.try_recv().is_err(), "the write is still under way");
        for _ in 0..2 {
            calls.on_event(ReplicatorEvent::Updated { id: write, outcome: Ok(()) });
        }
        assert!(matches!(written.try_recv(), Ok(Ok(()))));
        assert!(calls.open.is_empty());
    }
}
