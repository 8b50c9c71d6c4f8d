//! The `nurl` command: `nurl --help` teaches it, `nurl/docs/cli.md` documents its output.
//!
//! Every subcommand is a file of its own. They share [`out`] (output streams, exit codes), [`event`] (the JSON lines)
//! and [`client`] (joining a mesh).

#[cfg(feature = "sim")]
fn main() {
    eprintln!(
        "nurl: this build is for the simulated world (feature `sim`) and has nothing to do; see `cargo chaos`"
    );
    std::process::exit(2);
}

#[cfg(not(feature = "sim"))]
mod args;
#[cfg(not(feature = "sim"))]
mod authority;
#[cfg(not(feature = "sim"))]
mod client;
#[cfg(not(feature = "sim"))]
mod confine;
#[cfg(not(feature = "sim"))]
mod demo;
#[cfg(not(feature = "sim"))]
mod event;
#[cfg(not(feature = "sim"))]
mod files;
#[cfg(not(feature = "sim"))]
mod group;
#[cfg(not(feature = "sim"))]
mod handler;
#[cfg(not(feature = "sim"))]
mod hub;
#[cfg(not(feature = "sim"))]
mod identity;
#[cfg(not(feature = "sim"))]
mod issue;
#[cfg(not(feature = "sim"))]
mod jobs;
#[cfg(not(feature = "sim"))]
mod key;
#[cfg(not(feature = "sim"))]
mod lease;
#[cfg(not(feature = "sim"))]
mod map;
#[cfg(not(feature = "sim"))]
mod mesh;
#[cfg(not(feature = "sim"))]
mod out;
#[cfg(not(feature = "sim"))]
mod pass;
mod passing;
#[cfg(not(feature = "sim"))]
mod state;
#[cfg(not(feature = "sim"))]
mod status;
#[cfg(not(feature = "sim"))]
mod stop;
#[cfg(not(feature = "sim"))]
mod talk;
#[cfg(not(feature = "sim"))]
mod watcher;
#[cfg(not(feature = "sim"))]
mod work;
#[cfg(not(feature = "sim"))]
mod worker;

/// Reports a command-line error and exits. A ticket in the wrong place isn't shown whole.
#[cfg(not(feature = "sim"))]
fn misused(error: &clap::Error) -> ! {
    let said = error.render().to_string();
    let fit = out::shown(&said);
    if fit == said {
        error.exit();
    }
    eprint!("{fit}");
    std::process::exit(error.exit_code());
}

/// Logs are off unless requested: `NURL_LOG=nurl=debug`.
#[cfg(not(feature = "sim"))]
fn log_what_is_asked_for() -> Result<(), tracing_subscriber::filter::ParseError> {
    use tracing_subscriber::prelude::*;

    let Some(directives) = std::env::var_os("NURL_LOG") else { return Ok(()) };
    let filter: tracing_subscriber::filter::Targets = directives.to_string_lossy().parse()?;
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines).with(filter).init();
    Ok(())
}

#[cfg(not(feature = "sim"))]
fn main() -> std::process::ExitCode {
    use args::{Cli, Command, KeyCommand, MeshCommand, PassCommand};
    use clap::Parser;
    use out::{Code, Out};

    let command = Cli::try_parse().unwrap_or_else(|error| misused(&error)).command;
    if let Command::ConfineProgram(args) = &command {
        std::process::exit(confine::run(args.limits, &args.words));
    }
    if let Err(error) = log_what_is_asked_for() {
        eprintln!("nurl: NURL_LOG: {error}: say nurl=debug");
        return std::process::ExitCode::from(Code::Usage as u8);
    }
    let out = Out::new(match &command {
        Command::Key(KeyCommand::New { output, .. } | KeyCommand::Show { output, .. }) => output.json,
        Command::Mesh(MeshCommand::New(args)) => args.output.json,
        Command::Mesh(MeshCommand::Serve(args)) => args.output.json,
        Command::Mesh(MeshCommand::Passphrase(args)) => args.output.json,
        Command::Mesh(MeshCommand::Invite(args)) => args.output.json,
        Command::Mesh(MeshCommand::Admit(args)) => args.output.json,
        Command::Mesh(MeshCommand::Revoke(args)) => args.output.json,
        Command::Mesh(MeshCommand::Rotate(args)) => args.output.json,
        Command::Mesh(MeshCommand::List { output, .. }) => output.json,
        Command::Pass(PassCommand::Show(args) | PassCommand::Take { place: args, .. }) => args.output.json,
        Command::Hub(args) => args.output.json,
        Command::Worker(args) => args.output.json,
        Command::Submit(args) => args.output.json,
        Command::Map(args) => args.output.json,
        Command::Wordcount(args) => args.output.json,
        Command::Status(args) => args.output.json,
        Command::Ping(args) => args.output.json,
        Command::Group(args) => args.output.json,
        Command::State(command) => command.output().json,
        Command::Jobs(command) => command.output().json,
        Command::Lease(command) => command.output().json,
        Command::Demo(args) => args.output.json,
        Command::WatchPrograms | Command::ConfineProgram(_) => false,
    });
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("nurl: no runtime: {error}");
            return std::process::ExitCode::from(Code::Other as u8);
        }
    };
    let code = runtime.block_on(async {
        let done = match command {
            Command::Key(args) => key::run(args, out).await,
            Command::Mesh(command) => mesh::run(command, out).await,
            Command::Pass(command) => pass::run(command, out).await,
            Command::Hub(args) => hub::run(args, out).await,
            Command::Worker(args) => worker::run(args, out).await,
            Command::Submit(args) => work::submit(args, out).await,
            Command::Map(args) => map::map(args, out).await,
            Command::Wordcount(args) => work::wordcount(args, out).await,
            Command::Status(args) => status::status(args, out).await,
            Command::Ping(args) => status::ping(args, out).await,
            Command::Group(args) => talk::run(args, out).await,
            Command::State(command) => state::run(command, out).await,
            Command::Jobs(command) => jobs::run(command, out).await,
            Command::Lease(command) => lease::run(command, out).await,
            Command::Demo(args) => demo::run(args, out).await,
            Command::WatchPrograms => {
                watcher::run().await;
                Ok(())
            }
            Command::ConfineProgram(_) => unreachable!("it has become a program above"),
        };
        match done {
            Ok(()) => std::process::ExitCode::SUCCESS,
            Err(failure) => {
                client::last_words(&failure, out).await;
                std::process::ExitCode::from(failure.code as u8)
            }
        }
    });
    // A read of standard input or a write to a hanging reader blocks a thread of the runtime; the exit doesn't wait
    // for those threads.
    runtime.shutdown_background();
    code
}
