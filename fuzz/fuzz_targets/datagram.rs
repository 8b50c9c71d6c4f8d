#![no_main]
nurl_fuzz::fuzz!("datagram");
