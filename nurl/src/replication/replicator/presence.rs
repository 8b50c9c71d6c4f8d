//! Since when, and until when, this node has been among others.
//!
//! A node that saw no other member alive for longer than the marks of deletions are kept doesn't know what was deleted. One that
//! has been there for as long without such a gap *vouches*: what it doesn't have was never there, or is gone.

use std::time::Duration;

/// How often the time at which others were last seen is made durable.
const STORED_EVERY: Duration = Duration::from_secs(3600);

/// Times since 1970; none before another member was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Presence {
    /// When it began, or came back after a long absence.
    pub since: Option<Duration>,
    /// When another member was last seen to be alive.
    pub seen: Option<Duration>,
}

impl Presence {
    /// Whether no other member was seen for longer than `kept`.
    pub(super) fn is_broken(&self, wall: Duration, kept: Duration) -> bool {
        self.seen.is_some_and(|seen| wall.saturating_sub(seen) > kept)
    }

    /// Notes that a member is alive.
    pub(super) fn see(&mut self, wall: Duration, kept: Duration) {
        if self.since.is_none() || self.is_broken(wall, kept) {
            self.since = Some(wall);
        }
        self.seen = self.seen.max(Some(wall));
    }

    /// Whether this node has been there, without a long absence, for as long as deletions are remembered.
    pub(super) fn vouches(&self, wall: Duration, kept: Duration) -> bool {
        let since = self.since.filter(|_| !self.is_broken(wall, kept));
        since.is_some_and(|since| wall.saturating_sub(since) >= kept)
    }

    /// Whether the durable record is too old.
    pub(super) fn outdates(&self, stored: &Presence) -> bool {
        let (Some(now), before) = (self.seen, stored.seen) else { return false };
        self.since != stored.since || before.is_none_or(|before| now.saturating_sub(before) >= STORED_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_vouches_once_it_has_been_there_for_as_long_as_deletions_are_remembered() {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let kept = days(30);
        let mut presence = Presence::default();
        assert!(!presence.is_broken(days(100), kept) && !presence.vouches(days(100), kept));
        for day in 100..130 {
            presence.see(days(day), kept);
            assert!(!presence.vouches(days(day), kept), "{day}");
        }
        presence.see(days(130), kept);
        assert!(presence.vouches(days(130), kept));
        // Away for exactly as long, then for longer.
        assert!(!presence.is_broken(days(160), kept) && presence.is_broken(days(161), kept));
        assert!(!presence.vouches(days(161), kept));
        let stored = presence;
        presence.see(days(161), kept);
        assert!(presence.outdates(&stored) && !presence.vouches(days(161), kept));
        assert_eq!(presence.since, Some(days(161)));
        let stored = presence;
        presence.see(days(161) + Duration::from_secs(3599), kept);
        assert!(!presence.outdates(&stored));
        presence.see(days(161) + Duration::from_secs(3600), kept);
        assert!(presence.outdates(&stored));
    }
}
