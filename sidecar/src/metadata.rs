//! What the sidecar says about itself over both APIs.

use std::{collections::BTreeMap, sync::Arc};

use outrigger_proto::runtime as proto;
use parking_lot::RwLock;
use serde::Serialize;

use crate::{
    components::{Components, Summary},
    settings::{App, Protocol},
};

/// Most extended attributes: the API must not fill memory.
const MOST_ATTRIBUTES: usize = 256;
/// Longest name and value of an attribute, in bytes.
pub const LONGEST_ATTRIBUTE: usize = 64 << 10;
const RUNTIME_VERSION: &str = "daprRuntimeVersion";

/// Answers the metadata calls; clones share the attributes.
#[derive(Clone)]
pub struct Metadata {
    fixed: Arc<Fixed>,
    extended: Arc<RwLock<BTreeMap<String, String>>>,
    components: Arc<Components>,
}

struct Fixed {
    app_id: String,
    features: RwLock<Vec<String>>,
    app: Option<AppConnection>,
}

/// The answer over HTTP. Empty members are left out, as upstream does.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    id: String,
    runtime_version: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    enabled_features: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    components: Vec<Summary>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extended: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_connection_properties: Option<AppConnection>,
    actor_runtime: ActorRuntime,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct AppConnection {
    port: u16,
    protocol: &'static str,
    channel_address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_concurrency: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<HealthCheck>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct HealthCheck {
    /// Only where the application is probed over HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    health_check_path: Option<String>,
    health_probe_interval: String,
    health_probe_timeout: String,
    health_threshold: u32,
}

/// This release has no actors.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ActorRuntime {
    runtime_status: &'static str,
    host_ready: bool,
}

/// Why an attribute is not kept.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there are {MOST_ATTRIBUTES} extended metadata attributes already")]
    Full,
    #[error("an extended metadata attribute has at most {LONGEST_ATTRIBUTE} bytes")]
    TooLong,
}

// === impl Metadata ===

impl Metadata {
    pub fn new(app_id: &str, app: Option<&App>, components: Arc<Components>) -> Self {
        let extended = BTreeMap::from([(RUNTIME_VERSION.to_owned(), outrigger_process::VERSION.to_owned())]);
        let app = app.map(AppConnection::new);
        Self {
            fixed: Arc::new(Fixed {
                app_id: app_id.to_owned(),
                features: RwLock::default(),
                app,
            }),
            extended: Arc::new(RwLock::new(extended)),
            components,
        }
    }

    /// The features that the Configuration switched on; known later than the rest.
    pub fn set_features(&self, features: Vec<String>) {
        *self.fixed.features.write() = features;
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// When it is too long, or there are too many.
    pub fn set(&self, key: String, value: String) -> Result<(), Error> {
        if key.len().max(value.len()) > LONGEST_ATTRIBUTE {
            return Err(Error::TooLong);
        }
        let mut extended = self.extended.write();
        if extended.len() >= MOST_ATTRIBUTES && !extended.contains_key(&key) {
            return Err(Error::Full);
        }
        extended.insert(key, value);
        Ok(())
    }

    pub fn answer(&self) -> Answer {
        Answer {
            id: self.fixed.app_id.clone(),
            runtime_version: outrigger_process::VERSION,
            enabled_features: self.fixed.features.read().clone(),
            components: self.components.summaries(),
            extended: self.extended.read().clone(),
            app_connection_properties: self.fixed.app.clone(),
            actor_runtime: ActorRuntime {
                runtime_status: "DISABLED",
                host_ready: false,
            },
        }
    }
}

// === impl Answer ===

impl Answer {
    pub fn into_proto(self) -> proto::GetMetadataResponse {
        let components = self.components.into_iter().map(|summary| proto::RegisteredComponents {
            name: summary.name,
            r#type: summary.kind,
            version: summary.version,
            capabilities: summary.capabilities,
        });
        proto::GetMetadataResponse {
            id: self.id,
            registered_components: components.collect(),
            extended_metadata: self.extended.into_iter().collect(),
            app_connection_properties: self.app_connection_properties.map(AppConnection::into_proto),
            runtime_version: self.runtime_version.to_owned(),
            enabled_features: self.enabled_features,
            actor_runtime: Some(proto::ActorRuntime {
                runtime_status: proto::actor_runtime::ActorRuntimeStatus::Disabled.into(),
                ..proto::ActorRuntime::default()
            }),
            ..proto::GetMetadataResponse::default()
        }
    }
}

// === impl AppConnection ===

impl AppConnection {
    fn new(app: &App) -> Self {
        let grpc = matches!(app.protocol, Protocol::Grpc | Protocol::Grpcs);
        let health = app.probe.as_ref().map(|probe| HealthCheck {
            health_check_path: (!grpc).then(|| probe.path.clone()),
            health_probe_interval: duration(probe.interval),
            health_probe_timeout: duration(probe.timeout),
            health_threshold: probe.threshold,
        });
        Self {
            port: app.port,
            protocol: app.protocol.as_str(),
            channel_address: app.host.clone(),
            max_concurrency: app.max_concurrency.and_then(|n| i32::try_from(n).ok()),
            health,
        }
    }

    fn into_proto(self) -> proto::AppConnectionProperties {
        proto::AppConnectionProperties {
            port: self.port.into(),
            protocol: self.protocol.to_owned(),
            channel_address: self.channel_address,
            max_concurrency: self.max_concurrency.unwrap_or_default(),
            health: self.health.map(|health| proto::AppConnectionHealthProperties {
                health_check_path: health.health_check_path.unwrap_or_default(),
                health_probe_interval: health.health_probe_interval,
                health_probe_timeout: health.health_probe_timeout,
                health_threshold: i32::try_from(health.health_threshold).unwrap_or(i32::MAX),
            }),
        }
    }
}

fn duration(duration: std::time::Duration) -> String {
    outrigger_core::GoDuration::from_nanos(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::Probe;

    #[test]
    fn empty_members_are_left_out() {
        let metadata = Metadata::new("cart", None, Arc::default());
        let json = serde_json::to_string(&metadata.answer()).unwrap();
        let version = outrigger_process::VERSION;
        assert_eq!(
            json,
            format!(
                r#"{{"id":"cart","runtimeVersion":"{version}","extended":{{"daprRuntimeVersion":"{version}"}},"actorRuntime":{{"runtimeStatus":"DISABLED","hostReady":false}}}}"#
            )
        );
    }

    #[test]
    fn shows_the_connection_to_the_application_and_attributes() {
        let probe = Probe {
            path: "/ok".into(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_millis(500),
            threshold: 3,
        };
        let app = App {
            host: "127.0.0.1".into(),
            port: 8080,
            protocol: Protocol::Http,
            max_concurrency: None,
            probe: Some(probe),
            token: None,
        };
        let metadata = Metadata::new("cart", Some(&app), Arc::default());
        metadata.set("cliPID".into(), "7".into()).unwrap();
        let json = serde_json::to_value(metadata.answer()).unwrap();
        assert_eq!(json["extended"]["cliPID"], "7");
        assert_eq!(
            json["appConnectionProperties"].to_string(),
            r#"{"channelAddress":"127.0.0.1","health":{"healthCheckPath":"/ok","healthProbeInterval":"5s","healthProbeTimeout":"500ms","healthThreshold":3},"port":8080,"protocol":"http"}"#
        );
        let proto = metadata.answer().into_proto();
        assert_eq!(proto.app_connection_properties.unwrap().port, 8080);
    }

    #[test]
    fn attributes_are_bounded() {
        let metadata = Metadata::new("cart", None, Arc::default());
        for n in 1..MOST_ATTRIBUTES {
            metadata.set(n.to_string(), String::new()).unwrap();
        }
        assert_eq!(metadata.set("more".into(), String::new()), Err(Error::Full));
        let long = "x".repeat(LONGEST_ATTRIBUTE + 1);
        assert_eq!(metadata.set("1".into(), long.clone()), Err(Error::TooLong));
        assert_eq!(metadata.set(long, String::new()), Err(Error::TooLong));
        assert!(metadata.set("1".into(), "again".into()).is_ok());
    }
}
