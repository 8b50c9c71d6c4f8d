//! Draws a plan from a seed, by swarm testing.
//!
//! A run with a few faults of every kind finds less than a run with many faults of few kinds, because faults mask
//! each other (Groce et al., "Swarm Testing", 2012). So a seed first draws which of the allowed kinds are on, then a
//! weight for each, then the faults. Each kind draws from its own stream, `plan/KIND`, so that removing a kind, or
//! changing its parameters, doesn't change the others.

use super::{
    BoxFault, Direction, DiskCall, DiskPace, DnsFailure, Effect, Fault, FaultKind, HostFault, LinkScope,
    Plan, Planned,
};
use crate::lab::points::Point;
use crate::seed::{Rng, below, stream};
use crate::world::host::Host;
use crate::world::net::Net;
use rand_core::Rng as _;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The shortest fault that is drawn: about the cost of one lost packet.
const SHORTEST: Duration = Duration::from_millis(100);

/// The most faults of one kind in one plan: more of them only make a run slow and a story long.
const MOST_PER_KIND: u64 = 12;

/// The most points of programs that one plan turns on: they are many, and each alone harms little.
const MOST_POINTS: u64 = 24;

/// The shortest time for which a point is on, so that its way is taken a few times.
const POINT_SHORTEST: Duration = Duration::from_secs(4);

/// Free addresses of a haven, from the first one on.
const HAVEN_ADDRS: u64 = 64;

/// The targets of a drawn plan.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    /// Hosts that every fault but the kinds `hub-…` may hit.
    pub hosts: Vec<Host>,
    /// Hosts whose links may fail, and which may be cut off. Their process, clock and interfaces stay as they are.
    pub spared: Vec<Host>,
    /// Hubs: the targets of the kinds `hub-…`. Their links may fail too.
    pub hubs: Vec<Host>,
    /// Networks whose boxes may be hit.
    pub nets: Vec<Net>,
    /// Where `hosts` may roam: a network, and the first of 64 addresses that are free there.
    pub havens: Vec<(Net, Ipv4Addr)>,
}

/// A drawn plan, and the kinds and weights drawn before its faults: `loss×0.7 crash×0.2`.
pub(crate) struct Drawn {
    pub(crate) plan: Plan,
    pub(crate) options: String,
}

/// Draws a plan of these kinds over `span`; `points` are those of the program.
pub(crate) fn draw(
    seed: u64,
    kinds: &[FaultKind],
    points: &[Point],
    targets: &Targets,
    span: Duration,
) -> Drawn {
    let mut kinds = kinds.to_vec();
    kinds.sort_unstable();
    kinds.dedup();
    // With fewer than four kinds, leaving each of them out of half of all runs would be too much.
    let on_of_four = if kinds.len() < 4 { 3 } else { 2 };
    let (mut faults, mut on, mut off) = (Vec::new(), String::new(), String::new());
    for kind in kinds {
        let mut hand = Hand { rng: stream(seed, &format!("plan/{kind}")), targets, points, span };
        if hand.below(4) >= on_of_four {
            let _ = write!(off, " {kind}");
            continue;
        }
        let tenths = 1 + hand.below(10);
        let _ = write!(on, " {kind}×{}.{}", tenths / 10, tenths % 10);
        let most = match kind {
            FaultKind::Buggify => MOST_POINTS - 1,
            _ => (span.as_secs() * tenths / 50).min(MOST_PER_KIND - 1),
        };
        for _ in 0..1 + hand.below(most + 1) {
            faults.extend(hand.planned(kind, tenths));
        }
    }
    let on = if on.is_empty() { " nothing" } else { &on };
    let off = if off.is_empty() { String::new() } else { format!(" (off:{off})") };
    Drawn { plan: Plan::new(faults), options: format!("{}{off}", on.trim_start()) }
}

/// Draws faults of one kind.
struct Hand<'a> {
    rng: Rng,
    targets: &'a Targets,
    points: &'a [Point],
    span: Duration,
}

impl Hand<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        below(self.rng.next_u64(), bound)
    }

    /// One element of a list; takes a draw also if the list is empty.
    fn one<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let at = self.below(of.len() as u64) as usize;
        of.get(at).copied()
    }

    /// A percentage from 1 to `most`, which grows with the weight.
    fn percent(&mut self, tenths: u64, most: u64) -> u32 {
        1 + self.below((most * tenths / 10).max(1)) as u32
    }

    /// Log-uniform: each doubling is as likely as any other.
    fn duration(&mut self, least: Duration, most: Duration) -> Duration {
        let (least, most) = (least.as_millis() as u64, most.as_millis() as u64);
        let doublings = (most / least.max(1)).checked_ilog2().unwrap_or(0);
        let base = least << self.below(u64::from(doublings) + 1);
        Duration::from_millis((base + self.below(base)).clamp(least, most.max(least)))
    }

    fn planned(&mut self, kind: FaultKind, tenths: u64) -> Option<Planned> {
        let shortest = if kind == FaultKind::Buggify { POINT_SHORTEST } else { SHORTEST };
        let longest = kind.longest().min(self.span / 2);
        let lasts = self.duration(shortest.min(longest), longest);
        let room = self.span.saturating_sub(lasts).as_millis() as u64;
        let at = Duration::from_millis(self.below(room + 1));
        let fault = self.fault(kind, tenths)?;
        Some(Planned { at, fault, lasts: (!kind.is_momentary()).then_some(lasts) })
    }

    fn fault(&mut self, kind: FaultKind, tenths: u64) -> Option<Fault> {
        match kind {
            FaultKind::Partition | FaultKind::PartitionOneWay => self.partition(kind),
            FaultKind::BoxReboot | FaultKind::BoxOff | FaultKind::BoxRenumber => self.on_box(kind),
            FaultKind::DnsSlow | FaultKind::DnsFail | FaultKind::DnsStale => self.on_names(kind, tenths),
            FaultKind::Buggify => self.on_point(tenths),
            _ => match self.effect(kind, tenths) {
                Some(effect) => {
                    let (on, way) = self.spot();
                    Some(Fault::Link { on, way, effect })
                }
                None => self.on_host(kind, tenths),
            },
        }
    }

    fn spot(&mut self) -> (LinkScope, Direction) {
        let hosts = self.reachable();
        let way = match self.below(4) {
            0 => Direction::Out,
            1 => Direction::In,
            _ => Direction::Both,
        };
        let (everywhere, at) = (self.below(4) == 0, self.rng.next_u64());
        let nets = &self.targets.nets;
        let at = below(at, (hosts.len() + nets.len()) as u64) as usize;
        let spot = match (hosts.get(at), nets.get(at.wrapping_sub(hosts.len()))) {
            (Some(host), _) if !everywhere => LinkScope::Host(host.name()),
            (_, Some(net)) if !everywhere => LinkScope::Box(net.name()),
            _ => return (LinkScope::Everywhere, Direction::Both),
        };
        (spot, way)
    }

    fn reachable(&self) -> Vec<Host> {
        let Targets { hosts, spared, hubs, .. } = self.targets;
        [hosts, spared, hubs].into_iter().flatten().copied().collect()
    }

    fn effect(&mut self, kind: FaultKind, tenths: u64) -> Option<Effect> {
        Some(match kind {
            FaultKind::Loss => Effect::Loss {
                udp_percent: self.percent(tenths, 60),
                // High loss stalls TCP, which a partition tests already.
                tcp_percent: self.percent(tenths, 10) - 1,
            },
            FaultKind::Burst => Effect::Burst {
                begin_percent: self.percent(tenths, 5),
                end_percent: 5 + self.below(30) as u32,
                loss_percent: 50 + self.below(51) as u32,
            },
            FaultKind::Latency => {
                let most = Duration::from_millis(200 * tenths);
                let add = self.duration(Duration::from_millis(10), most);
                Effect::Latency { add, jitter: self.duration(Duration::from_millis(1), most / 2) }
            }
            FaultKind::Duplicate => Effect::Duplicate { percent: self.percent(tenths, 30) },
            FaultKind::Reorder => Effect::Reorder {
                percent: self.percent(tenths, 30),
                by: self.duration(Duration::from_millis(5), Duration::from_millis(50 * tenths)),
            },
            FaultKind::Corrupt => Effect::Corrupt { percent: self.percent(tenths, 10) },
            FaultKind::Truncate => Effect::Truncate { percent: self.percent(tenths, 10) },
            FaultKind::Bandwidth => {
                let bytes_per_second = (4 << 10) << self.below(11 - tenths.min(8));
                Effect::Bandwidth { bytes_per_second, queue_bytes: (8 << 10) << self.below(4) }
            }
            FaultKind::Mtu => Effect::Mtu { bytes: self.one(&[576, 1280, 1400])? },
            // From two beacons of a wifi to the seconds of a station that skips beacons and of a phone that sleeps.
            FaultKind::Clog => {
                let most = Duration::from_millis(300 * tenths);
                Effect::Clog { every: self.duration(Duration::from_millis(200), most) }
            }
            _ => return None,
        })
    }

    fn partition(&mut self, kind: FaultKind) -> Option<Fault> {
        let mut hosts = self.reachable();
        if hosts.len() < 2 {
            return None;
        }
        let count = 1 + self.below(hosts.len() as u64 - 1) as usize;
        let mut left = Vec::new();
        for _ in 0..count {
            let at = self.below(hosts.len() as u64) as usize;
            left.push(hosts.remove(at));
        }
        left.sort_unstable();
        let names = |hosts: Vec<Host>| hosts.iter().map(Host::name).collect();
        let one_way = kind == FaultKind::PartitionOneWay;
        Some(Fault::Partition { left: names(left), right: names(hosts), one_way })
    }

    /// Any host may ask, and any host's name may be asked for.
    fn on_names(&mut self, kind: FaultKind, tenths: u64) -> Option<Fault> {
        let host = self.one(&self.reachable())?;
        let fault = match kind {
            FaultKind::DnsSlow => {
                // Up to the ten seconds after which a resolver gives up.
                let most = Duration::from_secs(tenths);
                HostFault::DnsSlow { add: self.duration(Duration::from_millis(100), most) }
            }
            FaultKind::DnsFail => HostFault::DnsFail { how: self.one(DnsFailure::ALL)? },
            _ => HostFault::DnsStale,
        };
        Some(Fault::Host { host: host.name(), fault })
    }

    /// Hubs are programs, too.
    fn on_point(&mut self, tenths: u64) -> Option<Fault> {
        let targets = self.targets;
        let hosts: Vec<Host> = targets.hosts.iter().chain(&targets.hubs).copied().collect();
        let host = self.one(&hosts)?;
        let point = self.one(self.points)?.name.to_owned();
        let fault = HostFault::Buggify { point, percent: self.percent(tenths, 50) };
        Some(Fault::Host { host: host.name(), fault })
    }

    fn on_host(&mut self, kind: FaultKind, tenths: u64) -> Option<Fault> {
        let is_hub = matches!(kind, FaultKind::HubKill | FaultKind::HubRestart | FaultKind::HubStall);
        let targets = self.targets;
        let host = self.one(if is_hub { &targets.hubs } else { &targets.hosts })?;
        let fault = match kind {
            FaultKind::Crash => HostFault::Crash,
            FaultKind::PowerLoss => HostFault::PowerLoss,
            FaultKind::DiskCrash => HostFault::DiskCrash { op: 1 + self.below(40) },
            FaultKind::DiskPowerLoss => HostFault::DiskPowerLoss { op: 1 + self.below(40) },
            FaultKind::DiskFull => {
                // Each doubling of the room is as likely as any other, and so is none.
                let most = 1 << self.below(20);
                HostFault::DiskFull { left_bytes: self.below(most) }
            }
            FaultKind::DiskError => {
                HostFault::DiskError { call: self.one(DiskCall::ALL)?, op: 1 + self.below(20) }
            }
            FaultKind::DiskFlip => HostFault::DiskFlip { bit: self.rng.next_u64() },
            FaultKind::DiskSlow => {
                let least = Duration::from_millis(1);
                let mut to = |most_ms: u64| self.duration(least, Duration::from_millis(most_ms * tenths));
                let pace = DiskPace { read: to(10), write: to(10), sync: to(200) };
                HostFault::DiskSlow { pace }
            }
            FaultKind::Restart => HostFault::Restart,
            FaultKind::Pause => HostFault::Pause,
            FaultKind::Suspend => HostFault::Suspend,
            FaultKind::PinCpu => HostFault::PinCpu,
            // Up to a thousand times, each doubling as likely as any other: a handshake takes a tenth of a second then.
            FaultKind::SlowCpu => HostFault::SlowCpu { times: 2 << self.below(tenths) },
            FaultKind::ClockStep => {
                let most = Duration::from_secs(360 * tenths);
                let by_ms = self.duration(Duration::from_millis(10), most).as_millis() as i64;
                HostFault::ClockStep { by_ms: if self.below(2) == 0 { by_ms } else { -by_ms } }
            }
            FaultKind::ClockDrift => {
                let most = 200 * tenths as i64;
                HostFault::ClockDrift { ppm: self.below(2 * most as u64 + 1) as i64 - most }
            }
            FaultKind::ClockUnset => {
                const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
                HostFault::ClockUnset { reads_ms: self.below(2 * DAY_MS as u64) as i64 - DAY_MS }
            }
            FaultKind::NicDown => HostFault::NicDown { nic: host.first_nic()? },
            FaultKind::Roam => {
                let (net, first) = self.one(&targets.havens)?;
                let ip = first.to_bits().wrapping_add(self.below(HAVEN_ADDRS) as u32);
                HostFault::Roam { to: net.name(), ip: IpAddr::V4(Ipv4Addr::from_bits(ip)) }
            }
            FaultKind::HubKill => HostFault::HubKill,
            FaultKind::HubRestart => HostFault::HubRestart,
            FaultKind::HubStall => HostFault::HubStall,
            _ => return None,
        };
        Some(Fault::Host { host: host.name(), fault })
    }

    fn on_box(&mut self, kind: FaultKind) -> Option<Fault> {
        let targets = self.targets;
        let net = self.one(&targets.nets)?;
        let fault = match kind {
            FaultKind::BoxReboot => BoxFault::Reboot,
            FaultKind::BoxOff => BoxFault::Off,
            _ => {
                // An address in the /24 of its current one.
                let own = net.outer_addrs().into_iter().find_map(|ip| match ip {
                    IpAddr::V4(ip) => Some(ip),
                    IpAddr::V6(_) => None,
                })?;
                let ip = (own.to_bits() & !0xFF) | (1 + self.below(254) as u32);
                BoxFault::Renumber { ip: IpAddr::V4(Ipv4Addr::from_bits(ip)) }
            }
        };
        Some(Fault::Box { net: net.name(), fault })
    }
}
