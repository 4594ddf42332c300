//! Follows Components, of which the injector needs those that bring a container.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Resource, ResourceExt, api::ListParams, core::NamespaceResourceScope, runtime::watcher};
use outrigger_process::kubernetes::{
    client::Clients,
    watch::{Change, changes, until_forbidden},
};
use serde::Deserialize;

use super::{Cluster, Known, POLL};
use crate::{annotations::COMPONENT_CONTAINER, patch::components::ComponentContainer, pod::or_default};

/// Objects in a page of a list.
const PAGE: u32 = 500;

/// A Component without its spec, which may be large and hold secrets.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Component {
    metadata: ObjectMeta,
    #[serde(deserialize_with = "or_default")]
    scopes: Vec<String>,
}

impl Component {
    /// The container that it brings, if it brings one.
    fn container(&self) -> Option<ComponentContainer> {
        let json = self.annotations().get(COMPONENT_CONTAINER)?;
        (!json.is_empty()).then(|| ComponentContainer {
            component: self.name_any(),
            scopes: self.scopes.clone(),
            json: json.clone(),
        })
    }
}

impl Resource for Component {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Component".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "dapr.io".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1alpha1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "components".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Cluster {
    fn put_component(&self, component: &Component) {
        let namespace = component.namespace().unwrap_or_default();
        let name = component.name_any();
        match component.container() {
            Some(container) => {
                let mut components = self.shared.components.write();
                components
                    .namespaces
                    .entry(namespace)
                    .or_default()
                    .insert(name, container);
            }
            None => self.remove_component(&namespace, &name),
        }
    }

    fn remove_component(&self, namespace: &str, name: &str) {
        let mut components = self.shared.components.write();
        if let Some(list) = components.namespaces.get_mut(namespace) {
            list.remove(name);
            if list.is_empty() {
                components.namespaces.remove(namespace);
            }
        }
    }

    fn replace_components(&self, listed: &[Component], known: Known) {
        let mut components = self.shared.components.write();
        components.namespaces.clear();
        components.known = known;
        for component in listed {
            if let Some(container) = component.container() {
                let list = components
                    .namespaces
                    .entry(component.namespace().unwrap_or_default())
                    .or_default();
                list.insert(component.name_any(), container);
            }
        }
    }

    fn know_components(&self, known: Known) {
        self.shared.components.write().known = known;
    }

    /// `complete` is what is known once everything was listed.
    fn change_component(&self, change: Change<Component>, complete: &Known) {
        match change {
            Change::Apply(component) => self.put_component(&component),
            Change::Delete(key) => self.remove_component(&key.namespace, &key.name),
            Change::Synced => self.know_components(complete.clone()),
            Change::Absent => self.know_components(Known::Nothing(
                "the cluster has no CustomResourceDefinition components.dapr.io".to_owned(),
            )),
            Change::Forbidden => {}
        }
    }
}

/// Follows Components for ever: those of the cluster, or in a namespaced installation those of the control plane's namespace.
/// Upstream's chart grants no watch: then they are read every half minute.
pub async fn follow(clients: Clients, namespace: String, cluster: Cluster) {
    let watch = |api, complete: Known| {
        until_forbidden(changes(api, watcher::Config::default()), {
            let cluster = cluster.clone();
            move |change| cluster.change_component(change, &complete)
        })
    };
    watch(Api::all(clients.watches.clone()), Known::All).await;
    watch(
        Api::namespaced(clients.watches, &namespace),
        Known::Namespace(namespace.clone()),
    )
    .await;
    tracing::warn!(
        seconds = POLL.as_secs(),
        "Components may not be watched and are read periodically instead"
    );
    loop {
        match poll(&clients.calls, &namespace).await {
            Ok((listed, known)) => cluster.replace_components(&listed, known),
            Err(error) => {
                tracing::warn!(%error, "cannot list Components");
                // What is known already is better than nothing.
                let mut components = cluster.shared.components.write();
                if matches!(components.known, Known::NotListedYet | Known::Nothing(_)) {
                    components.known = Known::Nothing(error.to_string());
                }
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn poll(client: &kube::Client, namespace: &str) -> Result<(Vec<Component>, Known), kube::Error> {
    match list(&Api::all(client.clone())).await {
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            let listed = list(&Api::namespaced(client.clone(), namespace)).await?;
            Ok((listed, Known::Namespace(namespace.to_owned())))
        }
        listed => Ok((listed?, Known::All)),
    }
}

/// All that bring a container, read in pages.
async fn list(api: &Api<Component>) -> Result<Vec<Component>, kube::Error> {
    let mut params = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = api.list(&params).await?;
        let next = page.metadata.continue_.filter(|token| !token.is_empty());
        found.extend(
            page.items
                .into_iter()
                .filter(|component| component.container().is_some()),
        );
        match next {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use outrigger_process::kubernetes::watch::ObjectKey;

    use super::*;

    fn component(name: &str, container: Option<&str>) -> Component {
        let annotations = container.map(|json| (COMPONENT_CONTAINER.to_owned(), json.to_owned()));
        Component {
            metadata: ObjectMeta {
                namespace: Some("shop".into()),
                name: Some(name.into()),
                annotations: Some(annotations.into_iter().collect()),
                ..ObjectMeta::default()
            },
            ..Component::default()
        }
    }

    fn names(cluster: &Cluster) -> Vec<String> {
        let containers = cluster.component_containers("shop").unwrap();
        containers.into_iter().map(|container| container.component).collect()
    }

    #[test]
    fn components_come_and_go_in_the_order_of_their_names() {
        let cluster = Cluster::default();
        cluster.change_component(Change::Apply(component("b", Some("{}"))), &Known::All);
        cluster.change_component(Change::Apply(component("a", Some("{}"))), &Known::All);
        cluster.change_component(Change::Apply(component("c", None)), &Known::All);
        cluster.change_component(Change::Synced, &Known::All);
        assert_eq!(names(&cluster), ["a", "b"]);
        cluster.change_component(Change::Apply(component("a", Some(""))), &Known::All);
        assert_eq!(names(&cluster), ["b"], "the annotation was emptied");
        cluster.change_component(Change::Delete(ObjectKey::new("shop", "b")), &Known::All);
        assert!(names(&cluster).is_empty());
        cluster.change_component(Change::Absent, &Known::All);
        assert!(cluster.component_containers("shop").is_err());
    }

    #[test]
    fn a_list_replaces_all() {
        let cluster = Cluster::default();
        cluster.replace_components(&[component("a", Some("{}"))], Known::All);
        cluster.replace_components(&[component("b", Some("{}"))], Known::Namespace("shop".into()));
        assert_eq!(names(&cluster), ["b"]);
    }

    #[test]
    fn specs_are_not_read() {
        let json = r#"{"metadata":{"name":"a"},"spec":{"type":5},"auth":{},"scopes":null}"#;
        assert!(serde_json::from_str::<Component>(json).unwrap().scopes.is_empty());
    }
}
