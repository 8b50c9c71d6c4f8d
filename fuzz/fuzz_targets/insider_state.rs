#![no_main]
nurl_fuzz::fuzz!("insider_state");
