//! Hot reload: follows the source of resources while the sidecar serves.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use notify::{RecursiveMode, Watcher};
use outrigger_process::health::Target;
use outrigger_proto::operator::{ComponentUpdateEvent, ConfigurationUpdateEvent, ResourceEventType};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    components::loader::Loader,
    reports::{Rejection, Reports},
    resources::{
        DecodeError, Revision, authorise::DenyList, component::Component, configuration::Configuration, disk, identify,
        reconcile::Change,
    },
    stream::{
        follow::Event,
        operator::{Listed, Operator},
    },
};

/// Files are read this long after the last change of one of them: editors write in several steps.
const QUIET: Duration = Duration::from_millis(100);
/// Files are read after this time even if one of them never stops changing.
const LONGEST_UNREST: Duration = Duration::from_secs(2);
/// At start the list waits this long for the stream, so that nothing falls between the two.
const STREAM_FIRST: Duration = Duration::from_secs(1);

/// Messages of the component stream.
pub type ComponentEvents = mpsc::Receiver<Event<ComponentUpdateEvent>>;
/// Messages of the Configuration stream.
pub type ConfigurationEvents = mpsc::Receiver<Event<ConfigurationUpdateEvent>>;

/// Waits a moment for the stream to be open before the first list is taken. Upstream's operator does not say when it is; there a
/// change in this moment is found by the next comparison.
pub async fn stream_first(events: &mut ComponentEvents) {
    if tokio::time::timeout(STREAM_FIRST, events.recv()).await.is_err() {
        tracing::debug!("the operator has not confirmed the stream yet");
    }
}

/// Keeps components equal to what the operator has.
///
/// # Errors
/// Never today; the type is that of a task.
pub async fn from_operator(
    mut loader: Loader,
    operator: Operator,
    mut events: ComponentEvents,
    mut deny: watch::Receiver<DenyList>,
    every: Duration,
    target: Target,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    target.ready();
    let mut ticks = ticks(every);
    loop {
        let relist = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Ok(()) = deny.changed() => {
                let list = deny.borrow_and_update().clone();
                loader.set_deny(list).await;
                false
            }
            _ = ticks.tick() => true,
            Some(event) = events.recv() => match event {
                Event::Connected => {
                    tracing::info!("Reconnected to operator");
                    loader.reports().reconnected();
                    true
                }
                Event::Message(message) => match change(&message) {
                    Ok(Some(change)) => {
                        loader.apply(change).await;
                        false
                    }
                    Ok(None) => true,
                    Err(error) => {
                        loader.unreadable(&message.component, &error);
                        true
                    }
                },
            },
        };
        if relist {
            match stop.run_until_cancelled(operator.list_components()).await {
                None => return Ok(()),
                // What cannot be read may be what serves: it stays until it can be read, or is really gone.
                Some(Ok(Listed { components, unreadable })) => {
                    loader.reconcile(components, unreadable.is_empty()).await;
                    for (json, error) in &unreadable {
                        loader.unreadable(json, error);
                    }
                }
                Some(Err(status)) => tracing::warn!(
                    error = crate::text::status(&status),
                    "components cannot be listed; nothing changes"
                ),
            }
        }
    }
}

/// `None` when a list has to tell what the message meant.
fn change(message: &ComponentUpdateEvent) -> Result<Option<Change>, DecodeError> {
    let component = Component::from_json(&message.component)?;
    Ok(match message.r#type() {
        ResourceEventType::Created | ResourceEventType::Updated => Some(Change::Put(component)),
        ResourceEventType::Deleted => Some(Change::Remove(component.name)),
        ResourceEventType::Unknown => None,
    })
}

/// Keeps components equal to the files in `folders`.
///
/// # Errors
/// When a folder cannot be watched.
pub async fn from_folders(
    mut loader: Loader,
    folders: Vec<PathBuf>,
    namespace: String,
    app_id: String,
    every: Duration,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (changed, mut changes) = watch::channel(());
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
        Ok(event) if event.kind.is_access() => {}
        _ => drop(changed.send(())),
    })?;
    for folder in &folders {
        watcher
            .watch(folder, RecursiveMode::NonRecursive)
            .with_context(|| format!("cannot watch the resources folder {}", folder.display()))?;
    }
    let mut ticks = ticks(every);
    // What changed between the first read and the watch is read now.
    ticks.reset_immediately();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
            Ok(()) = changes.changed() => {
                let latest = Instant::now() + LONGEST_UNREST;
                while Instant::now() < latest
                    && tokio::time::timeout(QUIET, changes.changed()).await.is_ok_and(|changed| changed.is_ok())
                {}
            }
        }
        let (folders, namespace, app_id) = (folders.clone(), namespace.clone(), app_id.clone());
        match tokio::task::spawn_blocking(move || disk::components(&folders, &namespace, &app_id)).await {
            Ok(Ok(read)) => loader.reconcile(read.components, read.unreadable == 0).await,
            Ok(Err(error)) => tracing::error!(%error, "resources cannot be read; what is loaded stays"),
            Err(error) => tracing::error!(%error, "reading resources was interrupted"),
        }
    }
}

/// Follows the Configuration: the deny list at once, everything else is reported.
///
/// # Errors
/// Never today; the type is that of a task.
pub async fn configuration(
    name: String,
    started: Configuration,
    operator: Operator,
    mut events: ConfigurationEvents,
    deny: watch::Sender<DenyList>,
    reports: Reports,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut current = started.clone();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            event = events.recv() => event,
        };
        let json = match event {
            None => {
                stop.cancelled().await;
                return Ok(());
            }
            Some(Event::Connected) => match stop.run_until_cancelled(operator.configuration_now(&name)).await {
                None => return Ok(()),
                Some(json) => json,
            },
            Some(Event::Message(message)) if message.r#type() == ResourceEventType::Deleted => {
                tracing::warn!(
                    name,
                    "the Configuration was deleted; this sidecar goes on with it until it is restarted"
                );
                reports.removed(Configuration::KIND, &name);
                None
            }
            Some(Event::Message(message)) => Some(message.configuration),
        };
        let Some(json) = json else { continue };
        let (_, revision) = identify(&json).unwrap_or_default();
        let next = match Configuration::from_json(&json) {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(%error, name, "the Configuration cannot be read; what it said before stays");
                reports.rejected(Configuration::KIND, &name, &revision, Rejection::unreadable(&error));
                continue;
            }
        };
        judge(&reports, &name, &revision, &started, &next);
        if next == current {
            continue;
        }
        deny.send_if_modified(|list| {
            let new = DenyList::new(next.denied_components());
            let changed = *list != new;
            *list = new;
            changed
        });
        if current.needs_restart(&next) {
            tracing::warn!(
                reason = "RestartRequired",
                name,
                "the Configuration has changed; parts of it apply after a restart"
            );
        }
        for field in next
            .not_enforced()
            .into_iter()
            .filter(|field| !current.not_enforced().contains(field))
        {
            tracing::error!(
                field,
                name,
                "the Configuration restricts access in a way that this release does not enforce"
            );
        }
        current = next;
    }
}

/// Reports what a Configuration means for a sidecar that was started with another one.
pub fn judge(reports: &Reports, name: &str, revision: &Revision, started: &Configuration, next: &Configuration) {
    let closed = next.not_enforced();
    let rejection = if !closed.is_empty() {
        Rejection {
            reason: "NotEnforced",
            message: format!("{}: this release does not enforce it", closed.join(", ")),
        }
    } else if started.needs_restart(next) {
        Rejection {
            reason: "RestartRequired",
            message: "all but spec.components.deny is read when the sidecar starts: restart the pod".to_owned(),
        }
    } else {
        reports.loaded(Configuration::KIND, name, revision);
        return;
    };
    reports.rejected(Configuration::KIND, name, revision, rejection);
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_become_changes() {
        let json = br#"{"metadata":{"name":"store"},"spec":{"type":"state.in-memory","version":"v1"}}"#;
        let message = |kind: ResourceEventType, json: &'static [u8]| ComponentUpdateEvent {
            component: json.into(),
            r#type: kind.into(),
        };
        assert!(
            matches!(change(&message(ResourceEventType::Created, json)), Ok(Some(Change::Put(component))) if component.name == "store")
        );
        assert_eq!(
            change(&message(ResourceEventType::Deleted, json)).unwrap(),
            Some(Change::Remove("store".into()))
        );
        assert_eq!(change(&message(ResourceEventType::Unknown, json)).unwrap(), None);
        assert!(change(&message(ResourceEventType::Updated, b"{")).is_err());
    }
}
