#![no_main]
nurl_fuzz::fuzz!("membership_message");
