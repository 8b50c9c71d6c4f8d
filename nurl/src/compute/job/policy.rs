//! Policies: who may submit tasks of a kind.
//!
//! A kind without a policy is open to each pass that permits to submit. With several policies, one of them is enough. A
//! worker decides by its own policies alone, before a task takes any place there, and tells the submitter what it needs:
//! workers may differ, so that one asks the next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::str::FromStr;

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Write};
use minicbor::{Decode, Encode};

use super::standing::Submitter;
use super::task::TaskId;
use super::wire::Encoded;
use crate::authority::level::Level;
use crate::authority::pass::MAX_NAME_BYTES;
use crate::key::PublicKey;

/// Limit on the policies of one kind: all of them are told to a submitter that none permits.
pub const MAX_POLICIES: usize = 64;

/// Refused tasks that are remembered, so that each is told of once, however often it is sent.
const MAX_REFUSED: usize = 256;

/// One way to be permitted to submit tasks of a kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// A pass of this level, or of one that permits as much. A slip counts with its own level, at most
    /// [`Level::Submit`].
    Level(Level),
    /// A pass that the authority made by hand for this name (`nurl mesh admit --name`), and its slips. The name in a pass
    /// that came by an invitation doesn't count, since its holder chose it.
    Name(String),
    /// The pass of this key, and its slips.
    Holder(PublicKey),
}

impl Policy {
    /// Whether it permits this submitter.
    pub fn permits(&self, submitter: &Submitter) -> bool {
        match self {
            Policy::Level(level) => submitter.level().permits(*level),
            Policy::Name(name) => submitter.is_named(name),
            Policy::Holder(key) => submitter.holder() == *key,
        }
    }

    /// Why the policy can't be meant.
    fn flaw(&self) -> Option<NotAPolicy> {
        match self {
            Policy::Level(Level::Look) => Some(NotAPolicy::Look),
            Policy::Name(name) if name.is_empty() || name.len() > MAX_NAME_BYTES => Some(NotAPolicy::Name),
            _ => None,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::Level(level) => write!(f, "level {level}"),
            Policy::Name(name) => write!(f, "name {name}"),
            Policy::Holder(key) => write!(f, "key {key}"),
        }
    }
}

/// The word before a name that would else be taken for a level or a key.
const NAME_PREFIX: &str = "name:";

/// A level's word is the level, `nurl1…` a key, and all else a name; `name:` before it makes anything a name.
impl FromStr for Policy {
    type Err = NotAPolicy;

    fn from_str(text: &str) -> Result<Policy, NotAPolicy> {
        let policy = if let Some(name) = text.strip_prefix(NAME_PREFIX) {
            Policy::Name(name.to_owned())
        } else if let Ok(level) = text.parse() {
            Policy::Level(level)
        } else if text.starts_with("nurl1") {
            Policy::Holder(text.parse().map_err(|_| NotAPolicy::Key)?)
        } else if let Ok(level) = text.to_ascii_lowercase().parse() {
            return Err(NotAPolicy::AlmostALevel { text: text.to_owned(), level });
        } else {
            Policy::Name(text.to_owned())
        };
        policy.flaw().map_or(Ok(policy), Err)
    }
}

/// Why a text, or a value, is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAPolicy {
    /// The level that permits no task at all.
    #[error(
        "a pass of level look submits nothing: choose submit, member, worker or issuer, or write name:look for a peer \
         of that name"
    )]
    Look,
    /// Written like a level, but not quite.
    #[error("{text} is no level: write {level} for the level, or name:{text} for a peer of that name")]
    AlmostALevel {
        /// What was written.
        text: String,
        /// The level that it resembles.
        level: Level,
    },
    /// Not a key, though it begins like one.
    #[error(
        "a text that begins with nurl1 is a key, and this one is damaged: nurl pass and nurl mesh list show keys"
    )]
    Key,
    /// A name that no pass has.
    #[error("a name in a pass has 1 to {MAX_NAME_BYTES} bytes")]
    Name,
    /// More of them than a kind has room for.
    #[error("a kind has at most {MAX_POLICIES} policies: allow a level instead")]
    TooMany,
}

/// What a submitter needs for a kind: any one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs(BTreeSet<Policy>);

impl Needs {
    /// Adds a policy.
    ///
    /// # Errors
    /// [`NotAPolicy`]; nothing was added then.
    pub fn add(&mut self, policy: Policy) -> Result<(), NotAPolicy> {
        if let Some(flaw) = policy.flaw() {
            return Err(flaw);
        }
        if self.0.len() >= MAX_POLICIES && !self.0.contains(&policy) {
            return Err(NotAPolicy::TooMany);
        }
        self.0.insert(policy);
        Ok(())
    }

    /// Whether one of them permits this submitter.
    pub(super) fn permit(&self, submitter: &Submitter) -> bool {
        self.0.iter().any(|policy| policy.permits(submitter))
    }

    /// Adds what another worker needs, as far as there is room.
    pub(super) fn join(&mut self, other: Needs) {
        for policy in other.0 {
            let _ = self.add(policy);
        }
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, policy) in self.0.iter().enumerate() {
            let or = if n == 0 { "" } else { " or " };
            write!(f, "{or}{policy}")?;
        }
        Ok(())
    }
}

#[derive(Encode, Decode)]
struct NeedsFields {
    #[n(0)]
    levels: Vec<u8>,
    #[n(1)]
    names: Vec<String>,
    #[n(2)]
    holders: Vec<PublicKey>,
}

impl<C> Encode<C> for Needs {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Encoded<W> {
        let mut fields = NeedsFields { levels: Vec::new(), names: Vec::new(), holders: Vec::new() };
        for policy in &self.0 {
            match policy {
                Policy::Level(level) => fields.levels.push(level.to_byte()),
                Policy::Name(name) => fields.names.push(name.clone()),
                Policy::Holder(key) => fields.holders.push(*key),
            }
        }
        fields.encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Needs {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Needs, DecodeError> {
        let NeedsFields { levels, names, holders } = NeedsFields::decode(d, ctx)?;
        // A level of a later version is left out.
        let levels = levels.into_iter().filter_map(Level::from_byte).map(Policy::Level);
        let all =
            levels.chain(names.into_iter().map(Policy::Name)).chain(holders.into_iter().map(Policy::Holder));
        let mut needs = Needs::default();
        for policy in all {
            needs.add(policy).map_err(|_| DecodeError::message("not a policy, or too many"))?;
        }
        Ok(needs)
    }
}

/// The policies of a worker, by kind, and what they refused of late.
#[derive(Debug, Default)]
pub(super) struct Policies {
    by_kind: BTreeMap<String, Needs>,
    refused: VecDeque<(TaskId, PublicKey)>,
}

impl Policies {
    pub(super) fn set(&mut self, kind: &str, needs: Needs) {
        self.by_kind.insert(kind.to_owned(), needs);
    }

    /// What the submitter lacks for tasks of this kind; none if it may submit them.
    pub(super) fn lacks(&self, kind: &str, submitter: &Submitter) -> Option<&Needs> {
        self.by_kind.get(kind).filter(|needs| !needs.permit(submitter))
    }

    /// Remembers a refusal; false if it was remembered already.
    pub(super) fn is_news(&mut self, task: TaskId, by: PublicKey) -> bool {
        if self.refused.contains(&(task, by)) {
            return false;
        }
        if self.refused.len() >= MAX_REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back((task, by));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::account::Account;

    fn policy(text: &str) -> Result<Policy, NotAPolicy> {
        text.parse()
    }

    #[test]
    fn a_levels_word_is_the_level_and_a_prefix_makes_it_a_name() {
        let name = |name: &str| Ok(Policy::Name(name.to_owned()));
        assert_eq!(policy("member"), Ok(Policy::Level(Level::Member)));
        assert_eq!(policy("name:member"), name("member"));
        assert_eq!(policy("alice"), name("alice"));
        assert_eq!(policy("name:nurl1"), name("nurl1"));
        let key = PublicKey::from_bytes([7; 32]);
        assert_eq!(policy(&key.to_string()), Ok(Policy::Holder(key)));
        let almost = NotAPolicy::AlmostALevel { text: "Member".to_owned(), level: Level::Member };
        assert_eq!(policy("Member"), Err(almost.clone()));
        assert!(almost.to_string().contains("name:Member"));
        assert_eq!(policy("look"), Err(NotAPolicy::Look));
        assert_eq!(policy("nurl1damaged"), Err(NotAPolicy::Key));
        assert_eq!((policy(""), policy("name:"), policy(&"x".repeat(41))), {
            let wrong = || Err(NotAPolicy::Name);
            (wrong(), wrong(), wrong())
        });
    }

    #[test]
    fn a_level_permits_what_is_below_it_and_only_the_authoritys_own_word_is_a_name() {
        let enrolled = Account::for_tests(1, 1, 1);
        let by_hand = Account::alone(PublicKey::from_bytes([3; 32]));
        let permits = |text: &str, who: Account, level: Level, name: &str| {
            policy(text).unwrap().permits(&Submitter::for_tests(who, level, name))
        };
        for (needed, least) in [
            ("submit", Level::Submit),
            ("member", Level::Member),
            ("worker", Level::Worker),
            ("issuer", Level::Issuer),
        ] {
            for level in Level::ALL {
                let issuer_is_no_worker = least == Level::Worker && level == Level::Issuer;
                let expected = level >= least && !issuer_is_no_worker;
                assert_eq!(permits(needed, enrolled, level, ""), expected, "{needed} {level}");
            }
        }
        assert!(permits("alice", by_hand, Level::Submit, "alice"));
        assert!(!permits("alice", by_hand, Level::Worker, "bob"));
        assert!(!permits("alice", enrolled, Level::Worker, "alice"), "it chose that name itself");
        let holder = Policy::Holder(enrolled.pass());
        assert!(holder.permits(&Submitter::for_tests(enrolled, Level::Submit, "")), "by a slip");
        assert!(!holder.permits(&Submitter::for_tests(by_hand, Level::Worker, "")));
        assert!(!Policy::Level(Level::Submit).permits(&Submitter::alone(by_hand.key())), "nothing is proved");
    }

    #[test]
    fn needs_say_all_ways_and_come_back_from_the_wire_but_not_beyond_their_limits() {
        let mut needs = Needs::default();
        for text in ["zoe", "member", "alice"] {
            needs.add(policy(text).unwrap()).unwrap();
        }
        assert_eq!(needs.to_string(), "level member or name alice or name zoe");
        needs.add(Policy::Holder(PublicKey::from_bytes([7; 32]))).unwrap();
        let bytes = minicbor::to_vec(&needs).unwrap();
        assert_eq!(minicbor::decode::<Needs>(&bytes).unwrap(), needs);
        for n in 0..MAX_POLICIES {
            let _ = needs.add(Policy::Name(n.to_string()));
        }
        assert_eq!(needs.add(Policy::Name("one more".to_owned())), Err(NotAPolicy::TooMany));
        assert_eq!(needs.add(Policy::Level(Level::Look)), Err(NotAPolicy::Look));
        let many = (0..=MAX_POLICIES).map(|n| n.to_string()).collect();
        for names in [many, vec!["x".repeat(41)]] {
            let fields = NeedsFields { levels: vec![2], names, holders: Vec::new() };
            assert!(minicbor::decode::<Needs>(&minicbor::to_vec(&fields).unwrap()).is_err());
        }
        let later = NeedsFields { levels: vec![200, 2], names: Vec::new(), holders: Vec::new() };
        let read = minicbor::decode::<Needs>(&minicbor::to_vec(&later).unwrap()).unwrap();
        assert_eq!(read.to_string(), "level member");
    }

    #[test]
    fn a_refusal_is_news_once_and_the_memory_is_bounded() {
        let (mut policies, by) = (Policies::default(), PublicKey::from_bytes([1; 32]));
        let task = |n: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_le_bytes());
            TaskId::from_bytes(id)
        };
        assert!(policies.is_news(task(0), by) && !policies.is_news(task(0), by));
        (1..1_000).for_each(|n| assert!(policies.is_news(task(n), by)));
        assert_eq!(policies.refused.len(), MAX_REFUSED);
    }
}
