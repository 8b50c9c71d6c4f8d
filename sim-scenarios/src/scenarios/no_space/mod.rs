//! Disks that are full or fail, and nodes that go on.
//!
//! Six workers with stores and an observer count and fill a set. A disk refuses writes for lack of room, or fails each write,
//! or each sync, as drawn.
//!
//! **One owner's.** Its node says so, is told as such, and takes no writes, with an error that says so. What the others write is
//! confirmed by the other owners at once. All nodes read all that was confirmed, also this one; it runs jobs; and it holds
//! what was on its disk, to the byte. Then the disk works again: the node goes on by itself, or is started again after a power loss.
//!
//! **All owners'.** No write to their objects is confirmed, wherever it is made; reads go on. Then their machines lose their power,
//! and start with disks that work.
//!
//! After each act all owners agree, on the same bytes: all that was acknowledged is there, nothing that was refused, and of
//! the rest each write once or not at all. The owners' copies are only looked at, since a read would repair them.

mod books;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::plan::DiskCall;
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::{DiskOutage, World};
use nurl::internals::membership::Roles;
use nurl::internals::node::Role;
use nurl::internals::replication::crdt::{Kind, Value};
use nurl::rt::Rng;
use rand_core::Rng as _;

use self::books::{Books, Ended};
use crate::cluster::copies::{self, Object};
use crate::cluster::{Cluster, Deadline, Jobs, Peer};
use crate::lock::lock;
use crate::stage::{Stage, link_ms, with_store};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a write was under way when the disk failed"),
        Mark::new("a node went on by itself when its disk worked"),
        Mark::new("a node lost its power while its disk failed"),
        Mark::new("an owner forgot what may not be on its disk"),
    ],
    ..Scenario::new(
        "no-space",
        "disks are full or fail: reads go on, other owners confirm writes, and nothing false is told",
        |trial| Box::pin(run(trial)),
    )
};

const SAID: &str = "a node whose disk fails says so, and the others know it";
const CONFIRMED: &str = "what one owner's disk doesn't take is confirmed by the others";
const REFUSED: &str = "a node whose disk fails takes no write, and says why";
const NOT_TOLD: &str = "no write is confirmed that no disk has taken";
const READS: &str = "reads go on, and have all that was confirmed";
const STILL: &str = "a node whose disk fails holds what was on the disk";
const WORKS: &str = "a node takes writes a minute after its disk works";
const AGREED: &str = "owners agree on what was acknowledged, and on nothing that was refused";

const MEET: Duration = Duration::from_secs(30);
/// A commit, and gossip. This may miss somebody, who is then told with a probe of the rounds, two of which take as many seconds as
/// there are members.
const NOTICED: Duration = Duration::from_secs(16);
/// Two tries of a write.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(3);
/// A read asks all owners, and waits a second for a silent one.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// A node opens its store again after a minute at most.
const WORKS_WITHIN: Duration = Duration::from_secs(62);
/// Summaries come every 10 s, and a delta is sent again after a minute at most.
const AGREE: Duration = Duration::from_secs(120);
const PACE: Duration = Duration::from_millis(200);
const ROUNDS: usize = 60;
const OFF: Duration = Duration::from_secs(2);

pub(super) const COUNTER: &str = "counted";
pub(super) const SET: &str = "gathered";
const OBJECTS: [Object<'_>; 2] = [(Kind::Counter, COUNTER), (Kind::Set, SET)];

struct Play {
    world: World,
    cluster: Arc<Cluster>,
    books: Arc<Mutex<Books>>,
    rng: Rng,
}

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let cluster = Stage::new(world)
        .links(link_ms(15, 10))
        .hub("hub")
        .workers(6)
        .observer("observer")
        .configure(
            |builder, setup| {
                if setup.role == Role::Observer { builder } else { with_store(builder, "/node") }
            },
        )
        .meet(MEET)
        .await?;
    let mut play = Play { world, cluster: Arc::new(cluster), books: Arc::default(), rng: world.rng("disks") };
    play.warm_up().await?;
    play.one_owner().await?;
    play.all_owners().await?;
    play.cluster.inspect().await?;
    let state = format!("{}{}", play.cluster.views().await, lock(&play.books).told());
    Ok(Passed { state, notes: String::new() })
}

impl Play {
    fn draw(&mut self, of: usize) -> usize {
        (self.rng.next_u64() % of as u64) as usize
    }

    fn outage(&mut self) -> DiskOutage {
        // A commit writes and syncs twice at least, so none succeeds.
        let after = self.draw(2) as u64;
        let fails = |call| DiskOutage::Fails { call, after };
        let all = [DiskOutage::NoRoom, fails(DiskCall::Write), fails(DiskCall::Sync)];
        all[self.draw(all.len())]
    }

    async fn owners(&self, object: Object<'_>) -> Vec<Peer> {
        let all: Vec<_> = self.cluster.running().collect();
        self.cluster.owners(object, &all).await
    }

    /// All have written, and all owners have what was written.
    async fn warm_up(&mut self) -> Result<(), Violation> {
        for peer in self.cluster.peers.clone() {
            self.write(&peer, CONFIRMED, CONFIRMED_WITHIN).await?;
        }
        self.agree().await
    }

    /// A write to each object, each of which must be acknowledged in time.
    async fn write(
        &mut self,
        peer: &Peer,
        property: &'static str,
        within: Duration,
    ) -> Result<(), Violation> {
        let begun = self.world.elapsed();
        for object in OBJECTS {
            let ended = books::write(self.world, peer, object, self.books.clone()).await?;
            let took = self.world.elapsed() - begun;
            if ended != Ended::Acknowledged || took > within {
                let seen = format!("{} writes {}: {ended:?} after {took:?}", peer.name, object.1);
                return Err(Violation::liveness(property, seen));
            }
        }
        Ok(())
    }

    async fn one_owner(&mut self) -> Result<(), Violation> {
        let object = OBJECTS[self.draw(OBJECTS.len())];
        let owners = self.owners(object).await;
        let victim = owners[self.draw(owners.len())].clone();
        let others: Vec<Peer> =
            self.cluster.peers.iter().filter(|peer| peer.key != victim.key).cloned().collect();
        // The disk fails with writes under way.
        let under_way = books::spawn(self.world, &victim, object, self.books.clone());
        victim.host.set_disk_outage(Some(self.outage()));
        let first = under_way.await.unwrap_or(Ended::Unknown);
        sometimes!(first == Ended::Unknown, "a write was under way when the disk failed");
        self.says_so(&victim).await?;
        let still = self.copies_at(&victim).await;
        sometimes!(still.iter().all(Option::is_none), "an owner forgot what may not be on its disk");
        let cluster = self.cluster.clone();
        let mut jobs = Jobs::new(&cluster);
        for round in 0..ROUNDS {
            let peer = others[self.draw(others.len())].clone();
            self.write(&peer, CONFIRMED, CONFIRMED_WITHIN).await?;
            if round % 5 == 0 {
                jobs.submit(&peer, "slow", &format!("job {round}")).await?;
                self.refused_at(&victim).await?;
                self.read_at(&[&victim, &peer]).await?;
            }
            if self.copies_at(&victim).await != still {
                return Err(Violation::safety(STILL, format!("{} holds something else", victim.name)));
            }
            self.world.sleep(PACE).await;
        }
        jobs.settle(AGREE).await?;
        let loses_power = self.draw(2) == 0;
        if loses_power {
            sometimes!("a node lost its power while its disk failed");
            victim.host.power_loss();
            self.world.sleep(OFF).await;
        }
        victim.host.set_disk_outage(None);
        if loses_power {
            victim.host.restart();
        }
        self.takes_writes(&victim).await?;
        sometimes!(!loses_power, "a node went on by itself when its disk worked");
        self.agree().await
    }

    async fn all_owners(&mut self) -> Result<(), Violation> {
        let object = OBJECTS[self.draw(OBJECTS.len())];
        let owners = self.owners(object).await;
        for owner in &owners {
            let outage = self.outage();
            owner.host.set_disk_outage(Some(outage));
        }
        let peers = self.cluster.peers.clone();
        let mut writes = Vec::new();
        for _ in 0..ROUNDS {
            let peer = &peers[self.draw(peers.len())];
            writes.push(books::spawn(self.world, peer, object, self.books.clone()));
            self.world.sleep(PACE).await;
        }
        for owner in &owners {
            self.says_so(owner).await?;
        }
        for write in writes {
            if write.await.unwrap_or(Ended::Unknown) == Ended::Acknowledged {
                return Err(Violation::safety(NOT_TOLD, format!("a write to {} was acknowledged", object.1)));
            }
        }
        let asked: Vec<&Peer> = peers.iter().collect();
        self.read_of(&asked, object).await?;
        for owner in &owners {
            owner.host.power_loss();
            owner.host.set_disk_outage(None);
        }
        self.world.sleep(OFF).await;
        owners.iter().for_each(|owner| owner.host.restart());
        for owner in &owners {
            self.takes_writes(owner).await?;
        }
        self.agree().await
    }

    /// The node has told its application, and the others see it among its roles.
    async fn says_so(&self, victim: &Peer) -> Result<(), Violation> {
        let deadline = Deadline::new(self.world, SAID, NOTICED);
        loop {
            let mut missing = Vec::new();
            if !self.cluster.witness.store_fails(&victim.name) {
                missing.push(format!("{} doesn't say so", victim.name));
            }
            // An observer asks for the members now and then.
            let sees = |peer: &&Peer| peer.key != victim.key && peer.role != Role::Observer;
            for peer in self.cluster.running().filter(sees) {
                let members = self.cluster.members(peer).await;
                let seen = members.iter().find(|member| member.key == victim.key);
                if !seen.is_some_and(|member| member.roles.contains(Roles::DISK_FAILS)) {
                    missing.push(format!("{} doesn't know it of {}", peer.name, victim.name));
                }
            }
            if !deadline.still_missing(missing).await? {
                return Ok(());
            }
        }
    }

    /// A write there ends at once, as one that wasn't made.
    async fn refused_at(&self, victim: &Peer) -> Result<(), Violation> {
        for object in OBJECTS {
            let ended = books::write(self.world, victim, object, self.books.clone()).await?;
            if ended != Ended::Refused {
                return Err(Violation::safety(REFUSED, format!("{}: {ended:?}", victim.name)));
            }
        }
        Ok(())
    }

    async fn read_at(&self, peers: &[&Peer]) -> Result<(), Violation> {
        for object in OBJECTS {
            self.read_of(peers, object).await?;
        }
        Ok(())
    }

    async fn read_of(&self, peers: &[&Peer], object: Object<'_>) -> Result<(), Violation> {
        for peer in peers {
            let (begun, before) = (self.world.elapsed(), lock(&self.books).clone());
            let read = books::read(self.world, peer, object).await;
            let took = self.world.elapsed() - begun;
            let wrong = match read {
                Ok(read) => before.lacks(object, &read),
                Err(error) => Some(error.to_string()),
            };
            if let Some(wrong) = wrong {
                return Err(Violation::safety(READS, format!("{} reads {}: {wrong}", peer.name, object.1)));
            }
            if took > READ_WITHIN {
                return Err(Violation::liveness(READS, format!("{} waited {took:?}", peer.name)));
            }
        }
        Ok(())
    }

    async fn copies_at(&self, peer: &Peer) -> Vec<Option<Value>> {
        let mut held = Vec::new();
        for object in OBJECTS {
            held.push(self.cluster.held(peer, object).await);
        }
        held
    }

    async fn takes_writes(&mut self, peer: &Peer) -> Result<(), Violation> {
        let deadline = Deadline::new(self.world, WORKS, WORKS_WITHIN);
        loop {
            let ended = books::write(self.world, peer, OBJECTS[0], self.books.clone()).await?;
            let missing = (ended != Ended::Acknowledged).then(|| format!("{}: {ended:?}", peer.name));
            if !deadline.still_missing(missing.into_iter().collect()).await? {
                break;
            }
        }
        match self.cluster.witness.store_fails(&peer.name) {
            true => Err(Violation::safety(WORKS, format!("{} doesn't say so", peer.name))),
            false => Ok(()),
        }
    }

    /// All owners hold the same, and it is what the books say.
    async fn agree(&mut self) -> Result<(), Violation> {
        self.cluster.converge(MEET).await?;
        let all: Vec<_> = self.cluster.running().collect();
        let held = self.cluster.agreed(AGREED, AGREE, &OBJECTS, &all).await?;
        let (sum, elements) = (copies::sum(held[0].as_ref()), copies::elements(held[1].as_ref()));
        lock(&self.books).agree(sum, &elements).map_err(|wrong| Violation::safety(AGREED, wrong))
    }
}
