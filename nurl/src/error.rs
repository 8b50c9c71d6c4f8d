//! What can go wrong when a node is used: one enum, each variant with a way out.

use std::sync::OnceLock;
use std::time::Duration;

use crate::compute::job::{JobError, SubmitError};
use crate::membership::MembershipError;
use crate::transport;

/// Why a call on a node failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No hub of the ticket could be reached in time.
    #[error(
        "no hub answers at {addrs} ({reason}): is `nurl hub` running there, and the ticket the right one?"
    )]
    HubUnreachable {
        /// The addresses tried.
        addrs: String,
        /// What the last attempt said.
        reason: String,
    },
    /// A hub answered and refused us.
    #[error("the hub at {addr} refused us ({reason}): {}", refusal_hint(reason))]
    HubRefused {
        /// The hub's address.
        addr: String,
        /// Its reason.
        reason: String,
    },
    /// Members are there, but none accepts our handshake.
    #[error("{0}")]
    Refused(String),
    /// Too much is under way already.
    #[error("{0}: try again when some of it is done")]
    Busy(&'static str),
    /// No UDP address could be bound.
    #[error("can't listen on {addr}: {error}")]
    Listen {
        /// The addresses, or the port of every address.
        addr: String,
        /// The operating system's word.
        error: std::io::Error,
    },
    /// A UDP socket fails each receive, and the node has ended.
    #[error("the UDP socket can't receive ({0}): does a sandbox or the kernel forbid recvmmsg here?")]
    Socket(String),
    /// The store can't be opened or written.
    #[error("the store: {0}")]
    Store(String),
    /// The operating system refused a thread.
    #[error("can't start the node's threads: {0}")]
    Threads(std::io::Error),
    /// More or longer metadata than a member may have.
    #[error(transparent)]
    Meta(#[from] MembershipError),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The task failed.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The task was not taken.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// A datagram was refused.
    #[error(transparent)]
    Send(#[from] transport::SendError),
    /// A reliable message was refused.
    #[error(transparent)]
    Message(#[from] transport::reliable::SendError),
    /// A reliable message was taken, and will not be acknowledged; it may have arrived.
    #[error("the message was given up ({0:?}); it may have arrived")]
    MessageLost(transport::reliable::FailReason),
    /// A group call was refused.
    #[error(transparent)]
    Group(#[from] transport::group::GroupError),
    /// A state call was refused.
    #[error("{0}")]
    State(String),
    /// The node has shut down.
    #[error("the node has shut down")]
    Closed,
}

impl Error {
    /// What a node that has ended says: why, if it wasn't told to.
    pub(crate) fn ended(socket_failed: &OnceLock<String>) -> Error {
        socket_failed.get().map_or(Error::Closed, |reason| Error::Socket(reason.clone()))
    }
}

/// What a person can do about a hub's refusal.
fn refusal_hint(reason: &str) -> &'static str {
    match reason {
        "unknown-namespace" => "it doesn't serve the mesh of this ticket; take the one that it printed",
        "refused" => "its key isn't the one in the ticket; take the ticket that it printed",
        "version" => "it speaks another version; update the older one",
        _ => "is it a hub, and the ticket its own?",
    }
}
