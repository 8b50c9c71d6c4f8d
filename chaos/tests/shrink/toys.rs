//! Small protocols with planted bugs, each of another kind, under plans of many faults.

use chaos::plan::FaultKind;
use chaos::property::Violation;
use chaos::rt::net::{RecvMeta, Transmit, UdpSocket};
use chaos::rt::{task, time};
use chaos::scenario::{Knob, KnobKind, Passed, RunResult, Scenario, Trial};
use chaos::{Host, Targets};
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PORT: u16 = 7000;

/// Faults are drawn over this.
const SPAN: Duration = Duration::from_secs(30);

/// Kinds of fault of which a toy needs a few, so that most of a drawn plan is of no use for its bug.
const NOISE: &[FaultKind] = &[
    FaultKind::Loss,
    FaultKind::Burst,
    FaultKind::Latency,
    FaultKind::Duplicate,
    FaultKind::Reorder,
    FaultKind::Partition,
    FaultKind::PartitionOneWay,
    FaultKind::Crash,
    FaultKind::Pause,
    FaultKind::Suspend,
    FaultKind::ClockDrift,
    FaultKind::NicDown,
];

/// What the programs of a toy tell each other behind the network's back, so that a property can be checked.
#[derive(Debug, Default)]
struct Seen {
    /// Progress of the toy, by number.
    counts: [u64; 4],
    broken: Option<String>,
}

impl Seen {
    fn rises(&mut self, number: usize, to: u64) {
        self.counts[number] = self.counts[number].max(to);
    }
}

type Shared = Arc<Mutex<Seen>>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

async fn bound() -> UdpSocket {
    UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], PORT))).await.unwrap()
}

fn send(socket: &UdpSocket, destination: SocketAddr, number: u64) {
    let contents = &number.to_le_bytes();
    let _ = socket.try_send(&Transmit { destination, contents, segment_size: None, src_ip: None });
}

/// The next number, and its sender; `None` after `wait` if there is none. A refused number doesn't end the wait.
async fn receive(socket: &UdpSocket, wait: Duration) -> Option<(u64, SocketAddr)> {
    let (mut buffer, mut meta) = ([0; 8], [RecvMeta::default()]);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let received = async { while socket.recv(&mut slices, &mut meta).await.is_err() {} };
    time::timeout(wait, received).await.ok()?;
    Some((u64::from_le_bytes(buffer), meta[0].addr))
}

/// Sends ever higher numbers, one each `every`.
async fn beat(to: SocketAddr, every: Duration) {
    let socket = bound().await;
    for number in 1.. {
        send(&socket, to, number);
        time::sleep(every).await;
    }
}

/// So many hosts, `host 0` and so on, and their addresses.
fn hosts(trial: &Trial, count: u64) -> (Vec<Host>, Vec<SocketAddr>) {
    let made = (0..count).map(|n| trial.world.host(&format!("host {n}")).addr(&format!("10.0.0.{}", n + 1)));
    let made: Vec<Host> = made.collect();
    let addresses = made.iter().map(|host| SocketAddr::new(host.ip(), PORT)).collect();
    (made, addresses)
}

/// Runs the programs under faults, and checks the property all the time.
async fn under_faults(trial: &Trial, hosts: Vec<Host>, shared: &Shared, property: &'static str) {
    let checked = shared.clone();
    trial.world.always(property, move || checked.lock().unwrap().broken.clone().map_or(Ok(()), Err));
    trial.start_faults(&Targets { hosts, ..Targets::default() }, SPAN);
    trial.world.sleep(SPAN).await;
    trial.heal().await;
}

/// A leader accepts numbers before its follower has them, and forgets them in a crash: a crash of `host 0` while it is
/// cut off from `host 1`.
async fn accepted(trial: Trial) -> RunResult {
    let (hosts, at) = hosts(&trial, 5);
    let shared = Shared::default();
    let (seen, follower) = (shared.clone(), at[1]);
    hosts[0].spawn(move || {
        let seen = seen.clone();
        async move {
            {
                let mut seen = seen.lock().unwrap();
                if seen.counts[0] > seen.counts[1] + 8 {
                    seen.broken = Some(format!("{} of {} are left", seen.counts[1], seen.counts[0]));
                }
                seen.counts[1] = seen.counts[0];
            }
            let socket = bound().await;
            loop {
                let next = seen.lock().unwrap().counts[0] + 1;
                seen.lock().unwrap().counts[0] = next;
                send(&socket, follower, next);
                if let Some((number, _)) = receive(&socket, ms(200)).await {
                    seen.lock().unwrap().rises(1, number);
                    time::sleep(ms(200)).await;
                }
            }
        }
    });
    hosts[1].spawn(|| async {
        let socket = bound().await;
        loop {
            if let Some((number, from)) = receive(&socket, SPAN).await {
                send(&socket, from, number);
            }
        }
    });
    under_faults(&trial, hosts, &shared, "what is accepted outlives a crash").await;
    Ok(Passed::default())
}

/// A receiver has room for a gap of eight numbers: a longer one is a burst of loss, or a cut for half a second. It takes
/// silence for the sender's end, so only a gap between two numbers within a second counts.
async fn gap(trial: Trial) -> RunResult {
    let (hosts, at) = hosts(&trial, 5);
    let (shared, to) = (Shared::default(), at[1]);
    hosts[0].spawn(move || beat(to, ms(60)));
    let seen = shared.clone();
    hosts[1].spawn(move || {
        let seen = seen.clone();
        async move {
            let socket = bound().await;
            let mut last = None;
            loop {
                let Some((number, _)) = receive(&socket, ms(1000)).await else {
                    last = None;
                    continue;
                };
                let gap = last.map_or(0, |last| number.saturating_sub(last));
                if gap > 8 {
                    seen.lock().unwrap().broken = Some(format!("{gap} numbers in a row are missing"));
                }
                last = Some(number);
            }
        }
    });
    under_faults(&trial, hosts, &shared, "there is room for every gap").await;
    Ok(Passed::default())
}

/// Two tasks of a program are ready at one instant, and their order is the scheduler's. After a pause of `host 0` each of
/// the next three orders has to be the wrong one: a plan with one fault less has other orders, so it takes luck.
async fn order(trial: Trial) -> RunResult {
    let (hosts, _) = hosts(&trial, 5);
    let shared = Shared::default();
    let seen = shared.clone();
    hosts[0].spawn(move || {
        let seen = seen.clone();
        async move {
            let mut last = Instant::now();
            loop {
                time::sleep(ms(500)).await;
                let was_paused = last.elapsed() > ms(1000);
                last = Instant::now();
                let [first, second] = [1, 2].map(|number| {
                    let seen = seen.clone();
                    task::spawn(async move { seen.lock().unwrap().counts[1] = number })
                });
                let _ = (first.await, second.await);
                let mut seen = seen.lock().unwrap();
                let is_wrong = seen.counts[1] == 1;
                seen.counts[0] = match seen.counts[0] {
                    _ if was_paused => u64::from(is_wrong),
                    0 => 0,
                    _ if !is_wrong => 0,
                    wrong => wrong + 1,
                };
                if seen.counts[0] == 3 {
                    seen.broken = Some("three wrong orders in a row".to_owned());
                }
            }
        }
    });
    under_faults(&trial, hosts, &shared, "a pause is harmless").await;
    Ok(Passed::default())
}

/// Three faults in this order: `host 1` loses sight of `host 0` and becomes the leader, then `host 2` restarts and asks
/// it, and then `host 0` restarts, with an old term.
async fn terms(trial: Trial) -> RunResult {
    let (hosts, at) = hosts(&trial, 5);
    let shared = Shared::default();
    let (seen, to) = (shared.clone(), at[1]);
    hosts[0].spawn(move || {
        let seen = seen.clone();
        async move {
            {
                let mut seen = seen.lock().unwrap();
                if seen.counts[0] == 2 {
                    seen.broken = Some("host 0 leads an old term".to_owned());
                }
            }
            beat(to, ms(250)).await;
        }
    });
    let seen = shared.clone();
    hosts[1].spawn(move || {
        let seen = seen.clone();
        async move {
            let socket = bound().await;
            loop {
                let heard = receive(&socket, ms(1500)).await;
                let mut seen = seen.lock().unwrap();
                if heard.is_none() && seen.counts[0] == 0 {
                    seen.counts[0] = 1;
                }
            }
        }
    });
    let seen = shared.clone();
    hosts[2].spawn(move || {
        let seen = seen.clone();
        async move {
            {
                let mut seen = seen.lock().unwrap();
                if seen.counts[0] == 1 {
                    seen.counts[0] = 2;
                }
            }
            time::sleep(SPAN * 2).await;
        }
    });
    under_faults(&trial, hosts, &shared, "terms only grow").await;
    Ok(Passed::default())
}

/// A program writes for 60 ms of each second: a crash in that window leaves half a record.
async fn window(trial: Trial) -> RunResult {
    let (hosts, _) = hosts(&trial, 5);
    let shared = Shared::default();
    for (number, host) in hosts.iter().enumerate().take(2) {
        let seen = shared.clone();
        host.spawn(move || {
            let seen = seen.clone();
            async move {
                if seen.lock().unwrap().counts[number] == 1 {
                    seen.lock().unwrap().broken = Some("half a record was written".to_owned());
                }
                loop {
                    time::sleep(ms(940)).await;
                    seen.lock().unwrap().counts[number] = 1;
                    time::sleep(ms(60)).await;
                    seen.lock().unwrap().counts[number] = 0;
                }
            }
        });
    }
    under_faults(&trial, hosts, &shared, "records are whole").await;
    Ok(Passed::default())
}

/// A server forgets what it has counted beyond 40 when it restarts: too little work hides it.
async fn work(trial: Trial) -> RunResult {
    let (hosts, at) = hosts(&trial, 5);
    let (shared, requests) = (Shared::default(), trial.knob("requests"));
    let seen = shared.clone();
    hosts[0].spawn(move || {
        let seen = seen.clone();
        async move {
            {
                let mut seen = seen.lock().unwrap();
                if seen.counts[0] > 40 {
                    seen.broken = Some(format!("{} requests were counted, 40 are left", seen.counts[0]));
                }
            }
            let socket = bound().await;
            loop {
                if let Some((number, from)) = receive(&socket, SPAN).await {
                    seen.lock().unwrap().rises(0, number);
                    send(&socket, from, number);
                }
            }
        }
    });
    let server = at[0];
    drop(hosts[1].run(async move {
        let socket = bound().await;
        for number in 1..=requests {
            loop {
                send(&socket, server, number);
                // A late answer asks for nothing: with copies of copies, requests would grow without end.
                let answered = async {
                    while receive(&socket, SPAN).await.is_some_and(|(answer, _)| answer != number) {}
                };
                if time::timeout(ms(200), answered).await.is_ok() {
                    break;
                }
            }
            time::sleep(ms(50)).await;
        }
    }));
    under_faults(&trial, hosts, &shared, "a restart forgets nothing").await;
    Ok(Passed::default())
}

/// Clients register with `host 0`, try four times a second apart, and give up for ever: any trouble for four seconds. The
/// property is a liveness one, so its moment says nothing about the faults.
async fn stubborn(trial: Trial) -> RunResult {
    let (hosts, at) = hosts(&trial, trial.knob("hosts"));
    let (shared, server) = (Shared::default(), at[0]);
    hosts[0].spawn(|| async {
        let socket = bound().await;
        loop {
            if let Some((number, from)) = receive(&socket, SPAN).await {
                send(&socket, from, number);
            }
        }
    });
    for host in &hosts[1..] {
        let seen = shared.clone();
        host.spawn(move || {
            let seen = seen.clone();
            async move {
                let socket = bound().await;
                let mut tries = 0;
                for number in 0.. {
                    send(&socket, server, number);
                    tries = if receive(&socket, ms(1000)).await.is_some() { 0 } else { tries + 1 };
                    if tries == 4 {
                        seen.lock().unwrap().counts[0] += 1;
                        return;
                    }
                    time::sleep(ms(500)).await;
                }
            }
        });
    }
    under_faults(&trial, hosts, &shared, "nothing is ever wrong here").await;
    trial.world.sleep(ms(5000)).await;
    match shared.lock().unwrap().counts[0] {
        0 => Ok(Passed::default()),
        gone => Err(Violation::liveness("every client is registered in the end", format!("{gone} gave up"))),
    }
}

const HOSTS: Knob =
    Knob { name: "hosts", about: "a server and its clients", default: 6, least: 2, turns: KnobKind::Hosts };
const REQUESTS: Knob = Knob {
    name: "requests",
    about: "how many are sent, one after the other",
    default: 300,
    least: 1,
    turns: KnobKind::Work,
};

/// The toys.
pub(crate) const TOYS: &[Scenario] = &[
    Scenario {
        faults: NOISE,
        ..Scenario::new("accepted", "a crash within a partition", |trial| Box::pin(accepted(trial)))
    },
    Scenario { faults: NOISE, ..Scenario::new("gap", "a burst of loss", |trial| Box::pin(gap(trial))) },
    Scenario {
        faults: NOISE,
        ..Scenario::new("order", "a pause, and luck with the schedule", |trial| Box::pin(order(trial)))
    },
    Scenario { faults: NOISE, ..Scenario::new("terms", "three in order", |trial| Box::pin(terms(trial))) },
    Scenario { faults: NOISE, ..Scenario::new("window", "a small window", |trial| Box::pin(window(trial))) },
    Scenario {
        faults: NOISE,
        knobs: &[REQUESTS],
        ..Scenario::new("work", "enough work before a crash", |trial| Box::pin(work(trial)))
    },
    Scenario {
        faults: NOISE,
        knobs: &[HOSTS],
        ..Scenario::new("stubborn", "trouble for four seconds", |trial| Box::pin(stubborn(trial)))
    },
];
