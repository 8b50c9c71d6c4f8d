//! A thousand worlds in one process leave its memory as it was: no pending task, connection, mapping or packet in
//! flight outlives its run. This is a test binary of its own, because it measures the process.
#![cfg(madsim)]

use chaos::middlebox::{BoxVerdict, Middlebox, Packet, Passage};
use chaos::rt::net::{TcpListener, TcpStream, Transmit, UdpSocket};
use chaos::rt::{disk, task, time};
use chaos::{Host, LinkConfig, Rate, run};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const PORT: u16 = 4000;

/// The memory that each process and each box holds at its end, large enough to show a leak.
const HELD_BYTES: usize = 64 << 10;

fn addr(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), PORT)
}

/// Translates the addresses of its only host, and holds memory.
struct Holding(Vec<u8>);

impl Middlebox for Holding {
    fn outbound(&mut self, passage: &mut Passage<'_>, packet: &mut Packet) -> BoxVerdict {
        self.0.push(1);
        packet.set_src(SocketAddr::new(passage.outer[0], packet.src().port()));
        BoxVerdict::Pass
    }

    fn inbound(&mut self, _: &mut Passage<'_>, packet: &mut Packet) -> BoxVerdict {
        let port = packet.dst().port();
        packet.set_dst(SocketAddr::new("192.168.1.2".parse().unwrap(), port));
        BoxVerdict::Pass
    }

    fn describe(&self) -> String {
        "a box that holds memory".to_owned()
    }
}

/// Sends, connects and writes for ever, and holds memory.
async fn busy(peer: SocketAddr) {
    let held = vec![1u8; HELD_BYTES];
    let planes = task::Planes::start("n", 1).unwrap();
    planes.spawn(task::Plane::Compute, async move {
        std::future::pending::<()>().await;
        drop(held);
    });
    let any = SocketAddr::from(([0, 0, 0, 0], PORT));
    let (socket, listener) = (UdpSocket::bind(any).await.unwrap(), TcpListener::bind(any).await.unwrap());
    task::spawn(async move {
        let mut streams = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            streams.push(stream);
        }
    });
    let log = disk::File::open(Path::new("/log")).unwrap();
    task::spawn(async move {
        let mut stream = TcpStream::connect(peer).await.unwrap();
        let _ = stream.write_all(&[7; 5_000]).await;
        std::future::pending::<()>().await;
        drop(stream);
    });
    let mut at = 0;
    loop {
        let transmit = Transmit { destination: peer, contents: &[7; 500], segment_size: None, src_ip: None };
        let _ = socket.try_send(&transmit);
        log.write_all_at(&[7; 500], at).unwrap();
        at += 500;
        time::sleep(Duration::from_millis(50)).await;
    }
}

fn world(seed: u64) {
    let outcome = run(seed, |world| async move {
        world.link_default(LinkConfig {
            udp_loss: Rate::percent(10),
            jitter: Duration::from_millis(30),
            ..LinkConfig::default()
        });
        let home = |name: &str, outer: &str, peer: &'static str| {
            let home = world.internet().nat(name, &[outer], Holding(vec![1; HELD_BYTES]));
            home.host(&format!("in {name}"), "192.168.1.2").spawn(move || busy(addr(peer)))
        };
        let outside = |name: &str, ip: &str, peer: &'static str| {
            world.internet().host(name, ip).spawn(move || busy(addr(peer)))
        };
        let hosts: [Host; 4] = [
            home("one", "203.0.113.1", "203.0.113.2"),
            home("two", "203.0.113.2", "203.0.113.3"),
            outside("three", "203.0.113.3", "203.0.113.4"),
            outside("four", "203.0.113.4", "203.0.113.1"),
        ];
        world.sleep(Duration::from_millis(400)).await;
        hosts[0].restart();
        hosts[1].pause();
        hosts[2].power_loss();
        world.find_net("one").unwrap().reboot();
        world.sleep(Duration::from_millis(400)).await;
        let stats = world.stats();
        assert!(stats.packets_delivered > 20 && stats.tcp_connections > 4, "{stats:?}");
    });
    outcome.result.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
}

#[expect(clippy::disallowed_methods, reason = "asks the kernel, outside of every world")]
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_thousand_worlds_with_boxes_leave_memory_flat() {
    (0..50).for_each(world);
    let before = resident_kib();
    (50..1_050).for_each(world);
    let grown = resident_kib().saturating_sub(before);
    // A leaked process or box per world would be 64 MB or more, ten leaked kilobytes per world 10 MB.
    assert!(grown < 8 << 10, "grown by {grown} KiB");
}
