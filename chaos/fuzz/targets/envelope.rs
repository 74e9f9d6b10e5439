//! Looks for bytes that break a promise: see `haystack_chaos::hostile`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| haystack_chaos::hostile::envelopes(bytes));
