//! The processes that have had a task, and their fates, so that a task that kills its workers is detected.
//!
//! A process *holds* a task from its `Accepted` until it gives the task back in any way. If it falls silent in
//! between, that alone proves nothing: it may be slow, or cut off. It is **lost** with the task when the failure
//! detector declares it dead, or when another process has replaced it. A wrong verdict of death is taken back; a
//! replacement is final. Silence that leads to neither within a limit counts as mere silence.
//!
//! A harmless task that shared each of its lost workers with a deadly one can't be distinguished from it. So
//! suspected tasks are spread in time: see [`LOSS_SPREAD`](super::options::LOSS_SPREAD).

use std::time::{Duration, Instant};

use super::options::MAX_HOLDERS;
use crate::key::PublicKey;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Holding,
    /// No verdict yet; after `until` it counts as mere silence.
    Silent {
        until: Instant,
    },
    /// The failure detector declared it dead.
    Dead,
    /// Another process has replaced it.
    Replaced,
}

impl Fate {
    fn is_lost(self) -> bool {
        matches!(self, Fate::Dead | Fate::Replaced)
    }
}

#[derive(Debug)]
struct Holder {
    who: PublicKey,
    boot: u64,
    fate: Fate,
}

/// The holders of one task, in the order in which they accepted it; at most [`MAX_HOLDERS`].
#[derive(Debug, Default)]
pub(super) struct Holders {
    list: Vec<Holder>,
}

impl Holders {
    /// Notes that the process `boot` of `who` has the task, by its own message.
    pub(super) fn has(&mut self, who: PublicKey, boot: u64) {
        let mut known = false;
        for holder in self.list.iter_mut().filter(|holder| holder.who == who) {
            if holder.boot != boot {
                holder.fate = Fate::Replaced;
            } else if holder.fate != Fate::Replaced {
                // A message also clears a verdict of death.
                (holder.fate, known) = (Fate::Holding, true);
            }
        }
        if !known {
            if self.list.len() >= MAX_HOLDERS {
                self.list.remove(0);
            }
            self.list.push(Holder { who, boot, fate: Fate::Holding });
        }
    }

    /// Notes that the node gave the task back, or left the mesh in good order.
    pub(super) fn released(&mut self, who: PublicKey) {
        self.list.retain(|holder| holder.who != who || holder.fate.is_lost());
    }

    /// Notes that the node fell silent; a verdict is awaited until `until`.
    pub(super) fn fell_silent(&mut self, who: PublicKey, until: Instant) {
        for holder in self.of(who) {
            if holder.fate == Fate::Holding {
                holder.fate = Fate::Silent { until };
            }
        }
    }

    /// Notes that the failure detector declared the node dead.
    pub(super) fn died(&mut self, who: PublicKey) {
        for holder in self.of(who) {
            if !holder.fate.is_lost() {
                holder.fate = Fate::Dead;
            }
        }
    }

    /// Notes that another process has replaced the node's process.
    pub(super) fn replaced(&mut self, who: PublicKey) {
        self.of(who).for_each(|holder| holder.fate = Fate::Replaced);
    }

    /// Notes that the node is alive: it is the same process, or [`replaced`](Holders::replaced) was called before.
    pub(super) fn lives(&mut self, who: PublicKey) {
        self.list
            .retain(|holder| holder.who != who || !matches!(holder.fate, Fate::Dead | Fate::Silent { .. }));
    }

    /// The nodes with which the task was lost.
    pub(super) fn lost(&self) -> impl Iterator<Item = PublicKey> {
        self.list.iter().filter(|holder| holder.fate.is_lost()).map(|holder| holder.who)
    }

    /// The number of processes with which the task was lost, or may have been.
    pub(super) fn suspicions(&self) -> usize {
        self.list.iter().filter(|holder| holder.fate != Fate::Holding).count()
    }

    /// The time until which the task must wait for verdicts. It waits while the lost and the silent holders together
    /// reach `limit`, since another loss could then exceed the limit. `None`: no need to wait.
    pub(super) fn wait(&self, now: Instant, limit: usize) -> Option<Instant> {
        let mut open: Vec<_> = self
            .list
            .iter()
            .filter_map(|holder| match holder.fate {
                Fate::Silent { until } if until > now => Some(until),
                _ => None,
            })
            .collect();
        open.sort_unstable();
        let room = limit.checked_sub(self.lost().count()).filter(|room| *room > 0)?;
        // When all but `room - 1` of the silent ones are settled, one more holder is allowed.
        open.len().checked_sub(room).map(|at| open[at])
    }

    fn of(&mut self, who: PublicKey) -> impl Iterator<Item = &mut Holder> {
        self.list.iter_mut().filter(move |holder| holder.who == who)
    }
}

/// The longest wait for a verdict on a silent holder: the detector's longest suspicion (24 s) and its probe; and for an
/// observer, which no member tells of deaths, a push-pull's interval (30 s), one push-pull that fails (10 s) since its
/// partner is dead as well, and the probe by which it checks what it was told.
pub(super) const VERDICT_WITHIN: Duration = Duration::from_secs(75);

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the base of virtual time")]
mod tests {
    use super::*;

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_death_and_another_process_count_silence_and_a_hand_back_do_not() {
        type End = fn(&mut Holders, Instant);
        let cases: [(&str, End, usize); 8] = [
            ("holding", |_, _| {}, 0),
            ("silent", |it, now| it.fell_silent(key(1), now), 0),
            ("dead", |it, _| it.died(key(1)), 1),
            ("silent, then dead", |it, now| (it.fell_silent(key(1), now), it.died(key(1))).1, 1),
            ("handed back, then dead", |it, _| (it.released(key(1)), it.died(key(1))).1, 0),
            ("dead, and alive after all", |it, _| (it.died(key(1)), it.lives(key(1))).1, 0),
            (
                "dead, and back as another",
                |it, _| (it.died(key(1)), it.replaced(key(1)), it.lives(key(1))).2,
                1,
            ),
            ("speaks as another", |it, _| it.has(key(1), 2), 1),
        ];
        for (name, end, lost) in cases {
            let mut holders = Holders::default();
            holders.has(key(1), 1);
            end(&mut holders, Instant::now());
            assert_eq!(holders.lost().count(), lost, "{name}");
        }
    }

    #[test]
    fn one_node_that_is_lost_again_and_again_counts_each_time() {
        let mut holders = Holders::default();
        for boot in 1..=3 {
            holders.has(key(1), boot);
        }
        holders.replaced(key(1));
        assert_eq!(holders.lost().collect::<Vec<_>>(), [key(1); 3]);
    }

    #[test]
    fn a_verdict_is_waited_for_while_the_silent_may_be_the_last_that_are_allowed() {
        let now = Instant::now();
        let mut holders = Holders::default();
        assert_eq!(holders.wait(now, 3), None);
        for n in 1..=3 {
            holders.has(key(n), 1);
            holders.fell_silent(key(n), now + secs(60 + u64::from(n)));
            // Two may be lost, so a third attempt is allowed.
            assert_eq!(holders.wait(now, 3), (n == 3).then_some(now + secs(61)));
        }
        holders.died(key(1));
        assert_eq!(holders.wait(now, 3), Some(now + secs(62)));
        holders.lives(key(3));
        assert_eq!(holders.wait(now, 3), None, "one lost and one silent");
        assert_eq!(holders.wait(now + secs(90), 1), None, "one lost is the limit: nothing to wait for");
        holders.lives(key(1));
        assert_eq!(holders.wait(now + secs(90), 1), None, "mere silence");
    }

    #[test]
    fn the_oldest_holders_are_forgotten_first() {
        let mut holders = Holders::default();
        for n in 0..=MAX_HOLDERS as u8 {
            holders.has(key(n), 1);
            holders.died(key(n));
        }
        assert_eq!(holders.lost().count(), MAX_HOLDERS);
        assert!(!holders.lost().any(|who| who == key(0)));
    }
}
