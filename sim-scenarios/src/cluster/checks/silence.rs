//! The check that no silent node is held alive.
//!
//! A node is silent to another one if none of its packets can have reached the other, directly or through third
//! nodes; the world knows this. An observer that was isolated meanwhile has 90 s, since its verdicts are held
//! back for 60 s.

use std::time::Duration;

use chaos::property::Violation;
use nurl::PublicKey;
use nurl::internals::node::MemberInfo;

/// The time within which a silent node must be held dead: the longest suspicion in a mesh of a hundred is 48 s.
pub(super) const SILENT: Duration = Duration::from_secs(60);

/// The same for an observer that was isolated meanwhile.
pub(super) const SILENT_TO_THE_ISOLATED: Duration = Duration::from_secs(90);

/// Checks that no member that has been silent for `limit` or longer is held alive.
pub(super) fn none_held_alive(
    by: &str,
    members: &[MemberInfo],
    limit: Duration,
    long_silent: impl Fn(&PublicKey) -> bool,
) -> Result<(), Violation> {
    match members.iter().find(|member| member.state.is_live() && long_silent(&member.key)) {
        None => Ok(()),
        Some(member) => Err(Violation::safety(
            "a node that has been silent on every leg for a minute is not held alive",
            format!("{by} holds {:?} {}, silent for {limit:?}", member.key, member.state.as_str()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{key, member};
    use super::*;
    use nurl::internals::membership::State;

    #[test]
    fn a_silent_member_that_is_held_alive_is_seen() {
        for (state, broken) in [(State::Alive, true), (State::Suspect, true), (State::Dead, false)] {
            let found = none_held_alive("a", &[member(1, State::Alive), member(2, state)], SILENT, |of| {
                *of == key(2)
            });
            assert_eq!(found.is_err(), broken, "{state:?}");
        }
    }
}
