//! Sockets and names of a host of the world, as in `tokio::net`.

mod addr;
pub mod tcp;
mod udp;

pub use addr::{ToSocketAddrs, lookup_host};
pub use tcp::{TcpListener, TcpStream};
pub use udp::UdpSocket;
