//! Hybrid logical clock (Kulkarni et al. 2014): stamps that follow the wall clock and never go back.

use std::time::Duration;

use super::CrdtError;

/// How far a stamp may be ahead of the local wall clock. With a lower limit, the ordinary clock errors of
/// unsynchronised laptops would park each other's writes. With a higher limit, a fast clock would win over all others
/// for longer.
pub const MAX_DRIFT: Duration = Duration::from_secs(10);

/// A point of hybrid time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Milliseconds since 1970-01-01 UTC.
    pub wall_ms: u64,
    /// Order within one millisecond.
    pub logical: u32,
}

impl Stamp {
    /// Whether a clock that shows `wall` accepts this stamp now.
    pub fn is_settled(&self, wall: Duration) -> bool {
        self.wall_ms <= millis(wall + MAX_DRIFT)
    }
}

/// A node's clock for last-writer-wins stamps. Its high-water mark must be kept durably.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    high_water: Stamp,
}

impl Clock {
    /// A clock that continues after `high_water`.
    pub fn new(high_water: Stamp) -> Clock {
        Clock { high_water }
    }

    /// The greatest stamp given or seen.
    pub fn high_water(&self) -> Stamp {
        self.high_water
    }

    /// The next stamp, above all earlier ones.
    ///
    /// # Errors
    /// [`CrdtError::ClockDrift`] when the wall clock is too far behind.
    pub fn tick(&mut self, wall: Duration) -> Result<Stamp, CrdtError> {
        let now = Stamp { wall_ms: millis(wall), logical: 0 };
        let next = if now > self.high_water {
            now
        } else {
            match self.high_water.logical.checked_add(1) {
                Some(logical) => Stamp { logical, ..self.high_water },
                None => Stamp { wall_ms: self.high_water.wall_ms.saturating_add(1), logical: 0 },
            }
        };
        if !next.is_settled(wall) {
            return Err(CrdtError::ClockDrift { behind_ms: next.wall_ms - now.wall_ms });
        }
        self.high_water = next;
        Ok(next)
    }

    /// Takes a stamp of another node into account, unless it is too far ahead.
    pub fn observe(&mut self, stamp: Stamp, wall: Duration) {
        if stamp.is_settled(wall) {
            self.high_water = self.high_water.max(stamp);
        }
    }
}

fn millis(wall: Duration) -> u64 {
    u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
}
