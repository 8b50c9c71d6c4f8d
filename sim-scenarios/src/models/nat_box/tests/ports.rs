//! The choice of ports and of outer addresses.

use super::*;

const X: &str = "198.51.100.1:1000";

fn ports(ports: Ports) -> NatConfig {
    NatConfig { ports, ..NatConfig::rfc("box") }
}

/// The outer ports of `count` hosts that all use the inner port 5000.
fn of_hosts(bench: &mut Bench, count: u8) -> Vec<u16> {
    (2..2 + count).map(|host| bench.out(&format!("10.0.0.{host}:5000"), X).unwrap().port()).collect()
}

#[test]
fn a_port_is_preserved_while_it_is_free() {
    // RFC 4787 REQ-3: the second host gets another port, no port is overloaded.
    let mut bench = Bench::new(ports(Ports::Preserving));
    let given = of_hosts(&mut bench, 20);
    assert_eq!(given[0], 5000);
    let mut distinct = given.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), given.len(), "{given:?}");
}

#[test]
fn a_port_is_free_once_its_mapping_has_ended() {
    let mut bench = Bench::new(ports(Ports::Preserving));
    assert_eq!(of_hosts(&mut bench, 1), [5000]);
    bench.wait(119);
    assert_ne!(bench.out("10.0.0.3:5000", X).unwrap().port(), 5000, "the first still has it");
    bench.wait(1);
    assert_eq!(bench.out("10.0.0.4:5000", X), Ok(at("203.0.113.1:5000")));
    assert_eq!(
        bench.back(X, at("203.0.113.1:5000")),
        Ok(at("10.0.0.4:5000")),
        "and it reaches its new owner"
    );
    assert_ne!(bench.out("10.0.0.2:5000", X).unwrap().port(), 5000, "the first one's is taken now");
}

#[test]
fn a_port_that_another_took_is_not_had_again_with_the_address() {
    let mut bench = Bench::with_outer(ports(Ports::Preserving), &[OUTER, "203.0.113.2"]);
    let old = bench.out("10.0.0.2:5000", X).unwrap();
    let outer = std::mem::take(&mut bench.outer);
    bench.outer = outer.iter().copied().filter(|ip| *ip != old.ip()).collect();
    let moved = bench.out("10.0.0.2:5000", X).unwrap();
    assert_ne!(moved, old);
    bench.outer = outer;
    assert_eq!(bench.back(X, old), Err(Refusal::NoMapping));
    assert_eq!(bench.back(X, moved), Ok(at("10.0.0.2:5000")));
}

#[test]
fn a_shared_port_is_shared_by_those_who_live() {
    // Netfilter: an expired flow toward a remote doesn't conflict with the next one.
    let mut bench = Bench::new(presets::linux_masquerade());
    assert_eq!(bench.out("10.0.0.2:5000", X), Ok(at("203.0.113.1:5000")));
    assert_ne!(bench.out("10.0.0.3:5000", X), Ok(at("203.0.113.1:5000")));
    bench.wait(30);
    assert_eq!(bench.out("10.0.0.4:5000", X), Ok(at("203.0.113.1:5000")));
}

#[test]
fn a_mapping_doesnt_depend_on_who_else_has_one_except_netfilters() {
    // RFC 4787 REQ-11: a box behaves alike under all conditions. Netfilter has one mapping for all remotes until
    // another inner host has its port toward one of them.
    let is_one_for_all = |config: NatConfig, crowded: bool| {
        let mut bench = Bench::new(config);
        if crowded {
            bench.out("10.0.0.2:5000", X).unwrap();
        }
        bench.out("10.0.0.3:5000", "198.51.100.2:1000") == bench.out("10.0.0.3:5000", X)
    };
    for config in presets::all(443).into_iter().filter(|config| config.udp) {
        let (alone, crowded) = (is_one_for_all(config.clone(), false), is_one_for_all(config.clone(), true));
        let is_netfilter = config.name == "linux masquerade";
        assert_eq!(alone != crowded, is_netfilter, "{}: {alone}, {crowded}", config.name);
    }
}

#[test]
fn well_known_ports_stay_well_known() {
    // RFC 4787 REQ-3a and b.
    let mut bench = Bench::new(ports(Ports::Preserving));
    for host in 2..30 {
        let low = bench.out(&format!("10.0.0.{host}:500"), X).unwrap().port();
        let high = bench.out(&format!("10.0.0.{host}:4500"), X).unwrap().port();
        assert!((1..1024).contains(&low) && high >= 1024, "{low} {high}");
    }
}

#[test]
fn sequential_ports_follow_each_other() {
    let mut bench = Bench::new(ports(Ports::Sequential));
    let given = of_hosts(&mut bench, 20);
    assert!(given.windows(2).all(|pair| pair[1] == pair[0] + 1), "{given:?}");
}

#[test]
fn sequential_ports_go_round_and_skip_what_is_taken() {
    let mut bench = Bench::new(NatConfig { port_range: (3000, 3002), ..ports(Ports::Sequential) });
    let mut given = of_hosts(&mut bench, 3);
    assert_eq!((given[1] + 3 - given[0]) % 3, 1, "{given:?}");
    given.sort_unstable();
    assert_eq!(given, [3000, 3001, 3002]);
}

#[test]
fn random_ports_have_no_order() {
    let mut bench = Bench::new(ports(Ports::Random));
    let given = of_hosts(&mut bench, 20);
    assert!(given.iter().all(|port| *port >= 1024));
    assert!(given.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 100).count() < 3, "{given:?}");
}

#[test]
fn parity_is_kept_where_asked_for() {
    // RFC 4787 REQ-4.
    let mut bench = Bench::new(NatConfig { parity: true, ..ports(Ports::Random) });
    for inner in 5000..5040u16 {
        let outer = bench.out(&format!("10.0.0.2:{inner}"), X).unwrap().port();
        assert_eq!(outer % 2, inner % 2);
    }
}

#[test]
fn a_box_out_of_ports_says_so_until_one_is_free_again() {
    let mut bench = Bench::new(NatConfig { port_range: (3000, 3001), ..ports(Ports::Random) });
    of_hosts(&mut bench, 2);
    assert_eq!(bench.out("10.0.0.9:5000", X), Err(Refusal::TableFull));
    bench.wait(120);
    assert!(bench.out("10.0.0.9:5000", X).is_ok());
}

#[test]
fn an_inner_host_has_one_outer_address_where_they_are_paired() {
    // RFC 4787 REQ-2.
    let outer = ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"];
    let addresses = |pooling| {
        let mut bench = Bench::with_outer(NatConfig { pooling, ..ports(Ports::Random) }, &outer);
        let mut seen = Vec::new();
        for host in 2..10 {
            let of_host = (0..10).map(|port| bench.out(&format!("10.0.0.{host}:{}", 5000 + port), X));
            let mut of_host: Vec<IpAddr> = of_host.map(|outer| outer.unwrap().ip()).collect();
            of_host.sort_unstable();
            of_host.dedup();
            seen.push(of_host);
        }
        seen
    };
    let paired = addresses(Pooling::Paired);
    assert!(paired.iter().all(|of_host| of_host.len() == 1), "{paired:?}");
    assert!(paired.iter().any(|of_host| *of_host != paired[0]), "but hosts differ: {paired:?}");
    assert!(addresses(Pooling::Arbitrary).iter().all(|of_host| of_host.len() > 1));
}

#[test]
fn netfilter_keeps_a_port_that_differs_in_its_remote() {
    // Against RFC 4787 REQ-3: two inner hosts share an outer port, and the remote identifies the host.
    let mut bench = Bench::new(presets::linux_masquerade());
    let (x, y) = ("198.51.100.1:1000", "198.51.100.2:1000");
    assert_eq!(bench.out("10.0.0.2:5000", x), Ok(at("203.0.113.1:5000")));
    assert_eq!(bench.out("10.0.0.3:5000", y), Ok(at("203.0.113.1:5000")));
    assert_eq!(bench.back(x, at("203.0.113.1:5000")), Ok(at("10.0.0.2:5000")));
    assert_eq!(bench.back(y, at("203.0.113.1:5000")), Ok(at("10.0.0.3:5000")));
    // A remote that the port already serves is a conflict, so the second host's mapping toward it has another
    // port.
    let conflict = bench.out("10.0.0.3:5000", x).unwrap();
    assert_ne!(conflict.port(), 5000);
    assert_eq!(bench.back(x, conflict), Ok(at("10.0.0.3:5000")));
    assert_eq!(bench.back(x, at("203.0.113.1:5000")), Ok(at("10.0.0.2:5000")));
}

#[test]
fn a_lone_host_behind_netfilter_sees_one_mapping() {
    let mut bench = Bench::new(presets::linux_masquerade());
    for remote in ["198.51.100.1:1000", "198.51.100.1:2000", "198.51.100.2:1000"] {
        assert_eq!(bench.out("10.0.0.2:5000", remote), Ok(at("203.0.113.1:5000")));
    }
}
