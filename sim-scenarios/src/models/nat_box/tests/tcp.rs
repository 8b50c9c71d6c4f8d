//! Connections (RFC 5382).

use super::*;

const INNER: &str = "10.0.0.2:5000";
const X: &str = "198.51.100.1:443";
const Y: &str = "198.51.100.2:443";

const NONE: TcpFlags = TcpFlags { syn: false, ack: false, fin: false, rst: false };
const SYN: TcpFlags = TcpFlags { syn: true, ..NONE };
const SYN_ACK: TcpFlags = TcpFlags { syn: true, ack: true, ..NONE };
const ACK: TcpFlags = TcpFlags { ack: true, ..NONE };
const FIN: TcpFlags = TcpFlags { fin: true, ack: true, ..NONE };
const RST: TcpFlags = TcpFlags { rst: true, ..NONE };

const TRANSITORY: u64 = 4 * 60;
const ESTABLISHED: u64 = 2 * 3600 + 4 * 60;

fn connected(config: NatConfig) -> (Bench, SocketAddr) {
    let mut bench = Bench::new(config);
    let outer = bench.tcp_out(INNER, X, SYN).unwrap();
    assert_eq!(bench.tcp_back(X, outer, SYN_ACK), Ok(at(INNER)));
    assert_eq!(bench.tcp_out(INNER, X, ACK), Ok(outer));
    (bench, outer)
}

#[test]
fn a_mapping_for_tcp_is_made_as_for_udp_and_apart_from_it() {
    // RFC 5382 REQ-1.
    let mut bench = Bench::new(NatConfig { ports: Ports::Random, ..NatConfig::rfc("box") });
    let outer = bench.tcp_out(INNER, X, SYN).unwrap();
    assert_eq!(bench.tcp_out(INNER, Y, SYN), Ok(outer));
    assert_ne!(bench.out(INNER, X), Ok(outer));
    let mut bench = Bench::new(presets::symmetric());
    assert_ne!(bench.tcp_out(INNER, X, SYN), bench.tcp_out(INNER, Y, SYN));
}

#[test]
fn an_established_connection_lives_for_two_hours_and_four_minutes() {
    // RFC 5382 REQ-5.
    let (mut bench, outer) = connected(NatConfig::rfc("box"));
    bench.wait(ESTABLISHED - 1);
    assert_eq!(bench.tcp_back(X, outer, ACK), Ok(at(INNER)), "and inbound segments refresh it");
    bench.wait(ESTABLISHED - 1);
    assert_eq!(bench.tcp_out(INNER, X, ACK), Ok(outer));
    bench.wait(ESTABLISHED);
    assert_eq!(bench.tcp_back(X, outer, ACK), Err(Refusal::NoMapping));
}

#[test]
fn a_syn_that_nobody_answers_is_forgotten_after_four_minutes() {
    // RFC 5382 REQ-5.
    let mut bench = Bench::new(NatConfig::rfc("box"));
    let outer = bench.tcp_out(INNER, X, SYN).unwrap();
    bench.wait(TRANSITORY - 1);
    assert!(bench.tcp_back(X, outer, SYN_ACK).is_ok());
    let outer = bench.tcp_out(INNER, Y, SYN).unwrap();
    bench.wait(TRANSITORY);
    assert_eq!(bench.tcp_back(Y, outer, SYN_ACK), Err(Refusal::Filtered), "the mapping lives for X alone");
}

#[test]
fn a_connection_closed_by_both_is_transitory_and_by_one_is_not() {
    // RFC 5382 REQ-5, and REQ-2: a half-closed connection is a valid one.
    let (mut bench, outer) = connected(NatConfig::rfc("box"));
    bench.tcp_out(INNER, X, FIN).unwrap();
    bench.wait(ESTABLISHED - 1);
    assert_eq!(bench.tcp_back(X, outer, ACK), Ok(at(INNER)));
    bench.tcp_back(X, outer, FIN).unwrap();
    bench.wait(TRANSITORY - 1);
    assert_eq!(bench.tcp_out(INNER, X, ACK), Ok(outer));
    bench.wait(TRANSITORY);
    assert_eq!(bench.tcp_back(X, outer, ACK), Err(Refusal::NoMapping));
}

#[test]
fn a_reset_connection_is_transitory() {
    // RFC 5382 REQ-5.
    let (mut bench, outer) = connected(NatConfig::rfc("box"));
    assert_eq!(bench.tcp_back(X, outer, RST), Ok(at(INNER)), "the reset itself passes");
    bench.wait(TRANSITORY);
    assert_eq!(bench.tcp_back(X, outer, ACK), Err(Refusal::NoMapping));
}

#[test]
fn the_next_connection_of_the_same_endpoints_is_a_new_one() {
    let (mut bench, outer) = connected(NatConfig::rfc("box"));
    bench.tcp_out(INNER, X, RST).unwrap();
    bench.tcp_out(INNER, X, SYN).unwrap();
    bench.tcp_back(X, outer, SYN_ACK).unwrap();
    bench.wait(ESTABLISHED - 1);
    assert_eq!(bench.tcp_back(X, outer, ACK), Ok(at(INNER)));
}

#[test]
fn both_sides_may_open_at_once() {
    // RFC 5382 REQ-2a: a SYN that comes in on a mapping which has sent one passes, and so do the segments after
    // it.
    let mut bench = Bench::new(NatConfig::rfc("box"));
    let outer = bench.tcp_out(INNER, X, SYN).unwrap();
    assert_eq!(bench.tcp_back(X, outer, SYN), Ok(at(INNER)));
    assert_eq!(bench.tcp_out(INNER, X, SYN_ACK), Ok(outer));
    assert_eq!(bench.tcp_back(X, outer, SYN_ACK), Ok(at(INNER)));
    bench.wait(ESTABLISHED - 1);
    assert_eq!(bench.tcp_back(X, outer, ACK), Ok(at(INNER)), "it is established");
}

#[test]
fn a_connection_from_outside_gets_in_where_the_filter_is_open() {
    // RFC 5382 REQ-3.
    for (filtering, let_in) in
        [(Dependence::Endpoint, true), (Dependence::Address, false), (Dependence::AddressAndPort, false)]
    {
        let mut bench = Bench::new(NatConfig { filtering, ..NatConfig::rfc("box") });
        let outer = bench.tcp_out(INNER, X, SYN).unwrap();
        assert_eq!(bench.tcp_back(Y, outer, ACK), Err(Refusal::Filtered), "no connection begins so");
        assert_eq!(bench.tcp_back(Y, outer, SYN).is_ok(), let_in, "{filtering:?}");
        if let_in {
            assert_eq!(bench.tcp_out(INNER, Y, SYN_ACK), Ok(outer));
            assert_eq!(bench.tcp_back(Y, outer, ACK), Ok(at(INNER)));
        }
    }
}

#[test]
fn connections_of_two_hosts_share_no_port_except_with_netfilter() {
    // RFC 5382 REQ-7: no port overloading.
    for config in presets::all(443) {
        let shares = config.name == "linux masquerade";
        let mut bench = Bench::new(config.clone());
        let first = bench.tcp_out(INNER, X, SYN).unwrap();
        let second = bench.tcp_out("10.0.0.3:5000", Y, SYN).unwrap();
        assert_eq!(first == second, shares, "{}", config.name);
        let third = bench.tcp_out("10.0.0.4:5000", X, SYN).unwrap();
        assert!(third != first && third != second, "{}: one remote can't tell them apart", config.name);
    }
}

#[test]
fn a_connection_is_turned_around_with_its_outer_endpoint_as_its_source() {
    // RFC 5382 REQ-8a.
    let a = "10.0.0.3:6000";
    let mut bench = Bench::new(NatConfig { filtering: Dependence::Endpoint, ..NatConfig::rfc("box") });
    let listens = bench.tcp_out(INNER, X, SYN).unwrap();
    let turned = bench.pass(true, Packet::tcp(at(a), listens, SYN)).unwrap();
    assert_eq!(turned.dst(), listens);
    assert_eq!(turned.src().ip().to_string(), OUTER);
    let arrived = bench.pass(false, turned.clone()).unwrap();
    assert_eq!((arrived.src(), arrived.dst()), (turned.src(), at(INNER)));
    let answer = bench.pass(true, Packet::tcp(at(INNER), turned.src(), SYN_ACK)).unwrap();
    assert_eq!((answer.src(), answer.dst()), (listens, turned.src()));
    assert_eq!(bench.pass(false, answer).map(|packet| packet.dst()), Ok(at(a)));
    let mut bench = Bench::new(presets::port_restricted());
    let listens = bench.tcp_out(INNER, X, SYN).unwrap();
    assert_eq!(bench.tcp_out(a, &listens.to_string(), SYN), Err(Refusal::Hairpin));
}

#[test]
fn an_unsolicited_syn_is_dropped_without_an_answer() {
    // RFC 5382 REQ-4.
    let mut bench = Bench::new(NatConfig::rfc("box"));
    assert_eq!(bench.tcp_back(X, at("203.0.113.1:22"), SYN), Err(Refusal::NoMapping));
}

#[test]
fn a_connection_that_the_box_has_forgotten_is_refused_or_picked_up() {
    let (mut bench, _) = connected(NatConfig::rfc("box"));
    bench.nat.reboot();
    assert_eq!(bench.tcp_out(INNER, X, ACK), Err(Refusal::NoMapping));
    let (mut bench, outer) = connected(presets::linux_masquerade());
    bench.nat.reboot();
    assert_eq!(bench.tcp_out(INNER, X, RST), Err(Refusal::NoMapping), "there is nothing to pick up");
    assert_eq!(bench.tcp_back(X, outer, ACK), Err(Refusal::NoMapping), "never from outside");
    assert_eq!(bench.tcp_out(INNER, X, ACK), Ok(outer));
    assert_eq!(bench.tcp_back(X, outer, ACK), Ok(at(INNER)));
    bench.wait(3600);
    assert_eq!(bench.tcp_back(X, outer, ACK), Ok(at(INNER)), "it counts as established");
}

#[test]
fn a_hotel_lets_through_to_the_ports_that_it_names() {
    let mut bench = Bench::new(presets::hotel(&[443]));
    assert!(bench.tcp_out(INNER, X, SYN).is_ok());
    assert_eq!(bench.tcp_out(INNER, "198.51.100.1:4242", SYN), Err(Refusal::Blocked));
}
