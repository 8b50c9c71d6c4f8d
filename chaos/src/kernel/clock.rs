//! A host's clocks: the monotonic one drifts and never steps, the wall clock also steps.
//!
//! Arithmetic is integer. A rate is its deviation from the world's rate in parts per billion. A reading is anchored
//! at the last change of the rate, so that a change doesn't alter the current reading.

use std::time::Duration;

/// The monotonic reading of a new host. It is large enough that a protocol can look minutes back right at its start.
pub const BASE: Duration = Duration::from_secs(24 * 60 * 60);

/// The wall clock of a new host at the beginning of a world: 2026-01-01 00:00 UTC, since 1970.
pub const WALL_BASE: Duration = Duration::from_secs(1_767_225_600);

/// The largest drift in either direction. A protocol needn't tolerate a clock slower than half speed.
pub const MAX_DRIFT_PPB: i64 = 500_000_000;

const PPB: i128 = 1_000_000_000;

/// Both clocks of one host.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    anchor_world_ns: u64,
    anchor_local_ns: u64,
    drift_ppb: i64,
    wall_step_ns: i128,
    /// The world time at which the clock was stopped.
    frozen_ns: Option<u64>,
}

impl Clock {
    /// A clock that runs at the world's rate and reads `BASE` at world time 0.
    pub(crate) fn new() -> Clock {
        Clock {
            anchor_world_ns: 0,
            anchor_local_ns: BASE.as_nanos() as u64,
            drift_ppb: 0,
            wall_step_ns: 0,
            frozen_ns: None,
        }
    }

    /// The monotonic reading at a world time.
    pub(crate) fn local_ns(&self, world_ns: u64) -> u64 {
        let world_ns = self.frozen_ns.unwrap_or(world_ns);
        let passed = i128::from(world_ns) - i128::from(self.anchor_world_ns);
        let run = passed * (PPB + i128::from(self.drift_ppb)) / PPB;
        (i128::from(self.anchor_local_ns) + run).max(0) as u64
    }

    /// The first world time at which the monotonic reading is at least `local_ns`.
    pub(crate) fn world_ns(&self, local_ns: u64) -> u64 {
        if self.frozen_ns.is_some() {
            return u64::MAX;
        }
        let ahead = i128::from(local_ns) - i128::from(self.anchor_local_ns);
        let rate = PPB + i128::from(self.drift_ppb);
        let world = i128::from(self.anchor_world_ns) + (ahead * PPB).div_euclid(rate);
        let mut world = world.clamp(0, i128::from(u64::MAX)) as u64;
        while self.local_ns(world) < local_ns && world < u64::MAX {
            world += 1;
        }
        world
    }

    /// The wall clock's reading at a world time, since 1970, or zero before that day: a program that asks for the
    /// time since 1970 is refused then (`SystemTime::duration_since`), and takes it for zero.
    pub(crate) fn wall(&self, world_ns: u64) -> Duration {
        Duration::from_nanos(self.wall_ns(world_ns).clamp(0, i128::from(u64::MAX)) as u64)
    }

    /// The wall clock's reading in nanoseconds since 1970; negative before that day.
    pub(crate) fn wall_ns(&self, world_ns: u64) -> i128 {
        let base = WALL_BASE.as_nanos() as i128 - BASE.as_nanos() as i128;
        base + i128::from(self.local_ns(world_ns)) + self.wall_step_ns
    }

    /// Its rate's deviation from the world's, in parts per billion.
    pub(crate) fn drift_ppb(&self) -> i64 {
        self.drift_ppb
    }

    /// Changes the rate from `world_ns` on.
    pub(crate) fn set_drift(&mut self, world_ns: u64, drift_ppb: i64) {
        self.anchor_local_ns = self.local_ns(world_ns);
        self.anchor_world_ns = world_ns;
        self.drift_ppb = drift_ppb.clamp(-MAX_DRIFT_PPB, MAX_DRIFT_PPB);
    }

    /// Stops the monotonic clock: the host is suspended.
    pub(crate) fn freeze(&mut self, world_ns: u64) {
        self.frozen_ns.get_or_insert(world_ns);
    }

    /// Resumes the monotonic clock. The wall clock has run all the time.
    pub(crate) fn thaw(&mut self, world_ns: u64) {
        self.anchor_local_ns = self.local_ns(world_ns);
        self.anchor_world_ns = world_ns;
        if let Some(since_ns) = self.frozen_ns.take() {
            self.wall_step_ns += i128::from(world_ns) - i128::from(since_ns);
        }
    }

    /// Advances the monotonic reading before a host runs, so that it appears to have been up for longer.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.anchor_local_ns = self.anchor_local_ns.saturating_add(by.as_nanos() as u64);
        // The wall clock derives from the monotonic one, and this call must not move it.
        self.wall_step_ns -= by.as_nanos() as i128;
    }

    /// Steps the wall clock.
    pub(crate) fn step_wall(&mut self, by_ns: i128) {
        self.wall_step_ns += by_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_change_of_rate_never_moves_the_present() {
        let mut clock = Clock::new();
        let before = clock.local_ns(10_000_000_007);
        clock.set_drift(10_000_000_007, 123_456);
        assert_eq!(clock.local_ns(10_000_000_007), before);
        assert!(clock.local_ns(20_000_000_007) > before + 10_000_000_000);
    }

    #[test]
    fn the_wall_clock_steps_and_the_monotonic_one_does_not() {
        let mut clock = Clock::new();
        let (local, wall) = (clock.local_ns(5), clock.wall(5));
        clock.step_wall(-3_000_000_000);
        assert_eq!(clock.local_ns(5), local);
        assert_eq!(clock.wall(5) + Duration::from_secs(3), wall);
        clock.advance(Duration::from_secs(9));
        assert_eq!(clock.wall(5) + Duration::from_secs(3), wall);
    }

    #[test]
    fn a_wall_clock_before_1970_reads_zero_and_runs_on() {
        let mut clock = Clock::new();
        let second = 1_000_000_000;
        clock.step_wall(-clock.wall_ns(0) - i128::from(2 * second));
        assert_eq!((clock.wall(0), clock.wall(second)), (Duration::ZERO, Duration::ZERO));
        assert_eq!(clock.wall_ns(second), -i128::from(second));
        assert_eq!(clock.wall(3 * second), Duration::from_secs(1));
    }

    #[test]
    fn a_sleeping_host_finds_its_wall_clock_ahead() {
        let mut clock = Clock::new();
        let (local, wall) = (clock.local_ns(5), clock.wall(5));
        clock.freeze(5);
        assert_eq!(clock.local_ns(1_000_000_005), local);
        clock.thaw(3_000_000_005);
        assert_eq!(clock.local_ns(3_000_000_005), local);
        assert_eq!(clock.wall(3_000_000_005), wall + Duration::from_secs(3));
        assert_eq!(clock.local_ns(3_000_000_006), local + 1);
    }

    proptest! {
        #[test]
        fn a_deadline_is_reached_at_its_instant_and_not_before(
            drift in -500_000_000i64..500_000_000,
            at in 0u64..1 << 50,
            ahead in 0u64..1 << 45,
        ) {
            let mut clock = Clock::new();
            clock.set_drift(at, drift);
            let deadline = clock.local_ns(at) + ahead;
            let world = clock.world_ns(deadline);
            prop_assert!(clock.local_ns(world) >= deadline);
            prop_assert!(world == 0 || clock.local_ns(world - 1) < deadline || ahead == 0);
        }
    }
}
