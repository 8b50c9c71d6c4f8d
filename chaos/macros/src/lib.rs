//! The attribute `chaos::test`. The crate `chaos` re-exports it, and documents it there.

mod expand;
mod options;

use proc_macro::TokenStream;

/// Makes an ordinary `#[test]` of an `async fn` that runs in simulated worlds; see `chaos::test`.
#[proc_macro_attribute]
pub fn test(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::test(options.into(), function.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
