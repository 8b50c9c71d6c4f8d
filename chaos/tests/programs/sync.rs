//! Channels.

use chaos::World;
use chaos::tokio::sync::{Mutex, mpsc, watch};
use chaos::tokio::{task, time};
use std::sync::Arc;
use std::time::Duration;

#[chaos::test]
async fn tokios_own_channels_and_locks_work_in_the_world() {
    let (sender, mut receiver) = mpsc::channel(1);
    let sum = Arc::new(Mutex::new(0));
    let adder = sum.clone();
    let adding = task::spawn(async move {
        while let Some(number) = receiver.recv().await {
            *adder.lock().await += number;
        }
    });
    for number in 0..10 {
        sender.send(number).await.unwrap();
    }
    drop(sender);
    adding.await.unwrap();
    assert_eq!(*sum.lock().await, 45);
}

#[chaos::test]
async fn a_watch_tells_what_has_changed_since_it_was_seen() {
    let (sender, mut receiver) = watch::channel(1);
    assert!(!receiver.has_changed().unwrap() && !receiver.borrow().has_changed());
    sender.send(2).unwrap();
    assert!(receiver.has_changed().unwrap() && receiver.borrow().has_changed());
    receiver.changed().await.unwrap();
    assert_eq!(*receiver.borrow_and_update(), 2);
    assert!(!sender.send_if_modified(|_| false) && !receiver.has_changed().unwrap());
    receiver.mark_changed();
    receiver.changed().await.unwrap();
    let mut waiting = receiver.clone();
    let waiter = task::spawn(async move { waiting.wait_for(|value| *value >= 5).await.map(|value| *value) });
    for value in 3..7 {
        sender.send_replace(value);
        time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(waiter.await.unwrap().unwrap(), 5);
    assert_eq!((sender.receiver_count(), sender.sender_count()), (1, 1));
    // The last value is still seen, and then the end.
    drop(sender);
    receiver.changed().await.unwrap();
    assert_eq!(*receiver.borrow(), 6);
    assert!(receiver.changed().await.is_err() && receiver.has_changed().is_err());
}

#[chaos::test]
async fn a_watch_that_nobody_reads_is_closed() {
    let (sender, receiver) = watch::channel(1);
    task::spawn(async move {
        time::sleep(Duration::from_secs(1)).await;
        drop(receiver);
    });
    assert!(!sender.is_closed());
    sender.closed().await;
    assert_eq!(sender.send(2).unwrap_err().0, 2);
    assert_eq!(*sender.borrow(), 1);
    let mut again = sender.subscribe();
    sender.send(3).unwrap();
    assert_eq!(*again.borrow_and_update(), 3);
}

/// The first seed is run twice, and the digest has the order.
#[chaos::test(seeds = 5)]
async fn a_watch_wakes_its_readers_in_the_same_order_in_each_run_of_a_seed(world: World) {
    let (sender, receiver) = watch::channel(0);
    let (said, mut heard) = mpsc::unbounded_channel();
    for number in 0..16 {
        let (mut receiver, said) = (receiver.clone(), said.clone());
        task::spawn(async move {
            receiver.changed().await.unwrap();
            said.send(number).unwrap();
        });
    }
    time::sleep(Duration::from_secs(1)).await;
    sender.send(1).unwrap();
    for _ in 0..16 {
        world.note(&format!("{} has heard", heard.recv().await.unwrap()));
    }
}
