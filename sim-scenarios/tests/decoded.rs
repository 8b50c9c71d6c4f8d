//! A watched run tells what its sealed packets carry: directly, and through a hub.
#![cfg(feature = "sim")]

use std::time::Duration;

use chaos::scenario::{Options, Passed, RunResult, Scenario, Trial};
use chaos::sighting::Seen;
use chaos::{RecordingOptions, Recordings};
use sim_scenarios::cluster::Jobs;
use sim_scenarios::models::nat_box::presets;
use sim_scenarios::stage::{Stage, link_ms};

const SCENARIO: Scenario =
    Scenario::new("decoded", "jobs, of two homes that a hub joins", |trial| Box::pin(run(trial)));

/// Node 0 is in the internet. Nodes 1 and 2 are behind symmetric NATs, between which no direct path opens.
async fn run(trial: Trial) -> RunResult {
    let cluster = Stage::new(trial.world)
        .links(link_ms(20, 5))
        .hub("hub")
        .workers(1)
        .behind_nat("home", presets::symmetric())
        .workers(1)
        .behind_nat("office", presets::symmetric())
        .workers(1)
        .meet(Duration::from_secs(30))
        .await?;
    let mut jobs = Jobs::new(&cluster);
    for number in 0..12 {
        jobs.submit(&cluster.peers[1], "slow", &format!("job {number}")).await?;
    }
    jobs.settle(Duration::from_secs(60)).await?;
    Ok(Passed::default())
}

/// The packets between two hosts: what they carry.
fn carried(seen: &Recordings, from: &str, to: &str) -> Vec<String> {
    let packets = seen.sightings.iter().filter(|sighting| sighting.host.as_deref() == Some(from));
    let carried = packets.filter_map(|sighting| match &sighting.what {
        Seen::Packet(packet) if packet.to == to => Some(packet.carries.clone()),
        _ => None,
    });
    carried.collect()
}

#[test]
fn a_submit_is_told_from_its_submitter_to_its_executor_directly_and_through_the_hub() {
    let watching = RecordingOptions {
        last: 100,
        decoder: Some(sim_scenarios::decode::payload),
        logs: &["nurl", "audit"],
        ..RecordingOptions::default()
    };
    let (report, seen) = SCENARIO.run_watched(&Options::seed(1), &watching).unwrap();
    assert!(report.verdict.is_ok(), "{}", report.story());
    assert_eq!(report, SCENARIO.run(&Options::seed(1)), "a watched run is the run that nobody watches");

    let expected = [
        ("node 1", "node 0", "SUBMIT task "),
        ("node 0", "node 1", "OUTCOME task "),
        ("node 1", "hub", "relay to node 2: "),
        ("node 1", "hub", "SUBMIT task "),
        ("hub", "node 2", "relayed from node 1: "),
        ("hub", "node 2", "SUBMIT task "),
        ("node 1", "node 0", "SWIM "),
    ];
    for (from, to, part) in expected {
        let carried = carried(&seen, from, to);
        let told = carried.iter().any(|text| text.contains(part));
        assert!(told, "no {part} from {from} to {to}:\n{}", carried.join("\n"));
    }
    let events: Vec<String> = seen
        .sightings
        .iter()
        .filter(|sighting| matches!(sighting.what, Seen::Event(_)))
        .map(ToString::to_string)
        .collect();
    for part in
        ["a session is up peer=node ", "a task is submitted here task=", "an attempt of a task begins task="]
    {
        assert!(events.iter().any(|line| line.contains(part)), "no {part} in\n{}", events.join("\n"));
    }
}
