//! Several holders want one resource: each has the answer that the lease's rules give, whatever happens to its keeper.
//!
//! Four holders ask a resource for tasks on five keys, with tokens of their own: again, late, with tokens that are too low,
//! or too far ahead. The resource remembers four keys and seven tasks. Tasks end with an effect in the store or with one
//! elsewhere, or are released, now and then by a holder whose run was given up. Hours pass and outcomes expire; the wall
//! clock leaps, which expires nothing.
//!
//! The keeper's process is killed at drawn disk operations, or its machine loses its power. The next process asks what came
//! of the tasks that were in progress, and goes on. A [model](model) of a few lines says what each answer must be. After a
//! kill the resource is as before its last call, or as after it, and never in between. And without that model: all answers are
//! those of one [fenced register](crate::history).
//!
//! In the end one byte of a record is damaged on the disk: the resource doesn't open. With the right byte it does, and
//! nothing has changed.
//!
//! Negative control: each answer that the rules know is given in some run, which is a mark.

mod answers;
mod damage;
mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::property::Violation;
use chaos::scenario::{Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::Host;
use nurl::PublicKey;
use nurl::internals::compute::lease::{
    Completed, Config, MAX_KEY_BYTES, MAX_LIFE, Moment, Recovered, Resource, TaskId,
};
use nurl::internals::membership::limit::answer_limit;
use nurl::internals::ring::Epoch;
use nurl::internals::store::Store;
use nurl::rt::{self, Rng, disk, time};
use rand_core::Rng as _;

use self::answers::{answer, note};
use self::model::{Answer, Model, Name};
use crate::history::register::Register;
use crate::history::witness::{SharedHistory, Witness};
use crate::lock::lock;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    marks: &[
        Mark::new("a resource was full of tasks or of keys"),
        Mark::new("a holder was fenced by another one's token"),
        Mark::new("an effect was fenced at its commit"),
        Mark::new("a key's token was evicted for another key"),
        Mark::new("a token was too far ahead of the clock"),
        Mark::new("an outcome expired"),
        Mark::new("an outcome was recorded late, behind a newer holder"),
        Mark::new("a holder ended a task that another one had taken over"),
        Mark::new("a kill came after its last call was durable"),
        Mark::new("a kill came before its last call was durable"),
        Mark::new("what was in progress at a kill was asked for again, and is unknown"),
    ],
    time_limit: Duration::from_secs(60 * 3_600),
    ..Scenario::new(
        "contention",
        "several holders want one resource, its keeper is killed and restarted: each answer is the one of the lease's rules",
        |trial| Box::pin(run(trial)),
    )
};

const KEYS: u8 = 5;
const HOLDERS: u8 = 4;
/// Tasks on each key.
const TASKS: u8 = 4;

/// What the resource remembers at most.
const MAX_KEYS: usize = 4;
const MAX_TASKS: usize = 7;
const LIMITS: Config = Config { max_tasks: MAX_TASKS, max_keys: MAX_KEYS };

const KILLS: u32 = 20;

/// A kill comes within this many disk operations of its arming: a transaction has about ten.
const WITHIN: u64 = 250;

/// How long each process has, and the last one.
const EACH: Duration = Duration::from_secs(2 * 3_600);
const LAST: Duration = Duration::from_secs(8 * 3_600);

/// Steps of the last process, and the pause between two. Every sixteenth pause is a long one, in which outcomes expire.
const STEPS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);
const LONG_PAUSE_S: u64 = 20 * 60;

const FILE: &str = "/data/lease.redb";

const RULES: &str = "a resource answers each holder by the lease's rules";
const BEFORE_OR_AFTER: &str = "after a kill a resource is as before its last call or as after it";
const COMES_TO_ITS_END: &str = "the keeper comes to its end once it is left alone";

/// What the scenario knows, across the keeper's processes.
struct Known {
    /// The states that the disk may have.
    possible: Vec<Model>,
    answers: BTreeMap<&'static str, u32>,
    history: SharedHistory,
    /// The result of the last process.
    end: Option<Result<(), Violation>>,
    last: bool,
}

async fn run(trial: Trial) -> RunResult {
    let world = trial.world;
    let host = world.host("keeper").addr("10.0.0.1");
    let history = SharedHistory::default();
    let known = Known {
        possible: vec![Model::new()],
        answers: BTreeMap::new(),
        history: history.clone(),
        end: None,
        last: false,
    };
    let known = Arc::new(Mutex::new(known));
    let shared = known.clone();
    host.spawn(move || {
        let known = shared.clone();
        async move {
            let end = keep(host, &known).await;
            // A store error is the kill that was armed: the next process goes on.
            if let Some(end) = end {
                lock(&known).end = Some(end);
            }
            std::future::pending::<()>().await;
        }
    });
    // The first process makes the store undisturbed: whether the resource's clock has begun isn't seen from outside.
    world.sleep(PAUSE).await;
    let mut draws = world.rng("kills");
    for _ in 0..KILLS {
        let after = 1 + draws.next_u64() % WITHIN;
        if draws.next_u32().is_multiple_of(2) {
            host.crash_at_disk_op(after);
        } else {
            host.power_loss_at_disk_op(after);
        }
        world.sleep(EACH).await;
        if let Some(Err(broken)) = lock(&known).end.clone() {
            return Err(broken);
        }
        host.restart();
    }
    host.restart();
    lock(&known).last = true;
    world.sleep(LAST).await;
    let known = lock(&known);
    let end = known.end.clone();
    end.ok_or_else(|| Violation::liveness(COMES_TO_ITS_END, "it did not"))??;
    history.so_far().check(&Register::evictable())?;
    let notes = known.answers.iter().map(|(answer, count)| format!("{count} times {answer}\n")).collect();
    let state = format!("each answer was the rules', across {KILLS} kills; a damaged record was refused\n");
    Ok(Passed { state, notes })
}

/// One process of the keeper: none if it was killed.
async fn keep(host: Host, known: &Mutex<Known>) -> Option<Result<(), Violation>> {
    disk::create_dir_all(Path::new("/data")).ok()?;
    let (resource, mut model) = match open(known)? {
        Ok(opened) => opened,
        Err(broken) => return Some(Err(broken)),
    };
    let mut draws = rt::rng("steps");
    let mut steps = 0;
    while !lock(known).last || steps < STEPS {
        steps += 1;
        match step(host, &resource, &model, known, &mut draws) {
            Ok(after) => model = after,
            Err(Some(broken)) => return Some(Err(broken)),
            Err(None) => return None,
        }
        let long = draws.next_u32().is_multiple_of(16);
        let pause = if long { Duration::from_secs(draws.next_u64() % LONG_PAUSE_S) } else { PAUSE };
        time::sleep(pause).await;
    }
    drop(resource);
    damage::act(&model)
}

/// Opens the resource. None if the process is killed meanwhile.
fn open(known: &Mutex<Known>) -> Option<Result<(Witness, Model), Violation>> {
    let history = lock(known).history.clone();
    let said = Arc::new(Mutex::new(BTreeMap::new()));
    let store = Store::open(Path::new(FILE), &mut rt::rng("store")).ok()?;
    let (log, mut draws, now) = (said.clone(), rt::rng("recovery"), Moment::now());
    let opened = Witness::open(Arc::new(store), LIMITS, now, &history, move |key, task| {
        let answer = match draws.next_u32() % 3 {
            0 => Recovered::Done(vec![key[0], task[0], 0xdd]),
            1 => Recovered::RolledBack,
            _ => Recovered::Unknown,
        };
        lock(&log).insert((key[0], task[0]), answer.clone());
        answer
    });
    let said = lock(&said).clone();
    let mut known = lock(known);
    let asked: BTreeSet<Name> = said.keys().copied().collect();
    let recovered = |model: &Model| {
        let mut model = model.clone();
        model.open(&now);
        said.iter().for_each(|(name, said)| model.recover(*name, said));
        model
    };
    let Ok(resource) = opened else {
        // The answers are durable, or none of them is.
        let fits = known.possible.iter().filter(|model| model.in_progress() == asked);
        let also: Vec<_> = fits.map(recovered).collect();
        known.possible.extend(also);
        return None;
    };
    let fitting = known.possible.iter().rposition(|model| {
        model.in_progress() == asked && differs(resource.resource(), &recovered(model)).is_none()
    });
    let Some(fitting) = fitting else {
        let differ: Vec<_> = known
            .possible
            .iter()
            .map(|model| {
                format!(
                    "{:?} in progress, {:?}",
                    model.in_progress(),
                    differs(resource.resource(), &recovered(model))
                )
            })
            .collect();
        let seen = format!("it asks for {asked:?}; it could be: {}", differ.join("; or: "));
        return Some(Err(Violation::safety(BEFORE_OR_AFTER, seen)));
    };
    if known.possible.len() > 1 {
        sometimes!(fitting > 0, "a kill came after its last call was durable");
        sometimes!(fitting == 0, "a kill came before its last call was durable");
    }
    let unknown = said.values().filter(|said| **said == Recovered::Unknown).count() as u64;
    if resource.resource().counters().unknown != unknown {
        let seen =
            format!("it counts {} unknown outcomes, not {unknown}", resource.resource().counters().unknown);
        return Some(Err(Violation::safety(RULES, seen)));
    }
    let model = recovered(&known.possible[fitting]);
    known.possible = vec![model.clone()];
    Some(Ok((resource, model)))
}

/// Where a resource's tokens or effects aren't the model's.
fn differs(resource: &Resource, model: &Model) -> Option<String> {
    for key in 0..KEYS {
        let (is, should) = (resource.current(&[key]), model.current(key));
        if is != should {
            return Some(format!("key {key} is at {is:?}, not at {should:?}"));
        }
        for task in 0..TASKS {
            let made = resource.store().effect(&[key, task]).ok().flatten().map_or(0, number_of);
            let should = model.effects.get(&(key, task)).copied().unwrap_or(0);
            if made != should {
                return Some(format!("the effect of {key}.{task} was made {made} times, not {should}"));
            }
        }
    }
    let (is, should) = (resource.tasks(), model.tasks.len());
    if is != should {
        return Some(format!("it remembers {is} tasks, not {should}"));
    }
    let (is, should) = (resource.highest(), model.highest());
    (is != should).then(|| format!("the highest counter is {is}, not {should}"))
}

/// A holder's call, and the state after it. `Err(None)`: the process is killed during it.
fn step(
    host: Host,
    resource: &Witness,
    before: &Model,
    known: &Mutex<Known>,
    draws: &mut Rng,
) -> Result<Model, Option<Violation>> {
    let name = (draws.next_u32() as u8 % KEYS, draws.next_u32() as u8 % TASKS);
    // Every other time one that is in progress, if there is one.
    let held: Vec<_> = before.in_progress().into_iter().collect();
    let at = draws.next_u64() as usize;
    let chosen = if at.is_multiple_of(4) || held.is_empty() { name } else { held[at / 4 % held.len()] };
    let id = id_of(chosen);
    let outcome = draws.next_u64().to_be_bytes();
    let mut after = before.clone();
    let now = Moment::now();
    // The token of the task's own holder, or of any.
    let other = token(before, now.unix, draws);
    let own = before.token(chosen).filter(|_| !draws.next_u32().is_multiple_of(8)).unwrap_or(other);
    let (call, expected, got) = match draws.next_u32() % 16 {
        0..9 => {
            let (token, life) = (token(before, now.unix, draws), life(draws));
            // What has expired goes first, in a transaction of its own.
            if life <= MAX_LIFE && after.expire(&now) > 0 {
                lock(known).possible.push(after.clone());
            }
            let (expected, evicted) = after.admit(&now, name, token, life);
            sometimes!(evicted, "a key's token was evicted for another key");
            lock(known).possible.push(after.clone());
            let got = resource.admit(now, &[name.0], token, &id_of(name), life);
            (format!("{name:?} for {life:?} under {token:?}"), expected, answer(got.map(Answer::Admission)))
        }
        9 | 10 => {
            let expected = after.end(chosen, own, &outcome, true);
            lock(known).possible.push(after.clone());
            let got = resource.commit_with(&[chosen.0], own, &id, &outcome, |effects| {
                let before = effects.get(&[chosen.0, chosen.1])?.map_or(0, number_of);
                effects.put(&[chosen.0, chosen.1], &(before + 1).to_le_bytes())
            });
            (format!("the effect of {chosen:?}"), expected, answer(got.map(|()| Answer::Ended)))
        }
        11 => {
            let expected = after.end(chosen, own, &outcome, false);
            lock(known).possible.push(after.clone());
            let got = resource.complete(&[chosen.0], own, &id, &outcome).map(|completed| match completed {
                Completed::InTime => Answer::Ended,
                Completed::Late { current } => Answer::EndedLate(current),
            });
            (format!("the end of {chosen:?}"), expected, answer(got))
        }
        12 => {
            let expected = after.release(chosen, own);
            lock(known).possible.push(after.clone());
            let got = resource.release(&[chosen.0], own, &id);
            (format!("the release of {chosen:?}"), expected, answer(got.map(|()| Answer::Ended)))
        }
        13 => {
            let over = after.expire(&now);
            sometimes!(over > 0, "an outcome expired");
            lock(known).possible.push(after.clone());
            let got = resource.resource().expire(now);
            ("an expiry".to_owned(), Answer::Ended, answer(got.map(|()| Answer::Ended)))
        }
        14 => {
            let key = vec![0; MAX_KEY_BYTES + 1];
            let got = resource.admit(now, &key, Epoch::ZERO, &id, Duration::ZERO);
            ("a key that is too long".to_owned(), Answer::TooLarge, answer(got.map(Answer::Admission)))
        }
        _ => {
            // As after a sleep, or when the first answer of a time server comes.
            host.step_wall_clock_ms(draws.next_u64() as i64 & 0xf_ffff);
            return Ok(after);
        }
    };
    let got = got.map_err(|_| None)?;
    note(&mut lock(known).answers, &expected);
    sometimes!(
        matches!(expected, Answer::EndedLate(_)),
        "an outcome was recorded late, behind a newer holder"
    );
    let taken_over =
        matches!(expected, Answer::Fenced(_)) && before.token(chosen).is_some_and(|held| own < held);
    sometimes!(taken_over, "a holder ended a task that another one had taken over");
    if got != expected {
        let seen = format!("{call} was answered with {got:?}, not with {expected:?}; before: {before:?}");
        return Err(Some(Violation::safety(RULES, seen)));
    }
    if let Some(seen) = differs(resource.resource(), &after) {
        return Err(Some(Violation::safety(RULES, format!("after {call}: {seen}"))));
    }
    lock(known).possible = vec![after.clone()];
    Ok(after)
}

/// A token of one of the holders: about the highest, and now and then one that nobody can have.
fn token(model: &Model, wall: Duration, draws: &mut Rng) -> Epoch {
    let owner = PublicKey::from_bytes([1 + draws.next_u32() as u8 % HOLDERS; 32]);
    let counter = match draws.next_u32() % 24 {
        0 => u64::MAX,
        1 => answer_limit(wall) + 1,
        2..6 => model.highest() + 1,
        back => model.highest().saturating_sub(u64::from(back) % 5).max(1),
    };
    Epoch { counter, owner }
}

fn life(draws: &mut Rng) -> Duration {
    match draws.next_u32() % 16 {
        0 => MAX_LIFE + Duration::from_secs(1),
        1 => MAX_LIFE,
        _ => Duration::from_millis(draws.next_u64() % 600_000),
    }
}

fn id_of(name: Name) -> TaskId {
    let mut id = [0; 16];
    (id[0], id[1]) = (name.1, name.0);
    id
}

fn number_of(bytes: Vec<u8>) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}
