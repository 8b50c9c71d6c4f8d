//! Turns an operation into a delta.

use std::time::Duration;

use super::{Op, UpdateError};
use crate::replication::crdt::{Clock, CrdtError, Kind, LwwRegister, PnCounter, Value};
use crate::replication::identity::ReplicaId;

/// This node's total writes to a key, from which its next delta continues. An owner reads them from the state that it
/// holds; for every other key that the node wrote, it keeps this record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) added: u64,
    pub(super) taken: u64,
    /// The highest dot.
    pub(super) dot: u64,
}

impl Own {
    /// `replica`'s writes as far as `value` contains them.
    pub(super) fn of(value: &Value, replica: &ReplicaId) -> Own {
        match value {
            Value::Counter(counter) => {
                let (added, taken) = counter.slot(replica);
                Own { added, taken, dot: 0 }
            }
            Value::Register(_) => Own::default(),
            Value::Set(set) => Own { dot: set.context().highest(replica), ..Own::default() },
            Value::Mixed(_) => {
                value.parts().iter().fold(Own::default(), |own, part| own.join(Own::of(part, replica)))
            }
        }
    }

    pub(super) fn join(self, other: Own) -> Own {
        Own {
            added: self.added.max(other.added),
            taken: self.taken.max(other.taken),
            dot: self.dot.max(other.dot),
        }
    }
}

impl Op {
    /// The type that the operation is for.
    pub fn kind(&self) -> Kind {
        match self {
            Op::Add { .. } => Kind::Counter,
            Op::Set { .. } => Kind::Register,
            Op::Insert { .. } | Op::Remove { .. } => Kind::Set,
        }
    }
}

/// The delta of `op` over the `known` state of the key, continuing from `own`.
pub(super) fn delta(
    op: &Op,
    known: &Value,
    own: Own,
    replica: ReplicaId,
    clock: &mut Clock,
    wall: Duration,
) -> Result<Value, UpdateError> {
    let own = own.join(Own::of(known, &replica));
    let wrong = CrdtError::WrongKind { held: known.kind(), wanted: op.kind() };
    match (op, known.part(op.kind()).ok_or(wrong)?) {
        (Op::Add { by }, Value::Counter(_)) => {
            let mut slot = PnCounter::of(replica, own.added, own.taken);
            Ok(Value::Counter(slot.add(replica, *by)?))
        }
        (Op::Set { value }, Value::Register(register)) => {
            if let Some(stamp) = register.stamp() {
                clock.observe(stamp, wall);
            }
            Ok(Value::Register(LwwRegister::default().set(replica, clock, wall, value)?))
        }
        (Op::Insert { element }, Value::Set(set)) => Ok(Value::Set(set.adding(replica, element, own.dot)?)),
        (Op::Remove { element }, Value::Set(set)) => Ok(Value::Set(set.removing(element))),
        _ => Err(wrong.into()),
    }
}
