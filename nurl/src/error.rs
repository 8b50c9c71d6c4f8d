//! Errors of a node's calls: one enum, each variant with a remedy.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::authority::level::Level;
use crate::compute::blob::desk::DeskError;
use crate::compute::job::custody::CustodyError;
use crate::compute::job::policy::NotAPolicy;
use crate::compute::job::{JobError, SubmitError};
use crate::key::PublicKey;
use crate::membership::MembershipError;
use crate::net::reach::hub_client::DownReason;
use crate::replication::replicator::{Decline, UpdateError};
use crate::store::StoreError;
use crate::transport;

/// Why a call on a node failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No hub of the ticket could be used in time. The node keeps trying.
    #[error("no hub can be used: {}", listed(hubs))]
    HubUnreachable {
        /// The hubs of the ticket, in its order.
        hubs: Vec<HubFailure>,
    },
    /// Every hub of the ticket has proved its key and refused this node, so trying again doesn't help.
    #[error("refused by the hub: {}", listed(hubs))]
    HubRefused {
        /// The hubs of the ticket, in its order.
        hubs: Vec<HubFailure>,
    },
    /// A hub relays for this node, but the other side doesn't accept it.
    #[error(transparent)]
    Refused(#[from] RefusedBy),
    /// A revocation isn't known elsewhere.
    #[error(transparent)]
    Revoke(#[from] RevokeError),
    /// An operation in progress has to finish first.
    #[error("{0}: try again when some of it is done")]
    Busy(&'static str),
    /// No UDP address could be bound.
    #[error("can't listen on {addr}: {error}")]
    Listen {
        /// The addresses, or the port of every address.
        addr: String,
        /// The operating system's error.
        error: std::io::Error,
    },
    /// Every receive on a UDP socket fails, so the node has ended.
    #[error("the UDP socket can't receive ({0}): does a sandbox or the kernel forbid recvmmsg here?")]
    Socket(String),
    /// The store can't be opened or written.
    #[error("the store: {0}")]
    Store(Arc<StoreError>),
    /// The operating system refused a thread.
    #[error("can't start the node's threads: {0}")]
    Threads(std::io::Error),
    /// What the node says of itself, or gossips, exceeds a member's limits.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// Who may submit tasks of a kind can't be meant so.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The call timed out.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The task failed.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The task was not accepted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The file of a large payload can't be read.
    #[error("{}: {error}", path.display())]
    LargeFile {
        /// The file.
        path: PathBuf,
        /// Why.
        error: DeskError,
    },
    /// A call about a detached task failed.
    #[error(transparent)]
    Detached(#[from] CustodyError),
    /// A datagram was refused.
    #[error(transparent)]
    Send(#[from] transport::SendError),
    /// A reliable message was refused.
    #[error(transparent)]
    Message(#[from] transport::reliable::SendError),
    /// A reliable message was accepted but will not be acknowledged. It may have arrived.
    #[error("the message was given up ({0:?}); it may have arrived")]
    MessageLost(transport::reliable::FailReason),
    /// A group call was refused.
    #[error(transparent)]
    Group(#[from] transport::group::GroupError),
    /// A state call failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The write is made, but fewer nodes than are wanted have acknowledged it so far: those of `by`. The node keeps sending
    /// it: wait for the mesh instead of repeating the write. Without a store it is lost if this process ends first.
    #[error("{}", UpdateError::Unconfirmed(by.clone()))]
    Unconfirmed {
        /// The nodes that have it; this one, if it keeps the key.
        by: Vec<PublicKey>,
    },
    /// The key given to [`Builder::issuer`](crate::Builder::issuer) is another mesh's authority.
    #[error("the authority's key is another mesh's than the ticket")]
    NotTheAuthority,
    /// The node has shut down.
    #[error("the node has shut down")]
    Closed,
    /// A bug ended the node.
    #[error(
        "the node's {plane} thread panicked ({message}): this is a defect in nurl; start it again, and report it"
    )]
    Panicked {
        /// The thread that panicked.
        plane: &'static str,
        /// The panic's message.
        message: String,
    },
}

impl Error {
    /// The machine-readable reason, for errors caused by hubs. With several hubs: that of the first reachable one.
    pub fn hub_reason(&self) -> Option<&'static str> {
        let (Error::HubUnreachable { hubs } | Error::HubRefused { hubs }) = self else { return None };
        let answered = hubs.iter().find(|hub| hub.reason != DownReason::Unreachable);
        answered.or(hubs.first()).map(|hub| hub.reason.as_str())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        Error::Store(Arc::new(error))
    }
}

/// Why a node doesn't start with its policies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The kind has a policy, and no handler: the name of one of them is wrong, and open to everybody then.
    #[error("kind {0} has a policy, and no handler here: give it a handler, or the policy the right kind")]
    NoHandler(String),
    /// It is no policy.
    #[error("kind {kind}: {error}")]
    NotAPolicy {
        /// The kind.
        kind: String,
        /// Why not.
        error: NotAPolicy,
    },
}

/// Who doesn't accept this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusedBy {
    /// A hub passes on this node's handshakes, and no member answers them.
    #[error(
        "a hub passes on what we say, but no member accepts us: is the mesh's secret in the ticket the present one, \
         and is our key on their allow-list?"
    )]
    Members,
    /// This node's pass permits less than its role needs.
    #[error(
        "this key's pass says {has}, and the role needs {needs}: ask for a ticket of that level (nurl mesh invite \
         --level {needs}), and use a key that has no pass yet"
    )]
    Level {
        /// What the pass says.
        has: Level,
        /// What the role needs.
        needs: Level,
    },
    /// By this machine's clock the passes of all others have ended, and the mesh's authority shows an earlier time.
    #[error(
        "this machine's clock is ahead of the mesh's by {} days or more, so everybody's pass has ended by it: set the clock",
        ahead.as_secs() / 86_400
    )]
    Clock {
        /// By how much at least.
        ahead: Duration,
    },
    /// The mesh's authority revoked this node's pass, so the node has ended.
    #[error("the mesh's authority revoked this node's pass: ask whoever runs the mesh to admit it again")]
    Authority,
}

/// Why a revocation isn't known elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevokeError {
    /// Another mesh's authority signed it.
    #[error("the revocation is another mesh's: sign it with the key of this mesh's authority")]
    AnotherMesh,
    /// Neither a hub nor a member has acknowledged it.
    #[error(
        "no hub and no member has acknowledged the revocation: it holds at this node, which tells it when it reaches \
         somebody; call again to be sure"
    )]
    Untold,
}

impl RefusedBy {
    /// The machine-readable name.
    pub fn as_str(self) -> &'static str {
        match self {
            RefusedBy::Members => "members",
            RefusedBy::Level { .. } => "level",
            RefusedBy::Clock { .. } => "clock",
            RefusedBy::Authority => "authority",
        }
    }
}

/// Why a call on replicated state failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// No owner of the key answered: nothing was read, or written.
    #[error("no owner of the key answered")]
    NoAnswer,
    /// Too few of the key's owners answered a read: confirmed writes may be missing from what they have.
    #[error("too few of the key's owners answered, so confirmed writes may be missing: try again")]
    Partial,
    /// The key's owner can't take a write now; nothing was changed.
    #[error("the key's owner can't take the write now: try again")]
    Busy,
    /// The key's owner refused a write; nothing was changed.
    #[error("the key's owner refused the write")]
    Refused,
    /// The key's owner was lost before it answered: the write was made once or not at all. Read before you repeat it.
    #[error("the key's owner was lost: the write was made once or not at all")]
    Unknown,
    /// This node's disk failed before the write was confirmed: it was made once or not at all. Read before you repeat it; the
    /// node takes no writes until the disk works again.
    #[error(
        "this node's disk failed before the write was confirmed ({0}): the write was made once or not at all, and nothing \
         of it counts here; mend the disk, and read before you write it again"
    )]
    Disk(Arc<str>),
    /// This node refused a write; nothing was changed.
    #[error(transparent)]
    Write(#[from] UpdateError),
}

impl StateError {
    /// Whether a disk is the cause, this node's or the owners'.
    pub fn is_disk(&self) -> bool {
        matches!(
            self,
            StateError::Disk(_)
                | StateError::Write(UpdateError::Disk(_) | UpdateError::Declined(Decline::Disk))
        )
    }

    /// The machine-readable name.
    pub fn as_str(&self) -> &'static str {
        match self {
            StateError::NoAnswer => "no-answer",
            StateError::Partial => "partial",
            StateError::Busy => "busy",
            StateError::Refused => "refused",
            StateError::Unknown => "unknown",
            StateError::Disk(_) => "disk-failed",
            StateError::Write(_) if self.is_disk() => "disk",
            StateError::Write(_) => "not-written",
        }
    }
}

/// A hub of the ticket that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFailure {
    /// `host:port` from the ticket.
    pub addr: String,
    /// The last reason that the connection reported.
    pub reason: DownReason,
}

impl fmt::Display for HubFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.addr, self.reason.as_str(), self.reason.sentence())
    }
}

/// One line for all hubs.
fn listed(hubs: &[HubFailure]) -> String {
    match hubs {
        [] => "the ticket names none".to_owned(),
        hubs => hubs.iter().map(HubFailure::to_string).collect::<Vec<_>>().join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::reach::relay::CloseReason;

    fn unreachable(reasons: &[DownReason]) -> Error {
        let hub =
            |(n, reason): (usize, &DownReason)| HubFailure { addr: format!("hub{n}:1"), reason: *reason };
        Error::HubUnreachable { hubs: reasons.iter().enumerate().map(hub).collect() }
    }

    #[test]
    fn each_hub_is_told_with_its_own_cause() {
        let error = unreachable(&[DownReason::Unreachable, DownReason::Closed(CloseReason::Full)]);
        assert_eq!(
            error.to_string(),
            "no hub can be used: hub0:1 (unreachable): nobody accepts a connection: is `nurl hub` running there, \
             and is its port open?; hub1:1 (overloaded): it has as many clients as it takes: try again later, or \
             give the mesh a second hub"
        );
    }

    #[test]
    fn the_cause_for_machines_is_that_of_a_hub_which_answered() {
        let reason = |reasons: &[DownReason]| unreachable(reasons).hub_reason();
        assert_eq!(reason(&[DownReason::Unreachable, DownReason::NotTheHub]), Some("not-a-hub"));
        assert_eq!(reason(&[DownReason::Unreachable, DownReason::Unreachable]), Some("unreachable"));
        assert_eq!(reason(&[]), None);
        assert_eq!(Error::Closed.hub_reason(), None);
    }
}
