//! The announcement of our candidates to the peer: sent at once, then with back-off until the peer acknowledges it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::challenge::jittered;
use super::config::CANDIDATES_RESEND;
use super::control::{Control, acknowledgement};
use crate::rt::Rng;

#[derive(Debug, Default)]
pub(super) struct Announcement {
    /// Grows with each new list, and wraps past zero, which means that there was none yet.
    generation: u32,
    addrs: Vec<SocketAddr>,
    /// When it is sent next; `None` while it is acknowledged.
    next: Option<Instant>,
    gap: Duration,
}

impl Announcement {
    /// Sets the list. Returns whether it is a new one.
    pub(super) fn set(&mut self, now: Instant, addrs: &[SocketAddr]) -> bool {
        let told_before = self.generation != 0;
        if self.addrs == addrs && (told_before || addrs.is_empty()) {
            return false;
        }
        self.addrs = addrs.to_vec();
        self.generation = self.generation.wrapping_add(1).max(1);
        self.again(now);
        true
    }

    /// Sends the list again, if there is one: the peer may have lost it, or a route has appeared.
    pub(super) fn again(&mut self, now: Instant) {
        if self.generation != 0 {
            self.next = Some(now);
            self.gap = CANDIDATES_RESEND.0;
        }
    }

    /// Ends the resends: there is no session.
    pub(super) fn stop(&mut self) {
        self.next = None;
    }

    /// Whether `data` acknowledges the present list while it is resent; that ends the resends.
    pub(super) fn acknowledge(&mut self, data: &[u8; 8]) -> bool {
        let acknowledged = self.next.is_some() && *data == acknowledgement(self.generation);
        if acknowledged {
            self.next = None;
        }
        acknowledged
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.next
    }

    /// The message, if it is due; schedules the next one.
    pub(super) fn poll(&mut self, now: Instant, rng: &mut Rng) -> Option<Control> {
        self.next.filter(|next| *next <= now)?;
        self.next = Some(now + jittered(self.gap, rng));
        self.gap = (self.gap * 2).min(CANDIDATES_RESEND.1);
        Some(Control::Candidates { r#gen: self.generation, addrs: self.addrs.clone() })
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::super::tests::origin;
    use super::*;

    #[test]
    fn a_list_is_resent_until_its_own_generation_is_acknowledged() {
        let (now, mut rng) = (origin(), Rng::seed_from_u64(1));
        let mut announcement = Announcement::default();
        announcement.again(now);
        assert_eq!(announcement.due(), None, "there is nothing to tell");
        assert!(!announcement.set(now, &[]));
        let addrs = [SocketAddr::from(([192, 0, 2, 1], 1))];
        assert!(announcement.set(now, &addrs) && !announcement.set(now, &addrs));
        let told = Control::Candidates { r#gen: 1, addrs: addrs.to_vec() };
        assert_eq!(announcement.poll(now, &mut rng), Some(told));
        assert_eq!(announcement.poll(now, &mut rng), None, "the next one has its gap");
        assert!(announcement.set(now, &[]), "an empty list takes the old one back");
        assert!(!announcement.acknowledge(&acknowledgement(1)));
        assert!(announcement.acknowledge(&acknowledgement(2)));
        assert_eq!(announcement.due(), None);
        assert!(!announcement.acknowledge(&acknowledgement(2)));
    }
}
