//! Tokens: those that pods present to sentry, and those that sentry issues to sidecars.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    outrigger_sentry::fuzzing::token(text);
    outrigger_identity::fuzzing::token(text);
});
