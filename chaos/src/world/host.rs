//! The handle of a scenario on a host: its interfaces, its process, its clocks, and its faults.
//!
//! Every call takes effect at once and lasts until it is undone. Code that runs on a host calls [`rt`](crate::rt)
//! instead.

use super::cpu;
use super::net::Net;
use super::process;
use super::sim;
use super::task::{JoinHandle, spawn_on};
use crate::ids::{End, HostId};
use crate::kernel::disk::DiskOutage;
use crate::kernel::nics::Nics;
use crate::kernel::process::{Armed, Main, Process, ProcessEnd};
use crate::wire::link::whole_ns;
use std::future::Future;
use std::net::IpAddr;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

/// The interface that [`Host::addr`] gives its addresses to.
const FIRST_NIC: &str = "eth0";

/// A host of the running world. A copy refers to the same host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host(pub(crate) HostId);

impl From<Host> for End {
    fn from(host: Host) -> End {
        End::Host(host.0)
    }
}

pub(crate) fn parse_ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is not an IP address"))
}

impl Host {
    /// Makes a host with an idle process and no interface.
    pub(super) fn make(name: &str) -> Host {
        let id = sim::with(|sim| sim.add_host(name));
        process::begin(id);
        Host(id)
    }

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
    /// If `ip` isn't an address, or belongs to another host.
    pub fn addr(self, ip: &str) -> Host {
        self.nic_addr(FIRST_NIC, ip)
    }

    /// Gives an interface a further address; creates the interface if it doesn't exist.
    ///
    /// # Panics
    /// If `ip` isn't an address, or belongs to another host.
    pub fn nic_addr(self, nic: &str, ip: &str) -> Host {
        let ip = parse_ip(ip);
        sim::with(|sim| sim.setup(Some(self.0), &format!("{nic} gets {ip}")));
        self.change_nics(|nics| nics.named(nic).addrs.push(ip));
        self
    }

    /// Replaces the addresses of an interface: the host has roamed.
    ///
    /// # Panics
    /// If one of `ips` isn't an address, or belongs to another host.
    pub fn set_addrs(&self, nic: &str, ips: &[&str]) {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| parse_ip(ip)).collect();
        sim::with(|sim| sim.fault(Some(self.0), &format!("{nic} has {ips:?}")));
        self.move_nic(|nics| nics.named(nic).addrs = ips);
    }

    /// Moves an interface into a network and replaces its addresses: the host has moved to another wifi, or behind
    /// another box. Creates the interface if it doesn't exist.
    ///
    /// # Panics
    /// If one of `ips` isn't an address, or belongs to another end in that network.
    pub fn attach(&self, nic: &str, net: Net, ips: &[&str]) {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| parse_ip(ip)).collect();
        sim::with(|sim| sim.fault(Some(self.0), &format!("{nic} has {ips:?} in network {}", net.id().0)));
        self.move_nic(|nics| {
            let nic = nics.named(nic);
            nic.net = net.id();
            nic.addrs = ips;
        });
    }

    /// Takes an interface down, or brings it up again.
    pub fn set_nic_up(&self, nic: &str, up: bool) {
        sim::with(|sim| sim.fault(Some(self.0), &format!("{nic} {}", if up { "up" } else { "down" })));
        self.change_nics(|nics| nics.named(nic).up = up);
    }

    /// Replaces addresses, and keeps the former ones: a stale name stands for them.
    fn move_nic(&self, change: impl FnOnce(&mut Nics)) {
        let all = || -> Vec<IpAddr> {
            sim::with(|sim| sim.host(self.0).nics.iter().flat_map(|nic| nic.addrs.clone()).collect())
        };
        let before = all();
        self.change_nics(change);
        if before != all() {
            sim::with(|sim| sim.host_mut(self.0).names.moved(before));
        }
    }

    fn change_nics(&self, change: impl FnOnce(&mut Nics)) {
        let wakers = sim::with(|sim| {
            change(&mut sim.host_mut(self.0).nics);
            sim.readdress();
            sim.host_mut(self.0).nics.take_wakers()
        });
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    /// The addresses of its interfaces that are up, in the order of interfaces, without loopback.
    pub fn addrs(&self) -> Vec<IpAddr> {
        sim::with(|sim| sim.host(self.0).nics.up().flat_map(|nic| nic.addrs.clone()).collect())
    }

    /// The network of its interface of that name.
    pub fn net(&self, nic: &str) -> Option<Net> {
        sim::with(|sim| sim.host(self.0).nics.find(nic).map(|nic| Net(nic.net)))
    }

    /// The networks of its interfaces.
    pub(crate) fn nets(&self) -> Vec<Net> {
        sim::with(|sim| sim.host(self.0).nics.iter().map(|nic| Net(nic.net)).collect())
    }

    /// The name of its first interface.
    pub(crate) fn first_nic(&self) -> Option<String> {
        sim::with(|sim| sim.host(self.0).nics.iter().next().map(|nic| nic.name.clone()))
    }

    /// Its first address.
    ///
    /// # Panics
    /// If it has none.
    pub fn ip(&self) -> IpAddr {
        *self.addrs().first().unwrap_or_else(|| panic!("host {} has no address", self.name()))
    }

    /// Sets the receive buffer of each of its UDP sockets in bytes. A datagram that doesn't fit is dropped. 4 MiB by
    /// default.
    pub fn set_udp_buffer(self, bytes: usize) -> Host {
        sim::with(|sim| {
            sim.setup(Some(self.0), &format!("udp buffer {bytes} bytes"));
            sim.host_mut(self.0).udp.set_buffer_bytes(bytes);
        });
        self
    }

    /// Sets the send buffer of each of its UDP sockets in bytes: while so much waits on the host's first link towards a
    /// destination, a send there fails with `WouldBlock`. Only a link with a bandwidth whose queue is longer than that shows it;
    /// a shorter queue drops before. 212,992 by default, as on Linux (udp(7), `net.core.wmem_default`).
    pub fn set_udp_send_buffer(self, bytes: u64) -> Host {
        sim::with(|sim| {
            sim.setup(Some(self.0), &format!("udp send buffer {bytes} bytes"));
            sim.host_mut(self.0).udp.set_send_buffer_bytes(bytes);
        });
        self
    }

    /// From now on each receive of a datagram fails, and the datagram stays queued, as in a sandbox or on a kernel
    /// without the system call. Sends still work.
    pub fn forbid_udp_receive(&self) {
        sim::with(|sim| {
            sim.fault(Some(self.0), "no udp receive");
            sim.host_mut(self.0).udp.forbid_receive();
        });
    }

    /// Sets the backlog of each of its listeners: the connections that wait to be accepted, and as many half-open ones.
    /// A SYN over the limit is dropped, and so is the ACK that would complete one more; the client's retries then succeed
    /// once the program accepts. 1,024 by default, as tokio asks for.
    pub fn set_backlog(self, connections: usize) -> Host {
        sim::with(|sim| {
            sim.setup(Some(self.0), &format!("backlog {connections}"));
            sim.host_mut(self.0).tcp.set_backlog(connections);
        });
        self
    }

    /// Sets how long each of its new TCP connections waits for an acknowledgement before it ends with `TimedOut`
    /// (`TCP_USER_TIMEOUT`). By default each draws a time from 30 s to 15 min.
    pub fn set_tcp_user_timeout(self, timeout: Duration) -> Host {
        sim::with(|sim| {
            sim.setup(Some(self.0), &format!("tcp user timeout {timeout:?}"));
            sim.host_mut(self.0).tcp.set_user_timeout_ns(whole_ns(timeout));
        });
        self
    }

    /// Sets the most connections of its kernel, including closing ones. Over the limit a connect fails and a SYN is
    /// dropped. Unlimited by default.
    pub fn set_max_connections(self, connections: usize) -> Host {
        sim::with(|sim| {
            sim.setup(Some(self.0), &format!("connections {connections}"));
            sim.host_mut(self.0).tcp.set_most_connections(connections);
        });
        self
    }

    /// Sets the capacity of its disk in bytes. An operation that would exceed it fails with `StorageFull`. Unlimited
    /// by default.
    pub fn set_disk_capacity(self, bytes: u64) -> Host {
        sim::with(|sim| {
            sim.setup(Some(self.0), &format!("disk capacity {bytes} bytes"));
            sim.host_mut(self.0).disk.set_capacity(bytes);
        });
        self
    }

    /// Its disk refuses this from now on; nothing more if none.
    pub fn set_disk_outage(&self, outage: Option<DiskOutage>) {
        sim::with(|sim| {
            let said = outage.map_or("its disk works".to_owned(), |outage| format!("its disk: {outage:?}"));
            sim.fault(Some(self.0), &said);
            sim.host_mut(self.0).disk.troubles.set_outage(outage);
        });
    }

    /// Sets the bound of a table of its program, from now on and across restarts, where the program asks
    /// [`rt::bound`](crate::rt::bound) for it. A table that holds more already keeps it.
    pub fn set_bound(&self, table: &str, entries: usize) {
        sim::with(|sim| {
            sim.setup(Some(self.0), &format!("bound of {table}: {entries}"));
            sim.hosts.has_bounds = true;
            sim.host_mut(self.0).bounds.insert(table.to_owned(), entries);
        });
    }

    /// Starts its process now, and at every [`restart`](Host::restart). When the future returns, the process ends
    /// with all of its tasks. When the future panics, the run fails.
    #[track_caller]
    pub fn spawn<F, Fut>(&self, main: F) -> Host
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let main = Main { make: Arc::new(move || Box::pin(main())), spawned: Location::caller() };
        let old = sim::with(|sim| sim.host_mut(self.0).process.main.replace(main));
        drop(old);
        process::run_main(self.0);
        *self
    }

    /// Runs `future` as a further task of the host's current process. A crash cancels it.
    ///
    /// # Panics
    /// If no process runs.
    #[track_caller]
    pub fn run<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let node = sim::with(|sim| {
            let host = sim.host(self.0);
            let node = host.process.nodes.first().filter(|_| host.process.alive);
            node.unwrap_or_else(|| panic!("no process runs on host {}", host.name)).0.clone()
        });
        spawn_on(&node, future)
    }

    /// Kills the process. The kernel keeps all that it wrote, and closes its connections.
    pub fn crash(&self) {
        sim::with(|sim| sim.fault(Some(self.0), "crash"));
        process::end(self.0, ProcessEnd::Crash);
    }

    /// Arms a crash at the `count`-th write, sync or removal from now on (1 is the next): this operation and all
    /// later ones fail, and the process is killed at once. So the kill can hit inside synchronous code, such as the
    /// commit of a database. An earlier crash disarms it.
    ///
    /// # Panics
    /// If `count` is 0.
    pub fn crash_at_disk_op(&self, count: u64) {
        self.arm(Armed { left: count, how: ProcessEnd::Crash, fault: None });
    }

    /// Arms a power loss in the same way.
    ///
    /// # Panics
    /// If `count` is 0.
    pub fn power_loss_at_disk_op(&self, count: u64) {
        self.arm(Armed { left: count, how: ProcessEnd::PowerLoss, fault: None });
    }

    /// Arms a crash or power loss; the first one to happen disarms the others.
    pub(crate) fn arm(&self, armed: Armed) {
        assert!(armed.left > 0, "the next operation is number 1");
        sim::with(|sim| {
            let what = if armed.how == ProcessEnd::PowerLoss { "power loss" } else { "crash" };
            sim.setup(Some(self.0), &format!("{what} at disk operation {}", armed.left));
            sim.host_mut(self.0).process.arm(armed);
        });
    }

    /// Cuts the power: no peer is notified, and packets to the host are lost until the restart. Of what was written
    /// since the last sync, any part may be lost.
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
            host.process.boot += 1;
            host.process.alive = true;
            host.powered = true;
            let now_ns = sim.now_ns();
            sim.host_mut(self.0).note_progress(now_ns);
        });
        process::begin(self.0);
    }

    /// Stops the process (SIGSTOP): none of its tasks runs, but its kernel still receives and acknowledges.
    pub fn pause(&self) {
        self.stop("pause", |process| process.paused = true);
    }

    /// Resumes a paused process.
    pub fn resume(&self) {
        self.stop("resume", |process| process.paused = false);
    }

    /// Occupies every core with handlers. The work and compute planes stall. The network plane runs on, because the
    /// OS preempts the handlers for its thread.
    pub fn pin_cpu(&self) {
        self.stop("pin cpu", |process| process.pinned = true);
    }

    /// Frees the cores.
    pub fn unpin_cpu(&self) {
        self.stop("unpin cpu", |process| process.pinned = false);
    }

    /// Gives it a processor: computation takes `times` as long as on a desktop, on a phone about 8 times. Without one it
    /// takes no time.
    pub fn cpu(self, times: u32) -> Host {
        sim::with(|sim| {
            sim.setup(Some(self.0), &format!("cpu {times}"));
            sim.cpus.turn_on();
            sim.host_mut(self.0).cpu.own = times.saturating_mul(100);
        });
        self
    }

    /// Makes its processor `times` as slow as it is: something else runs on it. `None` ends that. What is under way takes as
    /// long from then on, too.
    pub fn slow_cpu(&self, times: Option<u32>) {
        sim::with(|sim| {
            let text = times
                .map_or_else(|| "cpu as before".to_owned(), |times| format!("cpu {times} times as slow"));
            sim.fault(Some(self.0), &text);
            cpu::set_fault(sim, self.0, times);
        });
    }

    /// Suspends the host (a closed lid): its process, its kernel, which neither receives nor acknowledges, and its
    /// monotonic clock stop. The wall clock runs on.
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

    /// Wakes a suspended host.
    pub fn wake(&self) {
        sim::with(|sim| {
            sim.fault(Some(self.0), "wake");
            let now_ns = sim.now_ns();
            let host = sim.host_mut(self.0);
            if std::mem::take(&mut host.suspended) {
                host.clock.thaw(now_ns);
                sim.rebase_timers(self.0);
                sim.with_tcp(self.0, |tcp, now_ns, out| tcp.wakes(now_ns, out));
            }
        });
        process::apply_stops(self.0);
    }

    fn stop(&self, what: &str, change: impl FnOnce(&mut Process)) {
        sim::with(|sim| {
            sim.fault(Some(self.0), what);
            let process = &mut sim.host_mut(self.0).process;
            if process.alive {
                change(process);
            }
        });
        process::apply_stops(self.0);
    }

    /// Whether a process runs; a paused process counts.
    pub fn is_running(&self) -> bool {
        sim::with(|sim| sim.host(self.0).process.alive)
    }

    /// The virtual time since which its current process has made progress; `None` without a process, or while it is
    /// stalled.
    pub fn runs_since(&self) -> Option<Duration> {
        let (runs, since_ns) = sim::with(|sim| sim.host(self.0).process.progress);
        runs.then(|| Duration::from_nanos(since_ns))
    }

    /// How many processes the host has had.
    pub fn boot(&self) -> u32 {
        sim::with(|sim| sim.host(self.0).process.boot)
    }

    /// The reading of its monotonic clock, which drifts, and stands still while the host is suspended.
    pub fn monotonic(&self) -> Duration {
        Duration::from_nanos(sim::with(|sim| sim.local_ns(Some(self.0))))
    }

    /// Sets the drift of both of its clocks from now on, in parts per billion; negative is slow.
    pub fn set_clock_drift_ppb(&self, drift_ppb: i64) {
        sim::with(|sim| {
            sim.fault(Some(self.0), &format!("clock drift {drift_ppb} ppb"));
            let now_ns = sim.now_ns();
            sim.host_mut(self.0).clock.set_drift(now_ns, drift_ppb);
            sim.rebase_timers(self.0);
        });
    }

    /// Advances its monotonic clock before it runs, so that it appears to have been up for longer than the others.
    pub fn advance_clock(self, by: Duration) -> Host {
        sim::with(|sim| {
            sim.setup(Some(self.0), &format!("clock ahead {by:?}"));
            sim.host_mut(self.0).clock.advance(by);
            sim.rebase_timers(self.0);
        });
        self
    }

    /// Steps its wall clock by `by_ms` milliseconds, forward or back.
    pub fn step_wall_clock_ms(&self, by_ms: i64) {
        sim::with(|sim| {
            sim.fault(Some(self.0), &format!("wall clock step {by_ms} ms"));
            sim.host_mut(self.0).clock.step_wall(i128::from(by_ms) * 1_000_000);
        });
    }
}
