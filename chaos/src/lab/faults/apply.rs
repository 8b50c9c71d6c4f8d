//! How each fault begins and ends.

use super::Injector;
use super::ledger::{Before, Hold};
use crate::ids::{End, HostId};
use crate::kernel::host::HostState;
use crate::kernel::process::{Armed, ProcessEnd};
use crate::lab::plan::{BoxFault, Fault, HostFault, LinkScope, Planned};
use crate::lab::points::Point;
use crate::wire::effect::Scope;
use crate::wire::net::Owner;
use crate::world::World;
use crate::world::host::Host;
use crate::world::net::Net;
use crate::world::sim;
use std::net::IpAddr;

impl Injector {
    pub(super) fn begin(&self, number: usize, planned: &Planned) {
        let world = self.world;
        world.note(&format!("fault {}: {}", number + 1, planned));
        sim::with(|sim| sim.record.trace.fault_begins(number));
        let begun = match &planned.fault {
            Fault::Link { on, way, effect } => spot(world, on).map(|end| {
                sim::with(|sim| sim.fault(None, &format!("{on:?} {way:?} {effect:?}")));
                self.hold(number, Hold::Effect(number));
                sim::with(|sim| {
                    sim.wire.links.effects.begin(number, Scope { end, way: *way }, effect.clone())
                });
            }),
            Fault::Partition { left, right, one_way } => {
                if let Some(missing) = unknown(world, self.points, &planned.fault) {
                    // The existing hosts are cut off nevertheless: a plan also fits a world with fewer hosts.
                    world.note(&missing);
                    self.with(|ledger| ledger.skipped.insert(number, missing));
                }
                self.partition(number, left, right, *one_way)
            }
            Fault::Host { host, fault } => match world.find(host) {
                Some(host) => self.on_host(number, host, fault),
                None => Err(no_host(host)),
            },
            Fault::Box { net, fault } => match world.find_net(net).filter(|net| net.outside().is_some()) {
                Some(net) => self.on_box(number, net, fault),
                None => Err(no_box(net)),
            },
        };
        match begun {
            Ok(()) => self.with(|ledger| {
                ledger.begun.insert(number);
            }),
            Err(why) => self.skip(number, planned, why),
        }
        // A fault that holds nothing, such as a restart, is over.
        if self.with(|ledger| !ledger.active.contains_key(&number)) {
            sim::with(|sim| sim.record.trace.fault_ends(sim.now_ns(), number));
        }
    }

    fn skip(&self, number: usize, planned: &Planned, why: String) {
        self.world.note(&format!("fault {} ({planned}) was skipped: {why}", number + 1));
        self.with(|ledger| ledger.skipped.insert(number, why));
    }

    fn partition(
        &self,
        number: usize,
        left: &[String],
        right: &[String],
        one_way: bool,
    ) -> Result<(), String> {
        let find = |names: &[String]| -> Vec<HostId> {
            names.iter().filter_map(|n| self.world.find(n)).map(|h| h.id()).collect()
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
            let missing = self.with(|ledger| ledger.skipped.remove(&number));
            return Err(missing.unwrap_or_else(|| "one side has no host".to_owned()));
        }
        sim::with(|sim| sim.fault(None, &format!("cut {pairs:?}")));
        for (a, b) in pairs {
            if self.hold(number, Hold::Cut(a, b)) {
                sim::with(|sim| sim.wire.links.cut(sim.now_ns(), a, b));
            }
        }
        Ok(())
    }

    fn on_host(&self, number: usize, host: Host, fault: &HostFault) -> Result<(), String> {
        let id = host.id();
        let running = host.is_running();
        let must_run = || if running { Ok(()) } else { Err("it does not run".to_owned()) };
        match fault {
            HostFault::Crash | HostFault::HubKill | HostFault::PowerLoss => {
                // A host that is down without a fault has ended by itself, and stays so.
                if !self.is_held(&Hold::Down(id)) {
                    must_run()?;
                }
                self.hold(number, Hold::Down(id));
                if *fault == HostFault::PowerLoss {
                    host.power_loss();
                } else if running {
                    host.crash();
                }
            }
            HostFault::DiskCrash { op } | HostFault::DiskPowerLoss { op } => {
                must_run()?;
                self.hold(number, Hold::Armed(number, id));
                let how = match fault {
                    HostFault::DiskPowerLoss { .. } => ProcessEnd::PowerLoss,
                    _ => ProcessEnd::Crash,
                };
                host.arm(Armed { left: (*op).max(1), how, fault: Some(number) });
            }
            HostFault::DiskFull { left_bytes } => {
                self.trouble(number, (id, Hold::Disk), fault, |host| host.disk.fill(number, *left_bytes));
            }
            HostFault::DiskError { call, op } => {
                self.trouble(number, (id, Hold::Disk), fault, |host| {
                    host.disk.troubles.fail(number, *call, (*op).max(1))
                });
            }
            HostFault::DiskSlow { pace } => {
                self.trouble(number, (id, Hold::Disk), fault, |host| host.disk.troubles.slow(number, *pace));
                sim::with(|sim| sim.cpus.turn_on());
            }
            HostFault::DiskFlip { bit } => {
                sim::with(|sim| sim.fault(Some(id), &format!("disk bit {bit} flips")));
                if !sim::with(|sim| sim.host_mut(id).disk.flip(*bit)) {
                    return Err("nothing on its disk is durable".to_owned());
                }
            }
            HostFault::DnsSlow { add } => {
                self.trouble(number, (id, Hold::Lookups), fault, |host| host.names.slow(number, *add));
            }
            HostFault::DnsFail { how } => {
                self.trouble(number, (id, Hold::Lookups), fault, |host| host.names.fail(number, *how));
            }
            HostFault::DnsStale => {
                self.trouble(number, (id, Hold::StaleName), fault, |host| host.names.age(number))
            }
            HostFault::Buggify { point, percent } => {
                self.trouble(number, (id, Hold::Point), fault, |host| {
                    host.points.turn_on(number, point, *percent)
                });
                sim::with(|sim| sim.hosts.has_points = true);
            }
            HostFault::Restart | HostFault::HubRestart => {
                must_run()?;
                self.restart(host);
            }
            HostFault::Pause | HostFault::HubStall => {
                must_run()?;
                if self.hold(number, Hold::Paused(id)) {
                    host.pause();
                }
            }
            HostFault::Suspend => {
                if self.hold(number, Hold::Suspended(id)) {
                    host.suspend();
                }
            }
            HostFault::PinCpu => {
                must_run()?;
                if self.hold(number, Hold::Pinned(id)) {
                    host.pin_cpu();
                }
            }
            HostFault::SlowCpu { times } => {
                if self.hold(number, Hold::SlowCpu(id)) {
                    host.slow_cpu(Some((*times).max(1)));
                }
            }
            HostFault::ClockStep { by_ms } => {
                self.hold_from(number, Hold::Step(number, id), || Before::StepMs(*by_ms));
                host.step_wall_clock_ms(*by_ms);
            }
            HostFault::ClockDrift { ppm } => {
                let before = sim::with(|sim| sim.host(id).clock.drift_ppb());
                self.hold_from(number, Hold::Drift(id), || Before::DriftPpb(before));
                host.set_clock_drift_ppb(ppm.saturating_mul(1_000));
            }
            HostFault::ClockUnset { reads_ms } => {
                let now_ms = sim::with(|sim| sim.host(id).clock.wall_ns(sim.now_ns()) / 1_000_000);
                let by_ms =
                    i64::try_from(i128::from(*reads_ms) - now_ms).map_err(|_| "it reads too far away")?;
                self.hold_from(number, Hold::Unset(number, id), || Before::StepMs(by_ms));
                host.step_wall_clock_ms(by_ms);
            }
            HostFault::NicDown { nic } => {
                let up = sim::with(|sim| sim.host(id).nics.find(nic).map(|nic| nic.up));
                let held = self.is_held(&Hold::Nic(id, nic.clone()));
                match up {
                    None => return Err(format!("it has no interface {nic}")),
                    Some(false) if !held => return Err(format!("its {nic} is down")),
                    Some(_) => {}
                }
                if self.hold(number, Hold::Nic(id, nic.clone())) {
                    host.set_nic_up(nic, false);
                }
            }
            HostFault::Roam { to, ip } => {
                let net = self.world.find_net(to).ok_or_else(|| format!("there is no network {to}"))?;
                let place = sim::with(|sim| {
                    let nic = sim.host(id).nics.iter().next()?;
                    Some((nic.name.clone(), Net(nic.net), nic.addrs.clone()))
                });
                let (nic, was_in, addrs) = place.ok_or("it has no interface")?;
                refused(net, *ip, Owner::Host(id, 0))?;
                self.hold_from(number, Hold::Place(id), || Before::Place(nic.clone(), was_in, addrs));
                host.attach(&nic, net, &[&ip.to_string()]);
            }
        }
        Ok(())
    }

    /// Makes a trouble to a host, which ends under the fault's number.
    fn trouble(
        &self,
        number: usize,
        (id, hold): (HostId, fn(usize, HostId) -> Hold),
        fault: &HostFault,
        make: impl FnOnce(&mut HostState),
    ) {
        self.hold(number, hold(number, id));
        sim::with(|sim| {
            sim.fault(Some(id), &format!("{fault:?}"));
            make(sim.host_mut(id));
        });
    }

    /// Restarts a host, and keeps it stopped as far as other faults require.
    fn restart(&self, host: Host) {
        host.restart();
        let id = host.id();
        if self.is_held(&Hold::Paused(id)) {
            host.pause();
        }
        if self.is_held(&Hold::Pinned(id)) {
            host.pin_cpu();
        }
        if self.is_held(&Hold::Suspended(id)) {
            host.suspend();
        }
    }

    fn on_box(&self, number: usize, net: Net, fault: &BoxFault) -> Result<(), String> {
        match fault {
            BoxFault::Reboot => net.reboot(),
            BoxFault::Off => {
                if self.hold(number, Hold::Off(net.id())) {
                    net.set_power(false);
                }
            }
            BoxFault::Renumber { ip } => {
                let outside = net.outside().ok_or("it has no box")?;
                refused(outside, *ip, Owner::Box(net.id()))?;
                let before = net.outer_addrs();
                self.hold_from(number, Hold::Outer(net.id()), || Before::Outer(outside.id(), before));
                set_outer(net, &[*ip]);
            }
        }
        Ok(())
    }

    /// Ends the holds of a fault that `what` selects. While `healing` everything, clocks stay as they are.
    pub(super) fn end(&self, number: usize, healing: bool, what: impl Fn(&Hold) -> bool) {
        let Some(active) = self.with(|ledger| ledger.active.remove(&number)) else { return };
        let (ending, staying): (Vec<_>, Vec<_>) = active.into_iter().partition(|hold| what(hold));
        let is_over = staying.is_empty();
        if !is_over {
            self.with(|ledger| ledger.active.insert(number, staying));
        }
        if ending.is_empty() {
            return;
        }
        self.world.note(&format!("fault {} ends", number + 1));
        if is_over {
            sim::with(|sim| sim.record.trace.fault_ends(sim.now_ns(), number));
        }
        for hold in ending {
            let Some(before) = self.release(&hold) else { continue };
            self.undo(hold, before, healing);
        }
    }

    fn undo(&self, hold: Hold, before: Before, healing: bool) {
        let world = self.world;
        let host = |id: HostId| world.hosts()[id.0 as usize];
        match (hold, before) {
            (Hold::Effect(number), _) => {
                sim::with(|sim| sim.fault(None, "links as before"));
                sim::with(|sim| sim.wire.links.effects.end(number));
            }
            (Hold::Cut(a, b), _) => sim::with(|sim| {
                sim.fault(None, &format!("mend {a:?} to {b:?}"));
                let now_ns = sim.now_ns();
                sim.wire.links.mend(now_ns, a, b);
            }),
            (Hold::Down(id), _) => {
                if !host(id).is_running() {
                    self.restart(host(id));
                }
            }
            (Hold::Armed(number, id), _) => {
                sim::with(|sim| sim.host_mut(id).process.disarm(Some(number)));
            }
            (Hold::Disk(number, id), _) => sim::with(|sim| {
                sim.fault(Some(id), "the disk as before");
                sim.host_mut(id).disk.troubles.end(number);
            }),
            (Hold::Lookups(number, id) | Hold::StaleName(number, id), _) => sim::with(|sim| {
                sim.fault(Some(id), "names as before");
                sim.host_mut(id).names.end(number);
            }),
            (Hold::Point(number, id), _) => sim::with(|sim| {
                let account = sim.host_mut(id).points.turn_off(number);
                sim.fault(Some(id), &account);
            }),
            (Hold::Unset(_, id), Before::StepMs(by_ms)) => host(id).step_wall_clock_ms(-by_ms),
            (Hold::Paused(id), _) => host(id).resume(),
            (Hold::Suspended(id), _) => host(id).wake(),
            (Hold::Pinned(id), _) => host(id).unpin_cpu(),
            (Hold::SlowCpu(id), _) => host(id).slow_cpu(None),
            (Hold::Step(_, id), Before::StepMs(by_ms)) if !healing => host(id).step_wall_clock_ms(-by_ms),
            (Hold::Drift(id), Before::DriftPpb(ppb)) if !healing => host(id).set_clock_drift_ppb(ppb),
            (Hold::Nic(id, nic), _) => host(id).set_nic_up(&nic, true),
            (Hold::Place(id), Before::Place(nic, net, addrs)) => {
                let at = sim::with(|sim| sim.host_mut(id).nics.number(&nic));
                let free = still_free(world, net, addrs, Owner::Host(id, at));
                let free: Vec<String> = free.iter().map(IpAddr::to_string).collect();
                host(id).attach(&nic, net, &free.iter().map(String::as_str).collect::<Vec<_>>());
            }
            (Hold::Off(id), _) => Net(id).set_power(true),
            (Hold::Outer(id), Before::Outer(outside, ips)) => {
                set_outer(Net(id), &still_free(world, Net(outside), ips, Owner::Box(id)));
            }
            (Hold::Step(..) | Hold::Unset(..) | Hold::Drift(_) | Hold::Place(_) | Hold::Outer(_), _) => {}
        }
    }
}

fn no_host(name: &str) -> String {
    format!("there is no host {name}")
}

fn no_box(name: &str) -> String {
    format!("there is no network {name} behind a box")
}

/// The names in a fault that have no target; `None` if all have one.
pub(super) fn unknown(world: World, points: &[Point], fault: &Fault) -> Option<String> {
    let host = |name: &String| world.find(name).is_none().then(|| no_host(name));
    let is_known = |name: &String| points.iter().any(|point| point.name == name);
    let net = |name: &String| match world.find_net(name).and_then(|net| net.outside()) {
        Some(_) => None,
        None => Some(no_box(name)),
    };
    match fault {
        Fault::Link { on: LinkScope::Everywhere, .. } => None,
        Fault::Host { fault: HostFault::Buggify { point, .. }, .. } if !is_known(point) => {
            Some(format!("the program has no point {point}"))
        }
        Fault::Link { on: LinkScope::Host(name), .. } | Fault::Host { host: name, .. } => host(name),
        Fault::Link { on: LinkScope::Box(name), .. } | Fault::Box { net: name, .. } => net(name),
        Fault::Partition { left, right, .. } => {
            let missing: Vec<String> = left.iter().chain(right).filter_map(host).collect();
            (!missing.is_empty()).then(|| missing.join(", "))
        }
    }
}

fn spot(world: World, on: &LinkScope) -> Result<Option<End>, String> {
    match on {
        LinkScope::Everywhere => Ok(None),
        LinkScope::Host(name) => {
            let host = world.find(name).ok_or_else(|| no_host(name))?;
            Ok(Some(host.into()))
        }
        LinkScope::Box(name) => {
            let net = world.find_net(name).filter(|net| net.outside().is_some());
            Ok(Some(net.ok_or_else(|| no_box(name))?.into()))
        }
    }
}

/// Whether `who` may replace its addresses by `ip` in a network; else the reason.
fn refused(net: Net, ip: IpAddr, who: Owner) -> Result<(), String> {
    sim::with(|sim| sim.refuses(net.id(), ip, who)).map_or(Ok(()), Err)
}

fn set_outer(net: Net, ips: &[IpAddr]) {
    let ips: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
    net.set_outer_addrs(&ips.iter().map(String::as_str).collect::<Vec<_>>());
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
