//! What one thing that the application does costs: the exact difference that it makes to what all nodes count.

use std::collections::BTreeMap;
use std::time::Duration;

use chaos::property::Violation;
use chaos::world::World;

use super::books::Books;
use super::cadence;
use super::shape::Shape;
use crate::cluster::Cluster;

/// What is paid, and nothing else.
const PRICE: &str = "what an application does costs what the protocol says, and moves nothing else";
const TIDY: &str = "nothing of a finished task is left but its outcome's hash";
const AT_ONCE: &str = "the owners of a key have an outcome when its submitter has it, or one way later";
const SOON: &str = "what an application does takes the round trips that the protocol says";

/// What follows, such as acknowledgements and copies, is over after this.
const AFTERWARDS: Duration = Duration::from_secs(6);

/// What the processors and the timers of both ends take, beyond the links.
const WORK: Duration = Duration::from_millis(3);

/// Sizes of what waits or runs: nothing does, before and after.
const EMPTY: [&str; 9] = [
    "job.open",
    "job.executing",
    "job.running",
    "job.record_bytes",
    "pool.running",
    "state.unacknowledged",
    "node.messages_waiting",
    "membership.health",
    "transport.stuck_peers.now",
];

/// A summary that crosses a write counts as one that differs, and is followed by this many messages at most: digests, a pull
/// and states from both sides.
const CROSSED: [&str; 2] = ["state.out_of_sync", "state.states_sent"];
const MOST_CROSSED: i64 = 2;
const PER_CROSSED: i64 = 4;

/// What traffic of an application shifts: keepalives in place of answers, measurements of ways that carry data.
const SHIFTED: [&str; 7] = [
    "path.answers",
    "path.challenges",
    "path.echoes",
    "path.keepalives",
    "hub.sent",
    "membership.gossips",
    "hub.received",
];

/// What all nodes are to count beyond their cadence.
#[derive(Debug, Clone)]
pub(super) struct Bill {
    messages: Vec<i64>,
    counts: BTreeMap<(&'static str, usize), i64>,
    records: Vec<i64>,
    /// Packets beyond one or two for each message: those of long ones.
    packets: i64,
    /// It is a write, which a summary may cross.
    crosses: bool,
}

impl Bill {
    pub(super) fn new(shape: &Shape) -> Bill {
        let none = vec![0; shape.nodes()];
        Bill { messages: none.clone(), counts: BTreeMap::new(), records: none, packets: 0, crosses: false }
    }

    /// Reliable messages from one node to another; what a node says to itself is none.
    pub(super) fn messages(&mut self, from: usize, to: usize, count: i64) {
        if from != to {
            self.messages[from] += count;
        }
    }

    pub(super) fn count(&mut self, name: &'static str, node: usize, count: i64) {
        *self.counts.entry((name, node)).or_default() += count;
    }

    /// A node keeps an outcome.
    pub(super) fn record(&mut self, node: usize) {
        self.records[node] += 1;
    }

    /// It is a write: a summary that is under way with it finds a difference, and is answered.
    pub(super) fn crosses(&mut self) {
        self.crosses = true;
    }

    /// A message has so many bytes.
    pub(super) fn long(&mut self, bytes: usize) {
        // Each packet of 1,200 bytes, and as many acknowledgements at most.
        self.packets += 2 * (bytes / 1_000) as i64;
    }

    pub(super) fn add(&mut self, other: &Bill) {
        for node in 0..self.messages.len() {
            self.messages[node] += other.messages[node];
            self.records[node] += other.records[node];
        }
        for ((name, node), count) in &other.counts {
            self.count(name, *node, *count);
        }
        self.packets += other.packets;
    }
}

/// The till: books before something is done, compared with those after it.
pub(super) struct Till<'a> {
    pub(super) world: World,
    pub(super) cluster: &'a Cluster,
    pub(super) shape: &'a Shape,
    pub(super) latency: Duration,
    /// The outcomes that each node has to keep now.
    records: Vec<i64>,
    before: Books,
    opened: Duration,
    /// What cost more or less than it has to, so far.
    wrong: Vec<String>,
}

impl<'a> Till<'a> {
    pub(super) async fn open(cluster: &'a Cluster, shape: &'a Shape, latency: Duration) -> Till<'a> {
        let world = cluster.world();
        let records = vec![0; shape.nodes()];
        let before = Books::read(cluster).await;
        Till { world, cluster, shape, latency, records, before, opened: world.elapsed(), wrong: Vec::new() }
    }

    /// There and back between two nodes.
    pub(super) fn round_trip(&self, one: usize, other: usize) -> Duration {
        match (one == other, self.shape.is_direct(one, other)) {
            (true, _) => Duration::ZERO,
            (_, true) => 2 * self.latency,
            (_, false) => 4 * self.latency,
        }
    }

    /// Something took this long, and may take so long.
    pub(super) fn took(&self, what: &str, took: Duration, bound: Duration) -> Result<(), Violation> {
        if took <= bound + WORK {
            return Ok(());
        }
        Err(Violation::safety(SOON, format!("{what} took {took:?}, not {bound:?}")))
    }

    /// The outcome has arrived: all that this bill says have their copies one way later, relayed or not.
    pub(super) async fn kept(&self, what: &str, bill: &Bill) -> Result<(), Violation> {
        self.world.sleep(2 * self.latency + WORK).await;
        let books = Books::read_now(self.cluster).await;
        for node in 0..self.shape.nodes() {
            let (is, should) = (books.of("job.records", node), self.records[node] + bill.records[node]);
            if is != should {
                let name = self.shape.name(node);
                return Err(Violation::safety(
                    AT_ONCE,
                    format!("{what}: {name} keeps {is} outcomes, not {should}"),
                ));
            }
        }
        Ok(())
    }

    /// Compares what all have counted since the last bill with this one.
    pub(super) async fn pay(&mut self, what: &str, bill: &Bill) -> Result<(), Violation> {
        self.world.sleep(AFTERWARDS).await;
        let after = Books::read(self.cluster).await;
        let now = self.world.elapsed();
        let grown = after.since(&self.before);
        let seconds = (now - self.opened).as_secs_f64();
        let beyond = |name: &str, node: usize| {
            bill.counts
                .iter()
                .filter(|((of, at), _)| *of == name && *at == node)
                .map(|(_, count)| *count)
                .sum()
        };
        let crossed = if bill.crosses { grown.sum("state.out_of_sync").min(MOST_CROSSED) } else { 0 };
        let skipped = if crossed > 0 { [&SHIFTED[..], &CROSSED].concat() } else { SHIFTED.to_vec() };
        let mut wrong = cadence::wrong(self.shape, &grown, seconds, beyond, &skipped);
        let mut more = 0;
        for node in 0..self.shape.nodes() {
            let name = self.shape.name(node);
            let beyond = grown.messages(node) - bill.messages[node];
            more += beyond;
            if beyond < 0 || beyond > crossed * PER_CROSSED {
                wrong.push(format!(
                    "{name} sent {} messages, not {}",
                    grown.messages(node),
                    bill.messages[node]
                ));
            }
            self.records[node] += bill.records[node];
            if after.of("job.records", node) != self.records[node] {
                wrong.push(format!(
                    "{name} keeps {} outcomes, not {}",
                    after.of("job.records", node),
                    self.records[node]
                ));
            }
        }
        let messages = bill.messages.iter().sum::<i64>() + more;
        wrong.extend(cadence::wrong_sums(self.shape, &grown, messages, bill.packets));
        (self.before, self.opened) = (after, now);
        self.nothing_left(what)?;
        if !wrong.is_empty() {
            self.wrong.push(format!("{what}: {}", wrong.join("; ")));
        }
        Ok(())
    }

    /// Tells all bills that didn't fit.
    pub(super) fn close(self) -> Result<(), Violation> {
        if self.wrong.is_empty() { Ok(()) } else { Err(Violation::safety(PRICE, self.wrong.join(". "))) }
    }

    /// The outcomes that all nodes keep.
    pub(super) fn records(&self) -> i64 {
        self.records.iter().sum()
    }

    fn nothing_left(&self, what: &str) -> Result<(), Violation> {
        for gauge in EMPTY {
            if self.before.sum(gauge) != 0 {
                return Err(Violation::safety(
                    TIDY,
                    format!("{what}: {gauge} is {}", self.before.sum(gauge)),
                ));
            }
        }
        Ok(())
    }
}
