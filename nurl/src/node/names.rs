//! Which objects of replicated state there are.

use super::Node;
use super::command::WorkCommand;
use crate::error::Error;
use crate::key::PublicKey;
use crate::replication::crdt::Kind;
use crate::replication::replicator::{MAX_NAMES, NamePage, NameQuery};

/// A page of names; see [`Node::names`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The objects that there are, by kind and then by name. Each name is as it was given to a call; other implementations of
    /// the protocol may have names that aren't text, of which what isn't is replaced.
    pub names: Vec<(Kind, String)>,
    /// Where the next page begins; `None`: this is the last one.
    pub next: Option<NamesAfter>,
    /// The members that might hold objects and whose answer is missing.
    pub silent: Vec<PublicKey>,
    /// Whether these are as many as an object has owners, so that objects may be missing. With fewer, an object is missing only if
    /// its writes haven't reached all of its owners yet.
    pub partial: bool,
}

/// The end of a page of names, behind which the next one goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamesAfter(Kind, Vec<u8>);

pub(super) async fn list(
    node: &Node,
    kind: Option<Kind>,
    prefix: &str,
    after: Option<NamesAfter>,
) -> Result<Names, Error> {
    let after = after.map(|NamesAfter(kind, name)| (kind, name));
    let query = NameQuery { kind, prefix: prefix.as_bytes().to_vec(), after, most: MAX_NAMES };
    let page = node.ask_work(|reply| WorkCommand::List { query, reply }).await??;
    let NamePage { names, next, silent, partial } = page;
    let text = |(kind, name): (Kind, Vec<u8>)| (kind, String::from_utf8_lossy(&name).into_owned());
    let next = next.map(|(kind, name)| NamesAfter(kind, name));
    Ok(Names { names: names.into_iter().map(text).collect(), next, silent, partial })
}
