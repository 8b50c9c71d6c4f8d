//! `nurl worker`.

use std::io;
use std::time::Duration;

use nurl::config::Role;
use nurl::events::{Events, NodeEvent, Versions};
use nurl::job::{KindLimits, NotAPolicy, Policy, TaskId, handlers};
use nurl::rt::{self, time};
use nurl::state::Departure;
use nurl::{Builder, Error, Node, PublicKey, RefusedBy};

use crate::args::{WorkerArgs, listen};
use crate::client::{state_directory, ticket};
use crate::event::Line;
use crate::group::Groups;
use crate::handler::{Program, Runner, variables};
use crate::identity::Identity;
use crate::out::{Code, Failure, Out, plain, shown};
use crate::passing::Passing;
use crate::status::metrics_line;
use crate::stop::Stop;
use crate::talk::{on_terminal, text_or_hex};

/// The shortest time between two reports of metrics; a shorter `--metrics` would only keep the worker busy.
const METRICS_AT_MOST_EVERY: Duration = Duration::from_millis(100);

pub(crate) async fn run(args: WorkerArgs, out: Out<'_>) -> Result<(), Failure> {
    let ticket = ticket(&args.mesh.mesh)?;
    let identity = match &args.key {
        Some(path) => Identity::of_key_file(path, &ticket)?,
        None => Identity::of_worker(args.mesh.home.as_deref(), &ticket)?,
    };
    let mut builder = identity
        .equip(Node::builder(ticket))
        .role(Role::Worker)
        .listen(listen(args.listen)?)
        .weight(args.weight);
    if let Some(path) = &args.state {
        state_directory(path)?;
        builder = builder.store(path);
        if args.store_strict {
            builder = builder.store_strict();
        }
    }
    let passing = args.state.is_none().then(Passing::new).transpose()?;
    if let Some(passing) = &passing {
        builder = builder.large_files(passing.path());
    }
    builder = builder.large_space(args.payload_space << 20);
    let pace = args.pace.unwrap_or(Duration::ZERO);
    for kind in handlers::BUILT_IN {
        // Their results follow from the payload alone.
        let limits = KindLimits { pure: true, ..KindLimits::default() };
        builder = builder.large_handler(kind, limits, move |context, payload| async move {
            time::sleep(pace).await;
            handlers::run_large(kind, &context, payload).await
        });
    }
    let programs = programs(&args.handler)?;
    let kinds = kinds(&programs);
    for (kind, policy) in policies(&args.allow, &kinds)? {
        builder = builder.allow_submit(&kind, policy);
    }
    let own_file = |error| Failure::new(Code::Other, format!("this program's own file: {}", plain(&error)));
    let groups = Groups::new().map_err(own_file)?;
    let confined_by = args.limits.command(args.handler_timeout).map_err(own_file)?;
    let runner = Runner { groups, confined_by, limit: args.handler_timeout, retry_exits: args.retry_exit };
    pure_kinds(&args.pure, &programs)?;
    for program in programs {
        let pure = args.pure.contains(&program.kind);
        builder = with_program(builder, program, (pure, args.handler_jobs.into()), runner.clone());
    }
    let stop = Stop::new(args.exit_with_stdin);
    let node = builder.spawn().await?;
    identity.keep_passes(&node);
    let limits = Limits { join: args.mesh.join, drain: args.drain, metrics: args.metrics };
    let done = serve(&node, kinds, limits, stop, out).await;
    runner.groups.kill_all();
    done
}

fn programs(texts: &[String]) -> Result<Vec<Program>, Failure> {
    texts
        .iter()
        .map(|text| Program::parse(text))
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::new(Code::Usage, format!("--handler {error}")))
}

/// What `--allow` says: a kind that this worker has, and one of those who may submit its tasks.
fn policies(texts: &[String], kinds: &[String]) -> Result<Vec<(String, Policy)>, Failure> {
    let policy = |text: &String| {
        let wrong = |why: String| Failure::new(Code::Usage, format!("--allow {}: {why}", shown(text)));
        let (kind, who) = text.split_once('=').ok_or_else(|| {
            wrong("expected KIND=LEVEL, KIND=NAME or KIND=KEY, such as thumb=member".to_owned())
        })?;
        if !kinds.iter().any(|known| known == kind) {
            return Err(wrong(format!(
                "this worker has no kind {kind}, only {}: write one of these, or add --handler {kind}=COMMAND",
                kinds.join(", ")
            )));
        }
        let policy = who.parse().map_err(|error: NotAPolicy| wrong(error.to_string()))?;
        Ok((kind.to_owned(), policy))
    };
    texts.iter().map(policy).collect()
}

/// All job kinds that a worker with these programs runs, sorted.
fn kinds(programs: &[Program]) -> Vec<String> {
    let mut kinds: Vec<String> = handlers::BUILT_IN.map(String::from).to_vec();
    kinds.extend(programs.iter().map(|program| program.kind.clone()));
    kinds.sort();
    kinds.dedup();
    kinds
}

/// Checks that each `--pure` names a kind with a program.
fn pure_kinds(kinds: &[String], programs: &[Program]) -> Result<(), Failure> {
    let unknown = kinds.iter().find(|kind| programs.iter().all(|program| program.kind != **kind));
    unknown.map_or(Ok(()), |kind| {
        let message = format!("--pure {}: this worker has no --handler of that kind", shown(kind));
        Err(Failure::new(Code::Usage, message))
    })
}

fn with_program(
    builder: Builder,
    program: Program,
    (pure, concurrency): (bool, usize),
    runner: Runner,
) -> Builder {
    let kind = program.kind.clone();
    let limits = KindLimits { pure, concurrency, ..KindLimits::default() };
    builder.large_handler(&kind, limits, move |context, payload| {
        let (runner, program) = (runner.clone(), program.clone());
        async move { runner.run(&program, variables(&context), payload, Some(&context)).await }
    })
}

/// How long a worker tries and waits, and how often it tells its metrics, if it does.
struct Limits {
    join: Duration,
    drain: Duration,
    metrics: Option<Duration>,
}

/// Joins and serves until a stop request, then leaves gracefully; a second request ends it at once.
async fn serve(
    node: &Node,
    kinds: Vec<String>,
    Limits { join, drain, metrics }: Limits,
    mut stop: Stop,
    out: Out<'_>,
) -> Result<(), Failure> {
    let events = node.events();
    let serving = async {
        node.joined(join).await?;
        let human = format!("{} is ready for {}", node.key(), kinds.join(", "));
        let key = node.key().to_string();
        let line = Line::Ready { key, addr: None, addr_from: None, ticket: None, meshes: Vec::new(), kinds };
        out.line(&line, || Some(human)).await;
        rt::select! {
            ended = tell_all(node, events, out) => ended,
            ended = tell_metrics(node, metrics, out) => ended,
        }
    };
    tokio::pin!(serving);
    let served = rt::select! {
        () = stop.told() => None,
        served = &mut serving => Some(served),
    };
    let goes_on = served.is_none();
    let done = served.unwrap_or(Ok(()));
    let leave = async {
        if done.is_ok() {
            out.note("leaving the mesh").await;
            // An error means that the node has ended on its own.
            let _ = node.drain(drain).await;
        }
        tell_departure(node.shutdown().await, out).await;
    };
    // Tasks that end during the leave are still reported, if there is a reader.
    let telling = async {
        if goes_on {
            let _ = serving.await;
        }
        std::future::pending().await
    };
    rt::select! {
        () = stop.told() => {}
        () = leave => {}
        () = telling => {}
    }
    done
}

/// Reports the writes that no other node has.
async fn tell_departure(Departure { lost, stored }: Departure, out: Out<'_>) {
    if lost > 0 {
        out.warn(&format!(
            "the last writes to {lost} keys are lost: no other owner took them, and there is no --state"
        ))
        .await;
    } else if stored > 0 {
        out.note(&format!(
            "no other owner took the last writes to {stored} keys: they are here until the next start"
        ))
        .await;
    }
}

/// Writes events until the reader has gone, which is how a parent or a pipe requests a stop, or the node ends.
pub(crate) async fn tell_all(node: &Node, mut events: Events, out: Out<'_>) -> Result<(), Failure> {
    loop {
        match events.next().await {
            Some(NodeEvent::SocketFailed { reason }) => return Err(Error::Socket(reason).into()),
            Some(NodeEvent::Revoked { peer }) if peer == node.key() => {
                return Err(Error::from(RefusedBy::Authority).into());
            }
            Some(event) if tell(&event, out).await.is_err() => return Ok(()),
            Some(_) => {}
            // The node ended on its own.
            None => return Err(node.members().await.err().unwrap_or(Error::Closed).into()),
        }
    }
}

/// Writes the node's metrics at intervals, until the reader has gone or the node has ended.
async fn tell_metrics(node: &Node, every: Option<Duration>, out: Out<'_>) -> Result<(), Failure> {
    let Some(every) = every else { return std::future::pending().await };
    loop {
        // The reason of a node's end is among its events.
        let Ok(metrics) = node.metrics().await else { return std::future::pending().await };
        let human = || {
            let told = metrics.iter().filter(|metric| metric.value > 0);
            Some(told.map(|metric| format!("{}={}", metric.name, metric.value)).collect::<Vec<_>>().join(" "))
        };
        if out.try_line(&metrics_line(&metrics), human).await.is_err() {
            return Ok(());
        }
        time::sleep(every.max(METRICS_AT_MOST_EVERY)).await;
    }
}

async fn tell(event: &NodeEvent, out: Out<'_>) -> io::Result<()> {
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
            Line::Hub { hub: hub.to_string(), up: false, reason: Some(reason.as_str()) },
            format!("hub {} is down ({}): {}", hub.short(), reason.as_str(), reason.sentence()),
        ),
        NodeEvent::Issued { pass, .. } => {
            let grant = pass.grant();
            let (level, until) = (grant.level.as_str(), grant.not_after);
            let days = (grant.not_after - grant.issued) / 86_400;
            let line = Line::Pass { name: grant.name.clone(), level, until };
            (line, format!("has a pass of level {level}, for {days} days"))
        }
        NodeEvent::Revoked { peer } => {
            (Line::Revoked { peer: peer.to_string() }, format!("the pass of {} was revoked", peer.short()))
        }
        NodeEvent::Incompatible { peer, theirs, ours } => (
            Line::Incompatible { peer: peer.to_string(), theirs: theirs.to_string(), ours: ours.to_string() },
            incompatible(peer, *theirs, *ours),
        ),
        NodeEvent::Rotated { generation } => {
            (Line::Rotated { generation: *generation }, format!("has the mesh's secret {generation}"))
        }
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
                Line::Path {
                    peer: peer.to_string(),
                    path,
                    addr: addr.map(|addr| addr.to_string()),
                    reason: reason.as_str(),
                },
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
        NodeEvent::Gossip { claimed, body } => {
            let (text, hex) = text_or_hex(body);
            let human = format!("gossip of {}: {}", claimed.short(), on_terminal(&text, &hex));
            (Line::Gossip { claimed: claimed.to_string(), text, hex }, human)
        }
        NodeEvent::Isolated(isolated) => (
            Line::Isolated { isolated: *isolated },
            if *isolated { "cut off from the mesh".into() } else { "back in the mesh".to_owned() },
        ),
        NodeEvent::StoreSetAside { path, reason } => {
            let set_aside = path.as_ref().map(|path| path.display().to_string());
            let at = set_aside.as_ref().map_or("gone".to_owned(), |path| format!("now at {path}"));
            out.warn(&format!(
                "the store was damaged ({reason}): it is {at}, and the worker began a new one"
            ))
            .await;
            let line = Line::StoreSetAside { path: set_aside, reason: reason.clone() };
            return out.try_line(&line, || None).await;
        }
        NodeEvent::StoreFailed { reason } => {
            out.warn(&format!(
                "the store failed ({reason}): the worker takes no writes, reads go on, and what it learns now isn't \
                 durable; it tries the disk again within a minute"
            ))
            .await;
            return out.try_line(&Line::StoreFailed { reason: reason.clone() }, || None).await;
        }
        NodeEvent::StoreWorks => {
            (Line::StoreWorks {}, "the store works again: the worker takes writes".to_owned())
        }
        // The caller ends with this event.
        NodeEvent::SocketFailed { .. } => return Ok(()),
        NodeEvent::Lagged(lost) => {
            (Line::Lagged { lost: *lost }, format!("{lost} events lost: output is too slow"))
        }
    };
    out.try_line(&line, || Some(human)).await
}

/// Why there is no session with a peer.
pub(crate) fn incompatible(peer: &PublicKey, theirs: Versions, ours: Versions) -> String {
    format!("{} speaks versions {theirs}, this node {ours}: {}", peer.short(), ours.remedy(theirs))
}

/// A path's name in output.
pub(crate) fn path_name(direct: bool) -> &'static str {
    if direct { "direct" } else { "relayed" }
}
