//! `nurl status` and `nurl ping`: the mesh as a client sees it.

use std::time::Duration;

use nurl::events::{DownReason, MemberInfo, Metric, Metrics, Roles, State, Status};
use nurl::rt::time;
use nurl::{Node, PublicKey};

use crate::args::{MeshArgs, PingArgs, StatusArgs};
use crate::client::{LOOK_EVERY, observer, until_interrupted};
use crate::event::{Line, StatusHub, StatusIncompatible, StatusIssuer, StatusMember, StatusSelf};
use crate::identity::last_issuer;
use crate::out::{Code, Failure, Out, shown};
use crate::worker::{incompatible, path_name};

/// The longest wait for a pong: the relay's worst round trip, and a handshake before the first.
const PONG: Duration = Duration::from_secs(3);

/// `nurl status`.
pub(crate) async fn status(args: StatusArgs, out: Out<'_>) -> Result<(), Failure> {
    until_interrupted(async {
        let node = observer(&args.mesh, out).await?;
        let waiting = out.waiting("waiting for the paths to settle");
        let deadline = time::now() + args.wait;
        loop {
            let members = node.members().await?;
            for member in members.iter().filter(|member| is_live(member)) {
                node.connect(member.key).await?;
            }
            let mut live = members.iter().filter(|member| is_live(member)).peekable();
            let settled = live.peek().is_some() && live.all(|member| member.path.settled);
            if settled || time::now() >= deadline {
                break;
            }
            time::sleep(LOOK_EVERY).await;
        }
        drop(waiting);
        show(&node, &args.mesh, out).await?;
        if args.metrics {
            let metrics = node.metrics().await?;
            out.lines(&metrics_line(&metrics), || metrics_table(&metrics)).await;
        }
        node.shutdown().await;
        Ok(())
    })
    .await
}

async fn show(node: &Node, mesh: &MeshArgs, out: Out<'_>) -> Result<(), Failure> {
    let mut status = node.status().await?;
    // A command seldom needs a pass of its own: an earlier one had it.
    if status.issuer.is_none() {
        status.issuer = last_issuer(mesh.home.as_deref(), &node.mesh());
    }
    let ms = |rtt: Duration| (rtt.as_secs_f64() * 1e5).round() / 100.0;
    let line = Line::Status {
        me: StatusSelf {
            key: status.key.to_string(),
            boot: format!("{:016x}", status.boot),
            pass_until: status.pass.as_ref().map(|pass| pass.grant().not_after),
            clock_ahead_s: status.clock_ahead.map(|ahead| ahead.as_secs()),
            generation: status.generation,
            issuer: status.issuer.map(|issuer| StatusIssuer {
                key: issuer.key.to_string(),
                hub: issuer.hub.to_string(),
                at: issuer.at.as_secs(),
            }),
            versions: status.versions.to_string(),
        },
        hubs: status
            .hubs
            .iter()
            .map(|hub| StatusHub {
                key: hub.key.to_string(),
                addr: hub.addr.clone(),
                up: hub.up,
                reason: hub.down.map(DownReason::as_str),
                rtt_ms: hub.rtt.map(ms),
            })
            .collect(),
        members: status.members.iter().map(member_line).collect(),
        incompatible: status
            .incompatible
            .iter()
            .map(|(peer, versions)| StatusIncompatible {
                peer: peer.to_string(),
                versions: versions.to_string(),
            })
            .collect(),
    };
    out.lines(&line, || {
        let mut rows = table(&status.members);
        rows.extend(standing(&status, time::unix_now()));
        rows
    })
    .await;
    Ok(())
}

/// Every counter and gauge, for machines.
pub(crate) fn metrics_line(metrics: &Metrics) -> Line {
    Line::Metrics { values: metrics.iter().map(|metric| (metric.name, metric.value)).collect() }
}

/// The counters and gauges that aren't zero, for people.
fn metrics_table(metrics: &Metrics) -> Vec<String> {
    let told: Vec<_> = metrics.iter().filter(|metric| metric.value > 0).collect();
    let wide = told.iter().map(|metric| metric.name.len()).max().unwrap_or(0);
    let row = |metric: &&Metric| format!("{:<wide$}{:>12}  {}", metric.name, metric.value, metric.help);
    [String::new()].into_iter().chain(told.iter().map(row)).collect()
}

fn member_line(member: &MemberInfo) -> StatusMember {
    StatusMember {
        key: member.key.to_string(),
        state: member.state.as_str(),
        incarnation: member.incarnation,
        roles: roles(member),
        kinds: member.kinds.clone(),
        zone: member.zone.clone(),
        version: member.version.clone(),
        path: path_name(member.path.direct),
        reason: member.path.reason.as_str(),
        rtt_ms: member.path.rtt.map(|rtt| (rtt.as_secs_f64() * 1e5).round() / 100.0),
        addr: member.path.addr.map(|addr| addr.to_string()),
    }
}

/// What this machine's pass and clock say, for people.
fn standing(status: &Status, unix_now: Duration) -> Vec<String> {
    let mut rows = Vec::new();
    if let Some(pass) = &status.pass {
        let grant = pass.grant();
        let left = u64::from(grant.not_after).saturating_sub(unix_now.as_secs()) / 86_400;
        rows.push(format!("This machine's pass says {}, and counts for {left} more days.", grant.level));
    }
    if let Some(issuer) = &status.issuer {
        let hub = status.hubs.iter().find(|hub| hub.key == issuer.hub);
        let hub = hub.map_or_else(|| issuer.hub.short(), |hub| hub.addr.clone());
        let by = match issuer.key == issuer.hub {
            true => format!("the hub {hub}"),
            false => format!("{} through the hub {hub}", issuer.key.short()),
        };
        let ago = unix_now.saturating_sub(issuer.at).as_secs();
        let ago = match ago {
            ..7_200 => format!("{} minutes", ago / 60),
            7_200..172_800 => format!("{} hours", ago / 3_600),
            _ => format!("{} days", ago / 86_400),
        };
        rows.push(format!("The last issuer that it reached was {by}, {ago} ago."));
    }
    for member in status.members.iter().filter(|member| member.roles.contains(Roles::DISK_FAILS)) {
        let said = "its disk fails or is full: it takes no writes until that is mended.";
        rows.push(format!("{}: {said}", member.key.short()));
    }
    let others = status.incompatible.iter();
    rows.extend(others.map(|(peer, theirs)| format!("{}.", incompatible(peer, *theirs, status.versions))));
    if let Some(ahead) = status.clock_ahead {
        rows.push(format!(
            "This machine's clock is ahead by {} days or more: set it.",
            ahead.as_secs() / 86_400
        ));
    }
    rows
}

fn is_live(member: &MemberInfo) -> bool {
    matches!(member.state, State::Alive | State::Suspect)
}

fn roles(member: &MemberInfo) -> Vec<&'static str> {
    [
        (Roles::WORKER, "worker"),
        (Roles::HUB, "hub"),
        (Roles::STORE, "store"),
        (Roles::DISK_FAILS, "disk-fails"),
    ]
    .into_iter()
    .filter(|(role, _)| member.roles.contains(*role))
    .map(|(_, name)| name)
    .collect()
}

/// The width of the longest IPv4 address with its port.
const IPV4_COLUMN: usize = 21;

fn table(members: &[MemberInfo]) -> Vec<String> {
    if members.is_empty() {
        return vec!["No members yet. Start one: nurl worker --mesh FILE".into()];
    }
    let addr = |member: &MemberInfo| member.path.addr.map_or("-".into(), |addr| addr.to_string());
    // An IPv6 address is up to twice as long as an IPv4 one.
    let wide = members.iter().map(|member| addr(member).len()).max().unwrap_or(0).max(IPV4_COLUMN) + 1;
    let mut rows = vec![format!(
        "{:<10}{:<9}{:<9}{:<wide$}{:<16}{:>9}  {}",
        "MEMBER", "STATE", "PATH", "ADDRESS", "REASON", "RTT", "KINDS"
    )];
    for member in members {
        let rtt = member.path.rtt.map_or("-".into(), |rtt| format!("{:.1} ms", rtt.as_secs_f64() * 1e3));
        rows.push(format!(
            "{:<10}{:<9}{:<9}{:<wide$}{:<16}{:>9}  {}",
            member.key.short(),
            member.state.as_str(),
            path_name(member.path.direct),
            addr(member),
            member.path.reason,
            rtt,
            member.kinds.join(",")
        ));
    }
    rows
}

/// `nurl ping`.
pub(crate) async fn ping(args: PingArgs, out: Out<'_>) -> Result<(), Failure> {
    until_interrupted(async {
        let node = observer(&args.mesh, out).await?;
        let peer = find(&node, &args.peer).await?;
        let mut answered = 0;
        for seq in 1..=args.count {
            match node.ping(peer, PONG).await {
                Ok(pong) => {
                    answered += 1;
                    let (path, rtt_ms) = (path_name(pong.direct), pong.rtt.as_secs_f64() * 1e3);
                    let addr = pong.addr.map(|addr| addr.to_string());
                    let at = addr.as_ref().map(|addr| format!(" at {addr}")).unwrap_or_default();
                    out.line(&Line::Pong { seq, path, rtt_ms, addr }, || {
                        Some(format!("pong {seq}: {path}{at}, {rtt_ms:.2} ms"))
                    })
                    .await;
                }
                Err(_) => {
                    let human = || Some(format!("ping {seq}: no answer within {PONG:?}"));
                    out.line(&Line::Lost { seq }, human).await;
                }
            }
            if seq < args.count {
                time::sleep(args.interval).await;
            }
        }
        node.shutdown().await;
        if answered == 0 {
            return Err(Failure::new(
                Code::Deadline,
                format!("{} didn't answer: is it running? nurl status shows who is", peer.short()),
            ));
        }
        Ok(())
    })
    .await
}

/// The peer with this key, or the only member whose key begins with `text`.
async fn find(node: &Node, text: &str) -> Result<PublicKey, Failure> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let members = node.members().await?;
    let text = text.to_ascii_lowercase();
    let text = text.as_str();
    let matching: Vec<_> = members
        .iter()
        .filter(|member| member.key.to_string().starts_with(text) || member.key.short().starts_with(text))
        .collect();
    match matching[..] {
        [member] => Ok(member.key),
        [] => Err(Failure::new(
            Code::Usage,
            format!("{}: neither a key (nurl1…) nor the beginning of a member's", shown(text)),
        )),
        _ => Err(Failure::new(Code::Usage, format!("{text}: {} members' keys begin so", matching.len()))),
    }
}
