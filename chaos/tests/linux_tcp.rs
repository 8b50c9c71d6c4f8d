//! What a program meets of a Linux TCP: its retries, and how connections end.
#![cfg(madsim)]

use chaos::rt::net::{TcpListener, TcpStream};
use chaos::rt::{task, time};
use chaos::{DropCause, Host, LinkConfig, RunOutcome, World, run};
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PORT: u16 = 80;

fn ok<T>(outcome: RunOutcome<T>) -> T {
    outcome.result.unwrap_or_else(|failure| panic!("{failure}"))
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn two(world: World) -> (Host, Host) {
    (world.host("a").addr("10.0.0.1"), world.host("b").addr("10.0.0.2"))
}

async fn listen() -> TcpListener {
    TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], PORT))).await.unwrap()
}

async fn connect(to: Host) -> io::Result<TcpStream> {
    TcpStream::connect(SocketAddr::new(to.ip(), PORT)).await
}

/// Accepts one connection, and holds it.
fn hold(host: Host) {
    host.spawn(|| async {
        let _held = listen().await.accept().await.unwrap();
        pending::<()>().await;
    });
}

/// The whole seconds at which the number of segments that a host's path has lost grew, within a time.
async fn losses(world: World, within: Duration) -> Vec<u64> {
    let (begun, mut lost, mut seen) = (world.elapsed(), 0, Vec::new());
    while world.elapsed() - begun < within {
        world.sleep(Duration::from_millis(100)).await;
        let now = world.stats().dropped(DropCause::Partition);
        if now > lost {
            lost = now;
            seen.push((world.elapsed() - begun).as_secs());
        }
    }
    seen
}

/// tcp(7), `tcp_syn_retries`: "6, which corresponds to retrying for up to approximately 127 seconds".
#[test]
fn a_syn_is_sent_seven_times_and_the_connect_fails_after_127_seconds() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        world.partition(&[a], &[b]);
        let begun = world.elapsed();
        let connected = a.run(async move { connect(b).await.unwrap_err().kind() });
        assert_eq!(losses(world, secs(126)).await, [0, 1, 3, 7, 15, 31, 63]);
        assert!(!connected.is_finished());
        assert_eq!(connected.await.unwrap(), io::ErrorKind::TimedOut);
        assert_eq!((world.elapsed() - begun).as_secs(), 127);
    }));
}

/// tcp(7), `tcp_synack_retries`: 5, after which the half-open connection is gone without a word.
#[test]
fn a_syn_ack_is_sent_six_times_and_the_half_open_connection_forgotten_after_63_seconds() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        hold(b);
        world.sleep(Duration::from_millis(1)).await;
        // a ends its attempt while the SYN-ACK is on its way, so that it neither sends a SYN again nor answers.
        a.run(async move { drop(time::timeout(Duration::from_millis(15), connect(b)).await) }).await.unwrap();
        world.partition(&[a], &[b]);
        assert_eq!(losses(world, secs(62)).await, [0, 1, 3, 7, 15, 31]);
        assert_eq!(world.open_connections(), 1);
        world.sleep(secs(1)).await;
        assert_eq!(world.open_connections(), 0);
    }));
}

/// RFC 9293, 3.10.7.4: an RST returns a half-open connection to its listener, which has its place again.
#[test]
fn an_attempt_that_is_dropped_leaves_no_half_open_connection() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        hold(b);
        world.sleep(Duration::from_millis(1)).await;
        a.run(async move { drop(time::timeout(Duration::from_millis(15), connect(b)).await) }).await.unwrap();
        assert_eq!(world.open_connections(), 1);
        world.sleep(Duration::from_millis(100)).await;
        assert_eq!(world.open_connections(), 0);
    }));
}

/// RFC 6298, 5.5; Linux's `TCP_RTO_MIN` and `TCP_RTO_MAX`.
#[test]
fn data_are_sent_again_after_200_ms_and_ever_more_seldom_for_as_long_as_the_host_is_told() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        let a = a.set_tcp_user_timeout(secs(600));
        hold(b);
        world.sleep(Duration::from_millis(1)).await;
        let ended = a.run(async move {
            let mut stream = connect(b).await.unwrap();
            time::sleep(secs(1)).await;
            stream.write_all(b"lost").await.unwrap();
            stream.read_u8().await.unwrap_err().kind()
        });
        world.sleep(Duration::from_millis(500)).await;
        world.partition(&[a], &[b]);
        world.sleep(Duration::from_millis(540)).await;
        // Once, after 220 ms again, and so on, doubled up to 2 minutes.
        let lost = losses(world, secs(590)).await;
        assert_eq!(lost, [0, 0, 0, 1, 3, 6, 13, 28, 56, 112, 225, 345, 465, 585]);
        assert!(!ended.is_finished());
        assert_eq!(ended.await.unwrap(), io::ErrorKind::TimedOut);
        assert_eq!(world.elapsed().as_secs(), 601);
    }));
}

/// ip-sysctl, `tcp_retries2`; tcp(7), `TCP_USER_TIMEOUT`; RFC 5482. Linux sends no RST then (`tcp_write_err`).
#[test]
fn a_peer_without_an_answer_is_given_up_after_a_time_of_its_own_and_is_not_told() {
    let patience = |seed| {
        ok(run(seed, |world| async move {
            let (a, b) = two(world);
            let told = b.run(async move {
                let (mut stream, _) = listen().await.accept().await.unwrap();
                stream.read_exact(&mut [0; 7]).await.unwrap();
                time::timeout(secs(1_000), stream.read_u8()).await.is_ok()
            });
            world.sleep(Duration::from_millis(1)).await;
            let ended = a.run(async move {
                let mut stream = connect(b).await.unwrap();
                time::sleep(secs(1)).await;
                stream.write_all(b"arrives").await.unwrap();
                let error = stream.read_u8().await.unwrap_err();
                assert_eq!(stream.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
                error.kind()
            });
            world.sleep(Duration::from_millis(500)).await;
            // Only the acknowledgements are lost.
            world.partition_one_way(&[b], &[a]);
            assert_eq!(ended.await.unwrap(), io::ErrorKind::TimedOut);
            let took = world.elapsed();
            assert!(!told.await.unwrap());
            took
        }))
    };
    let mut times: Vec<Duration> = (0..8).map(patience).collect();
    times.sort();
    assert!(times[0] >= secs(31) && times[7] <= secs(902), "{times:?}");
    assert!(times[7] > 2 * times[0], "{times:?}");
    times.dedup();
    assert_eq!(times.len(), 8);
}

/// listen(2): "the request may be ignored so that a later reattempt at connection succeeds".
#[test]
fn a_full_backlog_drops_syns_and_their_retries_succeed_once_the_program_accepts() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        b.set_backlog(3);
        let accepted = b.run(async {
            let listener = listen().await;
            time::sleep(secs(5)).await;
            let mut held = Vec::new();
            while let Ok(accepted) = time::timeout(secs(60), listener.accept()).await {
                held.push(accepted.unwrap());
            }
            held.len()
        });
        world.sleep(Duration::from_millis(1)).await;
        let clients: Vec<_> =
            (0..6).map(|_| a.run(async move { time::timeout(secs(60), connect(b)).await })).collect();
        world.sleep(secs(4)).await;
        assert_eq!(clients.iter().filter(|client| client.is_finished()).count(), 3);
        let dropped = world.stats().dropped(DropCause::Backlog);
        assert!(dropped >= 9, "{dropped}");
        for client in clients {
            client.await.unwrap().unwrap().unwrap();
        }
        assert_eq!(accepted.await.unwrap(), 6);
    }));
}

/// tcp(7), `tcp_abort_on_overflow` is off: the last ACK of a handshake is dropped, so the client is ahead of its server.
#[test]
fn a_client_may_be_connected_to_a_listener_that_has_no_room_for_it_yet() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        b.set_backlog(2);
        let served = b.run(async {
            let listener = listen().await;
            time::sleep(secs(5)).await;
            let mut sum = 0;
            for _ in 0..3 {
                sum += listener.accept().await.unwrap().0.read_u8().await.unwrap();
            }
            sum
        });
        world.sleep(Duration::from_millis(1)).await;
        let greet = move |byte| async move {
            let mut stream = connect(b).await.unwrap();
            stream.write_all(&[byte]).await.unwrap();
            stream
        };
        let _first = a.run(greet(1)).await.unwrap();
        // Both SYNs find one place left, and the second ACK finds none.
        let (second, third) = (a.run(greet(2)), a.run(greet(4)));
        let _both = (second.await.unwrap(), third.await.unwrap());
        assert!(world.elapsed() < secs(1));
        world.sleep(secs(3)).await;
        assert!(world.stats().dropped(DropCause::Backlog) >= 2, "the ACK, and the byte again and again");
        assert_eq!(served.await.unwrap(), 7);
    }));
}

/// RFC 9293, 3.5.2 and 3.10.7.1: whatever is for no connection is answered by RST.
#[test]
fn a_host_that_rebooted_resets_what_it_does_not_know_and_refuses_what_nobody_listens_for() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        hold(b);
        world.sleep(Duration::from_millis(1)).await;
        let read = a.run(async move {
            let mut stream = connect(b).await.unwrap();
            time::sleep(secs(10)).await;
            stream.write_all(b"do you know me?").await.unwrap();
            (stream.read_u8().await.unwrap_err().kind(), connect(b).await.unwrap_err().kind())
        });
        world.sleep(secs(5)).await;
        b.power_loss();
        b.spawn(pending::<()>);
        b.restart();
        assert_eq!(read.await.unwrap(), (io::ErrorKind::ConnectionReset, io::ErrorKind::ConnectionRefused));
        assert_eq!(world.elapsed().as_secs(), 10);
    }));
}

/// tcp(7): `SO_KEEPALIVE` is off by default, so only a send finds a peer that vanished (RFC 1122, 4.2.3.6).
#[test]
fn an_idle_connection_to_a_host_that_vanished_is_not_noticed_until_it_sends() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        a.set_tcp_user_timeout(secs(40));
        hold(b);
        world.sleep(Duration::from_millis(1)).await;
        let ended = a.run(async move {
            let mut stream = connect(b).await.unwrap();
            let idle = time::timeout(secs(3_000), stream.read_u8()).await.is_err();
            stream.write_all(b"?").await.unwrap();
            (idle, stream.read_u8().await.unwrap_err().kind())
        });
        world.sleep(secs(5)).await;
        b.power_loss();
        assert_eq!(ended.await.unwrap(), (true, io::ErrorKind::TimedOut));
        assert_eq!(world.elapsed().as_secs(), 3_040);
    }));
}

/// RFC 2923, 2.1; ip-sysctl, `tcp_mtu_probing` is off.
#[test]
fn a_black_hole_passes_small_segments_and_stalls_full_ones_until_the_connection_ends() {
    let upload = |black_hole: bool, bytes: usize| {
        ok(run(1, move |world| async move {
            let (a, b) = two(world);
            let narrow = LinkConfig { mtu: 1280, black_hole, ..LinkConfig::default() };
            // Only what a sends meets it: the MSS that b announces doesn't show it.
            world.set_link(a, b, narrow);
            let got = b.run(async move {
                let (mut stream, _) = listen().await.accept().await.unwrap();
                let mut got = Vec::new();
                stream.read_to_end(&mut got).await.map(|_| got.len())
            });
            world.sleep(Duration::from_millis(1)).await;
            a.set_tcp_user_timeout(secs(100));
            let sent = a.run(async move {
                let mut stream = connect(b).await?;
                stream.write_all(&vec![7; bytes]).await?;
                stream.shutdown().await?;
                stream.read(&mut [0; 1]).await
            });
            let sent = sent.await.unwrap().map_err(|error| error.kind());
            (sent, got.is_finished(), world.stats().dropped(DropCause::Mtu) > 0)
        }))
    };
    assert_eq!(upload(false, 100_000), (Ok(0), true, false));
    assert_eq!(upload(true, 1_000), (Ok(0), true, false));
    assert_eq!(upload(true, 100_000), (Err(io::ErrorKind::TimedOut), false, true));
}

/// tcp(7), `tcp_fin_timeout`: 60 s.
#[test]
fn the_peers_end_is_awaited_for_a_minute_by_a_connection_without_a_holder() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        hold(b);
        world.sleep(Duration::from_millis(1)).await;
        a.run(async move { drop(connect(b).await.unwrap()) }).await.unwrap();
        world.sleep(secs(59)).await;
        assert_eq!(world.open_connections(), 2);
        world.sleep(secs(2)).await;
        assert_eq!(world.open_connections(), 1);
    }));
}

/// RFC 1122, 4.2.2.13; RFC 2525, 2.17.
#[test]
fn bytes_for_a_connection_without_a_holder_are_answered_by_a_reset() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        let ended = b.run(async move {
            let (mut stream, _) = listen().await.accept().await.unwrap();
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
            time::sleep(secs(30)).await;
            stream.write_all(b"too late").await.unwrap();
            time::sleep(secs(1)).await;
            stream.write(b"later").await.unwrap_err().kind()
        });
        world.sleep(Duration::from_millis(1)).await;
        a.run(async move { drop(connect(b).await.unwrap()) }).await.unwrap();
        assert_eq!(ended.await.unwrap(), io::ErrorKind::ConnectionReset);
    }));
}

/// ip-sysctl, `tcp_orphan_retries`: 8 if it is 0, at least 100 s.
#[test]
fn a_connection_without_a_holder_goes_on_for_its_retries_and_leaves_nothing_behind() {
    ok(run(1, |world| async move {
        let (a, b) = two(world);
        b.spawn(|| async {
            let listener = listen().await;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                task::spawn(async move {
                    let mut got = Vec::new();
                    assert_eq!(stream.read_to_end(&mut got).await.unwrap(), 4);
                });
            }
        });
        world.sleep(Duration::from_millis(1)).await;
        let leave = move || async move {
            let mut stream = connect(b).await.unwrap();
            time::sleep(secs(1)).await;
            stream.write_all(b"late").await.unwrap();
        };
        for lasts in [70, 600] {
            let left = a.run(leave());
            world.sleep(Duration::from_millis(500)).await;
            world.partition(&[a], &[b]);
            left.await.unwrap();
            world.sleep(secs(lasts)).await;
            world.heal();
            world.sleep(secs(100)).await;
            // Nothing has told b of the connection that a gave up.
            assert_eq!(world.open_connections(), usize::from(lasts > 100));
        }
    }));
}
