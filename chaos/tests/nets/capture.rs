//! The content of a capture: every packet as it leaves its host, and as it leaves each box that rewrites it.

use crate::boxes::Cone;
use crate::support::{OBSERVER, addr, observer, ok, open};
use chaos::{Decoder, DropCause, Labels, LinkConfig, Rate, RecordingOptions, Run, World};
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

/// A captured packet.
struct Captured {
    at_ns: u64,
    bytes: Vec<u8>,
    comment: String,
}

/// Reads a capture back, as the draft of pcapng says: blocks with their length on both sides.
#[allow(clippy::disallowed_methods, reason = "a capture is a file of this machine, not of a host")]
fn read_back(path: &PathBuf) -> Vec<Captured> {
    let bytes = std::fs::read(path).unwrap();
    std::fs::remove_file(path).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let half = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
    let (mut at, mut packets, mut kinds) = (0, Vec::new(), Vec::new());
    while at < bytes.len() {
        let (kind, len) = (word(at), word(at + 4) as usize);
        assert_eq!((word(at + len - 4) as usize, len % 4), (len, 0));
        kinds.push(kind);
        match kind {
            0x0A0D_0D0A => assert_eq!((word(at + 8), half(at + 12), half(at + 14)), (0x1A2B_3C4D, 1, 0)),
            1 => {
                assert_eq!(half(at + 8), 101, "raw IP");
                assert_eq!((half(at + 16), half(at + 18), bytes[at + 20]), (9, 1, 9), "nanoseconds");
            }
            6 => {
                let (length, from) = (word(at + 20) as usize, at + 28);
                assert_eq!((word(at + 8), word(at + 24) as usize), (0, length));
                let option = from + length.next_multiple_of(4);
                let text = usize::from(half(option + 2));
                assert_eq!(half(option), 1, "a comment");
                packets.push(Captured {
                    at_ns: u64::from(word(at + 12)) << 32 | u64::from(word(at + 16)),
                    bytes: bytes[from..from + length].to_vec(),
                    comment: String::from_utf8(bytes[option + 4..option + 4 + text].to_vec()).unwrap(),
                });
            }
            other => panic!("block {other}"),
        }
        at += len;
    }
    assert_eq!(kinds[..2], [0x0A0D_0D0A, 1]);
    packets
}

fn captured<Fut>(name: &str, scenario: fn(World) -> Fut) -> Vec<Captured>
where
    Fut: Future<Output = ()> + Send + 'static,
{
    let path = std::env::temp_dir().join(format!("chaos-{name}-{}.pcapng", std::process::id()));
    let decoder = Some((|_, bytes: &[u8], _: &Labels| format!("{} bytes", bytes.len())) as Decoder);
    let watching = RecordingOptions { capture: Some(path.clone()), decoder, ..RecordingOptions::default() };
    ok(Run::new(1).watching(watching).run(scenario));
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
        packets.iter().map(|packet| assert_well_formed(&packet.bytes)).collect();
    let (inner, outer, observer) = (addr("192.168.1.2:4000"), ends[1].0, addr("198.51.100.1:4000"));
    assert_eq!(outer.ip(), addr("203.0.113.1:1").ip());
    assert_eq!(ends, [(inner, observer), (outer, observer), (observer, outer), (observer, inner)]);
    assert!(packets.is_sorted_by_key(|packet| packet.at_ns));
    let comments: Vec<&str> = packets.iter().map(|packet| packet.comment.as_str()).collect();
    let whence = ["from a", "from a, by box home", "from observer", "from observer, by box home"];
    for (comment, whence) in comments.iter().zip(whence) {
        let (from, content) = comment.split_once(": ").unwrap();
        assert!(from == whence && content.ends_with(" bytes"), "{comments:?}");
    }
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
    for packet in packets {
        assert_well_formed(&packet.bytes);
    }
}
