use super::*;
use crate::authority::key::AuthorityKey;
use crate::authority::pass::Grant;
use crate::authority::revocation::Subject;
use crate::compute::job::{Priority, digest};
use crate::rt::Rng;
use rand_core::SeedableRng;

/// 2026-11-01.
const NOW_S: u32 = 1_793_000_000;
const WALL: Duration = Duration::from_secs(NOW_S as u64);

struct Fixture {
    authority: AuthorityKey,
    holder: SecretKey,
    start: Instant,
}

impl Fixture {
    fn new() -> Fixture {
        let mut rng = Rng::from_seed([3; 32]);
        Fixture {
            authority: AuthorityKey::generate(&mut rng),
            holder: SecretKey::generate(&mut rng),
            start: crate::rt::test_now(),
        }
    }

    fn at(&self, seconds: u32) -> Warrants {
        let wall = WallClock::new(self.start, Duration::from_secs(seconds.into()));
        Warrants::new(self.authority.mesh(), wall, &[])
    }

    fn pass(&self, level: Level) -> Pass {
        let grant = Grant::new(self.holder.public(), level, NOW_S, NOW_S + 30 * 86_400);
        grant.sign(&self.authority).unwrap()
    }

    fn warrant(&self, level: Level, job: &Detached) -> Warrant {
        Warrant::sign(named(), job, WALL, (&self.holder, &self.pass(level), &self.authority.mesh()))
    }
}

fn named() -> Named {
    Named { task: TaskId::from_bytes([5; 16]), digest: digest("work", b"key", b"payload") }
}

fn hour() -> Detached {
    let options = SubmitOptions { life: Duration::from_secs(3_600), ..SubmitOptions::default() };
    Detached { options, keep: Duration::from_secs(60), parent: None }
}

#[test]
fn a_warrant_is_its_holders_for_one_task_and_permits_no_more_than_to_submit() {
    let fixture = Fixture::new();
    let warrant = fixture.warrant(Level::Worker, &hour());
    let mut warrants = fixture.at(NOW_S);
    let who = warrants.check_to_run(fixture.start, named(), &warrant).unwrap();
    assert_eq!((who.holder(), who.level()), (fixture.holder.public(), Level::Submit));
    for other in [
        Named { task: TaskId::from_bytes([6; 16]), ..named() },
        Named { digest: digest("work", b"key", b"another payload"), ..named() },
    ] {
        let checked = warrants.check_to_run(fixture.start, other, &warrant);
        assert_eq!(checked, Err(BadWarrant::Signature));
    }
    let only_looks = fixture.warrant(Level::Look, &hour());
    assert_eq!(warrants.check_to_run(fixture.start, named(), &only_looks), Err(BadWarrant::Level));
}

#[test]
fn no_part_of_a_warrant_can_be_changed() {
    let fixture = Fixture::new();
    let warrant = fixture.warrant(Level::Submit, &hour());
    let changed = [
        Warrant { made_ms: warrant.made_ms + 1, ..warrant.clone() },
        Warrant { until_ms: warrant.until_ms + 1, ..warrant.clone() },
        Warrant { keep_s: warrant.keep_s + 1, ..warrant.clone() },
        Warrant { priority: Priority::High, ..warrant.clone() },
        Warrant { max_failures: warrant.max_failures + 1, ..warrant.clone() },
        Warrant { max_losses: warrant.max_losses + 1, ..warrant.clone() },
        Warrant { anywhere: true, ..warrant.clone() },
        Warrant { parent: Some(TaskId::from_bytes([0; 16])), ..warrant.clone() },
    ];
    let mut warrants = fixture.at(NOW_S);
    for (n, warrant) in changed.iter().enumerate() {
        let checked = warrants.check(fixture.start, named(), warrant);
        assert_eq!(checked, Err(BadWarrant::Signature), "{n}");
    }
    let mut rng = Rng::from_seed([4; 32]);
    let other = SecretKey::generate(&mut rng);
    let pass = fixture.pass(Level::Submit);
    let stolen = Warrant::sign(named(), &hour(), WALL, (&other, &pass, &fixture.authority.mesh()));
    assert_eq!(warrants.check(fixture.start, named(), &stolen), Err(BadWarrant::Signature));
}

#[test]
fn a_warrant_ends_with_its_task_and_with_its_pass() {
    let fixture = Fixture::new();
    let warrant = fixture.warrant(Level::Submit, &hour());
    let over = NOW_S + 3_600 + GRACE;
    for (seconds, runs) in [(NOW_S, true), (over, true), (over + 1, false)] {
        let checked = fixture.at(seconds).check_to_run(fixture.start, named(), &warrant);
        assert_eq!(checked.is_ok(), runs, "{seconds}");
    }
    let kept = over + 60 + HORIZON.as_secs() as u32;
    assert!(fixture.at(kept).check(fixture.start, named(), &warrant).is_ok());
    assert_eq!(fixture.at(kept + 1).check(fixture.start, named(), &warrant), Err(BadWarrant::Times));

    let mut warrants = fixture.at(NOW_S);
    let standing = warrants.check(fixture.start, named(), &warrant).unwrap();
    let subject = Subject::Key(fixture.holder.public());
    warrants.revoke(Revocation::sign(&fixture.authority, subject, NOW_S, NOW_S));
    assert!(warrants.is_over(fixture.start, &standing));
    let checked = warrants.check_to_run(fixture.start, named(), &warrant);
    assert_eq!(checked, Err(BadWarrant::Pass(NotAdmitted::Revoked)));
}

#[test]
fn a_life_or_a_keep_beyond_its_limit_is_no_warrant() {
    let fixture = Fixture::new();
    let options = |life| SubmitOptions { life, ..SubmitOptions::default() };
    let second = Duration::from_secs(1);
    for (life, keep, fits) in [
        (MAX_LIFE, MAX_KEEP, true),
        (MAX_LIFE + second, MAX_KEEP, false),
        (MAX_LIFE, MAX_KEEP + second, false),
    ] {
        let job = Detached { options: options(life), keep, parent: None };
        let warrant = fixture.warrant(Level::Submit, &job);
        assert_eq!(fixture.at(NOW_S).check(fixture.start, named(), &warrant).is_ok(), fits);
    }
}
