//! Compute: submit a task, the owner of its key executes it, the submitter gets one outcome.
//!
//! | module | what |
//! | --- | --- |
//! | [`job`] | the protocol: a pure state machine per node that submits, forwards, executes and keeps outcomes |
//! | [`pool`] | the driver's half: handlers on the compute plane, panics caught, time limits, cancellation |
//! | [`handlers`] | the handlers that every worker has: `echo`, `blake3`, `wordcount` |
//! | [`lease`] | fencing at the resource, for effects that must not happen twice |

pub mod handlers;
pub mod job;
pub mod lease;
pub mod pool;
