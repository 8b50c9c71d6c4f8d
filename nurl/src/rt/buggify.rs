//! The points at which a node does, on purpose, what is allowed and rare: it takes one datagram where many wait, wakes
//! early, finds a queue full. The fault `buggify` of the simulated world turns them on; in a real build none fires, and
//! nothing is left of them.
//!
//! Whatever follows from a point must be right, only slower.

macro_rules! points {
    ($($point:ident = $name:literal: $about:literal,)*) => {
        /// A point.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Point {
            $(#[doc = $about] $point,)*
        }

        #[cfg(feature = "sim")]
        impl Point {
            const fn name(self) -> &'static str {
                match self {
                    $(Point::$point => $name,)*
                }
            }
        }

        /// All points, as a scenario lists them.
        #[cfg(feature = "sim")]
        pub const POINTS: &[chaos::Point] = &[$(chaos::Point { name: $name, about: $about },)*];
    };
}

points! {
    // The network plane, its sockets and its hubs' streams.
    ReceiveOne = "receive-one": "the kernel gives one batch of datagrams at a time",
    ReceiveLater = "receive-later": "a turn leaves its datagrams to the next one",
    SendOne = "send-one": "the kernel takes no batches",
    SendBlocked = "send-blocked": "the kernel's send buffer is full",
    OutboxFull = "outbox-full": "producers of datagrams have to wait",
    NetWakesEarly = "net-wakes-early": "the network plane wakes before anything is due",
    OneCommand = "one-command": "the network plane takes one command at a turn",
    ResolvedInVain = "resolved-in-vain": "the address of a hub's name gets lost",
    ReadByte = "read-byte": "a stream from a hub gives one byte at a time",
    WriteByte = "write-byte": "a stream to a hub takes one byte at a time",
    HubEnds = "hub-ends": "a hub's stream ends",
    // The hub.
    HubReadsByte = "hub-reads-byte": "a client's stream gives its hub one byte at a time",
    HubDrops = "hub-drops": "a client's queue at its hub is full",
    ListOne = "list-one": "a hub lists one record",
    // Sessions and paths.
    RekeySoon = "rekey-soon": "a session is replaced after seconds",
    CookieDemanded = "cookie-demanded": "an endpoint is under load, and asks for a cookie",
    PathDoubted = "path-doubted": "a path is doubted that works",
    // Reliable messages.
    SendBudgetSpent = "send-budget-spent": "messages to others have taken the send budget",
    // Membership.
    GossipNothing = "gossip-nothing": "a message has no room for facts",
    GossipOne = "gossip-one": "a message has room for one fact",
    TableInCrumbs = "table-in-crumbs": "a table is told a fact at a time",
    TableRefused = "table-refused": "a node has told enough of its table in this second",
    NoHelpers = "no-helpers": "a probe that isn't answered finds no helper",
    ExchangeBusy = "exchange-busy": "a node has too many exchanges of tables under way",
    // Replicated state.
    StateOutboxFull = "state-outbox-full": "the queue of replication's messages is full",
    AckLost = "ack-lost": "an owner's acknowledgement of a write gets lost",
    OperationRepeated = "operation-repeated": "an observer's write is sent twice",
    RepairSpent = "repair-spent": "the budget of repair is spent",
    SummaryOfOne = "summary-of-one": "a summary covers one key",
    DigestsCut = "digests-cut": "an answer to a summary has room for one digest",
    PullOne = "pull-one": "one state is asked for at a time",
    StatesApart = "states-apart": "each state is a message of its own",
    HandOffOne = "hand-off-one": "one copy is offered at a tick",
    PartOfOne = "part-of-one": "a summary that differs is answered in parts however few keys there are",
    PlaceOne = "place-one": "one key is placed at a stretch after a change of the ring",
    // Jobs.
    WorkWakesEarly = "work-wakes-early": "the work plane wakes before anything is due",
    OneInput = "one-input": "the work plane takes one input at a turn",
    Busy = "busy": "an executor has no room for a task",
    NoTenure = "no-tenure": "an executor's next epochs aren't durable yet",
    JobMessageLost = "job-message-lost": "the queue of the job layer's messages is full",
    EachBeatAsks = "each-beat-asks": "each beat asks for an answer",
    EpochsTwice = "epochs-twice": "the next epochs are made durable twice",
    StoreByOne = "store-by-one": "each change is a transaction of its own",
}

/// Whether to take the rare way at this point.
#[cfg(feature = "sim")]
#[inline]
pub fn buggify(point: Point) -> bool {
    chaos::rt::buggify(point.name())
}

/// Whether to take the rare way at this point: never, in a real build.
#[cfg(not(feature = "sim"))]
#[inline]
pub const fn buggify(_: Point) -> bool {
    false
}
