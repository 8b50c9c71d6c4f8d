//! A router on the way that records everything, and says it all again.
//!
//! Two workers on the internet and two in a home, and a hub. The home's router records each datagram that passes, in both
//! directions. From elsewhere, and a moment later, everything is sent again: to whom it was for, to another node, and with
//! one bit changed. A worker is restarted while there is no hub, so that handshakes pass the router; and once more at the
//! end: then everything that was ever recorded is sent again.
//!
//! - Nobody is drawn: not one byte comes back to where the copies come from.
//! - Nothing happens twice: what applications say arrives once at most, and each job runs once.
//! - No path moves, no session ends, nobody is suspected who runs.
//!
//! Negative control: the copies arrived, among them beginnings of handshakes, and were refused as what they are.

use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::middlebox::{BoxVerdict, Middlebox, Packet, Passage, Protocol};
use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::membership::State;
use nurl::internals::net::reach::listen::Listen;
use nurl::internals::net::secure::securedgram::frames::INIT;
use nurl::rt::net::{RecvMeta, Transmit, UdpSocket};
use nurl::rt::time;

use crate::cluster::{Cluster, Deadline, Jobs};
use crate::lock::lock;
use crate::models::nat_box::{NatBox, presets};
use crate::stage::{Stage, link_ms, network_behind};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[Mark::new("a copy of a handshake's beginning was refused as a replay")],
    ..Scenario::new(
        "eavesdropper",
        "a router records all that passes, and says it again from elsewhere: it draws no byte and changes nothing",
        |trial| Box::pin(run(trial)),
    )
};

const SILENCE: &str = "copies of what others said draw not one byte";
const ONCE: &str = "copies make nothing happen twice";
const STAYS: &str = "copies move no path and end no session";
const UNMOVED: &str = "nobody who runs is suspected because of copies";
const ARRIVED: &str = "the copies arrive, and are refused as such";
const DIRECT: &str = "all reach each other directly";

const PORT: u16 = 4_000;
const MEET: Duration = Duration::from_secs(60);
const DONE: Duration = Duration::from_secs(15);

/// Whence the copies come.
const COPIER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

/// How much later than the original a copy leaves: it is the second to arrive on every way. For ten seconds a copy of a
/// handshake's beginning is answered like the original, which may have come by two ways.
const LATER: Duration = Duration::from_millis(500);
const LATER_INITS: Duration = Duration::from_secs(11);
const PAUSE: Duration = Duration::from_millis(50);

/// Datagrams that are said once more between two pauses.
const AGAIN_AT_ONCE: usize = 50;
const ROUNDS: u32 = 20;
const EVERY: Duration = Duration::from_secs(1);

/// Datagrams that are kept: a minute of four nodes has a few thousand.
const MAX_KEPT: usize = 20_000;

/// After the restart: the old session is found to be dead, and the next one begins.
const BACK_WITHIN: Duration = Duration::from_secs(15);

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let record = Record::default();
    let router = Eavesdropper { nat: NatBox::new(presets::full_cone()), record: record.clone() };
    let home = network_behind(world, world.internet(), "home", router);
    let stage = Stage::new(world).links(link_ms(15, 5)).hub("hub").workers(2).behind(home).workers(2);
    let stage = stage.configure(|builder, _| builder.listen(Listen::Everywhere { port: PORT }));
    let cluster = stage.meet(MEET).await?;
    let deadline = Deadline::new(world, DIRECT, MEET);
    while deadline.still_missing(cluster.indirect().await).await? {}

    let copier = Copier::start(world, &cluster, record.clone());
    cluster.hubs[0].kill();
    restart(&cluster).await?;
    cluster.hubs[0].restart();
    world.sleep(LATER_INITS).await;
    let (boots, verdicts) = (sessions(&cluster).await, verdicts(&cluster));
    let mut jobs = Jobs::new(&cluster);
    for round in 0..ROUNDS {
        for peer in &cluster.peers {
            jobs.submit(peer, "slow", &format!("{} {round}", peer.name)).await?;
        }
        world.sleep(EVERY).await;
        copier.silent()?;
    }
    let done = jobs.settle(DONE).await?;
    ran_once(&cluster)?;
    if sessions(&cluster).await != boots {
        return Err(Violation::safety(STAYS, "a node has begun another session".to_owned()));
    }
    let moved = cluster.indirect().await;
    if !moved.is_empty() {
        return Err(Violation::safety(STAYS, moved.join("; ")));
    }
    unsuspected(&cluster, &verdicts)?;

    let replays = replays(&cluster).await;
    restart(&cluster).await?;
    copier.say_all_again();
    world.sleep(DONE).await;
    copier.silent()?;
    ran_once(&cluster)?;
    cluster.no_false_deaths(UNMOVED, &[])?;

    let old = self::replays(&cluster).await;
    sometimes!(replays > 0 && old > 0, "a copy of a handshake's beginning was refused as a replay");
    let copies = copier.sent();
    if copies < u64::from(ROUNDS) * 100 {
        return Err(Violation::safety(ARRIVED, format!("only {copies} were sent")));
    }
    cluster.inspect().await?;
    let state = format!("{done} jobs ran once, no copy drew an answer\n");
    Ok(Passed {
        state,
        notes: format!(
            "{copies} copies, {replays} of them replays of handshakes, {old} of them of an earlier process's\n"
        ),
    })
}

/// A worker's process ends, and another one begins. The others get sessions with it by the ways that they know.
async fn restart(cluster: &Cluster) -> Result<(), Violation> {
    let (world, worker) = (cluster.world(), &cluster.peers[0]);
    worker.host.crash();
    world.sleep(EVERY).await;
    worker.host.restart();
    let deadline = Deadline::new(world, STAYS, BACK_WITHIN);
    while deadline.still_missing(cluster.missing().await).await? {}
    let deadline = Deadline::new(world, DIRECT, MEET);
    while deadline.still_missing(cluster.indirect().await).await? {}
    Ok(())
}

/// How many beginnings of handshakes have been refused as replays.
async fn replays(cluster: &Cluster) -> u64 {
    let mut replays = 0;
    for peer in &cluster.peers {
        for counter in ["session.repeated", "session.stale_timestamp"] {
            replays += cluster.metric(peer, counter).await;
        }
    }
    replays
}

/// How many sessions each node has begun.
async fn sessions(cluster: &Cluster) -> Vec<u64> {
    let mut begun = Vec::new();
    for peer in &cluster.peers {
        begun.push(cluster.metric(peer, "session.established").await);
    }
    begun
}

/// Each job that ran has run once.
fn ran_once(cluster: &Cluster) -> Result<(), Violation> {
    match cluster.witness.runs_per_job().into_iter().find(|(_, runs)| *runs != 1) {
        None => Ok(()),
        Some((job, runs)) => Err(Violation::safety(ONCE, format!("{job:?} ran {runs} times"))),
    }
}

/// How many verdicts there were on each node.
fn verdicts(cluster: &Cluster) -> Vec<usize> {
    cluster.peers.iter().map(|peer| cluster.witness.verdicts_on(peer).count()).collect()
}

/// No node was suspected since there were so many verdicts on each.
fn unsuspected(cluster: &Cluster, before: &[usize]) -> Result<(), Violation> {
    for (peer, before) in cluster.peers.iter().zip(before) {
        let mut since = cluster.witness.verdicts_on(peer).skip(*before);
        if let Some(state) = since.find(|state| *state != State::Alive) {
            return Err(Violation::safety(UNMOVED, format!("{} was held {}", peer.name, state.as_str())));
        }
    }
    Ok(())
}

/// A datagram that passed the router: when, where it was going, and its payload.
type Overheard = (Duration, SocketAddr, Vec<u8>);

/// What the router has recorded.
#[derive(Default)]
struct Recorded {
    all: Vec<Overheard>,
    /// What is still to be copied for the first time, in the order of its times.
    fresh: VecDeque<Overheard>,
    /// The same of beginnings of handshakes.
    inits: VecDeque<Overheard>,
}

type Record = Arc<Mutex<Recorded>>;

impl Recorded {
    fn keep(&mut self, overheard: Overheard) {
        if self.all.len() < MAX_KEPT {
            let is_init = overheard.2.first() == Some(&INIT);
            let queue = if is_init { &mut self.inits } else { &mut self.fresh };
            queue.push_back(overheard.clone());
            self.all.push(overheard);
        }
    }

    /// What is to be copied now.
    fn due(&mut self, now: Duration) -> Vec<Overheard> {
        let mut due = Vec::new();
        for (queue, later) in [(&mut self.fresh, LATER), (&mut self.inits, LATER_INITS)] {
            while let Some(overheard) = queue.pop_front_if(|(at, _, _)| *at + later <= now) {
                due.push(overheard);
            }
        }
        due
    }
}

/// A router that records what passes.
struct Eavesdropper {
    nat: NatBox,
    record: Record,
}

impl Eavesdropper {
    fn keep(&self, passage: &Passage<'_>, packet: &Packet) {
        let is_a_copy = packet.src().ip() == COPIER;
        if packet.protocol() == Protocol::Udp && !is_a_copy {
            lock(&self.record).keep((passage.now, packet.dst(), packet.bytes()[HEADERS..].to_vec()));
        }
    }
}

/// The headers of IPv4 and UDP.
const HEADERS: usize = 28;

impl Middlebox for Eavesdropper {
    fn outbound(&mut self, passage: &mut Passage<'_>, packet: &mut Packet) -> BoxVerdict {
        let verdict = self.nat.outbound(passage, packet);
        if verdict == BoxVerdict::Pass {
            self.keep(passage, packet);
        }
        verdict
    }

    fn inbound(&mut self, passage: &mut Passage<'_>, packet: &mut Packet) -> BoxVerdict {
        // As it came, since that is where a copy has to go.
        self.keep(passage, packet);
        self.nat.inbound(passage, packet)
    }

    fn reboot(&mut self) {
        self.nat.reboot();
    }

    fn describe(&self) -> String {
        "a full cone that records".to_owned()
    }
}

/// The host that sends the copies.
struct Copier {
    record: Record,
    books: Arc<Mutex<Books>>,
}

#[derive(Default)]
struct Books {
    sent: u64,
    /// Who answered first, and with how many bytes.
    drawn: Option<(SocketAddr, usize)>,
    /// What is still to be said once more.
    again: Vec<Overheard>,
}

impl Copier {
    /// Says from now on what the router recorded.
    fn start(world: World, cluster: &Cluster, record: Record) -> Copier {
        let host = world.host("copier").addr(&COPIER.to_string());
        let copier = Copier { record, books: Arc::default() };
        let (record, books) = (copier.record.clone(), copier.books.clone());
        // A hub answers anybody who asks for an address.
        let hub = cluster.hubs[0].host.ip();
        let others = [0, 1].map(|number| SocketAddr::new(cluster.peers[number].host.ip(), PORT));
        host.run(async move {
            let socket = UdpSocket::bind(([0, 0, 0, 0], PORT).into()).await.expect("the port is free");
            loop {
                let now = world.elapsed();
                let due = lock(&record).due(now);
                for (number, (_, to, payload)) in
                    due.into_iter().filter(|(_, to, _)| to.ip() != hub).enumerate()
                {
                    let mut changed = payload.clone();
                    let at = number % changed.len();
                    changed[at] ^= 1 << (number % 8);
                    for (to, copy) in [(to, &payload), (others[number % 2], &payload), (to, &changed)] {
                        say(&socket, to, copy, &books);
                    }
                }
                let again: Vec<_> = {
                    let mut books = lock(&books);
                    let now = books.again.len().min(AGAIN_AT_ONCE);
                    books.again.drain(..now).collect()
                };
                for (_, to, payload) in again.iter().filter(|(_, to, _)| to.ip() != hub) {
                    say(&socket, *to, payload, &books);
                }
                hear(&socket, &books);
                time::sleep(PAUSE).await;
            }
        });
        copier
    }

    /// Says all that was recorded up to now once more.
    fn say_all_again(&self) {
        let all = lock(&self.record).all.clone();
        lock(&self.books).again = all;
    }

    /// Nobody has answered.
    fn silent(&self) -> Result<(), Violation> {
        match lock(&self.books).drawn {
            None => Ok(()),
            Some((by, bytes)) => Err(Violation::safety(SILENCE, format!("{by} sent {bytes} bytes"))),
        }
    }

    fn sent(&self) -> u64 {
        lock(&self.books).sent
    }
}

fn say(socket: &UdpSocket, to: SocketAddr, payload: &[u8], books: &Mutex<Books>) {
    let transmit = Transmit { destination: to, contents: payload, segment_size: None, src_ip: None };
    let sent = socket.try_send(&transmit).is_ok();
    lock(books).sent += u64::from(sent);
}

fn hear(socket: &UdpSocket, books: &Mutex<Books>) {
    let (mut buffer, mut meta) = ([0; 2_048], [RecvMeta::default()]);
    while let Ok(1) = socket.try_recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta) {
        lock(books).drawn.get_or_insert((meta[0].addr, meta[0].len));
    }
}
