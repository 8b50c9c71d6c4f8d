//! The list of metrics: names, helps, and values that come from the layers' structs.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::*;
use crate::key::SecretKey;
use crate::membership::{DetectorConfig, Meta, Notary, Roles};
use crate::mesh::{Hub, Ticket};
use crate::net::reach::hub_client::ClientStats;
use crate::rt::{self, time};
use crate::transport::TransportConfig;

/// The metrics of a node that does nothing.
fn idle(net: &NetStats, state: &WorkStats) -> Metrics {
    let key = SecretKey::generate(&mut rt::rng("metrics"));
    let (public, now) = (key.public(), time::now());
    let hub = Hub { key: public, addr: "hub:1".to_owned() };
    let config = TransportConfig {
        key,
        ticket: Ticket::generate(crate::mesh::MeshId::from_bytes([1; 32]), hub, &mut rt::rng("ticket")),
        credential: None,
        name: String::new(),
        allow: crate::key::AllowList::Anyone,
        boot: 1,
        listed: true,
        listen: crate::net::reach::listen::Listen::default(),
        limits: crate::transport::Limits::default(),
        versions: crate::net::secure::version::Versions::SPOKEN,
    };
    let transport = Transport::new(&config, now, time::unix_now(), rt::rng);
    let meta = Meta::new(Roles::NONE, Vec::new(), 1, String::new()).unwrap();
    let detector = Detector::new(
        DetectorConfig::default(),
        Notary::trusting(public),
        1,
        meta,
        false,
        now,
        rt::rng("membership"),
    );
    let mut metrics = Metrics::of_net(net, 9, &transport, &detector);
    metrics.add_work(state);
    metrics
}

#[test]
fn each_metric_has_a_name_of_its_own_under_a_layer_and_a_help() {
    let metrics = idle(&NetStats::default(), &WorkStats::default());
    let layers = [
        "node",
        "session",
        "path",
        "stun",
        "hub",
        "transport",
        "reliable",
        "group",
        "membership",
        "ring",
        "state",
        "disk",
        "job",
        "custody",
        "large",
        "pool",
    ];
    let mut names = BTreeSet::new();
    for metric in &metrics {
        let (layer, rest) = metric.name.split_once('.').unwrap();
        assert!(layers.contains(&layer), "{}", metric.name);
        let plain = rest.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c));
        assert!(plain && !rest.is_empty(), "{}", metric.name);
        assert!(names.insert(metric.name), "{} is there twice", metric.name);
        assert!(metric.help.ends_with('.') && metric.help.len() > 8, "{}: {}", metric.name, metric.help);
        assert!(!metric.help.contains(['`', '[']), "{}: a help is plain text", metric.name);
    }
    let seen: BTreeSet<_> = names.iter().filter_map(|name| name.split('.').next()).collect();
    assert_eq!(seen, layers.into());
    assert!(metrics.get("session.not_allowed").is_some() && metrics.get("session.nonsense").is_none());
}

#[test]
fn values_come_from_the_layers_and_hubs_are_summed() {
    let net = NetStats { refused_datagrams: 3, ..NetStats::default() };
    let hub = |dials| ClientStats { dials, dropped_down: 1, ..ClientStats::default() };
    let mut state = WorkStats { unacknowledged: 4, ..WorkStats::default() };
    (state.jobs.busy, state.jobs_now.running, state.replication.parked) = (5, 6, 7);
    state.pool.panicked.store(8, Ordering::Relaxed);
    let metrics = idle(&net, &state);
    let mut hubs = Metrics::default();
    reach::hubs(&mut hubs, [hub(10), hub(20)].into_iter());
    let table = [
        ("node.refused_datagrams", 3, MetricKind::Counter),
        ("node.messages_waiting", 9, MetricKind::Gauge),
        ("hub.dials", 30, MetricKind::Counter),
        ("hub.dropped_down", 2, MetricKind::Counter),
        ("state.unacknowledged", 4, MetricKind::Gauge),
        ("job.busy", 5, MetricKind::Counter),
        ("job.running", 6, MetricKind::Gauge),
        ("state.parked", 7, MetricKind::Counter),
        ("pool.panicked", 8, MetricKind::Counter),
        ("transport.groups.now", 1, MetricKind::Gauge),
        ("membership.live", 1, MetricKind::Gauge),
        ("session.established", 0, MetricKind::Counter),
    ];
    for (name, value, kind) in table {
        let metric = hubs
            .iter()
            .chain(&metrics)
            .find(|metric| metric.name == name)
            .unwrap_or_else(|| panic!("no {name}"));
        assert_eq!((metric.value, metric.kind), (value, kind), "{name}");
    }
}
