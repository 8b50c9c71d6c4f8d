//! Membership verdicts that didn't fit the work plane's queue. They are levels, not edges: the last one of each
//! member is delivered later.
//!
//! A dropped message is sent again by its protocol. A verdict isn't: a view that misses a death waits for the dead
//! member for ever. So undelivered verdicts are kept here, at most two for each member of the table: its restart, and
//! its current state.

use std::collections::BTreeMap;

use crate::compute::job::MemberChange;
use crate::key::PublicKey;

/// Undelivered verdicts by member.
#[derive(Debug, Default)]
pub(super) struct Levels(BTreeMap<PublicKey, Level>);

#[derive(Debug, Default)]
struct Level {
    restarted: bool,
    last: Option<MemberChange>,
}

impl Levels {
    /// Keeps a change. It replaces an earlier one of the same member, except a restart, which is kept beside it.
    pub(super) fn keep(&mut self, peer: PublicKey, change: MemberChange) {
        let level = self.0.entry(peer).or_default();
        match change {
            MemberChange::Restarted => level.restarted = true,
            change => level.last = Some(change),
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Passes the waiting changes to `tell`, until it returns false.
    pub(super) fn tell(&mut self, mut tell: impl FnMut(PublicKey, MemberChange) -> bool) {
        while let Some(mut entry) = self.0.first_entry() {
            let (peer, level) = (*entry.key(), entry.get_mut());
            if level.restarted && !tell(peer, MemberChange::Restarted) {
                return;
            }
            level.restarted = false;
            if level.last.is_some_and(|change| !tell(peer, change)) {
                return;
            }
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    /// The changes told with room for `room`.
    fn told(levels: &mut Levels, room: usize) -> Vec<(u8, MemberChange)> {
        let mut told = Vec::new();
        levels.tell(|peer, change| {
            let fits = told.len() < room;
            if fits {
                told.push((peer.as_bytes()[0], change));
            }
            fits
        });
        told
    }

    #[test]
    fn the_last_word_on_each_member_is_told_when_there_is_room_and_a_restart_is_never_lost() {
        let mut levels = Levels::default();
        levels.keep(key(1), MemberChange::Dead);
        levels.keep(key(1), MemberChange::Alive);
        levels.keep(key(2), MemberChange::Alive);
        levels.keep(key(2), MemberChange::Restarted);
        levels.keep(key(2), MemberChange::Dead);
        assert_eq!(told(&mut levels, 0), []);
        assert_eq!(told(&mut levels, 2), [(1, MemberChange::Alive), (2, MemberChange::Restarted)]);
        levels.keep(key(2), MemberChange::Left);
        assert_eq!(told(&mut levels, 9), [(2, MemberChange::Left)]);
        assert!(levels.is_empty());
    }
}
