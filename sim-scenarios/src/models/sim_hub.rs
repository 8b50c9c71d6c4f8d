//! A hub in the world, and the faults that can be injected into it.
//!
//! The model runs the real hub, [`nurl::internals::net::reach::hub::serve`], on a host of its own. Each fault is
//! therefore a fault of the host, of its links, or of the limits that the hub reads when it starts:
//!
//! | fault | how |
//! | --- | --- |
//! | dies | [`kill`](SimHub::kill): clients see connections end; [`power_loss`](SimHub::power_loss): they see nothing |
//! | is told to stop | [`shut_down`](SimHub::shut_down): clients are told |
//! | restarts | [`restart`](SimHub::restart): the same key and address; no state but a remembering hub's file |
//! | stalls | [`stall`](SimHub::stall): the process is paused, its kernel continues to acknowledge |
//! | is slow | [`throttle`](SimHub::throttle): its bandwidth to each client is limited, so its queues fill |
//! | has a slow reader | [`throttle_client`](SimHub::throttle_client): the same for one client alone |
//! | drops a fraction | [`drop_fraction`](SimHub::drop_fraction): of sent and received packets of any protocol |
//! | comes back full | [`limit`](SimHub::limit): with other limits, from its next start on |
//! | refuses new clients | [`refuse_new`](SimHub::refuse_new): registered clients stay |
//! | is replaced by another service | [`set_impostor`](SimHub::set_impostor): from its next start on |
//! | withholds | [`withhold_revocations`](SimHub::withhold_revocations): it takes them, and tells nobody |
//! | moves | [`move_to`](SimHub::move_to): another address; tickets have its name, so clients find it again |
//!
//! **Plaintext at an untrusted hub.** Frames travel inside an encrypted control connection, so a search of
//! packets can't find them. The hub therefore passes each message that it has decrypted to `nurl::rt::exposed`.
//! In the world, that function searches the message for the bytes that [`chaos::World::forbid_bytes`] forbids, as
//! the world searches every packet; outside the world it does nothing. `world.stats().exposed_bytes` counts the
//! searched bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::link::{Bandwidth, Burst, LinkConfig, Rate};
use chaos::net::End;
use chaos::world::{Host, World};
use nurl::internals::authority::rotation::SignedSecret;
use nurl::internals::mesh::MeshId;
use nurl::internals::net::reach::hub::{self, HubConfig, HubHandle, HubLimits, HubStats, ServedMesh};
use nurl::internals::net::reach::listen::Listen;
use nurl::rt::disk;
use nurl::{PublicKey, SecretKey};

use super::impostor::Impostor;
use crate::lock::lock;

/// Where hubs listen.
pub const HUB_PORT: u16 = 4242;

/// The interface that holds a hub's address.
const NIC: &str = "eth0";

/// The queue of a throttled link: about five segments.
const THROTTLE_QUEUE_BYTES: u64 = 8 << 10;

/// The folder and the file in which a hub remembers what it issued.
const MEMORY: (&str, &str) = ("/hub", "/hub/issued");

/// What a hub serves, and how.
#[derive(Clone)]
pub struct Service {
    /// The meshes.
    pub meshes: Vec<ServedMesh>,
    /// The limits at its first start.
    pub limits: HubLimits,
    /// Whether it keeps the passes that it issues, and revocations, in a file.
    pub remembers: bool,
}

/// A hub on its host. A clone controls the same hub.
#[derive(Clone)]
pub struct SimHub {
    /// Its host.
    pub host: Host,
    /// Its key, the same after a restart.
    pub key: PublicKey,
    world: World,
    state: Arc<Mutex<HubState>>,
}

/// What outlives a process of the hub, and the process that runs now.
struct HubState {
    limits: HubLimits,
    /// The service in the hub's place.
    impostor: Option<Impostor>,
    /// The running hub, and the limits that it read.
    serving: Option<(HubHandle, HubLimits)>,
    /// The original bandwidth of each throttled link, by the end that it leads to.
    bandwidths: BTreeMap<End, Option<Bandwidth>>,
    /// The original burst loss of each lossy link, by its two ends.
    bursts: BTreeMap<(End, End), Option<Burst>>,
}

impl SimHub {
    /// Starts a hub on `host`, now and at each restart.
    pub fn start(world: World, host: Host, key: SecretKey, service: Service) -> SimHub {
        let Service { meshes, limits, remembers } = service;
        let state = Arc::new(Mutex::new(HubState {
            limits,
            impostor: None,
            serving: None,
            bandwidths: BTreeMap::new(),
            bursts: BTreeMap::new(),
        }));
        let hub = SimHub { host, key: key.public(), world, state: state.clone() };
        host.spawn(move || {
            let (key, state, meshes) = (key.clone(), state.clone(), meshes.clone());
            async move {
                let (limits, impostor) = {
                    let state = lock(&state);
                    (state.limits, state.impostor)
                };
                if let Some(impostor) = impostor {
                    return impostor.serve(std::net::SocketAddr::new([0, 0, 0, 0].into(), HUB_PORT)).await;
                }
                let listen = Listen::Everywhere { port: HUB_PORT };
                let issued = remembers.then(|| {
                    // If the folder can't be made, the hub can't open the file, and says so.
                    let _ = disk::create_dir_all(MEMORY.0.as_ref());
                    MEMORY.1.into()
                });
                let config = HubConfig { limits, issued, ..HubConfig::new(listen, key, meshes) };
                let serving = hub::serve(config).await.expect("the hub's port is free on its own host");
                // This drops the handle of an earlier process, whose tasks ended with its host's boot.
                lock(&state).serving = Some((serving, limits));
                std::future::pending::<()>().await;
            }
        });
        hub
    }

    /// The hub's present statistics; all zero before its first start.
    pub fn stats(&self) -> HubStats {
        lock(&self.state).serving.as_ref().map_or_else(HubStats::default, |(serving, _)| serving.stats())
    }

    /// The limits that apply to the hub now.
    pub fn limits(&self) -> HubLimits {
        let state = lock(&self.state);
        state.serving.as_ref().map_or(state.limits, |(_, limits)| *limits)
    }

    /// The secret of a rotated mesh, if the hub knows it: for tickets.
    pub fn secret(&self, mesh: &MeshId) -> Option<SignedSecret> {
        lock(&self.state).serving.as_ref().and_then(|(serving, _)| serving.secret(mesh))
    }

    /// Stops the hub as an operator does: its clients are told, and then the process ends.
    pub async fn shut_down(&self) {
        let serving = lock(&self.state).serving.take();
        if let Some((serving, _)) = serving {
            // Its host may die meanwhile.
            let _ = self.host.run(serving.shutdown()).await;
        }
        self.host.crash();
    }

    /// Ends the process; the kernel closes its connections.
    pub fn kill(&self) {
        self.host.crash();
    }

    /// Cuts the machine's power; its peers get no notice.
    pub fn power_loss(&self) {
        self.host.power_loss();
    }

    /// Starts the hub (again): the same key, and no state but what it remembers.
    pub fn restart(&self) {
        self.host.restart();
    }

    /// Pauses the process until [`resume`](SimHub::resume); connections stay open.
    pub fn stall(&self) {
        self.host.pause();
    }

    /// Ends a stall.
    pub fn resume(&self) {
        self.host.resume();
    }

    /// Adds latency to the links to and from the hub.
    pub fn delay(&self, by: Duration) {
        for end in self.neighbours() {
            self.change(self.host.into(), end, |link| link.latency += by);
            self.change(end, self.host.into(), |link| link.latency += by);
        }
    }

    /// Limits the hub's bandwidth to each client; `None` restores it.
    pub fn throttle(&self, bytes_per_second: Option<u64>) {
        for end in self.neighbours() {
            self.throttle_end(end, bytes_per_second);
        }
    }

    /// Limits the hub's bandwidth to this client, and to all others behind the same outermost box; `None`
    /// restores it.
    ///
    /// # Panics
    /// If the host has no route to the internet.
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
        let mut state = lock(&self.state);
        self.change(self.host.into(), end, |link| {
            link.bandwidth = match slow {
                Some(slow) => {
                    state.bandwidths.entry(end).or_insert(link.bandwidth);
                    Some(slow)
                }
                None => state.bandwidths.remove(&end).unwrap_or(link.bandwidth),
            };
        });
    }

    /// Loses this fraction of all packets to and from the hub, of any protocol; `NEVER` restores the links.
    pub fn drop_fraction(&self, rate: Rate) {
        // Always in the bad state, so the loss doesn't depend on earlier packets.
        let lossy = Burst { begin: Rate::ALWAYS, end: Rate::NEVER, loss: rate };
        let mut state = lock(&self.state);
        for other in self.neighbours() {
            for (from, to) in [(self.host.into(), other), (other, self.host.into())] {
                self.change(from, to, |link| {
                    link.burst = if rate == Rate::NEVER {
                        state.bursts.remove(&(from, to)).unwrap_or(link.burst)
                    } else {
                        state.bursts.entry((from, to)).or_insert(link.burst);
                        Some(lossy)
                    };
                });
            }
        }
    }

    /// Refuses clients that aren't registered, or accepts them again. Registered clients stay. The hub's next
    /// start lifts the refusal.
    pub fn refuse_new(&self, refuse: bool) {
        let state = lock(&self.state);
        let most = if refuse { 0 } else { state.limits.clients };
        if let Some((serving, _)) = &state.serving {
            serving.limit_clients(most);
        }
    }

    /// From now on, until its next start, the hub takes revocations and tells nobody.
    pub fn withhold_revocations(&self) {
        if let Some((serving, _)) = &lock(&self.state).serving {
            serving.withhold_revocations();
        }
    }

    /// Sets the limits from the hub's next start on. A limit of zero clients refuses every client.
    pub fn limit(&self, limits: HubLimits) {
        lock(&self.state).limits = limits;
    }

    /// Sets the service that runs in place of the hub from its next start on; `None` for the hub itself.
    pub fn set_impostor(&self, as_impostor: Option<Impostor>) {
        lock(&self.state).impostor = as_impostor;
    }

    /// Gives the hub another address. Its connections hang, because their packets have no route any more.
    pub fn move_to(&self, ip: &str) {
        self.host.set_addrs(NIC, &[ip]);
    }

    fn change(&self, from: End, to: End, change: impl FnOnce(&mut LinkConfig)) {
        let mut link = self.world.link(from, to);
        change(&mut link);
        self.world.set_link(from, to, link);
    }

    /// All ends on the internet: hosts with addresses there, and boxes.
    fn neighbours(&self) -> Vec<End> {
        let internet = self.world.internet();
        let open = |host: &Host| *host != self.host && host.net(NIC) == Some(internet);
        let hosts = self.world.hosts().into_iter().filter(open).map(End::from);
        let boxes =
            self.world.nets().into_iter().filter(|net| net.outside() == Some(internet)).map(End::from);
        hosts.chain(boxes).collect()
    }
}
