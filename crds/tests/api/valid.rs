//! Every manifest of the corpus in a real API server, and what sidecars get for it.

use std::{env, fs};

use futures::TryStreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{PostParams, WatchEvent},
    core::ObjectList,
    runtime::wait::{await_condition, conditions},
};
use outrigger_crds::{DaprResource, Guarded, definition::definitions, encode};
use tokio::sync::OnceCell;

use crate::{
    LONG,
    corpus::{self, Manifest, for_kind},
    server,
};

/// Every kind and version.
pub(crate) const KINDS: [(&str, &str); 8] = [
    ("Component", "dapr.io/v1alpha1"),
    ("Configuration", "dapr.io/v1alpha1"),
    ("HTTPEndpoint", "dapr.io/v1alpha1"),
    ("MCPServer", "dapr.io/v1alpha1"),
    ("Resiliency", "dapr.io/v1alpha1"),
    ("Subscription", "dapr.io/v1alpha1"),
    ("Subscription", "dapr.io/v2alpha1"),
    ("WorkflowAccessPolicy", "dapr.io/v1alpha1"),
];

/// Group in which `v1alpha1` of Subscription is stored as it is: in its own group the API server would ask the operator to
/// convert it, and none runs here.
const UNCONVERTED_GROUP: &str = "unconverted.dapr.io";

/// The definition of Subscription with `v1alpha1` alone.
async fn install_unconverted_subscriptions(client: &Client) {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    INSTALLED
        .get_or_init(|| async {
            let all = definitions().unwrap().into_iter().map(|(_, definition)| definition);
            let mut definition = all
                .into_iter()
                .find(|definition| definition.spec.names.kind == "Subscription")
                .unwrap();
            let name = format!("subscriptions.{UNCONVERTED_GROUP}");
            definition.metadata.name = Some(name.clone());
            definition.spec.group = UNCONVERTED_GROUP.into();
            definition.spec.conversion = None;
            definition.spec.versions.retain(|version| version.name == "v1alpha1");
            definition.spec.versions[0].storage = true;
            let api = Api::<CustomResourceDefinition>::all(client.clone());
            api.create(&PostParams::default(), &definition).await.unwrap();
            let established = await_condition(api, &name, conditions::is_crd_established());
            tokio::time::timeout(LONG, established)
                .await
                .expect("the definition is established in time")
                .unwrap();
        })
        .await;
}

/// Where a kind is stored, which for one version is not where sidecars think it is.
struct Home {
    group: &'static str,
    url: String,
}

fn home<K: DaprResource>(namespace: &str) -> Home {
    let group = match (K::KIND, K::VERSION) {
        ("Subscription", "v1alpha1") => UNCONVERTED_GROUP,
        _ => outrigger_crds::GROUP,
    };
    let url = format!("/apis/{group}/{}/namespaces/{namespace}/{}", K::VERSION, K::PLURAL);
    Home { group, url }
}

/// Creates the object of a manifest as `kubectl apply --validate=strict` has it, but in the manifest's own words.
async fn create<K: DaprResource>(client: &Client, namespace: &str, manifest: &Manifest) {
    let Home { group, url } = home::<K>(namespace);
    let yaml = fs::read_to_string(&manifest.path)
        .unwrap()
        .replace("apiVersion: dapr.io/", &format!("apiVersion: {group}/"));
    let request = http::Request::post(format!("{url}?fieldValidation=Strict"))
        .header("content-type", "application/yaml")
        .body(yaml.into_bytes())
        .unwrap();
    let created = client.request_text(request).await;
    created.unwrap_or_else(|error| panic!("{}: {error}", manifest.path.display()));
}

/// The body of a list of all objects of a kind.
pub(crate) async fn list<K: DaprResource>(client: &Client, namespace: &str) -> String {
    let Home { group, url } = home::<K>(namespace);
    let request = http::Request::get(url).body(Vec::new()).unwrap();
    let body = client.request_text(request).await.unwrap();
    body.replace(&format!("\"{group}/"), "\"dapr.io/")
}

/// The first `count` objects of a watch from the beginning.
async fn watch<K: DaprResource>(client: &Client, namespace: &str, count: usize) -> Vec<K> {
    let url = home::<K>(namespace).url;
    let request = http::Request::get(format!("{url}?watch=1&resourceVersion=0"))
        .body(Vec::new())
        .unwrap();
    let events = client.request_events::<Guarded<K>>(request).await.unwrap();
    let mut events = std::pin::pin!(events);
    let mut objects = Vec::new();
    while objects.len() < count {
        let next = tokio::time::timeout(LONG, events.try_next()).await;
        match next.expect("an event in time").unwrap().unwrap() {
            WatchEvent::Added(Guarded(object)) => objects.push(object.unwrap()),
            other => panic!("{other:?}"),
        }
    }
    objects
}

/// What sidecars get, without what every server sets differently.
fn sent<K: DaprResource>(object: &K, type_meta: bool) -> String {
    let mut object = object.clone();
    let meta = object.meta_mut();
    meta.namespace = Some("shop".into());
    meta.uid = None;
    meta.resource_version = None;
    meta.generation = None;
    meta.creation_timestamp = None;
    String::from_utf8(encode(&object, type_meta).unwrap()).unwrap()
}

/// Compares what is sent for all objects of a kind with what is recorded, or records it.
async fn as_recorded<K: DaprResource>(client: &Client, namespace: &str, manifests: &[Manifest]) {
    let body = list::<K>(client, namespace).await;
    let listed = serde_json::from_str::<ObjectList<Guarded<K>>>(&body).unwrap().items;
    let watched = watch::<K>(client, namespace, listed.len()).await;
    let mine = (K::KIND, &*K::api_version_text());
    for manifest in manifests.iter().filter(|manifest| manifest.kind() == mine) {
        let named = |object: &&K| object.meta().name.as_deref() == Some(manifest.name());
        let object = listed
            .iter()
            .map(|object| object.0.as_ref().unwrap())
            .find(named)
            .unwrap();
        let sent_whole = sent(object, true);
        let file = manifest.golden();
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, format!("{sent_whole}\n")).unwrap();
        }
        assert_eq!(sent_whole, manifest.sent(), "{}", file.display());
        assert_eq!(
            sent(watched.iter().find(named).unwrap(), true),
            sent_whole,
            "after a watch"
        );

        let types = format!(r#"{{"kind":"{}","apiVersion":"{}","#, mine.0, mine.1);
        let without_types = sent_whole.strip_prefix(&types).unwrap();
        assert_eq!(sent(object, false), format!("{{{without_types}"));
    }
}

/// A namespace with an object for each manifest.
pub(crate) async fn corpus_in_a_server() -> (Client, String, Vec<Manifest>) {
    let (client, namespace) = server("corpus").await;
    install_unconverted_subscriptions(&client).await;
    let manifests = corpus::valid();
    for manifest in &manifests {
        for_kind!(manifest.kind(), K => create::<K>(&client, &namespace, manifest).await);
    }
    (client, namespace, manifests)
}

#[tokio::test]
async fn every_valid_manifest_is_stored_and_sent_as_recorded() {
    let (client, namespace, manifests) = corpus_in_a_server().await;
    for kind in KINDS {
        for_kind!(kind, K => as_recorded::<K>(&client, &namespace, &manifests).await);
    }
}
