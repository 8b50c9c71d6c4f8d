//! Writes a plan in the form in which it is read.

use super::{BoxFault, Direction, DiskPace, Effect, Fault, HostFault, LinkScope, Plan, Planned};
use std::fmt::{self, Write as _};
use std::time::Duration;

/// A duration as [`duration`] reads it, in the largest unit that it reaches.
pub(crate) fn show(duration: Duration) -> String {
    let ns = duration.as_nanos() as u64;
    let (unit, digits, name) = match ns {
        0 => return "0s".to_owned(),
        ns if ns.is_multiple_of(1_000_000_000) => return format!("{}s", ns / 1_000_000_000),
        ns if ns < 1_000 => return format!("{ns}ns"),
        ns if ns < 1_000_000 => (1_000, 3, "us"),
        ns if ns < 1_000_000_000 => (1_000_000, 6, "ms"),
        _ => (1_000_000_000, 9, "s"),
    };
    let fraction = format!("{:0digits$}", ns % unit);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}{name}", ns / unit)
}

/// Milliseconds with a sign, as a duration.
fn show_ms(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}", show(Duration::from_millis(ms.unsigned_abs())))
}

/// Whether a name needs no quotes.
pub(super) fn is_bare(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
}

/// A name as in a plan's text, with quotes if needed.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_bare(self.0) {
            return f.write_str(self.0);
        }
        write!(f, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Loss { udp_percent, tcp_percent } => write!(f, "udp={udp_percent} tcp={tcp_percent}"),
            Effect::Burst { begin_percent, end_percent, loss_percent } => {
                write!(f, "begin={begin_percent} end={end_percent} loss={loss_percent}")
            }
            Effect::Latency { add, jitter } => write!(f, "add={} jitter={}", show(*add), show(*jitter)),
            Effect::Duplicate { percent } | Effect::Corrupt { percent } | Effect::Truncate { percent } => {
                write!(f, "percent={percent}")
            }
            Effect::Reorder { percent, by } => write!(f, "percent={percent} by={}", show(*by)),
            Effect::Bandwidth { bytes_per_second, queue_bytes } => {
                write!(f, "rate={bytes_per_second} queue={queue_bytes}")
            }
            Effect::Mtu { bytes } => write!(f, "bytes={bytes}"),
            Effect::Clog { every } => write!(f, "every={}", show(*every)),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind())?;
        match self {
            Fault::Link { on, way, effect } => {
                match on {
                    LinkScope::Everywhere => f.write_str("*")?,
                    LinkScope::Host(host) => write!(f, "{}", Name(host))?,
                    LinkScope::Box(net) => write!(f, "box:{}", Name(net))?,
                }
                write!(f, " {effect}")?;
                match way {
                    Direction::Both => Ok(()),
                    Direction::Out => f.write_str(" way=out"),
                    Direction::In => f.write_str(" way=in"),
                }
            }
            Fault::Partition { left, right, .. } => {
                for host in left {
                    write!(f, "{} ", Name(host))?;
                }
                f.write_char('/')?;
                right.iter().try_for_each(|host| write!(f, " {}", Name(host)))
            }
            Fault::Host { host, fault } => {
                write!(f, "{}", Name(host))?;
                match fault {
                    HostFault::DiskCrash { op } | HostFault::DiskPowerLoss { op } => write!(f, " op={op}"),
                    HostFault::DiskFull { left_bytes } => write!(f, " left={left_bytes}"),
                    HostFault::DiskError { call, op } => write!(f, " call={} op={op}", call.as_str()),
                    HostFault::DiskFlip { bit } => write!(f, " bit={bit}"),
                    HostFault::DiskSlow { pace: DiskPace { read, write, sync } } => {
                        write!(f, " read={} write={} sync={}", show(*read), show(*write), show(*sync))
                    }
                    HostFault::SlowCpu { times } => write!(f, " times={times}"),
                    HostFault::ClockStep { by_ms } => write!(f, " by={}", show_ms(*by_ms)),
                    HostFault::ClockUnset { reads_ms } => write!(f, " reads={}", show_ms(*reads_ms)),
                    HostFault::ClockDrift { ppm } => write!(f, " ppm={ppm}"),
                    HostFault::NicDown { nic } => write!(f, " nic={}", Name(nic)),
                    HostFault::Roam { to, ip } => write!(f, " to={} ip={ip}", Name(to)),
                    HostFault::DnsSlow { add } => write!(f, " add={}", show(*add)),
                    HostFault::DnsFail { how } => write!(f, " how={}", how.as_str()),
                    HostFault::Buggify { point, percent } => {
                        write!(f, " point={} percent={percent}", Name(point))
                    }
                    _ => Ok(()),
                }
            }
            Fault::Box { net, fault } => {
                write!(f, "{}", Name(net))?;
                match fault {
                    BoxFault::Renumber { ip } => write!(f, " ip={ip}"),
                    BoxFault::Reboot | BoxFault::Off => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", show(self.at), self.fault)?;
        self.lasts.map_or(Ok(()), |lasts| write!(f, " for={}", show(lasts)))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.faults.iter().try_for_each(|planned| writeln!(f, "{planned}"))
    }
}
