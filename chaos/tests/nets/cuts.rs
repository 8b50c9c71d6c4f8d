//! Partitions between hosts, whatever boxes lie between them.

use crate::boxes::Cone;
use crate::support::{Port, ms, observer, ok, open};
use chaos::{DropCause, LinkConfig, World, run};
use std::net::SocketAddr;

/// a and b, each in a home of its own, and a neighbour of a, with their reflexive addresses. Paths take 10 ms.
async fn homes(world: World) -> [(Port, SocketAddr); 3] {
    observer(world);
    let one = world.internet().nat("one", &["203.0.113.1"], Cone::open());
    let other = world.internet().nat("other", &["203.0.113.2"], Cone::open());
    let hosts =
        [one.host("a", "192.168.1.2"), other.host("b", "192.168.1.2"), one.host("neighbour", "192.168.1.3")];
    let mut ports = Vec::new();
    for host in hosts {
        let port = open(host).await;
        let at = port.reflexive().await.unwrap();
        ports.push((port, at));
    }
    ports.try_into().unwrap_or_else(|_| unreachable!())
}

#[test]
fn a_cut_lies_between_two_hosts_and_leaves_their_neighbours_alone() {
    ok(run(1, |world| async move {
        let [(a, at_a), (b, at_b), (neighbour, at_neighbour)] = homes(world).await;
        world.partition(&[a.host], &[b.host]);
        a.send(at_b, b"cut").await;
        b.send(at_a, b"cut").await;
        neighbour.send(at_b, b"around it").await;
        assert_eq!(b.receive().await.unwrap(), ("around it".to_owned(), at_neighbour));
        assert_eq!(a.receive().await, None);
        assert_eq!(b.receive().await, None);
        assert_eq!(world.stats().dropped(DropCause::Partition), 2);
        assert!(a.reflexive().await.is_some());
        world.mend(&[a.host], &[b.host]);
        a.send(at_b, b"mended").await;
        assert_eq!(b.receive().await.unwrap().0, "mended");
    }));
}

#[test]
fn a_cut_one_way_leaves_the_way_back_open() {
    ok(run(1, |world| async move {
        let [(a, at_a), (b, at_b), _] = homes(world).await;
        world.partition_one_way(&[a.host], &[b.host]);
        a.send(at_b, b"cut").await;
        b.send(at_a, b"open").await;
        assert_eq!(a.receive().await.unwrap().0, "open");
        assert_eq!(b.receive().await, None);
    }));
}

#[test]
fn a_packet_meets_a_cut_at_any_moment_of_its_way() {
    // Sent at 20 ms, received at 30 ms (whole milliseconds, apart from the kernels' time).
    for (cut_ms, heal_ms, arrives) in
        [(0, 10, true), (0, 25, false), (22, 27, false), (25, 60, false), (35, 60, true)]
    {
        ok(run(1, move |world| async move {
            let [(a, _), (b, at_b), _] = homes(world).await;
            let send = async {
                chaos::rt::time::sleep(ms(20)).await;
                a.send(at_b, b"x").await;
            };
            let cut = async {
                chaos::rt::time::sleep(ms(cut_ms)).await;
                world.partition(&[a.host], &[b.host]);
                chaos::rt::time::sleep(ms(heal_ms - cut_ms)).await;
                world.heal();
            };
            tokio::join!(biased; send, cut);
            assert_eq!(b.receive().await.is_some(), arrives, "cut from {cut_ms} to {heal_ms}");
        }));
    }
}

#[test]
fn a_packet_that_waits_for_its_link_meets_a_cut_too() {
    ok(run(1, |world| async move {
        let [(a, _), (b, at_b), _] = homes(world).await;
        let one = world.find_net("one").unwrap();
        world.set_link(a.host, one, LinkConfig { latency: ms(500), ..LinkConfig::default() });
        a.send(at_b, b"x").await;
        world.sleep(ms(100)).await;
        world.partition(&[a.host], &[b.host]);
        world.sleep(ms(100)).await;
        world.heal();
        assert_eq!(b.receive().await, None);
        assert_eq!(world.stats().dropped(DropCause::Partition), 1);
    }));
}
