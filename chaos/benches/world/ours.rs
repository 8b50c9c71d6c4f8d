//! The benchmarks of the world.

use crate::bench::{BURST, BURSTS, GAP, HOSTS, LATENCY_MS, PAYLOAD_BYTES, PORT, cpu, ip, rate};
use crate::nat::Router;
use chaos::rt::{net, task, time};
use chaos::{Host, LinkConfig, World};
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes that each host sends to its neighbour in one stream.
const STREAM_BYTES: usize = 4 << 20;

fn outer(host: usize) -> SocketAddr {
    format!("{}:{PORT}", ip(host % HOSTS)).parse().unwrap()
}

fn links(world: World) {
    world.link_default(LinkConfig {
        latency: Duration::from_millis(LATENCY_MS.0),
        jitter: Duration::from_millis(LATENCY_MS.1 - LATENCY_MS.0),
        ..LinkConfig::default()
    });
}

fn host(world: World, n: usize, boxes: bool) -> Host {
    let name = format!("h{n}");
    if boxes {
        let home = world.internet().nat(&format!("home {n}"), &[&ip(n)], Router::default());
        home.host(&name, "192.168.1.2")
    } else {
        world.internet().host(&name, &ip(n))
    }
}

fn send(socket: &net::UdpSocket, destination: SocketAddr, contents: &[u8]) {
    let transmit = net::Transmit { destination, contents, segment_size: None, src_ip: None };
    socket.try_send(&transmit).unwrap();
}

/// Sends to the next host, and receives as many from the one before.
async fn peer(n: usize) {
    let any = SocketAddr::from(([0, 0, 0, 0], PORT));
    let socket = Arc::new(net::UdpSocket::bind(any).await.unwrap());
    let sender = socket.clone();
    task::spawn(async move {
        // Opens this host's box for the previous host, whose own box is open when this datagram arrives.
        send(&sender, outer(n + HOSTS - 1), b"");
        time::sleep(GAP).await;
        let (payload, destination) = ([7; PAYLOAD_BYTES], outer(n + 1));
        for _ in 0..BURSTS {
            for _ in 0..BURST {
                send(&sender, destination, &payload);
            }
            time::sleep(GAP).await;
        }
    });
    let mut buffer = [0; 2048];
    let mut seen = 0;
    while seen < BURSTS * BURST {
        let mut metas = [net::RecvMeta::default()];
        socket.recv(&mut [IoSliceMut::new(&mut buffer)], &mut metas).await.unwrap();
        seen += usize::from(metas[0].len == PAYLOAD_BYTES);
    }
}

/// Datagrams per second, and the digest.
pub(crate) fn datagrams(boxes: bool) -> (f64, String) {
    let began = cpu();
    let outcome = chaos::run(1, move |world| async move {
        links(world);
        let hosts: Vec<Host> = (0..HOSTS).map(|n| host(world, n, boxes)).collect();
        let ends: Vec<_> = hosts.iter().enumerate().map(|(n, host)| host.run(peer(n))).collect();
        for end in ends {
            end.await.unwrap();
        }
    });
    outcome.result.unwrap();
    let sent = (HOSTS * BURSTS * BURST) as u64;
    assert_eq!(outcome.stats.packets_delivered, sent + HOSTS as u64);
    (rate(sent, began), outcome.digest)
}

/// TCP segments per second, including acknowledgements, of streams between neighbours.
pub(crate) fn segments() -> f64 {
    let began = cpu();
    let outcome = chaos::run(1, |world| async move {
        links(world);
        let hosts: Vec<Host> = (0..HOSTS).map(|n| host(world, n, false)).collect();
        let readers: Vec<_> = hosts
            .iter()
            .map(|host| {
                host.run(async {
                    let any = SocketAddr::from(([0, 0, 0, 0], PORT));
                    let listener = net::TcpListener::bind(any).await.unwrap();
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let (mut buffer, mut got) = (vec![0; 64 << 10], 0);
                    loop {
                        match stream.read(&mut buffer).await.unwrap() {
                            0 => return got,
                            n => got += n,
                        }
                    }
                })
            })
            .collect();
        world.sleep(GAP).await;
        for (n, host) in hosts.iter().enumerate() {
            host.run(async move {
                let mut stream = net::TcpStream::connect(outer(n + 1)).await.unwrap();
                stream.write_all(&vec![7; STREAM_BYTES]).await.unwrap();
                stream.shutdown().await.unwrap();
            });
        }
        for reader in readers {
            assert_eq!(reader.await.unwrap(), STREAM_BYTES);
        }
    });
    outcome.result.unwrap();
    rate(outcome.stats.tcp_segments, began)
}
