//! The registry and the outboxes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::Frame;
use super::frame::{GroupTag, MAX_DATAGRAM_BYTES};
use super::queue::{FairQueue, ITEM_OVERHEAD_BYTES, Pushed};
use crate::authority::account::{Account, ClientAccount};
use crate::key::PublicKey;
use crate::kit::rate::TokenBucket;
use crate::kit::shares::Shares;
use crate::mesh::Namespace;

/// A connection's number at this hub; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// The relay's limits for one client, and for all. The hub announces those for one; these are the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayLimits {
    /// The size of a client's datagram queue. At 20 Mbit/s 256 KiB are 100 ms: a larger queue only adds delay,
    /// and 32 packets would limit a long fat path to a fraction of its rate.
    pub queue_bytes: usize,
    /// Bytes of control frames (answers, pushes, notices) that may wait for a client: two of the largest answers.
    /// A client that doesn't read loses answers and asks again.
    pub control_bytes: usize,
    /// Bytes that may wait for all clients together, however many there are. When they are used up, the client pays for
    /// which most waits: of the mesh, the invitation and the pass for which most waits. A queue's first 8 KiB don't count,
    /// which are 128 MiB for all clients of a full hub.
    pub all_bytes: usize,
    /// Groups that a client may join. A node joins its mesh's group and one for each topic it follows.
    pub groups: usize,
    /// Payload bytes that the clients of one pass may send per second. The limit is far above a node's link rate: it stops
    /// runaway clients, not ordinary users.
    pub bytes_per_second: u64,
}

impl Default for RelayLimits {
    fn default() -> RelayLimits {
        RelayLimits {
            queue_bytes: 256 * 1024,
            control_bytes: 160 * 1024,
            all_bytes: 384 << 20,
            groups: 64,
            bytes_per_second: 256 << 20,
        }
    }
}

/// The token bucket's burst: a quarter of a second of the rate, and at least one of the largest datagrams.
fn burst(bytes_per_second: u64) -> u64 {
    (bytes_per_second / 4).max(MAX_DATAGRAM_BYTES as u64)
}

/// The bytes waiting for a client are counted for all in steps of this many, so that a queue that is drained at once counts
/// nothing.
pub(super) const COUNTED_BYTES: usize = 8 * 1024;

/// The most senders notified when a client disconnects. Further senders learn it from their next FORWARD.
pub const MAX_CORRESPONDENTS: usize = 256;

/// Counters of events and refusals at the relay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// FORWARD frames queued for their destination.
    pub forwarded: u64,
    /// Their payload bytes.
    pub forwarded_bytes: u64,
    /// GSEND frames accepted.
    pub group_sends: u64,
    /// GDELIVER frames queued.
    pub group_deliveries: u64,
    /// Registrations that replaced an older one.
    pub replaced: u64,
    /// Datagrams dropped because the destination's queue was full.
    pub dropped_queue_full: u64,
    /// Datagrams and control frames dropped because all queues together were full.
    pub dropped_all_full: u64,
    /// Datagrams over the limit of bytes.
    pub dropped_too_large: u64,
    /// Datagrams beyond the rate of the sender's pass.
    pub dropped_rate: u64,
    /// Datagrams to a key that isn't registered in the sender's namespace.
    pub dropped_no_peer: u64,
    /// Datagrams that were queued for a connection which ended.
    pub dropped_closed: u64,
    /// GJOIN frames beyond the client's limit.
    pub refused_groups: u64,
    /// Control frames dropped because the client doesn't read.
    pub dropped_control: u64,
    /// Senders that weren't recorded as a client's correspondents.
    pub dropped_correspondents: u64,
}

struct Registration {
    namespace: Namespace,
    key: PublicKey,
    groups: BTreeSet<GroupTag>,
    /// The senders of datagrams to this client; they are notified when it disconnects.
    correspondents: BTreeSet<PublicKey>,
}

struct Client {
    control: VecDeque<Bytes>,
    control_bytes: usize,
    /// The notices already queued, by kind and peer; a duplicate would add nothing.
    notices: BTreeSet<(Notice, PublicKey)>,
    queue: FairQueue,
    /// What of its queues is counted for all.
    counted: usize,
    /// On whose account its queues are; nobody's until it registers.
    account: ClientAccount,
    registration: Option<Registration>,
}

impl Client {
    fn bytes(&self) -> usize {
        self.queue.bytes() + self.control_bytes
    }
}

/// What the clients of one pass share: how much they may send, and how often they may ask.
struct Budget {
    clients: usize,
    bytes: TokenBucket,
    requests: TokenBucket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Notice {
    Gone,
    Full,
}

/// The relay's state machine.
pub struct Relay {
    limits: RelayLimits,
    clients: BTreeMap<ClientId, Client>,
    registry: BTreeMap<(Namespace, PublicKey), ClientId>,
    groups: BTreeMap<(Namespace, GroupTag), BTreeSet<ClientId>>,
    /// The registrations, each of which is one.
    accounts: Shares<ClientAccount>,
    budgets: BTreeMap<(Namespace, PublicKey), Budget>,
    /// What waits for whom.
    waiting: Shares<ClientAccount>,
    wake: BTreeSet<ClientId>,
    counters: RelayStats,
}

impl Relay {
    /// An empty relay.
    pub fn new(limits: RelayLimits) -> Relay {
        Relay {
            limits,
            clients: BTreeMap::new(),
            registry: BTreeMap::new(),
            groups: BTreeMap::new(),
            accounts: Shares::default(),
            budgets: BTreeMap::new(),
            waiting: Shares::default(),
            wake: BTreeSet::new(),
            counters: RelayStats::default(),
        }
    }

    /// The counters so far.
    pub fn counters(&self) -> &RelayStats {
        &self.counters
    }

    /// Keys registered now.
    pub fn registered(&self) -> usize {
        self.registry.len()
    }

    /// Whether a connection is registered under this key.
    pub fn is_registered(&self, namespace: Namespace, key: PublicKey) -> bool {
        self.registry.contains_key(&(namespace, key))
    }

    /// Bytes in the fullest datagram queue of a client, and in the fullest one of control frames. Neither is ever
    /// above its limit in [`RelayLimits`].
    pub fn fullest(&self) -> (usize, usize) {
        let queues = self.clients.values().map(|client| client.queue.bytes()).max();
        let control = self.clients.values().map(|client| client.control_bytes).max();
        (queues.unwrap_or(0), control.unwrap_or(0))
    }

    /// Groups with at least one subscriber.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Gives a connection an outbox. It isn't registered yet.
    pub fn open(&mut self, id: ClientId) {
        let client = Client {
            control: VecDeque::new(),
            control_bytes: 0,
            notices: BTreeSet::new(),
            queue: FairQueue::new(self.limits.queue_bytes),
            counted: 0,
            account: ClientAccount::NOBODY,
            registration: None,
        };
        self.clients.insert(id, client);
    }

    /// The client that pays with its registration for one of `newcomer`. None: the newcomer pays itself.
    pub fn payer(&self, newcomer: &ClientAccount) -> Option<ClientId> {
        let payer = self.accounts.payer(newcomer, 1)?;
        self.registry.get(&(payer.mesh, payer.account.key())).copied()
    }

    /// Registers the connection under the key that it has proved. `requests` is how often the clients of its pass may ask,
    /// per second and at once. Returns the connection that held the key before; it is to be closed with `replaced`.
    pub fn register(
        &mut self,
        now: Instant,
        id: ClientId,
        account: ClientAccount,
        requests: (u64, u64),
    ) -> Option<ClientId> {
        let (namespace, key) = (account.mesh, account.account.key());
        let older = self.registry.get(&(namespace, key)).copied().filter(|older| *older != id);
        let correspondents = match older {
            // The key stays registered, so the new connection inherits its correspondents.
            Some(older) => {
                self.counters.replaced += 1;
                self.take_registration(older).map(|old| old.correspondents).unwrap_or_default()
            }
            None => BTreeSet::new(),
        };
        self.recount(id, |client| client.account = account);
        let client = self.clients.get_mut(&id)?;
        client.registration = Some(Registration { namespace, key, groups: BTreeSet::new(), correspondents });
        self.registry.insert((namespace, key), id);
        self.accounts.add(account, 1);
        let rate = self.limits.bytes_per_second;
        let budget = self.budgets.entry((namespace, account.account.pass())).or_insert_with(|| Budget {
            clients: 0,
            bytes: TokenBucket::new(rate, burst(rate), now),
            requests: TokenBucket::new(requests.0, requests.1, now),
        });
        budget.clients += 1;
        older
    }

    /// Ends a registration: nothing more is queued for the connection, waiting datagrams are dropped and counted,
    /// and its correspondents are notified. Control frames still go out.
    pub fn unregister(&mut self, id: ClientId) {
        let Some(registration) = self.take_registration(id) else { return };
        self.registry.remove(&(registration.namespace, registration.key));
        for correspondent in registration.correspondents {
            if let Some(&sender) = self.registry.get(&(registration.namespace, correspondent)) {
                self.notify(sender, Notice::Gone, registration.key);
            }
        }
    }

    /// Ends a connection and its outbox.
    pub fn close(&mut self, id: ClientId) {
        self.unregister(id);
        self.clear_control(id);
        self.clients.remove(&id);
        self.wake.remove(&id);
    }

    fn take_registration(&mut self, id: ClientId) -> Option<Registration> {
        let mut dropped = 0;
        self.recount(id, |client| dropped = client.queue.clear());
        self.counters.dropped_closed += dropped;
        let client = self.clients.get_mut(&id)?;
        let (registration, account) = (client.registration.take()?, client.account);
        self.accounts.sub(account, 1);
        let pass = (registration.namespace, account.account.pass());
        if let Some(budget) = self.budgets.get_mut(&pass) {
            budget.clients -= 1;
            if budget.clients == 0 {
                self.budgets.remove(&pass);
            }
        }
        for tag in &registration.groups {
            leave(&mut self.groups, registration.namespace, *tag, id);
        }
        Some(registration)
    }

    /// Handles a frame of a registered client. Returns `false` for a frame that a client may not send.
    pub fn handle_frame(&mut self, now: Instant, id: ClientId, frame: Frame<'_>) -> bool {
        match frame {
            Frame::Ping { nonce } => self.push_control(id, &Frame::Pong { nonce }),
            Frame::Pong { .. } => {}
            Frame::Forward { dst, payload } => self.forward(now, id, dst, payload),
            Frame::GroupSend { tag, payload } => self.group_send(now, id, tag, payload),
            Frame::GroupJoin { tag } => self.group_join(id, tag),
            Frame::GroupLeave { tag } => self.group_leave(id, tag),
            _ => return false,
        }
        true
    }

    /// Takes one of the requests that the clients of a client's pass may make; false if none is left.
    pub fn take_request(&mut self, now: Instant, id: ClientId) -> bool {
        let Some(ClientAccount { mesh, account }) = self.registered_account(id) else { return false };
        self.budgets.get_mut(&(mesh, account.pass())).is_some_and(|budget| budget.requests.take(now, 1))
    }

    fn registered_account(&self, id: ClientId) -> Option<ClientAccount> {
        let client = self.clients.get(&id)?;
        client.registration.is_some().then_some(client.account)
    }

    /// The sender's namespace and account, if its datagram is within the size and rate limits.
    fn admit(&mut self, now: Instant, id: ClientId, payload: &[u8]) -> Option<(Namespace, Account)> {
        let ClientAccount { mesh, account } = self.registered_account(id)?;
        if payload.len() > MAX_DATAGRAM_BYTES {
            self.counters.dropped_too_large += 1;
            return None;
        }
        let budget = self.budgets.get_mut(&(mesh, account.pass()))?;
        if !budget.bytes.take(now, payload.len() as u64) {
            self.counters.dropped_rate += 1;
            return None;
        }
        Some((mesh, account))
    }

    fn forward(&mut self, now: Instant, id: ClientId, dst: PublicKey, payload: &[u8]) {
        let Some((namespace, account)) = self.admit(now, id, payload) else { return };
        let src = account.key();
        let Some(&to) = self.registry.get(&(namespace, dst)) else {
            self.counters.dropped_no_peer += 1;
            self.notify(id, Notice::Gone, dst);
            return;
        };
        self.counters.forwarded += 1;
        self.counters.forwarded_bytes += payload.len() as u64;
        let frame = Bytes::from(Frame::Deliver { src, payload }.to_vec());
        self.note_correspondent(to, &account);
        self.enqueue(namespace, to, account, frame);
    }

    fn note_correspondent(&mut self, to: ClientId, account: &Account) {
        let src = account.key();
        let Some(client) = self.clients.get_mut(&to) else { return };
        // Most datagrams find their source's row already there, and skip the look-up.
        if !client.queue.is_new(account) {
            return;
        }
        let Some(registration) = client.registration.as_mut() else { return };
        if registration.correspondents.contains(&src) {
            return;
        }
        if registration.correspondents.len() >= MAX_CORRESPONDENTS {
            self.counters.dropped_correspondents += 1;
            return;
        }
        registration.correspondents.insert(src);
    }

    fn group_send(&mut self, now: Instant, id: ClientId, tag: GroupTag, payload: &[u8]) {
        let Some((namespace, account)) = self.admit(now, id, payload) else { return };
        let src = account.key();
        self.counters.group_sends += 1;
        let Some(members) = self.groups.get(&(namespace, tag)) else { return };
        let members: Vec<ClientId> = members.iter().copied().filter(|member| *member != id).collect();
        // All members share one copy; each queue counts its full length.
        let frame = Bytes::from(Frame::GroupDeliver { src, tag, payload }.to_vec());
        for member in members {
            self.counters.group_deliveries += 1;
            self.enqueue(namespace, member, account, frame.clone());
        }
    }

    fn enqueue(&mut self, namespace: Namespace, to: ClientId, src: Account, frame: Bytes) {
        let Some(dst) = self.registered_account(to) else { return };
        if !self.make_room(&dst, frame.len() + ITEM_OVERHEAD_BYTES) && !self.drop_one(to) {
            // All queues are full, and in its own there is nothing that could go.
            self.counters.dropped_all_full += 1;
            return;
        }
        let mut pushed = Pushed::Queued;
        self.recount(to, |client| pushed = client.queue.push(src, frame));
        self.wake.insert(to);
        if let Pushed::Dropped { count, tell } = pushed {
            self.counters.dropped_queue_full += count;
            for source in tell {
                self.tell_full(namespace, source, dst.account.key());
            }
        }
    }

    fn tell_full(&mut self, namespace: Namespace, source: PublicKey, dst: PublicKey) {
        if let Some(&sender) = self.registry.get(&(namespace, source)) {
            self.notify(sender, Notice::Full, dst);
        }
    }

    /// Makes room for so many bytes more of `newcomer` in all queues, at the cost of the client that pays; false if that is
    /// the newcomer.
    fn make_room(&mut self, newcomer: &ClientAccount, bytes: usize) -> bool {
        while self.waiting.total() as usize + bytes > self.limits.all_bytes {
            let payer = self.waiting.payer(newcomer, bytes as u64);
            let paid = payer.and_then(|payer| self.registry.get(&(payer.mesh, payer.account.key())).copied());
            if !paid.is_some_and(|paid| self.drop_one(paid)) {
                return false;
            }
        }
        true
    }

    /// Drops the oldest datagram of a client's largest source, or its oldest control frame if there is none: it reads
    /// neither. False if nothing waits.
    fn drop_one(&mut self, id: ClientId) -> bool {
        let (mut dropped, mut is_control) = (None, false);
        self.recount(id, |client| {
            dropped = client.queue.drop_one();
            if dropped.is_none()
                && let Some(frame) = client.control.pop_front()
            {
                client.control_bytes -= frame.len() + ITEM_OVERHEAD_BYTES;
                is_control = true;
            }
        });
        let some = dropped.is_some() || is_control;
        self.counters.dropped_all_full += u64::from(some);
        if let (Some(Some(source)), Some(dst)) = (dropped, self.registered_account(id)) {
            self.tell_full(dst.mesh, source, dst.account.key());
        }
        some
    }

    /// Changes what waits for a client, and counts it for all.
    fn recount(&mut self, id: ClientId, change: impl FnOnce(&mut Client)) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let (before, of) = (client.counted, client.account);
        change(client);
        let after = client.bytes() / COUNTED_BYTES * COUNTED_BYTES;
        if (after, client.account) != (before, of) {
            client.counted = after;
            self.waiting.sub(of, before as u64);
            self.waiting.add(client.account, after as u64);
        }
    }

    fn group_join(&mut self, id: ClientId, tag: GroupTag) {
        let limit = self.limits.groups;
        let Some(registration) = self.clients.get_mut(&id).and_then(|client| client.registration.as_mut())
        else {
            return;
        };
        if !registration.groups.contains(&tag) && registration.groups.len() >= limit {
            self.counters.refused_groups += 1;
            return;
        }
        registration.groups.insert(tag);
        self.groups.entry((registration.namespace, tag)).or_default().insert(id);
    }

    fn group_leave(&mut self, id: ClientId, tag: GroupTag) {
        let Some(registration) = self.clients.get_mut(&id).and_then(|client| client.registration.as_mut())
        else {
            return;
        };
        if registration.groups.remove(&tag) {
            leave(&mut self.groups, registration.namespace, tag, id);
        }
    }

    fn notify(&mut self, id: ClientId, notice: Notice, peer: PublicKey) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.notices.contains(&(notice, peer)) {
            return;
        }
        let frame = match notice {
            Notice::Gone => Frame::PeerGone { peer },
            Notice::Full => Frame::QueueFull { peer },
        };
        if self.push_control_bytes(id, Bytes::from(frame.to_vec()))
            && let Some(client) = self.clients.get_mut(&id)
        {
            client.notices.insert((notice, peer));
        }
    }

    /// Queues a control frame for a connection.
    pub fn push_control(&mut self, id: ClientId, frame: &Frame<'_>) {
        self.push_control_bytes(id, Bytes::from(frame.to_vec()));
    }

    /// Queues an encoded control frame; `false` when the client doesn't read and its control queue is full.
    pub fn push_control_bytes(&mut self, id: ClientId, frame: Bytes) -> bool {
        let Some(client) = self.clients.get(&id) else { return false };
        let (cost, account) = (frame.len() + ITEM_OVERHEAD_BYTES, client.account);
        if client.control_bytes + cost > self.limits.control_bytes
            || !(self.make_room(&account, cost) || self.drop_one(id))
        {
            self.counters.dropped_control += 1;
            return false;
        }
        self.recount(id, |client| {
            client.control_bytes += cost;
            client.control.push_back(frame);
        });
        self.wake.insert(id);
        true
    }

    /// Wakes a connection's driver.
    pub fn wake(&mut self, id: ClientId) {
        self.wake.insert(id);
    }

    /// Drops the waiting control frames, so that a last CLOSE fits.
    pub fn clear_control(&mut self, id: ClientId) {
        self.recount(id, |client| {
            client.control.clear();
            client.control_bytes = 0;
            client.notices.clear();
        });
    }

    /// Appends frames for one connection to `out`, at most `max` bytes in all; control frames first. `false`: the
    /// outbox is empty.
    pub fn poll_plaintext(&mut self, id: ClientId, max: usize, out: &mut Vec<u8>) -> bool {
        let begun = out.len();
        let limit = begun + max;
        self.recount(id, |client| {
            while let Some(frame) = client.control.front() {
                if out.len() + frame.len() > limit {
                    return;
                }
                out.extend_from_slice(frame);
                client.control_bytes -= frame.len() + ITEM_OVERHEAD_BYTES;
                client.control.pop_front();
            }
            client.notices.clear();
            while let Some(frame) = client.queue.pop(limit - out.len()) {
                out.extend_from_slice(&frame);
            }
        });
        out.len() > begun
    }

    /// The next connection for which something was queued.
    pub fn poll_wake(&mut self) -> Option<ClientId> {
        self.wake.pop_first()
    }

    #[cfg(test)]
    pub(super) fn waiting_bytes(&self) -> u64 {
        self.waiting.total()
    }

    #[cfg(test)]
    pub(super) fn queued_bytes(&self, id: ClientId) -> usize {
        self.clients.get(&id).map_or(0, |client| client.bytes())
    }
}

fn leave(
    groups: &mut BTreeMap<(Namespace, GroupTag), BTreeSet<ClientId>>,
    namespace: Namespace,
    tag: GroupTag,
    id: ClientId,
) {
    if let Some(members) = groups.get_mut(&(namespace, tag)) {
        members.remove(&id);
        if members.is_empty() {
            groups.remove(&(namespace, tag));
        }
    }
}
