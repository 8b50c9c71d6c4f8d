//! Bytes for an insider: messages of membership, jobs and state, with whatever fields it likes.

use bytes::Bytes;
use minicbor::Encoder;
use minicbor::encode::Error;
use nurl::internals::authority::pass::Pass;
use nurl::internals::compute::job::digest;
use nurl::internals::membership::message::{MembershipMessage, MessageBody};
use nurl::internals::membership::profile::MemberProfile;
use nurl::internals::membership::table::{Fact, MemberRecord, State};
use nurl::internals::membership::{Meta, Roles};
use nurl::internals::mesh::MeshId;
use nurl::{PublicKey, SecretKey};

/// An encoder into memory.
pub type Writer<'a> = Encoder<&'a mut Vec<u8>>;

/// The result of an encoder's step. Memory takes every byte.
pub type Step = Result<(), Error<std::convert::Infallible>>;

/// The bytes that an encoder writes.
pub fn cbor(write: impl FnOnce(&mut Writer<'_>) -> Step) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut Encoder::new(&mut bytes)).expect("memory takes every byte");
    bytes
}

/// A membership message of a member that carries only facts.
pub fn gossip(epoch: u64, facts: Vec<Fact>) -> MembershipMessage {
    MembershipMessage { epoch, observer: false, body: MessageBody::Gossip, facts, events: Vec::new() }
}

/// The bytes of an observer's ping, with this epoch.
pub fn ping(seq: u64, epoch: u64) -> Bytes {
    let message =
        MembershipMessage { observer: true, body: MessageBody::Ping { seq }, ..gossip(epoch, Vec::new()) };
    message.encode().into()
}

/// A fact that a member is alive or has left, with a profile of these roles and this weight, signed by whoever signs.
pub fn said(
    key: PublicKey,
    by: &Signer<'_>,
    incarnation: u64,
    left: bool,
    (roles, weight): (Roles, u16),
) -> Fact {
    fact(
        key,
        by,
        incarnation,
        left,
        Meta::new(roles, Vec::new(), weight, String::new()).expect("short names"),
    )
}

/// A fact that a worker is alive, and has this kind alone.
pub fn worker_of(key: PublicKey, by: &Signer<'_>, incarnation: u64, kind: &str) -> Fact {
    let meta = Meta::new(Roles::WORKER, vec![kind.to_owned()], 1, String::new()).expect("short names");
    fact(key, by, incarnation, false, meta)
}

fn fact(key: PublicKey, by: &Signer<'_>, incarnation: u64, left: bool, meta: Meta) -> Fact {
    let profile = MemberProfile { incarnation, left, boot: 1, meta, pass: by.pass.hash() };
    let profile = profile.sign(by.secret, by.mesh, by.pass);
    let state = if left { State::Left } else { State::Alive };
    let record = MemberRecord { incarnation, state, profile: Some(profile) };
    Fact { key, record, age_s: 0, accusers: Vec::new() }
}

/// Who signs: a key, and the pass that it shows with what it says.
pub struct Signer<'a> {
    /// The key.
    pub secret: &'a SecretKey,
    /// The mesh in which it counts.
    pub mesh: &'a MeshId,
    /// The pass, the key's own or another's.
    pub pass: &'a Pass,
}

/// A claim about a member, without a profile.
pub fn claim(key: PublicKey, incarnation: u64, state: State, accusers: Vec<PublicKey>) -> Fact {
    Fact { key, record: MemberRecord { incarnation, state, profile: None }, age_s: 0, accusers }
}

/// A job message: its type, its header and its body. The types and fields are in `docs/protocol.md`.
pub fn job(kind: u8, header: impl FnOnce(&mut Writer<'_>) -> Step, body: &[u8]) -> Bytes {
    let header = cbor(header);
    let len = u16::try_from(header.len()).expect("a short header").to_le_bytes();
    [&[kind][..], &len, &header, body].concat().into()
}

/// A SUBMIT in the name of `submitter`, that has been forwarded `hops` times. Each executor may run it.
pub fn submit(
    task: [u8; 16],
    submitter: PublicKey,
    hops: u8,
    kind: &str,
    key: &[u8],
    payload: &[u8],
) -> Bytes {
    let header = |e: &mut Writer<'_>| {
        e.array(12)?.bytes(&task)?.u32(1)?.u16(u16::MAX)?.u8(hops)?.bytes(submitter.as_bytes())?;
        // Normal priority, a minute to live, neither asked elsewhere nor forced, no parent.
        e.str(kind)?.bytes(key)?.u8(1)?.u64(60_000)?.bool(false)?.bool(false)?.null()?.ok()
    };
    job(1, header, payload)
}

/// A LISTENING: a submitter is alive.
pub fn listening() -> Bytes {
    job(14, |e| e.array(0)?.ok(), &[])
}

/// A CLAIM: the submitter's word that a task that was forwarded is its own, with the digest of its content.
pub fn claim_task(task: [u8; 16], kind: &str, key: &[u8], payload: &[u8]) -> Bytes {
    let digest = digest(kind, key, payload);
    job(15, |e| e.array(3)?.bytes(&task)?.u32(1)?.bytes(&digest)?.ok(), &[])
}

/// A DELTA: a state for an owner of a key, which is a kind's byte and a name. With an id it is a write, which the owner
/// acknowledges.
pub fn delta(key: &[u8], id: Option<u64>, state: &[u8]) -> Bytes {
    let message = cbor(|e| {
        e.array(2)?.u32(0)?.array(3)?.bytes(key)?;
        match id {
            Some(id) => e.u64(id)?,
            None => e.null()?,
        };
        e.bytes(state)?.ok()
    });
    message.into()
}
