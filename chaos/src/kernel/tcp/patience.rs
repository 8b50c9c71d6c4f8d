//! How long a connection waits for an acknowledgement before it ends with ETIMEDOUT.
//!
//! Linux's `tcp_retries2` of 15 is about 15 minutes (ip-sysctl), a path with short timers less, and many programs and
//! distributions set a user timeout (tcp(7), `TCP_USER_TIMEOUT`; RFC 5482), often of 30 s. So each connection draws its own.

use crate::seed::{below, mix};

/// The least time: a usual user timeout.
const LEAST_NS: u64 = 30_000_000_000;

/// The most time: `tcp_retries2`.
const MOST_NS: u64 = 900_000_000_000;

/// The doublings from the least time to the most, the last of which is nearly whole.
const DOUBLINGS: u64 = 5;

/// The time of a draw: log-uniform, as far as a straight line within each doubling is, and without floats.
pub(super) fn drawn_ns(draw: u64) -> u64 {
    let from_ns = LEAST_NS << below(draw, DOUBLINGS);
    let to_ns = (2 * from_ns).min(MOST_NS);
    from_ns + below(mix(draw), to_ns - from_ns + 1)
}

/// The patience of a connection. smoltcp's own timeout isn't used, because it also ends idle connections.
#[derive(Debug)]
pub(super) struct Patience {
    most_ns: u64,
    /// Since when the peer has owed an acknowledgement, without any progress.
    owed_since_ns: Option<u64>,
}

impl Patience {
    pub(super) fn new(most_ns: u64) -> Patience {
        Patience { most_ns, owed_since_ns: None }
    }

    /// Notes whether the peer owes an acknowledgement now.
    pub(super) fn note(&mut self, now_ns: u64, owes: bool) {
        self.owed_since_ns = owes.then(|| self.owed_since_ns.unwrap_or(now_ns));
    }

    /// The time begins anew: there is progress, or the host has slept.
    pub(super) fn begin_anew(&mut self, now_ns: u64) {
        self.owed_since_ns = self.owed_since_ns.map(|_| now_ns);
    }

    /// When it is at its end.
    pub(super) fn ends_ns(&self) -> Option<u64> {
        self.owed_since_ns.map(|since_ns| since_ns.saturating_add(self.most_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::stream;
    use rand_core::Rng as _;
    use std::collections::BTreeSet;

    /// ip-sysctl, `tcp_retries2`; tcp(7), `TCP_USER_TIMEOUT`.
    #[test]
    fn times_are_from_half_a_minute_to_a_quarter_of_an_hour_and_as_often_short_as_long() {
        let mut rng = stream(1, "patience");
        let drawn: Vec<u64> = (0..10_000).map(|_| drawn_ns(rng.next_u64()) / 1_000_000_000).collect();
        assert!(drawn.iter().all(|seconds| (30..=900).contains(seconds)));
        for (from, to) in [(30, 60), (60, 120), (120, 240), (240, 480), (480, 901)] {
            let share = drawn.iter().filter(|seconds| (from..to).contains(*seconds)).count();
            assert!((1_800..2_200).contains(&share), "{share} from {from} to {to} s");
        }
        let different: BTreeSet<u64> = drawn.into_iter().collect();
        assert!(different.len() > 800, "{} seconds of 871", different.len());
    }

    #[test]
    fn it_ends_after_a_time_without_progress_in_which_the_peer_owed() {
        let mut patience = Patience::new(100);
        assert_eq!(patience.ends_ns(), None);
        patience.note(10, true);
        patience.note(20, true);
        assert_eq!(patience.ends_ns(), Some(110));
        patience.begin_anew(40);
        assert_eq!(patience.ends_ns(), Some(140));
        patience.note(50, false);
        patience.begin_anew(60);
        assert_eq!(patience.ends_ns(), None);
    }
}
