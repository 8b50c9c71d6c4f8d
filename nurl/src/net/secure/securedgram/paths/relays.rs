//! The hubs over which the peer may be reached. Each is measured with challenges of its own; one of them is the home
//! relay, which carries the data, or stands in reserve behind the direct path.

use std::time::{Duration, Instant};

use super::challenge::{ConnectivityCheck, Rtt};
use super::config::{FLAPS_FORGIVEN_AFTER, LOST_HOLD, MAX_RELAYS};
use super::context::PathContext;
use super::evidence::patience;
use super::score::replaces;
use crate::key::PublicKey;

/// A hub over which the peer may be reached.
#[derive(Debug)]
pub(super) struct RelayLeg {
    pub(super) hub: PublicKey,
    pub(super) check: ConnectivityCheck,
    /// The peer answered over this leg, and no doubt has come since.
    pub(super) proven: bool,
    /// When the peer was last heard over it, by a datagram that wasn't late.
    pub(super) heard: Option<Instant>,
    /// When application data that came over it must be answered over it.
    answer_due: Option<Instant>,
    /// Losses while in use that are not forgiven yet.
    losses: u32,
    /// Challenges have gone unanswered for too long, since this time.
    overdue: Option<Instant>,
    /// It may not carry the data again before this time, if another leg can. A hub that loses most packets lets some
    /// echoes pass, at a short round trip: without a hold, each of them would bring the data back to it.
    held_until: Option<Instant>,
}

impl RelayLeg {
    fn new(hub: PublicKey) -> RelayLeg {
        let check = ConnectivityCheck::default();
        RelayLeg {
            hub,
            check,
            proven: false,
            heard: None,
            answer_due: None,
            losses: 0,
            overdue: None,
            held_until: None,
        }
    }

    /// Whether it may carry the data although there are other legs.
    fn is_selectable(&self, now: Instant) -> bool {
        self.proven && self.held_until.is_none_or(|until| until <= now)
    }

    /// Another leg took over while this one was in doubt. `forgiven` says that it had carried the data for long.
    fn lose(&mut self, now: Instant, forgiven: bool) {
        self.losses = if forgiven { 1 } else { self.losses.saturating_add(1) };
        let doublings = self.losses.saturating_sub(1).min(10);
        self.held_until = Some(now + (LOST_HOLD.0 * 2u32.pow(doublings)).min(LOST_HOLD.1));
    }

    fn rtt(&self) -> Option<Duration> {
        self.check.rtt.smoothed()
    }

    /// When its challenges will have gone unanswered for too long: as long as data may.
    fn overdue_at(&self) -> Option<Instant> {
        let asked = self.check.asked().filter(|_| self.proven && self.overdue.is_none())?;
        Some(asked + patience(&self.check.rtt, Duration::ZERO))
    }
}

/// At most [`MAX_RELAYS`] legs.
#[derive(Debug, Default)]
pub(super) struct RelayLegs {
    /// The hub that we prefer comes first.
    legs: Vec<RelayLeg>,
    /// The leg in use, or in reserve behind the direct path.
    home: Option<PublicKey>,
    /// Since when.
    home_since: Option<Instant>,
}

impl RelayLegs {
    /// Replaces the hubs. Those that stay keep their measurements. Returns whether one was added.
    pub(super) fn set(&mut self, now: Instant, hubs: &[PublicKey], established: bool) -> bool {
        let mut old = std::mem::take(&mut self.legs);
        let mut added = false;
        for &hub in hubs {
            if self.legs.len() == MAX_RELAYS || self.get(hub).is_some() {
                continue;
            }
            match old.iter().position(|leg| leg.hub == hub) {
                Some(index) => self.legs.push(old.swap_remove(index)),
                None => {
                    let mut leg = RelayLeg::new(hub);
                    if established {
                        leg.check.restart(now);
                    }
                    self.legs.push(leg);
                    added = true;
                }
            }
        }
        added
    }

    pub(super) fn is_empty(&self) -> bool {
        self.legs.is_empty()
    }

    pub(super) fn get(&self, hub: PublicKey) -> Option<&RelayLeg> {
        self.legs.iter().find(|leg| leg.hub == hub)
    }

    fn get_mut(&mut self, hub: PublicKey) -> Option<&mut RelayLeg> {
        self.legs.iter_mut().find(|leg| leg.hub == hub)
    }

    /// The hub of the leg in use or in reserve.
    pub(super) fn home(&self) -> Option<PublicKey> {
        self.home
    }

    pub(super) fn home_leg(&self) -> Option<&RelayLeg> {
        self.legs.iter().find(|leg| Some(leg.hub) == self.home)
    }

    /// The round-trip times of the home relay, if it is proven.
    pub(super) fn proven_rtt(&self) -> Rtt {
        self.home_leg().filter(|leg| leg.proven).map(|leg| leg.check.rtt).unwrap_or_default()
    }

    /// The leg that gets copies while the home relay isn't proven.
    pub(super) fn standby(&self) -> Option<PublicKey> {
        if self.home_leg().is_some_and(|leg| leg.proven) {
            return None;
        }
        self.legs.iter().find(|leg| Some(leg.hub) != self.home).map(|leg| leg.hub)
    }

    /// Chooses the home relay: a proven leg that isn't held before others, and the present one unless another is faster by
    /// the margin, or answers what the present one leaves unanswered for too long. `in_doubt` says that the present one
    /// gives no answers: if it is left, it is held. Returns whether it has changed.
    pub(super) fn choose_home(&mut self, now: Instant, in_doubt: bool) -> bool {
        let overdue = self.home_leg().and_then(|home| home.overdue);
        let rank = |(index, leg): &(usize, &RelayLeg)| {
            let late = leg.overdue.is_some();
            (!leg.is_selectable(now), !leg.proven, late, leg.rtt().is_none(), leg.rtt(), *index)
        };
        let best = self.legs.iter().enumerate().min_by_key(rank).map(|(_, leg)| leg);
        let keep = match (self.home_leg(), best) {
            (Some(home), Some(best)) => {
                let faster = best.proven
                    && match overdue {
                        Some(asked) => best.check.proven_since(asked),
                        None => replaces(&best.check.rtt, &home.check.rtt),
                    };
                home.is_selectable(now) >= best.is_selectable(now) && home.proven >= best.proven && !faster
            }
            _ => false,
        };
        let best = best.map(|leg| leg.hub);
        let changed = !keep && best != self.home;
        if changed {
            let forgiven = self.home_since.is_some_and(|since| now >= since + FLAPS_FORGIVEN_AFTER);
            let fails = in_doubt || overdue.is_some();
            if let Some(left) = self.home.filter(|_| fails).and_then(|home| self.get_mut(home)) {
                left.lose(now, forgiven);
            }
            (self.home, self.home_since) = (best, Some(now));
        }
        changed
    }

    /// An echo returned over `hub`. Returns whether it answers an open challenge.
    pub(super) fn echo(&mut self, now: Instant, hub: PublicKey, data: &[u8; 8]) -> bool {
        let Some(leg) = self.get_mut(hub) else { return false };
        if leg.check.echo(now, data).is_none() {
            return false;
        }
        (leg.proven, leg.overdue) = (true, None);
        leg.check.sample_then(now, None);
        true
    }

    /// Whether a challenge over the home relay has just been unanswered for too long.
    pub(super) fn home_becomes_overdue(&mut self, now: Instant) -> bool {
        let Some(home) = self.home.and_then(|home| self.get_mut(home)) else { return false };
        let overdue = home.overdue_at().is_some_and(|at| at <= now);
        if overdue {
            home.overdue = home.check.asked();
        }
        overdue
    }

    /// Checks every leg; `proven` legs must answer again if `in_doubt`.
    pub(super) fn restart(&mut self, now: Instant, in_doubt: bool) {
        for leg in &mut self.legs {
            leg.proven &= !in_doubt;
            leg.overdue = None;
            leg.check.restart(now);
        }
    }

    /// The session is over.
    pub(super) fn close(&mut self) {
        for leg in &mut self.legs {
            leg.check.reset();
            (leg.proven, leg.heard, leg.answer_due, leg.overdue) = (false, None, None, None);
        }
    }

    /// Measures the proven legs, unless a measurement is planned.
    pub(super) fn measure(&mut self, now: Instant) {
        for leg in self.legs.iter_mut().filter(|leg| leg.proven) {
            leg.check.schedule_if_idle(now);
        }
    }

    /// Measures the home relay, unless a measurement is planned.
    pub(super) fn measure_home(&mut self, now: Instant) {
        if let Some(home) = self.home.and_then(|home| self.get_mut(home)) {
            home.check.schedule_if_idle(now);
        }
    }

    /// Draws the challenges that are due.
    pub(super) fn draw_due(&mut self, cx: &mut PathContext<'_>) -> Vec<(PublicKey, [u8; 8])> {
        let mut due = Vec::new();
        for leg in self.legs.iter_mut().filter(|leg| leg.check.is_due(cx.now)) {
            leg.proven &= !leg.check.is_silent();
            due.push((leg.hub, leg.check.issue(cx.now, cx.config.slow_check, cx.rng)));
        }
        due
    }

    /// The peer was heard over `hub`, not late.
    pub(super) fn hear(&mut self, now: Instant, hub: PublicKey) {
        if let Some(leg) = self.get_mut(hub) {
            leg.heard = Some(now);
        }
    }

    /// Application data came over `hub`: it is to be answered there by `at`.
    pub(super) fn owe_answer(&mut self, hub: PublicKey, at: Instant) {
        if let Some(leg) = self.get_mut(hub) {
            leg.answer_due.get_or_insert(at);
        }
    }

    /// Data, or a keepalive in its place, goes over `hub`. Returns whether there is such a leg.
    pub(super) fn answered(&mut self, hub: PublicKey) -> bool {
        self.get_mut(hub).map(|leg| leg.answer_due = None).is_some()
    }

    /// The legs over which application data came that must be answered now.
    pub(super) fn answers_due(&self, now: Instant) -> impl Iterator<Item = PublicKey> {
        let due = move |leg: &&RelayLeg| leg.answer_due.is_some_and(|at| at <= now);
        self.legs.iter().filter(due).map(|leg| leg.hub)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let legs = self.legs.iter().flat_map(|leg| [leg.check.next(), leg.answer_due]);
        legs.chain([self.home_leg().and_then(RelayLeg::overdue_at)]).flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::origin;
    use super::*;

    fn hub(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    #[test]
    fn the_home_relay_is_a_proven_one_and_changes_only_for_a_margin() {
        // The round-trip times in ms of three hubs, if they are proven; the home before, and after.
        for (rtts, before, after) in [
            ([None, None, None], None, Some(1)),
            ([None, None, None], Some(2), Some(2)),
            ([None, Some(90), None], None, Some(2)),
            ([None, Some(90), None], Some(1), Some(2)),
            ([Some(40), Some(90), None], Some(2), Some(1)),
            ([Some(85), Some(90), None], Some(2), Some(2)),
            ([Some(85), Some(90), Some(10)], Some(9), Some(3)),
        ] {
            let mut relays = RelayLegs::default();
            assert!(relays.set(origin(), &[hub(1), hub(2), hub(3)], false));
            for (leg, rtt) in relays.legs.iter_mut().zip(rtts) {
                leg.proven = rtt.is_some();
                rtt.into_iter().for_each(|ms| leg.check.rtt.sample(Duration::from_millis(ms)));
            }
            relays.home = before.map(hub);
            let changed = relays.choose_home(origin(), false);
            assert_eq!((relays.home, changed), (after.map(hub), before != after), "{rtts:?} {before:?}");
        }
    }

    /// Two hubs, the nearer one of which answers at 20 ms and is the home, the other one at 90 ms.
    fn near_and_far() -> RelayLegs {
        let mut relays = RelayLegs::default();
        assert!(relays.set(origin(), &[hub(1), hub(2)], false));
        for (leg, ms) in relays.legs.iter_mut().zip([20, 90]) {
            leg.proven = true;
            leg.check.rtt.sample(Duration::from_millis(ms));
        }
        assert!(relays.choose_home(origin(), false));
        assert_eq!(relays.home, Some(hub(1)));
        relays
    }

    #[test]
    fn a_leg_that_was_lost_is_held_for_longer_each_time_until_it_lasts() {
        let mut relays = near_and_far();
        let mut now = origin();
        for (lasted_s, held_s) in [(1, 2), (1, 4), (1, 8), (59, 16), (60, 2), (1, 4)] {
            now += Duration::from_secs(lasted_s);
            relays.legs[0].proven = false;
            assert!(relays.choose_home(now, true), "another takes over");
            assert_eq!(relays.home, Some(hub(2)));
            relays.legs[0].proven = true;
            now += Duration::from_secs(held_s) - Duration::from_millis(1);
            assert!(!relays.choose_home(now, false), "held for {held_s} s");
            now += Duration::from_millis(1);
            assert!(relays.choose_home(now, false));
            assert_eq!(relays.home, Some(hub(1)));
        }
    }

    #[test]
    fn a_held_leg_carries_if_no_other_can_and_a_change_without_doubt_holds_nothing() {
        let mut relays = near_and_far();
        relays.legs[0].proven = false;
        assert!(relays.choose_home(origin(), true));
        (relays.legs[0].proven, relays.legs[1].proven) = (true, false);
        assert!(relays.choose_home(origin(), true), "the only proven one");
        assert_eq!(relays.home, Some(hub(1)));
        let mut relays = near_and_far();
        relays.legs[0].proven = false;
        assert!(relays.choose_home(origin(), false));
        relays.legs[0].proven = true;
        assert!(relays.choose_home(origin(), false), "nothing was in doubt");
    }

    #[test]
    fn hubs_that_stay_keep_what_they_have_shown() {
        let mut relays = RelayLegs::default();
        assert!(relays.set(origin(), &[hub(1), hub(1), hub(2)], true));
        relays.legs[1].proven = true;
        assert!(!relays.set(origin(), &[hub(2), hub(1)], true), "none is new");
        assert_eq!(relays.legs.iter().map(|leg| leg.proven).collect::<Vec<_>>(), [true, false]);
        assert!(!relays.set(origin(), &[], true) && relays.is_empty());
    }
}
