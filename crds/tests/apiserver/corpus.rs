//! Bad manifests with what is expected to be said about them: every file under `corpus/invalid` is usable but for one
//! mistake, and its first lines are the messages, after `# rejected: ` (by the API server) or `# warned: ` (by the
//! operator).

use std::{fs, path::Path};

use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Rejected,
    Warned,
}

#[derive(Debug)]
pub(crate) struct Case {
    /// Folder and file.
    pub(crate) name: String,
    pub(crate) manifest: Value,
    pub(crate) outcome: Outcome,
    pub(crate) messages: Vec<String>,
}

/// All manifests, in the order of their names.
pub(crate) fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/invalid");
    let entries = |folder: &Path| -> Vec<_> {
        fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect()
    };
    let mut files: Vec<_> = entries(&root).iter().flat_map(|folder| entries(folder)).collect();
    files.sort();
    files
        .iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            let text = fs::read_to_string(path).unwrap();
            let lines = |prefix: &str| -> Vec<String> {
                let found = text.lines().filter_map(|line| line.strip_prefix(prefix));
                found.map(str::to_owned).collect()
            };
            let (outcome, messages) = match (lines("# rejected: "), lines("# warned: ")) {
                (rejected, warned) if warned.is_empty() => (Outcome::Rejected, rejected),
                (rejected, warned) => {
                    assert!(rejected.is_empty(), "{name} expects both");
                    (Outcome::Warned, warned)
                }
            };
            Case {
                name,
                manifest: serde_saphyr::from_str(&text).unwrap(),
                outcome,
                messages,
            }
        })
        .collect()
}

/// Fails with every case that was told something else than expected.
pub(crate) fn assert_as_expected(differences: &[(&Case, Vec<String>)]) {
    let texts: Vec<String> = differences
        .iter()
        .map(|(case, found)| {
            format!(
                "{}\n  expected {:#?}\n  found    {:#?}",
                case.name, case.messages, found
            )
        })
        .collect();
    assert!(texts.is_empty(), "{} cases differ:\n{}", texts.len(), texts.join("\n"));
}
