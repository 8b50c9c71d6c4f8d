//! nurl
