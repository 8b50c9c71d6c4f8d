//! [`Groups`]: our keys, other senders' keys, and the frames that wait for a key.

mod own_key;
mod receiving;
mod senders;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::own_key::OwnKey;
use self::senders::Senders;
use crate::key::{AllowList, PublicKey};
use crate::mesh::Generation;
use crate::rt::Rng;
use crate::transport::Gauge;
use crate::transport::group::frame::Header;
use crate::transport::group::message::{self, Message};
use crate::transport::group::{
    FrameOutcome, GroupError, GroupEvent, GroupStats, MAX_BODY_BYTES, MAX_GROUPS, MAX_NAME_BYTES,
    MAX_SENDERS, MESH_GROUP, REQUEST_TRIES, Tag,
};

type Name = Arc<str>;

struct Group {
    allow: Option<AllowList>,
    /// One tag per generation of the mesh secret, the one that we use first.
    tags: Vec<Tag>,
    own: Option<OwnKey>,
    /// The key must be replaced as soon as it is old enough.
    stale: bool,
}

struct Request {
    at: Instant,
    wait: Duration,
    tries: u32,
}

struct WaitingFrame {
    group: Name,
    sender: PublicKey,
    until: Instant,
    frame: Vec<u8>,
}

/// This process as a sender.
struct Local {
    key: PublicKey,
    boot: u64,
    rng: Rng,
    /// The frames that it sealed for the mesh group.
    mesh_counter: u64,
}

/// All groups of one node. See the [module](crate::transport::group).
pub struct Groups {
    local: Local,
    generations: Vec<Generation>,
    groups: BTreeMap<Name, Group>,
    by_tag: BTreeMap<Tag, Name>,
    senders: Senders,
    /// The peers' boot ids, from their sessions.
    boots: BTreeMap<PublicKey, u64>,
    requests: BTreeMap<(Name, PublicKey), Request>,
    waiting: VecDeque<WaitingFrame>,
    outbox: VecDeque<(PublicKey, Vec<u8>)>,
    events: VecDeque<GroupEvent>,
    stats: GroupStats,
}

impl Groups {
    /// `generations` are the mesh's generations, the current one first; `boot` is this process's boot id.
    pub fn new(local: PublicKey, boot: u64, generations: Vec<Generation>, rng: Rng) -> Groups {
        let mut groups = Groups {
            local: Local { key: local, boot, rng, mesh_counter: 0 },
            generations,
            groups: BTreeMap::new(),
            by_tag: BTreeMap::new(),
            senders: Senders::default(),
            boots: BTreeMap::new(),
            requests: BTreeMap::new(),
            waiting: VecDeque::new(),
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            stats: GroupStats::default(),
        };
        groups.insert(MESH_GROUP, None);
        groups
    }

    /// Joins a group. Only peers on the list may send to it or get our key; without a list, any live member
    /// of the mesh. Joining again replaces the list. Register [`Groups::tags`] at the relays afterwards.
    ///
    /// # Errors
    /// [`GroupError::Name`] and [`GroupError::TooManyGroups`].
    pub fn join(&mut self, name: &str, allow: Option<AllowList>) -> Result<(), GroupError> {
        if name == MESH_GROUP || name.len() > MAX_NAME_BYTES {
            return Err(GroupError::Name);
        }
        if let Some(group) = self.groups.get_mut(name) {
            let may = |key: &PublicKey| allow.as_ref().is_none_or(|list| list.allows(key));
            group.stale |= group.own.as_ref().is_some_and(|own| !own.holders.iter().all(may));
            group.allow = allow;
            return Ok(());
        }
        // The count includes the mesh group.
        if self.groups.len() > MAX_GROUPS {
            return Err(GroupError::TooManyGroups);
        }
        self.insert(name, allow);
        Ok(())
    }

    fn insert(&mut self, name: &str, allow: Option<AllowList>) {
        let name: Name = Arc::from(name);
        let tags: Vec<Tag> = self.generations.iter().map(|generation| tag(generation, &name)).collect();
        self.by_tag.extend(tags.iter().map(|tag| (*tag, name.clone())));
        self.groups.insert(name, Group { allow, tags, own: None, stale: false });
    }

    /// Leaves a group; its keys are dropped. The mesh group stays.
    pub fn leave(&mut self, name: &str) {
        if name == MESH_GROUP || self.groups.remove(name).is_none() {
            return;
        }
        self.by_tag.retain(|_, of| &**of != name);
        self.senders.forget_group(name);
        self.requests.retain(|(of, _), _| &**of != name);
        self.waiting.retain(|frame| &*frame.group != name);
    }

    /// The tags to register at the relays: those of the mesh group and of every joined group, in all
    /// generations. Within a group the tag that we send under comes first.
    pub fn tags(&self) -> impl Iterator<Item = Tag> {
        self.groups.values().flat_map(|group| group.tags.iter().copied())
    }

    /// The mesh secret changed, or another generation comes first: tags change, and each of our keys is replaced.
    pub fn set_generations(&mut self, generations: Vec<Generation>) {
        self.generations = generations;
        self.by_tag.clear();
        for (name, group) in &mut self.groups {
            group.tags = self.generations.iter().map(|generation| tag(generation, name)).collect();
            group.stale = group.own.is_some();
            self.by_tag.extend(group.tags.iter().map(|tag| (*tag, name.clone())));
        }
        // A subkey of the mesh group belongs to the generation of its tag.
        let current: BTreeSet<Tag> = self.by_tag.keys().copied().collect();
        self.senders.keep_tags(|tag| current.contains(tag));
    }

    /// A session reports a peer's boot id. Frames and keys of an earlier boot are void from now on.
    pub fn on_established(&mut self, peer: PublicKey, boot: u64) {
        if self.boots.len() >= MAX_SENDERS && !self.boots.contains_key(&peer) {
            self.boots.pop_first();
        }
        self.boots.insert(peer, boot);
        self.senders.keep_boot(peer, boot);
    }

    /// The peer's pass was revoked: each key of ours that it has is replaced before the next frame, however young it is.
    pub fn expel(&mut self, peer: &PublicKey) {
        for group in self.groups.values_mut() {
            if let Some(own) = &mut group.own
                && own.holders.contains(peer)
            {
                own.disclosed = true;
            }
        }
        self.forget(peer);
    }

    /// The peer left for good.
    pub fn forget(&mut self, peer: &PublicKey) {
        self.boots.remove(peer);
        self.senders.forget_sender(peer);
        self.requests.retain(|(_, sender), _| sender != peer);
        self.waiting.retain(|frame| frame.sender != *peer);
        for group in self.groups.values_mut() {
            if let Some(own) = &mut group.own {
                own.holders.remove(peer);
            }
        }
    }

    /// Appends a sealed frame to `out`. Returns the tag under which the relay is to distribute it.
    ///
    /// # Errors
    /// [`GroupError::NotJoined`] and [`GroupError::TooLarge`].
    pub fn seal(
        &mut self,
        now: Instant,
        name: &str,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Tag, GroupError> {
        if body.len() > MAX_BODY_BYTES {
            return Err(GroupError::TooLarge { len: body.len() });
        }
        let Some(&tag) = self.groups.get(name).and_then(|group| group.tags.first()) else {
            return Err(GroupError::NotJoined);
        };
        let (key_id, counter, key) = if name == MESH_GROUP {
            self.local.mesh_counter += 1;
            let key = self.generations[0].group_sender_key(&self.local.key, self.local.boot);
            (0, self.local.mesh_counter, key)
        } else {
            self.rotate_if_due(now, name);
            let own = self.own_key(now, name).ok_or(GroupError::NotJoined)?;
            own.counter += 1;
            (own.id, own.counter, own.key.clone())
        };
        let header = Header { group: tag, sender: self.local.key, boot: self.local.boot, key_id, counter };
        header.seal(&key, body, out);
        self.stats.sealed += 1;
        Ok(tag)
    }

    /// Handles a frame from the relay (or from any other source).
    pub fn handle_frame(&mut self, now: Instant, frame: &[u8]) -> FrameOutcome {
        let outcome = self.take_frame(now, frame);
        let stats = &mut self.stats;
        *match outcome {
            FrameOutcome::Received => &mut stats.received,
            FrameOutcome::Waiting => &mut stats.waited,
            FrameOutcome::Malformed => &mut stats.malformed,
            FrameOutcome::UnknownGroup => &mut stats.unknown_group,
            FrameOutcome::SenderRefused => &mut stats.sender_refused,
            FrameOutcome::Voided => &mut stats.voided,
            FrameOutcome::Replayed => &mut stats.replayed,
            FrameOutcome::Forged => &mut stats.forged,
            FrameOutcome::Overflow => &mut stats.overflow,
        } += 1;
        outcome
    }

    /// Asks a sender for its key in a group, so that its first frame is not lost.
    ///
    /// # Errors
    /// [`GroupError::NotJoined`].
    #[cfg_attr(
        not(any(test, feature = "internals")),
        expect(dead_code, reason = "for examples, benchmarks and scenarios")
    )]
    pub fn pull(&mut self, now: Instant, name: &str, sender: PublicKey) -> Result<(), GroupError> {
        let Some((name, _)) = self.groups.get_key_value(name) else { return Err(GroupError::NotJoined) };
        let name = name.clone();
        if &*name != MESH_GROUP && sender != self.local.key {
            self.request(now, name, sender);
        }
        Ok(())
    }

    /// Handles the body of a channel-4 datagram. `live` says whether membership considers the peer alive:
    /// without a list, only a live peer gets our key.
    pub fn handle_key_message(&mut self, now: Instant, from: PublicKey, live: bool, body: &[u8]) {
        let named = message::parse(body)
            .and_then(|(tag, message)| Some((self.by_tag.get(&tag).cloned()?, tag, message)))
            .filter(|(name, ..)| &**name != MESH_GROUP);
        match named {
            Some((name, tag, Message::Request)) => self.answer(now, from, live, &name, tag),
            Some((name, _, Message::Key(key))) => self.take_key(now, from, name, key),
            None => self.stats.bad_key_messages += 1,
        }
    }

    /// The next message for channel 4. If it is lost, the receiver asks again.
    pub fn poll_transmit(&mut self) -> Option<(PublicKey, Vec<u8>)> {
        self.outbox.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<GroupEvent> {
        self.events.pop_front()
    }

    /// When [`Groups::handle_timeout`] is due next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let requests = self.requests.values().map(|request| request.at);
        requests.chain(self.waiting.iter().map(|frame| frame.until)).min()
    }

    /// Repeats requests and drops expired frames.
    pub fn handle_timeout(&mut self, now: Instant) {
        let before = self.waiting.len();
        self.waiting.retain(|frame| frame.until > now);
        self.stats.expired += (before - self.waiting.len()) as u64;
        let due: Vec<(Name, PublicKey)> =
            self.requests.iter().filter(|(_, request)| request.at <= now).map(|(id, _)| id.clone()).collect();
        for id in due {
            let Some(request) = self.requests.get_mut(&id) else { continue };
            if request.tries >= REQUEST_TRIES {
                self.requests.remove(&id);
                self.stats.requests_failed += 1;
                continue;
            }
            request.tries += 1;
            request.wait *= 2;
            request.at = now + request.wait;
            self.post_request(&id.0, id.1);
        }
    }

    /// The number of joined groups.
    pub fn gauge(&self) -> Gauge {
        // The mesh group comes on top.
        Gauge { now: self.groups.len(), bound: MAX_GROUPS + 1 }
    }

    /// The counters.
    pub fn stats(&self) -> &GroupStats {
        &self.stats
    }
}

/// The tag of a name under one generation of the mesh secret.
fn tag(generation: &Generation, name: &str) -> Tag {
    let key = blake3::derive_key("nurl/2 group tag", &*generation.group);
    let hash = blake3::keyed_hash(&key, name.as_bytes());
    let mut tag = [0; 16];
    tag.copy_from_slice(&hash.as_bytes()[..16]);
    tag
}

#[cfg(test)]
impl Groups {
    pub(super) fn groups_tag(&self, name: &str) -> Tag {
        self.groups[name].tags[0]
    }
}
