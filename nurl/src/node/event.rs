//! What a node tells those who watch it.
//!
//! Every subscriber has a bounded queue of its own. One that doesn't keep up loses the newest events and
//! learns how many ([`NodeEvent::Lagged`]); it never delays the node or another subscriber.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::compute::job::TaskId;
use crate::key::PublicKey;
use crate::membership::State;
use crate::rt::sync::mpsc;

/// Events that a subscriber may fall behind by.
pub(super) const QUEUE: usize = 1024;

/// The most subscribers of one node; more are refused an own queue and see an ended stream.
pub(super) const SUBSCRIBERS: usize = 64;

/// Something happened at this node or in its view of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeEvent {
    /// The control connection to a hub came up.
    HubUp {
        /// The hub.
        hub: PublicKey,
    },
    /// The control connection to a hub is down; it is tried again by itself.
    HubDown {
        /// The hub.
        hub: PublicKey,
        /// Why, in one word.
        reason: &'static str,
    },
    /// A member's state changed in this node's view.
    Member {
        /// The member.
        peer: PublicKey,
        /// Its state now.
        state: State,
        /// The incarnation that the state belongs to.
        incarnation: u64,
    },
    /// A member's process was started anew.
    Restarted {
        /// The member.
        peer: PublicKey,
    },
    /// The way to a peer changed.
    Path {
        /// The peer.
        peer: PublicKey,
        /// Whether datagrams go straight to it, not through a hub.
        direct: bool,
        /// Its address, if direct.
        addr: Option<SocketAddr>,
        /// Why it is so, in one word for machines.
        reason: &'static str,
    },
    /// This node began to run a task.
    JobStarted {
        /// The task.
        task: TaskId,
        /// Its kind.
        kind: String,
    },
    /// This node has run a task.
    JobFinished {
        /// The task.
        task: TaskId,
        /// Its kind.
        kind: String,
        /// What went wrong, if anything did.
        error: Option<String>,
    },
    /// This node saw that it is cut off from the mesh (true), or no longer is.
    Isolated(bool),
    /// The node's store failed, so it runs no jobs and holds no state any more: shut it down, mend the disk,
    /// start it again.
    StoreFailed {
        /// What the store said.
        reason: String,
    },
    /// A UDP socket fails each receive, so the node has ended.
    SocketFailed {
        /// The operating system's word.
        reason: String,
    },
    /// The subscriber was too slow: so many events were dropped here.
    Lagged(u64),
}

/// A subscription; see [`super::Node::events`].
#[derive(Debug)]
pub struct Events(mpsc::Receiver<NodeEvent>);

impl Events {
    /// The next event; `None` when the node has shut down. Cancel safe.
    pub async fn next(&mut self) -> Option<NodeEvent> {
        self.0.recv().await
    }
}

#[derive(Debug)]
struct Subscriber {
    queue: mpsc::Sender<NodeEvent>,
    lost: u64,
}

/// The node's side: hands each event to every subscriber.
#[derive(Debug, Clone, Default)]
pub(super) struct Bus(Arc<Mutex<Vec<Subscriber>>>);

impl Bus {
    pub(super) fn subscribe(&self) -> Events {
        let (queue, events) = mpsc::channel(QUEUE);
        let mut subscribers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if subscribers.len() < SUBSCRIBERS {
            subscribers.push(Subscriber { queue, lost: 0 });
        }
        Events(events)
    }

    pub(super) fn send(&self, event: &NodeEvent) {
        let mut subscribers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain_mut(|subscriber| {
            if subscriber.lost > 0 && subscriber.queue.try_send(NodeEvent::Lagged(subscriber.lost)).is_ok() {
                subscriber.lost = 0;
            }
            match subscriber.queue.try_send(event.clone()) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    subscriber.lost += 1;
                    true
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            }
        });
    }

    /// Ends every subscription.
    pub(super) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_subscriber_learns_how_much_it_lost_and_delays_nobody() {
        crate::rt::contract::run(async {
            let bus = Bus::default();
            let (mut slow, mut quick) = (bus.subscribe(), bus.subscribe());
            for n in 0..QUEUE + 5 {
                bus.send(&NodeEvent::Isolated(n % 2 == 0));
                assert!(quick.next().await.is_some());
            }
            for _ in 0..2 {
                slow.next().await.unwrap();
            }
            bus.send(&NodeEvent::Isolated(true));
            let mut last_two = Vec::new();
            bus.close();
            while let Some(event) = slow.next().await {
                last_two.push(event);
            }
            let tail = &last_two[last_two.len() - 2..];
            assert_eq!(tail, [NodeEvent::Lagged(5), NodeEvent::Isolated(true)]);
        });
    }

    #[test]
    fn subscribers_are_bounded() {
        crate::rt::contract::run(async {
            let bus = Bus::default();
            let kept: Vec<_> = (0..SUBSCRIBERS).map(|_| bus.subscribe()).collect();
            assert!(bus.subscribe().next().await.is_none());
            drop(kept);
            bus.send(&NodeEvent::Isolated(true));
            assert!(bus.0.lock().unwrap().is_empty());
        });
    }
}
