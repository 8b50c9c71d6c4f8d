//! What a pass permits.

/// The levels of a pass. Each permits what the one before it does; [`Issuer`](Level::Issuer) permits what a member may,
/// and issues passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// See who is there, and reach peers.
    Look,
    /// Submit tasks, and read state.
    Submit,
    /// Be a member: be probed, gossip, write state, keep records and groups at hubs.
    Member,
    /// Execute tasks and own keys: have a place on the ring.
    Worker,
    /// A member that holds the authority's key and enrols newcomers.
    Issuer,
}

impl Level {
    /// All levels, the least first.
    pub const ALL: [Level; 5] = [Level::Look, Level::Submit, Level::Member, Level::Worker, Level::Issuer];

    /// Whether it permits to submit tasks and to read state.
    pub fn may_submit(self) -> bool {
        self >= Level::Submit
    }

    /// Whether it permits to be a member.
    pub fn may_be_member(self) -> bool {
        self >= Level::Member
    }

    /// Whether it gives a place on the ring.
    pub fn may_work(self) -> bool {
        self == Level::Worker
    }

    /// Whether it permits all that `other` does.
    pub fn permits(self, other: Level) -> bool {
        match other {
            Level::Worker => self.may_work(),
            other => self >= other,
        }
    }

    /// Whether hubs without the authority's key may ask its holder for passes.
    pub const fn may_issue(self) -> bool {
        matches!(self, Level::Issuer)
    }

    /// The level in one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Look => "look",
            Level::Submit => "submit",
            Level::Member => "member",
            Level::Worker => "worker",
            Level::Issuer => "issuer",
        }
    }

    pub(crate) const fn to_byte(self) -> u8 {
        match self {
            Level::Look => 0,
            Level::Submit => 1,
            Level::Member => 2,
            Level::Worker => 3,
            Level::Issuer => 4,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Level> {
        Level::ALL.get(usize::from(byte)).copied()
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Level {
    type Err = NotALevel;

    fn from_str(text: &str) -> Result<Level, NotALevel> {
        Level::ALL.into_iter().find(|level| level.as_str() == text).ok_or(NotALevel)
    }
}

/// A text is no level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a level: look, submit, member, worker and issuer are")]
pub struct NotALevel;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_permits_what_the_one_before_it_does_but_only_a_worker_works() {
        let permits = Level::ALL.map(|level| (level.may_submit(), level.may_be_member(), level.may_work()));
        assert_eq!(
            permits,
            [
                (false, false, false),
                (true, false, false),
                (true, true, false),
                (true, true, true),
                (true, true, false)
            ]
        );
        for level in Level::ALL {
            assert_eq!(Level::from_byte(level.to_byte()), Some(level));
            assert_eq!(level.as_str().parse(), Ok(level));
        }
        assert_eq!((Level::from_byte(5), "root".parse::<Level>()), (None, Err(NotALevel)));
    }
}
