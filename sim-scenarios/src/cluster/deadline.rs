//! Waiting for a liveness property, for a bounded virtual time. When the time is over, the missing parts are
//! reported.

use std::time::Duration;

use chaos::property::Violation;
use chaos::world::World;

/// How often the condition is checked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The same for what has to be so within a short time.
const LOOK_CLOSELY: Duration = Duration::from_millis(10);

/// A wait for a liveness property: `while deadline.still_missing(missing(..).await).await? {}`.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    world: World,
    property: &'static str,
    limit: Duration,
    begun: Duration,
}

impl Deadline {
    /// Begins to wait now, for `limit` of virtual time at most.
    pub fn new(world: World, property: &'static str, limit: Duration) -> Deadline {
        Deadline { world, property, limit, begun: world.elapsed() }
    }

    /// The virtual time waited so far.
    pub fn waited(&self) -> Duration {
        self.world.elapsed() - self.begun
    }

    /// If nothing is missing, `false` at once; otherwise `true` after a short while, so that the caller checks
    /// again.
    ///
    /// # Errors
    /// The property and its missing parts, once the time is over.
    #[track_caller]
    pub fn still_missing(
        &self,
        missing: Vec<String>,
    ) -> impl Future<Output = Result<bool, Violation>> + Send + use<> {
        let over = (!missing.is_empty() && self.waited() >= self.limit).then(|| {
            let seen = format!("after {:?} still missing: {}", self.limit, missing.join("; "));
            Violation::liveness(self.property, seen)
        });
        let world = self.world;
        async move {
            if let Some(broken) = over {
                return Err(broken);
            }
            if missing.is_empty() {
                return Ok(false);
            }
            world.sleep(LOOK_EVERY).await;
            Ok(true)
        }
    }
}

/// Waits for what has to be so within a short time, of which each hundredth of a second counts.
///
/// # Errors
/// The property, and what was still wrong.
pub async fn soon(
    world: World,
    property: &'static str,
    within: Duration,
    mut is_so: impl FnMut() -> Result<(), String>,
) -> Result<(), Violation> {
    let begun = world.elapsed();
    loop {
        let Err(wrong) = is_so() else { return Ok(()) };
        if world.elapsed() >= begun + within {
            return Err(Violation::liveness(property, format!("after {within:?}: {wrong}")));
        }
        world.sleep(LOOK_CLOSELY).await;
    }
}
