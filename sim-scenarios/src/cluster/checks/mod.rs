//! Properties that every node must keep in every scenario.
//!
//! | property | observed through |
//! | --- | --- |
//! | an incarnation never goes back in a node's view | its events |
//! | a dead or left member comes back only with a higher incarnation | its events |
//! | a node runs no more handlers of a kind at once than the kind allows | its events |
//! | a handle resolves once | the scenario's task handles |
//! | a result is recorded once | the node's counters |
//! | no queue is longer than its bound | the node's gauges, and the hubs' |
//! | an owner set has no duplicates | rings made of the node's members |
//! | a job goes to a member that is live | rings made of the node's members |
//! | a node that has been silent on every leg for 60 s is not held alive | the node's members, and the world |
//!
//! The first failed check ends the run. [`EventChecks`] checks each event as it comes; [`inspect`] asks for the rest.

mod bounds;
mod events;
mod ring;
mod silence;

use std::time::Duration;

use chaos::property::{Violation, fail};
use chaos::world::{Host, World};
use nurl::internals::node::{Node, Role};
use nurl::rt::time;

use super::{Setup, Witness};
use crate::models::sim_hub::SimHub;

pub use events::{EventChecks, Moment};

/// How often a node is asked for its counters, gauges and members, which no event reports.
const SAMPLE: Duration = Duration::from_secs(10);

/// A node under inspection.
pub struct Inspected<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its role in the mesh. An observer only asks for the members at intervals, so its view is older.
    pub role: Role,
    /// Its host.
    pub host: Host,
    /// The record of its events.
    pub witness: &'a Witness,
}

/// Queries a node, and the hubs, for the facts that no event reports.
///
/// # Errors
/// The property that their answers break.
pub async fn inspect(
    world: World,
    peer: &Inspected<'_>,
    node: &Node,
    hubs: &[SimHub],
) -> Result<(), Violation> {
    let by = peer.name;
    for hub in hubs {
        bounds::check_hub(&hub.host.name(), &hub.stats(), &hub.limits())?;
    }
    // The answer is of about now, even if this task gets no processor for minutes before it sees it.
    let asked = world.elapsed();
    // A node that shuts down during the query breaks nothing.
    let (Ok(status), Ok(counted)) = (node.status().await, node.work_stats().await) else { return Ok(()) };
    if peer.role != Role::Observer {
        peer.witness.check_silence(world, asked, by, peer.host, &status.members)?;
    }
    ring::check_owners(asked, by, node.key(), &status.members)?;
    bounds::check_gauges(by, &status.transport_now)?;
    bounds::check_stats(by, &counted)
}

/// Checks a node at intervals, until its process ends.
pub(super) async fn inspect_at_intervals(setup: Setup, node: Node, hubs: Vec<SimHub>) {
    let Setup { name, role, host, world, witness, .. } = &setup;
    loop {
        time::sleep(SAMPLE).await;
        let peer = Inspected { name, role: *role, host: *host, witness };
        if let Err(broken) = inspect(*world, &peer, &node, &hubs).await {
            fail(broken);
        }
    }
}

#[cfg(test)]
mod tests {
    use nurl::PublicKey;
    use nurl::internals::membership::{Roles, State};
    use nurl::internals::net::secure::securedgram::paths::PathReason;
    use nurl::internals::node::MemberInfo;
    use nurl::internals::transport::PathInfo;

    pub(super) fn key(n: u8) -> PublicKey {
        PublicKey::from_bytes([n; 32])
    }

    pub(super) fn member(n: u8, state: State) -> MemberInfo {
        MemberInfo {
            key: key(n),
            state,
            incarnation: 1,
            boot: 1,
            roles: Roles::WORKER,
            kinds: vec!["work".to_owned()],
            weight: 1,
            zone: String::new(),
            ring_seed: [n; 8],
            version: String::new(),
            path: PathInfo { direct: true, addr: None, reason: PathReason::Direct, rtt: None, settled: true },
        }
    }
}
