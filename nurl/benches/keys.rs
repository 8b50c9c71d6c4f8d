//! What many keys cost an owner: how long a change of the ring holds it, and what it takes to find a hundred differences
//! among 100,000 keys, beside range-based set reconciliation (`negentropy`) and a rateless sketch (`riblt`).
//!
//! The two owners talk over a way of 20 ms there and back, in time that is counted and not waited for; they send nothing
//! but what they would on a network. The others' bytes are those of the question which items differ, by 32 and 16 bytes for
//! each; what they differ in is sent besides, as ours are.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark reads the clock")]

#[cfg(not(feature = "sim"))]
mod bench {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use negentropy::{Id, Negentropy, NegentropyStorageVector};
    use nurl::PublicKey;
    use nurl::internals::replication::identity::ReplicaId;
    use nurl::internals::replication::replicator::{Config, Confirm, Op, Replicator};
    use nurl::internals::ring::{Ring, RingMember};
    use nurl::rt::{Rng, time};
    use rand_core::SeedableRng;
    use riblt::{RatelessIBLT, Symbol, UnmanagedRatelessIBLT};

    const KEYS: u64 = 100_000;
    const DIFFERENCES: u64 = 100;
    const ONE_WAY: Duration = Duration::from_millis(10);
    const WALL: Duration = Duration::from_secs(1_700_000_000);
    /// Seconds that the differences may stay.
    const TARGET: f64 = 3.0;
    /// Keys of the node whose ring changes.
    const MANY: u64 = 1_000_000;
    /// Milliseconds for which it may do nothing else.
    const HELD: f64 = 50.0;

    pub(super) fn main() {
        reconcile();
        change_the_ring();
    }

    fn ring(members: u8) -> Arc<Ring> {
        Arc::new(Ring::new((1..=members).map(|n| RingMember {
            boot: 0,
            key: PublicKey::from_bytes([n; 32]),
            seed: [n; 8],
            weight: 1,
            zone: String::new(),
            kinds: Vec::new(),
            live: true,
            placed: true,
        })))
    }

    fn node(n: u8, now: Instant, members: u8) -> Replicator {
        let local = ReplicaId { key: PublicKey::from_bytes([n; 32]), incarnation: 1 };
        let config = Config { durable: true, ..Config::default() };
        let mut node = Replicator::new(config, local, now, Rng::from_seed([n; 32]));
        node.set_ring(now, ring(members));
        node
    }

    /// A name of 16 bytes.
    fn name(n: u64) -> String {
        format!("{n:016x}")
    }

    fn add(node: &mut Replicator, now: Instant, n: u64) {
        node.update(now, WALL, n, name(n).as_bytes(), (Op::Add { by: 1 }, Confirm::Nodes(1)));
        while node.poll_changed().is_some() {}
        while node.poll_event().is_some() {}
    }

    /// Two nodes, and what is on its way between them.
    struct Pair {
        nodes: [Replicator; 2],
        now: Instant,
        /// By the time of arrival, and in the order of sending.
        way: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
        sent: u64,
        bytes: [usize; 2],
    }

    impl Pair {
        fn send(&mut self) {
            for from in 0..2 {
                while self.nodes[from].poll_changed().is_some() {}
                while self.nodes[from].poll_event().is_some() {}
                while let Some((_, bytes)) = self.nodes[from].poll_transmit() {
                    // DELTA, STATES: 0 and 6, at the second byte of the CBOR.
                    self.bytes[usize::from(matches!(bytes.get(1), Some(0 | 6)))] += bytes.len();
                    self.way.insert((self.now + ONE_WAY, self.sent), (1 - from, bytes));
                    self.sent += 1;
                }
            }
        }

        fn step(&mut self) {
            let arrival = self.way.first_key_value().map(|((at, _), _)| *at);
            let due = self.nodes.iter().filter_map(Replicator::poll_timeout).chain(arrival).min();
            self.now = self.now.max(due.expect("a tick is always due"));
            while let Some(entry) = self.way.first_entry()
                && entry.key().0 <= self.now
            {
                let (to, bytes) = entry.remove();
                let from = PublicKey::from_bytes([2 - to as u8; 32]);
                self.nodes[to].handle_message(self.now, WALL, from, &bytes);
            }
            for node in &mut self.nodes {
                node.handle_timeout(self.now, WALL);
            }
            self.send();
        }

        fn run(&mut self, time: Duration) {
            let until = self.now + time;
            while self.now < until {
                self.step();
            }
        }

        fn agree(&self) -> bool {
            (0..KEYS).step_by((KEYS / DIFFERENCES) as usize).all(|n| {
                let key = [&[1], name(n).as_bytes()].concat();
                self.nodes[0].get(&key) == self.nodes[1].get(&key)
            })
        }
    }

    fn reconcile() {
        let now = time::now();
        let mut pair = Pair {
            nodes: [node(1, now, 2), node(2, now, 2)],
            now,
            way: BTreeMap::new(),
            sent: 0,
            bytes: [0; 2],
        };
        for n in 0..KEYS {
            add(&mut pair.nodes[0], now, n);
            if n % 500 == 0 {
                pair.send();
                pair.run(ONE_WAY * 3);
            }
        }
        pair.run(Duration::from_secs(30));
        pair.bytes = [0; 2];
        pair.run(Duration::from_secs(10));
        let equal = pair.bytes[0];
        // What the second one isn't told.
        for n in (0..KEYS).step_by((KEYS / DIFFERENCES) as usize) {
            let now = pair.now;
            add(&mut pair.nodes[0], now, n);
        }
        while pair.nodes[0].poll_transmit().is_some() {}
        pair.bytes = [0; 2];
        // A round begins every 10 s; from its first message on, the time counts.
        while pair.bytes[0] == 0 {
            pair.step();
        }
        let begun = pair.now;
        while !pair.agree() {
            pair.step();
        }
        let seconds = (pair.now - begun).as_secs_f64();
        let ours = pair.bytes[0];
        let (ranges, sketch) = (negentropy_bytes(), riblt_bytes());
        println!(
            "{DIFFERENCES} differences among {KEYS} keys, at {} ms there and back",
            2 * ONE_WAY.as_millis()
        );
        println!("settled within                         {seconds:>9.2} s   (target: at most {TARGET})");
        println!("bytes of a round that finds none       {equal:>9}");
        println!("bytes to find them                     {ours:>9}, and {} of states", pair.bytes[1]);
        println!("bytes of negentropy                    {ranges:>9}");
        println!("bytes of a rateless sketch             {sketch:>9}");
        println!("ratio to negentropy                    {:>9.2}", ours as f64 / ranges as f64);
        println!("ratio to a rateless sketch             {:>9.2}", ours as f64 / sketch as f64);
    }

    /// What a set has of a key.
    fn id(n: u64, changed: bool) -> [u8; 32] {
        let differs = changed && n.is_multiple_of(KEYS / DIFFERENCES);
        *blake3::hash(format!("{n} {differs}").as_bytes()).as_bytes()
    }

    fn negentropy_bytes() -> usize {
        let storage = |changed: bool| {
            let mut storage = NegentropyStorageVector::new();
            for n in 0..KEYS {
                storage.insert(n, Id::from_byte_array(id(n, changed))).expect("it isn't sealed");
            }
            storage.seal().expect("once");
            storage
        };
        let (here, there) = (storage(true), storage(false));
        let mut client = Negentropy::borrowed(&here, 0).expect("no limit");
        let mut server = Negentropy::borrowed(&there, 0).expect("no limit");
        let (mut have, mut need) = (Vec::new(), Vec::new());
        let mut asked = Some(client.initiate().expect("once"));
        let mut bytes = 0;
        while let Some(question) = asked {
            let answer = server.reconcile(&question).expect("it is well formed");
            bytes += question.len() + answer.len();
            let next = client.reconcile_with_ids(&answer, &mut have, &mut need).expect("it is well formed");
            asked = next;
        }
        assert_eq!((have.len() as u64, need.len() as u64), (DIFFERENCES, DIFFERENCES));
        bytes
    }

    #[derive(Debug, Clone)]
    struct Element([u8; 16]);

    impl Symbol for Element {
        const BYTE_ARRAY_LENGTH: usize = 16;

        fn encode_to_bytes(&self) -> Vec<u8> {
            self.0.to_vec()
        }

        fn decode_from_bytes(bytes: &Vec<u8>) -> Element {
            Element(*bytes.first_chunk().expect("16 bytes"))
        }
    }

    fn riblt_bytes() -> usize {
        let set = |changed: bool| -> Vec<Element> {
            let ids = (0..KEYS).map(|n| id(n, changed));
            ids.map(|id| Element(*id.first_chunk().expect("32 bytes"))).collect()
        };
        let (mut here, mut there) = (RatelessIBLT::new(set(true)), RatelessIBLT::new(set(false)));
        let mut both = Vec::new();
        for count in 1.. {
            let (ours, theirs) = (here.get_coded_symbol(count - 1), there.get_coded_symbol(count - 1));
            both.push(ours.collapse(&theirs));
            let mut rest = UnmanagedRatelessIBLT::<Element> { coded_symbols: both.clone() };
            if rest.peel_all_symbols().len() as u64 == 2 * DIFFERENCES && rest.is_empty() {
                // The sum, its hash, and a number of two bytes.
                return count * (Element::BYTE_ARRAY_LENGTH + 8 + 2);
            }
        }
        unreachable!("it ends")
    }

    fn change_the_ring() {
        let mut now = time::now();
        // The three own all keys.
        let mut node = node(1, now, 3);
        for n in 0..MANY {
            add(&mut node, now, n);
            while node.poll_transmit().is_some() {}
        }
        let last = [&[1], name(MANY - 1).as_bytes()].concat();
        assert!(node.get(&last).is_some(), "it holds all of them");
        let mut stretches = Vec::new();
        let begun = Instant::now();
        node.set_ring(now, ring(4));
        stretches.push(begun.elapsed());
        let mut count = 0;
        while node.poll_timeout() <= Some(now) || count < 3 {
            let begun = Instant::now();
            node.handle_timeout(now, WALL);
            stretches.push(begun.elapsed());
            while node.poll_transmit().is_some() {}
            count += 1;
            now += Duration::from_millis(1);
        }
        let longest = stretches.iter().max().expect("one at least").as_secs_f64() * 1e3;
        let all: Duration = stretches.iter().sum();
        println!("a change of the ring, {MANY} keys held");
        println!("the longest stretch                    {longest:>9.1} ms  (target: at most {HELD})");
        println!(
            "all {:>4} of them together              {:>9.1} ms",
            stretches.len(),
            all.as_secs_f64() * 1e3
        );
    }
}

fn main() {
    #[cfg(not(feature = "sim"))]
    bench::main();
}
