//! Components that are edited at random, and what sidecars hold of them.

use std::collections::{BTreeMap, BTreeSet};

use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use outrigger_crds::Component;
use outrigger_proto::operator::{
    ComponentUpdateRequest, ListComponentsRequest, ResourceEventType, operator_client::OperatorClient,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::eventually;

pub(crate) const APPS: [&str; 3] = ["cart", "pay", "ship"];
const COMPONENTS: u64 = 12;

/// What a sidecar holds, and what went wrong.
#[derive(Default)]
pub(crate) struct Held {
    /// The number of the edit, by component.
    pub(crate) components: BTreeMap<String, u64>,
    /// The newest edit that an event of this stream told of, also of components that are gone.
    newest: BTreeMap<String, u64>,
    pub(crate) mistakes: Vec<String>,
    /// Events since it was told to count, without those that tell what it knows: a stream that opens late replays them.
    pub(crate) news: usize,
}

impl Held {
    /// A list may be ahead of events that are on their way, and another replica behind the one before.
    pub(crate) fn listed(&mut self, payloads: &[bytes::Bytes]) {
        self.newest.clear();
        let parsed = payloads.iter().map(|payload| parse(payload));
        self.components = parsed.map(|(name, edit, _)| (name, edit)).collect();
    }

    pub(crate) fn take(&mut self, type_: ResourceEventType, payload: &[u8], app: &str) {
        let (name, edit, scopes) = parse(payload);
        if type_ == ResourceEventType::Deleted {
            self.news += usize::from(self.components.remove(&name).is_some());
            return;
        }
        if !(scopes.is_empty() || scopes.contains(app)) {
            self.mistakes.push(format!("{name} is not for {app}"));
        }
        let newest = self.newest.entry(name.clone()).or_default();
        // The same again is what a sidecar ignores.
        if edit < *newest {
            self.mistakes.push(format!("{name} went back from {newest} to {edit}"));
        }
        *newest = edit;
        self.news += usize::from(self.components.insert(name, edit) != Some(edit));
    }
}

fn parse(payload: &[u8]) -> (String, u64, BTreeSet<String>) {
    let payload: Value = serde_json::from_slice(payload).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let scopes = payload["scopes"].as_array().into_iter().flatten().map(text).collect();
    let edit = text(&payload["spec"]["metadata"][0]["value"]).parse().unwrap();
    (text(&payload["metadata"]["name"]), edit, scopes)
}

fn component(name: &str, edit: u64, scopes: &[&str]) -> Value {
    json!({
        "apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": name}, "scopes": scopes,
        "spec": {"type": "state.redis", "version": "v1", "metadata": [{"name": "edit", "value": edit.to_string()}]},
    })
}

/// A sidecar's life with one operator: opens its stream, lists, and takes what comes until the stream ends.
pub(crate) async fn follow(mut client: OperatorClient<Channel>, namespace: String, app: &str, held: &Mutex<Held>) {
    let request = ComponentUpdateRequest {
        namespace: namespace.clone(),
    };
    if let Ok(stream) = client.component_update(request).await
        && let Ok(list) = client.list_components(ListComponentsRequest { namespace }).await
    {
        let mut stream = stream.into_inner();
        held.lock().listed(&list.into_inner().components);
        while let Ok(Some(event)) = stream.message().await {
            held.lock().take(event.r#type(), &event.component, app);
        }
    }
}

/// Waits until each of these sidecars holds what the API server has for it.
pub(crate) async fn agree<'a>(
    editor: &Editor,
    sidecars: impl Iterator<Item = (&'static str, &'a Mutex<Held>)>,
    after: &str,
) {
    for (app, held) in sidecars {
        let expected = editor.expected(app).await;
        eventually(&format!("{app} holds the right components after {after}"), || async {
            let held = held.lock();
            assert_eq!(held.mistakes, [""; 0], "{after}");
            (held.components == expected).then_some(())
        })
        .await;
    }
}

/// Edits at random, from a fixed seed.
pub(crate) struct Editor {
    pub(crate) components: Api<Component>,
    random: u64,
    edit: u64,
}

impl Editor {
    pub(crate) fn new(components: Api<Component>) -> Self {
        Self {
            components,
            random: 0x2545_f491_4f6c_dd1d,
            edit: 0,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        // xorshift
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    /// The API server may be away, and then nothing changes.
    pub(crate) async fn edit(&mut self) {
        self.edit += 1;
        let name = format!("c{}", self.below(COMPONENTS));
        if self.below(6) == 0 {
            let _ = self.components.delete(&name, &DeleteParams::default()).await;
            return;
        }
        let scopes: &[&str] = match self.below(4) {
            0 => &[],
            1 => &APPS[..1],
            2 => &APPS[1..],
            _ => &APPS[..2],
        };
        let params = PatchParams::apply("test").force();
        let component = component(&name, self.edit, scopes);
        let _ = self.components.patch(&name, &params, &Patch::Apply(&component)).await;
    }

    /// Creates one more, for everyone.
    pub(crate) async fn last(&mut self) {
        self.edit += 1;
        let params = PatchParams::apply("test").force();
        let component = component("last", self.edit, &[]);
        let patch = Patch::Apply(&component);
        self.components.patch("last", &params, &patch).await.unwrap();
    }

    /// What an app should hold.
    pub(crate) async fn expected(&self, app: &str) -> BTreeMap<String, u64> {
        let list = self.components.list(&ListParams::default()).await.unwrap();
        let payloads = list
            .items
            .iter()
            .map(|component| parse(&serde_json::to_vec(component).unwrap()));
        payloads
            .filter(|(_, _, scopes)| scopes.is_empty() || scopes.contains(app))
            .map(|(name, edit, _)| (name, edit))
            .collect()
    }
}
