//! What the examples share: a mesh on this machine, and patience.
//!
//! The examples themselves are the programs beside this file, one for each thing to learn. Begin with
//! `distributed_map`: it uses the assembled [`nurl::Node`], as most programs do. The others show one layer each.

use std::time::Duration;

use nurl::membership::State;
use nurl::mesh::{Hub, Ticket};
use nurl::net::hub::{self, HubConfig, HubHandle};
use nurl::rt::{self, time};
use nurl::{PublicKey, SecretKey};

/// What an example's `main` returns: any error ends it with a message and an exit code that isn't 0.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// How long an example waits for what has to happen. Seconds are enough; a busy machine gets more.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a hub on loopback, and a new mesh that it serves. Whoever has the ticket may join. The hub runs
/// until the handle is dropped.
///
/// # Errors
/// When no port can be had.
pub async fn loopback_mesh() -> Result<(HubHandle, Ticket), hub::HubError> {
    let mut rng = rt::rng("example");
    let key = SecretKey::generate(&mut rng);
    // The ticket names the hub's address, which is known once the port is; the namespace is known before.
    let mut ticket = Ticket::generate(Hub { key: key.public(), addr: String::new() }, &mut rng);
    let config = HubConfig::new(([127, 0, 0, 1], 0).into(), key, vec![ticket.mesh.namespace()]);
    let hub = hub::serve(config).await?;
    ticket.hubs[0].addr = hub.addr().to_string();
    Ok((hub, ticket))
}

/// Waits for `future`, but not for ever.
///
/// # Errors
/// Names `what` didn't happen.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T, String> {
    time::timeout(PATIENCE, future).await.map_err(|_| format!("{what}: not within {PATIENCE:?}"))
}

/// Waits until `node` sees all of `others` alive.
///
/// # Errors
/// When they don't appear, or the node has shut down.
pub async fn see_alive(node: &nurl::Node, others: &[PublicKey]) -> Outcome {
    let seen = async {
        loop {
            let members = node.members().await?;
            let alive = |key: &PublicKey| {
                members.iter().any(|member| member.key == *key && member.state == State::Alive)
            };
            if others.iter().all(alive) {
                return Ok(());
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the members see each other", seen).await?
}
