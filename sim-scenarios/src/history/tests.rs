use std::sync::Arc;

use nurl::PublicKey;
use nurl::internals::compute::lease::{Admission, Config, Moment, Outcome, Recovered};
use nurl::internals::ring::Epoch;
use nurl::internals::store::Store;
use nurl::rt::Rng;
use rand_core::SeedableRng as _;

use super::witness::{SharedHistory, Witness};
use super::*;

const LIFE: Duration = Duration::from_secs(60);
const NEVER: u64 = u64::MAX;

fn token(counter: u64) -> Epoch {
    Epoch { counter, owner: PublicKey::from_bytes([counter as u8; 32]) }
}

fn admit(counter: u64) -> Call {
    Call::Admit { token: token(counter), life: LIFE }
}

fn commit(counter: u64) -> Call {
    Call::Commit { token: token(counter), outcome: vec![counter as u8] }
}

fn complete(counter: u64) -> Call {
    Call::Complete { token: token(counter), outcome: vec![counter as u8] }
}

fn recorded(counter: u64) -> Answer {
    Answer::Recorded(Outcome::Done(vec![counter as u8]))
}

/// A call on a task: when it began and ended.
fn call(task: u8, call: Call, (began, ended): (u64, u64), answer: impl Into<Option<Answer>>) -> Operation {
    let at = Duration::from_millis(began);
    Operation { task: [task; 16], call, began, ended, from: at, until: at, answer: answer.into() }
}

/// Calls one after the other.
fn in_turn(calls: impl IntoIterator<Item = (u8, Call, Answer)>) -> Vec<Operation> {
    let turn =
        |(at, (task, what, answer)): (usize, _)| call(task, what, (2 * at as u64, 2 * at as u64 + 1), answer);
    calls.into_iter().enumerate().map(turn).collect()
}

#[track_caller]
fn good(operations: &[Operation]) {
    assert_eq!(search(operations, Register::new()), Order::Found);
}

#[track_caller]
fn bad(operations: &[Operation], fits: usize) {
    match search(operations, Register::new()) {
        Order::None { placed, .. } => assert_eq!(placed, fits),
        other => panic!("{other:?}"),
    }
}

use Answer::{Admitted, Ended, Fenced, InProgress, Late, NotInProgress};

#[test]
fn calls_one_after_the_other_have_the_registers_answers() {
    good(&in_turn([
        (1, admit(5), Admitted),
        (1, admit(9), InProgress),
        (1, commit(5), Ended),
        (1, admit(1), recorded(5)),
        (2, admit(4), Fenced(token(5))),
        (2, admit(5), Admitted),
        (3, admit(6), Admitted),
        (2, commit(5), Fenced(token(6))),
        (2, complete(5), Late(token(6))),
        (3, Call::Release { token: token(5) }, Fenced(token(6))),
        (3, Call::Release { token: token(6) }, Ended),
        (3, complete(6), NotInProgress),
        (3, admit(7), Admitted),
        (3, Call::Recover(Recovered::Unknown), Ended),
        (3, admit(8), Answer::Recorded(Outcome::Unknown)),
        (4, admit(8), Answer::Refused),
    ]));
}

#[test]
fn an_older_token_after_a_newer_one_is_refuted() {
    bad(&in_turn([(1, admit(5), Admitted), (2, admit(4), Admitted)]), 1);
    // And a fence that nobody has raised, or that doesn't say the right token.
    bad(&in_turn([(1, admit(5), Admitted), (2, admit(5), Fenced(token(5)))]), 1);
    bad(&in_turn([(1, admit(5), Admitted), (2, admit(4), Fenced(token(6)))]), 1);
}

#[test]
fn an_effect_that_is_made_twice_is_refuted() {
    bad(&in_turn([(1, admit(5), Admitted), (1, commit(5), Ended), (1, admit(6), Admitted)]), 2);
    bad(&in_turn([(1, admit(5), Admitted), (1, commit(5), Ended), (1, commit(5), Ended)]), 2);
    bad(&in_turn([(1, admit(5), Admitted), (1, admit(6), Admitted)]), 1);
    // A recovery that said that it may have happened.
    let unknown = (1, Call::Recover(Recovered::Unknown), Ended);
    bad(&in_turn([(1, admit(5), Admitted), unknown, (1, admit(6), Admitted)]), 2);
    let rolled_back = (1, Call::Recover(Recovered::RolledBack), Ended);
    good(&in_turn([(1, admit(5), Admitted), rolled_back, (1, admit(6), Admitted)]));
}

#[test]
fn an_outcome_that_changes_or_comes_from_nowhere_is_refuted() {
    bad(&in_turn([(1, admit(5), Admitted), (1, commit(5), Ended), (1, admit(6), recorded(6))]), 2);
    bad(&in_turn([(1, admit(5), recorded(5))]), 0);
    bad(&in_turn([(1, commit(5), Ended)]), 0);
}

#[test]
fn an_effect_behind_a_newer_owner_is_refuted_and_so_is_a_late_outcome_in_time() {
    let begun = [(1, admit(5), Admitted), (2, admit(6), Admitted)];
    for last in [commit(5), complete(5)] {
        let calls = begun.clone().into_iter().chain([(1, last, Ended)]);
        bad(&in_turn(calls), 2);
    }
}

#[test]
fn calls_at_once_may_have_happened_in_any_order() {
    // The lower token was fenced by one that began later and returned earlier.
    good(&[call(1, admit(4), (0, 9), Fenced(token(5))), call(2, admit(5), (1, 2), Admitted)]);
    good(&[call(1, admit(4), (0, 9), Admitted), call(2, admit(5), (1, 2), Admitted)]);
    // One after the other they have one order.
    bad(&[call(1, admit(4), (0, 1), Fenced(token(5))), call(2, admit(5), (2, 3), Admitted)], 0);
    // Two at once, of one task: one of them is admitted.
    good(&[call(1, admit(5), (0, 9), InProgress), call(1, admit(5), (1, 8), Admitted)]);
    bad(&[call(1, admit(5), (0, 9), Admitted), call(1, admit(5), (1, 8), Admitted)], 1);
    bad(&[call(1, admit(5), (0, 9), InProgress), call(1, admit(5), (1, 8), InProgress)], 0);
}

#[test]
fn a_call_without_an_answer_happened_before_its_end_or_not_at_all() {
    for then in [recorded(5), Admitted] {
        good(&[
            call(1, admit(5), (0, 1), Admitted),
            call(1, commit(5), (2, 4), None),
            call(1, Call::Recover(Recovered::RolledBack), (5, 6), (then == Admitted).then_some(Ended)),
            call(1, admit(6), (7, 8), then),
        ]);
    }
    // Not after the kill, and not twice.
    let killed = |ended| {
        [
            call(1, admit(5), (0, ended), None),
            call(1, admit(6), (4, 5), Fenced(token(6))),
            call(1, commit(5), (6, 7), Ended),
        ]
    };
    bad(&killed(3), 1);
    let late = |ended| {
        [
            call(1, admit(5), (0, ended), None),
            call(2, admit(3), (4, 5), Admitted),
            call(2, admit(3), (6, 7), InProgress),
            call(3, admit(4), (8, 9), Fenced(token(5))),
        ]
    };
    good(&late(NEVER));
    bad(&late(3), 2);
}

#[test]
fn an_outcome_may_be_forgotten_at_the_end_of_its_time_and_a_floor_may_rise_then() {
    let keep = (LIFE + nurl::internals::compute::lease::KEEP).as_millis() as u64;
    let made = [call(1, admit(5), (0, 1), Admitted), call(1, commit(5), (2, 3), Ended)];
    let then = |at: u64, answer| [&made[..], &[call(1, admit(6), (at, at + 1), answer)]].concat();
    good(&then(keep, Admitted));
    good(&then(keep, recorded(5)));
    for early in [Admitted, Fenced(token(8))] {
        bad(&then(keep - 10, early), 2);
    }
    // The floor of a resource that evicts keys.
    let fenced = then(keep, Fenced(token(8)));
    bad(&fenced, 2);
    assert_eq!(search(&fenced, Register::evictable()), Order::Found);
    let early = search(&then(keep - 10, Fenced(token(8))), Register::evictable());
    assert!(matches!(early, Order::None { placed: 2, .. }), "{early:?}");
}

#[test]
fn the_cost_is_bounded_and_a_long_history_costs_little() {
    // Forty tasks, admitted at once in any order, and then an answer that fits none of them.
    let many = (0..40).map(|n| call(n, admit(5), (u64::from(n), 1_000), Admitted));
    let impossible = call(99, commit(5), (1_001, 1_002), Ended);
    good(&many.clone().collect::<Vec<_>>());
    assert_eq!(search(&many.chain([impossible]).collect::<Vec<_>>(), Register::new()), Order::TooCostly);
    let long =
        (0..=255).flat_map(|n| [(n, admit(5), Admitted), (n, commit(5), Ended), (n, admit(5), recorded(5))]);
    good(&in_turn(long));
}

/// A resource's process, which may be killed at a call: before it, or after it and before its answer.
struct Process {
    store: Arc<Store>,
    history: SharedHistory,
    witness: Witness,
}

impl Process {
    fn start(store: Arc<Store>, history: SharedHistory) -> Process {
        let recover = |_: &[u8], _: &TaskId| Recovered::RolledBack;
        let witness = Witness::open(store.clone(), Config::default(), Moment::now(), &history, recover);
        Process { store, history, witness: witness.expect("a store in memory opens") }
    }

    fn restart(self) -> Process {
        let Process { store, history, witness } = self;
        drop(witness);
        Process::start(store, history)
    }
}

const SUM: &[u8] = b"sum";

/// Two owners try one task twice each, in every order of their calls, and the process is killed at every call, with its
/// answer lost or without the call made: the effect is made once at most, and each history is a register's.
#[test]
fn all_orders_and_kills_of_two_owners_with_two_tries_each_are_a_registers() {
    let task = [1; 16];
    let mut looked_at = 0;
    // Which owner is next: four calls of each, in 70 orders.
    for order in 0u32..1 << 8 {
        if order.count_ones() != 4 {
            continue;
        }
        for kill in 0..=16 {
            let store = Store::in_memory(&mut Rng::from_seed([1; 32])).expect("memory");
            let history = SharedHistory::default();
            let mut process = Process::start(Arc::new(store), history.clone());
            let mut admitted = [false; 2];
            let mut calls = [0; 2];
            for at in 0..8u32 {
                if kill == 2 * at {
                    process = process.restart();
                }
                let owner = (order >> at & 1) as usize;
                let mine = token(1 + owner as u64);
                if calls[owner] % 2 == 0 {
                    let answer =
                        process.witness.admit(Moment::now(), b"k", mine, &task, LIFE).expect("memory");
                    admitted[owner] = answer == Admission::Admitted;
                } else if admitted[owner] {
                    let outcome = [owner as u8, calls[owner] as u8];
                    // Fenced, or rolled back at a kill: then it isn't made.
                    let _ = process.witness.commit_with(b"k", mine, &task, &outcome, |effects| {
                        let sum = effects.get(SUM)?.map_or(0, |bytes| bytes[0]);
                        effects.put(SUM, &[sum + 1])
                    });
                }
                calls[owner] += 1;
                if kill == 2 * at + 1 {
                    history.lose_the_last_answer();
                    process = process.restart();
                }
            }
            let made = process.store.effect(SUM).expect("memory").map_or(0, |bytes| bytes[0]);
            assert!(made <= 1, "{order:08b}, killed at {kill}: made {made} times");
            assert_eq!(history.so_far().check(&Register::new()), Ok(()), "{order:08b}, killed at {kill}");
            looked_at += 1;
        }
    }
    assert_eq!(looked_at, 70 * 17);
}
