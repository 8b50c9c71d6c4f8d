#![no_main]
nurl_fuzz::fuzz!("large_file_message");
