//! Feeds `tintype_fuzz::memory_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tintype_fuzz::memory_file(bytes));
