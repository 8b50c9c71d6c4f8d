//! nurl: computation on machines behind NATs, without a server farm.
//!
//! Layers, from the top; imports only ever point down this list:
//!
//! | layer | module |
//! | --- | --- |
//! | shim | [`rt`] |

#[cfg(all(feature = "sim", not(madsim)))]
compile_error!(
    "feature `sim` needs `--cfg madsim`. The workspace's .cargo/config.toml sets it; an exported RUSTFLAGS \
     displaces that. Unset RUSTFLAGS, or add to your own .cargo/config.toml:\n\
     [target.'cfg(all())']\nrustflags = [\"--cfg\", \"madsim\"]\n[build]\nrustdocflags = [\"--cfg\", \"madsim\"]"
);

#[cfg(any(not(feature = "sim"), madsim))]
pub mod rt;
