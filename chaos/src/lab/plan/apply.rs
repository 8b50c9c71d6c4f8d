//! Executes a plan in a world, and ends it.
//!
//! A background task of the scenario begins each fault at its start and ends it after its duration. A state that a
//! fault changes is *held*: the first fault that holds a host down takes it down and saves the previous state, and
//! the last one that ends brings it up again. Nothing here is random.

use super::draw::{Targets, draw};
use super::effect::{Effects, Scope};
use super::{BoxFault, Fault, HostFault, Plan, Planned, Spot};
use crate::ids as net;
use crate::ids::HostId;
use crate::ids::NetId;
use crate::kernel::host::Armed;
use crate::kernel::process::End;
use crate::lab::run::Unleashed;
use crate::lab::scenario::Trial;
use crate::wire::net::{Net, Owner};
use crate::world::sim;
use crate::world::{Host, World};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// A state that a fault keeps changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Hold {
    Effect(usize),
    Cut(HostId, HostId),
    Down(HostId),
    /// A crash or power loss armed in the host's process by the fault of this number: it keeps no host down before
    /// it happens.
    Armed(usize, HostId),
    Paused(HostId),
    Suspended(HostId),
    Pinned(HostId),
    Step(usize, HostId),
    Drift(HostId),
    Nic(HostId, String),
    Place(HostId),
    Off(NetId),
    Outer(NetId),
}

/// The previous state.
#[derive(Debug, Clone)]
enum Was {
    /// The state without faults.
    Usual,
    StepMs(i64),
    DriftPpb(i64),
    Place(String, Net, Vec<IpAddr>),
    Outer(NetId, Vec<IpAddr>),
}

/// The plan of a run, and its active faults.
#[derive(Default)]
pub(crate) struct Faults {
    /// The plan in use, once it has been started.
    plan: Option<Plan>,
    /// The kinds and weights that the seed drew, if it did.
    drawn: Option<String>,
    /// When it was started.
    unleashed: Duration,
    /// Faults that were skipped or applied only in part, with the reason, by number.
    skipped: BTreeMap<usize, String>,
    /// Faults that have begun.
    begun: BTreeSet<usize>,
    /// Targets that didn't exist when the plan was started, by the fault's number.
    unknown: BTreeMap<usize, String>,
    /// The holds of each active fault.
    active: BTreeMap<usize, Vec<Hold>>,
    holds: BTreeMap<Hold, (u32, Was)>,
    healed: bool,
}

impl Faults {
    /// Adds a hold; returns whether it is the first on this state.
    fn hold(&mut self, number: usize, hold: Hold, was: impl FnOnce() -> Was) -> bool {
        self.active.entry(number).or_default().push(hold.clone());
        let held = self.holds.entry(hold).or_insert_with(|| (0, was()));
        held.0 += 1;
        held.0 == 1
    }

    /// The report on the faults for a run's outcome.
    pub(crate) fn unleashed(&self) -> Option<Unleashed> {
        let plan = self.plan.clone()?;
        let told = |(number, planned): (usize, &Planned)| {
            let fault = format!("fault {} ({planned})", number + 1);
            match (self.skipped.get(&number), self.unknown.get(&number)) {
                (Some(why), _) if self.begun.contains(&number) => {
                    Some(format!("{fault} is not whole: {why}"))
                }
                (Some(why), _) => Some(format!("{fault} was skipped: {why}")),
                _ if self.begun.contains(&number) => None,
                (None, Some(why)) => Some(format!("{fault} was never due; {why}")),
                (None, None) if self.healed => Some(format!("{fault} was never due: all was healed before")),
                (None, None) => Some(format!("{fault} was never due: the run was over before")),
            }
        };
        let skipped = plan.faults().iter().enumerate().filter_map(told).collect();
        let begun = self.begun.len();
        Some(Unleashed { plan, drawn: self.drawn.clone(), at: self.unleashed, begun, skipped })
    }

    /// Addresses that faults have taken from a host or a box for a while, each with its network.
    pub(crate) fn taken_away(&self) -> impl Iterator<Item = (net::End, NetId, &[IpAddr])> {
        self.holds.iter().filter_map(|(hold, (_, was))| match (hold, was) {
            (Hold::Place(id), Was::Place(_, net, ips)) => Some((net::End::Host(*id), net.0, ips.as_slice())),
            (Hold::Outer(id), Was::Outer(outside, ips)) => {
                Some((net::End::Box(*id), *outside, ips.as_slice()))
            }
            _ => None,
        })
    }

    /// A crash or power loss that a fault armed has happened: now the fault keeps the host down.
    pub(crate) fn fires(&mut self, number: usize, host: HostId) {
        let armed = Hold::Armed(number, host);
        if self.release(&armed).is_none() {
            return;
        }
        if let Some(active) = self.active.get_mut(&number) {
            active.retain(|hold| *hold != armed);
        }
        self.hold(number, Hold::Down(host), || Was::Usual);
    }

    /// Releases a hold; returns the previous state if it was the last hold on it.
    fn release(&mut self, hold: &Hold) -> Option<Was> {
        let (count, _) = self.holds.get_mut(hold)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        self.holds.remove(hold).map(|(_, was)| was)
    }
}

fn with<R>(f: impl FnOnce(&mut Faults) -> R) -> R {
    sim::with(|sim| f(&mut sim.faults))
}

fn with_effects<R>(f: impl FnOnce(&mut Effects) -> R) -> R {
    sim::with(|sim| f(&mut sim.links.effects))
}

fn holds(hold: &Hold) -> bool {
    with(|faults| faults.holds.contains_key(hold))
}

fn hold(number: usize, what: Hold) -> bool {
    with(|faults| faults.hold(number, what, || Was::Usual))
}

impl Trial {
    /// Starts faults, from now on and in the background: those of the plan that the run was given, or else of a plan
    /// that the seed draws of the scenario's [`faults`](crate::Scenario::faults) for these targets, all of it over
    /// after `span`. Returns at once.
    ///
    /// # Panics
    /// If faults have been started in this run before.
    pub fn unleash(&self, targets: &Targets, span: Duration) {
        let world = self.world;
        let (plan, options) = match self.given_plan() {
            Some(plan) => (plan.clone(), None),
            None => {
                let drawn = draw(world.seed(), self.fault_kinds(), targets, span);
                (drawn.plan, Some(drawn.options))
            }
        };
        let steps = steps(&plan);
        let begun = world.elapsed();
        let numbered = plan.faults().iter().enumerate();
        let unknown =
            numbered.filter_map(|(number, planned)| Some((number, unknown(world, &planned.fault)?)));
        let unknown: BTreeMap<usize, String> = unknown.collect();
        sim::with(|sim| sim.look());
        with(|faults| {
            assert!(faults.plan.is_none(), "faults are let loose once in a run");
            faults.plan = Some(plan.clone());
            faults.drawn = options;
            faults.unleashed = begun;
            faults.unknown = unknown;
        });
        drop(madsim::task::spawn(async move {
            for (at, step, number) in steps {
                world.sleep((begun + at).saturating_sub(world.elapsed())).await;
                if with(|faults| faults.healed) {
                    return;
                }
                match step {
                    Step::Begin => begin(world, number, &plan.faults()[number]),
                    Step::End => end(world, number, false, |_| true),
                }
            }
        }));
    }

    /// Ends every fault: links are as before, partitions mended, boxes on, hosts back in their networks, started,
    /// continued and awake. Clocks stay as they are. Then it waits while a packet can still be
    /// [held back](Plan::held_back). After it, liveness can be checked.
    pub async fn heal(&self) {
        self.heal_what(|_| true).await;
        self.world.sleep(self.plan().held_back()).await;
    }

    /// Like [`heal`](Trial::heal), but only for faults that touch `core`: its hosts, the boxes that they are behind,
    /// partitions among them, and the links of the core. No fault begins anywhere, but hosts outside the core that
    /// are down, stalled or cut off stay so until everything is healed, and the core has to cope with that.
    pub async fn heal_core(&self, core: &[Host]) {
        let hosts: BTreeSet<HostId> = core.iter().map(Host::id).collect();
        // Roamed hosts return first, because the boxes of their own networks count.
        self.heal_what(|hold| matches!(hold, Hold::Place(id) if hosts.contains(id))).await;
        let mut boxes = BTreeSet::new();
        for mut net in core.iter().flat_map(Host::nets) {
            while let Some(outside) = net.outside() {
                boxes.insert(net.id());
                net = outside;
            }
        }
        let touches = |end: net::End| match end {
            net::End::Host(id) => hosts.contains(&id),
            net::End::Box(id) => boxes.contains(&id),
        };
        self.heal_what(|hold| match hold {
            Hold::Effect(number) => with_effects(|effects| effects.end_of(*number)).is_none_or(touches),
            Hold::Cut(a, b) => hosts.contains(a) && hosts.contains(b),
            Hold::Down(id)
            | Hold::Paused(id)
            | Hold::Suspended(id)
            | Hold::Pinned(id)
            | Hold::Step(_, id)
            | Hold::Drift(id)
            | Hold::Nic(id, _)
            | Hold::Armed(_, id)
            | Hold::Place(id) => hosts.contains(id),
            Hold::Off(id) | Hold::Outer(id) => boxes.contains(id),
        })
        .await;
    }

    async fn heal_what(&self, what: impl Fn(&Hold) -> bool) {
        let active: Vec<usize> = with(|faults| {
            faults.healed = true;
            faults.active.keys().copied().collect()
        });
        for number in active {
            end(self.world, number, true, &what);
        }
        // Started and continued processes run before the scenario goes on.
        self.world.sleep(Duration::from_millis(1)).await;
    }

    /// The plan in use; empty until faults are started.
    pub fn plan(&self) -> Plan {
        with(|faults| faults.plan.clone().unwrap_or_default())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    // At the same time, ends come before begins.
    End,
    Begin,
}

/// The steps of a plan by time, each with its fault's number.
fn steps(plan: &Plan) -> Vec<(Duration, Step, usize)> {
    let mut steps = Vec::new();
    for (number, planned) in plan.faults().iter().enumerate() {
        steps.push((planned.at, Step::Begin, number));
        if let Some(lasts) = planned.lasts {
            // Not before its own beginning, also if its duration is zero.
            let end = (planned.at + lasts).max(planned.at + Duration::from_nanos(1));
            steps.push((end, Step::End, number));
        }
    }
    steps.sort_unstable();
    steps
}

fn begin(world: World, number: usize, planned: &Planned) {
    world.note(&format!("fault {}: {}", number + 1, planned));
    let begun = match &planned.fault {
        Fault::Link { on, way, effect } => spot(world, on).map(|end| {
            sim::with(|sim| sim.fault(None, &format!("{on:?} {way:?} {effect:?}")));
            hold(number, Hold::Effect(number));
            with_effects(|effects| effects.begin(number, Scope { end, way: *way }, effect.clone()));
        }),
        Fault::Partition { left, right, one_way } => {
            if let Some(missing) = unknown(world, &planned.fault) {
                // The existing hosts are cut off nevertheless: a plan also fits a world with fewer hosts.
                world.note(&missing);
                with(|faults| faults.skipped.insert(number, missing));
            }
            partition(world, number, left, right, *one_way)
        }
        Fault::Host { host, fault } => match world.find(host) {
            Some(host) => on_host(world, number, host, fault),
            None => Err(no_host(host)),
        },
        Fault::Box { net, fault } => match world.find_net(net).filter(|net| net.outside().is_some()) {
            Some(net) => on_box(number, net, fault),
            None => Err(no_box(net)),
        },
    };
    match begun {
        Ok(()) => with(|faults| {
            faults.begun.insert(number);
        }),
        Err(why) => skip(world, number, planned, why),
    }
}

fn skip(world: World, number: usize, planned: &Planned, why: String) {
    world.note(&format!("fault {} ({planned}) was skipped: {why}", number + 1));
    with(|faults| faults.skipped.insert(number, why));
}

fn no_host(name: &str) -> String {
    format!("there is no host {name}")
}

fn no_box(name: &str) -> String {
    format!("there is no network {name} behind a box")
}

/// The names in a fault that have no target; `None` if all have one.
fn unknown(world: World, fault: &Fault) -> Option<String> {
    let host = |name: &String| world.find(name).is_none().then(|| no_host(name));
    let net = |name: &String| match world.find_net(name).and_then(|net| net.outside()) {
        Some(_) => None,
        None => Some(no_box(name)),
    };
    match fault {
        Fault::Link { on: Spot::Everywhere, .. } => None,
        Fault::Link { on: Spot::Host(name), .. } | Fault::Host { host: name, .. } => host(name),
        Fault::Link { on: Spot::Box(name), .. } | Fault::Box { net: name, .. } => net(name),
        Fault::Partition { left, right, .. } => {
            let missing: Vec<String> = left.iter().chain(right).filter_map(host).collect();
            (!missing.is_empty()).then(|| missing.join(", "))
        }
    }
}

fn spot(world: World, on: &Spot) -> Result<Option<net::End>, String> {
    match on {
        Spot::Everywhere => Ok(None),
        Spot::Host(name) => {
            let host = world.find(name).ok_or_else(|| no_host(name))?;
            Ok(Some(host.into()))
        }
        Spot::Box(name) => {
            let net = world.find_net(name).filter(|net| net.outside().is_some());
            Ok(Some(net.ok_or_else(|| no_box(name))?.into()))
        }
    }
}

fn partition(
    world: World,
    number: usize,
    left: &[String],
    right: &[String],
    one_way: bool,
) -> Result<(), String> {
    let find = |names: &[String]| -> Vec<HostId> {
        names.iter().filter_map(|n| world.find(n)).map(|h| h.id()).collect()
    };
    let (left, right) = (find(left), find(right));
    let mut pairs = Vec::new();
    for a in &left {
        for b in right.iter().filter(|b| *b != a) {
            pairs.push((*a, *b));
            if !one_way {
                pairs.push((*b, *a));
            }
        }
    }
    if pairs.is_empty() {
        // A misspelt name is the more useful reason for a person.
        let missing = with(|faults| faults.skipped.remove(&number));
        return Err(missing.unwrap_or_else(|| "one side has no host".to_owned()));
    }
    sim::with(|sim| {
        let now_ns = sim.now_ns();
        sim.fault(None, &format!("cut {pairs:?}"));
        for (a, b) in pairs {
            if sim.faults.hold(number, Hold::Cut(a, b), || Was::Usual) {
                sim.links.cut(now_ns, a, b);
            }
        }
    });
    Ok(())
}

fn on_host(world: World, number: usize, host: Host, fault: &HostFault) -> Result<(), String> {
    let id = host.id();
    let running = host.is_running();
    let must_run = || if running { Ok(()) } else { Err("it does not run".to_owned()) };
    match fault {
        HostFault::Crash | HostFault::HubKill | HostFault::PowerLoss => {
            // A host that is down without a fault has ended by itself, and stays so.
            if !holds(&Hold::Down(id)) {
                must_run()?;
            }
            hold(number, Hold::Down(id));
            if *fault == HostFault::PowerLoss {
                host.power_loss();
            } else if running {
                host.crash();
            }
        }
        HostFault::DiskCrash { op } | HostFault::DiskPowerLoss { op } => {
            must_run()?;
            hold(number, Hold::Armed(number, id));
            let how = match fault {
                HostFault::DiskPowerLoss { .. } => End::PowerLoss,
                _ => End::Crash,
            };
            host.arm(Armed { left: (*op).max(1), how, fault: Some(number) });
        }
        HostFault::Restart | HostFault::HubRestart => {
            must_run()?;
            restart(host);
        }
        HostFault::Pause | HostFault::HubStall => {
            must_run()?;
            if hold(number, Hold::Paused(id)) {
                host.pause();
            }
        }
        HostFault::Suspend => {
            if hold(number, Hold::Suspended(id)) {
                host.suspend();
            }
        }
        HostFault::PinCpu => {
            must_run()?;
            if hold(number, Hold::Pinned(id)) {
                host.pin_cpu();
            }
        }
        HostFault::ClockStep { by_ms } => {
            with(|faults| faults.hold(number, Hold::Step(number, id), || Was::StepMs(*by_ms)));
            host.step_wall_clock_ms(*by_ms);
        }
        HostFault::ClockDrift { ppm } => {
            let before = sim::with(|sim| sim.host(id).clock.drift_ppb());
            with(|faults| faults.hold(number, Hold::Drift(id), || Was::DriftPpb(before)));
            host.set_clock_drift_ppb(ppm.saturating_mul(1_000));
        }
        HostFault::NicDown { nic } => {
            let up = sim::with(|sim| sim.host(id).nics.iter().find(|n| n.name == *nic).map(|n| n.up));
            let held = holds(&Hold::Nic(id, nic.clone()));
            match up {
                None => return Err(format!("it has no interface {nic}")),
                Some(false) if !held => return Err(format!("its {nic} is down")),
                Some(_) => {}
            }
            if hold(number, Hold::Nic(id, nic.clone())) {
                host.set_nic_up(nic, false);
            }
        }
        HostFault::Roam { to, ip } => {
            let net = world.find_net(to).ok_or_else(|| format!("there is no network {to}"))?;
            let place = sim::with(|sim| {
                let nic = sim.host(id).nics.first()?;
                Some((nic.name.clone(), Net(nic.net), nic.addrs.clone()))
            });
            let (nic, was_in, addrs) = place.ok_or("it has no interface")?;
            refused(net, *ip, Owner::Host(id, 0))?;
            with(|faults| faults.hold(number, Hold::Place(id), || Was::Place(nic.clone(), was_in, addrs)));
            host.attach(&nic, net, &[&ip.to_string()]);
        }
    }
    Ok(())
}

/// Restarts a host, and keeps it stopped as far as other faults require.
fn restart(host: Host) {
    host.restart();
    let id = host.id();
    if holds(&Hold::Paused(id)) {
        host.pause();
    }
    if holds(&Hold::Pinned(id)) {
        host.pin_cpu();
    }
    if holds(&Hold::Suspended(id)) {
        host.suspend();
    }
}

/// Whether `who` may replace its addresses by `ip` in a network; else the reason.
fn refused(net: Net, ip: IpAddr, who: Owner) -> Result<(), String> {
    sim::with(|sim| sim.refuses(net.id(), ip, who)).map_or(Ok(()), Err)
}

fn on_box(number: usize, net: Net, fault: &BoxFault) -> Result<(), String> {
    match fault {
        BoxFault::Reboot => net.reboot(),
        BoxFault::Off => {
            if hold(number, Hold::Off(net.id())) {
                net.set_power(false);
            }
        }
        BoxFault::Renumber { ip } => {
            let outside = net.outside().ok_or("it has no box")?;
            refused(outside, *ip, Owner::Box(net.id()))?;
            let before = net.outer_addrs();
            with(|faults| faults.hold(number, Hold::Outer(net.id()), || Was::Outer(outside.id(), before)));
            set_outer(net, &[*ip]);
        }
    }
    Ok(())
}

fn set_outer(net: Net, ips: &[IpAddr]) {
    let ips: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
    net.set_outer_addrs(&ips.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Ends the holds of a fault that `what` selects. While `healing` everything, clocks stay as they are.
fn end(world: World, number: usize, healing: bool, what: impl Fn(&Hold) -> bool) {
    let Some(active) = with(|faults| faults.active.remove(&number)) else { return };
    let (ending, staying): (Vec<_>, Vec<_>) = active.into_iter().partition(|hold| what(hold));
    if !staying.is_empty() {
        with(|faults| faults.active.insert(number, staying));
    }
    if ending.is_empty() {
        return;
    }
    world.note(&format!("fault {} ends", number + 1));
    for hold in ending {
        let Some(was) = with(|faults| faults.release(&hold)) else { continue };
        undo(world, hold, was, healing);
    }
}

/// The former addresses that are given back. No fault takes them meanwhile, but the scenario may have.
fn still_free(world: World, net: Net, ips: Vec<IpAddr>, who: Owner) -> Vec<IpAddr> {
    let is_free = |ip: &IpAddr| {
        let refused = refused(net, *ip, who);
        if let Err(why) = &refused {
            world.note(&format!("it is not given back: {why}"));
        }
        refused.is_ok()
    };
    ips.into_iter().filter(is_free).collect()
}

fn undo(world: World, hold: Hold, was: Was, healing: bool) {
    let host = |id: HostId| world.hosts()[id.0 as usize];
    match (hold, was) {
        (Hold::Effect(number), _) => {
            sim::with(|sim| sim.fault(None, "links as before"));
            with_effects(|effects| effects.end(number));
        }
        (Hold::Cut(a, b), _) => sim::with(|sim| {
            sim.fault(None, &format!("mend {a:?} to {b:?}"));
            let now_ns = sim.now_ns();
            sim.links.mend(now_ns, a, b);
        }),
        (Hold::Down(id), _) => {
            if !host(id).is_running() {
                restart(host(id));
            }
        }
        (Hold::Armed(number, id), _) => {
            sim::with(|sim| sim.host_mut(id).armed.retain(|armed| armed.fault != Some(number)));
        }
        (Hold::Paused(id), _) => host(id).resume(),
        (Hold::Suspended(id), _) => host(id).wake(),
        (Hold::Pinned(id), _) => host(id).unpin_cpu(),
        (Hold::Step(_, id), Was::StepMs(by_ms)) if !healing => host(id).step_wall_clock_ms(-by_ms),
        (Hold::Drift(id), Was::DriftPpb(ppb)) if !healing => host(id).set_clock_drift_ppb(ppb),
        (Hold::Nic(id, nic), _) => host(id).set_nic_up(&nic, true),
        (Hold::Place(id), Was::Place(nic, net, addrs)) => {
            let at = sim::with(|sim| sim.host_mut(id).nic(&nic));
            let free = still_free(world, net, addrs, Owner::Host(id, at));
            let free: Vec<String> = free.iter().map(IpAddr::to_string).collect();
            host(id).attach(&nic, net, &free.iter().map(String::as_str).collect::<Vec<_>>());
        }
        (Hold::Off(id), _) => Net(id).set_power(true),
        (Hold::Outer(id), Was::Outer(outside, ips)) => {
            set_outer(Net(id), &still_free(world, Net(outside), ips, Owner::Box(id)));
        }
        (Hold::Step(..) | Hold::Drift(_) | Hold::Place(_) | Hold::Outer(_), _) => {}
    }
}
