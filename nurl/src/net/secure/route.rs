//! Where a datagram goes to or came from, and the one or two routes that carry the same sealed bytes.

use std::net::SocketAddr;

use crate::key::PublicKey;

/// Where a datagram goes to or came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// Straight over UDP, to or from this address.
    Direct(SocketAddr),
    /// Through the hub with this key. For an inbound datagram, the source key that the hub reports is passed
    /// beside the route.
    Relay(PublicKey),
}

impl Route {
    /// Whether it is a UDP address.
    pub const fn is_direct(&self) -> bool {
        matches!(self, Route::Direct(_))
    }

    /// The UDP address, if it is one.
    pub const fn addr(&self) -> Option<std::net::SocketAddr> {
        match self {
            Route::Direct(addr) => Some(*addr),
            Route::Relay(_) => None,
        }
    }
}

/// Up to two routes: two while a path is in doubt. The same sealed datagram goes on each, and the replay
/// window drops the second copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Routes {
    first: Option<Route>,
    second: Option<Route>,
}

impl Routes {
    /// No route to the peer is known.
    pub const NONE: Routes = Routes { first: None, second: None };

    /// One route.
    pub const fn one(route: Route) -> Routes {
        Routes { first: Some(route), second: None }
    }

    /// Appends a route. A third or repeated route changes nothing.
    #[must_use]
    pub fn and(self, route: Route) -> Routes {
        match (self.first, self.second) {
            (None, _) => Routes::one(route),
            (Some(first), None) if first != route => Routes { first: Some(first), second: Some(route) },
            _ => self,
        }
    }

    /// Appends a route as [`and`](Routes::and) does, if there is one.
    #[must_use]
    pub fn with(self, route: Option<Route>) -> Routes {
        route.map_or(self, |route| self.and(route))
    }

    /// Whether a route is among these.
    pub fn contains(&self, route: &Route) -> bool {
        self.iter().any(|known| known == *route)
    }

    /// The routes, best first.
    pub fn iter(&self) -> impl Iterator<Item = Route> + use<> {
        self.first.into_iter().chain(self.second)
    }

    /// The better route.
    pub const fn first(&self) -> Option<Route> {
        self.first
    }

    /// How many routes there are.
    pub const fn len(&self) -> usize {
        self.first.is_some() as usize + self.second.is_some() as usize
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Only the routes that pass.
    pub fn filter(&self, keep: impl FnMut(&Route) -> bool) -> Routes {
        self.iter().filter(keep).fold(Routes::NONE, Routes::and)
    }
}

impl IntoIterator for Routes {
    type Item = Route;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Route>, std::option::IntoIter<Route>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_routes_count_once_and_a_third_does_not_fit() {
        let route = |port| Route::Direct(([192, 0, 2, 1], port).into());
        assert_eq!(Routes::one(route(1)).and(route(1)).len(), 1);
        let routes = Routes::NONE.with(None).with(Some(route(1))).and(route(2)).and(route(2)).and(route(3));
        assert!(routes.contains(&route(2)) && !routes.contains(&route(3)));
        assert_eq!(routes.iter().collect::<Vec<_>>(), [route(1), route(2)]);
        assert_eq!(routes.filter(|r| *r != route(1)), Routes::one(route(2)));
        assert!(Routes::NONE.is_empty() && Routes::NONE.first().is_none());
    }
}
