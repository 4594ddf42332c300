//! The binary as the chart runs it: flags, environment, its own identity, health, shutdown.

use std::{
    error::Error,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::coordination::v1::Lease, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use outrigger_core::{SpiffeId, TrustDomain, control_plane::Service};
use outrigger_crds::Configuration;
use outrigger_identity::{Anchors, Expect, anonymous_channel, plain_channel};
use outrigger_proto::operator::{ListComponentsRequest, operator_client::OperatorClient};
use outrigger_testkit::{ApiServer, Workloads, eventually};
use serde_json::json;
use tokio::{net::TcpStream, process::Command};
use tokio_util::sync::CancellationToken;

use crate::{
    setup::{free_port, get},
    support::soon,
};

#[tokio::test(flavor = "multi_thread")]
async fn starts_before_its_configuration_serves_with_mtls_and_ends_well() {
    let api_server = ApiServer::shared().await;
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/dapr/crds");
    api_server.apply_crds(&crds).await.unwrap();
    let namespace = api_server.namespace("process").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (workloads, trust_domain) = (Workloads::new().unwrap(), TrustDomain::new("example.org").unwrap());
    let anchors = folder.path().join("ca.crt");
    std::fs::write(&anchors, workloads.anchors()).unwrap();

    let stop = CancellationToken::new();
    let sentry = Service::Sentry.spiffe_id(&trust_domain, &namespace).unwrap();
    let sentry_address = workloads.serve_sentry(sentry, &stop).await.unwrap();

    let (port, healthz, metrics) = (free_port(), free_port(), free_port());
    let conversions = free_port().to_string();
    let mut operator = Command::new(env!("CARGO_BIN_EXE_operator"))
        .env_clear()
        .env("NAMESPACE", &namespace)
        .env("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "true")
        .arg("-kubeconfig")
        .arg(api_server.kubeconfig())
        .args(["--watch-interval", "0", "--listen-address", "127.0.0.1"])
        // The other tests' namespaces have operators of their own.
        .args(["--watch-namespace", &namespace])
        .args(["--port", &port.to_string(), "--healthz-port", &healthz.to_string()])
        .args([
            "--webhook-server-port",
            &conversions,
            "--webhook-server-listen-address",
            "127.0.0.1",
        ])
        .args([
            "--metrics-port",
            &metrics.to_string(),
            "--metrics-listen-address",
            "127.0.0.1",
        ])
        .arg("--trust-anchors-file")
        .arg(&anchors)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();

    // It waits for its configuration, and says so.
    let waiting = format!("operator-configuration: Configuration {namespace}/daprsystem does not exist yet");
    eventually("waiting", async || {
        get(healthz, "/healthz/detail")
            .await
            .filter(|text| text.contains(&waiting))
    })
    .await;
    assert!(get(healthz, "/healthz").await.unwrap().starts_with("HTTP/1.1 503"));
    assert!(
        get(healthz, "/livez").await.unwrap().starts_with("HTTP/1.1 200"),
        "that is no reason to be killed"
    );

    let resource = kube::api::ApiResource::erase::<Configuration>(&());
    let configurations = Api::namespaced_with(api_server.client(), &namespace, &resource);
    let mut system = DynamicObject::new("daprsystem", &resource);
    system.data = json!({"spec": {"mtls": {
        "enabled": true, "controlPlaneTrustDomain": "example.org", "sentryAddress": sentry_address.to_string(),
        "workloadCertTTL": "24h", "allowedClockSkew": "15m",
    }}});
    configurations.create(&PostParams::default(), &system).await.unwrap();
    let ready = async || {
        get(healthz, "/healthz")
            .await
            .filter(|answer| answer.starts_with("HTTP/1.1 200"))
    };
    eventually("readiness", &ready).await;
    assert!(
        get(metrics, "/")
            .await
            .unwrap()
            .contains("process_resident_memory_bytes")
    );

    // It serves conversions, and has the API server trust it for them.
    assert!(TcpStream::connect(format!("127.0.0.1:{conversions}")).await.is_ok());
    let definitions: Api<CustomResourceDefinition> = Api::all(api_server.client());
    let bundle = async || {
        let definition = definitions.get("subscriptions.dapr.io").await.unwrap();
        definition.spec.conversion?.webhook?.client_config?.ca_bundle
    };
    eventually("the CA bundle", async || {
        bundle()
            .await
            .filter(|bundle| bundle.0 == workloads.anchors().as_bytes())
    })
    .await;

    // A sidecar calls it with mTLS, and knows it by its id.
    let component = json!({
        "apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": "db"},
        "spec": {"type": "state.in-memory", "version": "v1", "metadata": []},
    });
    let components: Api<outrigger_crds::Component> = Api::namespaced(api_server.client(), &namespace);
    components
        .patch("db", &PatchParams::apply("test"), &Patch::Apply(&component))
        .await
        .unwrap();
    let app = SpiffeId::new(TrustDomain::new("public").unwrap(), &namespace, "cart").unwrap();
    let expected = Service::Operator.spiffe_id(&trust_domain, &namespace).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string();
    let channel = workloads
        .identity(app.clone(), &stop)
        .await
        .unwrap()
        .channel(&address, Expect::Id(expected.clone()))
        .unwrap();
    let mut sidecar = OperatorClient::new(channel);
    let listed = eventually("the component", async || {
        let request = ListComponentsRequest {
            namespace: namespace.clone(),
        };
        sidecar
            .clone()
            .list_components(request)
            .await
            .unwrap()
            .into_inner()
            .components
            .pop()
    });
    let listed: serde_json::Value = serde_json::from_slice(&listed.await).unwrap();
    assert_eq!(listed["metadata"]["name"], "db");
    let request = ListComponentsRequest {
        namespace: "elsewhere".into(),
    };
    assert_eq!(
        sidecar.list_components(request).await.unwrap_err().code(),
        tonic::Code::PermissionDenied
    );
    let request = ListComponentsRequest {
        namespace: namespace.clone(),
    };
    strangers_get_nothing(&workloads, &app, &expected, &address, &request).await;
    assert!(sidecar.list_components(request).await.is_ok(), "it serves on");

    // It leads, so it writes; and when it ends, the next one need not wait.
    let written = async || {
        components
            .get("db")
            .await
            .unwrap()
            .status
            .and_then(|status| status.conditions)
    };
    eventually("a status", &written).await;
    let leases: Api<Lease> = Api::namespaced(api_server.client(), &namespace);
    let holder = async || {
        leases
            .get("operator.dapr.io")
            .await
            .unwrap()
            .spec
            .unwrap()
            .holder_identity
    };
    assert_ne!(holder().await.as_deref(), Some(""));

    let pid = operator.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .await
            .unwrap()
            .success()
    );
    let status = soon("its end", operator.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(holder().await.as_deref(), Some(""));
    stop.cancel();
}

/// Without a certificate of the operator's authority, and without any, nobody gets as far as a call.
async fn strangers_get_nothing(
    workloads: &Workloads,
    app: &SpiffeId,
    operator: &SpiffeId,
    address: &str,
    request: &ListComponentsRequest,
) {
    let (stop, operator) = (CancellationToken::new(), Expect::Id(operator.clone()));
    let elsewhere = Workloads::new().unwrap();
    let stranger = workloads.stranger(&elsewhere, app.clone(), &stop).await.unwrap();
    let anchors = Arc::new(Anchors::from_pem(&workloads.anchors()).unwrap());
    let anonymous = anonymous_channel(address, &anchors, &operator).await;
    let plain = plain_channel(address, Duration::from_secs(10)).unwrap();
    for (who, channel) in [
        ("of another authority", Ok(stranger.channel(address, operator).unwrap())),
        ("without a certificate", anonymous),
        ("without TLS", Ok(plain)),
    ] {
        // A client of TLS 1.3 may take the connection for made until it reads the refusal.
        let refusal = match channel {
            Err(error) => format!("{error:?}"),
            Ok(channel) => {
                let mut client = OperatorClient::new(channel);
                let refused = soon("a refusal", client.list_components(request.clone())).await;
                let status = refused.map(|list| list.into_inner().components.len()).unwrap_err();
                assert!(
                    status.source().is_some(),
                    "{who}: the connection fails, not the call: {status}"
                );
                format!("{status:?}")
            }
        };
        let by_itself = ["invalid peer certificate", "no certificate yet"];
        assert!(
            !by_itself.iter().any(|reason| refusal.contains(reason)),
            "{who} was to be refused, and refused the operator: {refusal}"
        );
    }
    stop.cancel();
}

#[tokio::test]
async fn mistakes_end_it_with_a_clear_sentence() {
    let run = async |namespace: Option<&str>, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_operator"));
        command
            .env_clear()
            .env("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "true")
            .args(args);
        if let Some(namespace) = namespace {
            command.env("NAMESPACE", namespace);
        }
        let output = soon("its end", command.output()).await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    for (namespace, args, code, sentence) in [
        (None, &[][..], 1, "'NAMESPACE' environment variable not set"),
        (Some(""), &[], 1, "'NAMESPACE' environment variable is empty"),
        (
            Some("x"),
            &["-watch-interval", "5"],
            1,
            "invalid value for --watch-interval",
        ),
        (
            Some("x"),
            &["-log-level", "loud"],
            1,
            "invalid value for --log-level: loud",
        ),
        (
            Some("x"),
            &["-kubeconfig", "/nowhere"],
            1,
            "cannot read the kubeconfig /nowhere",
        ),
        (Some("x"), &["-no-such-flag"], 2, "--no-such-flag"),
    ] {
        let (actual, text) = run(namespace, args).await;
        assert_eq!(actual, Some(code), "{text}");
        assert!(text.contains(sentence), "{text}");
    }
}
