//! The `chaos` command over nurl's own scenarios; see [`chaos::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    let (invocation, scenarios) = (chaos::story::INVOCATION, sim_scenarios::scenarios::ALL);
    let decoder = Some(sim_scenarios::decode::payload as chaos::Decoder);
    chaos::cli::Program { invocation, scenarios, decoder, logs: &["nurl", "audit"] }.main()
}
