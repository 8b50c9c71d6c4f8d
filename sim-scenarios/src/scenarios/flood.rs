//! A flood of handshakes, while the honest ones have nobody to speak for them.
//!
//! Three workers with direct paths, and a hub, which goes away. Somebody who knows the mesh's secret, as who was revoked
//! does, sends the first worker 10,000 beginnings of handshakes a second, from 1,000 addresses in 200 networks: each address
//! and each network keeps within its budget, all together are ten times over the budget of all. Each looks right until the
//! worker has computed a Diffie-Hellman for it. Then the worker's process is restarted: it has no session and knows nobody.
//!
//! - The other two get sessions with it within seconds. For one handshake in ten the budget of all has room; else the node
//!   asks for a cookie, and they show one.
//! - The flood has it compute no more than its budget.
//! - The flood draws fewer bytes than it sends, whoever may have its addresses.
//! - Nobody is held dead. The hub comes back, and a newcomer joins during the flood.

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::link::LinkConfig;
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::{Host, World};
use nurl::internals::net::reach::listen::Listen;
use nurl::internals::net::secure::securedgram::frames::{INIT, INIT_LEN, MAC_LEN};
use nurl::internals::net::secure::securedgram::mac::mac;
use nurl::internals::node::Role;
use nurl::rt::net::{RecvMeta, Transmit, UdpSocket};
use nurl::rt::time;
use rand_core::Rng as _;

use crate::cluster::{Cluster, Deadline, Peer};
use crate::lock::lock;
use crate::stage::{Stage, link_ms};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[Mark::new("a peer showed a cookie to a node under load")],
    ..Scenario::new(
        "flood",
        "a node under a flood of handshakes is restarted, without a hub: its peers get sessions by cookies",
        |trial| Box::pin(run(trial)),
    )
};

const DIRECT: &str = "workers on the internet reach each other directly";
const BACK: &str = "a flooded node that was restarted has sessions with its peers within seconds";
const BUDGET: &str = "a flood of handshakes causes no more Diffie-Hellmans than its budget";
const SMALLER: &str = "what a flood draws is smaller than what it sends";
const HEALTHY: &str = "nobody is held dead during a flood";
const JOINS: &str = "a newcomer joins during a flood";

const WORKERS: usize = 3;
const PORT: u16 = 4_000;

const NETWORKS: u8 = 200;
const ADDRESSES: u8 = 5;

/// One after the other: each address sends ten a second, and each network fifty, as many as they may. In ten times as long the
/// budget of all has room again for one, so an honest handshake without a cookie meets it one time in ten.
const PAUSE: Duration = Duration::from_micros(100);

/// The budget of all sources together, from `Rates::OPEN`, and the same for those with a cookie. An honest handshake
/// costs four Diffie-Hellmans.
const PER_SECOND: u64 = 1_000;
const BURST: u64 = 1_000;
const HONEST: u64 = 400;

/// A cookie has 61 bytes, and what it answers 477.
const TIMES_SMALLER: u64 = 7;

const MEET: Duration = Duration::from_secs(60);

/// A probe isn't answered, a second later its sender asks for a session, and half a second later for another one, with a
/// cookie. The process was away for a second.
const BACK_WITHIN: Duration = Duration::from_secs(5);
const AWAY: Duration = Duration::from_secs(1);
const JOINED_WITHIN: Duration = Duration::from_secs(20);

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let stage = Stage::new(world).links(link_ms(15, 5)).hub("hub").workers(WORKERS);
    let stage = stage.configure(|builder, _| builder.listen(Listen::Everywhere { port: PORT }));
    let mut cluster = stage.meet(MEET).await?;
    let deadline = Deadline::new(world, DIRECT, MEET);
    while deadline.still_missing(cluster.indirect().await).await? {}

    let worker = cluster.peers[0].clone();
    cluster.hubs[0].kill();
    let flood = Flood::start(world, &cluster, &worker);
    worker.host.crash();
    world.sleep(AWAY).await;
    worker.host.restart();
    let begun = world.elapsed();
    let deadline = Deadline::new(world, BACK, BACK_WITHIN);
    while deadline.still_missing(cluster.missing().await).await? {}
    let back = deadline.waited();
    let mut cookies = 0;
    for peer in &cluster.peers[1..] {
        cookies += cluster.metric(peer, "session.cookies_taken").await;
    }
    sometimes!(cookies > 0, "a peer showed a cookie to a node under load");

    cluster.hubs[0].restart();
    let newcomer = cluster.add("newcomer", world.internet(), Role::Worker);
    let deadline = Deadline::new(world, JOINS, JOINED_WITHIN);
    while deadline.still_missing(cluster.missing().await).await? {}
    cluster.no_false_deaths(HEALTHY, &[])?;

    let computed = cluster.metric(&worker, "session.dh").await;
    let took = u64::try_from((world.elapsed() - begun).as_millis()).expect("a world ends sooner");
    let budget = took * PER_SECOND / 1_000 + BURST + HONEST;
    if computed > budget {
        return Err(Violation::safety(BUDGET, format!("{computed} in all, where {budget} are the most")));
    }
    let (sent, drawn) = flood.bytes();
    if drawn * TIMES_SMALLER > sent {
        return Err(Violation::safety(SMALLER, format!("{sent} bytes drew {drawn}")));
    }
    let joined = deadline.waited();
    flood.host.crash();
    cluster.inspect().await?;
    let state = format!("{} and the others met by cookies, and {} joined\n", worker.name, newcomer.name);
    let notes = format!(
        "{cookies} cookies; sessions again after {back:?}, {computed} Diffie-Hellmans; the newcomer joined in {joined:?}\n"
    );
    Ok(Passed { state, notes })
}

/// Who floods.
struct Flood {
    host: Host,
    /// The bytes that it has sent, and received.
    bytes: Arc<Mutex<(u64, u64)>>,
}

impl Flood {
    /// Floods this node from now on.
    fn start(world: World, cluster: &Cluster, victim: &Peer) -> Flood {
        let addrs =
            (0..NETWORKS).flat_map(|net| (1..=ADDRESSES).map(move |host| [198, 51, net, host].into()));
        let addrs: Vec<IpAddr> = addrs.collect();
        let host = addrs.iter().fold(world.host("flood"), |host, ip| host.addr(&ip.to_string()));
        // From nearby, so that nothing comes bunched: between bunches there would be room for others.
        world.set_link(host, victim.host, LinkConfig::ideal());
        let flood = Flood { host, bytes: Arc::default() };
        let (bytes, victim_addr) = (flood.bytes.clone(), SocketAddr::new(victim.host.ip(), PORT));
        let key = cluster.ticket.generations()[0].mac1_key(&victim.key);
        let mut rng = world.rng("flood");
        host.run(async move {
            let socket = UdpSocket::bind(([0, 0, 0, 0], PORT).into()).await.expect("the port is free");
            let mut sources = addrs.iter().cycle();
            let (mut frame, mut buffer) = ([0; INIT_LEN], [0; 2_048]);
            loop {
                forge(&mut frame, &key, &mut rng);
                let transmit = Transmit {
                    destination: victim_addr,
                    contents: &frame,
                    segment_size: None,
                    src_ip: sources.next().copied(),
                };
                if socket.try_send(&transmit).is_ok() {
                    lock(&bytes).0 += frame.len() as u64;
                }
                let mut meta = [RecvMeta::default()];
                while let Ok(1) = socket.try_recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta) {
                    lock(&bytes).1 += meta[0].len as u64;
                }
                time::sleep(PAUSE).await;
            }
        });
        flood
    }

    fn bytes(&self) -> (u64, u64) {
        *lock(&self.bytes)
    }
}

/// The beginning of a handshake that nobody can finish, with a right mac1: it costs a MAC.
fn forge(frame: &mut [u8; INIT_LEN], mac1_key: &[u8; 32], rng: &mut nurl::rt::Rng) {
    const MAC1_AT: usize = INIT_LEN - 2 * MAC_LEN;
    rng.fill_bytes(&mut frame[1..MAC1_AT]);
    frame[0] = INIT;
    let mac1 = mac(mac1_key, &frame[..MAC1_AT]);
    frame[MAC1_AT..][..MAC_LEN].copy_from_slice(&mac1);
}
