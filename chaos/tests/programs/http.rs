//! hyper over the world's sockets: HTTP/1, under loss and a restart of the server.

use chaos::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use chaos::tokio::net::{TcpListener, TcpStream};
use chaos::tokio::{task, time};
use chaos::{LinkConfig, Rate, World};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::rt::ReadBufCursor;
use hyper::service::service_fn;
use hyper::{Request, Response};
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A stream with hyper's traits.
struct Io(TcpStream);

impl hyper::rt::Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; 4096];
        let room = to.remaining().min(bytes.len());
        let mut buffer = ReadBuf::new(&mut bytes[..room]);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
        to.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
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

/// Answers with what it was sent, and the path.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let body = request.collect().await?.to_bytes();
    Ok(Response::new(Full::new([path.as_bytes(), &body].concat().into())))
}

async fn serve() {
    let listener = TcpListener::bind("0.0.0.0:80").await.unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        task::spawn(async move {
            let serving =
                hyper::server::conn::http1::Builder::new().serve_connection(Io(stream), service_fn(answer));
            // A connection that breaks concerns its client alone.
            let _ = serving.await;
        });
    }
}

async fn connect() -> Result<SendRequest<Full<Bytes>>, Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect("server:80").await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(Io(stream)).await?;
    task::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

async fn post(
    sender: &mut SendRequest<Full<Bytes>>,
    number: u32,
    body: &Bytes,
) -> Result<Bytes, Box<dyn Error + Send + Sync>> {
    sender.ready().await?;
    let request =
        Request::post(format!("/{number}")).header("host", "server").body(Full::new(body.clone()))?;
    Ok(sender.send_request(request).await?.collect().await?.to_bytes())
}

#[chaos::test(seeds = 5)]
async fn every_request_is_answered_under_loss_and_after_a_restart(world: World) {
    let latency = Duration::from_millis(20);
    world.link_default(LinkConfig { latency, tcp_loss: Rate::percent(5), ..LinkConfig::default() });
    let server = world.host("server").addr("10.0.0.1").spawn(serve);
    let client = world.host("client").addr("10.0.0.2");
    let asked = client.run(async {
        let body = Bytes::from(vec![b'x'; 20_000]);
        let (mut sender, mut connections) = (None, 0);
        for number in 0..30 {
            loop {
                if sender.is_none() {
                    connections += 1;
                    sender = connect().await.ok();
                }
                let Some(open) = &mut sender else {
                    time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                match time::timeout(Duration::from_secs(5), post(open, number, &body)).await {
                    Ok(Ok(answer)) => {
                        assert_eq!(answer, [format!("/{number}").as_bytes(), &body].concat());
                        break;
                    }
                    _ => sender = None,
                }
            }
        }
        connections
    });
    world.sleep(Duration::from_millis(1500)).await;
    server.restart();
    let connections = asked.await.unwrap();
    assert!(connections >= 2, "the restart ended the first connection");
}
