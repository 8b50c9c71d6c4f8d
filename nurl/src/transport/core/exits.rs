//! The ways out of the transport: batches for the UDP sockets, and the hubs that relay.
//!
//! A datagram with one direct route is sealed straight into its batch. In doubt a path has two routes; then both
//! carry the same sealed bytes, and the receiver's replay window drops the second copy.

use std::time::Instant;

use bytes::Bytes;

use super::hubs::Hubs;
use crate::key::PublicKey;
use crate::net::reach::hub_client::HubCommand;
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
        let (udp, sealed) = (&mut self.udp, &mut self.sealed);
        sealed.clear();
        let mut in_place = false;
        let routes = endpoint.seal_into(now, &peer, channel, body, |routes, len| match routes.first() {
            Some(Route::Direct(addr)) if routes.len() == 1 => {
                in_place = true;
                udp.begin(addr, len)
            }
            _ => sealed,
        });
        if in_place {
            self.udp.commit();
        } else if let Ok(routes) = routes {
            let sealed = std::mem::take(&mut self.sealed);
            for route in routes.iter() {
                self.route(route, Some(peer), &sealed);
            }
            self.sealed = sealed;
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
            (Route::Relay(hub), Some(dst)) => {
                self.hubs
                    .command(hub, HubCommand::Forward { dst, payload: Bytes::copy_from_slice(datagram) });
            }
            (Route::Relay(_), None) => self.hubs.dropped += 1,
        }
    }
}
