//! [`Groups`]: our keys, the others' keys, and the frames that wait for one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand_core::Rng as _;
use zeroize::Zeroizing;

use super::frame::{Header, Window, open};
use super::message::{self, Message, SenderKey};
use super::{
    Event, GroupError, MAX_BODY_BYTES, MAX_FRAME_BYTES, MAX_GROUPS, MAX_HOLDERS, MAX_NAME_BYTES, MAX_OUTBOX,
    MAX_REQUESTS, MAX_SENDERS, MAX_WAITING, MAX_WAITING_PER_SENDER, MESH_GROUP, MIN_ROTATION, Outcome,
    REQUEST_RETRY, REQUEST_TRIES, ROTATION, Stats, Tag, WAIT,
};
use crate::key::{AllowList, PublicKey};
use crate::mesh::Generation;
use crate::rt::Rng;

/// Keys of one sender that are kept: the newest, and the one before it for frames that are still under way.
/// In the mesh group, where nothing orders two boots, as many boots.
const KEYS_PER_SENDER: usize = 2;

type Name = Arc<str>;

/// Our own key for a group.
struct OwnKey {
    id: u64,
    key: Zeroizing<[u8; 32]>,
    counter: u64,
    made: Instant,
    /// Who was told it.
    holders: BTreeSet<PublicKey>,
}

struct Group {
    allow: Option<AllowList>,
    /// One per generation of the mesh secret, the current one first.
    tags: Vec<Tag>,
    own: Option<OwnKey>,
    /// The key is to be replaced as soon as it is old enough.
    stale: bool,
}

/// A key of another sender.
struct HeldKey {
    boot: u64,
    key_id: u64,
    /// In the mesh group: the generation's tag.
    tag: Option<Tag>,
    key: Zeroizing<[u8; 32]>,
    window: Window,
}

/// What is known of one sender in one group. The newest key is last.
#[derive(Default)]
struct Sender {
    keys: Vec<HeldKey>,
    /// For eviction: the clock of frames when it last spoke.
    spoke: u64,
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

/// All groups of one node. See the [module](super).
pub struct Groups {
    local: PublicKey,
    boot: u64,
    generations: Vec<Generation>,
    rng: Rng,
    groups: BTreeMap<Name, Group>,
    by_tag: BTreeMap<Tag, Name>,
    senders: BTreeMap<(Name, PublicKey), Sender>,
    /// The boots that sessions told us.
    boots: BTreeMap<PublicKey, u64>,
    requests: BTreeMap<(Name, PublicKey), Request>,
    waiting: VecDeque<WaitingFrame>,
    outbox: VecDeque<(PublicKey, Vec<u8>)>,
    events: VecDeque<Event>,
    /// Counts authenticated frames, to tell who was silent longest.
    clock: u64,
    mesh_counter: u64,
    stats: Stats,
}

impl Groups {
    /// `generations` are the mesh's, the current one first; `boot` is this process's.
    pub fn new(local: PublicKey, boot: u64, generations: Vec<Generation>, rng: Rng) -> Groups {
        let mut groups = Groups {
            local,
            boot,
            generations,
            rng,
            groups: BTreeMap::new(),
            by_tag: BTreeMap::new(),
            senders: BTreeMap::new(),
            boots: BTreeMap::new(),
            requests: BTreeMap::new(),
            waiting: VecDeque::new(),
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            clock: 0,
            mesh_counter: 0,
            stats: Stats::default(),
        };
        groups.insert(MESH_GROUP, None);
        groups
    }

    /// Joins a group. Only keys on the list may send to it or get our key; without a list, any live member
    /// of the mesh. Joining again replaces the list. Then register [`Groups::tags`] at the relays.
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
        // The mesh group is one of them.
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
        self.senders.retain(|(of, _), _| &**of != name);
        self.requests.retain(|(of, _), _| &**of != name);
        self.waiting.retain(|frame| &*frame.group != name);
    }

    /// The tags to register at the relays: the mesh group's and those of every joined group, in all
    /// generations. The current generation's stand first within a group.
    pub fn tags(&self) -> impl Iterator<Item = Tag> {
        self.groups.values().flat_map(|group| group.tags.iter().copied())
    }

    /// The mesh has another secret: tags change, and every key of ours is replaced.
    pub fn set_generations(&mut self, generations: Vec<Generation>) {
        self.generations = generations;
        self.by_tag.clear();
        for (name, group) in &mut self.groups {
            group.tags = self.generations.iter().map(|generation| tag(generation, name)).collect();
            group.stale = group.own.is_some();
            self.by_tag.extend(group.tags.iter().map(|tag| (*tag, name.clone())));
        }
        // A subkey of the mesh group belongs to the generation that its tag names.
        let current: BTreeSet<Tag> = self.by_tag.keys().copied().collect();
        for sender in self.senders.values_mut() {
            sender.keys.retain(|key| key.tag.is_none_or(|tag| current.contains(&tag)));
        }
    }

    /// A session says which process a peer is. What an earlier one sent is void from now on.
    pub fn on_established(&mut self, peer: PublicKey, boot: u64) {
        if self.boots.len() >= MAX_SENDERS && !self.boots.contains_key(&peer) {
            self.boots.pop_first();
        }
        self.boots.insert(peer, boot);
        for ((_, sender), state) in &mut self.senders {
            if *sender == peer {
                state.keys.retain(|key| key.boot == boot);
            }
        }
    }

    /// The peer is gone for good.
    pub fn forget(&mut self, peer: &PublicKey) {
        self.boots.remove(peer);
        self.senders.retain(|(_, sender), _| sender != peer);
        self.requests.retain(|(_, sender), _| sender != peer);
        self.waiting.retain(|frame| frame.sender != *peer);
        for group in self.groups.values_mut() {
            if let Some(own) = &mut group.own {
                own.holders.remove(peer);
            }
        }
    }

    /// Appends a sealed frame to `out` and says under which tag the relay is to spread it.
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
            self.mesh_counter += 1;
            let key = self.generations[0].group_sender_key(&self.local, self.boot);
            (0, self.mesh_counter, key)
        } else {
            self.rotate_if_due(now, name);
            let own = self.own_key(now, name).ok_or(GroupError::NotJoined)?;
            own.counter += 1;
            (own.id, own.counter, own.key.clone())
        };
        let header = Header { group: tag, sender: self.local, boot: self.boot, key_id, counter };
        header.seal(&key, body, out);
        self.stats.sealed += 1;
        Ok(tag)
    }

    /// The sender that a frame names, before anything is verified: so that the caller can drop frames of
    /// peers that aren't members before they cost a request.
    pub fn sender_of(frame: &[u8]) -> Option<PublicKey> {
        Header::parse(frame).map(|header| header.sender)
    }

    /// Takes a frame as it came from the relay (or from anywhere).
    pub fn handle_frame(&mut self, now: Instant, frame: &[u8]) -> Outcome {
        let outcome = self.take_frame(now, frame);
        let stats = &mut self.stats;
        *match outcome {
            Outcome::Received => &mut stats.received,
            Outcome::Waiting => &mut stats.waited,
            Outcome::Malformed => &mut stats.malformed,
            Outcome::UnknownGroup => &mut stats.unknown_group,
            Outcome::SenderRefused => &mut stats.sender_refused,
            Outcome::Voided => &mut stats.voided,
            Outcome::Replayed => &mut stats.replayed,
            Outcome::Forged => &mut stats.forged,
            Outcome::Overflow => &mut stats.overflow,
        } += 1;
        outcome
    }

    fn take_frame(&mut self, now: Instant, frame: &[u8]) -> Outcome {
        let Some(header) = Header::parse(frame).filter(|_| frame.len() <= MAX_FRAME_BYTES) else {
            return Outcome::Malformed;
        };
        let Some(name) = self.by_tag.get(&header.group).cloned() else { return Outcome::UnknownGroup };
        let allowed = self
            .groups
            .get(&name)
            .is_some_and(|group| group.allow.as_ref().is_none_or(|list| list.allows(&header.sender)));
        if !allowed || header.sender == self.local {
            return Outcome::SenderRefused;
        }
        if self.boots.get(&header.sender).is_some_and(|boot| *boot != header.boot) {
            return Outcome::Voided;
        }
        if &*name == MESH_GROUP {
            return self.open_mesh(name, &header, frame);
        }
        let sender = self.senders.get(&(name.clone(), header.sender));
        let keys = sender.map_or(&[][..], |sender| &sender.keys);
        if keys.iter().any(|key| key.boot == header.boot && key.key_id == header.key_id) {
            return self.open_held(name, &header, frame);
        }
        let newest = keys.last().map(|key| (key.boot, key.key_id));
        if newest.is_some_and(|(boot, key_id)| boot == header.boot && header.key_id < key_id) {
            return Outcome::Voided;
        }
        self.wait_for_key(now, name, &header, frame)
    }

    /// Opens a frame whose key is held.
    fn open_held(&mut self, name: Name, header: &Header, frame: &[u8]) -> Outcome {
        let Some(sender) = self.senders.get_mut(&(name.clone(), header.sender)) else {
            return Outcome::Voided;
        };
        let held = sender.keys.iter_mut().find(|key| {
            key.boot == header.boot
                && key.key_id == header.key_id
                && key.tag.is_none_or(|tag| tag == header.group)
        });
        let Some(held) = held else { return Outcome::Voided };
        if !held.window.is_new(header.counter) {
            return Outcome::Replayed;
        }
        let Some(body) = open(&held.key, frame) else { return Outcome::Forged };
        held.window.commit(header.counter);
        self.clock += 1;
        sender.spoke = self.clock;
        self.events.push_back(Event::Received { group: name.to_string(), sender: header.sender, body });
        Outcome::Received
    }

    /// Opens a frame of the mesh group. A sender enters the table only with a frame that opens.
    fn open_mesh(&mut self, name: Name, header: &Header, frame: &[u8]) -> Outcome {
        let id = (name.clone(), header.sender);
        let known = self.senders.get(&id).is_some_and(|sender| {
            sender.keys.iter().any(|key| key.boot == header.boot && key.tag == Some(header.group))
        });
        if !known {
            let generation = self.groups[&name].tags.iter().position(|tag| *tag == header.group);
            let Some(generation) = generation.and_then(|index| self.generations.get(index)) else {
                return Outcome::UnknownGroup;
            };
            let key = generation.group_sender_key(&header.sender, header.boot);
            if header.key_id != 0 || open(&key, frame).is_none() {
                return Outcome::Forged;
            }
            let held = HeldKey {
                boot: header.boot,
                key_id: 0,
                tag: Some(header.group),
                key,
                window: Window::above(0),
            };
            self.hold(id, held);
        }
        self.open_held(name, header, frame)
    }

    fn wait_for_key(&mut self, now: Instant, name: Name, header: &Header, frame: &[u8]) -> Outcome {
        let of_sender = self.waiting.iter().filter(|w| w.group == name && w.sender == header.sender).count();
        if of_sender >= MAX_WAITING_PER_SENDER
            || self.waiting.len() >= MAX_WAITING
            || !self.request(now, name.clone(), header.sender)
        {
            return Outcome::Overflow;
        }
        self.waiting.push_back(WaitingFrame {
            group: name,
            sender: header.sender,
            until: now + WAIT,
            frame: frame.to_vec(),
        });
        Outcome::Waiting
    }

    /// Asks a sender for its key in a group, so that its first frame is not lost.
    ///
    /// # Errors
    /// [`GroupError::NotJoined`].
    pub fn pull(&mut self, now: Instant, name: &str, sender: PublicKey) -> Result<(), GroupError> {
        let Some((name, _)) = self.groups.get_key_value(name) else { return Err(GroupError::NotJoined) };
        let name = name.clone();
        if &*name != MESH_GROUP && sender != self.local {
            self.request(now, name, sender);
        }
        Ok(())
    }

    /// Begins a request unless it is under way. `false` if there is no room.
    fn request(&mut self, now: Instant, name: Name, sender: PublicKey) -> bool {
        let id = (name, sender);
        if self.requests.contains_key(&id) {
            return true;
        }
        if self.requests.len() >= MAX_REQUESTS {
            return false;
        }
        self.post_request(&id.0.clone(), sender);
        self.requests.insert(id, Request { at: now + REQUEST_RETRY, wait: REQUEST_RETRY, tries: 1 });
        true
    }

    fn post_request(&mut self, name: &str, sender: PublicKey) {
        if let Some(&tag) = self.groups.get(name).and_then(|group| group.tags.first()) {
            self.stats.requests_sent += 1;
            self.post(sender, message::request(&tag));
        }
    }

    fn post(&mut self, to: PublicKey, body: Vec<u8>) {
        if self.outbox.len() >= MAX_OUTBOX {
            self.stats.outbox_full += 1;
        } else {
            self.outbox.push_back((to, body));
        }
    }

    /// Takes the body of a channel-4 datagram. `live` says whether membership holds the peer alive: without
    /// a list, only such a peer gets our key.
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

    fn answer(&mut self, now: Instant, from: PublicKey, live: bool, name: &str, tag: Tag) {
        let group = &self.groups[name];
        if !group.allow.as_ref().map_or(live, |list| list.allows(&from)) {
            self.stats.requests_refused += 1;
            return;
        }
        self.rotate_if_due(now, name);
        let boot = self.boot;
        let Some(own) = self.own_key(now, name) else { return };
        if own.holders.len() < MAX_HOLDERS {
            own.holders.insert(from);
        }
        let key = SenderKey { boot, key_id: own.id, counter: own.counter, key: own.key.clone() };
        self.stats.requests_answered += 1;
        self.post(from, message::key(&tag, &key));
    }

    fn take_key(&mut self, now: Instant, from: PublicKey, name: Name, key: SenderKey) {
        let allowed =
            self.groups[&name].allow.as_ref().is_none_or(|list| list.allows(&from)) && from != self.local;
        let voided = self.boots.get(&from).is_some_and(|boot| *boot != key.boot);
        let id = (name.clone(), from);
        // The same key again must not lower its window's floor, and an older one has nothing to say.
        let newest = self.senders.get(&id).and_then(|sender| sender.keys.last());
        let old = newest.is_some_and(|held| held.boot == key.boot && key.key_id <= held.key_id);
        if !allowed || voided {
            self.stats.bad_key_messages += 1;
            return;
        }
        self.requests.remove(&id);
        if old {
            return;
        }
        if let Some(sender) = self.senders.get_mut(&id) {
            sender.keys.retain(|held| held.boot == key.boot);
        }
        let window = Window::above(key.counter);
        let held = HeldKey { boot: key.boot, key_id: key.key_id, tag: None, key: key.key, window };
        self.hold(id, held);
        let (ready, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|frame| frame.group == name && frame.sender == from);
        self.waiting = rest.into();
        for WaitingFrame { frame, .. } in ready {
            self.handle_frame(now, &frame);
        }
    }

    /// Keeps a key, at the cost of the sender's oldest, and of the sender that was silent longest.
    fn hold(&mut self, id: (Name, PublicKey), key: HeldKey) {
        if !self.senders.contains_key(&id)
            && self.senders.len() >= MAX_SENDERS
            && let Some(silent) =
                self.senders.iter().min_by_key(|(_, sender)| sender.spoke).map(|(id, _)| id.clone())
        {
            self.senders.remove(&silent);
            self.stats.senders_evicted += 1;
        }
        self.clock += 1;
        let clock = self.clock;
        let sender = self.senders.entry(id).or_default();
        sender.spoke = clock;
        sender.keys.push(key);
        if sender.keys.len() > KEYS_PER_SENDER {
            sender.keys.remove(0);
        }
    }

    /// Our key for a group, made at first use.
    fn own_key(&mut self, now: Instant, name: &str) -> Option<&mut OwnKey> {
        let group = self.groups.get_mut(name)?;
        if group.own.is_none() {
            let key = random_key(&mut self.rng);
            group.own = Some(OwnKey { id: 1, key, counter: 0, made: now, holders: BTreeSet::new() });
        }
        group.own.as_mut()
    }

    /// Replaces our key if it must be and may be, and hands the new one to those who had the old.
    fn rotate_if_due(&mut self, now: Instant, name: &str) {
        let boot = self.boot;
        let Some(group) = self.groups.get_mut(name) else { return };
        let (Some(own), Some(&tag)) = (&mut group.own, group.tags.first()) else { return };
        let age = now.saturating_duration_since(own.made);
        if age < MIN_ROTATION || !(group.stale || age >= ROTATION) {
            return;
        }
        group.stale = false;
        own.id += 1;
        own.key = random_key(&mut self.rng);
        own.counter = 0;
        own.made = now;
        own.holders.retain(|key| group.allow.as_ref().is_none_or(|list| list.allows(key)));
        let key = SenderKey { boot, key_id: own.id, counter: 0, key: own.key.clone() };
        let holders: Vec<PublicKey> = own.holders.iter().copied().collect();
        self.stats.rotations += 1;
        for holder in holders {
            self.post(holder, message::key(&tag, &key));
        }
    }

    /// The next message for channel 4. It may be lost: the receiver asks again.
    pub fn poll_transmit(&mut self) -> Option<(PublicKey, Vec<u8>)> {
        self.outbox.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Groups::handle_timeout`] is wanted next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let requests = self.requests.values().map(|request| request.at);
        requests.chain(self.waiting.iter().map(|frame| frame.until)).min()
    }

    /// Repeats requests and drops what waited too long.
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

    /// What was counted.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

/// The tag of a name under one generation of the mesh secret.
fn tag(generation: &Generation, name: &str) -> Tag {
    let key = blake3::derive_key("nurl/1 group tag", &*generation.group);
    let hash = blake3::keyed_hash(&key, name.as_bytes());
    let mut tag = [0; 16];
    tag.copy_from_slice(&hash.as_bytes()[..16]);
    tag
}

fn random_key(rng: &mut Rng) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *key);
    key
}

#[cfg(test)]
impl Groups {
    pub(super) fn groups_tag(&self, name: &str) -> Tag {
        self.groups[name].tags[0]
    }
}
