//! Tables of a newcomer's reactions to its hubs' answers.

use rand_core::SeedableRng;

use super::*;
use crate::rt::Rng;
use crate::rt::test_now;

fn key(n: u8) -> PublicKey {
    PublicKey::from_bytes([n; 32])
}

const HUB: u8 = 200;
const OTHER_HUB: u8 = 201;

struct Bench {
    join: Join,
    rng: Rng,
    now: Instant,
}

impl Bench {
    /// A newcomer with these hubs up.
    fn new(hubs: &[u8]) -> Bench {
        let mut bench = Bench { join: Join::default(), rng: Rng::from_seed([1; 32]), now: test_now() };
        bench.join.begin(bench.now);
        hubs.iter().for_each(|hub| bench.join.handle_hub(key(*hub), true));
        bench
    }

    fn list(&mut self, hub: u8, opened: impl IntoIterator<Item = u8>) {
        self.named(hub, opened, true);
    }

    fn named(&mut self, hub: u8, keys: impl IntoIterator<Item = u8>, opened: bool) {
        let contacts: Vec<_> = keys.into_iter().map(|n| Contact { key: key(n), opened }).collect();
        self.join.handle_contacts(self.now, Some(key(hub)), &contacts, &mut self.rng);
    }

    /// All contacts that are asked now.
    fn asked(&mut self) -> Vec<u8> {
        let mut asked: Vec<u8> =
            std::iter::from_fn(|| self.join.poll_ask(self.now)).map(|key| key.as_bytes()[0]).collect();
        asked.sort_unstable();
        asked
    }

    fn deny(&mut self, peer: u8) -> bool {
        self.join.handle_denied(key(HUB), &key(peer))
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn three_are_asked_at_a_time_and_a_denied_one_is_replaced_at_once() {
    let mut bench = Bench::new(&[HUB]);
    bench.list(HUB, 1..=16);
    let mut asked = bench.asked();
    assert_eq!(asked.len(), FANOUT);
    let begun = bench.now;
    while asked.len() < 16 {
        let denied = *asked.last().unwrap();
        assert!(bench.deny(denied));
        let next = bench.asked();
        assert_eq!(next.len(), 1, "after {} were asked", asked.len());
        assert!(!asked.contains(&next[0]));
        asked.extend(next);
    }
    assert_eq!(bench.now, begun, "no denial costs time");
}

#[test]
fn a_silent_contact_holds_up_the_next_for_as_long_as_patience_lasts() {
    let mut bench = Bench::new(&[HUB]);
    bench.list(HUB, 1..=7);
    assert_eq!(bench.asked().len(), 3);
    bench.pass(PATIENCE - Duration::from_millis(1));
    assert_eq!(bench.asked().len(), 0);
    assert_eq!(bench.join.poll_timeout(), Some(bench.now + Duration::from_millis(1)));
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.asked().len(), 3);
    bench.pass(PATIENCE);
    assert_eq!(bench.asked().len(), 1, "the seventh; nobody is asked twice in a round");
}

#[test]
fn a_contact_that_fell_silent_or_whose_request_was_lost_makes_room_at_once() {
    let mut bench = Bench::new(&[HUB]);
    bench.list(HUB, 10..20);
    let first = bench.asked();
    assert_eq!(first.len(), FANOUT);
    bench.join.handle_silence(&key(first[0]));
    assert_eq!(bench.asked().len(), 1);
    bench.join.handle_silence(&key(first[0]));
    assert_eq!(bench.asked().len(), 0, "once");
}

#[test]
fn a_round_ends_when_all_had_their_turn_and_begins_with_a_new_list() {
    let mut bench = Bench::new(&[HUB]);
    bench.list(HUB, 1..=8);
    let mut asked = bench.asked();
    bench.pass(PATIENCE);
    asked.extend(bench.asked());
    bench.pass(ROUND - PATIENCE);
    assert!(!bench.join.poll_list(bench.now), "two have not been asked yet");
    asked.extend(bench.asked());
    asked.sort_unstable();
    assert_eq!(asked, (1..=8).collect::<Vec<_>>());
    bench.pass(PATIENCE);
    assert!(bench.join.poll_list(bench.now));
    assert_eq!(bench.asked().len(), 3, "who was silent gets another turn");
    assert!(!bench.join.poll_list(bench.now));
}

#[test]
fn a_contact_is_denied_when_every_hub_that_is_up_denies_it() {
    let mut bench = Bench::new(&[HUB, OTHER_HUB]);
    bench.list(HUB, [1]);
    bench.list(OTHER_HUB, []);
    assert_eq!(bench.asked(), [1]);
    assert!(!bench.deny(1));
    assert!(!bench.join.poll_alone());
    bench.join.handle_hub(key(OTHER_HUB), false);
    assert!(bench.deny(1));
    assert!(bench.join.poll_alone());
    assert!(!bench.join.poll_alone(), "said once");
}

#[test]
fn a_newcomer_is_alone_only_by_proof() {
    struct Case {
        name: &'static str,
        alone: bool,
        lists: &'static [(u8, &'static [u8])],
        strangers: &'static [u8],
        denied: &'static [u8],
    }
    let cases = [
        Case { name: "no hub has answered", alone: false, lists: &[], strangers: &[], denied: &[] },
        Case { name: "one of two has", alone: false, lists: &[(HUB, &[])], strangers: &[], denied: &[] },
        Case {
            name: "both name nobody",
            alone: true,
            lists: &[(HUB, &[]), (OTHER_HUB, &[])],
            strangers: &[],
            denied: &[],
        },
        Case {
            name: "one is silent",
            alone: false,
            lists: &[(HUB, &[1, 2]), (OTHER_HUB, &[])],
            strangers: &[],
            denied: &[1],
        },
        Case {
            name: "all are denied",
            alone: true,
            lists: &[(HUB, &[1, 2]), (OTHER_HUB, &[2])],
            strangers: &[],
            denied: &[1, 2],
        },
        Case {
            name: "somebody's record doesn't open: the secret may be the wrong one",
            alone: false,
            lists: &[(HUB, &[1]), (OTHER_HUB, &[])],
            strangers: &[7],
            denied: &[1],
        },
    ];
    for case in cases {
        let mut bench = Bench::new(&[HUB, OTHER_HUB]);
        for (hub, keys) in case.lists {
            bench.list(*hub, keys.iter().copied());
        }
        bench.named(HUB, case.strangers.iter().copied(), false);
        bench.asked();
        for peer in case.denied {
            for hub in [HUB, OTHER_HUB] {
                bench.join.handle_denied(key(hub), &key(*peer));
            }
        }
        assert_eq!(bench.join.poll_alone(), case.alone, "{}", case.name);
    }
}

#[test]
fn made_up_records_are_asked_last_and_the_next_list_doesnt_wait_for_them() {
    let mut bench = Bench::new(&[HUB]);
    let begun = bench.now;
    let mut asked = 0;
    for list in 0..8 {
        bench.named(HUB, 100 + list..116 + list, false);
        while !bench.join.poll_list(bench.now) {
            asked += bench.asked().len();
            bench.pass(Duration::from_millis(10));
        }
    }
    assert_eq!(bench.now - begun, 8 * ROUND_OF_STRANGERS);
    assert_eq!(asked, 2 * FANOUT, "there is nobody better, but no more than three at a time");
    // At last the sample contains a member. It is asked as soon as one contact's patience is over.
    bench.named(HUB, 100..115, false);
    bench.list(HUB, [1]);
    bench.pass(PATIENCE);
    assert_eq!(bench.asked(), [1], "and nobody else while it may answer");
}

#[test]
fn a_full_table_makes_room_for_the_better_contact() {
    let mut bench = Bench::new(&[HUB]);
    bench.named(HUB, 0..MAX_CONTACTS as u8, false);
    bench.named(HUB, [150], false);
    assert!(!bench.join.contacts.contains_key(&key(150)));
    bench.list(HUB, 100..100 + MAX_CONTACTS as u8);
    assert_eq!(bench.join.contacts.len(), MAX_CONTACTS);
    assert_eq!(bench.join.opened().count(), MAX_CONTACTS);
    let asked = bench.asked();
    assert!(bench.deny(asked[0]));
    bench.named(HUB, [7], false);
    assert!(bench.join.contacts.contains_key(&key(7)) && !bench.join.contacts.contains_key(&key(asked[0])));
    assert_eq!(bench.join.contacts.len(), MAX_CONTACTS);
}

#[test]
fn what_keeps_it_out_is_told_by_what_was_seen() {
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.join.obstacle(), Obstacle::NoHub);
    bench.join.handle_hub(key(HUB), true);
    assert_eq!(bench.join.obstacle(), Obstacle::HubSilent);
    bench.list(HUB, [1]);
    bench.asked();
    assert_eq!(bench.join.obstacle(), Obstacle::NoAnswer);
    bench.join.handle_session(&key(1));
    assert_eq!(bench.join.obstacle(), Obstacle::NoTable);
    bench.join.handle_hub(key(HUB), false);
    assert_eq!(bench.join.obstacle(), Obstacle::NoHub);
}

#[test]
fn after_a_table_nobody_is_asked_until_everybody_is_lost() {
    let mut bench = Bench::new(&[HUB]);
    bench.list(HUB, 1..=3);
    bench.asked();
    bench.join.finish();
    bench.list(HUB, 4..=6);
    assert_eq!(bench.asked().len(), 0);
    assert_eq!(bench.join.poll_timeout(), None);
    assert!(!bench.deny(1) && !bench.join.poll_alone() && !bench.join.poll_list(bench.now));
    bench.join.begin(bench.now);
    assert_eq!(bench.asked().len(), 3);
}
