//! The reference pages that are written from the code.

mod pages;

use std::path::PathBuf;

use crate::status;

/// Where the pages are, seen from the root of the repository.
pub const FOLDER: &str = "docs/reference";

/// Every page: name of the file and content.
pub fn pages() -> Vec<(&'static str, String)> {
    vec![
        ("conditions.md", status::reference::page()),
        ("rules.md", pages::rules()),
        ("warnings.md", pages::warnings()),
    ]
}

/// The folder of the pages in this checkout.
pub fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(FOLDER)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_pages_are_those_that_the_code_writes() {
        for (file, content) in pages() {
            outrigger_testkit::docs::assert_current(file, &content);
        }
    }

    #[test]
    fn the_index_names_every_page() {
        let index = fs::read_to_string(folder().join("README.md")).unwrap();
        for (file, _) in pages() {
            assert!(
                index.contains(&format!("]({file})")),
                "docs/reference/README.md does not name {file}"
            );
        }
    }
}
