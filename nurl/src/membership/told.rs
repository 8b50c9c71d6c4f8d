//! Messages of the membership protocol in words, for the reader of a simulated world.

use super::message::{MembershipMessage, MessageBody};
use super::table::State;

/// The facts that are told one by one; more are counted.
const FACTS: usize = 4;

/// What an encoded message says. Of facts about live members only the number is told.
pub(super) fn message(bytes: &[u8]) -> String {
    let Ok(message) = MembershipMessage::decode(bytes) else { return "no membership message".to_owned() };
    let mut text = match message.body {
        MessageBody::Ping { seq } => format!("SWIM ping {seq}"),
        MessageBody::Ack { seq } => format!("SWIM ack {seq}"),
        MessageBody::PingReq { seq, target, .. } => format!("SWIM ping-req {seq} of {}", target.short()),
        MessageBody::Nack { seq } => format!("SWIM nack {seq}"),
        MessageBody::Gossip => "SWIM gossip".to_owned(),
        MessageBody::PushPull(chunk) => format!("PUSH-PULL {} of {}", chunk.index + 1, chunk.total),
        MessageBody::PushPullAck(chunk) => format!("PUSH-PULL answer {} of {}", chunk.index + 1, chunk.total),
        MessageBody::Announce { .. } => "SWIM announce".to_owned(),
    };
    let grave: Vec<_> = message.facts.iter().filter(|fact| fact.record.state != State::Alive).collect();
    for fact in grave.iter().take(FACTS) {
        let record = &fact.record;
        text += &format!(", {} is {} at {}", fact.key.short(), record.state.as_str(), record.incarnation);
    }
    match message.facts.len() - grave.len().min(FACTS) {
        0 => {}
        others => text += &format!(", {others} other facts"),
    }
    text
}
