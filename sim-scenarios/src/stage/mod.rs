//! The stage of a scenario: links, networks behind NAT boxes, hubs and nodes.
//!
//! A [`Stage`] is written as a sentence, and read from the top: the links of this world, its hubs, then the nodes,
//! each at the place that was named last. Nodes are on the internet until a network is named.
//!
//! ```
//! # #[cfg(madsim)]
//! # {
//! use std::time::Duration;
//!
//! use sim_scenarios::models::nat_box::presets;
//! use sim_scenarios::stage::{Stage, link_ms};
//!
//! let outcome = chaos::run(1, |world| async move {
//!     let cluster = Stage::new(world)
//!         .links(link_ms(15, 5))
//!         .hub("hub")
//!         .workers(2)
//!         .behind_nat("family", presets::home_router())
//!         .worker("desk")
//!         .observer("phone")
//!         .configure(|node, setup| node.weight(1 + setup.number as u16))
//!         .meet(Duration::from_secs(30))
//!         .await?;
//!     Ok::<_, chaos::Violation>(cluster.views().await)
//! });
//! let views = outcome.result.unwrap().unwrap();
//! assert!(views.contains("phone sees: desk alive, node 0 alive, node 1 alive\n"), "{views}");
//! # }
//! ```
//!
//! Links and networks are made at once, in the order of the calls. Hubs and nodes are made by [`Stage::start`], or by
//! [`Stage::meet`], which also waits until all see each other: first all hubs, then all nodes. This order, and that
//! of the calls, is a part of a run's digest.
//!
//! | file | concept |
//! | --- | --- |
//! | `network` | links, and networks behind boxes |
//! | `addresses` | the address of each host |

mod addresses;
mod network;

use std::sync::Arc;
use std::time::Duration;

use chaos::link::LinkConfig;
use chaos::net::Net;
use chaos::property::Violation;
use chaos::world::World;
use nurl::SecretKey;
use nurl::internals::authority::invitation::Invitation;
use nurl::internals::authority::key::AuthorityKey;
use nurl::internals::mesh::{Hub, Ticket};
use nurl::internals::net::reach::hub::{HubLimits, ServedMesh};
use nurl::internals::node::{Builder, Role};

use crate::cluster::{Cluster, Configure, MARKER, SEALED, Setup};
use crate::models::nat_box::NatConfig;
use crate::models::sim_hub::{HUB_PORT, Service, SimHub};

pub(crate) use addresses::Addresses;
pub use network::{link_ms, nat, network_behind, with_store};

/// A world under construction: its hubs and nodes are named, and not yet started.
pub struct Stage {
    world: World,
    hubs: Vec<PlannedHub>,
    nodes: Vec<PlannedNode>,
    /// The network of the nodes that are named next.
    place: Net,
    configure: Configure,
    zones: &'static [&'static str],
}

/// Whether a hub has the authority's key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Issues {
    Passes,
    Nothing,
}

struct PlannedHub {
    name: String,
    limits: HubLimits,
    issues: Issues,
}

struct PlannedNode {
    name: String,
    net: Net,
    role: Role,
}

impl Stage {
    /// A stage without hubs and nodes.
    pub fn new(world: World) -> Stage {
        let configure: Configure = Arc::new(|builder, _| builder);
        let (hubs, nodes) = (Vec::new(), Vec::new());
        Stage { world, hubs, nodes, place: world.internet(), configure, zones: &[""] }
    }

    /// All links of the world are like this one, unless a link is set on its own.
    #[must_use]
    pub fn links(self, link: LinkConfig) -> Stage {
        self.world.link_default(link);
        self
    }

    /// A hub on the internet, with the default limits.
    #[must_use]
    pub fn hub(self, name: &str) -> Stage {
        self.hub_with(name, HubLimits::default())
    }

    /// A hub on the internet.
    #[must_use]
    pub fn hub_with(mut self, name: &str, limits: HubLimits) -> Stage {
        self.hubs.push(PlannedHub { name: name.to_owned(), limits, issues: Issues::Passes });
        self
    }

    /// A hub on the internet that hasn't the authority's key: it issues no passes, and can't read the mesh.
    #[must_use]
    pub fn blind_hub(mut self, name: &str) -> Stage {
        let limits = HubLimits::default();
        self.hubs.push(PlannedHub { name: name.to_owned(), limits, issues: Issues::Nothing });
        self
    }

    /// Makes a network behind a NAT box on the internet. A later [`behind`](Stage::behind) puts nodes there, or
    /// [`Cluster::roam`] moves one there.
    pub fn nat(&self, name: &str, config: NatConfig) -> Net {
        nat(self.world, name, config)
    }

    /// The next nodes are in this network.
    #[must_use]
    pub fn behind(mut self, net: Net) -> Stage {
        self.place = net;
        self
    }

    /// The next nodes are in a new network behind a NAT box on the internet.
    #[must_use]
    pub fn behind_nat(self, name: &str, config: NatConfig) -> Stage {
        let net = self.nat(name, config);
        self.behind(net)
    }

    /// The next nodes are on the internet, each with an address of its own.
    #[must_use]
    pub fn on_the_internet(self) -> Stage {
        let internet = self.world.internet();
        self.behind(internet)
    }

    /// Workers with the names "node N", where N is the number of a node among all.
    #[must_use]
    pub fn workers(mut self, count: usize) -> Stage {
        for _ in 0..count {
            let name = format!("node {}", self.nodes.len());
            self = self.worker(&name);
        }
        self
    }

    /// A worker: it owns keys and runs jobs.
    #[must_use]
    pub fn worker(self, name: &str) -> Stage {
        self.node(name, Role::Worker)
    }

    /// A member: it owns no keys and runs no jobs.
    #[must_use]
    pub fn member(self, name: &str) -> Stage {
        self.node(name, Role::Member)
    }

    /// An observer: it only watches and sends. It isn't probed and isn't gossiped about.
    #[must_use]
    pub fn observer(self, name: &str) -> Stage {
        self.node(name, Role::Observer)
    }

    /// A node in this role.
    #[must_use]
    pub fn node(mut self, name: &str, role: Role) -> Stage {
        self.nodes.push(PlannedNode { name: name.to_owned(), net: self.place, role });
        self
    }

    /// Sets how each node is configured, at its start and at each restart, beyond its key, its role and the handler
    /// "slow".
    #[must_use]
    pub fn configure(
        mut self,
        configure: impl Fn(Builder, &Setup) -> Builder + Send + Sync + 'static,
    ) -> Stage {
        self.configure = Arc::new(configure);
        self
    }

    /// The passes of the nodes are of these zones, in turn.
    #[must_use]
    pub fn zones(mut self, zones: &'static [&'static str]) -> Stage {
        self.zones = zones;
        self
    }

    /// Makes hosts and keys, and starts all hubs and nodes.
    ///
    /// # Panics
    /// If there is no hub, or a name is taken.
    pub fn start(self) -> Cluster {
        let Stage { world, hubs, nodes, configure, zones, place: _ } = self;
        let mut rng = world.rng("cluster keys");
        let keys: Vec<_> = hubs.iter().map(|_| SecretKey::generate(&mut rng)).collect();
        let mut named = hubs
            .iter()
            .zip(&keys)
            .map(|(hub, key)| Hub { key: key.public(), addr: format!("{}:{HUB_PORT}", hub.name) });
        let authority = Arc::new(AuthorityKey::generate(&mut rng));
        let mut ticket =
            Ticket::generate(authority.mesh(), named.next().expect("a mesh has a hub"), &mut rng);
        ticket.hubs.extend(named);
        ticket.invitation =
            Some(Invitation::for_keys(u16::MAX, &authority, nurl::rt::time::unix_now(), &mut rng));
        world.forbid_bytes(SEALED, MARKER);

        let start_hub = |(number, (hub, key)): (usize, (PlannedHub, SecretKey))| {
            let host = world.host(&hub.name).addr(&format!("192.0.2.{}", number + 1));
            let mesh = match hub.issues {
                Issues::Passes => ServedMesh::issued_by(authority.clone()),
                Issues::Nothing => ServedMesh::of(authority.mesh()),
            };
            let service = Service { meshes: vec![mesh], limits: hub.limits, remembers: false };
            SimHub::start(world, host, key, service)
        };
        let hubs = hubs.into_iter().zip(keys).enumerate().map(start_hub).collect();
        let mut cluster = Cluster::new(world, authority.clone(), ticket, hubs, rng, (configure, zones));
        for PlannedNode { name, net, role } in nodes {
            cluster.add(&name, net, role);
        }
        cluster
    }

    /// [Starts](Stage::start) all hubs and nodes, and waits until all nodes see each other.
    ///
    /// # Errors
    /// As [`Cluster::converge`].
    pub async fn meet(self, limit: Duration) -> Result<Cluster, Violation> {
        let cluster = self.start();
        cluster.converge(limit).await?;
        Ok(cluster)
    }
}
