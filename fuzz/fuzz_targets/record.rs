#![no_main]
nurl_fuzz::fuzz!("record");
