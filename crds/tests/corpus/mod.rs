//! Valid manifests as people write them, one a file, and beside each the JSON that sidecars get for it.
//!
//! The JSON is that of the object as a real API server returns it. `UPDATE_GOLDEN=1 cargo test -p outrigger-crds --test api`
//! writes it anew; look at the difference before you keep it, since every byte of it is something sidecars compare.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// A valid manifest.
pub(crate) struct Manifest {
    pub(crate) path: PathBuf,
    /// What the YAML says, though not how numbers are spelled.
    pub(crate) object: Value,
}

/// All manifests, in the order of their paths.
pub(crate) fn valid() -> Vec<Manifest> {
    let mut manifests = Vec::new();
    for path in files("yaml") {
        let yaml = fs::read_to_string(&path).unwrap();
        let object = serde_saphyr::from_str(&yaml).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        manifests.push(Manifest { path, object });
    }
    manifests
}

/// Files of the corpus with this extension, sorted.
pub(crate) fn files(extension: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/valid");
    let mut files = Vec::new();
    for folder in fs::read_dir(root).unwrap() {
        let folder = fs::read_dir(folder.unwrap().path()).unwrap();
        files.extend(folder.map(|entry| entry.unwrap().path()));
    }
    files.retain(|path| path.extension() == Some(OsStr::new(extension)));
    files.sort();
    files
}

impl Manifest {
    /// Such as `Component` and `dapr.io/v1alpha1`.
    pub(crate) fn kind(&self) -> (&str, &str) {
        let text = |field: &str| self.object[field].as_str().unwrap();
        (text("kind"), text("apiVersion"))
    }

    pub(crate) fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap()
    }

    /// The file with what sidecars get.
    pub(crate) fn golden(&self) -> PathBuf {
        self.path.with_extension("json")
    }

    /// What sidecars get.
    pub(crate) fn sent(&self) -> String {
        let path = self.golden();
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim_end_matches('\n').to_owned()
    }
}

/// Evaluates an expression in which `$K` is the type for a kind and version.
macro_rules! for_kind {
    ($kind:expr, $K:ident => $body:expr) => {{
        use outrigger_crds::subscription::{v1alpha1, v2alpha1};
        macro_rules! as_type {
            ($type:ty) => {{
                type $K = $type;
                $body
            }};
        }
        match $kind {
            ("Component", "dapr.io/v1alpha1") => as_type!(outrigger_crds::Component),
            ("Configuration", "dapr.io/v1alpha1") => as_type!(outrigger_crds::Configuration),
            ("HTTPEndpoint", "dapr.io/v1alpha1") => as_type!(outrigger_crds::HTTPEndpoint),
            ("MCPServer", "dapr.io/v1alpha1") => as_type!(outrigger_crds::MCPServer),
            ("Resiliency", "dapr.io/v1alpha1") => as_type!(outrigger_crds::Resiliency),
            ("Subscription", "dapr.io/v1alpha1") => as_type!(v1alpha1::Subscription),
            ("Subscription", "dapr.io/v2alpha1") => as_type!(v2alpha1::Subscription),
            ("WorkflowAccessPolicy", "dapr.io/v1alpha1") => as_type!(outrigger_crds::WorkflowAccessPolicy),
            (kind, version) => panic!("unexpected {version} {kind}"),
        }
    }};
}
pub(crate) use for_kind;
