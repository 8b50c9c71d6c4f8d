//! Which epochs are believed.

use std::time::Duration;

use super::cluster::key;
use super::single::{among, fact, message};
use crate::membership::limit::told_limit;
use crate::membership::message::{MembershipMessage, MessageBody};
use crate::membership::{Detector, MembershipError, State, Via};

#[test]
fn an_epoch_too_far_ahead_of_the_clock_is_refused_and_counted() {
    let (now, mut detector) = among(2);
    let wall = Duration::from_secs(1_800_000_000);
    detector.set_unix_now(wall);
    let limit = told_limit(wall);
    let hear = |detector: &mut Detector, epoch, from| {
        let message = MembershipMessage { epoch, ..message(MessageBody::Gossip, Vec::new()) };
        detector.handle_message(now, key(from), Via::Datagram, &message.encode());
        (detector.highest_epoch(), detector.stats().epochs_too_high)
    };
    assert_eq!(hear(&mut detector, limit + 1, 1), (0, 1));
    assert_eq!(hear(&mut detector, u64::MAX, 1), (0, 2));
    assert_eq!(hear(&mut detector, limit, 1), (limit, 2));
    // This node's next tenure is above the limit, and is told.
    detector.note_epoch(limit + 1).unwrap();
    assert!(matches!(
        detector.note_epoch(u64::MAX),
        Err(MembershipError::EpochTooHigh { counter: u64::MAX, .. })
    ));
    detector.note_epoch(7).unwrap();
    assert_eq!(detector.highest_epoch(), limit + 1, "never back");
}

#[test]
fn an_epoch_is_heard_from_members_only() {
    let (now, mut detector) = among(2);
    let mut lie = MembershipMessage { epoch: 9, ..message(MessageBody::Ping { seq: 1 }, Vec::new()) };
    detector.handle_message(now, key(7), Via::Datagram, &lie.encode());
    lie.observer = true;
    for from in [7, 1] {
        detector.handle_message(now, key(from), Via::Datagram, &lie.encode());
    }
    let announcement = MembershipMessage { body: MessageBody::Announce { nonce: 1 }, ..lie };
    detector.handle_announcement(now, key(1), &announcement.encode());
    assert_eq!(detector.highest_epoch(), 0);
    let mut introduced = message(MessageBody::Gossip, vec![fact(7, 1, State::Alive)]);
    introduced.epoch = 9;
    detector.handle_message(now, key(7), Via::Datagram, &introduced.encode());
    assert_eq!(detector.highest_epoch(), 9, "a newcomer that has introduced itself");
}
