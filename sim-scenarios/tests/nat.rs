//! Boxes in the world: traffic through each, and hole punching between any two without nurl, against the oracle.
#![cfg(feature = "sim")]

use std::collections::BTreeSet;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::rt::net::{RecvMeta, TcpListener, TcpStream, Transmit, UdpSocket};
use chaos::rt::{task, time};
use chaos::{Host, LinkConfig, Net, World, run};
use sim_scenarios::models::nat_box::{Dependence, NatBox, NatConfig, Pooling, Ports, presets};
use sim_scenarios::models::oracle::{NatBehaviour, direct, direct_behind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SERVER: &str = "198.51.100.1";
const STUN_PORT: u16 = 3478;
const HUB_PORT: u16 = 4242;

/// The port of a peer's socket, the same everywhere, so that only boxes make a difference.
const PEER_PORT: u16 = 5000;

/// How often a peer sends, and how many times.
const EVERY: Duration = Duration::from_millis(100);
const ROUNDS: u32 = 20;

async fn bind(port: u16) -> Arc<UdpSocket> {
    Arc::new(UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], port))).await.unwrap())
}

fn send(socket: &UdpSocket, to: SocketAddr, contents: &[u8]) {
    let transmit = Transmit { destination: to, contents, segment_size: None, src_ip: None };
    socket.try_send(&transmit).unwrap();
}

async fn receive(socket: &UdpSocket) -> (SocketAddr, Vec<u8>) {
    let mut buffer = vec![0; 2048];
    let mut meta = [RecvMeta::default()];
    socket.recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta).await.unwrap();
    buffer.truncate(meta[0].len);
    (meta[0].addr, buffer)
}

fn stun() -> SocketAddr {
    SocketAddr::new(SERVER.parse().unwrap(), STUN_PORT)
}

/// A server that tells each client its observed source address.
fn serve_stun(world: World) {
    world.host("server").addr(SERVER).spawn(|| async {
        let socket = bind(STUN_PORT).await;
        loop {
            let (from, _) = receive(&socket).await;
            send(&socket, from, format!("you {from}").as_bytes());
        }
    });
}

/// The addresses at which each of two peers may be reached, exchanged through a third party.
type Board = Arc<Mutex<[BTreeSet<SocketAddr>; 2]>>;

/// Punches as number `me` of two: asks for its reflexive address, sends to all addresses that it is told or hears
/// from, and answers every ping. Returns whether a pong came from the address that was pinged.
async fn punch(me: usize, board: Board) -> bool {
    let socket = bind(PEER_PORT).await;
    let heard: Board = Board::default();
    let proven = Arc::new(Mutex::new(false));
    let (receiving, told, learned, done) = (socket.clone(), board.clone(), heard.clone(), proven.clone());
    let receiver = task::spawn(async move {
        loop {
            let (from, body) = receive(&receiving).await;
            let text = String::from_utf8(body).unwrap();
            match text.split_once(' ').unwrap() {
                ("you", addr) => {
                    told.lock().unwrap()[me].insert(addr.parse().unwrap());
                }
                ("ping", asked) => {
                    learned.lock().unwrap()[0].insert(from);
                    send(&receiving, from, format!("pong {asked}").as_bytes());
                }
                (_, asked) => *done.lock().unwrap() |= asked.parse() == Ok(from),
            }
        }
    });
    for _ in 0..ROUNDS {
        let mut targets = board.lock().unwrap()[1 - me].clone();
        targets.extend(heard.lock().unwrap()[0].iter());
        for target in targets {
            send(&socket, target, format!("ping {target}").as_bytes());
        }
        // The mapping toward the server has to be kept alive as well, because its address is the one the other
        // peer was told.
        send(&socket, stun(), b"who am i");
        time::sleep(EVERY).await;
    }
    receiver.abort();
    *proven.lock().unwrap()
}

/// Whether two hosts punch through; both must agree.
async fn punches(a: Host, b: Host, board: Board) -> bool {
    let (for_a, for_b) = (board.clone(), board);
    let (a, b) = (a.run(punch(0, for_a)), b.run(punch(1, for_b)));
    let (a, b) = (a.await.unwrap(), b.await.unwrap());
    assert_eq!(a, b, "an answer proves both directions");
    a
}

/// A host on the internet, or behind a box there.
fn place(world: World, name: &str, outer: &[&str], config: Option<NatConfig>) -> Host {
    match config {
        None => world.host(name).addr(outer[0]),
        Some(config) => {
            let home = world.internet().nat(&format!("home of {name}"), outer, NatBox::new(config));
            // All homes use the same inner addresses.
            home.host(name, "192.168.1.2")
        }
    }
}

fn ends_direct(seed: u64, a: Option<NatConfig>, b: Option<NatConfig>) -> bool {
    let outcome = run(seed, |world| async move {
        world.link_default(LinkConfig { jitter: Duration::from_millis(5), ..LinkConfig::default() });
        serve_stun(world);
        let a = place(world, "a", &["203.0.113.1", "203.0.113.2", "203.0.113.3"], a);
        let b = place(world, "b", &["203.0.113.101", "203.0.113.102", "203.0.113.103"], b);
        punches(a, b, Board::default()).await
    });
    outcome.result.unwrap_or_else(|failure| panic!("{failure}"))
}

fn agree(boxes: &[Option<NatConfig>]) {
    let behaviour = |config: &Option<NatConfig>| config.as_ref().map_or(NatBehaviour::OPEN, NatBehaviour::v4);
    let name = |config: &Option<NatConfig>| match config {
        None => "open".to_owned(),
        Some(config) => format!("{} {:?}/{:?}", config.name, config.mapping, config.filtering),
    };
    let mut directs = 0;
    for (at, a) in boxes.iter().enumerate() {
        for (seed, b) in boxes.iter().enumerate().skip(at) {
            let expected = direct(behaviour(a), behaviour(b));
            let seen = ends_direct(seed as u64, a.clone(), b.clone());
            assert_eq!(seen, expected, "{} and {}: left what is seen, right the oracle", name(a), name(b));
            directs += u32::from(seen);
        }
    }
    println!("{} boxes, {directs} pairs direct", boxes.len());
}

#[test]
fn punching_ends_direct_exactly_where_the_oracle_says_for_boxes_as_people_have_them() {
    let mut boxes = vec![None];
    boxes.extend(presets::all(HUB_PORT).into_iter().map(Some));
    agree(&boxes);
}

#[test]
fn punching_ends_direct_exactly_where_the_oracle_says_for_every_mapping_and_filter() {
    let all = [Dependence::Endpoint, Dependence::Address, Dependence::AddressAndPort];
    let mut boxes = Vec::new();
    for mapping in all {
        for filtering in all {
            let config = NatConfig { mapping, filtering, ports: Ports::Random, ..NatConfig::rfc("box") };
            boxes.push(Some(config.clone()));
            // Else three arbitrary addresses may be equal by chance, which an oracle can't predict.
            if mapping == Dependence::Endpoint {
                boxes.push(Some(NatConfig { pooling: Pooling::Arbitrary, ..config }));
            }
        }
    }
    agree(&boxes);
}

#[test]
fn behind_one_box_peers_are_direct_by_their_own_addresses() {
    let config = presets::symmetric();
    assert!(direct_behind(NatBehaviour::v4(&config), config.hairpin, None, None));
    let outcome = run(1, |world| async move {
        serve_stun(world);
        let home = world.internet().nat("home", &["203.0.113.1"], NatBox::new(config));
        let (a, b) = (home.host("a", "192.168.1.2"), home.host("b", "192.168.1.3"));
        let board = Board::default();
        for (at, host) in [a, b].iter().enumerate() {
            board.lock().unwrap()[at].insert(SocketAddr::new(host.ip(), PEER_PORT));
        }
        punches(a, b, board).await
    });
    assert!(outcome.result.unwrap());
}

#[test]
fn two_homes_of_one_carrier_are_direct_exactly_if_it_has_a_hairpin() {
    for hairpin in [true, false] {
        let carrier = NatConfig { hairpin, ..presets::carrier_grade() };
        let home = presets::home_router();
        let behaviour = Some(NatBehaviour::v4(&home));
        let expected = direct_behind(NatBehaviour::v4(&carrier), hairpin, behaviour, behaviour);
        let outcome = run(1, |world| async move {
            serve_stun(world);
            let outer = ["203.0.113.1", "203.0.113.2", "203.0.113.3"];
            let carrier: Net = world.internet().nat("carrier", &outer, NatBox::new(carrier));
            let a = carrier.nat("home a", &["100.64.0.2"], NatBox::new(home.clone()));
            let b = carrier.nat("home b", &["100.64.0.3"], NatBox::new(home));
            let (a, b) = (a.host("a", "192.168.1.2"), b.host("b", "192.168.1.2"));
            punches(a, b, Board::default()).await
        });
        assert_eq!(outcome.result.unwrap(), expected, "hairpin: {hairpin}");
    }
}

#[test]
fn a_hub_is_reached_over_tcp_through_every_box() {
    for config in presets::all(HUB_PORT) {
        let name = config.name;
        let outcome = run(1, |world| async move {
            let hub = world.host("hub").addr(SERVER);
            hub.spawn(|| async {
                let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], HUB_PORT))).await.unwrap();
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    stream.write_all(&buffer[..length]).await.unwrap();
                }
            });
            let client = place(world, "client", &["203.0.113.1"], Some(config));
            let echo = client.run(async {
                let hub = SocketAddr::new(SERVER.parse().unwrap(), HUB_PORT);
                let mut stream = TcpStream::connect(hub).await.unwrap();
                stream.write_all(b"hello").await.unwrap();
                // Longer than any UDP timer: a connection has a timer of its own.
                time::sleep(Duration::from_secs(600)).await;
                stream.write_all(b" again").await.unwrap();
                let mut seen = [0; 11];
                stream.read_exact(&mut seen).await.unwrap();
                seen
            });
            echo.await.unwrap()
        });
        assert_eq!(&outcome.result.unwrap(), b"hello again", "{name}");
    }
}
