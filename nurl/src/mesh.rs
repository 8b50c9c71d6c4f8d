//! A mesh: its identity, the secrets that its members share, and the addresses of its hubs.
//!
//! A mesh is a constant [`MeshId`], which is its authority's public key, one or two rotating [`MeshSecret`]s (current
//! and previous) and a list of [`Hub`]s. Its text form is one [`Ticket`], `nurlmesh1…` (bech32m), with an
//! [`Invitation`] that gives its holders passes. Every holder of a ticket may join as the invitation says, so the
//! ticket is a secret; Debug never shows it.
//!
//! With each rotation of the secret its number grows by one: [`rotation`](crate::authority::rotation).
//!
//! The Noise prologue and the rendezvous namespace are derived from the id, which never changes. All access
//! keys are derived from the secret by HKDF-SHA256 (RFC 5869) with distinct labels, so a rotation of the
//! secret replaces all of them: see [`Generation`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bech32::{Bech32m, Hrp};
use hkdf::Hkdf;
use rand_core::CryptoRng;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::authority::UnixSeconds;
use crate::authority::invitation::{Invitation, Terms};
use crate::authority::key::AuthorityKey;
use crate::authority::keyring::Keyring;
use crate::authority::rotation::SignedSecret;
use crate::key::{KEY_LEN, PublicKey, decode_text};
use crate::kit::reader::Reader;
use crate::rt::Rng;

const TICKET_HRP: &str = "nurlmesh";
const TICKET_VERSION: u8 = 2;

/// The most hubs in a ticket: its text then still fits bech32m's 1,023 characters.
pub const MAX_HUBS: usize = 4;

/// The longest hub address in a ticket, in bytes: `host:port`.
pub const MAX_HUB_ADDR_BYTES: usize = 64;

/// The name of this protocol version; the Noise prologue begins with it.
pub const PROTOCOL: &[u8] = b"nurl/2";

/// The constant name of a mesh: the public key of its authority, so whoever knows it can check every pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MeshId([u8; 32]);

impl MeshId {
    /// Takes the 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> MeshId {
        MeshId(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The prologue of every handshake in this mesh: `"nurl/2" ‖ mesh id`.
    pub fn prologue(&self) -> Vec<u8> {
        [PROTOCOL, &self.0].concat()
    }

    /// The identity of the mesh at a hub: HKDF(mesh id, "nurl/2 namespace").
    pub fn namespace(&self) -> Namespace {
        Namespace(*derive(&self.0, &self.0, b"nurl/2 namespace", &[]))
    }
}

/// The name under which a hub serves a mesh. It reveals neither the mesh's id nor its secret. A client that
/// knows the namespace may register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Namespace([u8; 32]);

impl Namespace {
    /// No mesh's name.
    pub(crate) const NONE: Namespace = Namespace([0; 32]);

    /// Takes the 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Namespace {
        Namespace(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

impl fmt::Display for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for MeshId {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<MeshId, TicketError> {
        let digits = text.trim().as_bytes();
        if digits.len() != 64 {
            return Err(TicketError::MeshId);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| TicketError::MeshId)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| TicketError::MeshId)?;
        }
        Ok(MeshId(bytes))
    }
}

/// One generation of the mesh's shared secret.
#[derive(Clone, PartialEq, Eq)]
pub struct MeshSecret(Zeroizing<[u8; 32]>);

impl MeshSecret {
    /// Draws a secret.
    pub fn generate(rng: &mut impl CryptoRng) -> MeshSecret {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *bytes);
        MeshSecret(bytes)
    }

    /// The secret of a generation after the first, from the seed of the mesh's authority.
    pub(crate) fn derived(mesh: &MeshId, seed: &[u8; 32], generation: u32, made: u32) -> MeshSecret {
        let (generation, made) = (generation.to_le_bytes(), made.to_le_bytes());
        MeshSecret(derive(mesh.as_bytes(), seed, b"nurl/2 secret", &[generation, made].concat()))
    }

    /// The 32 bytes.
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes the 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> MeshSecret {
        MeshSecret(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for MeshSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshSecret(…)")
    }
}

/// The keys derived from one generation of the secret.
#[derive(Clone)]
pub struct Generation {
    /// The handshake's pre-shared key, mixed in at `psk2`.
    pub psk: Zeroizing<[u8; 32]>,
    /// The base of every member's mac1 key; see [`Generation::mac1_key`].
    mac1: Zeroizing<[u8; 32]>,
    /// The base of the key that seals cookies; see [`Generation::cookie_key`].
    cookie: Zeroizing<[u8; 32]>,
    /// Seals rendezvous records, so that a hub can't read candidates.
    pub record: Zeroizing<[u8; 32]>,
    /// The mesh group's key: the per-sender subkeys are derived from it.
    pub group: Zeroizing<[u8; 32]>,
}

impl Generation {
    pub(crate) fn new(mesh: &MeshId, secret: &MeshSecret) -> Generation {
        let key = |label: &[u8]| derive(mesh.as_bytes(), &secret.0, label, &[]);
        Generation {
            psk: key(b"nurl/2 psk"),
            mac1: key(b"nurl/2 mac1"),
            cookie: key(b"nurl/2 cookie"),
            record: key(b"nurl/2 record"),
            group: key(b"nurl/2 group"),
        }
    }

    /// The key of mac1 in messages *to* `receiver`. It depends on the mesh secret, so a stranger can't make
    /// a receiver compute a Diffie-Hellman (WireGuard derives its mac1 key from the public key alone).
    pub fn mac1_key(&self, receiver: &PublicKey) -> [u8; 32] {
        *derive(&self.mac1, receiver.as_bytes(), b"nurl/2 mac1 of", &[])
    }

    /// The key that seals cookies *from* `sender`.
    pub fn cookie_key(&self, sender: &PublicKey) -> [u8; 32] {
        *derive(&self.cookie, sender.as_bytes(), b"nurl/2 cookie of", &[])
    }

    /// The key with which `sender`, in its process `boot`, seals to the mesh group.
    pub fn group_sender_key(&self, sender: &PublicKey, boot: u64) -> Zeroizing<[u8; 32]> {
        derive(&self.group, sender.as_bytes(), b"nurl/2 group sender", &boot.to_le_bytes())
    }
}

/// HKDF-SHA256 with `salt`, `secret` as input keying material, and `label ‖ context` as info.
fn derive(salt: &[u8; 32], secret: &[u8; 32], label: &[u8], context: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand_multi_info(&[label, context], &mut *out)
        .expect("32 bytes are within HKDF's length");
    out
}

/// A hub as the ticket lists it: its key, which clients pin, and its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hub {
    /// The hub's public key.
    pub key: PublicKey,
    /// `host:port`, for TCP and UDP alike; the host is a name or an address.
    pub addr: String,
}

/// Everything needed to join a mesh.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The mesh.
    pub mesh: MeshId,
    /// The number of the current secret: 0 for the first, one more with each rotation.
    pub generation: u32,
    /// The current secret.
    pub current: MeshSecret,
    /// The previous secret, accepted during a rotation.
    pub previous: Option<MeshSecret>,
    /// The hubs; at most [`MAX_HUBS`].
    pub hubs: Vec<Hub>,
    /// The right to get a pass; `None`: for those who have one.
    pub invitation: Option<Invitation>,
}

impl Ticket {
    /// A new mesh: its authority's key, and a ticket with the [standard](Invitation::standard) invitation. `unix_now` is
    /// the time since 1970.
    pub fn new_mesh(hub: Hub, unix_now: Duration, rng: &mut Rng) -> (AuthorityKey, Ticket) {
        let authority = AuthorityKey::generate(rng);
        let ticket = Ticket::first(&authority, hub, unix_now, rng);
        (authority, ticket)
    }

    /// The first ticket of an authority's mesh, with the [standard](Invitation::standard) invitation.
    pub fn first(authority: &AuthorityKey, hub: Hub, unix_now: Duration, rng: &mut Rng) -> Ticket {
        let mut ticket = Ticket::generate(authority.mesh(), hub, rng);
        ticket.invitation = Some(Invitation::standard(authority, unix_now, rng));
        ticket
    }

    /// A ticket with a new secret, one hub and no invitation.
    pub fn generate(mesh: MeshId, hub: Hub, rng: &mut impl CryptoRng) -> Ticket {
        let current = MeshSecret::generate(rng);
        Ticket { mesh, generation: 0, current, previous: None, hubs: vec![hub], invitation: None }
    }

    /// The key generations in the order in which an initiator tries them: current, then previous.
    pub fn generations(&self) -> Vec<Generation> {
        std::iter::once(&self.current)
            .chain(&self.previous)
            .map(|secret| Generation::new(&self.mesh, secret))
            .collect()
    }

    /// Takes a later secret of the mesh, with the one before as the previous one while that is accepted. Returns whether the
    /// ticket has changed.
    pub fn rotate(&mut self, signed: &SignedSecret, time: UnixSeconds) -> bool {
        let (before, mut keyring) = (self.clone(), Keyring::new(self));
        if signed.is_of(&self.mesh) {
            keyring.replace(time, signed);
        }
        keyring.fill(self);
        *self != before
    }

    /// The text form. It contains the secret.
    ///
    /// # Errors
    /// [`TicketError::TooLarge`] with too many hubs or too long an address.
    pub fn to_text(&self) -> Result<Zeroizing<String>, TicketError> {
        if self.hubs.len() > MAX_HUBS || self.hubs.iter().any(|hub| hub.addr.len() > MAX_HUB_ADDR_BYTES) {
            return Err(TicketError::TooLarge);
        }
        let mut bytes = Zeroizing::new(vec![TICKET_VERSION]);
        bytes.extend_from_slice(self.mesh.as_bytes());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.push(1 + u8::from(self.previous.is_some()));
        for secret in std::iter::once(&self.current).chain(&self.previous) {
            bytes.extend_from_slice(&*secret.0);
        }
        bytes.push(self.hubs.len() as u8);
        for hub in &self.hubs {
            bytes.extend_from_slice(hub.key.as_bytes());
            bytes.push(hub.addr.len() as u8);
            bytes.extend_from_slice(hub.addr.as_bytes());
        }
        if let Some(invitation) = &self.invitation {
            bytes.extend_from_slice(&invitation.terms.encode());
            bytes.extend_from_slice(invitation.secret());
        }
        bech32::encode::<Bech32m>(Hrp::parse_unchecked(TICKET_HRP), &bytes)
            .map(Zeroizing::new)
            .map_err(|_| TicketError::TooLarge)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Ticket> {
        let mut reader = Reader(bytes);
        let mesh = MeshId(reader.array()?);
        let generation = reader.u32()?;
        let (current, previous) = match reader.u8()? {
            1 => (MeshSecret::from_bytes(reader.array()?), None),
            2 => {
                let current = MeshSecret::from_bytes(reader.array()?);
                (current, Some(MeshSecret::from_bytes(reader.array()?)))
            }
            _ => return None,
        };
        let count = usize::from(reader.u8()?);
        if count > MAX_HUBS {
            return None;
        }
        let mut hubs = Vec::with_capacity(count);
        for _ in 0..count {
            let key = PublicKey::from_slice(reader.slice(KEY_LEN)?)?;
            let len = usize::from(reader.u8()?);
            let addr = String::from_utf8(reader.slice(len)?.to_vec()).ok()?;
            if addr.len() > MAX_HUB_ADDR_BYTES || addr.rsplit_once(':')?.1.parse::<u16>().is_err() {
                return None;
            }
            hubs.push(Hub { key, addr });
        }
        let invitation = if reader.rest().is_empty() {
            None
        } else {
            let terms = Terms::decode(&mut reader)?;
            Some(Invitation::from_parts(terms, reader.array()?))
        };
        reader.end(Ticket { mesh, generation, current, previous, hubs, invitation })
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("mesh", &self.mesh.namespace()).field("hubs", &self.hubs).finish()
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Ticket, TicketError> {
        let bytes = decode_text(text.trim(), TICKET_HRP).map_err(TicketError::Text)?;
        match bytes.split_first() {
            Some((&TICKET_VERSION, rest)) => Ticket::from_bytes(rest).ok_or(TicketError::Content),
            Some((1, _)) => Err(TicketError::Old),
            Some((version, _)) => Err(TicketError::Version(*version)),
            None => Err(TicketError::Content),
        }
    }
}

/// Why a text isn't a ticket, or a ticket has no text form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// The text isn't bech32m, has a mistyped character, or has another prefix.
    #[error("not a ticket: {0} (expected nurlmesh1…, as `nurl hub` prints it)")]
    Text(String),
    /// The checksum is right, but the content is malformed.
    #[error("not a ticket: its content is malformed")]
    Content,
    /// A version before passes.
    #[error("this ticket has version 1, of a mesh without passes: make a new mesh and take its ticket")]
    Old,
    /// A version that this program doesn't know.
    #[error("this ticket has version {0}; this program knows version {TICKET_VERSION}: update it")]
    Version(u8),
    /// Too many hubs, or too long an address.
    #[error("a ticket holds at most {MAX_HUBS} hubs with addresses of at most {MAX_HUB_ADDR_BYTES} bytes")]
    TooLarge,
    /// Not 64 hexadecimal digits.
    #[error("not a mesh id: 64 hexadecimal digits are expected")]
    MeshId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_core::SeedableRng;

    fn ticket(previous: bool, hubs: usize) -> Ticket {
        let mut rng = crate::rt::Rng::from_seed([9; 32]);
        let hub = |n: usize| Hub {
            key: PublicKey::from_bytes([n as u8; 32]),
            addr: format!("{}hub-{n}.example:4242", "x".repeat(MAX_HUB_ADDR_BYTES - 18)),
        };
        let authority = crate::authority::key::AuthorityKey::generate(&mut rng);
        let mut ticket = Ticket::generate(authority.mesh(), hub(0), &mut rng);
        let terms = Terms {
            id: crate::authority::invitation::InvitationId([1; 8]),
            level: crate::authority::level::Level::Worker,
            weight: 1,
            zone: "z".repeat(24),
            until: 1,
            keys: 64,
        };
        ticket.invitation = terms.invite(&authority).filter(|_| hubs > 0);
        ticket.generation = u32::from(previous);
        ticket.previous = previous.then(|| MeshSecret::generate(&mut rng));
        ticket.hubs = (0..hubs).map(hub).collect();
        ticket
    }

    #[test]
    fn a_ticket_comes_back_from_its_text_also_at_its_largest() {
        for (previous, hubs) in [(false, 0), (false, 1), (true, MAX_HUBS)] {
            let ticket = ticket(previous, hubs);
            let text = ticket.to_text().unwrap();
            assert!(text.starts_with("nurlmesh1"));
            assert_eq!(text.parse::<Ticket>().unwrap(), ticket);
        }
    }

    #[test]
    fn a_ticket_in_capitals_is_one_and_in_both_kinds_of_letters_none() {
        let ticket = ticket(true, 2);
        let capitals = ticket.to_text().unwrap().to_uppercase();
        assert_eq!(capitals.parse::<Ticket>().unwrap(), ticket);
        let mixed = capitals.replacen("NURL", "nurl", 1);
        let Err(TicketError::Text(why)) = mixed.parse::<Ticket>() else {
            panic!("mixed letters are refused")
        };
        assert_eq!(why, "it has capital and small letters");
    }

    #[test]
    fn one_hub_too_many_is_a_typed_error() {
        assert_eq!(ticket(false, MAX_HUBS + 1).to_text(), Err(TicketError::TooLarge));
    }

    #[test]
    fn a_later_version_asks_for_an_update() {
        let text = bech32::encode::<Bech32m>(Hrp::parse_unchecked(TICKET_HRP), &[3, 0, 0]).unwrap();
        assert_eq!(text.parse::<Ticket>(), Err(TicketError::Version(3)));
        let text = bech32::encode::<Bech32m>(Hrp::parse_unchecked(TICKET_HRP), &[1, 0, 0]).unwrap();
        assert_eq!(text.parse::<Ticket>(), Err(TicketError::Old));
    }

    #[test]
    fn every_label_and_every_generation_gives_another_key() {
        let ticket = ticket(true, 1);
        let [now, before] = &ticket.generations()[..] else { panic!("two generations") };
        let (a, b) = (PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32]));
        let keys = std::collections::BTreeSet::from([
            *now.psk,
            *before.psk,
            *now.record,
            *now.group,
            now.mac1_key(&a),
            now.mac1_key(&b),
            before.mac1_key(&a),
            now.cookie_key(&a),
            *now.group_sender_key(&a, 1),
            *now.group_sender_key(&a, 2),
            *ticket.mesh.namespace().as_bytes(),
        ]);
        assert_eq!(keys.len(), 11);
    }

    #[test]
    fn a_mesh_id_comes_back_from_its_text() {
        let mesh = ticket(false, 1).mesh;
        assert_eq!(mesh.to_string().parse::<MeshId>().unwrap(), mesh);
        assert_eq!("zz".parse::<MeshId>(), Err(TicketError::MeshId));
    }

    proptest! {
        #[test]
        fn any_content_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Ticket::from_bytes(&bytes);
        }

        #[test]
        fn a_truncated_ticket_is_refused(cut in 0usize..200) {
            let text = ticket(true, 2).to_text().unwrap();
            let bytes = decode_text(&text, TICKET_HRP).unwrap();
            prop_assume!(cut < bytes.len() - 1);
            prop_assert_eq!(Ticket::from_bytes(&bytes[1..1 + cut]), None);
        }
    }
}
