//! The faults: what each kind hits, and with which parameters.

use super::effect::Effect;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// The kinds of fault, by which a scenario says what a seed may draw for it.
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
    /// Links lose packets, each for itself.
    Loss = "loss",
    /// Links lose packets in bursts.
    Burst = "burst",
    /// Links become slow.
    Latency = "latency",
    /// Links double packets.
    Duplicate = "duplicate",
    /// Links hold packets back.
    Reorder = "reorder",
    /// Links flip bits.
    Corrupt = "corrupt",
    /// Links cut datagrams short.
    Truncate = "truncate",
    /// Links carry few bytes.
    Bandwidth = "bandwidth",
    /// Links carry small packets only.
    Mtu = "mtu",
    /// Two groups of hosts can't reach each other.
    Partition = "partition",
    /// One group can't reach the other, which can reach it.
    PartitionOneWay = "partition-one-way",
    /// A process is killed, and started again.
    Crash = "crash",
    /// A host loses its power, and gets it back.
    PowerLoss = "power-loss",
    /// A process is killed at its n-th disk operation from then on, and started again.
    DiskCrash = "disk-crash",
    /// A host loses its power at its process' n-th disk operation from then on, and gets it back.
    DiskPowerLoss = "disk-power-loss",
    /// A process is killed and started again at once.
    Restart = "restart",
    /// A process is stopped; its kernel goes on.
    Pause = "pause",
    /// A host sleeps, its kernel too.
    Suspend = "suspend",
    /// Every core of a host is busy.
    PinCpu = "pin-cpu",
    /// A host's wall clock is set.
    ClockStep = "clock-step",
    /// A host's clocks run fast or slow.
    ClockDrift = "clock-drift",
    /// An interface is down.
    NicDown = "nic-down",
    /// A host moves into another network.
    Roam = "roam",
    /// A box forgets everything.
    BoxReboot = "box-reboot",
    /// A box has no power.
    BoxOff = "box-off",
    /// A box has another address outside.
    BoxRenumber = "box-renumber",
    /// A hub's process is killed, and started again.
    HubKill = "hub-kill",
    /// A hub's process is killed and started again at once, with empty memory.
    HubRestart = "hub-restart",
    /// A hub's process is stopped; its kernel goes on acknowledging.
    HubStall = "hub-stall",
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a link fault is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spot {
    /// On every link.
    Everywhere,
    /// On every link of a host.
    Host(String),
    /// On every link of the box in front of a network, inside and outside.
    Box(String),
}

/// Which direction of its links a link fault is on, as the spot sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Way {
    /// Both.
    #[default]
    Both,
    /// What it sends.
    Out,
    /// What it receives.
    In,
}

/// What happens to a host.
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
    /// See [`FaultKind::Restart`].
    Restart,
    /// See [`FaultKind::Pause`].
    Pause,
    /// See [`FaultKind::Suspend`].
    Suspend,
    /// See [`FaultKind::PinCpu`].
    PinCpu,
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
    /// See [`FaultKind::HubKill`].
    HubKill,
    /// See [`FaultKind::HubRestart`].
    HubRestart,
    /// See [`FaultKind::HubStall`].
    HubStall,
}

/// What happens to the box in front of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoxFault {
    /// See [`FaultKind::BoxReboot`].
    Reboot,
    /// See [`FaultKind::BoxOff`].
    Off,
    /// See [`FaultKind::BoxRenumber`].
    Renumber {
        /// Its only address outside.
        ip: IpAddr,
    },
}

/// One fault, with what it hits, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A link does something more to packets.
    Link {
        /// Where.
        on: Spot,
        /// In which direction.
        way: Way,
        /// What.
        effect: Effect,
    },
    /// Two groups of hosts are cut off from each other.
    Partition {
        /// One.
        left: Vec<String>,
        /// The other.
        right: Vec<String>,
        /// Whether only the way from `left` to `right` is cut.
        one_way: bool,
    },
    /// Something happens to a host.
    Host {
        /// Its name.
        host: String,
        /// What.
        fault: HostFault,
    },
    /// Something happens to the box in front of a network.
    Box {
        /// The network's name.
        net: String,
        /// What.
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
                HostFault::Restart => FaultKind::Restart,
                HostFault::Pause => FaultKind::Pause,
                HostFault::Suspend => FaultKind::Suspend,
                HostFault::PinCpu => FaultKind::PinCpu,
                HostFault::ClockStep { .. } => FaultKind::ClockStep,
                HostFault::ClockDrift { .. } => FaultKind::ClockDrift,
                HostFault::NicDown { .. } => FaultKind::NicDown,
                HostFault::Roam { .. } => FaultKind::Roam,
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

impl FaultKind {
    /// Whether such a fault is over at once, so that it has no duration.
    pub fn is_momentary(self) -> bool {
        matches!(self, FaultKind::Restart | FaultKind::HubRestart | FaultKind::BoxReboot)
    }

    /// The longest that a drawn fault of this kind lasts: beyond it a run waits and learns nothing.
    pub(crate) fn longest(self) -> Duration {
        match self {
            FaultKind::Partition | FaultKind::PartitionOneWay | FaultKind::Suspend | FaultKind::PinCpu => {
                Duration::from_secs(60)
            }
            _ => Duration::from_secs(30),
        }
    }
}
