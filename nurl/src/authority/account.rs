//! On whose account a thing is booked that a peer has of a bounded table.
//!
//! Keys cost nothing: a pass signs a slip for each call, and an invitation enrols 64 keys. So not the key pays but the
//! pass, and above it the invitation. A pass that was admitted by hand counts for itself. Who pays first is said in
//! [`shares`](crate::kit::shares).

use std::collections::BTreeMap;

use super::checker::Standing;
use super::invitation::InvitationId;
use crate::key::PublicKey;
use crate::kit::shares::Holder;
use crate::mesh::Namespace;

/// One of those to whom an amount counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// Of no account.
    Nobody,
    /// All of a mesh, at a hub.
    Mesh(Namespace),
    /// All passes of an invitation.
    Invitation(InvitationId),
    /// A pass, by its holder's key, with all its slips; or one key.
    Key(PublicKey),
}

impl std::hash::Hash for Party {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        match self {
            Party::Nobody => state.write_u8(0),
            Party::Mesh(mesh) => state.write(mesh.as_bytes()),
            Party::Invitation(id) => state.write(&id.0),
            Party::Key(key) => state.write(key.as_bytes()),
        }
    }
}

impl Party {
    /// The key; that of nobody for a party that is none.
    fn key(&self) -> PublicKey {
        if let Party::Key(key) = self { *key } else { PublicKey::from_bytes([0; 32]) }
    }
}

/// A peer's account: its key, the pass by which it is here, and the invitation by which that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account {
    invitation: Option<InvitationId>,
    pass: PublicKey,
    key: PublicKey,
}

impl Account {
    /// The account of the peer with this key and this standing.
    pub fn new(key: PublicKey, standing: &Standing) -> Account {
        Account { invitation: standing.grant.invitation, pass: standing.grant.key, key }
    }

    /// The account of a key of which no more is known, or whose pass was admitted by hand.
    pub const fn alone(key: PublicKey) -> Account {
        Account { invitation: None, pass: key, key }
    }

    /// The peer's key.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// The key of its pass.
    pub fn pass(&self) -> PublicKey {
        self.pass
    }

    /// The account of its pass as a whole, where the keys that its holder used don't matter.
    pub fn of_pass(&self) -> Account {
        Account { key: self.pass, ..*self }
    }

    /// Its outermost party: the invitation, or the pass if that was admitted by hand.
    pub fn group(&self) -> Party {
        self.invitation.map_or(Party::Key(self.pass), Party::Invitation)
    }
}

impl From<PublicKey> for Account {
    /// The account of a key of which no more is known.
    fn from(key: PublicKey) -> Account {
        Account::alone(key)
    }
}

impl Holder for Account {
    type Party = Party;
    type Path = [Party; 3];
    const NOBODY: Party = Party::Nobody;

    fn path(&self) -> [Party; 3] {
        [self.group(), Party::Key(self.pass), Party::Key(self.key)]
    }

    fn of([group, pass, key]: &[Party; 3]) -> Account {
        let invitation = if let Party::Invitation(id) = group { Some(*id) } else { None };
        Account { invitation, pass: pass.key(), key: key.key() }
    }
}

/// A client's account at a hub, which serves several meshes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientAccount {
    /// The mesh.
    pub mesh: Namespace,
    /// The account within it.
    pub account: Account,
}

impl ClientAccount {
    /// That of connections that haven't registered.
    pub const NOBODY: ClientAccount =
        ClientAccount { mesh: Namespace::NONE, account: Account::alone(PublicKey::from_bytes([0; 32])) };
}

impl Holder for ClientAccount {
    type Party = Party;
    type Path = [Party; 4];
    const NOBODY: Party = Party::Nobody;

    fn path(&self) -> [Party; 4] {
        let [group, pass, key] = self.account.path();
        [Party::Mesh(self.mesh), group, pass, key]
    }

    fn of([mesh, group, pass, key]: &[Party; 4]) -> ClientAccount {
        let mesh = if let Party::Mesh(mesh) = mesh { *mesh } else { Namespace::NONE };
        ClientAccount { mesh, account: Account::of(&[*group, *pass, *key]) }
    }
}

/// Who of a crowd makes room in a full table in which each has one place: at most so `many` of the passes that pay for
/// `newcomer`, and of a pass those of the lowest rank. Nobody: the newcomer pays itself. It is for a crowd that is looked at
/// as a whole, and seldom; a table that knows its [shares](crate::kit::shares) asks these.
pub fn make_room<Rank: Ord, Id>(
    crowd: impl IntoIterator<Item = (Account, Rank, Id)>,
    newcomer: &Account,
    many: usize,
) -> Vec<Id> {
    let mut by_pass = BTreeMap::<_, Vec<_>>::new();
    for (account, rank, id) in crowd {
        by_pass.entry((account.group(), account.pass())).or_default().push((rank, account, id));
    }
    let (own_group, own_pass) = (newcomer.group(), (newcomer.group(), newcomer.pass()));
    let (mut gone, mut sorted) = (Vec::new(), None);
    while gone.len() < many {
        let mut groups = BTreeMap::<Party, usize>::new();
        by_pass.iter().for_each(|((group, _), theirs)| *groups.entry(*group).or_default() += theirs.len());
        let has = groups.get(&own_group).copied().unwrap_or(0);
        let largest = groups.into_iter().max_by_key(|(group, count)| (*count, *group));
        let other = largest.filter(|(group, count)| *group != own_group && *count > has + 1);
        let payer = other.map_or(own_group, |(group, _)| group);
        let passes = by_pass.range((payer, PublicKey::from_bytes([0; 32]))..);
        let passes = passes.take_while(|((group, _), _)| *group == payer);
        let passes = passes.map(|(pass, theirs)| (theirs.len(), *pass));
        let own = by_pass.get(&own_pass).map_or(0, Vec::len);
        // Within its own group another pass has to have more.
        let Some((_, pass)) = passes.max().filter(|(count, _)| other.is_some() || *count > own + 1) else {
            break;
        };
        let Some(theirs) = by_pass.get_mut(&pass) else { break };
        if sorted != Some(pass) {
            theirs.sort_by(|(one, a, _), (other, b, _)| (other, b).cmp(&(one, a)));
            sorted = Some(pass);
        }
        gone.extend(theirs.pop().map(|(.., id)| id));
    }
    gone
}

#[cfg(test)]
impl Account {
    /// A slip's account: key `key` by pass `pass` of invitation `invitation`.
    pub(crate) fn for_tests(invitation: u8, pass: u16, key: u32) -> Account {
        let named = |tag: u8, number: u32| {
            let mut bytes = [tag; 32];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            PublicKey::from_bytes(bytes)
        };
        let invitation = Some(InvitationId([invitation; 8]));
        Account { invitation, pass: named(0xa0, pass.into()), key: named(0xb0, key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of those that make room beside so many slips of each pass, by invitation and pass; a slip's rank falls with
    /// its number.
    fn gone(crowd: &[(u8, u16, u32)], newcomer: Account, many: usize) -> Vec<u32> {
        let slips = crowd.iter().flat_map(|(invitation, pass, slips)| {
            (0..*slips).map(|slip| {
                let key = u32::from(*pass) * 1_000 + slip;
                (Account::for_tests(*invitation, *pass, key), *slips - slip, key)
            })
        });
        make_room(slips, &newcomer, many)
    }

    #[test]
    fn the_lowest_of_the_pass_that_pays_makes_room_and_not_more_than_is_fair() {
        let (new, same) = (Account::for_tests(9, 9, 9), Account::for_tests(1, 1, 9));
        assert_eq!(gone(&[(1, 1, 3), (2, 2, 2)], new, 9), [1002, 2001, 1001]);
        assert_eq!(gone(&[(1, 1, 3), (1, 2, 2), (2, 3, 4)], new, 2), [1002, 3003]);
        assert_eq!(gone(&[(1, 1, 3), (1, 2, 2), (2, 3, 4)], same, 9), [] as [u32; 0], "it is of the largest");
        assert_eq!(gone(&[(1, 1, 2), (1, 2, 5)], same, 9), [2004, 2003], "but another pass of it has more");
        assert_eq!(gone(&[(1, 1, 1), (2, 2, 1)], new, 9), [] as [u32; 0]);
    }

    #[test]
    fn a_pass_admitted_by_hand_counts_for_itself_with_all_its_slips() {
        let standing = Standing::for_tests();
        let [one, other] = [7, 8].map(|n| standing.account(PublicKey::from_bytes([n; 32])));
        assert_eq!(one.group(), other.group());
        assert_ne!(one.group(), Account::alone(one.key()).group());
    }
}
