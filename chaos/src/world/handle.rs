//! The scenario's handle on its world: the [`World`], which gives access to its [`Host`]s and networks.

use super::findings::{Check, Forbidden};
use super::host::Host;
use super::map;
use super::net::Net;
use super::rng::Rng;
use super::sim;
use super::sleep::sleep;
use super::stats::WorldStats;
use crate::ids::{End, HostId, INTERNET};
use crate::kernel::host::HostState;
use crate::wire::link::LinkConfig;
use memchr::memmem::Finder;
use std::collections::BTreeSet;
use std::panic::Location;
use std::time::Duration;

/// The running world. A copy refers to the same world; it works only inside the run that gave it.
#[derive(Debug, Clone, Copy)]
pub struct World(());

impl World {
    pub(crate) fn new() -> World {
        World(())
    }

    /// The seed of this run.
    pub fn seed(&self) -> u64 {
        sim::with(|sim| sim.seed)
    }

    /// Makes a host with an idle process and no interface.
    ///
    /// # Panics
    /// If there is a host of that name.
    pub fn host(&self, name: &str) -> Host {
        Host::make(name)
    }

    /// The host of that name.
    pub fn find(&self, name: &str) -> Option<Host> {
        sim::with(|sim| sim.hosts.find(name).map(Host))
    }

    /// All hosts, in the order in which they were made.
    pub fn hosts(&self) -> Vec<Host> {
        sim::with(|sim| sim.hosts.iter().map(|host| Host(host.id)).collect())
    }

    /// Configures every link of the internet that has no configuration of its own.
    pub fn link_default(&self, config: LinkConfig) {
        self.internet().link_default(config);
    }

    /// Configures one direction of one link from now on. Its ends are hosts or boxes (named by the network behind
    /// them) with addresses in one network, or a host and the box of its own network.
    pub fn set_link(&self, from: impl Into<End>, to: impl Into<End>, config: LinkConfig) {
        let (from, to) = (from.into(), to.into());
        sim::with(|sim| {
            sim.setup(None, &format!("link from {from:?} to {to:?} {config:?}"));
            sim.wire.links.set(from, to, config);
        });
    }

    /// Configures both directions of one link from now on.
    pub fn set_link_both(&self, a: impl Into<End>, b: impl Into<End>, config: &LinkConfig) {
        let (a, b) = (a.into(), b.into());
        self.set_link(a, b, config.clone());
        self.set_link(b, a, config.clone());
    }

    /// Resets one direction of one link to its network's configuration.
    pub fn unset_link(&self, from: impl Into<End>, to: impl Into<End>) {
        let (from, to) = (from.into(), to.into());
        sim::with(|sim| {
            sim.setup(None, &format!("link from {from:?} to {to:?} is its network's"));
            sim.wire.links.unset(from, to);
        });
    }

    /// The current configuration of one direction of one link.
    ///
    /// # Panics
    /// If the ends have no network in common: then there is no such link.
    pub fn link(&self, from: impl Into<End>, to: impl Into<End>) -> LinkConfig {
        let (from, to) = (from.into(), to.into());
        sim::with(|sim| {
            let net = sim.common_net(from, to).unwrap_or_else(|| panic!("no link from {from:?} to {to:?}"));
            sim.wire.links.get(from, to, &sim.wire.nets.get(net).links).into_owned()
        })
    }

    /// Cuts off the two groups from each other, in both directions; packets in flight are lost.
    pub fn partition(&self, left: &[Host], right: &[Host]) {
        self.partition_one_way(left, right);
        self.partition_one_way(right, left);
    }

    /// Cuts the direction from one group to the other, whatever boxes lie between them; the opposite direction stays
    /// open.
    pub fn partition_one_way(&self, from: &[Host], to: &[Host]) {
        sim::with(|sim| {
            sim.fault(None, &format!("cut from {from:?} to {to:?}"));
            let now_ns = sim.now_ns();
            for a in from {
                for b in to {
                    sim.wire.links.cut(now_ns, a.0, b.0);
                }
            }
        });
    }

    /// Ends every partition.
    pub fn heal(&self) {
        sim::with(|sim| {
            sim.fault(None, "heal");
            let now_ns = sim.now_ns();
            sim.wire.links.heal(now_ns);
        });
    }

    /// Ends the partition between two groups, in both directions; others stay.
    pub fn mend(&self, left: &[Host], right: &[Host]) {
        sim::with(|sim| {
            sim.fault(None, &format!("mend between {left:?} and {right:?}"));
            let now_ns = sim.now_ns();
            for a in left {
                for b in right {
                    sim.wire.links.mend(now_ns, a.0, b.0);
                    sim.wire.links.mend(now_ns, b.0, a.0);
                }
            }
        });
    }

    /// The hosts whose messages can have reached `to` since a moment of virtual time, directly or through other
    /// hosts: their processes have run since then, and they were not cut off all the time. So `to` has heard from no
    /// other host. The set may contain hosts that weren't heard either, because losses and boxes are not considered.
    pub fn audible(&self, to: Host, since: Duration) -> BTreeSet<Host> {
        sim::with(|sim| {
            let since_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
            let mute = |host: &HostState| !host.process.progress.0 && host.process.progress.1 <= since_ns;
            let mut silent: Vec<HostId> =
                sim.hosts.iter().filter(|host| host.id != to.0 && !mute(host)).map(|host| host.id).collect();
            let (mut audible, mut next) = (BTreeSet::new(), vec![to.0]);
            while let Some(at) = next.pop() {
                let (still, heard) =
                    silent.into_iter().partition(|from| sim.wire.links.is_cut_since(since_ns, *from, at));
                silent = still;
                let heard: Vec<HostId> = heard;
                audible.extend(heard.iter().map(|host| Host(*host)));
                next.extend(heard);
            }
            audible
        })
    }

    /// Virtual time since the world began.
    pub fn elapsed(&self) -> Duration {
        sim::with(|sim| Duration::from_nanos(sim.now_ns()))
    }

    /// Waits in virtual time.
    pub async fn sleep(&self, duration: Duration) {
        sleep(duration).await;
    }

    /// The counters so far.
    pub fn stats(&self) -> WorldStats {
        sim::with(|sim| sim.record.stats.clone())
    }

    /// The number of TCP connections in the hosts' kernels. Each side counts separately, including closing
    /// connections.
    pub fn open_connections(&self) -> usize {
        sim::with(|sim| sim.hosts.iter().map(|host| host.tcp.len()).sum())
    }

    /// The next random stream of this label for the scenario itself.
    pub fn rng(&self, label: &str) -> Rng {
        sim::with(|sim| sim.open_stream(None, label))
    }

    /// Writes a line of the scenario into the trace, and so into the digest.
    pub fn note(&self, text: &str) {
        sim::with(|sim| {
            let now_ns = sim.now_ns();
            sim.record.line(now_ns, text);
        });
    }

    /// The scenario has ended with this result.
    pub(crate) fn ended(&self, result: &str) {
        sim::with(|sim| {
            let now_ns = sim.now_ns();
            sim.record.ended(now_ns, result);
        });
    }

    /// The outermost network.
    pub fn internet(&self) -> Net {
        Net(INTERNET)
    }

    /// The network of that name.
    pub fn find_net(&self, name: &str) -> Option<Net> {
        sim::with(|sim| sim.wire.nets.iter().find(|(_, net)| net.name == name).map(|(id, _)| Net(id)))
    }

    /// All networks, in the order in which they were made; the internet is the first.
    pub fn nets(&self) -> Vec<Net> {
        sim::with(|sim| sim.wire.nets.iter().map(|(id, _)| Net(id)).collect())
    }

    /// The map of this world, now:
    ///
    /// ```text
    /// internet
    ///   server: eth0 198.51.100.7
    ///   home, behind a cone at 203.0.113.1
    ///     laptop: eth0 192.168.1.2, wlan0 down 192.168.1.3
    ///     nas (no process): eth0 192.168.1.9
    /// ```
    pub fn map(&self) -> String {
        sim::with(|sim| map::draw(&sim.hosts, &sim.wire.nets))
    }

    /// Calls `check` after every instant with an event, outside of every host. `Err` with the observation breaks the
    /// property and ends the run. The check must be cheap, and must not sleep.
    #[track_caller]
    pub fn always(&self, property: &str, check: impl FnMut() -> Result<(), String> + Send + 'static) {
        let check =
            Check { property: property.to_owned(), place: Location::caller(), check: Box::new(check) };
        sim::with(|sim| sim.findings.always(check));
    }

    /// Forbids a sequence of bytes on every link: no packet may carry it as it leaves its host, and no [`exposed`](super::property::exposed)
    /// bytes may contain it. Packets on the loopback aren't checked.
    #[track_caller]
    pub fn forbid_bytes(&self, property: &str, bytes: &[u8]) {
        let place = Location::caller();
        let forbidden =
            Forbidden { property: property.to_owned(), place, bytes: Finder::new(bytes).into_owned() };
        sim::with(|sim| sim.findings.forbid(forbidden));
    }

    /// The marks reached so far.
    pub fn marks(&self) -> Vec<&'static str> {
        sim::with(|sim| sim.findings.marks().iter().copied().collect())
    }
}
