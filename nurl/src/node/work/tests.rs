//! The plane on real threads, with a store whose disk takes as long as the test wants.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

use rand_core::SeedableRng as _;
use redb::StorageBackend;

use super::*;
use crate::authority::key::AuthorityKey;
use crate::compute::blob::desk::Desk;
use crate::compute::pool::Handlers;
use crate::error::StateError;
use crate::key::{PublicKey, SecretKey};
use crate::node::Role;
use crate::node::command::{NET_QUEUE, View};
use crate::node::event::Bus;
use crate::replication::crdt::Value;
use crate::replication::replicator::{Confirm, Op, UpdateError};
use crate::ring::RingMember;
use crate::rt::sync::{oneshot, watch};
use crate::rt::task::{Plane, Planes};
use crate::store::Store;
use crate::store::faulty::Faulty;

/// A disk that syncs only while its gate is open, and counts the syncs.
#[derive(Debug)]
struct Gated {
    disk: Faulty,
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
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        let closed = self.gate.closed.lock().unwrap();
        drop(self.gate.opened.wait_while(closed, |closed| *closed).unwrap());
        self.gate.syncs.fetch_add(1, SeqCst);
        self.disk.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.disk.write(offset, data)
    }
}

/// The plane of a mesh of one, and the other ends of its channels.
struct Lone {
    disk: Faulty,
    gate: Arc<Gate>,
    work: mpsc::Sender<WorkCommand>,
    _inputs: mpsc::Sender<WorkInput>,
    _views: watch::Sender<Arc<View>>,
    _net: (mpsc::Sender<NetCommand>, mpsc::Receiver<NetCommand>),
    planes: Planes,
}

fn lone() -> Lone {
    let gate = Arc::new(Gate::default());
    let disk = Faulty::default();
    let (at, under) = (gate.clone(), disk.clone());
    let gated = move || Gated { disk: under.clone(), gate: at.clone() };
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
        pass: None,
        holder: SecretKey::generate(&mut crate::rt::Rng::from_seed([1; 32])),
        mesh: AuthorityKey::from_seed(&[1; 32]).mesh(),
        revoked: Vec::new(),
        planes: planes.clone(),
        handlers: Handlers::new(),
        store: Some(store),
        commands,
        inputs,
        views,
        net: net.0.downgrade(),
        bus: Bus::beginning_with(None),
        desk: Desk::new(None, planes.clone()).0,
        large_stats: Arc::default(),
    });
    let plane = plane.unwrap();
    planes.spawn(Plane::Work, async move { plane.run().await.map_err(|cause| format!("{cause:?}")) });
    Lone { disk, gate, work, _inputs, _views, _net: net, planes }
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

    /// What a counter shows.
    async fn counted(&self, name: &'static str) -> Option<i128> {
        let found = self.read(name).await.await.unwrap().unwrap();
        match found.value {
            Some(Value::Counter(counter)) if !found.partial => Some(counter.value()),
            _ => None,
        }
    }

    async fn stats(&self) -> WorkStats {
        let (reply, answer) = oneshot::channel();
        self.work.send(WorkCommand::Stats { reply }).await.unwrap();
        answer.await.unwrap()
    }

    /// The plane has taken everything that was sent before.
    async fn has_taken_all(&self) {
        self.stats().await;
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

#[test]
fn a_full_disk_refuses_writes_while_reads_tell_what_is_on_it_and_takes_them_when_there_is_room() {
    run(async {
        let mut lone = lone();
        lone.add("count").await.await.unwrap().unwrap();
        lone.gate.set_closed(true);
        let under_way = lone.add("count").await;
        lone.has_taken_all().await;
        // Of a value that would count the write under way.
        let read = lone.read("count").await;
        lone.disk.set_full(true);
        lone.gate.set_closed(false);
        let failed = under_way.await.unwrap();
        assert!(matches!(failed, Err(Error::State(StateError::Disk(_)))), "{failed:?}");
        let read = read.await.unwrap().unwrap();
        assert!(matches!(read.value, Some(Value::Counter(counter)) if counter.value() == 1 && !read.partial));
        let refused = lone.add("count").await.await.unwrap();
        let is_refused =
            |error: &Error| matches!(error, Error::State(StateError::Write(UpdateError::Disk(_))));
        assert!(refused.as_ref().is_err_and(is_refused), "{refused:?}");
        assert_eq!(lone.counted("count").await, Some(1));
        let stats = lone.stats().await;
        assert_eq!((stats.disk.failures, stats.disk.failing), (1, 1));
        loop {
            if let NetCommand::DiskFails(why) = lone._net.1.recv().await.unwrap() {
                break assert!(why.is_some_and(|why| why.contains("storage")));
            }
        }
        lone.disk.set_full(false);
        while lone.add("count").await.await.unwrap().is_err() {
            time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(lone.counted("count").await, Some(2));
        assert_eq!(lone.stats().await.disk.failing, 0);
    });
}
