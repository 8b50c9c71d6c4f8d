//! A plan as text, one fault a line, to be printed, edited and given back with `--plan`.
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
//! A line is empty, a comment from `#` on, or a fault: its moment, counted from the unleashing; its kind; its
//! targets; parameters as `key=value`, in any order, all of them needed but `way`; and `for=`, after which it undoes
//! itself (without it, it stays until everything is healed). Durations are a decimal number and `ns`, `us`, `ms` or
//! `s`. A name that isn't made of letters, digits, `-`, `_` and `.` alone stands in double quotes, in which `\` comes before
//! `"` and `\`. Rates are whole percent.
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
//! | `partition`, `partition-one-way` | hosts `/` hosts | |
//! | `crash`, `power-loss`, `pause`, `suspend`, `pin-cpu` | host | |
//! | `disk-crash` | host | `op`: at which disk operation from then on |
//! | `restart` | host | at once, no `for` |
//! | `clock-step` | host | `by`: a duration with a sign |
//! | `clock-drift` | host | `ppm`: parts per million, with a sign |
//! | `nic-down` | host | `nic` |
//! | `roam` | host | `to`: a network; `ip` there |
//! | `hub-kill`, `hub-stall` | host | |
//! | `hub-restart` | host | at once, no `for` |
//! | `box-off` | network | |
//! | `box-reboot` | network | at once, no `for` |
//! | `box-renumber` | network | `ip`: its only address outside |
//!
//! A spot is `*` for every link, a host for the links of that host, or `box:NETWORK` for those of the box in front
//! of a network; `way=out` and `way=in` are what the spot sends and receives, both unless said.

use super::{BoxFault, Effect, Fault, FaultKind, HostFault, Plan, Planned, Spot, Way};
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// A plan's text that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected {expected}, found {found}")]
pub struct PlanError {
    /// Its line, from 1 on.
    pub line: usize,
    /// What should stand there.
    pub expected: String,
    /// What does.
    pub found: String,
}

/// What should stand in a line, and what does.
type Wrong = (String, String);

fn wrong<T>(expected: impl Into<String>, found: impl fmt::Display) -> Result<T, Wrong> {
    Err((expected.into(), format!("`{found}`")))
}

/// A word of a line.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// As it stands, without quotes.
    Bare(String),
    /// What stood in quotes.
    Quoted(String),
    /// `box:` and a name.
    Box(String),
    /// `key=value`.
    Pair(String, String),
}

/// Splits a line into words, up to a comment.
fn words(line: &str) -> Result<Vec<Word>, Wrong> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
        let bare = &rest[..end];
        rest = &rest[end..];
        let quoted = match rest.strip_prefix('"') {
            Some(text) => {
                let (text, after) = unquote(text)?;
                if !after.is_empty() && !after.starts_with(char::is_whitespace) {
                    return wrong("a space after the closing quote", after);
                }
                rest = after;
                Some(text)
            }
            None => None,
        };
        words.push(match (bare.split_once('='), quoted) {
            (Some((key, "")), Some(value)) => Word::Pair(key.to_owned(), value),
            (Some((key, value)), None) => Word::Pair(key.to_owned(), value.to_owned()),
            (None, Some(name)) if bare.is_empty() => Word::Quoted(name),
            (None, Some(name)) if bare == "box:" => Word::Box(name),
            (None, None) => match bare.strip_prefix("box:") {
                Some(name) => Word::Box(name.to_owned()),
                None => Word::Bare(bare.to_owned()),
            },
            _ => return wrong("a space before the opening quote", bare),
        });
        rest = rest.trim_start();
    }
    Ok(words)
}

/// Reads up to the closing quote; returns what stood inside, and what comes behind.
fn unquote(text: &str) -> Result<(String, &str), Wrong> {
    let mut inside = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((inside, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => inside.push(escaped),
                _ => return wrong("`\\\"` or `\\\\`", "\\"),
            },
            c => inside.push(c),
        }
    }
    wrong("a closing quote", text)
}

/// What is left of a line while it is read.
struct Line {
    words: std::iter::Peekable<std::vec::IntoIter<Word>>,
    pairs: Vec<(String, String)>,
}

impl Line {
    fn new(words: Vec<Word>) -> Line {
        let (mut plain, mut pairs) = (Vec::new(), Vec::new());
        for word in words {
            match word {
                Word::Pair(key, value) => pairs.push((key, value)),
                word => plain.push(word),
            }
        }
        Line { words: plain.into_iter().peekable(), pairs }
    }

    fn name(&mut self, what: &str) -> Result<String, Wrong> {
        match self.words.next() {
            Some(Word::Bare(name)) if is_bare(&name) => Ok(name),
            Some(Word::Quoted(name)) => Ok(name),
            Some(Word::Bare(other)) => wrong(format!("the name of a {what}"), other),
            Some(Word::Box(name)) => wrong(format!("the name of a {what}"), format!("box:{name}")),
            _ => Err((format!("the name of a {what}"), "the end of the line".to_owned())),
        }
    }

    fn spot(&mut self) -> Result<Spot, Wrong> {
        match self.words.peek() {
            Some(Word::Bare(star)) if star == "*" => {
                self.words.next();
                Ok(Spot::Everywhere)
            }
            Some(Word::Box(name)) => {
                let spot = Spot::Box(name.clone());
                self.words.next();
                Ok(spot)
            }
            _ => Ok(Spot::Host(self.name("host, `box:NETWORK` or `*`")?)),
        }
    }

    /// Names up to `/`, or to the end.
    fn group(&mut self) -> Result<Vec<String>, Wrong> {
        let mut names = vec![self.name("host")?];
        while let Some(word) = self.words.peek() {
            if *word == Word::Bare("/".to_owned()) {
                break;
            }
            names.push(self.name("host")?);
        }
        Ok(names)
    }

    fn slash(&mut self) -> Result<(), Wrong> {
        match self.words.next() {
            Some(Word::Bare(slash)) if slash == "/" => Ok(()),
            _ => Err(("`/` and a second group".to_owned(), "the end of the line".to_owned())),
        }
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(other, _)| other == key)?;
        Some(self.pairs.remove(at).1)
    }

    fn value(&mut self, key: &str) -> Result<String, Wrong> {
        let missing = || (format!("`{key}=`"), "the end of the line".to_owned());
        self.take(key).ok_or_else(missing)
    }

    fn number<T: FromStr>(&mut self, key: &str, what: &str) -> Result<T, Wrong> {
        let value = self.value(key)?;
        value.parse().or_else(|_| wrong(format!("{what} for `{key}=`"), value))
    }

    fn percent(&mut self, key: &str) -> Result<u32, Wrong> {
        let percent: u32 = self.number(key, "whole percent")?;
        if percent > 100 { wrong(format!("0 to 100 for `{key}=`"), percent) } else { Ok(percent) }
    }

    fn duration(&mut self, key: &str) -> Result<Duration, Wrong> {
        duration(&self.value(key)?)
    }

    fn done(mut self) -> Result<(), Wrong> {
        if let Some((key, value)) = self.pairs.pop() {
            return wrong("no such parameter", format!("{key}={value}"));
        }
        match self.words.next() {
            None => Ok(()),
            Some(Word::Bare(word) | Word::Quoted(word) | Word::Box(word)) => wrong("no further target", word),
            Some(Word::Pair(key, _)) => wrong("no further parameter", key),
        }
    }
}

/// Reads a duration such as `1.5s`.
fn duration(text: &str) -> Result<Duration, Wrong> {
    let expected = "a duration such as 250ms or 1.5s";
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let digits = match unit {
        "ns" => 0,
        "us" => 3,
        "ms" => 6,
        "s" => 9,
        _ => return wrong(expected, text),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) || fraction.len() > digits {
        return wrong(expected, text);
    }
    let ns = format!("{whole}{fraction:0<digits$}");
    ns.parse().map(Duration::from_nanos).or_else(|_| wrong(expected, text))
}

/// Reads a duration with a sign, in whole milliseconds.
fn signed_ms(text: &str) -> Result<i64, Wrong> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let by = duration(rest)?;
    if !by.subsec_nanos().is_multiple_of(1_000_000) {
        return wrong("whole milliseconds", text);
    }
    Ok(sign * by.as_millis() as i64)
}

/// A duration as [`duration`] reads it: milliseconds below a second, else seconds.
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

fn is_bare(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
}

/// A name as a plan's text has it.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_bare(self.0) {
            return f.write_str(self.0);
        }
        write!(f, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

fn link(line: &mut Line, effect: impl FnOnce(&mut Line) -> Result<Effect, Wrong>) -> Result<Fault, Wrong> {
    let on = line.spot()?;
    let way = match line.take("way").as_deref() {
        None => Way::Both,
        Some("out") => Way::Out,
        Some("in") => Way::In,
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
        FaultKind::Partition | FaultKind::PartitionOneWay => {
            let left = line.group()?;
            line.slash()?;
            let right = line.group()?;
            Ok(Fault::Partition { left, right, one_way: kind == FaultKind::PartitionOneWay })
        }
        FaultKind::Crash => host(line, |_| Ok(HostFault::Crash)),
        FaultKind::PowerLoss => host(line, |_| Ok(HostFault::PowerLoss)),
        FaultKind::DiskCrash => host(line, |line| match line.number("op", "a number")? {
            0 => wrong("at least 1 for `op=`", 0),
            op => Ok(HostFault::DiskCrash { op }),
        }),
        FaultKind::Restart => host(line, |_| Ok(HostFault::Restart)),
        FaultKind::Pause => host(line, |_| Ok(HostFault::Pause)),
        FaultKind::Suspend => host(line, |_| Ok(HostFault::Suspend)),
        FaultKind::PinCpu => host(line, |_| Ok(HostFault::PinCpu)),
        FaultKind::ClockStep => {
            host(line, |line| Ok(HostFault::ClockStep { by_ms: signed_ms(&line.value("by")?)? }))
        }
        FaultKind::ClockDrift => host(line, |line| {
            Ok(HostFault::ClockDrift { ppm: line.number("ppm", "parts per million, with a sign")? })
        }),
        FaultKind::NicDown => host(line, |line| Ok(HostFault::NicDown { nic: line.value("nic")? })),
        FaultKind::Roam => host(line, |line| {
            Ok(HostFault::Roam { to: line.value("to")?, ip: line.number::<IpAddr>("ip", "an address")? })
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

fn planned(text: &str) -> Result<Option<Planned>, Wrong> {
    let words = words(text)?;
    if words.is_empty() {
        return Ok(None);
    }
    let mut line = Line::new(words);
    let at = match line.words.next() {
        Some(Word::Bare(word) | Word::Quoted(word)) => duration(&word)?,
        _ => return wrong("a moment such as 1.5s", text.trim()),
    };
    let kind = match line.words.next() {
        Some(Word::Bare(word)) => {
            let kind = FaultKind::ALL.iter().find(|kind| kind.as_str() == word);
            *kind.map_or_else(|| wrong("a kind of fault", word), Ok)?
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
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind())?;
        match self {
            Fault::Link { on, way, effect } => {
                match on {
                    Spot::Everywhere => f.write_str("*")?,
                    Spot::Host(host) => write!(f, "{}", Name(host))?,
                    Spot::Box(net) => write!(f, "box:{}", Name(net))?,
                }
                write!(f, " {effect}")?;
                match way {
                    Way::Both => Ok(()),
                    Way::Out => f.write_str(" way=out"),
                    Way::In => f.write_str(" way=in"),
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
                    HostFault::DiskCrash { op } => write!(f, " op={op}"),
                    HostFault::ClockStep { by_ms } => {
                        let sign = if *by_ms < 0 { "-" } else { "" };
                        write!(f, " by={sign}{}", show(Duration::from_millis(by_ms.unsigned_abs())))
                    }
                    HostFault::ClockDrift { ppm } => write!(f, " ppm={ppm}"),
                    HostFault::NicDown { nic } => write!(f, " nic={}", Name(nic)),
                    HostFault::Roam { to, ip } => write!(f, " to={} ip={ip}", Name(to)),
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
