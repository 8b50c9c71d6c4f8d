//! The plane on real threads, with a store whose disk takes as long as the test wants.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

use rand_core::SeedableRng as _;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::*;
use crate::compute::pool::Handlers;
use crate::key::PublicKey;
use crate::node::Role;
use crate::node::command::{NET_QUEUE, View};
use crate::node::event::Bus;
use crate::replication::replicator::{Confirm, Op};
use crate::ring::RingMember;
use crate::rt::sync::{oneshot, watch};
use crate::rt::task::{Plane, Planes};
use crate::store::Store;

/// A disk that syncs only while its gate is open, and counts the syncs.
#[derive(Debug)]
struct Gated {
    memory: InMemoryBackend,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
    syncs: AtomicUsize,
}

impl Gate {
    fn set_closed(&self, closed: bool) {
        *self.closed.lock().unwrap() = closed;
        self.opened.notify_all();
    }
}

impl StorageBackend for Gated {
    fn len(&self) -> std::io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        let closed = self.gate.closed.lock().unwrap();
        drop(self.gate.opened.wait_while(closed, |closed| *closed).unwrap());
        self.gate.syncs.fetch_add(1, SeqCst);
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.memory.write(offset, data)
    }
}

/// The plane of a mesh of one, and the other ends of its channels.
struct Lone {
    gate: Arc<Gate>,
    work: mpsc::Sender<WorkCommand>,
    _inputs: mpsc::Sender<WorkInput>,
    _views: watch::Sender<Arc<View>>,
    _net: (mpsc::Sender<NetCommand>, mpsc::Receiver<NetCommand>),
    planes: Planes,
}

fn lone() -> Lone {
    let gate = Arc::new(Gate::default());
    let gated = Gated { memory: InMemoryBackend::new(), gate: gate.clone() };
    let store = Store::on_backend(gated, &mut crate::rt::Rng::from_seed([1; 32])).unwrap();
    let (key, boot) = (PublicKey::from_bytes([1; 32]), 1);
    let me = RingMember {
        key,
        boot,
        seed: [1; 8],
        weight: 1,
        zone: String::new(),
        kinds: Vec::new(),
        live: true,
        placed: true,
    };
    let planes = Planes::start("test", 1).unwrap();
    let (work, commands) = mpsc::channel(NET_QUEUE);
    let (_inputs, inputs) = mpsc::channel(NET_QUEUE);
    let (_views, views) = watch::channel(Arc::new(View { members: vec![me], complete: true, epoch: 0 }));
    let net = mpsc::channel(NET_QUEUE);
    let plane = WorkPlane::new(WorkParts {
        key,
        boot,
        role: Role::Worker,
        standing: None,
        planes: planes.clone(),
        handlers: Handlers::new(),
        store: Some(store),
        commands,
        inputs,
        views,
        net: net.0.downgrade(),
        bus: Bus::beginning_with(None),
    });
    let plane = plane.unwrap();
    planes.spawn(Plane::Work, async move { plane.run().await.map_err(|cause| format!("{cause:?}")) });
    Lone { gate, work, _inputs, _views, _net: net, planes }
}

impl Lone {
    async fn add(&self, name: &'static str) -> oneshot::Receiver<Result<(), Error>> {
        let (reply, answer) = oneshot::channel();
        let (name, op) = (Bytes::from_static(name.as_bytes()), Op::Add { by: 1 });
        let add = WorkCommand::Update { name, op, confirm: Confirm::default(), reply };
        self.work.send(add).await.unwrap();
        answer
    }

    async fn read(
        &self,
        name: &'static str,
    ) -> oneshot::Receiver<Result<crate::node::command::Found, Error>> {
        let (reply, answer) = oneshot::channel();
        let (kind, name) = (crate::replication::crdt::Kind::Counter, Bytes::from_static(name.as_bytes()));
        self.work.send(WorkCommand::Read { kind, name, reply }).await.unwrap();
        answer
    }

    /// The plane has taken everything that was sent before.
    async fn has_taken_all(&self) {
        let (reply, answer) = oneshot::channel();
        self.work.send(WorkCommand::Stats { reply }).await.unwrap();
        answer.await.unwrap();
    }
}

/// Runs a test on the thread of the caller.
fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn the_plane_goes_on_while_a_batch_is_synced_and_what_depends_on_it_waits() {
    run(async {
        let lone = lone();
        lone.add("before").await.await.unwrap().unwrap();
        lone.gate.set_closed(true);
        let mut first = lone.add("first").await;
        lone.has_taken_all().await;
        let mut later = Vec::new();
        for _ in 0..100 {
            later.push(lone.add("later").await);
        }
        let mut read = lone.read("first").await;
        // Neither the counters of the plane nor its end wait for the disk.
        lone.has_taken_all().await;
        assert!(first.try_recv().is_err(), "not on the disk yet");
        assert!(later.iter_mut().all(|answer| answer.try_recv().is_err()));
        assert!(read.try_recv().is_err(), "a crash could still undo what it would tell");
        let before = lone.gate.syncs.load(SeqCst);
        lone.gate.set_closed(false);
        first.await.unwrap().unwrap();
        for answer in later {
            answer.await.unwrap().unwrap();
        }
        read.await.unwrap().unwrap();
        // A commit has two or three syncs.
        let syncs = lone.gate.syncs.load(SeqCst) - before;
        assert!(syncs <= 2 * 3, "{syncs} syncs: the later writes share one commit");
        drop(lone.planes);
    });
}

#[test]
fn a_shutdown_waits_for_the_batch_under_way_and_makes_the_next_one_durable() {
    run(async {
        let lone = lone();
        lone.gate.set_closed(true);
        let first = lone.add("first").await;
        lone.has_taken_all().await;
        let next = lone.add("next").await;
        let (reply, mut left) = oneshot::channel();
        lone.work.send(WorkCommand::Shutdown { reply }).await.unwrap();
        lone.has_taken_all().await;
        assert!(left.try_recv().is_err(), "two writes aren't on the disk yet");
        lone.gate.set_closed(false);
        assert_eq!(left.await.unwrap(), Departure { lost: 0, stored: 2 });
        first.await.unwrap().unwrap();
        next.await.unwrap().unwrap();
    });
}
