//! Why a hub can't be used: for machines a code, for people a sentence.

use crate::net::relay::CloseReason;

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DownReason {
    /// The name doesn't resolve, or nobody accepts.
    Unreachable,
    /// What accepts the connection didn't prove that it holds the pinned key: the stream ended within the
    /// handshake, or carried something else. That may be a portal, a proxy, or a hub with another key; nothing of
    /// what it says is a hub's word.
    NotTheHub,
    /// Handshake and registration weren't done within 5 s, or nothing was heard for 5 s after a PING.
    Silent,
    /// The stream of a hub that had proved its key ended.
    Lost,
    /// The hub sent what no hub sends.
    Protocol,
    /// The hub closed the connection and said why.
    Closed(CloseReason),
    /// We gave it up because our network changed.
    NetworkChanged,
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
        }
    }

    /// A sentence for people, without the hub's address: what is wrong, and what to do.
    pub fn sentence(self) -> &'static str {
        match self {
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
            DownReason::Closed(_) => "it closed the connection: its log may say more",
            DownReason::NetworkChanged => "this machine's network changed, and the connection is made anew",
        }
    }

    /// Whether the hub, which has proved its key, doesn't want us and will say the same the next time.
    pub fn is_refusal(self) -> bool {
        matches!(self, DownReason::Closed(CloseReason::UnknownNamespace | CloseReason::Version))
    }

    /// Whether it may be there again at any moment. A hub that answered and doesn't want us now isn't asked more
    /// often than others: one that is overloaded would only get slower.
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

    const ALL: [DownReason; 14] = [
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
        assert_eq!(refusals, said);
    }

    #[test]
    fn what_answers_without_the_key_is_named_as_a_portal_a_proxy_or_a_hub_that_lost_its_key() {
        let sentence = DownReason::NotTheHub.sentence();
        for word in ["captive portal", "proxy", "lost its key"] {
            assert!(sentence.contains(word), "{sentence}");
        }
    }
}
