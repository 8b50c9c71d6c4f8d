//! Tests of the hub and its client on real loopback sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::authority::key::AuthorityKey;
use crate::authority::level::Level;
use crate::key::{PublicKey, SecretKey};
use crate::kit::wall_clock::WallClock;
use crate::mesh;
use crate::net::reach::control::Connection;
use crate::net::reach::hub::{HubConfig, HubError, HubHandle, HubLimits, ServedMesh, serve, serve_new_mesh};
use crate::net::reach::hub_client::{DownReason, HubClient, HubClientConfig, HubEvent, Joining, LoneClient};
use crate::net::reach::relay::frame::VERSION;
use crate::net::reach::relay::{CloseReason, Frame, Roles};
use crate::net::reach::rendezvous::PublishResult;
use crate::net::secure::version::Versions;
use crate::rt::net::{TcpListener, TcpStream, Transmit, UdpSocket};
use crate::rt::time;

fn authority() -> AuthorityKey {
    AuthorityKey::from_seed(&[1; 32])
}
const PATIENCE: Duration = Duration::from_secs(10);

fn run<F: Future<Output = ()>>(body: F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body);
}

fn secret(n: u8) -> SecretKey {
    SecretKey::from_bytes([n; 32])
}

fn config(listen: &str) -> HubConfig {
    HubConfig {
        listen: listen.parse().unwrap(),
        key: secret(100),
        meshes: vec![ServedMesh::issued_by(Arc::new(authority()))],
        issued: None,
        roles: Roles::ALL,
        limits: HubLimits::default(),
    }
}

async fn start() -> HubHandle {
    serve(config("127.0.0.1:0")).await.unwrap()
}

struct Client {
    key: PublicKey,
    client: LoneClient,
}

impl Client {
    fn at(hub: mesh::Hub, n: u8) -> Client {
        let key = secret(n);
        let now = time::now();
        let wall = WallClock::new(now, time::unix_now());
        let joining = Joining::minted(&authority(), key.public(), Level::Worker, wall, now);
        let config = HubClientConfig { hub, key: key.clone(), boot: n.into(), joining };
        Client { key: key.public(), client: LoneClient::spawn(config) }
    }

    fn of(hub: &HubHandle, n: u8) -> Client {
        Client::at(mesh::Hub { key: hub.key(), addr: hub.addr().to_string() }, n)
    }

    async fn up(hub: &HubHandle, n: u8) -> Client {
        let mut client = Client::of(hub, n);
        client.until(|event| matches!(event, HubEvent::Up { .. })).await;
        client
    }

    async fn give(&self, order: impl FnOnce(&mut HubClient, Instant) + Send + 'static) {
        self.client.give(order).await;
    }

    async fn forward(&self, dst: &Client, text: &'static str) {
        self.send(dst.key, Bytes::from_static(text.as_bytes())).await;
    }

    async fn send(&self, dst: PublicKey, payload: Bytes) {
        self.give(move |hub, _| hub.forward(&dst, &payload)).await;
    }

    /// Discards events until one matches.
    async fn until(&mut self, fits: impl Fn(&HubEvent) -> bool) -> HubEvent {
        let found = time::timeout(PATIENCE, self.client.until(fits)).await;
        found.expect("the event comes in time").expect("the client runs")
    }

    async fn datagram(&mut self) -> (PublicKey, Bytes) {
        match self.until(|event| matches!(event, HubEvent::Datagram { .. })).await {
            HubEvent::Datagram { src, payload } => (src, payload),
            _ => unreachable!("filtered"),
        }
    }
}

#[test]
fn two_clients_register_and_forward_both_ways() {
    run(async {
        let hub = start().await;
        let (mut a, mut b) = (Client::up(&hub, 1).await, Client::up(&hub, 2).await);
        a.forward(&b, "to b").await;
        assert_eq!(b.datagram().await, (a.key, Bytes::from_static(b"to b")));
        b.forward(&a, "to a").await;
        assert_eq!(a.datagram().await, (b.key, Bytes::from_static(b"to a")));
        assert_eq!(hub.stats().relay.forwarded, 2);
        hub.shutdown().await;
    });
}

#[test]
fn a_group_is_fanned_out_by_the_hub() {
    run(async {
        let hub = start().await;
        let (a, mut b, mut c) =
            (Client::up(&hub, 1).await, Client::up(&hub, 2).await, Client::up(&hub, 3).await);
        let tag = [5; 16];
        for client in [&mut b, &mut c] {
            client.give(move |hub, _| hub.join(tag)).await;
            client.give(|hub, now| hub.ping(now)).await;
            client.until(|event| matches!(event, HubEvent::Pong { .. })).await;
            client.until(|event| matches!(event, HubEvent::Pong { .. })).await;
        }
        a.give(move |hub, _| hub.group_send(tag, b"all")).await;
        for client in [&mut b, &mut c] {
            let event = client.until(|event| matches!(event, HubEvent::Group { .. })).await;
            assert_eq!(event, HubEvent::Group { src: a.key, tag, payload: Bytes::from_static(b"all") });
        }
        hub.shutdown().await;
    });
}

#[test]
fn the_newest_registration_wins_and_the_older_process_is_told() {
    run(async {
        let hub = start().await;
        let mut old = Client::up(&hub, 1).await;
        let mut new = Client::up(&hub, 1).await;
        let down = old.until(|event| matches!(event, HubEvent::Down { .. })).await;
        let HubEvent::Down { reason, retry_in } = down else { unreachable!("filtered") };
        assert_eq!(reason, DownReason::Closed(CloseReason::Replaced));
        assert!(retry_in >= Duration::from_secs(10));
        let sender = Client::up(&hub, 2).await;
        sender.forward(&new, "to the new one").await;
        assert_eq!(new.datagram().await.0, sender.key);
        // The old client's network changed, so it may register again at once.
        old.give(|hub, now| hub.network_changed(now)).await;
        old.until(|event| matches!(event, HubEvent::Up { .. })).await;
        new.until(|event| matches!(event, HubEvent::Down { reason, .. } if *reason == DownReason::Closed(CloseReason::Replaced))).await;
        hub.shutdown().await;
    });
}

#[test]
fn a_restarted_hub_is_found_again_with_groups_records_and_watches() {
    run(async {
        let hub = start().await;
        let (mut a, mut b) = (Client::up(&hub, 1).await, Client::up(&hub, 2).await);
        let tag = [5; 16];
        b.give(move |hub, _| hub.join(tag)).await;
        b.give(|hub, now| hub.publish(now, 1, Bytes::from_static(b"b's"))).await;
        let stored = HubEvent::Published { seq: 1, result: PublishResult::Stored };
        b.until(|event| *event == stored).await;
        let addr = hub.addr().to_string();
        hub.shutdown().await;
        b.until(|event| matches!(event, HubEvent::Down { .. })).await;
        a.until(|event| matches!(event, HubEvent::Down { .. })).await;
        let hub = serve(config(&addr)).await.unwrap();
        a.until(|event| matches!(event, HubEvent::Up { .. })).await;
        b.until(|event| *event == stored).await;
        a.give(move |hub, _| hub.group_send(tag, b"all")).await;
        b.until(|event| matches!(event, HubEvent::Group { .. })).await;
        let b_key = b.key;
        a.give(move |hub, _| hub.look_up(b_key)).await;
        let found = a.until(|event| matches!(event, HubEvent::Record(_))).await;
        let HubEvent::Record(record) = found else { unreachable!("filtered") };
        assert_eq!(&record.sealed[..], b"b's");
        hub.shutdown().await;
    });
}

#[test]
fn a_hub_that_crashed_gives_its_port_back_and_clients_notice() {
    run(async {
        let hub = start().await;
        let mut a = Client::up(&hub, 1).await;
        let addr = hub.addr().to_string();
        drop(hub);
        let down = a.until(|event| matches!(event, HubEvent::Down { .. })).await;
        assert!(matches!(down, HubEvent::Down { reason: DownReason::Lost, .. }), "{down:?}");
        let hub = serve(config(&addr)).await.unwrap();
        a.until(|event| matches!(event, HubEvent::Up { .. })).await;
        hub.shutdown().await;
    });
}

#[test]
fn a_port_in_use_is_a_clear_error_for_either_protocol() {
    run(async {
        let hub = start().await;
        let again = serve(config(&hub.addr().to_string())).await.err().unwrap();
        assert!(matches!(again, HubError::PortInUse { protocol: "TCP", .. }), "{again}");
        assert!(again.to_string().contains("in use"));
        let udp = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = udp.local_addr().unwrap();
        let error = serve(config(&addr.to_string())).await.err().unwrap();
        assert!(matches!(error, HubError::PortInUse { protocol: "UDP", addr: at } if at == addr), "{error}");
        hub.shutdown().await;
    });
}

#[test]
fn tcp_and_udp_share_the_port_number() {
    run(async {
        let hub = start().await;
        let error = UdpSocket::bind(hub.addr()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
        let addr = hub.addr();
        hub.shutdown().await;
        UdpSocket::bind(addr).await.unwrap();
        TcpListener::bind(addr).await.unwrap();
    });
}

#[test]
fn the_ticket_of_a_new_mesh_names_an_address_that_can_be_reached() {
    run(async {
        for (listen, loopback) in [("127.0.0.1:0", true), ("0", false)] {
            let (hub, ticket) = serve_new_mesh(listen).await.unwrap();
            assert_eq!((ticket.hubs.len(), ticket.hubs[0].key), (1, hub.key()));
            let addr: SocketAddr = ticket.hubs[0].addr.parse().unwrap();
            assert_eq!(addr.port(), hub.addr().port());
            assert!(!addr.ip().is_unspecified() && (!loopback || addr.ip().is_loopback()), "{addr}");
            TcpStream::connect(addr).await.unwrap();
        }
        assert!(matches!(serve_new_mesh("here").await, Err(HubError::Listen(_))));
    });
}

#[test]
fn a_hub_without_roles_or_with_too_many_namespaces_does_not_start() {
    run(async {
        let mut none = config("127.0.0.1:0");
        none.roles = Roles { relay: false, rendezvous: false, stun: false };
        assert!(matches!(serve(none).await, Err(HubError::NoRole)));
        let mut many = config("127.0.0.1:0");
        many.meshes =
            vec![ServedMesh::of(authority().mesh()); crate::net::reach::hub::limits::MAX_NAMESPACES + 1];
        assert!(matches!(serve(many).await, Err(HubError::TooManyNamespaces(_))));
    });
}

#[test]
fn a_hub_with_another_key_than_the_tickets_is_not_the_hub() {
    run(async {
        let hub = start().await;
        let pinned = mesh::Hub { key: secret(101).public(), addr: hub.addr().to_string() };
        let mut client = Client::at(pinned, 1);
        let event = client.until(|_| true).await;
        assert!(matches!(event, HubEvent::Down { reason: DownReason::NotTheHub, .. }), "{event:?}");
        assert_eq!(hub.stats().clients, 0);
        hub.shutdown().await;
    });
}

/// A hand-made client: handshake and registration on a bare stream.
async fn by_hand(hub: &HubHandle, n: u8, register: bool) -> (TcpStream, Connection, Vec<Vec<u8>>) {
    let mut rng = crate::rt::rng("test");
    let mut noise = Connection::client(&secret(n), &hub.key(), &mut rng).unwrap();
    let mut stream = TcpStream::connect(hub.addr()).await.unwrap();
    let mut written = vec![Vec::new(), Vec::new()];
    noise.poll_write(&mut written[0]);
    stream.write_all(&written[0]).await.unwrap();
    let mut answer = [0; 50];
    stream.read_exact(&mut answer).await.unwrap();
    noise.handle_bytes(&answer);
    noise.poll_message(&mut Vec::new()).unwrap();
    if register {
        let now = time::unix_now().as_secs() as u32;
        let shown = authority().mint(secret(n).public(), Level::Worker, now).show();
        let namespace = authority().mesh().namespace();
        let frame = Frame::Register {
            version: VERSION,
            namespace,
            boot: 0,
            shown: &shown,
            versions: Versions::SPOKEN,
        }
        .to_vec();
        noise.seal(&frame, &mut written[1]).unwrap();
        stream.write_all(&written[1]).await.unwrap();
        read_until(&mut stream, &mut noise, |frame| matches!(frame, Frame::Registered(_))).await;
    }
    (stream, noise, written)
}

async fn read_until(stream: &mut TcpStream, noise: &mut Connection, fits: impl Fn(Frame<'_>) -> bool) {
    let found = async {
        let mut buffer = vec![0; 4096];
        let mut plaintext = Vec::new();
        loop {
            let n = stream.read(&mut buffer).await.unwrap();
            assert_ne!(n, 0, "the stream ended");
            noise.handle_bytes(&buffer[..n]);
            while noise.poll_message(&mut plaintext).unwrap() {
                for frame in crate::net::reach::control::frames::split(&plaintext) {
                    let (kind, body) = frame.unwrap();
                    if Frame::decode(kind, body).unwrap().is_some_and(&fits) {
                        return;
                    }
                }
            }
        }
    };
    time::timeout(PATIENCE, found).await.expect("the frame comes in time");
}

#[test]
fn a_registration_with_somebody_elses_key_is_refused() {
    run(async {
        let hub = start().await;
        // The most that an attacker can have: every byte that the victim once wrote to this very
        // hub.
        let (mut victim, mut noise, written) = by_hand(&hub, 1, true).await;
        let mut thief = TcpStream::connect(hub.addr()).await.unwrap();
        thief.write_all(&written.concat()).await.unwrap();
        let mut answer = Vec::new();
        // The replayed REGISTER doesn't decrypt: the hub closes after its answer to message 1.
        time::timeout(PATIENCE, thief.read_to_end(&mut answer)).await.unwrap().ok();
        assert!(answer.len() <= 50);
        let sender = Client::up(&hub, 2).await;
        let payload = Bytes::from_static(b"private");
        sender.send(secret(1).public(), payload).await;
        read_until(&mut victim, &mut noise, |frame| {
            matches!(frame, Frame::Deliver { payload: b"private", .. })
        })
        .await;
        let stats = hub.stats();
        assert_eq!((stats.hub.registered, stats.relay.replaced, stats.hub.noise_failures), (2, 0, 1));
        hub.shutdown().await;
    });
}

#[test]
fn a_slow_reader_does_not_stall_the_others() {
    run(async {
        let hub = start().await;
        let (_stalled, _noise, _) = by_hand(&hub, 9, true).await;
        let (a, mut b) = (Client::up(&hub, 1).await, Client::up(&hub, 2).await);
        let blob = Bytes::from(vec![7; 16 * 1024]);
        let mut flooded = 0;
        // The flood fills the sockets' buffers and then the queue: the stalled client reads nothing
        // at all.
        while hub.stats().relay.dropped_queue_full < 100 {
            for _ in 0..8 {
                let payload = blob.clone();
                a.send(secret(9).public(), payload).await;
            }
            a.forward(&b, "between").await;
            let begun = time::now();
            assert_eq!(b.datagram().await.1, "between");
            assert!(time::now() - begun < Duration::from_secs(2));
            flooded += 8;
            assert!(flooded < 20_000, "{:?}", hub.stats());
        }
        hub.shutdown().await;
    });
}

#[test]
fn a_handshake_that_never_comes_is_dropped_within_its_time() {
    run(async {
        let mut config = config("127.0.0.1:0");
        config.limits.handshake = Duration::from_millis(200);
        let hub = serve(config).await.unwrap();
        // The length prefix announces a handshake, but no handshake follows.
        let mut silent = TcpStream::connect(hub.addr()).await.unwrap();
        silent.write_all(&[0, 96, 0, 0, 0]).await.unwrap();
        let (mut replayed, ..) = by_hand(&hub, 1, false).await;
        let mut rest = Vec::new();
        time::timeout(PATIENCE, silent.read_to_end(&mut rest)).await.unwrap().ok();
        time::timeout(PATIENCE, replayed.read_to_end(&mut rest)).await.unwrap().ok();
        assert_eq!(hub.stats().hub.handshake_timeouts, 2);
        assert_eq!(hub.stats().connections, 0);
        hub.shutdown().await;
    });
}

#[test]
fn an_unknown_namespace_is_closed_with_its_reason() {
    run(async {
        let mut config = config("127.0.0.1:0");
        config.meshes = vec![ServedMesh::of(AuthorityKey::from_seed(&[77; 32]).mesh())];
        let hub = serve(config).await.unwrap();
        let mut client = Client::of(&hub, 1);
        let event = client.until(|_| true).await;
        let reason = DownReason::Closed(CloseReason::UnknownNamespace);
        assert!(matches!(event, HubEvent::Down { reason: why, .. } if why == reason), "{event:?}");
        hub.shutdown().await;
    });
}

#[test]
fn a_client_whose_owner_is_gone_says_goodbye() {
    run(async {
        let hub = start().await;
        let mut a = Client::up(&hub, 1).await;
        let mut b = Client::up(&hub, 2).await;
        a.forward(&b, "hello").await;
        b.give(|hub, now| hub.publish(now, 1, Bytes::from_static(b"r"))).await;
        b.until(|event| matches!(event, HubEvent::Published { .. })).await;
        let key = b.key;
        drop(b);
        a.until(|event| *event == HubEvent::PeerGone { peer: key }).await;
        a.give(move |hub, _| hub.look_up(key)).await;
        a.until(|event| *event == HubEvent::NoRecord { peer: key }).await;
        hub.shutdown().await;
    });
}

#[test]
fn a_datagram_that_is_no_stun_request_is_counted_and_nothing_else() {
    run(async {
        let hub = start().await;
        let socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        socket.writable().await.unwrap();
        for contents in [&b"not stun"[..], &[0xc4; 1400], &[0; 1]] {
            let transmit = Transmit { destination: hub.addr(), contents, segment_size: None, src_ip: None };
            socket.try_send(&transmit).unwrap();
        }
        let counted = async {
            while hub.stats().hub.udp_ignored < 3 {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(PATIENCE, counted).await.unwrap();
        Client::up(&hub, 1).await;
        hub.shutdown().await;
    });
}

#[test]
fn two_busy_directions_both_move() {
    run(async {
        let hub = start().await;
        let (mut a, mut b) = (Client::up(&hub, 1).await, Client::up(&hub, 2).await);
        let payload = Bytes::from(vec![7; 1200]);
        for _ in 0..50 {
            for (from, to) in [(&a, &b), (&b, &a)] {
                for _ in 0..64 {
                    from.send(to.key, payload.clone()).await;
                }
            }
            assert_eq!(a.datagram().await.0, b.key);
            assert_eq!(b.datagram().await.0, a.key);
        }
        hub.shutdown().await;
    });
}
