//! Computation: jobs run where their key lives, and what they do to the outside is fenced.

pub mod lease;
