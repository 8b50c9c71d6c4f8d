//! Shared by several tests: plans of every shape.

use chaos::plan::{
    BoxFault, Direction, DiskCall, DiskPace, DnsFailure, Effect, Fault, HostFault, LinkScope, Plan, Planned,
};
use proptest::prelude::*;
use std::net::IpAddr;
use std::time::Duration;

/// Durations of every granularity.
fn duration() -> impl Strategy<Value = Duration> {
    let most = 1_000_000_000_000u64;
    (0..=most, prop::sample::select(vec![1u64, 1_000, 1_000_000, 1_000_000_000]))
        .prop_map(|(ns, grain)| Duration::from_nanos(ns / grain * grain))
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn effect() -> impl Strategy<Value = Effect> {
    let percent = 0..=100u32;
    prop_oneof![
        (percent.clone(), percent.clone())
            .prop_map(|(udp_percent, tcp_percent)| Effect::Loss { udp_percent, tcp_percent }),
        (percent.clone(), percent.clone(), percent.clone()).prop_map(
            |(begin_percent, end_percent, loss_percent)| Effect::Burst {
                begin_percent,
                end_percent,
                loss_percent
            }
        ),
        (duration(), duration()).prop_map(|(add, jitter)| Effect::Latency { add, jitter }),
        percent.clone().prop_map(|percent| Effect::Duplicate { percent }),
        (percent.clone(), duration()).prop_map(|(percent, by)| Effect::Reorder { percent, by }),
        percent.clone().prop_map(|percent| Effect::Corrupt { percent }),
        percent.prop_map(|percent| Effect::Truncate { percent }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(bytes_per_second, queue_bytes)| Effect::Bandwidth { bytes_per_second, queue_bytes }),
        any::<usize>().prop_map(|bytes| Effect::Mtu { bytes }),
        duration().prop_map(|every| Effect::Clog { every }),
    ]
}

fn host_fault(name: impl Strategy<Value = String> + Clone + 'static) -> impl Strategy<Value = HostFault> {
    prop_oneof![
        Just(HostFault::Crash),
        Just(HostFault::PowerLoss),
        (1..=u64::MAX).prop_map(|op| HostFault::DiskCrash { op }),
        (1..=u64::MAX).prop_map(|op| HostFault::DiskPowerLoss { op }),
        any::<u64>().prop_map(|left_bytes| HostFault::DiskFull { left_bytes }),
        (prop::sample::select(DiskCall::ALL), 1..=u64::MAX)
            .prop_map(|(call, op)| HostFault::DiskError { call, op }),
        any::<u64>().prop_map(|bit| HostFault::DiskFlip { bit }),
        (duration(), duration(), duration())
            .prop_map(|(read, write, sync)| HostFault::DiskSlow { pace: DiskPace { read, write, sync } }),
        Just(HostFault::Restart),
        Just(HostFault::Pause),
        Just(HostFault::Suspend),
        Just(HostFault::PinCpu),
        (1..=u32::MAX).prop_map(|times| HostFault::SlowCpu { times }),
        (-1_000_000_000i64..1_000_000_000).prop_map(|by_ms| HostFault::ClockStep { by_ms }),
        (-1_000_000_000i64..1_000_000_000).prop_map(|reads_ms| HostFault::ClockUnset { reads_ms }),
        any::<i64>().prop_map(|ppm| HostFault::ClockDrift { ppm }),
        name.clone().prop_map(|nic| HostFault::NicDown { nic }),
        (name.clone(), ip()).prop_map(|(to, ip)| HostFault::Roam { to, ip }),
        (name, 0u32..=100).prop_map(|(point, percent)| HostFault::Buggify { point, percent }),
        duration().prop_map(|add| HostFault::DnsSlow { add }),
        prop::sample::select(DnsFailure::ALL).prop_map(|how| HostFault::DnsFail { how }),
        Just(HostFault::DnsStale),
        Just(HostFault::HubKill),
        Just(HostFault::HubRestart),
        Just(HostFault::HubStall),
    ]
}

/// Any fault on these names.
pub(crate) fn fault(name: impl Strategy<Value = String> + Clone + 'static) -> impl Strategy<Value = Fault> {
    let spot = prop_oneof![
        Just(LinkScope::Everywhere),
        name.clone().prop_map(LinkScope::Host),
        name.clone().prop_map(LinkScope::Box),
    ];
    let way = prop::sample::select(vec![Direction::Both, Direction::Out, Direction::In]);
    let group = prop::collection::vec(name.clone(), 1..4);
    let box_fault = prop_oneof![
        Just(BoxFault::Reboot),
        Just(BoxFault::Off),
        ip().prop_map(|ip| BoxFault::Renumber { ip }),
    ];
    prop_oneof![
        (spot, way, effect()).prop_map(|(on, way, effect)| Fault::Link { on, way, effect }),
        (group.clone(), group, any::<bool>()).prop_map(|(left, right, one_way)| Fault::Partition {
            left,
            right,
            one_way
        }),
        (name.clone(), host_fault(name.clone())).prop_map(|(host, fault)| Fault::Host { host, fault }),
        (name, box_fault).prop_map(|(net, fault)| Fault::Box { net, fault }),
    ]
}

/// A fault that delays no packet and no call of a disk for longer than `most`, and lets no clock run ten times as fast: a run
/// that waits by such a clock sends ten times as much.
fn at_most(most: Duration, fault: Fault) -> Fault {
    let effect = |effect| match effect {
        Effect::Latency { add, jitter } => Effect::Latency { add: add.min(most), jitter: jitter.min(most) },
        Effect::Reorder { percent, by } => Effect::Reorder { percent, by: by.min(most) },
        Effect::Clog { every } => Effect::Clog { every: every.min(most) },
        other => other,
    };
    match fault {
        Fault::Link { on, way, effect: what } => Fault::Link { on, way, effect: effect(what) },
        Fault::Host { host, fault } => Fault::Host {
            host,
            fault: match fault {
                HostFault::ClockDrift { ppm } => HostFault::ClockDrift { ppm: ppm % 1_000_000 },
                HostFault::DiskSlow { pace: DiskPace { read, write, sync } } => HostFault::DiskSlow {
                    pace: DiskPace { read: read.min(most), write: write.min(most), sync: sync.min(most) },
                },
                other => other,
            },
        },
        other => other,
    }
}

/// Plans of up to `most` faults on these names, each of which begins within `span` and lasts less than it. No fault
/// delays a packet for longer than a tenth of it. Otherwise all connection attempts of a minute arrive at once, and
/// fill a server's backlog until the half-open connections end, a minute later.
#[allow(dead_code, reason = "each test uses what it needs of this module")]
pub(crate) fn short_plan(
    name: impl Strategy<Value = String> + Clone + 'static,
    most: usize,
    span: Duration,
) -> impl Strategy<Value = Plan> {
    let ms = 0..span.as_millis() as u64;
    let planned = (ms.clone(), fault(name), ms).prop_map(move |(at, fault, lasts)| {
        let lasts = Some(Duration::from_millis(lasts)).filter(|_| !fault.kind().is_momentary());
        Planned { at: Duration::from_millis(at), fault: at_most(span / 10, fault), lasts }
    });
    prop::collection::vec(planned, 0..=most).prop_map(Plan::new)
}

/// Plans of up to `most` faults on these names, at any moment.
#[allow(dead_code, reason = "each test uses what it needs of this module")]
pub(crate) fn plan(
    name: impl Strategy<Value = String> + Clone + 'static,
    most: usize,
) -> impl Strategy<Value = Plan> {
    let planned = (duration(), fault(name), prop::option::of(duration())).prop_map(|(at, fault, lasts)| {
        let lasts = lasts.filter(|_| !fault.kind().is_momentary());
        Planned { at, fault, lasts }
    });
    prop::collection::vec(planned, 0..=most).prop_map(Plan::new)
}
