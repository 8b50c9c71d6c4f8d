//! UDP sockets that carry one datagram a call.

use super::addr::{ToSocketAddrs, resolve};
use crate::rt;
use crate::rt::net::{RecvMeta, Transmit};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

/// Linux's number for "address family not supported".
const EAFNOSUPPORT: i32 = 97;

/// A UDP socket.
#[derive(Debug)]
pub struct UdpSocket {
    socket: rt::net::UdpSocket,
    /// Where it is connected to.
    connected: Mutex<Option<Connected>>,
}

#[derive(Debug, Clone, Copy)]
struct Connected {
    peer: SocketAddr,
    /// The address of this host from which the peer is reached.
    from: IpAddr,
}

fn not_connected() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl UdpSocket {
    /// Binds to the first of the addresses that is free. A v6 socket takes v6 only.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, or the caller isn't on a host whose process runs.
    pub async fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<UdpSocket> {
        let mut refused = None;
        for addr in resolve(&addr).await? {
            match rt::net::UdpSocket::bind(addr).await {
                Ok(socket) => return Ok(UdpSocket { socket, connected: Mutex::new(None) }),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.expect("there was an address"))
    }

    /// Sets the peer of [`send`](UdpSocket::send) and [`recv`](UdpSocket::recv): datagrams of others are dropped from now on.
    /// Nothing is sent.
    ///
    /// # Errors
    /// `NetworkUnreachable` where no interface leads to any of the addresses; EAFNOSUPPORT where all are of the family that the
    /// socket isn't.
    pub async fn connect<A: ToSocketAddrs>(&self, addr: A) -> io::Result<()> {
        let mut refused = None;
        let is_v4 = self.socket.local_addr()?.is_ipv4();
        for peer in resolve(&addr).await? {
            if peer.is_ipv4() != is_v4 {
                refused = Some(io::Error::from_raw_os_error(EAFNOSUPPORT));
                continue;
            }
            match rt::net::source_towards(peer.ip()) {
                Ok(from) => {
                    *self.lock() = Some(Connected { peer, from });
                    return Ok(());
                }
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.expect("there was an address"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Connected>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bound address; a socket of all addresses that is connected has the one from which it sends.
    ///
    /// # Errors
    /// None in the simulation.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let bound = self.socket.local_addr()?;
        let from = self.lock().map(|connected| connected.from).filter(|_| bound.ip().is_unspecified());
        Ok(SocketAddr::new(from.unwrap_or(bound.ip()), bound.port()))
    }

    /// The address that it is connected to.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.lock().map(|connected| connected.peer).ok_or_else(not_connected)
    }

    /// Sends a datagram to the first of the addresses; returns its length. It never waits in the simulation.
    ///
    /// # Errors
    /// EMSGSIZE, `NetworkUnreachable`, `AddrNotAvailable`, `InvalidInput` for an address of the other family.
    pub async fn send_to<A: ToSocketAddrs>(&self, bytes: &[u8], target: A) -> io::Result<usize> {
        let addrs = resolve(&target).await?;
        self.try_send_to(bytes, *addrs.first().expect("there is an address"))
    }

    /// Sends a datagram without waiting; returns its length.
    ///
    /// # Errors
    /// Those of [`send_to`](UdpSocket::send_to).
    pub fn try_send_to(&self, bytes: &[u8], target: SocketAddr) -> io::Result<usize> {
        let src_ip = self.lock().map(|connected| connected.from);
        self.socket.try_send(&Transmit {
            destination: target,
            contents: bytes,
            segment_size: None,
            src_ip,
        })?;
        Ok(bytes.len())
    }

    /// Sends a datagram to the connected peer; returns its length.
    ///
    /// # Errors
    /// `NotConnected`; those of [`send_to`](UdpSocket::send_to).
    pub async fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_send(bytes)
    }

    /// Sends a datagram to the connected peer without waiting; returns its length.
    ///
    /// # Errors
    /// `NotConnected`; those of [`send_to`](UdpSocket::send_to).
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_send_to(bytes, self.peer_addr()?)
    }

    /// Receives a datagram: its length and its source. What doesn't fit is lost. Cancel safe.
    ///
    /// # Errors
    /// When the process that bound it is gone.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            let mut meta = [RecvMeta::default()];
            self.socket.recv(&mut [IoSliceMut::new(buffer)], &mut meta).await?;
            if let Some(received) = self.wanted(meta[0]) {
                return Ok(received);
            }
        }
    }

    /// Receives a datagram without waiting; see [`recv_from`](UdpSocket::recv_from).
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing to receive; else the process that bound it is gone.
    pub fn try_recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            let mut meta = [RecvMeta::default()];
            self.socket.try_recv(&mut [IoSliceMut::new(buffer)], &mut meta)?;
            if let Some(received) = self.wanted(meta[0]) {
                return Ok(received);
            }
        }
    }

    /// What was received, unless the socket is connected to another peer.
    fn wanted(&self, meta: RecvMeta) -> Option<(usize, SocketAddr)> {
        let is_other = self.lock().is_some_and(|connected| connected.peer != meta.addr);
        (!is_other).then_some((meta.len, meta.addr))
    }

    /// Receives a datagram of the connected peer: its length. Cancel safe.
    ///
    /// # Errors
    /// `NotConnected`, or the process that bound it is gone.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.peer_addr()?;
        Ok(self.recv_from(buffer).await?.0)
    }

    /// Receives a datagram of the connected peer without waiting: its length.
    ///
    /// # Errors
    /// `NotConnected`; those of [`try_recv_from`](UdpSocket::try_recv_from).
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.peer_addr()?;
        Ok(self.try_recv_from(buffer)?.0)
    }

    /// Waits until a receive may succeed. Cancel safe.
    ///
    /// # Errors
    /// When the process that bound it is gone.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Waits until a send may succeed; returns at once in the simulation.
    ///
    /// # Errors
    /// None in the simulation.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }
}
