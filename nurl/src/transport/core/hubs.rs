//! The transport's side of its hubs: a client for each, and what the layer above may know of it.
//!
//! The client keeps what holds across reconnects, and the only queue before the hub's stream; see
//! [`hub_client`](crate::net::reach::hub_client).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::authority::credential::Credential;
use crate::key::PublicKey;
use crate::net::reach::hub_client::{ClientStats, DownReason, HubClient, HubEvent};
use crate::net::reach::relay::GroupTag;

/// Contacts requested from rendezvous at a time: more than a join uses at once, so silent ones don't matter.
const CONTACTS: u16 = 16;

/// The transport's state of a hub.
#[derive(Debug, Default)]
pub struct HubState {
    /// Whether we are registered.
    pub up: bool,
    /// The round-trip time of the last PING.
    pub rtt: Option<Duration>,
    /// Why it is down; `None` while it is up, and before a first attempt has failed.
    pub down: Option<DownReason>,
}

/// The hubs of the ticket.
pub(super) struct Hubs {
    clients: BTreeMap<PublicKey, HubClient>,
    states: BTreeMap<PublicKey, HubState>,
    /// The groups that the clients were told to join.
    joined: BTreeSet<GroupTag>,
    /// Datagrams and records dropped before they reached a client.
    unsent: u64,
}

impl Hubs {
    /// The hubs of these clients, all of them down.
    pub(super) fn new(clients: impl Iterator<Item = HubClient>) -> Hubs {
        let clients: BTreeMap<_, _> = clients.map(|client| (client.hub().key, client)).collect();
        let states = clients.keys().map(|hub| (*hub, HubState::default())).collect();
        Hubs { clients, states, joined: BTreeSet::new(), unsent: 0 }
    }

    /// The hubs by key.
    pub(super) fn states(&self) -> &BTreeMap<PublicKey, HubState> {
        &self.states
    }

    /// A hub's client.
    pub(super) fn client(&mut self, hub: &PublicKey) -> Option<&mut HubClient> {
        self.clients.get_mut(hub)
    }

    /// The hubs' keys.
    pub(super) fn keys(&self) -> Vec<PublicKey> {
        self.states.keys().copied().collect()
    }

    /// The hubs at which we are registered.
    pub(super) fn up(&self) -> Vec<PublicKey> {
        self.states.iter().filter(|(_, state)| state.up).map(|(hub, _)| *hub).collect()
    }

    /// Whether bulk data should wait until a hub's stream has taken some bytes.
    pub(super) fn is_full(&self) -> bool {
        self.clients.values().any(HubClient::holds_back)
    }

    /// Whether nothing waits for a hub's stream.
    pub(super) fn is_quiet(&self) -> bool {
        self.clients.values().all(HubClient::is_quiet)
    }

    /// The counters of each client.
    pub(super) fn stats(&self) -> impl Iterator<Item = ClientStats> {
        self.clients.values().map(HubClient::stats)
    }

    /// Everything that was to be sent to a hub and was dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.unsent + self.stats().map(|client| client.dropped()).sum::<u64>()
    }

    /// Counts a datagram or a record that is dropped before it reaches a client.
    pub(super) fn count_unsent(&mut self) {
        self.unsent += 1;
    }

    /// A hub issued a pass for us, which the others are shown too.
    pub(super) fn set_credential(&mut self, now: Instant, issuer: &PublicKey, credential: &Credential) {
        for (_, client) in self.clients.iter_mut().filter(|(hub, _)| *hub != issuer) {
            client.set_credential(now, credential.clone());
        }
    }

    /// We are registered at a hub.
    pub(super) fn on_up(&mut self, now: Instant, hub: &PublicKey) {
        if let Some(state) = self.states.get_mut(hub) {
            state.up = true;
            state.down = None;
        }
        if let Some(client) = self.client(hub) {
            client.list(CONTACTS);
        }
        self.tell_others_up(now);
    }

    /// We aren't registered at a hub, or not any more.
    pub(super) fn on_down(&mut self, now: Instant, hub: &PublicKey, reason: DownReason) {
        if let Some(state) = self.states.get_mut(hub) {
            state.up = false;
            state.rtt = None;
            state.down = Some(match (reason, state.down) {
                // A disconnect of our own says nothing about a hub that was unusable before.
                (DownReason::NetworkChanged, Some(before)) => before,
                _ => reason,
            });
        }
        self.tell_others_up(now);
    }

    /// A hub answered a PING.
    pub(super) fn on_pong(&mut self, hub: &PublicKey, rtt: Duration) {
        if let Some(state) = self.states.get_mut(hub) {
            state.rtt = Some(rtt);
        }
    }

    /// Tells each hub's client whether another hub is up.
    fn tell_others_up(&mut self, now: Instant) {
        let up = self.up();
        for (hub, client) in &mut self.clients {
            client.others_up(now, up.iter().any(|other| other != hub));
        }
    }

    /// The buffer to which a datagram of `len` bytes for `peer` is to be appended; [`commit`](Hubs::commit) must
    /// follow. `None`: the datagram is dropped.
    pub(super) fn begin(&mut self, hub: &PublicKey, peer: &PublicKey, len: usize) -> Option<&mut Vec<u8>> {
        self.client(hub)?.begin_forward(peer, len)
    }

    /// Completes the datagram appended since [`begin`](Hubs::begin).
    pub(super) fn commit(&mut self, hub: &PublicKey, len: usize) {
        if let Some(client) = self.client(hub) {
            client.commit_forward(len);
        }
    }

    /// Relays a datagram.
    pub(super) fn forward(&mut self, hub: &PublicKey, peer: &PublicKey, datagram: &[u8]) {
        if let Some(client) = self.client(hub) {
            client.forward(peer, datagram);
        }
    }

    /// Lets the first hub that is up fan a datagram out. Returns whether there is one.
    pub(super) fn group_send(&mut self, tag: GroupTag, datagram: &[u8]) -> bool {
        let first =
            self.states.iter().find(|(_, state)| state.up).and_then(|(hub, _)| self.clients.get_mut(hub));
        first.map(|client| client.group_send(tag, datagram)).is_some()
    }

    /// Publishes our record at a hub, which keeps it there.
    pub(super) fn publish(&mut self, now: Instant, hub: &PublicKey, seq: u64, sealed: Bytes) {
        if let Some(client) = self.client(hub) {
            client.publish(now, seq, sealed);
        }
    }

    /// Tells one hub, or each, what the authority has revoked. Returns whether one is up.
    pub(super) fn tell(&mut self, one: Option<&PublicKey>, entries: &[u8]) -> bool {
        let meant = |hub: &PublicKey| one.is_none_or(|one| one == hub);
        let up: Vec<PublicKey> = self.up().into_iter().filter(meant).collect();
        for hub in &up {
            if let Some(client) = self.clients.get_mut(hub) {
                client.revoke(entries);
            }
        }
        !up.is_empty()
    }

    /// Tells each hub that this node issues passes.
    pub(super) fn issue(&mut self) {
        self.clients.values_mut().for_each(HubClient::issue);
    }

    /// Asks the rendezvous of each hub for members.
    pub(super) fn list(&mut self) {
        self.clients.values_mut().for_each(|client| client.list(CONTACTS));
    }

    /// Asks the rendezvous of each hub for a peer's record.
    pub(super) fn look_up(&mut self, peer: PublicKey) {
        self.clients.values_mut().for_each(|client| client.look_up(peer));
    }

    /// Sends a PING to each hub.
    pub(super) fn ping(&mut self, now: Instant) {
        self.clients.values_mut().for_each(|client| client.ping(now));
    }

    /// Every connection is in doubt.
    pub(super) fn network_changed(&mut self, now: Instant) {
        self.clients.values_mut().for_each(|client| client.network_changed(now));
    }

    /// Makes `tags` the groups that the clients join.
    pub(super) fn sync_groups(&mut self, tags: BTreeSet<GroupTag>) {
        let joined = std::mem::replace(&mut self.joined, tags.clone());
        for client in self.clients.values_mut() {
            joined.difference(&tags).for_each(|tag| client.leave(*tag));
            tags.difference(&joined).for_each(|tag| client.join(*tag));
        }
    }

    /// The next event of a client.
    pub(super) fn poll_event(&mut self) -> Option<(PublicKey, HubEvent)> {
        self.clients.iter_mut().find_map(|(hub, client)| Some((*hub, client.poll_event()?)))
    }

    /// Handles the clients' timeouts that are due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.clients.values_mut().for_each(|client| client.handle_timeout(now));
    }

    /// When [`handle_timeout`](Hubs::handle_timeout) is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.clients.values().map(HubClient::poll_timeout).min()
    }
}
