//! The container `daprd`.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, SeccompProfile, SecurityContext, WindowsSecurityContextOptions,
};
use outrigger_core::annotations::SIDECAR_CONTAINER;

use super::{ALWAYS, HTTP_PORT, Injection, args, env, probes, resources, volumes};
use crate::{pod::Pod, settings::Settings, sidecar::Sidecar};

const PROGRAM: &str = "/daprd";

/// The sidecar's container.
pub(super) fn container(injection: &Injection<'_>, sidecar: &Sidecar<'_>, component_sockets: bool) -> Container {
    let Injection { pod, settings, .. } = *injection;
    let environment = env::environment(
        sidecar,
        settings,
        injection.namespace,
        injection.trust_anchors,
        component_sockets,
    );
    let mut container = Container {
        name: SIDECAR_CONTAINER.to_owned(),
        image: Some(sidecar.image.to_owned()).filter(|image| !image.is_empty()),
        image_pull_policy: Some(settings.pull_policy.to_owned()),
        ports: Some(ports(sidecar)),
        volume_mounts: Some(volumes::mounts(sidecar, settings, pod, component_sockets))
            .filter(|mounts| !mounts.is_empty()),
        // A value that cannot be read is warned of elsewhere, and then none applies.
        resources: Some(resources::resources(sidecar).unwrap_or_default()),
        security_context: Some(security_context(sidecar, settings, environment.has_certificate_folder)),
        env: Some(environment.variables),
        readiness_probe: Some(probes::readiness(sidecar.readiness)),
        liveness_probe: Some(probes::liveness(sidecar.liveness)),
        ..Container::default()
    };
    if sidecar.native {
        container.restart_policy = Some(ALWAYS.to_owned());
        container.startup_probe = Some(probes::startup());
    }
    let (program, args) = command(sidecar, args::args(sidecar, settings, injection.mtls));
    if needs_command(pod, settings) {
        container.command = Some(vec![program.to_owned()]);
        container.args = Some(args);
    } else {
        // The image has no entry point: the first argument is the program.
        container.args = Some(std::iter::once(program.to_owned()).chain(args).collect());
    }
    container
}

fn ports(sidecar: &Sidecar<'_>) -> Vec<ContainerPort> {
    let port = |name: &str, container_port| ContainerPort {
        name: Some(name.to_owned()),
        container_port,
        ..ContainerPort::default()
    };
    let mut ports = vec![
        port("dapr-http", HTTP_PORT),
        port("dapr-grpc", sidecar.grpc_port),
        port("dapr-internal", sidecar.internal_grpc_port),
        port("dapr-metrics", sidecar.metrics_port),
    ];
    ports.extend(sidecar.debug_port.map(|number| port("dapr-debug", number)));
    ports
}

/// Program and arguments, wrapped in the debugger when it was asked for.
fn command(sidecar: &Sidecar<'_>, args: Vec<String>) -> (&'static str, Vec<String>) {
    let Some(port) = sidecar.debug_port else {
        return (PROGRAM, args);
    };
    let listen = format!(":{port}");
    let debugger = [
        "--listen",
        &listen,
        "--accept-multiclient",
        "--headless=true",
        "--log",
        "--api-version=2",
        "exec",
        PROGRAM,
        "--",
    ];
    ("/dlv", debugger.into_iter().map(str::to_owned).chain(args).collect())
}

/// Virtual nodes do not know an image's entry point; they are recognised by the tolerations of their pods.
fn needs_command(pod: &Pod<'_>, settings: &Settings) -> bool {
    settings
        .ignore_entrypoint_tolerations
        .iter()
        .any(|toleration| pod.spec.tolerations.contains(toleration))
}

fn security_context(sidecar: &Sidecar<'_>, settings: &Settings, windows: bool) -> SecurityContext {
    let security = &settings.security;
    let mut context = SecurityContext {
        allow_privilege_escalation: Some(false),
        run_as_non_root: Some(security.run_as_non_root),
        read_only_root_filesystem: Some(security.read_only_root_filesystem),
        run_as_user: security.run_as_user,
        run_as_group: security.run_as_group,
        capabilities: security.drop_all_capabilities.then(|| Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        seccomp_profile: (!sidecar.seccomp_profile_type.is_empty()).then(|| SeccompProfile {
            type_: sidecar.seccomp_profile_type.to_owned(),
            ..SeccompProfile::default()
        }),
        ..SecurityContext::default()
    };
    if windows {
        // Windows containers may add to the system's certificates only as administrator. Upstream cannot tell the pod's
        // operating system and does this on every one.
        context.windows_options = Some(WindowsSecurityContextOptions {
            run_as_user_name: Some("ContainerAdministrator".to_owned()),
            ..WindowsSecurityContextOptions::default()
        });
        context.run_as_non_root = Some(false);
        context.read_only_root_filesystem = Some(false);
        context.run_as_user = None;
        context.run_as_group = None;
    }
    context
}
