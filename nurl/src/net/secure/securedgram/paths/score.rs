//! Compares paths: the policy, as pure functions of round-trip times.
//!
//! Direct paths come before relayed ones, and among direct ones the lower smoothed round-trip time wins.
//! The path in use has a margin, so that two equal paths don't alternate. A relay beats a direct path only
//! by a wide margin, since a direct path spares the relay. The direct path returns at a clearly smaller
//! difference.

use std::time::Duration;

use super::challenge::Rtt;

/// A relay wins only against a direct path that is slower than this factor …
const RELAY_WINS_FACTOR: u32 = 2;
/// … plus this time.
const RELAY_WINS_MARGIN: Duration = Duration::from_millis(100);
/// The direct path returns below one and a half times the relay's round trip plus this.
const DIRECT_RETURNS_MARGIN: Duration = Duration::from_millis(30);
/// A path is judged against the relay after this many samples: the first ones meet cold caches, ARP and
/// radio wake-ups.
const SAMPLES_TO_JUDGE: u32 = 3;
/// Another direct path must be better by a quarter, and by this at least.
const DIRECT_MARGIN: Duration = Duration::from_millis(5);

/// Whether another direct path is better than the one in use by more than the margin.
pub(super) fn replaces(other: &Rtt, current: &Rtt) -> bool {
    match (other.smoothed(), current.smoothed()) {
        (Some(other), Some(current)) => other + DIRECT_MARGIN.max(current / 4) < current,
        _ => false,
    }
}

/// Whether the relay should carry the data although a direct path works. `relayed` says whether it already
/// does, for this reason.
pub(super) fn relay_wins(direct: &Rtt, relay: &Rtt, relayed: bool) -> bool {
    let (Some(direct_rtt), Some(relay_rtt)) = (direct.smoothed(), relay.smoothed()) else {
        return false;
    };
    if relayed {
        return direct_rtt > relay_rtt * 3 / 2 + DIRECT_RETURNS_MARGIN;
    }
    direct.samples() >= SAMPLES_TO_JUDGE
        && relay.samples() >= SAMPLES_TO_JUDGE
        && direct_rtt > relay_rtt * RELAY_WINS_FACTOR + RELAY_WINS_MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtt(ms: u64, samples: u32) -> Rtt {
        let mut rtt = Rtt::default();
        for _ in 0..samples {
            rtt.sample(Duration::from_millis(ms));
        }
        rtt
    }

    #[test]
    fn a_direct_path_replaces_another_only_beyond_the_margin() {
        for (other, current, expected) in [
            (10, 100, true),
            (74, 100, true),
            (75, 100, false),
            (99, 100, false),
            (100, 100, false),
            (100, 10, false),
            (1, 7, true),
            (2, 7, false),
            (0, 4, false),
        ] {
            assert_eq!(replaces(&rtt(other, 1), &rtt(current, 1)), expected, "{other} {current}");
        }
        assert!(!replaces(&Rtt::default(), &rtt(100, 1)));
    }

    #[test]
    fn the_relay_wins_by_a_wide_margin_only_and_gives_back_with_hysteresis() {
        for (direct, relay, relayed, expected) in [
            (50, 20, false, false),
            (140, 20, false, false),
            (141, 20, false, true),
            (300, 100, false, false),
            (301, 100, false, true),
            (140, 20, true, true),
            (61, 20, true, true),
            (60, 20, true, false),
            (180, 100, true, false),
        ] {
            let (direct_rtt, relay_rtt) = (rtt(direct, 3), rtt(relay, 3));
            assert_eq!(relay_wins(&direct_rtt, &relay_rtt, relayed), expected, "{direct} {relay} {relayed}");
        }
        assert!(!relay_wins(&rtt(900, 2), &rtt(10, 3), false), "too few samples");
        assert!(!relay_wins(&rtt(900, 3), &Rtt::default(), false));
    }
}
