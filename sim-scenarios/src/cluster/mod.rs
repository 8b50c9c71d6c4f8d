//! Hubs and nodes on hosts of a world, assembled as in a deployment.
//!
//! A host runs the code that a deployment runs: [`nurl::internals::net::reach::hub::serve`] (as a [`SimHub`]) and
//! [`nurl::Node`]. A [`Stage`](crate::stage::Stage) makes a cluster. A scenario reaches into a node only through its
//! public handle. [`Peer::node`] waits until the host's present process has a handle, so it works across crashes and
//! restarts.
//!
//! One [`Witness`] records the cluster's events: every event of every node, every run of a handler. [`checks`]
//! holds the properties that every node must keep in every scenario.
//! Every application payload is a [`secret`]: it carries a marker that must not appear in the clear in any packet
//! on a link, nor in any frame that a hub reads. Every cluster checks this.

pub mod checks;
pub mod copies;
mod deadline;
mod jobs;
mod payload;
mod peer;
mod traffic;
mod witness;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use chaos::net::Net;
use chaos::plan::Targets;
use chaos::property::Violation;
use chaos::world::World;
use nurl::internals::authority::credential::Credential;
use nurl::internals::authority::invitation::{Invitation, InvitationId};
use nurl::internals::authority::key::AuthorityKey;
use nurl::internals::authority::level::Level;
use nurl::internals::authority::pass::Grant;
use nurl::internals::authority::revocation::{Revocation, Subject};
use nurl::internals::authority::rotation::Rotation;
use nurl::internals::authority::slip::{self, Slip};
use nurl::internals::kit::wall_clock::WallClock;
use nurl::internals::membership::{Roles, State};
use nurl::internals::mesh::Ticket;
use nurl::internals::net::reach::hub_client::Joining;
use nurl::internals::node::{MemberInfo, Role};
use nurl::internals::ring::{Ring, RingMember};
use nurl::internals::transport::PathInfo;
use nurl::rt::{Rng, time};
use nurl::{PublicKey, SecretKey};

use self::peer::NIC;
use crate::models::sim_hub::SimHub;
use crate::stage::Addresses;

pub use deadline::{Deadline, soon};
pub use jobs::Jobs;
pub(crate) use payload::{MARKER, SEALED};
pub use payload::{is_secret, secret, text};
pub(crate) use peer::Configure;
pub use peer::{Peer, Setup, Standing};
pub use traffic::Traffic;
pub use witness::{HandlerRun, Verdict, Witness};

/// The property that [`Cluster::converge`] waits for.
const MET: &str = "every running node sees exactly the running nodes alive";

/// How long a node may take to answer a query.
const ANSWERS: Duration = Duration::from_secs(5);

/// A mesh in the world.
pub struct Cluster {
    world: World,
    authority: Arc<AuthorityKey>,
    /// The ticket that a joining node is given.
    pub ticket: Ticket,
    /// The hubs, in the order in which the stage names them.
    pub hubs: Vec<SimHub>,
    /// The nodes, in the order of their numbers.
    pub peers: Vec<Peer>,
    /// The record of the cluster's events.
    pub witness: Witness,
    /// The source of the keys of further nodes.
    keys: Rng,
    configure: Configure,
    /// The zones of the nodes' passes, in turn.
    zones: &'static [&'static str],
    addresses: Addresses,
}

/// What is wrong with a node's time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// By how many milliseconds its wall clock is wrong.
    pub clock_ms: i64,
    /// How long before the world's beginning its pass was issued.
    pub issued_ago: Duration,
}

impl Cluster {
    /// A cluster of these hubs without nodes.
    pub(crate) fn new(
        world: World,
        authority: Arc<AuthorityKey>,
        ticket: Ticket,
        hubs: Vec<SimHub>,
        keys: Rng,
        (configure, zones): (Configure, &'static [&'static str]),
    ) -> Cluster {
        let (peers, witness, addresses) = (Vec::new(), Witness::default(), Addresses::default());
        Cluster { world, authority, ticket, hubs, peers, witness, keys, configure, zones, addresses }
    }

    /// The world that it is in.
    pub fn world(&self) -> World {
        self.world
    }

    /// Starts a further node now, in this network or on the [internet](World::internet). It gets the next number.
    ///
    /// # Panics
    /// If the name is taken.
    pub fn add(&mut self, name: &str, net: Net, role: Role) -> Peer {
        self.add_at(name, net, role, Timing::default())
    }

    /// The same for a node whose clock or pass isn't of now.
    ///
    /// # Panics
    /// If the name is taken.
    pub fn add_at(&mut self, name: &str, net: Net, role: Role, timing: Timing) -> Peer {
        let key = SecretKey::generate(&mut self.keys);
        let zone = self.zones[self.peers.len() % self.zones.len()];
        let credential = self.credential_in(&key.public(), role, zone, timing.issued_ago);
        let ticket = self.ticket.clone();
        self.add_with(
            name,
            (net, role),
            &key,
            (Standing::Pass(Box::new(credential)), &ticket),
            timing.clock_ms,
        )
    }

    /// Starts a further node now that has the authority's key, and issues passes.
    ///
    /// # Panics
    /// If the name is taken.
    pub fn add_issuer(&mut self, name: &str, net: Net) -> Peer {
        let (key, ticket) = (SecretKey::generate(&mut self.keys), self.ticket.clone());
        let standing = Standing::Issuer(self.authority.clone());
        self.add_with(name, (net, Role::Member), &key, (standing, &ticket), 0)
    }

    /// Starts a further observer now, as a command does: by a slip for a throwaway key, and with the key of the pass's holder.
    ///
    /// # Panics
    /// If the name is taken.
    pub fn add_by_slip(&mut self, name: &str, net: Net, holder: &SecretKey) -> Peer {
        let (key, ticket) = (SecretKey::generate(&mut self.keys), self.ticket.clone());
        let pass = self.credential(&holder.public(), Role::Observer);
        let shown = Box::new(self.slip(holder, &pass, key.public()));
        let standing = Standing::Slip { shown, holder: holder.clone() };
        self.add_with(name, (net, Role::Observer), &key, (standing, &ticket), 0)
    }

    /// Starts a further worker now that has only a ticket.
    ///
    /// # Panics
    /// If the name is taken.
    pub fn add_invited(&mut self, name: &str, net: Net, ticket: &Ticket) -> Peer {
        let key = SecretKey::generate(&mut self.keys);
        self.add_with(name, (net, Role::Worker), &key, (Standing::Invited, ticket), 0)
    }

    /// The mesh's ticket with an invitation of its own, for this many workers.
    pub fn invitation(&mut self, keys: u16) -> Ticket {
        let invitation = Invitation::for_keys(keys, &self.authority, time::unix_now(), &mut self.keys);
        Ticket { invitation: Some(invitation), ..self.ticket.clone() }
    }

    fn add_with(
        &mut self,
        name: &str,
        (net, role): (Net, Role),
        key: &SecretKey,
        (standing, ticket): (Standing, &Ticket),
        clock_ms: i64,
    ) -> Peer {
        let host = self.world.host(name);
        host.attach(NIC, net, &[&self.addresses.assign(name, net)]);
        let (name, number) = (name.to_owned(), self.peers.len());
        let setup = Setup { name, number, role, host, world: self.world, witness: self.witness.clone() };
        if clock_ms != 0 {
            host.step_wall_clock_ms(clock_ms);
        }
        let peer = Peer::start(&setup, (key, standing), ticket, &self.configure, &self.hubs);
        self.peers.push(peer.clone());
        peer
    }

    /// A pass that permits what the role needs, as an issuer made it before the world began.
    pub fn credential(&self, key: &PublicKey, role: Role) -> Credential {
        self.credential_in(key, role, "", Duration::ZERO)
    }

    fn credential_in(&self, key: &PublicKey, role: Role, zone: &str, issued_ago: Duration) -> Credential {
        let level = match role {
            Role::Worker => Level::Worker,
            Role::Member => Level::Member,
            Role::Observer => Level::Submit,
        };
        let begun = (time::unix_now() - self.world.elapsed() - issued_ago).as_secs();
        self.authority.mint_in_zone(*key, level, u32::try_from(begun).unwrap_or(u32::MAX), zone)
    }

    /// The standing of a key that came by this invitation.
    pub fn enrolled(&self, key: &PublicKey, role: Role, invitation: InvitationId) -> Credential {
        let grant =
            Grant { invitation: Some(invitation), ..self.credential(key, role).pass().grant().clone() };
        Credential::new(grant.sign(&self.authority).expect("the fields are within bounds"))
    }

    /// The standing of a throwaway key, which the holder of a pass has signed, as each command has one.
    pub fn slip(&self, holder: &SecretKey, pass: &Credential, key: PublicKey) -> Credential {
        let now = u32::try_from(time::unix_now().as_secs()).unwrap_or(u32::MAX);
        let slip = Slip { key, level: Level::Submit, not_after: now + slip::MAX_LIFE };
        Credential::with_slip(pass.pass().clone(), slip.sign(holder, &self.ticket.mesh))
    }

    /// The entry by which the authority revokes a key now.
    pub fn revocation(&self, key: &PublicKey) -> Revocation {
        let now = u32::try_from(time::unix_now().as_secs()).unwrap_or(u32::MAX);
        self.authority.revoke(Subject::Key(*key), now)
    }

    /// The rotation of the mesh's secret to this generation, made so long ago.
    pub fn rotation(&self, generation: u32, ago: Duration) -> Rotation {
        let made = (time::unix_now() - ago).as_secs();
        self.authority.rotate(generation, u32::try_from(made).unwrap_or(u32::MAX))
    }

    /// How a client of a hub alone gets in: with a member's pass.
    pub fn joining(&self, key: &PublicKey) -> Joining {
        let now = time::now();
        Joining::minted(&self.authority, *key, Level::Member, WallClock::new(now, time::unix_now()), now)
    }

    /// Moves a node's host to another network; its old connections hang. In a network where the host has been before
    /// it gets its earlier address again, as from a DHCP server; elsewhere it gets a new one.
    pub fn roam(&mut self, peer: &Peer, net: Net) {
        peer.host.attach(NIC, net, &[&self.addresses.assign(&peer.name, net)]);
    }

    /// The possible targets of a fault plan: every node, every hub, every box; nodes may roam into every network and
    /// onto the internet. A scenario adds the hosts that it needs to `spared`.
    pub fn targets(&self) -> Targets {
        let nets: Vec<_> = self.world.nets().into_iter().filter(|net| net.outside().is_some()).collect();
        let homes = nets.iter().map(|net| (*net, Ipv4Addr::new(192, 168, 1, 150)));
        let internet = (self.world.internet(), Ipv4Addr::new(198, 19, 1, 1));
        Targets {
            hosts: self.peers.iter().map(|peer| peer.host).collect(),
            spared: Vec::new(),
            hubs: self.hubs.iter().map(|hub| hub.host).collect(),
            havens: homes.chain([internet]).collect(),
            nets,
        }
    }

    /// Waits until every running node sees exactly the running nodes alive.
    ///
    /// # Errors
    /// Lists the observations still missing when `limit` of virtual time is over.
    pub async fn converge(&self, limit: Duration) -> Result<(), Violation> {
        let deadline = Deadline::new(self.world, MET, limit);
        while deadline.still_missing(self.missing().await).await? {}
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
    pub async fn inspect(&self) -> Result<(), Violation> {
        for peer in self.running() {
            let Peer { name, role, host, .. } = peer;
            let inspected = checks::Inspected { name, role: *role, host: *host, witness: &self.witness };
            checks::inspect(self.world, &inspected, &peer.node(&self.world).await, &self.hubs).await?;
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

    /// The leg that `from` uses to reach `to`, in one word.
    pub async fn leg(&self, from: &Peer, to: &Peer) -> &'static str {
        if self.path(from, to).await.is_some_and(|path| path.direct) { "direct" } else { "relayed" }
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

    /// The pairs of running nodes that don't reach each other directly.
    pub async fn indirect(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for from in self.running() {
            for to in self.running().filter(|to| to.key != from.key) {
                wrong.extend(self.wrong_path(from, to, true).await);
            }
        }
        wrong
    }

    /// A [counter or gauge](nurl::Node::metrics) of a node that runs.
    ///
    /// # Panics
    /// If there is none of this name.
    pub async fn metric(&self, peer: &Peer, name: &str) -> u64 {
        let metrics = peer.node(&self.world).await.metrics().await;
        metrics.ok().and_then(|metrics| metrics.get(name)).expect("the node runs, and counts it")
    }

    /// One message for each running node that isn't registered at `hub`.
    pub async fn unregistered(&self, hub: &SimHub) -> Vec<String> {
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

    /// Checks that no node was ever held dead, except those that did die.
    ///
    /// # Errors
    /// The given property, with the first wrong verdict.
    #[track_caller]
    pub fn no_false_deaths(&self, property: &str, dead: &[Peer]) -> Result<(), Violation> {
        let verdicts = self.witness.held_dead();
        match verdicts.iter().find(|verdict| dead.iter().all(|peer| peer.key != verdict.about)) {
            None => Ok(()),
            Some(verdict) => {
                let seen = format!("{} held {} dead", verdict.by, self.name_of(&verdict.about));
                Err(Violation::safety(property, seen).since(verdict.at))
            }
        }
    }

    /// The ring that follows from a node's members; its own place is as another one sees it.
    pub async fn ring(&self, of: &Peer, by: &Peer) -> Ring {
        let own = self.members(by).await.into_iter().filter(|member| member.key == of.key);
        let members = self.members(of).await.into_iter().chain(own);
        Ring::new(members.map(|member| RingMember {
            key: member.key,
            boot: member.boot,
            seed: member.ring_seed,
            weight: member.weight,
            zone: member.zone,
            kinds: member.kinds,
            live: member.state.is_live(),
            placed: member.roles.contains(Roles::WORKER)
                && (member.state.is_live()
                    || (member.state == State::Dead && member.roles.contains(Roles::STORE))),
        }))
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
