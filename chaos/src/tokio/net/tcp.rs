//! TCP listeners and streams, and the halves of streams.

use super::addr::{ToSocketAddrs, resolve};
use crate::rt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use crate::rt::net::{OwnedReadHalf, OwnedWriteHalf};

/// Accepts connections.
#[derive(Debug)]
pub struct TcpListener(rt::net::TcpListener);

impl TcpListener {
    /// Binds to the first of the addresses that is free, and listens.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, or the caller isn't on a host whose process runs.
    pub async fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        let mut refused = None;
        for addr in resolve(&addr).await? {
            match rt::net::TcpListener::bind(addr).await {
                Ok(listener) => return Ok(TcpListener(listener)),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.expect("there was an address"))
    }

    /// The next connection, and its peer's address. Cancel safe.
    ///
    /// # Errors
    /// When the process that bound it is gone.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((TcpStream(stream), peer))
    }

    /// The bound address.
    ///
    /// # Errors
    /// None in the simulation.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A connection. Dropping it ends it in order: by FIN, or by RST if bytes were left unread.
#[derive(Debug)]
pub struct TcpStream(rt::net::TcpStream);

impl TcpStream {
    /// Connects to the first of the addresses that answers. Dropping the future abandons the attempt.
    ///
    /// # Errors
    /// Of the last address: `ConnectionRefused`, `TimedOut`, `NetworkUnreachable`; or the caller isn't on a host whose
    /// process runs.
    pub async fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
        let mut refused = None;
        for addr in resolve(&addr).await? {
            match rt::net::TcpStream::connect(addr).await {
                Ok(stream) => return Ok(TcpStream(stream)),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.expect("there was an address"))
    }

    /// This side's address.
    ///
    /// # Errors
    /// None in the simulation.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The other side's address.
    ///
    /// # Errors
    /// None in the simulation.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    /// Turns Nagle's algorithm off, or on.
    ///
    /// # Errors
    /// When the process that made it is gone.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.0.set_nodelay(nodelay)
    }

    /// Splits into halves that different tasks may own. Dropping the writing half ends its direction.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        self.0.into_split()
    }

    /// Splits into halves that borrow the stream.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf(&self.0), WriteHalf(&self.0))
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The reading half of a borrowed [`TcpStream`].
#[derive(Debug)]
pub struct ReadHalf<'a>(&'a rt::net::TcpStream);

impl ReadHalf<'_> {
    /// This side's address.
    ///
    /// # Errors
    /// None in the simulation.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The other side's address.
    ///
    /// # Errors
    /// None in the simulation.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }
}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.connection().poll_read(cx, buf)
    }
}

/// The writing half of a borrowed [`TcpStream`]. Dropping it doesn't end its direction.
#[derive(Debug)]
pub struct WriteHalf<'a>(&'a rt::net::TcpStream);

impl WriteHalf<'_> {
    /// This side's address.
    ///
    /// # Errors
    /// None in the simulation.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The other side's address.
    ///
    /// # Errors
    /// None in the simulation.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.connection().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.connection().shutdown())
    }
}
