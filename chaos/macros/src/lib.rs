//! The attribute `chaos::test`. The crate `chaos` re-exports it, and documents it there.

mod expand;
mod options;

use proc_macro::TokenStream;
use quote::quote;

/// Makes an ordinary `#[test]` of an `async fn` that runs in simulated worlds; see `chaos::test`.
#[proc_macro_attribute]
pub fn test(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::test(options.into(), function.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// What `chaos::test` is in a build without the flag: an error that names it.
#[proc_macro_attribute]
pub fn test_without_the_flag(_: TokenStream, _: TokenStream) -> TokenStream {
    quote! {
        ::core::compile_error!(
            "chaos needs --cfg madsim: see step 2 of chaos/README.md; RUSTFLAGS in the environment overrides .cargo/config.toml"
        );
    }
    .into()
}
