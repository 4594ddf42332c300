//! Configuration: what is neither access nor metrics.

use outrigger_core::GoDuration;

use super::{
    Findings, Problem, repeated,
    shared::{has_host, is_positive, suggestion},
};
use crate::{
    Configuration, SecretStore,
    configuration::{ConcurrencyLimit, Feature, Mtls, Pipeline, Tracing, Workflow},
    rules::{rejections, warnings},
};

/// Features that stock sidecars have, or had until lately.
const FEATURES: [&str; 7] = [
    "HotReload",
    "WorkflowsRemoteActivityReminder",
    "ActorStateTTL",
    "WorkflowsClusteredDeployment",
    "WorkflowHistorySigning",
    "WorkflowsFastPath",
    "SchedulerReminders",
];

pub(crate) fn configuration(configuration: &Configuration) -> Vec<Problem> {
    let mut findings = Findings::default();
    let spec = &configuration.spec;
    if let Some(access) = &spec.access_control {
        findings.access_control(access);
    }
    if let Some(api) = &spec.api {
        findings.api(api);
    }
    for (item, pipeline) in [
        ("httpPipeline", &spec.http_pipeline),
        ("appHttpPipeline", &spec.app_http_pipeline),
    ] {
        if let Some(pipeline) = pipeline {
            findings.pipeline(&format!("spec.{item}.handlers"), pipeline);
        }
    }
    let denied = spec
        .components
        .as_ref()
        .and_then(|components| components.deny.as_deref());
    for (index, item) in denied.unwrap_or_default().iter().enumerate() {
        if item.is_empty() || item.matches('/').count() > 1 {
            findings.value(
                &warnings::DENIED_COMPONENT,
                format!("spec.components.deny[{index}]"),
                item,
            );
        }
    }
    findings.features(spec.features.as_deref().unwrap_or_default());
    for (item, metrics) in [("metric", &spec.metric), ("metrics", &spec.metrics)] {
        if let Some(metrics) = metrics {
            findings.metrics(&format!("spec.{item}"), metrics);
        }
    }
    if let Some(mtls) = &spec.mtls {
        findings.mtls(mtls);
    }
    if let Some(secrets) = &spec.secrets {
        findings.secrets(secrets);
    }
    if let Some(tracing) = &spec.tracing {
        findings.tracing(tracing);
    }
    if let Some(workflow) = &spec.workflow {
        findings.workflow(workflow);
    }
    findings.0
}

impl Findings {
    fn pipeline(&mut self, field: &str, pipeline: &Pipeline) {
        for (index, handler) in pipeline.handlers.iter().flatten().enumerate() {
            if handler.name.is_empty() {
                self.field(&warnings::PIPELINE_NAME, format!("{field}[{index}].name"));
            }
            if handler.type_.strip_prefix("middleware.http.").is_none_or(str::is_empty) {
                self.value(
                    &warnings::PIPELINE_TYPE,
                    format!("{field}[{index}].type"),
                    &handler.type_,
                );
            }
        }
    }

    fn features(&mut self, features: &[Feature]) {
        for (index, feature) in features.iter().enumerate() {
            if !FEATURES.contains(&feature.name.as_str()) {
                let field = format!("spec.features[{index}].name");
                let hint = || suggestion(&feature.name, FEATURES);
                self.value_with(&warnings::FEATURE_UNKNOWN, field, &feature.name, hint);
            }
        }
        for name in repeated(features.iter().map(|feature| feature.name.as_str())) {
            self.value(&warnings::FEATURE_TWICE, "spec.features", name);
        }
    }

    fn mtls(&mut self, mtls: &Mtls) {
        for (item, text) in [
            ("workloadCertTTL", &mtls.workload_cert_ttl),
            ("allowedClockSkew", &mtls.allowed_clock_skew),
        ] {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty() && !is_positive(text)) {
                self.value(&warnings::MTLS_DURATION, format!("spec.mtls.{item}"), text);
            }
        }
        for (index, validator) in mtls.token_validators.iter().flatten().enumerate() {
            let options = validator.options.as_ref().map_or("{}", |options| options.json());
            let options: serde_json::Map<String, serde_json::Value> = serde_json::from_str(options).unwrap_or_default();
            let source = options.iter().find(|(key, _)| key.eq_ignore_ascii_case("source"));
            if source.is_none_or(|(_, source)| source.as_str().is_none_or(str::is_empty)) {
                self.field(
                    &warnings::MTLS_JWKS,
                    format!("spec.mtls.tokenValidators[{index}].options"),
                );
            }
        }
    }

    fn tracing(&mut self, tracing: &Tracing) {
        let rate = tracing.sampling_rate.as_str();
        if !rate.is_empty() && !rate.parse().is_ok_and(|rate: f64| (0.0..=1.0).contains(&rate)) {
            self.value(&warnings::SAMPLING_RATE, "spec.tracing.samplingRate", rate);
        }
        if let Some(zipkin) = &tracing.zipkin {
            let address = zipkin.endpoint_address.as_str();
            if !address.is_empty() && !has_host(address, &[]) {
                self.url(
                    &rejections::ZIPKIN_ADDRESS,
                    "spec.tracing.zipkin.endpointAddress",
                    address,
                );
            }
        }
        let Some(otel) = &tracing.otel else { return };
        let address = otel.endpoint_address.as_str();
        if !address.is_empty() && !matches!(otel.protocol.as_str(), "" | "grpc" | "http") {
            self.value(&warnings::OTEL_PROTOCOL, "spec.tracing.otel.protocol", &otel.protocol);
        }
        if !is_authority(address) {
            self.url(&warnings::OTEL_ADDRESS, "spec.tracing.otel.endpointAddress", address);
        }
        let headers = otel.headers.as_deref().unwrap_or_default();
        self.pairs("spec.tracing.otel.headers", headers, SecretStore::Kubernetes);
    }

    fn workflow(&mut self, workflow: &Workflow) {
        for (item, limit) in [
            (
                "maxConcurrentWorkflowInvocations",
                workflow.max_concurrent_workflow_invocations,
            ),
            (
                "maxConcurrentActivityInvocations",
                workflow.max_concurrent_activity_invocations,
            ),
            (
                "globalMaxConcurrentWorkflowInvocations",
                workflow.global_max_concurrent_workflow_invocations,
            ),
            (
                "globalMaxConcurrentActivityInvocations",
                workflow.global_max_concurrent_activity_invocations,
            ),
        ] {
            self.not_negative(format!("spec.workflow.{item}"), limit);
        }
        for (item, limits) in [
            ("workflowConcurrencyLimits", &workflow.workflow_concurrency_limits),
            ("activityConcurrencyLimits", &workflow.activity_concurrency_limits),
        ] {
            for (index, limit) in limits.iter().flatten().enumerate() {
                self.concurrency_limit(&format!("spec.workflow.{item}[{index}]"), limit);
            }
        }
        let Some(retention) = &workflow.state_retention_policy else {
            return;
        };
        for (item, duration) in [
            ("anyTerminal", retention.any_terminal),
            ("completed", retention.completed),
            ("failed", retention.failed),
            ("terminated", retention.terminated),
        ] {
            if let Some(duration) = duration.filter(|duration| duration.0 < GoDuration::default()) {
                let field = format!("spec.workflow.stateRetentionPolicy.{item}");
                self.value(&warnings::RETENTION_NEGATIVE, field, &duration.0.to_string());
            }
        }
    }

    fn concurrency_limit(&mut self, field: &str, limit: &ConcurrencyLimit) {
        if limit.name.as_ref().is_none_or(String::is_empty) || limit.max_concurrent.is_none() {
            self.field(&warnings::LIMIT_INCOMPLETE, field);
        }
        self.not_negative(format!("{field}.maxConcurrent"), limit.max_concurrent);
    }

    fn not_negative(&mut self, field: String, limit: Option<i32>) {
        if let Some(limit) = limit.filter(|limit| *limit < 0) {
            self.value(&warnings::NOT_NEGATIVE, field, &limit.to_string());
        }
    }
}

/// A host with or without a port, and nothing else; an empty text stands for what the environment says.
fn is_authority(text: &str) -> bool {
    !text.contains("://") && !text.contains(['/', '?', '#']) && !text.contains(char::is_whitespace)
}
