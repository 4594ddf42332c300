//! The sample app as people deploy it.

use serde_json::{Value, json};

use crate::release;

/// Its image.
pub fn image() -> String {
    format!("{}/sample-app:{}", release::REGISTRY, release::TAG)
}

/// A container that runs it with these arguments.
pub fn container(name: &str, args: &[&str]) -> Value {
    let args: Vec<_> = std::iter::once("/sample-app").chain(args.iter().copied()).collect();
    json!({"name": name, "image": image(), "args": args})
}

/// A Deployment of the sample app under an app id; `annotations` are lines of YAML to add.
pub fn deployment(app: &str, annotations: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {app}
spec:
  selector:
    matchLabels: {{app: {app}}}
  template:
    metadata:
      labels: {{app: {app}}}
      annotations:
        dapr.io/enabled: "true"
        dapr.io/app-id: {app}
        dapr.io/app-port: "3000"
        {annotations}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: app
          image: {}
          env: [{{name: APP_ID, value: {app}}}]
"#,
        image()
    )
}
