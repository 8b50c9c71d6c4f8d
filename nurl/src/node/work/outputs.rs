//! The replicator's answers and messages, which leave once what they tell is durable.

use crate::key::PublicKey;
use crate::replication::replicator::{Replicator, ReplicatorEvent};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    pub(super) events: Vec<ReplicatorEvent>,
    pub(super) messages: Vec<(PublicKey, Vec<u8>)>,
}

impl Outputs {
    /// All that the replicator has.
    pub(super) fn of(replicator: &mut Replicator) -> Outputs {
        Outputs {
            events: std::iter::from_fn(|| replicator.poll_event()).collect(),
            messages: std::iter::from_fn(|| replicator.poll_transmit()).collect(),
        }
    }
}
