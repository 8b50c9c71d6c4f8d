//! Writes to replicated state at a node with a store, one writer and many at a time, against plain redb with one commit for
//! each write and with one for as many writes as there are writers. A write is over when it is on the disk. Target: the
//! writers together at least 20 times as fast as one alone.
//!
//! Each writer adds to a counter of its own, and makes its next write when the last one is over; redb is written records of
//! about the same size. The node is the only member of its mesh, so no network is between. The four variants run in turns,
//! and the results are the medians of the rounds, because other load on the disk affects all variants alike.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark reads the clock")]

#[cfg(not(feature = "sim"))]
mod bench {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use nurl::internals::key::SecretKey;
    use nurl::internals::mesh;
    use nurl::internals::net::reach::hub::{HubConfig, HubLimits, ServedMesh, serve};
    use nurl::internals::net::reach::relay::Roles;
    use nurl::internals::node::Role;
    use nurl::{Node, Ticket};
    use redb::{Database, TableDefinition};

    const WRITERS: usize = 256;
    /// About the bytes of a counter's record.
    const RECORD_BYTES: usize = 80;
    const ROUND: Duration = Duration::from_millis(700);
    const ROUNDS: usize = 9;
    const TARGET: f64 = 20.0;
    const TABLE: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("records");

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
        // In the folder of the build, because a temporary folder may be in memory.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a disk with room");
        let node = node(&ticket, dir.path()).await;
        let database = Database::create(dir.path().join("plain.redb")).expect("a disk with room");

        let mut rates = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            rates[0].push(plain_round(&database, 1));
            rates[1].push(plain_round(&database, WRITERS));
            rates[2].push(node_round(&node, 1).await);
            rates[3].push(node_round(&node, WRITERS).await);
        }
        let [plain_one, plain_many, one, many] = rates.map(median);
        println!("writes to a disk, {ROUNDS} rounds in turns, medians, durable only");
        println!("plain redb, one write in a commit      {plain_one:>9.0} /s");
        println!("plain redb, {WRITERS} writes in a commit    {plain_many:>9.0} /s");
        println!("a node with a store, one writer        {one:>9.0} /s");
        println!("a node with a store, {WRITERS} writers      {many:>9.0} /s");
        println!("ratio one writer / plain redb          {:>9.2}", one / plain_one);
        println!("ratio {WRITERS} writers / plain redb         {:>9.2}", many / plain_many);
        println!(
            "ratio {WRITERS} writers / one writer         {:>9.2}  (target: at least {TARGET:.0})",
            many / one
        );
        node.shutdown().await;
        hub.shutdown().await;
    }

    async fn node(ticket: &Ticket, dir: &Path) -> Node {
        let node = Node::builder(ticket.clone())
            .role(Role::Worker)
            .listen(([127, 0, 0, 1], 0).into())
            .store(dir)
            .spawn()
            .await
            .expect("loopback has a free port, and the disk has room");
        node.joined(Duration::from_secs(10)).await.expect("the hub is here");
        node
    }

    /// Writes a second.
    async fn node_round(node: &Node, writers: usize) -> f64 {
        let begun = Instant::now();
        let writers: Vec<_> = (0..writers)
            .map(|writer| {
                let counter = node.counter(&format!("writer-{writer}"));
                tokio::spawn(async move {
                    let mut writes = 0u64;
                    while begun.elapsed() < ROUND {
                        counter.add(1).await.expect("the disk has room");
                        writes += 1;
                    }
                    writes
                })
            })
            .collect();
        let mut writes = 0;
        for writer in writers {
            writes += writer.await.expect("it doesn't panic");
        }
        writes as f64 / begun.elapsed().as_secs_f64()
    }

    /// Writes a second.
    fn plain_round(database: &Database, in_a_commit: usize) -> f64 {
        let begun = Instant::now();
        let mut writes = 0u64;
        while begun.elapsed() < ROUND {
            let write = database.begin_write().expect("the disk works");
            {
                let mut table = write.open_table(TABLE).expect("the disk works");
                for writer in 0..in_a_commit {
                    let record = [writes as u8; RECORD_BYTES];
                    table.insert(format!("writer-{writer}").as_str(), &record[..]).expect("the disk works");
                    writes += 1;
                }
            }
            write.commit().expect("the disk has room");
        }
        writes as f64 / begun.elapsed().as_secs_f64()
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
