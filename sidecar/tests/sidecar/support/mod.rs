//! Runs the real binary and talks to it.

pub mod app;
pub mod authority;
pub mod operator;
pub mod reports;

use std::{
    collections::BTreeMap,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use outrigger_proto::runtime::dapr_client::DaprClient;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
};
use tonic::transport::Channel;

/// For every wait: long enough for a busy machine, and only reached by a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running sidecar. Dropping it kills it.
pub struct Daprd {
    child: Child,
    log: Arc<Mutex<Vec<Value>>>,
    lines: watch::Receiver<usize>,
    client: Client<HttpConnector, Body>,
}

/// An answer of the HTTP API.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Daprd {
    /// Starts on free ports of the loopback interface. Later words override earlier ones.
    pub fn start(words: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_daprd"));
        command
            .env_clear()
            .args([
                "--log-as-json",
                "--log-level",
                "debug",
                "--dapr-listen-addresses",
                "127.0.0.1",
            ])
            .args([
                "--dapr-http-port",
                "0",
                "--dapr-grpc-port",
                "0",
                "--dapr-internal-grpc-listen-address",
                "127.0.0.1",
            ])
            .args([
                "--dapr-public-port",
                "0",
                "--dapr-public-listen-address",
                "127.0.0.1",
                "--enable-metrics=false",
            ])
            .args(words)
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (count, lines) = watch::channel(0);
        tokio::spawn(read(child.stdout.take().unwrap(), log.clone(), count.clone()));
        tokio::spawn(read(child.stderr.take().unwrap(), log.clone(), count));
        Self {
            child,
            log,
            lines,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// Starts and waits until it says that it is running.
    pub async fn running(words: &[&str], env: &[(&str, &str)]) -> Self {
        let mut daprd = Self::start(words, env);
        daprd
            .line(|line| message(line).starts_with("dapr initialized. Status: Running."))
            .await;
        daprd
    }

    /// The first log line that fits, waiting for it.
    pub async fn line(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        self.line_after(0, fits).await
    }

    /// As [`Daprd::line`], looking only behind the first `skip` lines.
    pub async fn line_after(&mut self, skip: usize, fits: impl Fn(&Value) -> bool) -> Value {
        let found = || self.log.lock().iter().skip(skip).find(|line| fits(line)).cloned();
        let mut lines = self.lines.clone();
        let wait = async {
            loop {
                lines.mark_unchanged();
                if let Some(line) = found() {
                    return Some(line);
                }
                if lines.changed().await.is_err() {
                    return found();
                }
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(Some(line)) => line,
            _ => panic!("no such line in the log:\n{}", self.text()),
        }
    }

    /// How many lines there are so far.
    pub fn lines(&self) -> usize {
        self.log.lock().len()
    }

    /// The whole log, a line each.
    pub fn text(&self) -> String {
        self.log.lock().iter().map(|line| format!("{line}\n")).collect()
    }

    /// Where a server listens, for example `http API server`.
    pub async fn address(&mut self, server: &str) -> String {
        let line = self.line(|line| message(line) == format!("{server} is running")).await;
        line["address"].as_str().unwrap().to_owned()
    }

    pub async fn http(&mut self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        self.http_with(method, path, &[], body).await
    }

    pub async fn http_with(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let address = self.address("http API server").await;
        self.request(&address, method, path, headers, body.into()).await
    }

    /// GET on the public port.
    pub async fn public(&mut self, path: &str) -> Answer {
        let address = self.address("public HTTP server").await;
        self.request(&address, Method::GET, path, &[], Body::empty()).await
    }

    async fn request(&self, address: &str, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = self.client.request(request.body(body).unwrap());
        let (parts, body) = tokio::time::timeout(PATIENCE, request)
            .await
            .unwrap()
            .unwrap()
            .into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub async fn grpc(&mut self) -> DaprClient<Channel> {
        let address = self.address("grpc API server").await;
        let channel = Channel::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await
            .unwrap();
        DaprClient::new(channel)
    }

    /// Names and versions of the loaded components.
    pub async fn components(&mut self) -> BTreeMap<String, String> {
        let metadata = self.http(Method::GET, "/v1.0/metadata", "").await.json();
        let components = metadata["components"].as_array().cloned().unwrap_or_default();
        components
            .iter()
            .map(|c| {
                (
                    text(&c["name"]),
                    format!("{}/{}", text(&c["type"]), text(&c["version"])),
                )
            })
            .collect()
    }

    /// Waits until exactly these components are loaded.
    pub async fn until_components(&mut self, names: &[&str]) {
        let wait = async {
            while self.components().await.keys().map(String::as_str).collect::<Vec<_>>() != names {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("the components never were {names:?}:\n{}", self.text());
        }
    }

    pub async fn exit(&mut self) -> ExitStatus {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        status
            .unwrap_or_else(|_| panic!("it does not end:\n{}", self.text()))
            .unwrap()
    }

    /// Waits for a failed start and returns its last words.
    pub async fn failure(&mut self) -> String {
        assert_eq!(self.exit().await.code(), Some(1), "{}", self.text());
        message(&self.line(|line| message(line).starts_with("Fatal error: ")).await).to_owned()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(
            std::process::Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and error code.
    pub fn error(&self) -> (u16, String) {
        (self.status.as_u16(), text(&self.json()["errorCode"]))
    }
}

pub fn message(line: &Value) -> &str {
    line["msg"].as_str().unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Lines that are not JSON (of a failure before the logger) are kept as messages.
async fn read(stream: impl AsyncRead + Unpin, log: Arc<Mutex<Vec<Value>>>, count: watch::Sender<usize>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        log.lock()
            .push(serde_json::from_str(&line).unwrap_or_else(|_| serde_json::json!({"msg": line})));
        count.send_modify(|n| *n += 1);
    }
}

/// The manifest of an in-memory state store, as YAML and as JSON alike.
pub fn store(name: &str, kind: &str, metadata: &str) -> String {
    format!(
        r#"{{"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {{"name": "{name}", "namespace": "shop"}},
  "spec": {{"type": "{kind}", "version": "v1", "metadata": [{metadata}]}}}}
"#
    )
}
