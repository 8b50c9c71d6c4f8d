//! Homes: hidden addresses, traffic between two homes, boxes behind boxes, boxes that translate nothing.

use crate::boxes::{Cone, Firewall};
use crate::support::{OBSERVER, PORT, addr, ms, observer, ok, open, open_at};
use chaos::{DropCause, Host, World, run};
use std::net::SocketAddr;

/// A host in a home of its own, always with the same inner address.
fn home(world: World, name: &str, outer: &str, cone: Cone) -> Host {
    world.internet().nat(&format!("home {name}"), &[outer], cone).host(name, "192.168.1.2")
}

#[test]
fn homes_may_use_the_same_inner_addresses() {
    ok(run(1, |world| async move {
        observer(world);
        let a = home(world, "a", "203.0.113.1", Cone::open());
        let b = home(world, "b", "203.0.113.2", Cone::open());
        assert_eq!(a.ip(), b.ip());
        let (a, b) = (open(a).await, open(b).await);
        let seen = [a.reflexive().await.unwrap(), b.reflexive().await.unwrap()];
        assert_eq!(seen.map(|seen| seen.ip().to_string()), ["203.0.113.1", "203.0.113.2"]);
        a.send(seen[1], b"from a").await;
        assert_eq!(b.receive().await.unwrap(), ("from a".to_owned(), seen[0]));
        b.send(seen[0], b"from b").await;
        assert_eq!(a.receive().await.unwrap(), ("from b".to_owned(), seen[1]));
    }));
}

#[test]
fn an_inner_address_is_nobody_outside_and_a_port_without_a_mapping_leads_nowhere() {
    ok(run(1, |world| async move {
        let outside = open(world.internet().host("outside", "198.51.100.7")).await;
        home(world, "a", "203.0.113.1", Cone::open());
        outside.send(addr("192.168.1.2:4000"), b"x").await;
        outside.send(addr("203.0.113.1:4000"), b"x").await;
        world.sleep(ms(100)).await;
        assert_eq!(world.stats().dropped(DropCause::NoHost), 1);
        assert_eq!(world.stats().dropped(DropCause::NoMapping), 1);
    }));
}

/// a sends to b's reflexive address, and b to a's `later_ms` later, both behind boxes that let in only known
/// senders. Returns the datagram that each has received.
fn punch(later_ms: u64) -> [Option<String>; 2] {
    ok(run(1, move |world| async move {
        observer(world);
        let a = open(home(world, "a", "203.0.113.1", Cone::restricted())).await;
        let b = open(home(world, "b", "203.0.113.2", Cone::restricted())).await;
        let (at_a, at_b) = (a.reflexive().await.unwrap(), b.reflexive().await.unwrap());
        a.send(at_b, b"from a").await;
        world.sleep(ms(later_ms)).await;
        b.send(at_a, b"from b").await;
        let got_by_a = a.receive().await.map(|(text, from)| {
            assert_eq!(from, at_b);
            text
        });
        [got_by_a, b.receive().await.map(|(text, _)| text)]
    }))
}

#[test]
fn a_hole_that_is_punched_while_a_packet_is_under_way_lets_it_in() {
    let text = |text: &str| Some(text.to_owned());
    // The way from a to b's box takes 10 ms.
    assert_eq!(punch(5), [text("from b"), text("from a")]);
    assert_eq!(punch(15), [text("from b"), None]);
}

#[test]
fn two_hosts_of_one_home_meet_at_its_outer_address_if_the_box_turns_packets_around() {
    for no_hairpin in [false, true] {
        ok(run(1, move |world| async move {
            observer(world);
            let home =
                world.internet().nat("home", &["203.0.113.1"], Cone::restricted().hairpin(!no_hairpin));
            let a = open(home.host("a", "192.168.1.2")).await;
            let b = open(home.host("b", "192.168.1.3")).await;
            let (at_a, at_b) = (a.reflexive().await.unwrap(), b.reflexive().await.unwrap());
            assert_ne!(at_a.port(), at_b.port());
            let begun = world.elapsed();
            b.send(at_a, b"opens").await;
            a.send(at_b, b"around").await;
            if no_hairpin {
                assert_eq!(b.receive().await, None);
                assert_eq!(world.stats().dropped(DropCause::Hairpin), 2);
            } else {
                // The packet comes from a's outer address (RFC 4787, REQ-9), and doesn't leave the home.
                assert_eq!(b.receive().await.unwrap(), ("around".to_owned(), at_a));
                assert!(world.elapsed() - begun < ms(1));
            }
            a.send(addr("192.168.1.3:4000"), b"straight").await;
            assert_eq!(b.receive().await.unwrap(), ("straight".to_owned(), addr("192.168.1.2:4000")));
        }));
    }
}

#[test]
fn boxes_behind_a_carriers_box_translate_twice() {
    ok(run(1, |world| async move {
        observer(world);
        let carrier = world.internet().nat("carrier", &["203.0.113.9"], Cone::open());
        let host = |name: &str, outer: &str| {
            carrier.nat(&format!("home {name}"), &[outer], Cone::open()).host(name, "192.168.1.2")
        };
        let (a, b) = (open(host("a", "100.64.0.1")).await, open(host("b", "100.64.0.2")).await);
        let phone = open(carrier.host("phone", "100.64.0.3")).await;
        let seen = [a.reflexive().await.unwrap(), b.reflexive().await.unwrap()];
        assert!(seen.iter().all(|seen| seen.ip() == addr("203.0.113.9:1").ip()));
        // Through the carrier's box, which hairpins it.
        a.send(seen[1], b"hello").await;
        assert_eq!(b.receive().await.unwrap(), ("hello".to_owned(), seen[0]));
        // Inside of the carrier's network only the home's box translates.
        a.send(addr("100.64.0.3:4000"), b"hello").await;
        assert_eq!(phone.receive().await.unwrap().1.ip(), addr("100.64.0.1:1").ip());
    }));
}

#[test]
fn a_firewall_hides_no_address_lets_answers_in_and_refuses_strangers() {
    ok(run(1, |world| async move {
        let host = |name: &str, ip: &str| world.internet().host(name, ip);
        let (friend, stranger) = (host("friend", "2001:db8:9::1"), host("stranger", "2001:db8:9::2"));
        // Two firewalls, one inside the other.
        let street = world.internet().nat("street", &[], Firewall::default());
        let a = street.nat("home", &[], Firewall::default()).host("a", "2001:db8:1::2");
        let at = format!("[::]:{PORT}");
        let (a, friend, stranger) =
            (open_at(a, &at).await, open_at(friend, &at).await, open_at(stranger, &at).await);
        let at_a = addr("[2001:db8:1::2]:4000");
        a.send(addr("[2001:db8:9::1]:4000"), b"ask").await;
        assert_eq!(friend.receive().await.unwrap(), ("ask".to_owned(), at_a));
        friend.send(at_a, b"answer").await;
        stranger.send(at_a, b"unasked").await;
        assert_eq!(a.receive().await.unwrap().0, "answer");
        assert_eq!(a.receive().await, None);
        assert_eq!(world.stats().dropped(DropCause::Filtered), 1);
    }));
}

#[test]
fn a_home_has_both_families_each_its_own_way() {
    ok(run(1, |world| async move {
        let friend = observer(world).addr("2001:db8:9::1");
        // The box translates v4 only.
        let home = world.internet().nat("home", &["203.0.113.1"], Cone::open());
        let a = home.host("a", "192.168.1.2").addr("2001:db8:1::2");
        assert_eq!(open(a).await.reflexive().await.unwrap().ip(), addr("203.0.113.1:1").ip());
        let friend = open_at(friend, "[::]:4000").await;
        friend.send(addr("[2001:db8:1::2]:4000"), b"x").await;
        world.sleep(ms(100)).await;
        // The packet came as far as the box, which has no mapping of that family.
        assert_eq!(world.stats().dropped(DropCause::NoMapping), 1);
    }));
}

#[test]
fn boxes_draw_from_their_own_streams_and_a_world_of_them_has_one_digest() {
    let ports = |seed: u64| {
        let outcome = run(seed, |world| async move {
            observer(world);
            let mut seen: Vec<SocketAddr> = Vec::new();
            for (name, outer) in [("a", "203.0.113.1"), ("b", "203.0.113.2"), ("c", "203.0.113.3")] {
                seen.push(open(home(world, name, outer, Cone::open())).await.reflexive().await.unwrap());
            }
            seen
        });
        (outcome.digest.clone(), ok(outcome))
    };
    assert_eq!(ports(1), ports(1));
    assert_ne!(ports(1).1, ports(2).1);
    let ports = ports(1).1;
    assert_ne!(ports[0].port(), ports[1].port());
}

#[test]
fn a_host_without_a_box_is_seen_as_it_is() {
    ok(run(1, |world| async move {
        observer(world);
        let a = open(world.internet().host("a", "203.0.113.1")).await;
        assert_eq!(a.reflexive().await.unwrap(), addr("203.0.113.1:4000"));
        assert_eq!(addr(OBSERVER).port(), PORT);
    }));
}
