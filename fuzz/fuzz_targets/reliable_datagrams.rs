#![no_main]
nurl_fuzz::fuzz!("reliable_datagrams");
