//! Jobs: submitting and executing tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nurl::config::Role;
use nurl::events::NodeEvent;
use nurl::job::{JobContext, JobError, NotAPolicy, Policy, SubmitOptions, TaskEvent};
use nurl::pass::{Credential, Level, Slip};
use nurl::rt::time;
use nurl::{Builder, Error, Node, PolicyError};

use crate::harness::{Mesh, PATIENCE, meet, run, soon};

/// A worker that converts text to capitals.
fn shouting(builder: Builder) -> Builder {
    builder.handler("shout", |_, text: Bytes| async move { Ok(text.to_ascii_uppercase().into()) })
}

async fn outcome(node: &Node, kind: &str, key: &str, payload: &'static str) -> Result<Bytes, JobError> {
    let payload = Bytes::from_static(payload.as_bytes());
    let task = node.submit(kind, key.as_bytes(), payload, SubmitOptions::default()).await.unwrap();
    soon("the outcome", task.outcome()).await
}

#[test]
fn a_task_comes_back_with_its_result_from_the_worker_that_its_key_names() {
    run(async {
        let mesh = Mesh::start().await;
        let a = mesh.join(shouting(mesh.builder(Role::Worker))).await;
        let b = mesh.join(shouting(mesh.builder(Role::Worker))).await;
        let client = mesh.node(Role::Observer).await;
        meet(&[&a, &b]).await;
        soon("both workers", async {
            while client.members().await.unwrap().len() < 2 {
                time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let mut by_worker = std::collections::BTreeMap::new();
        for number in 0..20 {
            let (key, payload) = (format!("key {}", number % 10), Bytes::from(format!("text {number}")));
            let mut task =
                client.submit("shout", key.as_bytes(), payload, SubmitOptions::default()).await.unwrap();
            let mut accepted = None;
            loop {
                match soon("the next notice", task.next()).await.expect("the end is never left out") {
                    TaskEvent::Accepted { by } => accepted = Some(by),
                    TaskEvent::Waiting { .. } | TaskEvent::Progress { .. } | TaskEvent::Fetching { .. } => {}
                    TaskEvent::Ended { by, attempts, outcome, .. } => {
                        assert_eq!(outcome.unwrap(), format!("TEXT {number}"));
                        assert_eq!((by, attempts), (accepted, 1));
                        break;
                    }
                }
            }
            assert!(task.next().await.is_none());
            let worker = *by_worker.entry(key).or_insert(accepted);
            assert_eq!(worker, accepted, "equal keys go to one worker");
        }
    });
}

#[test]
fn a_handler_that_panics_fails_its_task_alone() {
    run(async {
        let mesh = Mesh::start().await;
        let worker = shouting(mesh.builder(Role::Worker)).pool(1).handler("panic", |_, _| async {
            if true {
                panic!("the handler's own words");
            }
            Ok(Bytes::new())
        });
        let worker = mesh.join(worker).await;
        let waiting = worker.submit("shout", b"k", Bytes::from_static(b"x"), SubmitOptions::default()).await;
        let error = outcome(&worker, "panic", "k", "").await.unwrap_err();
        assert!(matches!(&error, JobError::Panicked(text) if text.contains("own words")), "{error:?}");
        assert_eq!(soon("the other task", waiting.unwrap().outcome()).await.unwrap(), "X");
        assert_eq!(outcome(&worker, "shout", "k", "still here").await.unwrap(), "STILL HERE");
    });
}

#[test]
fn a_kind_that_nobody_runs_is_an_error_not_silence() {
    run(async {
        let mesh = Mesh::start().await;
        // This also holds for a single node: it needs no other node's view to know that there are no other members.
        let alone = mesh.node(Role::Worker).await;
        let error = outcome(&alone, "no such kind", "k", "").await.unwrap_err();
        assert_eq!(error, JobError::Infeasible("no such kind".to_owned()));
        let worker = mesh.join(shouting(mesh.builder(Role::Worker))).await;
        meet(&[&alone, &worker]).await;
        let error = outcome(&alone, "no such kind", "k", "").await.unwrap_err();
        assert_eq!(error, JobError::Infeasible("no such kind".to_owned()));
        assert_eq!(outcome(&alone, "shout", "k", "a").await.unwrap(), "A");
    });
}

#[test]
fn a_handlers_own_errors_are_told_as_they_are() {
    run(async {
        let mesh = Mesh::start().await;
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let flaky = move |_: JobContext, _: Bytes| {
            let run = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                match run {
                    0 => Err(JobError::retriable("not yet")),
                    _ => Ok(Bytes::from_static(b"now")),
                }
            }
        };
        let worker = mesh
            .builder(Role::Worker)
            .handler("flaky", flaky)
            .handler("never", |_, _| async { Err(JobError::permanent("not a number")) });
        let worker = mesh.join(worker).await;
        assert_eq!(outcome(&worker, "flaky", "k", "").await.unwrap(), "now");
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        assert_eq!(outcome(&worker, "never", "k", "").await, Err(JobError::permanent("not a number")));
    });
}

#[test]
fn a_cancelled_task_ends_so_and_so_does_its_handler() {
    run(async {
        let mesh = Mesh::start().await;
        // Closed when the last run has ended in any way.
        let (runs, mut ended) = nurl::rt::sync::mpsc::channel::<()>(1);
        let weak = runs.downgrade();
        let worker = mesh.builder(Role::Worker).handler("wait", move |_, _| {
            let run = weak.upgrade();
            async move {
                std::future::pending::<()>().await;
                drop(run);
                Ok(Bytes::new())
            }
        });
        let worker = mesh.join(worker).await;
        let mut events = worker.events();
        let task = worker.submit("wait", b"k", Bytes::new(), SubmitOptions::default()).await.unwrap();
        let id = task.id();
        soon("the start", async {
            while !matches!(events.next().await, Some(NodeEvent::JobStarted { task, .. }) if task == id) {}
        })
        .await;
        drop(runs);
        assert!(worker.cancel(id).await.unwrap());
        assert_eq!(soon("the end", task.outcome()).await, Err(JobError::Cancelled));
        assert!(soon("the handler's end", ended.recv()).await.is_none());
        soon("the event", async {
            while !matches!(events.next().await, Some(NodeEvent::JobFinished { task, .. }) if task == id) {}
        })
        .await;
        assert!(!worker.cancel(id).await.unwrap(), "it is over");
    });
}

#[test]
fn a_task_of_a_worker_that_vanishes_is_done_by_another() {
    run(async {
        let mesh = Mesh::start().await;
        let slow = |_: JobContext, text: Bytes| async move {
            time::sleep(Duration::from_millis(300)).await;
            Ok(text)
        };
        let mut workers = Vec::new();
        for _ in 0..2 {
            workers.push(mesh.join(mesh.builder(Role::Worker).handler("slow", slow)).await);
        }
        let client = mesh.node(Role::Member).await;
        meet(&[&client, &workers[0], &workers[1]]).await;
        let payload = Bytes::from_static(b"mine");
        let mut task = client.submit("slow", b"k", payload, SubmitOptions::default()).await.unwrap();
        let Some(TaskEvent::Accepted { by }) = soon("a worker", task.next()).await else {
            panic!("accepted first")
        };
        // This drops the last handle, so the worker vanishes without a leave.
        workers.retain(|worker| worker.key() != by);
        assert_eq!(workers.len(), 1);
        loop {
            if let TaskEvent::Ended { by: other, attempts, outcome, .. } =
                soon("the end", task.next()).await.expect("the end comes")
            {
                assert_eq!(outcome.unwrap(), "mine");
                assert_eq!(other, Some(workers[0].key()));
                assert!(attempts >= 2);
                break;
            }
        }
    });
}

#[test]
fn what_a_draining_worker_gives_back_is_done_by_another_at_once() {
    run(async {
        let mesh = Mesh::start().await;
        let first = Arc::new(AtomicUsize::new(0));
        let mut workers = Vec::new();
        for _ in 0..2 {
            let first = first.clone();
            // Only the first run never ends.
            let stuck = move |_: JobContext, text: Bytes| {
                let begun = first.fetch_add(1, Ordering::Relaxed);
                async move {
                    if begun == 0 {
                        std::future::pending::<()>().await;
                    }
                    Ok(text)
                }
            };
            workers.push(mesh.join(mesh.builder(Role::Worker).handler("stuck", stuck)).await);
        }
        let client = mesh.node(Role::Member).await;
        meet(&[&client, &workers[0], &workers[1]]).await;
        let mut task = client
            .submit("stuck", b"k", Bytes::from_static(b"mine"), SubmitOptions::default())
            .await
            .unwrap();
        let Some(TaskEvent::Accepted { by }) = soon("a worker", task.next()).await else {
            panic!("accepted first")
        };
        let draining = workers.iter().find(|worker| worker.key() == by).unwrap();
        let begun = time::now();
        let drained = soon("the drain", draining.drain(Duration::from_millis(300))).await.unwrap();
        assert_eq!((drained.finished, drained.handed_back), (0, 1));
        loop {
            if let TaskEvent::Ended { by: other, outcome, .. } =
                soon("the end", task.next()).await.expect("the end comes")
            {
                assert_eq!(outcome.unwrap(), "mine");
                assert_ne!(other, Some(by));
                break;
            }
        }
        // Detection by silence would take 3.5 s.
        assert!(time::now() - begun < Duration::from_secs(3));
        // The draining node takes no more tasks, but can still submit.
        let own = draining.submit("stuck", b"k", Bytes::from_static(b"own"), SubmitOptions::default()).await;
        assert_eq!(soon("the other worker", own.unwrap().outcome()).await.unwrap(), "own");
    });
}

#[test]
fn a_payload_over_the_limit_and_a_life_of_zero_are_refused_at_once() {
    run(async {
        let mesh = Mesh::start().await;
        let worker = mesh.join(shouting(mesh.builder(Role::Worker))).await;
        let life = SubmitOptions { life: Duration::ZERO, ..SubmitOptions::default() };
        let refused = worker.submit("shout", b"k", Bytes::new(), life).await;
        assert!(matches!(refused, Err(Error::Submit(_))));
        let large = Bytes::from(vec![0; 17 << 20]);
        let refused = worker.submit("shout", b"k", large, SubmitOptions::default()).await;
        assert!(matches!(refused, Err(Error::Submit(_))));
        let largest = Bytes::from(vec![b'a'; 4 << 20]);
        let task = worker.submit("shout", b"k", largest, SubmitOptions::default()).await.unwrap();
        let result = time::timeout(PATIENCE, task.outcome()).await.unwrap().unwrap();
        assert!(result.len() == 4 << 20 && result.iter().all(|byte| *byte == b'A'));
    });
}

/// Tells by whom its task was submitted.
fn whose(builder: Builder) -> Builder {
    builder.handler("whose", |context: JobContext, _| async move {
        let by = context.submitter();
        let text = format!("{} {} {} {}", by.name(), by.level(), by.key(), by.holder());
        Ok(Bytes::from(text))
    })
}

#[test]
fn a_policy_permits_by_level_name_and_key_and_the_refused_go_on_to_the_next_worker() {
    run(async {
        let mesh = Mesh::start().await;
        let (fixed, fixed_pass) = mesh.admit_as(Level::Submit, "");
        let (holder, pass) = mesh.admit_as(Level::Worker, "alice");
        // Each permits something else.
        let policies =
            [Policy::Level(Level::Member), Policy::Name("alice".into()), Policy::Holder(fixed.public())];
        let mut workers = Vec::new();
        for policy in policies {
            let builder = whose(mesh.builder(Role::Worker)).allow_submit("whose", policy);
            workers.push(mesh.join(builder).await);
        }
        meet(&workers.iter().collect::<Vec<_>>()).await;
        let slip_key = crate::harness::key();
        let not_after = time::unix_now().as_secs() as u32 + 600;
        let slip = Slip { key: slip_key.public(), level: Level::Submit, not_after };
        let slip = Credential::with_slip(pass.pass().clone(), slip.sign(&holder, &mesh.ticket.mesh));
        let (member, member_pass) = mesh.admit_as(Level::Member, "");
        let (other, other_pass) = mesh.admit_as(Level::Submit, "bob");
        let told = |name: &str, level, key: &nurl::SecretKey, holder: &nurl::SecretKey| {
            Some(format!("{name} {level} {} {}", key.public(), holder.public()))
        };
        for (key, credential, expected) in [
            (&slip_key, slip, told("alice", Level::Submit, &slip_key, &holder)),
            (&member, member_pass, told("", Level::Member, &member, &member)),
            (&fixed, fixed_pass, told("", Level::Submit, &fixed, &fixed)),
            (&other, other_pass, None),
        ] {
            let builder = mesh.builder(Role::Observer).key(key.clone()).credential(credential);
            let client = mesh.join(builder).await;
            crate::harness::until("all workers", async || client.members().await.unwrap().len() == 3).await;
            for key in ["a", "b", "c", "d"] {
                let outcome = outcome(&client, "whose", key, "").await;
                match &expected {
                    Some(told) => assert_eq!(outcome.unwrap(), *told),
                    None => {
                        let needs = format!("level member or name alice or key {}", fixed.public());
                        assert_eq!(outcome, Err(JobError::NotAllowed { kind: "whose".into(), needs }));
                    }
                }
            }
        }
    });
}

#[test]
fn a_node_with_a_policy_that_cannot_be_meant_does_not_start() {
    run(async {
        let mesh = Mesh::start().await;
        let spawn = |kind: &'static str, policy| {
            let builder = whose(mesh.builder(Role::Worker)).allow_submit(kind, policy);
            async move { builder.spawn().await.map(drop).unwrap_err() }
        };
        let error = spawn("whos", Policy::Level(Level::Member)).await;
        assert!(matches!(&error, Error::Policy(PolicyError::NoHandler(kind)) if kind == "whos"), "{error:?}");
        let error = spawn("whose", Policy::Level(Level::Look)).await;
        let expected = PolicyError::NotAPolicy { kind: "whose".into(), error: NotAPolicy::Look };
        assert!(matches!(&error, Error::Policy(error) if *error == expected), "{error:?}");
    });
}
