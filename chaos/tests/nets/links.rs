//! The effects of links on packets that pass several of them, with boxes between.

use crate::boxes::{Cone, Tap};
use crate::support::{Port, addr, ms, observer, ok, open};
use chaos::link::{Bandwidth, Burst};
use chaos::middlebox::{Modem, Protocol};
use chaos::{DropCause, LinkConfig, Net, Rate, World, run};

/// A server, and a home.
async fn world_with(world: World, home_box: impl chaos::Middlebox) -> (Port, Net) {
    let server = world.internet().host("server", "198.51.100.7");
    (open(server).await, world.internet().nat("home", &["203.0.113.1"], home_box))
}

const SERVER: &str = "198.51.100.7:4000";

#[test]
fn all_flows_of_a_home_share_the_queue_of_its_line() {
    ok(run(1, |world| async move {
        let server = open(world.internet().host("server", "198.51.100.7")).await;
        let other = open(world.internet().host("other", "198.51.100.8")).await;
        let line = world.internet().nat("line", &[], Modem);
        let home = line.nat("home", &["203.0.113.1"], Cone::open());
        let (a, b) = (open(home.host("a", "192.168.1.2")).await, open(home.host("b", "192.168.1.3")).await);
        // 100 kB/s: a packet of 1,000 bytes every 10 ms.
        let bandwidth = Bandwidth { bytes_per_second: 100_000, queue_bytes: 30_000 };
        world.set_link(home, line, LinkConfig { bandwidth: Some(bandwidth), ..LinkConfig::ideal() });
        let begun = world.elapsed();
        for _ in 0..10 {
            a.send(addr(SERVER), &[0; 972]).await;
            b.send(addr(SERVER), &[0; 972]).await;
            a.send(addr("198.51.100.8:4000"), &[0; 972]).await;
            b.send(addr("198.51.100.8:4000"), &[0; 972]).await;
        }
        let mut arrived = 0;
        while server.receive_bytes(ms(100)).await.is_some() {
            arrived += 1;
        }
        let took = world.elapsed() - begun - ms(100);
        while other.receive_bytes(ms(1)).await.is_some() {
            arrived += 1;
        }
        assert_eq!(arrived, 30);
        assert_eq!(world.stats().dropped(DropCause::QueueFull), 10);
        assert!(took > ms(280) && took < ms(320), "{took:?}");
        // The opposite direction is another link.
        assert_eq!(world.link(line, home), LinkConfig::ideal());
    }));
}

/// 1,000 bytes with the headers of IP and UDP.
const KB: [u8; 972] = [0; 972];

/// What a send on its host returns.
async fn try_send(port: &Port) -> std::io::Result<()> {
    let (host, port) = (port.host, port.clone());
    host.run(async move { port.try_send(addr(SERVER), &KB) }).await.unwrap()
}

/// udp(7) and socket(7), SO_SNDBUF: what an interface has not sent yet is charged to its socket, and a full socket blocks
/// (`sock_alloc_send_pskb`), before the interface's queue drops if that is longer. Less than half full, it is writable again
/// (`sock_writeable`).
#[test]
fn a_socket_whose_send_buffer_is_full_blocks_until_it_is_half_empty() {
    ok(run(1, |world| async move {
        let (server, home) = world_with(world, Cone::open()).await;
        let a = open(home.host("a", "192.168.1.2")).await;
        let b = open(home.host("b", "192.168.1.3")).await;
        let slow = |queue_bytes| LinkConfig {
            bandwidth: Some(Bandwidth { bytes_per_second: 100_000, queue_bytes }),
            ..LinkConfig::ideal()
        };
        world.set_link(a.host, home, slow(1_000_000));
        let mut sent = 0;
        while try_send(&a).await.is_ok() {
            sent += 1;
        }
        assert_eq!(sent, 213, "net.core.wmem_default is 212,992 bytes");
        assert_eq!(try_send(&a).await.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        // Another host of the home has a link of its own.
        assert!(try_send(&b).await.is_ok());
        world.sleep(ms(1_000)).await;
        assert!(try_send(&a).await.is_err(), "113,000 bytes wait");
        let begun = world.elapsed();
        a.writable().await.unwrap();
        // 106,495 bytes wait.
        let took = world.elapsed() - begun;
        assert!(took > ms(64) && took < ms(66), "{took:?}");
        assert!(try_send(&a).await.is_ok());
        assert_eq!(world.stats().dropped(DropCause::QueueFull), 0);
        assert_eq!(server.receive_all().await.len(), 215);
        a.writable().await.unwrap();
        // A queue that is shorter than the buffer drops instead.
        world.set_link(a.host, home, slow(30_000));
        for _ in 0..300 {
            assert!(try_send(&a).await.is_ok());
        }
        assert_eq!(world.stats().dropped(DropCause::QueueFull), 270);
    }));
}

#[test]
fn a_writer_goes_on_soon_after_its_link_has_become_fast() {
    ok(run(1, |world| async move {
        let (_, home) = world_with(world, Cone::open()).await;
        let a = open(home.host("a", "192.168.1.2").set_udp_send_buffer(10_000)).await;
        let bandwidth = Bandwidth { bytes_per_second: 100, queue_bytes: 1_000_000 };
        world.set_link(a.host, home, LinkConfig { bandwidth: Some(bandwidth), ..LinkConfig::ideal() });
        let mut sent = 0;
        while try_send(&a).await.is_ok() {
            sent += 1;
        }
        assert_eq!(sent, 10);
        let (host, port) = (a.host, a.clone());
        let writable = host.run(async move { port.writable().await });
        world.sleep(ms(2_000)).await;
        assert!(!writable.is_finished());
        world.unset_link(a.host, home);
        world.sleep(ms(101)).await;
        assert!(writable.is_finished() && try_send(&a).await.is_ok());
    }));
}

#[test]
fn the_way_to_the_box_is_a_link_too() {
    ok(run(1, |world| async move {
        let (server, home) = world_with(world, Cone::open()).await;
        let (a, b) = (open(home.host("a", "192.168.1.2")).await, open(home.host("b", "192.168.1.3")).await);
        world.set_link(a.host, home, LinkConfig { udp_loss: Rate::ALWAYS, ..LinkConfig::ideal() });
        a.send(addr(SERVER), b"a").await;
        b.send(addr(SERVER), b"b").await;
        assert_eq!(server.receive_all().await, [b"b"]);
        world.unset_link(a.host, home);
        home.link_default(LinkConfig { latency: ms(100), ..LinkConfig::default() });
        let begun = world.elapsed();
        a.send(addr(SERVER), b"a").await;
        assert!(server.receive().await.is_some());
        let took = world.elapsed() - begun;
        assert!(took >= ms(110) && took < ms(111), "{took:?}");
        assert_eq!(world.link(a.host, home).latency, ms(100));
        assert_eq!(world.link(home, server.host).latency, ms(10));
    }));
}

#[test]
fn losses_of_a_box_link_stand_together_and_in_its_direction_only() {
    ok(run(1, |world| async move {
        let (server, home) = world_with(world, Cone::open()).await;
        let a = open(home.host("a", "192.168.1.2")).await;
        let burst = Burst { begin: Rate::percent(5), end: Rate::percent(10), loss: Rate::ALWAYS };
        world.set_link(home, server.host, LinkConfig { burst: Some(burst), ..LinkConfig::default() });
        for number in 0..400u32 {
            a.send(addr(SERVER), &number.to_le_bytes()).await;
        }
        let (first, from) = server.receive_bytes(ms(1000)).await.unwrap();
        let mut there: Vec<u32> = vec![u32::from_le_bytes(first.try_into().unwrap())];
        there.extend(
            server.receive_all().await.into_iter().map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap())),
        );
        let gaps = there.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        let lost = 400 - there.len();
        // The link is bad for a third of the time, in bursts of ten packets.
        assert!(lost > 60 && lost < 220 && lost / gaps >= 4, "{lost} in {gaps} gaps");
        for _ in 0..100 {
            server.send(from, b"back").await;
        }
        assert_eq!(a.receive_all().await.len(), 100);
    }));
}

#[test]
fn a_cut_datagram_reaches_its_reader_through_a_box_with_right_checksums() {
    ok(run(1, |world| async move {
        let tap = Tap::default();
        let (server, line) = world_with(world, tap.clone()).await;
        let home = line.nat("inner", &["203.0.113.2"], Cone::open());
        let a = open(home.host("a", "192.168.1.2")).await;
        observer(world);
        let at_a = a.reflexive().await.unwrap();
        world.set_link(server.host, line, LinkConfig { truncate: Rate::ALWAYS, ..LinkConfig::default() });
        let body: Vec<u8> = (0..=255).collect();
        for _ in 0..50 {
            server.send(at_a, &body).await;
        }
        let got = a.receive_all().await;
        assert_eq!(got.len(), 50);
        assert!(got.iter().all(|got| got.len() < 256 && body.starts_with(got)));
        let lengths: std::collections::BTreeSet<usize> = got.iter().map(Vec::len).collect();
        assert!(lengths.len() > 20, "{lengths:?}");
        assert_eq!(world.stats().packets_truncated, 50);
        for packet in tap.seen() {
            crate::capture::assert_well_formed(packet.bytes());
        }
    }));
}

#[test]
fn damage_that_no_checksum_notices_is_one_bit_of_the_body() {
    ok(run(1, |world| async move {
        let (server, home) = world_with(world, Cone::open()).await;
        let a = open(home.host("a", "192.168.1.2")).await;
        world.set_link(a.host, home, LinkConfig { corrupt: Rate::ALWAYS, ..LinkConfig::ideal() });
        let body = b"a body to be damaged";
        for _ in 0..100 {
            a.send(addr(SERVER), body).await;
        }
        let got = server.receive_all().await;
        assert!(!got.is_empty());
        for got in got {
            let flipped = got.iter().zip(body).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
            assert_eq!((got.len(), flipped), (body.len(), 1));
        }
    }));
}

#[test]
fn damage_stays_damage_through_a_box_that_rewrites_and_a_link_that_cuts() {
    ok(run(1, |world| async move {
        let (server, home) = world_with(world, Cone::open()).await;
        let a = open(home.host("a", "192.168.1.2")).await;
        world.set_link(a.host, home, LinkConfig { corrupt: Rate::ALWAYS, ..LinkConfig::ideal() });
        world.set_link(home, server.host, LinkConfig { truncate: Rate::ALWAYS, ..LinkConfig::default() });
        for _ in 0..100 {
            a.send(addr(SERVER), b"a body to be damaged").await;
        }
        // A datagram with unnoticed damage is truncated like any other.
        let unnoticed = server.receive_all().await.len() as u64;
        assert!((30..70).contains(&unnoticed), "{unnoticed}");
        assert_eq!(world.stats().dropped(DropCause::Checksum), 100 - unnoticed);
        assert_eq!(world.stats().packets_truncated, unnoticed);
    }));
}

#[test]
fn duplicates_pass_a_box_as_two_packets_of_one_sender() {
    ok(run(1, |world| async move {
        let (server, home) = world_with(world, Cone::open()).await;
        let a = open(home.host("a", "192.168.1.2")).await;
        home.link_default(LinkConfig { duplicate: Rate::ALWAYS, latency: ms(1), ..LinkConfig::default() });
        a.send(addr(SERVER), b"twice").await;
        let first = server.receive().await.unwrap();
        assert_eq!(server.receive().await.unwrap(), first);
        assert_eq!(server.receive().await, None);
        assert_eq!(world.stats().packets_duplicated, 1);
    }));
}

#[test]
fn hosts_on_links_without_latency_do_not_stop_the_world() {
    ok(run(1, |world| async move {
        let (_, home) = world_with(world, Cone::open()).await;
        let a = open(home.host("a", "192.168.1.2")).await;
        let b = open(home.host("b", "192.168.1.3")).await;
        // Answers as fast as possible, for ever.
        let play = |port: Port, neighbour: &'static str| {
            let host = port.host;
            host.run(async move {
                while port.receive().await.is_some() {
                    port.send(addr(neighbour), b"ball").await;
                }
            })
        };
        let one = play(a, "192.168.1.3:4000");
        b.send(addr("192.168.1.2:4000"), b"ball").await;
        let other = play(b, "192.168.1.2:4000");
        world.sleep(ms(10)).await;
        let rounds = world.stats().udp_datagrams;
        assert!(rounds > 100 && rounds < 1_100, "a kernel takes 10 µs, and has done {rounds} in 10 ms");
        assert!(!one.is_finished() && !other.is_finished());
    }));
}

#[test]
fn tcp_keeps_its_order_over_several_jittery_hops_and_datagrams_do_not() {
    ok(run(1, |world| async move {
        let tap = Tap::default();
        let far = world.internet().nat("far", &[], tap.clone());
        let server = far.host("server", "198.51.100.7");
        let jittery = LinkConfig { jitter: ms(20), ..LinkConfig::default() };
        world.link_default(jittery.clone());
        let carrier = world.internet().nat("carrier", &["203.0.113.1"], Cone::open());
        let home = carrier.nat("home", &["100.64.0.1"], Cone::open());
        carrier.link_default(jittery.clone());
        home.link_default(jittery);
        let a = home.host("a", "192.168.1.2");
        let sums = crate::streams::copy(world, a, server, "198.51.100.7:80", 300_000).await;
        assert_eq!(sums.0, sums.1);
        let a = open(a).await;
        for number in 0..100u16 {
            a.send(addr(SERVER), &number.to_be_bytes()).await;
        }
        world.sleep(ms(1000)).await;
        let number = |packet: &chaos::middlebox::Packet, at: usize, len: usize| {
            packet.bytes()[at..at + len].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let of = |protocol: Protocol, at: usize, len: usize| -> Vec<u64> {
            let packets = tap.seen();
            let packets = packets.iter().filter(|packet| packet.protocol() == protocol);
            packets.map(|packet| number(packet, at, len)).collect()
        };
        // Sequence numbers, relative to the first one so that they don't wrap, and the datagrams' bodies.
        let sequence = of(Protocol::Tcp, 24, 4);
        let first = sequence[0] as u32;
        let mut seen = std::collections::BTreeSet::new();
        // A retransmitted segment may come late.
        let new = sequence.iter().map(|number| (*number as u32).wrapping_sub(first));
        let sequence: Vec<u32> = new.filter(|number| seen.insert(*number)).collect();
        assert!(sequence.len() > 200 && sequence.is_sorted(), "{} segments", sequence.len());
        let datagrams = of(Protocol::Udp, 28, 2);
        assert!(datagrams.len() == 100 && !datagrams.is_sorted());
    }));
}
