//! Turns an operation into a delta.

use std::time::Duration;

use super::error::UpdateError;
use super::message::{FieldOp, Op};
use super::own::Own;
use crate::replication::crdt::{
    Author, Clock, CrdtError, Kind, LwwRegister, MAX_TTL, Object, OrMap, PnCounter, Value,
};
use crate::replication::identity::ReplicaId;

impl Op {
    /// The kind that the operation is for.
    pub fn kind(&self) -> Kind {
        match self {
            Op::Add { .. } => Kind::Counter,
            Op::Set { .. } => Kind::Register,
            Op::Insert { .. } | Op::Remove { .. } => Kind::Set,
            Op::Replace { .. } => Kind::Multi,
            Op::Field { .. } => Kind::Map,
            Op::Delete { kind } | Op::Expire { kind, .. } => *kind,
        }
    }

    /// Whether a node that holds `held` must see the other owners' states first: it would remove less than they have, or
    /// write beside what it means to replace. (Another owner may have an element that isn't in a copy, which may be
    /// behind.)
    pub(super) fn must_observe(&self, held: Option<&Value>) -> bool {
        match (self, held) {
            (Op::Remove { element }, Some(Value::Set(set))) => !set.contains(element),
            (Op::Field { name, op: FieldOp::Remove { element } }, Some(Value::Map(map))) => {
                !map.values(Kind::Set, name).contains(&element.as_slice())
            }
            (Op::Field { name, op: FieldOp::Clear }, Some(Value::Map(map))) => {
                map.fields().iter().all(|(of, _)| of != name)
            }
            (
                Op::Remove { .. }
                | Op::Replace { .. }
                | Op::Field { .. }
                | Op::Delete { .. }
                | Op::Expire { .. },
                None,
            ) => true,
            _ => false,
        }
    }

    /// Whether it has no effect on an empty object.
    pub(super) fn only_removes(&self) -> bool {
        matches!(
            self,
            Op::Remove { .. }
                | Op::Delete { .. }
                | Op::Expire { .. }
                | Op::Field { op: FieldOp::Remove { .. } | FieldOp::Clear, .. }
        )
    }
}

/// The delta of `op` over the `known` state of the key, which is of the operation's kind, continuing from `own`.
pub(super) fn delta(
    op: &Op,
    known: &Object,
    own: Own,
    replica: ReplicaId,
    clock: &mut Clock,
    wall: Duration,
) -> Result<Object, UpdateError> {
    let own = own.join(Own::of(known.value(), &replica));
    match op {
        Op::Delete { .. } => {
            observe(known.value(), clock, wall);
            Ok(known.deleting(Author { replica, floor: own.dot }, clock.tick(wall)?))
        }
        Op::Expire { kind, at_ms } => {
            let latest = wall + MAX_TTL;
            let at_ms = (*at_ms).min(u64::try_from(latest.as_millis()).unwrap_or(u64::MAX));
            Ok(Object::expiring(*kind, clock.tick(wall)?, at_ms))
        }
        _ => value_delta(op, known.value(), own, replica, clock, wall).map(Object::from),
    }
}

/// A register's next write is later than the one shown.
fn observe(known: &Value, clock: &mut Clock, wall: Duration) {
    if let Value::Register(register) = known
        && let Some(stamp) = register.stamp()
    {
        clock.observe(stamp, wall);
    }
}

/// The delta of a write to the value.
fn value_delta(
    op: &Op,
    known: &Value,
    own: Own,
    replica: ReplicaId,
    clock: &mut Clock,
    wall: Duration,
) -> Result<Value, UpdateError> {
    observe(known, clock, wall);
    match (op, known) {
        (Op::Add { by }, Value::Counter(_)) => {
            let mut slot = PnCounter::of(replica, own.added, own.taken);
            Ok(Value::Counter(slot.add(replica, *by)?))
        }
        (Op::Set { value }, Value::Register(_)) => {
            Ok(Value::Register(LwwRegister::default().set(replica, clock, wall, value)?))
        }
        (Op::Insert { element }, Value::Set(set)) => Ok(Value::Set(set.adding(replica, element, own.dot)?)),
        (Op::Remove { element }, Value::Set(set)) => Ok(Value::Set(set.removing(element))),
        (Op::Replace { value }, Value::Multi(register)) => {
            Ok(Value::Multi(register.writing(replica, value, own.dot)?))
        }
        (Op::Field { name, op }, Value::Map(map)) => {
            let author = Author { replica, floor: own.dot };
            Ok(Value::Map(field_delta(name, op, map, author, clock, wall)?))
        }
        _ => Err(CrdtError::WrongKind.into()),
    }
}

fn field_delta(
    name: &[u8],
    op: &FieldOp,
    map: &OrMap,
    author: Author,
    clock: &mut Clock,
    wall: Duration,
) -> Result<OrMap, CrdtError> {
    match op {
        FieldOp::Add { by } => map.adding(author, name, *by),
        FieldOp::Set { value } => map.setting(author, name, clock, wall, value),
        FieldOp::Insert { element } => map.inserting(author, name, element),
        FieldOp::Remove { element } => Ok(map.taking_out(name, element)),
        FieldOp::Replace { value } => map.replacing(author, name, value),
        FieldOp::Clear => Ok(map.removing(author, name)),
    }
}
