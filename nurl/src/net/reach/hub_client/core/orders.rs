//! What holds across reconnects: the groups that we are in, and our record.
//!
//! An order of the layer above is kept here, and sent at once if we are registered. After each registration all of
//! them are sent again, so a hub that restarted knows them, and an order given while the hub is down isn't lost. All
//! other requests and datagrams are for one connection: they go with it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use crate::net::reach::relay::{self, GroupTag};
use crate::net::reach::rendezvous;

/// The most groups that we join; the hub may allow fewer.
pub const MAX_GROUPS: usize = 64;

/// The outcome of joining a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Join {
    New,
    Already,
    /// There are as many groups as the limit allows.
    Refused,
}

/// The orders in force.
#[derive(Debug, Default)]
pub(super) struct Orders {
    groups: BTreeSet<GroupTag>,
    /// We issue passes.
    issues: bool,
    /// Our record with its sequence number.
    record: Option<(u64, Bytes)>,
}

impl Orders {
    /// Joins a group, within the hub's limit if it is known.
    pub(super) fn join(&mut self, tag: GroupTag, hubs_limit: Option<u16>) -> Join {
        let limit = hubs_limit.map_or(MAX_GROUPS, |limit| MAX_GROUPS.min(limit.into()));
        if self.groups.contains(&tag) {
            Join::Already
        } else if self.groups.len() >= limit {
            Join::Refused
        } else {
            self.groups.insert(tag);
            Join::New
        }
    }

    /// Leaves a group. Returns whether we were in it.
    pub(super) fn leave(&mut self, tag: GroupTag) -> bool {
        self.groups.remove(&tag)
    }

    /// Sets our record.
    pub(super) fn publish(&mut self, seq: u64, sealed: Bytes) {
        self.record = Some((seq, sealed));
    }

    /// We issue passes from now on.
    pub(super) fn issue(&mut self) {
        self.issues = true;
    }

    /// Whether we issue passes.
    pub(super) fn issues(&self) -> bool {
        self.issues
    }

    /// Withdraws our record. Returns whether there was one.
    pub(super) fn withdraw(&mut self) -> bool {
        self.record.take().is_some()
    }

    /// The frame that publishes our record for `ttl`, if there is one.
    pub(super) fn record(&self, ttl: Duration) -> Option<Vec<u8>> {
        let (seq, sealed) = self.record.as_ref()?;
        Some(rendezvous::Frame::Publish { seq: *seq, ttl, sealed }.to_vec())
    }

    /// The frames that join our groups.
    pub(super) fn joins(&self) -> impl Iterator<Item = Vec<u8>> {
        self.groups.iter().map(|tag| relay::Frame::GroupJoin { tag: *tag }.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_joined_once_and_within_the_lower_of_both_limits() {
        let mut orders = Orders::default();
        assert_eq!(orders.join([1; 16], Some(2)), Join::New);
        assert_eq!(orders.join([1; 16], Some(1)), Join::Already);
        assert_eq!(orders.join([2; 16], Some(1)), Join::Refused);
        assert!(orders.leave([1; 16]) && !orders.leave([1; 16]));
        for n in 0..MAX_GROUPS as u8 {
            assert_eq!(orders.join([n; 16], None), Join::New);
        }
        assert_eq!(orders.join([200; 16], Some(u16::MAX)), Join::Refused);
        assert_eq!(orders.joins().count(), MAX_GROUPS);
    }

    #[test]
    fn the_newest_record_is_published_until_it_is_withdrawn() {
        let mut orders = Orders::default();
        let ttl = Duration::from_secs(60);
        assert_eq!(orders.record(ttl), None);
        orders.publish(1, Bytes::from_static(b"one"));
        orders.publish(2, Bytes::from_static(b"two"));
        let frame = rendezvous::Frame::Publish { seq: 2, ttl, sealed: b"two" }.to_vec();
        assert_eq!(orders.record(ttl), Some(frame));
        assert!(orders.withdraw() && !orders.withdraw());
        assert_eq!(orders.record(ttl), None);
    }
}
