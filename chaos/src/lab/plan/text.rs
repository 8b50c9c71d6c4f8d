//! A plan as text, one fault per line. It can be printed, edited and passed back with `--plan`.
//!
//! ```text
//! # TIME   KIND         TARGET…            PARAMETERS                      DURATION
//! 0s       loss         *                  udp=30 tcp=5                    for=10s
//! 1.5s     partition    a b / c "hub 1"                                    for=4s
//! 2s       latency      box:home           add=200ms jitter=50ms way=out   for=1.25s
//! 3s       crash        a                                                  for=2s
//! 7.25s    roam         phone              to=cellular ip=10.64.0.9
//! ```
//!
//! A line is empty, a comment from `#` on, or a fault: its start, counted from the start of the plan; its kind; its
//! targets; parameters as `key=value`, in any order, all of them required except `way`; and `for=`, its duration
//! (without it, the fault lasts until everything is healed). Durations are a decimal number and `ns`, `us`, `ms` or
//! `s`, a century at most. A name with characters other than letters, digits, `-`, `_` and `.` is written in double
//! quotes, in which `\` escapes `"` and `\`. Rates are whole percent.
//!
//! | kind | targets | parameters |
//! | --- | --- | --- |
//! | `loss` | spot | `udp`, `tcp`: percent lost |
//! | `burst` | spot | `begin`, `end`: percent of packets that begin and end a burst; `loss`: percent lost in one |
//! | `latency` | spot | `add`, `jitter`: durations |
//! | `duplicate`, `corrupt`, `truncate` | spot | `percent` |
//! | `reorder` | spot | `percent`; `by`: a duration |
//! | `bandwidth` | spot | `rate`: bytes a second; `queue`: bytes |
//! | `mtu` | spot | `bytes` |
//! | `clog` | spot | `every`: packets wait for the next multiple of this duration, and leave in a burst |
//! | `partition`, `partition-one-way` | hosts `/` hosts | |
//! | `crash`, `power-loss`, `pause`, `suspend`, `pin-cpu` | host | |
//! | `disk-crash`, `disk-power-loss` | host | `op`: at which disk operation from then on; 1 is the next |
//! | `disk-full` | host | `left`: the bytes that still fit |
//! | `disk-error` | host | `call`: `read`, `write` or `sync`; `op`: which of them from then on fails |
//! | `disk-flip` | host | `bit`: which bit of its durable files, modulo their number; at once, no `for` |
//! | `disk-slow` | host | `read`, `write`, `sync`: how long one takes |
//! | `restart` | host | at once, no `for` |
//! | `clock-step` | host | `by`: a duration with a sign |
//! | `clock-drift` | host | `ppm`: parts per million, with a sign |
//! | `clock-unset` | host | `reads`: the time since 1970, a duration with a sign |
//! | `nic-down` | host | `nic` |
//! | `roam` | host | `to`: a network; `ip` there |
//! | `dns-slow` | host | `add`: by how much longer its lookups of names take, a duration |
//! | `dns-fail` | host | `how`: its lookups fail by `timeout`, after 10 s, or by `nxdomain` |
//! | `dns-stale` | host | its name stands for its addresses before its last move, or for none |
//! | `buggify` | host | `point`: one of its program's points; `percent`: how often the rare way is taken there |
//! | `hub-kill`, `hub-stall` | host | |
//! | `hub-restart` | host | at once, no `for` |
//! | `box-off` | network | |
//! | `box-reboot` | network | at once, no `for` |
//! | `box-renumber` | network | `ip`: its only address outside |
//!
//! A spot is `*` for every link, a host for the links of that host, or `box:NETWORK` for those of the box in front
//! of a network. `way=out` and `way=in` select the packets that the spot sends or receives; the default is both.

mod show;
mod words;

use super::{
    BoxFault, Direction, DiskCall, DiskPace, DnsFailure, Effect, Fault, FaultKind, HostFault, LinkScope,
    Plan, Planned,
};
pub(crate) use show::show;
use std::net::IpAddr;
use std::str::FromStr;
use words::{Line, Word, Wrong, duration, signed_ms, words, wrong};

/// An error in a plan's text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected {expected}, found {found}")]
pub struct PlanError {
    /// Its line, from 1 on.
    pub line: usize,
    /// The expected text.
    pub expected: String,
    /// The text that was found.
    pub found: String,
}

fn link(line: &mut Line, effect: impl FnOnce(&mut Line) -> Result<Effect, Wrong>) -> Result<Fault, Wrong> {
    let on = line.spot()?;
    let way = match line.take("way").as_deref() {
        None => Direction::Both,
        Some("out") => Direction::Out,
        Some("in") => Direction::In,
        Some(other) => return wrong("`way=out` or `way=in`", other),
    };
    Ok(Fault::Link { on, way, effect: effect(line)? })
}

fn host(line: &mut Line, fault: impl FnOnce(&mut Line) -> Result<HostFault, Wrong>) -> Result<Fault, Wrong> {
    Ok(Fault::Host { host: line.name("host")?, fault: fault(line)? })
}

fn net(line: &mut Line, fault: impl FnOnce(&mut Line) -> Result<BoxFault, Wrong>) -> Result<Fault, Wrong> {
    Ok(Fault::Box { net: line.name("network")?, fault: fault(line)? })
}

fn fault(kind: FaultKind, line: &mut Line) -> Result<Fault, Wrong> {
    match kind {
        FaultKind::Loss => link(line, |line| {
            Ok(Effect::Loss { udp_percent: line.percent("udp")?, tcp_percent: line.percent("tcp")? })
        }),
        FaultKind::Burst => link(line, |line| {
            Ok(Effect::Burst {
                begin_percent: line.percent("begin")?,
                end_percent: line.percent("end")?,
                loss_percent: line.percent("loss")?,
            })
        }),
        FaultKind::Latency => link(line, |line| {
            Ok(Effect::Latency { add: line.duration("add")?, jitter: line.duration("jitter")? })
        }),
        FaultKind::Duplicate => {
            link(line, |line| Ok(Effect::Duplicate { percent: line.percent("percent")? }))
        }
        FaultKind::Reorder => link(line, |line| {
            Ok(Effect::Reorder { percent: line.percent("percent")?, by: line.duration("by")? })
        }),
        FaultKind::Corrupt => link(line, |line| Ok(Effect::Corrupt { percent: line.percent("percent")? })),
        FaultKind::Truncate => link(line, |line| Ok(Effect::Truncate { percent: line.percent("percent")? })),
        FaultKind::Bandwidth => link(line, |line| {
            Ok(Effect::Bandwidth {
                bytes_per_second: line.number("rate", "bytes a second")?,
                queue_bytes: line.number("queue", "bytes")?,
            })
        }),
        FaultKind::Mtu => link(line, |line| Ok(Effect::Mtu { bytes: line.number("bytes", "bytes")? })),
        FaultKind::Clog => link(line, |line| Ok(Effect::Clog { every: line.duration("every")? })),
        FaultKind::Partition | FaultKind::PartitionOneWay => {
            let left = line.group()?;
            line.slash()?;
            let right = line.group()?;
            Ok(Fault::Partition { left, right, one_way: kind == FaultKind::PartitionOneWay })
        }
        FaultKind::Crash => host(line, |_| Ok(HostFault::Crash)),
        FaultKind::PowerLoss => host(line, |_| Ok(HostFault::PowerLoss)),
        FaultKind::DiskCrash => host(line, |line| Ok(HostFault::DiskCrash { op: line.op()? })),
        FaultKind::DiskPowerLoss => host(line, |line| Ok(HostFault::DiskPowerLoss { op: line.op()? })),
        FaultKind::DiskFull => {
            host(line, |line| Ok(HostFault::DiskFull { left_bytes: line.number("left", "bytes")? }))
        }
        FaultKind::DiskError => {
            host(line, |line| Ok(HostFault::DiskError { call: line.disk_call()?, op: line.op()? }))
        }
        FaultKind::DiskFlip => {
            host(line, |line| Ok(HostFault::DiskFlip { bit: line.number("bit", "a number")? }))
        }
        FaultKind::DiskSlow => host(line, |line| {
            let (read, write) = (line.duration("read")?, line.duration("write")?);
            Ok(HostFault::DiskSlow { pace: DiskPace { read, write, sync: line.duration("sync")? } })
        }),
        FaultKind::Restart => host(line, |_| Ok(HostFault::Restart)),
        FaultKind::Pause => host(line, |_| Ok(HostFault::Pause)),
        FaultKind::Suspend => host(line, |_| Ok(HostFault::Suspend)),
        FaultKind::PinCpu => host(line, |_| Ok(HostFault::PinCpu)),
        FaultKind::SlowCpu => {
            host(line, |line| Ok(HostFault::SlowCpu { times: line.number("times", "a number")? }))
        }
        FaultKind::ClockStep => {
            host(line, |line| Ok(HostFault::ClockStep { by_ms: signed_ms(&line.value("by")?)? }))
        }
        FaultKind::ClockDrift => host(line, |line| {
            Ok(HostFault::ClockDrift { ppm: line.number("ppm", "parts per million, with a sign")? })
        }),
        FaultKind::ClockUnset => {
            host(line, |line| Ok(HostFault::ClockUnset { reads_ms: signed_ms(&line.value("reads")?)? }))
        }
        FaultKind::NicDown => host(line, |line| Ok(HostFault::NicDown { nic: line.value("nic")? })),
        FaultKind::Roam => host(line, |line| {
            Ok(HostFault::Roam { to: line.value("to")?, ip: line.number::<IpAddr>("ip", "an address")? })
        }),
        FaultKind::DnsSlow => host(line, |line| Ok(HostFault::DnsSlow { add: line.duration("add")? })),
        FaultKind::DnsFail => host(line, |line| Ok(HostFault::DnsFail { how: line.dns_failure()? })),
        FaultKind::DnsStale => host(line, |_| Ok(HostFault::DnsStale)),
        FaultKind::Buggify => host(line, |line| {
            Ok(HostFault::Buggify { point: line.value("point")?, percent: line.percent("percent")? })
        }),
        FaultKind::HubKill => host(line, |_| Ok(HostFault::HubKill)),
        FaultKind::HubRestart => host(line, |_| Ok(HostFault::HubRestart)),
        FaultKind::HubStall => host(line, |_| Ok(HostFault::HubStall)),
        FaultKind::BoxReboot => net(line, |_| Ok(BoxFault::Reboot)),
        FaultKind::BoxOff => net(line, |_| Ok(BoxFault::Off)),
        FaultKind::BoxRenumber => {
            net(line, |line| Ok(BoxFault::Renumber { ip: line.number::<IpAddr>("ip", "an address")? }))
        }
    }
}

fn known_kinds() -> String {
    FaultKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ")
}

fn planned(text: &str) -> Result<Option<Planned>, Wrong> {
    let words = words(text)?;
    if words.is_empty() {
        return Ok(None);
    }
    let mut line = Line::new(words)?;
    let at = match line.words.next() {
        Some(Word::Bare(word) | Word::Quoted(word)) => duration(&word)?,
        _ => return wrong("a moment such as 1.5s", text.trim()),
    };
    let kind = match line.words.next() {
        Some(Word::Bare(word)) => {
            let kind = FaultKind::ALL.iter().find(|kind| kind.as_str() == word);
            *kind.map_or_else(|| wrong(format!("a kind of fault ({})", known_kinds()), word), Ok)?
        }
        _ => return Err(("a kind of fault".to_owned(), "the end of the line".to_owned())),
    };
    let lasts = line.take("for").map(|value| duration(&value)).transpose()?;
    if lasts.is_some() && kind.is_momentary() {
        return wrong("no `for=`: it is over at once", kind);
    }
    let fault = fault(kind, &mut line)?;
    line.done()?;
    Ok(Some(Planned { at, fault, lasts }))
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Plan, PlanError> {
        let mut faults = Vec::new();
        for (number, line) in text.lines().enumerate() {
            match planned(line) {
                Ok(found) => faults.extend(found),
                Err((expected, found)) => return Err(PlanError { line: number + 1, expected, found }),
            }
        }
        Ok(Plan::new(faults))
    }
}
