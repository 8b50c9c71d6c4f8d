//! Small tools that several layers share and that know none of them.
//!
//! | module | content |
//! | --- | --- |
//! | [`backoff`] | waits that double, with full jitter |
//! | [`draw`] | numbers, durations, shuffles and samples from a given generator |
//! | [`fifo`] | queues by key under one bound |
//! | [`rate`] | token buckets |
//! | [`reader`] | fields off the front of received bytes |
//! | [`shares`] | who has most of a bounded thing |
//! | [`timers`] | one deadline per name |
//! | [`window`] | the replay window: which counters were received |

pub mod backoff;
pub mod draw;
pub mod fifo;
pub mod rate;
pub mod reader;
pub mod shares;
pub mod timers;
pub mod window;
