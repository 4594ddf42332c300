//! Tokens of any issuer, and the key sets that they are verified with.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A token and a set, with a zero between them; else both.
    let (token, keys) = text.split_once('\0').unwrap_or((text, text));
    outrigger_sentry::fuzzing::signed_token(token, keys);
});
