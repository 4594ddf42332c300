//! Admission policies, which refuse with the code of missing rights.

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::fixture::Operator;

/// A policy for the operator's namespace; it takes the API server a while to know it.
pub(crate) struct Policy<'a>(&'a Operator);

impl<'a> Policy<'a> {
    /// Refuses what does not fulfil a CEL expression.
    pub(crate) async fn new(operator: &'a Operator, group: &str, resource: &str, expression: &str) -> Self {
        let name = &operator.namespace;
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                "matchConstraints": {
                    "resourceRules": [{
                        "apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
                        "resources": [resource],
                    }],
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                },
                "validations": [{"expression": expression, "message": "frozen", "reason": "Forbidden"}],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
        });
        let params = PatchParams::apply("test").force();
        let this = Self(operator);
        this.policies()
            .patch(name, &params, &Patch::Apply(&policy))
            .await
            .unwrap();
        this.bindings()
            .patch(name, &params, &Patch::Apply(&binding))
            .await
            .unwrap();
        this
    }

    pub(crate) async fn lift(self) {
        let name = &self.0.namespace;
        self.policies().delete(name, &Default::default()).await.unwrap();
        self.bindings().delete(name, &Default::default()).await.unwrap();
    }

    fn policies(&self) -> Api<ValidatingAdmissionPolicy> {
        Api::all(self.0.client.clone())
    }

    fn bindings(&self) -> Api<ValidatingAdmissionPolicyBinding> {
        Api::all(self.0.client.clone())
    }
}
