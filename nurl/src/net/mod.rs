//! How datagrams are secured and how they find their way.

pub mod candidates;
pub mod route;
pub mod securedgram;
pub mod stun;
