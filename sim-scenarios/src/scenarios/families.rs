//! Both address families at once.
//!
//! One hub, whose name resolves to an IPv4 and an IPv6 address. Two phones have IPv4 behind symmetric NATs and
//! IPv6 addresses of their own behind firewalls. Two hosts have IPv6 only, one of them behind a firewall; two
//! more have it behind translators, so that only the hub tells them their addresses. Two homes have IPv4 only. No
//! node configures its listening addresses. Each pair ends direct exactly where the
//! [oracle](crate::models::oracle) allows it in one family or the other, in that family, and relayed elsewhere:
//! an IPv4-only and an IPv6-only host use the hub.
//!
//! Negative control: a phone that loses its IPv6 is relayed where no other family is direct, and direct again
//! once it has IPv6 back, at another address.

use std::time::Duration;

use chaos::link::{LinkConfig, Rate};
use chaos::net::Net;
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use rand_core::Rng as _;

use crate::cluster::{Cluster, Deadline};
use crate::models::nat_box::{Family, NatBox, NatConfig, presets};
use crate::models::oracle::{self, NatBehaviour};
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("IPv6 led straight where IPv4 could not"),
        Mark::new("a translator of IPv6 was crossed"),
        Mark::new("a phone without IPv6 was relayed, and direct again with it"),
    ],
    ..Scenario::new(
        "families",
        "IPv4, IPv6 and both, a hub with both: direct where either family lets it be, relayed elsewhere",
        |trial| Box::pin(run(trial)),
    )
};

const NIC: &str = "eth0";

const MEET: Duration = Duration::from_secs(40);

/// All pairs have found their final path within this: two rounds of quick checks and a first slow one.
const SETTLES: Duration = Duration::from_secs(40);

/// The highest loss rate of a link, in per cent.
const WORST_LOSS: u64 = 5;

const ORACLE: &str = "each pair is direct exactly where the oracle says so, in a family that leads straight";

/// A host: its name, and for each of its families the boxes in front of it, with its IPv6 address.
struct PlannedHost {
    name: &'static str,
    v4: Option<NatBehaviour>,
    v6: Option<(&'static str, NatBehaviour)>,
}

/// The phone that loses its IPv6, and its later address.
const PHONE: usize = 0;
const LATER: &str = "2001:db8:1::11";

impl PlannedHost {
    /// The families in which the oracle predicts a direct path: IPv4, IPv6.
    fn direct_families(&self, other: &PlannedHost) -> [bool; 2] {
        let v4 = self.v4.zip(other.v4).is_some_and(|(a, b)| oracle::direct(a, b));
        let v6 = self.v6.zip(other.v6).is_some_and(|((_, a), (_, b))| oracle::direct(a, b));
        [v4, v6]
    }
}

fn firewall() -> NatConfig {
    NatConfig { v6: Family::Firewalled, ..NatConfig::rfc("firewall") }
}

fn translator() -> NatConfig {
    NatConfig { v6: Family::Translated, ..NatConfig::rfc("translator") }
}

fn phone() -> NatConfig {
    NatConfig { v6: Family::Firewalled, ..presets::symmetric() }
}

/// All hosts, in the order of the stage.
fn hosts() -> Vec<PlannedHost> {
    let phone = |name, addr| PlannedHost {
        name,
        v4: Some(NatBehaviour::v4(&phone())),
        v6: Some((addr, NatBehaviour::v6(&phone()))),
    };
    let six = |name, addr, behaviour| PlannedHost { name, v4: None, v6: Some((addr, behaviour)) };
    let four = |name| PlannedHost { name, v4: Some(NatBehaviour::v4(&presets::port_restricted())), v6: None };
    vec![
        phone("phone 1", "2001:db8:1::10"),
        phone("phone 2", "2001:db8:2::10"),
        six("open v6", "2001:db8:3::10", NatBehaviour::OPEN),
        six("firewalled v6", "2001:db8:4::10", NatBehaviour::v6(&firewall())),
        six("translated v6 1", "fd00::10", NatBehaviour::v6(&translator())),
        six("translated v6 2", "fd00::10", NatBehaviour::v6(&translator())),
        four("home 1"),
        four("home 2"),
    ]
}

/// First with all addresses, then without the phone's IPv6, then with it again.
async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let loss = world.rng("loss").next_u64() % (WORST_LOSS + 1);
    let mut hosts = hosts();
    let stage =
        Stage::new(world).links(LinkConfig { udp_loss: Rate::percent(loss as u32), ..link_ms(15, 10) });
    let cluster = start(stage, world.internet(), &hosts);
    cluster.converge(MEET).await?;
    let first = wait_until_settled(world, &cluster, &hosts).await?;
    sometimes!(by_v6_alone(&hosts, 0, 1), "IPv6 led straight where IPv4 could not");
    sometimes!(by_v6_alone(&hosts, 4, 5), "a translator of IPv6 was crossed");
    let mut state = matrix(&cluster, &hosts).await;

    let host = cluster.peers[PHONE].host;
    let (v4, v6) = (host.ip().to_string(), hosts[PHONE].v6.take());
    host.set_addrs(NIC, &[&v4]);
    let without = wait_until_settled(world, &cluster, &hosts).await?;
    state += &format!("without IPv6:\n{}", row(&cluster, &hosts, PHONE).await);

    hosts[PHONE].v6 = v6.map(|(_, behaviour)| (LATER, behaviour));
    host.set_addrs(NIC, &[&v4, LATER]);
    let again = wait_until_settled(world, &cluster, &hosts).await?;
    sometimes!(true, "a phone without IPv6 was relayed, and direct again with it");
    state += &format!("with IPv6 again:\n{}", row(&cluster, &hosts, PHONE).await);
    let notes = format!(
        "{loss} % lost; all as it can be {first:?} after they had met, {without:?} after a phone lost its IPv6, \
         {again:?} after it had it back\n"
    );
    Ok(Passed { state, notes })
}

/// The mesh. IPv6-only hosts lose their IPv4 address before any node runs.
fn start(stage: Stage, internet: Net, hosts: &[PlannedHost]) -> Cluster {
    let mut stage = stage.hub("hub");
    for (number, planned) in hosts.iter().enumerate() {
        let name = format!("network of {}", planned.name);
        let placed = match planned.name {
            "open v6" => stage.on_the_internet(),
            "firewalled v6" => stage.behind_nat(&name, firewall()),
            "home 1" | "home 2" => stage.behind_nat(&name, presets::port_restricted()),
            "phone 1" | "phone 2" => stage.behind_nat(&name, phone()),
            _ => {
                let outer = format!("2001:db8:ff:{number}::1");
                stage.behind(internet.nat(&name, &[&outer], NatBox::new(translator())))
            }
        };
        stage = placed.worker(planned.name);
    }
    let cluster = stage.start();
    let hub = cluster.hubs[0].host;
    hub.set_addrs(NIC, &[&hub.ip().to_string(), "2001:db8:ffff::1"]);
    for (peer, planned) in cluster.peers.iter().zip(hosts) {
        let v4 = planned.v4.map(|_| peer.host.ip().to_string());
        let v6 = planned.v6.map(|(addr, _)| addr.to_owned());
        let addrs: Vec<_> = v4.iter().chain(&v6).map(String::as_str).collect();
        peer.host.set_addrs(NIC, &addrs);
    }
    cluster
}

fn by_v6_alone(hosts: &[PlannedHost], from: usize, to: usize) -> bool {
    hosts[from].direct_families(&hosts[to]) == [false, true]
}

/// Waits until every pair is as the oracle predicts, and settled, as both ends see it. Returns how long it took.
async fn wait_until_settled(
    world: World,
    cluster: &Cluster,
    hosts: &[PlannedHost],
) -> Result<Duration, Violation> {
    let deadline = Deadline::new(world, ORACLE, SETTLES);
    while deadline.still_missing(wrong_paths(cluster, hosts).await).await? {}
    Ok(deadline.waited())
}

/// The paths that differ from the prediction.
async fn wrong_paths(cluster: &Cluster, hosts: &[PlannedHost]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (from, a) in cluster.peers.iter().zip(hosts) {
        let members = cluster.members(from).await;
        for (to, b) in cluster.peers.iter().zip(hosts).filter(|(to, _)| to.key != from.key) {
            let pair = format!("{} to {}", a.name, b.name);
            let Some(member) = members.iter().find(|member| member.key == to.key) else {
                wrong.push(format!("{pair} is unknown"));
                continue;
            };
            let (path, [v4, v6]) = (member.path, a.direct_families(b));
            // Without an address, the path is relayed.
            let right = path.addr.map_or(!v4 && !v6, |addr| if addr.is_ipv4() { v4 } else { v6 });
            if !right || !path.settled {
                let leg = path.addr.map_or("relayed".to_owned(), |addr| format!("direct at {addr}"));
                wrong.push(format!(
                    "{pair} is {leg} ({}); IPv4 leads straight: {v4}, IPv6: {v6}",
                    path.reason
                ));
            }
        }
    }
    wrong
}

/// The paths of each host to each other one.
async fn matrix(cluster: &Cluster, hosts: &[PlannedHost]) -> String {
    let mut text = String::new();
    for from in 0..hosts.len() {
        text += &row(cluster, hosts, from).await;
    }
    text
}

/// The paths of one host to the others. If both families are direct, either may be the quicker one.
async fn row(cluster: &Cluster, hosts: &[PlannedHost], from: usize) -> String {
    let mut legs = Vec::new();
    for (to, planned) in hosts.iter().enumerate().filter(|(to, _)| *to != from) {
        let path = cluster.path(&cluster.peers[from], &cluster.peers[to]).await;
        let addr = path.and_then(|path| path.addr);
        let leg = match (addr, hosts[from].direct_families(planned)) {
            (None, _) => "relayed",
            (Some(_), [true, true]) => "direct",
            (Some(addr), _) if addr.is_ipv4() => "direct by IPv4",
            (Some(_), _) => "direct by IPv6",
        };
        legs.push(format!("{} {leg}", planned.name));
    }
    format!("{}: {}\n", hosts[from].name, legs.join(", "))
}
