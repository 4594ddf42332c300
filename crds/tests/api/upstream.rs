//! Upstream's own types and Go's own encoder as the judge of what is recorded for the corpus.

use std::process::Stdio;

use kube::Client;
use outrigger_crds::{DaprResource, decode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{
    corpus::{Manifest, for_kind},
    folder,
    valid::{KINDS, corpus_in_a_server, list},
};

/// The objects of a kind in the API server's own words, each with the manifest that it comes from.
async fn stored<'a, K: DaprResource>(
    client: &Client,
    namespace: &str,
    manifests: &'a [Manifest],
) -> Vec<(&'a Manifest, String)> {
    #[derive(Deserialize)]
    struct List {
        items: Vec<Box<RawValue>>,
    }
    let List { items } = serde_json::from_str(&list::<K>(client, namespace).await).unwrap();
    let mine = (K::KIND, &*K::api_version_text());
    let stored = items.iter().map(|item| {
        let object: K = decode(item.get()).unwrap();
        let name = object.meta().name.as_deref();
        let mut manifests = manifests.iter().filter(|manifest| manifest.kind() == mine);
        let manifest = manifests.find(|manifest| Some(manifest.name()) == name).unwrap();
        (manifest, item.get().to_owned())
    });
    stored.collect()
}

/// What upstream sends for each object.
async fn sent_by_upstream(objects: impl Iterator<Item = &str>) -> Vec<String> {
    let mut lines = String::new();
    for object in objects {
        lines.push_str(object);
        lines.push('\n');
    }
    let mut program = Command::new("go")
        .args(["run", "."])
        .current_dir(folder("tests/upstream"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = program.stdin.take().unwrap();
    let feed = async move { input.write_all(lines.as_bytes()).await };
    let (fed, output) = tokio::join!(feed, program.wait_with_output());
    let output = output.unwrap();
    assert!(output.status.success(), "its messages are above");
    fed.unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
#[ignore = "builds upstream's types with Go, from the module proxy; `make prove` runs it"]
async fn upstream_sends_what_is_recorded() {
    let (client, namespace, manifests) = corpus_in_a_server().await;
    let mut objects = Vec::new();
    for kind in KINDS {
        objects.extend(for_kind!(kind, K => stored::<K>(&client, &namespace, &manifests).await));
    }
    let sent = sent_by_upstream(objects.iter().map(|(_, json)| json.as_str())).await;
    assert_eq!((objects.len(), sent.len()), (manifests.len(), manifests.len()));
    let mut different = Vec::new();
    for ((manifest, _), upstream) in objects.iter().zip(sent) {
        let recorded = manifest.sent();
        if upstream != recorded {
            different.push(format!(
                "{}\nupstream: {upstream}\nrecorded: {recorded}",
                manifest.path.display()
            ));
        }
    }
    assert!(
        different.is_empty(),
        "{} differ\n{}",
        different.len(),
        different.join("\n")
    );
}
