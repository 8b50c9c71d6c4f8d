//! The timings of the failure detector; the defaults are the mesh's shared numbers.
//!
//! The numbers marked *memberlist* are the defaults of HashiCorp's memberlist for a local network: SWIM with Lifeguard
//! as Consul and Nomad run it. Lifeguard writes the suspicion times as min = α · max(1, log10 n) · probe interval and
//! max = β · min, with K confirmations from max to min (§4.2).

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
    /// The shortest suspicion in a mesh of up to ten; it grows with log10 of the members. Lifeguard's α, times the
    /// probe interval.
    pub suspicion_min: Duration,
    /// The longest suspicion, in multiples of the shortest: Lifeguard's β.
    pub suspicion_max_factor: u32,
    /// The independent confirmations after which a suspicion runs for its shortest time: Lifeguard's K.
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
    /// How long a probe waits for a session before the direct leg counts as failed. Not scaled, because a handshake is
    /// tried at the same times whatever this node's health, and with a dead target it has no end: the check of a told
    /// death would take three times as long in a node that holds itself for slow, and many do when many die at once.
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
            // SWIM's protocol period; memberlist. It holds a direct and an indirect round trip of 300 ms each.
            probe_interval: Duration::from_secs(1),
            // Round trips across an ocean through a relay take up to 300 ms. Three pings, at 0, 300 and 600 ms, leave
            // the last one and the indirect legs 400 ms or more to be answered.
            direct_timeout: Duration::from_millis(300),
            // SWIM's k; memberlist. An indirect leg is four datagrams, so at 30 % loss it fails three times in four.
            // Three such legs fail together in 44 %, and the three direct pings in 13 %: both, in about 6 %.
            indirect_probes: 3,
            // α = 4 and a probe interval of 1 s; memberlist. (Lifeguard's evaluation goes from 2 to 5.) The accused
            // hears of it by the next ping or by gossip, within 2 s in a small mesh, and its refutation takes as long.
            suspicion_min: Duration::from_secs(4),
            // β = 6, the paper's default; memberlist. A lone accuser may itself be the slow one, so its suspect gets
            // 24 s: time for several refutations, even if some are lost.
            suspicion_max_factor: 6,
            // K = 3, the paper's default. Each confirmation is a failed probe of another member. The first shortens
            // the time the most (from 24 s to 14 s, then 8.1 s and 4 s), so more would cost messages and win little.
            suspicion_confirmations: 3,
            // memberlist. Five ticks in a probe interval: with three receivers each a fact reaches 100 members in
            // about four ticks, so within one interval, well before the shortest suspicion ends.
            gossip_interval: Duration::from_millis(200),
            // memberlist. Two receivers suffice in theory; the third covers a lost datagram.
            gossip_fanout: 3,
            // memberlist; SWIM's λ (§4.1). The share of members that miss a fact falls with a power of n that grows
            // with λ, and the next push-pull repairs the rest.
            retransmit_factor: 4,
            // memberlist; longer than the longest suspicion in a small mesh, so both sides of a mistake meet.
            gossip_to_the_dead: Duration::from_secs(30),
            // memberlist. A table costs 150 bytes per member; once in 30 s that is 10 bytes a second in a mesh of two
            // and 20 kB a second in the largest.
            push_pull_interval: Duration::from_secs(30),
            // Half the window for isolation: two attempts before the evidence has been replaced.
            isolated_push_pull_interval: Duration::from_secs(5),
            // memberlist's limit for a TCP exchange. The largest table, 600 KiB, arrives at 0.5 Mbit/s.
            push_pull_timeout: Duration::from_secs(10),
            // In this time a handshake is tried five times, at about 0, 0.25, 0.5, 1 and 2 s.
            session_grace: Duration::from_secs(2),
            // Ten probes of the rounds: more than half of them failing is no coincidence at 30 % loss.
            isolation_window: Duration::from_secs(10),
            // A node's PINGs to its hub come each 4 s: one may be lost, and the next be late.
            hub_freshness: Duration::from_secs(10),
            // More than twice the longest suspicion in a small mesh, so a live member had time to be heard. The wait
            // has to end: in a mesh of two without a hub every death looks like isolation.
            isolation_counts_after: Duration::from_secs(60),
            // Reboots, deployments and most outages of a network end within an hour.
            dead_reclaim: Duration::from_secs(3600),
            // A machine that is off overnight, or waits for a part, comes back with its disk within a day; to recreate
            // its replicas sooner would cost more than to wait.
            stored_reclaim: Duration::from_secs(24 * 3600),
            // Stale facts of its life are gone after a few push-pulls; ten minutes are twenty of them.
            left_reclaim: Duration::from_secs(600),
            // One probe interval: a timer that late has skipped a whole round. Schedulers under load are late by
            // tens of milliseconds.
            stall_tolerance: Duration::from_secs(1),
            // Spreads the tables that one announcement asks for, so that they don't arrive at once on a slow link. It
            // is short against the 30 s between two announcements.
            answer_delay: Duration::from_secs(2),
        }
    }
}
