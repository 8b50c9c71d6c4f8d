//! Messages about replicated state in words, for the reader of a simulated world.

use super::message::Message;

/// What a message says.
pub(super) fn message(message: &Message) -> String {
    match message {
        Message::Delta { key, id, state } => format!("DELTA {} id {id:?}, {} B", name(key), state.len()),
        Message::Ack { key, id, .. } => format!("DELTA-ACK {} id {id}", name(key)),
        Message::Refused { key, id, .. } => format!("NOT-OWNER {} id {id:?}", name(key)),
        Message::Summary { .. } => "SUMMARY".to_owned(),
        Message::InSync { .. } => "IN-SYNC".to_owned(),
        Message::Divided { parts, .. } => format!("DIVIDED into {} parts", parts.len() + 1),
        Message::Digests { items, .. } => format!("DIGESTS of {} keys", items.len()),
        Message::Pull { keys } => format!("PULL {} keys", keys.len()),
        Message::States { items } => format!("STATES of {} keys", items.len()),
        Message::Read { key, id } => format!("READ {} id {id}", name(key)),
        Message::ReadReply { key, id, state, .. } => {
            let len = state.as_ref().map(|state| state.len());
            format!("READ-REPLY {} id {id} bytes {len:?}", name(key))
        }
        Message::Operation { key, .. } => format!("OPERATION {}", name(key)),
        Message::Inquiry { .. } => "INQUIRY".to_owned(),
        Message::OperationReply { outcome, .. } => format!("OPERATION-REPLY {outcome}"),
        Message::Copy { key, id, .. } => format!("COPY {} id {id}", name(key)),
        Message::Behind { key } => format!("BEHIND {}", name(key)),
        Message::Declined { key, id, why } => format!("DECLINED {} id {id} why {why}", name(key)),
        Message::List { id, prefix, .. } => format!("LIST {} id {id}", String::from_utf8_lossy(prefix)),
        Message::Names { id, keys, .. } => format!("NAMES {} id {id}", keys.len()),
        Message::Watch { key, id, .. } => format!("WATCH {} id {id}", name(key)),
        Message::Watched { key, id, outcome, .. } => format!("WATCHED {} id {id} {outcome}", name(key)),
        Message::Confirm { key, id } => format!("CONFIRM {} id {id}", name(key)),
    }
}

/// The name in a key, behind its kind.
pub(super) fn name(key: &[u8]) -> String {
    String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned()
}
