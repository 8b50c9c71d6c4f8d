//! Programs written for tokio, in the world: only their imports differ.
#![cfg(madsim)]

mod echo;
mod fs;
mod http;
mod register;
mod sync;
mod task;
mod time;
