//! Turns resources into instances. One loader owns all changes, so they happen one after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use outrigger_core::GoDuration;

use super::{
    Components, Loaded,
    metadata::{Context, Properties},
    registry::{self, Error, Request},
};
use crate::{
    metrics::Metrics,
    reports::{Rejection, Reports},
    resources::{
        DecodeError,
        authorise::{DenyList, authorise},
        component::Component,
        identify,
        reconcile::{Change, diff},
    },
};

/// Time for building one instance when the component does not say.
const INIT_TIMEOUT: Duration = Duration::from_secs(5);
/// The kind in reports.
const KIND: &str = "Component";

/// Why the sidecar cannot start with its components.
#[derive(Debug, thiserror::Error)]
#[error(
    "process component {name} error: [INIT_COMPONENT_FAILURE]: initialization error occurred for {log_name}: {error} \
     (fix the component, limit it with scopes, or set spec.ignoreErrors)"
)]
pub struct StartError {
    name: String,
    log_name: String,
    error: Error,
}

/// Keeps the loaded components equal to the resources.
pub struct Loader {
    components: Arc<Components>,
    context: Context,
    deny: DenyList,
    metrics: Metrics,
    reports: Reports,
    /// All resources that the source has, whether they are loaded, rejected or not for this application.
    known: BTreeMap<String, Component>,
    /// Why the resource of that name is not what serves.
    rejected: BTreeMap<String, String>,
    /// Whose newest version could not be read: it is neither known nor what serves.
    unreadable: BTreeSet<String>,
}

impl Loader {
    pub fn new(
        components: Arc<Components>,
        context: Context,
        deny: DenyList,
        metrics: Metrics,
        reports: Reports,
    ) -> Self {
        Self {
            components,
            context,
            deny,
            metrics,
            reports,
            known: BTreeMap::new(),
            rejected: BTreeMap::new(),
            unreadable: BTreeSet::new(),
        }
    }

    /// What became of components.
    pub fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Takes in that the source has a component that cannot be read. What serves stays.
    pub fn unreadable(&mut self, json: &[u8], error: &DecodeError) {
        tracing::error!(%error, "the operator sent a component that cannot be read");
        if let Some((name, revision)) = identify(json) {
            self.reports
                .rejected(KIND, &name, &revision, Rejection::unreadable(error));
            self.unreadable.insert(name);
        }
    }

    /// Loads everything for the first time. There is no older instance to go on with, so upstream's rule holds: what fails ends
    /// the start unless the component says `ignoreErrors`.
    ///
    /// # Errors
    /// The first component that cannot be built.
    pub async fn start(&mut self, components: Vec<Component>) -> Result<(), StartError> {
        let (changes, duplicates) = diff(&self.known, components);
        report_duplicates(&duplicates);
        for change in changes {
            let Change::Put(component) = change else { continue };
            self.known.insert(component.name.clone(), component.clone());
            let Err(error) = self.load(&component).await else {
                continue;
            };
            if component.spec.ignore_errors || error.waits_for_secrets() {
                tracing::error!(component = component.name, %error, "Ignoring error processing component");
                self.rejected.insert(component.name, error.to_string());
                continue;
            }
            let log_name = component.log_name();
            tracing::error!("Failed to init component {log_name}: {error}");
            return Err(StartError {
                name: component.name,
                log_name,
                error,
            });
        }
        Ok(())
    }

    /// Makes one change. Whatever serves goes on serving when its replacement cannot be built.
    pub async fn apply(&mut self, change: Change) {
        match change {
            Change::Remove(name) => {
                self.known.remove(&name);
                self.rejected.remove(&name);
                self.unreadable.remove(&name);
                self.reports.removed(KIND, &name);
                if self.components.remove(&name) {
                    tracing::info!(component = name, "Component removed");
                }
            }
            Change::Put(component) => {
                if self.is_known(&component) {
                    return;
                }
                self.known.insert(component.name.clone(), component.clone());
                self.replace(&component).await;
            }
        }
    }

    /// Compares with all resources of the source, and tries again what was rejected: its reason may be gone. Resources that are
    /// missing are removed only if the list is `complete`.
    pub async fn reconcile(&mut self, components: Vec<Component>, complete: bool) {
        let mut again: BTreeSet<String> = self.rejected.keys().cloned().collect();
        for component in &components {
            if !self.is_known(component) && self.known.contains_key(&component.name) {
                again.insert(component.name.clone());
            }
        }
        if complete {
            for name in std::mem::take(&mut self.unreadable) {
                if !self.known.contains_key(&name) {
                    self.reports.removed(KIND, &name);
                }
            }
        }
        let (mut changes, duplicates) = diff(&self.known, components);
        changes.retain(|change| complete || matches!(change, Change::Put(_)));
        report_duplicates(&duplicates);
        let changed: Vec<String> = changes
            .iter()
            .map(|change| match change {
                Change::Remove(name) => name.clone(),
                Change::Put(component) => component.name.clone(),
            })
            .collect();
        for change in changes {
            self.apply(change).await;
        }
        for name in again.into_iter().filter(|name| !changed.contains(name)) {
            if let Some(component) = self.known.get(&name).cloned() {
                self.replace(&component).await;
            }
        }
    }

    /// Whether a component is as it is known and judged, but for its revision, which is noted.
    fn is_known(&mut self, component: &Component) -> bool {
        let known = self.known.get_mut(&component.name).filter(|known| *known == component);
        let Some(known) = known else { return false };
        known.revision.clone_from(&component.revision);
        // What could not be read in between was judged last.
        if self.unreadable.remove(&component.name) {
            return false;
        }
        self.reports.revised(KIND, &component.name, &component.revision);
        true
    }

    /// Follows a change of the Configuration's deny list.
    pub async fn set_deny(&mut self, deny: DenyList) {
        if self.deny == deny {
            return;
        }
        tracing::info!("the list of denied components has changed");
        self.deny = deny;
        for component in self.known.values().cloned().collect::<Vec<_>>() {
            let serving = self.components.get(&component.name);
            // It may have been built from an older version of the resource, which is judged as well.
            let allowed = serving
                .as_ref()
                .is_none_or(|serving| self.authorised(&serving.component));
            if !allowed {
                self.remove_refused(&component.name);
            }
            let current = serving.is_some_and(|serving| serving.component == component);
            if !(allowed && current) {
                self.replace(&component).await;
            }
        }
    }

    async fn replace(&mut self, component: &Component) {
        let Err(error) = self.load(component).await else {
            self.rejected.remove(&component.name);
            return;
        };
        let reason = error.to_string();
        // Tried again at every reconciliation: only news is worth a line.
        if self.rejected.insert(component.name.clone(), reason.clone()).as_ref() != Some(&reason) {
            let consequence = self.consequence(component);
            tracing::error!(
                component = component.name,
                reason,
                "Failed to init component {}; {consequence}",
                component.log_name()
            );
        }
    }

    /// What it means that a component cannot be built.
    fn consequence(&self, component: &Component) -> String {
        match self.components.get(&component.name) {
            Some(old) => format!(
                "the instance built before goes on serving: {}",
                old.component.log_name()
            ),
            None => "it is not available".to_owned(),
        }
    }

    /// Builds an instance beside the old one and swaps it in. Not being authorised means that there is none.
    async fn load(&self, component: &Component) -> Result<(), Error> {
        if !self.authorised(component) {
            self.remove_refused(&component.name);
            self.reports.removed(KIND, &component.name);
            return Ok(());
        }
        let previous = self.components.get(&component.name);
        let result = self.build(component, previous.as_deref()).await;
        match result {
            Ok(built) => {
                self.components.put(Loaded {
                    component: component.clone(),
                    built,
                });
                self.metrics.component_built(&component.spec.kind);
                self.reports.loaded(KIND, &component.name, &component.revision);
                tracing::info!("Component loaded: {}", component.log_name());
                Ok(())
            }
            Err(error) => {
                self.metrics
                    .component_failed(&component.spec.kind, error.reason(), &component.name);
                let rejection = Rejection {
                    reason: error.report_reason(),
                    message: format!("{error}; {}", self.consequence(component)),
                };
                self.reports
                    .rejected(KIND, &component.name, &component.revision, rejection);
                Err(error)
            }
        }
    }

    async fn build(&self, component: &Component, previous: Option<&Loaded>) -> Result<super::Built, Error> {
        let found = registry::lookup(&component.spec.kind, &component.spec.version)?;
        let properties = Properties::resolve(component, &self.context)?;
        let request = Request {
            component,
            properties,
            context: &self.context,
            previous: previous.map(|loaded| &loaded.built),
        };
        tokio::time::timeout(init_timeout(&component.spec.init_timeout), (found.build)(request))
            .await
            .unwrap_or_else(|_| Err(Error::Timeout(component.log_name())))
    }

    fn remove_refused(&self, name: &str) {
        if self.components.remove(name) {
            tracing::info!(
                component = name,
                "Component removed: it is no longer for this application"
            );
        }
    }

    fn authorised(&self, component: &Component) -> bool {
        authorise(component, &self.context.namespace, &self.context.app_id, &self.deny)
            .inspect_err(|refusal| tracing::debug!(component = component.name, %refusal, "a component is not for this application"))
            .is_ok()
    }
}

/// Absent, not a duration, zero or negative all mean the default, as upstream has it.
fn init_timeout(text: &str) -> Duration {
    GoDuration::parse(text)
        .ok()
        .map(GoDuration::as_std)
        .filter(|timeout| !timeout.is_zero())
        .unwrap_or(INIT_TIMEOUT)
}

fn report_duplicates(duplicates: &[Component]) {
    for component in duplicates {
        tracing::error!(
            "component {} already exists: {} is ignored",
            component.name,
            component.log_name()
        );
    }
}

#[cfg(test)]
mod tests;
