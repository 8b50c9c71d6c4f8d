use super::super::job::Priority;
use super::*;
use crate::key::PublicKey;

fn on_runtime<F: Future<Output = ()>>(body: F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body);
}

fn run(id: u64, kind: &str, payload: &'static [u8], life: Duration) -> Run {
    let owner = PublicKey::from_bytes([1; 32]);
    Run {
        id: RunId(id),
        task: TaskId::from_bytes([id as u8; 16]),
        attempt: 0,
        kind: kind.into(),
        key: Bytes::new(),
        payload: Bytes::from_static(payload),
        submitter: Submitter::alone(owner),
        parent: None,
        token: Epoch { counter: 1, owner },
        life: rt::time::now() + life,
        large: false,
        time_limit: None,
    }
}

fn pool(threads: usize) -> (Pool, mpsc::Receiver<Report>) {
    let mut handlers = Handlers::new();
    super::super::handlers::register_builtin(&mut handlers);
    let limits = KindLimits::default;
    handlers.register("panic", limits(), |_, _| async { panic!("as asked") });
    handlers.register("panic at once", limits(), |_, _| -> std::future::Ready<_> { panic!("at once") });
    handlers.register("panic in a closure", limits(), |context, _| async move {
        context.blocking(|| panic!("beside the pool")).await
    });
    handlers.register("give up", limits(), |_, _| async { Err(JobError::Cancelled) });
    handlers.register("sleep", limits(), |context, _| async move {
        context.progress(&b"asleep"[..]);
        rt::time::sleep(Duration::from_secs(600)).await;
        Ok(Bytes::new())
    });
    handlers.register("spin", limits(), |context, _| async move {
        while !context.is_cancelled() {
            std::hint::spin_loop();
        }
        Ok(Bytes::new())
    });
    let (sender, receiver) = mpsc::channel(16);
    (Pool::new(Planes::start("test", threads).unwrap(), handlers, sender), receiver)
}

async fn end(reports: &mut mpsc::Receiver<Report>) -> Finished {
    loop {
        match rt::time::timeout(Duration::from_secs(20), reports.recv()).await.unwrap().unwrap() {
            Report::Finished(finished) => return finished,
            Report::Progress { .. } => {}
        }
    }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn the_built_in_handlers_do_what_they_say() {
    on_runtime(async {
        let (mut pool, mut reports) = pool(2);
        pool.start(run(1, "echo", b"hello", LONG));
        assert_eq!(end(&mut reports).await.result, Ok(Bytes::from_static(b"hello")));
        pool.start(run(2, "blake3", b"", LONG));
        let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(end(&mut reports).await.result, Ok(Bytes::from(empty)));
        pool.start(run(3, "wordcount", b"b a \xff A", LONG));
        let counts = super::super::handlers::count_words("a a b");
        assert_eq!(end(&mut reports).await.result, Ok(super::super::handlers::encode_counts(&counts)));
    });
}

#[test]
fn a_handler_that_waited_for_something_cancelled_has_failed_and_was_not_cancelled_itself() {
    on_runtime(async {
        let (mut pool, mut reports) = pool(1);
        pool.start(run(1, "give up", b"", LONG));
        let result = end(&mut reports).await.result;
        assert!(matches!(result, Err(JobError::Failed { retriable: true, .. })), "{result:?}");
    });
}

#[test]
fn a_panicking_handler_fails_alone() {
    on_runtime(async {
        let (mut pool, mut reports) = pool(1);
        for (id, kind, text) in [
            (1, "panic", "as asked"),
            (2, "panic at once", "at once"),
            (3, "panic in a closure", "beside the pool"),
        ] {
            pool.start(run(id, kind, b"", LONG));
            let finished = end(&mut reports).await;
            assert_eq!((finished.run, finished.result), (RunId(id), Err(JobError::Panicked(text.into()))));
        }
        pool.start(run(4, "echo", b"still here", LONG));
        assert_eq!(end(&mut reports).await.result, Ok(Bytes::from_static(b"still here")));
    });
}

#[test]
fn an_unknown_kind_is_an_error() {
    on_runtime(async {
        let (mut pool, mut reports) = pool(1);
        pool.start(run(1, "nonsense", b"", LONG));
        assert_eq!(end(&mut reports).await.result, Err(JobError::UnknownKind("nonsense".into())));
    });
}

#[test]
fn a_run_ends_at_its_deadline_and_says_which_limit_it_was() {
    on_runtime(async {
        let (mut pool, mut reports) = pool(1);
        pool.start(run(1, "sleep", b"", Duration::from_millis(30)));
        assert_eq!(end(&mut reports).await.result, Err(JobError::Deadline));
        pool.start(Run {
            time_limit: Some(Duration::from_millis(30)),
            ..run(2, "sleep", b"", Duration::from_secs(60))
        });
        assert_eq!(end(&mut reports).await.result, Err(JobError::TimedOut));
    });
}

#[test]
fn a_cancelled_run_is_aborted_and_still_reported_once() {
    on_runtime(async {
        let (mut pool, mut reports) = pool(1);
        pool.start(run(1, "sleep", b"", LONG));
        let Some(Report::Progress { run: id, note }) = reports.recv().await else { panic!() };
        assert_eq!((id, note), (RunId(1), Bytes::from_static(b"asleep")));
        pool.cancel(RunId(1));
        assert_eq!(end(&mut reports).await.result, Err(JobError::Cancelled));
        pool.forget(RunId(1));
        pool.cancel(RunId(1));
        assert_eq!(pool.running(), 0);
        assert!(reports.try_recv().is_err());
    });
}

#[test]
fn handlers_that_spin_on_every_thread_are_ended_all_the_same() {
    on_runtime(async {
        let (mut pool, mut reports) = pool(2);
        for id in 1..=2 {
            pool.start(run(id, "spin", b"", Duration::from_millis(100)));
        }
        for _ in 1..=2 {
            assert_eq!(end(&mut reports).await.result, Err(JobError::Deadline));
        }
        pool.start(run(3, "echo", b"free again", LONG));
        assert_eq!(end(&mut reports).await.result, Ok(Bytes::from_static(b"free again")));
    });
}

#[test]
fn a_whole_node_runs_a_task_through_the_pool() {
    on_runtime(async {
        use super::super::job::{Config, JobEvent, Jobs, Placement, SubmitOptions};
        struct Alone(PublicKey);
        impl Placement for Alone {
            fn executors(&self, _: &str, _: &[u8]) -> Vec<PublicKey> {
                vec![self.0]
            }
            fn owners(&self, _: &[u8], _: usize) -> Vec<PublicKey> {
                vec![self.0]
            }
            fn has_kind(&self, _: &str) -> bool {
                true
            }
        }
        let (mut pool, mut reports) = pool(1);
        let local = PublicKey::from_bytes([1; 32]);
        let mut jobs = Jobs::new(Config::default(), local, 1, rt::time::now(), rt::rng("jobs"));
        for (kind, limits) in pool.handlers.kinds() {
            assert!(jobs.register(kind, limits.clone()));
        }
        jobs.set_placement(rt::time::now(), Arc::new(Alone(local)));
        let counter = jobs.poll_persist().unwrap();
        jobs.on_persisted(counter);
        let options = SubmitOptions { priority: Priority::High, ..Default::default() };
        let payload = Bytes::from_static(b"hi");
        let task = jobs.submit(rt::time::now(), "echo", b"k", payload.clone(), options).unwrap();
        while let Some(run) = jobs.poll_run(rt::time::now()) {
            pool.start(run);
        }
        let finished = end(&mut reports).await;
        pool.forget(finished.run);
        jobs.finished(rt::time::now(), finished.run, finished.result);
        let done = JobEvent::Done { task, outcome: Ok(payload), by: Some(local), attempts: 1 };
        assert!(std::iter::from_fn(|| jobs.poll_event()).any(|event| event == done));
    });
}
