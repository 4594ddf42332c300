//! Grants a pod the identity that its annotations entitle it to, when it presents its service account's token.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{
    Api, Client, ResourceExt,
    api::PostParams,
    core::{DynamicObject, Status},
    runtime::watcher,
};
use outrigger_core::{SpiffeId, TrustDomain, control_plane::PUBLIC_TRUST_DOMAIN};
use outrigger_process::{
    health::Target,
    kubernetes::{
        client::Clients,
        watch::{Change, ObjectKey, changes, until_forbidden},
    },
};
use outrigger_proto::sentry::SignCertificateRequest;
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    Refusal, Validated, check_request,
    expected::{Entitled, PodFacts, entitled},
    pod::Pod,
    token,
};

/// Reviews in flight at once. More would only queue up in the API server.
const REVIEWS: usize = 64;
/// A caller gives up after three seconds; work for it after that would be in vain.
const DEADLINE: Duration = Duration::from_millis(2800);
/// The audience that upstream's first releases used.
const LEGACY_AUDIENCE: &str = "dapr.io/sentry";

type Pods = Arc<RwLock<HashMap<ObjectKey, Arc<PodFacts>>>>;

/// Validates service account tokens.
pub(crate) struct KubernetesValidator {
    client: Client,
    trust_domain: TrustDomain,
    namespace: String,
    audiences: Vec<String>,
    pods: Pods,
    reviews: Semaphore,
}

impl KubernetesValidator {
    /// `id` is sentry's own, which is the audience of the tokens it accepts.
    pub(crate) fn new(client: Client, id: &SpiffeId, namespace: &str) -> Self {
        Self {
            client,
            trust_domain: id.trust_domain().clone(),
            namespace: namespace.to_owned(),
            // The order is upstream's, and visible in the request.
            audiences: vec![LEGACY_AUDIENCE.to_owned(), id.to_string()],
            pods: Pods::default(),
            reviews: Semaphore::new(REVIEWS),
        }
    }

    /// The task that keeps the facts about pods: those of the cluster, or where that is forbidden those of the control plane's
    /// namespace. Pods that it does not know are read for each request.
    pub(crate) fn watch(
        &self,
        clients: &Clients,
        target: Target,
        stop: CancellationToken,
    ) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let pods = self.pods.clone();
        let everywhere: Api<Pod> = Api::all(clients.watches.clone());
        let own: Api<Pod> = Api::namespaced(clients.watches.clone(), &self.namespace);
        let namespace = self.namespace.clone();
        async move {
            let following = async {
                follow(everywhere, &pods, &target).await;
                tracing::warn!(
                    namespace,
                    "only pods of the control plane's namespace are watched; others are read for each of their requests"
                );
                follow(own, &pods, &target).await;
                tracing::warn!("pods cannot be watched; each request for a certificate reads its pod");
                target.ready();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = following => {}
            }
            Ok(())
        }
    }

    pub(super) async fn validate(&self, request: &SignCertificateRequest) -> Result<Validated, Refusal> {
        tokio::time::timeout(DEADLINE, self.decide(request))
            .await
            .unwrap_or_else(|_| Err(Refusal::Unavailable("the API server did not answer in time".to_owned())))
    }

    async fn decide(&self, request: &SignCertificateRequest) -> Result<Validated, Refusal> {
        check_request(request)?;
        if request.token.is_empty() {
            return Err(Refusal::Denied(
                "authentication failed: the request does not contain a token".to_owned(),
            ));
        }
        let username = self.review(&request.token).await?;
        let (namespace, account) = token::service_account(&username).map_err(Refusal::Denied)?;
        let bound = token::bound_pod(&request.token).map_err(Refusal::Denied)?;
        let pod = self
            .pod(&ObjectKey::new(namespace, &bound.name), bound.uid.as_deref())
            .await?;
        if namespace != request.namespace {
            return Err(Refusal::Denied(format!(
                "namespace mismatch; received namespace: {}",
                request.namespace
            )));
        }
        if pod.service_account != account {
            return Err(Refusal::Denied("pod service account mismatch".to_owned()));
        }
        let entitled = entitled(&pod, &self.namespace).map_err(Refusal::Denied)?;
        if entitled.id() != request.id {
            return Err(Refusal::Denied(format!(
                "app-id mismatch. expected: {}, received: {}",
                entitled.id(),
                request.id
            )));
        }
        let trust_domain = match (&entitled, &pod.configuration) {
            (Entitled::ControlPlane(_), _) => self.trust_domain.clone(),
            (Entitled::App(_), Some(name)) => self.configured_trust_domain(namespace, name).await?,
            (Entitled::App(_), None) => {
                TrustDomain::new(PUBLIC_TRUST_DOMAIN).map_err(|e| Refusal::Denied(e.to_string()))?
            }
        };
        Ok(Validated {
            trust_domain,
            images: pod.images.clone(),
        })
    }

    /// The user name that the API server vouches for.
    async fn review(&self, token: &str) -> Result<String, Refusal> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(self.audiences.clone()),
            },
            ..Default::default()
        };
        let _slot = self
            .reviews
            .acquire()
            .await
            .map_err(|_| Refusal::Unavailable("sentry is stopping".to_owned()))?;
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await;
        let status = answer
            .map_err(|error| transient("token review failed", error))?
            .status
            .unwrap_or_default();
        reviewed_user(status, &self.audiences).map_err(Refusal::Denied)
    }

    /// From the watch, or from the API server where the watch does not know the pod yet or knows another of its name.
    async fn pod(&self, key: &ObjectKey, uid: Option<&str>) -> Result<Arc<PodFacts>, Refusal> {
        let is_the_one = |facts: &PodFacts| uid.is_none() || facts.uid.is_none() || facts.uid.as_deref() == uid;
        if let Some(facts) = self.pods.read().get(key).filter(|facts| is_the_one(facts)) {
            return Ok(facts.clone());
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let pod = api
            .get_opt(&key.name)
            .await
            .map_err(|error| transient("failed to get pod of identity", error))?;
        let facts = pod.as_ref().map(PodFacts::of).filter(is_the_one);
        facts
            .map(Arc::new)
            .ok_or_else(|| Refusal::Denied("failed to get pod of identity".to_owned()))
    }

    /// `spec.accessControl.trustDomain` of the app's Configuration.
    async fn configured_trust_domain(&self, namespace: &str, name: &str) -> Result<TrustDomain, Refusal> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &configuration_resource());
        let configuration = api
            .get_opt(name)
            .await
            .map_err(|error| transient("failed to get configuration", error))?
            .ok_or_else(|| {
                Refusal::Denied(format!(
                    "failed to get configuration: {namespace}/{name} does not exist"
                ))
            })?;
        let configured = configuration.data["spec"]["accessControl"]["trustDomain"]
            .as_str()
            .unwrap_or_default();
        let trust_domain = if configured.is_empty() {
            PUBLIC_TRUST_DOMAIN
        } else {
            configured
        };
        TrustDomain::new(trust_domain).map_err(|error| {
            Refusal::Denied(format!(
                "failed to parse trust domain of configuration {}: {error}",
                configuration.name_any()
            ))
        })
    }
}

/// Keeps `pods` current until watching them is forbidden. What is known then is forgotten: nobody would correct it any more.
async fn follow(api: Api<Pod>, pods: &Pods, target: &Target) {
    until_forbidden(changes(api, watcher::Config::default()), |change| match change {
        Change::Apply(pod) => {
            pods.write().insert(ObjectKey::of(&pod), Arc::new(PodFacts::of(&pod)));
        }
        Change::Delete(key) => {
            pods.write().remove(&key);
        }
        Change::Synced => target.ready(),
        Change::Absent | Change::Forbidden => {}
    })
    .await;
    pods.write().clear();
}

/// The resource `configurations.dapr.io`, read without types: sentry needs two fields of it.
pub(crate) fn configuration_resource() -> kube::core::ApiResource {
    kube::core::ApiResource {
        group: "dapr.io".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "dapr.io/v1alpha1".to_owned(),
        kind: "Configuration".to_owned(),
        plural: "configurations".to_owned(),
    }
}

fn reviewed_user(status: TokenReviewStatus, audiences: &[String]) -> Result<String, String> {
    if let Some(error) = status.error.filter(|error| !error.is_empty()) {
        return Err(format!("invalid token: {error}"));
    }
    if status.authenticated != Some(true) {
        return Err("authentication failed".to_owned());
    }
    // API servers that know audiences say which of ours the token has; others say nothing.
    if let Some(accepted) = status.audiences.filter(|accepted| !accepted.is_empty())
        && !accepted.iter().any(|audience| audiences.contains(audience))
    {
        return Err(format!(
            "invalid token: its audience is none of {}",
            audiences.join(", ")
        ));
    }
    Ok(status.user.and_then(|user| user.username).unwrap_or_default())
}

/// What the API server refuses is final; everything else may go better next time.
fn transient(what: &str, error: kube::Error) -> Refusal {
    match &error {
        kube::Error::Api(status) if is_final(status) => Refusal::Denied(format!("{what}: {}", status.message)),
        kube::Error::Api(status) => Refusal::Unavailable(format!("{what}: {}", status.message)),
        _ => Refusal::Unavailable(format!("{what}: {error}")),
    }
}

fn is_final(status: &Status) -> bool {
    matches!(status.code, 400..=499) && status.code != 408 && status.code != 429
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use k8s_openapi::api::authentication::v1::UserInfo;

    fn status(authenticated: bool, audiences: Option<&[&str]>, error: &str) -> TokenReviewStatus {
        TokenReviewStatus {
            authenticated: Some(authenticated),
            audiences: audiences.map(|all| all.iter().map(ToString::to_string).collect()),
            error: Some(error.to_owned()),
            user: Some(UserInfo {
                username: Some("system:serviceaccount:shop:default".into()),
                ..Default::default()
            }),
        }
    }

    #[test]
    fn a_review_has_to_be_positive_and_for_us() {
        let ours = ["dapr.io/sentry".to_owned()];
        assert!(reviewed_user(status(true, Some(&["dapr.io/sentry"]), ""), &ours).is_ok());
        assert!(
            reviewed_user(status(true, None, ""), &ours).is_ok(),
            "old API servers name no audiences"
        );
        assert!(
            reviewed_user(status(true, Some(&["other"]), ""), &ours)
                .unwrap_err()
                .contains("audience")
        );
        assert_eq!(
            reviewed_user(status(false, None, ""), &ours).unwrap_err(),
            "authentication failed"
        );
        assert_eq!(
            reviewed_user(status(false, None, "expired"), &ours).unwrap_err(),
            "invalid token: expired"
        );
    }

    #[test]
    fn only_the_api_servers_no_is_final() {
        let api = |code| {
            kube::Error::Api(Box::new(Status {
                code,
                ..Default::default()
            }))
        };
        assert!(matches!(transient("x", api(403)), Refusal::Denied(_)));
        for code in [429, 500, 503] {
            assert!(matches!(transient("x", api(code)), Refusal::Unavailable(_)), "{code}");
        }
        assert!(matches!(
            transient("x", kube::Error::LinesCodecMaxLineLengthExceeded),
            Refusal::Unavailable(_)
        ));
    }

    /// An API server that grants pods of one namespace only, and counts what it refuses.
    fn namespaced_server(refused: Arc<AtomicUsize>) -> Client {
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let refused = refused.clone();
            async move {
                let watch = request.uri().query().is_some_and(|query| query.contains("watch="));
                let answer = match request.uri().path() {
                    "/api/v1/namespaces/dapr-system/pods" if watch => std::future::pending().await,
                    "/api/v1/namespaces/dapr-system/pods" => serde_json::json!({
                        "apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1"},
                        "items": [{"metadata": {"name": "p", "namespace": "dapr-system"}}]
                    }),
                    _ => {
                        refused.fetch_add(1, Ordering::Relaxed);
                        serde_json::json!({
                            "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden"
                        })
                    }
                };
                let status = u16::try_from(answer["code"].as_u64().unwrap_or(200)).unwrap();
                let body = kube::client::Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(http::Response::builder().status(status).body(body).unwrap())
            }
        });
        Client::new(service, "dapr-system")
    }

    #[tokio::test]
    async fn where_only_the_own_namespace_is_granted_only_that_is_watched() {
        let refused = Arc::new(AtomicUsize::new(0));
        let client = namespaced_server(refused.clone());
        let id = "spiffe://cluster.local/ns/dapr-system/dapr-sentry".parse().unwrap();
        let validator = KubernetesValidator::new(client.clone(), &id, "dapr-system");
        let clients = Clients {
            calls: client.clone(),
            watches: client,
        };
        let health = outrigger_process::health::Health::default();
        let watch = validator.watch(&clients, health.target("pods"), CancellationToken::new());
        let ready = async {
            while !health.is_ready() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            ended = watch => panic!("{ended:?}"),
            in_time = tokio::time::timeout(Duration::from_secs(60), ready) => in_time.unwrap(),
        }
        assert!(validator.pods.read().contains_key(&ObjectKey::new("dapr-system", "p")));
        assert_eq!(refused.load(Ordering::Relaxed), 1);
    }
}
