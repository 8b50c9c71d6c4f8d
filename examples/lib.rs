//! What the examples share: patience.
//!
//! The examples themselves are the programs beside this file, one for each thing to learn. Begin with
//! `distributed_map`: it uses the assembled [`nurl::Node`], as most programs do. The others show one layer each.

use std::time::Duration;

use nurl::PublicKey;
use nurl::events::State;
use nurl::rt::time;

/// What an example's `main` returns: any error ends it with a message and an exit code that isn't 0.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// How long an example waits for what has to happen. Seconds are enough; a busy machine gets more.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `future`, but not for ever.
///
/// # Errors
/// Names `what` didn't happen.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T, String> {
    time::timeout(PATIENCE, future).await.map_err(|_| format!("{what}: not within {PATIENCE:?}"))
}

/// Waits until `node` sees all of `others` alive.
///
/// # Errors
/// When they don't appear, or the node has shut down.
pub async fn see_alive(node: &nurl::Node, others: &[PublicKey]) -> Outcome {
    let seen = async {
        loop {
            let members = node.members().await?;
            let alive = |key: &PublicKey| {
                members.iter().any(|member| member.key == *key && member.state == State::Alive)
            };
            if others.iter().all(alive) {
                return Ok(());
            }
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the members see each other", seen).await?
}

/// The first program of the repository's README, compiled and run as a test.
#[cfg(all(doctest, not(feature = "sim")))]
#[doc = include_str!("../README.md")]
pub struct Readme;
