//! A hub's client without a transport, in a task of its own: for tests, examples and scenarios of a hub alone.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Instant;

use tracing::Instrument as _;

use super::{HubClient, HubClientConfig, HubEvent, Link};
use crate::rt::sync::mpsc;
use crate::rt::{self, task, time};

/// Orders and batches of events that may wait.
const QUEUE: usize = 256;

type Order = Box<dyn FnOnce(&mut HubClient, Instant) + Send>;

/// A client whose connection is kept alive until this handle is dropped.
pub struct LoneClient {
    orders: mpsc::Sender<Order>,
    events: mpsc::Receiver<Vec<HubEvent>>,
    backlog: VecDeque<HubEvent>,
}

impl LoneClient {
    /// Starts a client on the caller's plane.
    pub fn spawn(config: HubClientConfig) -> LoneClient {
        let (orders, given) = mpsc::channel(QUEUE);
        let (told, events) = mpsc::channel(QUEUE);
        // A program with two hubs has two clients, each with its own random stream.
        let rng = rt::rng(&format!("hub-client {}", config.hub.key.short()));
        // The caller's span says whose connection it is.
        task::spawn(run(HubClient::new(config, time::now(), rng), given, told).in_current_span());
        LoneClient { orders, events, backlog: VecDeque::new() }
    }

    /// Lets the client do something, after everything that was given before.
    pub async fn give(&self, order: impl FnOnce(&mut HubClient, Instant) + Send + 'static) {
        // The task runs as long as this handle.
        let _ = self.orders.send(Box::new(order)).await;
    }

    /// The next event.
    pub async fn next_event(&mut self) -> Option<HubEvent> {
        while self.backlog.is_empty() {
            self.backlog.extend(self.events.recv().await?);
        }
        self.backlog.pop_front()
    }

    /// Discards events until one fits.
    pub async fn until(&mut self, fits: impl Fn(&HubEvent) -> bool) -> Option<HubEvent> {
        loop {
            let event = self.next_event().await?;
            if fits(&event) {
                return Some(event);
            }
        }
    }
}

async fn run(mut client: HubClient, mut orders: mpsc::Receiver<Order>, events: mpsc::Sender<Vec<HubEvent>>) {
    let mut link = Link::default();
    loop {
        let now = time::now();
        link.receive(&mut client, now);
        if client.poll_timeout() <= now {
            client.handle_timeout(now);
        }
        link.flush(&mut client);
        if client.has_events()
            && let Ok(room) = events.try_reserve()
        {
            room.send(std::iter::from_fn(|| client.poll_event()).collect());
        }
        rt::select! {
            order = orders.recv() => match order {
                Some(order) => order(&mut client, time::now()),
                None => return link.close(&mut client).await,
            },
            () = poll_fn(|cx| link.ready(cx)) => {}
            room = events.reserve(), if client.has_events() => drop(room),
            () = time::sleep_until(client.poll_timeout()) => {}
        }
    }
}
