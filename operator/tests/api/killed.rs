//! The operator's process is killed again and again while components are edited a hundred times a second.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use kube::Api;
use outrigger_core::{SpiffeId, TrustDomain};
use outrigger_identity::Expect;
use outrigger_proto::operator::operator_client::OperatorClient;
use outrigger_testkit::ApiServer;
use parking_lot::Mutex;
use tokio::{sync::watch, time::interval};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    setup::Setup,
    support::{
        edits::{APPS, Editor, Held, agree, follow},
        soon,
    },
};

const SIDECARS_OF_EACH: usize = 4;
const KILLS: usize = 3;
/// Edits between two kills.
const EDITS: u64 = 100;
const PAUSE: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_end_with_the_right_state_however_often_the_operator_is_killed() {
    let setup = Setup::new("killed").await;
    let stop = CancellationToken::new();
    // The port of the operator, while there is one.
    let (address, port) = watch::channel(None::<u16>);
    let mut sidecars = Vec::new();
    for app in APPS.into_iter().cycle().take(APPS.len() * SIDECARS_OF_EACH) {
        let id = SpiffeId::new(TrustDomain::new("public").unwrap(), &setup.namespace, app).unwrap();
        let identity = setup.workloads.identity(id, &stop).await.unwrap();
        let held = Arc::new(Mutex::new(Held::default()));
        let (known, mut port, setup) = (held.clone(), port.clone(), setup.clone());
        let task = tokio::spawn(async move {
            let expected = Expect::Id(setup.operator_id());
            while let Ok(Some(port)) = port.wait_for(Option::is_some).await.map(|port| *port) {
                let address = format!("{}:{port}", Ipv4Addr::LOCALHOST);
                let client = OperatorClient::new(identity.channel(&address, expected.clone()).unwrap());
                follow(client, setup.namespace.clone(), app, &known).await;
            }
        });
        sidecars.push((app, held, AbortOnDropHandle::new(task)));
    }

    let client = ApiServer::shared().await.client();
    let mut editor = Editor::new(Api::namespaced(client, &setup.namespace));
    let (count, mut made) = watch::channel(0);
    let done = CancellationToken::new();
    let ended = done.clone();
    let editing = tokio::spawn(async move {
        let mut ticks = interval(PAUSE);
        while !ended.is_cancelled() {
            ticks.tick().await;
            editor.edit().await;
            count.send_modify(|count| *count += 1);
        }
        editor
    });
    let mut operator = setup.start().await;
    for _ in 0..KILLS {
        address.send_replace(Some(operator.port));
        let wanted = *made.borrow() + EDITS;
        soon("more edits", made.wait_for(|count| *count >= wanted))
            .await
            .unwrap();
        // The next one starts on what the API server has by then.
        address.send_replace(None);
        operator.kill().await;
        operator = setup.start().await;
    }
    address.send_replace(Some(operator.port));
    done.cancel();
    let mut editor = editing.await.unwrap();
    let all = || sidecars.iter().map(|(app, held, _)| (*app, &**held));
    agree(&editor, all(), "kills of the operator").await;
    editor.last().await;
    agree(&editor, all(), "the last edit").await;
    operator.kill().await;
    stop.cancel();
}
