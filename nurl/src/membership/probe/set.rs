//! The probes under way, the members that wait for one out of turn, and the probes that may still be answered late.

use std::collections::VecDeque;

use super::Probe;
use crate::key::PublicKey;

/// Probes that are remembered for late acks: one minute of rounds and six full sets outside them, far above the
/// longest useful delay.
pub const MAX_PAST_PROBES: usize = 256;

/// The most members that wait to be probed out of turn. Further ones wait for their turn in the round.
pub const MAX_URGENT: usize = 256;

/// Probes under way outside the round. A failed probe takes eight small messages, so these are 256 in a second, which
/// a phone's uplink carries; and 80 of 100 members that die at once are all probed within three periods.
pub const MAX_BESIDE: usize = 32;

/// The probes of this node.
#[derive(Debug, Default)]
pub struct ProbeSet {
    /// The probe of the round.
    current: Option<Probe>,
    /// The probes outside the round.
    beside: Vec<Probe>,
    /// Members that wait for a probe outside the round, and whether each owes a NACK.
    urgent: VecDeque<(PublicKey, bool)>,
    /// Ended probes: sequence number, target, helpers.
    past: VecDeque<(u64, PublicKey, Vec<PublicKey>)>,
}

impl ProbeSet {
    /// Probes `key` outside the round, as soon as there is room. False if too many wait.
    pub fn urge(&mut self, key: PublicKey, owes: bool) -> bool {
        if self.is_probed(&key) || self.urgent.iter().any(|(other, _)| *other == key) {
            return true;
        }
        let room = self.urgent.len() < MAX_URGENT;
        if room {
            self.urgent.push_back((key, owes));
        }
        room
    }

    /// The next member to probe outside the round, if there is room.
    pub fn next_beside(&mut self, is_target: impl Fn(&PublicKey) -> bool) -> Option<(PublicKey, bool)> {
        if self.beside.len() >= MAX_BESIDE {
            return None;
        }
        while let Some((key, owes)) = self.urgent.pop_front() {
            if is_target(&key) && !self.is_probed(&key) {
                return Some((key, owes));
            }
        }
        None
    }

    /// Takes a member off the queue of those that wait.
    pub fn forget(&mut self, key: &PublicKey) {
        self.urgent.retain(|(other, _)| other != key);
    }

    /// The probe of the round.
    pub fn current(&self) -> Option<&Probe> {
        self.current.as_ref()
    }

    /// Starts the probe of a round.
    pub fn start_round(&mut self, probe: Probe) {
        self.current = Some(probe);
    }

    /// Starts a probe outside the round.
    pub fn start_beside(&mut self, probe: Probe) {
        self.beside.push(probe);
    }

    /// The probes under way, the round's first.
    pub fn iter(&self) -> impl Iterator<Item = &Probe> {
        self.current.iter().chain(&self.beside)
    }

    /// The probes under way, mutable.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Probe> {
        self.current.iter_mut().chain(&mut self.beside)
    }

    /// Whether a probe of `key` is under way and has no answer yet.
    pub fn is_probed(&self, key: &PublicKey) -> bool {
        self.iter().any(|probe| probe.target == *key && !probe.acked)
    }

    /// A probe under way, by its sequence number.
    pub fn find_mut(&mut self, seq: u64) -> Option<&mut Probe> {
        self.iter_mut().find(|probe| probe.seq == seq)
    }

    /// The probe outside the round that `target` has answered.
    pub fn answered_beside(&self, target: &PublicKey) -> Option<u64> {
        self.beside.iter().find(|probe| probe.target == *target && probe.acked).map(|probe| probe.seq)
    }

    /// Ends a probe under way and remembers it for late acks.
    pub fn finish(&mut self, seq: u64) -> Option<Probe> {
        let probe = match self.current.take_if(|probe| probe.seq == seq) {
            Some(probe) => probe,
            None => self.beside.remove(self.beside.iter().position(|probe| probe.seq == seq)?),
        };
        self.remember(probe.seq, probe.target, probe.helpers.clone().into_asked());
        Some(probe)
    }

    /// Ends the probe of the round and remembers it for late acks.
    pub fn finish_round(&mut self) {
        if let Some(seq) = self.current.as_ref().map(|probe| probe.seq) {
            self.finish(seq);
        }
    }

    /// Ends the unanswered probes under way without a verdict and returns their targets.
    pub fn abandon(&mut self) -> Vec<PublicKey> {
        let open: Vec<u64> = self.iter().filter(|probe| !probe.acked).map(|probe| probe.seq).collect();
        open.into_iter().filter_map(|seq| self.finish(seq)).map(|probe| probe.target).collect()
    }

    /// Ends every probe and clears the queue: this node is no longer a member.
    pub fn stop(&mut self) {
        self.current = None;
        self.beside.clear();
        self.urgent.clear();
    }

    /// Remembers a ping, so that a late ack can be matched to it.
    pub fn remember(&mut self, seq: u64, target: PublicKey, helpers: Vec<PublicKey>) {
        if self.past.len() >= MAX_PAST_PROBES {
            self.past.pop_front();
        }
        self.past.push_back((seq, target, helpers));
    }

    /// The target whose life a late ack confirms.
    pub fn late(&self, seq: u64, from: &PublicKey) -> Option<PublicKey> {
        let past = self.past.iter().find(|(past, ..)| *past == seq)?;
        (past.1 == *from || past.2.contains(from)).then_some(past.1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(300);
    const PERIOD: Duration = Duration::from_secs(1);

    fn key(at: u8) -> PublicKey {
        PublicKey::from_bytes([at; 32])
    }

    #[test]
    fn urgent_members_are_probed_beside_the_round_each_once_and_within_bounds() {
        let now = crate::rt::test_now();
        let named = |at: u16| {
            let mut bytes = [1; 32];
            bytes[..2].copy_from_slice(&at.to_be_bytes());
            PublicKey::from_bytes(bytes)
        };
        let mut probes = ProbeSet::default();
        assert!(probes.urge(named(0), true) && probes.urge(named(0), false));
        assert_eq!(probes.urgent.len(), 1, "it waits already");
        for at in 1..MAX_URGENT as u16 {
            assert!(probes.urge(named(at), false));
        }
        assert!(!probes.urge(named(999), false), "too many wait");
        let mut seq = 0;
        while let Some((target, owes)) = probes.next_beside(|key| *key != named(1)) {
            assert_eq!(owes, target == named(0));
            probes.start_beside(Probe::new(now, seq, target, TIMEOUT, PERIOD));
            seq += 1;
        }
        assert_eq!(probes.beside.len(), MAX_BESIDE);
        assert!(!probes.is_probed(&named(1)), "it is no target");
        assert!(probes.urge(named(0), false) && probes.urgent.iter().all(|(key, _)| *key != named(0)));
        assert_eq!(probes.finish(0).map(|probe| probe.target), Some(named(0)));
        assert!(probes.next_beside(|_| true).is_some(), "there is room again");
    }

    #[test]
    fn a_late_ack_counts_only_from_the_target_or_a_helper() {
        let mut probes = ProbeSet::default();
        probes.remember(7, key(1), vec![key(2)]);
        assert_eq!(probes.late(7, &key(1)), Some(key(1)));
        assert_eq!(probes.late(7, &key(2)), Some(key(1)));
        assert_eq!(probes.late(7, &key(3)), None);
        (100..100 + MAX_PAST_PROBES as u64).for_each(|seq| probes.remember(seq, key(1), Vec::new()));
        assert_eq!(probes.late(7, &key(1)), None, "only the last ones are remembered");
        assert_eq!(probes.past.len(), MAX_PAST_PROBES);
    }

    #[test]
    fn abandoned_probes_are_the_unanswered_ones_and_their_late_acks_still_match() {
        let now = crate::rt::test_now();
        let mut probes = ProbeSet::default();
        probes.start_round(Probe::new(now, 1, key(1), TIMEOUT, PERIOD));
        for seq in [2, 3] {
            probes.start_beside(Probe::new(now, seq, key(seq as u8), TIMEOUT, PERIOD));
        }
        probes.find_mut(2).unwrap().acked = true;
        assert_eq!(probes.abandon(), [key(1), key(3)]);
        assert_eq!(probes.iter().map(|probe| probe.seq).collect::<Vec<_>>(), [2]);
        assert_eq!((probes.late(3, &key(3)), probes.late(2, &key(2))), (Some(key(3)), None));
        probes.stop();
        assert_eq!(probes.iter().count(), 0);
    }
}
