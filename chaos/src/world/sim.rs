//! The state of the running world, one for each thread.
//!
//! A run has its own thread, and everything in the run executes on it, so the state is a thread-local cell: handles
//! are plain keys, and a call takes no lock. While the cell is borrowed, no madsim function may be called and no
//! value of a user may be dropped; so wakers that are removed from tables are passed to the caller.

use crate::ids::HostId;
use crate::ids::{End, NetId};
use crate::kernel::disk;
use crate::kernel::host::HostState;
use crate::kernel::slab::Slab;
use crate::kernel::tcp::Tcp;
use crate::kernel::timer::{Due, TimerKind, Timers};
use crate::kernel::udp::Socket;
use crate::lab::plan::Faults;
use crate::seed::Rng;
use crate::wire::link::Class;
use crate::wire::links::Links;
use crate::wire::net::{Gateway, NetState};
use crate::world::property::{Broken, Check, Forbidden};
use crate::world::stats::WorldStats;
use crate::world::trace::{Kind, NO_HOST, Trace};
use madsim::task::NodeId;
use madsim::time::TimeHandle;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::task::Waker;
use std::time::Instant;

/// The most buffers kept for reuse: enough for the packets in flight in a busy world of 50 hosts.
const POOL: usize = 4096;

/// Larger buffers are not kept.
const POOL_BUFFER_BYTES: usize = 16 << 10;

/// The host and the boot in which a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: HostId,
    pub(crate) boot: u32,
}

/// A packet in flight.
pub(crate) struct Flight {
    pub(crate) bytes: Vec<u8>,
    pub(crate) number: u64,
    pub(crate) class: Class,
    /// The host that sent it, and when.
    pub(crate) origin: HostId,
    pub(crate) sent_ns: u64,
    /// The network that it is in, and its next end there.
    pub(crate) net: NetId,
    pub(crate) to: End,
    pub(crate) nic: u8,
    /// The value of `Sim::addrs_version` for which `to` and `nic` hold.
    pub(crate) addrs_version: u32,
    pub(crate) corrupted: bool,
}

pub(crate) struct Sim {
    pub(crate) seed: u64,
    pub(crate) time: TimeHandle,
    base: Instant,
    pub(crate) hosts: Vec<HostState>,
    pub(crate) names: BTreeMap<String, HostId>,
    pub(crate) places: BTreeMap<NodeId, Place>,
    pub(crate) nets: Vec<NetState>,
    /// For each network, the stream of the links on which its box sends.
    pub(crate) box_link_rngs: Vec<Rng>,
    /// Counts changes of the owners of addresses.
    pub(crate) addrs_version: u32,
    pub(crate) links: Links,
    pub(crate) timers: Timers,
    pub(crate) trace: Trace,
    pub(crate) stats: WorldStats,
    pub(crate) udp: Slab<Socket>,
    pub(crate) tcp: Tcp,
    flights: Vec<Option<Flight>>,
    free_flights: Vec<u32>,
    pool: Vec<Vec<u8>>,
    pub(crate) next_packet: u64,
    /// The task that advances the world, and the time for which it is armed.
    pub(crate) driver: Option<Waker>,
    pub(crate) armed_ns: u64,
    /// Why the run must end: a process's main future, or a task that is not awaited, panicked.
    pub(crate) failure: Option<String>,
    /// The first property that was found broken.
    pub(crate) broken: Option<Broken>,
    /// The checks that run after every instant.
    pub(crate) checks: Vec<Check>,
    /// Bytes that no packet may carry.
    pub(crate) forbidden: Vec<Forbidden>,
    /// The fault plan and its active faults.
    pub(crate) faults: Faults,
    /// Whether a reader has requested the map of the world, and the saved map.
    pub(crate) wants_map: bool,
    pub(crate) kept_map: Option<String>,
    /// The marks that were reached.
    pub(crate) marks: BTreeSet<&'static str>,
    world_streams: BTreeMap<String, u64>,
    /// Tasks spawned so far.
    pub(crate) spawns: u64,
}

thread_local! {
    static SIM: RefCell<Option<Box<Sim>>> = const { RefCell::new(None) };
}

/// Installs a world, or removes it; returns the previous one.
pub(crate) fn replace(sim: Option<Box<Sim>>) -> Option<Box<Sim>> {
    SIM.with(|cell| std::mem::replace(&mut *cell.borrow_mut(), sim))
}

/// Calls `f` with the running world.
pub(crate) fn with<R>(f: impl FnOnce(&mut Sim) -> R) -> R {
    SIM.with(|cell| f(cell.borrow_mut().as_mut().expect("called inside of chaos::run")))
}

/// Like [`with`], for Drop code: `None` when there is no world any more.
pub(crate) fn try_with<R>(f: impl FnOnce(&mut Sim) -> R) -> Option<R> {
    SIM.try_with(|cell| cell.try_borrow_mut().ok()?.as_mut().map(|sim| f(sim))).ok().flatten()
}

/// Whether this thread is inside of a run.
pub(crate) fn is_running() -> bool {
    SIM.try_with(|cell| cell.try_borrow().is_ok_and(|sim| sim.is_some())).unwrap_or(false)
}

/// The place of the calling task; `None` for the scenario's own code.
pub(crate) fn place() -> Option<Place> {
    let node = madsim::plugin::node();
    with(|sim| sim.places.get(&node).copied())
}

/// The name of the host on which the calling task runs.
pub(crate) fn place_name() -> Option<String> {
    let place = place()?;
    with(|sim| Some(sim.host(place.host).name.clone()))
}

/// The error of a handle whose process is gone.
pub(crate) fn dead() -> io::Error {
    io::Error::other("the process that had this handle is gone")
}

/// The place of the calling task, if it is on a host whose process runs.
pub(crate) fn live_place() -> io::Result<Place> {
    let place = place().ok_or_else(|| io::Error::other("not on a host: use Host::spawn or Host::run"))?;
    if with(|sim| sim.host(place.host).runs(place.boot)) { Ok(place) } else { Err(dead()) }
}

impl Sim {
    pub(crate) fn new(seed: u64, time: TimeHandle) -> Sim {
        let base = time.now_instant() - time.elapsed();
        Sim {
            seed,
            time,
            base,
            hosts: Vec::new(),
            names: BTreeMap::new(),
            places: BTreeMap::new(),
            nets: vec![NetState::internet()],
            box_link_rngs: vec![crate::seed::stream(seed, "link/box of internet")],
            addrs_version: 0,
            links: Links::new(seed),
            timers: Timers::new(),
            trace: Trace::new(),
            stats: WorldStats::default(),
            udp: Slab::new(),
            tcp: Tcp::new(),
            flights: Vec::new(),
            free_flights: Vec::new(),
            pool: Vec::new(),
            next_packet: 0,
            driver: None,
            armed_ns: 0,
            failure: None,
            broken: None,
            checks: Vec::new(),
            forbidden: Vec::new(),
            faults: Faults::default(),
            wants_map: false,
            kept_map: None,
            marks: BTreeSet::new(),
            world_streams: BTreeMap::new(),
            spawns: 0,
        }
    }

    /// Nanoseconds since the world began.
    pub(crate) fn now_ns(&self) -> u64 {
        self.time.elapsed().as_nanos() as u64
    }

    /// The `Instant` of a clock reading.
    pub(crate) fn instant(&self, ns: u64) -> Instant {
        self.base + std::time::Duration::from_nanos(ns)
    }

    /// The clock reading of an `Instant`.
    pub(crate) fn reading(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.base).as_nanos() as u64
    }

    pub(crate) fn host(&self, id: HostId) -> &HostState {
        &self.hosts[id.0 as usize]
    }

    pub(crate) fn host_mut(&mut self, id: HostId) -> &mut HostState {
        &mut self.hosts[id.0 as usize]
    }

    /// The reading of a host's clock, or of the world's for the scenario.
    pub(crate) fn local_ns(&self, host: Option<HostId>) -> u64 {
        let now_ns = self.now_ns();
        match host {
            Some(host) => self.host(host).clock.local_ns(now_ns),
            None => now_ns + crate::kernel::clock::BASE.as_nanos() as u64,
        }
    }

    /// The world time at which a host's clock will read `local_ns`.
    pub(crate) fn world_ns(&self, host: Option<HostId>, local_ns: u64) -> u64 {
        match host {
            Some(host) => self.host(host).clock.world_ns(local_ns),
            None => local_ns.saturating_sub(crate::kernel::clock::BASE.as_nanos() as u64),
        }
    }

    /// A packet buffer, reused if possible: its content is arbitrary.
    pub(crate) fn buffer(&mut self) -> Vec<u8> {
        self.pool.pop().unwrap_or_default()
    }

    pub(crate) fn recycle(&mut self, buffer: Vec<u8>) {
        if self.pool.len() < POOL && buffer.capacity() <= POOL_BUFFER_BYTES {
            self.pool.push(buffer);
        }
    }

    /// Makes sure that the driver runs at `at_ns`.
    fn arm(&mut self, at_ns: u64) {
        if at_ns < self.armed_ns {
            self.armed_ns = at_ns;
            if let Some(driver) = &self.driver {
                driver.wake_by_ref();
            }
        }
    }

    pub(crate) fn launch(&mut self, at_ns: u64, flight: Flight) {
        let index = match self.free_flights.pop() {
            Some(index) => {
                self.flights[index as usize] = Some(flight);
                index
            }
            None => {
                self.flights.push(Some(flight));
                (self.flights.len() - 1) as u32
            }
        };
        self.timers.push_packet(at_ns, index);
        self.arm(at_ns);
    }

    pub(crate) fn set_timer(&mut self, at_ns: u64, kind: TimerKind) -> crate::kernel::slab::Key {
        let key = self.timers.insert(at_ns, kind);
        self.arm(at_ns);
        key
    }

    /// Handles all due events; returns the time of the next one.
    pub(crate) fn run_due(&mut self) -> Option<u64> {
        // No event is earlier than 0, so no event created here wakes the driver.
        self.armed_ns = 0;
        let now_ns = self.now_ns();
        while let Some(due) = self.timers.pop_due(now_ns) {
            match due {
                Due::Packet(index) => {
                    let flight = self.flights[index as usize].take();
                    self.free_flights.push(index);
                    if let Some(flight) = flight {
                        self.arrive(now_ns, flight);
                    }
                }
                Due::Wake(waker) => waker.wake(),
                Due::Tcp(key) => self.tcp_timer(key),
            }
        }
        self.timers.next_at()
    }

    /// Records a fault.
    pub(crate) fn fault(&mut self, host: Option<HostId>, text: &str) {
        self.stats.faults += 1;
        let now_ns = self.now_ns();
        self.trace.note(now_ns, Kind::Fault, host.map_or(NO_HOST, |host| host.0), text.as_bytes());
    }

    /// Records a change of settings by the scenario.
    pub(crate) fn setup(&mut self, host: Option<HostId>, text: &str) {
        let now_ns = self.now_ns();
        self.trace.note(now_ns, Kind::Setup, host.map_or(NO_HOST, |host| host.0), text.as_bytes());
    }

    /// Ends the run with an error.
    pub(crate) fn fail(&mut self, why: String) {
        self.failure.get_or_insert(why);
        self.wake_driver();
    }

    pub(crate) fn wake_driver(&mut self) {
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    /// Opens the next stream of `label` for a host, or for the scenario itself.
    pub(crate) fn open_stream(&mut self, host: Option<HostId>, label: &str) -> Rng {
        let (owner, counts) = match host {
            Some(id) => {
                let host = &mut self.hosts[id.0 as usize];
                (format!("host/{}", host.name), &mut host.streams)
            }
            None => ("scenario".to_owned(), &mut self.world_streams),
        };
        let count = counts.entry(label.to_owned()).or_default();
        *count += 1;
        let full = format!("rt/{owner}/{label}/{count}");
        let now_ns = self.now_ns();
        self.trace.note(now_ns, Kind::Stream, host.map_or(NO_HOST, |host| host.0), full.as_bytes());
        crate::seed::stream(self.seed, &full)
    }

    /// Records a disk operation.
    pub(crate) fn disk_record(&mut self, host: HostId, op: &disk::Op<'_>) {
        let now_ns = self.now_ns();
        let mut bytes = self.buffer();
        bytes.clear();
        op.encode(&mut bytes);
        let kind = if op.is_sync() { Kind::DiskSync } else { Kind::DiskWrite };
        if op.is_sync() {
            self.stats.disk_syncs += 1;
        } else {
            self.stats.disk_writes += 1;
        }
        self.trace.note(now_ns, kind, host.0, &bytes);
        self.recycle(bytes);
    }

    /// Writes the final position of every stream into the trace, and returns the digest.
    pub(crate) fn finish(&mut self) -> String {
        let now_ns = self.now_ns();
        for host in &self.hosts {
            for rng in [&host.link_rng, &host.port_rng, &host.tcp_rng, host.disk.rng()] {
                self.trace.note(now_ns, Kind::StreamEnd, host.id.0, &rng.get_word_pos().to_le_bytes());
            }
        }
        let boxes = self.nets.iter().filter_map(|net| net.gateway.as_ref()).map(Gateway::stream);
        for rng in boxes.chain(&self.box_link_rngs) {
            self.trace.note(now_ns, Kind::StreamEnd, NO_HOST, &rng.get_word_pos().to_le_bytes());
        }
        self.trace.digest()
    }
}
