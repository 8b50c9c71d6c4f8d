//! Addresses to bind sockets to: both address families, unless addresses are named.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Where to bind: at most one address of each family. A v6 socket takes v6 only, so both families can share a
/// port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Every address of this host, in both families or in the one that the host has.
    Everywhere {
        /// The port; 0 takes a free one.
        port: u16,
    },
    /// These addresses. An address that can't be bound is an error.
    At(Vec<SocketAddr>),
}

/// Why addresses can't be combined, or why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// Two addresses of one family, or every address and a single one. Replies would leave from another address
    /// than the one that the peer wrote to.
    #[error("one address of each family at most, such as 192.0.2.7:4242 and [2001:db8::7]:4242")]
    Twice,
    /// The text is neither a port, nor an address with a port, nor `localhost` with a port.
    #[error("expected a port, or an address with a port, such as 4242, 192.0.2.7:4242 or [2001:db8::7]:4242")]
    Text,
}

impl Default for Listen {
    /// Every address, and any port.
    fn default() -> Listen {
        Listen::Everywhere { port: 0 }
    }
}

impl From<SocketAddr> for Listen {
    fn from(addr: SocketAddr) -> Listen {
        Listen::At(vec![addr])
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for Listen {
    fn from(addr: (I, u16)) -> Listen {
        SocketAddr::from(addr).into()
    }
}

impl Listen {
    /// Combines two sets of addresses.
    ///
    /// # Errors
    /// [`ListenError::Twice`].
    pub fn and(self, other: Listen) -> Result<Listen, ListenError> {
        let (Listen::At(mut addrs), Listen::At(more)) = (self, other) else { return Err(ListenError::Twice) };
        for addr in more {
            if addrs.iter().any(|known| known.is_ipv4() == addr.is_ipv4()) {
                return Err(ListenError::Twice);
            }
            addrs.push(addr);
        }
        Ok(Listen::At(addrs))
    }

    /// The addresses to bind, v4 first: with port 0 the second socket tries the port that the first one got.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        match self {
            Listen::Everywhere { port } => vec![
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), *port),
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), *port),
            ],
            Listen::At(addrs) => {
                let mut addrs = addrs.clone();
                addrs.sort_by_key(SocketAddr::is_ipv6);
                addrs
            }
        }
    }

    /// Whether this error is tolerable: the family wasn't asked for and the host lacks it. A port that is taken or
    /// forbidden is not tolerable.
    pub(crate) fn may_lack(&self, error: &io::Error) -> bool {
        let taken = matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied);
        matches!(self, Listen::Everywhere { .. }) && !taken
    }
}

impl FromStr for Listen {
    type Err = ListenError;

    /// `4242` and `:4242` are every address; `localhost:4242` is 127.0.0.1.
    fn from_str(text: &str) -> Result<Listen, ListenError> {
        if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse() {
            return Ok(Listen::Everywhere { port });
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            let port = port.parse().map_err(|_| ListenError::Text)?;
            return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port).into());
        }
        text.parse::<SocketAddr>().map(Listen::from).map_err(|_| ListenError::Text)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Everywhere { port } => write!(f, "port {port}"),
            Listen::At(addrs) => {
                let addrs: Vec<_> = addrs.iter().map(ToString::to_string).collect();
                f.write_str(&addrs.join(" and "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_a_port_or_an_address_with_one() {
        for (text, bound) in [
            ("4242", "0.0.0.0:4242 [::]:4242"),
            (":4242", "0.0.0.0:4242 [::]:4242"),
            ("0", "0.0.0.0:0 [::]:0"),
            ("localhost:4242", "127.0.0.1:4242"),
            ("0.0.0.0:4242", "0.0.0.0:4242"),
            ("[::]:4242", "[::]:4242"),
        ] {
            let addrs: Vec<_> =
                text.parse::<Listen>().unwrap().addrs().iter().map(ToString::to_string).collect();
            assert_eq!(addrs.join(" "), bound, "{text}");
        }
        for bad in
            ["", ":", "localhost", "hub.example:4242", "192.0.2.7", "::1:4242:", "70000", "localhost:x"]
        {
            assert_eq!(bad.parse::<Listen>(), Err(ListenError::Text), "{bad}");
        }
    }

    #[test]
    fn one_address_of_each_family_at_most() {
        let at = |text: &str| text.parse::<Listen>().unwrap();
        let both = at("[::1]:1").and(at("127.0.0.1:2")).unwrap();
        assert_eq!(both.addrs(), ["127.0.0.1:2".parse().unwrap(), "[::1]:1".parse().unwrap()]);
        assert_eq!(both.to_string(), "[::1]:1 and 127.0.0.1:2");
        for (one, other) in
            [("127.0.0.1:1", "127.0.0.2:1"), ("1", "127.0.0.1:1"), ("[::1]:1", "2"), ("1", "1")]
        {
            assert_eq!(at(one).and(at(other)), Err(ListenError::Twice), "{one} {other}");
        }
    }

    #[test]
    fn only_a_family_that_nobody_asked_for_may_be_lacking() {
        let absent = io::Error::from(io::ErrorKind::AddrNotAvailable);
        let taken = io::Error::from(io::ErrorKind::AddrInUse);
        assert!(Listen::default().may_lack(&absent));
        assert!(!Listen::default().may_lack(&taken));
        assert!(!"[::]:4242".parse::<Listen>().unwrap().may_lack(&absent));
    }
}
