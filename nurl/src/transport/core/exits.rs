//! The ways out of the transport: batches for the UDP sockets, and the hubs that relay.
//!
//! A datagram with one route is sealed straight into the batch for its socket, or into the queue of its hub. In doubt
//! a path has two routes; then both carry the same sealed bytes, and the receiver's replay window drops the second copy.

use std::time::Instant;

use super::hubs::Hubs;
use crate::key::PublicKey;
use crate::net::secure::route::Route;
use crate::net::secure::securedgram::{Endpoint, SealError};
use crate::transport::outbox::Outbox;

/// Sealed datagrams on their way out.
pub(super) struct Exits {
    pub(super) udp: Outbox,
    pub(super) hubs: Hubs,
    /// A datagram that is being sealed for other routes than a single direct one.
    sealed: Vec<u8>,
}

impl Exits {
    pub(super) fn new(hubs: Hubs) -> Exits {
        Exits { udp: Outbox::default(), hubs, sealed: Vec::new() }
    }

    /// Whether bulk data should wait.
    pub(super) fn is_full(&self) -> bool {
        self.udp.is_full() || self.hubs.is_full()
    }

    /// Seals a datagram to `peer` and queues it on its current routes.
    ///
    /// # Errors
    /// Those of [`Endpoint::seal_into`].
    pub(super) fn seal(
        &mut self,
        endpoint: &mut Endpoint,
        now: Instant,
        peer: PublicKey,
        channel: u8,
        body: &[u8],
    ) -> Result<(), SealError> {
        enum Place {
            Udp,
            Hub(PublicKey, usize),
            /// The hub is down or its limit is lower.
            Nowhere,
            Scratch,
        }
        let Exits { udp, hubs, sealed } = self;
        sealed.clear();
        let mut place = Place::Scratch;
        let routes = endpoint.seal_into(now, &peer, channel, body, |routes, len| {
            match routes.first() {
                Some(Route::Direct(addr)) if routes.len() == 1 => {
                    place = Place::Udp;
                    return udp.begin(addr, len);
                }
                Some(Route::Relay(hub)) if routes.len() == 1 => {
                    if let Some(queue) = hubs.begin(&hub, &peer, len) {
                        place = Place::Hub(hub, len);
                        return queue;
                    }
                    place = Place::Nowhere;
                }
                _ => {}
            }
            sealed
        });
        match (place, routes) {
            (Place::Udp, _) => self.udp.commit(),
            (Place::Hub(hub, len), _) => self.hubs.commit(&hub, len),
            (Place::Scratch, Ok(routes)) => {
                let sealed = std::mem::take(&mut self.sealed);
                for route in routes.iter() {
                    self.route(route, Some(peer), &sealed);
                }
                self.sealed = sealed;
            }
            (Place::Nowhere | Place::Scratch, _) => {}
        }
        routes.map(|_| ())
    }

    /// Queues the endpoint's own datagrams: handshakes, challenges and the like. Returns whether there were any.
    pub(super) fn drain(&mut self, endpoint: &mut Endpoint) -> bool {
        let mut moved = false;
        loop {
            self.sealed.clear();
            let Some(out) = endpoint.poll_transmit(&mut self.sealed) else { return moved };
            let sealed = std::mem::take(&mut self.sealed);
            self.route(out.route, out.relay_dst, &sealed);
            self.sealed = sealed;
            moved = true;
        }
    }

    fn route(&mut self, route: Route, peer: Option<PublicKey>, datagram: &[u8]) {
        match (route, peer) {
            (Route::Direct(addr), _) => self.udp.push(addr, datagram),
            (Route::Relay(hub), Some(dst)) => self.hubs.forward(&hub, &dst, datagram),
            (Route::Relay(_), None) => self.hubs.count_unsent(),
        }
    }
}
