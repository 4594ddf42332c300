//! What tests put into the server before they begin: namespaces and custom resource definitions.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt};

use super::{ApiServer, Error};

const ESTABLISHED_DEADLINE: Duration = Duration::from_secs(60);

impl ApiServer {
    /// A new namespace `PREFIX-xxxxx` with the service account `default`, so that Pods are admitted.
    pub async fn namespace(&self, prefix: &str) -> Result<String, Error> {
        let client = self.client();
        let failed = |source| Error::Request {
            what: format!("create a namespace {prefix}-*"),
            source: Box::new(source),
        };
        let namespace = Namespace {
            metadata: ObjectMeta {
                generate_name: Some(format!("{prefix}-")),
                ..Default::default()
            },
            ..Default::default()
        };
        let created = Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await;
        let name = created.map_err(failed)?.name_any();
        // The controller manager's work, which does not run here.
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some("default".into()),
                ..Default::default()
            },
            ..Default::default()
        };
        let accounts = Api::<ServiceAccount>::namespaced(client, &name);
        accounts
            .create(&PostParams::default(), &account)
            .await
            .map_err(failed)?;
        Ok(name)
    }

    /// Applies every custom resource definition in the `.yaml` files of a folder and waits until all are served. Tests may
    /// call it at the same time.
    pub async fn apply_crds(&self, folder: &Path) -> Result<(), Error> {
        let client = self.client();
        let definitions = Api::<CustomResourceDefinition>::all(client.clone());
        let mut names = Vec::new();
        for definition in read_definitions(folder)? {
            let name = definition["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let how = PatchParams::apply("outrigger-testkit").force();
            // As JSON: a typed object would drop fields that this build does not know.
            definitions
                .patch(&name, &how, &Patch::Apply(&definition))
                .await
                .map_err(|source| Error::Request {
                    what: format!("apply {name}"),
                    source: Box::new(source),
                })?;
            names.push(name);
        }
        for name in names {
            wait_until_established(&client, &name).await?;
        }
        Ok(())
    }
}

async fn wait_until_established(client: &Client, name: &str) -> Result<(), Error> {
    let established = await_condition(Api::all(client.clone()), name, conditions::is_crd_established());
    match tokio::time::timeout(ESTABLISHED_DEADLINE, established).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Error::NotEstablished(name.to_owned())),
    }
}

fn read_definitions(folder: &Path) -> Result<Vec<serde_json::Value>, Error> {
    let unreadable = |path: &Path, reason: String| Error::Manifest {
        path: path.to_owned(),
        reason,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, error.to_string()))? {
        let path = entry.map_err(|error| unreadable(folder, error.to_string()))?.path();
        if path.extension() == Some(OsStr::new("yaml")) {
            files.push(path);
        }
    }
    files.sort();
    let mut definitions = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, error.to_string()))?;
        let documents: Vec<serde_json::Value> =
            serde_saphyr::from_multiple(&text).map_err(|error| unreadable(&file, error.to_string()))?;
        definitions.extend(
            documents
                .into_iter()
                .filter(|document| document["kind"] == "CustomResourceDefinition"),
        );
    }
    if definitions.is_empty() {
        return Err(unreadable(
            folder,
            "no CustomResourceDefinition in its .yaml files".into(),
        ));
    }
    Ok(definitions)
}
