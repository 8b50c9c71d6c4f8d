//! Small protocols whose failures have a known moment after which nothing saves the run.

use chaos::property::Violation;
use chaos::rt::net::{RecvMeta, Transmit, UdpSocket};
use chaos::rt::time;
use chaos::scenario::{Passed, RunResult, Scenario, Trial};
use chaos::{Host, LinkConfig, Targets};
use rand_core::Rng as _;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PORT: u16 = 7000;

const SPAN: Duration = Duration::from_secs(30);

async fn bound() -> UdpSocket {
    UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], PORT))).await.unwrap()
}

fn send(socket: &UdpSocket, destination: SocketAddr, number: u64) {
    let contents = &number.to_le_bytes();
    let _ = socket.try_send(&Transmit { destination, contents, segment_size: None, src_ip: None });
}

async fn receive(socket: &UdpSocket) -> u64 {
    let (mut buffer, mut meta) = ([0; 8], [RecvMeta::default()]);
    while socket.recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta).await.is_err() {}
    u64::from_le_bytes(buffer)
}

/// A host that receives numbers into `held`, which it forgets with its process, and sends on to `next` what it has, each
/// second.
fn holder(host: Host, held: &Arc<Mutex<u64>>, next: SocketAddr) {
    let held = held.clone();
    host.spawn(move || {
        let held = held.clone();
        async move {
            *held.lock().unwrap() = 0;
            let socket = bound().await;
            loop {
                match time::timeout(Duration::from_secs(1), receive(&socket)).await {
                    Ok(number) => *held.lock().unwrap() = number,
                    Err(_) => {
                        let number = *held.lock().unwrap();
                        if number > 0 {
                            send(&socket, next, number);
                        }
                    }
                }
            }
        }
    });
}

fn hosts<const N: usize>(trial: &Trial) -> [(Host, SocketAddr); N] {
    std::array::from_fn(|n| {
        let host = trial.world.host(&format!("h{n}")).addr(&format!("10.0.0.{}", n + 1));
        (host, SocketAddr::new(host.ip(), PORT))
    })
}

/// Two copies of a number, which repair each other within a second: it is gone after crashes of both in between. The check
/// of it comes long after.
async fn copies(trial: Trial) -> RunResult {
    let made = hosts::<2>(&trial);
    let held = [Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0))];
    holder(made[0].0, &held[0], made[1].1);
    holder(made[1].0, &held[1], made[0].1);
    trial.world.sleep(Duration::from_millis(1)).await;
    held.iter().for_each(|held| *held.lock().unwrap() = 7);
    trial.start_faults(&Targets { hosts: made.map(|(host, _)| host).to_vec(), ..Targets::default() }, SPAN);
    trial.world.sleep(SPAN).await;
    trial.heal().await;
    trial.world.sleep(Duration::from_secs(5)).await;
    let left = held.map(|held| *held.lock().unwrap());
    match left.contains(&7) {
        true => Ok(Passed::default()),
        false => Err(Violation::safety("a number outlives crashes", format!("{left:?}"))),
    }
}

/// One copy of a number, on `h0`, asked for each second by beats of `h1` until the end.
async fn only_copy(trial: Trial) -> RunResult {
    let made = hosts::<2>(&trial);
    let held = Arc::new(Mutex::new(0));
    holder(made[0].0, &held, made[1].1);
    let sink = Arc::new(Mutex::new(0));
    holder(made[1].0, &sink, made[1].1);
    trial.world.sleep(Duration::from_millis(1)).await;
    *held.lock().unwrap() = 7;
    trial.start_faults(&Targets { hosts: vec![made[0].0], ..Targets::default() }, SPAN);
    trial.world.sleep(SPAN).await;
    trial.heal().await;
    match *held.lock().unwrap() {
        7 => Ok(Passed::default()),
        _ => Err(Violation::safety("the number is still there", "it is gone")),
    }
}

/// A word that is sent once, at 9 s after beats of another host, and must be there at the end.
async fn said_once(trial: Trial) -> RunResult {
    trial.world.link_default(LinkConfig { latency: Duration::from_millis(40), ..LinkConfig::ideal() });
    let [(speaker, _), (listener, to), (beater, _)] = hosts::<3>(&trial);
    let heard = Arc::new(Mutex::new(false));
    let noted = heard.clone();
    listener.spawn(move || {
        let noted = noted.clone();
        async move {
            let socket = bound().await;
            loop {
                if receive(&socket).await == 1 {
                    *noted.lock().unwrap() = true;
                }
            }
        }
    });
    beater.spawn(move || async move {
        let socket = bound().await;
        loop {
            send(&socket, to, 2);
            time::sleep(Duration::from_millis(250)).await;
        }
    });
    speaker.spawn(move || async move {
        let socket = bound().await;
        time::sleep(Duration::from_secs(9)).await;
        send(&socket, to, 1);
        std::future::pending::<()>().await;
    });
    trial.start_faults(&Targets { hosts: vec![speaker], ..Targets::default() }, SPAN);
    trial.world.sleep(SPAN).await;
    trial.heal().await;
    trial.world.sleep(Duration::from_secs(30)).await;
    match *heard.lock().unwrap() {
        true => Ok(Passed::default()),
        false => Err(Violation::liveness("the word is heard", "it isn't")),
    }
}

/// Counts to three, and then says that there should have been four.
async fn miscounts(trial: Trial) -> RunResult {
    let made = hosts::<1>(&trial);
    let held = Arc::new(Mutex::new(0));
    holder(made[0].0, &held, made[0].1);
    trial.start_faults(&Targets { hosts: vec![made[0].0], ..Targets::default() }, SPAN);
    trial.world.sleep(SPAN).await;
    trial.heal().await;
    Err(Violation::safety("three is four", "it isn't"))
}

/// Fails the moment that a host crashes, seen by a check of every instant.
async fn fragile(trial: Trial) -> RunResult {
    let [(host, at), _] = hosts::<2>(&trial);
    holder(host, &Arc::new(Mutex::new(0)), at);
    trial.world.always("the host runs", move || match host.is_running() {
        true => Ok(()),
        false => Err("it doesn't".to_owned()),
    });
    trial.start_faults(&Targets { hosts: vec![host], ..Targets::default() }, SPAN);
    trial.world.sleep(SPAN).await;
    Ok(Passed::default())
}

/// Long after its last event, a coin decides.
async fn coin(trial: Trial) -> RunResult {
    let [(host, _)] = hosts::<1>(&trial);
    let mut coin = trial.world.rng("coin");
    trial.start_faults(&Targets { hosts: vec![host], ..Targets::default() }, SPAN);
    trial.world.sleep(SPAN).await;
    match coin.next_u64() % 2 {
        0 => Ok(Passed::default()),
        _ => Err(Violation::safety("the coin shows heads", "it shows tails")),
    }
}

pub(crate) const COIN: Scenario = Scenario::new("coin", "a coin shows heads", |trial| Box::pin(coin(trial)));
pub(crate) const COPIES: Scenario =
    Scenario::new("copies", "two copies outlive crashes", |trial| Box::pin(copies(trial)));
pub(crate) const ONLY_COPY: Scenario =
    Scenario::new("only copy", "a copy outlives crashes", |trial| Box::pin(only_copy(trial)));
pub(crate) const SAID_ONCE: Scenario =
    Scenario::new("said once", "a word is heard", |trial| Box::pin(said_once(trial)));
pub(crate) const MISCOUNTS: Scenario =
    Scenario::new("miscounts", "three is four", |trial| Box::pin(miscounts(trial)));
pub(crate) const FRAGILE: Scenario =
    Scenario::new("fragile", "a host runs", |trial| Box::pin(fragile(trial)));
