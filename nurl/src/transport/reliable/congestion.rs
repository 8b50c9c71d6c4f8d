//! CUBIC (RFC 9438) in integers.
//!
//! quinn-proto's own CUBIC computes in floats (`powi` and `cbrt` may differ between a debug and a release
//! build), its BBR draws from ambient entropy, and its NewReno needs minutes to regrow a window after one
//! loss on a long path. The digest of a simulated world must not depend on floats or entropy, hence this
//! implementation: bytes, milliseconds and 128-bit intermediates.
//!
//! Two deliberate differences from RFC 9438, because the paths of this crate are radio links and relays:
//!
//! - **Loss without queueing isn't congestion.** Before a full queue drops packets, the round trip grows; on
//!   a radio link that drops one packet in fifty, it doesn't. So the window shrinks by as much as the round
//!   trip exceeds its minimum (TCP Westwood's idea: a path's capacity is its rate times its minimum round
//!   trip), at most to 70 % as in CUBIC, and not at all without a queue. Above 15 % loss it always shrinks
//!   to 70 %, because a policer has no queue. Measured at 2 % random loss, 50 ms and 40 Mbit/s: 4 MiB in
//!   about a second instead of 22.
//! - **A blackout isn't congestion.** Persistent congestion (RFC 9002 §7.6) reduces the window to its minimum, as
//!   required, but the previous window is remembered: slow start returns to 70 % of it in a few round trips, and the
//!   cubic curve to the rest. If the path really became slower, the next loss reduces the window.
//!
//! A third one keeps the handshake from a deadlock: **no window holds it back**. QUIC's window counts the packets of all
//! number spaces. Data that a client sends behind its last handshake message isn't acknowledged before that message arrived;
//! if that is lost, and the data fills the window, the message is never sent again. So the window applies from the moment at
//! which the handshake is [confirmed](Cubic::confirm). Until then the sender bounds its data itself ([`EARLY_BYTES`]).

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory};

use super::limits::DATAGRAM_BYTES;

/// RFC 9002 §7.2: the first window, 10 datagrams.
const INITIAL_DATAGRAMS: u64 = 10;

/// The most bytes of messages that a client sends before the handshake is confirmed: the first window.
pub(super) const EARLY_BYTES: usize = INITIAL_DATAGRAMS as usize * DATAGRAM_BYTES;

/// RFC 9002 §7.2: the least window, 2 datagrams.
const MINIMUM_DATAGRAMS: u64 = 2;

/// RFC 9438 §4.6: the window shrinks to 0.7 on congestion.
const BETA_TENTHS: u64 = 7;

/// RFC 9438 §4.1: C = 0.4 segments / s³, that is 4 segments / (10 · 10⁹ ms³).
const C_NUMERATOR: u128 = 4;
const C_DENOMINATOR: u128 = 10 * 1_000_000_000;

/// RFC 9438 §4.3: the Reno-friendly region's growth, 3·(1−β)/(1+β) = 9/17 segments per round trip.
const ALPHA: (u64, u64) = (9, 17);

/// The round trip may exceed its minimum by a tenth, as ordinary jitter, before that counts as queueing.
const JITTER_ALLOWANCE: (u128, u128) = (11, 10);

/// A higher loss rate in a round (in percent) is congestion regardless of the round trip. BBR's first
/// version tolerated 20 %.
const TOLERATED_LOSS_PERCENT: u64 = 15;

/// The loss rate is evaluated over at least this many datagrams: two losses in ten are often chance.
const LOSS_SAMPLE_DATAGRAMS: u64 = 32;

/// The window stays below this, so that the arithmetic never overflows: 4 GiB in flight.
const MAXIMUM_WINDOW: u64 = 1 << 32;

/// Builds a [`Cubic`] for each connection.
pub(super) struct CubicFactory;

impl ControllerFactory for CubicFactory {
    fn build(self: Arc<Self>, _now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Cubic::new(u64::from(current_mtu)))
    }
}

/// The period since which the window follows the cubic curve.
#[derive(Debug, Clone, Copy)]
struct Epoch {
    start: Instant,
    /// When the curve reaches `w_max` again.
    k_ms: u64,
    /// The window of a Reno sender with the same losses.
    reno: u64,
    /// Acknowledged bytes that haven't yet increased `reno` or the window by a byte.
    reno_rest: u64,
    cubic_rest: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Cubic {
    mtu: u64,
    window: u64,
    ssthresh: u64,
    w_max: u64,
    /// Losses of packets sent before this belong to the congestion event of that time.
    recovery_start: Option<Instant>,
    epoch: Option<Epoch>,
    /// The newest and the minimum round trip.
    rtt: Duration,
    least_rtt: Duration,
    /// Bytes acknowledged and lost, weighted towards the recent ones.
    acked: u64,
    lost: u64,
    /// Packets acknowledged, each once.
    acks: u64,
    /// Whether the handshake is confirmed. quinn lends a controller only to be read, so its clones share this.
    confirmed: Arc<AtomicBool>,
}

impl Cubic {
    fn new(mtu: u64) -> Cubic {
        Cubic {
            mtu,
            window: INITIAL_DATAGRAMS * mtu,
            ssthresh: u64::MAX,
            w_max: 0,
            recovery_start: None,
            epoch: None,
            rtt: Duration::ZERO,
            least_rtt: Duration::ZERO,
            acked: 0,
            lost: 0,
            acks: 0,
            confirmed: Arc::default(),
        }
    }

    /// quinn shows a controller as a trait object, which only its clone can be taken out of.
    fn clone_of(of: &dyn Controller) -> Option<Box<Cubic>> {
        of.clone_box().into_any().downcast().ok()
    }

    /// The packets of a connection that its peer has acknowledged, each counted once.
    pub(super) fn acks(of: &dyn Controller) -> u64 {
        Cubic::clone_of(of).map_or(0, |cubic| cubic.acks)
    }

    /// The handshake of a connection is confirmed (RFC 9001 §4.1.2): its window applies.
    pub(super) fn confirm(of: &dyn Controller) {
        if let Some(cubic) = Cubic::clone_of(of) {
            cubic.confirmed.store(true, Ordering::Relaxed);
        }
    }

    /// The window after a loss: between 70 % and 100 % of the current one.
    fn reduced(&self) -> u64 {
        let least = self.window * BETA_TENTHS / 10;
        let total = self.acked + self.lost;
        let heavy =
            total >= LOSS_SAMPLE_DATAGRAMS * self.mtu && self.lost * 100 > total * TOLERATED_LOSS_PERCENT;
        if heavy || self.rtt.is_zero() {
            return least;
        }
        let (times, per) = JITTER_ALLOWANCE;
        let without_queue =
            u128::from(self.window) * self.least_rtt.as_nanos() * times / (self.rtt.as_nanos() * per);
        u64::try_from(without_queue).unwrap_or(self.window).clamp(least, self.window)
    }

    fn minimum(&self) -> u64 {
        MINIMUM_DATAGRAMS * self.mtu
    }

    /// RFC 9438 §4.2, equation 1: the curve `at_ms` after the epoch began.
    fn curve(&self, at_ms: u64, k_ms: u64) -> u64 {
        let distance = u128::from(at_ms.abs_diff(k_ms).min(1 << 20));
        let offset = C_NUMERATOR * u128::from(self.mtu) * distance * distance * distance / C_DENOMINATOR;
        let offset = u64::try_from(offset).unwrap_or(MAXIMUM_WINDOW).min(MAXIMUM_WINDOW);
        if at_ms >= k_ms { self.w_max + offset } else { self.w_max.saturating_sub(offset) }
    }

    fn avoid_congestion(&mut self, now: Instant, bytes: u64, rtt: Duration) {
        let (mtu, window, w_max) = (self.mtu, self.window, self.w_max.max(self.window));
        self.w_max = w_max;
        let mut epoch = self.epoch.unwrap_or_else(|| {
            // Equation 2: K = ∛((w_max − window) / C).
            let cube = u128::from(w_max - window) * C_DENOMINATOR / (C_NUMERATOR * u128::from(mtu));
            Epoch { start: now, k_ms: cube_root(cube), reno: window, reno_rest: 0, cubic_rest: 0 }
        });
        epoch.reno_rest += bytes * mtu * ALPHA.0 / ALPHA.1;
        epoch.reno += epoch.reno_rest / window;
        epoch.reno_rest %= window;

        let elapsed =
            u64::try_from((now.saturating_duration_since(epoch.start) + rtt).as_millis()).unwrap_or(u64::MAX);
        let target = self.curve(elapsed, epoch.k_ms).clamp(window, window + window / 2);
        epoch.cubic_rest += (target - window) * bytes;
        self.window = (window + epoch.cubic_rest / window).max(epoch.reno).min(MAXIMUM_WINDOW);
        epoch.cubic_rest %= window;
        self.epoch = Some(epoch);
    }
}

impl Controller for Cubic {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.acked += bytes;
        self.acks += 1;
        (self.rtt, self.least_rtt) = (rtt.conservative(), rtt.min());
        if app_limited || self.recovery_start.is_some_and(|start| sent <= start) {
            return;
        }
        if self.window < self.ssthresh {
            self.window = (self.window + bytes).min(MAXIMUM_WINDOW);
        } else {
            self.avoid_congestion(now, bytes, rtt.get());
        }
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost_bytes: u64) {
        self.lost += lost_bytes;
        if self.recovery_start.is_some_and(|start| sent <= start) {
            return;
        }
        self.recovery_start = Some(now);
        let reduced = self.reduced().max(self.minimum());
        if self.acked + self.lost >= LOSS_SAMPLE_DATAGRAMS * self.mtu {
            // Each evaluation halves the weight of older bytes.
            (self.acked, self.lost) = (self.acked / 2, self.lost / 2);
        }
        if is_persistent {
            self.w_max = self.w_max.max(self.window);
            self.ssthresh = (self.window * BETA_TENTHS / 10).max(self.minimum());
            self.window = self.minimum();
            self.epoch = None;
        } else if reduced < self.window {
            // A loss on the way back to an earlier maximum indicates less capacity: fast convergence, RFC
            // 9438 §4.7. In slow start after a blackout it doesn't, since nothing was measured yet.
            self.w_max = if self.window < self.w_max && self.window >= self.ssthresh {
                self.window * (10 + BETA_TENTHS) / 20
            } else {
                self.window
            };
            self.ssthresh = reduced;
            self.window = reduced;
            self.epoch = None;
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = u64::from(new_mtu);
        self.window = self.window.max(self.minimum());
    }

    fn window(&self) -> u64 {
        if self.confirmed.load(Ordering::Relaxed) { self.window } else { MAXIMUM_WINDOW }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_DATAGRAMS * self.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// The greatest integer whose cube is at most `n`.
fn cube_root(n: u128) -> u64 {
    let (mut low, mut high) = (0u64, 1 << 24);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if u128::from(middle).pow(3) <= n { low = middle } else { high = middle - 1 }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u64 = 1_200;

    fn start() -> Instant {
        crate::rt::time::now()
    }

    #[test]
    fn cube_roots_are_exact() {
        for n in [0u64, 1, 2, 7, 8, 9, 26, 27, 1_000_000, 4_096_000] {
            let root = u128::from(cube_root(n.into()));
            assert!(root.pow(3) <= n.into() && (root + 1).pow(3) > n.into(), "{n}");
        }
    }

    #[test]
    fn the_curve_returns_to_the_old_window_after_k() {
        let mut cubic = Cubic::new(MTU);
        cubic.window = 1_000 * MTU;
        cubic.ssthresh = cubic.window;
        let begin = start();
        cubic.on_congestion_event(begin, begin, false, MTU);
        assert_eq!(cubic.window, 700 * MTU);
        // K = ∛(1000 · 0.3 / 0.4) = 9.086 s.
        let mut now = begin;
        let mut reached = None;
        for _ in 0..150 {
            now += Duration::from_millis(100);
            for _ in 0..cubic.window / MTU {
                cubic.avoid_congestion(now, MTU, Duration::from_millis(100));
            }
            if reached.is_none() && cubic.window >= 990 * MTU {
                reached = Some(now - begin);
            }
        }
        let reached = reached.unwrap();
        assert!(reached > Duration::from_secs(5) && reached < Duration::from_secs(10), "{reached:?}");
        assert!(cubic.window > 1_050 * MTU, "beyond K the curve is convex: {}", cubic.window / MTU);
    }

    fn with_round_trip(window: u64, rtt_ms: u64, least_ms: u64, acked: u64) -> Cubic {
        let mut cubic = Cubic::new(MTU);
        cubic.window = window;
        cubic.rtt = Duration::from_millis(rtt_ms);
        cubic.least_rtt = Duration::from_millis(least_ms);
        cubic.acked = acked;
        cubic
    }

    #[test]
    fn the_window_shrinks_by_the_queue_and_not_by_the_loss() {
        let window = 1_000 * MTU;
        // (round trip, its minimum, packets lost of 1,000) → window in packets
        for (rtt, least, lost, expected) in [
            (50, 50, 20, 1_000),
            (54, 50, 20, 1_000),
            (70, 50, 20, 785),
            (150, 50, 1, 700),
            (50, 50, 200, 700),
        ] {
            let mut cubic = with_round_trip(window, rtt, least, (1_000 - lost) * MTU);
            let now = start();
            cubic.on_congestion_event(now, now, false, lost * MTU);
            assert_eq!(cubic.window / MTU, expected, "{rtt} ms over {least} ms, {lost} lost");
        }
    }

    #[test]
    fn losses_of_one_flight_are_one_event() {
        let mut cubic = Cubic::new(MTU);
        let sent = start();
        let now = sent + Duration::from_millis(100);
        cubic.on_congestion_event(now, sent, false, MTU);
        let window = cubic.window;
        cubic.on_congestion_event(now, sent, false, MTU);
        assert_eq!(cubic.window, window);
    }

    #[test]
    fn a_blackout_keeps_the_memory_of_the_window() {
        let mut cubic = Cubic::new(MTU);
        cubic.window = 1_000 * MTU;
        let now = start();
        cubic.on_congestion_event(now, now, true, MTU);
        assert_eq!(cubic.window, MINIMUM_DATAGRAMS * MTU);
        assert_eq!(cubic.ssthresh, 700 * MTU);
        assert_eq!(cubic.w_max, 1_000 * MTU);
    }
}
