//! The examples' shared helpers: an error type, and waiting with generous time limits.
//!
//! The examples are the programs beside this file, one for each topic. Begin with `distributed_map`: it uses the
//! assembled [`nurl::Node`], as most programs do. The others show one layer each.

use std::time::Duration;

use nurl::PublicKey;
use nurl::events::State;
use nurl::rt::time;

/// The result of an example's `main`: any error ends it with a message and a non-zero exit code.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// How long an example waits for an expected event. Seconds are enough; a busy machine may need more.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `future`, with a time limit.
///
/// # Errors
/// A text with `what`, if the time is over.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T, String> {
    time::timeout(PATIENCE, future).await.map_err(|_| format!("{what}: not within {PATIENCE:?}"))
}

/// Waits until `node` sees all of `others` alive.
///
/// # Errors
/// If they don't appear in time, or the node has shut down.
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
