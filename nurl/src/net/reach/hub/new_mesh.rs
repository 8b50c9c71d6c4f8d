//! Starts a new mesh in one call: a hub and the ticket that leads to it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{HubConfig, HubError, HubHandle, ServedMesh, serve};
use crate::key::SecretKey;
use crate::mesh::{Hub, Ticket};
use crate::net::reach::advertise::{advertise, default_sources};
use crate::rt;

/// Starts a hub with a new key for a new mesh, and returns the ticket with which nodes join. `listen` is a port, or
/// an address with a port; port 0 takes a free one. The ticket names the bound address. If the hub is bound to every
/// address of this host, the ticket names the one that the default route leaves from. Its invitation makes the first
/// 64 keys that come with it workers, for 90 days.
///
/// Key and secret live as long as the process. A hub that keeps its identity across restarts has its key in a file
/// ([`SecretKey::load_or_create`]) and is started by [`serve`], as the command `nurl hub` does.
///
/// # Errors
/// [`HubError`].
pub async fn serve_new_mesh(listen: &str) -> Result<(HubHandle, Ticket), HubError> {
    let mut rng = rt::rng("new mesh");
    let key = SecretKey::generate(&mut rng);
    let unnamed = Hub { key: key.public(), addr: String::new() };
    let (authority, mut ticket) = Ticket::new_mesh(unnamed, rt::time::unix_now(), &mut rng);
    let served = ServedMesh::issued_by(Arc::new(authority));
    let hub = serve(HubConfig::new(listen.parse()?, key, vec![served])).await?;
    ticket.hubs[0].addr = reachable(hub.addrs()).to_string();
    Ok((hub, ticket))
}

/// The address by which others reach a socket bound to these.
fn reachable(bound: &[SocketAddr]) -> SocketAddr {
    let first = bound[0];
    if !first.ip().is_unspecified() {
        return first;
    }
    let (v4, v6) = (bound.iter().any(SocketAddr::is_ipv4), bound.iter().any(SocketAddr::is_ipv6));
    let ip = advertise(&rt::net::interfaces().unwrap_or_default(), &default_sources(), v4, v6).ip;
    let port = bound.iter().find(|addr| addr.is_ipv4() == ip.is_ipv4()).unwrap_or(&first).port();
    SocketAddr::new(ip, port)
}
