//! Feeds `tintype_fuzz::guest_agent`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tintype_fuzz::guest_agent(bytes));
