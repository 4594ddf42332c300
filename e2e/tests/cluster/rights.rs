//! Rights are what the control plane needs, no less and no more, by what the API server logged while all other tests ran: so
//! these come last.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, ensure};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject};
use kube::{Api, ResourceExt, api::ListParams};
use outrigger_e2e::cluster::Folder;
use serde::Deserialize;

use crate::frame::{NAME, World, tests};

tests![
    the_control_plane_may_do_all_that_it_asked_for,
    the_control_plane_asked_for_all_that_it_may_do,
];

const NAMESPACE: &str = "dapr-system";
const ACCOUNTS: [&str; 3] = ["dapr-injector", "dapr-operator", "dapr-sentry"];

/// A line of the API server's audit log.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    user: User,
    verb: String,
    /// Absent for requests that are about no resource.
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

/// Account, verb, and resource with its group.
type Use = (String, String, String);

impl Request {
    /// An object that an apply creates needs both rights.
    fn uses(&self) -> Vec<Use> {
        let (Some(object), Some(account)) = (&self.object_ref, account(&self.user.username)) else {
            return Vec::new();
        };
        let created = self.verb == "patch" && self.response_status.as_ref().is_some_and(|status| status.code == 201);
        let verbs = [self.verb.as_str()].into_iter().chain(created.then_some("create"));
        let resource = match object.subresource.as_str() {
            "" => object.resource.clone(),
            subresource => format!("{}/{subresource}", object.resource),
        };
        let resource = format!("{}/{resource}", object.api_group);
        verbs
            .map(|verb| (account.to_owned(), verb.to_owned(), resource.clone()))
            .collect()
    }

    /// By RBAC, and not because a namespace is about to go.
    fn was_refused(&self) -> bool {
        let decision = self.annotations.get("authorization.k8s.io/decision");
        decision.is_some_and(|decision| decision == "forbid")
    }
}

/// The account of the control plane that a user is.
fn account(user: &str) -> Option<&str> {
    let name = user.strip_prefix("system:serviceaccount:")?.strip_prefix(NAMESPACE)?;
    ACCOUNTS
        .into_iter()
        .find(|account| name.strip_prefix(':') == Some(*account))
}

/// What the control plane asked for.
fn requests() -> anyhow::Result<Vec<Request>> {
    let log = Folder::of(NAME)?.logs().join("audit.log");
    let text = fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
    let mut requests = Vec::new();
    // The last line may not be complete.
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        if line.contains("\"system:serviceaccount:dapr-system:") {
            let request: Request = serde_json::from_str(line)?;
            requests.extend(account(&request.user.username).is_some().then_some(request));
        }
    }
    Ok(requests)
}

async fn the_control_plane_may_do_all_that_it_asked_for(_: World) -> anyhow::Result<()> {
    let requests = requests()?;
    for account in ACCOUNTS {
        let asked = requests.iter().flat_map(Request::uses).any(|(who, ..)| who == account);
        ensure!(asked, "{account} asked for nothing");
    }
    let refused = requests.iter().filter(|request| request.was_refused());
    let refused: BTreeSet<_> = refused.flat_map(Request::uses).collect();
    ensure!(refused.is_empty(), "refused: {refused:?}");
    Ok(())
}

async fn the_control_plane_asked_for_all_that_it_may_do(world: World) -> anyhow::Result<()> {
    let asked: BTreeSet<_> = requests()?.iter().flat_map(Request::uses).collect();
    let granted = granted(&world).await?;
    ensure!(!granted.is_empty(), "nothing is granted");
    let unused: Vec<_> = granted.difference(&asked).filter(|right| !is_rare(right)).collect();
    ensure!(unused.is_empty(), "granted, and never used: {unused:?}");
    Ok(())
}

/// Used in situations that no test here brings about.
fn is_rare((account, verb, resource): &Use) -> bool {
    match (account.as_str(), verb.as_str()) {
        // The API server itself looks at it, where an object is given an owner that blocks its deletion.
        ("dapr-operator", "update") => resource.ends_with("/finalizers"),
        // After a status that could not be written.
        ("dapr-operator", "get") => resource.starts_with("dapr.io/"),
        // A root is renewed or about to expire.
        ("dapr-sentry", "create" | "patch") => resource == "events.k8s.io/events",
        // A pod is so new that the watch has not shown it.
        ("dapr-sentry", "get") => resource == "/pods",
        _ => false,
    }
}

async fn granted(world: &World) -> anyhow::Result<BTreeSet<Use>> {
    let client = &world.seen.client;
    let all = ListParams::default();
    let mut granted = BTreeSet::new();
    for binding in Api::<ClusterRoleBinding>::all(client.clone()).list(&all).await? {
        for account in accounts(&binding.subjects) {
            let role = Api::<ClusterRole>::all(client.clone())
                .get(&binding.role_ref.name)
                .await?;
            granted.extend(of_rules(account, &role.rules));
        }
    }
    for binding in Api::<RoleBinding>::all(client.clone()).list(&all).await? {
        for account in accounts(&binding.subjects) {
            let roles: Api<Role> = Api::namespaced(client.clone(), &binding.namespace().unwrap_or_default());
            let role = roles.get(&binding.role_ref.name).await?;
            granted.extend(of_rules(account, &role.rules));
        }
    }
    Ok(granted)
}

fn accounts(subjects: &Option<Vec<Subject>>) -> impl Iterator<Item = &'static str> {
    let subjects = subjects.iter().flatten();
    subjects.filter_map(|subject| {
        let ours = subject.kind == "ServiceAccount" && subject.namespace.as_deref() == Some(NAMESPACE);
        ACCOUNTS.into_iter().find(|account| ours && subject.name == *account)
    })
}

fn of_rules(account: &str, rules: &Option<Vec<PolicyRule>>) -> Vec<Use> {
    let mut uses = Vec::new();
    for rule in rules.iter().flatten() {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let resource = format!("{group}/{resource}");
                uses.extend(
                    rule.verbs
                        .iter()
                        .map(|verb| (account.to_owned(), verb.clone(), resource.clone())),
                );
            }
        }
    }
    uses
}
