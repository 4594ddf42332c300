//! Pod Security: every pod of the control plane fits the level `restricted`.

use serde_json::json;

use crate::helm::{name_of, render};

#[test]
fn every_container_is_restricted() {
    for values in [
        "",
        "global: {ha: {enabled: true}}",
        "global: {prometheus: {enabled: false}, mtls: {mountSentryVolume: false}}",
    ] {
        let release = render(values);
        assert_eq!(release.of_kind("Deployment").count(), 3);
        for deployment in release.of_kind("Deployment") {
            let pod = &deployment["spec"]["template"]["spec"];
            for forbidden in ["hostNetwork", "hostPID", "hostIPC", "securityContext"] {
                assert!(pod.get(forbidden).is_none(), "{forbidden} of {}", name_of(deployment));
            }
            for container in pod["containers"].as_array().expect("containers") {
                assert_eq!(
                    container["securityContext"],
                    json!({
                        "runAsNonRoot": true,
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "capabilities": { "drop": ["ALL"] },
                        "seccompProfile": { "type": "RuntimeDefault" },
                    })
                );
                let ports = container["ports"].as_array().expect("ports");
                assert!(ports.iter().all(|port| port.get("hostPort").is_none()));
            }
            for volume in pod["volumes"].as_array().expect("volumes") {
                assert!(volume.get("hostPath").is_none());
            }
        }
    }
}

#[test]
fn values_can_loosen_it() {
    let release = render(
        "global: {seccompProfile: ''}
dapr_operator: {runAsNonRoot: false}
dapr_sidecar_injector: {runAsNonRoot: false}",
    );
    let context = |workload| &release.container(workload)["securityContext"];
    assert!(context("dapr-sentry").get("seccompProfile").is_none());
    assert_eq!(context("dapr-operator")["runAsNonRoot"], false);
    // The injector refuses to run as root.
    assert_eq!(context("dapr-sidecar-injector")["runAsUser"], 1000);
    assert!(context("dapr-sidecar-injector").get("runAsNonRoot").is_none());
}
