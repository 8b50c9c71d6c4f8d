//! Application datagrams between all nodes of a cluster, with their send and arrival times.
//!
//! Every running node sends a [`secret`](super::secret) to every other node at a steady rate, and records the
//! arrivals. A datagram may be lost; a scenario asks for the arrival of the first datagram sent after a given
//! moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chaos::world::World;
use nurl::PublicKey;
use nurl::rt::time;

use super::{Cluster, Peer, is_secret, secret, text};
use crate::lock::lock;

/// When a datagram was sent, and when it arrived.
type Flight = (Duration, Duration);

/// The datagrams of one cluster. A clone shares the same record.
#[derive(Clone, Default)]
pub struct Traffic(Arc<Mutex<TrafficLog>>);

#[derive(Default)]
struct TrafficLog {
    stopped: bool,
    /// By sender and receiver, in the order of arrival.
    flights: BTreeMap<(PublicKey, PublicKey), Vec<Flight>>,
}

impl Traffic {
    /// Starts to send, from every node that runs now, until its process ends.
    pub async fn start(world: World, cluster: &Cluster, every: Duration) -> Traffic {
        let traffic = Traffic::default();
        for peer in cluster.running() {
            let others: Vec<_> =
                cluster.peers.iter().map(|other| other.key).filter(|key| *key != peer.key).collect();
            traffic.hear(world, peer).await;
            traffic.speak(world, peer, others, every).await;
        }
        traffic
    }

    /// Records the arrivals at this node until its process ends. Don't receive from the node elsewhere as well.
    pub async fn hear(&self, world: World, at: &Peer) {
        let (traffic, receiver, me) = (self.clone(), at.node(&world).await, at.key);
        at.host.run(async move {
            while let Some(batch) = receiver.recv_many().await {
                for datagram in batch {
                    traffic.record_arrival(world.elapsed(), datagram.peer, me, &datagram.body);
                }
            }
        });
    }

    /// Sends from this node to `others` until its process ends or `stop` is called.
    pub async fn speak(&self, world: World, from: &Peer, others: Vec<PublicKey>, every: Duration) {
        let (traffic, node) = (self.clone(), from.node(&world).await);
        from.host.run(async move {
            while !traffic.log().stopped {
                for other in &others {
                    let body = secret(&world.elapsed().as_nanos().to_string());
                    // A node that shuts down refuses to send.
                    let _ = node.send(*other, body).await;
                }
                time::sleep(every).await;
            }
        });
    }

    /// Stops all sending.
    pub fn stop(&self) {
        self.log().stopped = true;
    }

    /// When the first datagram sent at `since` or later arrived.
    pub fn first(&self, from: PublicKey, to: PublicKey, since: Duration) -> Option<Duration> {
        let log = self.log();
        let flights = log.flights.get(&(from, to))?;
        flights.iter().filter(|(sent, _)| *sent >= since).map(|(_, arrived)| *arrived).min()
    }

    /// The pairs between which no datagram sent at `since` or later has arrived, as "SENDER to RECEIVER".
    pub fn silent<'a>(
        &self,
        pairs: impl IntoIterator<Item = (&'a Peer, &'a Peer)>,
        since: Duration,
    ) -> Vec<String> {
        let silent = pairs.into_iter().filter(|(from, to)| self.first(from.key, to.key, since).is_none());
        silent.map(|(from, to)| format!("{} to {}", from.name, to.name)).collect()
    }

    /// When the first datagram was sent, of the datagrams sent at `since` or later that arrived.
    pub fn first_sent(&self, from: PublicKey, to: PublicKey, since: Duration) -> Option<Duration> {
        let log = self.log();
        let flights = log.flights.get(&(from, to))?;
        flights.iter().map(|(sent, _)| *sent).filter(|sent| *sent >= since).min()
    }

    /// How many datagrams sent at `since` or later arrived.
    pub fn count(&self, from: PublicKey, to: PublicKey, since: Duration) -> usize {
        let log = self.log();
        let flights = log.flights.get(&(from, to)).map_or(&[][..], Vec::as_slice);
        flights.iter().filter(|(sent, _)| *sent >= since).count()
    }

    /// The longest time between two consecutive arrivals, from `since` to `until`.
    pub fn longest_pause(
        &self,
        from: PublicKey,
        to: PublicKey,
        since: Duration,
        until: Duration,
    ) -> Duration {
        let log = self.log();
        let flights = log.flights.get(&(from, to)).map_or(&[][..], Vec::as_slice);
        let within = flights.iter().map(|(_, at)| *at).filter(|at| (since..until).contains(at));
        let mut last = since;
        let mut longest = Duration::ZERO;
        for at in within.chain([until]) {
            longest = longest.max(at.saturating_sub(last));
            last = at;
        }
        longest
    }

    fn record_arrival(&self, now: Duration, from: PublicKey, to: PublicKey, body: &[u8]) {
        assert!(is_secret(body), "a datagram came that nobody sent");
        let sent = text(body).parse().expect("a datagram says when it was sent");
        self.log().flights.entry((from, to)).or_default().push((Duration::from_nanos(sent), now));
    }

    fn log(&self) -> MutexGuard<'_, TrafficLog> {
        lock(&self.0)
    }
}
