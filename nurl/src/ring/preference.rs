//! A key's preference list, evaluated lazily.
//!
//! The walk visits members clockwise from the key's position, each once. The list consists of rounds: round k
//! holds the (k+1)-th visited member of every zone that has so many, in the order of the walk. So the first R
//! entries lie in as many zones as possible. A member without a zone counts as a zone of its own; with no
//! zones at all the list is the plain clockwise order. The walk goes round the whole ring at most once, so the
//! wrap needs no special case.

use std::collections::VecDeque;

use super::snapshot::{Ring, RingMember};

/// The iterator behind [`Ring::preference`].
#[derive(Debug, Clone)]
pub struct Preference<'a> {
    ring: &'a Ring,
    /// Index of the next point, and how many points were passed.
    next: usize,
    passed: usize,
    met: Vec<bool>,
    /// Members visited so far in each zone.
    zone_met: Vec<u32>,
    /// Members visited before their round began, by round.
    waiting: Vec<VecDeque<u32>>,
    round: usize,
    /// Members of the current round emitted so far.
    emitted: u32,
}

impl<'a> Preference<'a> {
    pub(super) fn new(ring: &'a Ring, position: u64) -> Preference<'a> {
        let next = ring.points.partition_point(|(at, _)| *at < position);
        Preference {
            ring,
            next: if next == ring.points.len() { 0 } else { next },
            passed: 0,
            met: vec![false; ring.members.len()],
            zone_met: vec![0; ring.zones_deeper.first().map_or(0, |zones| *zones as usize)],
            waiting: Vec::new(),
            round: 0,
            emitted: 0,
        }
    }

    /// Advances to the next unvisited member: its index and its round.
    fn meet(&mut self) -> Option<(u32, usize)> {
        while self.passed < self.ring.points.len() {
            let (_, member) = self.ring.points[self.next];
            self.passed += 1;
            self.next = if self.next + 1 == self.ring.points.len() { 0 } else { self.next + 1 };
            if !self.met[member as usize] {
                self.met[member as usize] = true;
                let zone = self.ring.zones[member as usize] as usize;
                let round = self.zone_met[zone] as usize;
                self.zone_met[zone] += 1;
                return Some((member, round));
            }
        }
        None
    }

    fn emit(&mut self, member: u32) -> Option<&'a RingMember> {
        self.emitted += 1;
        if self.ring.zones_deeper.get(self.round) == Some(&self.emitted) {
            self.round += 1;
            self.emitted = 0;
        }
        Some(&self.ring.members[member as usize])
    }
}

impl<'a> Iterator for Preference<'a> {
    type Item = &'a RingMember;

    fn next(&mut self) -> Option<&'a RingMember> {
        loop {
            if let Some(member) = self.waiting.get_mut(self.round).and_then(VecDeque::pop_front) {
                return self.emit(member);
            }
            let (member, round) = self.meet()?;
            debug_assert!(round >= self.round, "a finished round got another member");
            if round == self.round {
                return self.emit(member);
            }
            if self.waiting.len() <= round {
                self.waiting.resize(round + 1, VecDeque::new());
            }
            self.waiting[round].push_back(member);
        }
    }
}
