//! Echo servers.

use chaos::tokio::io::{self, AsyncReadExt as _, AsyncWriteExt as _};
use chaos::tokio::net::{TcpListener, TcpStream, UdpSocket, lookup_host};
use chaos::tokio::{task, time};
use chaos::{Host, LinkConfig, Rate, World};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

async fn udp_echo() -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:7").await?;
    let mut buffer = [0; 2048];
    loop {
        let (len, from) = socket.recv_from(&mut buffer).await?;
        socket.send_to(&buffer[..len], from).await?;
    }
}

async fn tcp_echo() -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", 7)).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        task::spawn(async move {
            let (mut read, mut write) = stream.split();
            // A connection that breaks concerns its client alone.
            let _ = io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
    }
}

/// Runs a server at every start of its host's process.
fn serve<F>(host: Host, server: fn() -> F) -> Host
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    host.spawn(move || async move { server().await.unwrap() })
}

fn two(world: World) -> (Host, Host) {
    (
        world.host("server").addr("10.0.0.1").addr("fd00::1"),
        world.host("client").addr("10.0.0.2").addr("fd00::2"),
    )
}

fn lossy() -> LinkConfig {
    let latency = Duration::from_millis(20);
    LinkConfig { latency, udp_loss: Rate::percent(30), tcp_loss: Rate::percent(5), ..LinkConfig::default() }
}

#[chaos::test(seeds = 5)]
async fn datagrams_are_sent_again_until_they_are_answered(world: World) {
    world.link_default(lossy());
    let (server, client) = two(world);
    serve(server, udp_echo);
    let asked = client.run(async {
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        assert_eq!(socket.send(b"?").await.unwrap_err().kind(), ErrorKind::NotConnected);
        socket.connect("server:7").await?;
        assert_eq!((socket.local_addr()?.ip(), socket.peer_addr()?.port()), ("10.0.0.2".parse().unwrap(), 7));
        let (mut buffer, mut tries) = ([0; 2048], 0);
        for number in 0..20u8 {
            loop {
                tries += 1;
                socket.send(&[number; 1000]).await?;
                match time::timeout(Duration::from_millis(100), socket.recv(&mut buffer)).await {
                    Ok(Ok(len)) if buffer[..len] == [number; 1000] => break,
                    _ => {}
                }
            }
        }
        io::Result::Ok(tries)
    });
    let tries = asked.await.unwrap().unwrap();
    assert!(tries > 20, "at thirty percent some of twenty are lost");
}

#[chaos::test]
async fn a_connected_socket_hears_its_peer_alone() -> io::Result<()> {
    let sockets = [UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?];
    let socket = UdpSocket::bind("127.0.0.1:9").await?;
    socket.connect(sockets[0].local_addr()?).await?;
    for (sender, bytes) in [(&sockets[1], &b"other"[..]), (&sockets[0], b"peer"), (&sockets[0], b"")] {
        sender.send_to(bytes, "127.0.0.1:9").await?;
    }
    let mut buffer = [0; 16];
    assert_eq!(socket.recv(&mut buffer).await?, 4);
    assert_eq!(&buffer[..4], b"peer");
    // An empty datagram is one, too.
    assert_eq!(socket.recv_from(&mut buffer).await?, (0, sockets[0].local_addr()?));
    assert_eq!(socket.try_recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    Ok(())
}

#[chaos::test(seeds = 5)]
async fn a_stream_is_echoed_whole_also_after_a_restart_of_the_server(world: World) {
    world.link_default(lossy());
    let (server, client) = two(world);
    serve(server, tcp_echo);
    for _ in 0..2 {
        let echoed = client.run(async {
            let bytes: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
            let stream = loop {
                match TcpStream::connect("server:7").await {
                    Ok(stream) => break stream,
                    Err(_) => time::sleep(Duration::from_millis(50)).await,
                }
            };
            stream.set_nodelay(true)?;
            assert_eq!(
                (stream.peer_addr()?.port(), stream.local_addr()?.ip()),
                (7, "10.0.0.2".parse().unwrap())
            );
            let (mut read, mut write) = stream.into_split();
            let (sent, mut echoed) = (bytes.clone(), vec![0; bytes.len()]);
            let writing = task::spawn(async move {
                write.write_all(&sent).await?;
                io::Result::Ok(write)
            });
            read.read_exact(&mut echoed).await?;
            drop(writing.await??);
            io::Result::Ok(echoed == bytes)
        });
        assert!(echoed.await.unwrap().unwrap());
        server.restart();
    }
}

#[chaos::test(seeds = 2)]
async fn a_name_is_that_of_a_host(world: World) {
    let (server, client) = two(world);
    serve(server, tcp_echo);
    let asked = client.run(async {
        let addrs: Vec<SocketAddr> = lookup_host(("server", 7)).await.unwrap().collect();
        assert_eq!(addrs, ["[fd00::1]:7".parse().unwrap(), "10.0.0.1:7".parse().unwrap()]);
        assert_eq!(TcpStream::connect("nobody:7").await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(TcpStream::connect("server").await.unwrap_err().kind(), ErrorKind::InvalidInput);
        // The first address refuses, the second one answers.
        let addrs = ["10.0.0.1:8".parse().unwrap(), addrs[1]];
        let stream = TcpStream::connect(&addrs[..]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addrs[1]);
        let refused = TcpStream::connect(String::from("10.0.0.1:8")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
    asked.await.unwrap();
}
