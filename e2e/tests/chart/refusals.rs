//! Values that would install something else than was asked for end in a sentence that names them.

use crate::helm::{refusal, render};

#[test]
fn what_is_not_part_of_this_release() {
    for (values, sentence) in [
        (
            "global: {actors: {enabled: true}}",
            "global.actors.enabled=true: the placement service is not part of this release",
        ),
        (
            "global: {scheduler: {enabled: true}}",
            "global.scheduler.enabled=true: the scheduler service is not part of this release",
        ),
        (
            "global: {reminders: {serviceName: scheduler}}",
            "global.reminders.serviceName=scheduler: no service for reminders is part of this release",
        ),
        (
            "global: {daprControlPlaneOs: windows}",
            "the control plane runs on linux nodes only",
        ),
        (
            "dapr_sentry: {debug: {enabled: true}}",
            "dapr_sentry.debug.enabled=true: the images carry no debugger",
        ),
    ] {
        let message = refusal(values);
        assert!(message.contains(sentence), "{message}");
    }
}

#[test]
fn contradictions() {
    for (values, sentence) in [
        (
            "global: {rbac: {namespaced: true}}",
            "dapr_operator.watchNamespace is \"\", but has to be the namespace of the release, \"dapr-system\"",
        ),
        (
            "{global: {rbac: {namespaced: true}}, dapr_operator: {watchNamespace: dapr-system, secretNamespaces: [shop]}}",
            "dapr_operator.secretNamespaces names \"shop\"",
        ),
        (
            "dapr_sentry: {tls: {root: {certPEM: x}}}",
            "a CA needs root.certPEM, issuer.certPEM and issuer.keyPEM, missing: issuer.certPEM, issuer.keyPEM",
        ),
        (
            "dapr_sidecar_injector: {sidecarRunAsUser: 0}",
            "sidecarRunAsUser is 0, but has to be positive",
        ),
        (
            "dapr_sidecar_injector: {sidecarRunAsUser: 5, sidecarRunAsNonRoot: false}",
            "sidecarRunAsUser is 5, but has to be 0 or left out",
        ),
        (
            "dapr_sentry: {mode: standalone}",
            "dapr_sentry.mode=standalone: expected kubernetes; in any other mode sentry grants every identity to everyone",
        ),
        (
            "dapr_sentry: {extraArgs: [--mode, standalone]}",
            "dapr_sentry.extraArgs: --mode is set by dapr_sentry.mode",
        ),
        (
            "dapr_sentry: {extraArgs: [-mode=standalone]}",
            "dapr_sentry.extraArgs: --mode is set by dapr_sentry.mode",
        ),
        (
            "dapr_sentry: {oidc: {enabled: true}}",
            "dapr_sentry.oidc.enabled=true: there is nothing to discover without dapr_sentry.jwt.enabled=true",
        ),
        (
            "dapr_sentry: {jwt: {enabled: true}, oidc: {enabled: true}}",
            "dapr_sentry.oidc.tls.enabled=true: needs oidc.tls.certFile and oidc.tls.keyFile",
        ),
        (
            "dapr_sentry: {jwt: {enabled: true}, oidc: {enabled: true, tls: {enabled: false, keyFile: /x}}}",
            "dapr_sentry.oidc.tls: give both certFile and keyFile, or neither",
        ),
        (
            "dapr_sentry: {jwt: {enabled: true}, oidc: {enabled: true, pathPrefix: x, tls: {enabled: false}}}",
            "dapr_sentry.oidc.pathPrefix is \"x\", expected a path that starts with /",
        ),
        (
            "dapr_sentry: {jwt: {enabled: true, signingAlgorithm: HS256}}",
            "/dapr_sentry/jwt/signingAlgorithm",
        ),
        (
            "global: {ha: {podAntiAffinityPolicy: always}}",
            "global.ha.podAntiAffinityPolicy must be either",
        ),
        (
            "global: {actors: {serviceName: other}}",
            "global.actors.serviceName=other: expected placement or scheduler",
        ),
        (
            "dapr_operator: {watchInterval: sometimes}",
            "dapr_operator.watchInterval is \"sometimes\"",
        ),
    ] {
        let message = refusal(values);
        assert!(message.contains(sentence), "{message}");
    }
}

#[test]
fn the_schema_finds_wrong_types_and_unknown_names() {
    for (values, sentence) in [
        (
            "dapr_operator: {replicaCount: two}",
            "at '/dapr_operator/replicaCount': got string, want integer",
        ),
        (
            "global: {logAsJson: 'true'}",
            "at '/global/logAsJson': got string, want boolean",
        ),
        (
            "dapr_operator: {replicaCont: 2}",
            "at '/dapr_operator': additional properties 'replicaCont' not allowed",
        ),
        (
            "dapr_operater: {replicaCount: 2}",
            "additional properties 'dapr_operater' not allowed",
        ),
        (
            "dapr_sidecar_injector: {webhookFailurePolicy: ignore}",
            "/dapr_sidecar_injector/webhookFailurePolicy",
        ),
        ("global: {mtls: {workloadCertTTL: 24}}", "/global/mtls/workloadCertTTL"),
    ] {
        let message = refusal(values);
        assert!(message.contains(sentence), "{message}");
    }
}

/// What a values file for the upstream chart may name, with upstream's defaults where they do not ask for the two services.
#[test]
fn values_for_the_upstream_chart_are_accepted() {
    let release = render(include_str!("upstream-values.yaml"));
    let defaults = render("");
    let key = |object: &serde_json::Value| format!("{} {}", object["kind"], object["metadata"]["name"]);
    let given: Vec<_> = release
        .objects
        .iter()
        .map(key)
        .filter(|key| !key.contains("secret-reader"))
        .collect();
    assert_eq!(given, defaults.objects.iter().map(key).collect::<Vec<_>>());
    assert_eq!(
        release.container("dapr-operator")["args"],
        defaults.container("dapr-operator")["args"]
    );
    assert_eq!(
        release.container("dapr-sentry")["args"],
        defaults.container("dapr-sentry")["args"]
    );
}
