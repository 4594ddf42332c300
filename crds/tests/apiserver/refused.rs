//! What is refused, and in which words.

use outrigger_crds::definition;
use outrigger_testkit::ApiServer;

use crate::{
    corpus::{Outcome, assert_as_expected, cases},
    server::{install, messages},
};

#[tokio::test]
async fn bad_manifests_are_refused_or_let_through_as_they_say() {
    let server = ApiServer::shared().await;
    let client = server.client();
    let _turn = crate::server::TURN.lock().await;
    install(&client, definition::definitions().unwrap()).await;
    let namespace = server.namespace("refused").await.unwrap();
    let cases = cases();
    let mut differences = Vec::new();
    for case in &cases {
        let found = messages(&client, &namespace, &case.manifest).await;
        let expected = match case.outcome {
            Outcome::Rejected => case.messages.clone(),
            Outcome::Warned => Vec::new(),
        };
        if found != expected || case.outcome == Outcome::Rejected && found.is_empty() {
            differences.push((case, found));
        }
    }
    assert_as_expected(&differences);
}
