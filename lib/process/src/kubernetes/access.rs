//! Rights that come later: roles are often bound moments after a program has started, or added while it runs.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, Resource, api::PostParams, core::Status};

/// How often the API server is asked.
const RETRY: Duration = Duration::from_secs(15);

/// Objects that a watch is about.
#[derive(Debug, Clone, Copy, Default)]
pub struct Objects<'a> {
    /// `None` for those of all namespaces, and for objects that have none.
    pub namespace: Option<&'a str>,
    /// `None` for whatever they are called.
    pub name: Option<&'a str>,
}

/// Waits until objects of this kind may be listed and watched. Nobody needs a right to ask for that; where it is refused all the
/// same, it returns, for the caller to try.
pub async fn granted<K: Resource<DynamicType = ()>>(client: &Client, objects: Objects<'_>) {
    loop {
        tokio::time::sleep(RETRY).await;
        let may = async |verb| may::<K>(client, objects, verb).await;
        if may("list").await && may("watch").await {
            return;
        }
    }
}

/// Whether an answer says that this process lacks a right, which holds for more than the one object. Admission answers with the
/// same code: policies, quotas, and namespaces that are about to go.
pub fn lacks_right(status: &Status) -> bool {
    // Reason and details are the same for all of them.
    status.code == 403 && status.message.contains("\" cannot ") && status.message.contains(" resource \"")
}

async fn may<K: Resource<DynamicType = ()>>(client: &Client, objects: Objects<'_>, verb: &str) -> bool {
    let text = |part: Option<&str>| part.map(str::to_owned);
    let attributes = ResourceAttributes {
        group: Some(K::group(&()).into_owned()),
        version: Some(K::version(&()).into_owned()),
        resource: Some(K::plural(&()).into_owned()),
        verb: Some(verb.to_owned()),
        namespace: text(objects.namespace),
        name: text(objects.name),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    match api.create(&PostParams::default(), &review).await {
        Ok(answered) => answered.status.is_some_and(|status| status.allowed),
        Err(kube::Error::Api(status)) => status.is_forbidden(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, message: &str) -> Status {
        Status::failure(message, "Forbidden").with_code(code)
    }

    #[test]
    fn only_the_authorizer_refuses_more_than_one_object() {
        let rbac = r#"components.dapr.io "db" is forbidden: User "operator" cannot patch resource "components/status" in API group "dapr.io" in the namespace "shop""#;
        assert!(lacks_right(&refused(403, rbac)));
        for admission in [
            r#"admission webhook "policy.example" denied the request: no"#,
            r#"components.dapr.io "db" is forbidden: ValidatingAdmissionPolicy 'frozen' with binding 'frozen' denied request: no"#,
            r#"services "db" is forbidden: unable to create new content in namespace shop because it is being terminated"#,
            r#"services "db" is forbidden: exceeded quota: few, requested: services=1, used: services=1, limited: services=1"#,
        ] {
            assert!(!lacks_right(&refused(403, admission)), "{admission}");
        }
        assert!(!lacks_right(&refused(500, rbac)));
    }
}
