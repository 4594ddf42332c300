//! Sidecars follow components while watches are cut, requests refused, the API server and the operator replaced. In the end
//! each holds what the API server has for it, and no stream has ever gone back to an older version.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use outrigger_crds::Component;
use outrigger_proto::operator::{ComponentUpdateRequest, ListComponentsRequest, ResourceEventType};
use outrigger_testkit::FaultyApiServer;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    fixture::{Faults, ONE_SERVER, Operator, apply_crds},
    support::eventually,
};

const APPS: [&str; 3] = ["cart", "pay", "ship"];
const SIDECARS_OF_EACH: usize = 4;
const COMPONENTS: u64 = 12;
const EDITS_OF_A_ROUND: usize = 60;

/// What a sidecar holds, and what went wrong.
#[derive(Default)]
struct Held {
    /// The number of the edit, by component.
    components: BTreeMap<String, u64>,
    /// The newest edit that an event of this stream told of, also of components that are gone.
    newest: BTreeMap<String, u64>,
    mistakes: Vec<String>,
    /// Events since it was told to count, without those that tell what it knows: a stream that opens late replays them.
    news: usize,
}

impl Held {
    /// A list may be ahead of events that are on their way, and another replica behind the one before.
    fn listed(&mut self, payloads: &[bytes::Bytes]) {
        self.newest.clear();
        let parsed = payloads.iter().map(|payload| parse(payload));
        self.components = parsed.map(|(name, edit, _)| (name, edit)).collect();
    }

    fn take(&mut self, type_: ResourceEventType, payload: &[u8], app: &str) {
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

/// A sidecar: opens its stream, lists, takes what comes, and begins anew when the stream ends.
async fn follow(app: &'static str, mut operator: watch::Receiver<Arc<Operator>>, held: Arc<Mutex<Held>>) {
    let id = format!("spiffe://public/ns/default/{app}");
    loop {
        let current = operator.borrow_and_update().clone();
        if let Some(mut client) = current.server.try_client(&id).await {
            drop(current);
            let namespace = "default".to_owned();
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
        tokio::task::yield_now().await;
    }
}

/// Edits at random, from a fixed seed.
struct Editor {
    components: Api<Component>,
    random: u64,
    edit: u64,
}

impl Editor {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    async fn edit(&mut self) {
        self.edit += 1;
        let name = format!("c{}", self.below(COMPONENTS));
        // The API server may be away, and then nothing changes.
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
        let component = json!({
            "apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": name}, "scopes": scopes,
            "spec": {"type": "state.redis", "version": "v1", "metadata": [{"name": "edit", "value": self.edit.to_string()}]},
        });
        let params = PatchParams::apply("test").force();
        let _ = self.components.patch(&name, &params, &Patch::Apply(&component)).await;
    }

    async fn round(&mut self) {
        for _ in 0..EDITS_OF_A_ROUND {
            self.edit().await;
        }
    }

    /// What an app should hold.
    async fn expected(&self, app: &str) -> BTreeMap<String, u64> {
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

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_end_with_the_right_state_whatever_happens() {
    let _one = ONE_SERVER.acquire().await;
    let api_server = FaultyApiServer::start().await.unwrap();
    apply_crds(&api_server).await;
    let faults = Faults::default();
    let (operator, operators) = watch::channel(Arc::new(Operator::start(&api_server, &faults).await));
    let mut sidecars = Vec::new();
    for app in APPS.into_iter().cycle().take(APPS.len() * SIDECARS_OF_EACH) {
        let held = Arc::new(Mutex::new(Held::default()));
        let task = tokio::spawn(follow(app, operators.clone(), held.clone()));
        sidecars.push((app, held, tokio_util::task::AbortOnDropHandle::new(task)));
    }
    let mut editor = Editor {
        components: Api::namespaced(api_server.client(), "default"),
        random: 0x2545_f491_4f6c_dd1d,
        edit: 0,
    };
    let agree = async |editor: &Editor, after: &str| {
        for app in APPS {
            let expected = editor.expected(app).await;
            for (_, held, _) in sidecars.iter().filter(|(other, ..)| *other == app) {
                eventually(&format!("{app} holds the right components after {after}"), || async {
                    let held = held.lock();
                    assert_eq!(held.mistakes, [""; 0], "{after}");
                    (held.components == expected).then_some(())
                })
                .await;
            }
        }
    };
    editor.round().await;
    agree(&editor, "edits").await;

    faults.cut_watches();
    editor.round().await;
    agree(&editor, "a cut").await;

    faults.busy.store(true, Ordering::SeqCst);
    faults.cut_watches();
    editor.round().await;
    faults.busy.store(false, Ordering::SeqCst);
    agree(&editor, "429s").await;

    // What the interrupted watches would go on from is forgotten: they list again.
    faults.busy.store(true, Ordering::SeqCst);
    faults.cut_watches();
    editor.round().await;
    api_server.compact().await.unwrap();
    editor.round().await;
    faults.busy.store(false, Ordering::SeqCst);
    agree(&editor, "a compaction").await;

    api_server.stop().await.unwrap();
    editor.round().await;
    api_server.start_again().await.unwrap();
    editor.round().await;
    agree(&editor, "the API server's absence").await;

    // Replaced while edits go on.
    let going_on = Arc::new(AtomicBool::new(true));
    let editing = tokio::spawn({
        let going_on = going_on.clone();
        async move {
            while going_on.load(Ordering::SeqCst) {
                editor.edit().await;
            }
            editor
        }
    });
    for _ in 0..3 {
        let new = Operator::start(&api_server, &faults).await;
        drop(operator.send_replace(Arc::new(new)));
    }
    going_on.store(false, Ordering::SeqCst);
    let editor = editing.await.unwrap();
    agree(&editor, "replacements of the operator").await;

    // Listing again without a change is no news to anyone.
    sidecars.iter().for_each(|(_, held, _)| held.lock().news = 0);
    faults.busy.store(true, Ordering::SeqCst);
    faults.cut_watches();
    api_server.compact().await.unwrap();
    faults.busy.store(false, Ordering::SeqCst);
    // Nothing can be awaited that must not happen; this edit comes after it.
    editor.components.delete("c0", &DeleteParams::default()).await.ok();
    let last = json!({
        "apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": "last"},
        "spec": {"type": "state.redis", "version": "v1", "metadata": [{"name": "edit", "value": "1"}]},
    });
    let params = PatchParams::apply("test");
    editor
        .components
        .patch("last", &params, &Patch::Apply(&last))
        .await
        .unwrap();
    agree(&editor, "the last edit").await;
    for (app, held, _) in &sidecars {
        let news = held.lock().news;
        assert!(news <= 2, "{app} was told {news} things, and c0 and last are two");
    }
}
