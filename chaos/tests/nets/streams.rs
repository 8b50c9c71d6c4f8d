//! TCP through boxes.

use crate::boxes::Cone;
use crate::support::{addr, ms, ok};
use chaos::middlebox::Modem;
use chaos::rt::net::{TcpListener, TcpStream};
use chaos::rt::task::JoinHandle;
use chaos::rt::time;
use chaos::{DropCause, Host, LinkConfig, Rate, World, run};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SERVER: &str = "198.51.100.7:80";

/// Accepts one connection and calls `serve` with it, and with its source address.
fn serve<F, Fut>(server: Host, serve: F) -> JoinHandle<Fut::Output>
where
    F: FnOnce(TcpStream, SocketAddr) -> Fut + Send + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: Send + 'static,
{
    server.run(async move {
        let listener = TcpListener::bind(addr("0.0.0.0:80")).await.unwrap();
        let (stream, from) = listener.accept().await.unwrap();
        serve(stream, from).await
    })
}

/// Sends `len` bytes from a to a server; returns the hashes of the sent and the received bytes.
pub(crate) async fn copy(
    world: World,
    a: Host,
    server: Host,
    at: &str,
    len: usize,
) -> (blake3::Hash, blake3::Hash) {
    let at = addr(at);
    let got = serve(server, |mut stream, _| async move {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        blake3::hash(&got)
    });
    world.sleep(ms(1)).await;
    let sent = a.run(async move {
        let bytes: Vec<u8> = (0..len).map(|n| (n * 31 + n / 251) as u8).collect();
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        blake3::hash(&bytes)
    });
    (sent.await.unwrap(), got.await.unwrap())
}

#[test]
fn a_stream_arrives_intact_through_two_boxes_whatever_the_links_do() {
    let digest = |seed: u64| {
        let outcome = run(seed, |world| async move {
            let bad = LinkConfig {
                tcp_loss: Rate::percent(2),
                corrupt: Rate::percent(1),
                duplicate: Rate::percent(1),
                reorder: Rate::percent(1),
                jitter: ms(5),
                ..LinkConfig::default()
            };
            world.link_default(bad.clone());
            let server = world.internet().host("server", "198.51.100.7");
            let carrier = world.internet().nat("carrier", &["203.0.113.1"], Cone::restricted());
            carrier.link_default(bad);
            let a = carrier.nat("home", &["100.64.0.1"], Cone::restricted()).host("a", "192.168.1.2");
            let (sent, got) = copy(world, a, server, SERVER, 300_000).await;
            assert_eq!(sent, got);
        });
        assert!(outcome.stats.packets_corrupted > 0 && outcome.stats.dropped(DropCause::Loss) > 0);
        (outcome.digest.clone(), ok(outcome)).0
    };
    assert_eq!(digest(1), digest(1));
    assert_ne!(digest(1), digest(2));
}

#[test]
fn a_connection_is_sized_for_the_narrowest_link_on_its_way() {
    // The narrow link is on the way out, or behind the other end's box, where that end itself doesn't see it.
    for narrow_at_client in [true, false] {
        ok(run(1, move |world| async move {
            let line = |name: &str| world.internet().nat(name, &[], Modem);
            let (near, far) = (line("near"), line("far"));
            let server = far.host("server", "198.51.100.7");
            let home = near.nat("home", &["203.0.113.1"], Cone::restricted());
            let narrow = LinkConfig { mtu: 1280, ..LinkConfig::ideal() };
            if narrow_at_client {
                world.set_link_both(home, near, &narrow);
            } else {
                world.set_link(far, server, narrow);
            }
            let a = home.host("a", "192.168.1.2");
            let (sent, got) = copy(world, a, server, SERVER, 200_000).await;
            assert_eq!(sent, got);
            assert_eq!(world.stats().dropped(DropCause::Mtu), 0);
        }));
    }
}

/// A client in a home connects, greets, and stays silent; then `fault` happens. Both go on writing afterwards.
/// Returns how the client's and the server's side ended, and after what time.
fn after(fault: fn(World, Host)) -> [(io::ErrorKind, Duration); 2] {
    ok(run(1, move |world| async move {
        let server = world.internet().host("server", "198.51.100.7");
        let home = world.internet().nat("home", &["203.0.113.1"], Cone::restricted());
        world.internet().nat("cell", &["203.0.113.2"], Cone::restricted());
        let a = home.host("a", "192.168.1.2");
        for host in [a, server] {
            host.set_tcp_user_timeout(Duration::from_secs(30));
        }
        async fn use_up(world: World, mut stream: TcpStream) -> (io::ErrorKind, Duration) {
            let mut greeting = [0; 5];
            stream.write_all(b"hello").await.unwrap();
            stream.read_exact(&mut greeting).await.unwrap();
            time::sleep(ms(1000)).await;
            let begun = world.elapsed();
            loop {
                if let Err(error) = stream.write_all(b"still there?").await {
                    return (error.kind(), world.elapsed() - begun);
                }
                time::sleep(ms(100)).await;
            }
        }
        let served = serve(server, move |stream, from| {
            assert_eq!(from.ip(), addr("203.0.113.1:1").ip());
            use_up(world, stream)
        });
        world.sleep(ms(1)).await;
        let used = a.run(async move {
            let stream = TcpStream::connect(addr(SERVER)).await.unwrap();
            use_up(world, stream).await
        });
        world.sleep(ms(500)).await;
        fault(world, a);
        [used.await.unwrap(), served.await.unwrap()]
    }))
}

#[test]
fn a_move_leaves_old_connections_half_open_until_their_time_is_over() {
    let ends = after(|world, a| a.attach("eth0", world.find_net("cell").unwrap(), &["10.0.0.9"]));
    for (kind, took) in ends {
        assert_eq!(kind, io::ErrorKind::TimedOut);
        assert!(took > ms(29_000) && took < ms(40_000), "{took:?}");
    }
}

#[test]
fn a_new_connection_after_a_move_works_beside_the_old_one() {
    ok(run(1, |world| async move {
        let server = world.internet().host("server", "198.51.100.7");
        let home = world.internet().nat("home", &["203.0.113.1"], Cone::restricted());
        let cell = world.internet().nat("cell", &["203.0.113.2"], Cone::restricted());
        let a = home.host("a", "192.168.1.2");
        let froms = server.run(async move {
            let listener = TcpListener::bind(addr("0.0.0.0:80")).await.unwrap();
            let (first, second) = (listener.accept().await.unwrap(), listener.accept().await.unwrap());
            // For the server, the first connection is still open.
            [first.1, second.1].map(|from| from.ip().to_string())
        });
        world.sleep(ms(1)).await;
        a.run(async move {
            let mut old = TcpStream::connect(addr(SERVER)).await.unwrap();
            a.attach("eth0", cell, &["10.0.0.9"]);
            old.write_all(b"into the void").await.unwrap();
            TcpStream::connect(addr(SERVER)).await.unwrap();
        })
        .await
        .unwrap();
        assert_eq!(froms.await.unwrap(), ["203.0.113.1", "203.0.113.2"]);
        assert!(world.stats().unroutable > 0);
    }));
}

#[test]
fn a_reboot_of_the_box_ends_its_connections_by_a_reset_for_the_inner_side() {
    // The inner side's segments come from another port now, which the server doesn't know.
    let [(client, took), (server, _)] = after(|world, _| world.find_net("home").unwrap().reboot());
    assert_eq!(client, io::ErrorKind::ConnectionReset);
    assert!(took < ms(1000), "{took:?}");
    assert_eq!(server, io::ErrorKind::TimedOut);
}

#[test]
fn a_box_without_power_is_silence_for_both_sides() {
    for (kind, took) in after(|world, _| world.find_net("home").unwrap().set_power(false)) {
        assert_eq!(kind, io::ErrorKind::TimedOut);
        assert!(took > ms(29_000), "{took:?}");
    }
}

#[test]
fn a_short_cut_between_hosts_behind_boxes_is_outlived() {
    ok(run(1, |world| async move {
        let server = world.internet().host("server", "198.51.100.7");
        let home = world.internet().nat("home", &["203.0.113.1"], Cone::restricted());
        let a = home.host("a", "192.168.1.2");
        let cut = a.run(async move {
            time::sleep(ms(50)).await;
            world.partition(&[a], &[server]);
            time::sleep(ms(5_000)).await;
            world.heal();
        });
        let (sent, got) = copy(world, a, server, SERVER, 1 << 20).await;
        assert_eq!(sent, got);
        assert!(cut.is_finished() && world.stats().dropped(DropCause::Partition) > 0);
    }));
}
