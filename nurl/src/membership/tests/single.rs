//! One detector, driven directly by the test.

use std::time::{Duration, Instant};

use rand_core::SeedableRng;

use super::cluster::{key, meta};
use crate::key::PublicKey;
use crate::membership::message::{MembershipMessage, MessageBody};
use crate::membership::profile::tests::said;
use crate::membership::table::{Fact, MemberRecord};
use crate::membership::{Detector, DetectorConfig, MembershipEvent, Notary, State, Via};
use crate::net::reach::rendezvous::Contact;
use crate::rt::Rng;

pub(super) const ME: usize = 0;

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn new(observer: bool) -> (Instant, Detector) {
    let now = crate::rt::test_now();
    let rng = Rng::from_seed([5; 32]);
    (
        now,
        Detector::new(DetectorConfig::default(), Notary::trusting(key(ME)), 1, meta(""), observer, now, rng),
    )
}

pub(super) fn fact(of: usize, incarnation: u64, state: State) -> Fact {
    let profile = said(incarnation, state == State::Left, of as u64, meta(""));
    let record = MemberRecord { incarnation, state, profile: Some(profile) };
    let accusers = if state == State::Suspect { vec![key(99)] } else { Vec::new() };
    Fact { key: key(of), record, age_s: 0, accusers }
}

pub(super) fn message(body: MessageBody, facts: Vec<Fact>) -> MembershipMessage {
    MembershipMessage { epoch: 0, observer: false, body, facts, events: Vec::new() }
}

pub(super) fn tell(detector: &mut Detector, now: Instant, from: usize, body: MessageBody, facts: Vec<Fact>) {
    let bytes = message(body, facts).encode();
    detector.handle_message(now, key(from), Via::Datagram, &bytes);
}

/// A detector that knows members 1 to `count`.
pub(super) fn among(count: usize) -> (Instant, Detector) {
    let (now, mut detector) = new(false);
    let facts: Vec<Fact> = (1..=count).map(|of| fact(of, 1, State::Alive)).collect();
    // A message holds about 120 of them.
    facts.chunks(100).for_each(|facts| tell(&mut detector, now, 1, MessageBody::Gossip, facts.to_vec()));
    sent(&mut detector);
    events(&mut detector);
    (now, detector)
}

pub(super) fn sent(detector: &mut Detector) -> Vec<(PublicKey, Via, MembershipMessage)> {
    std::iter::from_fn(|| detector.poll_transmit())
        .map(|transmit| (transmit.to, transmit.via, MembershipMessage::decode(&transmit.body).unwrap()))
        .collect()
}

pub(super) fn events(detector: &mut Detector) -> Vec<MembershipEvent> {
    std::iter::from_fn(|| detector.poll_event()).collect()
}

pub(super) fn run(detector: &mut Detector, now: &mut Instant, time: Duration) {
    let end = *now + time;
    while let Some(due) = detector.poll_timeout().filter(|due| *due <= end) {
        *now = due.max(*now);
        detector.handle_timeout(*now);
    }
    *now = end;
}

pub(super) fn state(detector: &Detector, of: usize) -> State {
    detector.member(&key(of)).unwrap().state
}

/// Contacts from a source other than a hub.
pub(super) fn named(detector: &mut Detector, now: Instant, who: impl IntoIterator<Item = usize>) {
    let contacts: Vec<_> = who.into_iter().map(|of| Contact { key: key(of), opened: true }).collect();
    detector.on_contacts(now, None, &contacts);
}

/// Runs until a probe has failed. Returns its target and its sequence number.
pub(super) fn failed_probe(detector: &mut Detector, now: &mut Instant) -> (usize, u64) {
    let mut pings = Vec::new();
    for _ in 0..200 {
        run(detector, now, ms(50));
        pings.extend(sent(detector).into_iter().filter_map(|(to, _, message)| match message.body {
            MessageBody::Ping { seq } => Some((to, seq)),
            _ => None,
        }));
        if let Some(suspect) =
            (1..=9).find(|of| detector.member(&key(*of)).is_some_and(|member| member.state == State::Suspect))
        {
            let ping = pings.iter().find(|(to, _)| *to == key(suspect)).unwrap();
            return (suspect, ping.1);
        }
    }
    panic!("nothing failed");
}
