//! Small tools that several layers share and that know none of them.
//!
//! | module | content |
//! | --- | --- |
//! | [`backoff`] | waits that double, with full jitter |
//! | [`draw`] | numbers, durations, shuffles and samples from a given generator |
//! | [`fifo`] | queues by key under one bound |
//! | [`rate`] | token buckets |
//! | [`reader`] | fields off the front of received bytes |
//! | [`shares`] | who has most of a bounded thing, and pays |
//! | [`small_map`] | an ordered map that is small while it has few entries |
//! | [`timers`] | one deadline per name |
//! | [`wall_clock`] | seconds since 1970, from one reading of the clock |
//! | [`window`] | the replay window: which counters were received |

pub mod backoff;
pub mod draw;
pub mod fifo;
pub mod rate;
pub mod reader;
pub mod shares;
pub mod small_map;
pub mod timers;
pub mod wall_clock;
pub mod window;
