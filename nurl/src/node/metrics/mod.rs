//! Every counter and gauge of a node, by name.
//!
//! Each layer counts its refusals, drops and work in a plain struct of its own. [`Metrics`] is a snapshot of all of
//! them: a list of names, help texts and values, for a program that exports them. A name's first part is the layer:
//!
//! | names | what they count |
//! | --- | --- |
//! | `node.*` | what this node's planes had no room for |
//! | `session.*` | handshakes and frames: what was refused, by cause |
//! | `path.*` | direct paths, summed over the peers that the node holds now |
//! | `stun.*`, `hub.*` | questions for the own address; the connections to the ticket's hubs, summed |
//! | `transport.*`, `reliable.*`, `group.*` | the seam's tables, reliable messages, groups |
//! | `membership.*` | the failure detector |
//! | `ring.*`, `state.*` | tenures and refused members; replicated state |
//! | `job.*`, `pool.*` | tasks; the handlers that run them |
//! | `large.*` | large payloads and results |
//!
//! A counter only grows while the node lives. A gauge is a present size; one with a bound is two metrics, `….now` and
//! `….bound`.

mod compute;
mod mesh;
mod reach;
mod seam;

use std::sync::atomic::{AtomicU64, Ordering};

use super::NetStats;
use super::command::WorkStats;
use crate::membership::Detector;
use crate::transport::Transport;

/// Whether a metric only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A number of events since the node's start.
    Counter,
    /// A present size.
    Gauge,
}

/// One counter or gauge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its stable name, in parts separated by dots, the layer first.
    pub name: &'static str,
    /// What it counts, in a sentence.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: MetricKind,
    /// Its value.
    pub value: u64,
}

/// A snapshot of every counter and gauge of a node; see [`Node::metrics`](super::Node::metrics).
///
/// ```no_run
/// # async fn export(node: nurl::Node) -> Result<(), nurl::Error> {
/// for metric in &node.metrics().await? {
///     println!("{} {} # {}", metric.name, metric.value, metric.help);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics(Vec<Metric>);

impl Metrics {
    /// All metrics, by layer.
    pub fn iter(&self) -> std::slice::Iter<'_, Metric> {
        self.0.iter()
    }

    /// The value of the metric with this name.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }

    /// What the network plane counts.
    pub(super) fn of_net(
        net: &NetStats,
        messages_waiting: usize,
        transport: &Transport,
        detector: &Detector,
    ) -> Metrics {
        let mut metrics = Metrics::default();
        seam::node(&mut metrics, net, messages_waiting);
        reach::sessions(&mut metrics, transport.session_stats());
        reach::paths(&mut metrics, transport.path_stats());
        reach::stun(&mut metrics, transport.stun_stats());
        reach::hubs(&mut metrics, transport.hub_stats());
        seam::transport(&mut metrics, &transport.stats(), &transport.gauges());
        seam::reliable(&mut metrics, transport.reliable_stats());
        seam::groups(&mut metrics, transport.group_stats());
        mesh::membership(&mut metrics, detector);
        metrics
    }

    /// Adds what the work plane counts.
    pub(super) fn add_work(&mut self, work: &WorkStats) {
        compute::ring(self, work);
        compute::state(self, work);
        compute::jobs(self, work);
        compute::custody(self, work);
        compute::pool(self, work);
    }

    fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.0.push(Metric { name, help, kind: MetricKind::Counter, value });
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, value: usize) {
        self.0.push(Metric { name, help, kind: MetricKind::Gauge, value: value as u64 });
    }
}

impl<'a> IntoIterator for &'a Metrics {
    type Item = &'a Metric;
    type IntoIter = std::slice::Iter<'a, Metric>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A field that can be read as a metric.
trait Count {
    fn count(&self) -> u64;
}

impl Count for u64 {
    fn count(&self) -> u64 {
        *self
    }
}

impl Count for usize {
    fn count(&self) -> u64 {
        *self as u64
    }
}

impl Count for AtomicU64 {
    fn count(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }
}

/// Lists the fields of structs as metrics, summed over the structs. The pattern has no `..`: a new field doesn't
/// compile until it has a line here.
macro_rules! list {
    ($into:expr, $kind:ident, $layer:literal, $structs:expr => $Type:ident { $($field:ident: $help:literal,)+ }) => {{
        let mut metrics = [$($crate::layers::node::metrics::Metric {
            name: concat!($layer, ".", stringify!($field)),
            help: $help,
            kind: $crate::layers::node::metrics::MetricKind::$kind,
            value: 0,
        }),+];
        for one in $structs {
            let $Type { $($field),+ } = one;
            let counts = [$($crate::layers::node::metrics::Count::count($field)),+];
            metrics.iter_mut().zip(counts).for_each(|(metric, count)| metric.value += count);
        }
        $into.0.extend(metrics);
    }};
}

/// Lists gauges with a bound as two metrics each, again without a `..`.
macro_rules! list_bounded {
    ($into:expr, $layer:literal, $gauges:expr => $Type:ident { $($field:ident: $help:literal,)+ }) => {{
        let $Type { $($field),+ } = $gauges;
        $(
            $into.gauge(concat!($layer, ".", stringify!($field), ".now"), $help, $field.now);
            let help = concat!("The bound of ", $layer, ".", stringify!($field), ".now.");
            $into.gauge(concat!($layer, ".", stringify!($field), ".bound"), help, $field.bound);
        )+
    }};
}

use {list, list_bounded};

#[cfg(test)]
mod tests;
