//! Starts a new mesh in one call: a hub and the ticket that leads to it.

use std::net::SocketAddr;

use super::{HubConfig, HubError, HubHandle, serve};
use crate::key::SecretKey;
use crate::mesh::{Hub, MeshId, MeshSecret, Ticket};
use crate::net::reach::advertise::{advertise, default_sources};
use crate::rt;

/// Starts a hub with a new key for a new mesh, and returns the ticket with which nodes join. `listen` is a port, or
/// an address with a port; port 0 takes a free one. The ticket names the bound address. If the hub is bound to every
/// address of this host, the ticket names the one that the default route leaves from. Anyone with the ticket may
/// join.
///
/// Key and secret live as long as the process. A hub that keeps its identity across restarts has its key in a file
/// ([`SecretKey::load_or_create`]) and is started by [`serve`], as the command `nurl hub` does.
///
/// # Errors
/// [`HubError`].
pub async fn serve_new_mesh(listen: &str) -> Result<(HubHandle, Ticket), HubError> {
    let mut rng = rt::rng("new mesh");
    let key = SecretKey::generate(&mut rng);
    let (mesh, current) = (MeshId::generate(&mut rng), MeshSecret::generate(&mut rng));
    let hub = serve(HubConfig::new(listen.parse()?, key, vec![mesh.namespace()])).await?;
    let named = Hub { key: hub.key(), addr: reachable(hub.addrs()).to_string() };
    Ok((hub, Ticket { mesh, current, previous: None, hubs: vec![named] }))
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
