#![no_main]
nurl_fuzz::fuzz!("bech32_text");
