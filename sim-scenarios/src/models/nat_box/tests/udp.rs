//! Mapping, filtering, refreshing and hairpins of UDP.

use super::*;

const INNER: &str = "10.0.0.2:5000";
const X1: &str = "198.51.100.1:1000";
const X1_OTHER_PORT: &str = "198.51.100.1:2000";
const X2: &str = "198.51.100.2:1000";

/// Random ports, so that two equal ports show one mapping.
fn mapping(mapping: Dependence) -> NatConfig {
    NatConfig { mapping, ports: Ports::Random, ..NatConfig::rfc("box") }
}

#[test]
fn an_endpoint_independent_mapping_is_one_for_all_destinations() {
    // RFC 4787 REQ-1.
    let mut bench = Bench::new(mapping(Dependence::Endpoint));
    let outer = bench.out(INNER, X1).unwrap();
    assert_eq!(outer.ip().to_string(), OUTER);
    assert_eq!(bench.out(INNER, X1_OTHER_PORT), Ok(outer));
    assert_eq!(bench.out(INNER, X2), Ok(outer));
    assert_ne!(bench.out("10.0.0.2:5001", X1), Ok(outer), "another inner port is another mapping");
    assert_ne!(bench.out("10.0.0.3:5000", X1), Ok(outer), "and so is another host");
}

#[test]
fn an_address_dependent_mapping_is_one_for_each_remote_address() {
    // RFC 4787 §4.1.
    let mut bench = Bench::new(mapping(Dependence::Address));
    let outer = bench.out(INNER, X1).unwrap();
    assert_eq!(bench.out(INNER, X1_OTHER_PORT), Ok(outer));
    assert_ne!(bench.out(INNER, X2), Ok(outer));
}

#[test]
fn an_address_and_port_dependent_mapping_is_one_for_each_remote() {
    // RFC 4787 §4.1.
    let mut bench = Bench::new(mapping(Dependence::AddressAndPort));
    let outer = bench.out(INNER, X1).unwrap();
    assert_eq!(bench.out(INNER, X1), Ok(outer));
    assert_ne!(bench.out(INNER, X1_OTHER_PORT), Ok(outer));
    assert_ne!(bench.out(INNER, X2), Ok(outer));
}

#[test]
fn what_nobody_asked_for_finds_no_mapping() {
    let mut bench = Bench::new(NatConfig::rfc("box"));
    assert_eq!(bench.back(X1, at("203.0.113.1:5000")), Err(Refusal::NoMapping));
    let outer = bench.out(INNER, X1).unwrap();
    let beside = SocketAddr::new(outer.ip(), outer.port() + 1);
    assert_eq!(bench.back(X1, beside), Err(Refusal::NoMapping));
}

#[test]
fn filters_let_in_whom_they_depend_on() {
    // RFC 4787 REQ-8 and §5.
    for (filtering, other_port, stranger) in [
        (Dependence::Endpoint, true, true),
        (Dependence::Address, true, false),
        (Dependence::AddressAndPort, false, false),
    ] {
        let mut bench = Bench::new(NatConfig { filtering, ..NatConfig::rfc("box") });
        let outer = bench.out(INNER, X1).unwrap();
        let expected = |let_in| if let_in { Ok(at(INNER)) } else { Err(Refusal::Filtered) };
        assert_eq!(bench.back(X1, outer), Ok(at(INNER)));
        assert_eq!(bench.back(X1_OTHER_PORT, outer), expected(other_port), "{filtering:?}");
        assert_eq!(bench.back(X2, outer), expected(stranger), "{filtering:?}");
        // After an outbound packet the remote passes every filter.
        bench.out(INNER, X2).unwrap();
        assert_eq!(bench.back(X2, outer), Ok(at(INNER)));
    }
}

#[test]
fn a_filter_belongs_to_its_mapping() {
    // With a mapping for each remote, a permission on one opens nothing on the other.
    let mut bench = Bench::new(mapping(Dependence::AddressAndPort));
    let (to_x1, to_x2) = (bench.out(INNER, X1).unwrap(), bench.out(INNER, X2).unwrap());
    assert_eq!(bench.back(X2, to_x1), Err(Refusal::Filtered));
    assert_eq!(bench.back(X1, to_x2), Err(Refusal::Filtered));
    assert_eq!(bench.back(X2, to_x2), Ok(at(INNER)));
}

#[test]
fn a_mapping_lives_for_its_timeout_and_no_longer() {
    // RFC 4787 REQ-5: not before two minutes have passed.
    let mut bench = Bench::new(NatConfig::rfc("box"));
    let outer = bench.out(INNER, X1).unwrap();
    bench.wait(119);
    assert_eq!(bench.back(X1, outer), Ok(at(INNER)));
    bench.wait(1);
    assert_eq!(bench.back(X1, outer), Err(Refusal::NoMapping));
}

#[test]
fn an_expired_mapping_gets_another_port() {
    let mut bench = Bench::new(mapping(Dependence::Endpoint));
    let outer = bench.out(INNER, X1).unwrap();
    bench.wait(120);
    assert_ne!(bench.out(INNER, X1), Ok(outer));
    assert_eq!(bench.back(X1, outer), Err(Refusal::NoMapping), "the old one is gone");
}

#[test]
fn outbound_packets_refresh_always() {
    // RFC 4787 REQ-6.
    let mut bench = Bench::new(mapping(Dependence::Endpoint));
    let outer = bench.out(INNER, X1).unwrap();
    for _ in 0..10 {
        bench.wait(100);
        assert_eq!(bench.out(INNER, X1), Ok(outer));
    }
    assert_eq!(bench.back(X1, outer), Ok(at(INNER)));
}

#[test]
fn inbound_packets_refresh_where_the_box_says_so() {
    // RFC 4787 REQ-6a.
    for inbound_refresh in [true, false] {
        for filtering in [Dependence::Endpoint, Dependence::Address, Dependence::AddressAndPort] {
            let mut bench = Bench::new(NatConfig { inbound_refresh, filtering, ..NatConfig::rfc("box") });
            let outer = bench.out(INNER, X1).unwrap();
            bench.wait(100);
            assert_eq!(bench.back(X1, outer), Ok(at(INNER)));
            bench.wait(100);
            assert_eq!(bench.back(X1, outer).is_ok(), inbound_refresh, "{filtering:?}");
        }
    }
}

#[test]
fn a_stranger_refreshes_a_mapping_that_lets_it_in() {
    // RFC 4787 REQ-6a with an endpoint-independent filter: the danger described in §12.
    let open = NatConfig { inbound_refresh: true, filtering: Dependence::Endpoint, ..NatConfig::rfc("box") };
    let mut bench = Bench::new(open);
    let outer = bench.out(INNER, X1).unwrap();
    bench.wait(100);
    assert_eq!(bench.back(X2, outer), Ok(at(INNER)));
    bench.wait(100);
    assert_eq!(bench.back(X2, outer), Ok(at(INNER)));
}

#[test]
fn a_permission_ends_by_itself_while_the_mapping_lives_on() {
    let mut bench = Bench::new(NatConfig::rfc("box"));
    let outer = bench.out(INNER, X1).unwrap();
    bench.wait(100);
    bench.out(INNER, X2).unwrap();
    bench.wait(100);
    assert_eq!(bench.back(X1, outer), Err(Refusal::Filtered));
    assert_eq!(bench.back(X2, outer), Ok(at(INNER)));
}

#[test]
fn an_answered_flow_may_live_longer() {
    let config = NatConfig {
        udp_timeout: Duration::from_secs(30),
        udp_stream_timeout: Duration::from_secs(120),
        inbound_refresh: true,
        ..NatConfig::rfc("box")
    };
    let mut bench = Bench::new(config);
    let outer = bench.out(INNER, X1).unwrap();
    bench.wait(30);
    assert_eq!(bench.back(X1, outer), Err(Refusal::NoMapping), "nobody answered within 30 s");
    let outer = bench.out(INNER, X1).unwrap();
    assert_eq!(bench.back(X1, outer), Ok(at(INNER)));
    bench.wait(119);
    assert_eq!(bench.back(X1, outer), Ok(at(INNER)));
}

#[test]
fn a_life_ends_however_busy_it_is() {
    // Carriers do this against RFC 4787 REQ-6: no refresh extends the lifetime.
    let (least, most) = (Duration::from_secs(48), Duration::from_secs(75));
    let config = NatConfig { udp_lifetime: Some(Lifetime { least, most }), ..mapping(Dependence::Endpoint) };
    let mut bench = Bench::new(config);
    let mut lives = Vec::new();
    for _ in 0..20 {
        let (begun, outer) = (bench.now, bench.out(INNER, X1).unwrap());
        while bench.out(INNER, X1) == Ok(outer) {
            assert_eq!(bench.back(X1, outer), Ok(at(INNER)));
            bench.wait(1);
        }
        lives.push(bench.now - begun);
        assert_eq!(bench.back(X1, outer), Err(Refusal::NoMapping), "the port that the peer knows is closed");
    }
    let (shortest, longest) = (*lives.iter().min().unwrap(), *lives.iter().max().unwrap());
    assert!(least <= shortest && longest <= most + Duration::from_secs(1), "{lives:?}");
    assert!(longest - shortest > Duration::from_secs(5), "they are drawn: {lives:?}");
}

#[test]
fn a_reboot_forgets_everything() {
    let mut bench = Bench::new(mapping(Dependence::Endpoint));
    let outer = bench.out(INNER, X1).unwrap();
    bench.nat.reboot();
    assert_eq!(bench.back(X1, outer), Err(Refusal::NoMapping));
    assert_ne!(bench.out(INNER, X1), Ok(outer));
}

#[test]
fn mappings_to_an_outer_address_that_is_lost_are_dead() {
    let mut bench = Bench::new(NatConfig::rfc("box"));
    let old = bench.out(INNER, X1).unwrap();
    bench.outer = vec!["203.0.113.77".parse().unwrap()];
    assert_eq!(bench.back(X1, old), Err(Refusal::NoMapping));
    let new = bench.out(INNER, X1).unwrap();
    assert_eq!(new, at("203.0.113.77:5000"));
    assert_eq!(bench.back(X1, new), Ok(at(INNER)));
}

#[test]
fn a_hairpin_has_the_outer_endpoint_as_its_source() {
    // RFC 4787 REQ-9a.
    let mut bench = Bench::new(NatConfig { filtering: Dependence::Address, ..NatConfig::rfc("box") });
    let (a, b) = ("10.0.0.2:5000", "10.0.0.3:6000");
    let (a_outer, b_outer) = (bench.out(a, X1).unwrap(), bench.out(b, X1).unwrap());
    let turned = bench.pass(true, Packet::udp(at(a), b_outer, b"hello")).unwrap();
    assert_eq!((turned.src(), turned.dst()), (a_outer, b_outer));
    assert_eq!(bench.pass(false, turned.clone()), Err(Refusal::Filtered), "b has not asked for it");
    bench.pass(true, Packet::udp(at(b), a_outer, b"hello")).unwrap();
    let arrived = bench.pass(false, turned).unwrap();
    assert_eq!((arrived.src(), arrived.dst()), (a_outer, at(b)));
}

#[test]
fn without_a_hairpin_the_outer_address_is_out_of_reach_from_inside() {
    let mut bench = Bench::new(NatConfig { hairpin: false, ..NatConfig::rfc("box") });
    let outer = bench.out("10.0.0.3:6000", X1).unwrap();
    assert_eq!(bench.out(INNER, &outer.to_string()), Err(Refusal::Hairpin));
}

#[test]
fn where_udp_is_blocked_none_passes_either_way() {
    let mut bench = Bench::new(presets::hotel(&[443]));
    assert_eq!(bench.out(INNER, X1), Err(Refusal::Blocked));
    assert_eq!(bench.back(X1, at("203.0.113.1:5000")), Err(Refusal::Blocked));
}
