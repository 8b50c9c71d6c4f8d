//! `nurl state watch`: what is under a key, and each change of it.

use std::time::Duration;

use nurl::Node;
use nurl::events::{Roles, State};
use nurl::rt::sync::mpsc;
use nurl::rt::{task, time};
use nurl::state::Watch;

use super::args::{ValueKind, WatchArgs};
use super::show::{self, Fields};
use crate::client::{observer, some_worker, until_interrupted};
use crate::event::{Line, Shown, WatchedValue};
use crate::out::{Code, Failure, Out};

/// How often it looks whether anybody is there who tells of changes.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a watched object shows.
type News = (ValueKind, Fields, bool);

pub(super) async fn run(args: WatchArgs, out: Out<'_>) -> Result<(), Failure> {
    let node = until_interrupted(observer(&args.mesh, out)).await?;
    let done = until_interrupted(async {
        some_worker(&node, args.mesh.join, out).await?;
        watch(&node, &args, out).await
    })
    .await;
    node.shutdown().await;
    done
}

async fn watch(node: &Node, args: &WatchArgs, out: Out<'_>) -> Result<(), Failure> {
    let (sender, mut news) = mpsc::channel(ValueKind::ALL.len());
    let kinds = args.kind.map_or_else(|| ValueKind::ALL.to_vec(), |kind| vec![kind]);
    let mut begun = Vec::new();
    for kind in kinds.clone() {
        let (key, to) = (args.key.as_str(), sender.clone());
        match kind {
            ValueKind::Counter => pass_on(kind, node.counter(key).watch().await?, show::sum, to),
            ValueKind::Register => pass_on(kind, node.register(key).watch().await?, show::word, to),
            ValueKind::Multi => pass_on(kind, node.multi(key).watch().await?, show::list, to),
            ValueKind::Set => pass_on(kind, node.set(key).watch().await?, show::list, to),
            ValueKind::Map => pass_on(kind, node.map(key).watch().await?, show::fields, to),
        }
    }
    drop(sender);
    let (mut left, mut reachable) = (args.count, true);
    while left != Some(0) {
        nurl::rt::select! {
            told = news.recv() => {
                let Some((kind, fields, partial)) = told else {
                    return Err(Failure::new(Code::Other, "the connection to the mesh has ended"));
                };
                let is_first = !begun.contains(&kind);
                if is_first {
                    begun.push(kind);
                } else if begun.len() == kinds.len() {
                    left = left.map(|left| left - 1);
                }
                // Of all kinds, those are shown first of which there is something.
                let is_nothing = fields.iter().all(|(_, value)| matches!(value, Shown::Sum(0)));
                if !is_first || args.kind.is_some() || !is_nothing {
                    tell(args, kind, fields, partial, out).await;
                }
            }
            () = time::sleep(LOOK_EVERY) => reachable = look(node, reachable, out).await?,
        }
    }
    Ok(())
}

/// Passes on what a watch tells, until nobody wants it.
fn pass_on<T: Clone + PartialEq + Send + 'static>(
    kind: ValueKind,
    mut watch: Watch<T>,
    show: fn(T) -> Fields,
    to: mpsc::Sender<News>,
) {
    task::spawn(async move {
        while let Some(read) = watch.next().await {
            if to.send((kind, show(read.value), read.partial)).await.is_err() {
                return;
            }
        }
    });
}

/// Says whether the node looks for workers again, and whether it has found one.
async fn look(node: &Node, reachable: bool, out: Out<'_>) -> Result<bool, Failure> {
    let members = node.members().await?;
    let is_worker = |member: &nurl::events::MemberInfo| {
        member.state == State::Alive && member.roles.contains(Roles::WORKER)
    };
    let now = members.iter().any(is_worker);
    match (reachable, now) {
        (true, false) => out.warn("no worker can be reached: connecting again").await,
        (false, true) => out.warn("a worker can be reached again").await,
        _ => {}
    }
    Ok(now)
}

/// Prints what an object shows; for people, on one line.
async fn tell(args: &WatchArgs, kind: ValueKind, fields: Fields, partial: bool, out: Out<'_>) {
    let texts: Vec<String> = fields
        .iter()
        .map(|(field, value)| {
            let values = value.human().join(", ");
            field.as_ref().map_or(values.clone(), |field| format!("{}: {values}", field.escape_debug()))
        })
        .collect();
    let mut human = if texts.is_empty() { "(nothing)".to_owned() } else { texts.join("; ") };
    if args.kind.is_none() {
        human = format!("{} {human}", kind.as_str());
    }
    if partial {
        human += " (writes may be missing)";
    }
    let values = fields.into_iter().map(|(field, value)| WatchedValue { field, value }).collect();
    let line = Line::Watched { key: args.key.clone(), kind: kind.as_str(), values, partial };
    out.line(&line, || Some(human)).await;
}
