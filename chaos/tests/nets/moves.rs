//! Changes while packets are in flight: hosts move, boxes get other addresses, reboot, and lose their power.

use crate::boxes::Cone;
use crate::support::{OBSERVER, addr, ms, observer, ok, open, open_at};
use chaos::rt::net::{InterfaceWatch, interfaces};
use chaos::{DropCause, World, run};

#[test]
fn a_phone_that_moves_is_seen_under_its_new_boxs_address_and_not_found_behind_the_old_one() {
    ok(run(1, |world| async move {
        let server = world.internet().host("server", "198.51.100.7");
        observer(world);
        let wifi = world.internet().nat("wifi", &["203.0.113.1"], Cone::open());
        let cell = world.internet().nat("cell", &["203.0.113.2"], Cone::open());
        let phone = wifi.host("phone", "192.168.1.2");
        let watch = phone.run(async { InterfaceWatch::new(interfaces().unwrap()).changed().await });
        let (phone, server) = (open(phone).await, open(server).await);
        let old = phone.reflexive().await.unwrap();
        // A packet is in flight in each direction when the phone moves.
        phone.send(addr("198.51.100.7:4000"), b"parting").await;
        server.send(old, b"late").await;
        world.sleep(ms(5)).await;
        phone.host.attach("eth0", cell, &["10.0.0.9"]);
        assert_eq!(server.receive().await.unwrap(), ("parting".to_owned(), old));
        assert_eq!(phone.receive().await, None);
        assert_eq!(world.stats().dropped(DropCause::NoHost), 1);
        assert!(watch.await.unwrap().iter().any(|interface| interface.addr == addr("10.0.0.9:1").ip()));
        let new = phone.reflexive().await.unwrap();
        assert_eq!(new.ip(), addr("203.0.113.2:1").ip());
        server.send(new, b"found").await;
        assert_eq!(phone.receive().await.unwrap().0, "found");
        assert_eq!(phone.host.net("eth0"), Some(cell));
    }));
}

#[test]
fn a_move_into_a_home_with_the_same_inner_addresses_is_a_move() {
    ok(run(1, |world| async move {
        observer(world);
        let home = |name: &str, outer: &str| world.internet().nat(name, &[outer], Cone::open());
        let (one, other) = (home("one", "203.0.113.1"), home("other", "203.0.113.2"));
        let guest = open(one.host("guest", "192.168.1.2")).await;
        let resident = open(other.host("resident", "192.168.1.3")).await;
        assert_eq!(guest.reflexive().await.unwrap().ip(), one.outer_addrs()[0]);
        resident.send(addr("192.168.1.2:4000"), b"nobody here").await;
        world.sleep(ms(10)).await;
        assert_eq!(world.stats().dropped(DropCause::NoHost), 1);
        guest.host.attach("eth0", other, &["192.168.1.2"]);
        assert_eq!(guest.reflexive().await.unwrap().ip(), other.outer_addrs()[0]);
        resident.send(addr("192.168.1.2:4000"), b"welcome").await;
        assert_eq!(guest.receive().await.unwrap().0, "welcome");
    }));
}

#[test]
fn a_second_interface_takes_over_when_the_first_goes_down_and_gives_back() {
    ok(run(1, |world| async move {
        observer(world);
        let wifi = world.internet().nat("wifi", &["203.0.113.1"], Cone::open());
        let phone = wifi.host("phone", "192.168.1.2").nic_addr("cell0", "203.0.113.2");
        let phone = open(phone).await;
        let mut seen = Vec::new();
        for up in [true, false, true] {
            phone.host.set_nic_up("eth0", up);
            seen.push(phone.reflexive().await.unwrap().ip().to_string());
        }
        assert_eq!(seen, ["203.0.113.1", "203.0.113.2", "203.0.113.1"]);
    }));
}

#[test]
fn a_renumbered_box_is_found_at_its_new_address_only() {
    ok(run(1, |world| async move {
        let server = world.internet().host("server", "198.51.100.7");
        observer(world);
        let home = world.internet().nat("home", &["203.0.113.1"], Cone::open());
        let (a, server) = (open(home.host("a", "192.168.1.2")).await, open(server).await);
        let old = a.reflexive().await.unwrap();
        server.send(old, b"under way").await;
        home.set_outer_addrs(&["203.0.113.99"]);
        server.send(old, b"late").await;
        assert_eq!(a.receive().await, None);
        assert_eq!(world.stats().dropped(DropCause::NoHost), 2);
        // This box keeps its ports.
        let new = a.reflexive().await.unwrap();
        assert_eq!(new, addr(&format!("203.0.113.99:{}", old.port())));
        server.send(new, b"found").await;
        assert_eq!(a.receive().await.unwrap().0, "found");
    }));
}

#[test]
fn a_reboot_forgets_mappings_and_a_packet_from_inside_makes_new_ones() {
    ok(run(1, |world| async move {
        let server = world.internet().host("server", "198.51.100.7");
        observer(world);
        let home = world.internet().nat("home", &["203.0.113.1"], Cone::open());
        let (a, server) = (open(home.host("a", "192.168.1.2")).await, open(server).await);
        let old = a.reflexive().await.unwrap();
        home.reboot();
        server.send(old, b"late").await;
        assert_eq!(a.receive().await, None);
        assert_eq!(world.stats().dropped(DropCause::NoMapping), 1);
        assert_ne!(a.reflexive().await.unwrap(), old);
    }));
}

#[test]
fn a_box_without_power_lets_nothing_through_and_comes_back_with_nothing() {
    ok(run(1, |world| async move {
        observer(world);
        let home = world.internet().nat("home", &["203.0.113.1"], Cone::open());
        let a = open(home.host("a", "192.168.1.2")).await;
        let b = open(home.host("b", "192.168.1.3")).await;
        let old = a.reflexive().await.unwrap();
        a.send(addr(OBSERVER), b"the answer meets a dark box").await;
        world.sleep(ms(15)).await;
        home.set_power(false);
        assert_eq!(a.receive().await, None);
        assert_eq!(a.reflexive().await, None);
        assert_eq!(world.stats().dropped(DropCause::BoxOff), 2);
        // Traffic inside the home doesn't need the box.
        a.send(addr("192.168.1.3:4000"), b"neighbour").await;
        assert_eq!(b.receive().await.unwrap().0, "neighbour");
        home.set_power(true);
        assert_ne!(a.reflexive().await.unwrap(), old);
    }));
}

#[test]
fn another_box_in_its_place_knows_nothing_and_has_its_own_rules() {
    ok(run(1, |world| async move {
        let server = world.internet().host("server", "198.51.100.7");
        observer(world);
        let home = world.internet().nat("home", &["203.0.113.1"], Cone::open());
        let (a, server) = (open(home.host("a", "192.168.1.2")).await, open(server).await);
        a.reflexive().await.unwrap();
        assert_eq!(home.describe().unwrap(), "a cone");
        home.replace_box(Cone::restricted());
        assert_eq!(home.describe().unwrap(), "a restricted cone");
        let at_a = a.reflexive().await.unwrap();
        server.send(at_a, b"unasked").await;
        assert_eq!(a.receive().await, None);
        assert_eq!(world.stats().dropped(DropCause::Filtered), 1);
    }));
}

/// The failure of a map in which one address belongs to two hosts, or to a box and a host.
fn collide(map: fn(World)) -> String {
    run(1, move |world| async move { map(world) }).result.unwrap_err().to_string()
}

#[test]
fn an_address_belongs_to_one_in_each_network() {
    let taken = "203.0.113.1 belongs to another in network internet";
    assert!(
        collide(|world| {
            world.host("a").addr("203.0.113.1");
            world.internet().nat("home", &["203.0.113.1"], Cone::open());
        })
        .starts_with(taken)
    );
    let inner = collide(|world| {
        let home = world.internet().nat("home", &["203.0.113.1"], Cone::open());
        home.host("a", "192.168.1.2");
        home.host("b", "192.168.1.2");
    });
    assert!(inner.starts_with("192.168.1.2 belongs to another in network home"), "{inner}");
}

#[test]
fn v6_follows_a_host_that_moves_between_networks_that_hide_nothing() {
    ok(run(1, |world| async move {
        let server = world.internet().host("server", "2001:db8:9::1");
        let home = |name: &str| world.internet().nat(name, &[], chaos::middlebox::Modem);
        let (one, other) = (home("one"), home("other"));
        let server = open_at(server, "[::]:4000").await;
        let a = open_at(one.host("a", "2001:db8:1::2"), "[::]:4000").await;
        let (old, new) = (addr("[2001:db8:1::2]:4000"), addr("[2001:db8:2::2]:4000"));
        server.send(old, b"home").await;
        assert_eq!(a.receive().await.unwrap().0, "home");
        a.host.attach("eth0", other, &["2001:db8:2::2"]);
        server.send(old, b"gone").await;
        server.send(new, b"away").await;
        assert_eq!(a.receive().await.unwrap().0, "away");
        assert_eq!(world.stats().dropped(DropCause::NoHost), 1);
    }));
}

#[test]
fn a_change_of_addresses_is_seen_at_the_next_look_and_one_that_is_taken_back_is_not() {
    ok(run(1, |world| async move {
        let phone = world.internet().host("phone", "198.51.100.7");
        let watch = phone.run(async move {
            let mut watch = InterfaceWatch::new(interfaces().unwrap());
            let mut seen = Vec::new();
            for _ in 0..2 {
                let list = watch.changed().await;
                seen.push((
                    world.elapsed().as_secs(),
                    list.iter().any(|interface| interface.addr == addr("198.51.100.9:1").ip()),
                ));
            }
            seen
        });
        world.sleep(ms(4_200)).await;
        phone.set_addrs("eth0", &["198.51.100.8"]);
        world.sleep(ms(600)).await;
        phone.set_addrs("eth0", &["198.51.100.7"]);
        world.sleep(ms(4_400)).await;
        phone.set_addrs("eth0", &["198.51.100.9"]);
        world.sleep(ms(1_500)).await;
        phone.set_addrs("eth0", &["198.51.100.7"]);
        assert_eq!(watch.await.unwrap(), [(10, true), (11, false)]);
    }));
}
