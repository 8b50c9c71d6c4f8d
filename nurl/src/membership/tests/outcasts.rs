//! Peers whose pass was revoked.

use super::evidence::{ISSUED, Someone, among, authority, tell};
use super::single::events;
use crate::authority::pass::Grant;
use crate::authority::revocation::{Revocation, Revocations, Subject};
use crate::membership::message::{MembershipMessage, MessageBody, TableChunk};
use crate::membership::{MembershipEvent, State, Via};

#[test]
fn who_is_expelled_is_nothing_any_more_whatever_is_told_until_it_has_another_pass() {
    let (now, mut detector) = among(4);
    let [one, two, three] = [1, 2, 3].map(Someone::new);
    let mut dead = three.told(1, State::Dead);
    dead.record.profile = None;
    tell(&mut detector, now, &three, vec![three.told(1, State::Left)]);
    events(&mut detector);
    let mut revocations = Revocations::default();
    for out in [&two, &three] {
        let entry = Revocation::sign(&authority(), Subject::Key(out.key()), ISSUED, ISSUED);
        assert!(revocations.merge(entry));
        detector.set_revocations(&revocations);
        detector.expel(out.key());
        assert_eq!(events(&mut detector), [MembershipEvent::Expelled(out.key())], "neither dead nor left");
    }
    assert_eq!((detector.live(), detector.members().count()), (3, 3));
    for state in [State::Alive, State::Suspect, State::Dead, State::Left] {
        tell(&mut detector, now, &one, vec![two.told(1, state)]);
    }
    tell(&mut detector, now, &two, vec![two.told(1, State::Alive)]);
    assert_eq!((detector.members().count(), detector.stats().facts_of_outcasts), (3, 4));
    tell(&mut detector, now, &one, vec![dead]);
    assert_eq!((detector.members().count(), detector.stats().facts_of_unknown), (3, 1), "nor without a pass");
    assert_eq!(events(&mut detector), []);
    // Another tells of its new pass, before this node meets it.
    let again = Someone::by(2, &authority(), |grant| Grant { issued: ISSUED + 1, ..grant });
    tell(&mut detector, now, &one, vec![again.told(2, State::Alive)]);
    assert_eq!(detector.live(), 4);
    detector.expel(detector.local().key);
    assert_eq!(detector.live(), 4, "not by itself");
}

#[test]
fn an_exchange_of_tables_shows_that_the_other_knows_other_revocations() {
    let (now, mut detector) = among(1);
    let one = Someone::new(1);
    let differs = MembershipEvent::RevocationsDiffer { peer: one.key() };
    let ours = Revocations::default();
    for (theirs, said) in [([0; 32], true), (ours.digest(), false)] {
        detector.set_revocations(&ours);
        let body = MessageBody::PushPull(TableChunk { id: 7, index: 0, total: 1, revocations: theirs });
        let facts = vec![one.told(1, State::Alive)];
        let message = MembershipMessage { epoch: 0, observer: false, body, facts, events: Vec::new() };
        detector.handle_message(now, one.key(), Via::Reliable, &message.encode());
        assert_eq!(events(&mut detector).contains(&differs), said);
    }
}
