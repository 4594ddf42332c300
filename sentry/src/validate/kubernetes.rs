//! Grants a pod the identity that its annotations entitle it to, when it presents its service account's token.

use std::{collections::HashSet, sync::Arc, time::Duration};

use kube::{Api, Client, core::Status};
use outrigger_core::{SpiffeId, TrustDomain, control_plane::PUBLIC_TRUST_DOMAIN};
use outrigger_process::{
    health::Health,
    kubernetes::{client::Clients, watch::ObjectKey},
};
use outrigger_proto::sentry::SignCertificateRequest;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    Refusal, Validated,
    cache::Cache,
    check_request,
    configuration::{self, Configuration},
    expected::{Entitled, PodFacts, entitled},
    pod::Pod,
    review, token,
};

/// Reviews in flight at once, each over a connection of its own. More would only queue up in the API server.
const REVIEWS: usize = 32;
/// Requests that wait for a review. Beyond that a caller is better off trying again.
const WAITING: usize = 8192;
/// A caller gives up after three seconds; work for it after that would be in vain.
const DEADLINE: Duration = Duration::from_millis(2800);
/// The audience that upstream's first releases used.
const LEGACY_AUDIENCE: &str = "dapr.io/sentry";

/// Validates service account tokens.
pub(crate) struct KubernetesValidator {
    client: Client,
    trust_domain: TrustDomain,
    namespace: String,
    audiences: Vec<String>,
    /// Service accounts that pods of the control plane may run under; empty means any.
    control_plane_accounts: HashSet<String>,
    pods: Cache<PodFacts>,
    /// Trust domains of Configurations.
    trust_domains: Cache<String>,
    reviews: Semaphore,
    waiting: Semaphore,
}

impl KubernetesValidator {
    /// `id` is sentry's own, which is the audience of the tokens it accepts.
    pub(crate) fn new(client: Client, id: &SpiffeId, namespace: &str, control_plane_accounts: HashSet<String>) -> Self {
        Self {
            client,
            trust_domain: id.trust_domain().clone(),
            namespace: namespace.to_owned(),
            // The order is upstream's, and visible in the request.
            audiences: vec![LEGACY_AUDIENCE.to_owned(), id.to_string()],
            control_plane_accounts,
            pods: Cache::default(),
            trust_domains: Cache::default(),
            reviews: Semaphore::new(REVIEWS),
            waiting: Semaphore::new(WAITING),
        }
    }

    /// The task that keeps the facts about pods and Configurations.
    pub(crate) fn watch(
        &self,
        clients: &Clients,
        health: &Health,
        stop: CancellationToken,
    ) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let pods = self.pods.clone().follow::<Pod>(
            clients.clone(),
            self.namespace.clone(),
            PodFacts::of,
            health.target("sentry-kubernetes-validator"),
        );
        let configurations = self.trust_domains.clone().follow::<Configuration>(
            clients.clone(),
            self.namespace.clone(),
            configuration::trust_domain,
            health.target("sentry-kubernetes-validator-configurations"),
        );
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = async { tokio::join!(pods, configurations); } => {}
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
        if matches!(entitled, Entitled::ControlPlane(_))
            && !self.control_plane_accounts.is_empty()
            && !self.control_plane_accounts.contains(account)
        {
            return Err(Refusal::Denied(format!(
                "service account '{account}' is not one of --control-plane-service-accounts"
            )));
        }
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
        let _place = self
            .waiting
            .try_acquire()
            .map_err(|_| Refusal::Unavailable("too many requests are waiting for a token review".to_owned()))?;
        let _slot = self
            .reviews
            .acquire()
            .await
            .map_err(|_| Refusal::Unavailable("sentry is stopping".to_owned()))?;
        let status = review::ask(&self.client, token, &self.audiences).await;
        let status = status.map_err(|error| transient("token review failed", error))?;
        status.user(&self.audiences).map_err(Refusal::Denied)
    }

    /// From the watch, or from the API server where the watch does not know the pod yet or knows another of its name.
    async fn pod(&self, key: &ObjectKey, uid: Option<&str>) -> Result<Arc<PodFacts>, Refusal> {
        let is_the_one = |facts: &PodFacts| uid.is_none() || facts.uid.is_none() || facts.uid.as_deref() == uid;
        if let Some(facts) = self.pods.get(key).filter(|facts| is_the_one(facts)) {
            return Ok(facts);
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

    /// The trust domain that the app's Configuration gives it.
    async fn configured_trust_domain(&self, namespace: &str, name: &str) -> Result<TrustDomain, Refusal> {
        let configured = match self.trust_domains.get(&ObjectKey::new(namespace, name)) {
            Some(known) => known.as_str().to_owned(),
            None => {
                let api: Api<Configuration> = Api::namespaced(self.client.clone(), namespace);
                let found = api.get_opt(name).await;
                let found = found.map_err(|error| transient("failed to get configuration", error))?;
                let missing = || format!("failed to get configuration: {namespace}/{name} does not exist");
                configuration::trust_domain(&found.ok_or_else(|| Refusal::Denied(missing()))?)
            }
        };
        let trust_domain = match configured.as_str() {
            "" => PUBLIC_TRUST_DOMAIN,
            configured => configured,
        };
        TrustDomain::new(trust_domain).map_err(|error| {
            Refusal::Denied(format!(
                "failed to parse trust domain of configuration {namespace}/{name}: {error}"
            ))
        })
    }
}

/// What the API server says about the request is final. Everything else may go better next time: also that sentry itself is not
/// allowed to ask, since roles are often bound moments after the pod has started.
fn transient(what: &str, error: kube::Error) -> Refusal {
    match &error {
        kube::Error::Api(status) if is_final(status) => Refusal::Denied(format!("{what}: {}", status.message)),
        kube::Error::Api(status) => Refusal::Unavailable(format!("{what}: {}", status.message)),
        _ => Refusal::Unavailable(format!("{what}: {error}")),
    }
}

fn is_final(status: &Status) -> bool {
    matches!(status.code, 400 | 404 | 413 | 422)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn only_what_the_api_server_says_about_the_request_is_final() {
        let api = |code| {
            kube::Error::Api(Box::new(Status {
                code,
                ..Default::default()
            }))
        };
        assert!(matches!(transient("x", api(422)), Refusal::Denied(_)));
        for code in [401, 403, 409, 429, 500, 503] {
            assert!(matches!(transient("x", api(code)), Refusal::Unavailable(_)), "{code}");
        }
        assert!(matches!(
            transient("x", kube::Error::LinesCodecMaxLineLengthExceeded),
            Refusal::Unavailable(_)
        ));
    }

    /// An API server that grants one namespace only, until it is told to grant more, and counts what it refuses.
    #[derive(Clone, Default)]
    struct Grants {
        everywhere: Arc<AtomicBool>,
        refused: Arc<AtomicUsize>,
    }

    impl Grants {
        fn client(self) -> Client {
            let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
                let grants = self.clone();
                async move {
                    let watch = request.uri().query().is_some_and(|query| query.contains("watch="));
                    let own = request.uri().path().contains("/namespaces/dapr-system/");
                    let asks = request.uri().path().ends_with("/selfsubjectaccessreviews");
                    let (status, answer) = if asks {
                        let allowed = grants.everywhere.load(Ordering::Relaxed);
                        (201, serde_json::json!({"spec": {}, "status": {"allowed": allowed}}))
                    } else if !own && !grants.everywhere.load(Ordering::Relaxed) {
                        grants.refused.fetch_add(1, Ordering::Relaxed);
                        (
                            403,
                            serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403}),
                        )
                    } else if watch {
                        std::future::pending().await
                    } else {
                        let namespace = if own { "dapr-system" } else { "shop" };
                        let item = serde_json::json!({
                            "metadata": {"name": "p", "namespace": namespace},
                            "spec": {"containers": [], "accessControl": {"trustDomain": "bank"}}
                        });
                        (
                            200,
                            serde_json::json!({"metadata": {"resourceVersion": "1"}, "items": [item]}),
                        )
                    };
                    let body = kube::client::Body::from(answer.to_string().into_bytes());
                    Ok::<_, Infallible>(http::Response::builder().status(status).body(body).unwrap())
                }
            });
            Client::new(service, "dapr-system")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_own_namespace_is_watched_until_the_cluster_is_granted() {
        let grants = Grants::default();
        let client = grants.clone().client();
        let id = "spiffe://cluster.local/ns/dapr-system/dapr-sentry".parse().unwrap();
        let validator = KubernetesValidator::new(client.clone(), &id, "dapr-system", HashSet::new());
        let clients = Clients {
            calls: client.clone(),
            watches: client,
        };
        let health = Health::default();
        let watch = validator.watch(&clients, &health, CancellationToken::new());
        // Time is paused: it passes when nothing else is left to do.
        let knows = async |namespace: &str| {
            let key = ObjectKey::new(namespace, "p");
            while validator.pods.get(&key).is_none() || validator.trust_domains.get(&key).is_none() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let story = async {
            knows("dapr-system").await;
            assert!(health.is_ready());
            assert_eq!(grants.refused.load(Ordering::Relaxed), 2, "one for each kind");
            let domain = validator.trust_domains.get(&ObjectKey::new("dapr-system", "p"));
            assert_eq!(domain.as_deref().map(String::as_str), Some("bank"));
            grants.everywhere.store(true, Ordering::Relaxed);
            knows("shop").await;
        };
        tokio::select! {
            ended = watch => panic!("{ended:?}"),
            in_time = tokio::time::timeout(Duration::from_secs(600), story) => in_time.unwrap(),
        }
    }

    /// Never answers.
    fn silent() -> KubernetesValidator {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, Infallible>>()
        });
        let id = "spiffe://cluster.local/ns/dapr-system/dapr-sentry".parse().unwrap();
        KubernetesValidator::new(Client::new(service, "x"), &id, "dapr-system", HashSet::new())
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_a_client_does_and_more_than_can_be_served_are_sent_away() {
        let validator = silent();
        let request = SignCertificateRequest {
            id: "cart".into(),
            namespace: "shop".into(),
            token: "x".into(),
            certificate_signing_request: b"csr".as_slice().into(),
            ..Default::default()
        };
        let began = tokio::time::Instant::now();
        let asked = (0..=WAITING).map(|_| validator.validate(&request));
        let answers = futures::future::join_all(asked).await;
        assert_eq!(
            began.elapsed(),
            DEADLINE,
            "as one after the other they would take hours"
        );
        let told = |text: &str| {
            let refusals = answers.iter().filter_map(|answer| answer.as_ref().err());
            refusals
                .filter(|refusal| matches!(refusal, Refusal::Unavailable(said) if said == text))
                .count()
        };
        assert_eq!(told("the API server did not answer in time"), WAITING);
        assert_eq!(told("too many requests are waiting for a token review"), 1);
    }
}
