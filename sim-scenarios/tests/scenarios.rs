//! Every scenario: pinned seeds with their end states, more seeds for the invariants alone, and each seed twice
//! with equal digests. `NURL_SEED` runs one seed instead; `NURL_SEEDS` sets another number of further seeds.
#![cfg(feature = "sim")]

mod harness;

use chaos::scenario::Options;
use harness::{Runs, number};

/// Seeds whose end state is a snapshot.
const PINNED: [u64; 2] = [1, 2];

/// Seeds beyond them, for the invariants alone.
const MORE: u64 = 20;

/// Seeds that once broke a scenario, each with the defect that it found.
///
/// - `blackout` 3 and 100: jitter of a tenth of the round trip looked like loss to QUIC's packet threshold of 3,
///   and a steady transfer on a good path fell to half its rate.
/// - `churn` 10: an application was told of a write before the store had it, and a crash at the disk undid the
///   write.
/// - `deaths` 97000066: a node that had probed many of the dead held itself for slow, and waited so long for a session with
///   the last of them that it heard of that death too late.
/// - `keystone` 8000028 and 41000005: a half without a hub alternated between isolated and not, and retracted its
///   verdicts each time, so that it held the silent half alive.
/// - `keystone` 3: in a mesh without a hub a node discarded all evidence with each exchange, so that the next
///   probe of a dead member looked like isolation again, and the member was never held dead.
/// - `mapping-expires` 23: a mapping that ended took the direct path with it, and the new address was not asked
///   for until the next turn, up to 25 s later.
/// - `mapping-expires` 7000010 and 41000046: the second of two mappings ended right after the address had been
///   asked for, and a node asked for it only once per loss.
/// - `relay-dies` 1: data sent while there was no path waited forever, even after a hub was back.
/// - `relay-dies` 12: a relay that had been slow for a moment was avoided for minutes.
/// - `relay-dies` 41000148: late deliveries from a lossy hub kept one of the two there after the other had left
///   it.
/// - `relay-dies` 42000489: one of the two stayed at a lossy hub, though the other one's data came through another.
/// - `relay-dies` 118: a lossy hub kept the two, since its answers came late, but within patience.
/// - `blackout` 73000019: the receiver of a transfer sent its acknowledgements on the dead path alone until these had
///   gone unanswered for as long as the data before.
/// - `poison` 95000033: an observer waited 60 s for a verdict, and heard of the death 0.4 s before, which it has to check.
/// - `deaths` 110000014: the first accusations went to members that had died at the same instant, and none had the
///   confirmations that shorten a suspicion.
/// - `clients` 71000010 and 71000066: calls to clients that had been killed filled the tables, and newcomers waited.
/// - `churn` 18: a former owner's copy was checked ever more seldom, even when all owners were back.
/// - `swarm` 1011: a death verdict that its author retracted had reached an observer alone, which held it
///   forever.
/// - `swarm` 1403: QUIC stopped its timer when its handshake ended in a blackout, and the data in flight stayed
///   lost.
/// - `swarm` 1263: an address that was observed once and then announced was never checked again.
/// - `swarm` 9,000,000: in a handshake that only the server heard, its probes filled its QUIC window forever.
const REGRESSIONS: &[(&str, u64)] = &[
    ("blackout", 3),
    ("blackout", 100),
    ("churn", 10),
    ("converge-hard", 9_000_071),
    ("converge-hard", 9_500_167),
    ("deaths", 9_000_003),
    ("deaths", 97_000_066),
    ("deaths", 110_000_014),
    ("keystone", 3),
    ("keystone", 8_000_028),
    ("keystone", 41_000_005),
    ("mapping-expires", 23),
    ("mapping-expires", 7_000_010),
    ("mapping-expires", 41_000_046),
    ("relay-dies", 1),
    ("relay-dies", 12),
    ("relay-dies", 41_000_148),
    ("relay-dies", 118),
    ("relay-dies", 42_000_489),
    ("blackout", 73_000_019),
    ("poison", 95_000_033),
    ("clients", 71_000_010),
    ("clients", 71_000_066),
    ("churn", 18),
    ("swarm", 1011),
    ("swarm", 1263),
    ("swarm", 1403),
    ("swarm", 9_000_000),
];

/// A run that once broke under a given fault plan: scenario, seed, knobs and plan.
type Planned = (&'static str, u64, &'static [(&'static str, u64)], &'static str);

/// The same with plans that [`plans.rs`](plans.rs) found.
///
/// - `swarm` 365 and 723: a NAT box that changed its address broke the connections to both hubs. The node behind
///   it took up to 14 s to give them up, and was cut off for as long from nodes that only relays reach.
/// - `churn` 684: a node that was cut off accused another to an observer alone. The observer missed the
///   retraction, and asked others forever, but never the accused.
const PLANS: &[Planned] = &[
    (
        "churn",
        684,
        &[("members", 3), ("writes", 8), ("losses", 0)],
        "1.035s partition-one-way \"node 1\" / \"node 0\" hub \"node 2\" for=13.415s\n14.747s crash \"node 1\" for=0s",
    ),
    ("swarm", 365, &[("steps", 8), ("seconds", 20)], "3.134s box-renumber flat ip=0.0.0.1 for=16.616s"),
    ("swarm", 723, &[("steps", 8), ("seconds", 20)], "2.863s box-renumber flat ip=0.0.0.1 for=14.08s"),
];

/// Among this many seeds at least one finds the planted bug.
const CANARY: u64 = 60;

/// Proves a scenario with the pinned seeds, whose end states are snapshots, and with [`MORE`] others.
fn prove(name: &str) {
    prove_with(name, MORE);
}

/// Like [`prove`], with another number of seeds: a scenario that takes long has fewer.
fn prove_with(name: &str, more: u64) {
    let mut runs = Runs::of(name);
    if let Some(seed) = number("NURL_SEED") {
        runs.prove(seed);
        return;
    }
    for seed in PINNED {
        let report = runs.prove(seed);
        insta::assert_snapshot!(format!("{name}-{seed}"), report.verdict.unwrap().state);
    }
    let more = number("NURL_SEEDS").unwrap_or(more);
    (100..100 + more).for_each(|seed| drop(runs.prove(seed)));
    runs.differ();
    runs.write_digests();
}

#[test]
fn what_once_broke_holds() {
    for (name, seed) in REGRESSIONS {
        Runs::of(name).regress(&Options::seed(*seed));
    }
    for (name, seed, knobs, plan) in PLANS {
        let knobs = knobs.iter().map(|(knob, value)| ((*knob).to_owned(), *value)).collect();
        let plan = Some(plan.parse().expect("a plan"));
        Runs::of(name).regress(&Options { knobs, plan, ..Options::seed(*seed) });
    }
}

#[test]
fn converge_under_loss() {
    prove("converge");
}

#[test]
fn keystone_across_a_partition() {
    prove("keystone");
}

#[test]
fn a_transfer_survives_a_blackout() {
    prove("blackout");
}

#[test]
fn leased_effects_happen_once_across_kills() {
    prove("lease");
}

#[test]
fn a_busy_node_is_not_evicted() {
    // A run takes ten virtual minutes.
    prove_with("pinned", 1);
}

#[test]
fn no_double_effect_across_split_ownership() {
    prove("fence");
}

#[test]
fn replicas_agree_after_churn() {
    prove_with("churn", 3);
}

#[test]
fn a_task_that_kills_its_workers_is_given_up() {
    prove_with("poison", 6);
}

#[test]
fn what_was_acknowledged_before_a_goodbye_is_held() {
    prove_with("goodbye", 10);
}

#[test]
fn everything_at_once() {
    prove_with("swarm", 3);
}

/// A sweep of this size always finds the planted bug.
#[test]
fn the_canary_is_found() {
    let runs = Runs::of("canary");
    let found = (1..=CANARY).filter(|seed| runs.twice(&Options::seed(*seed)).verdict.is_err()).count();
    assert!(found > 0, "none of {CANARY} seeds finds the planted bug");
    assert!(found < CANARY as usize, "a bug that every seed finds needs no sweep");
}

#[test]
fn a_phone_moves_and_nobody_holds_it_dead() {
    prove_with("roam", 10);
}

#[test]
fn every_nat_against_every_other() {
    prove_with("nat-matrix", 4);
}

#[test]
fn both_address_families() {
    prove_with("families", 3);
}

#[test]
fn many_keys_of_one_pass_or_invitation_keep_nobody_out() {
    prove_with("shares", 4);
}

#[test]
fn a_slow_host_answers_its_probes_while_it_computes() {
    prove_with("overload", 3);
}

#[test]
fn an_insiders_lies_are_not_believed() {
    prove_with("insiders", 4);
}

#[test]
fn relays_in_trouble() {
    prove_with("relay-dies", 10);
}

#[test]
fn a_hub_comes_back_with_nothing_remembered() {
    prove_with("hub-restarts", 10);
}

#[test]
fn a_hub_comes_late_and_something_else_answers_before() {
    prove_with("portal", 10);
}

#[test]
fn interfaces_come_and_go() {
    prove_with("containers", 4);
}

#[test]
fn a_crowd_goes_and_newcomers_come() {
    prove_with("crowd", 4);
}

#[test]
fn two_hundred_clients_come_and_go() {
    prove_with("clients", 1);
}

#[test]
fn clients_come_and_go() {
    prove_with("visitors", 4);
}

#[test]
fn mappings_expire_under_paths() {
    prove_with("mapping-expires", 4);
}

#[test]
fn views_that_send_jobs_in_circles() {
    prove("circle");
}

#[test]
fn a_peer_below_a_policy_has_no_task_run() {
    prove_with("policies", 4);
}

#[test]
fn copies_and_late_datagrams() {
    prove("echoes");
}

#[test]
fn many_die_at_one_moment() {
    // A run covers three shares and both causes, among 21 nodes.
    prove_with("deaths", 1);
}

#[test]
fn two_that_hear_each_other_through_others() {
    prove_with("go-between", 4);
}

#[test]
fn a_lone_accuser_waits() {
    prove("lone-accuser");
}

#[test]
fn a_node_that_is_slow_itself() {
    prove_with("laggard", 2);
}

#[test]
fn loss_on_both_legs() {
    prove_with("converge-hard", 10);
}

#[test]
fn the_authority_puts_nodes_out() {
    // A run has a revocation mid-run, a stubborn insider, a partition, and hubs that withhold.
    prove_with("revocation", 4);
}

#[test]
fn wrong_clocks_harm_their_owners_alone() {
    prove_with("clocks", 3);
}

#[test]
fn a_large_mesh_changes_while_it_is_apart() {
    prove_with("multitude", 1);
}

#[test]
fn a_mesh_is_upgraded_node_by_node() {
    // A run restarts ten processes, under work.
    prove_with("rolling", 1);
}

#[test]
fn the_mesh_gets_another_secret() {
    prove_with("rotation", 1);
}

#[test]
fn a_hub_without_the_authoritys_key_asks_those_who_have_it() {
    // A run has an issuer that hangs, one that forgets, and a rotation that the hub has no part in.
    prove_with("issuers", 3);
}
