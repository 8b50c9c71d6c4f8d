//! The list of scenarios.

use std::time::Duration;

use chaos::scenario::{Held, Mark, Purpose, Scenario};

use crate::scenarios::{canary, churn, deaths, fence, goodbye, keystone, lease, pinned, poison, swarm};

/// The defaults of a scenario.
const PLAIN: Scenario = Scenario::new("", "", |_| Box::pin(async { Ok(Held::default()) }));

/// All scenarios.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "blackout",
        about: "a bulk transfer survives 1.5 s without its direct path, and changes leg",
        body: |trial| Box::pin(crate::scenarios::blackout::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "canary",
        about: "a planted bug, in a protocol of its own: every sweep must find it",
        purpose: Purpose::Canary,
        knobs: canary::KNOBS,
        faults: canary::FAULTS,
        body: |trial| Box::pin(canary::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "circle",
        about: "views that differ send jobs in circles: four hops at most, and they run once views agree",
        body: |trial| Box::pin(crate::scenarios::circle::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "churn",
        about: "replicas under drawn faults, and with disks lost: the same bytes everywhere, what was written in them",
        knobs: churn::KNOBS,
        faults: churn::FAULTS,
        marks: churn::MARKS,
        time_limit: churn::TIME_LIMIT,
        body: |trial| Box::pin(churn::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "clients",
        about: "200 clients come and go, some are killed: each is served at once, and nothing is left of it",
        marks: crate::scenarios::clients::MARKS,
        time_limit: Duration::from_secs(1_200),
        body: |trial| Box::pin(crate::scenarios::clients::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "crowd",
        about: "newcomers come when most have just gone, and among made-up records: they are in at once",
        marks: crate::scenarios::crowd::MARKS,
        body: |trial| Box::pin(crate::scenarios::crowd::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "converge",
        about: "8 nodes, 30 % UDP and 5 % TCP loss, reordering, one crash: all learn it, no healthy one is held dead",
        body: |trial| Box::pin(crate::scenarios::converge::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "converge-hard",
        about: "the same with 30 % loss on both: all meet and learn the death; false deaths are told",
        body: |trial| Box::pin(crate::scenarios::converge::run_hard(trial)),
        ..PLAIN
    },
    Scenario {
        name: "deaths",
        about: "a quarter, half, four fifths of 20 die at one instant: all know it within twice the time of one death",
        knobs: deaths::KNOBS,
        marks: deaths::MARKS,
        body: |trial| Box::pin(deaths::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "families",
        about: "IPv4, IPv6 and both, a hub with both: direct where either family lets it be, relayed elsewhere",
        body: |trial| Box::pin(crate::scenarios::families::run(trial)),
        marks: crate::scenarios::families::MARKS,
        ..PLAIN
    },
    Scenario {
        name: "fence",
        about: "two owners act for one key, under loss, across restarts: no effect happens twice",
        knobs: fence::KNOBS,
        marks: fence::MARKS,
        body: |trial| Box::pin(fence::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "goodbye",
        about: "nodes write and leave at once: what was acknowledged is held by those that stay",
        knobs: goodbye::KNOBS,
        body: |trial| Box::pin(goodbye::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "go-between",
        about: "two that can't hear each other are alive to each other as long as others hear both",
        body: |trial| Box::pin(crate::scenarios::go_between::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "keystone",
        about: "jobs complete across partitions, across their owner's death, and while the ring changes under them",
        knobs: keystone::KNOBS,
        marks: keystone::MARKS,
        body: |trial| Box::pin(keystone::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "laggard",
        about: "a node behind a full link finds the others and takes itself for the slow one: nobody is held dead",
        body: |trial| Box::pin(crate::scenarios::laggard::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "lease",
        about: "a leased resource is killed at drawn disk operations: every effect happens once",
        marks: lease::MARKS,
        body: |trial| Box::pin(lease::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "lone-accuser",
        about: "all but one stop for up to 22 s: who is accused by one alone is in doubt for longest",
        body: |trial| Box::pin(crate::scenarios::lone_accuser::run(trial)),
        marks: crate::scenarios::lone_accuser::MARKS,
        ..PLAIN
    },
    Scenario {
        name: "echoes",
        about: "links copy and delay: a datagram is given once, and a late one moves no path",
        body: |trial| Box::pin(crate::scenarios::echoes::run(trial)),
        marks: &[Mark::new("a datagram came late from where its sender had left")],
        ..PLAIN
    },
    Scenario {
        name: "pinned",
        about: "every core of a node is busy for ten minutes: it is never held dead, a dead one is",
        knobs: pinned::KNOBS,
        marks: pinned::MARKS,
        time_limit: pinned::TIME_LIMIT,
        body: |trial| Box::pin(pinned::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "poison",
        about: "a task kills its workers, a kind's only worker is away, a worker drains: three are lost, nothing else",
        marks: poison::MARKS,
        time_limit: poison::TIME_LIMIT,
        body: |trial| Box::pin(poison::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "swarm",
        about: "everything at once: boxes, hubs, jobs, state and messages under every kind of fault",
        knobs: swarm::KNOBS,
        faults: swarm::FAULTS,
        marks: swarm::MARKS,
        time_limit: swarm::TIME_LIMIT,
        body: |trial| Box::pin(swarm::run(trial)),
        ..PLAIN
    },
    Scenario {
        name: "hub-restarts",
        about: "a hub comes back with nothing remembered: all register again, relayed traffic and groups go on",
        body: |trial| Box::pin(crate::scenarios::hub_restarts::run(trial)),
        marks: &[
            Mark::new("a hub's clients registered again"),
            Mark::new("a hub stayed away for longer than 12 s"),
        ],
        ..PLAIN
    },
    Scenario {
        name: "containers",
        about: "bridges and other interfaces come and go: no connection drops, no path is in doubt, a move is seen",
        body: |trial| Box::pin(crate::scenarios::containers::run(trial)),
        marks: &[Mark::new("a hub's connection outlived a change of interfaces")],
        ..PLAIN
    },
    Scenario {
        name: "mapping-expires",
        about: "NATs end the mapping under an idle path, and under a busy one, or keep it: 2 s at most are lost",
        body: |trial| Box::pin(crate::scenarios::mapping_expires::run(trial)),
        marks: &[
            Mark::new("a carrier's lifetime ended a path in use"),
            Mark::new("an idle mapping ended before its keepalive"),
            Mark::new("a path was given up, and direct again later"),
        ],
        ..PLAIN
    },
    Scenario {
        name: "nat-matrix",
        about: "every kind of NAT against every other: direct exactly where it can be, relayed elsewhere",
        body: |trial| Box::pin(crate::scenarios::nat_matrix::run(trial)),
        marks: &[
            Mark::new("a relay carried what could not go straight"),
            Mark::new("a punch succeeded through port-restricted NATs"),
            Mark::new("a peer-reflexive address became the path"),
        ],
        ..PLAIN
    },
    Scenario {
        name: "portal",
        about: "something else answers on the hub's port, and the hub comes late: no refusal, all join",
        body: |trial| Box::pin(crate::scenarios::portal::run(trial)),
        marks: &[
            Mark::new("a captive portal answered in a hub's place"),
            Mark::new("a proxy was up before its hub"),
            Mark::new("what answered in a hub's place said nothing"),
            Mark::new("a hub took nobody at first"),
            Mark::new("a hub ended an idle connection for a newer one"),
        ],
        ..PLAIN
    },
    Scenario {
        name: "relay-dies",
        about: "a hub dies, stalls, moves or takes nobody: another takes over within 2 s",
        body: |trial| Box::pin(crate::scenarios::relay_dies::run(trial)),
        marks: &[
            Mark::new("a hub's process was killed"),
            Mark::new("a hub's machine lost its power"),
            Mark::new("a stalled hub's standby took over"),
            Mark::new("a hub's network lost everything"),
            Mark::new("a hub that moved was found by its name"),
            Mark::new("a hub came back full"),
            Mark::new("a hub became slow"),
            Mark::new("a hub's network lost a good part"),
        ],
        ..PLAIN
    },
    Scenario {
        name: "roam",
        about: "a phone goes from wifi to cellular: nobody holds it dead, datagrams pass within 2 s",
        body: |trial| Box::pin(crate::scenarios::roam::run(trial)),
        marks: &[
            Mark::new("a roamed sender was followed to an address that nobody had named"),
            Mark::new("a path was given up, and direct again later"),
        ],
        ..PLAIN
    },
    Scenario {
        name: "visitors",
        about: "clients come and go at a node with little room: each is served, and none leaves anything behind",
        body: |trial| Box::pin(crate::scenarios::visitors::run(trial)),
        ..PLAIN
    },
];

/// Finds a scenario.
pub fn find(name: &str) -> Option<Scenario> {
    ALL.iter().find(|scenario| scenario.name == name).copied()
}
