//! Definitions and requests.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
    core::response::StatusCause,
    runtime::wait::{await_condition, conditions},
};
use outrigger_crds::definition::Definitions;
use serde_json::Value;

/// Puts the definitions into the server and waits until they are served. Nobody serves conversions here.
pub(crate) async fn install(client: &Client, definitions: Definitions) {
    let crds = Api::<CustomResourceDefinition>::all(client.clone());
    let how = PatchParams::apply("test").force();
    for (_, mut definition) in definitions {
        definition.spec.conversion = None;
        let name = definition.metadata.name.clone().unwrap();
        crds.patch(&name, &how, &Patch::Apply(&definition)).await.unwrap();
        await_condition(crds.clone(), &name, conditions::is_crd_established())
            .await
            .unwrap();
    }
}

/// The definitions under another group, so that a test can change them and disturb no other.
pub(crate) fn under(group: &str, mut definitions: Definitions) -> Definitions {
    for (_, definition) in &mut definitions {
        definition.metadata.name = Some(format!("{}.{group}", definition.spec.names.plural));
        definition.spec.group = group.to_owned();
    }
    definitions
}

/// The API that a manifest belongs to.
pub(crate) fn api_of(client: &Client, namespace: &str, manifest: &Value) -> Api<DynamicObject> {
    let kind = manifest["kind"].as_str().unwrap();
    let (group, version) = manifest["apiVersion"].as_str().unwrap().split_once('/').unwrap();
    let plural = match kind {
        "WorkflowAccessPolicy" => "workflowaccesspolicies".to_owned(),
        "Resiliency" => "resiliencies".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    let gvk = GroupVersionKind::gvk(group, version, kind);
    Api::namespaced_with(
        client.clone(),
        namespace,
        &ApiResource::from_gvk_with_plural(&gvk, &plural),
    )
}

/// Asks whether the server would take the object: its messages, each after its field, when it would not.
pub(crate) async fn messages(client: &Client, namespace: &str, manifest: &Value) -> Vec<String> {
    let how = PostParams {
        dry_run: true,
        ..Default::default()
    };
    let object = serde_json::from_value(manifest.clone()).unwrap();
    match api_of(client, namespace, manifest).create(&how, &object).await {
        Ok(_) => Vec::new(),
        Err(kube::Error::Api(status)) => {
            let causes = status.details.map(|details| details.causes).unwrap_or_default();
            // Beside an error in the structure the server says that it did not go on to the rules.
            let own = causes.iter().filter(|cause| cause.field != "<nil>");
            let mut texts: Vec<String> = own.map(text).collect();
            if texts.is_empty() {
                texts.push(status.message);
            }
            texts
        }
        Err(error) => panic!("{error}"),
    }
}

fn text(cause: &StatusCause) -> String {
    format!("{}: {}", cause.field, cause.message)
}
