//! Why a hub can't be used: a code for machines, a sentence for people.

use std::borrow::Cow;

use crate::net::reach::relay::CloseReason;
use crate::net::secure::version::Versions;

/// Why there is no connection to the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DownReason {
    /// The name doesn't resolve, or no address accepts a connection.
    Unreachable,
    /// The other side didn't prove that it holds the pinned key: the stream ended within the handshake, or
    /// carried something else. It may be a portal, a proxy, or a hub with another key. Nothing that it sends
    /// counts as the hub's statement.
    NotTheHub,
    /// The handshake or the registration took longer than 5 s, or no bytes came within 5 s after a PING.
    Silent,
    /// The stream ended after the hub had proved its key.
    Lost,
    /// The hub sent a frame that no hub sends.
    Protocol,
    /// The hub closed the connection and gave a reason.
    Closed(CloseReason),
    /// The client dropped the connection because our network changed.
    NetworkChanged,
    /// We have neither a pass nor an invitation.
    NoPass,
    /// There is no version that the hub and we speak.
    Versions {
        /// What the hub speaks.
        theirs: Versions,
        /// What we speak.
        ours: Versions,
    },
}

impl DownReason {
    /// The machine-readable name.
    pub fn as_str(self) -> &'static str {
        match self {
            DownReason::Unreachable => "unreachable",
            DownReason::NotTheHub => "not-a-hub",
            DownReason::Silent => "silent",
            DownReason::Lost => "lost",
            DownReason::Protocol => "protocol-error",
            DownReason::Closed(CloseReason::Full) => "overloaded",
            DownReason::Closed(reason) => reason.as_str(),
            DownReason::NetworkChanged => "network-changed",
            DownReason::NoPass => "no-pass",
            DownReason::Versions { .. } => "versions",
        }
    }

    /// A sentence for people, without the hub's address: the problem, and a remedy.
    pub fn sentence(self) -> Cow<'static, str> {
        let sentence = match self {
            DownReason::Versions { theirs, ours } => {
                let remedy = ours.remedy(theirs);
                return format!("it speaks versions {theirs}, this node {ours}: {remedy}").into();
            }
            DownReason::Unreachable => {
                "nobody accepts a connection: is `nurl hub` running there, and is its port open?"
            }
            DownReason::NotTheHub => {
                "something answers, but it doesn't hold the key in the ticket: a captive portal, a proxy whose hub \
                 isn't up, or a hub that lost its key and printed another ticket"
            }
            DownReason::Silent => {
                "it accepts the connection and falls silent: does the process hang, or does a firewall drop what \
                 it sends?"
            }
            DownReason::Lost => "it ended the connection without a word: was it killed?",
            DownReason::Protocol => "it sends what this version doesn't understand: update the older one",
            DownReason::Closed(CloseReason::Full) => {
                "it has as many clients as it takes: try again later, or give the mesh a second hub"
            }
            DownReason::Closed(CloseReason::UnknownNamespace) => {
                "it doesn't serve the mesh of this ticket: take the one that it printed"
            }
            DownReason::Closed(CloseReason::Version) => "it speaks another version: update the older one",
            DownReason::Closed(CloseReason::Replaced) => {
                "another process registered with this node's key: give one of the two a key of its own"
            }
            DownReason::Closed(CloseReason::Shutdown) => "it was told to stop: start it again",
            DownReason::NoPass | DownReason::Closed(CloseReason::NoPass) => {
                "this node has no pass, and its ticket no invitation: ask for a ticket with one (`nurl mesh invite`)"
            }
            DownReason::Closed(CloseReason::BadPass) => {
                "this node's pass is another key's or another mesh's: give it a state directory of its own"
            }
            DownReason::Closed(CloseReason::Expired) => {
                "the pass or the invitation has expired, or this machine's clock is wrong: ask for a new ticket"
            }
            DownReason::Closed(CloseReason::Revoked) => {
                "the pass or the invitation was revoked: ask whoever runs the mesh"
            }
            DownReason::Closed(CloseReason::UsedUp) => {
                "the invitation has let in as many as it may: ask for a new ticket (`nurl mesh invite`)"
            }
            DownReason::Closed(CloseReason::BadInvitation) => {
                "the ticket's invitation is none of this mesh's authority: take the ticket that it printed"
            }
            DownReason::Closed(CloseReason::NoIssuer) => {
                "it can't issue passes of this mesh: join first through a hub that can, such as the one that printed the ticket"
            }
            DownReason::Closed(_) => "it closed the connection: its log may say more",
            DownReason::NetworkChanged => "this machine's network changed, and the connection is made anew",
        };
        sentence.into()
    }

    /// Whether the hub, which has proved its key, refuses us and will do so again the next time.
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            DownReason::NoPass
                | DownReason::Versions { .. }
                | DownReason::Closed(
                    CloseReason::UnknownNamespace
                        | CloseReason::Version
                        | CloseReason::NoPass
                        | CloseReason::BadPass
                        | CloseReason::Expired
                        | CloseReason::Revoked
                        | CloseReason::UsedUp
                        | CloseReason::BadInvitation
                        | CloseReason::NoIssuer
                )
        )
    }

    /// Whether the hub may come back at any moment. A hub that answered and refuses us for now isn't tried more
    /// often than others: an overloaded hub would only get slower.
    pub(super) fn is_absence(self) -> bool {
        matches!(
            self,
            DownReason::Unreachable
                | DownReason::NotTheHub
                | DownReason::Silent
                | DownReason::Lost
                | DownReason::Closed(CloseReason::Shutdown)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const OTHERS: DownReason =
        DownReason::Versions { theirs: Versions::made_up(3, 3), ours: Versions::made_up(2, 2) };

    const ALL: [DownReason; 15] = [
        OTHERS,
        DownReason::Unreachable,
        DownReason::NotTheHub,
        DownReason::Silent,
        DownReason::Lost,
        DownReason::Protocol,
        DownReason::Closed(CloseReason::Bye),
        DownReason::Closed(CloseReason::Replaced),
        DownReason::Closed(CloseReason::UnknownNamespace),
        DownReason::Closed(CloseReason::Protocol),
        DownReason::Closed(CloseReason::Version),
        DownReason::Closed(CloseReason::Idle),
        DownReason::Closed(CloseReason::Full),
        DownReason::Closed(CloseReason::Shutdown),
        DownReason::NetworkChanged,
    ];

    #[test]
    fn every_reason_has_a_code_of_its_own() {
        let codes: BTreeSet<_> = ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(codes.len(), ALL.len());
    }

    #[test]
    fn only_a_hub_that_has_proved_its_key_refuses() {
        let refusals: Vec<_> = ALL.into_iter().filter(|reason| reason.is_refusal()).collect();
        let said = [CloseReason::UnknownNamespace, CloseReason::Version].map(DownReason::Closed);
        assert_eq!(refusals[0], OTHERS);
        assert_eq!(refusals[1..], said);
    }

    #[test]
    fn other_versions_are_said_with_what_to_do() {
        assert_eq!(OTHERS.sentence(), "it speaks versions 3 to 3, this node 2 to 2: update this node");
    }

    #[test]
    fn what_answers_without_the_key_is_named_as_a_portal_a_proxy_or_a_hub_that_lost_its_key() {
        let sentence = DownReason::NotTheHub.sentence();
        for word in ["captive portal", "proxy", "lost its key"] {
            assert!(sentence.contains(word), "{sentence}");
        }
    }
}
