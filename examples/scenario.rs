//! An application's own handler in the simulated world: nodes at home and on the internet, faults drawn from the
//! seed, and invariants. `cargo run -p nurl-examples --features sim --bin scenario -- sweep --all --seeds 50` runs
//! fifty worlds; without arguments it runs one. All functions of `cargo chaos` are available here too.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use chaos::plan::FaultKind;
use chaos::scenario::{Passed, RunResult, Scenario, Trial};
use chaos::{Violation, sometimes};
use sim_scenarios::models::nat_box::presets;
use sim_scenarios::stage::Stage;

/// The handler, as it would run on real machines.
async fn shout(payload: Bytes) -> Bytes {
    payload.to_ascii_uppercase().into()
}

async fn everything_is_shouted(trial: Trial) -> RunResult {
    let world = trial.world;
    let cluster = Stage::new(world)
        .hub("hub")
        .workers(2)
        .behind_nat("family", presets::home_router())
        .workers(2)
        .configure(|node, _| node.handler("shout", |_, payload| async { Ok(shout(payload).await) }))
        .meet(Duration::from_secs(30))
        .await?;

    // Faults of these kinds, drawn from the seed, for twenty seconds; the submitting node is spared.
    let mut targets = cluster.targets();
    targets.spared.push(targets.hosts.remove(0));
    trial.start_faults(&targets, Duration::from_secs(20));
    let client = cluster.peers[0].node(&world).await;
    for number in 0..10 {
        let word = format!("word {number}");
        let task = client.submit("shout", word.as_bytes(), word.clone().into(), Default::default()).await;
        let said = match task {
            Ok(task) => task.outcome().await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if said != Ok(Bytes::from(word.to_uppercase())) {
            return Err(Violation::safety("every word is shouted", format!("{word} came back as {said:?}")));
        }
        world.sleep(Duration::from_secs(2)).await;
    }
    sometimes!(cluster.running().count() < 4, "a node was down when the last word came back");
    trial.heal().await;
    cluster.converge(Duration::from_secs(60)).await?;
    Ok(Passed { state: cluster.views().await, notes: String::new() })
}

fn main() -> ExitCode {
    let scenario = Scenario {
        faults: &[FaultKind::Loss, FaultKind::Crash, FaultKind::Partition, FaultKind::BoxReboot],
        ..Scenario::new("shout", "every word is shouted, whatever fails", |trial| {
            Box::pin(everything_is_shouted(trial))
        })
    };
    if std::env::args().len() > 1 {
        return chaos::cli::main(&[scenario]);
    }
    let report = scenario.run(&chaos::scenario::Options::seed(1));
    match report.verdict {
        Ok(held) => {
            println!("{}held: digest {}", held.state, report.digest);
            ExitCode::SUCCESS
        }
        Err(broken) => {
            eprintln!("{broken}");
            ExitCode::FAILURE
        }
    }
}
