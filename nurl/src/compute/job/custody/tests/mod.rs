//! Nodes in one process that keep each other's tasks, with virtual time, delays, losses, deaths and restarts.

mod asking;
mod custodians;
mod deposits;
mod entries;
mod harness;
mod hostile;
mod orphans;
