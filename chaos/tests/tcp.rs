//! TCP between hosts of the world.
#![cfg(madsim)]

use chaos::rt::net::{TcpListener, TcpStream};
use chaos::rt::{task, time};
use chaos::{Host, LinkConfig, Rate, RunOutcome, World, run};
use rand_core::Rng as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PORT: u16 = 80;

fn ok<T>(outcome: RunOutcome<T>) -> T {
    outcome.result.unwrap_or_else(|failure| panic!("{failure}"))
}

fn two(world: World) -> (Host, Host) {
    (world.host("a").addr("10.0.0.1").addr("fd00::1"), world.host("b").addr("10.0.0.2").addr("fd00::2"))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + n / 251) as u8).collect()
}

async fn listen() -> TcpListener {
    TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], PORT))).await.unwrap()
}

/// Accepts one connection on b and calls `serve` with it.
fn serve<F, Fut>(b: Host, serve: F) -> task::JoinHandle<Fut::Output>
where
    F: FnOnce(TcpStream) -> Fut + Send + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: Send + 'static,
{
    b.run(async move {
        let (stream, _) = listen().await.accept().await.unwrap();
        serve(stream).await
    })
}

fn transfer(seed: u64, link: LinkConfig) -> RunOutcome<Duration> {
    run(seed, move |world| async move {
        world.link_default(link);
        let (a, b) = two(world);
        let got = serve(b, |mut stream| async move {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            got
        });
        world.sleep(Duration::from_millis(1)).await;
        let begun = world.elapsed();
        a.run(async move {
            let mut stream = TcpStream::connect(SocketAddr::new(b.ip(), PORT)).await.unwrap();
            stream.write_all(&pattern(1 << 20)).await.unwrap();
            stream.shutdown().await.unwrap();
        })
        .await
        .unwrap();
        assert!(got.await.unwrap() == pattern(1 << 20));
        world.elapsed() - begun
    })
}

#[test]
fn a_mebibyte_arrives_intact_on_a_good_path() {
    let took = ok(transfer(1, LinkConfig::default()));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_mebibyte_arrives_intact_under_five_percent_loss() {
    let link = LinkConfig {
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(5),
        tcp_loss: Rate::percent(5),
        udp_loss: Rate::ALWAYS,
        corrupt: Rate::percent(1),
        duplicate: Rate::percent(1),
        reorder: Rate::percent(1),
        ..LinkConfig::default()
    };
    let first = transfer(2, link.clone());
    assert_eq!(first.digest, transfer(2, link).digest);
    let took = ok(first);
    assert!(took < Duration::from_secs(120), "{took:?}");
}

#[test]
fn bytes_arrive_intact_whatever_the_path_does() {
    for seed in 0..12 {
        let mut draws = chaos::seed::stream(seed, "path");
        let mut rate = |most: u32| Rate::percent(draws.next_u32() % (most + 1));
        let mut link = LinkConfig {
            tcp_loss: rate(8),
            duplicate: rate(10),
            reorder: rate(10),
            corrupt: rate(5),
            ..LinkConfig::default()
        };
        link.latency = Duration::from_millis(u64::from(draws.next_u32() % 100));
        link.jitter = Duration::from_millis(u64::from(draws.next_u32() % 50));
        link.mtu = 576 + draws.next_u32() as usize % 1000;
        // The transfer itself compares the bytes.
        ok(transfer(seed, link));
    }
}

#[test]
fn v6_works_too() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        let got = b.run(async {
            let listener = TcpListener::bind("[::]:80".parse().unwrap()).await.unwrap();
            let (mut stream, peer) = listener.accept().await.unwrap();
            let mut got = [0; 4];
            stream.read_exact(&mut got).await.unwrap();
            (got, peer.ip())
        });
        world.sleep(Duration::from_millis(1)).await;
        a.run(async {
            let mut stream = TcpStream::connect("[fd00::2]:80".parse().unwrap()).await.unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(b"ping").await.unwrap();
        })
        .await
        .unwrap();
        assert_eq!(got.await.unwrap(), (*b"ping", "fd00::1".parse().unwrap()));
    }));
}

#[test]
fn a_half_closed_connection_goes_on_the_other_way() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        let server = serve(b, |stream| async move {
            let (mut read, mut write) = stream.into_split();
            let mut got = Vec::new();
            read.read_to_end(&mut got).await.unwrap();
            time::sleep(Duration::from_secs(3)).await;
            write.write_all(&got).await.unwrap();
        });
        world.sleep(Duration::from_millis(1)).await;
        let back = a.run(async move {
            let (mut read, mut write) =
                TcpStream::connect(SocketAddr::new(b.ip(), PORT)).await.unwrap().into_split();
            write.write_all(b"hello").await.unwrap();
            drop(write);
            let mut back = Vec::new();
            read.read_to_end(&mut back).await.unwrap();
            back
        });
        assert_eq!(back.await.unwrap(), b"hello");
        server.await.unwrap();
    }));
}

/// smoltcp 0.12 stops its timer at each ACK once the other side has ended, and ignores a FIN behind bytes that it has.
#[test]
fn what_is_lost_after_the_other_sides_end_is_sent_again() {
    for seed in 0..60 {
        let outcome = run(seed, |world| async move {
            let latency = Duration::from_millis(10);
            world.link_default(LinkConfig { latency, tcp_loss: Rate::percent(8), ..LinkConfig::default() });
            let (a, b) = two(world);
            let served = serve(b, |mut stream| async move {
                let mut got = Vec::new();
                stream.read_to_end(&mut got).await?;
                stream.write_all(&got).await?;
                stream.shutdown().await
            });
            world.sleep(Duration::from_millis(1)).await;
            let echoed = a.run(async move {
                let mut stream = TcpStream::connect(SocketAddr::new(b.ip(), PORT)).await?;
                stream.write_all(&pattern(100_000)).await?;
                stream.shutdown().await?;
                let mut echoed = Vec::new();
                stream.read_to_end(&mut echoed).await?;
                io::Result::Ok(echoed)
            });
            served.await.unwrap().unwrap();
            assert!(echoed.await.unwrap().unwrap() == pattern(100_000), "other bytes");
        });
        outcome.result.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    }
}

#[test]
fn a_slow_reader_holds_the_writer_back() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        let server = serve(b, |mut stream| async move {
            time::sleep(Duration::from_secs(60)).await;
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            got.len()
        });
        world.sleep(Duration::from_millis(1)).await;
        let writer = a.run(async move {
            let mut stream = TcpStream::connect(SocketAddr::new(b.ip(), PORT)).await.unwrap();
            stream.write_all(&pattern(1 << 20)).await.unwrap();
        });
        world.sleep(Duration::from_secs(50)).await;
        assert!(!writer.is_finished(), "a mebibyte went into the buffers");
        writer.await.unwrap();
        assert_eq!(server.await.unwrap(), 1 << 20);
    }));
}

#[test]
fn a_lost_window_update_does_not_end_a_transfer() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        let server = serve(b, |mut stream| async move {
            time::sleep(Duration::from_secs(10)).await;
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            got.len()
        });
        world.sleep(Duration::from_millis(1)).await;
        let writer = a.run(async move {
            let mut stream = TcpStream::connect(SocketAddr::new(b.ip(), PORT)).await.unwrap();
            stream.write_all(&pattern(1 << 20)).await.unwrap();
        });
        world.sleep(Duration::from_secs(9)).await;
        world.partition_one_way(&[b], &[a]);
        world.sleep(Duration::from_secs(10)).await;
        world.heal();
        writer.await.unwrap();
        assert_eq!(server.await.unwrap(), 1 << 20);
    }));
}

#[test]
fn an_idle_connection_lives_on() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        let server = serve(b, |mut stream| async move { stream.read_u8().await.unwrap() });
        world.sleep(Duration::from_millis(1)).await;
        a.run(async move {
            let mut stream = TcpStream::connect(SocketAddr::new(b.ip(), PORT)).await.unwrap();
            time::sleep(Duration::from_secs(3000)).await;
            stream.write_all(&[7]).await.unwrap();
        })
        .await
        .unwrap();
        assert_eq!(server.await.unwrap(), 7);
    }));
}

/// How a's read ends after b's process has ended by `fault`.
fn after(fault: fn(Host)) -> Option<io::Result<usize>> {
    ok(run(1, move |world| async move {
        let (a, b) = two(world);
        serve(b, |stream| async move {
            std::future::pending::<()>().await;
            drop(stream);
        });
        world.sleep(Duration::from_millis(1)).await;
        let read = a.run(async move {
            let mut stream = TcpStream::connect(SocketAddr::new(b.ip(), PORT)).await.unwrap();
            // Left unread by the other side, so that its kernel answers the kill with RST.
            stream.write_all(b"unread").await.unwrap();
            time::timeout(Duration::from_secs(600), stream.read(&mut [0; 8])).await.ok()
        });
        world.sleep(Duration::from_secs(1)).await;
        fault(b);
        read.await.unwrap()
    }))
}

#[test]
fn a_killed_process_resets_its_connections_and_a_lost_power_is_silent() {
    let killed = after(|host| host.crash());
    assert_eq!(killed.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(after(|host| host.power_loss()).is_none());
    // A restarted host knows nothing of the connection, but a sends no segment that it could reset.
    assert!(
        after(|host| {
            host.power_loss();
            host.restart();
        })
        .is_none()
    );
}

#[test]
fn writing_to_a_host_without_power_times_out_and_to_one_that_restarted_is_reset() {
    let written = |restart: bool| {
        ok(run(1, move |world| async move {
            let (a, b) = two(world);
            serve(b, |stream| async move {
                std::future::pending::<()>().await;
                drop(stream);
            });
            world.sleep(Duration::from_millis(1)).await;
            let writer = a.run(async move {
                let mut stream = TcpStream::connect(SocketAddr::new(b.ip(), PORT)).await.unwrap();
                loop {
                    if let Err(error) = stream.write_all(b"x").await {
                        return error.kind();
                    }
                    time::sleep(Duration::from_secs(1)).await;
                }
            });
            world.sleep(Duration::from_millis(1500)).await;
            b.power_loss();
            if restart {
                b.restart();
            }
            writer.await.unwrap()
        }))
    };
    assert_eq!(written(false), io::ErrorKind::TimedOut);
    assert_eq!(written(true), io::ErrorKind::ConnectionReset);
}

#[test]
fn connecting_to_a_dead_process_is_refused_and_to_a_dark_host_times_out() {
    let connect = |fault: fn(Host)| {
        ok(run(1, move |world| async move {
            let (a, b) = two(world);
            fault(b);
            let addr = SocketAddr::new(b.ip(), PORT);
            a.run(async move { TcpStream::connect(addr).await.unwrap_err().kind() }).await.unwrap()
        }))
    };
    assert_eq!(connect(|host| host.crash()), io::ErrorKind::ConnectionRefused);
    assert_eq!(connect(|host| host.power_loss()), io::ErrorKind::TimedOut);
}

#[test]
fn a_paused_process_still_has_a_kernel_that_acknowledges() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        let server = serve(b, |mut stream| async move {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            got.len()
        });
        world.sleep(Duration::from_millis(1)).await;
        let writer = a.run(async move {
            let mut stream = TcpStream::connect(SocketAddr::new(b.ip(), PORT)).await.unwrap();
            time::sleep(Duration::from_secs(2)).await;
            for _ in 0..100 {
                stream.write_all(&[7; 100]).await.unwrap();
                time::sleep(Duration::from_secs(1)).await;
            }
        });
        world.sleep(Duration::from_secs(1)).await;
        b.pause();
        writer.await.unwrap();
        assert!(!server.is_finished());
        b.resume();
        assert_eq!(server.await.unwrap(), 10_000);
    }));
}

#[test]
fn a_listener_takes_many_at_once() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        let server = b.run(async {
            let listener = listen().await;
            time::sleep(Duration::from_secs(1)).await;
            for _ in 0..100 {
                listener.accept().await.unwrap();
            }
        });
        world.sleep(Duration::from_millis(1)).await;
        let addr = SocketAddr::new(b.ip(), PORT);
        let clients: Vec<_> =
            (0..100).map(|_| a.run(async move { TcpStream::connect(addr).await })).collect();
        for client in clients {
            client.await.unwrap().unwrap();
        }
        server.await.unwrap();
    }));
}

#[test]
fn closed_connections_leave_nothing_behind() {
    let outcome = run(1, |world| async move {
        let (a, b) = two(world);
        b.spawn(|| async {
            let listener = listen().await;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                task::spawn(async move {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).await.unwrap();
                    stream.write_all(&byte).await.unwrap();
                });
            }
        });
        world.sleep(Duration::from_millis(1)).await;
        let addr = SocketAddr::new(b.ip(), PORT);
        a.run(async move {
            for n in 0..20 {
                let mut stream = TcpStream::connect(addr).await.unwrap();
                stream.write_all(&[n]).await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), n);
                assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
            }
        })
        .await
        .unwrap();
        world.sleep(Duration::from_secs(70)).await;
        world.open_connections()
    });
    assert_eq!(ok(outcome), 0);
}
