//! A host's kernel: its interfaces, its queues, and its choice of source addresses.

use crate::boxes::Cone;
use crate::support::{addr, ms, observer, ok, open, open_at};
use chaos::rt::disk;
use chaos::rt::net::{TcpListener, TcpStream};
use chaos::rt::time;
use chaos::{DropCause, Host, run};
use std::path::Path;

#[test]
fn a_socket_of_an_address_leaves_by_its_interface_and_one_of_none_by_the_nearer_one() {
    ok(run(1, |world| async move {
        observer(world);
        let one = world.internet().nat("one", &["203.0.113.1"], Cone::open());
        let other = world.internet().nat("other", &["203.0.113.2"], Cone::open());
        let a = one.host("a", "192.168.1.2");
        a.attach("eth1", other, &["192.168.2.2"]);
        let printer = open(other.host("printer", "192.168.2.9")).await;
        // Unbound: the first interface leads out, the second to addresses on its link.
        let any = open(a).await;
        assert_eq!(any.reflexive().await.unwrap().ip(), one.outer_addrs()[0]);
        any.send(addr("192.168.2.9:4000"), b"x").await;
        assert_eq!(printer.receive().await.unwrap().1, addr("192.168.2.2:4000"));
        // Bound to an address, or with a requested source address.
        let second = open_at(a, "192.168.2.2:4001").await;
        assert_eq!(second.reflexive().await.unwrap().ip(), other.outer_addrs()[0]);
        any.send_from(Some(addr("192.168.2.2:1").ip()), addr("198.51.100.1:4000"), b"?").await;
        let answer = any.receive().await.unwrap().0;
        assert_eq!(addr(&answer).ip(), other.outer_addrs()[0]);
        // TCP chooses in the same way.
        let listening = printer
            .host
            .run(async { TcpListener::bind(addr("0.0.0.0:80")).await.unwrap().accept().await.unwrap().1 });
        world.sleep(ms(1)).await;
        a.run(async { TcpStream::connect(addr("192.168.2.9:80")).await.unwrap() }).await.unwrap();
        assert_eq!(listening.await.unwrap().ip(), addr("192.168.2.2:1").ip());
    }));
}

#[test]
fn an_answer_leaves_with_the_address_that_was_asked() {
    ok(run(1, |world| async move {
        let observer = observer(world).addr("198.51.100.2");
        let a = open(world.internet().host("a", "203.0.113.1")).await;
        a.send(addr("198.51.100.2:4000"), b"?").await;
        // The observer listens at its first address only.
        assert_eq!(a.receive().await, None);
        let any = open_at(observer, "198.51.100.2:4000").await;
        a.send(addr("198.51.100.2:4000"), b"?").await;
        any.send(any.receive().await.unwrap().1, b"!").await;
        assert_eq!(a.receive().await.unwrap().1, addr("198.51.100.2:4000"));
    }));
}

#[test]
fn a_full_receive_buffer_drops_what_comes() {
    ok(run(1, |world| async move {
        let (a, b) = (world.internet().host("a", "203.0.113.1"), world.internet().host("b", "203.0.113.2"));
        let (a, b) = (open(a).await, open(b.set_udp_buffer(10_000)).await);
        for _ in 0..30 {
            a.send(addr("203.0.113.2:4000"), &[0; 972]).await;
        }
        world.sleep(ms(100)).await;
        assert_eq!(world.stats().dropped(DropCause::BufferFull), 20);
        assert_eq!(b.receive_all().await.len(), 10);
        a.send(addr("203.0.113.2:4000"), b"room again").await;
        assert!(b.receive().await.is_some());
    }));
}

#[test]
fn a_full_backlog_lets_later_connections_wait_for_a_place() {
    ok(run(1, |world| async move {
        let server = world.internet().host("server", "198.51.100.7").set_backlog(2);
        let a = world.internet().host("a", "203.0.113.1");
        let accepted = server.run(async {
            let listener = TcpListener::bind(addr("0.0.0.0:80")).await.unwrap();
            time::sleep(ms(500)).await;
            let mut held = Vec::new();
            for _ in 0..4 {
                held.push(listener.accept().await.unwrap());
            }
            held.len()
        });
        world.sleep(ms(1)).await;
        let clients: Vec<_> = (0..4)
            .map(|_| a.run(async { TcpStream::connect(addr("198.51.100.7:80")).await.map(|_| ()) }))
            .collect();
        world.sleep(ms(400)).await;
        assert_eq!(clients.iter().filter(|client| client.is_finished()).count(), 2);
        assert!(world.stats().dropped(DropCause::Backlog) >= 2);
        assert_eq!(accepted.await.unwrap(), 4);
    }));
}

#[test]
fn a_host_without_room_for_a_connection_refuses_its_own_and_drops_others() {
    ok(run(1, |world| async move {
        let server = world.internet().host("server", "198.51.100.7").set_max_connections(2);
        let a = world.internet().host("a", "203.0.113.1").set_max_connections(3);
        server.run(async {
            let listener = TcpListener::bind(addr("0.0.0.0:80")).await.unwrap();
            let mut held = Vec::new();
            while let Ok(stream) = listener.accept().await {
                held.push(stream);
            }
        });
        world.sleep(ms(1)).await;
        let clients: Vec<_> = (0..4)
            .map(|_| a.run(async { TcpStream::connect(addr("198.51.100.7:80")).await.is_ok() }))
            .collect();
        world.sleep(ms(400)).await;
        assert!(world.stats().dropped(DropCause::Backlog) >= 1);
        assert_eq!(clients.iter().filter(|client| !client.is_finished()).count(), 1);
        assert!(world.open_connections() <= 5);
    }));
}

#[test]
fn a_lost_power_takes_unsynced_bytes_and_the_host_is_dark_until_it_restarts() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..12 {
        let after = ok(run(seed, |world| async move {
            let a = world.internet().host("a", "203.0.113.1");
            let b = open(world.internet().host("b", "203.0.113.2")).await;
            a.run(async {
                disk::create_new_private(Path::new("/log"), &[1; 512]).unwrap();
                let file = disk::File::open(Path::new("/log")).unwrap();
                file.write_all_at(&[2; 512], 0).unwrap();
                file.write_all_at(&[3; 700], 512).unwrap();
                std::mem::forget(file);
            })
            .await
            .unwrap();
            a.power_loss();
            b.send(addr("203.0.113.1:4000"), b"anybody?").await;
            world.sleep(ms(100)).await;
            assert_eq!(world.stats().dropped(DropCause::HostDown), 1);
            a.restart();
            b.send(addr("203.0.113.1:4000"), b"anybody?").await;
            world.sleep(ms(100)).await;
            assert_eq!(world.stats().dropped(DropCause::NoSocket), 1);
            a.run(async {
                let log = disk::read(Path::new("/log"), 4096).unwrap();
                // The last write may be torn: each sector is there or not.
                (log[0], log.len(), log.get(512).copied(), log.get(1100).copied())
            })
            .await
            .unwrap()
        }));
        outcomes.insert(after);
    }
    assert!(outcomes.iter().any(|after| after.0 == 1) && outcomes.iter().any(|after| after.0 == 2));
    let torn = |after: &(u8, usize, Option<u8>, Option<u8>)| after.2 != after.3 && after.1 > 1024;
    assert!(outcomes.iter().any(torn), "{outcomes:?}");
}

#[test]
fn a_name_has_the_addresses_of_its_hosts_interfaces_that_are_up() {
    ok(run(1, |world| async move {
        let a = world.internet().host("a", "203.0.113.1").addr("2001:db8::1");
        let b = world.internet().host("b", "203.0.113.2");
        let look =
            |host: Host| host.run(async { chaos::rt::net::lookup_host("a:80").await.unwrap_or_default() });
        assert_eq!(look(b).await.unwrap(), [addr("203.0.113.1:80"), addr("[2001:db8::1]:80")]);
        a.set_nic_up("eth0", false);
        assert_eq!(look(b).await.unwrap(), []);
    }));
}
