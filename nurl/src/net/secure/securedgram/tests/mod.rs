//! Whole endpoints against each other, over a wire that loses, delays and reorders datagrams.

mod abuse;
mod legs;
mod life;
mod loss;
mod replay;
mod versions;
mod world;
