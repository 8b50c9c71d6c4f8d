#![no_main]
nurl_fuzz::fuzz!("hub_frames");
