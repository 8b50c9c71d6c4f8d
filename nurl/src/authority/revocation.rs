//! What no longer counts: for each subject, the time up to which its passes are out; and which secret the mesh has now.
//!
//! **Guarantees.** Merging is commutative, associative and idempotent, and never loses a revocation: for each subject the
//! greater time wins, so restored or doubled issuers, partitions and silent hubs lose none. Two valid signatures of one
//! entry are the same entry: nothing merges by signature bytes.
//!
//! An entry is `subject kind:1, subject:8 or 32 or 0, up to:4, made:4, signature:64`, integers little-endian. That of the
//! secret has no subject's bytes, and a generation's number in place of a time.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::invitation::InvitationId;
use super::key::{self, AuthorityKey};
use super::pass::{DAY, Grant};
use super::{SIGNATURE_LEN, UnixSeconds};
use crate::key::PublicKey;
use crate::kit::reader::Reader;
use crate::mesh::MeshId;

/// How long an entry is kept: longer than the longest pass, and than the time in which one is renewed after its end.
pub const KEEP: UnixSeconds = 200 * DAY;

/// The most entries of a map. They are the authority's own, so the bound is for memory, not for strangers.
pub const MAX_ENTRIES: usize = 16_384;

const LABEL: &[u8] = b"nurl/2 revocation";

/// Whose passes are out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Everybody's: the mesh begins anew.
    All,
    /// Those of an invitation; it enrols no more.
    Invitation(InvitationId),
    /// Those of a key.
    Key(PublicKey),
    /// Nobody's: the mesh's secret is of generation `up_to` now. See `authority/rotation.rs`.
    Secret,
}

/// One entry, signed by the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Whose passes are out.
    pub subject: Subject,
    /// Passes issued at this second or earlier are out. 0 takes no pass, and only closes an invitation. The number of a
    /// generation, if the subject is the secret.
    pub up_to: UnixSeconds,
    /// When it was signed: it is dropped 200 days later.
    pub made: UnixSeconds,
    signature: [u8; SIGNATURE_LEN],
}

impl Revocation {
    /// Signs an entry.
    pub fn sign(
        authority: &AuthorityKey,
        subject: Subject,
        up_to: UnixSeconds,
        made: UnixSeconds,
    ) -> Revocation {
        let signature = authority.sign(LABEL, &encode_body(subject, up_to, made));
        Revocation { subject, up_to, made, signature }
    }

    /// Whether it is still kept at `now`.
    fn is_kept(&self, now: UnixSeconds) -> bool {
        // A secret is in force until the next one, however old.
        self.subject == Subject::Secret || now <= self.made.saturating_add(KEEP)
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = encode_body(self.subject, self.up_to, self.made);
        out.extend_from_slice(&self.signature);
        out
    }

    /// Reads an entry off the front of `reader` and checks its signature. `None`: malformed, or not the authority's.
    pub fn decode(mesh: &MeshId, reader: &mut Reader<'_>) -> Option<Revocation> {
        Revocation::read(reader).filter(|entry| entry.is_of(mesh))
    }

    /// Reads an entry whose signature isn't checked yet.
    fn read(reader: &mut Reader<'_>) -> Option<Revocation> {
        let subject = Subject::read(reader)?;
        let (up_to, made, signature) = (reader.u32()?, reader.u32()?, reader.array()?);
        Some(Revocation { subject, up_to, made, signature })
    }

    /// The entries one after another, unchecked, as far as they parse.
    pub(crate) fn each(bytes: &[u8]) -> impl Iterator<Item = Revocation> + '_ {
        let mut reader = Reader(bytes);
        std::iter::from_fn(move || Revocation::read(&mut reader))
    }

    /// The subject of the last of these entries.
    pub(crate) fn last_subject(bytes: &[u8]) -> Option<Subject> {
        Revocation::each(bytes).last().map(|entry| entry.subject)
    }

    /// Whether the authority of this mesh signed it.
    pub fn is_of(&self, mesh: &MeshId) -> bool {
        key::verify(mesh, LABEL, &encode_body(self.subject, self.up_to, self.made), &self.signature)
    }

    /// Whether a pass that says this is out by this entry.
    pub fn revokes(&self, pass: &Grant) -> bool {
        let named = match self.subject {
            Subject::All => true,
            Subject::Invitation(id) => pass.invitation == Some(id),
            Subject::Key(key) => pass.key == key,
            Subject::Secret => false,
        };
        named && pass.issued <= self.up_to
    }
}

impl Subject {
    /// The encoding: the first bytes of an entry.
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Subject::All => vec![0],
            Subject::Invitation(id) => [&[1][..], &id.0].concat(),
            Subject::Key(key) => [&[2][..], key.as_bytes()].concat(),
            Subject::Secret => vec![3],
        }
    }

    /// Reads a subject off the front of `reader`.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Subject> {
        Some(match reader.u8()? {
            0 => Subject::All,
            1 => Subject::Invitation(InvitationId(reader.array()?)),
            2 => Subject::Key(PublicKey::from_bytes(reader.array()?)),
            3 => Subject::Secret,
            _ => return None,
        })
    }
}

fn encode_body(subject: Subject, up_to: UnixSeconds, made: UnixSeconds) -> Vec<u8> {
    let mut out = subject.encode();
    out.extend_from_slice(&up_to.to_le_bytes());
    out.extend_from_slice(&made.to_le_bytes());
    out
}

/// Names the content of a map of revocations.
pub type RevocationsDigest = [u8; 32];

/// Why entries that somebody tells aren't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// They don't parse.
    Malformed,
    /// The authority didn't sign one.
    Forged,
    /// More signatures than may be checked now.
    TooMany,
}

/// The most bytes of entries in one message: about 150 of them, checked within a few milliseconds.
pub const PAGE_BYTES: usize = 16 * 1024;

/// All entries that a node knows.
#[derive(Debug, Clone, Default)]
pub struct Revocations {
    entries: BTreeMap<Subject, Revocation>,
}

impl Revocations {
    /// Takes an entry. Returns whether it is [news](Revocations::is_news).
    pub fn merge(&mut self, entry: Revocation) -> bool {
        let news = self.is_news(&entry);
        if news {
            self.entries.insert(entry.subject, entry);
        }
        news
    }

    /// Whether an entry would be taken: its subject has none, or one with an earlier time; of two with the same time, the
    /// one that is kept longer wins.
    pub fn is_news(&self, entry: &Revocation) -> bool {
        match self.entries.get(&entry.subject) {
            Some(known) => (known.up_to, known.made) < (entry.up_to, entry.made),
            // A full map of revocations keeps no rotation out.
            None => self.entries.len() < MAX_ENTRIES || entry.subject == Subject::Secret,
        }
    }

    /// Reads entries one after another, and checks the signatures of those that are news at `now`. `may_check` says
    /// whether one more may be checked.
    ///
    /// # Errors
    /// [`NotTaken`]. Those that came before it are returned all the same.
    pub fn read_news(
        &self,
        (mesh, now): (&MeshId, UnixSeconds),
        bytes: &[u8],
        mut may_check: impl FnMut() -> bool,
    ) -> (Vec<Revocation>, Result<(), NotTaken>) {
        let (mut news, mut reader) = (Vec::new(), Reader(bytes));
        while !reader.rest().is_empty() {
            let Some(entry) = Revocation::read(&mut reader) else { return (news, Err(NotTaken::Malformed)) };
            if entry.is_kept(now) && self.is_news(&entry) {
                if !may_check() {
                    return (news, Err(NotTaken::TooMany));
                }
                if !entry.is_of(mesh) {
                    return (news, Err(NotTaken::Forged));
                }
                news.push(entry);
            }
        }
        (news, Ok(()))
    }

    /// The entries after this subject, in their order, as many as fit `room` bytes; and the last subject among them, if
    /// there are more. `None`: from the first one.
    pub fn page(&self, after: Option<&Subject>, room: usize) -> (Vec<u8>, Option<Subject>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut page, mut last) = (Vec::new(), None);
        for (subject, entry) in self.entries.range((from, Bound::Unbounded)) {
            let bytes = entry.encode();
            if page.len() + bytes.len() > room {
                return (page, last);
            }
            page.extend_from_slice(&bytes);
            last = Some(*subject);
        }
        (page, None)
    }

    /// The entries by which a pass that says this is out.
    pub fn against(&self, pass: &Grant) -> Vec<u8> {
        self.named_by(pass).filter(|entry| entry.revokes(pass)).flat_map(Revocation::encode).collect()
    }

    /// The entries whose subject a pass belongs to.
    fn named_by(&self, pass: &Grant) -> impl Iterator<Item = &Revocation> {
        let subjects =
            [Some(Subject::All), Some(Subject::Key(pass.key)), pass.invitation.map(Subject::Invitation)];
        subjects.into_iter().flatten().filter_map(|subject| self.entries.get(&subject))
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a pass that says this is out.
    pub fn revokes(&self, pass: &Grant) -> bool {
        self.named_by(pass).any(|entry| entry.revokes(pass))
    }

    /// Whether there is an entry for this key: it is enrolled and renewed no more, only admitted by hand.
    pub fn names(&self, key: &PublicKey) -> bool {
        self.entries.contains_key(&Subject::Key(*key))
    }

    /// Whether an invitation enrols no more.
    pub fn is_closed(&self, invitation: InvitationId) -> bool {
        self.entries.contains_key(&Subject::Invitation(invitation))
    }

    /// The generation of the mesh's secret, and when it was made, as far as is known.
    pub fn secret(&self) -> Option<(u32, UnixSeconds)> {
        self.entries.get(&Subject::Secret).map(|entry| (entry.up_to, entry.made))
    }

    /// Drops the entries that have been kept long enough. Returns whether there were any.
    pub fn expire(&mut self, now: UnixSeconds) -> bool {
        let before = self.entries.len();
        self.entries.retain(|_, entry| entry.is_kept(now));
        self.entries.len() < before
    }

    /// Names the content: equal maps have equal digests, whatever their signatures.
    pub fn digest(&self) -> RevocationsDigest {
        let mut hasher = blake3::Hasher::new_derive_key("nurl/2 revocations digest");
        for entry in self.entries.values() {
            hasher.update(&encode_body(entry.subject, entry.up_to, entry.made));
        }
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::level::Level;
    use super::*;
    use proptest::prelude::*;

    fn authority() -> AuthorityKey {
        AuthorityKey::from_seed(&[1; 32])
    }

    fn subject(n: u8) -> Subject {
        match n {
            0 => Subject::All,
            1..4 => Subject::Invitation(InvitationId([n; 8])),
            _ => Subject::Key(PublicKey::from_bytes([n; 32])),
        }
    }

    fn pass(key: u8, invitation: u8, issued: UnixSeconds) -> Grant {
        Grant {
            key: PublicKey::from_bytes([key; 32]),
            name: String::new(),
            level: Level::Member,
            weight: 1,
            zone: String::new(),
            invitation: Some(InvitationId([invitation; 8])),
            ring_seed: [0; 8],
            issued,
            not_after: issued + 30 * DAY,
        }
    }

    #[test]
    fn an_entry_comes_back_from_its_bytes_and_no_byte_can_be_changed() {
        let mesh = authority().mesh();
        for subject in [subject(0), subject(1), subject(9), Subject::Secret] {
            let entry = Revocation::sign(&authority(), subject, 1_000, 2_000);
            let bytes = entry.encode();
            assert_eq!(Revocation::decode(&mesh, &mut Reader(&bytes)), Some(entry));
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 4;
                assert_eq!(Revocation::decode(&mesh, &mut Reader(&changed)), None, "byte {at}");
            }
        }
    }

    #[test]
    fn passes_up_to_the_time_are_out_by_key_by_invitation_and_all() {
        let mut known = Revocations::default();
        assert!(known.merge(Revocation::sign(&authority(), subject(9), 1_000, 1_000)));
        assert!(known.revokes(&pass(9, 1, 1_000)) && !known.revokes(&pass(9, 1, 1_001)));
        assert!(!known.revokes(&pass(8, 1, 1_000)));
        known.merge(Revocation::sign(&authority(), subject(1), 500, 1_000));
        assert!(known.revokes(&pass(8, 1, 500)) && !known.revokes(&pass(8, 2, 500)));
        known.merge(Revocation::sign(&authority(), subject(2), 0, 1_000));
        assert!(known.is_closed(InvitationId([2; 8])) && !known.revokes(&pass(8, 2, 1)));
        known.merge(Revocation::sign(&authority(), Subject::All, 2_000, 2_000));
        assert!(known.revokes(&pass(8, 2, 2_000)) && !known.revokes(&pass(8, 2, 2_001)));
        known.expire(1_000 + KEEP + 1);
        assert!(!known.is_closed(InvitationId([2; 8])) && known.revokes(&pass(8, 2, 2_000)));
    }

    #[test]
    fn a_rotation_takes_nobodys_pass_is_kept_for_good_and_finds_room_in_a_full_map() {
        let mut known = Revocations::default();
        for n in 0..MAX_ENTRIES as u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            let subject = Subject::Key(PublicKey::from_bytes(id));
            let entry = Revocation { subject, up_to: 0, made: 1_000, signature: [0; SIGNATURE_LEN] };
            assert!(known.merge(entry));
        }
        let rotation = |generation, made| authority().rotate(generation, made).entry;
        assert!(!known.is_news(&Revocation::sign(&authority(), Subject::All, 1, 1)), "it is full");
        assert!(known.merge(rotation(1, 1_000)) && known.merge(rotation(2, 900)));
        assert!(!known.merge(rotation(1, 2_000)) && !known.merge(rotation(2, 900)));
        assert!(!known.revokes(&pass(200, 9, 0)));
        assert!(known.expire(1_000 + KEEP + 1));
        assert_eq!((known.secret(), known.entries.len()), (Some((2, 900)), 1));
        let (bytes, mesh) = (rotation(3, 900).encode(), authority().mesh());
        let late = known.read_news((&mesh, 1_000 + 2 * KEEP), &bytes, || true);
        assert_eq!(late, (vec![rotation(3, 900)], Ok(())), "it is in force however old");
    }

    #[test]
    fn pages_hold_all_entries_once_and_only_news_are_checked() {
        let (mesh, mut known, mut other) =
            (authority().mesh(), Revocations::default(), Revocations::default());
        for n in 0..40 {
            known.merge(Revocation::sign(&authority(), subject(n), 1_000, 1_000));
        }
        let (mut after, mut pages, mut checked) = (None, 0, 0);
        loop {
            let (page, more) = known.page(after.as_ref(), 500);
            assert!(page.len() <= 500);
            let (news, read) = other.read_news((&mesh, 1_000), &page, || {
                checked += 1;
                true
            });
            assert_eq!(read, Ok(()));
            news.into_iter().for_each(|entry| assert!(other.merge(entry)));
            pages += 1;
            after = more;
            if after.is_none() {
                break;
            }
        }
        assert_eq!((known.digest(), checked), (other.digest(), 40));
        assert!(pages > 7);
        let (all, _) = known.page(None, PAGE_BYTES);
        assert_eq!(other.read_news((&mesh, 1_000), &all, || false), (Vec::new(), Ok(())), "nothing to check");
        let none = Revocations::default();
        assert_eq!(none.read_news((&mesh, 1_000), &all, || false).1, Err(NotTaken::TooMany));
        assert_eq!(none.read_news((&mesh, 1_000), &all[1..], || true).1, Err(NotTaken::Malformed));
        let mut forged = all.clone();
        *forged.last_mut().unwrap() ^= 1;
        let (news, read) = none.read_news((&mesh, 1_000), &forged, || true);
        assert_eq!((news.len(), read), (39, Err(NotTaken::Forged)));
        let late = none.read_news((&mesh, 1_000 + KEEP + 1), &all, || true);
        assert_eq!(late, (Vec::new(), Ok(())), "what is kept no more is no news");
        assert_eq!(known.against(&pass(9, 200, 1_000)).len(), 2 * 73 + 32, "by all and by key");
    }

    proptest! {
        #[test]
        fn in_every_order_and_however_often_the_same_is_known(
            entries in proptest::collection::vec((0u8..8, 0u32..5, 0u32..5), 1..12),
            turns in any::<u64>(),
        ) {
            let signed: Vec<_> =
                entries.iter().map(|(n, up_to, made)| Revocation::sign(&authority(), subject(*n), *up_to, *made)).collect();
            let (mut one, mut other) = (Revocations::default(), Revocations::default());
            signed.iter().for_each(|entry| { one.merge(entry.clone()); });
            let mut shuffled = signed.clone();
            shuffled.rotate_left((turns % signed.len() as u64) as usize);
            shuffled.reverse();
            shuffled.extend(signed.iter().take(3).cloned());
            shuffled.into_iter().for_each(|entry| { other.merge(entry); });
            prop_assert_eq!(one.digest(), other.digest());
            for (n, up_to, _) in entries {
                if let Subject::Key(_) = subject(n) {
                    prop_assert!(one.revokes(&pass(n, 1, up_to)));
                }
            }
        }
    }
}
