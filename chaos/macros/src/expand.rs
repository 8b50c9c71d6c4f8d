//! The function that replaces the attribute's.

use crate::options::Options;
use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;
use syn::{Error, FnArg, Ident, ItemFn, LitStr, Result, Type, parse2};

/// An ordinary test function around the attribute's function.
pub(crate) fn test(options: TokenStream, function: TokenStream) -> Result<TokenStream> {
    let options: Options = parse2(options)?;
    let function: ItemFn = parse2(function)?;
    check(&function, &options)?;
    let ItemFn { attrs, vis, sig, block, .. } = &function;
    let (name, inputs, output) = (&sig.ident, &sig.inputs, &sig.output);
    let body = match inputs.is_empty() {
        true => quote! { |trial| ::chaos::testing::on_one_host(trial, #name()) },
        false => quote! {
            |trial| ::std::boxed::Box::pin(::chaos::testing::in_world(
                #name(::chaos::testing::Given::given(trial))
            ))
        },
    };
    let settings = settings(&options);
    Ok(quote! {
        #(#attrs)*
        #[::core::prelude::v1::test]
        #vis fn #name() {
            async fn #name(#inputs) #output #block
            let mut test = ::chaos::testing::Test::new(
                ::core::concat!(::core::module_path!(), "::", ::core::stringify!(#name)),
                #body,
            );
            #settings
            test.check();
        }
    })
}

fn check(function: &ItemFn, options: &Options) -> Result<()> {
    let sig = &function.sig;
    if sig.asyncness.is_none() {
        let message = "a `chaos::test` runs in a world: write `async fn`, or use `#[test]`";
        return Err(Error::new(sig.fn_token.span(), message));
    }
    if !sig.generics.params.is_empty() || sig.generics.where_clause.is_some() {
        return Err(Error::new(sig.generics.span(), "a test has no type for a generic parameter"));
    }
    let again = function.attrs.iter().find(|attr| attr.path().is_ident("test"));
    if let Some(again) = again {
        return Err(Error::new(again.span(), "`chaos::test` makes it a test already: remove `#[test]`"));
    }
    let wrong = "a `chaos::test` takes nothing, `world: chaos::World`, or `trial: chaos::Trial`";
    let mut inputs = sig.inputs.iter();
    match inputs.next() {
        Some(FnArg::Receiver(receiver)) => return Err(Error::new(receiver.span(), wrong)),
        Some(FnArg::Typed(argument)) if is_world(&argument.ty) => has_no_trial(options)?,
        Some(FnArg::Typed(_)) => {}
        None => has_no_trial(options)?,
    }
    match inputs.next() {
        Some(second) => Err(Error::new(second.span(), wrong)),
        None => Ok(()),
    }
}

/// Refuses the option `faults`.
fn has_no_trial(options: &Options) -> Result<()> {
    let Some(at) = options.faults_at else { return Ok(()) };
    let message = "faults are started by the test: take `trial: chaos::Trial`, and call `trial.start_faults`";
    Err(Error::new(at, message))
}

fn is_world(argument: &Type) -> bool {
    matches!(argument, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "World"))
}

/// The statements that set what the attribute says.
fn settings(options: &Options) -> TokenStream {
    let seeds = options.seeds.map(|seeds| quote! { test.seeds = #seeds; });
    let start = options.start.map(|start| quote! { test.start = #start; });
    let time_limit = options.time_limit.map(|limit| {
        let ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        quote! { test.time_limit = ::core::time::Duration::from_millis(#ms); }
    });
    let faults: &[Ident] = &options.faults;
    let logs: &[LitStr] = &options.logs;
    let faults = (!faults.is_empty()).then(|| quote! { test.faults = &[#(::chaos::FaultKind::#faults),*]; });
    // Without the option, the lines of the package and of the test's own crate.
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default().replace('-', "_");
    let logs = match logs {
        [] => quote! { test.logs = &[#package, ::core::env!("CARGO_CRATE_NAME")]; },
        logs => quote! { test.logs = &[#(#logs),*]; },
    };
    quote! { #seeds #start #time_limit #faults #logs }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(options: &str, function: &str) -> String {
        match test(options.parse().unwrap(), function.parse().unwrap()) {
            Ok(made) => panic!("no refusal but {made}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn wrong_use_is_refused_with_what_to_write() {
        let table = [
            ("", "fn a(world: World) {}", "write `async fn`"),
            ("", "async fn a(one: World, two: World) {}", "takes nothing, `world: chaos::World`"),
            ("", "async fn a(&self) {}", "takes nothing, `world: chaos::World`"),
            ("", "async fn a<T>(world: World) {}", "no type for a generic parameter"),
            ("", "#[test] async fn a(world: World) {}", "remove `#[test]`"),
            ("", "struct A;", "expected"),
            ("seeds = 0", "async fn a() {}", "nothing is tested"),
            ("seeds = \"7\"", "async fn a() {}", "expected integer literal"),
            ("sedes = 7", "async fn a() {}", "there is no option `sedes`; the options are `seeds`"),
            ("seeds = 7, seeds = 8", "async fn a() {}", "given twice"),
            ("time_limit = \"ten\"", "async fn a() {}", "\"10min\""),
            ("faults = [Crash]", "async fn a() {}", "take `trial: chaos::Trial`"),
            ("faults = [Crash]", "async fn a(world: World) {}", "take `trial: chaos::Trial`"),
            ("faults = [Crash]", "async fn a(world: chaos::World) {}", "take `trial: chaos::Trial`"),
        ];
        for (options, function, expected) in table {
            let refusal = refusal(options, function);
            assert!(refusal.contains(expected), "{options} {function}: {refusal}");
        }
    }

    #[test]
    fn the_test_keeps_attributes_and_visibility_and_gets_the_options() {
        let options =
            "seeds = 7, start = 100, time_limit = \"2min\", faults = [Crash, Loss], logs = [\"mine\"]";
        let function = "#[ignore] pub(crate) async fn a(trial: Trial) -> Result<(), String> { Ok(()) }";
        let made = test(options.parse().unwrap(), function.parse().unwrap()).unwrap().to_string();
        let expected = [
            "# [ignore] # [:: core :: prelude :: v1 :: test] pub (crate) fn a ()",
            "async fn a (trial : Trial) -> Result < () , String >",
            "test . seeds = 7u64 ; test . start = 100u64 ;",
            "from_millis (120000u64)",
            "& [:: chaos :: FaultKind :: Crash , :: chaos :: FaultKind :: Loss]",
            "test . logs = & [\"mine\"]",
        ];
        for part in expected {
            assert!(made.contains(part), "{part} in {made}");
        }
    }
}
