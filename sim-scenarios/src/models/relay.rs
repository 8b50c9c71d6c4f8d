//! A hub in the world, and everything that may befall it.
//!
//! What runs is the real hub, [`nurl::internals::net::hub::serve`], on a host of its own, so each fault is one of the host, of
//! its links, or of the limits that the hub reads when it starts:
//!
//! | fault | how |
//! | --- | --- |
//! | dies | [`kill`](Relay::kill): its clients see their connections end; [`power_loss`](Relay::power_loss): they see nothing |
//! | restarts | [`restart`](Relay::restart): the same key and address, nothing remembered |
//! | stalls | [`stall`](Relay::stall): the process stands still, its kernel goes on acknowledging |
//! | is slow | [`throttle`](Relay::throttle): what it sends to each client is limited, so its queues fill |
//! | has a slow reader | [`throttle_client`](Relay::throttle_client): the same for one client alone |
//! | drops a fraction | [`drop_fraction`](Relay::drop_fraction): of what it sends and gets, whatever the protocol |
//! | comes back full | [`limit`](Relay::limit): with other limits, from its next start on |
//! | refuses new clients | [`refuse_new`](Relay::refuse_new): who is registered stays |
//! | isn't there, and something else is | [`pose`](Relay::pose): from its next start on |
//! | moves | [`move_to`](Relay::move_to): another address; tickets have its name, so clients find it again |
//!
//! **What an untrusted hub reads.** Frames travel inside of an encrypted control connection, so a search of packets
//! says nothing about them. The hub itself hands each message that it has opened to `nurl::rt::exposed`, which in the
//! world searches it for the bytes that [`chaos::World::forbid_bytes`] forbids, as it searches every packet; outside
//! of the world nobody listens there. `world.stats().exposed_bytes` says how much was searched.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chaos::link::{Bandwidth, Burst, LinkConfig, Rate};
use chaos::net::End;
use chaos::world::{Host, World};
use nurl::internals::mesh::Namespace;
use nurl::internals::net::hub::{self, HubConfig, HubHandle, HubLimits, HubStats};
use nurl::internals::net::listen::Listen;
use nurl::{PublicKey, SecretKey};

use super::impostor::Impostor;

/// Where hubs listen.
pub const HUB_PORT: u16 = 4242;

/// The interface that a hub's host has its address on.
const NIC: &str = "eth0";

/// What waits for a throttled link: five segments or so.
const THROTTLE_QUEUE_BYTES: u64 = 8 << 10;

/// A hub on its host. A clone is the same hub.
#[derive(Clone)]
pub struct Relay {
    /// Its host.
    pub host: Host,
    /// Its key, the same after a restart.
    pub key: PublicKey,
    world: World,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    limits: HubLimits,
    /// What runs in its place.
    impostor: Option<Impostor>,
    /// With the limits that it read.
    serving: Option<(HubHandle, HubLimits)>,
    /// What links did before it was slow: of the one to this end.
    bandwidths: BTreeMap<End, Option<Bandwidth>>,
    /// The same before it lost a fraction: of the one from an end to another.
    bursts: BTreeMap<(End, End), Option<Burst>>,
}

impl Relay {
    /// Starts a hub on `host`, now and at each restart.
    pub fn start(world: World, host: Host, key: SecretKey, namespace: Namespace, limits: HubLimits) -> Relay {
        let shared = Arc::new(Mutex::new(Shared {
            limits,
            impostor: None,
            serving: None,
            bandwidths: BTreeMap::new(),
            bursts: BTreeMap::new(),
        }));
        let relay = Relay { host, key: key.public(), world, shared: shared.clone() };
        host.spawn(move || {
            let (key, shared) = (key.clone(), shared.clone());
            async move {
                let (limits, impostor) = {
                    let shared = lock(&shared);
                    (shared.limits, shared.impostor)
                };
                if let Some(impostor) = impostor {
                    return impostor.serve(std::net::SocketAddr::new([0, 0, 0, 0].into(), HUB_PORT)).await;
                }
                let listen = Listen::Everywhere { port: HUB_PORT };
                let config = HubConfig { limits, ..HubConfig::new(listen, key, vec![namespace]) };
                let serving = hub::serve(config).await.expect("the hub's port is free on its own host");
                // The handle of an earlier process goes: whatever it did has ended with its host's boot.
                lock(&shared).serving = Some((serving, limits));
                std::future::pending::<()>().await;
            }
        });
        relay
    }

    /// What it does now; all zero before its first start.
    pub fn stats(&self) -> HubStats {
        lock(&self.shared).serving.as_ref().map_or_else(HubStats::default, |(serving, _)| serving.stats())
    }

    /// The limits that what it does now is under.
    pub fn limits(&self) -> HubLimits {
        let shared = lock(&self.shared);
        shared.serving.as_ref().map_or(shared.limits, |(_, limits)| *limits)
    }

    /// The process ends; the kernel closes its connections.
    pub fn kill(&self) {
        self.host.crash();
    }

    /// The machine loses its power; nobody is told.
    pub fn power_loss(&self) {
        self.host.power_loss();
    }

    /// Starts it (again): the same key, nothing remembered.
    pub fn restart(&self) {
        self.host.restart();
    }

    /// The process stands still until [`go_on`](Relay::go_on); connections stay open.
    pub fn stall(&self) {
        self.host.pause();
    }

    /// Ends a stall.
    pub fn go_on(&self) {
        self.host.resume();
    }

    /// Makes the links to and from it longer.
    pub fn delay(&self, by: Duration) {
        for end in self.neighbours() {
            self.change(self.host.into(), end, |link| link.latency += by);
            self.change(end, self.host.into(), |link| link.latency += by);
        }
    }

    /// Limits what it sends to each client, `None` for as before.
    pub fn throttle(&self, bytes_per_second: Option<u64>) {
        for end in self.neighbours() {
            self.throttle_end(end, bytes_per_second);
        }
    }

    /// Limits what it sends to this client, and to whoever else is behind the same outermost box, `None` for as
    /// before.
    ///
    /// # Panics
    /// If the host has no way to the internet.
    pub fn throttle_client(&self, client: Host, bytes_per_second: Option<u64>) {
        let internet = self.world.internet();
        let mut end = End::from(client);
        let mut net = client.net(NIC).expect("a client is in a network");
        while net != internet {
            end = net.into();
            net = net.outside().expect("only the internet has nothing outside");
        }
        self.throttle_end(end, bytes_per_second);
    }

    fn throttle_end(&self, end: End, bytes_per_second: Option<u64>) {
        let queue_bytes = THROTTLE_QUEUE_BYTES;
        let slow = bytes_per_second.map(|bytes_per_second| Bandwidth { bytes_per_second, queue_bytes });
        let mut shared = lock(&self.shared);
        self.change(self.host.into(), end, |link| {
            link.bandwidth = match slow {
                Some(slow) => {
                    shared.bandwidths.entry(end).or_insert(link.bandwidth);
                    Some(slow)
                }
                None => shared.bandwidths.remove(&end).unwrap_or(link.bandwidth),
            };
        });
    }

    /// Loses this fraction of all packets to and from it, whatever their protocol; `NEVER` for as before.
    pub fn drop_fraction(&self, rate: Rate) {
        // Always bad, so the loss doesn't depend on what went before.
        let lossy = Burst { begin: Rate::ALWAYS, end: Rate::NEVER, loss: rate };
        let mut shared = lock(&self.shared);
        for other in self.neighbours() {
            for (from, to) in [(self.host.into(), other), (other, self.host.into())] {
                self.change(from, to, |link| {
                    link.burst = if rate == Rate::NEVER {
                        shared.bursts.remove(&(from, to)).unwrap_or(link.burst)
                    } else {
                        shared.bursts.entry((from, to)).or_insert(link.burst);
                        Some(lossy)
                    };
                });
            }
        }
    }

    /// Takes no client that isn't registered, or everybody again. Who is registered stays. Its next start ends it.
    pub fn refuse_new(&self, refuse: bool) {
        let shared = lock(&self.shared);
        let most = if refuse { 0 } else { shared.limits.clients };
        if let Some((serving, _)) = &shared.serving {
            serving.limit_clients(most);
        }
    }

    /// The limits that it starts with from the next time on. With no clients at all it refuses everybody.
    pub fn limit(&self, limits: HubLimits) {
        lock(&self.shared).limits = limits;
    }

    /// What runs in its place from the next start on; `None` for itself again.
    pub fn pose(&self, as_impostor: Option<Impostor>) {
        lock(&self.shared).impostor = as_impostor;
    }

    /// Gives it another address. Its connections hang: their packets have no way any more.
    pub fn move_to(&self, ip: &str) {
        self.host.set_addrs(NIC, &[ip]);
    }

    fn change(&self, from: End, to: End, change: impl FnOnce(&mut LinkConfig)) {
        let mut link = self.world.link(from, to);
        change(&mut link);
        self.world.set_link(from, to, link);
    }

    /// Everybody on the internet: hosts with addresses there, and boxes.
    fn neighbours(&self) -> Vec<End> {
        let internet = self.world.internet();
        let open = |host: &Host| *host != self.host && host.net(NIC) == Some(internet);
        let hosts = self.world.hosts().into_iter().filter(open).map(End::from);
        let boxes =
            self.world.nets().into_iter().filter(|net| net.outside() == Some(internet)).map(End::from);
        hosts.chain(boxes).collect()
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
