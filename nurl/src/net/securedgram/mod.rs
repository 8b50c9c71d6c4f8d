//! Datagrams between peers: sealed for a key, whatever the path.

pub mod paths;
