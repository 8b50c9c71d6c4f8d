//! Timers: they end when tokio's would.

use chaos::World;
use chaos::tokio::time::{
    self, Instant, Interval, MissedTickBehavior, interval, interval_at, sleep, sleep_until, timeout,
    timeout_at,
};
use std::future::{pending, ready};
use std::pin::pin;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Virtual time has a resolution; what is due has come within it.
fn about(found: Duration, expected: Duration) {
    assert!(found >= expected && found < expected + Duration::from_millis(3), "{found:?}, not {expected:?}");
}

#[chaos::test(seeds = 2)]
async fn a_sleep_counts_from_its_making_and_can_be_reset() {
    let began = Instant::now();
    let mut wait = pin!(sleep(SECOND));
    sleep(SECOND / 2).await;
    assert!(!wait.is_elapsed());
    wait.as_mut().await;
    about(began.elapsed(), SECOND);
    assert!(wait.is_elapsed());
    wait.as_mut().reset(began + 3 * SECOND);
    assert_eq!(wait.deadline() - began, 3 * SECOND);
    wait.await;
    about(began.elapsed(), 3 * SECOND);
    sleep_until(began).await;
    about(began.elapsed(), 3 * SECOND);
}

#[chaos::test(seeds = 2)]
async fn a_timeout_ends_what_takes_longer() {
    assert_eq!(timeout(SECOND, ready(7)).await, Ok(7));
    assert_eq!(timeout(Duration::MAX, ready(7)).await, Ok(7));
    let began = Instant::now();
    let elapsed = timeout(SECOND, pending::<()>()).await.unwrap_err();
    assert_eq!(elapsed.to_string(), "deadline has elapsed");
    assert_eq!(std::io::Error::from(elapsed).kind(), std::io::ErrorKind::TimedOut);
    assert!(timeout_at(began, pending::<()>()).await.is_err());
    about(began.elapsed(), SECOND);
}

async fn after_a_delay(behavior: MissedTickBehavior) -> Vec<u128> {
    let began = Instant::now();
    let mut ticks = interval_at(began + SECOND, SECOND);
    ticks.set_missed_tick_behavior(behavior);
    assert_eq!((ticks.period(), ticks.missed_tick_behavior()), (SECOND, behavior));
    ticks.tick().await;
    sleep(SECOND * 5 / 2).await;
    let mut came = Vec::new();
    for _ in 0..4 {
        ticks.tick().await;
        came.push(began.elapsed().as_millis() / 100);
    }
    came
}

#[chaos::test(seeds = 2)]
async fn missed_ticks_are_made_up_for_delayed_or_skipped() {
    assert_eq!(after_a_delay(MissedTickBehavior::Burst).await, [35, 35, 40, 50]);
    assert_eq!(after_a_delay(MissedTickBehavior::Delay).await, [35, 45, 55, 65]);
    assert_eq!(after_a_delay(MissedTickBehavior::Skip).await, [35, 40, 50, 60]);
}

#[chaos::test(seeds = 2)]
async fn an_interval_ticks_at_once_and_after_a_reset() {
    let began = Instant::now();
    let mut ticks: Interval = interval(SECOND);
    ticks.tick().await;
    about(began.elapsed(), Duration::ZERO);
    sleep(SECOND / 2).await;
    ticks.reset();
    ticks.tick().await;
    about(began.elapsed(), SECOND * 3 / 2);
    ticks.reset_immediately();
    ticks.tick().await;
    ticks.reset_after(2 * SECOND);
    ticks.tick().await;
    about(began.elapsed(), SECOND * 7 / 2);
}

#[chaos::test(seeds = 2)]
async fn a_fast_clock_is_the_hosts_own(world: World) {
    let host = world.host("fast").addr("10.0.0.1");
    host.set_clock_drift_ppb(100_000_000);
    host.run(async {
        let began = Instant::now();
        time::sleep(11 * SECOND).await;
        about(began.elapsed(), 11 * SECOND);
    })
    .await
    .unwrap();
    about(world.elapsed(), 10 * SECOND);
}
