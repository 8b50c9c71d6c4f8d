//! What a socket can be bound or connected to.

use crate::rt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// What becomes one or more socket addresses: an address, a list of them, or a `host:port` whose host is an address,
/// `localhost`, or the name of a host of the world.
pub trait ToSocketAddrs: sealed::Ask {}

pub(super) mod sealed {
    use std::net::SocketAddr;

    /// What a value names.
    pub trait Ask {
        /// The addresses, or a name that is still to be resolved.
        fn ask(&self) -> Asked;
    }

    /// What is asked for.
    #[derive(Debug)]
    pub enum Asked {
        /// These addresses.
        Known(Vec<SocketAddr>),
        /// The addresses of a `host:port`.
        Name(String),
    }
}

use sealed::{Ask, Asked};

/// The addresses that a value names; at least one.
pub(super) async fn resolve(value: &(impl ToSocketAddrs + ?Sized)) -> io::Result<Vec<SocketAddr>> {
    let asked = value.ask();
    let addrs = match asked {
        Asked::Known(addrs) => addrs,
        Asked::Name(name) => rt::net::lookup_host(&name).await?,
    };
    if addrs.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "could not resolve to any address"));
    }
    Ok(addrs)
}

/// Resolves a name, as in `lookup_host("server:80")`.
///
/// # Errors
/// `NotFound` when no host of the world has the name; `InvalidInput` when there is no port.
pub async fn lookup_host<T: ToSocketAddrs>(host: T) -> io::Result<impl Iterator<Item = SocketAddr>> {
    Ok(resolve(&host).await?.into_iter())
}

macro_rules! known {
    ($($kind:ty),*) => {
        $(
            impl ToSocketAddrs for $kind {}
            impl Ask for $kind {
                fn ask(&self) -> Asked {
                    Asked::Known(vec![SocketAddr::from(*self)])
                }
            }
        )*
    };
}

known!(SocketAddr, SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

impl ToSocketAddrs for [SocketAddr] {}
impl Ask for [SocketAddr] {
    fn ask(&self) -> Asked {
        Asked::Known(self.to_vec())
    }
}

impl ToSocketAddrs for str {}
impl Ask for str {
    fn ask(&self) -> Asked {
        Asked::Name(self.to_owned())
    }
}

impl ToSocketAddrs for String {}
impl Ask for String {
    fn ask(&self) -> Asked {
        Asked::Name(self.clone())
    }
}

fn named(host: &str, port: u16) -> Asked {
    match host.parse::<IpAddr>() {
        Ok(ip) => Asked::Known(vec![SocketAddr::new(ip, port)]),
        Err(_) => Asked::Name(format!("{host}:{port}")),
    }
}

impl ToSocketAddrs for (&str, u16) {}
impl Ask for (&str, u16) {
    fn ask(&self) -> Asked {
        named(self.0, self.1)
    }
}

impl ToSocketAddrs for (String, u16) {}
impl Ask for (String, u16) {
    fn ask(&self) -> Asked {
        named(&self.0, self.1)
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {}
impl<T: Ask + ?Sized> Ask for &T {
    fn ask(&self) -> Asked {
        (**self).ask()
    }
}
