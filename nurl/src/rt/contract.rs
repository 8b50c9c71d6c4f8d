//! The contract of both builds of the shim, one test per guarantee; run on tokio and in the simulated world.

use super::net::{RecvMeta, TcpListener, TcpStream, Transmit, UdpSocket};
use super::{task, time};
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Runs a test body on tokio or, with feature `sim`, on a host of a simulated world.
#[cfg(not(feature = "sim"))]
pub(crate) fn run<F: Future<Output = ()> + Send + 'static>(body: F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body);
}

#[cfg(feature = "sim")]
pub(crate) fn run<F: Future<Output = ()> + Send + 'static>(body: F) {
    chaos::rt::run_on_one_host(1, body);
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn recv_one(socket: &UdpSocket) -> (Vec<u8>, RecvMeta) {
    let mut buffer = vec![0; 65536];
    let mut meta = [RecvMeta::default()];
    let n = socket.recv(&mut [IoSliceMut::new(&mut buffer)], &mut meta).await.unwrap();
    assert_eq!(n, 1);
    (buffer[..meta[0].len].to_vec(), meta[0])
}

#[test]
fn a_datagram_arrives_with_its_source() {
    run(async {
        let a = UdpSocket::bind(loopback()).await.unwrap();
        let b = UdpSocket::bind(loopback()).await.unwrap();
        let to_b = Transmit {
            destination: b.local_addr().unwrap(),
            contents: b"hello",
            segment_size: None,
            src_ip: None,
        };
        a.writable().await.unwrap();
        a.try_send(&to_b).unwrap();
        let (bytes, meta) = recv_one(&b).await;
        assert_eq!(bytes, b"hello");
        assert_eq!(meta.addr, a.local_addr().unwrap());
    });
}

#[test]
fn segments_of_one_send_arrive_as_datagrams() {
    run(async {
        let a = UdpSocket::bind(loopback()).await.unwrap();
        let b = UdpSocket::bind(loopback()).await.unwrap();
        let contents: Vec<u8> = [[1u8; 100], [2; 100], [3; 100]].concat();
        assert!(a.max_gso_segments() >= 1);
        if a.max_gso_segments() < 3 {
            return;
        }
        let transmit = Transmit {
            destination: b.local_addr().unwrap(),
            contents: &contents,
            segment_size: Some(100),
            src_ip: None,
        };
        a.writable().await.unwrap();
        a.try_send(&transmit).unwrap();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let (bytes, meta) = recv_one(&b).await;
            seen.extend(bytes.chunks(meta.stride).map(|datagram| (datagram.len(), datagram[0])));
        }
        assert_eq!(seen, [(100, 1), (100, 2), (100, 3)]);
    });
}

#[test]
fn a_stream_carries_bytes_both_ways_and_its_end() {
    run(async {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = task::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut got = [0; 4];
            stream.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"ping");
            stream.write_all(b"pong").await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"pong");
        server.await.unwrap();
    });
}

#[test]
fn a_connection_to_nobody_is_refused() {
    run(async {
        let gone = TcpListener::bind(loopback()).await.unwrap();
        let addr = gone.local_addr().unwrap();
        drop(gone);
        let error = TcpStream::connect(addr).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_port_in_use_is_refused() {
    run(async {
        let first = UdpSocket::bind(loopback()).await.unwrap();
        let error = UdpSocket::bind(first.local_addr().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    });
}

#[test]
fn time_passes_and_a_timeout_ends_a_wait() {
    run(async {
        let begun = time::now();
        time::sleep(Duration::from_millis(20)).await;
        assert!(time::now() - begun >= Duration::from_millis(20));
        assert!(time::timeout(Duration::from_millis(5), std::future::pending::<()>()).await.is_err());
        // Protocols may subtract three minutes from the clock at their start.
        assert!(begun.checked_sub(Duration::from_secs(180)).is_some());
    });
}

#[test]
fn a_panic_fails_its_own_task_alone() {
    run(async {
        let planes = task::Planes::start("test", 1).unwrap();
        let failed = planes.spawn(task::Plane::Compute, async { panic!("on purpose") }).await;
        assert_eq!(failed, Err::<(), _>(task::JoinError::Panicked("on purpose".into())));
        assert_eq!(planes.spawn(task::Plane::Work, async { 7 }).await, Ok(7));
        assert_eq!(planes.blocking(|| 8).await, Ok(8));
    });
}

#[test]
fn an_aborted_task_says_so() {
    run(async {
        let task = task::spawn(std::future::pending::<()>());
        task.abort();
        assert_eq!(task.await, Err(task::JoinError::Cancelled));
    });
}

#[test]
fn files_keep_what_was_written_and_are_private() {
    #[cfg(not(feature = "sim"))]
    let dir = tempfile::tempdir().unwrap();
    #[cfg(not(feature = "sim"))]
    let root = dir.path().to_owned();
    #[cfg(feature = "sim")]
    let root = std::path::PathBuf::from("/data");
    run(async move {
        use super::disk;
        disk::create_dir_all(&root).unwrap();
        let key = root.join("key");
        disk::create_new_private(&key, b"one").unwrap();
        assert_eq!(disk::mode(&key).unwrap(), 0o600);
        let again = disk::create_new_private(&key, b"two").unwrap_err();
        assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
        disk::atomic_replace(&key, b"three").unwrap();
        assert_eq!(disk::read(&key, 5).unwrap(), b"three");
        assert_eq!(disk::read(&key, 4).unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
        let mut file = disk::File::open(&root.join("data")).unwrap();
        file.write_all_at(b"abc", 5).unwrap();
        file.sync().unwrap();
        assert_eq!(file.len().unwrap(), 8);
        let mut back = [9; 8];
        file.read_exact_at(&mut back, 0).unwrap();
        assert_eq!(&back, b"\0\0\0\0\0abc");
        file.set_len(2).unwrap();
        file.lock().unwrap();
        let mut other = disk::File::open(&root.join("data")).unwrap();
        assert_eq!(other.lock().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        assert_eq!(other.len().unwrap(), 2, "who doesn't lock isn't held back");
        drop(file);
        other.lock().unwrap();
        let file = other;
        assert!(file.read_exact_at(&mut back, 0).is_err());
        disk::remove(&key).unwrap();
        assert!(!disk::exists(&key));
        assert_eq!(disk::read(&key, 5).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    });
}

#[test]
fn the_interface_list_is_sorted_and_not_empty() {
    run(async {
        let list = super::net::interfaces().unwrap();
        assert!(!list.is_empty());
        assert!(list.is_sorted());
    });
}

#[test]
fn a_watch_wakes_its_readers_and_tells_the_end() {
    run(async {
        let (sender, mut reader) = super::sync::watch::channel(1);
        let task = task::spawn(async move {
            reader.changed().await.unwrap();
            assert_eq!(reader.borrow_and_update(), 2);
            reader.changed().await.unwrap_err()
        });
        task::yield_now().await;
        sender.send(2);
        task::yield_now().await;
        drop(sender);
        task.await.unwrap();
    });
}
