//! `nurl worker`.

use std::io;
use std::time::Duration;

use nurl::compute::handlers;
use nurl::compute::job::TaskId;
use nurl::node::{NodeEvent, Role};
use nurl::rt::{self, disk, time};
use nurl::{Error, Node, SecretKey};

use crate::args::{WorkerArgs, listen};
use crate::client::{join, ticket, told_to_stop};
use crate::event::Line;
use crate::handler::Program;
use crate::key::bad_key_file;
use crate::out::{Code, Failure, Out, unusable};

pub(crate) async fn run(args: WorkerArgs, out: Out) -> Result<(), Failure> {
    let mut builder = Node::builder(ticket(&args.mesh.mesh)?)
        .role(Role::Worker)
        .listen(listen(args.listen)?)
        .zone(&args.zone)
        .weight(args.weight);
    if let Some(path) = &args.key {
        let key = SecretKey::load_or_create(path, &mut rt::rng("key"))
            .map_err(|error| bad_key_file(path, &error))?;
        builder = builder.key(key);
    }
    if let Some(path) = &args.state {
        disk::create_dir_all(path).map_err(|error| unusable(path, &error, "choose another --state"))?;
        builder = builder.store(path);
    }
    let mut kinds: Vec<String> = handlers::BUILT_IN.map(String::from).to_vec();
    let pace = args.pace.unwrap_or(Duration::ZERO);
    for kind in handlers::BUILT_IN {
        builder = builder.handler(kind, move |context, payload| async move {
            time::sleep(pace).await;
            handlers::run(kind, &context, payload).await
        });
    }
    for text in &args.handler {
        let program =
            Program::parse(text).map_err(|error| Failure::new(Code::Usage, format!("--handler {error}")))?;
        if !kinds.contains(&program.kind) {
            kinds.push(program.kind.clone());
        }
        let limit = args.handler_timeout;
        let kind = program.kind.clone();
        builder = builder.handler(&kind, move |_context, payload| {
            let program = program.clone();
            async move { program.run(payload, limit).await }
        });
    }
    kinds.sort();
    let (node, mut events) = join(builder, args.mesh.join).await?;
    let stop = told_to_stop(args.exit_with_stdin);
    tokio::pin!(stop);
    let line = Line::Ready {
        key: node.key().to_string(),
        addr: None,
        addr_from: None,
        ticket: None,
        namespaces: Vec::new(),
        kinds: kinds.clone(),
    };
    out.line(&line, || Some(format!("{} is ready for {}", node.key(), kinds.join(", "))));
    loop {
        rt::select! {
            () = &mut stop => break,
            event = events.next() => match event {
                Some(NodeEvent::StoreFailed { reason }) => {
                    node.shutdown().await;
                    let said = format!("the store failed ({reason}): mend the disk and start the worker again");
                    return Err(Failure::new(Code::Resource, said));
                }
                Some(NodeEvent::SocketFailed { reason }) => return Err(Error::Socket(reason).into()),
                // Nobody reads any more: that is how a parent or a pipe says to stop.
                Some(event) => if tell(&event, out).is_err() { break },
                None => break,
            },
        }
    }
    out.note("leaving the mesh");
    node.shutdown().await;
    Ok(())
}

fn tell(event: &NodeEvent, out: Out) -> io::Result<()> {
    let job = |task: &TaskId, kind: &str, state, error: &Option<String>| Line::Job {
        task: task.to_string(),
        kind: kind.to_owned(),
        state,
        error: error.clone(),
    };
    let (line, human) = match event {
        NodeEvent::HubUp { hub } => {
            (Line::Hub { hub: hub.to_string(), up: true, reason: None }, format!("hub {} is up", hub.short()))
        }
        NodeEvent::HubDown { hub, reason } => (
            Line::Hub { hub: hub.to_string(), up: false, reason: Some(*reason) },
            format!("hub {} is down: {reason}", hub.short()),
        ),
        NodeEvent::Member { peer, state, incarnation } => (
            Line::Member { peer: peer.to_string(), state: state.as_str(), incarnation: *incarnation },
            format!("{} is {}", peer.short(), state.as_str()),
        ),
        NodeEvent::Restarted { peer } => {
            (Line::Restarted { peer: peer.to_string() }, format!("{} was restarted", peer.short()))
        }
        NodeEvent::Path { peer, direct, addr, reason } => {
            let path = path_name(*direct);
            let at = addr.map(|addr| format!(" at {addr}")).unwrap_or_default();
            (
                Line::Path { peer: peer.to_string(), path, addr: addr.map(|addr| addr.to_string()), reason },
                format!("{} is {path}{at} ({reason})", peer.short()),
            )
        }
        NodeEvent::JobStarted { task, kind } => {
            (job(task, kind, "started", &None), format!("{kind} {task} started"))
        }
        NodeEvent::JobFinished { task, kind, error } => (
            job(task, kind, if error.is_some() { "failed" } else { "finished" }, error),
            match error {
                Some(error) => format!("{kind} {task} failed: {error}"),
                None => format!("{kind} {task} finished"),
            },
        ),
        NodeEvent::Isolated(isolated) => (
            Line::Isolated { isolated: *isolated },
            if *isolated { "cut off from the mesh".into() } else { "back in the mesh".to_owned() },
        ),
        // The loop ends on it.
        NodeEvent::StoreFailed { .. } | NodeEvent::SocketFailed { .. } => return Ok(()),
        NodeEvent::Lagged(lost) => {
            (Line::Lagged { lost: *lost }, format!("{lost} events lost: output is too slow"))
        }
    };
    out.try_line(&line, || Some(human))
}

/// A path's name in output.
pub(crate) fn path_name(direct: bool) -> &'static str {
    if direct { "direct" } else { "relayed" }
}
