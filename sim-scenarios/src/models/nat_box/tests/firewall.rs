//! Families that aren't translated (RFC 6092 for IPv6).

use super::*;

const INNER: &str = "[2001:db8:1::2]:5000";
const X: &str = "[2001:db8:9::1]:1000";
const X_OTHER_PORT: &str = "[2001:db8:9::1]:2000";

#[test]
fn a_firewall_lets_in_what_was_asked_for_and_rewrites_nothing() {
    // RFC 6092 REC-14 (filtering of UDP) and REC-31 (of TCP).
    let mut bench = Bench::new(presets::home_router());
    assert_eq!(bench.back(X, at(INNER)), Err(Refusal::NoMapping));
    assert_eq!(bench.out(INNER, X), Ok(at(INNER)));
    assert_eq!(bench.back(X, at(INNER)), Ok(at(INNER)));
    assert_eq!(bench.back(X_OTHER_PORT, at(INNER)), Err(Refusal::Filtered));
    let syn = TcpFlags { syn: true, ..TcpFlags::default() };
    assert_eq!(bench.tcp_back(X, at(INNER), syn), Err(Refusal::NoMapping));
    assert_eq!(bench.tcp_out(INNER, X, syn), Ok(at(INNER)));
    assert_eq!(bench.tcp_back(X, at(INNER), syn), Ok(at(INNER)));
}

#[test]
fn a_firewall_has_a_filter_of_its_own() {
    let mut bench = Bench::new(NatConfig { firewall: Dependence::Address, ..presets::home_router() });
    bench.out(INNER, X).unwrap();
    assert_eq!(bench.back(X_OTHER_PORT, at(INNER)), Ok(at(INNER)));
}

#[test]
fn a_firewall_forgets_after_its_timeout() {
    // RFC 6092 REC-14: not before two minutes.
    let mut bench = Bench::new(presets::home_router());
    bench.out(INNER, X).unwrap();
    bench.wait(119);
    assert_eq!(bench.back(X, at(INNER)), Ok(at(INNER)));
    bench.wait(120);
    assert_eq!(bench.back(X, at(INNER)), Err(Refusal::NoMapping));
}

#[test]
fn renumbering_the_v4_side_leaves_the_firewall_alone() {
    let mut bench = Bench::new(presets::home_router());
    bench.out(INNER, X).unwrap();
    bench.outer = vec!["203.0.113.77".parse().unwrap()];
    assert_eq!(bench.back(X, at(INNER)), Ok(at(INNER)));
}

#[test]
fn a_home_router_hides_one_family_and_guards_the_other() {
    let bench = Bench::new(presets::home_router());
    assert!(bench.nat.translates("10.0.0.2".parse().unwrap()));
    assert!(!bench.nat.translates("2001:db8:1::2".parse().unwrap()));
}

#[test]
fn a_family_can_be_open_or_blocked() {
    let config = NatConfig { v4: Family::Open, v6: Family::Blocked, ..NatConfig::rfc("box") };
    let mut bench = Bench::new(config);
    assert_eq!(bench.out("10.0.0.2:5000", "198.51.100.1:1"), Ok(at("10.0.0.2:5000")));
    assert_eq!(bench.back("198.51.100.9:9", at("10.0.0.2:4")), Ok(at("10.0.0.2:4")));
    assert_eq!(bench.out(INNER, X), Err(Refusal::Blocked));
    assert_eq!(bench.back(X, at(INNER)), Err(Refusal::Blocked));
}
