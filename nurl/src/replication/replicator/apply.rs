//! Turns an operation into a delta.

use std::time::Duration;

use super::error::UpdateError;
use super::message::Op;
use super::own::Own;
use crate::replication::crdt::{Clock, CrdtError, Kind, LwwRegister, PnCounter, Value};
use crate::replication::identity::ReplicaId;

impl Op {
    /// The kind that the operation is for.
    pub fn kind(&self) -> Kind {
        match self {
            Op::Add { .. } => Kind::Counter,
            Op::Set { .. } => Kind::Register,
            Op::Insert { .. } | Op::Remove { .. } => Kind::Set,
            Op::Replace { .. } => Kind::Multi,
        }
    }
}

/// The delta of `op` over the `known` state of the key, which is of the operation's kind, continuing from `own`.
pub(super) fn delta(
    op: &Op,
    known: &Value,
    own: Own,
    replica: ReplicaId,
    clock: &mut Clock,
    wall: Duration,
) -> Result<Value, UpdateError> {
    let own = own.join(Own::of(known, &replica));
    match (op, known) {
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
        (Op::Replace { value }, Value::Multi(register)) => {
            Ok(Value::Multi(register.writing(replica, value, own.dot)?))
        }
        _ => Err(CrdtError::WrongKind.into()),
    }
}
