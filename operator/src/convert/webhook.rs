//! The webhook over HTTP.

use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use outrigger_crds::subscription::convert::Version;
use outrigger_process::kubernetes::webhook::{read, refusal};

use super::{Metrics, review};

/// `/convert`, for any method as upstream has it.
pub fn router(metrics: Metrics) -> Router {
    Router::new()
        .route("/convert", any(convert))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "404 page not found") })
        .with_state(metrics)
}

async fn convert(State(metrics): State<Metrics>, request: Request) -> Response {
    let body = match read(request).await {
        Ok((_, body)) => body,
        Err(refusal) => return refusal,
    };
    match review::answer(&body) {
        Ok(answer) => {
            metrics.converted(&answer);
            ([(header::CONTENT_TYPE, "application/json")], answer.body).into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "a conversion review cannot be answered");
            metrics.failed("unknown");
            refusal(StatusCode::BAD_REQUEST, &error.to_string())
        }
    }
}

impl Metrics {
    fn converted(&self, answer: &review::Answer) {
        let version = answer.version.map_or("unknown", Version::name);
        match &answer.result {
            Ok(count) => {
                let count = u64::try_from(*count).unwrap_or(u64::MAX);
                self.conversions.with_label_values(&[version, "success"]).inc_by(count);
            }
            Err(error) => {
                tracing::warn!(version, error, "a conversion failed");
                self.failed(version);
            }
        }
    }

    fn failed(&self, version: &str) {
        self.conversions.with_label_values(&[version, "failure"]).inc();
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;
    use prometheus::Registry;
    use tower::ServiceExt;

    use super::*;

    async fn post(router: &Router, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
        let request = axum::http::Request::post(path).body(body.into()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_request_gets_an_answer_that_helps() {
        let registry = Registry::new();
        let router = router(Metrics::new(&registry).unwrap());
        let review = r#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview","request":{"uid":"u",
            "desiredAPIVersion":"dapr.io/v1alpha1","objects":[{"apiVersion":"dapr.io/v2alpha1","kind":"Subscription"}]}}"#;
        for (path, body, status, text) in [
            ("/convert", review.to_owned(), StatusCode::OK, "\"status\":\"Success\""),
            (
                "/convert",
                review.replace("v2", "v9"),
                StatusCode::OK,
                "\"status\":\"Failure\"",
            ),
            (
                "/convert",
                "{".into(),
                StatusCode::BAD_REQUEST,
                "the body is no ConversionReview: EOF",
            ),
            ("/convert", String::new(), StatusCode::BAD_REQUEST, "empty body"),
            (
                "/convert",
                " ".repeat(10 << 20),
                StatusCode::PAYLOAD_TOO_LARGE,
                "longer than 8 MiB",
            ),
            ("/mutate", review.into(), StatusCode::NOT_FOUND, "404"),
        ] {
            let answer = post(&router, path, body).await;
            assert_eq!(answer.0, status);
            assert!(answer.1.contains(text), "{}", answer.1);
        }
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            r#"dapr_operator_conversions_total{result="success",version="v1alpha1"} 1"#,
            r#"dapr_operator_conversions_total{result="failure",version="v1alpha1"} 1"#,
            r#"dapr_operator_conversions_total{result="failure",version="unknown"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
