//! The last-writer-wins register.

use super::*;

#[test]
fn equal_stamps_converge_by_replica_then_value() {
    let write = |n: u8, value: &[u8]| {
        let mut register = LwwRegister::default();
        register.set(replica(n), &mut Clock::default(), WALL, value).unwrap()
    };
    for (a, b, wins) in [(write(1, b"z"), write(2, b"a"), b"a"), (write(1, b"a"), write(1, b"b"), b"b")] {
        assert_eq!(a.stamp(), b.stamp());
        let (mut there, mut back) = (a.clone(), b.clone());
        there.merge(&b, WALL);
        back.merge(&a, WALL);
        assert_eq!(there, back);
        assert_eq!(there.value(), Some(&wins[..]));
    }
}

#[test]
fn a_write_from_a_fast_clock_is_parked_and_shown_when_the_clock_reaches_it() {
    let ahead = WALL + Duration::from_secs(60);
    let mut fast = LwwRegister::default();
    fast.set(replica(1), &mut Clock::default(), ahead, b"fast").unwrap();
    let mut here = LwwRegister::default();
    let mut clock = Clock::default();
    here.set(replica(2), &mut clock, WALL, b"now").unwrap();
    here.merge(&fast, WALL);
    assert_eq!((here.value(), here.parked()), (Some(&b"now"[..]), 1), "it does not win yet");
    here.set(replica(2), &mut clock, WALL, b"later").unwrap();
    assert_eq!(here.value(), Some(&b"later"[..]), "writes go on");
    assert!(!here.settle(ahead - MAX_DRIFT - Duration::from_millis(1)));
    assert!(here.settle(ahead - MAX_DRIFT));
    assert_eq!((here.value(), here.parked()), (Some(&b"fast"[..]), 0), "it was not lost");
}

#[test]
fn a_clock_that_went_back_is_an_error_at_the_write_and_stamps_never_repeat() {
    let mut clock = Clock::default();
    let mut register = LwwRegister::default();
    let mut last = Stamp::default();
    for back_s in [0, 0, 5, 10] {
        register.set(replica(1), &mut clock, WALL - Duration::from_secs(back_s), b"x").unwrap();
        assert!(register.stamp().unwrap() > last);
        last = register.stamp().unwrap();
    }
    let refused = register.set(replica(1), &mut clock, WALL - Duration::from_secs(11), b"y");
    assert_eq!(refused, Err(CrdtError::ClockDrift { behind_ms: 11_000 }));
    assert_eq!(register.value(), Some(&b"x"[..]));
    let mut restarted = Clock::new(clock.high_water());
    assert!(restarted.tick(WALL - Duration::from_secs(11)).is_err(), "also after a restart");
    assert!(restarted.tick(WALL).unwrap() > last);
}

/// A write stamped `at_s` seconds after [`WALL`].
fn write_at(n: u8, at_s: u64, value: &[u8]) -> LwwRegister {
    let mut register = LwwRegister::default();
    register.set(replica(n), &mut Clock::default(), WALL + Duration::from_secs(at_s), value).unwrap();
    register
}

#[test]
fn parked_writes_are_bounded_and_the_soonest_and_the_last_stay() {
    let mut here = LwwRegister::default();
    for n in 0..40u64 {
        here.merge(&write_at(1, 1000 - n, &n.to_le_bytes()), WALL);
    }
    assert_eq!(here.parked(), MAX_PARKED);
    here.settle(WALL + Duration::from_secs(1000 - 39) - MAX_DRIFT);
    assert_eq!(here.value(), Some(&39u64.to_le_bytes()[..]));
    here.settle(WALL + Duration::from_secs(1000));
    assert_eq!((here.value(), here.parked()), (Some(&0u64.to_le_bytes()[..]), 0), "the last writer wins");
}

/// Writes of up to 80 s ahead, each with the number of seconds by which the clock that took it was ahead.
type Taken = Vec<((u8, u64, u8), u64)>;

fn taken() -> impl Strategy<Value = [Taken; 3]> {
    let write = (1u8..4, 0u64..80, 0u8..3);
    let taken = || proptest::collection::vec((write.clone(), 0u64..20), 0..40);
    [taken(), taken(), taken()]
}

fn register(taken: &Taken) -> LwwRegister {
    let mut register = LwwRegister::default();
    for ((n, at_s, value), clock_s) in taken {
        register.merge(&write_at(*n, *at_s, &[*value]), WALL + Duration::from_secs(*clock_s));
    }
    register
}

/// What a node whose clock shows `wall` makes of two registers.
fn joined(a: &LwwRegister, b: &LwwRegister, wall: Duration) -> LwwRegister {
    let mut register = LwwRegister::default();
    register.merge(a, wall);
    register.merge(b, wall);
    register
}

proptest! {
    /// Also of registers that took their writes at other clocks.
    #[test]
    fn registers_that_crowd_out_parked_writes_join_in_any_order(taken in taken(), clock_s in 0u64..90) {
        let of = taken.map(|taken| register(&taken));
        let wall = WALL + Duration::from_secs(clock_s);
        let (a, b, c) = (&of[0], &of[1], &of[2]);
        let both = joined(a, b, wall);
        prop_assert_eq!(&both, &joined(b, a, wall));
        prop_assert_eq!(joined(&both, c, wall), joined(a, &joined(b, c, wall), wall));
        for other in [a, b, &both] {
            let mut again = both.clone();
            prop_assert!(!again.merge(other, wall), "nothing changes");
            prop_assert_eq!((&again, again.news(other).count()), (&both, 0));
        }
        if of.iter().all(|register| register.stamp().is_none_or(|stamp| stamp.is_settled(wall))) {
            let mut directly = a.clone();
            directly.merge(b, wall);
            prop_assert_eq!(&directly, &both, "no shown write is ahead of this clock");
        }
        let both = Value::Register(both);
        prop_assert_eq!(&Value::decode(&both.encode()).unwrap(), &both);
    }

    /// What is shown before may be lost, as any write that is followed by another one.
    #[test]
    fn the_greatest_write_wins_in_the_end_whenever_the_clock_was_looked_at(
        taken in taken(), clocks in [0u64..80, 0..80, 0..80, 0..80, 0..80],
    ) {
        let of = [0, 1, 2].map(|n| register(&taken[n]));
        let at = |n: usize| WALL + Duration::from_secs(clocks[n]);
        let end = WALL + Duration::from_secs(80);
        let ended = |mut register: LwwRegister| {
            register.settle(end);
            register
        };
        let forth = ended(joined(&joined(&of[0], &of[1], at(0)), &of[2], at(1)));
        let mut back = joined(&of[2], &of[1], at(2));
        back.settle(at(3));
        let back = ended(joined(&of[0], &back, at(4)));
        prop_assert_eq!(&forth, &back);
        let mut greatest = LwwRegister::default();
        for ((n, at_s, value), _) in taken.iter().flatten() {
            greatest.merge(&write_at(*n, *at_s, &[*value]), end);
        }
        prop_assert_eq!(forth, greatest);
    }
}
