//! Revocations: from whom this node learns them, and to whom it tells them.
//!
//! Whoever tells an entry may be anybody, since the authority signed it. Hubs tell all at a registration, and news at
//! once. Members compare digests in each exchange of tables, and where they differ each pulls the other's map by pages.
//! News are told to the hubs and to some members with a session, by the node where an entry begins to all of them.
//!
//! **Bounds.** What is known costs no check of a signature. Whoever tells a false one isn't listened to for a minute.
//! Pulls under way, answers to pulls and callers are limited.
//!
//! The messages, each a reliable message of kind 5: `0` asks for a page, from the beginning or with a subject after which
//! it begins; `1, more: 0 or 1, entries` answers; `2, entries` tells news.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::liars::Liars;
use super::mail::{Answer, Ends};
use crate::authority::invitation::InvitationId;
use crate::authority::revocation::{PAGE_BYTES, Revocation, Revocations, RevocationsDigest, Subject};
use crate::error::{Error, RevokeError};
use crate::key::PublicKey;
use crate::kit::draw;
use crate::kit::rate::TokenBucket;
use crate::kit::reader::Reader;
use crate::rt::Rng;
use crate::transport::{MessageId, Priority, kind};

/// Members that a node tells what it has learned from others.
const FANOUT: usize = 4;

/// Pulls under way, and how long one may be without a page; so long, too, no second one from the same peer begins.
const MAX_PULLS: usize = 8;
const PULL_FOR: Duration = Duration::from_secs(10);

/// Pages that a peer gets per second, and at once: more than all there can be.
const PAGES: (u64, u64) = (16, 128);

/// The time between two times that a hub is told everything.
const TELL_ALL_EVERY: Duration = Duration::from_secs(10);

/// A caller's entry is spread when a hub has taken it. After this a member is enough.
const HUBS_FIRST: Duration = Duration::from_secs(3);

/// How long a caller waits for an acknowledgement.
const GIVE_UP: Duration = Duration::from_secs(10);

/// Callers that wait.
const MAX_CALLERS: usize = 256;

/// Peers that are remembered for their pages.
const MAX_PEERS: usize = 4_096;

const ASK: u8 = 0;
const PAGE: u8 = 1;
const TELL: u8 = 2;

/// A caller that waits until its entry is known elsewhere.
struct Caller {
    entry: Revocation,
    begun: Instant,
    /// Whether a member has it.
    member: bool,
    reply: Answer,
}

/// A pull of another member's map.
struct Pull {
    until: Instant,
    /// The last subject that has come; `None` before the first page.
    after: Option<Subject>,
    open: bool,
}

/// See the module.
pub(super) struct Revoking {
    rng: Rng,
    callers: Vec<Caller>,
    /// The messages that told a caller's entry.
    told: BTreeMap<(PublicKey, MessageId), Subject>,
    /// What each hub says it knows, since its connection is up.
    hubs: BTreeMap<PublicKey, RevocationsDigest>,
    /// When a hub was last told everything.
    told_all: BTreeMap<PublicKey, Instant>,
    pulls: BTreeMap<PublicKey, Pull>,
    pages: BTreeMap<PublicKey, TokenBucket>,
    liars: Liars,
    /// Keys that were revoked, for an issuer, which closes the invitations by which they came, as far as their facts say.
    revoked_keys: Vec<(PublicKey, Option<InvitationId>)>,
    /// Entries taken.
    pub(super) taken: u64,
    /// Messages refused: malformed, false, not asked for, or beyond a limit.
    pub(super) refused: u64,
}

impl Revoking {
    pub(super) fn new(rng: Rng) -> Revoking {
        Revoking {
            rng,
            callers: Vec::new(),
            told: BTreeMap::new(),
            hubs: BTreeMap::new(),
            told_all: BTreeMap::new(),
            pulls: BTreeMap::new(),
            pages: BTreeMap::new(),
            liars: Liars::default(),
            revoked_keys: Vec::new(),
            taken: 0,
            refused: 0,
        }
    }

    /// Whether a caller waits.
    pub(super) fn is_awaited(&self) -> bool {
        !self.callers.is_empty()
    }

    // ---- Callers.

    /// Takes a caller's entry, and tells it to every hub and to every live member with a session.
    pub(super) fn revoke(&mut self, now: Instant, entry: Revocation, reply: Answer, ends: &mut Ends<'_>) {
        if self.callers.len() >= MAX_CALLERS {
            let _ = reply.send(Err(Error::Busy("too many revocations are being told")));
            return;
        }
        let bytes = entry.encode();
        // Before it acts here, since it may be this node's own pass, or that of a peer which is told by its session.
        ends.transport.tell_hubs(None, &bytes);
        let subject = entry.subject;
        self.callers.push(Caller { entry: entry.clone(), begun: now, member: false, reply });
        for peer in members_with_session(ends) {
            if let Some(id) = send(now, peer, TELL, &bytes, ends) {
                self.told.insert((peer, id), subject);
            }
        }
        if self.take(now, &entry, ends) {
            self.taken += 1;
            ends.outlets.revoked(vec![entry]);
        }
    }

    /// Takes an entry of this node's own that nobody waits for, and tells it as news.
    pub(super) fn begin(&mut self, now: Instant, entry: Revocation, ends: &mut Ends<'_>) {
        if take_entry(now, &entry, ends) {
            self.taken += 1;
            let local = ends.detector.local().key;
            self.pass_on(now, &local, std::slice::from_ref(&entry), ends);
            ends.outlets.revoked(vec![entry]);
        }
    }

    /// The keys that were revoked since this was asked last.
    pub(super) fn take_revoked_keys(&mut self) -> Vec<(PublicKey, Option<InvitationId>)> {
        std::mem::take(&mut self.revoked_keys)
    }

    /// Acts on an entry. Returns whether it was news.
    fn take(&mut self, now: Instant, entry: &Revocation, ends: &mut Ends<'_>) -> bool {
        let key = if let Subject::Key(key) = entry.subject { Some(key) } else { None };
        // It is a member no more after that.
        let member = key.and_then(|key| ends.detector.members().find(|member| member.key == key));
        let invitation = member.and_then(|member| member.grant.invitation);
        let news = take_entry(now, entry, ends);
        if let (true, Some(key)) = (news, key) {
            self.revoked_keys.push((key, invitation));
        }
        news
    }

    /// A peer has a message of ours.
    pub(super) fn on_acked(&mut self, now: Instant, peer: PublicKey, id: MessageId, ends: &Ends<'_>) {
        let Some(subject) = self.told.remove(&(peer, id)) else { return };
        let of = |caller: &&mut Caller| caller.entry.subject == subject;
        self.callers.iter_mut().filter(of).for_each(|caller| caller.member = true);
        self.handle_timeout(now, ends);
    }

    /// When a caller has waited long enough for something.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let due = |caller: &Caller| {
            let first = caller.begun + HUBS_FIRST;
            if caller.member && now < first { first } else { caller.begun + GIVE_UP }
        };
        self.callers.iter().map(due).min()
    }

    /// Answers the callers whose entry is known elsewhere, or who have waited in vain.
    pub(super) fn handle_timeout(&mut self, now: Instant, ends: &Ends<'_>) {
        let hub_up = ends.transport.hubs().values().any(|hub| hub.up);
        self.answer(|caller| {
            let age = now.saturating_duration_since(caller.begun);
            if caller.member && (!hub_up || age >= HUBS_FIRST) {
                return Some(Ok(()));
            }
            (age >= GIVE_UP).then(|| Err(RevokeError::Untold.into()))
        });
    }

    fn answer(&mut self, judge: impl Fn(&Caller) -> Option<Result<(), Error>>) {
        let mut waiting = Vec::new();
        for caller in self.callers.drain(..) {
            match judge(&caller) {
                // An error means that the caller gave up.
                Some(answer) => drop(caller.reply.send(answer)),
                None => waiting.push(caller),
            }
        }
        self.callers = waiting;
        if self.callers.is_empty() {
            self.told.clear();
        }
    }

    // ---- Hubs.

    /// A hub says what it knows. `None`: it has just registered us.
    pub(super) fn on_hub(
        &mut self,
        now: Instant,
        hub: PublicKey,
        knows: Option<RevocationsDigest>,
        ends: &mut Ends<'_>,
    ) {
        let ours = ends.transport.revocations().digest();
        let theirs = match knows {
            Some(digest) => {
                self.hubs.insert(hub, digest);
                digest
            }
            None => {
                self.told_all.remove(&hub);
                self.hubs.get(&hub).copied().unwrap_or_else(|| Revocations::default().digest())
            }
        };
        if theirs == ours {
            self.answer(|_| Some(Ok(())));
        } else if ends.transport.hubs().get(&hub).is_some_and(|state| state.up)
            && self.told_all.get(&hub).is_none_or(|at| *at + TELL_ALL_EVERY <= now)
        {
            self.told_all.insert(hub, now);
            let mut after = None;
            loop {
                let (page, more) = ends.transport.revocations().page(after.as_ref(), PAGE_BYTES);
                ends.transport.tell_hubs(Some(&hub), &page);
                after = more;
                if after.is_none() {
                    break;
                }
            }
        }
    }

    /// The connection to a hub is gone.
    pub(super) fn on_hub_down(&mut self, hub: &PublicKey) {
        self.hubs.remove(hub);
    }

    // ---- What others tell.

    /// A hub or a peer tells entries.
    pub(super) fn on_told(&mut self, now: Instant, from: PublicKey, entries: &[u8], ends: &mut Ends<'_>) {
        if self.liars.contains(now, &from) {
            self.refused += 1;
            return;
        }
        let is_hub = ends.transport.hubs().contains_key(&from);
        let (told, read) = ends.transport.read_revocations(now, entries);
        if let Err(reason) = read {
            self.refused += 1;
            tracing::warn!(target: "nurl::net", teller = %from.short(), ?reason, "a revocation is false");
            self.liars.insert(now, from);
        }
        let news: Vec<Revocation> = told.into_iter().filter(|entry| self.take(now, entry, ends)).collect();
        self.taken += news.len() as u64;
        if is_hub && self.is_awaited() {
            self.answer(|caller| is_among(&caller.entry, entries).then_some(Ok(())));
        }
        if !news.is_empty() {
            self.pass_on(now, &from, &news, ends);
            ends.outlets.revoked(news);
        }
    }

    /// Tells news of `from` to the hubs and to a few members. More than a page of them spread by pulls alone.
    fn pass_on(&mut self, now: Instant, from: &PublicKey, news: &[Revocation], ends: &mut Ends<'_>) {
        let bytes: Vec<u8> = news.iter().flat_map(Revocation::encode).collect();
        if bytes.len() > PAGE_BYTES {
            return;
        }
        let hubs: Vec<PublicKey> = ends.transport.hubs().keys().filter(|hub| *hub != from).copied().collect();
        for hub in hubs {
            ends.transport.tell_hubs(Some(&hub), &bytes);
        }
        let others = members_with_session(ends).into_iter().filter(|peer| peer != from).collect();
        for peer in draw::sample(&mut self.rng, others, FANOUT) {
            send(now, peer, TELL, &bytes, ends);
        }
    }

    /// A peer's exchange of tables shows that it knows other revocations.
    pub(super) fn on_differs(&mut self, now: Instant, peer: PublicKey, ends: &mut Ends<'_>) {
        self.pulls.retain(|_, pull| now < pull.until);
        let room = self.pulls.len() < MAX_PULLS && !self.pulls.contains_key(&peer);
        if room && send(now, peer, ASK, &[], ends).is_some() {
            self.pulls.insert(peer, Pull { until: now + PULL_FOR, after: None, open: true });
        }
    }

    /// A message of a peer.
    pub(super) fn on_message(&mut self, now: Instant, from: PublicKey, body: &[u8], ends: &mut Ends<'_>) {
        let handled = match body.split_first() {
            Some((&ASK, subject)) => self.on_ask(now, from, subject, ends),
            Some((&PAGE, rest)) if rest.len() <= 1 + PAGE_BYTES => self.on_page(now, from, rest, ends),
            Some((&TELL, entries)) if entries.len() <= PAGE_BYTES => {
                self.on_told(now, from, entries, ends);
                true
            }
            _ => false,
        };
        self.refused += u64::from(!handled);
    }

    /// False: the request isn't answered.
    fn on_ask(&mut self, now: Instant, from: PublicKey, subject: &[u8], ends: &mut Ends<'_>) -> bool {
        let mut reader = Reader(subject);
        let after = if subject.is_empty() { None } else { Subject::read(&mut reader) };
        if (after.is_none() && !subject.is_empty()) || !reader.rest().is_empty() {
            return false;
        }
        if !self.pages.contains_key(&from) && self.pages.len() >= MAX_PEERS {
            self.pages.retain(|_, pages| !pages.is_full(now));
        }
        let room = self.pages.len() < MAX_PEERS || self.pages.contains_key(&from);
        let new = || TokenBucket::new(PAGES.0, PAGES.1, now);
        if !room || !self.pages.entry(from).or_insert_with(new).take(now, 1) {
            return false;
        }
        let (mut page, more) = ends.transport.revocations().page(after.as_ref(), PAGE_BYTES);
        page.insert(0, u8::from(more.is_some()));
        send(now, from, PAGE, &page, ends).is_some()
    }

    /// False: nobody asked for it.
    fn on_page(&mut self, now: Instant, from: PublicKey, rest: &[u8], ends: &mut Ends<'_>) -> bool {
        let Some(Pull { after, open: true, .. }) = self.pulls.get(&from) else { return false };
        let (Some((more, entries)), after) = (rest.split_first(), *after) else { return false };
        self.on_told(now, from, entries, ends);
        // Subjects only ascend, so a pull ends.
        let last = Revocation::last_subject(entries).filter(|last| after.is_none_or(|after| *last > after));
        let next = last.filter(|_| *more == 1 && !self.liars.contains(now, &from));
        let goes_on = next.is_some_and(|next| send(now, from, ASK, &next.encode(), ends).is_some());
        if let Some(pull) = self.pulls.get_mut(&from) {
            *pull = Pull { until: now + PULL_FOR, after: next, open: goes_on };
        }
        true
    }
}

/// Acts on an entry. Returns whether it was news.
fn take_entry(now: Instant, entry: &Revocation, ends: &mut Ends<'_>) -> bool {
    let Some(out) = ends.transport.revoke(now, entry) else { return false };
    out.into_iter().for_each(|peer| ends.detector.expel(peer));
    ends.detector.set_revocations(ends.transport.revocations());
    true
}

/// Whether an entry, or a later one of its subject, is among these.
fn is_among(entry: &Revocation, entries: &[u8]) -> bool {
    Revocation::each(entries).any(|other| other.subject == entry.subject && other.up_to >= entry.up_to)
}

/// The live members with a session.
fn members_with_session(ends: &Ends<'_>) -> Vec<PublicKey> {
    let local = ends.detector.local().key;
    let members = ends.detector.members().filter(|member| member.key != local && member.state.is_live());
    members.map(|member| member.key).filter(|peer| ends.transport.has_session(peer)).collect()
}

/// Sends a message. `None`: there is no room, or no way; the next exchange of tables makes up for it.
fn send(now: Instant, to: PublicKey, what: u8, body: &[u8], ends: &mut Ends<'_>) -> Option<MessageId> {
    let body = Bytes::from([&[what][..], body].concat());
    ends.transport.send_message(now, to, Priority::Control, kind::REVOCATIONS, body).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use rand_core::SeedableRng as _;

    use super::super::liars::IGNORED_FOR;
    use super::*;
    use crate::authority::key::AuthorityKey;
    use crate::key::{AllowList, SecretKey};
    use crate::membership::{Detector, DetectorConfig, Meta, Notary};
    use crate::mesh::{Hub, Ticket};
    use crate::net::reach::listen::Listen;
    use crate::node::command::{View, Waiting, WorkInput};
    use crate::node::event::Bus;
    use crate::node::net::outlets::{Channels, Outlets};
    use crate::rt::sync::{mpsc, watch};
    use crate::transport::{Limits, Transport, TransportConfig};

    pub(in super::super) const UNIX: Duration = Duration::from_secs(1_800_000_000);

    pub(in super::super) fn key(n: u16) -> PublicKey {
        PublicKey::from_bytes(std::array::from_fn(|at| n.to_le_bytes()[at % 2]))
    }

    pub(in super::super) fn authority() -> AuthorityKey {
        AuthorityKey::from_seed(&[1; 32])
    }

    fn entry(n: u16) -> Revocation {
        authority().revoke(Subject::Key(key(n)), UNIX.as_secs() as u32)
    }

    /// A node's parts, without sockets.
    pub(in super::super) struct Parts {
        revoking: Revoking,
        pub(in super::super) transport: Transport,
        pub(in super::super) detector: Detector,
        pub(in super::super) outlets: Outlets,
        pub(in super::super) kept: mpsc::Receiver<WorkInput>,
        pub(in super::super) ticket: Ticket,
        pub(in super::super) now: Instant,
    }

    impl Parts {
        pub(in super::super) fn new() -> Parts {
            let now = crate::rt::test_now();
            let rng = |seed: u8| Rng::from_seed([seed; 32]);
            let hub = Hub { key: key(1), addr: "hub:1".to_owned() };
            let secret = SecretKey::generate(&mut rng(1));
            let local = secret.public();
            let config = TransportConfig {
                key: secret,
                ticket: Ticket::generate(authority().mesh(), hub, &mut rng(2)),
                credential: None,
                name: String::new(),
                allow: AllowList::Anyone,
                boot: 1,
                listed: false,
                listen: Listen::default(),
                limits: Limits::default(),
                versions: crate::net::secure::version::Versions::SPOKEN,
            };
            let (work, kept) = mpsc::channel(64);
            let channels = Channels {
                large: mpsc::channel(1).0,
                large_stats: Arc::default(),
                work,
                view: watch::channel(Arc::new(View::default())).0,
                datagrams: mpsc::channel(1).0,
                messages: mpsc::channel(1).0,
                groups: mpsc::channel(1).0,
                waiting: Waiting::new(),
                bus: Bus::default(),
            };
            let detector = DetectorConfig::default();
            Parts {
                ticket: config.ticket.clone(),
                revoking: Revoking::new(rng(3)),
                transport: Transport::new(&config, now, UNIX, |_| rng(4)),
                detector: Detector::new(
                    detector,
                    Notary::trusting(local),
                    1,
                    Meta::default(),
                    false,
                    now,
                    rng(5),
                ),
                outlets: Outlets::new(channels),
                kept,
                now,
            }
        }

        fn with<T>(&mut self, act: impl FnOnce(&mut Revoking, Instant, &mut Ends<'_>) -> T) -> T {
            let Parts { revoking, transport, detector, outlets, now, .. } = self;
            act(revoking, *now, &mut Ends { transport, detector, outlets })
        }

        fn hear(&mut self, from: u16, body: &[u8]) {
            self.with(|revoking, now, ends| revoking.on_message(now, key(from), body, ends));
        }

        fn known(&self) -> usize {
            Revocation::each(&self.transport.revocations().page(None, usize::MAX).0).count()
        }
    }

    #[test]
    fn a_pull_goes_on_page_by_page_to_its_end_and_what_comes_is_kept() {
        let (mut parts, mut theirs) = (Parts::new(), Revocations::default());
        for n in 10..500 {
            theirs.merge(entry(n));
        }
        parts.with(|revoking, now, ends| revoking.on_differs(now, key(7), ends));
        let (mut after, mut pages) = (None, 0);
        loop {
            let (page, more) = theirs.page(after.as_ref(), PAGE_BYTES);
            parts.hear(7, &[&[PAGE, u8::from(more.is_some())], &page[..]].concat());
            let pull = &parts.revoking.pulls[&key(7)];
            assert_eq!((pull.after, pull.open), (more, more.is_some()));
            pages += 1;
            after = more;
            if after.is_none() {
                break;
            }
        }
        assert_eq!((pages, parts.known()), (4, 490));
        assert_eq!(parts.transport.revocations().digest(), theirs.digest());
        let mut kept = 0;
        while let Ok(WorkInput::Revoked(news)) = parts.kept.try_recv() {
            kept += news.len();
        }
        assert_eq!((kept, parts.revoking.taken, parts.revoking.refused), (490, 490, 0));
    }

    #[test]
    fn what_nobody_asked_for_is_refused_and_a_liar_is_not_listened_to_for_a_while() {
        let mut parts = Parts::new();
        parts.hear(7, &[&[PAGE, 0], &entry(10).encode()[..]].concat());
        assert_eq!((parts.known(), parts.revoking.refused), (0, 1), "a page without a question");
        let tell = |n: u16| [&[TELL][..], &entry(n).encode()].concat();
        let mut forged = tell(11);
        *forged.last_mut().unwrap() ^= 1;
        parts.hear(7, &forged);
        parts.hear(7, &tell(12));
        assert_eq!((parts.known(), parts.revoking.refused), (0, 3));
        parts.hear(8, &tell(12));
        parts.now += IGNORED_FOR;
        parts.hear(7, &tell(13));
        assert_eq!((parts.known(), parts.revoking.refused), (2, 3));
        for body in [&[][..], &[9], &[ASK, 4], &[ASK, 0, 0], &[TELL, 2, 1], &[0; 2 * PAGE_BYTES]] {
            let before = parts.revoking.refused;
            parts.hear(9, body);
            parts.now += IGNORED_FOR;
            assert_eq!(parts.revoking.refused, before + 1, "{:?}", &body[..body.len().min(4)]);
        }
    }

    #[test]
    fn pulls_and_pages_are_limited() {
        let mut parts = Parts::new();
        for n in 0..20 {
            parts.with(|revoking, now, ends| revoking.on_differs(now, key(20 + n), ends));
        }
        assert_eq!(parts.revoking.pulls.len(), MAX_PULLS);
        parts.now += PULL_FOR;
        parts.with(|revoking, now, ends| revoking.on_differs(now, key(99), ends));
        assert_eq!(parts.revoking.pulls.len(), 1);
        (0..200).for_each(|_| parts.hear(7, &[ASK]));
        assert_eq!(parts.revoking.refused, 200 - PAGES.1);
    }
}
