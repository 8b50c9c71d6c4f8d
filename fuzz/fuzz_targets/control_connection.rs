#![no_main]
nurl_fuzz::fuzz!("control_connection");
