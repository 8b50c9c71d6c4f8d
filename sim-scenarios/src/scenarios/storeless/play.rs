//! What all acts share: the mesh, its objects, the books, writes and the agreement between two restarts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use chaos::property::Violation;
use chaos::world::World;
use nurl::Error;
use nurl::internals::node::Role;
use nurl::internals::replication::crdt::{Kind, Value};
use nurl::rt::{Rng, task};
use rand_core::Rng as _;

use super::books::{Books, Write};
use super::{AGREED, AGREES, KEPT, MET};
use crate::cluster::copies::Object;
use crate::cluster::{Cluster, Peer, secret};
use crate::lock::lock;

const COUNTERS: [&str; 7] =
    ["counter 0", "counter 1", "counter 2", "counter 3", "counter 4", "counter 5", "counter 6"];
const SETS: [&str; 7] = ["set 0", "set 1", "set 2", "set 3", "set 4", "set 5", "set 6"];
const REGISTERS: [&str; 6] =
    ["register 0", "register 1", "register 2", "register 3", "register 4", "register 5"];

/// The sum of each counter before the first restart, and the elements of the first set and of each other one.
const SUM: i64 = 1_000;
const MANY: usize = 100;
const SOME: usize = 20;

/// The objects, all kinds mixed.
pub(super) fn objects() -> Vec<Object<'static>> {
    let of = |kind: Kind, names: &[&'static str]| names.iter().map(|name| (kind, *name)).collect::<Vec<_>>();
    [of(Kind::Counter, &COUNTERS), of(Kind::Set, &SETS), of(Kind::Register, &REGISTERS)].concat()
}

/// The books that tasks share.
pub(super) type SharedBooks = Arc<Mutex<Books>>;

/// The mesh, and what was written in it.
pub(super) struct Play {
    pub(super) world: World,
    pub(super) cluster: Cluster,
    pub(super) books: SharedBooks,
    pub(super) draws: Rng,
    /// What all owners held when they agreed last.
    pub(super) agreed: Arc<BTreeMap<Object<'static>, Value>>,
    /// Names of elements and words so far.
    named: usize,
}

impl Play {
    pub(super) fn new(cluster: Cluster) -> Play {
        let world = cluster.world();
        let (books, agreed) = (SharedBooks::default(), Arc::default());
        Play { world, cluster, books, draws: world.rng("storeless"), agreed, named: 0 }
    }

    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }

    /// A number below `end`.
    pub(super) fn draw(&mut self, end: usize) -> usize {
        (self.draws.next_u64() % end as u64) as usize
    }

    /// One of these.
    pub(super) fn one_of<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.draw(from.len())].clone()
    }

    pub(super) fn workers(&self) -> Vec<Peer> {
        self.cluster.peers.iter().filter(|peer| peer.role == Role::Worker).cloned().collect()
    }

    /// The nodes but this one.
    pub(super) fn others(&self, than: &Peer) -> Vec<Peer> {
        self.cluster.peers.iter().filter(|peer| peer.key != than.key).cloned().collect()
    }

    /// The object's owners, as the nodes that run see them.
    pub(super) async fn owners(&self, object: Object<'static>) -> Vec<Peer> {
        let all: Vec<_> = self.cluster.running().collect();
        self.cluster.owners(object, &all).await
    }

    /// A write to the object that adds something new.
    pub(super) fn addition(&mut self, object: Object<'static>) -> Write {
        self.named += 1;
        match object.0 {
            Kind::Counter => Write::Add(1),
            Kind::Set => Write::Insert(format!("element {:04}", self.named), KEPT),
            _ => Write::Set(format!("word {:04}", self.named)),
        }
    }

    /// Begins a write in the background. It ends with its process at the latest.
    pub(super) fn spawn_write(
        &self,
        peer: &Peer,
        object: Object<'static>,
        write: Write,
    ) -> task::JoinHandle<bool> {
        let (world, books, peer) = (self.world, self.books.clone(), peer.clone());
        task::spawn(async move { make(world, &books, &peer, object, write).await })
    }

    /// Makes a write, and returns whether it was acknowledged.
    pub(super) async fn write(&self, peer: &Peer, object: Object<'static>, write: Write) -> bool {
        make(self.world, &self.books, peer, object, write).await
    }

    /// All members write to all objects, until these are as large as the acts need them.
    pub(super) async fn fill(&mut self) -> Result<(), Violation> {
        let peers = self.cluster.peers.clone();
        let share = SUM / peers.len() as i64;
        for object in objects() {
            let mut writes = Vec::new();
            match object.0 {
                Kind::Counter => {
                    for (number, peer) in peers.iter().enumerate() {
                        let rest = if number == 0 { SUM % peers.len() as i64 } else { 0 };
                        writes.push(self.spawn_write(peer, object, Write::Add(share + rest)));
                    }
                }
                Kind::Set => {
                    let elements = if object.1 == SETS[0] { MANY } else { SOME };
                    for number in 0..elements {
                        let write = Write::Insert(format!("old {number:03}"), KEPT);
                        writes.push(self.spawn_write(&peers[number % peers.len()], object, write));
                    }
                }
                _ => {
                    let (peer, write) = (self.one_of(&peers), self.addition(object));
                    writes.push(self.spawn_write(&peer, object, write));
                }
            }
            for write in writes {
                if !matches!(write.await, Ok(true)) {
                    return Err(Violation::liveness(AGREED, format!("a write to {} failed", object.1)));
                }
            }
        }
        self.agree().await
    }

    /// Waits until all nodes have met and the owners of each object hold the same, checks it, and takes it as certain.
    pub(super) async fn agree(&mut self) -> Result<(), Violation> {
        self.cluster.converge(MET).await?;
        let objects = objects();
        let all: Vec<_> = self.cluster.running().collect();
        let held = self.cluster.agreed(AGREED, AGREES, &objects, &all).await?;
        let mut agreed = BTreeMap::new();
        for (object, value) in objects.into_iter().zip(held) {
            let mut books = lock(&self.books);
            books.check(object, value.as_ref())?;
            books.settle(object, value.as_ref());
            agreed.extend(value.map(|value| (object, value)));
        }
        self.agreed = Arc::new(agreed);
        Ok(())
    }
}

/// Makes a write at a node, with its place in the books, and returns whether it was acknowledged.
pub(super) async fn make(
    world: World,
    books: &Mutex<Books>,
    peer: &Peer,
    object: Object<'static>,
    write: Write,
) -> bool {
    let node = peer.node(&world).await;
    lock(books).begins(world.elapsed(), object, &write);
    let name = object.1;
    let done: Result<(), Error> = match &write {
        Write::Add(by) => node.counter(name).add(*by).await,
        Write::Insert(element, _) => node.set(name).insert(&secret(element)).await,
        Write::Remove(element) => node.set(name).remove(&secret(element)).await,
        Write::Set(text) => node.register(name).set(&secret(text)).await,
    };
    lock(books).ends(world.elapsed(), object, &write, done.is_ok());
    done.is_ok()
}
