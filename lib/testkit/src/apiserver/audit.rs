//! What was asked of the server: its audit log, one line a request, without bodies.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ApiServer, Error};

/// Each request once, when it ends. Leases are renewed all the time, and nobody counts them.
const POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived", "ResponseStarted"], "rules": [
    {"level": "None", "resources": [{"group": "coordination.k8s.io"}]},
    {"level": "Metadata"}
]}"#;

/// A request that was answered.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// `get`, `list`, `watch`, `create`, `update`, `patch` or `delete`.
    pub verb: String,
    #[serde(rename = "requestURI")]
    pub uri: String,
    /// RFC 3339, with microseconds.
    pub request_received_timestamp: String,
    /// Absent for requests that are about no resource.
    pub object_ref: Option<ObjectRef>,
    pub response_status: Option<ResponseStatus>,
}

/// What a request is about.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// Plural, in lower case.
    pub resource: String,
    /// Empty for requests about objects themselves.
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

/// How a request was answered.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ResponseStatus {
    /// HTTP status code.
    pub code: u16,
}

impl ApiServer {
    /// All requests about objects of a namespace, in the order of their answers. The last ones may be missing for a moment after
    /// they were answered.
    pub fn requests(&self, namespace: &str) -> Result<Vec<Request>, Error> {
        let path = log(&self.folder);
        let text = fs::read_to_string(&path).map_err(Error::Folder)?;
        let unreadable = |error: serde_json::Error| Error::Manifest {
            path: path.clone(),
            reason: error.to_string(),
        };
        let mut requests = Vec::new();
        // The last line may not be complete.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            if line.contains(namespace) {
                requests.push(serde_json::from_str(line).map_err(unreadable)?);
            }
        }
        let about = |request: &Request| {
            request
                .object_ref
                .as_ref()
                .is_some_and(|object| object.namespace == namespace)
        };
        requests.retain(about);
        Ok(requests)
    }
}

pub(super) fn log(folder: &Path) -> PathBuf {
    folder.join("audit.log")
}

/// The flags that have the server write the log, and the policy that they need.
pub(super) fn flags(folder: &Path) -> Vec<String> {
    vec![
        format!("--audit-policy-file={}", policy(folder).display()),
        format!("--audit-log-path={}", log(folder).display()),
    ]
}

pub(super) fn write_policy(folder: &Path) -> Result<(), Error> {
    fs::write(policy(folder), POLICY).map_err(Error::Folder)
}

fn policy(folder: &Path) -> PathBuf {
    folder.join("audit-policy.json")
}
