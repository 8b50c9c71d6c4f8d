//! `nurl state list`: the names of what there is.

use std::collections::BTreeSet;

use nurl::rt::time;
use nurl::state::{Names, NamesAfter};
use nurl::{Node, PublicKey};

use super::READ_AGAIN;
use super::args::{ListArgs, ValueKind};
use crate::client::{LOOK_EVERY, observer, some_worker, until_interrupted};
use crate::event::Line;
use crate::out::{Code, Failure, Out};

pub(super) async fn run(args: ListArgs, out: Out<'_>) -> Result<(), Failure> {
    let node = until_interrupted(observer(&args.mesh, out)).await?;
    let done = until_interrupted(async {
        some_worker(&node, args.mesh.join, out).await?;
        list(&node, &args, out).await
    })
    .await;
    node.shutdown().await;
    done
}

async fn list(node: &Node, args: &ListArgs, out: Out<'_>) -> Result<(), Failure> {
    let (mut after, mut count, mut partial) = (None, 0, false);
    let mut silent = BTreeSet::new();
    loop {
        let page = page(node, args, after, out).await?;
        for (kind, name) in page.names {
            count += 1;
            let kind = ValueKind::named(kind).as_str();
            let human = format!("{kind} {}", name.escape_debug());
            out.line(&Line::Name { name, kind }, || Some(human)).await;
        }
        silent.extend(page.silent);
        partial |= page.partial;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if !silent.is_empty() {
        out.note(&said_of(&silent, partial)).await;
    }
    let silent = silent.iter().map(PublicKey::to_string).collect();
    out.line(&Line::Listed { names: count, silent, partial }, || None).await;
    Ok(())
}

fn said_of(silent: &BTreeSet<PublicKey>, partial: bool) -> String {
    let keys: Vec<String> = silent.iter().map(|key| key.short().to_string()).collect();
    let lacks = if partial { "may be missing" } else { "is missing only if it was written just now" };
    format!("{} didn't answer: what they keep {lacks}", keys.join(", "))
}

/// One page. One in which names may be missing is asked for again, unless it was asked for as such.
async fn page(
    node: &Node,
    args: &ListArgs,
    after: Option<NamesAfter>,
    out: Out<'_>,
) -> Result<Names, Failure> {
    let _waiting = out.waiting("asking the workers");
    let until = time::now() + READ_AGAIN;
    loop {
        let page = node.names(args.kind.map(ValueKind::of_library), &args.prefix, after.clone()).await?;
        if !page.partial || args.partial {
            return Ok(page);
        }
        if time::now() >= until {
            let silent = page.silent.into_iter().collect();
            let message =
                format!("{}: try again later, or say --partial to see the others", said_of(&silent, true));
            return Err(Failure::new(Code::Other, message));
        }
        time::sleep(LOOK_EVERY).await;
    }
}
