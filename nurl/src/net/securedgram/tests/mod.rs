//! Whole endpoints against each other, over a wire that loses, delays and reorders.

mod abuse;
mod life;
mod loss;
mod world;
