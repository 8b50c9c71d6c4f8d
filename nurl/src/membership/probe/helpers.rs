//! The members that were asked to ping a probe's target, and their NACKs (Lifeguard §4.1).

use std::collections::BTreeSet;

use crate::key::PublicKey;

/// The helpers of one probe.
#[derive(Debug, Clone, Default)]
pub struct ProbeHelpers {
    asked: Vec<PublicKey>,
    /// Number of helpers, from the front, that have a session with this node, so that their silence is evidence.
    heard: usize,
    /// Helpers that sent a NACK.
    nacks: BTreeSet<PublicKey>,
}

impl ProbeHelpers {
    /// Helpers that are being asked; the first `heard` of them have a session with this node.
    pub fn new(asked: Vec<PublicKey>, heard: usize) -> ProbeHelpers {
        ProbeHelpers { asked, heard, nacks: BTreeSet::new() }
    }

    /// Whether `key` was asked.
    pub fn contains(&self, key: &PublicKey) -> bool {
        self.asked.contains(key)
    }

    /// A NACK. False, without effect, if `from` wasn't asked.
    pub fn nack(&mut self, from: PublicKey) -> bool {
        let asked = self.contains(&from);
        if asked {
            self.nacks.insert(from);
        }
        asked
    }

    /// Helpers that have a session but didn't answer.
    pub fn silent(&self) -> Vec<PublicKey> {
        self.asked.iter().take(self.heard).filter(|helper| !self.nacks.contains(*helper)).copied().collect()
    }

    /// The keys of all that were asked.
    pub fn into_asked(self) -> Vec<PublicKey> {
        self.asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_silence_of_a_helper_with_a_session_is_evidence() {
        let key = |at: u8| PublicKey::from_bytes([at; 32]);
        for (heard, nacks, silent) in [
            (0, vec![], vec![]),
            (2, vec![], vec![1, 2]),
            (2, vec![1], vec![2]),
            (2, vec![1, 2, 3], vec![]),
            (3, vec![9], vec![1, 2, 3]),
        ] {
            let mut helpers = ProbeHelpers::new([1, 2, 3].map(key).to_vec(), heard);
            for from in nacks {
                assert_eq!(helpers.nack(key(from)), from <= 3, "only those that were asked");
            }
            assert_eq!(helpers.silent(), silent.into_iter().map(key).collect::<Vec<_>>());
        }
    }
}
