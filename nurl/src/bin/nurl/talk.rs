//! `nurl group`: writes what is said in a group, or says something.

use std::time::Duration;

use bytes::Bytes;
use nurl::Node;
use nurl::config::{AllowList, Role};
use nurl::rt::time;

use crate::args::GroupArgs;
use crate::client::{joined, ticket, until_interrupted};
use crate::event::Line;
use crate::identity::Identity;
use crate::out::{Code, Failure, Out};

/// How long a command that says something greets before: whoever hears the greeting asks for this node's key, and the
/// frames before the answer can't be read.
const GREETING: Duration = Duration::from_secs(2);
/// The pause between two greetings, which are empty.
const GREET_EVERY: Duration = Duration::from_millis(250);
/// How long the last words may take to get out.
const PARTING: Duration = Duration::from_millis(500);

pub(crate) async fn run(args: GroupArgs, out: Out<'_>) -> Result<(), Failure> {
    // A member: an observer gets nobody's key, but from those that have it on their lists.
    let ticket = ticket(&args.mesh.mesh)?;
    let identity = match &args.key {
        Some(path) => Identity::of_key_file(path, &ticket)?,
        None => Identity::of_worker(args.mesh.home.as_deref(), &ticket)?,
    };
    let builder = identity.equip(Node::builder(ticket)).role(Role::Member);
    let allow = match args.allow[..] {
        [] => AllowList::Anyone,
        ref keys => AllowList::Only(keys.iter().copied().collect()),
    };
    until_interrupted(async {
        let node = builder.spawn().await?;
        identity.keep_passes(&node);
        let node = joined(node, args.mesh.join).await?;
        node.join_group(&args.group, allow).await?;
        let done = match &args.say {
            Some(text) => say(&node, &args.group, text).await,
            None => listen(&node, out).await,
        };
        node.shutdown().await;
        done
    })
    .await
}

async fn say(node: &Node, group: &str, text: &str) -> Result<(), Failure> {
    if text.is_empty() {
        return Err(Failure::new(Code::Usage, "--say: there is nothing to say"));
    }
    let greeted = time::timeout(GREETING, async {
        loop {
            node.broadcast(group, Bytes::new()).await?;
            time::sleep(GREET_EVERY).await;
        }
    });
    if let Ok(failed) = greeted.await {
        return failed;
    }
    node.broadcast(group, Bytes::copy_from_slice(text.as_bytes())).await?;
    time::sleep(PARTING).await;
    Ok(())
}

async fn listen(node: &Node, out: Out<'_>) -> Result<(), Failure> {
    let ready = Line::Ready {
        key: node.key().to_string(),
        addr: None,
        addr_from: None,
        ticket: None,
        meshes: Vec::new(),
        kinds: Vec::new(),
    };
    out.line(&ready, || None).await;
    while let Some((_, sender, body)) = node.recv_group().await {
        if body.is_empty() {
            continue;
        }
        let (text, hex) = text_or_hex(&body);
        let human = format!("{}: {}", sender.short(), on_terminal(&text, &hex));
        out.line(&Line::Said { peer: sender.to_string(), text, hex }, || Some(human)).await;
    }
    Ok(())
}

/// What somebody said: as text if it is valid text, else in hexadecimal.
pub(crate) fn text_or_hex(body: &[u8]) -> (Option<String>, Option<String>) {
    let text = std::str::from_utf8(body).ok().map(str::to_owned);
    let hex = text.is_none().then(|| body.iter().map(|byte| format!("{byte:02x}")).collect());
    (text, hex)
}

/// The same for a person's terminal, which no byte of it controls.
pub(crate) fn on_terminal(text: &Option<String>, hex: &Option<String>) -> String {
    text.as_ref().or(hex.as_ref()).map(|said| said.escape_debug().to_string()).unwrap_or_default()
}
