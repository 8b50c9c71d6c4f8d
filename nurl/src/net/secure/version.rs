//! The versions of the protocol above the handshake, and their negotiation.
//!
//! `nurl/2` in prologue and labels names the handshake and the outermost framing, which stay. What is spoken above them has
//! a number of its own. Each side says, in its half of a handshake and of a registration at a hub, the lowest and the
//! highest number that it speaks. Both take **the highest common one** for that session, so a mesh is upgraded node by
//! node: first to programs that speak the old and the new version, then to some that speak the new one alone.
//!
//! The range lies in the encrypted part of the handshake, whose transcript both sides authenticate: nobody on the way can
//! lower it. A program from before says nothing, which is zeros, and speaks the first version.
//!
//! Two sides without a common version have no session. Each knows why, so each says it: [`Incompatible`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::key::PublicKey;

/// A version of what is spoken above the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u8);

impl Version {
    /// The version in which everything began to be negotiated.
    pub const FIRST: Version = Version(2);

    /// Bytes that this version puts behind the fields of each path message. It is the only difference that the number
    /// makes today, and no version that is spoken has any: tests let a version that doesn't exist have one, so that the
    /// negotiation is seen to take effect.
    pub const fn path_tail(self) -> &'static [u8] {
        if self.0 > Version::FIRST.0 { &[0xA5] } else { &[] }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The versions that a program speaks: all from the lowest to the highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Versions {
    lowest: u8,
    highest: u8,
}

impl Versions {
    /// Those of this program.
    pub const SPOKEN: Versions = Versions::only(Version::FIRST);

    const fn only(version: Version) -> Versions {
        Versions { lowest: version.0, highest: version.0 }
    }

    /// Other ones, to try what an upgrade does.
    ///
    /// # Panics
    /// If the lowest is zero, or above the highest.
    #[cfg(any(test, feature = "internals"))]
    pub const fn made_up(lowest: u8, highest: u8) -> Versions {
        assert!(0 < lowest && lowest <= highest, "a range of versions is not empty");
        Versions { lowest, highest }
    }

    /// The two bytes on the wire: the lowest, the highest.
    pub const fn to_bytes(self) -> [u8; 2] {
        [self.lowest, self.highest]
    }

    /// Reads the two bytes; `None` if they are no range.
    pub const fn from_bytes(bytes: [u8; 2]) -> Option<Versions> {
        match bytes {
            [0, 0] => Some(Versions::only(Version::FIRST)),
            [0, _] => None,
            [lowest, highest] if lowest > highest => None,
            [lowest, highest] => Some(Versions { lowest, highest }),
        }
    }

    /// The version that both sides use: the highest common one.
    pub fn common(self, other: Versions) -> Option<Version> {
        let highest = self.highest.min(other.highest);
        (highest >= self.lowest.max(other.lowest)).then_some(Version(highest))
    }

    /// What is to be done about a peer that has no version in common with us, who speak these.
    pub fn remedy(self, theirs: Versions) -> &'static str {
        if theirs.highest < self.lowest { "update it" } else { "update this node" }
    }
}

/// As in "speaks versions 2 to 3".
impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.lowest, self.highest)
    }
}

/// A peer without a common version is told of once in this time, however often the two meet.
pub const TOLD_EVERY: Duration = Duration::from_secs(60);

/// A peer is listed for so long after the last time that it was met: a mesh of members that can't talk to each other is
/// seen in one look.
pub const LISTED_FOR: Duration = Duration::from_secs(600);

/// The most peers of which it is kept. A peer beyond them is only counted.
pub const MAX_LISTED: usize = 256;

/// The peers met lately with which there is no common version.
#[derive(Debug, Default)]
pub struct Incompatible(BTreeMap<PublicKey, Met>);

#[derive(Debug)]
struct Met {
    theirs: Versions,
    told: Instant,
    last: Instant,
}

impl Incompatible {
    /// A peer with these versions was met, which it has proved. Returns whether to tell it.
    pub fn meet(&mut self, now: Instant, peer: PublicKey, theirs: Versions) -> bool {
        if let Some(met) = self.0.get_mut(&peer) {
            let due = met.theirs != theirs || now.saturating_duration_since(met.told) >= TOLD_EVERY;
            *met = Met { theirs, told: if due { now } else { met.told }, last: now };
            return due;
        }
        if self.0.len() >= MAX_LISTED {
            self.0.retain(|_, met| now.saturating_duration_since(met.last) < TOLD_EVERY);
        }
        let room = self.0.len() < MAX_LISTED;
        if room {
            self.0.insert(peer, Met { theirs, told: now, last: now });
        }
        room
    }

    /// There is a session with the peer.
    pub fn forget(&mut self, peer: &PublicKey) {
        self.0.remove(peer);
    }

    /// The peers met in the last [`LISTED_FOR`], and what they speak.
    pub fn list(&self, now: Instant) -> impl Iterator<Item = (PublicKey, Versions)> {
        let listed =
            self.0.iter().filter(move |(_, met)| now.saturating_duration_since(met.last) < LISTED_FOR);
        listed.map(|(peer, met)| (*peer, met.theirs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_take_the_highest_common_version_whoever_asks() {
        let range = Versions::made_up;
        for (ours, theirs, common) in [
            (range(2, 2), range(2, 2), Some(2)),
            (range(2, 2), range(2, 3), Some(2)),
            (range(2, 3), range(2, 3), Some(3)),
            (range(2, 3), range(3, 3), Some(3)),
            (range(2, 5), range(1, 4), Some(4)),
            (range(2, 2), range(3, 3), None),
            (range(1, 2), range(3, 255), None),
            (range(2, 2), range(1, 255), Some(2)),
        ] {
            assert_eq!(ours.common(theirs), common.map(Version), "{ours} and {theirs}");
            assert_eq!(theirs.common(ours), common.map(Version), "{theirs} and {ours}");
        }
        assert_eq!(range(3, 3).remedy(range(2, 2)), "update it");
        assert_eq!(range(2, 2).remedy(range(3, 3)), "update this node");
    }

    #[test]
    fn silence_is_the_first_version_and_no_other_bytes_are_anything_but_themselves() {
        assert_eq!(Versions::from_bytes([0, 0]), Some(Versions::SPOKEN));
        for lowest in 0..=255 {
            for highest in 0..=255 {
                let read = Versions::from_bytes([lowest, highest]);
                let is_range = 0 < lowest && lowest <= highest;
                assert_eq!(read.is_some(), is_range || [lowest, highest] == [0, 0]);
                if is_range {
                    assert_eq!(read.map(Versions::to_bytes), Some([lowest, highest]));
                }
            }
        }
    }

    #[test]
    fn a_peer_is_told_of_once_a_minute_and_at_once_when_it_has_changed() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let start = Instant::now();
        let (peer, mut met) = (PublicKey::from_bytes([1; 32]), Incompatible::default());
        let (old, new) = (Versions::made_up(1, 1), Versions::made_up(3, 3));
        let told: Vec<u64> =
            (0..150).filter(|s| met.meet(start + Duration::from_secs(*s), peer, old)).collect();
        assert_eq!(told, [0, 60, 120]);
        let now = start + Duration::from_secs(150);
        assert!(met.meet(now, peer, new));
        assert_eq!(met.list(now).collect::<Vec<_>>(), [(peer, new)]);
        assert_eq!(met.list(now + LISTED_FOR).count(), 0);
        met.forget(&peer);
        assert_eq!(met.list(now).count(), 0);
    }

    #[test]
    fn many_peers_are_told_of_up_to_a_bound() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let mut met = Incompatible::default();
        let key = |n: usize| PublicKey::from_bytes([(n / 256) as u8, n as u8].repeat(16).try_into().unwrap());
        let told = (0..3 * MAX_LISTED).filter(|n| met.meet(now, key(*n), Versions::SPOKEN)).count();
        assert_eq!((told, met.0.len()), (MAX_LISTED, MAX_LISTED));
        assert!(
            met.meet(now + TOLD_EVERY, key(2 * MAX_LISTED), Versions::SPOKEN),
            "later there is room again"
        );
    }
}
