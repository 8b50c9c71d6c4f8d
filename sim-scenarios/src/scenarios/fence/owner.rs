//! The owner's handler: asks the resource repeatedly, until it has the effect's outcome or is fenced.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use chaos::world::World;
use nurl::internals::compute::job::{JobError, TaskId};
use nurl::internals::compute::pool::JobContext;
use nurl::rt::{self, time};
use rand_core::Rng as _;

use super::messages::{Answer, Request};
use super::resource::ResourceLog;
use crate::cluster::{Peer, secret};
use crate::lock::lock;

/// An owner waits up to this many milliseconds before it asks, so that the order of owners is drawn.
const HESITATES_MS: u64 = 4_000;

/// An owner asks again after this; the answer may have been lost, and so may the question.
const ASK_AGAIN: Duration = Duration::from_millis(400);

/// An owner sends each question up to this many times at once.
const COPIES: u64 = 3;

/// Answers by the number of the node, its boot and the task.
type Answers = BTreeMap<(usize, u32, TaskId), Answer>;

/// The shared state of all owners' handlers.
#[derive(Clone)]
pub(super) struct Owners {
    world: World,
    log: ResourceLog,
    /// All nodes, and the resource's index among them; set when all have been made.
    peers: Arc<OnceLock<(Vec<Peer>, usize)>>,
    /// Answers that were received by another run's loop.
    answers: Arc<Mutex<Answers>>,
}

impl Owners {
    pub(super) fn new(world: World, log: ResourceLog) -> Owners {
        Owners { world, log, peers: Arc::default(), answers: Arc::default() }
    }

    /// Sets the list of nodes.
    pub(super) fn meet(&self, peers: &[Peer], resource: usize) {
        assert!(self.peers.set((peers.to_vec(), resource)).is_ok(), "the nodes are made once");
    }

    /// The handler, run at node `at`.
    pub(super) async fn effect(self, at: usize, context: JobContext) -> Result<Bytes, JobError> {
        let Some((peers, resource)) = self.peers.get() else {
            return Err(JobError::retriable("not all nodes have been made"));
        };
        let (me, resource) = (&peers[at], peers[*resource].key);
        let boot = me.host.boot();
        self.log.record_token(me.key, boot, context.token.counter);
        let node = me.node(&self.world).await;
        let mut rng = rt::rng("owner");
        time::sleep(Duration::from_millis(rng.next_u64() % HESITATES_MS)).await;
        let request = Request {
            task: context.task,
            counter: context.token.counter,
            run: rng.next_u64(),
            key: String::from_utf8_lossy(&context.key).into_owned(),
        };
        let mine = (at, boot, context.task);
        self.received().remove(&mine);
        loop {
            let copies = 1 + rng.next_u64() % COPIES;
            let bodies = (0..copies).map(|_| request.encode()).collect();
            if let Err(error) = node.send_many(resource, bodies).await {
                return Err(JobError::retriable(error.to_string()));
            }
            let until = time::now() + ASK_AGAIN;
            while let Ok(Some(batch)) =
                time::timeout(until.saturating_duration_since(time::now()), node.recv_many()).await
            {
                let said = batch.iter().filter(|datagram| datagram.peer == resource);
                for (task, answer) in said.filter_map(|datagram| Answer::decode(&datagram.body)) {
                    self.received().insert((at, boot, task), answer);
                }
                if self.received().contains_key(&mine) {
                    break;
                }
            }
            let answer = self.received().remove(&mine);
            match answer {
                Some(Answer::Done(outcome)) => return Ok(secret(&outcome)),
                Some(Answer::Fenced(current)) if current > context.token => {
                    return Err(JobError::Fenced { current });
                }
                Some(Answer::Wait) => time::sleep_until(until).await,
                // A fence that answers an earlier run of this task here.
                Some(Answer::Fenced(_)) | None => {}
            }
        }
    }

    fn received(&self) -> MutexGuard<'_, Answers> {
        lock(&self.answers)
    }
}
