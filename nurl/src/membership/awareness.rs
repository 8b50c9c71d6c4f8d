//! Lifeguard's local health multiplier (§4.1, "LHA-Probe"): an estimate of how slow this node itself is.
//!
//! A score from 0, healthy, to [`MAX_SCORE`]. A failed probe, a missed NACK or a suspicion of this node that it had
//! to refute raise it by one, a successful probe lowers it by one. The paper supposes that failures are independent;
//! if other evidence shows this node to be healthy, the detector doesn't raise the score. The probe period *and* the
//! probe's timeouts are multiplied by `score + 1`, so that a node whose own processing lags probes less often and
//! waits longer before it accuses. Suspicion times are not scaled: they protect the accused from *other* accusers.

use std::time::Duration;

/// The highest score, as in the paper: a probe then takes nine times as long. With a higher score a truly slow node
/// would detect nothing for longer than a suspicion lasts.
pub const MAX_SCORE: u32 = 8;

/// The local health score.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Awareness {
    score: u32,
}

impl Awareness {
    /// Adds `evidence` pieces of evidence that this node is slow.
    pub fn worse(&mut self, evidence: u32) {
        self.score = self.score.saturating_add(evidence).min(MAX_SCORE);
    }

    /// One sign of health.
    pub fn better(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    /// The score, 0 to [`MAX_SCORE`].
    pub fn score(&self) -> u32 {
        self.score
    }

    /// The factor for periods and timeouts: 1 to 9.
    pub fn multiplier(&self) -> u32 {
        self.score + 1
    }

    /// A duration, scaled.
    pub fn scale(&self, duration: Duration) -> Duration {
        duration * self.multiplier()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_stays_between_zero_and_eight() {
        let mut awareness = Awareness::default();
        awareness.better();
        assert_eq!(awareness.score(), 0);
        awareness.worse(u32::MAX);
        awareness.worse(1);
        assert_eq!(awareness.score(), MAX_SCORE);
        awareness.better();
        assert_eq!(awareness.score(), MAX_SCORE - 1);
    }

    #[test]
    fn a_healthy_node_is_not_slowed_and_a_sick_one_waits_nine_times_as_long() {
        let mut awareness = Awareness::default();
        assert_eq!(awareness.scale(Duration::from_millis(300)), Duration::from_millis(300));
        awareness.worse(3);
        assert_eq!(awareness.scale(Duration::from_millis(300)), Duration::from_millis(1200));
        awareness.worse(8);
        assert_eq!(awareness.scale(Duration::from_secs(1)), Duration::from_secs(9));
    }
}
