//! Whose task it is: the peer that asked for it over its own session, with the standing that its pass proved there.

use crate::authority::account::Account;
use crate::authority::checker::Standing;
use crate::authority::invitation::InvitationId;
use crate::authority::level::Level;
use crate::key::PublicKey;

/// The peer that submitted a task, as its own session with this worker proved it. No part of it comes from the task's
/// message, so no other peer can claim it; a task that was forwarded, or that another worker gave back, has it too.
///
/// A command submits with a throwaway key, by a slip of its person's pass. Name, holder and invitation are then those of
/// the pass, and the level is the slip's: at most [`Level::Submit`].
#[derive(Clone, PartialEq, Eq)]
pub struct Submitter {
    key: PublicKey,
    /// None: nothing is proved about the key but itself.
    standing: Option<Standing>,
}

impl Submitter {
    /// A peer with what its session proved, if it proved anything.
    #[doc(hidden)]
    pub fn new(key: PublicKey, standing: Option<Standing>) -> Submitter {
        Submitter { key, standing }
    }

    /// The key that submitted: a throwaway one, if it was by a slip.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// The key of the pass; the submitter's own, unless that was by a slip.
    pub fn holder(&self) -> PublicKey {
        self.standing.as_ref().map_or(self.key, |standing| standing.grant.key)
    }

    /// The name in the pass; empty if it has none. The authority gave it to a peer that was admitted by hand. A peer that
    /// came by an [`invitation`](Submitter::invitation) chose it itself, so it tells nothing then.
    pub fn name(&self) -> &str {
        self.standing.as_ref().map_or("", |standing| &standing.grant.name)
    }

    /// What the peer may do.
    pub fn level(&self) -> Level {
        self.standing.as_ref().map_or(Level::Look, |standing| standing.level)
    }

    /// The invitation by which the pass came; none: the authority admitted the peer by hand.
    pub fn invitation(&self) -> Option<InvitationId> {
        self.standing.as_ref().and_then(|standing| standing.grant.invitation)
    }

    /// Whether the authority itself named this peer so.
    pub(super) fn is_named(&self, name: &str) -> bool {
        let admitted = self.standing.as_ref().filter(|standing| standing.grant.invitation.is_none());
        admitted.is_some_and(|standing| standing.grant.name == name)
    }

    /// On whose account it has what it has here.
    pub(crate) fn account(&self) -> Account {
        self.standing.as_ref().map_or(Account::alone(self.key), |standing| standing.account(self.key))
    }
}

impl std::fmt::Debug for Submitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submitter")
            .field("key", &self.key)
            .field("name", &self.name())
            .field("level", &self.level())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Submitter {
    /// A peer of which nothing is proved but its key.
    pub(crate) fn alone(key: PublicKey) -> Submitter {
        Submitter::new(key, None)
    }

    pub(crate) fn standing(&self) -> Option<Standing> {
        self.standing.clone()
    }

    /// The peer of an account, at this level and with this name.
    pub(crate) fn for_tests(account: Account, level: Level, name: &str) -> Submitter {
        let invitation = match account.group() {
            crate::authority::account::Party::Invitation(id) => Some(id),
            _ => None,
        };
        let grant = crate::authority::pass::Grant {
            name: name.to_owned(),
            invitation,
            ..crate::authority::pass::Grant::new(account.pass(), level, 0, 1)
        };
        let pass = crate::authority::pass::PassHash([0; 32]);
        Submitter::new(account.key(), Some(Standing { level, grant: grant.into(), pass }))
    }
}
