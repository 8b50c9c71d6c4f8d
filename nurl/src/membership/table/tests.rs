//! The merge rule, its limits, and the bounds of the table.

use proptest::prelude::*;

use super::*;
use crate::membership::profile::tests::said as profile;

fn key(at: u32) -> PublicKey {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&at.to_be_bytes());
    PublicKey::from_bytes(bytes)
}

fn now() -> Instant {
    crate::rt::test_now()
}

fn meta(weight: u16, roles: Roles) -> Meta {
    Meta::new(roles, Vec::new(), weight, String::new()).unwrap()
}

fn alive(key: PublicKey, incarnation: u64) -> Fact {
    let profile = profile(incarnation, false, 7, meta(1, Roles::WORKER));
    let record = MemberRecord { incarnation, state: State::Alive, profile: Some(profile) };
    Fact { key, record, age_s: 0, accusers: Vec::new() }
}

fn said(key: PublicKey, incarnation: u64, state: State, accusers: &[PublicKey]) -> Fact {
    let record = MemberRecord { incarnation, state, profile: None };
    Fact { key, record, age_s: 0, accusers: accusers.to_vec() }
}

fn take(table: &mut MemberTable, fact: &Fact) -> AppliedFact {
    table.apply(now(), &DetectorConfig::default(), fact, MAX_INCARNATION).unwrap()
}

fn state(table: &MemberTable, of: u32) -> State {
    table.get(&key(of)).unwrap().state
}

fn a_record() -> impl Strategy<Value = MemberRecord> {
    let state = prop_oneof![Just(State::Alive), Just(State::Suspect), Just(State::Dead), Just(State::Left)];
    (0u64..6, state, proptest::option::of((0u64..6, 0u64..3, 0u16..3))).prop_map(
        |(incarnation, state, said)| MemberRecord {
            incarnation,
            state,
            profile: said.map(|(at, boot, weight)| profile(at, false, boot, meta(weight, Roles::NONE))),
        },
    )
}

fn joined(one: &MemberRecord, other: &MemberRecord) -> MemberRecord {
    let mut record = one.clone();
    record.merge(other);
    record
}

proptest! {
    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        a in a_record(), b in a_record(), c in a_record()
    ) {
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        prop_assert_eq!(joined(&a, &a), a.clone());
        let ab = joined(&a, &b);
        prop_assert_eq!(joined(&ab, &b), ab);
    }

    #[test]
    fn two_tables_that_heard_the_same_facts_in_any_order_hold_the_same(
        facts in proptest::collection::vec((0u32..3, a_record()), 1..24), swaps in any::<u64>()
    ) {
        let facts: Vec<Fact> = facts.into_iter().map(|(of, record)| Fact {
            key: key(of), record, age_s: 0, accusers: Vec::new(),
        }).collect();
        let mut other = facts.clone();
        for at in (1..other.len()).rev() {
            other.swap(at, (swaps as usize).wrapping_mul(31 + at) % (at + 1));
        }
        other.extend(facts.iter().take(5).cloned());
        let hold = |facts: &[Fact]| {
            let mut table = MemberTable::default();
            // A member enters by its own word alone.
            (0..3).for_each(|of| drop(take(&mut table, &alive(key(of), 0))));
            facts.iter().for_each(|fact| drop(take(&mut table, fact)));
            let held: Vec<_> = table.entries()
                .map(|entry| (entry.record.clone(), entry.member.state, entry.member.boot))
                .collect();
            let live = table.entries().filter(|entry| entry.member.state.is_live()).count();
            (held, live, table.live())
        };
        let (one, two) = (hold(&facts), hold(&other));
        prop_assert_eq!(one.1, one.2, "the count of live members is kept");
        prop_assert_eq!(one, two);
    }
}

#[test]
fn dead_is_sticky_at_its_incarnation_and_only_a_higher_one_raises_it() {
    let mut table = MemberTable::default();
    take(&mut table, &alive(key(1), 3));
    take(&mut table, &said(key(1), 3, State::Dead, &[]));
    for fact in [alive(key(1), 3), alive(key(1), 2), said(key(1), 3, State::Suspect, &[key(2)])] {
        let applied = take(&mut table, &fact);
        assert!(!applied.change.state);
        assert_eq!(state(&table, 1), State::Dead);
    }
    take(&mut table, &alive(key(1), 4));
    assert_eq!(state(&table, 1), State::Alive);
    assert_eq!(table.live(), 1);
}

#[test]
fn a_goodbye_outranks_an_obituary() {
    let mut table = MemberTable::default();
    take(&mut table, &alive(key(1), 3));
    take(&mut table, &said(key(1), 3, State::Left, &[]));
    take(&mut table, &said(key(1), 3, State::Dead, &[]));
    assert_eq!(state(&table, 1), State::Left);
}

#[test]
fn an_incarnation_above_the_limit_is_refused_whatever_is_known() {
    let (mut table, config) = (MemberTable::default(), DetectorConfig::default());
    let limit = 1 << 40;
    for known in [false, true] {
        for fact in [alive(key(1), limit + 1), said(key(1), limit + 1, State::Dead, &[])] {
            assert_eq!(table.apply(now(), &config, &fact, limit), Err(FactRefusal::IncarnationTooHigh));
        }
        assert_eq!(table.get(&key(1)).map(|member| member.incarnation), known.then_some(5));
        take(&mut table, &alive(key(1), 5));
    }
    table.apply(now(), &config, &alive(key(1), limit), limit).unwrap();
    assert_eq!(table.get(&key(1)).unwrap().incarnation, limit, "however far above the known one");
}

#[test]
fn the_table_is_bounded_and_the_gone_make_room_for_newcomers() {
    let (mut table, config, start) = (MemberTable::default(), DetectorConfig::default(), now());
    for at in 0..MAX_MEMBERS as u32 {
        table.apply(start, &config, &alive(key(at), 1), MAX_INCARNATION).unwrap();
    }
    let newcomer = alive(key(9_999), 1);
    assert_eq!(table.apply(start, &config, &newcomer, MAX_INCARNATION), Err(FactRefusal::TableFull));
    assert_eq!(table.members().count(), MAX_MEMBERS, "the living are never evicted");
    for (after, at, state) in [(1, 10, State::Dead), (2, 11, State::Left), (3, 12, State::Left)] {
        let then = start + Duration::from_secs(after);
        table.apply(then, &config, &said(key(at), 1, state, &[]), MAX_INCARNATION).unwrap();
    }
    for (at, victim) in [(9_999, 11), (9_998, 12), (9_997, 10)] {
        let applied = table.apply(start, &config, &alive(key(at), 1), MAX_INCARNATION).unwrap();
        assert_eq!(applied.reclaimed, Some(key(victim)), "left before dead, longest gone first");
    }
    assert_eq!(
        table.apply(start, &config, &alive(key(9_996), 1), MAX_INCARNATION),
        Err(FactRefusal::TableFull)
    );
    assert_eq!((table.members().count(), table.live()), (MAX_MEMBERS, MAX_MEMBERS));
}

#[test]
fn the_left_are_forgotten_after_ten_minutes_the_dead_after_an_hour_and_with_a_store_after_a_day() {
    let (mut table, config, start) = (MemberTable::default(), DetectorConfig::default(), now());
    take(&mut table, &alive(key(1), 1));
    let stored = Roles::WORKER.with(Roles::STORE);
    for (at, state, roles) in
        [(2, State::Left, stored), (3, State::Dead, Roles::WORKER), (4, State::Dead, stored)]
    {
        let mut fact = alive(key(at), 1);
        fact.record.profile.as_mut().unwrap().said_mut().meta = meta(1, roles);
        take(&mut table, &fact);
        table.apply(start, &config, &said(key(at), 1, state, &[]), MAX_INCARNATION).unwrap();
    }
    let after = |seconds| start + Duration::from_secs(seconds);
    assert!(table.reclaim(after(599), &config).is_empty());
    assert_eq!(table.reclaim(after(601), &config), [key(2)]);
    assert!(table.reclaim(after(3599), &config).is_empty());
    assert_eq!(table.reclaim(after(3601), &config), [key(3)]);
    assert!(table.reclaim(after(24 * 3600 - 1), &config).is_empty());
    assert_eq!(table.reclaim(after(24 * 3600 + 1), &config), [key(4)]);
    assert!(table.get(&key(1)).is_some());
}

#[test]
fn whether_the_long_dead_are_learned_depends_on_their_store() {
    let (mut table, config, start) = (MemberTable::default(), DetectorConfig::default(), now());
    for (at, roles, learned) in [(1, Roles::WORKER, false), (2, Roles::WORKER.with(Roles::STORE), true)] {
        let mut fact = alive(key(at), 1);
        fact.record.profile.as_mut().unwrap().said_mut().meta = meta(1, roles);
        (fact.record.state, fact.age_s) = (State::Dead, 2 * 3600);
        assert_eq!(table.apply(start, &config, &fact, MAX_INCARNATION).is_ok(), learned);
    }
}

#[test]
fn who_is_about_to_be_forgotten_is_not_learned_again_from_others() {
    let (mut table, config, start) = (MemberTable::default(), DetectorConfig::default(), now());
    let mut fact = said(key(1), 1, State::Left, &[]);
    fact.record.profile = Some(profile(1, true, 7, meta(1, Roles::WORKER)));
    fact.age_s = 599;
    assert_eq!(table.apply(start, &config, &fact, MAX_INCARNATION), Err(FactRefusal::Expired));
    fact.age_s = 300;
    table.apply(start, &config, &fact, MAX_INCARNATION).unwrap();
    assert_eq!(table.reclaim(start + Duration::from_secs(301), &config), [key(1)], "ages travel");
    fact.age_s = u32::MAX;
    assert_eq!(table.apply(start, &config, &fact, MAX_INCARNATION), Err(FactRefusal::Expired));
}

#[test]
fn the_dead_keep_their_place_only_with_a_store() {
    let mut table = MemberTable::default();
    for (at, roles) in [(1, Roles::WORKER), (2, Roles::WORKER.with(Roles::STORE)), (3, Roles::HUB)] {
        let mut fact = alive(key(at), 1);
        fact.record.profile.as_mut().unwrap().said_mut().meta = meta(1, roles);
        take(&mut table, &fact);
    }
    let placed = |table: &MemberTable| [1, 2, 3].map(|at| table.get(&key(at)).unwrap().is_placed());
    assert_eq!(placed(&table), [true, true, false]);
    for at in [1, 2, 3] {
        take(&mut table, &said(key(at), 1, State::Suspect, &[key(9)]));
    }
    assert_eq!(placed(&table), [true, true, false], "a suspect keeps its place");
    for at in [1, 2, 3] {
        take(&mut table, &said(key(at), 1, State::Dead, &[]));
    }
    assert_eq!(placed(&table), [false, true, false]);
    take(&mut table, &said(key(2), 1, State::Left, &[]));
    assert_eq!(placed(&table), [false, false, false]);
}

#[test]
fn a_cleared_suspicion_returns_only_with_a_new_accuser() {
    let mut table = MemberTable::default();
    take(&mut table, &alive(key(1), 1));
    take(&mut table, &said(key(1), 1, State::Suspect, &[key(2)]));
    assert_eq!(state(&table, 1), State::Suspect);
    table.update(now(), &key(1), |entry| entry.cleared = true);
    take(&mut table, &said(key(1), 1, State::Suspect, &[key(2)]));
    assert_eq!(state(&table, 1), State::Alive, "the same accuser has nothing new to say");
    let applied = take(&mut table, &said(key(1), 1, State::Suspect, &[key(3)]));
    assert_eq!((state(&table, 1), applied.new_accusers), (State::Suspect, vec![key(3)]));
}

#[test]
fn accusers_are_bounded_and_end_with_their_incarnation() {
    let mut table = MemberTable::default();
    take(&mut table, &alive(key(1), 1));
    for at in 10..20 {
        take(&mut table, &said(key(1), 1, State::Suspect, &[key(at)]));
    }
    assert_eq!(table.entry(&key(1)).unwrap().accusers.len(), MAX_ACCUSERS);
    take(&mut table, &alive(key(1), 2));
    assert!(table.entry(&key(1)).unwrap().accusers.is_empty());
    assert_eq!(state(&table, 1), State::Alive);
}

#[test]
fn another_boot_id_is_a_restart_and_hearsay_of_an_old_one_is_not() {
    let mut table = MemberTable::default();
    assert!(!take(&mut table, &alive(key(1), 3)).change.restarted);
    let mut reborn = alive(key(1), 4);
    reborn.record.profile.as_mut().unwrap().said_mut().boot = 8;
    assert!(take(&mut table, &reborn).change.restarted);
    assert!(!take(&mut table, &alive(key(1), 3)).change.restarted);
    assert_eq!(table.get(&key(1)).unwrap().boot, 8);
}

#[test]
fn a_verdict_of_isolation_waits_until_it_counts_is_withdrawn_or_its_subject_is_forgotten() {
    let start = now();
    let at = |s| start + Duration::from_secs(s);
    let dead = |counts_at, counts| Some(LocalVerdict::Dead { counts_at, counts });
    let mut table = MemberTable::default();
    (1..4).for_each(|of| drop(take(&mut table, &alive(key(of), 1))));
    for (of, verdict, next) in [
        (1, Some(LocalVerdict::Suspect), None),
        (1, dead(at(60), false), Some(at(60))),
        (2, dead(at(30), false), Some(at(30))),
        (3, dead(at(10), true), Some(at(30))),
        (2, None, Some(at(60))),
        (2, dead(at(90), false), Some(at(60))),
    ] {
        table.update(start, &key(of), |entry| entry.verdict = verdict);
        assert_eq!(table.poll_timeout(), next, "{of}: {verdict:?}");
    }
    for (when, due) in [(59, vec![]), (60, vec![key(1)]), (90, vec![key(1), key(2)])] {
        assert_eq!(table.due_verdicts(at(when)), due, "after {when} s");
    }
    take(&mut table, &alive(key(1), 2));
    assert_eq!(table.due_verdicts(at(90)), [key(2)], "its subject has refuted");
    take(&mut table, &said(key(2), 2, State::Left, &[]));
    assert_eq!(table.poll_timeout(), None, "and this one has left");
}
