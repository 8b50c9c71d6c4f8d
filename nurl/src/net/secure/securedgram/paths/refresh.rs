//! When round-trip times are measured: while application data flows. An idle peer costs no traffic.
//!
//! All routes are measured every [`PathConfig::rtt_refresh`](super::config::PathConfig::rtt_refresh), a relay that carries the
//! data more often ([`RELAY_REFRESH`](super::config::RELAY_REFRESH)).

use std::time::{Duration, Instant};

use super::config::FLOW;

/// An interval begins with the first application datagram after an idle one.
#[derive(Debug, Default)]
pub(super) struct RttRefresh {
    /// Application datagrams, in either direction, since the interval began.
    app_datagrams: u32,
    /// The end of the interval.
    next: Option<Instant>,
}

impl RttRefresh {
    /// An application datagram was sent or received.
    pub(super) fn note_app(&mut self, now: Instant, interval: Duration) {
        self.app_datagrams = self.app_datagrams.saturating_add(1);
        self.next.get_or_insert(now + interval);
    }

    /// Ends the interval: there is no session.
    pub(super) fn stop(&mut self) {
        self.next = None;
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Whether an interval has ended in which data flowed, so that a measurement is due.
    pub(super) fn poll(&mut self, now: Instant, interval: Duration) -> bool {
        if self.next.is_none_or(|next| next > now) {
            return false;
        }
        let flows = std::mem::take(&mut self.app_datagrams) >= FLOW;
        self.next = flows.then_some(now + interval);
        flows
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::origin;
    use super::*;

    #[test]
    fn an_interval_is_measured_only_if_data_flowed_in_it() {
        let (start, interval) = (origin(), Duration::from_secs(10));
        for (datagrams, measured) in [(1, false), (FLOW - 1, false), (FLOW, true), (FLOW * 9, true)] {
            let mut refresh = RttRefresh::default();
            (0..datagrams).for_each(|_| refresh.note_app(start, interval));
            assert!(!refresh.poll(start + interval / 2, interval), "the interval isn't over");
            assert_eq!(refresh.poll(start + interval, interval), measured, "{datagrams} datagrams");
            assert_eq!(refresh.due().is_some(), measured, "an idle interval is the last one");
        }
    }
}
