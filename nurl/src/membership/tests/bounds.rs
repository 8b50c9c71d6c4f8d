//! Bounds on messages, events and queues; and any order of anything.

use std::time::Duration;

use proptest::prelude::*;

use super::cluster::key;
use super::single::{ME, among, events, fact, message, ms, named, new, run, sent, state, tell};
use crate::membership::detector::{MAX_SEEN_EVENTS, MAX_TRANSMITS, MAX_WAITING_EVENTS};
use crate::membership::message::{
    MAX_CHUNK_BYTES, MAX_DATAGRAM_BYTES, MAX_EVENT_BYTES, MembershipMessage, MessageBody, TableChunk,
    UserEvent,
};
use crate::membership::pushpull::MAX_FACTS_PER_SECOND;
use crate::membership::{MembershipError, MembershipEvent, Meta, State, Via};

#[test]
fn tables_are_not_sent_without_limit() {
    let (now, mut detector) = among(3);
    // A table of four facts, this node's own among them.
    let (most, mut answered) = (MAX_FACTS_PER_SECOND / 4, 0);
    for id in 0..most as u64 + 68 {
        tell(
            &mut detector,
            now,
            1,
            MessageBody::PushPull(TableChunk { id, index: 0, total: 1, revocations: [0; 32] }),
            Vec::new(),
        );
        answered += sent(&mut detector).len();
    }
    assert_eq!(detector.stats().push_pulls_refused, 68);
    assert_eq!(answered, most);
}

#[test]
fn five_hundred_members_fit_their_messages_and_arrive_whole() {
    let (now, mut detector) = new(false);
    let long = |of: usize| {
        let kinds = (0..4).map(|at| format!("kind-{of}-{at}")).collect();
        Meta::new(crate::membership::Roles::WORKER, kinds, 1, "1.2.3".into()).unwrap()
    };
    for of in 1..=500 {
        let mut fact = fact(of, 1, State::Alive);
        fact.record.profile.as_mut().unwrap().said_mut().meta = long(of);
        tell(&mut detector, now, 1, MessageBody::Gossip, vec![fact]);
    }
    while detector.poll_transmit().is_some() {}
    let chunk = TableChunk { id: 5, index: 0, total: 1, revocations: [0; 32] };
    tell(&mut detector, now, 1, MessageBody::PushPull(chunk), Vec::new());
    let bodies: Vec<_> = std::iter::from_fn(|| detector.poll_transmit()).collect();
    assert!(bodies.len() > 1);
    assert!(bodies.iter().all(|t| t.body.len() <= MAX_CHUNK_BYTES && t.via == Via::Reliable));
    let mut keys: Vec<_> = bodies
        .iter()
        .flat_map(|t| MembershipMessage::decode(&t.body).unwrap().facts)
        .map(|fact| fact.key)
        .collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 501);
    // Datagram bodies never exceed the limit.
    let mut later = now;
    run(&mut detector, &mut later, Duration::from_secs(5));
    let datagrams: Vec<_> = std::iter::from_fn(|| detector.poll_transmit()).collect();
    let pings = datagrams.iter().filter(|t| t.via == Via::Datagram);
    assert!(pings.clone().count() > 10 && pings.clone().all(|t| t.body.len() <= MAX_DATAGRAM_BYTES));
    assert!(pings.map(|t| t.body.len()).max().unwrap() > MAX_DATAGRAM_BYTES - 200, "and they are filled");
}

#[test]
fn refused_bytes_are_counted_by_their_kind() {
    let (now, mut detector) = among(2);
    detector.handle_message(now, key(1), Via::Datagram, b"nonsense");
    detector.handle_message(now, key(1), Via::Datagram, &[0x86, 23, 0, 0, 0x80, 0x80, 0x80]);
    detector.handle_message(now, key(1), Via::Reliable, &vec![0; MAX_CHUNK_BYTES + 1]);
    detector.handle_message(now, key(ME), Via::Datagram, &message(MessageBody::Gossip, Vec::new()).encode());
    tell(&mut detector, now, 1, MessageBody::Ack { seq: 3 }, Vec::new());
    tell(&mut detector, now, 1, MessageBody::Nack { seq: 3 }, Vec::new());
    tell(
        &mut detector,
        now,
        1,
        MessageBody::PushPullAck(TableChunk { id: 1, index: 0, total: 1, revocations: [0; 32] }),
        Vec::new(),
    );
    let stats = detector.stats();
    assert_eq!((stats.malformed, stats.unknown_kinds, stats.oversize, stats.from_self), (1, 1, 1, 1));
    assert_eq!((stats.unsolicited_acks, stats.unsolicited_chunks), (2, 1));
}

#[test]
fn user_events_are_bounded_and_typed() {
    let (now, mut detector) = among(2);
    assert_eq!(detector.broadcast(&[0; MAX_EVENT_BYTES + 1]), Err(MembershipError::EventTooLarge(257)));
    let full = (0..1000).find_map(|_| detector.broadcast(&[0; MAX_EVENT_BYTES]).err());
    assert_eq!(full, Some(MembershipError::EventsFull));
    for id in 0..=MAX_SEEN_EVENTS as u64 {
        let mut message = message(MessageBody::Gossip, Vec::new());
        message.events.push(UserEvent { origin: key(2), id, body: Vec::new() });
        for _ in 0..2 {
            detector.handle_message(now, key(1), Via::Datagram, &message.encode());
        }
    }
    let heard = events(&mut detector).iter().filter(|e| matches!(e, MembershipEvent::User { .. })).count();
    assert_eq!(heard, MAX_SEEN_EVENTS + 1, "each once");
    assert_eq!(detector.view.gossip.seen(), MAX_SEEN_EVENTS);
    let (_, mut observer) = new(true);
    assert_eq!(observer.broadcast(b"x"), Err(MembershipError::NotAMember));
}

#[test]
fn what_waits_for_a_driver_that_never_comes_is_bounded() {
    let (now, mut detector) = among(2);
    for seq in 0..MAX_TRANSMITS as u64 + 7 {
        tell(&mut detector, now, 1, MessageBody::Ping { seq }, Vec::new());
    }
    assert_eq!(detector.view.outbox.waiting().0, MAX_TRANSMITS);
    assert_eq!(detector.stats().transmits_dropped, 7);
    for incarnation in 1..=MAX_WAITING_EVENTS as u64 {
        let fact = fact(2, incarnation, if incarnation % 2 == 0 { State::Alive } else { State::Left });
        tell(&mut detector, now, 2, MessageBody::Gossip, vec![fact]);
    }
    tell(&mut detector, now, 2, MessageBody::Gossip, vec![fact(2, MAX_WAITING_EVENTS as u64, State::Left)]);
    assert_eq!(detector.view.outbox.waiting().1, MAX_WAITING_EVENTS);
    assert!(detector.stats().events_dropped > 0);
    assert_eq!(state(&detector, 2), State::Left, "the view is right all the same");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_order_of_messages_and_time_breaks_the_detector(
        steps in proptest::collection::vec((0u8..9, 0usize..6, 0u64..5, 0u64..4000), 1..60)
    ) {
        let (mut now, mut detector) = new(false);
        for (what, who, number, wait) in steps {
            now += ms(wait);
            let states = [State::Alive, State::Suspect, State::Dead, State::Left];
            let facts = vec![fact(who, number, states[what as usize % 4])];
            match what {
                0 => tell(&mut detector, now, who, MessageBody::Ping { seq: number }, facts),
                1 => tell(&mut detector, now, who, MessageBody::Ack { seq: number }, facts),
                2 => tell(&mut detector, now, who, MessageBody::Gossip, facts),
                3 => {
                    let target = key(number as usize);
                    tell(&mut detector, now, who, MessageBody::PingReq { seq: number, target, timeout_ms: 9 }, facts);
                }
                4 => {
                    detector.join(now);
                    named(&mut detector, now, [who]);
                }
                5 => detector.leave(now),
                6 => detector.on_suspend(now),
                7 => detector.on_hub_pong(now),
                _ => detector.on_session_failed(now, key(who)),
            }
            detector.handle_timeout(now);
            let live = detector.members().filter(|member| member.state.is_live()).count();
            prop_assert_eq!(live, detector.live());
            prop_assert!(detector.poll_timeout().is_none_or(|due| due > now), "it would spin");
            for (_, via, message) in sent(&mut detector) {
                let limit = if via == Via::Datagram { MAX_DATAGRAM_BYTES } else { MAX_CHUNK_BYTES };
                prop_assert!(message.encode().len() <= limit);
            }
            events(&mut detector);
        }
    }
}
