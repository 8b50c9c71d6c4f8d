//! Lies of all kinds, in a drawn order, for as long as a scenario's other faults go on.
//!
//! Scenario `insiders` asks for each lie by itself what comes of it. Here one follows the other, ten times a second, to
//! whoever is there, while processes die and links break: so that a lie meets a node that has just begun, forgotten or
//! fallen behind.

use std::time::Duration;

use bytes::Bytes;
use chaos::world::World;
use nurl::internals::authority::credential::Credential;
use nurl::internals::membership::Roles;
use nurl::internals::membership::State;
use nurl::internals::membership::message::{MembershipMessage, MessageBody};
use nurl::internals::membership::table::Fact;
use nurl::internals::replication::crdt::{Kind, PnCounter, Value};
use nurl::internals::replication::identity::ReplicaId;
use nurl::internals::replication::replicator::state_key;
use nurl::internals::transport::{channel, group, kind};
use nurl::rt::{Rng, time};
use nurl::{PublicKey, SecretKey};
use rand_core::Rng as _;

use super::{Insider, wire};
use crate::cluster::{Cluster, Peer, secret};

/// As many accusers as a suspicion counts.
const ACCUSERS: u32 = 4;

/// The time between two lies.
const EVERY: Duration = Duration::from_millis(100);

/// What one insider tells the nodes of a cluster.
pub struct Mischief {
    world: World,
    insider: Insider,
    nodes: Vec<(Peer, Credential)>,
    /// The counter whose value it would like to change.
    counter: String,
    rng: Rng,
}

impl Mischief {
    /// Lies to all nodes that the cluster has now. The insider is no member: whatever it says of a counter, of a task or of
    /// others is to have no effect.
    pub fn new(world: World, cluster: &Cluster, insider: Insider, counter: &str) -> Mischief {
        let node = |peer: &Peer| (peer.clone(), cluster.credential(&peer.key, peer.role));
        let nodes = cluster.peers.iter().map(node).collect();
        Mischief { world, insider, nodes, counter: counter.to_owned(), rng: world.rng("mischief") }
    }

    /// Lies until this time of the world.
    pub async fn until(mut self, end: Duration) {
        while self.world.elapsed() < end {
            let to = self.any().key;
            match self.rng.next_u32() % 8 {
                0 | 1 => self.slander(to),
                2 => self.make_up_a_member(to),
                3 => self.raise_epochs(to),
                4 => self.submit_in_anothers_name(to),
                5 => self.write_anothers_part(to),
                6 => self.claim_addresses(),
                _ => self.say_nonsense(to),
            }
            self.world.sleep(EVERY).await;
        }
    }

    fn any(&mut self) -> &Peer {
        let at = self.rng.next_u32() as usize % self.nodes.len();
        &self.nodes[at].0
    }

    fn tell(&self, to: PublicKey, facts: Vec<Fact>) {
        self.insider.send(to, channel::MEMBERSHIP, wire::gossip(0, facts).encode());
    }

    /// Somebody is suspect, dead or gone.
    fn slander(&mut self, to: PublicKey) {
        let accusers = (0..self.rng.next_u32() % (ACCUSERS + 1)).map(|_| self.any().key).collect();
        let incarnation = match self.rng.next_u32() % 4 {
            0 => believed(),
            low => u64::from(low),
        };
        let about = self.rng.next_u32() as usize % self.nodes.len();
        let (peer, credential) = &self.nodes[about];
        let fact = match self.rng.next_u32() % 3 {
            0 => wire::claim(peer.key, incarnation, State::Suspect, accusers),
            1 => wire::claim(peer.key, incarnation, State::Dead, Vec::new()),
            _ => {
                let by = wire::Signer { pass: credential.pass(), ..self.insider.signer() };
                wire::said(peer.key, &by, incarnation, true, (Roles::WORKER, 1))
            }
        };
        self.tell(to, vec![fact]);
    }

    fn make_up_a_member(&mut self, to: PublicKey) {
        let ghost = SecretKey::generate(&mut self.rng);
        let by = wire::Signer { secret: &ghost, ..self.insider.signer() };
        let fact = wire::said(ghost.public(), &by, 1, false, (Roles::WORKER.with(Roles::STORE), 8));
        self.tell(to, vec![fact]);
    }

    fn raise_epochs(&mut self, to: PublicKey) {
        let epoch = [1 << 32, believed(), u64::MAX - 1][self.rng.next_u32() as usize % 3];
        let observer = self.rng.next_u32().is_multiple_of(2);
        let body = if observer { MessageBody::Ping { seq: 1 } } else { MessageBody::Announce { nonce: 1 } };
        let message = MembershipMessage { observer, body, ..wire::gossip(epoch, Vec::new()) };
        if observer {
            self.insider.send(to, channel::MEMBERSHIP, message.encode());
        } else {
            self.insider.broadcast(group::MESH_GROUP, message.encode());
        }
    }

    fn submit_in_anothers_name(&mut self, to: PublicKey) {
        let mut task = [0; 16];
        self.rng.fill_bytes(&mut task);
        let (name, hops) = (self.any().key, (self.rng.next_u32() % 3) as u8);
        let submit = wire::submit(task, name, hops, "slow", b"key", &secret("an insider's"));
        self.insider.send_message(to, kind::JOB, submit);
    }

    /// Another one's part of the counter, or one of its own, though it owns nothing.
    fn write_anothers_part(&mut self, to: PublicKey) {
        let author = ReplicaId { key: self.any().key, incarnation: u64::from(self.rng.next_u32() % 3) };
        let value = Value::Counter(PnCounter::of(author, u64::from(self.rng.next_u32()), 0));
        let (key, id) = (state_key(Kind::Counter, self.counter.as_bytes()), self.rng.next_u64());
        let delta = wire::delta(&key, id.is_multiple_of(2).then_some(id), &value.encode());
        self.insider.send_message(to, kind::STATE, delta);
    }

    fn claim_addresses(&mut self) {
        let addrs = ["127.0.0.1", "224.0.0.1", "255.255.255.255", "192.168.1.10", "192.0.2.1"];
        let at = self.rng.next_u32() as usize % addrs.len();
        self.insider.claim_addresses(vec![addrs[at].parse().expect("an address")]);
    }

    fn say_nonsense(&mut self, to: PublicKey) {
        let mut body = vec![0; self.rng.next_u32() as usize % 600];
        self.rng.fill_bytes(&mut body);
        let kinds = [kind::JOB, kind::STATE, kind::MEMBERSHIP];
        match self.rng.next_u32() as usize % (kinds.len() + 1) {
            0 => self.insider.send(to, channel::MEMBERSHIP, body),
            at => self.insider.send_message(to, kinds[at - 1], Bytes::from(body)),
        }
    }
}

/// The highest number that the protocol lets a node believe now: 2^16 for each millisecond since 1970, a day ahead.
pub fn believed() -> u64 {
    let ahead = time::unix_now() + Duration::from_secs(24 * 60 * 60);
    u64::try_from(ahead.as_millis()).expect("a world ends sooner") << 16
}
