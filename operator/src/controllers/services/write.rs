//! Writing Services: by server-side apply, and where that right is missing, as in upstream's chart, by creating and updating.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use outrigger_process::kubernetes::{access::lacks_right, watch::ObjectKey};
use tokio::time::Instant;

use super::desired::Desired;
use crate::{FIELD_MANAGER, deadline::in_time};

/// How long applying is not tried after it was refused: rights may be granted while the operator runs.
const REFUSED: Duration = Duration::from_secs(60);

/// Why a Service was not written.
pub(super) enum Failure {
    /// A right is missing.
    Forbidden(String),
    /// The API server will refuse it again.
    Invalid(String),
    Other(String),
}

/// Knows which way of writing is allowed.
#[derive(Debug, Default)]
pub(super) struct Writer {
    refused_until: Option<Instant>,
}

impl Writer {
    pub(super) async fn write(
        &mut self,
        api: &Api<Service>,
        desired: &Desired,
        existing: Option<Service>,
    ) -> Result<(), Failure> {
        let object = desired.object();
        let name = object.name_any();
        if self.refused_until.is_none_or(|until| until <= Instant::now()) {
            let params = PatchParams::apply(FIELD_MANAGER).force();
            match call(api.patch(&name, &params, &Patch::Apply(&object))).await {
                Err(Failure::Forbidden(_)) => {
                    if self.refused_until.is_none() {
                        tracing::warn!("not allowed to apply Services; creating and updating them instead");
                    }
                    self.refused_until = Some(Instant::now() + REFUSED);
                }
                result => {
                    if self.refused_until.take().is_some() {
                        tracing::info!("allowed to apply Services now");
                    }
                    return result;
                }
            }
        }
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..Default::default()
        };
        match existing {
            None => call(api.create(&params, &object)).await,
            Some(existing) => call(api.replace(&name, &params, &merged(existing, object))).await,
        }
    }
}

async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<(), Failure> {
    match in_time(request).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => Err(match status.code {
            _ if lacks_right(&status) => Failure::Forbidden(status.message),
            400 | 422 => Failure::Invalid(status.message),
            _ => Failure::Other(status.message),
        }),
        Err(error) => Err(Failure::Other(error.to_string())),
    }
}

/// Deletes exactly what was looked at.
pub(super) async fn delete(api: &Api<Service>, key: &ObjectKey, existing: &Service) -> Result<(), String> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: existing.uid(),
            resource_version: existing.resource_version(),
        }),
        ..Default::default()
    };
    match in_time(api.delete(&key.name, &params)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// What `PUT` takes: the existing object with our fields in it.
fn merged(mut existing: Service, desired: Service) -> Service {
    existing
        .labels_mut()
        .extend(desired.metadata.labels.unwrap_or_default());
    existing
        .annotations_mut()
        .extend(desired.metadata.annotations.unwrap_or_default());
    existing.metadata.owner_references = desired.metadata.owner_references;
    existing.metadata.managed_fields = None;
    if let (Some(spec), Some(ours)) = (&mut existing.spec, desired.spec) {
        spec.ports = ours.ports;
        spec.selector = ours.selector;
    }
    existing
}
