//! Events that wait for the layer above, within bounds.

use std::collections::VecDeque;

use super::super::{Ask, HubEvent};

/// Bytes of datagrams that wait for the layer above; further datagrams are dropped.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// Events that wait for the layer above.
pub const MAX_EVENTS: usize = 8192;

/// The queue of events.
#[derive(Debug, Default)]
pub(super) struct Events {
    queue: VecDeque<HubEvent>,
    bytes: usize,
}

impl Events {
    /// Adds a datagram of `bytes` bytes, if there is room. Returns whether there was.
    pub(super) fn push_datagram(&mut self, bytes: usize, event: impl FnOnce() -> HubEvent) -> bool {
        let fits = self.bytes + bytes <= MAX_EVENT_BYTES && self.queue.len() < MAX_EVENTS;
        if fits {
            self.bytes += bytes;
            self.queue.push_back(event());
        }
        fits
    }

    /// Adds an event. When the queue is full, the oldest one is dropped, since later events depend on the newest one.
    /// Returns whether one was.
    pub(super) fn push(&mut self, event: HubEvent) -> bool {
        let full = self.queue.len() >= MAX_EVENTS;
        if full {
            self.poll();
        }
        self.queue.push_back(event);
        full
    }

    /// The next event.
    pub(super) fn poll(&mut self) -> Option<HubEvent> {
        let event = self.queue.pop_front()?;
        self.bytes -= payload_bytes(&event);
        Some(event)
    }

    /// Whether no event waits.
    #[cfg(any(test, feature = "internals"))]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

fn payload_bytes(event: &HubEvent) -> usize {
    match event {
        HubEvent::Revocations(entries) => entries.len(),
        HubEvent::Asked { ask: Ask::Enrol(bytes) | Ask::Renew(bytes), .. } => bytes.len(),
        HubEvent::Datagram { payload, .. } | HubEvent::Group { payload, .. } => payload.len(),
        _ => 0,
    }
}
