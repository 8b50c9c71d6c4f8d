//! Every scenario: pinned seeds with their end states, each twice with equal digests, and more seeds for the invariants
//! alone, whose digests `ci/digests` compares with those of another process. `NURL_SEED` runs one seed instead;
//! `NURL_SEEDS` sets another number of further seeds.
#![cfg(feature = "sim")]

mod harness;

use std::path::PathBuf;

use chaos::bundle::Bundle;
use chaos::scenario::Options;
use harness::{Runs, number};
use sim_scenarios::scenarios::find;

/// Seeds whose end state is a snapshot.
const PINNED: [u64; 2] = [1, 2];

/// Seeds beyond them, for the invariants alone.
const MORE: u64 = 12;

/// Runs that once broke a scenario, a file each; the README tells how one is kept.
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions");

/// Planted bugs, by which some of these runs break again.
const MUTANTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/mutants");

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
    (100..100 + more).for_each(|seed| drop(runs.prove_once(seed)));
    runs.differ();
    runs.write_digests();
}

/// The kept runs, sorted by name.
#[expect(clippy::disallowed_methods, reason = "outside of every world")]
fn kept() -> Vec<(PathBuf, Bundle)> {
    let mut files: Vec<_> =
        std::fs::read_dir(REGRESSIONS).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let load = |file: PathBuf| {
        let bundle = Bundle::load(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        (file, bundle)
    };
    files.into_iter().map(load).collect()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "outside of every world")]
fn a_kept_run_has_all_of_its_inputs_and_says_what_it_found() {
    let all = kept();
    assert!(all.len() >= 34, "{} kept runs are left", all.len());
    for (file, bundle) in all {
        let file = file.display();
        let scenario = find(&bundle.scenario).unwrap_or_else(|| panic!("{file}: there is no such scenario"));
        assert_eq!(bundle.incomplete(&scenario), None, "{file}");
        assert!(bundle.found.is_some(), "{file} doesn't say what it found");
        assert!(
            bundle.plan.is_some() || scenario.faults.is_empty(),
            "{file} has no plan, so it would be drawn"
        );
        for mutant in &bundle.red_with {
            let patch = PathBuf::from(MUTANTS).join(format!("{mutant}.patch"));
            let patch = std::fs::read_to_string(&patch).unwrap_or_default();
            // `ci/mutants` replays the kept run only with a patch for which it builds the scenarios.
            assert!(patch.contains("scenario: "), "{file} names {mutant}, which is no mutant of a scenario");
        }
    }
}

#[test]
fn what_once_broke_holds() {
    for (file, bundle) in kept() {
        let report = Runs::of(&bundle.scenario).regress(&bundle.options().unwrap());
        let unknown = report.plan.map_or_else(Vec::new, |started| started.unknown);
        assert!(unknown.is_empty(), "{}: {unknown:?}", file.display());
    }
}

#[test]
fn converge_under_loss() {
    prove("converge");
}

#[test]
fn each_thing_costs_what_it_has_to_when_nothing_goes_wrong() {
    prove_with("calm", 4);
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
fn several_holders_want_one_resource() {
    prove("contention");
}

#[test]
fn work_goes_wrong() {
    prove_with("setbacks", 4);
}

#[test]
fn an_id_is_used_twice_and_a_worker_refuses() {
    // A run takes eleven virtual minutes.
    prove_with("refusals", 2);
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
fn workers_without_stores_restart() {
    // A run restarts twenty processes.
    prove_with("storeless", 2);
}

#[test]
fn a_task_that_kills_its_workers_is_given_up() {
    prove_with("poison", 6);
}

#[test]
fn what_was_acknowledged_before_a_goodbye_is_held() {
    prove_with("goodbye", 6);
}

#[test]
fn watches_go_on_and_lists_say_what_they_lack() {
    prove_with("watched", 6);
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
    prove_with("roam", 6);
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
    prove_with("relay-dies", 6);
}

#[test]
fn a_hub_comes_back_with_nothing_remembered() {
    prove_with("hub-restarts", 6);
}

#[test]
fn a_hub_comes_late_and_something_else_answers_before() {
    prove_with("portal", 6);
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
fn files_travel_in_chunks_whatever_happens() {
    prove("large");
}

#[test]
fn loss_on_both_legs() {
    prove_with("converge-hard", 6);
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

#[test]
fn who_is_not_on_a_list_hears_nothing() {
    prove_with("guest-list", 4);
}

#[test]
fn a_flood_of_handshakes_without_a_hub() {
    prove_with("flood", 1);
}

#[test]
fn everything_at_once_in_many_homes() {
    // A run has fourteen nodes, all faults, and minutes of recovery.
    prove_with("homes", 1);
}

#[test]
fn gossip_reaches_every_member_once() {
    prove_with("gossip", 4);
}

#[test]
fn detached_tasks_end_once_without_their_submitter() {
    prove_with("detached", 6);
}

#[test]
fn a_router_says_again_what_it_heard() {
    prove_with("eavesdropper", 3);
}

#[test]
fn disks_that_are_full_or_fail_end_writes_and_nothing_else() {
    prove_with("no-space", 4);
}

#[test]
fn damaged_stores_are_noticed_and_nothing_is_lost() {
    prove_with("damaged", 4);
}

#[test]
fn the_dead_are_remembered_for_their_time() {
    // A run takes five virtual minutes.
    prove_with("forgotten", 2);
}

#[test]
fn what_is_deleted_stays_gone() {
    // A run takes ten virtual minutes.
    prove_with("deleted", 2);
}

#[test]
fn everything_at_once_beside_insiders() {
    prove_with("besieged", 2);
}

#[test]
fn full_tables_of_nodes_refuse_the_greedy_and_serve_the_modest() {
    prove("crammed");
}

#[test]
fn a_full_hub_takes_from_who_has_most() {
    prove("full");
}

#[test]
fn what_a_hub_said_once_holds() {
    prove("doorkeeper");
}

#[test]
fn free_tasks_are_done_in_time_by_uneven_workers() {
    prove("uneven");
}

#[test]
fn a_full_queue_serves_each_in_its_turn() {
    prove("crowded");
}
