//! The `nurl` command.
fn main() {}
