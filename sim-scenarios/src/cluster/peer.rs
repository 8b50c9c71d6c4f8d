//! One node of a cluster, on its host, across all of its processes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use chaos::net::Net;
use chaos::world::{Host, World};
use nurl::internals::authority::credential::Credential;
use nurl::internals::authority::key::AuthorityKey;
use nurl::internals::compute::job::JobError;
use nurl::internals::compute::pool::JobContext;
use nurl::internals::mesh::Ticket;
use nurl::internals::node::{Builder, Role};
use nurl::rt::{task, time};
use nurl::{Error, Node, PublicKey, SecretKey};

use super::checks::Moment;
use super::{Witness, checks};
use crate::lock::lock;
use crate::models::sim_hub::SimHub;

/// The interface that holds a node's addresses.
pub(super) const NIC: &str = "eth0";

/// The time after which a supervisor starts a process again.
const START_AGAIN: Duration = Duration::from_secs(1);

/// The facts known when a node is configured.
#[derive(Clone)]
pub struct Setup {
    /// The node's name, which is its host's.
    pub name: String,
    /// Its number, from 0.
    pub number: usize,
    /// Its role in the mesh.
    pub role: Role,
    /// Its host.
    pub host: Host,
    /// The world that it is in.
    pub world: World,
    /// The record to which handlers report their runs.
    pub witness: Witness,
}

/// How each node is configured, beyond the common part: handlers, a store, limits.
pub(crate) type Configure = Arc<dyn Fn(Builder, &Setup) -> Builder + Send + Sync>;

/// How a node gets in.
#[derive(Clone)]
pub enum Standing {
    /// By a pass that was made before.
    Pass(Box<Credential>),
    /// By a slip that the holder of a pass signed for its throwaway key.
    Slip {
        /// The pass and the slip.
        shown: Box<Credential>,
        /// The key of the pass's holder.
        holder: SecretKey,
    },
    /// By the invitation of its ticket.
    Invited,
    /// By the authority's key: it issues passes.
    Issuer(Arc<AuthorityKey>),
}

/// A node of the cluster.
#[derive(Clone)]
pub struct Peer {
    /// Its name, as in "node 3".
    pub name: String,
    /// Its key, the same after a restart.
    pub key: PublicKey,
    /// Its role in the mesh.
    pub role: Role,
    /// Its host.
    pub host: Host,
    slot: Arc<Mutex<Option<(u32, Node)>>>,
}

impl Peer {
    /// The node of the host's present process, once it has joined.
    pub async fn node(&self, world: &World) -> Node {
        loop {
            let boot = self.host.boot();
            if let Some((of, node)) = &*lock(&self.slot)
                && *of == boot
            {
                return node.clone();
            }
            world.sleep(Duration::from_millis(50)).await;
        }
    }

    /// The network that its host is in.
    ///
    /// # Panics
    /// If a scenario has given the host another interface than `eth0`.
    pub fn net(&self) -> Net {
        self.host.net(NIC).expect("a node's host has eth0")
    }

    /// Starts a node on `setup.host`, now and at each restart.
    pub(super) fn start(
        setup: &Setup,
        (key, standing): (&SecretKey, Standing),
        ticket: &Ticket,
        configure: &Configure,
        hubs: &[SimHub],
    ) -> Peer {
        let slot = Arc::new(Mutex::new(None));
        setup.witness.register(key.public(), setup.host);
        let (name, host) = (setup.name.clone(), setup.host);
        let peer = Peer { name, key: key.public(), role: setup.role, host, slot: slot.clone() };
        let (setup, key, ticket, configure) = (setup.clone(), key.clone(), ticket.clone(), configure.clone());
        let hubs = hubs.to_vec();
        let world = setup.world;
        host.spawn(move || {
            let boot = host.boot();
            let (setup, key, ticket) = (setup.clone(), key.clone(), ticket.clone());
            let standing = standing.clone();
            let (configure, slot, hubs) = (configure.clone(), slot.clone(), hubs.clone());
            async move {
                let Setup { name, witness, .. } = setup.clone();
                let (by, record) = (name.clone(), witness.clone());
                let slow =
                    move |_: JobContext, payload: Bytes| slow_echo(by.clone(), record.clone(), payload);
                let builder = Node::builder(ticket).key(key).role(setup.role).handler("slow", slow);
                let builder = match standing {
                    Standing::Pass(credential) => builder.credential(*credential),
                    Standing::Slip { shown, holder } => builder.credential(*shown).holder(holder),
                    Standing::Invited => builder,
                    Standing::Issuer(authority) => builder.issuer(authority),
                };
                let node = match configure(builder, &setup).spawn().await {
                    Ok(node) => node,
                    // The node's disk failed because a crash was armed there.
                    Err(_) if !setup.host.is_running() => return,
                    Err(Error::Store(_)) => return start_again(host).await,
                    Err(error) => panic!("{name} doesn't start: {error}"),
                };
                witness.node_started(&name);
                let mut events = node.events();
                task::spawn(checks::inspect_at_intervals(setup.clone(), node.clone(), hubs));
                *lock(&slot) = Some((boot, node));
                while let Some(event) = events.next().await {
                    let at = Moment { world: world.elapsed(), own: host.monotonic() };
                    witness.event(at, &name, boot, &event);
                }
            }
        });
        peer
    }
}

/// What the host's supervisor does when a node doesn't start for its disk: it starts the process again.
async fn start_again(host: Host) {
    time::sleep(START_AGAIN).await;
    host.restart();
}

/// A handler that takes a second of virtual time, so that a fault can hit it while it runs.
async fn slow_echo(by: String, witness: Witness, payload: Bytes) -> Result<Bytes, JobError> {
    time::sleep(Duration::from_secs(1)).await;
    witness.record_run(&by, &payload);
    Ok(payload)
}
