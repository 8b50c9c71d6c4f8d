//! The decisions of a node as log lines: for `NURL_LOG`, and for the stories of failures in the simulated world.
//!
//! Each line has the fields by which a person looks for it (`peer`, `hub`, `task`, `epoch`, `reason`), and neither a
//! secret nor a payload. Around the lines of all layers stand spans:
//!
//! | span | its field | what happens in it |
//! | --- | --- | --- |
//! | `node` | `node`, its key | all work of the node, that of its connections to hubs and of its handlers included |
//! | `peer` | `peer`, its key | the handling of what one peer sent |
//! | `task` | `task` and `kind` | one run of a handler, with what the handler itself logs (`nurl/src/compute/pool.rs`) |
//!
//! Refusals of peers are lines at `debug`, where they are counted: by allow-list and ticket in the target
//! `nurl::session`, by limits there and in `nurl::transport`.

use tracing::{debug, info, warn};

use super::event::NodeEvent;
use crate::compute::job;
use crate::key::PublicKey;
use crate::membership::State;
use crate::transport;

/// The span of everything that a node's planes do.
pub(super) fn span(key: &PublicKey) -> tracing::Span {
    tracing::error_span!(target: "nurl", "node", node = %key.short())
}

/// The span of the handling of what a peer sent, so that the lines of all layers below name the peer.
pub(super) fn peer_span(event: &transport::TransportEvent) -> tracing::Span {
    use transport::TransportEvent as Event;
    use transport::reliable::ReliableEvent;
    let peer = match event {
        Event::Membership { peer, .. }
        | Event::Reliable(
            ReliableEvent::Message { peer, .. }
            | ReliableEvent::Acked { peer, .. }
            | ReliableEvent::Failed { peer, .. }
            | ReliableEvent::Writable { peer },
        )
        | Event::Group { sender: peer, .. }
        | Event::Established { peer, .. }
        | Event::Unreachable { peer }
        | Event::Forgotten { peer }
        | Event::Echo { peer, .. } => peer,
        // Those lines name their peer themselves, or concern a hub.
        _ => return tracing::Span::none(),
    };
    tracing::error_span!(target: "nurl", "peer", peer = %peer.short())
}

/// An event that the application may subscribe to.
pub(super) fn event(event: &NodeEvent) {
    match event {
        NodeEvent::HubUp { hub } => info!(target: "nurl::hub", hub = %hub.short(), "registered at a hub"),
        NodeEvent::HubDown { hub, reason } => {
            info!(target: "nurl::hub", hub = %hub.short(), reason = reason.as_str(), "the connection to a hub is down");
        }
        NodeEvent::Issued { pass, .. } => {
            let grant = pass.grant();
            info!(target: "audit", level = grant.level.as_str(), until = grant.not_after, "this node has a pass");
        }
        NodeEvent::Revoked { peer } => info!(target: "audit", %peer, "a pass was revoked"),
        NodeEvent::Rotated { generation } => {
            info!(target: "audit", generation, "this node has the mesh's next secret");
        }
        NodeEvent::Incompatible { peer, theirs, ours } => {
            let (peer, remedy) = (peer.short(), ours.remedy(*theirs));
            warn!(target: "nurl::session", %peer, %theirs, %ours, remedy, "a peer speaks other versions");
        }
        NodeEvent::Member { peer, state, incarnation } => {
            let (peer, now) = (peer.short(), state.as_str());
            match state {
                State::Dead | State::Suspect => {
                    info!(target: "nurl::membership", %peer, now, incarnation, "a member changed its state")
                }
                State::Alive | State::Left => {
                    debug!(target: "nurl::membership", %peer, now, incarnation, "a member changed its state")
                }
            }
        }
        NodeEvent::Restarted { peer } => {
            info!(target: "nurl::membership", peer = %peer.short(), "a member's process is another one")
        }
        NodeEvent::Path { peer, direct, addr, reason } => {
            let (peer, reason) = (peer.short(), reason.as_str());
            match addr {
                Some(addr) => {
                    info!(target: "nurl::path", %peer, direct, %addr, reason, "the path to a peer changed")
                }
                None => info!(target: "nurl::path", %peer, direct, reason, "the path to a peer changed"),
            }
        }
        NodeEvent::JobStarted { task, kind } => {
            debug!(target: "nurl::job", %task, kind, "a task starts here")
        }
        NodeEvent::JobFinished { task, kind, error: None } => {
            debug!(target: "nurl::job", %task, kind, "a task ended here")
        }
        NodeEvent::JobFinished { task, kind, error: Some(_) } => {
            info!(target: "nurl::job", %task, kind, "a task failed here")
        }
        NodeEvent::Isolated(isolated) => {
            warn!(target: "nurl::membership", isolated, "this node is cut off from the mesh, or no longer is")
        }
        NodeEvent::StoreSetAside { path, reason } => {
            warn!(target: "nurl::store", path = ?path, reason, "the store was damaged and is set aside");
        }
        NodeEvent::StoreFailed { reason } => {
            warn!(target: "nurl::store", reason, "the store failed: the node takes no writes until the disk works")
        }
        NodeEvent::StoreWorks => {
            info!(target: "nurl::store", "the store works again, and the node takes writes")
        }
        NodeEvent::SocketFailed { reason } => {
            warn!(target: "nurl::transport", reason, "the socket failed, and the node ends")
        }
        NodeEvent::Gossip { claimed, body } => {
            debug!(target: "nurl::membership", claimed = %claimed.short(), bytes = body.len(), "an application's gossip arrived");
        }
        // The subscriber is told.
        NodeEvent::Lagged(_) => {}
    }
}

/// Sessions and denials, of which the application hears only the consequences.
pub(super) fn transport_event(event: &transport::TransportEvent) {
    match event {
        transport::TransportEvent::Established { peer, .. } => {
            debug!(target: "nurl::session", peer = %peer.short(), "a session is up")
        }
        transport::TransportEvent::Unreachable { peer } => {
            debug!(target: "nurl::session", peer = %peer.short(), "no session could be had")
        }
        transport::TransportEvent::Forgotten { peer } => {
            debug!(target: "nurl::session", peer = %peer.short(), "a peer's slot was given up")
        }
        transport::TransportEvent::NotThere { hub, peer } => {
            debug!(target: "nurl::hub", hub = %hub.short(), peer = %peer.short(), "a hub denies a peer");
        }
        transport::TransportEvent::Contacts { hub, contacts } => {
            debug!(target: "nurl::hub", hub = %hub.short(), contacts = contacts.len(), "a hub named members");
        }
        _ => {}
    }
}

/// By whom a task was submitted, for an auditor.
fn submitted(task: job::TaskId, kind: &str, by: &job::Submitter, what: &str) {
    let (key, holder, name, level) = (by.key(), by.holder(), by.name(), by.level().as_str());
    info!(target: "audit", %task, ?kind, %key, %holder, ?name, level, "{what}");
}

/// The course of tasks that were submitted here, and the end of those that ran here.
pub(super) fn job_event(event: &job::JobEvent) {
    match event {
        job::JobEvent::Accepted { task, by, token } => {
            debug!(target: "nurl::job", %task, by = %by.short(), epoch = token.counter, "an executor took a task");
        }
        job::JobEvent::Given { task, to } => {
            debug!(target: "nurl::job", %task, to = %to.short(), "a node may fetch a task's payload");
        }
        job::JobEvent::Waiting { task, why } => {
            info!(target: "nurl::job", %task, why = why.as_str(), "a task waits for an executor")
        }
        job::JobEvent::Reassigned { task, from, to, why } => {
            let (from, to) = (from.short(), to.short());
            info!(target: "nurl::job", %task, %from, %to, why = why.as_str(), "a task moves to another executor");
        }
        job::JobEvent::Done { task, outcome, by, attempts } => {
            let (ok, by) = (outcome.is_ok(), by.map(|by| by.short()));
            debug!(target: "nurl::job", %task, ok, ?by, attempts, "a task has its outcome");
        }
        job::JobEvent::Duplicate { task, by } => {
            info!(target: "nurl::job", %task, by = %by.short(), "a second outcome of a task was dropped");
        }
        job::JobEvent::Fenced { task, current } => {
            info!(target: "nurl::job", %task, epoch = current.counter, "an outcome of an older epoch was refused");
        }
        job::JobEvent::Admitted { task, kind, by } => submitted(*task, kind, by, "a task is admitted"),
        job::JobEvent::NotAllowed { task, kind, by } => submitted(*task, kind, by, "a policy refused a task"),
        job::JobEvent::Drained(drained) => info!(target: "nurl::job", ?drained, "this node is drained"),
        job::JobEvent::Orphaned { task } => {
            debug!(target: "nurl::job", %task, "the custodian of a task that runs here is gone");
        }
        job::JobEvent::Progress { .. } | job::JobEvent::Ran { .. } => {}
    }
}
