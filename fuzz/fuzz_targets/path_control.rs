#![no_main]
nurl_fuzz::fuzz!("path_control");
