//! The transport's side of its hubs: their events, and the command queues of their connections.
//!
//! A hub's queue is bounded. A command whose effect the connection keeps across reconnects (groups, the record, a
//! change of our network) is an order: the newest replaces those that it overrides, and it survives the loss of
//! the connection. Other commands lose value with age, so the oldest of them is dropped from a full queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::{Transport, TransportEvent};
use crate::key::PublicKey;
use crate::net::reach::hub_client::{DownReason, HubCommand, HubEvent};
use crate::net::reach::rendezvous::{Contact, PublishResult, Record, RecordError, SealedRecord};
use crate::net::secure::securedgram::Source;

/// Commands that wait for one hub's connection: a second of gossip and a window of relayed bulk data.
pub const HUB_QUEUE: usize = 1_024;

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
    /// Whether its connection has been told that another hub is up.
    others_up: bool,
    /// Its STUN servers, once its name is resolved: one of each family at most, v4 first.
    pub(super) servers: Vec<StunServer>,
    pub(super) queue: VecDeque<HubCommand>,
}

/// A hub's STUN server in one address family.
#[derive(Debug, Clone, Copy)]
pub(super) struct StunServer {
    pub(super) addr: SocketAddr,
    /// The address from which we write to it.
    pub(super) source: Option<IpAddr>,
    /// Our address as the server sees it.
    pub(super) reflexive: Option<SocketAddr>,
    /// The last request's time, from that source address.
    pub(super) asked: Option<Instant>,
    /// The next request's time.
    pub(super) due: Instant,
}

impl StunServer {
    /// When the server may be asked early: `gap` after the last request.
    pub(super) fn soon(&self, now: Instant, gap: Duration) -> Instant {
        self.asked.map_or(now, |asked| now.max(asked + gap))
    }
}

impl HubState {
    /// Our addresses as the hub sees them, at most one of each family.
    pub fn reflexive(&self) -> impl Iterator<Item = SocketAddr> + use<'_> {
        self.servers.iter().filter_map(|server| server.reflexive)
    }

    /// Takes the first address of each family; all are queried at once. A reflexive address stays until the next
    /// answer of its family. An empty result leaves the known servers unchanged.
    pub(super) fn resolved(&mut self, now: Instant, found: &[SocketAddr]) {
        for server in &mut self.servers {
            server.due = now;
        }
        if found.is_empty() {
            return;
        }
        let known = std::mem::take(&mut self.servers);
        for v4 in [true, false] {
            let canonical = found.iter().map(|addr| SocketAddr::new(addr.ip().to_canonical(), addr.port()));
            let Some(addr) = canonical.into_iter().find(|addr| addr.is_ipv4() == v4) else { continue };
            let known = known.iter().find(|server| server.addr.is_ipv4() == v4);
            let (source, reflexive) = known.map_or((None, None), |server| (server.source, server.reflexive));
            self.servers.push(StunServer { addr, source, reflexive, asked: None, due: now });
        }
    }

    /// Queues a command. Returns whether another one was dropped for it.
    pub(super) fn push(&mut self, command: HubCommand) -> bool {
        if is_order(&command) {
            self.queue.retain(|waiting| !overrides(&command, waiting));
        }
        let lost = self.queue.len() >= HUB_QUEUE;
        if lost {
            // Groups are few, so besides datagrams and the like only leaves can be many. A lost leave only costs
            // frames that this node can't open.
            let is_leave = |waiting: &HubCommand| matches!(waiting, HubCommand::GroupLeave { .. });
            let oldest = self.queue.iter().position(|waiting| !is_order(waiting));
            let oldest = oldest.or_else(|| self.queue.iter().position(is_leave)).unwrap_or(0);
            self.queue.remove(oldest);
        }
        self.queue.push_back(command);
        lost
    }
}

/// Whether the connection keeps the command's effect across reconnects.
fn is_order(command: &HubCommand) -> bool {
    !matches!(
        command,
        HubCommand::Forward { .. }
            | HubCommand::GroupSend { .. }
            | HubCommand::Lookup { .. }
            | HubCommand::List { .. }
            | HubCommand::Ping
    )
}

/// Whether an order makes an earlier one obsolete.
fn overrides(order: &HubCommand, before: &HubCommand) -> bool {
    use HubCommand::{GroupJoin, GroupLeave, NetworkChanged, OthersUp, Publish};
    match (order, before) {
        (GroupJoin { tag } | GroupLeave { tag }, GroupJoin { tag: other } | GroupLeave { tag: other }) => {
            tag == other
        }
        (Publish { .. }, Publish { .. }) | (NetworkChanged, NetworkChanged) | (OthersUp(_), OthersUp(_)) => {
            true
        }
        _ => false,
    }
}

impl Transport {
    /// Sends a PING to every hub that is up.
    pub fn ping_hubs(&mut self) {
        self.command_all(|| HubCommand::Ping);
    }

    /// Asks rendezvous for members; [`TransportEvent::Contacts`] follows.
    pub fn ask_contacts(&mut self) {
        self.command_all(|| HubCommand::List { max: CONTACTS });
    }

    /// Handles a hub connection's events.
    pub fn handle_hub(&mut self, now: Instant, hub: PublicKey, events: Vec<HubEvent>) {
        for event in events {
            match event {
                HubEvent::Datagram { src, payload } => {
                    let mut datagram =
                        payload.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
                    self.handle_datagram(now, Source::relay(hub, src), &mut datagram);
                }
                HubEvent::Group { payload, .. } => self.handle_group(now, &payload),
                HubEvent::Up { .. } => self.on_hub_up(now, hub),
                HubEvent::Down { reason, .. } => self.on_hub_down(now, hub, reason),
                // A Down event follows with the reason.
                HubEvent::Replaced => {}
                HubEvent::Pong { rtt } => {
                    if let Some(state) = self.hubs.get_mut(&hub) {
                        state.rtt = Some(rtt);
                    }
                    self.events.push_back(TransportEvent::HubPong);
                }
                HubEvent::Records(records) => {
                    let contacts = records
                        .iter()
                        .filter(|record| record.key != self.local)
                        .map(|record| Contact {
                            key: record.key,
                            opened: self.open(now, record) != Err(RecordError::Sealed),
                        })
                        .collect();
                    self.events.push_back(TransportEvent::Contacts { hub, contacts });
                }
                HubEvent::Record(record) => self.on_looked_up(now, &record),
                // Another publisher with our key has a higher sequence number.
                HubEvent::Published { seq, result: PublishResult::Stale } => {
                    self.record_seq = self.record_seq.max(seq);
                    self.publish(now);
                }
                HubEvent::Published { .. } => {}
                HubEvent::GroupRefused { .. } => self.stats.groups_refused += 1,
                // Datagrams may be lost anywhere: the layers above detect it by timeouts, which also covers a hub
                // that reports nothing. Only a joining node needs to know which peers not to wait for.
                HubEvent::PeerGone { peer } => {
                    if self.peers.contains_key(&peer) {
                        self.events.push_back(TransportEvent::NotThere { hub, peer });
                    }
                }
                // A hub without a record of a peer may still have the peer connected: observers have no record.
                HubEvent::NoRecord { .. } | HubEvent::QueueFull { .. } => {}
            }
        }
    }

    /// The content of a record, if it was sealed by this mesh and hasn't expired.
    fn open(&self, now: Instant, record: &SealedRecord) -> Result<Record, RecordError> {
        let (base, unix_base) = self.unix_base;
        let unix_now = unix_base + now.saturating_duration_since(base);
        Record::open(&self.generations, &record.key, record.seq, &record.sealed, unix_now)
    }

    /// The record of a peer that was looked up: candidates for the peer before any session could report them.
    /// Without a hub that relays they are the only route.
    fn on_looked_up(&mut self, now: Instant, record: &SealedRecord) {
        if !self.peers.contains_key(&record.key) {
            return;
        }
        if let Ok(opened) = self.open(now, record) {
            // The table had room for the peer when it was added.
            let _ = self.endpoint.add_candidates(now, &record.key, &opened.candidates);
        }
    }

    pub(super) fn on_hub_up(&mut self, now: Instant, hub: PublicKey) {
        if let Some(state) = self.hubs.get_mut(&hub) {
            state.up = true;
            state.down = None;
        }
        self.tell_others_up();
        self.command(hub, HubCommand::List { max: CONTACTS });
        self.relays_changed(now);
        // Peers with a session, but no route until now, have one.
        for peer in self.waiting.peers() {
            if self.endpoint.is_established(&peer) {
                self.send_waiting(now, peer);
            }
        }
        self.events.push_back(TransportEvent::HubUp { hub });
    }

    pub(super) fn on_hub_down(&mut self, now: Instant, hub: PublicKey, reason: DownReason) {
        if let Some(state) = self.hubs.get_mut(&hub) {
            state.up = false;
            state.rtt = None;
            state.down = Some(match (reason, state.down) {
                // A disconnect of our own says nothing about a hub that was unusable before.
                (DownReason::NetworkChanged, Some(before)) => before,
                _ => reason,
            });
            let waiting = state.queue.len();
            // Orders stay; the other commands were for this connection only.
            state.queue.retain(is_order);
            self.stats.hub_dropped += (waiting - state.queue.len()) as u64;
        }
        self.tell_others_up();
        self.relays_changed(now);
        self.events.push_back(TransportEvent::HubDown { hub, reason });
    }

    /// Tells each hub's connection whether another hub is up, if that has changed.
    fn tell_others_up(&mut self) {
        let up = self.hubs_up();
        for (hub, state) in &mut self.hubs {
            let others_up = up.iter().any(|other| other != hub);
            if state.others_up != others_up {
                state.others_up = others_up;
                self.stats.hub_dropped += u64::from(state.push(HubCommand::OthersUp(others_up)));
            }
        }
    }

    pub(super) fn relays_changed(&mut self, now: Instant) {
        let up = self.hubs_up();
        for peer in self.peers.keys() {
            // The table had room for the peer when it was added; if it has none now, there is no session to update.
            let _ = self.endpoint.set_relays(now, peer, &up);
        }
    }

    /// The hubs of the ticket.
    pub fn hubs(&self) -> &BTreeMap<PublicKey, HubState> {
        &self.hubs
    }

    pub(super) fn hubs_up(&self) -> Vec<PublicKey> {
        self.hubs.iter().filter(|(_, state)| state.up).map(|(hub, _)| *hub).collect()
    }

    pub(super) fn first_hub_up(&self) -> Option<PublicKey> {
        self.hubs.iter().find(|(_, state)| state.up).map(|(hub, _)| *hub)
    }

    /// Whether a hub's queue is so full that bulk data should wait.
    pub(super) fn hub_is_full(&self) -> bool {
        self.hubs.values().any(|state| state.queue.len() >= HUB_QUEUE / 2)
    }

    pub(super) fn command(&mut self, hub: PublicKey, command: HubCommand) {
        let Some(state) = self.hubs.get_mut(&hub) else { return };
        if !state.up {
            self.stats.hub_dropped += 1;
            return;
        }
        self.stats.hub_dropped += u64::from(state.push(command));
    }

    pub(super) fn command_all(&mut self, command: impl Fn() -> HubCommand) {
        for hub in self.hubs_up() {
            self.command(hub, command());
        }
    }

    /// Queues a command for all hubs, also for those that are down: its effect is kept across reconnects.
    pub(super) fn order_all(&mut self, command: impl Fn() -> HubCommand) {
        for state in self.hubs.values_mut() {
            self.stats.hub_dropped += u64::from(state.push(command()));
        }
    }

    /// Sends our group changes to the hubs.
    pub(super) fn sync_groups(&mut self) {
        let tags: BTreeSet<_> = self.groups.tags().collect();
        for tag in self.joined.difference(&tags).copied().collect::<Vec<_>>() {
            self.order_all(|| HubCommand::GroupLeave { tag });
        }
        for tag in tags.difference(&self.joined).copied().collect::<Vec<_>>() {
            self.order_all(|| HubCommand::GroupJoin { tag });
        }
        self.joined = tags;
    }

    /// The next command for a hub's connection.
    pub(in crate::layers::transport) fn poll_hub(&mut self, hub: &PublicKey) -> Option<HubCommand> {
        self.hubs.get_mut(hub)?.queue.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::net::reach::relay::GroupTag;

    fn datagram(n: usize) -> HubCommand {
        HubCommand::Forward {
            dst: PublicKey::from_bytes([9; 32]),
            payload: Bytes::from(n.to_le_bytes().to_vec()),
        }
    }

    fn tag(n: usize) -> GroupTag {
        let mut tag = GroupTag::default();
        tag[..8].copy_from_slice(&n.to_le_bytes());
        tag
    }

    fn names(hub: &HubState) -> Vec<String> {
        hub.queue.iter().map(|command| format!("{command:?}")).collect()
    }

    #[test]
    fn a_full_queue_loses_its_oldest_datagram_and_no_order() {
        let mut hub = HubState::default();
        assert!(!hub.push(HubCommand::GroupJoin { tag: tag(1) }));
        for n in 1..HUB_QUEUE {
            assert!(!hub.push(datagram(n)));
        }
        assert!(hub.push(datagram(HUB_QUEUE)));
        assert!(hub.push(HubCommand::NetworkChanged));
        assert_eq!(hub.queue.len(), HUB_QUEUE);
        assert!(matches!(hub.queue[0], HubCommand::GroupJoin { .. }), "{:?}", hub.queue[0]);
        let first = |n: usize| format!("{:?}", datagram(n));
        assert_eq!(format!("{:?}", hub.queue[1]), first(3));
    }

    #[test]
    fn an_order_takes_the_place_of_those_it_overrides() {
        let mut hub = HubState::default();
        let publish = |seq| HubCommand::Publish { seq, sealed: Bytes::new() };
        for order in [
            HubCommand::GroupJoin { tag: tag(1) },
            HubCommand::GroupJoin { tag: tag(2) },
            publish(1),
            HubCommand::NetworkChanged,
            HubCommand::GroupLeave { tag: tag(1) },
            publish(2),
            HubCommand::NetworkChanged,
        ] {
            assert!(!hub.push(order));
        }
        let left = [
            HubCommand::GroupJoin { tag: tag(2) },
            HubCommand::GroupLeave { tag: tag(1) },
            publish(2),
            HubCommand::NetworkChanged,
        ];
        assert_eq!(names(&hub), left.map(|command| format!("{command:?}")));
    }

    #[test]
    fn of_what_was_told_of_other_hubs_the_newest_stays() {
        let mut hub = HubState::default();
        for up in [true, false, true] {
            hub.push(HubCommand::OthersUp(up));
        }
        assert_eq!(names(&hub), ["OthersUp(true)"]);
    }

    #[test]
    fn orders_alone_never_outgrow_the_queue() {
        let mut hub = HubState::default();
        hub.push(HubCommand::GroupJoin { tag: tag(0) });
        for n in 1..2 * HUB_QUEUE {
            hub.push(HubCommand::GroupLeave { tag: tag(n) });
        }
        assert_eq!(hub.queue.len(), HUB_QUEUE);
        assert!(matches!(hub.queue[0], HubCommand::GroupJoin { .. }), "a group that we are in is never lost");
    }
}
