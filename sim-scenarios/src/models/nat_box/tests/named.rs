//! The defining traits of each preset: its lifetimes, its filter, its choice of ports.

use super::*;

const INNER: &str = "10.0.0.2:5000";
const X: &str = "198.51.100.1:443";
const X_OTHER_PORT: &str = "198.51.100.1:80";
const Y: &str = "198.51.100.2:443";

const HOUR: u64 = 3600;
const RFC_TCP: u64 = 2 * HOUR + 4 * 60;

/// A box's visible behaviour. Times in seconds.
struct Row {
    config: NatConfig,
    /// Whether one mapping serves all remotes, if no other host uses its port.
    one_mapping: bool,
    /// Whether another port of a known remote gets in, and whether an unknown address does.
    lets_in: (bool, bool),
    hairpin: bool,
    /// The lifetime of an unanswered UDP mapping, of an answered one, and whether answers prolong it.
    udp: (u64, u64, bool),
    /// The lifetime of an idle connection, and of an unanswered one.
    tcp: (u64, u64),
    /// Whether an inner port is kept.
    preserves: bool,
}

fn rows() -> Vec<Row> {
    let row = |config, one_mapping, lets_in, hairpin, udp, tcp, preserves| Row {
        config,
        one_mapping,
        lets_in,
        hairpin,
        udp,
        tcp,
        preserves,
    };
    let (nobody, rfc) = ((false, false), (RFC_TCP, 240));
    vec![
        row(presets::full_cone(), true, (true, true), true, (300, 300, true), rfc, true),
        row(presets::restricted(), true, (true, false), true, (300, 300, false), rfc, true),
        row(presets::port_restricted(), true, nobody, false, (120, 120, false), rfc, true),
        row(presets::symmetric(), false, nobody, false, (60, 60, false), rfc, false),
        row(presets::symmetric_sequential(), false, nobody, false, (60, 60, false), rfc, false),
        row(presets::home_router(), true, nobody, true, (120, 120, true), rfc, true),
        row(presets::carrier_grade(), true, nobody, true, (30, 30, false), (HOUR / 2, 240), false),
        row(presets::linux_masquerade(), true, nobody, false, (30, 120, true), (120 * HOUR, 120), true),
    ]
}

#[test]
fn every_preset_is_in_the_table_or_blocks_udp() {
    let named: Vec<_> = rows().iter().map(|row| row.config.name).collect();
    let all: Vec<_> =
        presets::all(443).into_iter().filter(|config| config.udp).map(|config| config.name).collect();
    assert_eq!(named, all);
}

#[test]
fn mappings_and_filters_are_what_the_name_says() {
    for Row { config, one_mapping, lets_in, hairpin, preserves, .. } in rows() {
        let name = config.name;
        let mut bench = Bench::new(config);
        let outer = bench.out(INNER, X).unwrap();
        assert_eq!(bench.out(INNER, Y) == Ok(outer), one_mapping, "{name}");
        assert_eq!(outer.port() == 5000, preserves, "{name}");
        // The filter knows `X` from above if the mapping is the same.
        let stranger = "198.51.100.3:443";
        assert_eq!(
            (bench.back(X_OTHER_PORT, outer).is_ok(), bench.back(stranger, outer).is_ok()),
            lets_in,
            "{name}"
        );
        let turned = bench.out("10.0.0.3:6000", &outer.to_string());
        assert_eq!(turned.is_ok(), hairpin, "{name}");
        assert!(hairpin || turned == Err(Refusal::Hairpin), "{name}");
    }
}

#[test]
fn a_udp_mapping_lives_for_as_long_as_its_preset_says() {
    for Row { config, udp: (unanswered, answered, refreshed), .. } in rows() {
        // A mapping is alive a second before its timeout, and dead at it.
        let lives = |answer: bool, seconds: u64| {
            let mut bench = Bench::new(config.clone());
            let outer = bench.out(INNER, X).unwrap();
            if answer {
                bench.back(X, outer).unwrap();
                bench.out(INNER, X).unwrap();
            }
            bench.wait(seconds);
            bench.back(X, outer).is_ok()
        };
        let name = config.name;
        assert!(lives(false, unanswered - 1) && !lives(false, unanswered), "{name}");
        assert!(lives(true, answered - 1) && !lives(true, answered), "{name}");
        let mut bench = Bench::new(config);
        let outer = bench.out(INNER, X).unwrap();
        bench.wait(unanswered - 1);
        bench.back(X, outer).unwrap();
        bench.wait(2);
        assert_eq!(bench.back(X, outer).is_ok(), refreshed, "{name}");
    }
}

#[test]
fn a_connection_lives_for_as_long_as_its_preset_says() {
    let syn = TcpFlags { syn: true, ..TcpFlags::default() };
    let ack = TcpFlags { ack: true, ..TcpFlags::default() };
    let hotel = presets::hotel(&[443]);
    let all = rows().into_iter().map(|row| (row.config, row.tcp)).chain([(hotel, (HOUR / 2, 240))]);
    for (config, (established, transitory)) in all {
        let lives = |answer: bool, seconds: u64| {
            let mut bench = Bench::new(config.clone());
            let outer = bench.tcp_out(INNER, X, syn).unwrap();
            if answer {
                bench.tcp_back(X, outer, TcpFlags { syn: true, ack: true, ..TcpFlags::default() }).unwrap();
                bench.tcp_out(INNER, X, ack).unwrap();
            }
            bench.wait(seconds);
            bench.tcp_back(X, outer, ack).is_ok()
        };
        let name = config.name;
        assert!(lives(true, established - 1) && !lives(true, established), "{name}");
        assert!(lives(false, transitory - 1) && !lives(false, transitory), "{name}");
    }
}

#[test]
fn a_carriers_mapping_ends_however_busy_it_is_and_nobody_elses_does() {
    for config in presets::all(443).into_iter().filter(|config| config.udp) {
        let carrier = config.name == "carrier-grade";
        let mut bench = Bench::new(config.clone());
        let outer = bench.out(INNER, X).unwrap();
        let mut lived = 0;
        while lived < 200 && bench.back(X, outer).is_ok() {
            bench.wait(1);
            lived += 1;
            if bench.out(INNER, X) != Ok(outer) {
                break;
            }
        }
        assert_eq!(lived < 200, carrier, "{}: {lived} s", config.name);
        assert!(!carrier || (48..=76).contains(&lived), "{lived} s");
    }
}

#[test]
fn a_carriers_subscriber_has_256_ports() {
    // RFC 6888 REQ-4.
    let mut bench = Bench::new(presets::carrier_grade());
    for port in 0..256 {
        let outer = bench.out(&format!("10.0.0.2:{}", 5000 + port), X).unwrap();
        assert!(outer.port() >= 1024, "RFC 6888 leaves the well-known ports alone");
    }
    assert_eq!(bench.out("10.0.0.2:6000", X), Err(Refusal::TableFull));
    assert!(bench.out("10.0.0.3:5000", X).is_ok(), "another subscriber has its own");
}

#[test]
fn a_carriers_port_is_given_away_again_at_once() {
    // Against RFC 6888 REQ-8, which reserves it for 120 s.
    let mut bench = Bench::new(NatConfig { port_range: (3000, 3000), ..presets::carrier_grade() });
    let first = bench.out(INNER, X).unwrap();
    assert_eq!(bench.out("10.0.0.3:5000", X), Err(Refusal::TableFull));
    bench.wait(30);
    assert_eq!(bench.out("10.0.0.3:5000", X), Ok(first));
}

#[test]
fn sequential_is_the_only_one_whose_next_port_can_be_told() {
    for config in presets::all(443).into_iter().filter(|config| config.udp) {
        let sequential = config.name == "symmetric-sequential";
        let mut bench = Bench::new(config.clone());
        let given: Vec<_> = (0..8)
            .map(|port| bench.out(&format!("10.0.0.2:{}", 5000 + 7 * port), X).unwrap().port())
            .collect();
        assert_eq!(
            given.windows(2).all(|pair| pair[1] == pair[0] + 1),
            sequential,
            "{}: {given:?}",
            config.name
        );
    }
}
