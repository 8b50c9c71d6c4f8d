//! The queues behind the polls: messages to other nodes, messages to this node itself, events.

use std::collections::VecDeque;

use super::event::JobEvent;
use super::message::Message;
use super::options::{MAX_EVENTS, MAX_OUTBOX};
use crate::key::PublicKey;

/// What waits to be fetched.
#[derive(Debug, Default)]
pub(super) struct Queues {
    events: VecDeque<JobEvent>,
    /// Messages to this node itself that are not yet handled.
    to_self: VecDeque<Message>,
    /// Messages are encoded when they are fetched, so that a queue of large payloads holds references, not copies.
    outbox: VecDeque<(PublicKey, Message)>,
}

impl Queues {
    /// Queues a message, to this node itself if `to` is none; false if the queues are full.
    pub(super) fn send(&mut self, to: Option<PublicKey>, message: Message) -> bool {
        let fits = self.to_self.len() + self.outbox.len() < MAX_OUTBOX;
        match to {
            _ if !fits => {}
            None => self.to_self.push_back(message),
            Some(to) => self.outbox.push_back((to, message)),
        }
        fits
    }

    /// Queues an event; false if the queue is full. An outcome is queued in any case.
    pub(super) fn event(&mut self, event: JobEvent) -> bool {
        let fits = self.events.len() < MAX_EVENTS || matches!(event, JobEvent::Done { .. });
        if fits {
            self.events.push_back(event);
        }
        fits
    }

    pub(super) fn next_event(&mut self) -> Option<JobEvent> {
        self.events.pop_front()
    }

    pub(super) fn next_to_self(&mut self) -> Option<Message> {
        self.to_self.pop_front()
    }

    pub(super) fn next_message(&mut self) -> Option<(PublicKey, Message)> {
        self.outbox.pop_front()
    }
}
