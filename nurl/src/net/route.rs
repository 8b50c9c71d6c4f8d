//! Where a datagram goes to or came from.

use std::net::SocketAddr;

use crate::key::PublicKey;

/// Where a datagram goes to or came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// UDP, straight to or from this address.
    Direct(SocketAddr),
    /// Through the hub with this key.
    Relay(PublicKey),
}

/// The routes that one datagram takes: none, one, or two while a path is in doubt (the copy dies in the
/// receiver's replay window).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Routes([Option<Route>; 2]);

impl Routes {
    /// No route.
    pub const NONE: Routes = Routes([None, None]);

    /// One route.
    pub const fn one(route: Route) -> Routes {
        Routes([Some(route), None])
    }

    /// Adds a route behind those that are there. A third one, or one that is there already, changes nothing.
    #[must_use]
    pub fn and(mut self, route: Route) -> Routes {
        if !self.contains(&route)
            && let Some(slot) = self.0.iter_mut().find(|slot| slot.is_none())
        {
            *slot = Some(route);
        }
        self
    }

    /// [`and`](Routes::and), if there is one to add.
    #[must_use]
    pub fn with(self, route: Option<Route>) -> Routes {
        route.map_or(self, |route| self.and(route))
    }

    /// The preferred one.
    pub const fn first(&self) -> Option<Route> {
        self.0[0]
    }

    /// How many: 0, 1 or 2.
    pub fn len(&self) -> usize {
        self.0.iter().flatten().count()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }

    /// Whether `route` is one of them.
    pub fn contains(&self, route: &Route) -> bool {
        self.iter().any(|held| held == *route)
    }

    /// The routes, the preferred one first.
    pub fn iter(&self) -> impl Iterator<Item = Route> + use<> {
        self.0.into_iter().flatten()
    }
}

impl IntoIterator for Routes {
    type Item = Route;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<Route>, 2>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_hold_two_different_routes_at_most() {
        let [a, b, c] = [1, 2, 3].map(|port| Route::Direct(([10, 0, 0, 1], port).into()));
        assert!(Routes::NONE.is_empty());
        let routes = Routes::one(a).and(a).and(b).and(c);
        assert_eq!(routes.into_iter().collect::<Vec<_>>(), [a, b]);
        assert_eq!((routes.len(), routes.first(), routes.contains(&c)), (2, Some(a), false));
    }
}
