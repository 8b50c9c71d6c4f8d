//! Messages that wait, are tried again, and are lost.

use super::*;

fn key(n: u8) -> PublicKey {
    PublicKey::from_bytes([n; 32])
}

fn message(to: u8, kind: u8, reply: Option<u32>) -> Message<u32> {
    Message { to: key(to), priority: Priority::Bulk, kind, body: Bytes::from_static(b"abc"), reply }
}

/// A transport with room for some messages to each peer.
#[derive(Default)]
struct Room {
    left: BTreeMap<PublicKey, usize>,
    last_id: u64,
    carried: Vec<(u8, u8)>,
}

impl Room {
    fn carry(&mut self) -> impl FnMut(&Message<u32>) -> Result<MessageId, Refusal> {
        |message| {
            let left = self.left.entry(message.to).or_default();
            *left = left.checked_sub(1).ok_or(Refusal::Full)?;
            self.last_id += 1;
            self.carried.push((message.to.as_bytes()[0], message.kind));
            Ok(MessageId(self.last_id))
        }
    }
}

/// A loss as text.
fn told(loss: Option<Loss<u32>>) -> String {
    match loss {
        None => "nobody".to_owned(),
        Some(Loss::Caller { reply, error }) => format!("caller {reply}: {error}"),
        Some(Loss::Work { peer }) => format!("state {}", peer.as_bytes()[0]),
        Some(Loss::Membership { peer }) => format!("membership {}", peer.as_bytes()[0]),
    }
}

#[test]
fn what_waits_keeps_its_kinds_order_and_holds_up_no_other_kind_or_peer() {
    let (mut outgoing, mut room) = (Outgoing::new(), Room::default());
    room.left = [(key(1), 1), (key(2), 9)].into();
    let sends = [
        (1, kind::JOB, 0),
        (1, kind::JOB, 1),   // full: it waits
        (2, kind::JOB, 1),   // another peer doesn't
        (1, kind::STATE, 2), // full as well
    ];
    for (to, kind, waiting) in sends {
        assert!(outgoing.send(message(to, kind, None), room.carry()).is_none());
        assert_eq!(outgoing.waiting(), waiting, "{to} {kind}");
    }
    room.left.insert(key(1), 9);
    // There is room, but an earlier one of the kind waits.
    assert!(outgoing.send(message(1, kind::STATE, None), room.carry()).is_none());
    assert!(outgoing.send(message(1, kind::APPLICATION, Some(7)), room.carry()).is_none());
    assert_eq!(outgoing.waiting(), 3);
    room.carried.clear();
    assert!(outgoing.retry(key(1), room.carry()).is_empty());
    assert_eq!(room.carried, [(1, kind::JOB), (1, kind::STATE), (1, kind::STATE)]);
    assert_eq!(outgoing.waiting(), 0);
}

#[test]
fn a_retry_stops_at_nothing_and_keeps_what_does_not_fit() {
    let (mut outgoing, mut room) = (Outgoing::new(), Room::default());
    for reply in 0..4 {
        assert!(outgoing.send(message(1, kind::APPLICATION, Some(reply)), room.carry()).is_none());
    }
    room.left.insert(key(1), 2);
    assert!(outgoing.retry(key(1), room.carry()).is_empty());
    assert_eq!(outgoing.waiting(), 2);
    assert_eq!(
        (outgoing.acked(key(1), MessageId(1)), outgoing.acked(key(1), MessageId(2))),
        (Some(0), Some(1))
    );
    let mut oneself =
        |_: &Message<u32>| Err(Refusal::Failed(Error::Send(crate::transport::SendError::Oneself)));
    let lost: Vec<_> =
        outgoing.retry(key(1), &mut oneself).into_iter().map(|loss| told(Some(loss))).collect();
    assert_eq!(lost, ["caller 2: the peer is this node", "caller 3: the peer is this node"]);
    assert_eq!(outgoing.waiting(), 0);
}

#[test]
fn each_loss_is_told_to_its_sender() {
    let table = [
        (kind::APPLICATION, Some(5), "caller 5: the message was given up (Forgotten); it may have arrived"),
        (kind::JOB, None, "state 1"),
        (kind::STATE, None, "state 1"),
        (kind::MEMBERSHIP, None, "membership 1"),
        (kind::APPLICATION, None, "nobody"),
    ];
    for (kind, reply, expected) in table {
        let (mut outgoing, mut room) = (Outgoing::new(), Room::default());
        // Once while it waits, and once under way.
        assert!(outgoing.send(message(1, kind, reply), room.carry()).is_none());
        assert!(outgoing.forget(key(2)).is_empty());
        assert_eq!(told(outgoing.forget(key(1)).pop()), expected);
        room.left.insert(key(1), 1);
        assert!(outgoing.send(message(1, kind, reply), room.carry()).is_none());
        assert_eq!(told(outgoing.failed(key(1), MessageId(1), FailReason::Forgotten)), expected);
        assert!(
            outgoing.failed(key(1), MessageId(1), FailReason::Forgotten).is_none(),
            "a message ends once"
        );
    }
}

#[test]
fn waiting_messages_are_bounded_and_the_next_is_given_up() {
    let (mut outgoing, mut room) = (Outgoing::new(), Room::default());
    for n in 0..DEFERRED {
        let to = (n % 100) as u8;
        assert!(outgoing.send(message(to, kind::JOB, None), room.carry()).is_none());
    }
    assert_eq!((outgoing.waiting(), outgoing.given_up), (DEFERRED, 0));
    assert_eq!(told(outgoing.send(message(1, kind::JOB, None), room.carry())), "state 1");
    let loss = told(outgoing.send(message(200, kind::APPLICATION, Some(1)), room.carry()));
    assert!(loss.starts_with("caller 1: "), "{loss}");
    assert_eq!((outgoing.waiting(), outgoing.given_up), (DEFERRED, 2));
}

#[test]
fn an_own_message_of_membership_ends_without_a_caller() {
    let mut outgoing = Outgoing::<u32>::new();
    outgoing.sent(key(1), MessageId(3), kind::MEMBERSHIP);
    outgoing.sent(key(1), MessageId(4), kind::MEMBERSHIP);
    assert_eq!(outgoing.acked(key(1), MessageId(3)), None);
    assert_eq!(told(outgoing.failed(key(1), MessageId(4), FailReason::Forgotten)), "membership 1");
}
