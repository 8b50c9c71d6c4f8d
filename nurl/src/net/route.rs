//! Where a datagram goes to or came from, and the one or two routes on which the same sealed bytes travel.

use std::net::SocketAddr;

use crate::key::PublicKey;

/// Where a datagram goes to or came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// Straight over UDP, to or from this address.
    Direct(SocketAddr),
    /// Through the hub of this key. For an inbound datagram the source key that the hub reports stands
    /// beside the route.
    Relay(PublicKey),
}

impl Route {
    /// Whether it is a UDP address.
    pub const fn is_direct(&self) -> bool {
        matches!(self, Route::Direct(_))
    }
}

/// No, one or two routes: two while a path is in doubt. The same sealed datagram goes on each; the replay
/// window drops the copy that comes second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Routes {
    first: Option<Route>,
    second: Option<Route>,
}

impl Routes {
    /// No way to the peer is known.
    pub const NONE: Routes = Routes { first: None, second: None };

    /// One route.
    pub const fn one(route: Route) -> Routes {
        Routes { first: Some(route), second: None }
    }

    /// Two routes; equal ones count once.
    pub fn two(first: Route, second: Route) -> Routes {
        Routes { first: Some(first), second: (first != second).then_some(second) }
    }

    /// Adds a route unless it is there or two are. Says whether it is in now.
    pub fn add(&mut self, route: Route) -> bool {
        if self.iter().any(|known| known == route) {
            return true;
        }
        match (self.first, self.second) {
            (None, _) => self.first = Some(route),
            (Some(_), None) => self.second = Some(route),
            _ => return false,
        }
        true
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
    pub fn filter(&self, keep: impl Fn(&Route) -> bool) -> Routes {
        let mut kept = Routes::NONE;
        for route in self.iter().filter(keep) {
            kept.add(route);
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_routes_count_once_and_a_third_does_not_fit() {
        let route = |port| Route::Direct(([192, 0, 2, 1], port).into());
        assert_eq!(Routes::two(route(1), route(1)).len(), 1);
        let mut routes = Routes::two(route(1), route(2));
        assert!(routes.add(route(2)));
        assert!(!routes.add(route(3)));
        assert_eq!(routes.iter().collect::<Vec<_>>(), [route(1), route(2)]);
        assert_eq!(routes.filter(|r| *r != route(1)), Routes::one(route(2)));
        assert!(Routes::NONE.is_empty() && Routes::NONE.first().is_none());
    }
}
