//! Who may have sidecars injected into the pods they create.

use serde::Deserialize;

use crate::{
    glob::{Glob, GlobError},
    pod::or_default,
    text::Text,
};

/// Service accounts that create pods in every cluster, or are known to create pods on behalf of users.
const BUILT_IN: [&str; 10] = [
    "kube-system:replicaset-controller",
    "kube-system:replication-controller",
    "kube-system:deployment-controller",
    "kube-system:cronjob-controller",
    "kube-system:job-controller",
    "kube-system:statefulset-controller",
    "kube-system:daemon-set-controller",
    "openshift-operator-lifecycle-manager:olm-operator-serviceaccount",
    "tekton-pipelines:tekton-pipelines-controller",
    "mirrord:mirrord-operator",
];

const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
const MASTERS: &str = "system:masters";

/// Why a list of allowed service accounts cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("invalid pattern \"{0}\", must contain exactly one ':' separating namespace and name")]
    Separator(String),
    #[error("namespace and name patterns cannot both be empty")]
    Empty,
    #[error("invalid namespace pattern \"{pattern}\": {source}")]
    Namespace { pattern: String, source: GlobError },
    #[error("invalid service account pattern \"{pattern}\": {source}")]
    Name { pattern: String, source: GlobError },
}

/// The service accounts that may.
#[derive(Debug, Clone)]
pub struct Allowed {
    patterns: Vec<Pattern>,
    literals: Vec<Account>,
}

#[derive(Debug, Clone)]
struct Pattern {
    namespace: Glob,
    name: Glob,
}

/// A service account by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Account {
    pub namespace: String,
    pub name: String,
}

/// Who asks, as the API server tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Requester<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    pub username: Text<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub uid: Text<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub groups: Vec<Text<'a>>,
}

impl Allowed {
    /// The built-in accounts and those in the lists, each a comma list of `namespace:name` globs.
    ///
    /// # Errors
    /// Names the first entry that cannot be used.
    pub fn new(lists: &[&str]) -> Result<Self, PatternError> {
        let mut allowed = Self {
            patterns: Vec::new(),
            literals: Vec::new(),
        };
        let entries = lists.iter().flat_map(|list| list.split(',')).map(str::trim);
        for entry in BUILT_IN.into_iter().chain(entries).filter(|entry| !entry.is_empty()) {
            allowed.add(entry)?;
        }
        Ok(allowed)
    }

    fn add(&mut self, entry: &str) -> Result<(), PatternError> {
        let separator = || PatternError::Separator(entry.to_owned());
        let (namespace, name) = entry.split_once(':').ok_or_else(separator)?;
        if name.contains(':') {
            return Err(separator());
        }
        let (namespace, name) = (namespace.trim(), name.trim());
        if namespace.is_empty() && name.is_empty() {
            return Err(PatternError::Empty);
        }
        self.patterns.push(Pattern {
            namespace: Glob::new(namespace).map_err(|source| PatternError::Namespace {
                pattern: namespace.to_owned(),
                source,
            })?,
            name: Glob::new(name).map_err(|source| PatternError::Name {
                pattern: name.to_owned(),
                source,
            })?,
        });
        if is_name(namespace) && is_name(name) {
            self.literals.push(Account {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            });
        }
        Ok(())
    }

    /// Entries without wildcards: their UIDs are allowed too, see [`crate::cluster`].
    pub fn literals(&self) -> &[Account] {
        &self.literals
    }

    /// Whether the requester may; `uid_known` says whether a UID is that of one of [`Allowed::literals`].
    pub fn permits(&self, requester: &Requester<'_>, uid_known: impl FnOnce(&str) -> bool) -> bool {
        self.permits_name(&requester.username)
            || (!requester.uid.is_empty() && uid_known(&requester.uid))
            || requester.groups.iter().any(|group| **group == *MASTERS)
    }

    fn permits_name(&self, username: &str) -> bool {
        let Some((namespace, name)) = account(username) else {
            return false;
        };
        self.patterns
            .iter()
            .any(|pattern| pattern.namespace.matches(namespace) && pattern.name.matches(name))
    }
}

/// Namespace and name in a service account's user name; further parts are ignored, as upstream does.
pub fn account(username: &str) -> Option<(&str, &str)> {
    let mut parts = username.strip_prefix(SERVICE_ACCOUNT)?.split(':');
    Some((parts.next()?, parts.next()?))
}

/// Whether an entry can be a name: what a glob would treat specially cannot.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(lists: &[&str], username: &str) -> bool {
        let requester = Requester {
            username: username.into(),
            ..Requester::default()
        };
        Allowed::new(lists).unwrap().permits(&requester, |_| false)
    }

    #[test]
    fn built_in_accounts_and_masters_may() {
        assert!(permits(&[], "system:serviceaccount:kube-system:replicaset-controller"));
        assert!(permits(
            &[],
            "system:serviceaccount:tekton-pipelines:tekton-pipelines-controller"
        ));
        assert!(permits(
            &[],
            "system:serviceaccount:kube-system:job-controller:extra-part"
        ));
        assert!(!permits(&[], "system:serviceaccount:kube-system"));
        assert!(!permits(&[], "system:serviceaccount:shop:job-controller"));
        assert!(!permits(&[], "kube-system:job-controller"));
        assert!(!permits(&[], "system:kube-controller-manager"));
        let root = Requester {
            username: "admin".into(),
            groups: vec!["a".into(), "system:masters".into()],
            ..Requester::default()
        };
        assert!(Allowed::new(&[]).unwrap().permits(&root, |_| false));
    }

    #[test]
    fn both_lists_and_globs_count() {
        let lists = ["proj-*:sa-[dt]*, staging-?:*", " tools : deployer ,"];
        for (name, expected) in [
            ("proj-1:sa-dev", true),
            ("proj-:sa-test", true),
            ("proj-1:sa-prod", false),
            ("staging-1:anything", true),
            ("staging-12:anything", false),
            ("tools:deployer", true),
        ] {
            assert_eq!(
                permits(&lists, &format!("system:serviceaccount:{name}")),
                expected,
                "{name}"
            );
        }
        assert!(permits(&["*:*"], "system:serviceaccount:any:body"));
        assert!(!permits(&["*:*"], "jane"));
    }

    #[test]
    fn an_empty_side_matches_only_an_empty_text() {
        assert!(!permits(&[":deployer"], "system:serviceaccount:tools:deployer"));
        assert!(permits(&[":deployer"], "system:serviceaccount::deployer"));
    }

    #[test]
    fn uids_of_literal_entries_count() {
        let allowed = Allowed::new(&["tools:deployer,proj-*:x"]).unwrap();
        assert!(allowed.literals().iter().any(|account| account.name == "deployer"));
        assert!(!allowed.literals().iter().any(|account| account.name == "x"));
        let mut requester = Requester {
            username: "jane".into(),
            uid: "u-1".into(),
            groups: vec![],
        };
        assert!(allowed.permits(&requester, |uid| uid == "u-1"));
        requester.uid = "".into();
        assert!(!allowed.permits(&requester, |_| true), "no UID matches no account");
    }

    #[test]
    fn mistakes_name_the_entry() {
        let message = |list: &str| Allowed::new(&[list]).unwrap_err().to_string();
        let separator = |entry: &str| {
            format!("invalid pattern \"{entry}\", must contain exactly one ':' separating namespace and name")
        };
        assert_eq!(message("a:b,kube-system"), separator("kube-system"));
        assert_eq!(message("a:b:c"), separator("a:b:c"));
        assert_eq!(message(" : "), "namespace and name patterns cannot both be empty");
        assert_eq!(message("a[:b"), "invalid namespace pattern \"a[\": '[' is not closed");
        assert_eq!(
            message("a:b\\"),
            "invalid service account pattern \"b\\\": it ends in a backslash"
        );
    }
}
