//! The receive budget: which peers are read from, and which are paused.

use std::time::Instant;

use quinn_proto::StreamId;

use super::Reliable;
use crate::key::PublicKey;
use crate::transport::reliable::ReliableEvent;
use crate::transport::reliable::inbox::Violation;
use crate::transport::reliable::limits::MESSAGE_OVERHEAD_BYTES;

impl Reliable {
    pub(super) fn over_budget(&self) -> bool {
        self.receiving >= self.config.receive_budget_bytes
    }

    pub(super) fn held(&self, peer: &PublicKey) -> usize {
        self.peers.get(peer).and_then(|entry| entry.link.as_ref()).map_or(0, |link| link.inbox.held())
    }

    /// While the receive budget is exceeded, one peer is read from: the smallest key among those with an
    /// incomplete message. Any rule works that selects a peer which can complete its message.
    pub(super) fn choose_leader(&mut self, now: Instant) {
        if !self.over_budget() {
            self.leader = None;
        } else if self.leader.is_none_or(|(leader, _)| self.held(&leader) == 0) {
            let begun = self.peers.keys().copied().find(|peer| self.held(peer) > 0);
            self.leader = begun.map(|leader| (leader, now));
        }
    }

    pub(super) fn read(&mut self, peer: PublicKey, stream: StreamId) -> Result<(), Violation> {
        let pause = self.over_budget() && self.leader.is_none_or(|(leader, _)| leader != peer);
        let Some(link) = self.peers.get_mut(&peer).and_then(|entry| entry.link.as_mut()) else {
            return Ok(());
        };
        if pause {
            self.stats.paused += u64::from(self.paused.insert(peer));
            link.inbox.unread.insert(stream);
            return Ok(());
        }
        let before = link.inbox.held();
        let message = link.inbox.read(&mut link.conn, stream);
        self.receiving = self.receiving - before + link.inbox.held();
        if let Some((kind, body)) = message? {
            self.receiving += body.len() + MESSAGE_OVERHEAD_BYTES;
            self.stats.delivered += 1;
            self.events.push_back(ReliableEvent::Message { peer, kind, body });
        }
        Ok(())
    }

    /// Resumes paused reading, as far as the budget allows.
    pub(super) fn resume(&mut self) {
        while let Some(&peer) = self
            .paused
            .iter()
            .find(|peer| !self.over_budget() || self.leader.is_some_and(|(leader, _)| leader == **peer))
        {
            let unread = self
                .peers
                .get_mut(&peer)
                .and_then(|entry| entry.link.as_mut())
                .and_then(|link| link.inbox.unread.pop_first());
            let Some(stream) = unread else {
                self.paused.remove(&peer);
                continue;
            };
            if self.read(peer, stream).is_err() {
                self.stats.violations += 1;
                self.lose(peer, None);
            }
            self.enqueue(peer);
        }
    }
}
