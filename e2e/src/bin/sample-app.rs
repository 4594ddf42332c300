//! A small application for the demo and the tests: it keeps its state and calls others through its sidecar only.
//!
//! | request | does |
//! |---|---|
//! | `GET /hello` | says the application's name |
//! | `POST /save/{store}/{key}` | saves the body in a state store |
//! | `GET /read/{store}/{key}` | reads it back |
//! | `GET /call/{app}/{method}` | invokes another application |
//! | `GET /healthz` | 200 while it runs |

use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use clap::Parser;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// For one request to the sidecar.
const TIMEOUT: Duration = Duration::from_secs(10);
const LARGEST_ANSWER: usize = 4 << 20;

/// A small application that works through its sidecar.
#[derive(Debug, Parser)]
struct Args {
    /// The port that the application listens on
    #[arg(long, env = "APP_PORT", default_value_t = 3000)]
    port: u16,
    /// The sidecar's HTTP port, which injection sets
    #[arg(long, env = "DAPR_HTTP_PORT", default_value_t = 3500)]
    sidecar_port: u16,
    /// What /hello answers with, which injection sets
    #[arg(long, env = "APP_ID", default_value = "sample-app")]
    name: String,
    /// What to ask the sidecar for first of all, below /v1.0/: without an answer the application ends with an error
    #[arg(long, value_name = "PATH")]
    first: Option<String>,
    /// End after that, as jobs and init containers do
    #[arg(long, requires = "first")]
    once: bool,
}

#[derive(Clone)]
struct App {
    name: String,
    sidecar: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// The sidecar failed or is absent: 502 with what it said.
struct SidecarError(String);

impl IntoResponse for SidecarError {
    fn into_response(self) -> Response {
        (StatusCode::BAD_GATEWAY, format!("{}\n", self.0)).into_response()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Args {
        port,
        sidecar_port,
        name,
        first,
        once,
    } = Args::parse();
    let sidecar = format!("http://127.0.0.1:{sidecar_port}/v1.0");
    let client = Client::builder(TokioExecutor::new()).build_http();
    let app = App { name, sidecar, client };
    if let Some(path) = first {
        let status = app
            .first(&path)
            .await
            .map_err(|SidecarError(text)| anyhow::anyhow!(text))?;
        println!("the sidecar answered {status}");
    }
    if once {
        return Ok(());
    }
    // As the first process of a container it gets no signal that it did not ask for.
    let mut end = signal(SignalKind::terminate()).context("ask for the signal to end")?;
    let listener = TcpListener::bind(("0.0.0.0", port))
        .await
        .with_context(|| format!("listen on port {port}"))?;
    println!(
        "{} listens on port {port}, its sidecar on port {sidecar_port}",
        app.name
    );
    axum::serve(listener, routes(app))
        .with_graceful_shutdown(async move {
            end.recv().await;
        })
        .await
        .context("serve")
}

fn routes(app: App) -> Router {
    Router::new()
        .route("/hello", get(hello))
        .route("/healthz", get(async || StatusCode::OK))
        .route("/save/{store}/{key}", post(save))
        .route("/read/{store}/{key}", get(read))
        .route("/call/{app}/{*method}", get(call))
        .with_state(app)
}

async fn hello(State(app): State<App>) -> String {
    format!("hello from {}\n", app.name)
}

async fn save(
    State(app): State<App>,
    Path((store, key)): Path<(String, String)>,
    body: Bytes,
) -> Result<StatusCode, SidecarError> {
    // The sidecar keeps JSON; what is none is kept as text.
    let value: Value =
        serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
    let entries = json!([{"key": key, "value": value}]).to_string();
    let request =
        Request::post(format!("{}/state/{store}", app.sidecar)).header(header::CONTENT_TYPE, "application/json");
    app.ask(request, entries.into()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// 404 for a key without a value, which the sidecar answers with 204.
async fn read(
    State(app): State<App>,
    Path((store, key)): Path<(String, String)>,
) -> Result<(StatusCode, Bytes), SidecarError> {
    let (status, value) = app
        .ask(
            Request::get(format!("{}/state/{store}/{key}", app.sidecar)),
            Bytes::new(),
        )
        .await?;
    Ok((
        if status == StatusCode::NO_CONTENT {
            StatusCode::NOT_FOUND
        } else {
            status
        },
        value,
    ))
}

async fn call(State(app): State<App>, Path((other, method)): Path<(String, String)>) -> Result<Bytes, SidecarError> {
    let request = Request::get(format!("{}/invoke/{other}/method/{method}", app.sidecar));
    Ok(app.ask(request, Bytes::new()).await?.1)
}

impl App {
    /// The first call, which is not tried again.
    async fn first(&self, path: &str) -> Result<StatusCode, SidecarError> {
        let request = Request::get(format!("{}/{path}", self.sidecar));
        Ok(self.ask(request, Bytes::new()).await?.0)
    }

    /// Asks the sidecar; any answer but success is an error with its text.
    async fn ask(
        &self,
        request: axum::http::request::Builder,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), SidecarError> {
        let request = request
            .body(Full::new(body))
            .map_err(|error| SidecarError(format!("not a request: {error}")))?;
        let target = request.uri().to_string();
        let absent = |error: anyhow::Error| SidecarError(format!("no answer from the sidecar at {target}: {error:#}"));
        let answer = tokio::time::timeout(TIMEOUT, async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|error| absent(error.into()))?;
            let status = answer.status();
            let body = Limited::new(Body::new(answer.into_body()), LARGEST_ANSWER)
                .collect()
                .await;
            Ok((status, body.map_err(|error| absent(anyhow::anyhow!(error)))?.to_bytes()))
        });
        let (status, body) = answer.await.map_err(|error| absent(error.into()))??;
        if status.is_success() {
            return Ok((status, body));
        }
        Err(SidecarError(format!(
            "the sidecar answered {status}: {}",
            String::from_utf8_lossy(&body)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves on a free port until the test ends.
    async fn serve(router: Router) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async { axum::serve(listener, router).await });
        port
    }

    fn app(sidecar_port: u16) -> App {
        let sidecar = format!("http://127.0.0.1:{sidecar_port}/v1.0");
        App {
            name: "cart".into(),
            sidecar,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// Answers with what it was asked, besides keys named `none`, which have no value, and the store `broken`.
    fn sidecar() -> Router {
        let read = async |Path((store, key)): Path<(String, String)>| match (store.as_str(), key.as_str()) {
            ("broken", _) => (StatusCode::INTERNAL_SERVER_ERROR, "ERR_STATE_GET".to_owned()),
            (_, "none") => (StatusCode::NO_CONTENT, String::new()),
            _ => (StatusCode::OK, format!("{store}.{key}")),
        };
        let expected = r#"[{"key":"a","value":{"n":1}}]"#;
        let save = async move |body: String| {
            if body == expected {
                StatusCode::NO_CONTENT
            } else {
                StatusCode::BAD_REQUEST
            }
        };
        let invoke = async |Path((app, method)): Path<(String, String)>| format!("{app}.{method}");
        Router::new()
            .route("/v1.0/state/{store}", post(save))
            .route("/v1.0/state/{store}/{key}", get(read))
            .route("/v1.0/invoke/{app}/method/{*method}", get(invoke))
    }

    async fn ask(port: u16, request: axum::http::request::Builder, body: &'static str) -> (u16, String) {
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let uri = request.uri_ref().map(ToString::to_string).unwrap();
        let request = request
            .uri(format!("http://127.0.0.1:{port}{uri}"))
            .body(Full::from(body))
            .unwrap();
        let answer = client.request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn state_and_calls_go_through_the_sidecar() {
        let port = serve(routes(app(serve(sidecar()).await))).await;
        assert_eq!(
            ask(port, Request::get("/hello"), "").await,
            (200, "hello from cart\n".into())
        );
        assert_eq!(ask(port, Request::post("/save/store/a"), r#"{"n": 1}"#).await.0, 204);
        assert_eq!(
            ask(port, Request::get("/read/store/a"), "").await,
            (200, "store.a".into())
        );
        assert_eq!(ask(port, Request::get("/read/store/none"), "").await.0, 404);
        assert_eq!(
            ask(port, Request::get("/call/other/a/b"), "").await,
            (200, "other.a/b".into())
        );
    }

    #[tokio::test]
    async fn the_first_call_is_made_once() {
        let working = app(serve(sidecar()).await);
        let status = working.first("state/store/none").await.ok();
        assert_eq!(status, Some(StatusCode::NO_CONTENT));
        assert!(working.first("state/broken/a").await.is_err());
    }

    #[tokio::test]
    async fn failures_of_the_sidecar_are_told() {
        let port = serve(routes(app(serve(sidecar()).await))).await;
        let (status, text) = ask(port, Request::get("/read/broken/a"), "").await;
        assert_eq!(status, 502);
        assert!(text.contains("500 Internal Server Error: ERR_STATE_GET"), "{text}");
    }

    #[tokio::test]
    async fn an_absent_sidecar_is_told() {
        let closed = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let port = serve(routes(app(closed))).await;
        let (status, text) = ask(port, Request::get("/read/store/a"), "").await;
        assert_eq!(status, 502);
        assert!(
            text.contains("no answer from the sidecar") && text.contains("Connection refused"),
            "{text}"
        );
    }
}
