//! One target for each parser of bytes that come from the network or from a file.

pub(crate) mod authority;
pub(crate) mod cores;
pub(crate) mod text;
pub(crate) mod wire;

/// A target of one parser.
macro_rules! parser {
    ($name:ident, $seeds:expr) => {
        $crate::Target { name: stringify!($name), run: $name, seeds: $seeds, stateful: false }
    };
}
use parser;
