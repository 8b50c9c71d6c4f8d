//! Compute: a client submits a task, the owner of its key executes it, and the submitter gets exactly one outcome.
//!
//! | module | content |
//! | --- | --- |
//! | [`job`] | the protocol: a pure state machine per node that submits, forwards, executes and keeps outcomes |
//! | [`pool`] | the driver's part: handlers on the compute plane, panics caught, time limits, cancellation |
//! | [`handlers`] | the built-in handlers of every worker: `echo`, `blake3`, `wordcount` |
//! | [`blob`] | large payloads and results: files that travel in chunks |
//! | [`lease`] | fencing at the resource, for effects that must not happen twice |

pub mod blob;
pub mod handlers;
pub mod job;
pub mod lease;
pub mod pool;
