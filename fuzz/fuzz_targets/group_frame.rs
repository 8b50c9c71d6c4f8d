#![no_main]
nurl_fuzz::fuzz!("group_frame");
