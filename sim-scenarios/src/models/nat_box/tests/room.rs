//! Tables that fill up.

use super::*;

const X: &str = "198.51.100.1:1000";

#[test]
fn a_full_table_refuses_the_new_and_keeps_the_old() {
    let mut bench = Bench::new(NatConfig { table: 3, ..NatConfig::rfc("box") });
    let first = bench.out("10.0.0.2:5000", X).unwrap();
    for remote in ["198.51.100.2:1", "198.51.100.3:1"] {
        bench.out("10.0.0.2:5000", remote).unwrap();
    }
    assert_eq!(bench.out("10.0.0.2:5000", "198.51.100.4:1"), Err(Refusal::TableFull), "a further remote");
    assert_eq!(bench.out("10.0.0.3:5000", X), Err(Refusal::TableFull), "a further mapping");
    assert_eq!(bench.out("10.0.0.2:5000", X), Ok(first));
    assert_eq!(bench.back(X, first), Ok(at("10.0.0.2:5000")));
}

#[test]
fn what_has_expired_makes_room() {
    let mut bench = Bench::new(NatConfig { table: 2, ..NatConfig::rfc("box") });
    bench.out("10.0.0.2:5000", X).unwrap();
    bench.wait(60);
    bench.out("10.0.0.2:5000", "198.51.100.2:1").unwrap();
    bench.wait(60);
    assert!(
        bench.out("10.0.0.3:5000", X).is_ok(),
        "the first permission has ended, though its mapping lives"
    );
    assert_eq!(bench.out("10.0.0.4:5000", X), Err(Refusal::TableFull));
    bench.wait(120);
    assert!(bench.out("10.0.0.4:5000", X).is_ok());
}

#[test]
fn a_greedy_host_reaches_its_own_limit() {
    // RFC 6888 REQ-4.
    let mut bench = Bench::new(NatConfig { ports_per_host: 2, ..NatConfig::rfc("box") });
    bench.out("10.0.0.2:5000", X).unwrap();
    bench.tcp_out("10.0.0.2:5000", X, TcpFlags { syn: true, ..TcpFlags::default() }).unwrap();
    assert_eq!(bench.out("10.0.0.2:5002", X), Err(Refusal::TableFull));
    assert!(bench.out("10.0.0.2:5000", "198.51.100.2:1").is_ok(), "a remote more is no port more");
    assert!(bench.out("10.0.0.3:5002", X).is_ok(), "its neighbour has its own");
    bench.wait(240);
    assert!(bench.out("10.0.0.2:5002", X).is_ok());
}

#[test]
fn strangers_at_an_open_filter_take_no_room() {
    let open = NatConfig { filtering: Dependence::Endpoint, table: 1, ..NatConfig::rfc("box") };
    let mut bench = Bench::new(open);
    let outer = bench.out("10.0.0.2:5000", X).unwrap();
    for host in 1..100 {
        assert!(bench.back(&format!("198.51.100.{host}:9"), outer).is_ok());
    }
}
