#![no_main]
nurl_fuzz::fuzz!("state_message");
