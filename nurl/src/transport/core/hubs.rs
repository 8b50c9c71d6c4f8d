//! The transport's side of its hubs: their state, and the command queues of their connections.
//!
//! A hub's queue is bounded. A command whose effect the connection keeps across reconnects (groups, the record, a
//! change of our network) is an order: the newest replaces those that it overrides, and it survives the loss of
//! the connection. Other commands lose value with age, so the oldest of them is dropped from a full queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::key::PublicKey;
use crate::net::reach::hub_client::{DownReason, HubCommand};
use crate::net::reach::relay::GroupTag;

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
    queue: VecDeque<HubCommand>,
}

impl HubState {
    /// Queues a command. Returns whether another one was dropped for it.
    fn push(&mut self, command: HubCommand) -> bool {
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

/// The hubs of the ticket.
#[derive(Debug)]
pub(super) struct Hubs {
    states: BTreeMap<PublicKey, HubState>,
    /// The groups that the hubs were told to join.
    joined: BTreeSet<GroupTag>,
    /// Commands dropped because a queue was full or the hub is down.
    pub(super) dropped: u64,
}

impl Hubs {
    /// Hubs with these keys, all of them down.
    pub(super) fn new(keys: impl Iterator<Item = PublicKey>) -> Hubs {
        let states = keys.map(|hub| (hub, HubState::default())).collect();
        Hubs { states, joined: BTreeSet::new(), dropped: 0 }
    }

    /// The hubs by key.
    pub(super) fn states(&self) -> &BTreeMap<PublicKey, HubState> {
        &self.states
    }

    /// The hubs' keys.
    pub(super) fn keys(&self) -> Vec<PublicKey> {
        self.states.keys().copied().collect()
    }

    /// The hubs at which we are registered.
    pub(super) fn up(&self) -> Vec<PublicKey> {
        self.states.iter().filter(|(_, state)| state.up).map(|(hub, _)| *hub).collect()
    }

    /// The first hub at which we are registered.
    pub(super) fn first_up(&self) -> Option<PublicKey> {
        self.states.iter().find(|(_, state)| state.up).map(|(hub, _)| *hub)
    }

    /// Whether a hub's queue is so full that bulk data should wait.
    pub(super) fn is_full(&self) -> bool {
        self.states.values().any(|state| state.queue.len() >= HUB_QUEUE / 2)
    }

    /// Whether nothing waits for a hub's connection.
    pub(super) fn is_quiet(&self) -> bool {
        self.states.values().all(|state| state.queue.is_empty())
    }

    /// We are registered at a hub.
    pub(super) fn on_up(&mut self, hub: PublicKey) {
        if let Some(state) = self.states.get_mut(&hub) {
            state.up = true;
            state.down = None;
        }
        self.tell_others_up();
    }

    /// We aren't registered at a hub, or not any more.
    pub(super) fn on_down(&mut self, hub: PublicKey, reason: DownReason) {
        if let Some(state) = self.states.get_mut(&hub) {
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
            self.dropped += (waiting - state.queue.len()) as u64;
        }
        self.tell_others_up();
    }

    /// A hub answered a PING.
    pub(super) fn on_pong(&mut self, hub: PublicKey, rtt: Duration) {
        if let Some(state) = self.states.get_mut(&hub) {
            state.rtt = Some(rtt);
        }
    }

    /// Tells each hub's connection whether another hub is up, if that has changed.
    fn tell_others_up(&mut self) {
        let up = self.up();
        for (hub, state) in &mut self.states {
            let others_up = up.iter().any(|other| other != hub);
            if state.others_up != others_up {
                state.others_up = others_up;
                self.dropped += u64::from(state.push(HubCommand::OthersUp(others_up)));
            }
        }
    }

    /// Queues a command for a hub that is up.
    pub(super) fn command(&mut self, hub: PublicKey, command: HubCommand) {
        let Some(state) = self.states.get_mut(&hub) else { return };
        if !state.up {
            self.dropped += 1;
            return;
        }
        self.dropped += u64::from(state.push(command));
    }

    /// Queues a command for each hub that is up.
    pub(super) fn command_all(&mut self, command: impl Fn() -> HubCommand) {
        for hub in self.up() {
            self.command(hub, command());
        }
    }

    /// Queues a command for a hub, also for one that is down: its effect is kept across reconnects.
    pub(super) fn order(&mut self, hub: &PublicKey, command: HubCommand) {
        let Some(state) = self.states.get_mut(hub) else { return };
        self.dropped += u64::from(state.push(command));
    }

    /// Queues an order for all hubs.
    pub(super) fn order_all(&mut self, command: impl Fn() -> HubCommand) {
        for state in self.states.values_mut() {
            self.dropped += u64::from(state.push(command()));
        }
    }

    /// Asks rendezvous for members.
    pub(super) fn list(&mut self, hub: PublicKey) {
        self.command(hub, HubCommand::List { max: CONTACTS });
    }

    /// Asks the rendezvous of each hub that is up for members.
    pub(super) fn list_all(&mut self) {
        self.command_all(|| HubCommand::List { max: CONTACTS });
    }

    /// Makes `tags` the groups that the hubs join.
    pub(super) fn sync_groups(&mut self, tags: BTreeSet<GroupTag>) {
        for tag in self.joined.difference(&tags).copied().collect::<Vec<_>>() {
            self.order_all(|| HubCommand::GroupLeave { tag });
        }
        for tag in tags.difference(&self.joined).copied().collect::<Vec<_>>() {
            self.order_all(|| HubCommand::GroupJoin { tag });
        }
        self.joined = tags;
    }

    /// The next command for a hub's connection.
    pub(super) fn poll(&mut self, hub: &PublicKey) -> Option<HubCommand> {
        self.states.get_mut(hub)?.queue.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

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
