//! Signs of life: what an executor tells a submitter at each tick.

use bytes::Bytes;

use super::message::{Beat, Message};
use super::options::MAX_BEATS;
use super::shared::SharedContext;
use super::task::TaskId;
use crate::key::PublicKey;

/// The beats and notes for one submitter at one tick.
#[derive(Debug, Default)]
pub(super) struct Signs {
    pub(super) beats: Vec<Beat>,
    pub(super) notes: Vec<(TaskId, u32, Bytes)>,
}

impl Signs {
    pub(super) fn send(self, shared: &mut SharedContext, who: PublicKey, answer: bool) {
        for (task, attempt, note) in self.notes {
            shared.send(who, Message::Progress { task, attempt, note });
        }
        let boot = shared.boot;
        for (number, batch) in self.beats.chunks(MAX_BEATS).enumerate() {
            let answer = answer && number == 0;
            shared.send(who, Message::Beats { boot, beats: batch.to_vec(), answer });
        }
    }
}
