//! What all nodes have counted at one moment, and between two.

use std::collections::BTreeMap;
use std::time::Duration;

use nurl::internals::node::MetricKind;

use crate::cluster::Cluster;

/// How long a message and its acknowledgement may be under way, and how often the books are read until none is.
const SETTLES: u32 = 40;
const LOOK: Duration = Duration::from_millis(50);

/// One counter or gauge: a value for each node, in the order of the cluster.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) kind: MetricKind,
    pub(super) of: Vec<i64>,
}

/// All counters and gauges of all nodes, by name.
#[derive(Debug, Clone)]
pub(super) struct Books(BTreeMap<&'static str, Entry>);

impl Books {
    /// Reads them when no reliable message is under way, or after two seconds as they are then.
    pub(super) async fn read(cluster: &Cluster) -> Books {
        for _ in 0..SETTLES {
            let books = Books::read_now(cluster).await;
            if books.is_settled() {
                return books;
            }
            cluster.world().sleep(LOOK).await;
        }
        Books::read_now(cluster).await
    }

    /// Reads them as they are now.
    pub(super) async fn read_now(cluster: &Cluster) -> Books {
        let mut books: BTreeMap<&'static str, Entry> = BTreeMap::new();
        for peer in &cluster.peers {
            let metrics = peer.node(&cluster.world()).await.metrics().await.expect("the node runs");
            for metric in &metrics {
                let entry = books.entry(metric.name).or_insert(Entry { kind: metric.kind, of: Vec::new() });
                entry.of.push(i64::try_from(metric.value).unwrap_or(i64::MAX));
            }
        }
        Books(books)
    }

    fn is_settled(&self) -> bool {
        let accepted = self.sum("reliable.accepted");
        let is_over = accepted == self.sum("reliable.acked") && accepted == self.sum("reliable.delivered");
        is_over && self.sum("transport.sending_bytes.now") == 0
    }

    /// What they grew by since then.
    pub(super) fn since(&self, then: &Books) -> Books {
        let grown = |(name, entry): (&&'static str, &Entry)| {
            let of = entry.of.iter().zip(&then.0[name].of).map(|(now, then)| now - then).collect();
            (*name, Entry { kind: entry.kind, of })
        };
        Books(self.0.iter().map(grown).collect())
    }

    /// Each name with its values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &Entry)> {
        self.0.iter().map(|(name, entry)| (*name, entry))
    }

    /// The value of one node.
    ///
    /// # Panics
    /// If there is none of this name.
    pub(super) fn of(&self, name: &str, node: usize) -> i64 {
        self.0[name].of[node]
    }

    /// The sum over all nodes.
    ///
    /// # Panics
    /// If there is none of this name.
    pub(super) fn sum(&self, name: &str) -> i64 {
        self.0[name].of.iter().sum()
    }

    /// The reliable messages that a node sent for its application: neither its table nor a summary, or that one matches.
    pub(super) fn messages(&self, node: usize) -> i64 {
        let of = |name| self.of(name, node);
        of("reliable.accepted") - of("membership.chunks") - of("state.summaries") - of("state.in_sync_told")
    }
}
