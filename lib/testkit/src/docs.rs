//! Pages of the documentation that are made from the code.

/// Panics unless a page of `docs/reference` is the one that the code makes.
#[expect(clippy::panic, reason = "a helper of tests")]
pub fn assert_current(page: &str, made: &str) {
    let path = format!("{}/../../docs/reference/{page}", env!("CARGO_MANIFEST_DIR"));
    if std::fs::read_to_string(path).unwrap_or_default() != made {
        panic!("docs/reference/{page} is stale: run `make generate`");
    }
}
