//! Inbound datagrams: classified, opened, and dispatched.

use std::time::Instant;

use super::super::frames::{Kind, Refusal, classify, u32_at};
use super::super::paths::Control;
use super::super::source::Source;
use super::super::table::Slot;
use super::super::{CloseReason, Received, channel};
use super::Endpoint;
use super::handshake::RETRY_AFTER;
use crate::net::secure::session::{HEADER_LEN, OpenError, Opened};

impl Endpoint {
    /// Handles one datagram and decrypts it in place. Data for the caller is returned; everything else
    /// is consumed. A refused datagram changes nothing and is counted.
    pub fn handle_datagram(&mut self, now: Instant, source: Source, datagram: &mut [u8]) -> Option<Received> {
        self.now = now;
        match classify(datagram) {
            Ok(Kind::Data) => return self.handle_data(now, source, datagram),
            Ok(Kind::Group) => return Some(Received::Group),
            Ok(Kind::Init) => self.handle_init(now, source, datagram),
            Ok(Kind::Response) => self.handle_response(now, source, datagram),
            Ok(Kind::Cookie) => self.handle_cookie(now, source, datagram),
            Err(Refusal::Unknown) => self.stats.unknown_frame += 1,
            Err(Refusal::Length) => self.stats.bad_length += 1,
            Err(Refusal::Oversize) => self.stats.oversize += 1,
        }
        None
    }

    fn handle_data(&mut self, now: Instant, source: Source, datagram: &mut [u8]) -> Option<Received> {
        let Some((slot, opened)) = self.open(now, source, datagram) else {
            self.stats.unknown_index += 1;
            return None;
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                *match error {
                    OpenError::Short => &mut self.stats.bad_length,
                    OpenError::Expired => &mut self.stats.expired,
                    OpenError::Replay => &mut self.stats.replayed,
                    OpenError::Forged => &mut self.stats.forged,
                } += 1;
                return None;
            }
        };
        self.stats.frames_opened += 1;
        self.touch(slot);
        let body = HEADER_LEN + 1..HEADER_LEN + opened.len.max(1);
        let channel = (opened.len > 0).then(|| datagram[HEADER_LEN]);
        let is_app = channel.is_some_and(channel::is_callers);

        let peer = self.table.get_mut(slot)?;
        let key = peer.key;
        peer.last_heard = Some(now);
        // Only a frame on the session that we seal with is an answer: the peer may have lost that
        // session.
        let index = u32_at(datagram, 1);
        let on_current = peer.current.as_ref().is_some_and(|live| live.session.local_index() == index);
        if on_current {
            peer.unanswered_since = None;
        }
        let freshness = opened.freshness;
        peer.paths.on_authentic(now, source.route, freshness, datagram.len(), is_app);
        match channel {
            None => {
                // A confirm: the initiator repeats it until it receives a frame.
                let answer =
                    on_current && peer.current.as_ref().is_some_and(|live| !live.session.is_initiator());
                if answer && source.relay_src.is_none_or(|src| src == key) {
                    self.send_empty(now, slot, source.route);
                }
                None
            }
            Some(channel::CONTROL) => {
                match Control::decode(&datagram[body]) {
                    // A late close on an earlier session is obsolete.
                    Ok(Control::Close) if !on_current => {}
                    Ok(Control::Close) => {
                        peer.retry_at = peer.keep.then(|| now + RETRY_AFTER);
                        self.close_slot(now, slot, CloseReason::Remote);
                    }
                    Ok(control) => peer.paths.on_control(now, source.route, freshness, control),
                    Err(_) => self.stats.bad_control += 1,
                }
                None
            }
            Some(channel) if is_app => {
                peer.last_app = Some(now);
                Some(Received::Data { peer: key, channel, body })
            }
            Some(_) => {
                self.stats.unknown_channel += 1;
                None
            }
        }
    }

    /// Finds the session and opens the frame with it; the frame confirms a session that was unconfirmed.
    fn open(
        &mut self,
        now: Instant,
        source: Source,
        datagram: &mut [u8],
    ) -> Option<(Slot, Result<Opened, OpenError>)> {
        let (index, leg) = (u32_at(datagram, 1), source.leg());
        let slot = self.table.slot_of_index(index)?;
        let peer = self.table.get_mut(slot)?;
        if let Some(live) = peer.current.as_mut().filter(|live| live.session.local_index() == index) {
            let opened = live.session.open(now, leg, datagram);
            if opened.is_ok() && peer.confirm.is_some() && live.session.is_initiator() {
                peer.confirm = None;
            }
            return Some((slot, opened));
        }
        if let Some(live) = peer.previous.as_mut().filter(|live| live.session.local_index() == index) {
            let mut opened = live.session.open(now, leg, datagram);
            if let Ok(Opened { freshness, .. }) = &mut opened {
                // A frame of the previous session isn't the newest once the current one was heard on
                // that leg.
                let current = peer.current.as_ref().map(|live| &live.session);
                freshness.newest_on_leg &= !current.is_some_and(|current| current.heard_on(leg));
                freshness.late |= current.is_some_and(|current| current.is_past_start(now));
                self.stats.tie_breaks += u64::from(peer.settle_tie(&self.local));
            }
            return Some((slot, opened));
        }
        let at = peer.next.iter().position(|live| live.session.local_index() == index)?;
        let opened = peer.next[at].session.open(now, leg, datagram);
        if opened.is_ok() {
            let live = peer.next.remove(at);
            let others: Vec<u32> = peer.next.drain(..).map(|live| live.session.local_index()).collect();
            others.into_iter().for_each(|index| self.table.release_index(index));
            self.adopt(now, slot, live);
        }
        Some((slot, opened))
    }
}
