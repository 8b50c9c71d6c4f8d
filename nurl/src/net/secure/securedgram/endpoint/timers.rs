//! The endpoint's timeouts.

use std::time::Instant;

use super::super::CloseReason;
use super::super::peer::UNANSWERED;
use super::super::table::Slot;
use super::Endpoint;
use crate::net::secure::session::REKEY_AFTER;

impl Endpoint {
    /// Handles the timeouts that are due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let unsettled: Vec<Slot> = self.dirty.iter().copied().collect();
        let mut due: Vec<Slot> =
            self.timers.iter().take_while(|(at, _)| *at <= now).map(|(_, slot)| *slot).collect();
        due.extend(unsettled.into_iter().filter(|slot| {
            self.table.get(*slot).and_then(|peer| peer.deadline()).is_some_and(|at| at <= now)
        }));
        due.sort_unstable();
        due.dedup();
        for slot in due {
            self.touch(slot);
            self.handle_peer_timeout(now, slot);
        }
    }

    fn handle_peer_timeout(&mut self, now: Instant, slot: Slot) {
        self.expire(now, slot);
        let Some(peer) = self.table.get_mut(slot) else { return };
        if peer.paths.poll_timeout().is_some_and(|at| at <= now) {
            peer.paths.handle_timeout(now);
        }
        if peer.confirm.as_ref().is_some_and(|confirm| confirm.at <= now) {
            self.send_confirm(now, slot);
        }

        let Some(peer) = self.table.get_mut(slot) else { return };
        let unanswered = peer.unanswered_since.is_some_and(|since| since + UNANSWERED <= now);
        if unanswered {
            peer.unanswered_since = None;
        }
        let rekey = peer.rekey_timer.is_some_and(|at| at <= now);
        if rekey {
            peer.rekey_timer = None;
        }
        let active =
            peer.keep || peer.last_app.is_some_and(|at| now.saturating_duration_since(at) < REKEY_AFTER);
        let retry = peer.retry_at.is_some_and(|at| at <= now);
        if retry {
            peer.retry_at = None;
        }
        match &peer.attempt {
            Some(attempt) if attempt.is_over(now) => self.fail(now, slot),
            Some(attempt) if attempt.next_at <= now => self.send_try(now, slot),
            Some(_) => {}
            None if unanswered || (rekey && active) || retry => self.begin(now, slot),
            None => {}
        }
    }

    /// Drops sessions whose keys have expired.
    fn expire(&mut self, now: Instant, slot: Slot) {
        let Some(peer) = self.table.get_mut(slot) else { return };
        let mut released: Vec<u32> = Vec::new();
        if let Some(old) = peer.previous.take_if(|live| live.session.is_expired(now)) {
            released.push(old.session.local_index());
        }
        peer.next.retain(|live| {
            let expired = live.session.is_expired(now);
            if expired {
                released.push(live.session.local_index());
            }
            !expired
        });
        let worn_out = peer.current.as_ref().is_some_and(|live| live.session.is_expired(now));
        let keep = peer.keep;
        released.into_iter().for_each(|index| self.table.release_index(index));
        if worn_out {
            self.close_slot(now, slot, CloseReason::Expired);
            if keep {
                self.begin(now, slot);
            }
        }
    }
}
