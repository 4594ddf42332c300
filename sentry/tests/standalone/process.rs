//! A running sentry, and how others talk to it.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use outrigger_core::{TrustDomain, control_plane::Service};
use outrigger_identity::{Anchors, Expect, anonymous_channel};
use outrigger_proto::sentry::{SignCertificateRequest, SignCertificateResponse, ca_client::CaClient};
use outrigger_testkit::{Anyone, free_ports};
use parking_lot::Mutex;
use rustls::{ClientConfig, crypto::aws_lc_rs::default_provider};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::Status;

use crate::pki;

/// Generous: the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A sentry with its folder of credentials.
pub(crate) struct Sentry {
    process: Child,
    pub(crate) folder: TempDir,
    port: u16,
    health: u16,
    metrics: u16,
    pub(crate) oidc: u16,
    namespace: String,
    output: Arc<Mutex<String>>,
    collectors: Vec<JoinHandle<()>>,
}

impl Drop for Sentry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn collect(from: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut output = into.lock();
            output.push_str(&line);
            output.push('\n');
        }
    })
}

impl Sentry {
    /// Standalone, with an empty configuration.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), "", args)
    }

    /// Standalone, with this configuration and whatever the folder holds.
    pub(crate) fn in_folder(folder: TempDir, configuration: &str, args: &[&str]) -> Self {
        let file = folder.path().join("configuration.yaml");
        std::fs::write(&file, configuration).unwrap();
        let args = [&["-config", file.to_str().unwrap()], args].concat();
        Self::spawn(folder, "default", &args, &[])
    }

    pub(crate) fn spawn(folder: TempDir, namespace: &str, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let [port, health, metrics, oidc] = free_ports().unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_sentry"))
            .args([
                "-listen-address",
                "127.0.0.1",
                "-healthz-listen-address=127.0.0.1",
                "--metrics-listen-address",
                "127.0.0.1",
            ])
            .args([
                format!("-port={port}"),
                format!("--healthz-port={health}"),
                format!("-metrics-port={metrics}"),
            ])
            .args([
                format!("--oidc-server-listen-port={oidc}"),
                "--oidc-server-listen-address=127.0.0.1".into(),
            ])
            .arg("-issuer-credentials")
            .arg(folder.path())
            .args(args)
            .env_remove("KUBERNETES_SERVICE_HOST")
            .env("NAMESPACE", namespace)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Arc::default();
        let collectors = vec![
            collect(process.stdout.take().unwrap(), Arc::clone(&output)),
            collect(process.stderr.take().unwrap(), Arc::clone(&output)),
        ];
        Self {
            process,
            folder,
            port,
            health,
            metrics,
            oidc,
            namespace: namespace.to_owned(),
            output,
            collectors,
        }
    }

    /// A connection of somebody who trusts every server.
    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect("any.example".try_into().unwrap(), tcp).await.unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// What it has written to stdout and stderr.
    pub(crate) fn output(&self) -> String {
        self.output.lock().clone()
    }

    /// Waits until `check` holds.
    pub(crate) async fn until<F: Future<Output = bool>>(&self, what: &str, check: impl Fn() -> F) {
        let wait = async {
            while !check().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, wait).await;
        assert!(waited.is_ok(), "never: {what}\n{}", self.output());
    }

    pub(crate) async fn until_ready(&self) {
        self.until("ready", || async {
            self.health("/healthz")
                .await
                .is_some_and(|answer| answer.contains("200 OK"))
        })
        .await;
    }

    pub(crate) async fn until_logged(&self, text: &str) {
        self.until(text, || async { self.output().contains(text) }).await;
    }

    /// Waits until the process has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let wait = async {
            loop {
                if let Some(status) = self.process.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let status = tokio::time::timeout(DEADLINE, wait).await.unwrap();
        // They end with the pipes: then the output is complete.
        for collector in self.collectors.drain(..) {
            collector.join().unwrap();
        }
        status
    }

    pub(crate) fn terminate(&self) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
    }

    /// Status line, headers and body; `None` while nobody listens.
    pub(crate) async fn health(&self, path: &str) -> Option<String> {
        get(self.health, path).await
    }

    pub(crate) async fn metrics(&self) -> String {
        get(self.metrics, "/metrics").await.unwrap()
    }

    /// The value of a series.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics().await;
        let mut values = text
            .lines()
            .filter_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.trim().parse().ok());
        values.next()
    }

    pub(crate) async fn sign(&self, request: SignCertificateRequest) -> Result<SignCertificateResponse, Status> {
        let anchors = Anchors::from_pem(&self.read("ca.crt")).unwrap();
        self.sign_under(anchors, "localhost", request).await
    }

    pub(crate) async fn sign_under(
        &self,
        anchors: Anchors,
        trust_domain: &str,
        request: SignCertificateRequest,
    ) -> Result<SignCertificateResponse, Status> {
        let domain = TrustDomain::new(trust_domain).unwrap();
        let expect = Expect::Id(Service::Sentry.spiffe_id(&domain, &self.namespace).unwrap());
        let address = format!("127.0.0.1:{}", self.port);
        let channel = anonymous_channel(&address, &Arc::new(anchors), &expect).await;
        let channel = channel.map_err(|error| Status::unavailable(format!("{error:?}")))?;
        let answer = CaClient::new(channel).sign_certificate(request).await;
        answer.map(tonic::Response::into_inner)
    }
}

/// The one request that every validator but the insecure one has something to say about.
pub(crate) fn request(id: &str, namespace: &str) -> SignCertificateRequest {
    SignCertificateRequest {
        id: id.to_owned(),
        namespace: namespace.to_owned(),
        certificate_signing_request: pki::request(&rcgen::PKCS_ED25519).into(),
        ..Default::default()
    }
}

/// Of a plain HTTP server on this machine.
pub(crate) async fn get(port: u16, path: &str) -> Option<String> {
    ask(
        port,
        &format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"),
    )
    .await
}

/// Sends these bytes and reads until the server closes.
pub(crate) async fn ask(port: u16, request: &str) -> Option<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// The exit code and the output of a start that is not expected to last.
pub(crate) async fn fails(folder: TempDir, configuration: &str, args: &[&str]) -> (Option<i32>, String) {
    let mut sentry = Sentry::in_folder(folder, configuration, args);
    let status = sentry.ended().await;
    // Logs escape the quotes of what they quote.
    (status.code(), sentry.output().replace("\\\"", "\""))
}

pub(crate) fn folder_with(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

pub(crate) fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777 == 0o600
}
