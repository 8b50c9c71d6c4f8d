//! TCP listeners and streams, with tokio's signatures.

use crate::kernel::process::dead;
use crate::kernel::tcp::{Outbox, Tcp};
use crate::world::sim;
use crate::world::traffic::SocketId;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Accepts connections.
#[derive(Debug)]
pub struct TcpListener {
    id: SocketId,
    local: SocketAddr,
}

impl TcpListener {
    /// Binds and listens.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, or the caller isn't on a host whose process runs.
    pub async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
        let place = sim::live_place()?;
        let (id, local) = sim::with(|sim| sim.tcp_listen(place, addr))?;
        Ok(TcpListener { id, local })
    }

    /// The next connection, and its peer's address. Cancel safe.
    ///
    /// # Errors
    /// When the process that bound it is gone.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (key, local, remote) =
            poll_fn(|cx| sim::with(|sim| sim.host_mut(self.id.host).tcp.accept(self.id.key, cx.waker())))
                .await?;
        let id = SocketId { host: self.id.host, key };
        Ok((TcpStream { inner: Arc::new(Inner { id, local, remote }) }, remote))
    }

    /// The bound address.
    ///
    /// # Errors
    /// None in the simulation.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        sim::try_with(|sim| {
            sim.with_tcp(self.id.host, |tcp, now_ns, out| tcp.unlisten(now_ns, self.id.key, out))
        });
    }
}

/// One end of a connection in the kernel.
#[derive(Debug)]
pub(crate) struct Inner {
    id: SocketId,
    local: SocketAddr,
    remote: SocketAddr,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.call(|tcp, now_ns, out| tcp.release(now_ns, self.id.key, out));
    }
}

impl Inner {
    /// Calls the kernel's TCP; `None` when there is no world any more.
    fn call<R>(&self, f: impl FnOnce(&mut Tcp, u64, &mut Outbox) -> R) -> Option<R> {
        sim::try_with(|sim| sim.with_tcp(self.id.host, f))
    }

    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let read = self.call(|tcp, now_ns, out| {
            tcp.read(now_ns, self.id.key, cx.waker(), buf.initialize_unfilled(), out)
        });
        match read.unwrap_or_else(|| Poll::Ready(Err(dead()))) {
            Poll::Ready(Ok(n)) => {
                buf.advance(n);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.call(|tcp, now_ns, out| tcp.write(now_ns, self.id.key, cx.waker(), bytes, out));
        written.unwrap_or_else(|| Poll::Ready(Err(dead())))
    }

    pub(crate) fn shutdown(&self) -> io::Result<()> {
        self.call(|tcp, now_ns, out| tcp.shutdown(now_ns, self.id.key, out)).unwrap_or_else(|| Err(dead()))
    }
}

/// A connection. Dropping it ends it in order: by FIN, or by RST if bytes were left unread.
#[derive(Debug)]
pub struct TcpStream {
    inner: Arc<Inner>,
}

impl TcpStream {
    /// Connects. Dropping the future abandons the attempt.
    ///
    /// # Errors
    /// `ConnectionRefused`, `TimedOut` (after 127 s), `NetworkUnreachable`, or the caller isn't on a host whose process runs.
    pub async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
        let place = sim::live_place()?;
        let (id, local) = sim::with(|sim| sim.tcp_connect(place, addr))?;
        let stream = TcpStream { inner: Arc::new(Inner { id, local, remote: addr }) };
        poll_fn(|cx| sim::with(|sim| sim.host_mut(id.host).tcp.connected(id.key, cx.waker()))).await?;
        Ok(stream)
    }

    /// This side's address.
    ///
    /// # Errors
    /// None in the simulation.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.inner.local)
    }

    /// The other side's address.
    ///
    /// # Errors
    /// None in the simulation.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.inner.remote)
    }

    /// Turns Nagle's algorithm off, or on.
    ///
    /// # Errors
    /// When the process that made it is gone.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        let inner = &self.inner;
        let set = inner.call(|tcp, now_ns, out| tcp.set_nodelay(now_ns, inner.id.key, nodelay, out));
        set.unwrap_or_else(|| Err(dead()))
    }

    /// Splits into halves that different tasks may own.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let read = OwnedReadHalf { inner: self.inner.clone() };
        (read, OwnedWriteHalf { inner: self.inner })
    }

    /// Its end, for halves that borrow it.
    pub(crate) fn connection(&self) -> &Inner {
        &self.inner
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_read(cx, buf)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.inner.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.inner.shutdown())
    }
}

/// The reading half of a [`TcpStream`].
#[derive(Debug)]
pub struct OwnedReadHalf {
    inner: Arc<Inner>,
}

impl OwnedReadHalf {
    /// This side's address.
    ///
    /// # Errors
    /// None in the simulation.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.inner.local)
    }

    /// The other side's address.
    ///
    /// # Errors
    /// None in the simulation.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.inner.remote)
    }
}

impl AsyncRead for OwnedReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_read(cx, buf)
    }
}

/// The writing half of a [`TcpStream`]. Dropping it ends its direction.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    inner: Arc<Inner>,
}

impl OwnedWriteHalf {
    /// This side's address.
    ///
    /// # Errors
    /// None in the simulation.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.inner.local)
    }

    /// The other side's address.
    ///
    /// # Errors
    /// None in the simulation.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.inner.remote)
    }
}

impl AsyncWrite for OwnedWriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.inner.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.inner.shutdown())
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        // An error means that the connection has already ended.
        let _ = self.inner.shutdown();
    }
}
