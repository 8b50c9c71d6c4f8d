//! Node to node on loopback, direct, one sender, delivered to an application that drains its queue: bulk datagrams
//! and bulk reliable messages of two assembled [`Node`]s against plain `sendto` and `recvfrom` of UDP payloads of the
//! same size, without crypto, drained by a thread. Lost packets don't count. Targets: at least 1.8 and at least 1.2.
//!
//! The three variants run in turns, one short round each, and the result is the median of the rounds' ratios. Rates
//! use the wall clock, because the comparison lets each side use the machine as it can.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark reads the clock, and the plain side is std's sockets and threads"
)]

#[cfg(not(feature = "sim"))]
mod bench {
    use std::net::UdpSocket;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use nurl::internals::key::SecretKey;
    use nurl::internals::mesh;
    use nurl::internals::net::reach::hub::{HubConfig, HubLimits, ServedMesh, serve};
    use nurl::internals::net::reach::relay::Roles;
    use nurl::internals::node::Role;
    use nurl::{Node, Ticket};
    use tokio::sync::Semaphore;

    const BODY_BYTES: usize = 1_200;
    /// A sealed datagram: header, channel and tag around the body.
    const UDP_PAYLOAD_BYTES: usize = BODY_BYTES + 30;
    /// Datagrams sent by one call.
    const BATCH: usize = 64;
    const MESSAGE_BYTES: usize = 1 << 20;
    /// Messages under way at a time. They exceed one peer's budget, so that a message is always waiting.
    const MESSAGES: usize = 8;
    const ROUND: Duration = Duration::from_millis(700);
    const ROUNDS: usize = 9;
    const TARGETS: (f64, f64) = (1.8, 1.2);

    pub(super) fn main() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run());
    }

    async fn run() {
        let hub_key = SecretKey::from_bytes([3; 32]);
        let mut rng = nurl::rt::rng("bench");
        let hub = mesh::Hub { key: hub_key.public(), addr: String::new() };
        let (authority, mut ticket) = Ticket::new_mesh(hub, nurl::rt::time::unix_now(), &mut rng);
        let hub = serve(HubConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            key: hub_key,
            meshes: vec![ServedMesh::issued_by(authority.into())],
            issued: None,
            roles: Roles::ALL,
            limits: HubLimits::default(),
        })
        .await
        .expect("loopback has a free port");
        ticket.hubs[0].addr = hub.addr().to_string();
        let (sender, receiver) = (node(&ticket).await, node(&ticket).await);
        direct(&sender, &receiver).await;

        let (mut datagrams, mut messages) = (Vec::new(), Vec::new());
        let mut rates = [const { Vec::new() }; 3];
        let mut lost = (0, 0);
        for _ in 0..ROUNDS {
            let plain = tokio::task::spawn_blocking(plain_round).await.expect("it doesn't panic");
            let (bulk, sent) = datagram_round(&sender, &receiver).await;
            let reliable = message_round(&sender, &receiver).await;
            lost = (lost.0 + sent - bulk.units, lost.1 + sent);
            datagrams.push(bulk.per_second() / plain.per_second());
            messages.push(reliable.bits_per_second() / plain.bits_per_second());
            for (rates, round) in rates.iter_mut().zip([plain, bulk, reliable]) {
                rates.push(round.bits_per_second() / 1e9);
            }
        }
        let [plain, bulk, reliable] = rates.map(median);
        let packets = |gbit: f64| gbit * 1e9 / 8.0 / BODY_BYTES as f64 / 1e3;
        println!("node to node on loopback, {ROUNDS} rounds in turns, medians, delivered only");
        println!(
            "plain sendto/recvfrom, {UDP_PAYLOAD_BYTES} bytes of UDP payload  {plain:>6.2} Gbit/s  {:>5.0} k/s",
            packets(plain)
        );
        println!(
            "bulk datagrams, {BODY_BYTES} bytes, sealed                  {bulk:>6.2} Gbit/s  {:>5.0} k/s  \
             ({:.1} % lost in the receiver's socket)",
            packets(bulk),
            100.0 * lost.0 as f64 / lost.1 as f64
        );
        println!("bulk messages, 1 MiB, sealed and reliable           {reliable:>6.2} Gbit/s");
        println!("ratio datagrams {:.2}  (target: at least {:.1})", median(datagrams), TARGETS.0);
        println!("ratio messages  {:.2}  (target: at least {:.1})", median(messages), TARGETS.1);
        sender.shutdown().await;
        receiver.shutdown().await;
        hub.shutdown().await;
    }

    async fn node(ticket: &Ticket) -> Node {
        let node = Node::builder(ticket.clone())
            .role(Role::Member)
            .listen(([127, 0, 0, 1], 0).into())
            .spawn()
            .await
            .expect("loopback has a free port");
        node.joined(Duration::from_secs(10)).await.expect("the hub is here");
        node
    }

    /// Waits until both sides use the direct path.
    async fn direct(left: &Node, right: &Node) {
        let since = Instant::now();
        left.connect(right.key()).await.expect("it runs");
        loop {
            let mut both = true;
            for (node, peer) in [(left, right), (right, left)] {
                let members = node.members().await.expect("it runs");
                both &= members.iter().any(|member| member.key == peer.key() && member.path.direct);
            }
            if both {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(20), "no direct path on loopback");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The data that one round delivered.
    struct Round {
        units: u64,
        bytes: u64,
        time: Duration,
    }

    impl Round {
        fn per_second(&self) -> f64 {
            self.units as f64 / self.time.as_secs_f64()
        }

        fn bits_per_second(&self) -> f64 {
            self.bytes as f64 * 8.0 / self.time.as_secs_f64()
        }
    }

    fn plain_round() -> Round {
        let bind = || UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port");
        let (from, to) = (bind(), bind());
        let addr = to.local_addr().expect("it is bound");
        to.set_read_timeout(Some(Duration::from_millis(50))).expect("not zero");
        let done = Arc::new(AtomicBool::new(false));
        let drain = {
            let done = done.clone();
            std::thread::spawn(move || {
                let (mut buffer, mut units) = ([0; 2048], 0);
                while !done.load(Relaxed) {
                    units += u64::from(to.recv_from(&mut buffer).is_ok());
                }
                units
            })
        };
        let payload = [7; UDP_PAYLOAD_BYTES];
        let begun = Instant::now();
        while begun.elapsed() < ROUND {
            for _ in 0..BATCH {
                // A full kernel buffer makes the call block; loopback has no other error.
                from.send_to(&payload, addr).expect("loopback is up");
            }
        }
        let time = begun.elapsed();
        done.store(true, Relaxed);
        let units = drain.join().expect("it doesn't panic");
        // The useful bytes of a sealed datagram of this size.
        Round { units, bytes: units * BODY_BYTES as u64, time }
    }

    async fn datagrams_out(node: &Node) -> u64 {
        node.metrics().await.expect("it runs").get("transport.datagrams_out").expect("it is counted")
    }

    /// The round, and the number of datagrams sent.
    async fn datagram_round(sender: &Node, receiver: &Node) -> (Round, u64) {
        let before = datagrams_out(sender).await;
        let got = Arc::new(AtomicU64::new(0));
        let drain = {
            let (receiver, got) = (receiver.clone(), got.clone());
            tokio::spawn(async move {
                while let Some(batch) = receiver.recv_many().await {
                    got.fetch_add(batch.len() as u64, Relaxed);
                }
            })
        };
        let body = Bytes::from(vec![7; BODY_BYTES]);
        let begun = Instant::now();
        while begun.elapsed() < ROUND {
            sender.send_many(receiver.key(), vec![body.clone(); BATCH]).await.expect("it runs");
        }
        let (time, units) = (begun.elapsed(), got.load(Relaxed));
        // Datagrams that are still queued don't belong to this round: they count neither as delivered nor as sent.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let late = got.load(Relaxed) - units;
        drain.abort();
        let sent = datagrams_out(sender).await - before;
        (Round { units, bytes: units * BODY_BYTES as u64, time }, sent - late)
    }

    async fn message_round(sender: &Node, receiver: &Node) -> Round {
        let got = Arc::new(AtomicU64::new(0));
        let drain = {
            let (receiver, got) = (receiver.clone(), got.clone());
            tokio::spawn(async move {
                while let Some((_, body)) = receiver.recv_message().await {
                    got.fetch_add(body.len() as u64, Relaxed);
                }
            })
        };
        let body = Bytes::from(vec![7; MESSAGE_BYTES]);
        let window = Arc::new(Semaphore::new(MESSAGES));
        let begun = Instant::now();
        let mut sends = Vec::new();
        while begun.elapsed() < ROUND {
            let permit = window.clone().acquire_owned().await.expect("never closed");
            let (sender, to, body) = (sender.clone(), receiver.key(), body.clone());
            sends.push(tokio::spawn(async move {
                sender.send_message(to, body).await.expect("the peer is here");
                drop(permit);
            }));
        }
        let (time, bytes) = (begun.elapsed(), got.load(Relaxed));
        for send in sends {
            send.await.expect("it doesn't panic");
        }
        drain.abort();
        Round { units: bytes / MESSAGE_BYTES as u64, bytes, time }
    }

    fn median(mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }
}

fn main() {
    #[cfg(not(feature = "sim"))]
    bench::main();
}
