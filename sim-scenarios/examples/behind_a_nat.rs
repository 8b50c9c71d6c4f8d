//! A program of one's own in the world, without nurl: it counts over TCP and UDP from behind a NAT, while faults come
//! and go. `cargo run -p sim-scenarios --example behind_a_nat -- sweep --all --seeds 50`

use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use chaos::rt::net::{RecvMeta, TcpListener, TcpStream, Transmit, UdpSocket};
use chaos::rt::{task, time};
use chaos::{FaultKind, Passed, RunResult, Scenario, Targets, Trial, Violation};
use sim_scenarios::models::nat_box::{NatBox, presets};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SERVER: &str = "198.51.100.1:7000";

/// Answers every number with the next one, on a connection and in datagrams.
async fn serve() {
    let any = SocketAddr::from(([0, 0, 0, 0], 7000));
    let (listener, socket) = (TcpListener::bind(any).await.unwrap(), UdpSocket::bind(any).await.unwrap());
    task::spawn(async move {
        loop {
            let (mut number, mut meta) = ([0], [RecvMeta::default()]);
            if socket.recv(&mut [IoSliceMut::new(&mut number)], &mut meta).await.is_ok() {
                let (destination, next) = (meta[0].addr, [number[0].wrapping_add(1)]);
                let _ = socket.try_send(&Transmit {
                    destination,
                    contents: &next,
                    segment_size: None,
                    src_ip: None,
                });
            }
        }
    });
    while let Ok((mut stream, _)) = listener.accept().await {
        task::spawn(async move {
            while let Ok(number) = stream.read_u8().await {
                let _ = stream.write_u8(number.wrapping_add(1)).await;
            }
        });
    }
}

/// Asks both ways; none if one of the answers is lost.
async fn ask(number: u8) -> Option<[u8; 2]> {
    let server: SocketAddr = SERVER.parse().unwrap();
    let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await.ok()?;
    let contents = &[number];
    socket.try_send(&Transmit { destination: server, contents, segment_size: None, src_ip: None }).ok()?;
    let (mut datagram, mut meta) = ([0], [RecvMeta::default()]);
    socket.recv(&mut [IoSliceMut::new(&mut datagram)], &mut meta).await.ok()?;
    let mut stream = TcpStream::connect(server).await.ok()?;
    stream.write_u8(number).await.ok()?;
    Some([datagram[0], stream.read_u8().await.ok()?])
}

async fn numbers_are_answered(trial: Trial) -> RunResult {
    let world = trial.world;
    let server = world.host("server").addr("198.51.100.1").spawn(serve);
    let home = world.internet().nat("home", &["203.0.113.1"], NatBox::new(presets::home_router()));
    let client = home.host("client", "192.168.1.2");
    let targets = Targets { hosts: vec![server, client], nets: vec![home], ..Targets::default() };
    trial.start_faults(&targets, Duration::from_secs(10));
    for number in 0..10 {
        let asked = async move { time::timeout(Duration::from_secs(1), ask(number)).await.ok().flatten() };
        match client.run(asked).await {
            // Under faults an answer may be missing, but not wrong.
            Ok(Some(answer)) if answer != [number + 1; 2] => {
                return Err(Violation::safety("no answer is wrong", format!("{number} gave {answer:?}")));
            }
            _ => {}
        }
        world.sleep(Duration::from_millis(200)).await;
    }
    trial.heal().await;
    let answer = client.run(async { time::timeout(Duration::from_secs(10), ask(41)).await.ok().flatten() });
    match answer.await {
        Ok(Some([42, 42])) => Ok(Passed::default()),
        other => Err(Violation::liveness("a number is answered when all is well", format!("{other:?}"))),
    }
}

fn scenario() -> Scenario {
    let about = "a client behind a NAT is answered over UDP and TCP when the faults are over";
    let faults = &[FaultKind::Loss, FaultKind::Latency, FaultKind::Partition, FaultKind::BoxReboot];
    Scenario { faults, ..Scenario::new("behind-a-nat", about, |trial| Box::pin(numbers_are_answered(trial))) }
}

fn main() -> ExitCode {
    chaos::cli::main(&[scenario()])
}

#[test]
fn it_holds_in_twenty_worlds() {
    for seed in 1..=20 {
        let report = scenario().run(&chaos::scenario::Options::seed(seed));
        assert!(report.verdict.is_ok(), "{}", report.story());
    }
}
