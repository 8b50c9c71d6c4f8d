//! The seam's core: sessions, legs, reliable messages and groups as one state machine without IO.
//!
//! Inputs are datagrams from the sockets, events from the hubs, the interface list and the time. Outputs are
//! batches for the sockets, commands for the hubs, and [`Event`]s for the layer above.
//!
//! Every input is followed by [`Transport::pump`], which moves what the parts have to say to each other: a
//! session that came up lets waiting datagrams go and opens the reliable connection; a reliable datagram is
//! sealed onto the routes that the path machine names; both legs get the same sealed bytes while a path is
//! in doubt, and the receiver's replay window drops the second.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::group::{self, Groups};
use super::outbox::Outbox;
use super::reliable::{self, MessageId, Priority, Reliable};
use super::waiting::Waiting;
use super::{Event, MAX_DATAGRAM_BYTES, PathInfo, SendError, Stats, TransportConfig, channel};
use crate::key::PublicKey;
use crate::mesh::Generation;
use crate::net::candidates::{self, Ports};
use crate::net::hub_client::{HubCommand, HubEvent};
use crate::net::rendezvous::Record;
use crate::net::route::Route;
use crate::net::securedgram::{self, Endpoint, SealError, Source};
use crate::net::stun;
use crate::rt::Rng;
use crate::rt::net::Interface;

/// Commands that wait for one hub's connection: a second of gossip and a window of relayed bulk.
pub const HUB_QUEUE: usize = 1_024;

/// How often the reflexive address is asked for again: under the shortest common NAT timeout (30 s), so that
/// the mapping which candidates name stays open.
const STUN_EVERY: Duration = Duration::from_secs(25);

/// Contacts asked of rendezvous at a time: more than a join uses, so that dead ones don't matter.
const CONTACTS: u16 = 16;

/// Application datagrams kept for the layer above in one turn; see [`Transport::take_datagrams`].
const INBOX_BYTES: usize = 4 << 20;

/// An application datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sealed it.
    pub peer: PublicKey,
    /// Its body.
    pub body: Bytes,
}

#[derive(Default)]
struct HubLink {
    up: bool,
    addr: Option<SocketAddr>,
    stun_due: Option<Instant>,
    reflexive: Option<SocketAddr>,
    queue: VecDeque<HubCommand>,
}

/// The state machine; see the module.
pub struct Transport {
    local: PublicKey,
    generations: Vec<Generation>,
    endpoint: Endpoint,
    reliable: Reliable,
    groups: Groups,
    stun: stun::Client,
    waiting: Waiting,
    outbox: Outbox,
    hubs: BTreeMap<PublicKey, HubLink>,
    interfaces: Vec<Interface>,
    ports: Ports,
    candidates: Vec<SocketAddr>,
    record_seq: u64,
    inbox: Vec<u8>,
    inbox_index: Vec<(PublicKey, std::ops::Range<usize>)>,
    events: VecDeque<Event>,
    scratch: Vec<u8>,
    stats: Stats,
    rng: Rng,
}
