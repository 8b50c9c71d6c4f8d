//! Tasks.

use chaos::tokio::task::{self, JoinSet};
use chaos::tokio::{self, time};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[chaos::test]
async fn an_awaited_task_gives_its_value_its_panic_or_its_end() {
    assert_eq!(tokio::spawn(async { 7 }).await.unwrap(), 7);
    assert_eq!(task::spawn_blocking(|| 8).await.unwrap(), 8);
    let panicking = tokio::spawn(async {
        task::yield_now().await;
        panic!("on purpose");
    });
    let error = panicking.await.unwrap_err();
    assert!(error.is_panic() && !error.is_cancelled());
    assert_eq!(*error.into_panic().downcast::<String>().unwrap(), "on purpose");
    let endless = tokio::spawn(std::future::pending::<()>());
    endless.abort_handle().abort();
    assert!(endless.await.unwrap_err().is_cancelled());
}

#[chaos::test]
async fn a_set_gives_results_in_the_order_of_their_ends() {
    let mut set: JoinSet<u32> = JoinSet::new();
    for seconds in [3, 1, 2] {
        set.spawn(async move {
            time::sleep(SECOND * seconds).await;
            seconds
        });
    }
    assert!(set.try_join_next().is_none());
    let mut ended = Vec::new();
    while let Some(joined) = set.join_next().await {
        ended.push(joined.unwrap());
    }
    assert_eq!(ended, [1, 2, 3]);
    let all: JoinSet<u32> = (0..3u32).map(|number| async move { number }).collect();
    assert_eq!(all.len(), 3);
    let mut all = all.join_all().await;
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2]);
}

#[chaos::test]
async fn a_dropped_set_ends_its_tasks_and_a_detached_one_leaves_them() {
    let ticks = Arc::new(AtomicU32::new(0));
    let tick = |ticks: Arc<AtomicU32>| async move {
        loop {
            time::sleep(SECOND).await;
            ticks.fetch_add(1, Ordering::Relaxed);
        }
    };
    let mut set = JoinSet::new();
    set.spawn(tick(ticks.clone()));
    time::sleep(SECOND * 5 / 2).await;
    set.shutdown().await;
    assert!(set.is_empty());
    set.spawn(tick(ticks.clone()));
    drop(set);
    time::sleep(SECOND * 5).await;
    assert_eq!(ticks.load(Ordering::Relaxed), 2);
    let mut set = JoinSet::new();
    set.spawn(tick(ticks.clone()));
    set.detach_all();
    drop(set);
    time::sleep(SECOND * 5 / 2).await;
    assert_eq!(ticks.load(Ordering::Relaxed), 4);
}

#[chaos::test(seeds = 50)]
async fn a_select_tries_its_branches_in_their_order() {
    use chaos::tokio::select;
    let which = select! {
        () = std::future::ready(()) => 1,
        () = std::future::ready(()) => 2,
    };
    assert_eq!(which, 1);
    let (a, b) = tokio::join!(async { 1 }, async { 2 });
    assert_eq!((a, b), (1, 2));
}
