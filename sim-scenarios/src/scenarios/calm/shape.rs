//! Who is there, and who reaches whom.

use nurl::internals::node::Role;

use crate::cluster::Cluster;

/// Where a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Internet,
    /// Behind a box that another one can be told how to reach.
    Home,
    /// Behind a box with another port for each remote.
    Office,
}

/// The nodes' roles and places, by number.
pub(super) struct Shape {
    places: Vec<Place>,
    roles: Vec<Role>,
    names: Vec<String>,
}

impl Shape {
    pub(super) fn new(cluster: &Cluster, places: Vec<Place>) -> Shape {
        let roles = cluster.peers.iter().map(|peer| peer.role).collect();
        let names = cluster.peers.iter().map(|peer| peer.name.clone()).collect();
        Shape { places, roles, names }
    }

    pub(super) fn nodes(&self) -> usize {
        self.places.len()
    }

    pub(super) fn name(&self, node: usize) -> &str {
        &self.names[node]
    }

    pub(super) fn is_member(&self, node: usize) -> bool {
        self.roles[node] != Role::Observer
    }

    pub(super) fn is_worker(&self, node: usize) -> bool {
        self.roles[node] == Role::Worker
    }

    pub(super) fn members(&self) -> usize {
        (0..self.nodes()).filter(|node| self.is_member(*node)).count()
    }

    /// Whether two reach each other straight: a box with a port for each remote is reached from one that tells its own.
    pub(super) fn is_direct(&self, one: usize, other: usize) -> bool {
        let hidden = [one, other].map(|node| self.places[node] != Place::Internet);
        let office = [one, other].map(|node| self.places[node] == Place::Office);
        !(hidden == [true; 2] && office != [false; 2])
    }

    fn others(&self, node: usize) -> impl Iterator<Item = usize> {
        (0..self.nodes()).filter(move |other| *other != node)
    }

    /// How many members a node reaches straight, and how many through the hub.
    pub(super) fn member_paths(&self, node: usize) -> (usize, usize) {
        let members = || self.others(node).filter(|other| self.is_member(*other));
        let direct = members().filter(|other| self.is_direct(node, *other)).count();
        (direct, members().count() - direct)
    }

    /// Whether somebody is reached through the hub only.
    pub(super) fn is_relayed(&self, node: usize) -> bool {
        self.others(node).any(|other| !self.is_direct(node, other))
    }

    /// The addresses of others that never echo: of those that are reached straight, and of the others. One that is hidden
    /// has told its own and the one outside of its box, of which an office has another one for each remote.
    pub(super) fn in_vain(&self, node: usize) -> [usize; 2] {
        let silent = |other: &usize| match (self.places[*other], self.is_direct(node, *other)) {
            (Place::Internet, _) => 0,
            (Place::Home, true) => 1,
            _ => 2,
        };
        let of = |direct: bool| {
            self.others(node)
                .filter(|other| self.is_direct(node, *other) == direct)
                .map(|other| silent(&other))
                .sum()
        };
        [of(true), of(false)]
    }

    /// The direct paths on which nobody probes: those of an observer.
    pub(super) fn idle_paths(&self, node: usize) -> usize {
        let idle = |other: &usize| !(self.is_member(node) && self.is_member(*other));
        self.others(node).filter(|other| idle(other) && self.is_direct(node, *other)).count()
    }

    /// Those with which a worker shares keys: all other workers.
    pub(super) fn sharers(&self, node: usize) -> usize {
        if !self.is_worker(node) {
            return 0;
        }
        self.others(node).filter(|other| self.is_worker(*other)).count()
    }
}
