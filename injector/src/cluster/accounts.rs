//! UIDs of service accounts that are allowed by name: a requester that presents such a UID is allowed under any user name.

use std::{collections::HashSet, time::Duration};

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, ResourceExt};

use super::{Cluster, POLL};
use crate::authorise::Account;

/// Service accounts are rarely deleted and made again.
const REFRESH: Duration = Duration::from_secs(300);

/// Reads the accounts one by one, again and again: there are a dozen, while the cluster may have thousands. Nothing waits for
/// this, and a refusal costs only this way in.
pub async fn follow(client: kube::Client, accounts: Vec<Account>, cluster: Cluster) {
    let mut warned = false;
    loop {
        let mut uids = HashSet::new();
        let mut failure = None;
        for account in &accounts {
            let api: Api<ServiceAccount> = Api::namespaced(client.clone(), &account.namespace);
            match api.get_metadata_opt(&account.name).await {
                Ok(found) => uids.extend(found.and_then(|account| account.uid())),
                Err(error) => failure = Some(error),
            }
        }
        let pause = match failure {
            // Better the last complete set than a part of it.
            Some(error) => {
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!(%error, "service accounts cannot be read: requesters are recognised by name only");
                }
                POLL
            }
            None => {
                warned = false;
                cluster.set_allowed_uids(uids);
                REFRESH
            }
        };
        tokio::time::sleep(pause).await;
    }
}
