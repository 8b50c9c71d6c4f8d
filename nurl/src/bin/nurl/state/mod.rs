//! `nurl state`: reads and changes the mesh's replicated values.

pub(crate) mod args;
mod list;
mod show;
mod watch;

use std::time::Duration;

use nurl::rt::time;
use nurl::state::{Confirm, Reading};
use nurl::{Error, Node};

use self::args::{ChangeArgs, GetArgs, StateCommand, ValueKind, WholeArgs};
use self::show::Fields;
use crate::client::{LOOK_EVERY, observer, some_worker, until_interrupted};
use crate::event::{Line, Shown};
use crate::out::{Code, Failure, Out};

/// How long a read goes on asking until enough owners have answered.
const READ_AGAIN: Duration = Duration::from_secs(5);

pub(crate) async fn run(command: StateCommand, out: Out<'_>) -> Result<(), Failure> {
    match command {
        StateCommand::Get(args) => {
            let node = until_interrupted(observer(&args.mesh, out)).await?;
            let done = until_interrupted(async {
                some_worker(&node, args.mesh.join, out).await?;
                get(&node, &args, out).await
            })
            .await;
            node.shutdown().await;
            done
        }
        StateCommand::List(args) => list::run(args, out).await,
        StateCommand::Watch(args) => watch::run(args, out).await,
        StateCommand::Incr { by, args } => change(args, Change::Incr(by), out).await,
        StateCommand::Set { value, multi, args } => change(args, Change::Set(value, multi), out).await,
        StateCommand::Add { elements, args } => change(args, Change::Add(elements), out).await,
        StateCommand::Remove { elements, args } => change(args, Change::Remove(elements), out).await,
        StateCommand::Clear { args } => change(args, Change::Clear, out).await,
        StateCommand::Delete { args } => whole(args, Whole::Delete, out).await,
        StateCommand::Expire { after, args } => whole(args, Whole::ExpireIn(after.0), out).await,
    }
}

/// What a command does to whole objects.
#[derive(Clone, Copy)]
enum Whole {
    Delete,
    ExpireIn(Option<Duration>),
}

async fn whole(args: WholeArgs, does: Whole, out: Out<'_>) -> Result<(), Failure> {
    let node = until_interrupted(observer(&args.mesh, out)).await?;
    let done = until_interrupted(async {
        some_worker(&node, args.mesh.join, out).await?;
        let _waiting = out.waiting("writing");
        let kinds = args.kind.map_or_else(|| ValueKind::ALL.to_vec(), |kind| vec![kind]);
        for kind in kinds {
            to_whole(&node, &args, kind, does).await.map_err(Failure::from)?;
        }
        Ok(())
    })
    .await;
    node.shutdown().await;
    done?;
    out.line(&Line::Written { key: args.key.clone(), field: None }, || None).await;
    Ok(())
}

async fn to_whole(node: &Node, args: &WholeArgs, kind: ValueKind, does: Whole) -> Result<(), Error> {
    macro_rules! on {
        ($object:expr) => {{
            let object = $object.confirmed_by(args.confirm);
            match does {
                Whole::Delete => object.delete().await,
                Whole::ExpireIn(time) => object.expire_in(time).await,
            }
        }};
    }
    let key = args.key.as_str();
    match kind {
        ValueKind::Counter => on!(node.counter(key)),
        ValueKind::Register => on!(node.register(key)),
        ValueKind::Multi => on!(node.multi(key)),
        ValueKind::Set => on!(node.set(key)),
        ValueKind::Map => on!(node.map(key)),
    }
}

/// What a command writes.
enum Change {
    Incr(i64),
    /// A register; a multi-value register if the second is true.
    Set(String, bool),
    Add(Vec<String>),
    Remove(Vec<String>),
    /// The fields of a name, of a map.
    Clear,
}

async fn change(args: ChangeArgs, change: Change, out: Out<'_>) -> Result<(), Failure> {
    let node = until_interrupted(observer(&args.mesh, out)).await?;
    let done = until_interrupted(async {
        some_worker(&node, args.mesh.join, out).await?;
        let _waiting = out.waiting("writing");
        write(&node, &args, &change).await.map_err(Failure::from)
    })
    .await;
    node.shutdown().await;
    done?;
    out.line(&Line::Written { key: args.key.clone(), field: args.field.clone() }, || None).await;
    Ok(())
}

async fn write(node: &Node, args: &ChangeArgs, change: &Change) -> Result<(), Error> {
    let (key, confirm) = (args.key.as_str(), args.confirm);
    match (&args.field, change) {
        (None, Change::Incr(by)) => node.counter(key).confirmed_by(confirm).add(*by).await,
        (None, Change::Set(value, false)) => {
            node.register(key).confirmed_by(confirm).set(value.as_bytes()).await
        }
        (None, Change::Set(value, true)) => node.multi(key).confirmed_by(confirm).set(value.as_bytes()).await,
        (None, Change::Add(elements)) => {
            for element in elements {
                node.set(key).confirmed_by(confirm).insert(element.as_bytes()).await?;
            }
            Ok(())
        }
        (None, Change::Remove(elements)) => {
            for element in elements {
                node.set(key).confirmed_by(confirm).remove(element.as_bytes()).await?;
            }
            Ok(())
        }
        // The arguments require one.
        (None, Change::Clear) => Ok(()),
        (Some(field), change) => field_of(node, (key, field.as_bytes()), change, confirm).await,
    }
}

async fn field_of(
    node: &Node,
    (key, field): (&str, &[u8]),
    change: &Change,
    confirm: Confirm,
) -> Result<(), Error> {
    let map = node.map(key).confirmed_by(confirm);
    match change {
        Change::Incr(by) => map.add(field, *by).await,
        Change::Set(value, false) => map.set(field, value.as_bytes()).await,
        Change::Set(value, true) => map.replace(field, value.as_bytes()).await,
        Change::Add(elements) => {
            for element in elements {
                map.insert(field, element.as_bytes()).await?;
            }
            Ok(())
        }
        Change::Remove(elements) => {
            for element in elements {
                map.remove(field, element.as_bytes()).await?;
            }
            Ok(())
        }
        Change::Clear => map.clear(field).await,
    }
}

/// Prints the objects under a key, of one kind or of all.
async fn get(node: &Node, args: &GetArgs, out: Out<'_>) -> Result<(), Failure> {
    let kinds: Vec<ValueKind> = match args.kind {
        Some(kind) => vec![kind],
        None => ValueKind::ALL.to_vec(),
    };
    let mut found = false;
    for kind in kinds {
        let (mut shown, partial) = read(node, &args.key, kind, args.partial, out).await?;
        // A counter that nobody has written and one that is zero again are the same.
        if args.kind.is_none() {
            shown.retain(|(field, value)| field.is_some() || !matches!(value, Shown::Sum(0)));
        }
        for (field, value) in shown {
            found = true;
            let mut human = value.human();
            if let Some(field) = &field {
                let field = field.escape_debug();
                human.iter_mut().for_each(|line| *line = format!("{field}: {line}"));
            }
            let line = Line::Value { key: args.key.clone(), kind: kind.as_str(), field, value, partial };
            out.lines(&line, || human).await;
        }
    }
    if found {
        return Ok(());
    }
    Err(Failure::new(Code::Other, format!("there is nothing under {}", crate::out::shown(&args.key))))
}

/// Reads an object. A partial answer is asked for again, unless it was asked for as such.
async fn read(
    node: &Node,
    key: &str,
    kind: ValueKind,
    partial: bool,
    out: Out<'_>,
) -> Result<(Fields, bool), Failure> {
    let _waiting = out.waiting("asking the owners");
    let until = time::now() + READ_AGAIN;
    loop {
        let (fields, is_partial) = read_once(node, key, kind).await?;
        if !is_partial || partial {
            return Ok((fields, is_partial));
        }
        if time::now() >= until {
            let message = "too few owners of the key answer, so writes may be missing in what they have: try again \
                           later, or say --partial to see it";
            return Err(Failure::new(Code::Other, message));
        }
        time::sleep(LOOK_EVERY).await;
    }
}

async fn read_once(node: &Node, key: &str, kind: ValueKind) -> Result<(Fields, bool), Failure> {
    Ok(match kind {
        ValueKind::Counter => shown(node.counter(key).read().await?, show::sum),
        ValueKind::Register => shown(node.register(key).read().await?, show::word),
        ValueKind::Multi => shown(node.multi(key).read().await?, show::list),
        ValueKind::Set => shown(node.set(key).read().await?, show::list),
        ValueKind::Map => shown(node.map(key).read().await?, show::fields),
    })
}

fn shown<T>(read: Reading<T>, show: fn(T) -> Fields) -> (Fields, bool) {
    (show(read.value), read.partial)
}
