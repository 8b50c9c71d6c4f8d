//! The map of a mesh: its hubs and nodes, on the internet or behind boxes.
//!
//! ```no_run
//! # use chaos::{middlebox::Middlebox, world::World};
//! # use sim_scenarios::cluster::{Map, Place, home};
//! # fn map(world: World, box_of_a_home: impl Middlebox) {
//! let family = home(world, world.internet(), "family", box_of_a_home);
//! let cluster = Map::new(world).hub("hub").nodes(2, Place::Open).node("phone", Place::In(family)).start();
//! # }
//! ```
//!
//! Addresses are assigned in order: hubs in 192.0.2.0/24, open nodes in 198.18.0.0/15, boxes in 203.0.113.0/24
//! (in 100.64.0.0/16 behind another box), and within every home 192.168.1.10 and up, so that homes share
//! addresses.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use chaos::middlebox::Middlebox;
use chaos::net::Net;
use chaos::plan::Targets;
use chaos::world::World;
use nurl::SecretKey;
use nurl::internals::mesh::{Hub, Ticket};
use nurl::internals::net::reach::hub::HubLimits;
use nurl::internals::node::{Builder, Role};
use nurl::rt::Rng;

use super::payload::{MARKER, SEALED};
use super::peer::{Build, NIC, Setup};
use super::{Cluster, Peer, Witness};
use crate::models::relay::{HUB_PORT, Relay};

/// Where a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the internet, with an address of its own.
    Open,
    /// In this network, behind the network's box.
    In(Net),
}

/// A network behind a box, like a home, an office or a carrier; the box's one outer address is the next free one.
pub fn home(world: World, outside: Net, name: &str, middlebox: impl Middlebox) -> Net {
    let number = world.nets().len();
    let outer = match outside.outside() {
        None => format!("203.0.113.{number}"),
        Some(_) => format!("100.64.0.{number}"),
    };
    outside.nat(name, &[&outer], middlebox)
}

/// The plan of a cluster.
pub struct Map {
    world: World,
    hubs: Vec<(String, HubLimits)>,
    nodes: Vec<(String, Place, Role)>,
    build: Build,
}

impl Map {
    /// A map without hubs and nodes.
    pub fn new(world: World) -> Map {
        Map { world, hubs: Vec::new(), nodes: Vec::new(), build: Arc::new(|builder, _| builder) }
    }

    /// A hub on the internet, with the default limits.
    #[must_use]
    pub fn hub(self, name: &str) -> Map {
        self.hub_with(name, HubLimits::default())
    }

    /// A hub on the internet.
    #[must_use]
    pub fn hub_with(mut self, name: &str, limits: HubLimits) -> Map {
        self.hubs.push((name.to_owned(), limits));
        self
    }

    /// A worker.
    #[must_use]
    pub fn node(self, name: &str, place: Place) -> Map {
        self.role(name, place, Role::Worker)
    }

    /// An observer: a node that only watches and sends. It isn't probed and isn't gossiped about.
    #[must_use]
    pub fn client(self, name: &str, place: Place) -> Map {
        self.role(name, place, Role::Observer)
    }

    /// A node in this role.
    #[must_use]
    pub fn role(mut self, name: &str, place: Place, role: Role) -> Map {
        self.nodes.push((name.to_owned(), place, role));
        self
    }

    /// Adds `count` nodes in one place, named by their numbers.
    #[must_use]
    pub fn nodes(mut self, count: usize, place: Place) -> Map {
        for _ in 0..count {
            let name = format!("node {}", self.nodes.len());
            self = self.node(&name, place);
        }
        self
    }

    /// Sets how each node is built, at its start and at each restart, beyond its key, role and the handler
    /// "slow".
    #[must_use]
    pub fn build(mut self, build: impl Fn(Builder, &Setup) -> Builder + Send + Sync + 'static) -> Map {
        self.build = Arc::new(build);
        self
    }

    /// Makes hosts and keys, and starts all hubs and nodes.
    ///
    /// # Panics
    /// If there is no hub, or a name is taken.
    pub fn start(self) -> Cluster {
        let Map { world, hubs, nodes, build } = self;
        let mut rng = world.rng("cluster keys");
        let keys: Vec<_> = hubs.iter().map(|_| SecretKey::generate(&mut rng)).collect();
        let mut named = hubs
            .iter()
            .zip(&keys)
            .map(|((name, _), key)| Hub { key: key.public(), addr: format!("{name}:{HUB_PORT}") });
        let mut ticket = Ticket::generate(named.next().expect("a mesh has a hub"), &mut rng);
        ticket.hubs.extend(named);
        world.forbid_bytes(SEALED, MARKER);

        let namespace = ticket.mesh.namespace();
        let start_hub = |(number, ((name, limits), key)): (usize, ((String, HubLimits), SecretKey))| {
            let host = world.host(&name).addr(&format!("192.0.2.{}", number + 1));
            Relay::start(world, host, key, namespace, limits)
        };
        let hubs = hubs.into_iter().zip(keys).enumerate().map(start_hub).collect();
        let ground = Ground { rng, build, residents: BTreeMap::new(), roamers: 0, leases: BTreeMap::new() };
        let mut cluster =
            Cluster { world, ticket, hubs, peers: Vec::new(), witness: Witness::default(), ground };
        for (name, place, role) in nodes {
            cluster.add(&name, place, role);
        }
        cluster
    }
}

/// The state from which further nodes are made.
pub(super) struct Ground {
    rng: Rng,
    build: Build,
    /// How many hosts began in each network.
    residents: BTreeMap<Net, usize>,
    /// How many moves led to a network where the host had not been.
    roamers: usize,
    /// Assigned addresses, by host name and network.
    leases: BTreeMap<(String, Net), String>,
}

impl Cluster {
    /// Starts a further node now. It gets the next number.
    ///
    /// # Panics
    /// If the name is taken.
    pub fn add(&mut self, name: &str, place: Place, role: Role) -> Peer {
        let host = self.world.host(name);
        let (net, ip) = self.ground.lease(self.world, name, place);
        host.attach(NIC, net, &[&ip]);
        let (name, number) = (name.to_owned(), self.peers.len());
        let setup = Setup { name, number, role, host, world: self.world, witness: self.witness.clone() };
        let key = SecretKey::generate(&mut self.ground.rng);
        let peer = Peer::start(&setup, &key, &self.ticket, &self.ground.build, &self.hubs);
        self.peers.push(peer.clone());
        peer
    }

    /// Moves a node's host elsewhere; its old connections hang. In a network where the host has been before it
    /// gets its earlier address again, as from a DHCP server; elsewhere it gets a new one.
    pub fn roam(&mut self, peer: &Peer, place: Place) {
        let (net, ip) = self.ground.lease(self.world, &peer.name, place);
        peer.host.attach(NIC, net, &[&ip]);
    }
}

impl Cluster {
    /// The possible targets of a fault plan: every node, every hub, every box; nodes may roam into every home and
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
}

impl Ground {
    /// The address of a host in a network: always the same one. A host that moves in gets an address that no
    /// other host has in any network, so that it can detect the move.
    fn lease(&mut self, world: World, name: &str, place: Place) -> (Net, String) {
        let net = match place {
            Place::Open => world.internet(),
            Place::In(net) => net,
        };
        let known = (name.to_owned(), net);
        if let Some(ip) = self.leases.get(&known) {
            return (net, ip.clone());
        }
        let roams = self.leases.keys().any(|(host, _)| host == name);
        let here = if roams { &mut self.roamers } else { self.residents.entry(net).or_default() };
        let number = *here;
        *here += 1;
        let ip = match (net == world.internet(), roams) {
            (true, false) => format!("198.18.{}.{}", number / 250, number % 250 + 1),
            (true, true) => format!("198.19.0.{}", number + 1),
            (false, false) => format!("192.168.1.{}", number + 10),
            (false, true) => format!("192.168.1.{}", number + 100),
        };
        self.leases.insert(known, ip.clone());
        (net, ip)
    }
}
