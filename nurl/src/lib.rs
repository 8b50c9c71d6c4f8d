//! nurl: computation on machines behind NATs, without a server farm.
//!
//! Layers, from the top; imports only ever point down this list:
//!
//! | layer | module |
//! | --- | --- |
//! | compute | [`compute`] |
//! | state | [`state`] |
//! | ownership | [`ring`] |
//! | keys | [`key`], [`mesh`] |
//! | shim | [`rt`] |

#[cfg(all(feature = "sim", not(madsim)))]
compile_error!(
    "feature `sim` needs `--cfg madsim`. The workspace's .cargo/config.toml sets it; an exported RUSTFLAGS \
     displaces that. Unset RUSTFLAGS, or add to your own .cargo/config.toml:\n\
     [target.'cfg(all())']\nrustflags = [\"--cfg\", \"madsim\"]\n[build]\nrustdocflags = [\"--cfg\", \"madsim\"]"
);

// Without the cfg the world is empty: the modules step aside, so that only the error above is seen.
#[cfg(any(not(feature = "sim"), madsim))]
pub mod compute;
#[cfg(any(not(feature = "sim"), madsim))]
pub mod key;
#[cfg(any(not(feature = "sim"), madsim))]
pub mod mesh;
#[cfg(any(not(feature = "sim"), madsim))]
pub mod ring;
#[cfg(any(not(feature = "sim"), madsim))]
pub mod rt;
#[cfg(any(not(feature = "sim"), madsim))]
pub mod state;
