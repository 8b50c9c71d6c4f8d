//! Watches go on whatever becomes of the owners, and lists say what they may lack.
//!
//! Four workers, of which one has a store, a member and an observer. A counter, a set and a register are written at the
//! member, a little at a time. All of them are watched by the member, by a worker, which owns some of them, and by the observer.
//! In each round something happens: a worker is killed and starts again, or is cut off and comes back, or another one joins, so
//! that owners are others; or nothing does.
//!
//! - Within a bound after the last write of a round each watch has told what was written, unless its process is another one.
//! - The sum of a counter to which is only added never falls in what one watch tells, and is never above what was begun.
//! - A list at each of them has each name of which a write was acknowledged, or is partial; and within seconds after the
//!   round it is whole. Who is cut off is named as silent.
//!
//! Negative control: the mutants that name this scenario.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaos::property::Violation;
use chaos::rng::Rng;
use chaos::scenario::{Knob, KnobKind, Mark, Passed, RunResult, Scenario, Trial};
use chaos::sometimes;
use chaos::world::World;
use nurl::internals::node::{Node, Role};

use crate::cluster::{Cluster, Deadline, Peer};
use crate::lock::lock;
use crate::stage::{Stage, link_ms};
