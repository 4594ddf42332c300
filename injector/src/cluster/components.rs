//! Follows Components, of which the injector needs those that bring a container.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Resource, ResourceExt, api::ListParams, core::NamespaceResourceScope, runtime::watcher};
use outrigger_process::kubernetes::{
    access::{Objects, granted},
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

    /// `listed` are those seen so far, until all have been seen; `complete` is what is known then.
    fn change_component(&self, change: Change<Component>, listed: &mut Option<Vec<Component>>, complete: &Known) {
        match change {
            Change::Apply(component) => match listed {
                Some(listed) if component.container().is_some() => listed.push(component),
                Some(_) => {}
                None => self.put_component(&component),
            },
            Change::Delete(key) => self.remove_component(&key.namespace, &key.name),
            Change::Synced => match listed.take() {
                // Also what was known before, in another way, and is not there any more.
                Some(listed) => self.replace_components(&listed, complete.clone()),
                None => self.know_components(complete.clone()),
            },
            Change::Absent => self.know_components(Known::Nothing(
                "the cluster has no CustomResourceDefinition components.dapr.io".to_owned(),
            )),
            Change::Forbidden => {}
        }
    }
}

/// Follows Components for ever: those of the cluster, or in a namespaced installation those of the control plane's namespace.
/// Upstream's chart grants no watch: then they are read every half minute. What is granted later is used from then on.
pub async fn follow(clients: Clients, namespace: String, cluster: Cluster) {
    loop {
        watch(Api::all(clients.watches.clone()), Known::All, &cluster).await;
        tokio::select! {
            () = granted::<Component>(&clients.calls, Objects::default()) => {
                tracing::info!("the Components of the cluster may be watched now");
            }
            () = follow_own(&clients, &namespace, &cluster) => {}
        }
    }
}

/// Follows those of one namespace for ever.
async fn follow_own(clients: &Clients, namespace: &str, cluster: &Cluster) {
    let own = Objects {
        namespace: Some(namespace),
        ..Objects::default()
    };
    loop {
        let known = Known::Namespace(namespace.to_owned());
        watch(Api::namespaced(clients.watches.clone(), namespace), known, cluster).await;
        tracing::warn!(
            seconds = POLL.as_secs(),
            "Components may not be watched and are read periodically instead"
        );
        tokio::select! {
            () = granted::<Component>(&clients.calls, own) => {
                tracing::info!(namespace, "the Components of the namespace may be watched now");
            }
            () = poll_for_ever(&clients.calls, namespace, cluster) => {}
        }
    }
}

/// Until it is forbidden; what is known then stays.
async fn watch(api: Api<Component>, complete: Known, cluster: &Cluster) {
    let mut listed = Some(Vec::new());
    until_forbidden(changes(api, watcher::Config::default()), |change| {
        cluster.change_component(change, &mut listed, &complete);
    })
    .await;
}

async fn poll_for_ever(client: &kube::Client, namespace: &str, cluster: &Cluster) {
    loop {
        match poll(client, namespace).await {
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
        let mut listed = Some(Vec::new());
        let mut change = |change| cluster.change_component(change, &mut listed, &Known::All);
        change(Change::Apply(component("b", Some("{}"))));
        change(Change::Synced);
        change(Change::Apply(component("a", Some("{}"))));
        change(Change::Apply(component("c", None)));
        assert_eq!(names(&cluster), ["a", "b"]);
        change(Change::Apply(component("a", Some(""))));
        assert_eq!(names(&cluster), ["b"], "the annotation was emptied");
        change(Change::Delete(ObjectKey::new("shop", "b")));
        assert!(names(&cluster).is_empty());
        change(Change::Absent);
        assert!(cluster.component_containers("shop").is_err());
    }

    #[test]
    fn what_vanished_between_two_watches_is_forgotten() {
        let cluster = Cluster::default();
        cluster.replace_components(&[component("old", Some("{}"))], Known::All);
        let mut listed = Some(Vec::new());
        let mut change = |change| cluster.change_component(change, &mut listed, &Known::All);
        change(Change::Apply(component("new", Some("{}"))));
        assert_eq!(names(&cluster), ["old"], "a part of a list is worse than the last one");
        change(Change::Synced);
        assert_eq!(names(&cluster), ["new"]);
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
