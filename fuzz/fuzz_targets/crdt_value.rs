#![no_main]
nurl_fuzz::fuzz!("crdt_value");
