//! Hubs and nodes on hosts of a world, assembled as a deployment would be.
//!
//! What runs on a host is what a deployment runs: [`nurl::internals::net::hub::serve`] (as a [`Relay`]) and [`nurl::Node`].
//! A [`Map`] says who is where; [`Cluster::start`] is its short form, all nodes on the internet with one hub. A
//! scenario reaches into a node only through its public handle; [`Peer::node`] waits until the host's present
//! process has one, so it works across crashes and restarts.
//!
//! What happens in the cluster goes to one [`Witness`]: every event of every node, every run of a handler. What is
//! held against every node, whatever the scenario, is in [`checks`].
//! Everything an application would call its own is a [`secret`]: a payload with a marker that no packet on a link,
//! and no frame that a hub reads, may carry in the clear. Every cluster has that checked.

pub mod checks;
mod jobs;
mod map;
mod payload;
mod peer;
mod traffic;
mod within;
mod witness;

use std::collections::BTreeMap;
use std::time::Duration;

use chaos::property::Broken;
use chaos::world::World;
use nurl::PublicKey;
use nurl::internals::membership::State;
use nurl::internals::mesh::Ticket;
use nurl::internals::node::{MemberInfo, Role};
use nurl::internals::transport::PathInfo;
use nurl::rt::time;

use crate::models::relay::Relay;

pub use jobs::Jobs;
pub use map::{Map, Place, home};
pub use payload::{is_secret, secret, text};
pub use peer::{Peer, Setup};
pub use traffic::Traffic;
pub use within::Within;
pub use witness::{Ran, Witness};

/// What [`Cluster::converge`] waits for.
const MET: &str = "every running node sees exactly the running nodes alive";

/// A node says what it sees within this.
const ANSWERS: Duration = Duration::from_secs(5);

/// A mesh in the world.
pub struct Cluster {
    world: World,
    /// What a newcomer would be given.
    pub ticket: Ticket,
    /// The hubs, in the order in which the map names them.
    pub hubs: Vec<Relay>,
    /// The nodes, in the order of their numbers.
    pub peers: Vec<Peer>,
    /// What happened.
    pub witness: Witness,
    ground: map::Ground,
}

impl Cluster {
    /// A hub and `nodes` workers, each on a host of its own on the internet, started now.
    pub fn start(world: World, nodes: usize) -> Cluster {
        Map::new(world).hub("hub").nodes(nodes, Place::Open).start()
    }

    /// Waits until every running node sees exactly the running nodes alive.
    ///
    /// # Errors
    /// What is still missing when `limit` of virtual time is over.
    pub async fn converge(&self, limit: Duration) -> Result<(), Broken> {
        let within = Within::new(self.world, MET, limit);
        while within.lacks(self.missing().await).await? {}
        Ok(())
    }

    /// Where a running node's view isn't that exactly the running nodes are alive.
    pub async fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for peer in self.running() {
            let view = self.view(peer).await;
            // Nobody gossips about an observer.
            let members = self.peers.iter().filter(|other| other.role != Role::Observer);
            for other in members.filter(|other| other.key != peer.key) {
                let state = view.get(&other.key).copied();
                let wrong = match state {
                    Some(State::Alive) => !other.host.is_running(),
                    Some(State::Suspect) => true,
                    _ => other.host.is_running(),
                };
                if wrong {
                    let state = state.map_or("unknown", State::as_str);
                    missing.push(format!("{} sees {} {state}", peer.name, other.name));
                }
            }
        }
        missing
    }

    /// Looks once more at every running node as [`checks`] does now and then.
    ///
    /// # Errors
    /// The property that one of them breaks.
    pub async fn inspect(&self) -> Result<(), Broken> {
        for peer in self.running() {
            let Peer { name, role, host, .. } = peer;
            let looked = checks::Looked { name, role: *role, host: *host, witness: &self.witness };
            checks::look(self.world, &looked, &peer.node(&self.world).await, &self.hubs).await?;
        }
        Ok(())
    }

    /// What `peer` says of the members.
    pub async fn members(&self, peer: &Peer) -> Vec<MemberInfo> {
        let node = peer.node(&self.world).await;
        // A node that shuts down while it is asked has no view, and one that doesn't answer has none either.
        let answer = time::timeout(ANSWERS, node.members()).await;
        answer.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// The members' states as `peer` sees them.
    pub async fn view(&self, peer: &Peer) -> BTreeMap<PublicKey, State> {
        self.members(peer).await.into_iter().map(|member| (member.key, member.state)).collect()
    }

    /// How `from` reaches `to`; `None` if it doesn't know it.
    pub async fn path(&self, from: &Peer, to: &Peer) -> Option<PathInfo> {
        self.members(from).await.into_iter().find(|member| member.key == to.key).map(|member| member.path)
    }

    /// What is wrong with the way from one node to another, where it should be direct or should not.
    pub async fn wrong_path(&self, from: &Peer, to: &Peer, direct: bool) -> Option<String> {
        let path = self.path(from, to).await;
        if path.is_some_and(|path| path.direct == direct) {
            return None;
        }
        let is = path.map_or("unknown", |path| path.reason.as_str());
        let should = if direct { "direct" } else { "relayed" };
        Some(format!("{} to {} is {is}, not {should}", from.name, to.name))
    }

    /// The running nodes that aren't registered at `hub`.
    pub async fn unregistered(&self, hub: &Relay) -> Vec<String> {
        let mut missing = Vec::new();
        for peer in self.running() {
            let status = peer.node(&self.world).await.status().await;
            let up = status.is_ok_and(|status| status.hubs.iter().any(|info| info.key == hub.key && info.up));
            if !up {
                missing.push(format!("{} isn't registered", peer.name));
            }
        }
        missing
    }

    /// The nodes whose process runs.
    pub fn running(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(|peer| peer.host.is_running())
    }

    /// The name of a node's key.
    pub fn name_of(&self, key: &PublicKey) -> &str {
        self.peers.iter().find(|peer| peer.key == *key).map_or("nobody", |peer| &peer.name)
    }

    /// Every view, one line per node: the end state of membership without times.
    pub async fn views(&self) -> String {
        let mut text = String::new();
        for peer in self.running() {
            let view = self.view(peer).await;
            let mut line: Vec<_> =
                view.iter().map(|(key, state)| format!("{} {}", self.name_of(key), state.as_str())).collect();
            line.sort();
            text += &format!("{} sees: {}\n", peer.name, line.join(", "));
        }
        text
    }
}
