//! The content of a capture: every packet as it leaves its host, and as it leaves each box that rewrites it.

use crate::boxes::Cone;
use crate::support::{OBSERVER, addr, observer, ok, open};
use chaos::{DropCause, LinkConfig, Rate, Run, World};
use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Panics unless this is one IP packet with UDP or TCP in it and correct lengths and checksums; returns its ends.
pub(crate) fn assert_well_formed(bytes: &[u8]) -> (SocketAddr, SocketAddr) {
    let (src, dst, protocol, payload): (IpAddress, IpAddress, u8, &[u8]) = match bytes[0] >> 4 {
        4 => {
            let ip = Ipv4Packet::new_checked(bytes).unwrap();
            assert!(ip.verify_checksum());
            assert_eq!(usize::from(ip.total_len()), bytes.len());
            (ip.src_addr().into(), ip.dst_addr().into(), ip.next_header().into(), &bytes[20..])
        }
        _ => {
            let ip = Ipv6Packet::new_checked(bytes).unwrap();
            assert_eq!(ip.total_len(), bytes.len());
            (ip.src_addr().into(), ip.dst_addr().into(), ip.next_header().into(), &bytes[40..])
        }
    };
    let ports = match protocol {
        17 => {
            let udp = UdpPacket::new_checked(payload).unwrap();
            assert!(udp.verify_checksum(&src, &dst));
            assert_eq!(usize::from(udp.len()), payload.len());
            (udp.src_port(), udp.dst_port())
        }
        6 => {
            let tcp = TcpPacket::new_checked(payload).unwrap();
            assert!(tcp.verify_checksum(&src, &dst));
            (tcp.src_port(), tcp.dst_port())
        }
        other => panic!("protocol {other}"),
    };
    (SocketAddr::new(src.into(), ports.0), SocketAddr::new(dst.into(), ports.1))
}

/// Reads a capture back: time in nanoseconds and bytes of each packet.
#[allow(clippy::disallowed_methods, reason = "a capture is a file of this machine, not of a host")]
fn read_back(path: &PathBuf) -> Vec<(u64, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    std::fs::remove_file(path).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(20)), (0xA1B2_3C4D, 101), "nanoseconds, and raw IP");
    let (mut at, mut packets) = (24, Vec::new());
    while at < bytes.len() {
        let (time, len) = (u64::from(word(at)) * 1_000_000_000 + u64::from(word(at + 4)), word(at + 8));
        assert_eq!(len, word(at + 12));
        at += 16;
        packets.push((time, bytes[at..at + len as usize].to_vec()));
        at += len as usize;
    }
    packets
}

fn captured<Fut>(name: &str, scenario: fn(World) -> Fut) -> Vec<(u64, Vec<u8>)>
where
    Fut: Future<Output = ()> + Send + 'static,
{
    let path = std::env::temp_dir().join(format!("chaos-{name}-{}.pcap", std::process::id()));
    ok(Run::new(1).capture(&path).run(scenario));
    read_back(&path)
}

#[test]
fn a_capture_shows_a_packet_on_both_sides_of_a_box() {
    let packets = captured("both-sides", |world| async move {
        observer(world);
        let home = world.internet().nat("home", &["203.0.113.1"], Cone::open());
        open(home.host("a", "192.168.1.2")).await.reflexive().await.unwrap();
    });
    let ends: Vec<(SocketAddr, SocketAddr)> =
        packets.iter().map(|(_, bytes)| assert_well_formed(bytes)).collect();
    let (inner, outer, observer) = (addr("192.168.1.2:4000"), ends[1].0, addr("198.51.100.1:4000"));
    assert_eq!(outer.ip(), addr("203.0.113.1:1").ip());
    assert_eq!(ends, [(inner, observer), (outer, observer), (observer, outer), (observer, inner)]);
    assert!(packets.is_sorted_by_key(|(time, _)| *time));
}

#[test]
fn what_comes_in_for_nobody_is_not_sent_out_again() {
    let packets = captured("for-nobody", |world| async move {
        observer(world);
        let home = world.internet().nat("home", &["203.0.113.1"], Cone::open());
        let a = open(home.host("a", "192.168.1.2")).await;
        a.send(addr(OBSERVER), b"?").await;
        a.host.set_nic_up("eth0", false);
        assert_eq!(a.receive().await, None);
        assert_eq!(world.stats().dropped(DropCause::NoHost), 1);
    });
    // The request and the answer, each on both sides of the box.
    assert_eq!(packets.len(), 4);
}

#[test]
fn every_captured_packet_is_well_formed_whatever_the_links_do() {
    let packets = captured("well-formed", |world| async move {
        let bad = LinkConfig {
            corrupt: Rate::percent(10),
            truncate: Rate::percent(10),
            duplicate: Rate::percent(10),
            udp_loss: Rate::percent(5),
            tcp_loss: Rate::percent(5),
            ..LinkConfig::default()
        };
        world.link_default(bad.clone());
        let server = world.internet().host("server", "198.51.100.7").addr("2001:db8::7");
        let home = world.internet().nat("home", &["203.0.113.1"], Cone::open());
        home.link_default(bad);
        let a = home.host("a", "192.168.1.2");
        let (sent, got) = crate::streams::copy(world, a, server, "198.51.100.7:80", 100_000).await;
        assert_eq!(sent, got);
        let a = open(a).await;
        for number in 0..200u8 {
            a.send(addr("198.51.100.7:4000"), &vec![number; usize::from(number)]).await;
        }
        world.sleep(crate::support::ms(100)).await;
        let stats = world.stats();
        assert!(stats.packets_corrupted > 10 && stats.packets_truncated > 10, "{stats:?}");
    });
    assert!(packets.len() > 500, "{}", packets.len());
    for (_, bytes) in packets {
        assert_well_formed(&bytes);
    }
}
