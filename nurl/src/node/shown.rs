//! What the objects of each kind show of their states.

use std::time::Duration;

use super::state::FieldValue;
use crate::replication::crdt::{Kind, OrMap, Value};
use crate::rt::time::unix_now;

/// A counter's sum.
pub(super) fn sum(value: Option<Value>) -> i128 {
    match value {
        Some(Value::Counter(counter)) => counter.value(),
        _ => 0,
    }
}

/// A register's last value.
pub(super) fn last(value: Option<Value>) -> Option<Vec<u8>> {
    match value {
        Some(Value::Register(register)) => register.value().map(<[u8]>::to_vec),
        _ => None,
    }
}

/// A multi-value register's values, sorted.
pub(super) fn values(value: Option<Value>) -> Vec<Vec<u8>> {
    match value {
        Some(Value::Multi(register)) => register.values().into_iter().map(<[u8]>::to_vec).collect(),
        _ => Vec::new(),
    }
}

/// A set's elements, sorted.
pub(super) fn members(value: Option<Value>) -> Vec<Vec<u8>> {
    match value {
        Some(Value::Set(set)) => set.iter().map(<[u8]>::to_vec).collect(),
        _ => Vec::new(),
    }
}

/// A map's fields, sorted by name, as this node's clock shows them.
pub(super) fn fields(value: Option<Value>) -> Vec<(Vec<u8>, FieldValue)> {
    match value {
        Some(Value::Map(map)) => fields_of(&map, unix_now()),
        _ => Vec::new(),
    }
}

fn fields_of(map: &OrMap, wall: Duration) -> Vec<(Vec<u8>, FieldValue)> {
    let all = |kind, name| map.values(kind, name).into_iter().map(<[u8]>::to_vec).collect();
    let shown = map.fields().into_iter().filter_map(|(name, kind)| {
        let value = match kind {
            Kind::Counter => FieldValue::Counter(map.counter(name)),
            Kind::Register => FieldValue::Register(map.register(name, wall)?.to_vec()),
            Kind::Set => FieldValue::Set(all(kind, name)),
            Kind::Multi => FieldValue::Multi(all(kind, name)),
            Kind::Map => return None,
        };
        Some((name.to_vec(), value))
    });
    shown.collect()
}
