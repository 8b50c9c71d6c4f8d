//! The answers and messages of replicated state and of the log of detached tasks, which leave once what they tell is
//! durable.

use bytes::Bytes;

use crate::compute::job::custody::{Custody, CustodyError, Order, Told};
use crate::key::PublicKey;
use crate::replication::replicator::{Replicator, ReplicatorEvent};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    pub(super) events: Vec<ReplicatorEvent>,
    pub(super) messages: Vec<(PublicKey, Vec<u8>)>,
    pub(super) told: Vec<(u64, Result<Told, CustodyError>)>,
    pub(super) orders: Vec<Order>,
    pub(super) detached: Vec<(PublicKey, Bytes)>,
}

impl Outputs {
    /// What may be told when the commit that they waited for has failed. Nobody may hear of what isn't durable. The log of
    /// detached tasks goes on in memory, so that what it has begun goes on.
    pub(super) fn without_disk(self) -> Outputs {
        let told = self.told.into_iter().map(|(id, told)| match told {
            // Perhaps this node's disk was counted.
            Ok(Told::Done) => (id, Err(CustodyError::Unconfirmed)),
            told => (id, told),
        });
        Outputs { told: told.collect(), orders: self.orders, ..Outputs::default() }
    }

    /// All that they have.
    pub(super) fn of(replicator: &mut Replicator, custody: &mut Custody) -> Outputs {
        Outputs {
            events: std::iter::from_fn(|| replicator.poll_event()).collect(),
            messages: std::iter::from_fn(|| replicator.poll_transmit()).collect(),
            told: std::iter::from_fn(|| custody.poll_event()).collect(),
            orders: std::iter::from_fn(|| custody.poll_order()).collect(),
            detached: std::iter::from_fn(|| custody.poll_transmit()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::job::TaskId;

    #[test]
    fn what_waited_for_a_commit_that_failed_is_told_to_nobody_and_its_callers_learn_that_it_is_unconfirmed() {
        let (peer, task) = (PublicKey::from_bytes([1; 32]), TaskId::from_bytes([2; 16]));
        let waiting = Outputs {
            messages: vec![(peer, vec![1])],
            detached: vec![(peer, Bytes::from_static(b"stored"))],
            told: vec![(1, Ok(Told::Done)), (2, Err(CustodyError::NoAnswer))],
            orders: vec![Order::Cancel(task)],
            ..Outputs::default()
        };
        let left = waiting.without_disk();
        assert!(left.messages.is_empty() && left.detached.is_empty() && left.events.is_empty());
        assert!(matches!(
            &left.told[..],
            [(1, Err(CustodyError::Unconfirmed)), (2, Err(CustodyError::NoAnswer))]
        ));
        assert!(matches!(&left.orders[..], [Order::Cancel(cancelled)] if *cancelled == task));
    }
}
