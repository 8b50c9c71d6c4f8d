//! The clock by which outcomes are kept: it counts elapsed time, and no step of the wall clock moves it.
//!
//! An outcome that is dropped too early lets its effect happen twice, so this clock may be late and never early. It
//! counts only what surely has elapsed:
//!
//! - While the resource is open, the time of the monotonic clock.
//! - While it is closed, the time that the machine has been up since the last record, if the machine hasn't started
//!   again in between: a [boot's id](Uptime::boot) is drawn at each start of a machine, so the two readings are of one
//!   clock, also if the store was moved to another machine. Otherwise nothing: only the wall clock knows how long it
//!   was, and a wall clock that was set forward looks the same as a long night.
//!
//! Both can only lengthen what is kept. The table stays bounded, because a full one answers `Busy`.
//!
//! The clock begins at the wall clock's time when the store is opened for the first time, and goes its own way from
//! there. Its record is the high-water mark `ms:8 ‖ up_ms:8 ‖ boot:16`, numbers little-endian, the last two only where
//! the machine tells them; it is written with each admission and each expiry.

use std::time::{Duration, Instant};

use crate::rt::time::{self, Uptime};
use crate::store::StoreError;

/// What the clocks of a machine show at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The wall clock, as time since 1970. It decides only how high a token's counter may be.
    pub unix: Duration,
    /// The monotonic clock.
    pub monotonic: Instant,
    /// How long the machine has been up, if it tells.
    pub uptime: Option<Uptime>,
}

impl Moment {
    /// What they show now.
    pub fn now() -> Moment {
        Moment { unix: time::unix_now(), monotonic: time::now(), uptime: time::uptime() }
    }
}

/// The resource's clock.
#[derive(Debug)]
pub(super) struct LeaseClock {
    /// The clock's time at `seen`.
    at: Duration,
    /// The last moment that was counted.
    seen: Instant,
    /// The machine's uptime at that moment.
    up: Option<Uptime>,
}

impl LeaseClock {
    /// The clock of a store that is opened at `now`, from the store's record.
    pub(super) fn open(record: Option<&[u8]>, now: &Moment) -> Result<LeaseClock, StoreError> {
        let at = match record {
            None => now.unix,
            Some(bytes) => {
                let (at, up) = decode(bytes).ok_or(StoreError::Damaged("the lease clock"))?;
                at.saturating_add(closed_for(up, now.uptime))
            }
        };
        Ok(LeaseClock { at, seen: now.monotonic, up: now.uptime })
    }

    /// Counts the time until `now`, and returns the clock's time in milliseconds. A moment before the last one changes
    /// nothing.
    pub(super) fn advance(&mut self, now: &Moment) -> u64 {
        let elapsed = now.monotonic.saturating_duration_since(self.seen);
        if elapsed > Duration::ZERO {
            self.at = self.at.saturating_add(elapsed);
            // Both of the same moment: an older uptime beside a newer time would count the difference twice.
            (self.seen, self.up) = (now.monotonic, now.uptime);
        }
        millis(self.at)
    }

    /// When an outcome that is kept for `keep` from now on expires.
    pub(super) fn expires_ms(&self, keep: Duration) -> u64 {
        millis(self.at.saturating_add(keep))
    }

    pub(super) fn record(&self) -> Vec<u8> {
        let mut bytes = millis(self.at).to_le_bytes().to_vec();
        if let Some(up) = self.up {
            bytes.extend_from_slice(&millis(up.since_boot).to_le_bytes());
            bytes.extend_from_slice(&up.boot);
        }
        bytes
    }
}

/// How long the store was surely closed: the machine's uptime now without that at the last record.
fn closed_for(recorded: Option<Uptime>, now: Option<Uptime>) -> Duration {
    match (recorded, now) {
        (Some(then), Some(now)) if then.boot == now.boot => now.since_boot.saturating_sub(then.since_boot),
        _ => Duration::ZERO,
    }
}

fn decode(bytes: &[u8]) -> Option<(Duration, Option<Uptime>)> {
    let (at, rest) = bytes.split_first_chunk()?;
    let at = Duration::from_millis(u64::from_le_bytes(*at));
    if rest.is_empty() {
        return Some((at, None));
    }
    let (up, boot) = rest.split_first_chunk()?;
    let since_boot = Duration::from_millis(u64::from_le_bytes(*up));
    Some((at, Some(Uptime { boot: boot.try_into().ok()?, since_boot })))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::test_now;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn up(boot: u8, secs: u64) -> Option<Uptime> {
        Some(Uptime { boot: [boot; 16], since_boot: S(secs) })
    }

    #[test]
    fn a_closed_time_counts_if_the_machine_was_up_all_along() {
        let start = test_now();
        let at = |unix, uptime| Moment { unix: S(unix), monotonic: start, uptime };
        let record = LeaseClock::open(None, &at(1_000, up(1, 50))).unwrap().record();
        for (unix, uptime, expected, why) in [
            (9_000, up(1, 80), 1_030, "30 s of one boot, whatever the wall clock says"),
            (0, up(1, 80), 1_030, "also if that went back"),
            (9_000, up(2, 80), 1_000, "another boot, or another machine"),
            (9_000, up(1, 40), 1_000, "an uptime that went back"),
            (9_000, None, 1_000, "a machine that doesn't tell"),
        ] {
            let clock = LeaseClock::open(Some(&record), &at(unix, uptime)).unwrap();
            assert_eq!(clock.expires_ms(S(0)), expected * 1_000, "{why}");
        }
    }

    #[test]
    fn a_moment_that_waited_behind_a_later_one_is_not_counted_twice() {
        let start = test_now();
        let at = |secs| Moment { unix: S(0), monotonic: start + S(secs), uptime: up(1, secs) };
        let mut clock = LeaseClock::open(None, &at(0)).unwrap();
        assert_eq!((clock.advance(&at(20)), clock.advance(&at(5))), (20_000, 20_000));
        let again = LeaseClock::open(Some(&clock.record()), &at(30)).unwrap();
        assert_eq!(again.expires_ms(S(0)), 30_000);
    }

    #[test]
    fn a_damaged_record_is_refused() {
        let now = Moment { unix: S(5), monotonic: test_now(), uptime: up(3, 4) };
        let record = LeaseClock::open(None, &now).unwrap().record();
        for len in [0, 7, 9, 31] {
            assert!(LeaseClock::open(Some(&record[..len]), &now).is_err(), "{len}");
        }
        assert!(LeaseClock::open(Some(&record[..8]), &now).is_ok());
    }
}
