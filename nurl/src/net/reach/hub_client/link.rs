//! The bytes of one hub's client: dials, reads and writes for [`HubClient`], and keeps no state but buffers.
//!
//! Its owner alternates [`Link::ready`], which waits, with [`Link::receive`] and [`Link::flush`], which don't. So the
//! client is used by one task only, and its queue is the only one before the stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::core::HubClient;
use super::dial::dial;
use super::way::Way;
use crate::rt::net::{Interface, OwnedReadHalf, OwnedWriteHalf, TcpStream, source_towards};
use crate::rt::{self, Point, buggify, time};

/// How long the last write before the close may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

const READ_MIN_BYTES: usize = 4 * 1024;
const READ_MAX_BYTES: usize = 64 * 1024;

/// Reads in one go, so that a busy hub doesn't starve its owner's other work.
const READS: usize = 4;

type Dial = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// A hub's stream, or the dial for it.
#[derive(Default)]
pub struct Link(Phase);

#[derive(Default)]
enum Phase {
    #[default]
    Idle,
    Dialing(Dial),
    /// The dial has ended; the client doesn't know yet.
    Dialed(io::Result<TcpStream>),
    Open(Stream),
}

struct Stream {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    way: Option<Way>,
    buffer: Vec<u8>,
    /// Bytes at the buffer's beginning that the client hasn't seen yet, or why there are no more.
    read: Option<io::Result<usize>>,
    out: Vec<u8>,
    /// Bytes of `out` that the stream has accepted.
    written: usize,
    /// The stream has refused a write for good. What the hub said before is still read: it may be its reason.
    broken: bool,
}

impl Link {
    /// Waits until there is something for [`receive`](Link::receive), or the stream has taken bytes. What was received
    /// is kept.
    pub fn ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Phase::Idle => Poll::Pending,
            Phase::Dialed(_) => Poll::Ready(()),
            Phase::Dialing(dial) => {
                let dialed = ready!(dial.as_mut().poll(cx));
                self.0 = Phase::Dialed(dialed);
                Poll::Ready(())
            }
            Phase::Open(stream) => {
                if stream.fill(cx).is_ready() || stream.write(cx).is_ready() {
                    return Poll::Ready(());
                }
                Poll::Pending
            }
        }
    }

    /// Gives the client what has been received, without waiting.
    pub fn receive(&mut self, client: &mut HubClient, now: Instant) {
        if let Phase::Dialing(_) = &self.0 {
            // An owner whose other work is always ready never comes to wait for the dial.
            let _ = self.ready(&mut Context::from_waker(Waker::noop()));
        }
        match std::mem::take(&mut self.0) {
            Phase::Dialed(Ok(stream)) => {
                client.handle_dialed(now);
                self.0 = Phase::Open(Stream::new(stream));
            }
            Phase::Dialed(Err(error)) => {
                tracing::debug!(target: "nurl::hub", hub = %client.hub().addr, %error, "can't reach the hub");
                client.handle_dial_failed(now);
            }
            phase => self.0 = phase,
        }
        if let Phase::Open(stream) = &mut self.0 {
            for _ in 0..READS {
                if !client.wants_stream() || !stream.receive(client, now) {
                    break;
                }
            }
        }
    }

    /// Does what the client wants: dials, drops the stream, writes as much as the stream takes.
    pub fn flush(&mut self, client: &mut HubClient) {
        let wanted = match &self.0 {
            Phase::Idle => true,
            Phase::Dialing(_) | Phase::Dialed(_) => client.wants_dial(),
            Phase::Open(_) => client.wants_stream(),
        };
        if !wanted {
            self.0 = Phase::Idle;
        }
        match &mut self.0 {
            Phase::Idle if client.poll_dial() => {
                let addr = client.hub().addr.clone();
                self.0 = Phase::Dialing(Box::pin(async move { dial(&addr).await }));
            }
            Phase::Open(stream) => stream.flush(client),
            _ => {}
        }
    }

    /// The host's interfaces changed to these. A stream whose interface still leads to the hub stays; otherwise the
    /// client reconnects.
    pub fn check(&self, client: &mut HubClient, now: Instant, interfaces: &[Interface]) {
        let way = if let Phase::Open(stream) = &self.0 { stream.way } else { None };
        if way.is_some_and(|way| way.holds(interfaces, source_towards(way.hub()).ok())) {
            rt::reached("a hub\'s connection outlived a change of interfaces");
        } else {
            client.network_changed(now);
        }
    }

    /// Says goodbye, and waits at most a second until the stream has accepted it.
    pub fn close(&mut self, client: &mut HubClient) -> impl Future<Output = ()> + use<> {
        let open = match std::mem::take(&mut self.0) {
            Phase::Open(mut stream) if client.wants_stream() => {
                client.poll_goodbye(&mut stream.out);
                Some(stream)
            }
            _ => None,
        };
        async move {
            if let Some(Stream { mut writer, reader, out, written, .. }) = open {
                // Best effort: the hub also notices the end of the stream.
                let _ = time::timeout(GOODBYE_TIMEOUT, writer.write_all(&out[written..])).await;
                let _ = writer.shutdown().await;
                drop(reader);
            }
        }
    }
}

impl Stream {
    fn new(stream: TcpStream) -> Stream {
        // With Nagle's algorithm, a small last write would wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let way = Way::of(&stream);
        let (reader, writer) = stream.into_split();
        let buffer = vec![0; READ_MIN_BYTES];
        Stream { reader, writer, way, buffer, read: None, out: Vec::new(), written: 0, broken: false }
    }

    /// Fills the buffer, unless the client hasn't seen its content yet.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.read.is_none() {
            let most = if buggify(Point::ReadByte) { 1 } else { self.buffer.len() };
            let mut buffer = ReadBuf::new(&mut self.buffer[..most]);
            self.read = match Pin::new(&mut self.reader).poll_read(cx, &mut buffer) {
                Poll::Ready(read) => Some(read.map(|()| buffer.filled().len())),
                Poll::Pending if self.broken => Some(Ok(0)),
                Poll::Pending => return Poll::Pending,
            };
        }
        Poll::Ready(())
    }

    /// Gives the client the next bytes. Returns whether there may be more.
    fn receive(&mut self, client: &mut HubClient, now: Instant) -> bool {
        if self.fill(&mut Context::from_waker(Waker::noop())).is_pending() {
            return false;
        }
        match self.read.take() {
            Some(Ok(n)) if n > 0 && !buggify(Point::HubEnds) => {
                client.handle_bytes(now, &self.buffer[..n]);
                let full = n == self.buffer.len();
                if full && n < READ_MAX_BYTES {
                    self.buffer.resize(2 * n, 0);
                }
                full
            }
            _ => {
                client.handle_end(now);
                false
            }
        }
    }

    /// Writes what was sealed before. `Pending`: nothing is left, or the stream takes nothing now.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.written == self.out.len() || self.broken {
            return Poll::Pending;
        }
        let most = if buggify(Point::WriteByte) { self.written + 1 } else { self.out.len() };
        match ready!(Pin::new(&mut self.writer).poll_write(cx, &self.out[self.written..most])) {
            Ok(n) if n > 0 => self.written += n,
            _ => self.broken = true,
        }
        Poll::Ready(())
    }

    /// Seals and writes until nothing waits or the stream takes no more.
    fn flush(&mut self, client: &mut HubClient) {
        loop {
            if self.written == self.out.len() {
                self.out.clear();
                self.written = 0;
                client.poll_write(&mut self.out);
            }
            let left = !self.out.is_empty();
            if self.write(&mut Context::from_waker(Waker::noop())).is_pending() {
                return client.set_stalled(left);
            }
        }
    }
}
