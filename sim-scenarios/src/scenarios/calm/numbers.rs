//! The protocol's numbers, as its page has them. They are written out, so that a changed constant of nurl doesn't change
//! what is expected of it.

/// A member probes another one: §14.3.
pub(super) const PROBE_S: f64 = 1.0;
/// An exchange of tables, an announcement to the mesh group, a LIST: §12.1, §14.3.
pub(super) const PUSH_PULL_S: f64 = 30.0;
/// A node's PING of its hub: §10.3.
pub(super) const HUB_PING_S: f64 = 4.0;
/// A record is refreshed after a third of its life: §12.1.
pub(super) const REFRESH_S: f64 = 40.0;
/// A record is sealed anew: §12.2.
pub(super) const SEAL_S: f64 = 600.0;
/// A STUN request: §13.
pub(super) const STUN_S: f64 = 25.0;
/// The initiator renews a session: §5.3.
pub(super) const REKEY_S: f64 = 120.0;
/// What a handshake takes at most here, beyond that time.
pub(super) const HANDSHAKE_S: f64 = 0.5;
/// All ways are measured while data flows; it is the interval of `PathConfig::rtt_refresh`.
pub(super) const MEASURE_S: f64 = 10.0;
/// An address without an echo is tried again, without a direct path and with one: §6.4.
pub(super) const SLOW_CHECK_S: f64 = 30.0;
pub(super) const IDLE_CHECK_S: f64 = 300.0;
/// A keepalive on an idle direct path, which grows: §6.5.
pub(super) const KEEPALIVE_S: (f64, f64) = (15.0, 25.0);
/// A summary to each node with which keys are shared: §17.1. The replicator looks each second.
pub(super) const SUMMARY_S: f64 = 10.0;
pub(super) const SUMMARY_TICK_S: f64 = 1.0;
/// The owners of a key: §15.3.
pub(super) const OWNERS: usize = 3;
/// A job's beat; each third one asks for an answer: §16.2.
pub(super) const BEAT_S: u64 = 1;
pub(super) const BEATS_PER_QUESTION: i64 = 3;
/// An outcome is kept after its task's life: §16.2.
pub(super) const HORIZON_S: u64 = 600;
