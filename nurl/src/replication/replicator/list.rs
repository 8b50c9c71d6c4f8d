//! Lists of the names of objects, gathered from all members.
//!
//! Nobody has a list of all objects, so a page of names is put together: every live placed member is asked for the next names
//! that it holds as a keeper. The page ends where the first of the cut answers does, and the next page goes on there. A member
//! that doesn't answer is named: with fewer silent ones than an object has owners, each object that all its owners have is
//! in the list.
//!
//! An answer is bounded in its names, its bytes and the keys that are scanned for it; an asker goes on with a member whose answer
//! was cut before it was full, as often as the largest table may need. What isn't an answer to the question is refused whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::{Duration, Instant};

use minicbor::bytes::ByteVec;

use super::config::{MAX_ENTRIES, MAX_KEY_BYTES};
use super::copies::Copies;
use super::error::{ReadFailure, UpdateError};
use super::event::ReplicatorEvent;
use super::key::{kind_of, state_key};
use super::message::Message;
use super::shared::Shared;
use crate::authority::account::Account;
use crate::key::PublicKey;
use crate::kit::shares::Shares;
use crate::replication::crdt::{Kind, Object};

/// Limit on the names of a page.
pub const MAX_NAMES: usize = 10_000;
/// Limit on the bytes of a page's keys, and on those of one answer.
const MAX_PAGE_BYTES: usize = 512 * 1024;
/// Limit on the keys that are looked at for one answer.
const MAX_SCAN_KEYS: usize = 16_384;
/// How often one member is asked for one page: for all that it may hold.
const MAX_ASKS: usize = MAX_ENTRIES.div_ceil(MAX_SCAN_KEYS) + 1;
/// Limit on the lists under way at a node.
const MAX_LISTINGS: usize = 16;
/// Limit on the answers in a tick. One pass has a half or a quarter of what is left, as of
/// [operations](super::served).
const MAX_ANSWERS: u64 = 64;
/// After this time a list ends with the answers that have arrived, if they are enough.
const WAIT: Duration = Duration::from_secs(1);
/// After this time it ends with what it has.
const GIVE_UP: Duration = Duration::from_secs(5);

/// Which names are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameQuery {
    /// Of this kind; none: of all, one kind after the other.
    pub kind: Option<Kind>,
    /// How they begin.
    pub prefix: Vec<u8>,
    /// The kind and the name behind which the list goes on; none: from the first.
    pub after: Option<(Kind, Vec<u8>)>,
    /// How many at once, 1 to [`MAX_NAMES`].
    pub most: usize,
}

/// A page of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePage {
    /// The objects that there are, by kind and name.
    pub names: Vec<(Kind, Vec<u8>)>,
    /// Where the next page begins; none if there is none.
    pub next: Option<(Kind, Vec<u8>)>,
    /// The placed members whose answer is missing.
    pub silent: Vec<PublicKey>,
    /// Whether these are as many as an object has owners: then objects may be missing that all their owners have.
    pub partial: bool,
}

/// A question as it is sent.
#[derive(Debug, Clone)]
struct Question {
    kind: Option<Kind>,
    prefix: Vec<u8>,
    after: Option<Vec<u8>>,
    most: usize,
}

impl Question {
    fn message(&self, id: u64) -> Message {
        Message::List {
            id,
            kind: self.kind,
            prefix: self.prefix.clone().into(),
            after: self.after.clone().map(ByteVec::from),
            most: self.most as u64,
        }
    }

    /// Whether a key is one of those that were asked for.
    fn admits(&self, key: &[u8]) -> bool {
        let of_kind = kind_of(key).is_some_and(|kind| self.kind.is_none_or(|wanted| wanted == kind));
        let behind = self.after.as_deref().is_none_or(|after| key > after);
        of_kind && behind && key[1..].starts_with(&self.prefix)
    }

    /// Whether an answer can be one of an honest member: ascending, of what was asked for, within the limits.
    fn fits(&self, part: &Part) -> bool {
        let ascending = part.keys.windows(2).all(|pair| pair[0] < pair[1]);
        let of_it = part.keys.iter().chain(&part.upto).all(|key| self.admits(key));
        let within = match (&part.upto, part.keys.last()) {
            (Some(upto), Some(last)) => last <= upto,
            _ => true,
        };
        ascending && of_it && within && part.keys.len() <= self.most && part.bytes() <= MAX_PAGE_BYTES
    }
}

/// One holder's answer.
#[derive(Debug)]
struct Part {
    keys: Vec<Vec<u8>>,
    /// The last key looked at, if there may be more behind it.
    upto: Option<Vec<u8>>,
}

impl Part {
    fn bytes(&self) -> usize {
        self.keys.iter().map(Vec::len).sum()
    }

    /// Whether there was no room for another name.
    fn is_full(&self, most: usize) -> bool {
        self.keys.len() >= most || self.bytes() + 1 + MAX_KEY_BYTES > MAX_PAGE_BYTES
    }
}

/// Whether an object is listed: it shows something. A counter may be written and zero.
fn is_there(object: &Object) -> bool {
    let nothing_to_show = object.kind() != Kind::Counter && object.value().is_empty();
    object.dead_since().is_none() && !nothing_to_show
}

/// The next names of what this node holds as a keeper.
fn part_of(sh: &Shared, copies: &Copies, asked: &Question) -> Part {
    let (mut keys, mut bytes, mut scanned) = (Vec::new(), 0, 0);
    let mut last: Option<&Vec<u8>> = None;
    for kind in Kind::ALL.into_iter().filter(|kind| asked.kind.is_none_or(|wanted| wanted == *kind)) {
        let first = state_key(kind, &asked.prefix);
        let from = match asked.after.as_deref() {
            Some(after) if after >= first.as_slice() => Bound::Excluded(after),
            _ => Bound::Included(first.as_slice()),
        };
        let range = copies.range(from, Bound::Unbounded);
        for (key, entry) in range.take_while(|(key, _)| key.starts_with(&first)) {
            if keys.len() == asked.most || scanned == MAX_SCAN_KEYS || bytes + key.len() > MAX_PAGE_BYTES {
                return Part { keys, upto: last.cloned() };
            }
            (last, scanned) = (Some(key), scanned + 1);
            if is_there(entry.value()) && (entry.owners().contains(&sh.local.key) || sh.takes(key)) {
                bytes += key.len();
                keys.push(key.clone());
            }
        }
    }
    Part { keys, upto: None }
}

/// A page that is being put together.
#[derive(Debug)]
struct Listing {
    asked: Question,
    /// Those that are to answer: behind which key, and how often they were asked.
    waiting: BTreeMap<PublicKey, (Option<Vec<u8>>, usize)>,
    silent: BTreeSet<PublicKey>,
    /// As many silent members may have all copies of an object.
    owners: usize,
    keys: BTreeSet<Vec<u8>>,
    bytes: usize,
    /// All answers reach up to here; none: to the end.
    upto: Option<Vec<u8>>,
    enough: Instant,
    give_up: Instant,
}

impl Listing {
    fn due(&self) -> Instant {
        let unheard = self.silent.len() + self.waiting.len();
        if unheard >= self.owners { self.give_up } else { self.enough }
    }

    fn end_at(&mut self, key: Vec<u8>) {
        if self.upto.as_ref().is_none_or(|upto| key < *upto) {
            self.upto = Some(key);
        }
    }

    /// Takes an answer, as far as there is room in the page. Returns where its giver goes on, if it has to.
    fn take(&mut self, part: Part) -> Option<Vec<u8>> {
        let full = part.is_full(self.asked.most);
        for key in part.keys {
            let bytes = key.len();
            if self.keys.insert(key) {
                self.bytes += bytes;
            }
        }
        while self.keys.len() > self.asked.most || self.bytes > MAX_PAGE_BYTES {
            let Some(last) = self.keys.pop_last() else { break };
            self.bytes -= last.len();
            if let Some(last) = self.keys.last().cloned() {
                self.end_at(last);
            }
        }
        let upto = part.upto?;
        if full || self.upto.as_ref().is_some_and(|end| upto >= *end) {
            self.end_at(upto);
            return None;
        }
        Some(upto)
    }

    fn fall_silent(&mut self, peer: PublicKey) {
        if self.waiting.remove(&peer).is_some() {
            self.silent.insert(peer);
        }
    }

    fn into_page(self) -> NamePage {
        let silent: Vec<_> = self.silent.into_iter().chain(self.waiting.into_keys()).collect();
        let of_key = |key: &Vec<u8>| Some((kind_of(key)?, key[1..].to_vec()));
        let within = self.keys.iter().filter(|key| self.upto.as_ref().is_none_or(|upto| *key <= upto));
        NamePage {
            names: within.filter_map(of_key).collect(),
            next: self.upto.as_ref().and_then(of_key),
            partial: silent.len() >= self.owners,
            silent,
        }
    }
}

/// The lists under way here, and the answers given to others.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// By the id of the question, with the caller's.
    under_way: BTreeMap<u64, (u64, Listing)>,
    /// The answers of this tick.
    answered: Shares<Account>,
}

impl Lists {
    /// Begins a list. [`ReplicatorEvent::Listed`] follows, or [`ReplicatorEvent::ReadFailed`].
    pub(super) fn begin(
        &mut self,
        sh: &mut Shared,
        copies: &Copies,
        now: Instant,
        call: u64,
        query: NameQuery,
    ) {
        let full = self.under_way.len() >= MAX_LISTINGS;
        let why = match query.prefix.len() {
            length if length > MAX_KEY_BYTES => UpdateError::KeyTooLong(length).into(),
            _ if full => UpdateError::Full("lists").into(),
            _ if sh.ring.is_empty() => ReadFailure::NoAnswer,
            _ => return self.ask(sh, copies, now, call, query),
        };
        sh.events.push(ReplicatorEvent::ReadFailed { id: call, why });
    }

    fn ask(&mut self, sh: &mut Shared, copies: &Copies, now: Instant, call: u64, query: NameQuery) {
        let NameQuery { kind, prefix, after, most } = query;
        let after = after.map(|(kind, name)| state_key(kind, &name));
        let asked = Question { kind, prefix, after, most: most.clamp(1, MAX_NAMES) };
        let id = sh.fresh_id();
        let message = asked.message(id);
        let others = sh.ring.members().iter().filter(|member| member.key != sh.local.key);
        let (live, away): (Vec<_>, Vec<_>) =
            others.map(|member| (member.key, member.live)).partition(|(_, live)| *live);
        let mut listing = Listing {
            waiting: live.iter().map(|(peer, _)| (*peer, (asked.after.clone(), 1))).collect(),
            silent: away.into_iter().map(|(peer, _)| peer).collect(),
            owners: sh.config.replicas.min(sh.ring.members().len()),
            keys: BTreeSet::new(),
            bytes: 0,
            upto: None,
            enough: now + WAIT,
            give_up: now + GIVE_UP,
            asked,
        };
        let mut own = listing.asked.clone();
        while let Some(after) = listing.take(part_of(sh, copies, &own)) {
            own.after = Some(after);
        }
        for (peer, _) in live {
            sh.send(peer, &message);
        }
        self.under_way.insert(id, (call, listing));
    }

    /// Answers another node.
    pub(super) fn on_list(
        &mut self,
        sh: &mut Shared,
        copies: &Copies,
        by: Account,
        id: u64,
        (kind, prefix, after, most): (Option<Kind>, ByteVec, Option<ByteVec>, u64),
    ) {
        if prefix.len() > MAX_KEY_BYTES {
            sh.stats.malformed += 1;
            return;
        }
        let account = by.of_pass();
        if !self.answered.leaves_room(&account, MAX_ANSWERS) || sh.outbox.is_half_full() {
            sh.stats.full += 1;
            return;
        }
        self.answered.add(account, 1);
        let most = usize::try_from(most).unwrap_or(MAX_NAMES).clamp(1, MAX_NAMES);
        let asked = Question { kind, prefix: prefix.into(), after: after.map(Vec::from), most };
        let part = part_of(sh, copies, &asked);
        let keys = part.keys.into_iter().map(ByteVec::from).collect();
        sh.send(by.key(), &Message::Names { id, keys, upto: part.upto.map(ByteVec::from) });
    }

    /// Takes a member's answer, and asks it for more if it had to stop before its answer was full.
    pub(super) fn on_names(
        &mut self,
        sh: &mut Shared,
        from: PublicKey,
        id: u64,
        (keys, upto): (Vec<ByteVec>, Option<ByteVec>),
    ) {
        let known = self.under_way.get_mut(&id);
        let Some((listing, (after, asks))) = known.and_then(|(_, listing)| {
            let asked = listing.waiting.get(&from).cloned()?;
            Some((listing, asked))
        }) else {
            sh.stats.stray += 1;
            return;
        };
        let part = Part { keys: keys.into_iter().map(Vec::from).collect(), upto: upto.map(Vec::from) };
        let asked = Question { after, ..listing.asked.clone() };
        if !asked.fits(&part) {
            sh.stats.bad_names += 1;
            listing.fall_silent(from);
            return;
        }
        match listing.take(part) {
            None => {
                listing.waiting.remove(&from);
            }
            // It would go on for longer than it can have something.
            Some(_) if asks >= MAX_ASKS => {
                sh.stats.bad_names += 1;
                listing.fall_silent(from);
            }
            Some(after) => {
                listing.waiting.insert(from, (Some(after.clone()), asks + 1));
                sh.send(from, &Question { after: Some(after), ..asked }.message(id));
            }
        }
    }

    /// Stops waiting for members that are lost, or away in a new view.
    pub(super) fn wait_only_for(&mut self, stays: impl Fn(&PublicKey) -> bool) {
        for (_, listing) in self.under_way.values_mut() {
            let gone: Vec<_> = listing.waiting.keys().filter(|peer| !stays(peer)).copied().collect();
            gone.into_iter().for_each(|peer| listing.fall_silent(peer));
        }
    }

    /// Tells the pages that are complete, or whose time is up.
    pub(super) fn finish(&mut self, sh: &mut Shared, now: Instant) {
        let done = self
            .under_way
            .extract_if(.., |_, (_, listing)| listing.waiting.is_empty() || listing.due() <= now);
        for (_, (id, listing)) in done {
            sh.events.push(ReplicatorEvent::Listed { id, page: listing.into_page() });
        }
    }

    /// Begins to count the answers of another tick.
    pub(super) fn tick(&mut self) {
        self.answered = Shares::default();
    }

    /// When the next list is over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.under_way.values().map(|(_, listing)| listing.due()).min()
    }
}
