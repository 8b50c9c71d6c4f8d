//! The counters of an endpoint's work and refusals, by cause.

use crate::net::secure::noise::NoiseError;
use crate::net::secure::session::OpenError;

/// Plain counters that only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "internals",
    expect(missing_docs, reason = "each name says what is counted; the groups below say when")
)]
pub struct EndpointStats {
    // Refused by shape, before any other check.
    pub unknown_frame: u64,
    pub bad_length: u64,
    pub oversize: u64,
    pub no_return_address: u64,
    // Refused by the gate, in the order of its checks.
    pub bad_mac1: u64,
    pub cookie_demanded: u64,
    pub cookies_limited: u64,
    pub cookie_holder_over_budget: u64,
    pub not_allowed: u64,
    pub not_admitted: u64,
    pub peers_full: u64,
    pub handshake_forged: u64,
    pub small_order: u64,
    pub repeated: u64,
    pub answers_limited: u64,
    pub incompatible: u64,
    pub stale_timestamp: u64,
    pub stale_unvouched: u64,
    pub challenge_limited: u64,
    // Handshakes.
    pub dh: u64,
    pub inits_sent: u64,
    pub inits_answered: u64,
    pub answers_from_cache: u64,
    pub responses_unexpected: u64,
    pub responses_limited: u64,
    pub cookies_taken: u64,
    pub cookies_refused: u64,
    pub challenges_sent: u64,
    pub challenges_taken: u64,
    pub clocks_let_back: u64,
    pub established: u64,
    pub rekeyed: u64,
    pub tie_breaks: u64,
    pub handshakes_failed: u64,
    pub confirms_sent: u64,
    // Data frames.
    pub frames_sealed: u64,
    pub frames_opened: u64,
    pub unknown_index: u64,
    pub forged: u64,
    pub replayed: u64,
    pub expired: u64,
    pub unknown_channel: u64,
    pub bad_control: u64,
    pub grown_control: u64,
    // Sealing refused.
    pub seal_no_session: u64,
    pub seal_too_large: u64,
    pub seal_no_route: u64,
    // Our own bounds.
    pub unproven_over_budget: u64,
    pub events_dropped: u64,
    pub transmits_dropped: u64,
}

impl EndpointStats {
    /// Counts a failed handshake message.
    pub(super) fn count_noise(&mut self, error: NoiseError) {
        match error {
            NoiseError::ZeroOutput => self.small_order += 1,
            NoiseError::Message | NoiseError::State => self.handshake_forged += 1,
        }
    }

    /// Counts a data frame that didn't open.
    pub(super) fn count_unopened(&mut self, error: OpenError) {
        match error {
            OpenError::Short => self.bad_length += 1,
            OpenError::Expired => self.expired += 1,
            OpenError::Replay => self.replayed += 1,
            OpenError::Forged => self.forged += 1,
        }
    }
}
