//! The ring of the present view, and the callers that wait for a first view.

use std::sync::Arc;

use crate::compute::job;
use crate::error::Error;
use crate::key::PublicKey;
use crate::node::command::{MAX_JOINING, Reply, TOO_MANY_JOINING, View};
use crate::ring::{Ring, RingMember};

/// What the views have told.
#[derive(Default)]
pub(super) struct Placing {
    /// The members from which `ring` was made, once there was a view.
    members: Option<Vec<RingMember>>,
    ring: Arc<Ring>,
    /// Whether a view was complete.
    complete: bool,
    /// Callers that wait for a complete view.
    joining: Vec<Reply<Result<(), Error>>>,
}

impl Placing {
    /// The ring of a view, if it is another one. A view may differ in its epoch alone; then the ring stays.
    pub(super) fn ring_of(&mut self, view: &View) -> Option<Arc<Ring>> {
        if self.members.as_ref() == Some(&view.members) {
            return None;
        }
        self.members = Some(view.members.clone());
        self.ring = Arc::new(self.ring.followed_by(view.members.iter().cloned()));
        let placed = view.members.iter().filter(|member| member.placed).count();
        tracing::debug!(target: "nurl::ring", placed, epoch = view.epoch, "the owners of keys are computed anew");
        Some(self.ring.clone())
    }

    /// The ring of the last view.
    pub(super) fn ring(&self) -> Arc<Ring> {
        self.ring.clone()
    }

    /// Whether there was a complete view.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether the view is the first complete one.
    pub(super) fn completes(&mut self, view: &View) -> bool {
        let first = view.complete && !self.complete;
        self.complete |= view.complete;
        first
    }

    /// Answers a caller once a view is complete.
    pub(super) fn await_join(&mut self, reply: Reply<Result<(), Error>>) {
        self.joining.retain(|reply| !reply.is_closed());
        if self.complete {
            // An error means that the caller gave up.
            let _ = reply.send(Ok(()));
        } else if self.joining.len() < MAX_JOINING {
            self.joining.push(reply);
        } else {
            let _ = reply.send(Err(TOO_MANY_JOINING));
        }
    }

    /// Answers the callers that wait.
    pub(super) fn tell_joined(&mut self) {
        for reply in self.joining.drain(..) {
            // An error means that the caller gave up.
            let _ = reply.send(Ok(()));
        }
    }
}

impl job::Placement for Ring {
    fn executors(&self, kind: &str, key: &[u8]) -> Vec<PublicKey> {
        Ring::executors(self, kind, key)
    }

    fn owners(&self, key: &[u8], replicas: usize) -> Vec<PublicKey> {
        Ring::owners(self, key, replicas)
    }

    fn has_kind(&self, kind: &str) -> bool {
        Ring::has_kind(self, kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::sync::oneshot;

    #[test]
    fn only_a_view_with_other_members_makes_a_ring_and_only_one_completes() {
        // The view's epoch and completeness; whether it makes a ring; whether it completes.
        let table = [
            (0, false, true, false),
            (1, false, false, false),
            (1, true, false, true),
            (2, true, false, false),
        ];
        let mut placing = Placing::default();
        for (epoch, complete, ring, completes) in table {
            let view = View { members: Vec::new(), complete, epoch };
            assert_eq!(placing.ring_of(&view).is_some(), ring, "{epoch} {complete}");
            assert_eq!(placing.completes(&view), completes, "{epoch} {complete}");
        }
    }

    #[test]
    fn a_caller_waits_for_the_first_complete_view_and_a_later_one_does_not() {
        let mut placing = Placing::default();
        let (reply, mut early) = oneshot::channel();
        placing.await_join(reply);
        assert!(early.try_recv().is_err());
        assert!(placing.completes(&View { complete: true, ..View::default() }));
        placing.tell_joined();
        assert!(matches!(early.try_recv(), Ok(Ok(()))));
        let (reply, mut late) = oneshot::channel();
        placing.await_join(reply);
        assert!(matches!(late.try_recv(), Ok(Ok(()))));
    }

    #[test]
    fn one_caller_too_many_is_told_so() {
        let mut placing = Placing::default();
        let mut waiting: Vec<_> = (0..=MAX_JOINING)
            .map(|_| {
                let (reply, answer) = oneshot::channel();
                placing.await_join(reply);
                answer
            })
            .collect();
        assert!(matches!(waiting.pop().unwrap().try_recv(), Ok(Err(Error::Busy(_)))));
        assert!(waiting.pop().unwrap().try_recv().is_err(), "it still waits");
    }
}
