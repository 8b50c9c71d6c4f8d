//! The state of the running world, one for each thread.
//!
//! A run has its own thread, and everything in the run executes on it, so the state is a thread-local cell: handles
//! are plain keys, and a call takes no lock. While the cell is borrowed, no madsim function may be called and no
//! value of a user may be dropped; so wakers that are removed from tables are passed to the caller.

use super::agenda::{Agenda, Event};
use super::clock::WorldClock;
use super::cpu::{self, Cpus};
use super::findings::Findings;
use super::hosts::Hosts;
use super::map::{KeptMap, draw};
use super::recipe::{BranchQueue, Recipe};
use super::record::Record;
use super::rng::{Meter, OpenStreams, Rng};
use crate::ids::{End, HostId, NetId};
use crate::kernel::clock;
use crate::kernel::disk;
use crate::kernel::host::HostState;
use crate::kernel::process::{Place, dead};
use crate::seed::stream;
use crate::wire::net::Owner;
use crate::wire::path::Wire;
use madsim::time::TimeHandle;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

/// The running world.
pub(crate) struct Sim {
    pub(crate) seed: u64,
    /// The seed of the random streams: the world's, or that of the last branch.
    pub(crate) stream_seed: u64,
    pub(crate) branches: BranchQueue,
    pub(crate) clock: WorldClock,
    pub(crate) hosts: Hosts,
    pub(crate) cpus: Cpus,
    pub(crate) wire: Wire,
    pub(crate) agenda: Agenda,
    pub(crate) record: Record,
    pub(crate) findings: Findings,
    pub(crate) map: KeptMap,
    /// Disk operations at which an armed crash or power loss of a plan's fault has happened: the fault's number and
    /// the host. The fault's owner takes them.
    pub(crate) fired: Vec<(usize, HostId)>,
    /// How many random streams of each label the scenario itself has opened.
    streams: BTreeMap<String, u64>,
    /// The streams that programs and the scenario hold.
    open_streams: OpenStreams,
    /// The positions of the kernels' and the wire's streams as the trace last told them, if it has every draw.
    told: BTreeMap<String, u128>,
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
    with(|sim| sim.hosts.places.get(&node).copied())
}

/// The name of the host on which the calling task runs.
pub(crate) fn place_name() -> Option<String> {
    let place = place()?;
    with(|sim| Some(sim.host(place.host).name.clone()))
}

/// The place of the calling task, if it is on a host whose process runs.
pub(crate) fn live_place() -> io::Result<Place> {
    let place = place().ok_or_else(|| io::Error::other("not on a host: use Host::spawn or Host::run"))?;
    if with(|sim| sim.host(place.host).runs(place.boot)) { Ok(place) } else { Err(dead()) }
}

impl Sim {
    pub(crate) fn new(seed: u64, recipe: &Recipe, time: TimeHandle) -> Sim {
        Sim {
            seed,
            stream_seed: seed,
            branches: BranchQueue::new(recipe),
            clock: WorldClock::new(time),
            hosts: Hosts::default(),
            cpus: Cpus::default(),
            wire: Wire::new(seed),
            agenda: Agenda::new(),
            record: Record::new(),
            findings: Findings::default(),
            map: KeptMap::default(),
            fired: Vec::new(),
            streams: BTreeMap::new(),
            open_streams: OpenStreams::default(),
            told: BTreeMap::new(),
        }
    }

    /// Nanoseconds since the world began.
    pub(crate) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    pub(crate) fn host(&self, id: HostId) -> &HostState {
        self.hosts.get(id)
    }

    pub(crate) fn host_mut(&mut self, id: HostId) -> &mut HostState {
        self.hosts.get_mut(id)
    }

    /// Makes a host.
    pub(crate) fn add_host(&mut self, name: &str) -> HostId {
        let id = self.hosts.add(name, self.stream_seed);
        self.wire.links.host_named(name);
        self.record.trace.host_named(name);
        id
    }

    /// The reading of a host's clock, or of the world's for the scenario.
    pub(crate) fn local_ns(&self, host: Option<HostId>) -> u64 {
        let now_ns = self.now_ns();
        match host {
            Some(host) => self.host(host).clock.local_ns(now_ns),
            None => now_ns + clock::BASE.as_nanos() as u64,
        }
    }

    /// The world time at which a host's clock will read `local_ns`.
    pub(crate) fn world_ns(&self, host: Option<HostId>, local_ns: u64) -> u64 {
        match host {
            Some(host) => self.host(host).clock.world_ns(local_ns),
            None => local_ns.saturating_sub(clock::BASE.as_nanos() as u64),
        }
    }

    /// Reschedules the sleeps of a host whose clock has changed.
    pub(crate) fn rebase_timers(&mut self, id: HostId) {
        let clock = self.host(id).clock.clone();
        self.agenda.rebase(id, |local_ns| clock.world_ns(local_ns));
    }

    /// Handles all due events; returns the time of the next one.
    pub(crate) fn run_due(&mut self) -> Option<u64> {
        self.agenda.begin();
        let now_ns = self.now_ns();
        if self.record.trace.has_draws() {
            self.tell_draws();
        }
        self.record.levels(now_ns, self.hosts.spawns);
        while let Some(due) = self.agenda.pop_due(now_ns) {
            self.branch_if_due();
            match due {
                Event::Packet(flight) => self.arrive(now_ns, flight),
                Event::Wake(waker) => waker.wake(),
                Event::Tcp(host, key) => self.tcp_due(now_ns, host, key),
                Event::Cpu(node) => cpu::processor_is_free(self, now_ns, node),
            }
        }
        self.agenda.next_at()
    }

    /// Takes the branches to which the trace has come.
    #[inline]
    pub(crate) fn branch_if_due(&mut self) {
        while let Some(seed) = self.branches.take_due(self.record.trace.records()) {
            self.branch(seed);
        }
    }

    /// All random streams of the world go on with another seed.
    fn branch(&mut self, seed: u64) {
        self.stream_seed = seed;
        self.hosts.rekey(seed);
        self.wire.rekey(seed, self.hosts.iter().map(|host| host.name.as_str()));
        self.open_streams.rekey(seed);
        self.setup(None, &format!("random streams go on with seed {seed}"));
    }

    /// Records a fault.
    pub(crate) fn fault(&mut self, host: Option<HostId>, text: &str) {
        let now_ns = self.now_ns();
        self.record.fault(now_ns, host, text);
    }

    /// Records a change of settings by the scenario.
    pub(crate) fn setup(&mut self, host: Option<HostId>, text: &str) {
        let now_ns = self.now_ns();
        self.record.setup(now_ns, host, text);
    }

    /// Ends the run with an error.
    pub(crate) fn fail(&mut self, why: String) {
        self.findings.fail(why);
        self.agenda.wake_driver();
    }

    /// Opens the next stream of `label` for a host, or for the scenario itself.
    pub(crate) fn open_stream(&mut self, host: Option<HostId>, label: &str) -> Rng {
        let full = self.next_label(host, label);
        let now_ns = self.now_ns();
        self.record.stream(now_ns, host, &full);
        let of_label = stream(self.stream_seed, &full);
        Rng::new(of_label, Some(self.open_streams.open(host, full, true, self.record.trace.has_draws())))
    }

    /// The meter of a generator that a program has seeded by itself.
    pub(crate) fn meter(&mut self, host: Option<HostId>, label: &str) -> Meter {
        let full = self.next_label(host, label);
        self.open_streams.open(host, full, false, self.record.trace.has_draws())
    }

    /// The full label of the next stream of `label`.
    fn next_label(&mut self, host: Option<HostId>, label: &str) -> String {
        let (owner, counts) = match host {
            Some(id) => {
                let host = self.hosts.get_mut(id);
                (format!("host/{}", host.name), &mut host.process.streams)
            }
            None => ("scenario".to_owned(), &mut self.streams),
        };
        let count = counts.entry(label.to_owned()).or_default();
        *count += 1;
        format!("rt/{owner}/{label}/{count}")
    }

    /// A program has drawn from a stream, in a run whose trace has every draw.
    pub(crate) fn drawn(&mut self, number: u64) {
        let now_ns = self.now_ns();
        if let Some(stream) = self.open_streams.get(number) {
            self.record.trace.drawn(now_ns, stream.host, &stream.label, u128::from(stream.position()));
        }
    }

    /// A program has dropped a stream.
    pub(crate) fn close_stream(&mut self, meter: &Meter) {
        let now_ns = self.now_ns();
        if let Some(stream) = self.open_streams.close(meter) {
            self.record.stream_end(now_ns, stream.host, &stream.label, u128::from(stream.position()));
        }
    }

    /// Records a disk operation.
    pub(crate) fn disk_record(&mut self, host: HostId, op: &disk::Op<'_>) {
        let now_ns = self.now_ns();
        let buffer = self.wire.pool.take();
        let buffer = self.record.disk(now_ns, host, op, buffer);
        self.wire.pool.give_back(buffer);
    }

    /// The network in which both ends have addresses; the one with the highest number if there are several.
    pub(crate) fn common_net(&self, a: End, b: End) -> Option<NetId> {
        let shared: Vec<NetId> = self.nets_of(b);
        self.nets_of(a).into_iter().filter(|net| shared.contains(net)).max()
    }

    /// The networks of an end: those of a host's interfaces, or both sides of a box.
    fn nets_of(&self, end: End) -> Vec<NetId> {
        match end {
            End::Host(host) => self.host(host).nics.iter().map(|nic| nic.net).collect(),
            End::Box(id) => std::iter::once(id)
                .chain(self.wire.nets.get(id).gateway.as_ref().map(|gateway| gateway.outside))
                .collect(),
        }
    }

    /// Rebuilds the address tables from the interfaces and boxes.
    pub(crate) fn readdress(&mut self) {
        self.wire.nets.readdress(&self.hosts.interfaces(false));
    }

    /// Why `who` can't replace its current addresses by `ip` in `net`; `None` if it can.
    pub(crate) fn refuses(&self, net: NetId, ip: IpAddr, who: Owner) -> Option<String> {
        self.wire.nets.refuses(&self.hosts.interfaces(true), net, ip, who)
    }

    /// Saves the map at the first call, if a reader has requested it.
    pub(crate) fn keep_map(&mut self) {
        if self.map.is_wanted() {
            self.map.keep(draw(&self.hosts, &self.wire.nets));
        }
    }

    /// The random streams of the hosts' kernels, of links and boxes: owner, name and position, in the order of the digest.
    fn own_streams(&self) -> Vec<(Option<HostId>, String, u128)> {
        let of_links = self.wire.links.rngs();
        let of_host = |(host, of_link): (&HostState, &_)| {
            let (id, name) = (host.id, &host.name);
            let kinds = ["link", "port", "tcp", "tcp-patience", "disk"];
            let named = kinds.into_iter().zip([of_link].into_iter().chain(host.streams()));
            named
                .map(|(kind, rng)| (Some(id), format!("{kind}/{name}"), rng.get_word_pos()))
                .collect::<Vec<_>>()
        };
        let mut all: Vec<_> = self.hosts.iter().zip(&of_links.hosts).flat_map(of_host).collect();
        for (_, net) in self.wire.nets.iter() {
            if let Some(gateway) = &net.gateway {
                all.push((None, format!("box/{}", net.name), gateway.stream().get_word_pos()));
            }
        }
        for ((_, net), rng) in self.wire.nets.iter().zip(&of_links.boxes) {
            all.push((None, format!("link/box of {}", net.name), rng.get_word_pos()));
        }
        all
    }

    /// Tells the trace which of the own streams have moved since the last call.
    fn tell_draws(&mut self) {
        let now_ns = self.now_ns();
        for (host, name, position) in self.own_streams() {
            let before = self.told.get(&name).copied().unwrap_or_default();
            if before != position {
                self.record.trace.drawn(now_ns, host, &name, position);
                self.told.insert(name, position);
            }
        }
    }

    /// Writes the final position of every stream into the trace, and returns the digest.
    pub(crate) fn finish(&mut self) -> String {
        let now_ns = self.now_ns();
        for stream in self.open_streams.close_all() {
            self.record.stream_end(now_ns, stream.host, &stream.label, u128::from(stream.position()));
        }
        for (host, name, position) in self.own_streams() {
            self.record.stream_end(now_ns, host, &name, position);
        }
        self.record.trace.digest()
    }
}
