//! Hubs and nodes on hosts of a world, assembled as in a deployment.
//!
//! A host runs the code that a deployment runs: [`nurl::internals::net::reach::hub::serve`] (as a [`Relay`]) and
//! [`nurl::Node`]. A [`Map`] places hubs and nodes; [`Cluster::start`] is its short form, all nodes on the
//! internet with one hub. A scenario reaches into a node only through its public handle. [`Peer::node`] waits
//! until the host's present process has a handle, so it works across crashes and restarts.
//!
//! One [`Witness`] records the cluster's events: every event of every node, every run of a handler. [`checks`]
//! holds the properties that every node must keep in every scenario.
//! Every application payload is a [`secret`]: it carries a marker that must not appear in the clear in any packet
//! on a link, nor in any frame that a hub reads. Every cluster checks this.

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

/// The property that [`Cluster::converge`] waits for.
const MET: &str = "every running node sees exactly the running nodes alive";

/// How long a node may take to answer a query.
const ANSWERS: Duration = Duration::from_secs(5);

/// A mesh in the world.
pub struct Cluster {
    world: World,
    /// The ticket that a joining node is given.
    pub ticket: Ticket,
    /// The hubs, in the order in which the map names them.
    pub hubs: Vec<Relay>,
    /// The nodes, in the order of their numbers.
    pub peers: Vec<Peer>,
    /// The record of the cluster's events.
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
    /// Lists the observations still missing when `limit` of virtual time is over.
    pub async fn converge(&self, limit: Duration) -> Result<(), Broken> {
        let within = Within::new(self.world, MET, limit);
        while within.lacks(self.missing().await).await? {}
        Ok(())
    }

    /// The deviations of running nodes' views from "exactly the running nodes are alive".
    pub async fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for peer in self.running() {
            let view = self.view(peer).await;
            // Observers aren't gossiped about.
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

    /// Runs the periodic [`checks`] once more on every running node.
    ///
    /// # Errors
    /// The first property that a node breaks.
    pub async fn inspect(&self) -> Result<(), Broken> {
        for peer in self.running() {
            let Peer { name, role, host, .. } = peer;
            let looked = checks::Looked { name, role: *role, host: *host, witness: &self.witness };
            checks::look(self.world, &looked, &peer.node(&self.world).await, &self.hubs).await?;
        }
        Ok(())
    }

    /// The member list that `peer` reports.
    pub async fn members(&self, peer: &Peer) -> Vec<MemberInfo> {
        let node = peer.node(&self.world).await;
        // A node that shuts down during the query, or doesn't answer, counts as having an empty view.
        let answer = time::timeout(ANSWERS, node.members()).await;
        answer.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// The members' states as `peer` sees them.
    pub async fn view(&self, peer: &Peer) -> BTreeMap<PublicKey, State> {
        self.members(peer).await.into_iter().map(|member| (member.key, member.state)).collect()
    }

    /// How `from` reaches `to`; `None` if `from` doesn't know `to`.
    pub async fn path(&self, from: &Peer, to: &Peer) -> Option<PathInfo> {
        self.members(from).await.into_iter().find(|member| member.key == to.key).map(|member| member.path)
    }

    /// Describes the path from one node to another if it isn't direct or relayed as required.
    pub async fn wrong_path(&self, from: &Peer, to: &Peer, direct: bool) -> Option<String> {
        let path = self.path(from, to).await;
        if path.is_some_and(|path| path.direct == direct) {
            return None;
        }
        let is = path.map_or("unknown", |path| path.reason.as_str());
        let should = if direct { "direct" } else { "relayed" };
        Some(format!("{} to {} is {is}, not {should}", from.name, to.name))
    }

    /// One message for each running node that isn't registered at `hub`.
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
