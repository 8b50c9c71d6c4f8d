//! A toy protocol with a planted bug, and variations of it.

use chaos::plan::FaultKind;
use chaos::property::Violation;
use chaos::rt::net::{RecvMeta, Transmit, UdpSocket};
use chaos::rt::time;
use chaos::scenario::{Knob, KnobKind, Mark, Passed, Purpose, RunResult, Scenario, Trial};
use chaos::shrink::{Shrinker, Shrunk};
use chaos::sweep::{Sweep, SweepReport};
use chaos::{Targets, sometimes};
use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often the server counted each number of each client.
pub(crate) type Counted = Arc<Mutex<BTreeMap<(u8, u32), u32>>>;

pub(crate) const PORT: u16 = 7000;

pub(crate) async fn receive(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; 64];
    let mut meta = [RecvMeta::default()];
    socket.recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta).await.ok()?;
    Some((buffer[..meta[0].len].to_vec(), meta[0].addr))
}

pub(crate) fn send(socket: &UdpSocket, destination: SocketAddr, contents: &[u8]) {
    let _ = socket.try_send(&Transmit { destination, contents, segment_size: None, src_ip: None });
}

/// Counts requests and acknowledges them. The planted bug: after a restart it has lost its list of counted requests,
/// and counts a repeated request once more.
pub(crate) async fn server(counted: Counted) {
    let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], PORT))).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while let Some((request, from)) = receive(&socket).await {
        let &[client, a, b, c, d] = request.as_slice() else { continue };
        let key = (client, u32::from_le_bytes([a, b, c, d]));
        if seen.insert(key) {
            tracing::debug!(client, number = key.1, "a number is counted");
            tracing::trace!("this is too much for a story");
            *counted.lock().unwrap().entry(key).or_default() += 1;
        }
        send(&socket, from, &request);
    }
}

/// Sends numbers, repeating each until it is acknowledged.
pub(crate) async fn client(me: u8, server: SocketAddr, numbers: u32) {
    let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], PORT))).await.unwrap();
    for number in 0..numbers {
        let mut request = vec![me];
        request.extend(number.to_le_bytes());
        let mut sent = 0;
        loop {
            send(&socket, server, &request);
            sent += 1;
            // A late copy of an earlier answer asks for nothing: with copies of copies, requests would grow without end.
            let answered =
                async { while receive(&socket).await.is_some_and(|(answer, _)| answer != request) {} };
            if time::timeout(Duration::from_millis(200), answered).await.is_ok() {
                break;
            }
        }
        sometimes!(sent > 1, "a request is sent again");
        time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) const TOY: Scenario = Scenario {
    name: "toy",
    about: "every number is counted once; it isn't",
    purpose: Purpose::Proof,
    knobs: &[
        Knob { name: "clients", about: "hosts that count", default: 4, least: 1, turns: KnobKind::Hosts },
        Knob { name: "numbers", about: "counted by each", default: 60, least: 1, turns: KnobKind::Work },
    ],
    faults: &[
        FaultKind::Loss,
        FaultKind::Latency,
        FaultKind::Duplicate,
        FaultKind::Partition,
        FaultKind::Crash,
        FaultKind::Pause,
    ],
    points: &[],
    marks: &[Mark::within("a request is sent again", 20)],
    time_limit: Duration::from_secs(600),
    body: |trial| Box::pin(toy(trial)),
};

pub(crate) async fn toy(trial: Trial) -> RunResult {
    let (world, numbers) = (trial.world, trial.knob("numbers") as u32);
    let counted = Counted::default();
    let counting = counted.clone();
    let hub = world.host("server").addr("10.0.0.1").spawn(move || server(counting.clone()));
    let address = SocketAddr::new(hub.ip(), PORT);
    let mut clients = Vec::new();
    for n in 0..trial.knob("clients") as u8 {
        clients.push(world.host(&format!("client {n}")).addr(&format!("10.0.1.{n}")));
    }
    let spared = clients.clone();
    trial.start_faults(&Targets { hosts: vec![hub], spared, ..Targets::default() }, Duration::from_secs(10));
    let done: Vec<_> = (0u8..).zip(&clients).map(|(n, host)| host.run(client(n, address, numbers))).collect();
    let checked = counted.clone();
    world.always("every number is counted once", move || {
        match checked.lock().unwrap().iter().find(|(_, times)| **times > 1) {
            Some((key, times)) => Err(format!("{key:?} was counted {times} times")),
            None => Ok(()),
        }
    });
    world.sleep(Duration::from_secs(10)).await;
    trial.heal().await;
    for task in done {
        if time::timeout(Duration::from_secs(60), task).await.is_err() {
            return Err(Violation::liveness("every client comes to its end", "one did not in a minute"));
        }
    }
    Ok(Passed { state: format!("{} numbers", counted.lock().unwrap().len()), notes: String::new() })
}

/// The same bug as a canary, which every sweep must find.
pub(crate) const CANARY: Scenario = Scenario { name: "canary", purpose: Purpose::Canary, ..TOY };

/// The same scenario without the fault that uncovers the bug.
pub(crate) const SOUND: Scenario =
    Scenario { name: "sound", faults: &[FaultKind::Loss, FaultKind::Latency], ..TOY };

pub(crate) fn sweep(scenarios: &[Scenario], runs: u64) -> Sweep {
    Sweep { jobs: 2, ..Sweep::new(scenarios, Some(runs)) }
}

pub(crate) fn swept(sweep: &Sweep) -> SweepReport {
    sweep.run(&mut |_| {})
}

pub(crate) fn shrunk(swept: &SweepReport) -> Shrunk {
    Shrinker::new(TOY, 400).shrink(&swept.found[0].report(), &mut |_| {})
}

/// A scenario that blocks on an event that never comes, so that virtual time stalls.
pub(crate) const BLOCKED: Scenario = Scenario {
    name: "blocked",
    knobs: &[],
    marks: &[],
    faults: &[],
    body: |trial| {
        Box::pin(async move {
            if trial.world.seed() == 2 {
                let (_sender, receiver) = std::sync::mpsc::channel::<()>();
                let _ = receiver.recv();
            }
            Ok(Passed::default())
        })
    },
    ..TOY
};
