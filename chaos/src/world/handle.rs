//! The scenario's handle on its world: the [`World`], which gives access to its [`Host`]s and networks.

use crate::ids::End;
use crate::ids::HostId;
use crate::kernel::host::HostState;
use crate::kernel::process;
use crate::wire::link::LinkConfig;
use crate::world::sim;
use crate::world::stats::WorldStats;
use crate::world::trace::{Kind, NO_HOST};
use std::collections::BTreeSet;
use std::time::Duration;

use crate::world::host::Host;

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
        let id = sim::with(|sim| {
            let id = HostId(u32::try_from(sim.hosts.len()).expect("fewer than 2^32 hosts"));
            assert!(!sim.names.contains_key(name), "there is a host named {name}");
            sim.names.insert(name.to_owned(), id);
            sim.hosts.push(HostState::new(id, name, sim.seed));
            sim.trace.host_named(name);
            id
        });
        process::begin(id);
        Host(id)
    }

    /// The host of that name.
    pub fn find(&self, name: &str) -> Option<Host> {
        sim::with(|sim| sim.names.get(name).copied().map(Host))
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
            sim.links.set(from, to, config);
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
            sim.links.unset(from, to);
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
            sim.links.get(from, to, &sim.net(net).links).into_owned()
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
                    sim.links.cut(now_ns, a.0, b.0);
                }
            }
        });
    }

    /// Ends every partition.
    pub fn heal(&self) {
        sim::with(|sim| {
            sim.fault(None, "heal");
            let now_ns = sim.now_ns();
            sim.links.heal(now_ns);
        });
    }

    /// Ends the partition between two groups, in both directions; others stay.
    pub fn mend(&self, left: &[Host], right: &[Host]) {
        sim::with(|sim| {
            sim.fault(None, &format!("mend between {left:?} and {right:?}"));
            let now_ns = sim.now_ns();
            for a in left {
                for b in right {
                    sim.links.mend(now_ns, a.0, b.0);
                    sim.links.mend(now_ns, b.0, a.0);
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
            let mute = |host: &HostState| !host.progress.0 && host.progress.1 <= since_ns;
            let mut silent: Vec<HostId> =
                sim.hosts.iter().filter(|host| host.id != to.0 && !mute(host)).map(|host| host.id).collect();
            let (mut audible, mut next) = (BTreeSet::new(), vec![to.0]);
            while let Some(at) = next.pop() {
                let (still, heard) =
                    silent.into_iter().partition(|from| sim.links.is_cut_since(since_ns, *from, at));
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
        crate::rt::time::sleep(duration).await;
    }

    /// The counters so far.
    pub fn stats(&self) -> WorldStats {
        sim::with(|sim| sim.stats.clone())
    }

    /// The number of TCP connections in the hosts' kernels. Each side counts separately, including closing
    /// connections.
    pub fn open_connections(&self) -> usize {
        sim::with(|sim| sim.hosts.iter().map(|host| host.connections.len()).sum())
    }

    /// The next random stream of this label for the scenario itself.
    pub fn rng(&self, label: &str) -> crate::seed::Rng {
        sim::with(|sim| sim.open_stream(None, label))
    }

    /// Writes a line of the scenario into the trace, and so into the digest.
    pub fn note(&self, text: &str) {
        sim::with(|sim| {
            let now_ns = sim.now_ns();
            sim.trace.note(now_ns, Kind::Note, NO_HOST, text.as_bytes());
        });
    }
}
