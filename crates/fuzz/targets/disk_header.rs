//! Feeds `tintype_fuzz::disk_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tintype_fuzz::disk_header(bytes));
