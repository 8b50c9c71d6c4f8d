//! A range that differs, in parts.
//!
//! A hundred differences among 100,000 keys lie in nearly all ranges of a thousand keys. To tell the digests of whole ranges
//! would cost 36 bytes for each key that is equal. So the answer to a summary that differs is a hash for each
//! [few keys](part_keys), and the digests are asked for where these differ. (This is one level of the recursion of range-based
//! set reconciliation, Meyer 2023.)

use minicbor::bytes::ByteVec;

use super::copies::Copies;
use super::message::{Item, Message, Range};
use super::shared::Shared;
use super::sync::{SharedKeys, Summaries, hash_of, shared_keys};
use crate::key::PublicKey;
use crate::replication::crdt::{DIGEST_LEN, Digest};
use crate::rt::{Point, buggify};

/// Keys of the answerer in one part: with more, a difference costs more digests; with fewer, more hashes.
const PART_KEYS: usize = 64;
/// Parts in one answer.
const MAX_PARTS: usize = 512;
/// Parts that differ, one behind the other, that are asked about at once: 1,024 digests.
const MAX_RUN: usize = 16;

/// The keys in one part.
pub(super) fn part_keys() -> usize {
    if buggify(Point::PartOfOne) { 1 } else { PART_KEYS }
}

/// Answers a summary that differs with a hash for each part of its range, up to `end`.
pub(super) fn answer(
    sh: &mut Shared,
    to: PublicKey,
    range: Range,
    (shared, end): (&SharedKeys, Option<Vec<u8>>),
    settling: Option<u64>,
) {
    let size = PART_KEYS.max(shared.len().div_ceil(MAX_PARTS));
    let chunks: Vec<&[(Vec<u8>, Digest)]> = shared.chunks(size).collect();
    let Some((last, others)) = chunks.split_last() else { return };
    let parts = others.iter().filter_map(|part| {
        let (upto, _) = part.last()?;
        Some(Item { key: upto.clone().into(), bytes: hash_of(part).to_vec().into() })
    });
    let parts: Vec<Item> = parts.collect();
    let bytes = parts.iter().map(|part| part.key.len() + DIGEST_LEN).sum::<usize>() + DIGEST_LEN;
    if sh.spend(bytes) {
        let range = Range { after: range.after, upto: end.map(ByteVec::from) };
        sh.send(to, &Message::Divided { range, parts, last: hash_of(last).into(), settling });
    }
}

/// Asks for the digests of the parts that differ.
pub(super) fn on_divided(
    sh: &mut Shared,
    summaries: &mut Summaries,
    copies: &mut Copies,
    from: PublicKey,
    (range, settling): (&Range, Option<u64>),
    (parts, last): (&[Item], Digest),
) {
    let key = |key: &Option<ByteVec>| key.as_ref().map(|key| key.to_vec());
    let (after, upto) = (key(&range.after), key(&range.upto));
    let ends = parts.iter().map(|part| Some(part.key.to_vec())).chain([upto.clone()]);
    let mut hashes: Vec<&[u8]> = parts.iter().map(|part| part.bytes.as_slice()).collect();
    hashes.push(&last);
    if hashes.len() > MAX_PARTS || !ascends(after.as_deref(), parts, upto.as_deref()) {
        sh.stats.malformed += 1;
        return;
    }
    // Of a range with more keys than the answerer's only the first are compared.
    let most = hashes.len() * PART_KEYS * 2;
    let (shared, _) = shared_keys(sh, copies, &from, after.as_deref(), upto.as_deref(), most);
    let (mut begin, mut start, mut runs) = (0, after, Runs::default());
    for (end, hash) in ends.zip(hashes) {
        let of = &shared[begin..];
        let count = end.as_ref().map_or(of.len(), |end| of.partition_point(|(key, _)| key <= end));
        let of = &of[..count];
        begin += count;
        if hash_of(of)[..] == *hash {
            for (key, _) in of {
                copies.spread(key);
                copies.compared(sh, key, &from);
            }
            runs.end();
        } else {
            runs.add(start, end.clone(), of);
        }
        start = end;
    }
    let mut open = Vec::new();
    for Run { after, upto, shared, .. } in runs.0.into_iter().flatten() {
        let id = sh.fresh_id();
        let range = Range { after: after.map(ByteVec::from), upto: upto.clone().map(ByteVec::from) };
        open.push((id, upto));
        let settling = Some(id);
        sh.send(from, &Message::Summary { range, hash: hash_of(&shared).into(), settling, digests: true });
    }
    if let Some(id) = settling {
        summaries.divided(&from, id, range, open);
    }
}

/// Whether the ends of these parts ascend within a range.
fn ascends(after: Option<&[u8]>, parts: &[Item], upto: Option<&[u8]>) -> bool {
    let ends = parts.iter().map(|part| part.key.as_slice());
    let keys: Vec<&[u8]> = after.into_iter().chain(ends).chain(upto).collect();
    keys.is_sorted_by(|one, next| one < next)
}

/// Parts that differ, one behind the other.
#[derive(Debug)]
struct Run {
    after: Option<Vec<u8>>,
    upto: Option<Vec<u8>>,
    shared: SharedKeys,
    parts: usize,
}

/// The runs of a range; none marks where one ended.
#[derive(Debug, Default)]
struct Runs(Vec<Option<Run>>);

impl Runs {
    /// Ends the last run.
    fn end(&mut self) {
        self.0.push(None);
    }

    /// Adds a part that differs.
    fn add(&mut self, after: Option<Vec<u8>>, upto: Option<Vec<u8>>, shared: &[(Vec<u8>, Digest)]) {
        match self.0.last_mut() {
            Some(Some(run)) if run.parts < MAX_RUN => {
                run.upto = upto;
                run.shared.extend_from_slice(shared);
                run.parts += 1;
            }
            _ => self.0.push(Some(Run { after, upto, shared: shared.to_vec(), parts: 1 })),
        }
    }
}
