//! The handles that a scenario works with: the [`World`] and its [`Host`]s.

use crate::host::{HostId, HostState, Main};
use crate::link::LinkConfig;
use crate::net::{End, Net};
use crate::process::{self, End as ProcessEnd};
use crate::rt::task::{JoinHandle, spawn_on};
use crate::sim;
use crate::stats::Stats;
use crate::trace::{Kind, NO_HOST};
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The running world. A copy is the same world; it is of use only inside of the run that gave it.
#[derive(Debug, Clone, Copy)]
pub struct World(());

/// A host of the running world. A copy is the same host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host(HostId);

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

    /// Sets every link of the internet that has no configuration of its own.
    pub fn link_default(&self, config: LinkConfig) {
        self.internet().link_default(config);
    }

    /// Sets one direction of one link, from now on. Its ends are hosts, or boxes (named by the network behind them),
    /// that have addresses in one network, or a host and the box of its own network.
    pub fn set_link(&self, from: impl Into<End>, to: impl Into<End>, config: LinkConfig) {
        let (from, to) = (from.into(), to.into());
        sim::with(|sim| {
            sim.setup(None, &format!("link from {from:?} to {to:?} {config:?}"));
            sim.links.set(from, to, config);
        });
    }

    /// Sets both directions of one link, from now on.
    pub fn set_link_both(&self, a: impl Into<End>, b: impl Into<End>, config: &LinkConfig) {
        let (a, b) = (a.into(), b.into());
        self.set_link(a, b, config.clone());
        self.set_link(b, a, config.clone());
    }

    /// Lets one direction of one link do again what its network's links do.
    pub fn unset_link(&self, from: impl Into<End>, to: impl Into<End>) {
        let (from, to) = (from.into(), to.into());
        sim::with(|sim| {
            sim.setup(None, &format!("link from {from:?} to {to:?} is its network's"));
            sim.links.unset(from, to);
        });
    }

    /// What one direction of one link does.
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

    /// Cuts every way between the two groups, both ways; what is under way is lost.
    pub fn partition(&self, left: &[Host], right: &[Host]) {
        self.partition_one_way(left, right);
        self.partition_one_way(right, left);
    }

    /// Cuts every way from one group to the other, whatever boxes lie on it; the way back stays open.
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

    /// Ends the partition between two groups, both ways; others stay.
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

    /// Virtual time since the world began.
    pub fn elapsed(&self) -> Duration {
        sim::with(|sim| Duration::from_nanos(sim.now_ns()))
    }

    /// Waits in virtual time.
    pub async fn sleep(&self, duration: Duration) {
        crate::rt::time::sleep(duration).await;
    }

    /// What has happened so far.
    pub fn stats(&self) -> Stats {
        sim::with(|sim| sim.stats.clone())
    }

    /// TCP connections in the hosts' kernels, each side for itself, those that only wait for their end among them.
    pub fn open_connections(&self) -> usize {
        sim::with(|sim| sim.hosts.iter().map(|host| host.connections.len()).sum())
    }

    /// The next stream of this label for the scenario itself.
    pub fn rng(&self, label: &str) -> crate::seed::Rng {
        sim::with(|sim| sim.open_stream(None, label))
    }

    /// Writes a line of the scenario's own into the trace, and so into the digest.
    pub fn note(&self, text: &str) {
        sim::with(|sim| {
            let now_ns = sim.now_ns();
            sim.trace.note(now_ns, Kind::Note, NO_HOST, text.as_bytes());
        });
    }
}

/// The interface that [`Host::addr`] gives its addresses to.
const FIRST_NIC: &str = "eth0";

pub(crate) fn parse_ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is not an IP address"))
}

impl Host {
    /// Its number, in the order in which hosts were made.
    pub fn id(&self) -> HostId {
        self.0
    }

    /// Its name.
    pub fn name(&self) -> String {
        sim::with(|sim| sim.host(self.0).name.clone())
    }

    /// Gives its first interface, `eth0`, a further address.
    ///
    /// # Panics
    /// If `ip` isn't an address, or another host's.
    pub fn addr(self, ip: &str) -> Host {
        self.nic_addr(FIRST_NIC, ip)
    }

    /// Gives an interface a further address; makes the interface if there is none of that name.
    ///
    /// # Panics
    /// If `ip` isn't an address, or another host's.
    pub fn nic_addr(self, nic: &str, ip: &str) -> Host {
        let ip = parse_ip(ip);
        sim::with(|sim| sim.setup(Some(self.0), &format!("{nic} gets {ip}")));
        self.change_nics(|host| {
            let nic = host.nic(nic) as usize;
            host.nics[nic].addrs.push(ip);
        });
        self
    }

    /// Replaces the addresses of an interface: the host has roamed.
    ///
    /// # Panics
    /// If one of `ips` isn't an address, or another host's.
    pub fn set_addrs(&self, nic: &str, ips: &[&str]) {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| parse_ip(ip)).collect();
        sim::with(|sim| sim.fault(Some(self.0), &format!("{nic} has {ips:?}")));
        self.change_nics(|host| {
            let nic = host.nic(nic) as usize;
            host.nics[nic].addrs = ips;
        });
    }

    /// Puts an interface into a network, with these addresses and no others: the host has moved to another wifi, or
    /// behind another box. Makes the interface if there is none of that name.
    ///
    /// # Panics
    /// If one of `ips` isn't an address, or another's in that network.
    pub fn attach(&self, nic: &str, net: Net, ips: &[&str]) {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| parse_ip(ip)).collect();
        sim::with(|sim| sim.fault(Some(self.0), &format!("{nic} has {ips:?} in network {}", net.id().0)));
        self.change_nics(|host| {
            let nic = host.nic(nic) as usize;
            host.nics[nic].net = net.id();
            host.nics[nic].addrs = ips;
        });
    }

    /// Takes an interface down, or up again.
    pub fn set_nic_up(&self, nic: &str, up: bool) {
        sim::with(|sim| sim.fault(Some(self.0), &format!("{nic} {}", if up { "up" } else { "down" })));
        self.change_nics(|host| {
            let nic = host.nic(nic) as usize;
            host.nics[nic].up = up;
        });
    }

    fn change_nics(&self, change: impl FnOnce(&mut HostState)) {
        let wakers = sim::with(|sim| {
            change(sim.host_mut(self.0));
            sim.readdress();
            std::mem::take(&mut sim.host_mut(self.0).nic_wakers)
        });
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    /// Its addresses, in the order of interfaces; loopback is not among them.
    pub fn addrs(&self) -> Vec<IpAddr> {
        sim::with(|sim| {
            let nics = sim.host(self.0).nics.iter().filter(|nic| nic.up);
            nics.flat_map(|nic| nic.addrs.clone()).collect()
        })
    }

    /// The network of its interface of that name.
    pub fn net(&self, nic: &str) -> Option<Net> {
        sim::with(|sim| {
            let nics = &sim.host(self.0).nics;
            nics.iter().find(|candidate| candidate.name == nic).map(|nic| Net(nic.net))
        })
    }

    /// The name of its first interface.
    pub(crate) fn first_nic(&self) -> Option<String> {
        sim::with(|sim| sim.host(self.0).nics.first().map(|nic| nic.name.clone()))
    }

    /// Its first address.
    ///
    /// # Panics
    /// If it has none.
    pub fn ip(&self) -> IpAddr {
        *self.addrs().first().unwrap_or_else(|| panic!("host {} has no address", self.name()))
    }

    /// Sets how many bytes of datagrams wait in each of its UDP sockets; what comes beyond is dropped. 4 MiB at
    /// first.
    pub fn set_udp_buffer(self, bytes: usize) -> Host {
        sim::with(|sim| {
            sim.setup(Some(self.0), &format!("udp buffer {bytes} bytes"));
            sim.host_mut(self.0).caps.udp_buffer_bytes = bytes;
        });
        self
    }

    /// Sets how many connections of each of its listeners wait to be accepted, half-open ones among them; a SYN
    /// beyond is dropped. 128 at first.
    pub fn set_backlog(self, connections: usize) -> Host {
        sim::with(|sim| {
            sim.setup(Some(self.0), &format!("backlog {connections}"));
            sim.host_mut(self.0).caps.backlog = connections;
        });
        self
    }

    /// Starts its process now, and at every [`restart`](Host::restart). When the future returns, the process
    /// ends and with it all of its tasks; when it panics, the run fails.
    pub fn spawn<F, Fut>(&self, main: F) -> Host
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let main: Main = Arc::new(move || Box::pin(main()));
        let old = sim::with(|sim| sim.host_mut(self.0).main.replace(main));
        drop(old);
        process::run_main(self.0);
        *self
    }

    /// Runs `future` inside the host's present process, beside whatever it does. A crash cancels it.
    ///
    /// # Panics
    /// If no process runs.
    pub fn run<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let node = sim::with(|sim| {
            let host = sim.host(self.0);
            let node = host.nodes.first().filter(|_| host.alive);
            node.unwrap_or_else(|| panic!("no process runs on host {}", host.name)).0.clone()
        });
        spawn_on(&node, future)
    }

    /// Kills the process: unsynced bytes survive by lot, the kernel closes its connections.
    pub fn crash(&self) {
        sim::with(|sim| sim.fault(Some(self.0), "crash"));
        process::end(self.0, ProcessEnd::Crash);
    }

    /// Arms a crash at the `count`-th write, sync or removal from now on (1 is the next): that one and all later
    /// ones fail, and the process is killed there and then. So a kill can land inside of what is synchronous,
    /// such as the commit of a database. A crash before it disarms it.
    ///
    /// # Panics
    /// If `count` is 0.
    pub fn crash_at_disk_op(&self, count: u64) {
        assert!(count > 0, "the next operation is number 1");
        sim::with(|sim| {
            sim.setup(Some(self.0), &format!("crash at disk operation {count}"));
            sim.host_mut(self.0).crash_at_disk_op = Some(count);
        });
    }

    /// Takes the power away: as a crash, but nobody is told, and packets to it are lost until the restart.
    pub fn power_loss(&self) {
        sim::with(|sim| sim.fault(Some(self.0), "power loss"));
        process::end(self.0, ProcessEnd::PowerLoss);
    }

    /// Starts the process again, under a new boot number; crashes it first if it runs.
    pub fn restart(&self) {
        self.wake_if_suspended();
        process::end(self.0, ProcessEnd::Crash);
        sim::with(|sim| {
            sim.fault(Some(self.0), "restart");
            let host = sim.host_mut(self.0);
            host.boot += 1;
            host.alive = true;
            host.powered = true;
        });
        process::begin(self.0);
    }

    /// Stops the process (SIGSTOP): no task of it runs; the kernel goes on receiving and acknowledging.
    pub fn pause(&self) {
        self.stop("pause", |host| host.paused = true);
    }

    /// Continues a paused process.
    pub fn resume(&self) {
        self.stop("resume", |host| host.paused = false);
    }

    /// Occupies every core with handlers: state and compute planes stand still, the network plane, whose
    /// thread the OS preempts for, goes on.
    pub fn pin_cpu(&self) {
        self.stop("pin cpu", |host| host.pinned = true);
    }

    /// Frees the cores.
    pub fn unpin_cpu(&self) {
        self.stop("unpin cpu", |host| host.pinned = false);
    }

    /// Closes the lid: the process stands still, and so do its kernel, which neither receives nor acknowledges,
    /// and its monotonic clock. The wall clock goes on.
    pub fn suspend(&self) {
        sim::with(|sim| {
            sim.fault(Some(self.0), "suspend");
            let now_ns = sim.now_ns();
            let host = sim.host_mut(self.0);
            if !host.suspended {
                host.suspended = true;
                host.clock.freeze(now_ns);
            }
        });
        process::apply_stops(self.0);
    }

    fn wake_if_suspended(&self) {
        if sim::with(|sim| sim.host(self.0).suspended) {
            self.wake();
        }
    }

    /// Opens the lid of a suspended host.
    pub fn wake(&self) {
        sim::with(|sim| {
            sim.fault(Some(self.0), "wake");
            let now_ns = sim.now_ns();
            let host = sim.host_mut(self.0);
            if std::mem::take(&mut host.suspended) {
                host.clock.thaw(now_ns);
                sim.rebase_timers(self.0);
                sim.tcp_wakes(self.0);
            }
        });
        process::apply_stops(self.0);
    }

    fn stop(&self, what: &str, change: impl FnOnce(&mut HostState)) {
        sim::with(|sim| {
            sim.fault(Some(self.0), what);
            let host = sim.host_mut(self.0);
            if host.alive {
                change(host);
            }
        });
        process::apply_stops(self.0);
    }

    /// Whether a process runs (a paused one does).
    pub fn is_running(&self) -> bool {
        sim::with(|sim| sim.host(self.0).alive)
    }

    /// How many processes the host has had.
    pub fn boot(&self) -> u32 {
        sim::with(|sim| sim.host(self.0).boot)
    }

    /// Lets both of its clocks run fast or slow from now on, in parts per billion.
    pub fn set_clock_drift_ppb(&self, drift_ppb: i64) {
        sim::with(|sim| {
            sim.fault(Some(self.0), &format!("clock drift {drift_ppb} ppb"));
            let now_ns = sim.now_ns();
            sim.host_mut(self.0).clock.set_drift(now_ns, drift_ppb);
            sim.rebase_timers(self.0);
        });
    }

    /// Sets its monotonic clock ahead; for a host that has been up for longer than the others, before it runs.
    pub fn advance_clock(self, by: Duration) -> Host {
        sim::with(|sim| {
            sim.setup(Some(self.0), &format!("clock ahead {by:?}"));
            sim.host_mut(self.0).clock.advance(by);
            sim.rebase_timers(self.0);
        });
        self
    }

    /// Steps its wall clock by so many milliseconds, either way.
    pub fn step_wall_clock_ms(&self, by_ms: i64) {
        sim::with(|sim| {
            sim.fault(Some(self.0), &format!("wall clock step {by_ms} ms"));
            sim.host_mut(self.0).clock.step_wall(i128::from(by_ms) * 1_000_000);
        });
    }
}

impl sim::Sim {
    fn rebase_timers(&mut self, id: HostId) {
        let clock = self.host(id).clock.clone();
        self.timers.rebase(id, |local_ns| clock.world_ns(local_ns));
        self.wake_driver();
    }
}
