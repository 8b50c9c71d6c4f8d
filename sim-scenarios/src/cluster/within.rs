//! Waiting for something good: a bounded virtual time, and what is still missing when it wasn't enough.

use std::time::Duration;

use chaos::property::Broken;
use chaos::world::World;

/// How often somebody looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A wait for a liveness property: `while within.lacks(missing(..).await).await? {}`.
#[derive(Debug, Clone, Copy)]
pub struct Within {
    world: World,
    property: &'static str,
    limit: Duration,
    begun: Duration,
}

impl Within {
    /// Begins to wait now, for `limit` of virtual time at most.
    pub fn new(world: World, property: &'static str, limit: Duration) -> Within {
        Within { world, property, limit, begun: world.elapsed() }
    }

    /// How long it has been waited.
    pub fn waited(&self) -> Duration {
        self.world.elapsed() - self.begun
    }

    /// With nothing missing, `false` at once; else `true` after a short while, to look again.
    ///
    /// # Errors
    /// The property, with what is missing, once the time is over.
    #[track_caller]
    pub fn lacks(&self, missing: Vec<String>) -> impl Future<Output = Result<bool, Broken>> + Send + use<> {
        let over = (!missing.is_empty() && self.waited() >= self.limit).then(|| {
            let seen = format!("after {:?} still missing: {}", self.limit, missing.join("; "));
            Broken::liveness(self.property, seen)
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
