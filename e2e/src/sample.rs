//! The sample app as people deploy it.

use crate::release;

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
          image: {}/sample-app:{}
          env: [{{name: APP_ID, value: {app}}}]
"#,
        release::REGISTRY,
        release::TAG
    )
}
