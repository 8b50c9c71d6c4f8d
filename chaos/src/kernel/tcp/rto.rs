//! When a segment is sent again: RFC 6298, with Linux's constants.
//!
//! smoltcp has a timer of its own, from 10 ms to 10 s, which the [endpoint](super::endpoint) keeps from running out. This
//! one sees the sequence numbers that leave and the acknowledgements that come in. The same timer, with the same backoff,
//! probes a closed window, as Linux's `tcp_probe_timer` does (RFC 1122, 4.2.2.17).

use smoltcp::wire::TcpSeqNumber;

/// The RTO before a round trip was measured (RFC 6298, 2.1; Linux's `TCP_TIMEOUT_INIT`).
const INITIAL_NS: u64 = 1_000_000_000;

/// The RTO if the SYN had to be sent again, since the path may be slow (RFC 6298, 5.7; Linux's `TCP_TIMEOUT_FALLBACK`).
const FALLBACK_NS: u64 = 3_000_000_000;

/// The least time that the RTO is above the smoothed round trip, and so the least RTO: Linux's `TCP_RTO_MIN`.
const LEAST_NS: u64 = 200_000_000;

/// The largest RTO: Linux's `TCP_RTO_MAX`.
const MOST_NS: u64 = 120_000_000_000;

/// The smoothed round trip and its variation, in nanoseconds (RFC 6298, 2).
#[derive(Debug, Clone, Copy)]
struct RoundTrip {
    smoothed_ns: u64,
    variation_ns: u64,
}

impl RoundTrip {
    fn first(sample_ns: u64) -> RoundTrip {
        RoundTrip { smoothed_ns: sample_ns, variation_ns: sample_ns / 2 }
    }

    fn next(self, sample_ns: u64) -> RoundTrip {
        RoundTrip {
            variation_ns: (3 * self.variation_ns + self.smoothed_ns.abs_diff(sample_ns)) / 4,
            smoothed_ns: (7 * self.smoothed_ns + sample_ns) / 8,
        }
    }

    fn rto_ns(self) -> u64 {
        (self.smoothed_ns + (4 * self.variation_ns).max(LEAST_NS)).min(MOST_NS)
    }
}

/// The segment whose round trip is measured.
#[derive(Debug, Clone, Copy)]
struct Timed {
    end: TcpSeqNumber,
    first_sent_ns: u64,
    last_sent_ns: u64,
}

/// What is under way.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    /// The first sequence number that isn't acknowledged.
    unacknowledged: TcpSeqNumber,
    /// The sequence number after the last one that was sent.
    next: TcpSeqNumber,
}

/// The retransmission timer of a connection.
#[derive(Debug, Default)]
pub(super) struct RetransmissionTimer {
    numbers: Option<Numbers>,
    round_trip: Option<RoundTrip>,
    /// The SYN was sent again, and no round trip has been measured.
    is_fallback: bool,
    timed: Option<Timed>,
    due_ns: Option<u64>,
    /// How often it has run out since the last acknowledgement of something new.
    backoffs: u32,
}

impl RetransmissionTimer {
    /// A segment with these sequence numbers has been sent. A bare ACK or a probe changes nothing.
    pub(super) fn sent(&mut self, now_ns: u64, begin: TcpSeqNumber, end: TcpSeqNumber) {
        let numbers = self.numbers.get_or_insert(Numbers { unacknowledged: begin, next: begin });
        if begin == end || end <= numbers.unacknowledged {
            return;
        }
        let had_flight = numbers.unacknowledged < numbers.next;
        if end > numbers.next {
            numbers.next = end;
            self.timed.get_or_insert(Timed { end, first_sent_ns: now_ns, last_sent_ns: now_ns });
        } else if let Some(timed) = &mut self.timed
            && timed.end <= end
            && begin < timed.end
        {
            timed.last_sent_ns = now_ns;
        }
        if !had_flight {
            // The window was closed until now, or nothing was to be sent.
            self.backoffs = 0;
            self.due_ns = Some(now_ns + self.rto_ns());
        }
    }

    /// An acknowledgement has come in. Returns whether it acknowledges something new.
    pub(super) fn acknowledged(&mut self, now_ns: u64, ack: TcpSeqNumber) -> bool {
        let Some(numbers) = &mut self.numbers else { return false };
        if ack <= numbers.unacknowledged || ack > numbers.next {
            return false;
        }
        numbers.unacknowledged = ack;
        let is_all = ack == numbers.next;
        if let Some(timed) = self.timed.take_if(|timed| timed.end <= ack) {
            self.measure(now_ns, timed);
        }
        self.backoffs = 0;
        self.due_ns = (!is_all).then(|| now_ns + self.rto_ns());
        true
    }

    /// Takes a sample. If the segment was sent again, it isn't known which copy was acknowledged (Karn). Linux's timestamps
    /// (RFC 7323) tell it; here it is the last copy, unless that left less than half a round trip ago. So a path that has
    /// become slow is learned, and an outage doesn't leave a long RTO behind.
    fn measure(&mut self, now_ns: u64, timed: Timed) {
        let since_last_ns = now_ns - timed.last_sent_ns;
        let sample_ns = match self.round_trip {
            _ if timed.first_sent_ns == timed.last_sent_ns => since_last_ns,
            Some(round_trip) if since_last_ns < round_trip.smoothed_ns / 2 => now_ns - timed.first_sent_ns,
            Some(_) => since_last_ns,
            None => {
                self.is_fallback = true;
                return;
            }
        };
        let measured = |round_trip: RoundTrip| round_trip.next(sample_ns);
        self.round_trip = Some(self.round_trip.map_or_else(|| RoundTrip::first(sample_ns), measured));
    }

    /// Notes whether the connection has something to send or to be acknowledged. If so and nothing is under way, the
    /// peer's window is closed, and is to be probed.
    pub(super) fn note(&mut self, now_ns: u64, is_owed: bool) {
        if !is_owed {
            self.due_ns = None;
        } else if self.due_ns.is_none() {
            self.backoffs = 0;
            self.due_ns = Some(now_ns + self.rto_ns());
        }
    }

    /// Whether something isn't acknowledged that was sent.
    pub(super) fn is_under_way(&self) -> bool {
        self.numbers.is_some_and(|numbers| numbers.unacknowledged < numbers.next)
    }

    /// Whether it has run out. If so it is set anew, to twice the time (RFC 6298, 5.5 and 5.6).
    pub(super) fn runs_out(&mut self, now_ns: u64) -> bool {
        if self.due_ns.is_none_or(|due_ns| now_ns < due_ns) {
            return false;
        }
        self.backoffs += 1;
        self.due_ns = Some(now_ns + self.rto_ns());
        true
    }

    /// How often it has run out since the last acknowledgement of something new.
    pub(super) fn backoffs(&self) -> u32 {
        self.backoffs
    }

    /// When it runs out.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }

    fn rto_ns(&self) -> u64 {
        let without_sample_ns = if self.is_fallback { FALLBACK_NS } else { INITIAL_NS };
        let rto_ns = self.round_trip.map_or(without_sample_ns, RoundTrip::rto_ns);
        rto_ns.saturating_mul(1 << self.backoffs.min(10)).min(MOST_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn seq(number: i32) -> TcpSeqNumber {
        TcpSeqNumber(number)
    }

    /// The times in milliseconds at which a timer runs out, from now on.
    fn ends(timer: &mut RetransmissionTimer, times: usize) -> Vec<u64> {
        (0..times)
            .map(|_| {
                let due_ns = timer.due_ns().unwrap();
                assert!(!timer.runs_out(due_ns - 1) && timer.runs_out(due_ns));
                due_ns / MS
            })
            .collect()
    }

    /// A timer after a SYN that was acknowledged after `rtt_ms`, at that time.
    fn connected(rtt_ms: u64) -> RetransmissionTimer {
        let mut timer = RetransmissionTimer::default();
        timer.sent(0, seq(0), seq(1));
        assert!(timer.acknowledged(rtt_ms * MS, seq(1)));
        assert_eq!(timer.due_ns(), None);
        timer
    }

    /// RFC 6298, 2.1, 5.5 and 2.5; tcp(7), `tcp_syn_retries`; Linux's `TCP_RTO_MAX`.
    #[test]
    fn the_first_time_is_a_second_and_doubles_up_to_two_minutes() {
        let mut timer = RetransmissionTimer::default();
        timer.sent(0, seq(0), seq(1));
        let seconds: Vec<u64> = ends(&mut timer, 10).into_iter().map(|ms| ms / 1000).collect();
        assert_eq!(seconds, [1, 3, 7, 15, 31, 63, 127, 247, 367, 487]);
    }

    /// Linux's `TCP_RTO_MIN`; `tcp_rtt_estimator` bounds the variation, and so the distance from the round trip.
    #[test]
    fn it_is_200_ms_above_a_steady_round_trip_at_least() {
        for rtt_ms in [0, 1, 40] {
            let mut timer = connected(rtt_ms);
            timer.sent(1000 * MS, seq(1), seq(11));
            assert_eq!(ends(&mut timer, 3), [200, 600, 1400].map(|ms| 1000 + ms + ms / 200 * rtt_ms));
        }
    }

    /// RFC 6298, 2.2 and 2.3.
    #[test]
    fn it_follows_the_round_trip_and_its_variation() {
        let mut timer = connected(1000);
        timer.sent(2000 * MS, seq(1), seq(2));
        assert_eq!(timer.due_ns(), Some((2000 + 1000 + 4 * 500) * MS));
        timer.acknowledged(3000 * MS, seq(2));
        timer.sent(4000 * MS, seq(2), seq(3));
        assert_eq!(timer.due_ns(), Some((4000 + 1000 + 4 * 375) * MS));
    }

    /// RFC 6298, 5.2 and 5.3.
    #[test]
    fn an_acknowledgement_of_something_new_restarts_it_and_of_everything_stops_it() {
        let mut timer = connected(10);
        timer.sent(100 * MS, seq(1), seq(11));
        timer.sent(150 * MS, seq(11), seq(21));
        assert_eq!(timer.due_ns(), Some(310 * MS), "5.1: it runs already");
        assert!(timer.acknowledged(160 * MS, seq(11)));
        assert!(timer.due_ns().unwrap() > 360 * MS);
        let due_ns = timer.due_ns();
        assert!(!timer.acknowledged(170 * MS, seq(11)), "a duplicate");
        assert!(!timer.acknowledged(170 * MS, seq(22)), "of what wasn't sent");
        assert_eq!(timer.due_ns(), due_ns);
        assert!(timer.acknowledged(180 * MS, seq(21)) && !timer.is_under_way());
        assert_eq!(timer.due_ns(), None);
    }

    /// RFC 6298, 3 (Karn) and 5.7.
    #[test]
    fn a_syn_that_was_sent_again_is_no_sample_and_makes_the_next_time_three_seconds() {
        let mut timer = RetransmissionTimer::default();
        timer.sent(0, seq(0), seq(1));
        assert!(timer.runs_out(1000 * MS));
        timer.sent(1000 * MS, seq(0), seq(1));
        timer.acknowledged(1010 * MS, seq(1));
        timer.sent(1010 * MS, seq(1), seq(2));
        assert_eq!(timer.due_ns(), Some(4010 * MS));
    }

    /// RFC 7323, 4: with timestamps, as Linux has them, a retransmission is a sample too.
    #[test]
    fn an_outage_leaves_no_long_time_behind_and_a_path_that_became_slow_is_learned() {
        let mut timer = connected(10);
        timer.sent(0, seq(1), seq(2));
        let last_ms = ends(&mut timer, 8)[7];
        timer.sent(last_ms * MS, seq(1), seq(2));
        timer.acknowledged((last_ms + 10) * MS, seq(2));
        timer.sent(100_000 * MS, seq(2), seq(3));
        assert_eq!(timer.due_ns(), Some(100_210 * MS));
        // The acknowledgement comes 5 s after the first copy, and 1 ms after the last.
        timer.sent(104_999 * MS, seq(2), seq(3));
        timer.acknowledged(105_000 * MS, seq(3));
        timer.sent(106_000 * MS, seq(3), seq(4));
        assert!(timer.due_ns().unwrap() > 111_000 * MS);
    }

    /// RFC 1122, 4.2.2.17.
    #[test]
    fn a_closed_window_is_probed_ever_more_seldom_until_it_opens() {
        let mut timer = connected(0);
        timer.note(0, true);
        assert_eq!(ends(&mut timer, 3), [200, 600, 1400]);
        timer.sent(1400 * MS, seq(0), seq(1));
        timer.note(1400 * MS, true);
        assert_eq!(timer.due_ns(), Some(3000 * MS), "a probe repeats a byte that is acknowledged");
        timer.sent(1500 * MS, seq(1), seq(2));
        assert_eq!(timer.due_ns(), Some(1700 * MS));
        timer.acknowledged(1500 * MS, seq(2));
        timer.note(1500 * MS, false);
        assert_eq!(timer.due_ns(), None);
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut timer = RetransmissionTimer::default();
        timer.sent(0, seq(i32::MAX), seq(i32::MIN));
        assert!(timer.is_under_way() && timer.acknowledged(0, seq(i32::MIN)) && !timer.is_under_way());
    }
}
