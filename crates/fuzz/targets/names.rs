//! Feeds `tintype_fuzz::names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tintype_fuzz::names(bytes));
