#![no_main]
nurl_fuzz::fuzz!("stun_message");
