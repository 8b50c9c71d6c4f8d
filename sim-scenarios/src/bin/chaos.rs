//! The `chaos` command over nurl's own scenarios; see [`sim_scenarios::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    sim_scenarios::cli::main_as(chaos::story::INVOCATION, sim_scenarios::scenario::ALL)
}
