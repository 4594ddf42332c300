//! Sidecars follow components while watches are cut, requests refused, the API server and the operator replaced. In the end
//! each holds what the API server has for it, and no stream has ever gone back to an older version.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kube::{Api, api::DeleteParams};
use outrigger_testkit::FaultyApiServer;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    fixture::{Faults, ONE_SERVER, Operator, apply_crds},
    support::edits::{APPS, Editor, Held, agree, follow},
};

const SIDECARS_OF_EACH: usize = 4;
const EDITS_OF_A_ROUND: usize = 60;
/// Seconds for which the API server is away; `make prove` takes a minute.
const AWAY: &str = "OUTRIGGER_API_SERVER_AWAY";

async fn round(editor: &mut Editor) {
    for _ in 0..EDITS_OF_A_ROUND {
        editor.edit().await;
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
        let (known, mut operators) = (held.clone(), operators.clone());
        let task = tokio::spawn(async move {
            let id = format!("spiffe://public/ns/default/{app}");
            loop {
                let current = operators.borrow_and_update().clone();
                if let Some(client) = current.server.try_client(&id).await {
                    drop(current);
                    follow(client, "default".into(), app, &known).await;
                }
                tokio::task::yield_now().await;
            }
        });
        sidecars.push((app, held, tokio_util::task::AbortOnDropHandle::new(task)));
    }
    let mut editor = Editor::new(Api::namespaced(api_server.client(), "default"));
    let agree = async |editor: &Editor, after: &str| {
        let sidecars = sidecars.iter().map(|(app, held, _)| (*app, &**held));
        agree(editor, sidecars, after).await;
    };
    round(&mut editor).await;
    agree(&editor, "edits").await;

    faults.cut_watches();
    round(&mut editor).await;
    agree(&editor, "a cut").await;

    faults.busy.store(true, Ordering::SeqCst);
    faults.cut_watches();
    round(&mut editor).await;
    faults.busy.store(false, Ordering::SeqCst);
    agree(&editor, "429s").await;

    // What the interrupted watches would go on from is forgotten: they list again.
    faults.busy.store(true, Ordering::SeqCst);
    faults.cut_watches();
    round(&mut editor).await;
    api_server.compact().await.unwrap();
    round(&mut editor).await;
    faults.busy.store(false, Ordering::SeqCst);
    agree(&editor, "a compaction").await;

    api_server.stop().await.unwrap();
    round(&mut editor).await;
    let away = env::var(AWAY).map_or(0, |seconds| seconds.parse().unwrap());
    tokio::time::sleep(Duration::from_secs(away)).await;
    api_server.start_again().await.unwrap();
    round(&mut editor).await;
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
    let mut editor = editing.await.unwrap();
    agree(&editor, "replacements of the operator").await;

    // Listing again without a change is no news to anyone.
    sidecars.iter().for_each(|(_, held, _)| held.lock().news = 0);
    faults.busy.store(true, Ordering::SeqCst);
    faults.cut_watches();
    api_server.compact().await.unwrap();
    faults.busy.store(false, Ordering::SeqCst);
    // Nothing can be awaited that must not happen; this edit comes after it.
    editor.components.delete("c0", &DeleteParams::default()).await.ok();
    editor.last().await;
    agree(&editor, "the last edit").await;
    for (app, held, _) in &sidecars {
        let news = held.lock().news;
        assert!(news <= 2, "{app} was told {news} things, and c0 and last are two");
    }
}
