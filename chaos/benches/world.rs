//! Datagrams per second at 50 hosts: our world, trace on, against madsim's own network in the same process,
//! with the same payload, latency and pattern. Prints both and the ratio, which must not fall below 1.5.
#![allow(clippy::disallowed_methods, reason = "madsim's side needs a thread of its own")]

#[cfg(madsim)]
mod bench {
    use std::io::IoSliceMut;
    use std::net::SocketAddr;
    use std::time::Duration;

    const HOSTS: usize = 50;
    const PAYLOAD_BYTES: usize = 100;
    /// Datagrams that each host sends to its neighbour, a burst at a time.
    const BURSTS: usize = 1000;
    const BURST: usize = 20;
    const GAP: Duration = Duration::from_millis(5);
    const LATENCY_MS: (u64, u64) = (10, 20);
    const PORT: u16 = 4000;
    const ROUNDS: usize = 5;

    fn ip(host: usize) -> String {
        format!("10.0.{}.{}", host / 250, host % 250 + 1)
    }

    fn neighbour(host: usize) -> SocketAddr {
        format!("{}:{PORT}", ip((host + 1) % HOSTS)).parse().unwrap()
    }

    fn ours() -> f64 {
        ours_and_digest().0
    }

    fn ours_and_digest() -> (f64, String) {
        use chaos::rt::{net, task, time};
        let began = cpu();
        let outcome = chaos::run(1, |world| async move {
            world.link_default(chaos::LinkConfig {
                latency: Duration::from_millis(LATENCY_MS.0),
                jitter: Duration::from_millis(LATENCY_MS.1 - LATENCY_MS.0),
                ..chaos::LinkConfig::default()
            });
            let hosts: Vec<_> = (0..HOSTS).map(|n| world.host(&format!("h{n}")).addr(&ip(n))).collect();
            let ends: Vec<_> = hosts
                .iter()
                .enumerate()
                .map(|(n, host)| {
                    host.run(async move {
                        let any = SocketAddr::from(([0, 0, 0, 0], PORT));
                        let socket = std::sync::Arc::new(net::UdpSocket::bind(any).await.unwrap());
                        let sender = socket.clone();
                        task::spawn(async move {
                            time::sleep(GAP).await;
                            let payload = [7; PAYLOAD_BYTES];
                            for _ in 0..BURSTS {
                                for _ in 0..BURST {
                                    sender
                                        .try_send(&net::Transmit {
                                            destination: neighbour(n),
                                            contents: &payload,
                                            segment_size: None,
                                            src_ip: None,
                                        })
                                        .unwrap();
                                }
                                time::sleep(GAP).await;
                            }
                        });
                        let mut buffer = [0; 2048];
                        let mut seen = 0;
                        while seen < BURSTS * BURST {
                            let mut metas = [net::RecvMeta::default()];
                            seen +=
                                socket.recv(&mut [IoSliceMut::new(&mut buffer)], &mut metas).await.unwrap();
                        }
                    })
                })
                .collect();
            for end in ends {
                end.await.unwrap();
            }
        });
        outcome.result.unwrap();
        assert_eq!(outcome.stats.packets_delivered, (HOSTS * BURSTS * BURST) as u64);
        (rate(began), outcome.digest)
    }

    /// CPU time of this process so far, which a busy machine doesn't stretch: user and system ticks of a
    /// hundredth of a second, the 14th and 15th field of Linux's `/proc/self/stat`.
    fn cpu() -> Duration {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let (_, behind_name) = stat.rsplit_once(')').unwrap();
        let ticks = |field| behind_name.split_whitespace().nth(field).unwrap().parse::<u64>().unwrap();
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    fn rate(began: Duration) -> f64 {
        (HOSTS * BURSTS * BURST) as f64 / (cpu() - began).as_secs_f64()
    }

    fn madsims() -> f64 {
        use madsim::net::Endpoint;
        use madsim::{task, time};
        let began = cpu();
        std::thread::spawn(|| {
            let mut config = madsim::Config::default();
            config.net.send_latency =
                Duration::from_millis(LATENCY_MS.0)..Duration::from_millis(LATENCY_MS.1);
            let runtime = madsim::runtime::Runtime::with_seed_and_config(1, config);
            runtime.block_on(async {
                let handle = madsim::runtime::Handle::current();
                let ends: Vec<_> = (0..HOSTS)
                    .map(|n| {
                        let node = handle.create_node().ip(ip(n).parse().unwrap()).build();
                        node.spawn(async move {
                            let endpoint = Endpoint::bind(("0.0.0.0", PORT)).await.unwrap();
                            let endpoint = std::sync::Arc::new(endpoint);
                            let sender = endpoint.clone();
                            task::spawn(async move {
                                time::sleep(GAP).await;
                                let payload = [7; PAYLOAD_BYTES];
                                let destination = neighbour(n);
                                for _ in 0..BURSTS {
                                    // Each send waits a millisecond of its own: a burst is sent side by side.
                                    let sends: Vec<_> = (0..BURST)
                                        .map(|_| Box::pin(sender.send_to(destination, 0, &payload)))
                                        .collect();
                                    for send in join_all(sends).await {
                                        send.unwrap();
                                    }
                                    time::sleep(GAP).await;
                                }
                            });
                            let mut buffer = [0; 2048];
                            for _ in 0..BURSTS * BURST {
                                endpoint.recv_from(0, &mut buffer).await.unwrap();
                            }
                        })
                    })
                    .collect();
                for end in ends {
                    end.await.unwrap();
                }
            });
        })
        .join()
        .unwrap();
        rate(began)
    }

    /// Sends one behind the other, as a program written for madsim's network would.
    fn madsims_plain() -> f64 {
        use madsim::net::Endpoint;
        use madsim::task;
        let began = cpu();
        std::thread::spawn(|| {
            let mut config = madsim::Config::default();
            config.net.send_latency =
                Duration::from_millis(LATENCY_MS.0)..Duration::from_millis(LATENCY_MS.1);
            let runtime = madsim::runtime::Runtime::with_seed_and_config(1, config);
            runtime.block_on(async {
                let handle = madsim::runtime::Handle::current();
                let ends: Vec<_> = (0..HOSTS)
                    .map(|n| {
                        let node = handle.create_node().ip(ip(n).parse().unwrap()).build();
                        node.spawn(async move {
                            let endpoint = Endpoint::bind(("0.0.0.0", PORT)).await.unwrap();
                            let endpoint = std::sync::Arc::new(endpoint);
                            let sender = endpoint.clone();
                            task::spawn(async move {
                                madsim::time::sleep(GAP).await;
                                for _ in 0..BURSTS * BURST {
                                    sender.send_to(neighbour(n), 0, &[7; PAYLOAD_BYTES]).await.unwrap();
                                }
                            });
                            let mut buffer = [0; 2048];
                            for _ in 0..BURSTS * BURST {
                                endpoint.recv_from(0, &mut buffer).await.unwrap();
                            }
                        })
                    })
                    .collect();
                for end in ends {
                    end.await.unwrap();
                }
            });
        })
        .join()
        .unwrap();
        rate(began)
    }

    async fn join_all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
        let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
        std::future::poll_fn(|cx| {
            let mut pending = false;
            for (future, output) in futures.iter_mut().zip(&mut outputs) {
                if output.is_none() {
                    match std::pin::Pin::new(future).poll(cx) {
                        std::task::Poll::Ready(value) => *output = Some(value),
                        std::task::Poll::Pending => pending = true,
                    }
                }
            }
            if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
        })
        .await;
        outputs.into_iter().flatten().collect()
    }

    pub(super) fn main() {
        let (mut ours, mut theirs, mut plain) = (0f64, 0f64, 0f64);
        // In turns, so that all three meet the same machine.
        for _ in 0..ROUNDS {
            ours = ours.max(self::ours());
            theirs = theirs.max(madsims());
            plain = plain.max(madsims_plain());
        }
        let best_of_theirs = theirs.max(plain);
        println!("{HOSTS} hosts, {PAYLOAD_BYTES} bytes a datagram, CPU time, best of {ROUNDS} rounds");
        println!("the world, trace on        {ours:>12.0} datagrams/s");
        println!("madsim::net, side by side  {theirs:>12.0} datagrams/s");
        println!("madsim::net, one by one    {plain:>12.0} datagrams/s");
        println!("digest                     {}", ours_and_digest().1);
        println!("ratio to its better        {:>12.2}", ours / best_of_theirs);
    }
}

fn main() {
    #[cfg(madsim)]
    bench::main();
}
