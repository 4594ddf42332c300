//! Which resources are for this application.

use outrigger_core::scopes::in_scope;

use super::component::Component;

/// Why a component is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it belongs to namespace {0:?}")]
    Namespace(String),
    #[error("its scopes do not contain this application")]
    Scopes,
    #[error("the Configuration's components.deny contains {0:?}")]
    Denied(String),
    #[error("with components.deny in the Configuration, a component needs a type and a version")]
    Incomplete,
}

/// Component types that the Configuration denies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DenyList(Vec<String>);

impl DenyList {
    /// Entries are `type` or `type/version`; others are ignored, as upstream does.
    pub fn new(entries: &[String]) -> Self {
        let legal = |entry: &&String| !entry.is_empty() && entry.matches('/').count() <= 1;
        Self(entries.iter().filter(legal).cloned().collect())
    }

    fn check(&self, kind: &str, version: &str) -> Result<(), Refusal> {
        if self.0.is_empty() {
            return Ok(());
        }
        if kind.is_empty() || version.is_empty() {
            return Err(Refusal::Incomplete);
        }
        let denied = |entry: &&String| match entry.split_once('/') {
            None => *entry == kind,
            Some((denied_kind, denied_version)) => denied_kind == kind && denied_version == version,
        };
        self.0
            .iter()
            .find(denied)
            .map_or(Ok(()), |entry| Err(Refusal::Denied(entry.clone())))
    }
}

/// Checks namespace, scopes and deny list. An empty `namespace` accepts every namespace.
///
/// # Errors
/// The first rule that keeps the component from this application.
pub fn authorise(component: &Component, namespace: &str, app_id: &str, deny: &DenyList) -> Result<(), Refusal> {
    if !namespace.is_empty() && !component.namespace.is_empty() && namespace != component.namespace {
        return Err(Refusal::Namespace(component.namespace.clone()));
    }
    if !in_scope(&component.scopes, app_id) {
        return Err(Refusal::Scopes);
    }
    deny.check(&component.spec.kind, &component.spec.version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{
        Revision,
        component::{Auth, Spec},
    };

    fn component(namespace: &str, scopes: &[&str]) -> Component {
        Component {
            name: "store".into(),
            namespace: namespace.into(),
            revision: Revision::default(),
            spec: Spec {
                kind: "state.in-memory".into(),
                version: "v1".into(),
                ..Spec::default()
            },
            auth: Auth::default(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        }
    }

    #[test]
    fn namespace_and_scopes() {
        let none = DenyList::default();
        assert_eq!(authorise(&component("shop", &[]), "shop", "cart", &none), Ok(()));
        assert_eq!(authorise(&component("", &["cart"]), "shop", "cart", &none), Ok(()));
        assert_eq!(authorise(&component("other", &[]), "", "cart", &none), Ok(()));
        assert_eq!(
            authorise(&component("other", &[]), "shop", "cart", &none),
            Err(Refusal::Namespace("other".into()))
        );
        assert_eq!(
            authorise(&component("", &["till"]), "shop", "cart", &none),
            Err(Refusal::Scopes)
        );
    }

    #[test]
    fn deny_list() {
        let check = |entries: &[&str], kind: &str, version: &str| {
            DenyList::new(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>()).check(kind, version)
        };
        assert_eq!(check(&["state.redis"], "state.in-memory", "v1"), Ok(()));
        assert_eq!(
            check(&["state.in-memory"], "state.in-memory", "v1"),
            Err(Refusal::Denied("state.in-memory".into()))
        );
        assert_eq!(check(&["state.in-memory/v1"], "state.in-memory", "v2"), Ok(()));
        assert!(check(&["state.in-memory/v1"], "state.in-memory", "v1").is_err());
        assert_eq!(check(&["state.redis"], "state.in-memory", ""), Err(Refusal::Incomplete));
        assert_eq!(
            check(&["", "a/b/c"], "state.in-memory", ""),
            Ok(()),
            "nothing legal is listed"
        );
    }
}
