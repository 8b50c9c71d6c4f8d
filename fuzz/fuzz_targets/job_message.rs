#![no_main]
nurl_fuzz::fuzz!("job_message");
