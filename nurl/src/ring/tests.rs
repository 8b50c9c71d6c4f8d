use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::key::PublicKey;
use crate::membership::limit::{answer_limit, told_limit};

fn key(n: u32) -> PublicKey {
    PublicKey::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn seed(n: u32) -> [u8; 8] {
    *key(n).as_bytes().first_chunk().unwrap()
}

fn member(n: u32) -> RingMember {
    RingMember {
        key: key(n),
        boot: 0,
        seed: seed(n),
        weight: 1,
        zone: String::new(),
        kinds: vec!["sum".into()],
        live: true,
        placed: true,
    }
}

fn ring(members: impl IntoIterator<Item = u32>) -> Ring {
    Ring::new(members.into_iter().map(member))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The exact share of each member: the lengths of the arcs that end at its points.
fn shares(ring: &Ring) -> BTreeMap<PublicKey, u128> {
    let mut shares = BTreeMap::new();
    let mut before = ring.points.last().unwrap().0;
    for (at, member) in ring.points.iter() {
        let length = u128::from(at.wrapping_sub(before).wrapping_sub(1)) + 1;
        *shares.entry(ring.members[*member as usize].key).or_insert(0) += length;
        before = *at;
    }
    shares
}

#[test]
fn golden_positions_and_owners_hold_on_every_platform() {
    let positions = [position(b""), position(b"key")];
    let points: Vec<u64> = points::points_of(&[1; 8], 1, POINTS_PER_WEIGHT).take(3).collect();
    let ring = ring(0..10);
    let owners: Vec<String> =
        ring.owners(b"key", 4).iter().map(|owner| hex(&owner.as_bytes()[..4])).collect();
    let thousand: Vec<u8> = (0..1000u32)
        .flat_map(|n| ring.owners(&n.to_be_bytes(), 3))
        .flat_map(|owner| *owner.as_bytes())
        .collect();
    let digest = hex(&blake3::hash(&thousand).as_bytes()[..8]);
    let golden = format!("{positions:016x?} {points:016x?} {owners:?} {digest}");
    assert_eq!(
        golden,
        "[0567f4f626a98f9c, a538f3d026866dba] [f58a4198fcf44e48, a587b62be4c9f2fb, 898154070a9d1873] \
         [\"07f7e162\", \"669c1355\", \"edaf1bd3\", \"beb202fa\"] d39fa1af736c6763"
    );
}

#[test]
fn the_order_of_the_input_and_duplicates_do_not_matter() {
    let there = ring(0..20);
    let back = ring((0..20).rev().chain(3..7));
    assert_eq!(there.points, back.points);
    assert_eq!(there.members, back.members);
}

#[test]
fn the_spread_of_shares_sits_on_theory() {
    // cv = 1/sqrt(points): 8.8 % at 128. The spread of a cv estimated from 400 members is 1/sqrt(800) of it.
    let ring = ring(0..400);
    let shares = shares(&ring);
    let mean = (1u128 << 64) as f64 / 400.0;
    let variance = shares.values().map(|share| (*share as f64 / mean - 1.0).powi(2)).sum::<f64>() / 400.0;
    let expected = 1.0 / (POINTS_PER_WEIGHT as f64).sqrt();
    let cv = variance.sqrt();
    assert!((0.88..1.12).contains(&(cv / expected)), "cv {cv}, theory {expected}");
    assert_eq!(shares.values().sum::<u128>(), 1 << 64);
}

#[test]
fn the_greatest_load_of_100_members_is_near_the_mean() {
    let shares = shares(&ring(0..100));
    let most = *shares.values().max().unwrap() as f64 * 100.0 / (1u128 << 64) as f64;
    assert!(most < 1.4, "max/mean {most}");
}

#[test]
fn a_weight_of_four_takes_four_times_as_much_and_moves_no_other_point() {
    let mut members: Vec<RingMember> = (0..50).map(member).collect();
    let flat = Ring::new(members.clone());
    members[0].weight = 4;
    let heavy = Ring::new(members);
    let share = |ring: &Ring| shares(ring)[&key(0)] as f64 / (1u128 << 64) as f64;
    assert!((0.9..1.1).contains(&(share(&heavy) / (4.0 / 53.0))), "{}", share(&heavy));
    let places = |ring: &Ring| -> BTreeSet<(u64, PublicKey)> {
        ring.points.iter().map(|(at, n)| (*at, ring.members[*n as usize].key)).collect()
    };
    assert!(places(&flat).is_subset(&places(&heavy)));
}

#[test]
fn a_ring_whose_members_only_changed_their_state_shares_its_points() {
    let before = ring(0..10);
    let after = before.followed_by((0..10).map(|n| RingMember { live: n != 3, ..member(n) }));
    assert!(std::sync::Arc::ptr_eq(&before.points, &after.points));
    assert!(!after.member(&key(3)).unwrap().live);
}

#[test]
fn a_leavers_keys_are_spread_over_all_heirs_and_nothing_else_moves() {
    let before = ring(0..20);
    let after = ring(1..20);
    let diff = Diff::between(&before, &after, 1);
    let mut heirs: BTreeMap<PublicKey, u128> = BTreeMap::new();
    for arc in &diff.arcs {
        assert_eq!(arc.from, [key(0)], "only the leaver's keys move");
        *heirs.entry(arc.to[0]).or_default() +=
            u128::from(arc.upto.wrapping_sub(arc.after).wrapping_sub(1)) + 1;
    }
    assert_eq!(heirs.len(), 19, "every member inherits");
    assert_eq!(diff.share(), shares(&before)[&key(0)]);
    let most = *heirs.values().max().unwrap() as f64 / diff.share() as f64;
    assert!(most < 3.0 / 19.0, "one heir takes {most}");
}

#[test]
fn the_diff_says_of_every_key_what_its_owners_were_and_are() {
    let before = ring(0..8);
    let after = ring((2..8).chain([9]));
    let diff = Diff::between(&before, &after, 3);
    for n in 0..2000u32 {
        let name = n.to_le_bytes();
        let (from, to) = (before.owners(&name, 3), after.owners(&name, 3));
        match diff.at(position(&name)) {
            Some(arc) => {
                assert_eq!((&arc.from, &arc.to), (&from, &to));
                assert!(arc.losers().all(|member| from.contains(member) && !to.contains(member)));
                assert!(arc.heirs().all(|member| to.contains(member) && !from.contains(member)));
            }
            None => assert_eq!(from, to),
        }
    }
    assert!(Diff::between(&before, &before, 3).arcs.is_empty());
    assert_eq!(Diff::between(&ring([]), &ring([1]), 1).share(), 1 << 64, "from nobody, everything moves");
}

#[test]
fn no_replica_set_has_a_member_twice_at_the_wrap() {
    let ring = ring(0..5);
    let first = ring.points[0].0;
    let last = ring.points.last().unwrap().0;
    for at in [0, first, first + 1, last - 1, last, last.wrapping_add(1), u64::MAX] {
        let owners = ring.owners_at(at, 5);
        assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), 5, "{owners:?}");
    }
    assert_eq!(
        ring.owners_at(last.wrapping_add(1), 5),
        ring.owners_at(first, 5),
        "past the last is the first"
    );
}

#[test]
fn replicas_lie_in_as_many_zones_as_there_are_also_across_the_wrap() {
    let zoned = |n: u32, zone: &str| RingMember { zone: zone.into(), ..member(n) };
    let ring = Ring::new((0..12).map(|n| zoned(n, ["a", "a", "a", "b", "b", "c"][n as usize % 6])));
    let last = ring.points.last().unwrap().0;
    let positions = (0..500u32).map(|n| position(&n.to_le_bytes())).chain([0, last, last + 1, u64::MAX]);
    for at in positions {
        let zones: Vec<&str> = ring.preference_at(at).map(|member| member.zone.as_str()).collect();
        assert_eq!(zones.len(), 12);
        assert_eq!(zones[..3].iter().collect::<BTreeSet<_>>().len(), 3, "{zones:?}");
        assert_eq!(zones[3..6].iter().collect::<BTreeSet<_>>().len(), 3, "{zones:?}");
        assert_eq!(zones[6..8].iter().collect::<BTreeSet<_>>().len(), 2, "c has two: {zones:?}");
        assert!(zones[10..].iter().all(|zone| *zone == "a"), "{zones:?}");
    }
}

#[test]
fn an_owner_that_is_away_keeps_its_data_but_acts_for_nothing() {
    let mut members: Vec<RingMember> = (0..10).map(member).collect();
    let before = Ring::new(members.clone());
    let owners = before.owners(b"k", 3);
    members.iter_mut().find(|member| member.key == owners[0]).unwrap().live = false;
    members.iter_mut().find(|member| member.key == owners[1]).unwrap().kinds = vec!["other".into()];
    let after = Ring::new(members);
    assert_eq!(after.owners(b"k", 3), owners, "placement ignores liveness");
    assert_eq!(after.owner("sum", b"k"), Some(owners[2]));
    assert_eq!(after.owner("other", b"k"), Some(owners[1]));
    assert_eq!(after.owner("none", b"k"), None);
    assert_eq!(after.executors("sum", b"k").len(), 8);
    assert!(after.owns(&owners[2], b"k", 3) && !after.owns(&owners[2], b"k", 2));
}

#[test]
fn an_unplaced_or_weightless_member_owns_nothing() {
    let mut members: Vec<RingMember> = (0..3).map(member).collect();
    members[0].placed = false;
    members[1].weight = 0;
    let ring = Ring::new(members);
    assert_eq!(ring.owners(b"k", 3), [key(2)]);
    assert!(Ring::default().is_empty());
    assert_eq!(Ring::default().owners(b"k", 3), []);
    assert_eq!(Ring::default().owner("sum", b"k"), None);
}

#[test]
fn a_full_ring_shrinks_the_weights_of_all_and_leaves_nobody_out() {
    let heavy = |n: u32| RingMember { weight: u16::MAX, ..member(n) };
    let fit = (MAX_POINTS / (usize::from(MAX_WEIGHT) * POINTS_PER_WEIGHT)) as u32;
    let full = Ring::new((0..fit).map(heavy));
    assert_eq!(full.points.len(), MAX_POINTS);
    let over = full.followed_by((0..=fit).map(heavy));
    assert_eq!((over.members().len(), over.points.len()), (fit as usize + 1, (fit as usize + 1) * 8 * 64));
    assert_eq!(over.points, Ring::new((0..=fit).map(heavy)).points);
    assert_eq!(over.followed_by((0..fit).map(heavy)).points, full.points, "and back");
}

#[test]
fn the_points_follow_from_the_seed_alone_so_a_ground_key_chooses_no_place() {
    let ring = ring(0..8);
    let other_keys = (0..8).map(|n| RingMember { key: key(100 + n), ..member(n) });
    let ground = Ring::new(other_keys);
    let at = |ring: &Ring| ring.points.iter().map(|(at, _)| *at).collect::<Vec<_>>();
    assert_eq!(at(&ring), at(&ground));
    let other_seed = ring.followed_by((0..8).map(|n| RingMember { seed: seed(n + n / 7), ..member(n) }));
    assert_ne!(at(&ring), at(&other_seed), "a new seed moves the points of its member");
    assert!(!ring.places_as(&other_seed));
}

#[test]
fn bounded_placement_never_exceeds_a_quarter_over_the_fair_share() {
    let mut members: Vec<RingMember> = (0..10).map(member).collect();
    members[0].weight = 3;
    members[9].live = false;
    let ring = Ring::new(members);
    let mut loads: BTreeMap<PublicKey, u64> = BTreeMap::new();
    for n in 0..1100u32 {
        // All jobs have one of two keys, so plain hashing would put them on at most two members.
        let at = ring
            .place("sum", if n % 2 == 0 { b"a" } else { b"b" }, |key| loads.get(key).copied().unwrap_or(0));
        *loads.entry(at.unwrap()).or_default() += 1;
    }
    assert_eq!(loads.get(&key(9)), None);
    assert!(loads[&key(0)] <= 375 && loads[&key(0)] > 125, "{loads:?}");
    assert!((1..9).all(|n| loads.get(&key(n)).copied().unwrap_or(0) <= 125), "{loads:?}");
    assert_eq!(ring.place("sum", b"c", |_| 7), ring.owner("sum", b"c"), "equal loads change nothing");
    assert_eq!(ring.place("none", b"c", |_| 0), None);
}

#[test]
fn epochs_order_by_counter_then_owner_and_so_do_their_bytes() {
    let epoch = |counter, n: u8| Epoch { counter, owner: PublicKey::from_bytes([n; 32]) };
    let ordered = [Epoch::ZERO, epoch(1, 1), epoch(1, 2), epoch(2, 0), epoch(256, 0)];
    for pair in ordered.windows(2) {
        assert!(pair[0] < pair[1] && pair[0].to_bytes() < pair[1].to_bytes());
    }
    assert_eq!(Epoch::from_slice(&ordered[2].to_bytes()), Some(ordered[2]));
    assert_eq!(Epoch::from_slice(&[0; 39]), None);
}

/// Begins a tenure in a book whose counters are durable at once.
fn begin(book: &mut TenureBook, key: &[u8]) -> Result<Epoch, TenureError> {
    if let Some(counter) = book.poll_persist() {
        book.on_persisted(counter);
    }
    book.begin(key)
}

#[test]
fn all_attempts_on_a_key_share_one_tenure() {
    let mut book = TenureBook::new(key(1), 0);
    book.note(41).unwrap();
    let first = begin(&mut book, b"a").unwrap();
    assert_eq!(first, Epoch { counter: 42, owner: key(1) });
    assert_eq!(begin(&mut book, b"a"), Ok(first));
    book.note(1000).unwrap();
    assert_eq!(begin(&mut book, b"a"), Ok(first), "a running attempt never changes its token");
    assert_eq!(begin(&mut book, b"b").unwrap().counter, 1001);
}

#[test]
fn an_idle_tenure_ends_with_the_ring_and_a_running_attempt_keeps_its_own() {
    let mut book = TenureBook::new(key(1), 0);
    let (idle, running) = (begin(&mut book, b"a").unwrap(), begin(&mut book, b"b").unwrap());
    book.end(b"a", idle);
    book.drop_idle();
    assert_eq!((book.current(b"a"), book.current(b"b")), (None, Some(running)));
    assert!(begin(&mut book, b"a").unwrap() > running);
    assert_eq!(begin(&mut book, b"b"), Ok(running));
}

#[test]
fn after_a_refusal_the_next_tenure_is_above_the_resources_token() {
    let mut book = TenureBook::new(key(1), 0);
    let first = begin(&mut book, b"a").unwrap();
    let other = Epoch { counter: 90, owner: key(2) };
    book.supersede(b"a", other).unwrap();
    assert_eq!(book.counters.superseded, 1);
    let next = begin(&mut book, b"a").unwrap();
    assert!(next > other && next > first);
    book.supersede(b"a", other).unwrap();
    assert_eq!(book.current(b"a"), Some(next), "an old refusal ends nothing");
}

#[test]
fn a_counter_far_above_the_highest_is_refused_so_nobody_fences_out_the_world() {
    let mut book = TenureBook::new(key(1), 5);
    let mut wall = Duration::from_secs(1_800_000_000);
    book.set_unix_now(wall);
    let (told, token) = (told_limit(wall), |counter| Epoch { counter, owner: key(9) });
    assert_eq!(book.note(told + 1), Err(TenureError::TooFarAhead { counter: told + 1, limit: told }));
    let answers = answer_limit(wall);
    for lie in [answers + 1, u64::MAX] {
        assert!(book.note(lie).is_err() && book.believe(token(lie)).is_err());
        assert!(book.supersede(b"a", token(lie)).is_err());
    }
    assert_eq!((book.highest(), book.counters.too_far_ahead), (5, 7));
    // Told in steps, the limit is reached; a token above it raises this node's own no further.
    book.note(told).unwrap();
    book.believe(token(answers)).unwrap();
    let own = begin(&mut book, b"a").unwrap();
    assert_eq!(own.counter, told + 1);
    // A node whose clock is behind by hours believes this node's token, and its own next one is above the limit, too.
    let mut behind = TenureBook::new(key(2), 0);
    behind.set_unix_now(wall - Duration::from_secs(23 * 60 * 60));
    behind.believe(own).unwrap();
    // A resource that was fooled is outbid.
    book.supersede(b"a", token(answers)).unwrap();
    wall += Duration::from_millis(1);
    assert!(begin(&mut book, b"a").unwrap().counter <= answer_limit(wall));
}

#[test]
fn a_counter_is_used_only_once_it_is_durable_and_never_again_after_a_restart() {
    let mut book = TenureBook::new(key(1), 0);
    assert_eq!(book.begin(b"a"), Err(TenureError::NotDurable));
    let stored = book.poll_persist().unwrap();
    assert_eq!(book.poll_persist(), None, "asked once");
    assert_eq!(book.begin(b"a"), Err(TenureError::NotDurable));
    book.on_persisted(stored);
    let before = book.begin(b"a").unwrap();
    let mut restarted = TenureBook::new(key(1), stored);
    assert!(begin(&mut restarted, b"a").unwrap() > before);
}

#[test]
fn a_full_table_evicts_the_longest_idle_and_never_a_running_one() {
    let mut book = TenureBook::with_capacity(key(1), 2);
    let a = begin(&mut book, b"a").unwrap();
    let b = begin(&mut book, b"b").unwrap();
    assert_eq!(begin(&mut book, b"c"), Err(TenureError::Full));
    assert_eq!(book.counters.full, 1);
    book.end(b"a", a);
    assert!(begin(&mut book, b"c").is_ok());
    assert_eq!((book.current(b"a"), book.current(b"b")), (None, Some(b)));
    assert_eq!(book.counters.evicted, 1);
    assert!(begin(&mut book, b"a").is_err());
    book.end(b"b", b);
    assert!(begin(&mut book, b"a").unwrap() > a);
    assert_eq!(book.len(), 2);
    assert_eq!(book.begin(&[0; MAX_TENURE_KEY_BYTES + 1]), Err(TenureError::KeyTooLong(1025)));
}

#[test]
fn the_end_of_an_old_attempt_does_not_touch_a_later_tenure() {
    let mut book = TenureBook::with_capacity(key(1), 1);
    let old = begin(&mut book, b"a").unwrap();
    book.supersede(b"a", Epoch { counter: old.counter + 1, owner: key(2) }).unwrap();
    let new = begin(&mut book, b"a").unwrap();
    book.end(b"a", old);
    assert_eq!(begin(&mut book, b"b"), Err(TenureError::Full), "the later attempt still runs");
    book.end(b"a", new);
    book.end(b"a", new);
    assert!(begin(&mut book, b"b").is_ok());
}

proptest! {
    #[test]
    fn a_list_names_each_member_once_and_spreads_over_zones_first(
        zones in proptest::collection::vec(0u8..4, 1..20), at: u64,
    ) {
        let ring = Ring::new(zones.iter().enumerate().map(|(n, zone)| RingMember {
            zone: if *zone == 0 { String::new() } else { zone.to_string() },
            ..member(n as u32)
        }));
        let list: Vec<&RingMember> = ring.preference_at(at).collect();
        prop_assert_eq!(list.iter().map(|m| m.key).collect::<BTreeSet<_>>().len(), zones.len());
        // A zone is repeated only when every zone with members left has been used as often.
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        let name = |m: &RingMember| if m.zone.is_empty() { m.key.to_string() } else { m.zone.clone() };
        let mut rounds = Vec::new();
        for m in &list {
            let seen = count.entry(name(m)).or_default();
            rounds.push(*seen);
            *seen += 1;
        }
        prop_assert!(rounds.is_sorted(), "{:?}", rounds);
        prop_assert_eq!(ring.owners_at(at, 3), list.iter().take(3).map(|m| m.key).collect::<Vec<_>>());
    }

    #[test]
    fn a_ring_that_follows_another_is_the_ring_of_its_members(
        views in proptest::collection::vec(proptest::collection::btree_map(0u32..24, 0u16..4, 0..20), 1..6),
    ) {
        let mut ring = Ring::default();
        for view in views {
            let members = view.into_iter().map(|(n, weight)| RingMember { weight, ..member(n) });
            let members: Vec<_> = members.collect();
            ring = ring.followed_by(members.clone());
            let fresh = Ring::new(members);
            prop_assert_eq!(&ring.members, &fresh.members);
            prop_assert_eq!(&ring.points, &fresh.points);
        }
    }
}
