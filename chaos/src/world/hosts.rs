//! The hosts of a world, and the scheduling nodes on which their tasks run.

use crate::ids::HostId;
use crate::kernel::host::HostState;
use crate::kernel::process::Place;
use crate::wire::net::Owner;
use crate::wire::nets::Claim;
use madsim::task::NodeId;
use std::collections::BTreeMap;

/// All hosts.
#[derive(Default)]
pub(crate) struct Hosts {
    all: Vec<HostState>,
    names: BTreeMap<String, HostId>,
    /// The host and boot of each scheduling node.
    pub(crate) places: BTreeMap<NodeId, Place>,
    /// Tasks spawned so far.
    pub(crate) spawns: u64,
    /// Whether a point of a program has ever been turned on.
    pub(crate) has_points: bool,
    /// Whether the bound of a program's table has ever been set.
    pub(crate) has_bounds: bool,
}

impl Hosts {
    /// Makes a host.
    ///
    /// # Panics
    /// If there is a host of that name.
    pub(crate) fn add(&mut self, name: &str, seed: u64) -> HostId {
        let id = HostId(u32::try_from(self.all.len()).expect("fewer than 2^32 hosts"));
        assert!(!self.names.contains_key(name), "there is a host named {name}");
        self.names.insert(name.to_owned(), id);
        self.all.push(HostState::new(id, name, seed));
        id
    }

    pub(crate) fn find(&self, name: &str) -> Option<HostId> {
        self.names.get(name).copied()
    }

    pub(crate) fn get(&self, id: HostId) -> &HostState {
        &self.all[id.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, id: HostId) -> &mut HostState {
        &mut self.all[id.0 as usize]
    }

    /// All of them, in the order in which they were made.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &HostState> {
        self.all.iter()
    }

    /// The random streams of their kernels go on with another seed.
    pub(crate) fn rekey(&mut self, seed: u64) {
        self.all.iter_mut().for_each(|host| host.rekey(seed));
    }

    /// The addresses of their interfaces: of those that are up, or `even_down` of all.
    pub(crate) fn interfaces(&self, even_down: bool) -> Vec<Claim> {
        let mut all = Vec::new();
        for host in &self.all {
            for (number, nic) in host.nics.iter().enumerate().filter(|(_, nic)| even_down || nic.up) {
                let owner = Owner::Host(host.id, number as u8);
                all.extend(nic.addrs.iter().map(|ip| Claim { net: nic.net, ip: *ip, owner }));
            }
        }
        all
    }
}
