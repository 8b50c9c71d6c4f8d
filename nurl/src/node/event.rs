//! The events of a node, for its subscribers.
//!
//! Every subscriber has a bounded queue of its own. A slow subscriber loses the newest events and learns how many
//! ([`NodeEvent::Lagged`]); it never delays the node or another subscriber.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::authority::pass::Pass;
use crate::compute::job::TaskId;
use crate::key::PublicKey;
use crate::membership::State;
use crate::net::reach::hub_client::DownReason;
use crate::net::secure::securedgram::paths::PathReason;
use crate::net::secure::version::Versions;
use crate::rt::sync::mpsc;

/// The most events queued for one subscriber.
pub(super) const QUEUE: usize = 1024;

/// The most subscribers of one node; a further subscriber sees an ended stream.
pub(super) const SUBSCRIBERS: usize = 64;

/// An event at this node or in its view of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeEvent {
    /// The control connection to a hub came up.
    HubUp {
        /// The hub.
        hub: PublicKey,
    },
    /// The control connection to a hub is down; the node reconnects on its own.
    HubDown {
        /// The hub.
        hub: PublicKey,
        /// The cause.
        reason: DownReason,
    },
    /// The mesh's authority gave this node a pass, its first one or a new one.
    Issued {
        /// The pass.
        pass: Pass,
        /// Who issued it: a hub, or an issuer that the hub asked.
        issuer: PublicKey,
        /// The hub through which it came.
        hub: PublicKey,
    },
    /// The mesh's authority revoked a peer's pass: it is no member any more. If it is this node's own, the node has ended.
    Revoked {
        /// The peer.
        peer: PublicKey,
    },
    /// This node has the mesh's next secret.
    Rotated {
        /// Its number.
        generation: u32,
    },
    /// A peer has proved who it is, and there is no version that it and this node speak: there is no session with it. Each
    /// such peer is told once a minute while the two try.
    Incompatible {
        /// The peer.
        peer: PublicKey,
        /// What it speaks.
        theirs: Versions,
        /// What this node speaks.
        ours: Versions,
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
    /// A member's process was restarted.
    Restarted {
        /// The member.
        peer: PublicKey,
    },
    /// The path to a peer changed.
    Path {
        /// The peer.
        peer: PublicKey,
        /// Whether datagrams go directly to the peer, not through a hub.
        direct: bool,
        /// Its address, if direct.
        addr: Option<SocketAddr>,
        /// The cause of the change.
        reason: PathReason,
    },
    /// This node began to run a task.
    JobStarted {
        /// The task.
        task: TaskId,
        /// Its kind.
        kind: String,
    },
    /// This node finished a task.
    JobFinished {
        /// The task.
        task: TaskId,
        /// Its kind.
        kind: String,
        /// The failure, if the task failed.
        error: Option<String>,
    },
    /// What a member's application [gossips](super::Node::gossip). Not told to its author.
    Gossip {
        /// Who is said to have said it. Any member could have made it up.
        claimed: PublicKey,
        /// What was said.
        body: Bytes,
    },
    /// This node became isolated from the mesh (true), or no longer is.
    Isolated(bool),
    /// The store was damaged: it was set aside, and the node continues with a new one, as if it had lost its disk.
    /// Every subscriber gets this event first, however late it subscribes.
    StoreSetAside {
        /// Where the damaged file is now; `None` if the file no longer existed.
        path: Option<PathBuf>,
        /// The damage.
        reason: String,
    },
    /// The node's store failed, as on a full disk. The node goes on: it answers reads from what is on the disk, and refuses
    /// writes. What it learns isn't durable, such as revocations, which are in force nevertheless. It opens the store again
    /// within a minute after the disk works, or at its next start.
    StoreFailed {
        /// The store's error.
        reason: String,
    },
    /// The node's store works again, and so the node takes writes.
    StoreWorks,
    /// A UDP socket fails every receive, so the node has ended.
    SocketFailed {
        /// The operating system's error.
        reason: String,
    },
    /// The subscriber was too slow: this many events were dropped here.
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

/// The node's side: sends each event to every subscriber.
#[derive(Debug, Clone, Default)]
pub(super) struct Bus(Arc<Mutex<Subscribers>>);

#[derive(Debug, Default)]
struct Subscribers {
    list: Vec<Subscriber>,
    /// The first event for each subscriber, if there is one.
    first: Option<NodeEvent>,
    closed: bool,
}

impl Bus {
    /// A bus that sends `first` to every subscriber, however late it subscribes.
    pub(super) fn beginning_with(first: Option<NodeEvent>) -> Bus {
        if let Some(first) = &first {
            super::log::event(first);
        }
        Bus(Arc::new(Mutex::new(Subscribers { first, ..Subscribers::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, Subscribers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self) -> Events {
        let (queue, events) = mpsc::channel(QUEUE);
        let mut subscribers = self.lock();
        if let Some(first) = &subscribers.first {
            // A new queue is empty, so it has room.
            let _ = queue.try_send(first.clone());
        }
        if !subscribers.closed && subscribers.list.len() < SUBSCRIBERS {
            subscribers.list.push(Subscriber { queue, lost: 0 });
        }
        Events(events)
    }

    pub(super) fn send(&self, event: &NodeEvent) {
        super::log::event(event);
        self.lock().list.retain_mut(|subscriber| {
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

    /// Ends every subscription, including later ones.
    pub(super) fn close(&self) {
        let mut subscribers = self.lock();
        subscribers.closed = true;
        subscribers.list.clear();
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
            assert!(bus.lock().list.is_empty());
        });
    }

    #[test]
    fn a_late_subscriber_hears_what_stands_and_one_after_the_end_sees_the_end() {
        crate::rt::contract::run(async {
            let standing = NodeEvent::StoreSetAside { path: None, reason: "zeros".to_owned() };
            let bus = Bus::beginning_with(Some(standing.clone()));
            bus.send(&NodeEvent::Isolated(true));
            let mut late = bus.subscribe();
            bus.close();
            assert_eq!(late.next().await, Some(standing.clone()));
            assert_eq!(late.next().await, None);
            let mut after = bus.subscribe();
            assert_eq!(after.next().await, Some(standing));
            assert_eq!(after.next().await, None);
        });
    }
}
