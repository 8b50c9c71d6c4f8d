//! Links, networks behind boxes, and a node's disk: the parts that a stage is made of.

use std::path::Path;
use std::time::Duration;

use chaos::link::LinkConfig;
use chaos::middlebox::Middlebox;
use chaos::net::Net;
use chaos::world::World;
use nurl::internals::node::Builder;
use nurl::rt::disk;

use crate::models::nat_box::{NatBox, NatConfig};

/// A link that loses nothing, with this latency and up to this jitter, in milliseconds. Struct update syntax adds
/// the rest: `LinkConfig { udp_loss: Rate::percent(5), ..link_ms(15, 10) }`.
pub fn link_ms(latency_ms: u64, jitter_ms: u64) -> LinkConfig {
    LinkConfig {
        latency: Duration::from_millis(latency_ms),
        jitter: Duration::from_millis(jitter_ms),
        ..LinkConfig::default()
    }
}

/// A network behind a NAT box on the internet, like a home or an office. The box's outer address is the next free
/// one.
pub fn nat(world: World, name: &str, config: NatConfig) -> Net {
    network_behind(world, world.internet(), name, NatBox::new(config))
}

/// A network behind any box, on the internet or in a carrier's network. The box's outer address is the next free
/// one.
pub fn network_behind(world: World, outside: Net, name: &str, middlebox: impl Middlebox) -> Net {
    let number = world.nets().len();
    let outer = match outside.outside() {
        None => format!("203.0.113.{number}"),
        Some(_) => format!("100.64.0.{number}"),
    };
    outside.nat(name, &[&outer], middlebox)
}

/// The node keeps its state in this folder of its host's disk, which outlives its process.
#[must_use]
pub fn with_store(builder: Builder, folder: impl AsRef<Path>) -> Builder {
    // If the folder can't be made, opening the store fails and reports it.
    let _ = disk::create_dir_all(folder.as_ref());
    builder.store(folder.as_ref())
}
