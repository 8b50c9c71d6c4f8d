use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Instant;

use proptest::prelude::*;
use rand_core::SeedableRng;

use super::*;
use crate::key::PublicKey;
use crate::membership::limit::answer_limit;
use crate::rt::time::Uptime;
use crate::rt::{Rng, test_now};
use crate::store::Store;

const WALL: Duration = Duration::from_secs(1_000_000);
const LIFE: Duration = Duration::from_secs(60);

/// A moment of a machine whose clocks all go right, this long after the first.
fn after(passed: Duration) -> Moment {
    static START: LazyLock<Instant> = LazyLock::new(test_now);
    let uptime = Some(Uptime { boot: [1; 16], since_boot: Duration::from_secs(1_000) + passed });
    Moment { unix: WALL + passed, monotonic: *START + passed, uptime }
}

fn start() -> Moment {
    after(Duration::ZERO)
}

fn token(counter: u64, owner: u8) -> Epoch {
    Epoch { counter, owner: PublicKey::from_bytes([owner; 32]) }
}

fn task(n: u8) -> TaskId {
    [n; 16]
}

fn store() -> Arc<Store> {
    Arc::new(Store::in_memory(&mut Rng::from_seed([1; 32])).unwrap())
}

fn open(store: &Arc<Store>) -> Resource {
    open_with(store, Config::default())
}

fn open_with(store: &Arc<Store>, config: Config) -> Resource {
    open_at(store, config, start())
}

fn open_at(store: &Arc<Store>, config: Config, now: Moment) -> Resource {
    Resource::open(store.clone(), config, now, |_, _| Recovered::Unknown).unwrap()
}

fn admit(resource: &Resource, key: &[u8], token: Epoch, n: u8) -> Admission {
    resource.admit(start(), key, token, &task(n), LIFE).unwrap()
}

fn complete(resource: &Resource, token: Epoch, n: u8, outcome: &[u8]) {
    assert_eq!(resource.complete(b"k", token, &task(n), outcome).unwrap(), Completed::InTime);
}

/// A resource whose owner gives this answer about every task whose holder is gone.
fn open_recovering(store: &Arc<Store>, answer: Recovered) -> Resource {
    Resource::open(store.clone(), Config::default(), start(), move |_, _| answer.clone()).unwrap()
}

#[test]
fn a_recorded_outcome_is_returned_whatever_the_token() {
    let resource = open(&store());
    assert_eq!(admit(&resource, b"k", token(5, 1), 1), Admission::Admitted);
    complete(&resource, token(5, 1), 1, b"out");
    let recorded = Admission::Recorded(Outcome::Done(b"out".to_vec()));
    for counter in [1, 5, 9, 6] {
        assert_eq!(admit(&resource, b"k", token(counter, 1), 1), recorded);
    }
    assert_eq!(admit(&resource, b"k", token(u64::MAX, 1), 1), recorded, "it asks for nothing new");
    assert_eq!(resource.current(b"k"), token(5, 1), "and asking raises no token");
}

#[test]
fn a_duplicate_of_a_task_in_progress_never_runs_beside_it() {
    let resource = open(&store());
    assert_eq!(admit(&resource, b"k", token(5, 1), 1), Admission::Admitted);
    for counter in [1, 5, 9] {
        assert_eq!(admit(&resource, b"k", token(counter, 1), 1), Admission::InProgress);
    }
    assert_eq!(resource.counters().in_progress, 3);
    assert_eq!(
        admit(&resource, b"other", token(1, 1), 1),
        Admission::Admitted,
        "another key is another matter"
    );
}

#[test]
fn of_two_owners_the_lower_token_is_fenced_in_either_order() {
    for (first, second) in [(token(1, 1), token(2, 2)), (token(1, 1), token(1, 2))] {
        let resource = open(&store());
        assert_eq!(admit(&resource, b"k", first, 1), Admission::Admitted);
        assert_eq!(admit(&resource, b"k", second, 2), Admission::Admitted, "a higher one takes over");
        assert_eq!(admit(&resource, b"k", first, 3), Admission::Fenced { current: second });
        let resource = open(&store());
        assert_eq!(admit(&resource, b"k", second, 2), Admission::Admitted);
        assert_eq!(admit(&resource, b"k", first, 1), Admission::Fenced { current: second });
        assert_eq!(admit(&resource, b"k", second, 4), Admission::Admitted, "tasks of one tenure share it");
    }
}

#[test]
fn two_owners_never_hold_equal_tokens_so_one_of_them_is_fenced() {
    let resource = open(&store());
    assert_eq!(admit(&resource, b"k", token(7, 1), 1), Admission::Admitted);
    assert_eq!(admit(&resource, b"k", token(7, 2), 2), Admission::Admitted);
    assert_eq!(admit(&resource, b"k", token(7, 1), 3), Admission::Fenced { current: token(7, 2) });
}

#[test]
fn one_request_with_the_largest_epoch_fences_out_nobody() {
    let resource = open(&store());
    assert_eq!(admit(&resource, b"k", token(3, 1), 1), Admission::Admitted);
    let highest = answer_limit(WALL);
    for counter in [u64::MAX, highest + 1] {
        let refused = resource.admit(start(), b"k", token(counter, 2), &task(2), LIFE);
        assert!(
            matches!(refused, Err(LeaseError::TooFarAhead { limit, .. }) if limit == highest),
            "{refused:?}"
        );
    }
    assert_eq!((resource.highest(), resource.counters().too_far_ahead), (3, 2));
    assert_eq!(admit(&resource, b"k", token(3, 1), 3), Admission::Admitted);
    // The highest that is believed leaves room: the limit has risen by the next millisecond.
    assert_eq!(admit(&resource, b"k", token(highest, 2), 4), Admission::Admitted);
    let later = after(Duration::from_millis(1));
    let next = resource.admit(later, b"k", token(highest + 1, 1), &task(5), LIFE).unwrap();
    assert_eq!(next, Admission::Admitted);
}

#[test]
fn a_restart_forgets_neither_tokens_nor_outcomes() {
    let store = store();
    let resource = open(&store);
    admit(&resource, b"k", token(5, 1), 1);
    complete(&resource, token(5, 1), 1, b"out");
    drop(resource);
    let resource = open(&store);
    assert_eq!(admit(&resource, b"k", token(4, 1), 2), Admission::Fenced { current: token(5, 1) });
    assert_eq!(admit(&resource, b"k", token(5, 1), 1), Admission::Recorded(Outcome::Done(b"out".to_vec())));
    assert_eq!(resource.highest(), 5);
}

#[test]
fn a_task_in_progress_at_a_crash_is_unknown_and_never_runs_again() {
    let store = store();
    let resource = open(&store);
    admit(&resource, b"k", token(5, 1), 1);
    drop(resource);
    for _ in 0..2 {
        let resource = open(&store);
        assert_eq!(admit(&resource, b"k", token(9, 2), 1), Admission::Recorded(Outcome::Unknown));
        assert!(matches!(
            resource.complete(b"k", token(9, 2), &task(1), b"x"),
            Err(LeaseError::NotInProgress)
        ));
    }
}

#[test]
fn recovery_asks_the_resource_whether_the_effect_can_be_read_back() {
    let store = store();
    let resource = open(&store);
    for n in 1..=3 {
        admit(&resource, b"k", token(5, 1), n);
    }
    drop(resource);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let resource = Resource::open(store.clone(), Config::default(), start(), move |key, id| {
        log.lock().unwrap().push((key.to_vec(), *id));
        match id[0] {
            1 => Recovered::Done(b"read back".to_vec()),
            2 => Recovered::RolledBack,
            _ => Recovered::Unknown,
        }
    })
    .unwrap();
    assert_eq!(asked.lock().unwrap().len(), 3);
    assert_eq!(resource.counters().unknown, 1);
    let done = Admission::Recorded(Outcome::Done(b"read back".to_vec()));
    assert_eq!(admit(&resource, b"k", token(5, 1), 1), done);
    assert_eq!(admit(&resource, b"k", token(5, 1), 2), Admission::Admitted, "it was undone");
    assert_eq!(admit(&resource, b"k", token(5, 1), 3), Admission::Recorded(Outcome::Unknown));
}

#[test]
fn an_effect_and_its_outcome_are_durable_together_or_not_at_all() {
    let store = store();
    let resource = open(&store);
    admit(&resource, b"k", token(5, 1), 1);
    let failed = resource.commit_with(b"k", token(5, 1), &task(1), b"out", |effects| {
        effects.put(b"account", b"100")?;
        effects.put(&[0; 5000], b"too long a name")
    });
    assert!(matches!(failed, Err(LeaseError::Store(_))));
    assert_eq!(store.effect(b"account").unwrap(), None);
    assert_eq!(admit(&resource, b"k", token(5, 1), 1), Admission::InProgress);
    resource
        .commit_with(b"k", token(5, 1), &task(1), b"out", |effects| effects.put(b"account", b"100"))
        .unwrap();
    drop(resource);
    let resource = open(&store);
    assert_eq!(admit(&resource, b"k", token(1, 1), 1), Admission::Recorded(Outcome::Done(b"out".to_vec())));
    assert_eq!(store.effect(b"account").unwrap(), Some(b"100".to_vec()));
}

#[test]
fn a_stale_owner_is_fenced_also_at_its_commit() {
    let store = store();
    let resource = open(&store);
    admit(&resource, b"k", token(5, 1), 1);
    admit(&resource, b"k", token(6, 2), 2);
    resource
        .commit_with(b"k", token(6, 2), &task(2), b"", |effects| effects.put(b"account", b"new"))
        .unwrap();
    let stale =
        resource.commit_with(b"k", token(5, 1), &task(1), b"", |effects| effects.put(b"account", b"stale"));
    assert!(matches!(stale, Err(LeaseError::Fenced { current }) if current == token(6, 2)));
    assert_eq!(store.effect(b"account").unwrap(), Some(b"new".to_vec()));
    resource.release(b"k", token(5, 1), &task(1)).unwrap();
    assert_eq!(admit(&resource, b"k", token(5, 1), 1), Admission::Fenced { current: token(6, 2) });
}

#[test]
fn a_released_task_may_be_admitted_again_also_after_a_restart() {
    let store = store();
    let resource = open(&store);
    admit(&resource, b"k", token(5, 1), 1);
    resource.release(b"k", token(5, 1), &task(1)).unwrap();
    drop(resource);
    let resource = open(&store);
    assert_eq!(admit(&resource, b"k", token(5, 1), 1), Admission::Admitted);
    assert!(matches!(resource.release(b"k", token(5, 1), &task(9)), Err(LeaseError::NotInProgress)));
}

#[test]
fn an_outcome_is_kept_for_the_tasks_life_and_ten_minutes() {
    let store = store();
    let resource = open(&store);
    admit(&resource, b"k", token(5, 1), 1);
    complete(&resource, token(5, 1), 1, b"out");
    let end = LIFE + KEEP;
    let ask =
        |resource: &Resource, now| resource.admit(after(now), b"k", token(5, 1), &task(1), LIFE).unwrap();
    let kept = Admission::Recorded(Outcome::Done(b"out".to_vec()));
    assert_eq!(ask(&resource, end - Duration::from_millis(1)), kept);
    let again = open_at(&store, Config::default(), after(end - Duration::from_millis(1)));
    assert_eq!(ask(&again, end - Duration::from_millis(1)), kept);
    assert_eq!(ask(&again, end), Admission::Admitted);
    assert_eq!(
        again.admit(after(end), b"k", token(4, 1), &task(2), LIFE).unwrap(),
        Admission::Fenced { current: token(5, 1) },
        "the token outlives its tasks"
    );
}

#[test]
fn a_task_in_progress_is_not_forgotten_when_its_time_is_over() {
    let resource = open(&store());
    admit(&resource, b"k", token(5, 1), 1);
    let late = after(LIFE + KEEP + KEEP);
    assert_eq!(resource.admit(late, b"k", token(5, 1), &task(1), LIFE).unwrap(), Admission::InProgress);
}

#[test]
fn a_full_table_is_busy_and_evicts_nothing_younger_than_its_life() {
    let resource = open_with(&store(), Config { max_tasks: 2, max_keys: 10 });
    admit(&resource, b"k", token(1, 1), 1);
    complete(&resource, token(1, 1), 1, b"1");
    admit(&resource, b"k", token(1, 1), 2);
    assert_eq!(admit(&resource, b"k", token(2, 1), 3), Admission::Busy);
    assert_eq!(resource.current(b"k"), token(1, 1), "a refused request leaves no trace");
    assert_eq!(admit(&resource, b"k", token(1, 1), 1), Admission::Recorded(Outcome::Done(b"1".to_vec())));
    assert_eq!(admit(&resource, b"k", token(1, 1), 2), Admission::InProgress);
    assert_eq!(resource.counters().busy, 1);
    let later = after(LIFE + KEEP);
    assert_eq!(resource.admit(later, b"k", token(1, 1), &task(3), LIFE).unwrap(), Admission::Admitted);
}

#[test]
fn evicting_a_keys_token_raises_the_floor_also_across_a_restart() {
    let store = store();
    let config = Config { max_tasks: 10, max_keys: 2 };
    let resource = open_with(&store, config);
    admit(&resource, b"a", token(9, 1), 1);
    admit(&resource, b"b", token(5, 1), 1);
    assert_eq!(admit(&resource, b"c", token(20, 1), 1), Admission::Busy, "both have tasks");
    resource.release(b"a", token(9, 1), &task(1)).unwrap();
    resource.release(b"b", token(5, 1), &task(1)).unwrap();
    assert_eq!(admit(&resource, b"c", token(4, 1), 1), Admission::Fenced { current: token(5, 1) });
    assert_eq!(admit(&resource, b"c", token(20, 1), 1), Admission::Admitted, "b gave way");
    assert_eq!(resource.counters().evicted, 1);
    for resource in [&resource, &open_with(&store, config)] {
        assert_eq!(resource.current(b"b"), token(5, 1), "the floor");
        assert_eq!(resource.current(b"unheard of"), token(5, 1));
        assert_eq!(resource.current(b"a"), token(9, 1));
        assert_eq!(resource.current(b"c"), token(20, 1));
    }
}

#[test]
fn a_panic_in_an_effect_ends_its_task_as_a_crash_would() {
    let effect = |effects: &mut Effects<'_>| {
        effects.put(b"account", b"half")?;
        panic!("planned")
    };
    for (answer, then) in [
        (Recovered::RolledBack, Admission::Admitted),
        (Recovered::Unknown, Admission::Recorded(Outcome::Unknown)),
        (Recovered::Done(b"read back".to_vec()), Admission::Recorded(Outcome::Done(b"read back".to_vec()))),
        (Recovered::Running, Admission::InProgress),
    ] {
        let store = store();
        let resource = open_recovering(&store, answer.clone());
        admit(&resource, b"k", token(5, 1), 1);
        let ended = resource.commit_with(b"k", token(5, 1), &task(1), b"out", effect);
        assert!(
            matches!(&ended, Err(LeaseError::Panicked { recovered }) if *recovered == answer),
            "{ended:?}"
        );
        assert_eq!(resource.counters().unknown, u64::from(answer == Recovered::Unknown));
        assert_eq!(store.effect(b"account").unwrap(), None, "its writes are undone");
        assert_eq!(admit(&resource, b"k", token(6, 2), 1), then);
        // The answer is durable: after a restart it isn't asked for again.
        let again = open_recovering(&store, Recovered::Running);
        let then = if then == Admission::Admitted { Admission::InProgress } else { then };
        assert_eq!(admit(&again, b"k", token(6, 2), 1), then);
    }
}

#[test]
fn a_dropped_guard_recovers_its_own_run_and_no_other() {
    let resource = open_recovering(&store(), Recovered::RolledBack);
    admit(&resource, b"k", token(5, 1), 1);
    let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _guard = resource.guard(b"k", token(5, 1), &task(1));
        panic!("planned")
    }));
    assert!(held.is_err());
    assert_eq!(admit(&resource, b"k", token(6, 2), 1), Admission::Admitted);
    // The first holder's guard, dropped late, leaves the second holder's run alone; and so does one of a higher token.
    for other in [token(5, 1), token(7, 1)] {
        drop(resource.guard(b"k", other, &task(1)));
        assert_eq!(admit(&resource, b"k", token(6, 2), 1), Admission::InProgress);
    }
    let guard = resource.guard(b"k", token(6, 2), &task(1));
    complete(&resource, token(6, 2), 1, b"out");
    drop(guard);
    assert_eq!(admit(&resource, b"k", token(6, 2), 1), Admission::Recorded(Outcome::Done(b"out".to_vec())));
}

#[test]
fn a_panic_of_the_one_who_is_asked_is_no_answer() {
    let store = store();
    admit(&open(&store), b"k", token(5, 1), 1);
    let resource = Resource::open(store, Config::default(), start(), |_, _| panic!("planned")).unwrap();
    assert_eq!(admit(&resource, b"k", token(5, 1), 1), Admission::Recorded(Outcome::Unknown));
    admit(&resource, b"k", token(5, 1), 2);
    assert_eq!(resource.recover(b"k", token(5, 1), &task(2)).unwrap(), Recovered::Unknown);
    assert_eq!(admit(&resource, b"k", token(5, 1), 3), Admission::Admitted, "the resource goes on");
}

#[test]
fn an_outcome_recorded_behind_a_newer_holder_is_late() {
    let resource = open(&store());
    admit(&resource, b"k", token(5, 1), 1);
    admit(&resource, b"k", token(6, 2), 2);
    let late = resource.complete(b"k", token(5, 1), &task(1), b"out").unwrap();
    assert_eq!(late, Completed::Late { current: token(6, 2) });
    assert_eq!(resource.counters().late, 1);
    assert_eq!(admit(&resource, b"k", token(6, 2), 1), Admission::Recorded(Outcome::Done(b"out".to_vec())));
    complete(&resource, token(6, 2), 2, b"new");
}

#[test]
fn a_holder_whose_run_was_given_up_ends_nothing_of_the_next_ones() {
    let resource = open_recovering(&store(), Recovered::RolledBack);
    admit(&resource, b"k", token(5, 1), 1);
    resource.recover(b"k", token(5, 1), &task(1)).unwrap();
    assert_eq!(admit(&resource, b"k", token(6, 2), 1), Admission::Admitted);
    let stale = |ended: Result<(), LeaseError>| {
        assert!(matches!(ended, Err(LeaseError::Fenced { current }) if current == token(6, 2)), "{ended:?}");
    };
    stale(resource.complete(b"k", token(5, 1), &task(1), b"old").map(|_| ()));
    stale(resource.commit_with(b"k", token(5, 1), &task(1), b"old", |_| Ok(())));
    stale(resource.release(b"k", token(5, 1), &task(1)));
    stale(resource.recover(b"k", token(5, 1), &task(1)).map(|_| ()));
    assert_eq!(admit(&resource, b"k", token(6, 2), 1), Admission::InProgress);
    // A newer holder that has found out what came of the task may say so.
    complete(&resource, token(7, 1), 1, b"read back");
}

#[test]
fn no_step_of_the_wall_clock_shortens_what_is_kept() {
    const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
    let store = store();
    let resource = open(&store);
    admit(&resource, b"k", token(5, 1), 1);
    complete(&resource, token(5, 1), 1, b"out");
    let kept = Admission::Recorded(Outcome::Done(b"out".to_vec()));
    let ask = |resource: &Resource, now| resource.admit(now, b"k", token(5, 1), &task(1), LIFE).unwrap();
    let set_forward = |passed| Moment { unix: WALL + YEARS, ..after(passed) };
    let second = Duration::from_secs(1);
    assert_eq!(ask(&resource, set_forward(second)), kept);
    // Across a restart, of the process and of the machine.
    let other_boot = Uptime { boot: [2; 16], since_boot: YEARS };
    for uptime in [after(second).uptime, None, Some(other_boot)] {
        let now = Moment { uptime, ..set_forward(second) };
        let again = open_at(&store, Config::default(), now);
        assert_eq!(ask(&again, now), kept, "{uptime:?}");
    }
    // And set back it keeps nothing for ever.
    let now = Moment { unix: Duration::ZERO, ..after(second) };
    let again = open_at(&store, Config::default(), now);
    let late = Moment { unix: Duration::ZERO, ..after(LIFE + KEEP + second) };
    assert_eq!(ask(&again, late), Admission::Admitted);
}

#[test]
fn the_time_that_a_process_was_closed_counts_where_the_machine_tells_it() {
    let store = store();
    let resource = open(&store);
    admit(&resource, b"k", token(5, 1), 1);
    complete(&resource, token(5, 1), 1, b"out");
    drop(resource);
    let now = after(LIFE + KEEP);
    let resource = open_at(&store, Config::default(), now);
    assert_eq!(resource.admit(now, b"k", token(5, 1), &task(1), LIFE).unwrap(), Admission::Admitted);
}

#[test]
fn what_is_over_a_bound_is_a_typed_error() {
    let resource = open(&store());
    let long = [0; MAX_KEY_BYTES + 1];
    assert!(matches!(
        resource.admit(start(), &long, token(1, 1), &task(1), LIFE),
        Err(LeaseError::TooLarge { what: "a key", .. })
    ));
    assert!(matches!(
        resource.admit(start(), b"k", token(1, 1), &task(1), MAX_LIFE + Duration::from_secs(1)),
        Err(LeaseError::TooLarge { .. })
    ));
    admit(&resource, b"k", token(1, 1), 1);
    assert!(matches!(
        resource.complete(b"k", token(1, 1), &task(1), &vec![0; MAX_OUTCOME_BYTES + 1]),
        Err(LeaseError::TooLarge { what: "an outcome", .. })
    ));
}

#[cfg(not(feature = "sim"))]
#[test]
#[expect(clippy::disallowed_methods, reason = "true threads are what is tested")]
fn of_concurrent_duplicates_exactly_one_is_admitted() {
    let resource = open(&store());
    let admitted = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for owner in 0..8 {
            let (resource, admitted) = (&resource, &admitted);
            scope.spawn(move || {
                for n in 0..20 {
                    if let Admission::Admitted = admit(resource, b"k", token(1, owner), n) {
                        admitted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        let done = resource.complete(b"k", token(1, owner), &task(n), &[owner]);
                        assert!(done.is_ok(), "{done:?}");
                    }
                }
            });
        }
    });
    let counters = resource.counters();
    let admitted = admitted.into_inner();
    assert_eq!(counters.admitted as usize, admitted);
    assert!(admitted <= 20, "{admitted}");
    assert_eq!(resource.current(b"k").counter, 1);
}

/// The state after a kill: a store opened on the bytes of the file at that moment.
#[cfg(not(feature = "sim"))]
fn killed(path: &std::path::Path, copy: &str) -> Resource {
    let bytes = crate::rt::disk::read(path, 1 << 30).unwrap();
    let path = path.with_file_name(copy);
    crate::rt::disk::create_new_private(&path, &bytes).unwrap();
    open(&Arc::new(Store::open(&path, &mut Rng::from_seed([2; 32])).unwrap()))
}

#[cfg(not(feature = "sim"))]
#[test]
fn a_kill_at_any_step_leaves_a_state_that_answers_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let resource = open(&Arc::new(Store::open(&path, &mut Rng::from_seed([1; 32])).unwrap()));

    let before = killed(&path, "before");
    assert_eq!(admit(&before, b"k", token(5, 1), 1), Admission::Admitted);

    admit(&resource, b"k", token(5, 1), 1);
    let between = killed(&path, "between");
    assert_eq!(admit(&between, b"k", token(6, 2), 1), Admission::Recorded(Outcome::Unknown));
    assert_eq!(admit(&between, b"k", token(4, 2), 2), Admission::Fenced { current: token(5, 1) });

    resource
        .commit_with(b"k", token(5, 1), &task(1), b"out", |effects| effects.put(b"account", b"1"))
        .unwrap();
    let after = killed(&path, "after");
    assert_eq!(admit(&after, b"k", token(6, 2), 1), Admission::Recorded(Outcome::Done(b"out".to_vec())));
    assert_eq!(after.store().effect(b"account").unwrap(), Some(b"1".to_vec()));
}

#[derive(Debug, Clone)]
enum Step {
    Admit { key: u8, counter: u64, owner: u8, task: u8 },
    Complete { key: u8, task: u8 },
    Commit { key: u8, task: u8 },
    Release { key: u8, task: u8 },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..3, 1u64..6, 0u8..3, 0u8..6)
            .prop_map(|(key, counter, owner, task)| Step::Admit { key, counter, owner, task }),
        2 => (0u8..3, 0u8..6).prop_map(|(key, task)| Step::Complete { key, task }),
        2 => (0u8..3, 0u8..6).prop_map(|(key, task)| Step::Commit { key, task }),
        2 => (0u8..3, 0u8..6).prop_map(|(key, task)| Step::Release { key, task }),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_the_order_effects_happen_once_and_tokens_never_fall(
        steps in proptest::collection::vec(step(), 0..60),
        max_keys in 1usize..5,
    ) {
        let store = store();
        let config = Config { max_keys, ..Config::default() };
        let mut resource = open_with(&store, config);
        let mut highest: BTreeMap<u8, Epoch> = BTreeMap::new();
        let mut running: BTreeMap<(u8, u8), Epoch> = BTreeMap::new();
        let mut begun = BTreeSet::new();
        let mut committed = BTreeSet::new();
        let mut outcomes: BTreeMap<(u8, u8), Outcome> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Admit { key, counter, owner, task: n } => {
                    let asked = token(counter, owner);
                    let known = highest.get(&key).copied().unwrap_or(Epoch::ZERO);
                    match admit(&resource, &[key], asked, n) {
                        Admission::Admitted => {
                            prop_assert!(asked >= known, "also if the key was evicted meanwhile");
                            prop_assert!(begun.insert((key, n)), "a task runs once");
                            highest.insert(key, asked);
                            running.insert((key, n), asked);
                        }
                        Admission::Fenced { current } => {
                            prop_assert!(asked < current);
                            prop_assert!(current == known || (max_keys < 3 && current > known));
                        }
                        Admission::InProgress => prop_assert!(running.contains_key(&(key, n))),
                        Admission::Recorded(outcome) => {
                            prop_assert_eq!(Some(&outcome), outcomes.get(&(key, n)));
                        }
                        Admission::Busy => prop_assert!(max_keys < 3),
                    }
                }
                Step::Complete { key, task: n } => {
                    let held = running.remove(&(key, n));
                    let ended = resource.complete(&[key], held.unwrap_or(token(9, 9)), &task(n), &[n]);
                    prop_assert_eq!(ended.is_ok(), held.is_some());
                    if let (Some(held), Ok(ended)) = (held, ended) {
                        let current = highest[&key];
                        let expected =
                            if held < current { Completed::Late { current } } else { Completed::InTime };
                        prop_assert_eq!(ended, expected);
                        outcomes.insert((key, n), Outcome::Done(vec![n]));
                    }
                }
                Step::Commit { key, task: n } => {
                    let name = [key, n];
                    let held = running.get(&(key, n)).copied();
                    let effect = |effects: &mut Effects<'_>| effects.put(&name, b"1");
                    let ok =
                        resource.commit_with(&[key], held.unwrap_or(token(9, 9)), &task(n), &[n], effect);
                    let may = held.is_some_and(|held| held >= highest[&key]);
                    prop_assert_eq!(ok.is_ok(), may);
                    if may {
                        prop_assert!(committed.insert(name), "an effect happens once");
                        running.remove(&(key, n));
                        outcomes.insert((key, n), Outcome::Done(vec![n]));
                    }
                    prop_assert_eq!(store.effect(&name).unwrap().is_some(), committed.contains(&name));
                }
                Step::Release { key, task: n } => {
                    let held = running.remove(&(key, n));
                    let ok = resource.release(&[key], held.unwrap_or(token(9, 9)), &task(n));
                    prop_assert_eq!(ok.is_ok(), held.is_some());
                    begun.retain(|name| held.is_none() || *name != (key, n));
                }
                Step::Restart => {
                    resource = open_with(&store, config);
                    for (id, _) in std::mem::take(&mut running) {
                        outcomes.insert(id, Outcome::Unknown);
                    }
                }
            }
        }
    }
}
