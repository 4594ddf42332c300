//! Which namespaces the operator looks at.

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};

/// All namespaces, or one.
#[derive(Debug, Clone, Default)]
pub struct Scope(Option<String>);

impl Scope {
    /// An empty text means all namespaces.
    pub fn new(namespace: &str) -> Self {
        Self((!namespace.is_empty()).then(|| namespace.to_owned()))
    }

    pub fn contains(&self, namespace: &str) -> bool {
        self.0.as_deref().is_none_or(|only| only == namespace)
    }

    /// For lists and watches.
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.0 {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }
}
