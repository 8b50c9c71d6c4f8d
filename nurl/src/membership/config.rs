//! The timings of the failure detector; the defaults are the mesh's shared numbers.

use std::time::Duration;

/// Timings. All members of a mesh should run the same ones: the suspicion times in particular assume that
/// others probe and gossip as often as this node does.
#[derive(Debug, Clone)]
pub struct DetectorConfig {
    /// Time from one probe to the next, before local health scales it. A shorter interval finds a death sooner and
    /// costs every member traffic; each probe is one ping and one ack when the target answers at once.
    pub probe_interval: Duration,
    /// Time until a ping is repeated and until the indirect legs start, before scaling. A value below the usual round
    /// trip through a relay would send every ping three times.
    pub direct_timeout: Duration,
    /// Number of members asked to ping on this node's behalf.
    pub indirect_probes: usize,
    /// The shortest suspicion in a mesh of up to ten; it grows with log10 of the members.
    pub suspicion_min: Duration,
    /// The longest suspicion, in multiples of the shortest.
    pub suspicion_max_factor: u32,
    /// The independent confirmations after which a suspicion runs for its shortest time.
    pub suspicion_confirmations: u32,
    /// Time between gossip messages while facts wait.
    pub gossip_interval: Duration,
    /// Members that each gossip tick goes to.
    pub gossip_fanout: usize,
    /// A fact is sent `retransmit_factor · ⌈log10(n + 1)⌉` times by each member.
    pub retransmit_factor: u32,
    /// A member that has been dead for less than this still gets gossip, so that a member that was wrongly declared
    /// dead learns of it soon.
    pub gossip_to_the_dead: Duration,
    /// Time between full exchanges of tables, and between two healing probes.
    pub push_pull_interval: Duration,
    /// The same while isolated: an exchange ends isolation.
    pub isolated_push_pull_interval: Duration,
    /// A push-pull unanswered for this long has failed.
    pub push_pull_timeout: Duration,
    /// How long a probe waits for a session before the direct leg counts as failed, before scaling.
    pub session_grace: Duration,
    /// Only probes within this window count as evidence for isolation.
    pub isolation_window: Duration,
    /// A hub that answered within this time counts as reachable. The driver should PING at least twice as often.
    pub hub_freshness: Duration,
    /// Verdicts reached in isolation take effect, locally, once the isolation has lasted this long.
    pub isolation_counts_after: Duration,
    /// A dead member without a store is forgotten after this: nothing waits for its return. The time is long enough
    /// for halves of a mesh that were apart for a while to still know which members to look for.
    pub dead_reclaim: Duration,
    /// A dead member with a store is forgotten after this and loses its place on the ring: only then are the replicas
    /// that it holds recreated elsewhere.
    pub stored_reclaim: Duration,
    /// A member that left is forgotten after this.
    pub left_reclaim: Duration,
    /// A timer that fires later than this means that this node itself stalled.
    pub stall_tolerance: Duration,
    /// The longest random delay before an announcement is answered.
    pub answer_delay: Duration,
}

impl Default for DetectorConfig {
    fn default() -> DetectorConfig {
        DetectorConfig {
            probe_interval: Duration::from_secs(1),
            direct_timeout: Duration::from_millis(300),
            indirect_probes: 3,
            suspicion_min: Duration::from_secs(4),
            suspicion_max_factor: 6,
            suspicion_confirmations: 3,
            gossip_interval: Duration::from_millis(200),
            gossip_fanout: 3,
            retransmit_factor: 4,
            gossip_to_the_dead: Duration::from_secs(30),
            push_pull_interval: Duration::from_secs(30),
            isolated_push_pull_interval: Duration::from_secs(5),
            push_pull_timeout: Duration::from_secs(10),
            session_grace: Duration::from_secs(2),
            isolation_window: Duration::from_secs(10),
            hub_freshness: Duration::from_secs(10),
            isolation_counts_after: Duration::from_secs(60),
            dead_reclaim: Duration::from_secs(3600),
            stored_reclaim: Duration::from_secs(24 * 3600),
            left_reclaim: Duration::from_secs(600),
            stall_tolerance: Duration::from_secs(1),
            answer_delay: Duration::from_secs(2),
        }
    }
}
