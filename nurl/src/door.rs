//! The front door: the names that a program needs. What isn't named here is the inside of a layer.

pub use crate::error::{Error, HubFailure, PolicyError, RefusedBy, RevokeError};
pub use crate::key::{PublicKey, SecretKey};
pub use crate::mesh::Ticket;
pub use crate::node::{Builder, Node};

/// Who belongs to a mesh, what each may do, and how that ends: the authority's key, invitations, passes, revocations.
pub mod pass {
    pub use crate::authority::credential::Credential;
    pub use crate::authority::invitation::{
        DEFAULT_KEYS, Invitation, InvitationId, MAX_LIFE, NotAnInvitationId, Terms,
    };
    pub use crate::authority::key::AuthorityKey;
    pub use crate::authority::keyfile::{KeyFile, SealedKey};
    pub use crate::authority::level::{Level, NotALevel};
    pub use crate::authority::pass::{
        Grant, MAX_NAME_BYTES, MAX_PASS_BYTES, MAX_WEIGHT, MAX_ZONE_BYTES, Pass, PassError, PassHash,
    };
    pub use crate::authority::revocation::{Revocation, Subject};
    pub use crate::authority::rotation::{ACCEPTED_FOR, Rotation, SignedSecret};
    pub use crate::authority::slip::{SLIP_BYTES, Slip};
}

/// What a node is told before it begins.
pub mod config {
    pub use crate::key::{AllowList, KeyError};
    pub use crate::membership::{DetectorConfig, MembershipError};
    pub use crate::net::reach::listen::{Listen, ListenError};
    pub use crate::node::Role;
    pub use crate::transport::{Limits, MAX_PEERS};
}

/// Jobs: what a task is, where it runs, and what comes of it.
pub mod job {
    pub use crate::compute::blob::MAX_FILE_LEN;
    pub use crate::compute::blob::desk::DeskError;
    pub use crate::compute::blob::fetch::FetchError;
    pub use crate::compute::blob::folder::{FolderError, Spool};
    pub use crate::compute::blob::shelf::NoRoom;
    pub use crate::compute::handlers;
    pub use crate::compute::job::custody::{
        CustodyError, Ended, MAX_HISTORY, MAX_LIST_TOTAL, Note, Refusal, Step, TaskStatus,
    };
    pub use crate::compute::job::options::{
        DRAIN_GRACE, MAX_ERROR_TEXT_LEN, MAX_HOLDERS, MAX_KEY_LEN, MAX_LIFE, MAX_PAYLOAD_LEN,
        MAX_PROGRESS_LEN,
    };
    pub use crate::compute::job::policy::{MAX_POLICIES, NotAPolicy, Policy};
    pub use crate::compute::job::warrant::MAX_KEEP;
    pub use crate::compute::job::{
        Class, Drained, JobError, KindLimits, NotATaskId, Priority, SubmitError, SubmitOptions, Submitter,
        TaskId, WaitReason,
    };
    pub use crate::compute::pool::{Content, JobContext, LargeFile};
    pub use crate::node::{DetachedTask, DetachedTasks, Payload, Task, TaskEvent};
}

/// Replicated values: counters, registers, sets and maps that merge.
pub mod state {
    pub use crate::error::StateError;
    pub use crate::node::{
        Counter, Departure, FieldValue, Map, MultiRegister, Names, NamesAfter, Reading, Register, Set, Watch,
    };
    pub use crate::replication::crdt::{
        CrdtError, Digest, Kind, MAX_ELEMENT_BYTES, MAX_FIELD_BYTES, MAX_REGISTER_BYTES, MAX_SIBLING_BYTES,
        MAX_SIBLINGS,
    };
    pub use crate::replication::replicator::{
        Confirm, Decline, MAX_KEY_BYTES, MAX_NAMES, MAX_WATCHES, UpdateError,
    };
}

/// Leases with fencing tokens, for effects outside of the mesh.
pub mod lease {
    pub use crate::compute::lease::{
        Admission, Completed, Config, Counters, Effects, Guard, KEEP, LeaseError, MAX_KEY_BYTES, MAX_KEYS,
        MAX_LIFE, MAX_OUTCOME_BYTES, MAX_TASKS, Moment, Outcome, Recovered, Resource, TaskId,
    };
    pub use crate::ring::{Epoch, NotAToken};
    pub use crate::rt::time::Uptime;
    pub use crate::store::{Opened, SetAside, Store, StoreError};
}

/// A hub: it relays ciphertext, names the members that are connected, and answers STUN.
pub mod hub {
    pub use crate::mesh::{Hub, MAX_HUB_ADDR_BYTES, MAX_HUBS, MeshId, MeshSecret, Namespace, TicketError};
    pub use crate::net::reach::advertise::{Choice, Why, advertise, default_sources};
    pub use crate::net::reach::hub::limits::MAX_NAMESPACES;
    pub use crate::net::reach::hub::{
        ConnectionStats, HubConfig, HubError, HubHandle, HubLimits, HubStats, ServedMesh, issued_passes,
        serve, serve_new_mesh,
    };
    pub use crate::net::reach::relay::{RelayLimits, RelayStats, Roles};
    pub use crate::net::reach::rendezvous::RendezvousStats;
}

/// What a node sees, counts and tells.
pub mod events {
    pub use crate::membership::join::Obstacle;
    pub use crate::membership::{Roles, State};
    pub use crate::net::reach::hub_client::DownReason;
    pub use crate::net::reach::relay::CloseReason;
    pub use crate::net::secure::securedgram::paths::PathReason;
    pub use crate::net::secure::version::{Version, Versions};
    pub use crate::node::{
        Events, HandedOver, HubInfo, MemberInfo, Metric, MetricKind, Metrics, NodeEvent, Pong, ReachedIssuer,
        Status,
    };
    pub use crate::transport::PathInfo;
}

/// What the seam carries.
pub mod message {
    pub use crate::transport::core::Datagram;
    pub use crate::transport::group::{GroupError, MAX_NAME_BYTES};
    pub use crate::transport::reliable::{FailReason, MAX_MESSAGE_BYTES, SendError as MessageError};
    pub use crate::transport::{MAX_DATAGRAM_BYTES, SendError};
}
