//! The faults: their kinds, targets and parameters.

use crate::kernel::disk::{DiskCall, DiskPace};
use crate::kernel::names::DnsFailure;
use crate::wire::effect::{Direction, Effect};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// The kinds of fault. A scenario lists those that a seed may draw for it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultKind {
            $($(#[$doc])* $kind,)*
        }

        impl FaultKind {
            /// All of them.
            pub const ALL: &'static [FaultKind] = &[$(FaultKind::$kind,)*];

            /// Its name in a plan's text.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(FaultKind::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    /// Links lose packets independently.
    Loss = "loss",
    /// Links lose packets in bursts.
    Burst = "burst",
    /// Links become slow.
    Latency = "latency",
    /// Links duplicate packets.
    Duplicate = "duplicate",
    /// Links hold packets back.
    Reorder = "reorder",
    /// Links flip bits.
    Corrupt = "corrupt",
    /// Links truncate datagrams.
    Truncate = "truncate",
    /// Links have little bandwidth.
    Bandwidth = "bandwidth",
    /// Links carry small packets only.
    Mtu = "mtu",
    /// Links hold everything, and release it in bursts.
    Clog = "clog",
    /// Two groups of hosts can't reach each other.
    Partition = "partition",
    /// One group can't reach the other; the opposite direction works.
    PartitionOneWay = "partition-one-way",
    /// A process is killed, and started again.
    Crash = "crash",
    /// A host loses its power, and gets it back.
    PowerLoss = "power-loss",
    /// A process is killed at its n-th disk operation from then on, and started again.
    DiskCrash = "disk-crash",
    /// A host loses its power at its process' n-th disk operation from then on, and gets it back.
    DiskPowerLoss = "disk-power-loss",
    /// A host's disk has no room.
    DiskFull = "disk-full",
    /// A host's disk fails one call.
    DiskError = "disk-error",
    /// A bit is flipped on a host's disk.
    DiskFlip = "disk-flip",
    /// A host's disk is slow.
    DiskSlow = "disk-slow",
    /// A process is killed and started again at once.
    Restart = "restart",
    /// A process is stopped; its kernel runs on.
    Pause = "pause",
    /// A host is suspended, including its kernel.
    Suspend = "suspend",
    /// Every core of a host is busy.
    PinCpu = "pin-cpu",
    /// Something else runs on a host's processor: computation takes a multiple of its time.
    SlowCpu = "slow-cpu",
    /// A host's wall clock is stepped.
    ClockStep = "clock-step",
    /// A host's clocks run fast or slow.
    ClockDrift = "clock-drift",
    /// A host doesn't know the time: its wall clock reads a time near 1970, as after a boot without a battery.
    ClockUnset = "clock-unset",
    /// An interface is down.
    NicDown = "nic-down",
    /// A host moves into another network.
    Roam = "roam",
    /// A host's lookups of names are slow.
    DnsSlow = "dns-slow",
    /// A host's lookups of names fail.
    DnsFail = "dns-fail",
    /// A host's name stands for the addresses that the host had before it moved, for everyone who asks.
    DnsStale = "dns-stale",
    /// A host's program takes a rare way that is allowed, at one of its points.
    Buggify = "buggify",
    /// A box reboots and loses its tables.
    BoxReboot = "box-reboot",
    /// A box has no power.
    BoxOff = "box-off",
    /// A box gets another outer address.
    BoxRenumber = "box-renumber",
    /// A hub's process is killed, and started again.
    HubKill = "hub-kill",
    /// A hub's process is killed and started again at once, with empty memory.
    HubRestart = "hub-restart",
    /// A hub's process is stopped; its kernel still acknowledges.
    HubStall = "hub-stall",
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The links of a link fault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkScope {
    /// On every link.
    Everywhere,
    /// On every link of a host.
    Host(String),
    /// On every link of the box in front of a network, inside and outside.
    Box(String),
}

/// A fault of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostFault {
    /// See [`FaultKind::Crash`].
    Crash,
    /// See [`FaultKind::PowerLoss`].
    PowerLoss,
    /// See [`FaultKind::DiskCrash`].
    DiskCrash {
        /// Which operation from then on; 1 is the next.
        op: u64,
    },
    /// See [`FaultKind::DiskPowerLoss`].
    DiskPowerLoss {
        /// Which operation from then on; 1 is the next.
        op: u64,
    },
    /// See [`FaultKind::DiskFull`].
    DiskFull {
        /// The bytes that still fit.
        left_bytes: u64,
    },
    /// See [`FaultKind::DiskError`]. The call fails with EIO. A sync that fails leaves some of the bytes that it had
    /// to write in the page cache, and no later sync writes them.
    DiskError {
        /// The kind of call.
        call: DiskCall,
        /// Which such call from then on; 1 is the next.
        op: u64,
    },
    /// See [`FaultKind::DiskFlip`]. It is read once the page cache has been dropped, when the process has ended.
    DiskFlip {
        /// Which bit, modulo the number of bits of all files that are durable.
        bit: u64,
    },
    /// See [`FaultKind::DiskSlow`].
    DiskSlow {
        /// How long the calls take.
        pace: DiskPace,
    },
    /// See [`FaultKind::Restart`].
    Restart,
    /// See [`FaultKind::Pause`].
    Pause,
    /// See [`FaultKind::Suspend`].
    Suspend,
    /// See [`FaultKind::PinCpu`].
    PinCpu,
    /// See [`FaultKind::SlowCpu`].
    SlowCpu {
        /// How many times as long computation takes.
        times: u32,
    },
    /// See [`FaultKind::ClockStep`].
    ClockStep {
        /// Forward, or back if negative.
        by_ms: i64,
    },
    /// See [`FaultKind::ClockDrift`].
    ClockDrift {
        /// Parts per million fast, or slow if negative.
        ppm: i64,
    },
    /// See [`FaultKind::ClockUnset`]. A time server corrects the clock when the fault ends.
    ClockUnset {
        /// The time that it reads, since 1970; negative before that day.
        reads_ms: i64,
    },
    /// See [`FaultKind::NicDown`].
    NicDown {
        /// The interface.
        nic: String,
    },
    /// See [`FaultKind::Roam`]. Its first interface moves.
    Roam {
        /// The name of the network.
        to: String,
        /// Its address there.
        ip: IpAddr,
    },
    /// See [`FaultKind::DnsSlow`]. A lookup that would take 10 s fails then.
    DnsSlow {
        /// By how much longer each takes.
        add: Duration,
    },
    /// See [`FaultKind::DnsFail`].
    DnsFail {
        /// How they fail.
        how: DnsFailure,
    },
    /// See [`FaultKind::DnsStale`]. The name of a host that has never moved has no address.
    DnsStale,
    /// See [`FaultKind::Buggify`] and [`rt::buggify`](crate::rt::buggify).
    Buggify {
        /// The point's name.
        point: String,
        /// How many times of a hundred.
        percent: u32,
    },
    /// See [`FaultKind::HubKill`].
    HubKill,
    /// See [`FaultKind::HubRestart`].
    HubRestart,
    /// See [`FaultKind::HubStall`].
    HubStall,
}

/// A fault of the box in front of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoxFault {
    /// See [`FaultKind::BoxReboot`].
    Reboot,
    /// See [`FaultKind::BoxOff`].
    Off,
    /// See [`FaultKind::BoxRenumber`].
    Renumber {
        /// Its only outer address.
        ip: IpAddr,
    },
}

/// One fault, with its targets by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A link has a further effect on packets.
    Link {
        /// The links.
        on: LinkScope,
        /// The direction.
        way: Direction,
        /// The effect.
        effect: Effect,
    },
    /// Two groups of hosts are cut off from each other.
    Partition {
        /// One group.
        left: Vec<String>,
        /// The other group.
        right: Vec<String>,
        /// Whether only the direction from `left` to `right` is cut.
        one_way: bool,
    },
    /// A host has a fault.
    Host {
        /// Its name.
        host: String,
        /// The fault.
        fault: HostFault,
    },
    /// The box in front of a network has a fault.
    Box {
        /// The network's name.
        net: String,
        /// The fault.
        fault: BoxFault,
    },
}

impl Fault {
    /// Its kind.
    pub fn kind(&self) -> FaultKind {
        match self {
            Fault::Link { effect, .. } => effect.kind(),
            Fault::Partition { one_way: false, .. } => FaultKind::Partition,
            Fault::Partition { one_way: true, .. } => FaultKind::PartitionOneWay,
            Fault::Host { fault, .. } => match fault {
                HostFault::Crash => FaultKind::Crash,
                HostFault::PowerLoss => FaultKind::PowerLoss,
                HostFault::DiskCrash { .. } => FaultKind::DiskCrash,
                HostFault::DiskPowerLoss { .. } => FaultKind::DiskPowerLoss,
                HostFault::DiskFull { .. } => FaultKind::DiskFull,
                HostFault::DiskError { .. } => FaultKind::DiskError,
                HostFault::DiskFlip { .. } => FaultKind::DiskFlip,
                HostFault::DiskSlow { .. } => FaultKind::DiskSlow,
                HostFault::Restart => FaultKind::Restart,
                HostFault::Pause => FaultKind::Pause,
                HostFault::Suspend => FaultKind::Suspend,
                HostFault::PinCpu => FaultKind::PinCpu,
                HostFault::SlowCpu { .. } => FaultKind::SlowCpu,
                HostFault::ClockStep { .. } => FaultKind::ClockStep,
                HostFault::ClockDrift { .. } => FaultKind::ClockDrift,
                HostFault::ClockUnset { .. } => FaultKind::ClockUnset,
                HostFault::NicDown { .. } => FaultKind::NicDown,
                HostFault::Roam { .. } => FaultKind::Roam,
                HostFault::DnsSlow { .. } => FaultKind::DnsSlow,
                HostFault::DnsFail { .. } => FaultKind::DnsFail,
                HostFault::DnsStale => FaultKind::DnsStale,
                HostFault::Buggify { .. } => FaultKind::Buggify,
                HostFault::HubKill => FaultKind::HubKill,
                HostFault::HubRestart => FaultKind::HubRestart,
                HostFault::HubStall => FaultKind::HubStall,
            },
            Fault::Box { fault, .. } => match fault {
                BoxFault::Reboot => FaultKind::BoxReboot,
                BoxFault::Off => FaultKind::BoxOff,
                BoxFault::Renumber { .. } => FaultKind::BoxRenumber,
            },
        }
    }
}

impl Effect {
    /// The kind of fault that it belongs to.
    pub fn kind(&self) -> FaultKind {
        match self {
            Effect::Loss { .. } => FaultKind::Loss,
            Effect::Burst { .. } => FaultKind::Burst,
            Effect::Latency { .. } => FaultKind::Latency,
            Effect::Duplicate { .. } => FaultKind::Duplicate,
            Effect::Reorder { .. } => FaultKind::Reorder,
            Effect::Corrupt { .. } => FaultKind::Corrupt,
            Effect::Truncate { .. } => FaultKind::Truncate,
            Effect::Bandwidth { .. } => FaultKind::Bandwidth,
            Effect::Mtu { .. } => FaultKind::Mtu,
            Effect::Clog { .. } => FaultKind::Clog,
        }
    }
}

impl FaultKind {
    /// Whether such a fault is over at once, so that it has no duration.
    pub fn is_momentary(self) -> bool {
        matches!(
            self,
            FaultKind::Restart | FaultKind::HubRestart | FaultKind::BoxReboot | FaultKind::DiskFlip
        )
    }

    /// The longest that a drawn fault of this kind lasts: a longer one only makes a run wait.
    pub(crate) fn longest(self) -> Duration {
        match self {
            FaultKind::Partition | FaultKind::PartitionOneWay | FaultKind::Suspend | FaultKind::PinCpu => {
                Duration::from_secs(60)
            }
            _ => Duration::from_secs(30),
        }
    }
}
